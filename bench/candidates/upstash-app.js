/** What hono-upstash.js and hono-upstash-tuned.js share; they differ in what they ask for at the same time. */
import { env } from "cloudflare:workers";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis/cloudflare";
import { Hono } from "hono";
import { getSignedCookie, setSignedCookie } from "hono/cookie";
import { createMiddleware } from "hono/factory";
import { isRight } from "./password.js";

const TTL = 1800;
const COOKIE = { path: "/", httpOnly: true, secure: true, sameSite: "Lax", maxAge: TTL };

const redis = Redis.fromEnv(env);
const ratelimit = new Ratelimit({ redis, limiter: Ratelimit.slidingWindow(1_000_000_000, "1 m") });

/** @param {string} id */
export const limit = (id) => ratelimit.limit(id);

/** @param {string} id */
export const read = (id) => redis.get(`session:${id}`);

/** @param {string} id @param {any} data */
export const write = (id, data) => redis.set(`session:${id}`, data, { ex: TTL });

/** @param {string} id */
export const remove = (id) => redis.del(`session:${id}`);

/** Whether the limit lets it through; the answer says how it stands. @param {any} c @param {any} verdict */
function passes(c, { success, limit, remaining, reset, pending }) {
  c.executionCtx.waitUntil(pending);
  c.header("X-RateLimit-Limit", String(limit));
  c.header("X-RateLimit-Remaining", String(remaining));
  c.header("X-RateLimit-Reset", String(reset));
  return success;
}

/** @param {any} c @param {string} id */
const give = (c, id) => setSignedCookie(c, "session", id, env.SESSION_SECRET, COOKIE);

/**
 * @param {object} calls
 * @param {(id: string) => Promise<[verdict: any, data: any]>} calls.look asks for the limit and reads the session
 * @param {(old: string, id: string, data: any) => Promise<unknown>} calls.renew gives the session a new id, and this data
 */
export function createApp({ look, renew }) {
  const session = createMiddleware(async (c, next) => {
    const id = await getSignedCookie(c, env.SESSION_SECRET, "session");
    if (!id) return c.json({ error: "no session" }, 401);
    const [verdict, data] = await look(id);
    if (!passes(c, verdict)) return c.json({ error: "too many requests" }, 429);
    if (!data) return c.json({ error: "no session" }, 401);
    c.set("id", id);
    c.set("session", data);
    await next();
  });

  const app = new Hono();

  app.post("/session", async (c) => {
    const verdict = await limit(c.req.header("CF-Connecting-IP"));
    if (!passes(c, verdict)) return c.json({ error: "too many requests" }, 429);
    const id = crypto.randomUUID();
    const data = await c.req.json();
    await write(id, data);
    await give(c, id);
    return c.json({ session: data });
  });

  app.get("/session", session, (c) => c.json({ session: c.get("session") }));

  app.post("/session/increment", session, async (c) => {
    const { field, by } = await c.req.json();
    const data = c.get("session");
    data[field] += by;
    await write(c.get("id"), data);
    return c.json({ session: data });
  });

  app.post("/login", session, async (c) => {
    const { username, password } = await c.req.json();
    const account = await redis.get(`account:${username}`);
    if (!(await isRight(password, account))) return c.json({ error: "wrong name or password" }, 401);
    const id = crypto.randomUUID();
    const data = { ...c.get("session"), user: account.id };
    await renew(c.get("id"), id, data);
    await give(c, id);
    return c.json({ session: data });
  });

  return app;
}
