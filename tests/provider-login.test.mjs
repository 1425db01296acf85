/** Logging in with a real OpenID provider: the way there and back, as a browser goes it. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { CLIENT, startProvider } from "./support/oidc-provider.mjs";
import { NO_LIMITS, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/oidc-provider.mjs").RealProvider} RealProvider */

/** One for each algorithm. Their clocks stay: the Worker's goes at most a minute before the last tests. */
const providers = await Promise.all([startProvider(), startProvider(), startProvider()]);
const [acme, other, third] = providers;
/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;

const settingsOf = (/** @type {string} */ id, /** @type {RealProvider} */ { issuer }) => ({
  id,
  issuer,
  client_id: CLIENT.client_id,
  label: id.toUpperCase(),
});

before(async () => {
  both = await startBoth({
    settings: {
      accounts: {
        providers: [settingsOf("acme", acme), settingsOf("other", other), settingsOf("third", third)],
      },
      limits: NO_LIMITS,
    },
    secrets: {
      PROVIDER_ACME_SECRET: CLIENT.client_secret,
      PROVIDER_OTHER_SECRET: CLIENT.client_secret,
      PROVIDER_THIRD_SECRET: CLIENT.client_secret,
    },
  });
  acme.open([`${both.worker.url}/auth/callback/acme`]);
  other.open([`${both.worker.url}/auth/callback/other`], { algorithm: "ES256", claims: true });
  third.open([`${both.worker.url}/auth/callback/third`], { algorithm: "EdDSA" });
});
after(async () => {
  await both?.stop();
  for (const provider of providers) provider.stop();
});

const someone = () => both.worker.visitor();

/** Begins a login. @param {Visitor} visitor @param {string} [query] @returns {Promise<string>} the provider's address */
async function begin(visitor, query = "?return_to=/home", id = "acme") {
  const answer = await visitor.send("GET", `/auth/login/${id}${query}`);
  assert.equal(answer.status, 303, answer.text);
  assert.equal(answer.headers.get("cache-control"), "no-store, no-transform");
  return String(answer.headers.get("location"));
}

/** Goes all the way. @param {Visitor} visitor */
async function logIn(
  visitor,
  { query = "?return_to=/home", id = "acme", as = "ada", browser = acme.browser() } = {},
) {
  const back = await browser.follow(await begin(visitor, query, id), { as });
  return visitor.send("GET", back);
}

/** @param {import("./support/visitor.mjs").Answer} answer @param {string} location */
function assertSentTo(answer, location) {
  assert.deepEqual([answer.status, answer.headers.get("location")], [303, location], answer.text);
}

for (const [algorithm, id, provider] of /** @type {const} */ ([
  ["RS256", "acme", acme],
  ["ES256", "other", other],
  ["EdDSA", "third", third],
])) {
  test(`a token signed by ${algorithm} logs in: a new id, with what the visitor had`, async () => {
    const visitor = someone();
    await visitor.merge({ cart: ["coat"] });
    const anonymous = visitor.clone();
    const answer = await logIn(visitor, {
      query: "?return_to=%2Fhome%3Ftab%3D1%23top",
      id,
      browser: provider.browser(),
    });
    assertSentTo(answer, "/home?tab=1#top");
    const session = await visitor.session();
    assert.deepEqual(session.user, { id: `${id}:ada`, name: "ada of Acme", roles: [] });
    assert.deepEqual([session.data, session.remember], [{ cart: ["coat"] }, false]);
    assert.notEqual(session.authenticated_at, null);
    assert.equal(await anonymous.session(), null, "the anonymous id is dead");
    const ticket = answer.setCookies.find((line) => line.startsWith("__Host-session=")) ?? "";
    assert.ok(!ticket.includes("Max-Age"), ticket);
    assert.equal((await visitor.send("GET", "/auth/verify")).headers.get("x-session-user"), `${id}%3Aada`);
    const [device] = (await visitor.send("GET", "/auth/sessions")).json.sessions;
    assert.deepEqual([device.provider, device.current], [id, true]);
    assert.ok(![...visitor.cookies.keys()].some((name) => name.includes("-login")), "nothing is left over");
  });
}

test("the request to log in has a code challenge, state and nonce, and a redirect of its own", async () => {
  const visitor = someone();
  const answer = await visitor.send("GET", "/auth/login/acme");
  const { origin, searchParams } = new URL(String(answer.headers.get("location")));
  assert.equal(origin, acme.issuer);
  const of = (/** @type {string} */ name) => searchParams.get(name) ?? "";
  assert.deepEqual(
    ["response_type", "code_challenge_method", "client_id", "scope", "redirect_uri", "prompt"].map(of),
    ["code", "S256", CLIENT.client_id, "openid email profile", `${both.worker.url}/auth/callback/acme`, ""],
  );
  for (const name of ["state", "nonce", "code_challenge"]) assert.match(of(name), /^[\w-]{43}$/, name);
  const [line = ""] = answer.setCookies;
  assert.match(
    line,
    /^__Host-session-login-[0-3]=[\w-]+; Path=\/; HttpOnly; Secure; SameSite=Lax; Max-Age=600$/,
  );
  for (const name of ["state", "nonce", "code_challenge"]) {
    assert.ok(!Buffer.from(line.split(/[=;]/)[1], "base64url").includes(of(name)), name);
  }
});

test("remember=1 makes a session that outlives the browser", async () => {
  const visitor = someone();
  const answer = await logIn(visitor, { query: "?remember=1" });
  assertSentTo(answer, "/");
  assert.ok(answer.setCookies.some((line) => /^__Host-session=.*; Max-Age=\d{5,}$/.test(line)));
  assert.equal((await visitor.session()).remember, true);
});

test("several tabs at once end in any order, and a fifth takes the place of the oldest", async () => {
  const visitor = someone();
  const tabs = [];
  for (const path of ["/a", "/b", "/c", "/d", "/e"]) {
    const browser = acme.browser();
    tabs.push({ path, back: await browser.follow(await begin(visitor, `?return_to=${path}`)) });
    await both.worker.moveClock(1000, { settle: false });
    both.store.moveClock(1000);
  }
  for (const { path, back } of tabs.slice(1).toReversed())
    assertSentTo(await visitor.send("GET", back), path);
  assertSentTo(await visitor.send("GET", tabs[0].back), "/?login_error=invalid_state");
  assert.equal((await visitor.session()).user.id, "acme:ada");
});

test("the back button, a replayed callback and a replayed code change nothing", async () => {
  const visitor = someone();
  const browser = acme.browser();
  const back = await browser.follow(await begin(visitor));
  const before = visitor.clone();
  assertSentTo(await visitor.send("GET", back), "/home");
  const session = await visitor.session();
  assertSentTo(await visitor.send("GET", back), "/?login_error=invalid_state");
  assert.deepEqual(await visitor.session(), session);
  // With the cookie that it had before, the state is right again, and the code is used.
  assertSentTo(await before.send("GET", back), "/home?login_error=invalid_response");
  assert.equal(await before.session(), null);
});

test("another browser cannot end what this one has begun", async () => {
  const attacker = someone();
  const victim = someone();
  await victim.merge({ mine: true });
  const session = await victim.session();
  const back = await acme.browser().follow(await begin(attacker), { as: "mallory" });
  assertSentTo(await victim.send("GET", back), "/?login_error=invalid_state");
  // Not even while it has begun a login of its own.
  await begin(victim);
  assertSentTo(await victim.send("GET", back), "/?login_error=invalid_state");
  assert.deepEqual(await victim.session(), session);
});

test("a login begun with one provider does not end with another", async () => {
  const visitor = someone();
  const back = await acme.browser().follow(await begin(visitor));
  const elsewhere = back.replace("/callback/acme", "/callback/other");
  assertSentTo(await visitor.send("GET", elsewhere), "/?login_error=invalid_state");
  const [path, query] = back.split("?");
  const params = new URLSearchParams(query);
  params.set("iss", other.issuer);
  assertSentTo(await visitor.clone().send("GET", `${path}?${params}`), "/home?login_error=invalid_response");
  params.delete("iss");
  assertSentTo(await visitor.clone().send("GET", `${path}?${params}`), "/home?login_error=invalid_response");
  assert.equal(await visitor.session(), null);
  assertSentTo(await visitor.send("GET", back), "/home");
});

test("two providers are two users, and another's data is not carried over", async () => {
  const visitor = someone();
  await logIn(visitor);
  await visitor.merge({ of: "acme" });
  await logIn(visitor, { id: "other", browser: other.browser() });
  const session = await visitor.session();
  assert.deepEqual([session.user.id, session.user.name, session.data], ["other:ada", "ada of Acme", {}]);
  assert.deepEqual((await visitor.send("GET", "/auth/providers")).json, {
    providers: [
      { id: "acme", name: "ACME", linked: false },
      { id: "other", name: "OTHER", linked: true },
      { id: "third", name: "THIRD", linked: false },
    ],
  });
});

test("who cancels is back where they were, with what they had", async () => {
  const visitor = someone();
  await visitor.merge({ kept: 1 });
  const session = await visitor.session();
  const back = await acme.browser().follow(await begin(visitor, "?return_to=/a?b=c"), { cancel: true });
  assertSentTo(await visitor.send("GET", back), "/a?b=c&login_error=access_denied");
  assert.deepEqual(await visitor.session(), session);
});

test("fresh=1 has the visitor prove anew who they are; without it the provider's own session is enough", async () => {
  const visitor = someone();
  const browser = acme.browser();
  await logIn(visitor, { browser });
  await logIn(visitor, { browser });
  assert.equal(browser.asked, 1);
  const location = await begin(visitor, "?fresh=1&return_to=/home");
  const { searchParams } = new URL(location);
  assert.deepEqual([searchParams.get("prompt"), searchParams.get("max_age")], ["login", "0"]);
  assertSentTo(await visitor.send("GET", await browser.follow(location)), "/home");
  assert.equal(browser.asked, 2);
  assert.equal((await visitor.session()).user.id, "acme:ada");
});

test("a login that was begun before all sessions of the user were ended is none", async () => {
  const visitor = someone();
  await logIn(visitor);
  const late = someone();
  const back = await acme.browser().follow(await begin(late));
  assert.equal((await visitor.send("DELETE", "/auth/sessions")).status, 204);
  assertSentTo(await late.send("GET", back), "/home?login_error=invalid_state");
  assert.equal(await late.session(), null);
  assertSentTo(await logIn(late), "/home");
});

test("new keys at the provider refuse nobody and log nobody out", async () => {
  const early = someone();
  await logIn(early);
  acme.open([`${both.worker.url}/auth/callback/acme`]);
  await both.worker.moveClock(31_000, { settle: false });
  both.store.moveClock(31_000);
  const late = someone();
  assertSentTo(await logIn(late), "/home");
  assert.equal((await early.session()).user.id, "acme:ada");
});

test("a login takes ten minutes at most", async () => {
  const visitor = someone();
  const back = await acme.browser().follow(await begin(visitor));
  await both.worker.moveClock(600_000, { settle: false });
  both.store.moveClock(600_000);
  assertSentTo(await visitor.send("GET", back), "/?login_error=invalid_state");
});

test("no code, token or secret is ever logged", () => {
  assert.doesNotMatch(both.worker.logs.join(""), /code=|ey[\w-]{20}|secret of this client|state=/);
});
