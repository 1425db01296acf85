/** The cookie: which ones count, what a wrong one costs (nothing), and when it is set, renewed and removed. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, afterEach, before, describe, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const NAME = "__Host-session";
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const OLD = randomSecret();
const NEW = randomSecret();

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** @type {import("./support/worker.mjs").Worker} */
let worker;
/** @type {import("./support/worker.mjs").Worker[]} */
const workers = [];

/** @param {object} [settings] */
async function open(settings = {}, secret = OLD) {
  const opened = await startWorker({ store, settings, secrets: { SESSION_SECRET: secret } });
  workers.push(opened);
  return opened;
}

before(async () => {
  store = await startLocalStore();
  worker = await open();
});
afterEach(() => store.faults.clear());
after(async () => {
  await Promise.all(workers.map((each) => each.stop()));
  await store.stop();
});

/** Someone with a session. */
async function guest(url = worker.url) {
  const visitor = new Visitor(url);
  assert.equal((await visitor.merge({ views: 1 })).status, 200);
  return visitor;
}

/** A visitor's ticket. */
async function ticket(url = worker.url) {
  const visitor = await guest(url);
  assert.ok(visitor.ticket);
  return visitor.ticket;
}

/** The same request with another `Cookie` header. @param {string} cookie @param {string} [url] */
const lookWith = (cookie, url = worker.url) =>
  new Visitor(url).send("GET", "/auth/session", { headers: { Cookie: cookie } });

/**
 * A `Set-Cookie` line, taken apart.
 * @param {string} line
 */
function parse(line) {
  const [pair, ...attributes] = line.split(";").map((part) => part.trim());
  const [name, value] = pair.split(/=(.*)/s);
  return {
    name,
    value,
    attributes: Object.fromEntries(
      attributes.map((text) => text.split("=")).map(([key, of = true]) => [key, of]),
    ),
  };
}

const ATTRIBUTES = { Path: "/", HttpOnly: true, Secure: true, SameSite: "Lax" };

/** @param {Answer} answer @param {{ name?: string, attributes?: object }} [expected] */
function assertRemoved(answer, { name = NAME, attributes = ATTRIBUTES } = {}) {
  assert.equal(answer.setCookies.length, 1, "one Set-Cookie");
  assert.deepEqual(parse(answer.setCookies[0]), {
    name,
    value: "",
    attributes: { ...attributes, "Max-Age": "0" },
  });
}

/** @param {Answer} answer @param {{ name?: string, attributes?: object }} [expected] */
function assertIssued(answer, { name = NAME, attributes = ATTRIBUTES } = {}) {
  assert.equal(answer.setCookies.length, 1, "one Set-Cookie");
  const { value, ...rest } = parse(answer.setCookies[0]);
  assert.deepEqual(rest, { name, attributes });
  assert.match(value, /^[\w-]{148}$/);
  return value;
}

/** @param {() => Promise<Answer>} act @param {number} calls */
async function asking(act, calls) {
  const { value, calls: made } = await store.counters.during(act);
  assert.equal(made, calls, "calls to the store");
  return value;
}

/** Exactly these bytes; returns the answer's, which ends where it says. @param {string} text a byte for each character */
function sendRaw(text) {
  const { hostname, port } = new URL(worker.url);
  return new Promise((/** @type {(answer: string) => void} */ resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(Buffer.from(text, "latin1")));
    let answer = "";
    socket.setEncoding("latin1").on("data", (chunk) => {
      answer += chunk;
      const [, head, body = ""] = answer.match(/^([^]*?)\r\n\r\n([^]*)$/) ?? [];
      const length = Number(head?.match(/^Content-Length: (\d+)\r?$/im)?.[1] ?? Infinity);
      // After a refusal of its own the platform keeps the connection open for seconds.
      if (body.length >= length) socket.destroy();
    });
    socket.on("close", () => resolve(answer)).on("error", reject);
  });
}

/** @param {string} fields */
const rawLook = (fields) =>
  sendRaw(
    `GET /auth/session HTTP/1.1\r\nHost: ${new URL(worker.url).host}\r\nConnection: close\r\n${fields}\r\n\r\n`,
  );

const ROUTES = /** @type {[string, string, number][]} */ ([
  ["GET", "/auth/session", 200],
  ["HEAD", "/auth/session", 200],
  ["POST", "/auth/session/rotate", 401],
  ["DELETE", "/auth/session", 204],
]);

describe("a cookie that is no ticket of ours", () => {
  const flip = (/** @type {string} */ text) =>
    text.slice(0, 50) + (text[50] === "A" ? "B" : "A") + text.slice(51);
  /** @type {[string, (good: string) => string][]} */
  const spoilt = [
    ["empty", () => ""],
    ["invented", () => "A".repeat(148)],
    ["a word", () => "session"],
    ["an id like others use", () => "s%3AabcdefABCDEF.mAcMaCmAcMaC"],
    ["a JSON web token", () => "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0."],
    ["cut by a character", (good) => good.slice(0, -1)],
    ["cut by a group", (good) => good.slice(0, -4)],
    ["cut to its first half", (good) => good.slice(0, 66)],
    ["without its first character", (good) => good.slice(1)],
    ["longer by a character", (good) => `${good}A`],
    ["padded", (good) => `${good}=`],
    ["doubled", (good) => good + good],
    ["with a letter changed", flip],
    ["in capitals", (good) => good.toUpperCase()],
    ["backwards", (good) => [...good].reverse().join("")],
    ["in another base64", (good) => `+/${good.slice(2)}`],
    ["quoted", (good) => `"${good}"`],
    ["in single quotes", (good) => `'${good}'`],
    ["percent-encoded", (good) => `%${good.charCodeAt(0).toString(16)}${good.slice(1)}`],
    ["behind a sign of equality", (good) => `=${good}`],
    ["behind a space", (good) => ` ${good}`],
    ["with a space in it", (good) => `${good.slice(0, 60)} ${good.slice(60)}`],
    ["with a tab in it", (good) => `${good.slice(0, 60)}\t${good.slice(60)}`],
    ["with a comma and more", (good) => `${good},x`],
    ["100 KB long", () => "A".repeat(100_000)],
    ["100 KB that begin well", (good) => good.padEnd(100_000, "A")],
    ["bytes that are not ASCII", () => "\xff\xfe\x80\xe9".repeat(33)],
    ["UTF-8", () => Buffer.from("😀".repeat(33)).toString("latin1")],
    ["148 bytes of UTF-8 that are 74 characters", () => Buffer.from("é".repeat(74)).toString("latin1")],
    ["a way out of its place", () => "../../sess:x"],
    ["a command", () => "x\\r\\nFLUSHALL"],
    ["a line break, percent-encoded", () => "x%0d%0aSet-Cookie:%20evil=1"],
    ["an object", () => '{"id":1}'],
    ["__proto__", () => "__proto__"],
  ];
  for (const [name, spoil] of spoilt) {
    test(`${name}: is no session, is removed, and the store is not asked`, async () => {
      const cookie = `${NAME}=${spoil(await ticket())}`;
      for (const [method, path, status] of ROUTES) {
        const act = () => new Visitor(worker.url).send(method, path, { headers: { Cookie: cookie } });
        const answer = await asking(act, 0);
        assert.equal(answer.status, status, answer.text);
        if (method === "GET") assert.deepEqual(answer.json, { session: null });
        assertRemoved(answer);
      }
      // A change has to ask: it makes a new session, with one call.
      const change = () =>
        new Visitor(worker.url).send("PATCH", "/auth/session/data", {
          headers: { Cookie: cookie, "Content-Type": "application/json" },
          body: '{"mine":1}',
        });
      const answer = await asking(change, 1);
      assert.deepEqual(answer.json.session.data, { mine: 1 });
      assertIssued(answer);
    });
  }

  test("any one character of a good ticket changed makes a bad one", async () => {
    const good = await ticket();
    const { calls } = await store.counters.during(async () => {
      for (let index = 0; index < good.length; index++) {
        const other = good[index] === "A" ? "B" : "A";
        const answer = await lookWith(`${NAME}=${good.slice(0, index)}${other}${good.slice(index + 1)}`);
        assert.equal(answer.json.session, null, `character ${index}`);
        assertRemoved(answer);
      }
    });
    assert.equal(calls, 0);
    assert.equal((await lookWith(`${NAME}=${good}`)).json.session.data.views, 1);
  });

  for (const control of ["\x01", "\x07", "\x08", "\x1b", "\x7f"]) {
    test(`with the control character ${control.charCodeAt(0)} in it is refused by us or by the platform`, async () => {
      const good = await ticket();
      for (const value of [control, good + control, control + good]) {
        const { value: answer, calls } = await store.counters.during(() =>
          rawLook(`Cookie: ${NAME}=${value}`),
        );
        assert.match(answer, /^HTTP\/1\.1 (200 OK\r\n[^]*\{"session":null\}$|400 )/);
        assert.equal(calls, 0);
      }
    });
  }

  test("on a path that is not there, or with a method that is not, costs nothing either", async () => {
    const headers = { Cookie: `${NAME}=${"A".repeat(148)}` };
    for (const [method, path] of [
      ["GET", "/auth/nowhere"],
      ["PUT", "/auth/session"],
    ]) {
      await asking(() => new Visitor(worker.url).send(method, path, { headers }), 0);
    }
  });
});

describe("no cookie", () => {
  test("is no session, and nothing is set, removed or asked", async () => {
    for (const [method, path, status] of ROUTES) {
      const answer = await asking(() => new Visitor(worker.url).send(method, path), 0);
      assert.equal(answer.status, status);
      assert.deepEqual(answer.setCookies, []);
    }
  });

  test("is what cookies of other names are, however similar", async () => {
    const good = await ticket();
    for (const cookie of [
      `__host-session=${good}`,
      `__Host-Session=${good}`,
      `Host-session=${good}`,
      `x__Host-session=${good}`,
      `__Host-session2=${good}`,
      `__Host-session =${good}`,
      `__Host-sessio=${good}`,
      `__Host%2Dsession=${good}`,
      `"__Host-session"=${good}`,
      `other=${NAME}=${good}`,
      `a=1; b="${NAME}=${good}"`,
      `=${NAME}=${good}`,
      `${NAME}`,
      `$Version=1, ${NAME}2=${good}`,
      ";;; ;=;",
    ]) {
      const answer = await asking(() => lookWith(cookie), 0);
      assert.equal(answer.json.session, null, cookie);
      assert.deepEqual(answer.setCookies, [], cookie);
    }
  });
});

describe("the absolute end", () => {
  test("ends a session without asking the store, to the millisecond or a second", async () => {
    const visitor = await guest();
    const { expires_at } = await visitor.session();
    const { ticket } = visitor;
    const left = Date.parse(expires_at) - Date.now();
    try {
      await worker.moveClock(left + 2000);
      const answer = await asking(() => visitor.look(), 0);
      assert.deepEqual(answer.json, { session: null });
      assertRemoved(answer);
      for (const [method, path, status] of ROUTES) {
        visitor.ticket = ticket;
        assert.equal((await asking(() => visitor.send(method, path), 0)).status, status);
      }
    } finally {
      await worker.moveClock(-left - 2000);
    }
    visitor.ticket = ticket;
    assert.equal((await visitor.session()).data.views, 1);
  });
});

describe("several cookies with our name", () => {
  const junk = `${NAME}=junk`;
  /** @type {[string, (good: string) => string][]} */
  const mixtures = [
    ["first", (good) => `${NAME}=${good}; ${junk}; ${NAME}=`],
    ["last", (good) => `${NAME}=; ${junk}; ${NAME}=${"A".repeat(148)}; ${NAME}=${good}`],
    ["in the middle", (good) => `a=1; ${junk}; ${NAME}=${good}; ${junk}; b=2`],
    ["without spaces", (good) => `a=1;${junk};${NAME}=${good};${junk}`],
    ["among many spaces", (good) => `  a=1  ;   ${junk} ;\t${NAME}=${good}  ; `],
    ["behind 15 others", (good) => `${`${junk}; `.repeat(15)}${NAME}=${good}`],
    ["behind 100 short others", (good) => `${`${junk}; `.repeat(100)}${NAME}=${good}`],
    ["behind a hundred of other names", (good) => `${"x=1; ".repeat(100)}${NAME}=${good}`],
    ["twice", (good) => `${NAME}=${good}; ${NAME}=${good}`],
  ];
  for (const [name, mix] of mixtures) {
    test(`the valid one counts when it stands ${name}`, async () => {
      const cookie = mix(await ticket());
      const answer = await asking(() => lookWith(cookie), 1);
      assert.equal(answer.json.session?.data.views, 1);
      assert.deepEqual(answer.setCookies, []);
    });
  }

  test("of two valid ones the latest issued counts, whichever stands first", async () => {
    const [earlier, later] = [await guest(), worker.visitor()];
    await worker.moveClock(1000);
    await later.merge({ views: 2 });
    await worker.moveClock(-1000);
    for (const pair of [
      [earlier, later],
      [later, earlier],
    ]) {
      const cookie = pair.map((visitor) => visitor.cookieHeader()).join("; ");
      const answer = await asking(() => lookWith(cookie), 1);
      assert.equal(answer.json.session.data.views, 2);
    }
  });

  test("all of them wrong are answered with one removal", async () => {
    const answer = await asking(() => lookWith(`${junk}; ${junk}; ${NAME}=${"A".repeat(148)}`), 0);
    assert.equal(answer.json.session, null);
    assertRemoved(answer);
  });

  test("a thousand wrong ones cost no call and little time", async () => {
    const good = await ticket();
    const wrong = `${NAME}=${good.slice(0, -1)}${good.endsWith("A") ? "B" : "A"}; `;
    const answer = await asking(() => lookWith(wrong.repeat(400)), 0);
    assert.equal(answer.json.session, null);
    assertRemoved(answer);
  });
});

describe("the secrets", () => {
  test("an older one is accepted and its tickets issued again, which then do without it", async () => {
    const [turned, dropped] = [await open({}, `${NEW},${OLD}`), await open({}, NEW)];
    const visitor = await guest();
    const old = visitor.ticket ?? "";
    const { handle } = await visitor.session();

    visitor.url = turned.url;
    const answer = await asking(() => visitor.look(), 1);
    assert.equal(answer.json.session.handle, handle, "the same session");
    const issued = assertIssued(answer);
    assert.notEqual(issued, old);
    assert.deepEqual((await visitor.look()).setCookies, [], "once is enough");

    visitor.url = dropped.url;
    const after = await asking(() => visitor.look(), 1);
    assert.equal(after.json.session.handle, handle);
    assert.deepEqual(after.setCookies, []);

    const late = await asking(() => lookWith(`${NAME}=${old}`, dropped.url), 0);
    assert.equal(late.json.session, null, "under a dropped secret a ticket is a forged one");
    assertRemoved(late);

    // Before every isolate has the new one, a new ticket may meet an old isolate.
    assert.equal((await asking(() => lookWith(`${NAME}=${issued}`, worker.url), 0)).json.session, null);
  });

  test("a change and a rotation under an older one issue the ticket again, a logout needs none", async () => {
    const turned = await open({}, ` ${NEW} , ${OLD} `);
    for (const act of [
      (/** @type {Visitor} */ visitor) => visitor.merge({ views: 2 }),
      (/** @type {Visitor} */ visitor) => visitor.merge({}),
      (/** @type {Visitor} */ visitor) => visitor.rotate(),
    ]) {
      const visitor = await guest();
      visitor.url = turned.url;
      assertIssued(await act(visitor));
      assert.deepEqual((await visitor.look()).setCookies, []);
    }
    const visitor = await guest();
    visitor.url = turned.url;
    assertRemoved(await visitor.logout());
  });

  test("two deployments with different ones don't accept each other's tickets", async () => {
    const other = await open({}, NEW);
    for (const [from, to] of [
      [worker, other],
      [other, worker],
    ]) {
      const answer = await asking(async () => lookWith(`${NAME}=${await theirs(from.url)}`, to.url), 1);
      assert.equal(answer.json.session, null);
      assertRemoved(answer);
    }
    /** With one call: a session is made, and not looked for. @param {string} url */
    function theirs(url) {
      return ticket(url);
    }
  });

  test("a secret that begins like another is another", async () => {
    const longer = await open({}, `${OLD}x`);
    const good = await ticket();
    assert.equal((await asking(() => lookWith(`${NAME}=${good}`, longer.url), 0)).json.session, null);
  });
});

describe("what a ticket is bound to", () => {
  test("a ticket moved to a cookie of another name is refused, under the same secret", async () => {
    const other = await open({ cookie: { name: "__Host-session2" } });
    const [mine, theirs] = [await ticket(), new Visitor(other.url)];
    await theirs.merge({ views: 1 });
    const their = theirs.cookies.get("__Host-session2") ?? "";
    const answer = await asking(() => lookWith(`__Host-session2=${mine}`, other.url), 0);
    assert.equal(answer.json.session, null);
    assertRemoved(answer, { name: "__Host-session2" });
    assert.equal((await asking(() => lookWith(`${NAME}=${their}`), 0)).json.session, null);
    assert.equal((await lookWith(`__Host-session2=${their}`, other.url)).json.session.data.views, 1);
  });

  test("two applications in one database don't find each other's sessions", async () => {
    const app = await open({ key_prefix: "app:" });
    for (const [from, to, prefix] of /** @type {const} */ ([
      [worker, app, ""],
      [app, worker, "app:"],
    ])) {
      const visitor = await guest(from.url);
      const { handle } = await visitor.session();
      assert.ok(await store.redis.exists(`${prefix}sess:${handle}`));
      const abroad = visitor.clone(to.url);
      const answer = await asking(() => abroad.look(), 2);
      assert.equal(answer.json.session, null);
      assertRemoved(answer);
      abroad.ticket = visitor.ticket;
      assert.equal((await abroad.logout()).status, 204);
      assert.equal((await visitor.session()).data.views, 1);
    }
  });
});

describe("the attributes", () => {
  /** @type {[string, object, { name?: string, attributes: object }][]} */
  const cases = [
    ["by default", {}, { attributes: ATTRIBUTES }],
    ["same_site Strict", { same_site: "Strict" }, { attributes: { ...ATTRIBUTES, SameSite: "Strict" } }],
    [
      "same_site None, partitioned",
      { same_site: "None", partitioned: true },
      { attributes: { ...ATTRIBUTES, SameSite: "None", Partitioned: true } },
    ],
    [
      "a domain and a path",
      { name: "__Secure-sid", domain: "example.com", path: "/auth" },
      { name: "__Secure-sid", attributes: { ...ATTRIBUTES, Path: "/auth", Domain: "example.com" } },
    ],
    [
      "not secure",
      { name: "sid", secure: false },
      { name: "sid", attributes: { Path: "/", HttpOnly: true, SameSite: "Lax" } },
    ],
  ];
  for (const [name, cookie, expected] of cases) {
    test(`${name}: stand in the cookie of a browser's session, in a renewed one and in its removal`, async () => {
      const { url, moveClock } = Object.keys(cookie).length ? await open({ cookie }) : worker;
      const visitor = new Visitor(url);
      const first = assertIssued(await visitor.merge({ views: 1 }), expected);
      assert.notEqual(assertIssued(await visitor.rotate(), expected), first);
      await moveClock(6 * MINUTE);
      assertIssued(await visitor.look(), expected);
      assertRemoved(await visitor.logout(), expected);
      assertRemoved(await lookWith(`${expected.name ?? NAME}=x`, url), expected);
      await moveClock(-6 * MINUTE);
    });
  }
});

describe("a cookie is set only when it changes", () => {
  test("not by reading, by changing nothing, by changing the data, nor by being refused", async () => {
    const visitor = await guest();
    for (const act of [
      () => visitor.look(),
      () => visitor.look(),
      () => visitor.send("HEAD", "/auth/session"),
      () => visitor.merge({}),
      () => visitor.merge({ views: 1 }),
      () => visitor.patch([]),
      () => visitor.patch([{ op: "test", path: "/views", value: 1 }]),
      () => visitor.merge({ views: 2 }),
      () => visitor.increment("/views"),
      () => visitor.patch([{ op: "remove", path: "/missing" }]),
      () => visitor.merge({ a: 1 }, { "If-Match": '"x"' }),
      () => visitor.send("PUT", "/auth/session"),
      () => visitor.send("GET", "/auth/nowhere"),
      () => visitor.send("GET", "/auth/health"),
    ]) {
      assert.deepEqual((await act()).setCookies, [], String(act));
    }
  });

  test("a change that changes nothing makes no session, or a session, but never a second one", async () => {
    const visitor = worker.visitor();
    await visitor.merge({});
    const { ticket } = visitor;
    assert.deepEqual((await visitor.merge({})).setCookies.length, ticket ? 0 : 1);
  });

  test("a touch that is due renews the ticket and the time to live, in the same call, once", async () => {
    const visitor = await guest();
    const old = visitor.ticket;
    const { handle } = await visitor.session();
    await store.redis.pExpire(`sess:${handle}`, 5 * MINUTE);
    await worker.moveClock(6 * MINUTE);
    try {
      const answer = await asking(() => visitor.look(), 1);
      assert.notEqual(assertIssued(answer), old);
      assert.ok((await store.redis.pTTL(`sess:${handle}`)) > 25 * MINUTE);
      const next = await store.counters.during(() => visitor.look());
      assert.deepEqual(next.value.setCookies, []);
      assert.equal(next.byName.PEXPIRE ?? 0, 0);
      visitor.ticket = old;
      assert.equal((await visitor.session()).handle, handle, "the older ticket still leads there");
    } finally {
      await worker.moveClock(-6 * MINUTE);
    }
  });

  test("a touch that was made for a refused request is not made again for the next: touch_every", async () => {
    const visitor = await guest();
    await worker.moveClock(6 * MINUTE);
    try {
      const { byName } = await store.counters.during(async () => {
        for (let attempt = 0; attempt < 3; attempt++) {
          assert.equal((await visitor.patch([{ op: "remove", path: "/missing" }])).status, 422);
          assert.equal((await visitor.merge({ a: 1 }, { "If-Match": '"x"' })).status, 412);
        }
        assert.equal((await visitor.look()).status, 200);
      });
      assert.ok((byName.PEXPIRE ?? 0) <= 1, `${byName.PEXPIRE} renewals of the time to live`);
    } finally {
      await worker.moveClock(-6 * MINUTE);
    }
  });
});

describe("a dead ticket", () => {
  /** A good ticket, whose session is gone. */
  async function survivor() {
    const visitor = await guest();
    const { handle } = await visitor.session();
    await store.redis.del(`sess:${handle}`);
    return { visitor, handle, ticket: visitor.ticket };
  }

  for (const [method, path, status] of ROUTES) {
    test(`is no session to ${method} ${path}, and is removed`, async () => {
      const { visitor } = await survivor();
      const answer = await asking(() => visitor.send(method, path), 2);
      assert.equal(answer.status, status);
      if (method === "GET") assert.deepEqual(answer.json, { session: null });
      assertRemoved(answer);
      assert.equal(visitor.ticket, undefined);
    });
  }

  test("is replaced by a change, which makes an anonymous session of the new data alone", async () => {
    const { visitor, handle, ticket } = await survivor();
    const answer = await asking(() => visitor.merge({ fresh: 1 }), 3);
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.json.session.data, { fresh: 1 });
    assert.equal(answer.json.session.user, null);
    assert.notEqual(answer.json.session.handle, handle);
    assert.notEqual(assertIssued(answer), ticket);
    assert.equal(await store.redis.exists(`sess:${handle}`), 0);
  });

  test("is removed also when the change is refused", async () => {
    const { visitor } = await survivor();
    const answer = await visitor.patch([{ op: "remove", path: "/views" }]);
    assert.equal(answer.status, 422);
    assertRemoved(answer);
  });

  test("is what a ticket is after a logout, from wherever it is sent", async () => {
    const visitor = await guest();
    const other = visitor.clone();
    assertRemoved(await visitor.logout());
    assert.equal((await other.session()) ?? null, null);
    const again = await visitor.logout();
    assert.equal(again.status, 204);
    assert.deepEqual(again.setCookies, []);
  });

  test("never becomes a session again when somebody puts something else under its key", async () => {
    const { visitor, handle, ticket } = await survivor();
    for (const value of [
      "",
      "null",
      "{}",
      "[]",
      '{"v":2}',
      '{"v":1,"data":{}}',
      "\xff",
      "{".repeat(100_000),
    ]) {
      await store.redis.set(`sess:${handle}`, value, { expiration: { type: "EX", value: 60 } });
      visitor.ticket = ticket;
      const answer = await visitor.look();
      assert.equal(answer.status, 200, value.slice(0, 20));
      assert.deepEqual(answer.json, { session: null });
    }
    await store.redis.del(`sess:${handle}`);
    await store.redis.lPush(`sess:${handle}`, "x");
    visitor.ticket = ticket;
    assert.ok([200, 503].includes((await visitor.look()).status));
  });
});

test("a session that is not used for its idle time is gone from the store by itself", async () => {
  const visitor = await guest();
  const { handle } = await visitor.session();
  const left = await store.redis.pTTL(`sess:${handle}`);
  assert.ok(left > 29 * MINUTE && left <= 30 * MINUTE, String(left));
  await worker.moveClock(23 * HOUR + 50 * MINUTE);
  try {
    const { handle: successor } = await visitor.session();
    const last = await store.redis.pTTL(`sess:${successor}`);
    assert.ok(last > 9 * MINUTE && last <= 10 * MINUTE, `a touch never goes past the absolute end: ${last}`);
  } finally {
    await worker.moveClock(-23 * HOUR - 50 * MINUTE);
  }
});

describe("nothing that was sent becomes a header of the answer", () => {
  const EVIL = "evil-header-of-mine";
  const encoded = `x%0d%0aSet-Cookie:%20${EVIL}=1`;

  test("encoded line breaks stay what they are", async () => {
    for (const headers of [
      { Cookie: `${NAME}=${encoded}` },
      { Cookie: `${encoded}=1; ${NAME}=\\r\\nX-${EVIL}: 1` },
      { Origin: `https://${encoded}` },
      { Origin: `https://\xe5\x98\x8a\xe5\x98\x8dSet-Cookie:${EVIL}` },
      { "If-Match": `"${encoded}"` },
      { "Content-Type": `application/json; ${encoded}` },
      { "Content-Type": encoded },
      { "Sec-Fetch-Site": encoded },
      { "Access-Control-Request-Method": encoded, Origin: `https://${EVIL}.example` },
    ]) {
      for (const [method, path] of [
        ["GET", "/auth/session"],
        ["PATCH", "/auth/session/data"],
        ["OPTIONS", "/auth/session"],
        ["GET", `/auth/${encoded}`],
        ["GET", `/auth/session?${encoded}`],
      ]) {
        const answer = await new Visitor(worker.url).send(method, path, {
          headers: /** @type {any} */ (headers),
        });
        assert.doesNotMatch(JSON.stringify([...answer.headers]) + answer.text, new RegExp(EVIL));
      }
    }
  });

  test("raw line breaks end a header, or the connection, but are never repeated", async () => {
    for (const name of ["Cookie", "Origin", "If-Match", "Content-Type", "Access-Control-Request-Method"]) {
      for (const end of ["\r\n", "\n", "\r", "\r\n ", "\n\t", "\0"]) {
        const answer = await rawLook(`${name}: ${NAME}=x${end}Set-Cookie: ${EVIL}=1`);
        assert.match(answer, /^HTTP\/1\.1 \d{3} /);
        assert.ok(!answer.includes(EVIL), JSON.stringify(answer));
      }
    }
  });
});
