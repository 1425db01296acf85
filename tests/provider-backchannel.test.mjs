/** Logout tokens, forged and true, late and twice, while the store fails: what proves nothing ends nothing. */
import assert from "node:assert/strict";
import { createPublicKey, randomUUID } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { CLIENT_ID, CLIENT_SECRET, publicHalf, signed, startForger } from "./support/forger.mjs";
import { makeRsaKey } from "./support/jwt.mjs";
import { FAST_HASH, moveClocks, NO_LIMITS, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {Record<string, unknown>} Json */

const EVENT = "http://schemas.openid.net/event/backchannel-logout";
const forger = await startForger();
const { RS256, ES256, EdDSA } = forger.keys;
const { issuer } = forger;
const acme = { id: "acme", issuer, client_id: CLIENT_ID };
const github = {
  id: "github",
  type: "oauth2",
  client_id: CLIENT_ID,
  authorize_url: `${issuer}/authorize`,
  token_url: `${issuer}/token`,
  user_url: `${issuer}/user`,
  subject: "/id",
};
const secrets = {
  PROVIDER_ACME_SECRET: CLIENT_SECRET,
  PROVIDER_TWIN_SECRET: CLIENT_SECRET,
  PROVIDER_GITHUB_SECRET: CLIENT_SECRET,
};
/** @type {Awaited<ReturnType<typeof startDeployment>> & { worker: import("./support/worker.mjs").Worker }} */
let both;
before(async () => {
  const accounts = { providers: [acme, { ...acme, id: "twin" }, github] };
  const settings = { accounts, limits: NO_LIMITS, password: FAST_HASH };
  const deployment = await startDeployment([{}], { settings, secrets });
  both = { ...deployment, worker: deployment.workers[0] };
});
after(async () => {
  await both?.stop();
  forger.stop();
});
beforeEach(() => {
  forger.reset();
  both.store.faults.clear();
  forger.setClock(() => Math.floor(both.store.now() / 1000));
});

const sign = (/** @type {Json} */ claims, /** @type {Json} */ header = {}, /** @type {any} */ key = RS256) =>
  signed({ alg: "RS256", kid: key.kid, typ: "logout+jwt", ...header }, claims, key);

/** What a logout token says. @param {Json} [more] */
const claims = (more = {}) => {
  const { iat, exp } = forger.claims();
  return { iss: issuer, aud: CLIENT_ID, iat, exp, jti: randomUUID(), events: { [EVENT]: {} }, ...more };
};

/** @param {string} token */
const tell = (token, { id = "acme", headers = {}, more = "" } = {}, visitor = both.worker.visitor()) =>
  visitor.send("POST", `/auth/backchannel/${id}`, {
    headers: { "Content-Type": "application/x-www-form-urlencoded", ...headers },
    body: `logout_token=${encodeURIComponent(token)}${more}`,
  });

/** A visitor who is logged in. @param {string} sub @param {string} [sid] */
async function loggedIn(sub, sid, visitor = both.worker.visitor(), id = "acme") {
  await finish(await begin(visitor, id), visitor, sub, sid);
  assert.equal((await visitor.session()).user.id, `${id}:${sub}`);
  return visitor;
}

/** @param {Visitor} visitor */
const begin = async (visitor, id = "acme") =>
  String((await visitor.send("GET", `/auth/login/${id}`)).headers.get("location"));

/** @param {string} location @param {Visitor} visitor @param {string} sub @param {string} [sid] */
async function finish(location, visitor, sub, sid) {
  const back = forger.back(location);
  forger.setToken(() => sign(forger.claims({ sub, sid }), { typ: "JWT" }));
  return (await visitor.send("GET", back)).headers.get("location");
}

/** @param {Visitor[]} visitors */
const whoIsIn = (...visitors) =>
  Promise.all(visitors.map(async (visitor) => (await visitor.session()) !== null));

/** @param {import("./support/visitor.mjs").Answer} answer */
function assertHeard(answer) {
  assert.deepEqual([answer.status, answer.text, answer.headers.getSetCookie()], [200, "", []], answer.text);
  assert.equal(answer.headers.get("cache-control"), "no-store, no-transform");
}

/** @param {import("./support/visitor.mjs").Answer} answer @param {string} why */
function assertRefused(answer, why) {
  const { status, json, headers } = answer;
  assert.deepEqual([status, json.code, json.error], [400, "bad_request", "invalid_request"], why);
  assert.equal(headers.get("cache-control"), "no-store, no-transform");
  assert.deepEqual(headers.getSetCookie(), []);
}

describe("a token that proves nothing ends nothing", () => {
  const usual = { sub: "ada", sid: "ada-1" };
  const spki = () =>
    createPublicKey({ key: publicHalf(RS256), format: "jwk" }).export({ format: "pem", type: "spki" });
  const idToken = () => forger.claims({ ...usual, nonce: "n" });
  /** @type {[string, () => string][]} */
  const cases = [
    ["without events", () => sign(claims({ ...usual, events: undefined }))],
    ["with another event", () => sign(claims({ ...usual, events: { "https://other.example": {} } }))],
    ["with the event in a list", () => sign(claims({ ...usual, events: [EVENT] }))],
    ["whose event is no object", () => sign(claims({ ...usual, events: { [EVENT]: true } }))],
    ["with a nonce", () => sign(claims({ ...usual, nonce: "n" }))],
    ["with a nonce that is null", () => sign(claims({ ...usual, nonce: null }))],
    ["without a name", () => sign(claims({ ...usual, jti: undefined }))],
    ["of nobody", () => sign(claims())],
    ["whose subject can be none", () => sign(claims({ sub: "a\nb" }))],
    ["of another issuer", () => sign(claims({ ...usual, iss: "https://evil.example" }))],
    ["for another client", () => sign(claims({ ...usual, aud: "somebody" }))],
    ["for several clients", () => sign(claims({ ...usual, aud: [CLIENT_ID, "somebody"] }))],
    ["that has expired", () => sign(claims({ ...usual, exp: Number(claims().iat) - 61 }))],
    ["without an end", () => sign(claims({ ...usual, exp: undefined }))],
    ["of the future", () => sign(claims({ ...usual, iat: Number(claims().iat) + 120 }))],
    ["of another kind", () => sign(claims(usual), { typ: "at+jwt" })],
    ["that is unsigned", () => sign(claims(usual), { alg: "none" })],
    ["by HS256 with the public key", () => sign(claims(usual), { alg: "HS256", kid: RS256.kid }, spki())],
    ["by HS256 with the client's secret", () => sign(claims(usual), { alg: "HS256" }, CLIENT_SECRET)],
    ["by an unknown key", () => sign(claims(usual), {}, makeRsaKey("unknown"))],
    ["by another key of the same name", () => sign(claims(usual), {}, makeRsaKey(String(RS256.kid)))],
    ["that says ES256 over RS256", () => sign(claims(usual), { kid: ES256.kid })],
    ["whose header must be understood", () => sign(claims(usual), { crit: ["x"], x: 1 })],
    ["that is an ID token", () => sign(idToken(), { typ: "JWT" })],
    ["that is an ID token without a kind", () => sign(idToken(), { typ: undefined })],
    ["that is no token", () => "ey.ey"],
    ["that is not there", () => ""],
  ];
  for (const [what, make] of cases) {
    test(what, async () => {
      const ada = await loggedIn("ada", "ada-1");
      assertRefused(await tell(make()), what);
      assert.deepEqual(await whoIsIn(ada), [true]);
    });
  }

  test("the same signed rightly does, by every algorithm, with or without a kind", async () => {
    for (const [key, header] of /** @type {const} */ ([
      [RS256, {}],
      [RS256, { typ: undefined }],
      [RS256, { typ: "JWT" }],
      [ES256, { alg: "ES256", typ: "application/logout+JWT" }],
      [EdDSA, { alg: "EdDSA" }],
    ])) {
      const ada = await loggedIn("ada", "ada-1");
      assertHeard(await tell(sign(claims(usual), header, key)));
      assert.deepEqual(await whoIsIn(ada), [false], JSON.stringify(header));
    }
  });

  test("and a logout token logs nobody in", async () => {
    const visitor = both.worker.visitor();
    const back = forger.back(await begin(visitor));
    for (const more of [{ nonce: undefined }, {}]) {
      const nonce = String(forger.claims().nonce);
      forger.setToken(() => sign(claims({ sub: "ada", nonce, ...more })));
      assert.match(
        (await visitor.send("GET", back)).headers.get("location") ?? "",
        /invalid_(response|state)$/,
      );
    }
    assert.deepEqual(await whoIsIn(visitor), [false]);
  });
});

describe("whose sessions end", () => {
  test("of who is tied to an account those of the account, however they began", async () => {
    const owner = both.worker.visitor();
    const { status } = await owner.tell("POST", "/register", { username: "tess", password: "correct horse" });
    assert.equal(status, 201);
    const { json } = await owner.send("POST", "/auth/link/acme");
    assert.equal(await finish(json.location, owner, "tess-there"), "/");
    const devices = [both.worker.visitor(), both.worker.visitor()];
    for (const [index, visitor] of devices.entries())
      await finish(await begin(visitor), visitor, "tess-there", `tess-${index}`);
    assert.equal((await devices[0].session()).user.name, "tess");
    assertHeard(await tell(sign(claims({ sub: "tess-there", sid: "tess-0" }))));
    assert.deepEqual(await whoIsIn(owner, ...devices), [true, false, true]);
    assertHeard(await tell(sign(claims({ sub: "tess-there" }))));
    assert.deepEqual(await whoIsIn(owner, ...devices), [false, false, false]);
  });

  test("with sid those that began with it, also after a rotation; with sub alone all of the user's", async () => {
    for (const [more, left] of /** @type {[Json, boolean[]][]} */ ([
      [{ sid: "s1" }, [false, false, true, true, true]],
      [{ sub: "grace", sid: "s1" }, [false, false, true, true, true]],
      [{ sub: "grace", sid: "s2" }, [true, true, false, true, true]],
      // Not both: it is somebody else's session.
      [{ sub: "alan", sid: "s1" }, [true, true, true, true, true]],
      [{ sub: "grace", sid: "unknown" }, [true, true, true, true, true]],
      [{ sid: "unknown" }, [true, true, true, true, true]],
      [{ sub: "nobody" }, [true, true, true, true, true]],
      [{ sub: "grace" }, [false, false, false, false, true]],
    ])) {
      const sids = { s1: randomUUID(), s2: randomUUID() };
      const own = (/** @type {unknown} */ sid) => /** @type {any} */ (sids)[String(sid)] ?? sid;
      const all = [
        await loggedIn("grace", sids.s1),
        await loggedIn("grace", sids.s1),
        await loggedIn("grace", sids.s2),
        await loggedIn("grace"),
        await loggedIn("alan", randomUUID()),
      ];
      assert.equal((await all[0].rotate()).status, 200);
      assertHeard(await tell(sign(claims({ ...more, ...(more.sid ? { sid: own(more.sid) } : {}) }))));
      assert.deepEqual(await whoIsIn(...all), left, JSON.stringify(more));
    }
  });

  test("those of who is tied to an account, and those that they began before they were", async () => {
    for (const [said, left] of /** @type {[(sid: string) => Json, boolean[]][]} */ ([
      [() => ({}), [false, false, false]],
      [(sid) => ({ sid }), [false, false, true]],
    ])) {
      const [sub, sid] = [randomUUID(), randomUUID()];
      const before = await loggedIn(sub, sid);
      const owner = both.worker.visitor();
      assert.equal((await owner.register(`Ada ${sub}`, "correct horse")).status, 201);
      const tying = await owner.send("POST", "/auth/link/acme");
      assert.equal(await finish(tying.json.location, owner, sub), "/");
      const tied = both.worker.visitor();
      assert.equal(await finish(await begin(tied), tied, sub, sid), "/");
      assert.equal((await tied.session()).user.id, (await owner.session()).user.id);
      const token = sign(claims({ sub, ...said(sid) }));
      assertHeard(await tell(token));
      assert.deepEqual(await whoIsIn(before, tied, owner), left);
      assertRefused(await tell(token), "again");
    }
  });

  test("never those of another provider, whatever it calls its users and sessions", async () => {
    const sid = randomUUID();
    const twin = await loggedIn("kay", sid, both.worker.visitor(), "twin");
    assertHeard(await tell(sign(claims({ sub: "kay" }))));
    assertHeard(await tell(sign(claims({ sid }))));
    assert.deepEqual(await whoIsIn(twin), [true]);
    assertHeard(await tell(sign(claims({ sid })), { id: "twin" }));
    assert.deepEqual(await whoIsIn(twin), [false]);
  });

  test("a login that is under way ends with it, and one that is begun later does not", async () => {
    for (const more of [{ sid: "way" }, { sub: "way" }, { sub: "way", sid: "way" }]) {
      const sid = `${randomUUID()}`;
      const said = { ...more, ...("sid" in more ? { sid } : {}) };
      const early = both.worker.visitor();
      const location = await begin(early);
      await moveClocks(both.store, [both.worker], 1000);
      assertHeard(await tell(sign(claims(said))));
      assert.equal(await finish(location, early, "way", sid), "/?login_error=invalid_state");
      await moveClocks(both.store, [both.worker], 1000);
      assert.deepEqual(await whoIsIn(early, await loggedIn("way", sid)), [false, true], JSON.stringify(more));
    }
  });

  test("a token that comes late does not end what has begun since then", async () => {
    for (const said of [{ sub: "late" }, { sid: "late-1" }]) {
      const old = await loggedIn("late", "late-1");
      const token = sign(claims({ ...said, exp: Number(claims().exp) + 600 }));
      await moveClocks(both.store, [both.worker], 61_000);
      const since = await loggedIn("late", "late-1");
      assertHeard(await tell(token));
      assert.deepEqual(await whoIsIn(old, since), [false, true], JSON.stringify(said));
      assert.equal((await since.rotate()).status, 200, "it lives on as any other");
      assertHeard(await tell(sign(claims({ sub: "late" }))));
      assert.deepEqual(await whoIsIn(since), [false]);
    }
  });
});

test("a login that does not count any more leaves who is logged in as they are", async () => {
  for (const said of [{}, { sid: randomUUID() }]) {
    const sub = randomUUID();
    const visitor = both.worker.visitor();
    const location = await begin(visitor);
    await moveClocks(both.store, [both.worker], 1000);
    assert.equal((await visitor.register(`Bob ${sub}`, "correct horse")).status, 201);
    const { user, handle } = await visitor.session();
    assertHeard(await tell(sign(claims({ sub, ...said }))));
    assert.equal(await finish(location, visitor, sub, said.sid), "/?login_error=invalid_state");
    const session = await visitor.session();
    assert.deepEqual([session?.user, session?.handle], [user, handle], JSON.stringify(said));
  }
});

describe("a token counts once, and only once it has done its work", () => {
  for (const said of [{ sub: "eve" }, { sid: "eve-1" }, { sub: "eve", sid: "eve-1" }]) {
    const what = Object.keys(said).join(" and ");

    test(`${what}: it is refused the second time, and ends nothing`, async () => {
      const first = await loggedIn("eve", "eve-1");
      const token = sign(claims(said));
      assertHeard(await tell(token));
      await moveClocks(both.store, [both.worker], 1000);
      const second = await loggedIn("eve", "eve-1");
      assertRefused(await tell(token), what);
      assert.deepEqual(await whoIsIn(first, second), [false, true]);
      // The same name of another provider's is another token.
      assertHeard(await tell(token, { id: "twin" }));
    });

    test(`${what}: while the store fails it can be sent again, whatever was lost`, async () => {
      for (const fault of /** @type {const} */ (["refuse", "lostAnswer"])) {
        for (let call = 1; call <= 6; call += 1) {
          await moveClocks(both.store, [both.worker], 1000);
          const visitor = await loggedIn("eve", "eve-1");
          const token = sign(claims(said));
          let seen = 0;
          both.store.faults.always(fault, { when: () => ++seen >= call });
          const answer = await tell(token);
          both.store.faults.clear();
          const isDone = answer.status === 200;
          assert.ok(isDone || answer.status === 503, answer.text);
          // If it was not said to be done it is sent again. A refusal then says that it was.
          if (!isDone) assert.ok([200, 400].includes((await tell(token)).status));
          assert.deepEqual(await whoIsIn(visitor), [false], `${fault} from call ${call} on`);
          assertRefused(await tell(token), `${fault} from call ${call} on`);
        }
      }
    });
  }

  test("several at once end the sessions, and no error comes of it", async () => {
    const visitors = [
      await loggedIn("mary", "m1"),
      await loggedIn("mary", "m2"),
      await loggedIn("mary", "m3"),
    ];
    const token = sign(claims({ sub: "mary" }));
    const tokens = [token, token, sign(claims({ sub: "mary" })), sign(claims({ sid: "m1" }))];
    const statuses = (await Promise.all(tokens.map((one) => tell(one)))).map(({ status }) => status);
    assert.deepEqual(statuses.slice(2), [200, 200]);
    assert.ok(statuses.slice(0, 2).includes(200) && statuses.every((status) => [200, 400].includes(status)));
    assert.deepEqual(await whoIsIn(...visitors), [false, false, false]);
  });
});

describe("the route", () => {
  test("reads a form of up to 256 KiB and nothing else", async () => {
    const visitor = both.worker.visitor();
    const form = { "Content-Type": "application/x-www-form-urlencoded" };
    const token = sign(claims({ sub: "ada" }));
    for (const [method, headers, body, status] of /** @type {const} */ ([
      ["GET", {}, undefined, 405],
      ["PUT", form, "logout_token=x", 405],
      ["POST", {}, `logout_token=${token}`, 415],
      ["POST", { "Content-Type": "application/json" }, `{"logout_token":"${token}"}`, 415],
      ["POST", { "Content-Type": "application/jwt" }, token, 415],
      ["POST", form, undefined, 400],
      ["POST", form, "logout_token=%ff", 400],
      ["POST", form, `logout_token=${token}&logout_token=${token}`, 400],
      ["POST", form, `logout_token=${"A".repeat(20_000)}`, 400],
      ["POST", form, `logout_token=${"A".repeat(300_000)}`, 413],
    ])) {
      const answer = await visitor.send(method, "/auth/backchannel/acme", { headers, body });
      assert.equal(answer.status, status, `${method} ${JSON.stringify(headers)} ${body?.slice(0, 30)}`);
    }
    assert.equal((await tell(token, { id: "github" })).status, 404);
    assert.equal((await tell(token, { id: "nobody" })).status, 404);
    assertHeard(
      await tell(token, {
        headers: { "Content-Type": "Application/X-WWW-Form-URLEncoded; charset=UTF-8" },
        more: "&more=1",
      }),
    );
  });

  test("reads no cookie, and knows no other site", async () => {
    const [ada, eve] = [await loggedIn("ada"), await loggedIn("eve")];
    const headers = { Origin: "https://acme.example", "Sec-Fetch-Site": "cross-site" };
    assertHeard(await tell(sign(claims({ sub: "ada" })), { headers }, eve));
    assert.deepEqual(await whoIsIn(ada, eve), [false, true]);
  });

  test("is 503 while the provider's keys cannot be had, and what is no token asks for none", async () => {
    await moveClocks(both.store, [both.worker], 90_000_000);
    forger.behaviours["/keys"] = (response) => void response.writeHead(500).end();
    assertRefused(await tell("ey.ey"), "no token");
    assert.deepEqual(forger.counts, {});
    const token = sign(claims({ sub: "ada" }));
    const answer = await tell(token);
    assert.deepEqual([answer.status, answer.json.code], [503, "provider_unavailable"]);
    assert.match(String(answer.headers.get("retry-after")), /^\d+$/);
    forger.reset();
    await moveClocks(both.store, [both.worker], 6000);
    assertHeard(await tell(token));
  });

  test("counts what proves nothing, by address, and never what is true", async () => {
    const limits = { session: "1/1h", mint: "", login: "1/5m" };
    const limited = await both.start({ settings: { limits } });
    forger.setClock(() => Math.floor(Date.now() / 1000));
    const visitor = limited.visitor();
    const say = () => tell(sign(claims({ sub: "ada" })), {}, visitor);
    for (let times = 0; times < 12; times += 1) assertHeard(await say());
    for (let times = 0; times < 10; times += 1) assertRefused(await tell("ey.ey", {}, visitor), "forged");
    assert.equal((await tell("ey.ey", {}, visitor)).status, 429);
    assertHeard(await say());
  });
});

test("nobody is shown the session at the provider, and no log tells of anybody", async () => {
  const visitor = await loggedIn("ada", "sid-7f3a9c");
  const listed = await visitor.send("GET", "/auth/sessions");
  const shown = listed.text + (await visitor.look()).text;
  assert.doesNotMatch(shown, /sid-7f3a9c|provider_session/);
  assert.deepEqual(Object.keys(listed.json.sessions[0]).toSorted(), [
    "created_at",
    "current",
    "handle",
    "ip",
    "last_seen_at",
    "provider",
    "remember",
    "user_agent",
  ]);
  const stored = await Promise.all(
    (await both.store.redis.keys("*")).map(async (key) => [key, await both.store.redis.dump?.(key)].join()),
  );
  assert.doesNotMatch(stored.join("\n"), /sid-7f3a9c/);
  assert.doesNotMatch(both.worker.logs.join(""), /sid-|ey[\w-]{20}|grace|secret: of|logout_token=/);
});
