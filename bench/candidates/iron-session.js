/**
 * iron-session, which keeps the session itself encrypted in the cookie, and @upstash/ratelimit. No store knows of the
 * session: a read costs less, but a change is lost when two overlap, and a logout cannot be enforced.
 */
import { env } from "cloudflare:workers";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis/cloudflare";
import { getIronSession, webCookies } from "iron-session";
import { isRight } from "./password.js";

const redis = Redis.fromEnv(env);
const ratelimit = new Ratelimit({ redis, limiter: Ratelimit.slidingWindow(1_000_000_000, "1 m") });

export default {
  /** @param {Request} request @param {any} env @param {any} context */
  async fetch(request, env, context) {
    const headers = new Headers();
    const session = await getIronSession(webCookies(request, headers), {
      password: env.SESSION_SECRET,
      cookieName: "session",
    });
    const { pathname } = new URL(request.url);

    const begins = request.method === "POST" && pathname === "/session";
    if (!begins && !session.id) return Response.json({ error: "no session" }, { status: 401, headers });

    const whom = begins ? request.headers.get("CF-Connecting-IP") : session.id;
    const { success, limit, remaining, reset, pending } = await ratelimit.limit(whom);
    context.waitUntil(pending);
    headers.set("X-RateLimit-Limit", String(limit));
    headers.set("X-RateLimit-Remaining", String(remaining));
    headers.set("X-RateLimit-Reset", String(reset));
    if (!success) return Response.json({ error: "too many requests" }, { status: 429, headers });

    if (begins) {
      session.id = crypto.randomUUID();
      session.data = await request.json();
      await session.save();
      return Response.json({ session: session.data }, { headers });
    }
    if (request.method === "GET" && pathname === "/session") {
      return Response.json({ session: session.data }, { headers });
    }
    if (request.method === "POST" && pathname === "/session/increment") {
      const { field, by } = await request.json();
      session.data = { ...session.data, [field]: session.data[field] + by };
      await session.save();
      return Response.json({ session: session.data }, { headers });
    }
    if (request.method === "POST" && pathname === "/login") {
      const { username, password } = await request.json();
      const account = await redis.get(`account:${username}`);
      if (!(await isRight(password, account))) {
        return Response.json({ error: "wrong name or password" }, { status: 401, headers });
      }
      session.id = crypto.randomUUID();
      session.data = { ...session.data, user: account.id };
      await session.save();
      return Response.json({ session: session.data }, { headers });
    }
    return Response.json({ error: "not found" }, { status: 404 });
  },
};
