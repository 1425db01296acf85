/** The crate: a Rust Worker's own routes log visitors in with a real OpenID provider, as the service's do. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { dataOf, EXAMPLE, operate, startCrateWorkers } from "./support/crate.mjs";
import { CLIENT, startProvider } from "./support/oidc-provider.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** What the provider's redirect is for the browser. */
const FROM_ANOTHER_SITE = { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate" };

const acme = await startProvider();
const settings = {
  accounts: {
    providers: [
      { id: "acme", issuer: acme.issuer, client_id: CLIENT.client_id, label: "Acme" },
      { id: "down", issuer: "http://127.0.0.1:9", client_id: "x" },
      {
        id: "old",
        type: "oauth2",
        client_id: "x",
        authorize_url: "http://127.0.0.1:9/authorize",
        token_url: "http://127.0.0.1:9/token",
        user_url: "http://127.0.0.1:9/user",
        subject: "/id",
      },
    ],
  },
};
const secrets = {
  PROVIDER_ACME_SECRET: CLIENT.client_secret,
  PROVIDER_DOWN_SECRET: "x",
  PROVIDER_OLD_SECRET: "x",
};
/** @type {import("./support/crate.mjs").CrateWorkers} */
let crate;
/** @type {import("./support/crate.mjs").CrateWorkers} */
let example;
/** @type {import("./support/crate.mjs").Isolate} */
let worker;

before(async () => {
  crate = await startCrateWorkers({
    name: "crate-providers",
    isolates: 1,
    settings,
    bindings: () => secrets,
  });
  example = await startCrateWorkers({
    name: "example-worker",
    folder: EXAMPLE,
    isolates: 1,
    settings,
    bindings: (upstream) => ({ ...secrets, IDENTITY_PROVIDER: upstream, WEATHER_URL: upstream }),
  });
  [worker] = crate.workers;
  const at = (/** @type {string} */ path) => worker.url + path;
  acme.open([
    at("/auth/callback/acme"),
    at("/login/done/acme"),
    at("/login/as/ada/acme"),
    at("/login/refused/acme"),
    `${example.workers[0].url}/login/done/acme`,
  ]);
});
after(async () => {
  await Promise.all([crate?.stop(), example?.stop()]);
  acme.stop();
});

/** @param {Visitor} visitor */
async function begin(visitor, query = "", id = "acme") {
  const answer = await visitor.send("GET", `/login/begin/${id}${query}`);
  assert.equal(answer.status, 303, answer.text);
  return String(answer.headers.get("location"));
}

/** @param {Visitor} visitor */
async function logIn(visitor, query = "?to=/account") {
  const back = await acme.browser().follow(await begin(visitor, query));
  return visitor.send("GET", back, { headers: FROM_ANOTHER_SITE });
}

/** @param {Answer} answer @param {string} path @param {Visitor} visitor */
function assertSentTo(answer, path, visitor) {
  assert.deepEqual([answer.status, answer.headers.get("location")], [303, visitor.url + path], answer.text);
}

/** @param {Visitor} visitor */
const userOf = async (visitor) => (await operate(visitor, [{ do: "user" }])).json[0];

test("the providers are listed as the settings have them", async () => {
  assert.deepEqual((await worker.visitor().send("GET", "/login/providers")).json, [
    ["acme", "Acme"],
    ["down", "down"],
    ["old", "old"],
  ]);
});

test("a login has a new id, what the visitor had, what the handler changes, and the roles that it gives", async () => {
  const visitor = worker.visitor();
  await operate(visitor, [{ do: "insert", key: "cart", value: ["coat"] }]);
  const anonymous = visitor.clone();
  assertSentTo(await logIn(visitor), "/account", visitor);
  assert.deepEqual(await userOf(visitor), { id: "acme:ada", name: "ada of Acme", roles: ["editor"] });
  assert.deepEqual(await dataOf(visitor), { cart: ["coat"], logins: 1 });
  assert.deepEqual(await dataOf(anonymous), {}, "the anonymous id is dead");
  assert.ok(![...visitor.cookies.keys()].some((name) => name.includes("-login")), "nothing is left over");
});

test("remember is the session's, and fresh has the user prove anew who they are", async () => {
  const visitor = worker.visitor();
  const answer = await logIn(visitor, "?remember=1");
  assert.ok(answer.setCookies.some((line) => /^__Host-session=.*; Max-Age=\d{5,}$/.test(line)));
  const { searchParams } = new URL(await begin(visitor, "?fresh=1"));
  assert.deepEqual([searchParams.get("prompt"), searchParams.get("max_age")], ["login", "0"]);
});

describe("a callback of one's own", () => {
  test("ends the login, with users of the handler's own", async () => {
    const visitor = worker.visitor();
    assertSentTo(await logIn(visitor, "?to=/account&at=/login/as/ada/acme"), "/account", visitor);
    assert.deepEqual(await userOf(visitor), { id: "ada", name: "ada of Acme", roles: [] });
  });

  test("is refused as the author's mistake if it does not name the provider, or is no path of this origin", async () => {
    for (const at of [
      "/login/done",
      "/login/done/other",
      "/login/doneacme",
      "acme",
      "//evil.example/acme",
      "/login/done/acme?x=1",
      `/${"a".repeat(100)}/acme`,
    ]) {
      const answer = await worker.visitor().send("GET", `/login/begin/acme?at=${encodeURIComponent(at)}`);
      assert.deepEqual([answer.status, answer.json.code, answer.setCookies], [500, "internal", []], at);
    }
    assert.match(crate.logs(), /Session::log_in_with: callback must be a path like \/login\/done\/acme/);
  });

  test("ends no login that was begun for another path", async () => {
    const visitor = worker.visitor();
    const back = await acme.browser().follow(await begin(visitor, "?at=/login/done/acme"));
    const elsewhere = back.replace("/login/done/", "/login/as/ada/");
    assertSentTo(await visitor.send("GET", elsewhere), "/?login_error=invalid_state", visitor);
    assert.equal(await userOf(visitor), null);
    assertSentTo(await visitor.send("GET", back), "/", visitor);
    assert.equal((await userOf(visitor)).id, "acme:ada");
  });

  test("may refuse the user, who then is not logged in and keeps what they had", async () => {
    const visitor = worker.visitor();
    await operate(visitor, [{ do: "insert", key: "kept", value: true }]);
    const answer = await logIn(visitor, "?at=/login/refused/acme");
    assert.equal(answer.status, 403);
    assert.deepEqual([await userOf(visitor), await dataOf(visitor)], [null, { kept: true }]);
  });
});

describe("what goes wrong logs nobody in or out, and is told to the page", () => {
  test("another browser, a replay, no state, and a user who cancels", async () => {
    const [attacker, victim] = [worker.visitor(), worker.visitor()];
    await operate(victim, [{ do: "insert", key: "kept", value: true }]);
    const back = await acme.browser().follow(await begin(attacker), { as: "mallory" });
    assertSentTo(await victim.send("GET", back), "/?login_error=invalid_state", victim);
    assertSentTo(await victim.send("GET", "/auth/callback/acme"), "/?login_error=invalid_state", victim);
    assert.equal((await victim.send("HEAD", back)).status, 400);
    const cancelled = await acme.browser().follow(await begin(victim, "?to=/a?b=c"), { cancel: true });
    assertSentTo(await victim.send("GET", cancelled), "/a?b=c&login_error=access_denied", victim);
    assert.deepEqual([await userOf(victim), (await dataOf(victim)).kept], [null, true]);
    assertSentTo(await attacker.send("GET", back), "/", attacker);
    assertSentTo(await attacker.send("GET", back), "/?login_error=invalid_state", attacker);
    assert.equal((await userOf(attacker)).id, "acme:mallory");
  });

  test("a provider that is down, unknown, or cannot do what is asked", async () => {
    const visitor = worker.visitor();
    const send = (/** @type {string} */ path) => visitor.send("GET", path);
    const down = await send("/login/begin/down?to=/account");
    assertSentTo(down, "/account?login_error=provider_unavailable", visitor);
    assert.deepEqual(down.setCookies, []);
    for (const [path, status, code] of /** @type {const} */ ([
      ["/login/begin/evil", 404, "not_found"],
      ["/login/done/evil?code=a&state=b", 404, "not_found"],
      ["/login/begin/old?fresh=1", 422, "unprocessable"],
      ["/login/begin/acme?to=//evil.example", 400, "bad_request"],
    ])) {
      const answer = await send(path);
      assert.deepEqual([answer.status, answer.json.code], [status, code], path);
    }
  });

  test("a store that is away: 503, and as the code was not used a reload helps", async () => {
    const visitor = worker.visitor();
    await operate(visitor, [{ do: "insert", key: "kept", value: true }]);
    const back = await acme.browser().follow(await begin(visitor));
    crate.store.faults.always("refuse");
    const answer = await visitor.send("GET", back);
    assert.deepEqual([answer.status, answer.json.code], [503, "store_unavailable"]);
    crate.store.faults.clear();
    assertSentTo(await visitor.send("GET", back), "/", visitor);
    assert.equal((await userOf(visitor)).id, "acme:ada");
  });

  test("a login begun before all sessions of the user were ended", async () => {
    const [early, late] = [worker.visitor(), worker.visitor()];
    await logIn(early);
    await operate(late, [{ do: "insert", key: "kept", value: true }]);
    const back = await acme.browser().follow(await begin(late));
    await operate(early, [{ do: "end_all" }]);
    assertSentTo(await late.send("GET", back), "/?login_error=invalid_state", late);
    assert.deepEqual([await userOf(late), (await dataOf(late)).kept], [null, true]);
  });
});

test("examples/worker logs in with it", async () => {
  const visitor = example.workers[0].visitor();
  const begun = await visitor.send("GET", "/login/acme");
  const back = await acme.browser().follow(String(begun.headers.get("location")));
  assertSentTo(await visitor.send("GET", back, { headers: FROM_ANOTHER_SITE }), "/dashboard", visitor);
  assert.match((await visitor.send("GET", "/dashboard")).text, /Hello, ada of Acme</);
});

test("no code, token or secret is ever logged", () => {
  assert.doesNotMatch(
    crate.logs() + example.logs(),
    /code=|ey[\w-]{20}|secret of this client|state=|acme:ada/,
  );
});
