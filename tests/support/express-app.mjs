/**
 * An application of Express, express-session and connect-redis, as their tutorials have it: a visit counter, a login with a
 * dashboard, a cart; and routes that let a test look into the session and hold a request while it has the session.
 *
 * The packages are the real ones, of which package.json has them for these tests: `connect-redis` 9 with `redis`, and 8,
 * under the name of `connect-redis-8`, with `ioredis`, which 9 does not take any more.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { RedisStore } from "connect-redis";
import { RedisStore as RedisStore8 } from "connect-redis-8";
import express from "express";
import session from "express-session";
import { Redis } from "ioredis";
import { createClient } from "redis";
import { Visitor } from "./visitor.mjs";

/** @typedef {Awaited<ReturnType<typeof startExpressApp>>} ExpressApp */
/** @typedef {"redis" | "ioredis"} ClientName  `redis` with connect-redis 9, `ioredis` with connect-redis 8 */
/**
 * Options of express-session and of connect-redis, whose types are packages of their own.
 * @typedef {Record<string, any>} Options
 */

/** How tutorials keep the user in the session, by the `cookie.user_pointer` that finds it there. */
export const USERS = {
  "/userId": (/** @type {any} */ session, /** @type {string} */ name) => (session.userId = name),
  "/user": (/** @type {any} */ session, /** @type {string} */ name) =>
    (session.user = { id: name, name: name.toUpperCase(), roles: ["editor"], email: `${name}@example.com` }),
  "/passport/user": (/** @type {any} */ session, /** @type {string} */ name) =>
    (session.passport = { user: name }),
};

/** The tutorials' secret. */
export const SECRET = "keyboard cat";

/**
 * @param {object} options
 * @param {string} options.socket  where Valkey listens
 * @param {ClientName} [options.client]
 * @param {Options} [options.session]  of express-session
 * @param {Options} [options.store]  of connect-redis
 * @param {keyof typeof USERS} [options.user]  where a login puts the user
 * @param {number} [options.port]
 */
export async function startExpressApp({
  socket,
  client: clientName = "redis",
  session: sessionOptions = {},
  store: storeOptions = {},
  user = "/userId",
  port = 0,
}) {
  const client = await connect(clientName, socket);
  const Store = clientName === "redis" ? RedisStore : RedisStore8;
  const store = new Store({ client: client.commands, ...storeOptions });

  /** @type {{ arrive: () => void, opened: Promise<void> } | undefined} */
  let gate;
  const app = express();
  app.use(
    session({
      secret: SECRET,
      resave: false,
      saveUninitialized: false,
      ...sessionOptions,
      store,
    }),
  );
  app.use(express.json());

  app.get("/", (request, response) => {
    const kept = request.session;
    kept.views = (kept.views ?? 0) + 1;
    response.json({ views: kept.views });
  });

  app.post("/login", (request, response, next) => {
    request.session.regenerate((/** @type {unknown} */ error) => {
      if (error) return next(error);
      USERS[user](request.session, request.body.name);
      // As the tutorials do, so that the session is there before the page that the answer redirects to asks for it.
      request.session.save((/** @type {unknown} */ error) =>
        error ? next(error) : response.json({ ok: true }),
      );
    });
  });
  // Without `regenerate`, as careless applications do.
  app.post("/login/in-place", (request, response) => {
    USERS[user](request.session, request.body.name);
    response.json({ ok: true });
  });
  app.get("/dashboard", (request, response) => {
    const { userId, user, passport } = request.session;
    const found = userId ?? user ?? passport?.user;
    if (found === undefined) response.status(401).json({ error: "log in first" });
    else response.json({ user: found });
  });
  app.post("/logout", (request, response, next) => {
    request.session.destroy((/** @type {unknown} */ error) => {
      if (error) return next(error);
      response.clearCookie(sessionOptions.name ?? "connect.sid");
      response.status(204).end();
    });
  });

  app.get("/cart", (request, response) => {
    response.json(request.session.cart ?? []);
  });
  app.post("/cart", (request, response) => {
    const kept = request.session;
    (kept.cart ??= []).push(request.body.item);
    response.json(kept.cart);
  });

  /** The session, as the application sees it, and its id; looking changes nothing. */
  app.get("/session", (request, response) => {
    response.json({ id: request.sessionID, data: request.session });
  });
  /** Sets members of the session. */
  app.put("/session", (request, response) => {
    Object.assign(request.session, request.body);
    response.json(request.session);
  });
  /** Code of a test's own, with the session. */
  app.post("/run/:name", (request, response, next) => {
    Promise.resolve(scripts.get(request.params.name)?.(request, response))
      .then(() => response.headersSent || response.json(request.session ?? null))
      .catch(next);
  });
  /** Has the session until the test lets go of it, and then writes it. */
  app.post("/slow", async (request, response) => {
    const held = gate;
    assert.ok(held, "call hold() first");
    held.arrive();
    await held.opened;
    Object.assign(request.session, request.body);
    response.json(request.session);
  });
  /** @type {import("express").ErrorHandler} Express knows it by its four arguments. */
  const answerError = (error, _request, response, _next) => {
    errors.push(error);
    response.status(500).json({ error: error.message });
  };
  app.use(answerError);

  /** @type {Error[]} */
  const errors = [];
  /** @type {Map<string, (request: any, response: any) => unknown>} */
  const scripts = new Map();
  const server = app.listen(port, "127.0.0.1");
  await once(server, "listening");
  const address = /** @type {import("node:net").AddressInfo} */ (server.address());
  const url = `http://127.0.0.1:${address.port}`;
  return {
    url,
    port: address.port,
    /** What the routes and the store have thrown. */
    errors,
    store,
    visitor: () => new Visitor(url),
    /**
     * Lets a visitor run this in the application, with the session; the answer is the session after it.
     * @param {Visitor} visitor
     * @param {(request: any, response: any) => unknown} script
     */
    async run(visitor, script) {
      const name = String(scripts.size);
      scripts.set(name, script);
      return visitor.send("POST", `/run/${name}`);
    },
    /** The next request to `/slow` waits there. */
    hold() {
      let release = () => {};
      let arrive = () => {};
      const arrived = new Promise((/** @type {(nothing: void) => void} */ resolve) => (arrive = resolve));
      const opened = new Promise((/** @type {(nothing: void) => void} */ resolve) => (release = resolve));
      gate = { arrive, opened };
      return { arrived, release };
    },
    async stop() {
      if (!server.listening) return;
      server.close();
      server.closeAllConnections();
      await once(server, "close");
      client.close();
    },
  };
}

/**
 * @param {ClientName} name
 * @param {string} socket
 * @returns {Promise<{ commands: any, close(): void }>}
 */
async function connect(name, socket) {
  if (name === "ioredis") {
    const client = new Redis({ path: socket, lazyConnect: true });
    client.on("error", () => {}); // the sender of a command gets the error
    await client.connect();
    return { commands: client, close: () => client.disconnect() };
  }
  const client = createClient({ socket: { path: socket, tls: false, reconnectStrategy: false } });
  client.on("error", () => {});
  await client.connect();
  return { commands: client, close: () => client.destroy() };
}
