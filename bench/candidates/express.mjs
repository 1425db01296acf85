/**
 * Not at the edge, for reference: Express, express-session on connect-redis, express-rate-limit on rate-limit-redis,
 * over Redis' own protocol and one kept connection. `node express.mjs PORT SOCKET`
 */
import { RedisStore as SessionStore } from "connect-redis";
import express from "express";
import { rateLimit } from "express-rate-limit";
import session from "express-session";
import { RedisStore as LimitStore } from "rate-limit-redis";
import { createClient } from "redis";
import { isRight } from "./password.js";

const [port, path] = process.argv.slice(2);
const client = createClient({ socket: { path } });
client.on("error", (/** @type {Error} */ error) => console.error(error));
await client.connect();

const app = express();
app.use(
  session({
    store: new SessionStore({ client }),
    secret: process.env.SESSION_SECRET,
    resave: false,
    saveUninitialized: false,
    cookie: { maxAge: 1_800_000 },
  }),
);

/** @param {string} prefix @param {object} [options] */
const limited = (prefix, options) =>
  rateLimit({
    windowMs: 60_000,
    limit: 1_000_000_000,
    standardHeaders: true,
    legacyHeaders: false,
    store: new LimitStore({
      prefix,
      sendCommand: (/** @type {string[]} */ ...command) => client.sendCommand(command),
    }),
    ...options,
  });

app.post("/session", limited("rl:address:"), express.json(), (request, response) => {
  request.session.data = request.body;
  response.json({ session: request.session.data });
});

app.use((request, response, next) => {
  if (request.session.data) next();
  else response.status(401).json({ error: "no session" });
});
app.use(limited("rl:", { keyGenerator: (/** @type {any} */ request) => request.sessionID }));

app.get("/session", (request, response) => {
  response.json({ session: request.session.data });
});

app.post("/session/increment", express.json(), (request, response) => {
  const { field, by } = request.body;
  request.session.data[field] += by;
  response.json({ session: request.session.data });
});

app.post("/login", express.json(), async (request, response, next) => {
  const { username, password } = request.body;
  const account = JSON.parse(await client.get(`account:${username}`));
  if (!(await isRight(password, account))) {
    return response.status(401).json({ error: "wrong name or password" });
  }
  const { data } = request.session;
  request.session.regenerate((/** @type {unknown} */ error) => {
    if (error) return next(error);
    request.session.data = { ...data, user: account.id };
    response.json({ session: request.session.data });
  });
});

app.listen(Number(port), "127.0.0.1");
