/** Cookies that the Worker sends: what a ticket is bound to, and when its cookie is set, renewed and removed. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  assertIssued,
  assertRemoved,
  assertUseless,
  ATTRIBUTES,
  guest,
  logOutWith,
  lookWith,
  MINUTE,
  NAME,
  OLD,
  open,
  ROUTES,
  store,
  ticket,
  withCalls,
  worker,
} from "./support/cookies.mjs";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret } from "./support/worker.mjs";

const HOUR = 60 * MINUTE;
const NEW = randomSecret();

describe("the secrets", () => {
  test("a ticket under an older one is accepted and reissued under the newest", async () => {
    const [turned, dropped] = [await open({}, `${NEW},${OLD}`), await open({}, NEW)];
    const visitor = await guest();
    const old = visitor.ticket ?? "";
    const { handle } = await visitor.session();

    visitor.url = turned.url;
    const answer = await withCalls(() => visitor.look(), 1);
    assert.equal(answer.json.session.handle, handle, "the same session");
    const issued = assertIssued(answer);
    assert.notEqual(issued, old);
    assert.deepEqual((await visitor.look()).setCookies, [], "it is reissued once");

    visitor.url = dropped.url;
    const after = await withCalls(() => visitor.look(), 1);
    assert.equal(after.json.session.handle, handle);
    assert.deepEqual(after.setCookies, []);

    const late = await withCalls(() => lookWith(`${NAME}=${old}`, dropped.url), 0);
    assert.equal(late.json.session, null, "under a dropped secret a ticket is no session");
    assert.deepEqual(late.setCookies, []);

    // Before every isolate has the new one, a new ticket may meet an old isolate.
    assert.equal((await withCalls(() => lookWith(`${NAME}=${issued}`, worker.url), 0)).json.session, null);
  });

  test("a change and a rotation reissue a ticket under an older one, a logout does not", async () => {
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

  test("two deployments with different ones do not accept each other's tickets", async () => {
    const other = await open({}, NEW);
    for (const [from, to] of [
      [worker, other],
      [other, worker],
    ]) {
      const answer = await withCalls(async () => lookWith(`${NAME}=${await theirs(from.url)}`, to.url), 1);
      assert.equal(answer.json.session, null);
      assert.deepEqual(answer.setCookies, [], "the other's secret may be a newer one: the cookie stays");
    }
    /** With one call: the session is created without a read. @param {string} url */
    function theirs(url) {
      return ticket(url);
    }
  });

  test("a secret that another one begins with is a different secret", async () => {
    const longer = await open({}, `${OLD}x`);
    const good = await ticket();
    assert.equal((await withCalls(() => lookWith(`${NAME}=${good}`, longer.url), 0)).json.session, null);
  });
});

describe("what a ticket is bound to", () => {
  test("a ticket moved to a cookie of another name is refused, under the same secret", async () => {
    const other = await open({ cookie: { name: "__Host-session2" } });
    const [mine, theirs] = [await ticket(), new Visitor(other.url)];
    await theirs.merge({ views: 1 });
    const their = theirs.cookies.get("__Host-session2") ?? "";
    const answer = await withCalls(() => lookWith(`__Host-session2=${mine}`, other.url), 0);
    assert.equal(answer.json.session, null);
    assert.equal((await withCalls(() => lookWith(`${NAME}=${their}`), 0)).json.session, null);
    assert.equal((await lookWith(`__Host-session2=${their}`, other.url)).json.session.data.views, 1);
  });

  test("two applications in one database do not find each other's sessions", async () => {
    const app = await open({ key_prefix: "app:" });
    for (const [from, to, prefix] of /** @type {const} */ ([
      [worker, app, ""],
      [app, worker, "app:"],
    ])) {
      const visitor = await guest(from.url);
      const { handle } = await visitor.session();
      assert.ok(await store.redis.exists(`${prefix}sess:${handle}`));
      const abroad = visitor.clone(to.url);
      assert.equal((await withCalls(() => abroad.look(), 2)).json.session, null);
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
    test(`${name}: are the same in a new cookie, in a renewed one and in its removal`, async () => {
      const { url } = Object.keys(cookie).length ? await open({ cookie }) : worker;
      const visitor = new Visitor(url);
      const first = assertIssued(await visitor.merge({ views: 1 }), expected);
      assert.notEqual(assertIssued(await visitor.rotate(), expected), first);
      assertRemoved(await visitor.logout(), expected);
      assertRemoved(await logOutWith(`${expected.name ?? NAME}=x`, url), expected);
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

  test("an empty change never creates a second session", async () => {
    const visitor = worker.visitor();
    await visitor.merge({});
    const { ticket } = visitor;
    assert.deepEqual((await visitor.merge({})).setCookies.length, ticket ? 0 : 1);
  });

  test("a touch that is due renews the time to live in the same call, once, and sets no cookie", async () => {
    const visitor = await guest();
    const { handle } = await visitor.session();
    await store.redis.pExpire(`sess:${handle}`, 5 * MINUTE);
    await worker.moveClock(6 * MINUTE);
    try {
      const answer = await withCalls(() => visitor.look(), 1);
      assert.deepEqual(answer.setCookies, []);
      assert.ok((await store.redis.pTTL(`sess:${handle}`)) > 25 * MINUTE);
      for (const act of [() => visitor.look(), () => visitor.merge({ views: 2 }), () => visitor.look()]) {
        const next = await store.counters.during(act);
        assert.deepEqual(next.value.setCookies, []);
        assert.equal(next.byName.PEXPIRE ?? 0, 0);
      }
    } finally {
      await worker.moveClock(-6 * MINUTE);
    }
  });

  test("a touch for a refused request is not repeated for the next one within touch_every", async () => {
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

describe("the absolute end", () => {
  test("ends a session without a call to the store", async () => {
    const visitor = await guest();
    const { expires_at } = await visitor.session();
    const { ticket } = visitor;
    const left = Date.parse(expires_at) - Date.now();
    try {
      await worker.moveClock(left + 2000);
      const answer = await withCalls(() => visitor.look(), 0);
      assert.deepEqual(answer.json, { session: null });
      for (const [method, path, status] of ROUTES) {
        visitor.ticket = ticket;
        const answer = await withCalls(() => visitor.send(method, path), 0);
        assert.equal(answer.status, status);
        assertUseless(answer, method);
      }
    } finally {
      await worker.moveClock(-left - 2000);
    }
    visitor.ticket = ticket;
    assert.equal((await visitor.session()).data.views, 1);
  });
});

describe("a ticket whose session is gone", () => {
  /** A visitor with a valid ticket, whose session is gone. */
  async function orphan() {
    const visitor = await guest();
    const { handle } = await visitor.session();
    await store.redis.del(`sess:${handle}`);
    return { visitor, handle, ticket: visitor.ticket };
  }

  for (const [method, path, status] of ROUTES) {
    const isSafe = ["GET", "HEAD"].includes(method);
    test(`is no session to ${method} ${path}, and ${isSafe ? "stays" : "is removed"}`, async () => {
      const { visitor, ticket } = await orphan();
      // A read may be answered by a replica, which is not believed; a change asks the primary in the first place.
      const answer = await withCalls(() => visitor.send(method, path), isSafe ? 2 : 1);
      assert.equal(answer.status, status);
      if (method === "GET") assert.deepEqual(answer.json, { session: null });
      assertUseless(answer, method);
      assert.equal(visitor.ticket, isSafe ? ticket : undefined);
    });
  }

  test("is replaced by a change, which creates an anonymous session with the new data alone", async () => {
    const { visitor, handle, ticket } = await orphan();
    const answer = await withCalls(() => visitor.merge({ fresh: 1 }), 2);
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.json.session.data, { fresh: 1 });
    assert.equal(answer.json.session.user, null);
    assert.notEqual(answer.json.session.handle, handle);
    assert.notEqual(assertIssued(answer), ticket);
    assert.equal(await store.redis.exists(`sess:${handle}`), 0);
  });

  test("is removed also when the change is refused", async () => {
    const { visitor } = await orphan();
    const answer = await visitor.patch([{ op: "remove", path: "/views" }]);
    assert.equal(answer.status, 422);
    assertRemoved(answer);
  });

  test("is any ticket after a logout, from whatever client", async () => {
    const visitor = await guest();
    const other = visitor.clone();
    assertRemoved(await visitor.logout());
    assert.equal((await other.session()) ?? null, null);
    const again = await visitor.logout();
    assert.equal(again.status, 204);
    assert.deepEqual(again.setCookies, []);
  });

  test("is an error when something unreadable is stored under its key, and the cookie stays", async () => {
    const { visitor, handle, ticket } = await orphan();
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
      assert.equal(answer.status, 500, value.slice(0, 20));
      assert.equal(answer.json.code, "internal");
      assert.deepEqual(answer.setCookies, []);
    }
    await store.redis.del(`sess:${handle}`);
    await store.redis.lPush(`sess:${handle}`, "x");
    visitor.ticket = ticket;
    assert.ok([200, 503].includes((await visitor.look()).status));
  });
});

test("a session that is not used for its idle time expires in the store", async () => {
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
