/** What hono-upstash.js and hono-upstash-tuned.js share; they differ in how they look. */
import { env } from "cloudflare:workers";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis/cloudflare";
import { Hono } from "hono";
import { getSignedCookie, setSignedCookie } from "hono/cookie";
import { createMiddleware } from "hono/factory";

const TTL = 1800;
const COOKIE = { path: "/", httpOnly: true, secure: true, sameSite: "Lax", maxAge: TTL };

const redis = Redis.fromEnv(env);
const ratelimit = new Ratelimit({ redis, limiter: Ratelimit.slidingWindow(1_000_000_000, "1 m") });

/** @param {string} id */
export const limit = (id) => ratelimit.limit(id);

/** @param {string} id */
export const read = (id) => redis.get(`session:${id}`);

/**
 * @param {(id: string) => Promise<[verdict: any, data: any]>} look asks for the limit and reads the session
 */
export function createApp(look) {
  const session = createMiddleware(async (c, next) => {
    const id = await getSignedCookie(c, env.SESSION_SECRET, "session");
    if (!id) return c.json({ error: "no session" }, 401);
    const [{ success, limit, remaining, reset, pending }, data] = await look(id);
    c.executionCtx.waitUntil(pending);
    c.header("X-RateLimit-Limit", String(limit));
    c.header("X-RateLimit-Remaining", String(remaining));
    c.header("X-RateLimit-Reset", String(reset));
    if (!success) return c.json({ error: "too many requests" }, 429);
    if (!data) return c.json({ error: "no session" }, 401);
    c.set("id", id);
    c.set("session", data);
    await next();
  });

  const app = new Hono();

  app.post("/session", async (c) => {
    const id = crypto.randomUUID();
    const data = await c.req.json();
    await redis.set(`session:${id}`, data, { ex: TTL });
    await setSignedCookie(c, "session", id, env.SESSION_SECRET, COOKIE);
    return c.json({ session: data });
  });

  app.get("/session", session, (c) => c.json({ session: c.get("session") }));

  app.post("/session/increment", session, async (c) => {
    const { field, by } = await c.req.json();
    const data = c.get("session");
    data[field] += by;
    await redis.set(`session:${c.get("id")}`, data, { ex: TTL });
    return c.json({ session: data });
  });

  return app;
}
