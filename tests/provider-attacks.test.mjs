/** Providers that lie, forge, hang and fail, and one of OAuth 2.0 that looks like GitHub's: nothing is created, nobody is logged out. */
import assert from "node:assert/strict";
import { createPublicKey } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { CLIENT_ID, CLIENT_SECRET, publicHalf, signed, startForger } from "./support/forger.mjs";
import { makeKey, makeRsaKey } from "./support/jwt.mjs";
import { moveClocks, NO_LIMITS, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {Record<string, unknown>} Json */

const forger = await startForger();
const { RS256, ES256, EdDSA } = forger.keys;
/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;

before(async () => {
  const { issuer } = forger;
  both = await startBoth({
    settings: {
      accounts: {
        providers: [
          { id: "acme", issuer, client_id: CLIENT_ID },
          {
            id: "github",
            type: "oauth2",
            client_id: CLIENT_ID,
            authorize_url: `${issuer}/authorize`,
            token_url: `${issuer}/token`,
            user_url: `${issuer}/user`,
            scopes: ["read:user"],
            subject: "/id",
            name: "/login",
          },
        ],
      },
      limits: NO_LIMITS,
    },
    secrets: { PROVIDER_ACME_SECRET: CLIENT_SECRET, PROVIDER_GITHUB_SECRET: CLIENT_SECRET },
  });
  forger.setClock(() => Math.floor(both.store.now() / 1000));
});
after(async () => {
  await both?.stop();
  forger.stop();
});
beforeEach(() => {
  forger.reset();
  forger.setToken(() => good());
  forger.setUser({ id: 583231, login: "octocat" });
});

/** @param {Json} [claims] @param {Json} [header] @param {any} [key] */
const good = (claims, header, key = RS256) =>
  signed({ alg: "RS256", kid: key.kid, ...header }, forger.claims(claims), key);

/** A visitor who has something to lose. */
async function someone() {
  const visitor = both.worker.visitor();
  await visitor.merge({ kept: true });
  return { visitor, session: await visitor.session() };
}

/** @param {Visitor} visitor @param {string} [id] @param {Json} [more] */
async function logIn(visitor, id = "acme", more) {
  const begun = await visitor.send("GET", `/auth/login/${id}?return_to=/home`);
  assert.equal(begun.status, 303, begun.text);
  const location = String(begun.headers.get("location"));
  if (!location.startsWith("http")) return begun;
  return visitor.send("GET", forger.back(location, more));
}

/** @param {Answer} answer @param {string} [code] */
function assertSentBack(answer, code) {
  const location = code ? `/home?login_error=${code}` : "/home";
  assert.deepEqual([answer.status, answer.headers.get("location")], [303, location], answer.text);
}

/** Time enough for documents to be fetched again. */
const forget = () => moveClocks(both.store, [both.worker], 3_700_000);

test("a good token of each algorithm logs in", async () => {
  for (const [alg, key] of Object.entries(forger.keys)) {
    for (const header of [{ alg }, { alg, kid: undefined }]) {
      forger.setToken(() => good({}, header, key));
      const { visitor } = await someone();
      assertSentBack(await logIn(visitor));
      const session = await visitor.session();
      assert.deepEqual(session.user, { id: "acme:248289761001", name: "Jane Doe", roles: [] });
      assert.deepEqual(session.data, { kept: true });
    }
  }
});

test("authenticated_at is auth_time where it is given, and never of the future", async () => {
  const seconds = Math.floor(both.store.now() / 1000);
  for (const [auth_time, shown] of [
    [seconds - 7200, seconds - 7200],
    [seconds + 5000, undefined],
    [undefined, undefined],
  ]) {
    forger.setToken(() => good({ auth_time }));
    const { visitor } = await someone();
    await logIn(visitor);
    const at = Date.parse((await visitor.session()).authenticated_at) / 1000;
    if (shown) assert.equal(at, shown);
    else assert.ok(Math.abs(at - both.store.now() / 1000) < 60);
  }
});

describe("a token is refused", () => {
  const asSecret = () => createPublicKey({ key: publicHalf(RS256), format: "jwk" });
  const spki = () => asSecret().export({ format: "pem", type: "spki" });
  /** Another payload under the same signature. @param {string} token */
  const altered = (token) => {
    const [header, , signature] = token.split(".");
    const claims = Buffer.from(JSON.stringify(forger.claims({ sub: "1" }))).toString("base64url");
    return [header, claims, signature].join(".");
  };
  /** @type {[string, () => string][]} */
  const cases = [
    ["of another issuer", () => good({ iss: "https://evil.example" })],
    ["for another client", () => good({ aud: "somebody" })],
    ["for several clients without azp", () => good({ aud: [CLIENT_ID, "somebody"] })],
    ["issued to another client", () => good({ azp: "somebody" })],
    ["that has expired", () => good({ exp: Number(forger.claims().exp) - 400 })],
    ["that is not valid yet", () => good({ nbf: Number(forger.claims().iat) + 120 })],
    ["of the future", () => good({ iat: Number(forger.claims().iat) + 120 })],
    ["without an end", () => good({ exp: undefined })],
    ["for another login", () => good({ nonce: "another" })],
    ["without a nonce", () => good({ nonce: undefined })],
    ["with another access token", () => good({ at_hash: "77QmUPtjPfzWtF2AnpK9RQ" })],
    ["without a subject", () => good({ sub: undefined })],
    ["whose subject has a line break", () => good({ sub: "a\nb" })],
    ["with an altered payload", () => altered(good())],
    ["with an altered signature", () => good().replace(/.{6}$/, "AAAAAA")],
    ["without a signature", () => good().replace(/[^.]*$/, "")],
    ["that is unsigned", () => good({}, { alg: "none" })],
    ["that is unsigned, with a signature", () => good({}, { alg: "none" }) + good().split(".")[2]],
    ["by HS256 with the public key as the secret", () => good({}, { alg: "HS256", kid: RS256.kid }, spki())],
    ["by HS256 with the client's secret", () => good({}, { alg: "HS256", kid: undefined }, CLIENT_SECRET)],
    ["by HS256 with the shared key in its key set", () => good({}, { alg: "HS256" }, Buffer.alloc(3))],
    ["by another key of the same name", () => good({}, {}, makeRsaKey(String(RS256.kid)))],
    [
      "by a key that the token brings along",
      () => good({}, { jwk: publicHalf(ES256), kid: undefined }, makeRsaKey("x")),
    ],
    ["that says RS256 over a key of ES256", () => good({}, { kid: ES256.kid })],
    ["that says ES256 over a key of EdDSA", () => good({}, { alg: "ES256", kid: EdDSA.kid }, ES256)],
    ["whose header must be understood", () => good({}, { crit: ["x"], x: 1 })],
    ["that is no token", () => "ey.ey"],
    ["that is not there", () => ""],
  ];
  for (const [what, make] of cases) {
    test(what, async () => {
      forger.setToken(make);
      const { visitor, session } = await someone();
      const answer = await logIn(visitor);
      assertSentBack(answer, "invalid_response");
      assert.ok(
        !answer.setCookies.some((line) => line.startsWith("__Host-session=")),
        String(answer.setCookies),
      );
      assert.deepEqual(await visitor.session(), session);
    });
  }
});

describe("a provider that fails is unavailable, and takes nothing down", () => {
  /** @type {[string, import("./support/forger.mjs").Behaviour][]} */
  const failures = [
    ["500", (response) => void response.writeHead(500).end("{}")],
    ["a redirect", (response) => void response.writeHead(302, { Location: `${forger.issuer}/keys` }).end()],
    ["5 MB", (response) => void response.writeHead(200).end(" ".repeat(5_000_000))],
    ["nonsense", (response) => void response.writeHead(200).end("<html>")],
    ["a connection that breaks", (response) => void response.destroy()],
    ["nothing at all", () => {}],
  ];
  for (const place of ["/.well-known/openid-configuration", "/keys", "/token"]) {
    for (const [what, behaviour] of failures) {
      test(`${place}: ${what}`, async () => {
        await forget();
        await both.worker.hurry(5000);
        forger.behaviours[place] = behaviour;
        const { visitor, session } = await someone();
        const answer = await logIn(visitor);
        // What a token endpoint says with 200 is its answer.
        const isAnswer = place === "/token" && what === "nonsense";
        assertSentBack(answer, isAnswer ? "invalid_response" : "provider_unavailable");
        assert.deepEqual(await visitor.session(), session);
        // Who has no document is left alone for a moment, and then all is well.
        forger.reset();
        if (place !== "/token") {
          assertSentBack(await logIn((await someone()).visitor), "provider_unavailable");
          assert.equal(forger.counts[place] ?? 0, 0);
        }
        await moveClocks(both.store, [both.worker], 6000);
        const { visitor: later } = await someone();
        assertSentBack(await logIn(later));
      });
    }
  }

  test("a description that names another issuer, or leads elsewhere, is of no use", async () => {
    for (const changed of [
      { issuer: "https://evil.example" },
      { token_endpoint: "http://evil.example/token" },
    ]) {
      await forget();
      forger.behaviours["/.well-known/openid-configuration"] = (response) => {
        const at = (/** @type {string} */ path) => forger.issuer + path;
        const usual = {
          issuer: forger.issuer,
          authorization_endpoint: at("/authorize"),
          token_endpoint: at("/token"),
          jwks_uri: at("/keys"),
        };
        response.end(JSON.stringify({ ...usual, ...changed }));
      };
      assertSentBack(await logIn((await someone()).visitor), "provider_unavailable");
    }
    await forget();
  });
});

test("a code that is refused is an invalid response, and the secret goes along as Basic", async () => {
  forger.behaviours["/token"] = (response, usual, asked) => {
    if (asked.form.get("code") === "good") usual();
    else response.writeHead(400, { "Content-Type": "application/json" }).end('{"error":"invalid_grant"}');
  };
  const { visitor } = await someone();
  assertSentBack(await logIn(visitor), "invalid_response");
  assertSentBack(await logIn(visitor, "acme", { code: "good" }));
  const { headers, form } = forger.exchange() ?? assert.fail();
  const basic = `${encodeURIComponent(CLIENT_ID)}:${encodeURIComponent(CLIENT_SECRET).replace(/'/g, "%27")}`;
  assert.equal(headers.authorization, `Basic ${Buffer.from(basic).toString("base64")}`);
  assert.deepEqual([...form.keys()].toSorted(), ["code", "code_verifier", "grant_type", "redirect_uri"]);
  assert.match(form.get("code_verifier") ?? "", /^[\w-]{43}$/);
});

test("what the provider sends the visitor back with has its code", async () => {
  for (const [error, code] of [
    ["access_denied", "access_denied"],
    ["consent_required", "login_required"],
    ["login_required", "login_required"],
    ["temporarily_unavailable", "provider_unavailable"],
    ["server_error", "provider_unavailable"],
    ["invalid_scope", "invalid_response"],
    ["<script>", "invalid_response"],
  ]) {
    const { visitor, session } = await someone();
    assertSentBack(await logIn(visitor, "acme", { error, code: "" }), code);
    assert.deepEqual(await visitor.session(), session);
  }
  assertSentBack(await logIn((await someone()).visitor, "acme", { code: "" }), "invalid_response");
  assertSentBack(
    await logIn((await someone()).visitor, "acme", { iss: "https://evil.example" }),
    "invalid_response",
  );
});

test("keys are fetched once, and again for an unknown one at most every half minute", async () => {
  await forget();
  forger.reset();
  for (let times = 0; times < 3; times += 1) assertSentBack(await logIn((await someone()).visitor));
  assert.deepEqual([forger.counts["/keys"], forger.counts["/.well-known/openid-configuration"]], [1, 1]);
  forger.setToken(() => good({}, { kid: "made up" }));
  for (let times = 0; times < 3; times += 1)
    assertSentBack(await logIn((await someone()).visitor), "invalid_response");
  assert.equal(forger.counts["/keys"], 1);
  await moveClocks(both.store, [both.worker], 31_000);
  for (let times = 0; times < 3; times += 1)
    assertSentBack(await logIn((await someone()).visitor), "invalid_response");
  assert.equal(forger.counts["/keys"], 2);
});

test("a wrong state is no login, and costs no call to anybody", async () => {
  const { visitor } = await someone();
  const begun = await visitor.send("GET", "/auth/login/acme");
  const back = forger.back(String(begun.headers.get("location")));
  const calls = forger.counts["/token"] ?? 0;
  for (const query of [
    back.replace(/state=[^&]*/, "state=x"),
    back.replace(/&state=[^&]*/, ""),
    back.replace(/state=/, "state=&state="),
    `${back}&state=x`,
    back.replace(/state=[^&]*/, (state) => state.slice(0, -1)),
    "/auth/callback/acme",
    "/auth/callback/acme?code=%ff&state=x",
  ]) {
    const answer = await visitor.send("GET", query);
    assert.deepEqual(
      [answer.status, answer.headers.get("location")],
      [303, "/?login_error=invalid_state"],
      query,
    );
  }
  assert.equal(forger.counts["/token"] ?? 0, calls);
  assert.equal((await visitor.send("HEAD", back)).status, 400, "HEAD uses nothing up");
  assert.equal((await visitor.send("GET", back)).headers.get("location"), "/");
});

test("return_to is a path of this origin, and every other query is refused", async () => {
  const { visitor } = await someone();
  for (const target of [
    "//evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "/\t/evil.example",
    "https://evil.example",
    "javascript:alert(1)",
    "/%2e%2e//evil.example",
    "home",
    `/?${'"'.repeat(400)}`,
    `/${"a".repeat(600)}`,
  ]) {
    const answer = await visitor.send("GET", `/auth/login/acme?return_to=${encodeURIComponent(target)}`);
    assert.deepEqual([answer.status, answer.json.code], [400, "bad_request"], target);
    assert.deepEqual(answer.setCookies, []);
  }
  for (const query of [
    "remember=yes",
    "fresh=true",
    "prompt=none",
    "return_to=/a&return_to=/b",
    "redirect_uri=/",
  ]) {
    assert.equal((await visitor.send("GET", `/auth/login/acme?${query}`)).status, 400, query);
  }
  for (const path of ["/auth/login/evil", "/auth/login/ACME", "/auth/callback/evil?code=a&state=b"]) {
    assert.equal((await visitor.send("GET", path)).status, 404, path);
  }
});

describe("OAuth 2.0 as GitHub speaks it", () => {
  test("the user is a member of a document, with the secret in the form and the token in a header", async () => {
    let authorization = "";
    forger.setToken(() => "");
    forger.behaviours["/user"] = (_, usual, { headers }) => {
      authorization = String(headers.authorization);
      usual();
    };
    const { visitor } = await someone();
    assertSentBack(await logIn(visitor, "github"));
    const session = await visitor.session();
    assert.deepEqual(session.user, { id: "github:583231", name: "octocat", roles: [] });
    assert.deepEqual(session.data, { kept: true });
    assert.equal(authorization, "Bearer AT-7f3a9c");
    const { headers, form } = forger.exchange() ?? assert.fail();
    assert.deepEqual([headers.authorization, form.get("client_secret")], [undefined, CLIENT_SECRET]);
    assert.match(form.get("code_verifier") ?? "", /^[\w-]{43}$/);
  });

  test("a document without the user, and GitHub's way to refuse a code, log nobody in", async () => {
    forger.setToken(() => "");
    for (const user of [{}, { id: null }, { id: "" }, { id: {} }, { id: 1.5 }, { login: "octocat" }]) {
      forger.setUser(user);
      const { visitor, session } = await someone();
      assertSentBack(await logIn(visitor, "github"), "invalid_response");
      assert.deepEqual(await visitor.session(), session);
    }
    forger.behaviours["/token"] = (response) => void response.end('{"error":"bad_verification_code"}');
    assertSentBack(await logIn((await someone()).visitor, "github"), "invalid_response");
    forger.reset();
    forger.behaviours["/user"] = (response) => void response.writeHead(503).end();
    assertSentBack(await logIn((await someone()).visitor, "github"), "provider_unavailable");
  });

  test("it cannot be asked to let a visitor log in anew", async () => {
    const answer = await (await someone()).visitor.send("GET", "/auth/login/github?fresh=1");
    assert.deepEqual([answer.status, answer.json.code], [422, "unprocessable"]);
  });
});

test("an isolate without providers has none of their routes but the list", async () => {
  const alone = await startBoth({ settings: { limits: NO_LIMITS } });
  const visitor = alone.worker.visitor();
  assert.deepEqual((await visitor.send("GET", "/auth/providers")).json, { providers: [] });
  for (const path of ["/auth/login/acme", "/auth/callback/acme"]) {
    assert.equal((await visitor.send("GET", path)).status, 404, path);
  }
  await alone.stop();
});

/**
 * Logs in at a Worker with these limits, a new visitor each time.
 * @param {import("node:test").TestContext} t @param {Record<string, string>} limits
 */
async function limited(t, limits) {
  const accounts = { providers: [{ id: "acme", issuer: forger.issuer, client_id: CLIENT_ID }] };
  const both = await startBoth({
    settings: { accounts, limits },
    secrets: { PROVIDER_ACME_SECRET: CLIENT_SECRET },
  });
  t.after(() => both.stop());
  forger.setClock(() => Math.floor(Date.now() / 1000));
  return () => logIn(both.worker.visitor());
}

test("failed logins are limited by address; a good one gives back what it took", async (t) => {
  const attempt = await limited(t, { session: "", mint: "", login: "1/5m" });
  for (let times = 0; times < 12; times += 1) assertSentBack(await attempt());
  forger.setToken(() => good({ nonce: "another" }));
  for (let times = 0; times < 10; times += 1) assertSentBack(await attempt(), "invalid_response");
  const asked = forger.counts["/token"];
  const refused = await attempt();
  assert.deepEqual(
    [refused.status, refused.json.code, forger.counts["/token"]],
    [429, "rate_limited", asked],
  );
});

test("new sessions are limited by address, and a login that fails makes none", async (t) => {
  const attempt = await limited(t, { session: "", login: "", mint: "3/5m" });
  forger.setToken(() => good({ nonce: "another" }));
  for (let times = 0; times < 4; times += 1) assertSentBack(await attempt(), "invalid_response");
  forger.setToken(() => good());
  for (let times = 0; times < 3; times += 1) assertSentBack(await attempt());
  const asked = forger.counts["/token"];
  assert.deepEqual([(await attempt()).status, forger.counts["/token"]], [429, asked]);
});

test("what is logged helps the operator, and holds nothing of theirs or of a visitor's", () => {
  const log = both.worker.logs.join("");
  assert.match(log, /provider acme: its ID token is for another client \(aud\)/);
  assert.doesNotMatch(log, /code=|ey[\w-]{20}|secret: of|AT-7f3a9c|state=|248289761001|<script>/);
});
