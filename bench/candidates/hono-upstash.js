/**
 * Hono with its signed cookies, @upstash/redis and @upstash/ratelimit, as their documentation shows them. A change
 * reads the session and writes it back.
 */
import { createApp, limit, read, remove, write } from "./upstash-app.js";

export default createApp({
  async look(id) {
    const verdict = await limit(id);
    return [verdict, verdict.success ? await read(id) : undefined];
  },
  async renew(old, id, data) {
    await write(id, data);
    await remove(old);
  },
});
