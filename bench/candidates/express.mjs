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

app.post("/session", express.json(), (request, response) => {
  request.session.data = request.body;
  response.json({ session: request.session.data });
});

app.use((request, response, next) => {
  if (request.session.data) next();
  else response.status(401).json({ error: "no session" });
});
app.use(
  rateLimit({
    windowMs: 60_000,
    limit: 1_000_000_000,
    standardHeaders: true,
    legacyHeaders: false,
    keyGenerator: (/** @type {any} */ request) => request.sessionID,
    store: new LimitStore({
      sendCommand: (/** @type {string[]} */ ...command) => client.sendCommand(command),
    }),
  }),
);

app.get("/session", (request, response) => {
  response.json({ session: request.session.data });
});

app.post("/session/increment", express.json(), (request, response) => {
  const { field, by } = request.body;
  request.session.data[field] += by;
  response.json({ session: request.session.data });
});

app.listen(Number(port), "127.0.0.1");
