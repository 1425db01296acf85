/** A gateway whose users log in with others: the way there and back from a page that needs a login, and what the origin sees. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { makeKey, partsOf } from "./support/jwt.mjs";
import { CLIENT, startProvider } from "./support/oidc-provider.mjs";
import { moveClocks, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const MINUTE = 60_000;
/** The clock of the provider, which runs in this process. */
const realNow = Date.now;
let ahead = 0;
Date.now = () => realNow() + ahead;

const acme = await startProvider();
/** What has reached the origin. @type {import("node:http").IncomingMessage[]} */
let seen = [];
const origin = createServer((request, response) => {
  seen.push(request);
  response.end("the origin's");
});
/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;

before(async () => {
  await new Promise((done) => origin.listen(0, "127.0.0.1", () => done(undefined)));
  const address = origin.address();
  const rule = (/** @type {string} */ path, /** @type {string} */ require, to = "/auth/login/acme") => ({
    path,
    require,
    on_refused: `redirect:${to}`,
  });
  both = await startBoth({
    settings: {
      accounts: { providers: [{ id: "acme", issuer: acme.issuer, client_id: CLIENT.client_id }] },
      session: { fresh_for: "5m", rotate_every: "1h" },
      gateway: {
        origin: `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`,
        identity: "both",
        rules: [
          rule("/app*", "user"),
          rule("/bills*", "fresh"),
          rule("/safe*", "fresh", "/auth/login/acme?fresh=1"),
          rule("/own*", "user", "/login"),
        ],
      },
    },
    secrets: {
      PROVIDER_ACME_SECRET: CLIENT.client_secret,
      JWT_KEYS: JSON.stringify([makeKey("ES256", "key-1")]),
    },
  });
  acme.open([`${both.worker.url}/auth/callback/acme`]);
});
after(async () => {
  await both?.stop();
  acme.stop();
  origin.closeAllConnections();
  origin.close();
});
beforeEach(() => {
  seen = [];
});

/** As a browser opens a page. @param {Visitor} visitor @param {string} path */
const navigate = (visitor, path) => visitor.send("GET", path, { headers: { "Sec-Fetch-Mode": "navigate" } });

/** @param {Answer} answer */
const locationOf = (answer) => {
  assert.equal(answer.status, 303, answer.text);
  return String(answer.headers.get("location"));
};

/** From a page that is refused to the provider, and back. @param {Visitor} visitor @param {string} path @param {string} [as] */
async function logIn(visitor, path, as = "ada", browser = acme.browser()) {
  const login = locationOf(await navigate(visitor, path));
  const provider = locationOf(await navigate(visitor, login));
  const callback = await browser.follow(provider, { as });
  return { login, back: locationOf(await navigate(visitor, callback)) };
}

const pass = (/** @type {number} */ milliseconds) => {
  ahead += milliseconds;
  return moveClocks(both.store, [both.worker], milliseconds);
};

for (const [as, user] of [
  ["ada", "acme%3Aada"],
  ["google|104:x,y", "acme%3Agoogle%7C104%3Ax%2Cy"],
  ["Žofie 李", "acme%3A%C5%BDofie%20%E6%9D%8E"],
]) {
  test(`a page leads to the provider and back, and the origin sees ${as}`, async () => {
    const visitor = both.worker.visitor();
    const { login, back } = await logIn(visitor, "/app/x?y=1&z=%2f", as);
    assert.equal(login, "/auth/login/acme?return_to=%2Fapp%2Fx%3Fy%3D1%26z%3D%252f");
    assert.equal(back, "/app/x?y=1&z=%2f");
    assert.deepEqual([(await navigate(visitor, back)).text, seen[0].url], ["the origin's", back]);

    const { headers } = seen[0];
    const name = encodeURIComponent(`${as} of Acme`);
    assert.deepEqual([headers["x-session-user"], headers["x-session-name"]], [user, name]);
    const { claims } = partsOf(String(headers["x-session-jwt"]));
    assert.deepEqual([claims.sub, claims.name, claims.roles], [`acme:${as}`, `${as} of Acme`, []]);
    assert.equal(
      claims.auth_time,
      Math.floor(Date.parse(String(headers["x-session-authenticated-at"])) / 1000),
    );

    // A proxy in front of another application asks for the same.
    const verified = await visitor.send("GET", "/auth/verify");
    assert.deepEqual(
      ["user", "name", "roles"].map((part) => verified.headers.get(`x-session-${part}`)),
      [user, name, null],
    );
  });
}

test("a login that has failed is not begun again at once, over and over", async () => {
  const visitor = both.worker.visitor();
  const provider = locationOf(await navigate(visitor, locationOf(await navigate(visitor, "/app?x=1"))));
  const callback = await acme.browser().follow(provider, { cancel: true });
  const back = locationOf(await navigate(visitor, callback));
  assert.equal(back, "/app?x=1&login_error=access_denied");
  const answer = await navigate(visitor, back);
  assert.deepEqual([answer.status, answer.json.code, seen.length], [401, "unauthenticated", 0]);
  assert.match(answer.json.detail, /^this login has failed, and login_error in the address says why/);
  // An address that only looks like it; and a login page of the application's own, which shows what has happened.
  assert.match(locationOf(await navigate(visitor, "/app?my_login_error=1")), /^\/auth\/login\/acme\?/);
  assert.match(locationOf(await navigate(visitor, "/own?login_error=access_denied")), /^\/login\?/);
});

for (const [path, login] of [
  ["/bills/7", "/auth/login/acme?fresh=1&return_to=%2Fbills%2F7"],
  ["/safe", "/auth/login/acme?fresh=1&return_to=%2Fsafe"],
]) {
  test(`${path} needs a recent login: the provider is told to ask anew, not to say again what it knows`, async () => {
    const visitor = both.worker.visitor();
    const browser = acme.browser();
    await logIn(visitor, "/app", "ada", browser);
    assert.equal((await navigate(visitor, path)).text, "the origin's");
    await pass(6 * MINUTE);
    assert.equal((await navigate(visitor, "/app")).text, "the origin's", "it is old, and lives");
    const again = await logIn(visitor, path, "ada", browser);
    assert.deepEqual([again.login, again.back, browser.asked], [login, path, 2]);
    assert.equal((await navigate(visitor, path)).text, "the origin's");
  });
}

test("a way back that is too long for a cookie is cut to what is not", async () => {
  const long = "x".repeat(600);
  for (const [path, way] of [
    [`/app/a?q=${long}`, "%2Fapp%2Fa"],
    [`/app/${long}`, "%2F"],
  ]) {
    const visitor = both.worker.visitor();
    const login = locationOf(await navigate(visitor, path));
    assert.equal(login, `/auth/login/acme?return_to=${way}`);
    locationOf(await navigate(visitor, login));
  }
  // A login page of the application's own may keep it as it likes.
  assert.ok(locationOf(await navigate(both.worker.visitor(), `/own?q=${long}`)).endsWith(long));
});

test("a provider that is down leaves who is logged in where they are, and others with a word", async () => {
  const ada = both.worker.visitor();
  await logIn(ada, "/app");
  acme.stop();
  await pass(61 * MINUTE); // what is known of the provider is forgotten
  const visitor = both.worker.visitor();
  const back = locationOf(await navigate(visitor, locationOf(await navigate(visitor, "/app"))));
  assert.equal(back, "/app?login_error=provider_unavailable");
  assert.equal((await navigate(visitor, back)).status, 401);
  assert.equal((await navigate(ada, "/app")).text, "the origin's");
});
