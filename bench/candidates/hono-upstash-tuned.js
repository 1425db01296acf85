/**
 * hono-upstash.js by somebody who tunes it: the limit is asked for and the session read at the same time. They stay two
 * calls, as the client's automatic pipelining keeps reads and writes (scripts among them) apart. What a login writes is
 * one.
 */
import { createApp, limit, read, remove, write } from "./upstash-app.js";

export default createApp({
  look: (id) => Promise.all([limit(id), read(id)]),
  renew: (old, id, data) => Promise.all([write(id, data), remove(old)]),
});
