/**
 * hono-sessions with a store on @upstash/redis (its documentation shows how to write one), and @upstash/ratelimit. A
 * store's methods are the four calls of Redis that they are named after.
 */
import { env } from "cloudflare:workers";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis/cloudflare";
import { Hono } from "hono";
import { sessionMiddleware } from "hono-sessions";
import { isRight } from "./password.js";

const TTL = 1800;
const redis = Redis.fromEnv(env);
const ratelimit = new Ratelimit({ redis, limiter: Ratelimit.slidingWindow(1_000_000_000, "1 m") });

/** @param {string} id @param {unknown} data */
const save = (id, data) => redis.set(`session:${id}`, data, { ex: TTL });
const store = {
  getSessionById: (/** @type {string} */ id) => redis.get(`session:${id}`),
  createSession: save,
  persistSessionData: save,
  deleteSession: (/** @type {string} */ id) => redis.del(`session:${id}`),
};

const app = new Hono();

app.use(
  "*",
  sessionMiddleware({
    store,
    encryptionKey: env.SESSION_SECRET,
    expireAfterSeconds: TTL,
    cookieOptions: { sameSite: "Lax", path: "/", httpOnly: true },
  }),
);

/** Whether the limit lets it through; the answer says how it stands. @param {any} c @param {string} id */
async function passes(c, id) {
  const { success, limit, remaining, reset, pending } = await ratelimit.limit(id);
  c.executionCtx.waitUntil(pending);
  c.header("X-RateLimit-Limit", String(limit));
  c.header("X-RateLimit-Remaining", String(remaining));
  c.header("X-RateLimit-Reset", String(reset));
  return success;
}

app.post("/session", async (c) => {
  if (!(await passes(c, c.req.header("CF-Connecting-IP"))))
    return c.json({ error: "too many requests" }, 429);
  const data = await c.req.json();
  c.get("session").set("data", data);
  return c.json({ session: data });
});

/** @type {import("hono").Handler} */
const limited = async (c, next) => {
  const session = c.get("session");
  if (!session.get("data")) return c.json({ error: "no session" }, 401);
  if (!(await passes(c, session.getCache()._id))) return c.json({ error: "too many requests" }, 429);
  await next();
};
app.use("/session/*", limited);
app.use("/login", limited);

app.get("/session", (c) => c.json({ session: c.get("session").get("data") }));

app.post("/session/increment", async (c) => {
  const { field, by } = await c.req.json();
  const session = c.get("session");
  const data = session.get("data");
  session.set("data", { ...data, [field]: data[field] + by });
  return c.json({ session: session.get("data") });
});

app.post("/login", async (c) => {
  const { username, password } = await c.req.json();
  const account = await redis.get(`account:${username}`);
  if (!(await isRight(password, account))) return c.json({ error: "wrong name or password" }, 401);
  const session = c.get("session");
  session.set("data", { ...session.get("data"), user: account.id });
  c.set("session_key_rotation", true);
  return c.json({ session: session.get("data") });
});

export default app;
