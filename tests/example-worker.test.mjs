/** examples/worker, as its author would deploy it: a shop of which every page has to do with the session. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { EXAMPLE, startCrateWorkers } from "./support/crate.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */

/** What a browser sends when it follows a link or a redirect of another site's. */
const FROM_ANOTHER_SITE = {
  "Sec-Fetch-Site": "cross-site",
  "Sec-Fetch-Mode": "navigate",
  "Sec-Fetch-Dest": "document",
};

/** @type {import("./support/crate.mjs").CrateWorkers} */
let shop;
/** @type {Visitor} */
let visitor;
/** The same visitor at the other isolate. @type {Visitor} */
let elsewhere;
before(async () => {
  shop = await startCrateWorkers({
    name: "example-worker",
    folder: EXAMPLE,
    settings: { limits: { session: "1000/1m", mint: "1000/1m", login: "" } },
    bindings: (upstream) => ({ IDENTITY_PROVIDER: `${upstream}/idp`, WEATHER_URL: `${upstream}/weather` }),
  });
});
after(() => shop?.stop());
beforeEach(() => {
  shop.store.faults.clear();
  shop.upstream.reset();
  shop.upstream.answerWith(identityProvider);
  visitor = shop.workers[0].visitor();
  elsewhere = shop.workers[1].visitor();
  elsewhere.cookies = visitor.cookies;
});

/** A provider on another host: of its routes the Worker itself calls only this one. @type {import("node:http").RequestListener} */
function identityProvider(request, response) {
  const code = new URL(String(request.url), "http://idp").searchParams.get("code");
  const users = [
    { id: "ada", name: "Ada <Lovelace>", roles: ["admin"] },
    { id: "bob", name: "Bob & Sons", roles: [] },
  ];
  const user = users.find(({ id }) => code === `code-of-${id}`);
  response.statusCode = user ? 200 : 404;
  response.end(user && JSON.stringify(user));
}

/** Begins a login; what the provider gets to see. @param {Visitor} who */
async function beginLogin(who, query = "") {
  const { status, headers } = await who.send("GET", `/login${query}`);
  assert.equal(status, 302);
  const to = new URL(String(headers.get("location")));
  return {
    to,
    state: String(to.searchParams.get("state")),
    callback: new URL(String(to.searchParams.get("redirect_uri"))),
  };
}

/** What the provider lets the browser do. @param {Visitor} who @param {string} code @param {string} state */
function comeBack(who, code, state) {
  return who.send("GET", `/callback?code=${code}&state=${state}`, { headers: FROM_ANOTHER_SITE });
}

/** @param {Visitor} who @param {string} user */
async function logIn(who, user, query = "") {
  const { state } = await beginLogin(who, query);
  const answer = await comeBack(who, `code-of-${user}`, state);
  assert.deepEqual(
    [answer.status, answer.headers.get("location")],
    [302, `${who.url}/dashboard`],
    answer.text,
  );
  return answer;
}

/** @param {Visitor} who @param {string} item @param {number} quantity */
const add = (who, item, quantity) => who.send("POST", "/cart", { body: JSON.stringify({ item, quantity }) });

const ticketsOf = (/** @type {Answer} */ { setCookies }) =>
  setCookies.filter((line) => line.startsWith("__Host-session=")).length;

/** Calls and commands until the answer: not those after it. @param {() => Promise<Answer>} act @param {number} [status] */
async function cost(act, status = 200) {
  shop.store.counters.reset();
  const answer = await act();
  assert.equal(answer.status, status, answer.text);
  const isLater = (/** @type {string[]} */ names) => names[0] === "DEL" || names.includes("DECRBY");
  const sent = shop.store.counters.log.filter((names) => !isLater(names));
  return { calls: sent.length, commands: sent.flat().length };
}

describe("the visit counter", () => {
  test("counts a visitor's visits, and sets a cookie at the first", async () => {
    for (const count of [1, 2, 3]) {
      const answer = await visitor.send("GET", "/");
      assert.match(answer.text, new RegExp(`<h1>Visits: ${count}</h1>`));
      assert.equal(ticketsOf(answer), count === 1 ? 1 : 0);
      assert.equal(answer.headers.get("vary"), "Cookie");
      assert.equal(answer.headers.get("cache-control"), "no-store");
      assert.match(String(answer.headers.get("content-type")), /^text\/html/);
    }
  });

  test("loses none of a hundred at once, in two isolates", async () => {
    await visitor.send("GET", "/");
    const visits = Array.from({ length: 100 }, (_, index) =>
      (index % 2 ? visitor : elsewhere).send("GET", "/"),
    );
    for (const { status, text } of await Promise.all(visits)) assert.equal(status, 200, text);
    assert.match((await elsewhere.send("GET", "/")).text, /Visits: 102</);
  });

  test("asks the store for as little as the service does", async () => {
    await visitor.send("GET", "/");
    assert.deepEqual((await cost(() => shop.workers[0].visitor().send("GET", "/cart"))).calls, 0);
    await cost(() => visitor.send("GET", "/cart"));
    const read = await cost(() => visitor.send("GET", "/cart"));
    assert.deepEqual(read, { calls: 1, commands: 2 });
    const counted = await cost(() => visitor.send("GET", "/"));
    assert.deepEqual(counted, { calls: 2, commands: 3 });
    const first = await cost(() => shop.workers[0].visitor().send("GET", "/"));
    assert.ok(first.calls <= 2 && first.commands <= 5, JSON.stringify(first));
  });
});

describe("the cart", () => {
  test("holds what is put into it, set and taken out", async () => {
    assert.deepEqual((await visitor.send("GET", "/cart")).json, {});
    assert.deepEqual((await add(visitor, "coat", 1)).json, { coat: 1 });
    assert.deepEqual((await add(visitor, "coat", 2)).json, { coat: 3 });
    const body = JSON.stringify({ quantity: 5 });
    assert.deepEqual((await visitor.send("PATCH", "/cart/hat", { body })).json, { coat: 3, hat: 5 });
    assert.deepEqual((await elsewhere.send("DELETE", "/cart/coat")).json, { hat: 5 });
    assert.deepEqual((await visitor.send("GET", "/cart")).json, { hat: 5 });
  });

  test("refuses what the shop does not sell, has not got, or does not understand, and keeps the rest", async () => {
    await add(visitor, "coat", 20);
    for (const [status, answer] of /** @type {const} */ ([
      [404, add(visitor, "__proto__", 1)],
      [422, add(visitor, "coat", 1)],
      [422, add(visitor, "coat", 4294967295)],
      [400, add(visitor, "coat", -1)],
      [400, visitor.send("POST", "/cart", { body: "nonsense" })],
      [400, visitor.send("POST", "/cart")],
      [404, visitor.send("DELETE", "/cart/")],
      [404, visitor.send("DELETE", "/cart/hat/coat")],
    ])) {
      assert.equal((await answer).status, status, (await answer).text);
    }
    assert.deepEqual((await visitor.send("GET", "/cart")).json, { coat: 20 });
  });

  test("loses nothing of what two tabs do at once, also beside visits", async () => {
    await add(visitor, "scarf", 1);
    const acts = Array.from({ length: 40 }, (_, index) => {
      const tab = index % 2 ? visitor : elsewhere;
      return index % 4 < 2 ? add(tab, index % 8 < 4 ? "coat" : "hat", 1) : tab.send("GET", "/");
    });
    for (const { status, text } of await Promise.all(acts)) assert.equal(status, 200, text);
    assert.deepEqual((await visitor.send("GET", "/cart")).json, { coat: 10, hat: 10, scarf: 1 });
    assert.match((await visitor.send("GET", "/")).text, /Visits: 21</);
  });

  test("is not changed by another site's page", async () => {
    await add(visitor, "coat", 1);
    for (const site of ["cross-site", "same-site"]) {
      const body = JSON.stringify({ item: "hat", quantity: 1 });
      const answer = await visitor.send("POST", "/cart", { headers: { "Sec-Fetch-Site": site }, body });
      assert.deepEqual([answer.status, answer.json.code], [403, "cross_site"]);
    }
    assert.deepEqual((await visitor.send("GET", "/cart")).json, { coat: 1 });
  });
});

describe("a login at the identity provider", () => {
  test("sends the visitor off with a state, and back to this host", async () => {
    const { to, state, callback } = await beginLogin(visitor);
    assert.equal(to.origin + to.pathname, `${shop.upstream.url}/idp/authorize`);
    assert.notEqual(to.host, new URL(visitor.url).host);
    assert.match(state, /^[0-9a-f]{32}$/);
    assert.equal(callback.href, `${visitor.url}/callback`);
    assert.equal(to.searchParams.get("response_mode"), null);
    assert.notEqual((await beginLogin(shop.workers[0].visitor())).state, state);
  });

  test("comes back across sites with the Lax cookie, into a new session that holds the cart", async () => {
    await add(visitor, "coat", 1);
    const { state } = await beginLogin(visitor);
    const anonymous = visitor.clone();
    const answer = await comeBack(visitor, "code-of-ada", state);
    assert.deepEqual([answer.status, ticketsOf(answer)], [302, 1]);
    assert.match(String(answer.setCookies[0]), /SameSite=Lax/);
    assert.match((await visitor.send("GET", "/dashboard")).text, /Hello, Ada &lt;Lovelace&gt;</);
    assert.deepEqual((await elsewhere.send("GET", "/cart")).json, { coat: 1 });
    assert.deepEqual((await anonymous.send("GET", "/cart")).json, {}, "the old id is dead");
  });

  test("takes three calls, one for whether the user has an account that is disabled, and leaves nothing of the state", async () => {
    const { state } = await beginLogin(visitor);
    const { calls, commands } = await cost(() => comeBack(visitor, "code-of-bob", state), 302);
    assert.ok(calls === 3 && commands <= 10, `${calls} calls, ${commands} commands`);
    const [key] = await shop.store.redis.keys("*");
    for (const key of await shop.store.redis.keys("sess:*")) {
      const record = await shop.store.redis.get(key);
      if (record?.includes('"bob"')) assert.doesNotMatch(record, /pending/);
    }
    assert.ok(key);
  });

  test("is not remembered unless that was asked for", async () => {
    assert.doesNotMatch((await logIn(visitor, "ada")).setCookies[0], /Max-Age/);
    assert.match(
      (await logIn(shop.workers[0].visitor(), "ada", "?remember=true")).setCookies[0],
      /Max-Age=2(592000|591999)/,
    );
    await logIn(shop.workers[0].visitor(), "ada", "?remember=nonsense");
  });

  describe("is refused, and nobody is logged in,", () => {
    /** @type {Record<string, () => Promise<Answer>>} */
    const ATTEMPTS = {
      "with another's state: login CSRF": async () => {
        const { state } = await beginLogin(shop.workers[0].visitor());
        await beginLogin(visitor);
        return comeBack(visitor, "code-of-bob", state);
      },
      "with another's state, by a visitor who has begun none": async () => {
        const { state } = await beginLogin(shop.workers[0].visitor());
        return comeBack(visitor, "code-of-bob", state);
      },
      "with a wrong state": async () => {
        await beginLogin(visitor);
        return comeBack(visitor, "code-of-bob", "0".repeat(32));
      },
      "without a state": async () => {
        await beginLogin(visitor);
        return visitor.send("GET", "/callback?code=code-of-bob", { headers: FROM_ANOTHER_SITE });
      },
      "with an empty state": () => comeBack(visitor, "code-of-bob", ""),
      "with a code that the provider does not know": async () =>
        comeBack(visitor, "forged", (await beginLogin(visitor)).state),
    };
    for (const [what, attempt] of Object.entries(ATTEMPTS)) {
      test(what, async () => {
        const answer = await attempt();
        assert.deepEqual([answer.status, ticketsOf(answer)], [403, 0], answer.text);
        assert.equal((await visitor.send("GET", "/dashboard")).status, 401);
      });
    }

    test("with a state that was used already, by whoever has the new or the old cookie", async () => {
      const { state } = await beginLogin(visitor);
      const old = visitor.clone();
      assert.equal((await comeBack(visitor, "code-of-ada", state)).status, 302);
      for (const who of [visitor, old, elsewhere]) {
        assert.equal((await comeBack(who, "code-of-bob", state)).status, 403);
      }
      assert.match((await visitor.send("GET", "/dashboard")).text, /Ada/);
    });
  });

  test("with a wrong state does not spoil the one under way", async () => {
    const { state } = await beginLogin(visitor);
    assert.equal((await comeBack(visitor, "code-of-bob", "wrong")).status, 403);
    assert.equal((await comeBack(visitor, "code-of-ada", state)).status, 302);
  });

  test("whose provider is down logs nobody in and nobody out", async () => {
    await add(visitor, "coat", 1);
    const { state } = await beginLogin(visitor);
    shop.upstream.answerWith((_, response) => void response.destroy());
    const { status, setCookies } = await comeBack(visitor, "code-of-ada", state);
    assert.deepEqual([status, setCookies], [500, []]);
    assert.deepEqual((await visitor.send("GET", "/cart")).json, { coat: 1 });
  });

  test("can be played through with the toy that comes along", async () => {
    const toy = `${shop.workers[1].url}/idp`;
    const customer = (await shop.start({ secrets: { IDENTITY_PROVIDER: toy } })).visitor();
    const { to } = await beginLogin(customer);
    assert.equal(to.origin + to.pathname, `${toy}/authorize`);
    const page = await shop.workers[1].visitor().send("GET", `/idp/authorize${to.search}`);
    const links = [...page.text.matchAll(/href="([^"]*)">([^<]*)</g)];
    assert.deepEqual(
      links.map(([, , name]) => name),
      ["Ada &lt;Lovelace&gt;", "Bob &amp; Sons"],
    );
    const back = new URL(links[1][1].replaceAll("&amp;", "&"));
    assert.equal(back.origin, customer.url);
    await customer.send("GET", back.pathname + back.search, { headers: FROM_ANOTHER_SITE });
    assert.match((await customer.send("GET", "/dashboard")).text, /Hello, Bob &amp; Sons</);
  });

  test("with the toy refuses what it does not know", async () => {
    for (const [path, status] of /** @type {const} */ ([
      ["/idp/user?code=eve", 404],
      ["/idp/user", 400],
      ["/idp/authorize", 400],
      ["/idp/authorize?redirect_uri=nonsense&state=1", 400],
    ])) {
      assert.equal((await visitor.send("GET", path)).status, status, path);
    }
  });
});

describe("the pages for users", () => {
  test("send a navigation off to log in, and tell a script 401", async () => {
    const page = await visitor.send("GET", "/dashboard", { headers: { "Sec-Fetch-Mode": "navigate" } });
    assert.deepEqual([page.status, page.headers.get("location")], [302, `${visitor.url}/login`]);
    const script = await visitor.send("GET", "/dashboard", { headers: { "Sec-Fetch-Mode": "cors" } });
    assert.deepEqual([script.status, script.json.code], [401, "unauthenticated"]);
  });

  test("need the role where it says so", async () => {
    assert.deepEqual((await visitor.send("GET", "/admin")).json.code, "unauthenticated");
    await logIn(visitor, "bob");
    assert.deepEqual((await visitor.send("GET", "/admin")).json.code, "forbidden");
    await logIn(visitor, "ada");
    assert.equal((await visitor.send("GET", "/admin")).status, 200);
  });

  test("are closed after a logout, which goes to the start page and takes the cookie along", async () => {
    await logIn(visitor, "ada");
    const old = visitor.clone();
    const foreign = await visitor.send("POST", "/logout", { headers: { "Sec-Fetch-Site": "cross-site" } });
    assert.equal(foreign.status, 403);
    const answer = await visitor.send("POST", "/logout");
    assert.deepEqual([answer.status, answer.headers.get("location")], [303, `${visitor.url}/`]);
    assert.match(answer.setCookies[0], /^__Host-session=; .*Max-Age=0/);
    for (const who of [visitor, old]) assert.equal((await who.send("GET", "/dashboard")).status, 401);
  });

  test("list where one is logged in, and end any of it", async () => {
    const [phone, other] = [shop.workers[1].visitor(), shop.workers[1].visitor()];
    for (const who of [visitor, phone]) await logIn(who, "bob");
    await logIn(other, "ada");
    /** @returns {Promise<any[]>} */
    const list = async () => (await visitor.send("GET", "/sessions")).json;
    const current = (await list()).filter((one) => one.current);
    assert.equal(current.length, 1);
    const [theirs] = (await phone.send("GET", "/sessions")).json.filter(
      (/** @type {any} */ one) => one.current,
    );
    assert.equal((await other.send("DELETE", `/sessions/${theirs.handle}`)).status, 404, "another user's");
    assert.equal((await visitor.send("DELETE", `/sessions/${theirs.handle}`)).status, 204);
    assert.equal((await phone.send("GET", "/dashboard")).status, 401);
    assert.ok((await list()).every((one) => one.handle !== theirs.handle));
    for (const handle of [theirs.handle, "nonsense", ""]) {
      assert.equal((await visitor.send("DELETE", `/sessions/${handle}`)).status, 404);
    }
    assert.equal((await visitor.send("DELETE", `/sessions/${current[0].handle}`)).status, 204);
    assert.equal((await visitor.send("GET", "/sessions")).status, 401);
  });
});

describe("the search", () => {
  test("finds products, twenty times a minute in both isolates together, and says how often yet", async () => {
    await visitor.send("GET", "/");
    const first = await visitor.send("GET", "/search?q=r");
    assert.deepEqual(first.json, ["scarf", "umbrella"]);
    assert.match(String(first.headers.get("ratelimit")), /"search";r=19/);
    assert.match(String(first.headers.get("ratelimit-policy")), /"search";q=20;w=60/);
    const searches = Array.from({ length: 24 }, (_, index) =>
      (index % 2 ? visitor : elsewhere).send("GET", "/search"),
    );
    const answers = await Promise.all(searches);
    assert.equal(answers.filter(({ status }) => status === 200).length, 19);
    const refused = answers.filter(({ status }) => status === 429);
    assert.equal(refused.length, 5);
    for (const { json, headers } of refused) {
      assert.equal(json.code, "rate_limited");
      assert.match(String(headers.get("retry-after")), /^\d+$/);
      assert.match(String(headers.get("ratelimit")), /"search";r=0/);
    }
    assert.equal((await visitor.send("GET", "/cart")).status, 200, "of the search alone");
  });
});

test("the weather is asked for once, however many want to know it in whichever isolate", async () => {
  shop.upstream.answerWith((_, response) => void response.end("Berlin: rain"));
  const held = shop.upstream.hold();
  const asking = Array.from({ length: 10 }, (_, index) =>
    (index % 2 ? visitor : elsewhere).send("GET", "/weather"),
  );
  await held.arrived;
  held.release();
  for (const { status, text } of await Promise.all(asking))
    assert.deepEqual([status, text], [200, "Berlin: rain"]);
  assert.equal(shop.upstream.calls, 1);
  assert.deepEqual(await cost(() => elsewhere.send("GET", "/weather")), { calls: 1, commands: 1 });
});

test("what there is not is a 404, and a dead store a 503 of the same form everywhere", async () => {
  assert.equal((await visitor.send("GET", "/nothing")).status, 404);
  await logIn(visitor, "ada");
  shop.store.faults.always("refuse");
  for (const [method, path] of [
    ["GET", "/"],
    ["GET", "/cart"],
    ["DELETE", "/cart/coat"],
    ["GET", "/login"],
    ["GET", "/dashboard"],
    ["POST", "/logout"],
    ["GET", "/sessions"],
    ["GET", "/search"],
  ]) {
    const { status, headers, json } = await visitor.send(method, path);
    assert.deepEqual([status, json.code], [503, "store_unavailable"], path);
    assert.deepEqual([headers.get("retry-after"), headers.getSetCookie()], ["1", []]);
  }
  shop.store.faults.clear();
  assert.match((await visitor.send("GET", "/dashboard")).text, /Ada/);
});
