/**
 * The application of the tutorials: Express with express-session on connect-redis. It counts visits, has a cart, lets one
 * user log in, and knows nothing of Cloakroom but the address that its page's script calls.
 */
import { RedisStore } from "connect-redis";
import express from "express";
import session from "express-session";
import { createClient } from "redis";

const { PORT = "3000", REDIS_URL, REDIS_SOCKET, SESSION_SECRET = "" } = process.env;
const CLOAKROOM = process.env.CLOAKROOM ?? "http://localhost:8787";
const COOKIE = "connect.sid";
const WEEK_MS = 7 * 24 * 60 * 60 * 1000;

/** One user, so that there is something to log in as; a real application looks into its database. */
const USERS = { ann: "coat check" };
const GOODS = ["coat", "hat", "scarf"];

// 1. The sessions, as connect-redis' page shows it.
const client = createClient(REDIS_SOCKET ? { socket: { path: REDIS_SOCKET } } : { url: REDIS_URL });
client.on("error", (error) => console.error("Redis:", error.message));
await client.connect();

const app = express();
app.use(
  session({
    name: COOKIE,
    secret: SESSION_SECRET.split(","), // the first signs, all verify: as the Worker's SESSION_SECRET
    store: new RedisStore({ client }), // keys: sess:<id>
    resave: false, // a session that was not changed is not written, so that nobody's change is overwritten
    saveUninitialized: false,
    cookie: { maxAge: WEEK_MS, sameSite: "lax" }, // behind TLS: secure: true
  }),
);
app.use(express.urlencoded({ extended: false }));

// 2. The pages.
app.get("/", (request, response) => {
  request.session.views = (request.session.views ?? 0) + 1;
  response.send(page(request.session));
});

app.post("/login", (request, response, next) => {
  const { username = "", password = "" } = request.body ?? {};
  if (!Object.hasOwn(USERS, username) || USERS[username] !== password) {
    return response.status(401).send("Wrong name or password.");
  }
  // A new id, so that nobody who knew the old one is logged in with it.
  request.session.regenerate((error) => {
    if (error) return next(error);
    request.session.userId = username;
    // Saved before the browser asks for the next page.
    request.session.save((error) => (error ? next(error) : response.redirect(303, "/dashboard")));
  });
});

app.get("/dashboard", (request, response) => {
  const { userId } = request.session;
  if (!userId) return response.status(401).send("Log in first.");
  response.send(`Hello ${userId}! <a href="/">Back</a>`);
});

app.post("/logout", (request, response, next) => {
  request.session.destroy((error) => {
    if (error) return next(error);
    response.clearCookie(COOKIE).redirect(303, "/");
  });
});

app.get("/cart", (request, response) => {
  response.json(cartOf(request.session));
});

app.post("/cart", (request, response) => {
  const { item } = request.body ?? {};
  if (!GOODS.includes(item)) return response.status(422).send("We have no such thing.");
  request.session.cart = [...cartOf(request.session), item];
  response.redirect(303, "/");
});

app.listen(Number(PORT), "127.0.0.1", (error) => {
  if (error) throw error;
  console.log(`Express is at    http://localhost:${PORT}`);
});

/**
 * What we have of it. The Worker's configuration lets visitors change the cart (`writable`), so that it is their own words,
 * like a form; nothing else in the session is.
 */
function cartOf({ cart = [] }) {
  return [cart].flat().filter((item) => GOODS.includes(item));
}

/** Nothing in it is a visitor's own words, so that nothing needs to be escaped. */
function page(session) {
  const { views, userId } = session;
  return `<!doctype html>
<meta charset="utf-8"><title>A shop</title>
<h1>Visits: ${views}</h1>
<p>In your cart: ${cartOf(session).join(", ") || "nothing"}</p>
<form method="post" action="/cart">
  ${GOODS.map((item) => `<button name="item" value="${item}">Add a ${item}</button>`).join(" ")}
</form>
${
  userId
    ? `<form method="post" action="/logout"><a href="/dashboard">Dashboard</a> <button>Log out</button></form>`
    : `<form method="post" action="/login">
  <input name="username" value="ann"> <input name="password" type="password" value="coat check"> <button>Log in</button>
</form>`
}
<h2>The same session, at Cloakroom</h2>
<button id="hat">Add a hat there</button> <button id="leave">Log out there</button>
<pre id="session"></pre>
<script type="module">
  const show = async (response) => {
    document.querySelector("#session").textContent = JSON.stringify((await response.json()).session, null, 2);
  };
  const call = (path, options) => fetch("${CLOAKROOM}/auth" + path, { credentials: "include", ...options });
  document.querySelector("#hat").onclick = async () => {
    // The first one makes the list: https://www.rfc-editor.org/rfc/rfc6902
    const { session } = await (await call("/session")).json();
    const operation = session?.data.cart
      ? { op: "add", path: "/cart/-", value: "hat" }
      : { op: "add", path: "/cart", value: ["hat"] };
    const headers = { "Content-Type": "application/json-patch+json" };
    await show(await call("/session/data", { method: "PATCH", headers, body: JSON.stringify([operation]) }));
  };
  document.querySelector("#leave").onclick = async () => {
    await call("/session", { method: "DELETE" });
    location.reload();
  };
  await show(await call("/session"));
</script>`;
}
