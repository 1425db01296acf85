/**
 * hono-upstash.js by somebody who tunes it: the limit is asked for and the session read at the same time. They stay two
 * calls, as the client's automatic pipelining keeps reads and writes (scripts among them) apart.
 */
import { createApp, limit, read } from "./upstash-app.js";

export default createApp((id) => Promise.all([limit(id), read(id)]));
