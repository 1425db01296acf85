/** What an attacker, an unlucky moment or a newcomer does to sessions in another application's format, and to those taken over. */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { SECRET } from "./support/express-app.mjs";
import { NAME, randomness, sign } from "./support/express-cookies.mjs";
import { DAY, HOUR, PASSWORD, admin, copyOf, json, keyOf, ok, refused } from "./support/express.mjs";
import { sidOf, startBeside } from "./support/express.mjs";
import { startBeside as startBesideFlask } from "./support/flask-app.mjs";
import { FAST_HASH, NO_LIMITS } from "./support/worker.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */
/** @typedef {import("./support/worker.mjs").Worker} Worker */
/** @typedef {Awaited<ReturnType<typeof startBesideFlask>>} BesideFlask */

const OWN = "__Host-session";
/** The cookie of an id of Express'. @param {string} sid */
const signed = (sid) => encodeURIComponent(`s:${sign(sid, SECRET)}`);
const isScript = (/** @type {{ commands: string[][] }} */ { commands }) =>
  commands.some(([word]) => word.startsWith("EVAL"));

/** Which settings take Express' sessions over. @param {unknown} accept */
const moving = (accept = [{ format: "express", user_pointer: "/userId" }], more = {}) => ({
  cookie: { format: "cloakroom", user_pointer: undefined, secure: true, accept, ...more },
});

/** @param {Worker} worker @param {Record<string, string>} cookies */
function visitorWith(worker, cookies) {
  const visitor = worker.visitor();
  visitor.cookies = new Map(Object.entries(cookies));
  return visitor;
}

/** @param {Beside} both @param {Worker} worker @param {string} [name] */
async function loggedIn({ someone, app }, worker, name = "ann") {
  const who = someone({ app, worker });
  await ok(who.atExpress.send("POST", "/login", json({ name })));
  return who;
}

describe("beside Express", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside({ app: { session: { cookie: { maxAge: 30 * DAY } } } });
  });
  after(() => both?.stop());
  afterEach(() => both.store.faults.clear());

  /** A visitor with a record that stands in the store. @param {string} sid @param {unknown} record */
  async function withRecord(sid, record) {
    const text = typeof record === "string" ? record : JSON.stringify(record);
    await both.store.redis.set(`sess:${sid}`, text, { expiration: { type: "EX", value: 3600 } });
    return visitorWith(both.worker, { [NAME]: signed(sid) });
  }

  describe("an id that has ended stays so for as long as the record lives that Express writes back", () => {
    /** What stands beside outlives the record, which Express has written back. @param {string} key @param {string} handle */
    async function outlives(key, handle) {
      const [record, beside] = [
        await both.store.redis.pTTL(key),
        await both.store.redis.pTTL(`foreign:${handle}`),
      ];
      assert.ok(record > 0, "Express has written it back");
      assert.ok(
        beside >= record,
        `it is known for ${beside / HOUR} h, and the record lives for ${record / HOUR} h`,
      );
    }

    test("after a logout", async () => {
      const who = await loggedIn(both, both.worker);
      const [key, { handle }] = [keyOf(both, who.atExpress), await ok(who.atWorker.look())];
      const held = both.app.hold();
      const slow = copyOf(who).atExpress.send("POST", "/slow", json({ slow: true }));
      await held.arrived;
      await ok(who.atWorker.logout(), 204);
      held.release();
      await ok(slow);
      await outlives(key, handle);
    });

    test("after a login and a second click on it", async () => {
      const who = both.someone();
      await ok(who.atExpress.send("GET", "/"));
      const [key, { handle }] = [keyOf(both, who.atExpress), await ok(who.atWorker.look())];
      const held = both.app.hold();
      const slow = copyOf(who).atExpress.send("POST", "/slow", json({ slow: true }));
      await held.arrived;
      const [first, second] = [copyOf(who).atWorker, copyOf(who).atWorker];
      await ok(first.register("clicks twice", PASSWORD), 201);
      await ok(second.login("clicks twice", PASSWORD));
      held.release();
      await ok(slow);
      await outlives(key, handle);
    });
  });

  for (const originalMaxAge of [9.3e18, 1e22]) {
    test(`a lifetime that no store can hold (${originalMaxAge} ms) loses no session at a rotation`, async () => {
      const visitor = await withRecord(`age ${originalMaxAge}`, {
        cookie: { originalMaxAge },
        userId: "ann",
      });
      const { status } = await visitor.rotate();
      assert.equal((await visitor.session())?.user.id, "ann", `after ${status}`);
    });
  }

  test("what stands beside the user's id in the user's own object is no visitor's to change", async () => {
    const worker = await both.startWorker({ user: /** @type {any} */ ("/user/_id") });
    const user = { _id: "ann", isAdmin: false };
    const { cookies } = await withRecord("mongo", { cookie: {}, user, cart: [] });
    const visitor = visitorWith(worker, Object.fromEntries(cookies));
    assert.equal((await visitor.session())?.user.id, "ann");
    await refused(visitor.merge({ user: { isAdmin: true } }), 422, "unprocessable");
    await ok(visitor.merge({ cart: ["hat"] }));
  });

  test("a change of a long list takes no time to speak of", async () => {
    const items = (/** @type {number} */ from, /** @type {number} */ count) =>
      Array.from({ length: count }, (_, index) => ({ a: from + index }));
    const visitor = await withRecord("long list", { cookie: {}, list: items(0, 4000) });
    const began = performance.now();
    assert.equal((await ok(visitor.merge({ list: items(5000, 3999) }))).data.list.length, 3999);
    // It took 5 s when each was compared with each.
    assert.ok(performance.now() - began < 2000, `${performance.now() - began} ms`);
  });

  test("with touch = false a session is known by its handle, and since when", async () => {
    const worker = await both.startWorker({ cookie: { touch: false } });
    const { atWorker } = await loggedIn(both, worker);
    const { handle, created_at } = await ok(atWorker.look());
    await worker.idle();
    await worker.moveClock(HOUR);
    assert.equal((await ok(atWorker.look())).created_at, created_at);
    const path = `/auth/admin/sessions/${handle}`;
    assert.equal((await worker.visitor().send("GET", path, { headers: admin })).status, 200);
  });

  test("who ends the own session by its handle has no cookie any more", async () => {
    const { atWorker } = await loggedIn(both, both.worker);
    const { handle } = await ok(atWorker.look());
    const answer = await atWorker.send("DELETE", `/auth/sessions/${handle}`);
    assert.equal(answer.status, 204);
    assert.match(answer.setCookies.join(), /^connect\.sid=;.*Max-Age=0/);
  });

  test("no order of operations changes who is logged in, or what is not writable", async () => {
    const worker = await both.startWorker({ cookie: { writable: ["/cart", "/a~1b", "/deep/down"] } });
    const { atWorker } = await loggedIn(both, worker);
    const unguarded = atWorker.clone(both.worker.url);
    /** @type {[import("./support/visitor.mjs").Visitor, any, number][]} */
    const cases = [
      [atWorker, [{ op: "copy", from: "/userId", path: "/cart" }], 200],
      [atWorker, [{ op: "move", from: "/userId", path: "/cart" }], 422],
      [
        atWorker,
        [
          { op: "move", from: "/userId", path: "/cart" },
          { op: "move", from: "/cart", path: "/userId" },
        ],
        200,
      ],
      [atWorker, [{ op: "replace", path: "", value: { userId: "ann", isAdmin: true } }], 422],
      [atWorker, [{ op: "add", path: "/a", value: { b: 1 } }], 422],
      [atWorker, [{ op: "add", path: "/a~1b", value: 1 }], 200],
      [atWorker, [{ op: "add", path: "/deep", value: { down: 1, up: 1 } }], 422],
      [atWorker, [{ op: "increment", path: "/isAdmin", value: 1 }], 422],
      [
        unguarded,
        [
          { op: "remove", path: "/userId" },
          { op: "add", path: "/userId", value: "bob" },
        ],
        422,
      ],
      [
        unguarded,
        [
          { op: "remove", path: "/userId" },
          { op: "add", path: "/userId", value: "ann" },
        ],
        200,
      ],
      [unguarded, [{ op: "replace", path: "/userId", value: ["ann"] }], 422],
      [unguarded, [{ op: "replace", path: "/userId", value: { id: "ann", roles: ["admin"] } }], 422],
      [unguarded, [{ op: "add", path: "/userId\0", value: "bob" }], 200],
    ];
    for (const [visitor, operations, status] of cases) {
      const answer = await visitor.patch(operations);
      assert.equal(answer.status, status, JSON.stringify(operations) + answer.text);
    }
    for (const [body, status] of /** @type {[string, number][]} */ ([
      ['{"userId":"ann","userId":"bob"}', 422],
      ['{"\\u0075serId":"bob"}', 422],
      ['{"userId":null}', 422],
      ['{"\\u005f_proto__":{"userId":"bob"}}', 422],
      ['{"user\u0130d":"bob"}', 200],
    ])) {
      const headers = { "Content-Type": "application/merge-patch+json" };
      assert.equal(
        (await unguarded.send("PATCH", "/auth/session/data", { headers, body })).status,
        status,
        body,
      );
    }
    assert.equal((await unguarded.session())?.user.id, "ann");
  });

  test("no user of a record's breaks a header, and what is no user is nobody", async () => {
    for (const [userId, header] of /** @type {[unknown, string | null][]} */ ([
      ["a\r\nX-Session-Roles: admin", "a%0D%0AX-Session-Roles%3A%20admin"],
      ["nul\0", "nul%00"],
      ["Zoë", "Zo%C3%AB"],
      [1.5, "1.5"],
      [{ id: 5, name: 7, roles: "admin" }, "5"],
      [{ id: "x", roles: ["a,b"] }, null],
      [{ id: { id: "x" } }, null],
      [true, null],
      ["", null],
      ["..", null],
      ["x".repeat(256), null],
    ])) {
      const visitor = await withRecord("users", { cookie: {}, userId });
      const { status, headers } = await visitor.send("GET", "/auth/verify");
      const what = JSON.stringify(userId);
      assert.deepEqual([status, headers.get("x-session-user")], [header === null ? 401 : 200, header], what);
      assert.equal(headers.get("x-session-roles"), null, what);
    }
  });

  test("whatever happens at once in two isolates and at Express, with faults of the store, no id that has ended lives, and each key has an end", async () => {
    const other = await both.startWorker();
    await ok(both.someone().atWorker.register("history", PASSWORD), 201);
    for (let round = 0; round < 12; round += 1) {
      const { below, pick } = randomness(1500 + round);
      const who = both.someone();
      await ok(who.atExpress.send("GET", "/"));
      const ids = [who.atExpress.cookies.get(NAME) ?? ""];
      /** @type {Map<string, string>} */
      const ended = new Map();
      for (const fault of /** @type {const} */ (["lostAnswer", "cut", "refuse"])) {
        both.store.faults.next(fault, { when: () => below(8) === 0 });
      }
      const act = async () => {
        const id = below(3) ? (ids.at(-1) ?? "") : pick(ids);
        const [edge, app] = [visitorWith(pick([both.worker, other]), { [NAME]: id }), both.app.visitor()];
        app.cookies.set(NAME, id);
        const [what, { status }, { cookies }] = await pick([
          async () => /** @type {const} */ (["change", await edge.increment("/n"), edge]),
          async () => /** @type {const} */ (["change", await edge.merge({ a: below(9) }), edge]),
          async () => /** @type {const} */ (["end", await edge.rotate(), edge]),
          async () => /** @type {const} */ (["end", await edge.logout(), edge]),
          async () => /** @type {const} */ (["end", await edge.login("history", PASSWORD), edge]),
          async () => /** @type {const} */ (["app", await app.send("PUT", "/session", json({ b: 1 })), app]),
          async () =>
            /** @type {const} */ (["app", await app.send("POST", "/login", json({ name: "bob" })), app]),
          async () => /** @type {const} */ (["app", await app.send("POST", "/logout"), app]),
        ])();
        assert.notEqual(status, 500);
        if (what === "end" && status < 300) ended.set(id, `${round}`);
        const now = cookies.get(NAME);
        if (now && !ids.includes(now)) ids.push(now);
      };
      for (let batch = 0; batch < 4; batch += 1) await Promise.all(Array.from({ length: 6 }, act));
      both.store.faults.clear();
      for (const [id, when] of ended) {
        for (const worker of [both.worker, other]) {
          assert.equal(await visitorWith(worker, { [NAME]: id }).session(), null, `round ${when}`);
        }
      }
      for (const key of await both.store.redis.keys("*")) {
        if (!/^account:|:account$/.test(key)) assert.notEqual(await both.store.redis.pTTL(key), -1, key);
      }
    }
  });

  for (const [what, cookie] of Object.entries({
    "a record_ttl in milliseconds": { record_ttl: 86_400_000 },
    "the prefix of keys of the Worker's own": { record_prefix: "account:", format: "flask" },
    "a place in a list, which writable cannot name": { writable: ["/cart/0"] },
  })) {
    test(`at its start it refuses ${what}`, async () => {
      const worker = await both.startWorker({ cookie });
      await refused(worker.visitor().look(), 500, "misconfigured");
      assert.match(worker.logs.join(""), new RegExp(`CLOAKROOM\\.cookie\\.${Object.keys(cookie)[0]}`));
    });
  }
});

describe("taking over", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside({ worker: moving() });
  });
  after(() => both?.stop());
  afterEach(() => both.store.faults.clear());

  describe("with two applications,", () => {
    /** @type {Worker} */
    let worker;
    before(async () => {
      worker = await both.startWorker(
        moving([
          { format: "express", user_pointer: "/userId" },
          { format: "express", name: "shop.sid", record_prefix: "shop:", user_pointer: "/userId" },
          { format: "flask", user_pointer: "/user_id" },
        ]),
      );
    });

    test("the id of a session of Express' lets nobody in without its signature, under the name of the other's", async () => {
      const victim = await loggedIn(both, worker, "victim");
      await ok(victim.atWorker.look());
      const thief = visitorWith(worker, { session: sidOf(victim.atExpress) });
      assert.equal(await thief.session(), null);
      assert.equal((await thief.send("GET", "/auth/verify")).status, 401);
    });

    test("the same id at both is two sessions", async () => {
      await both.store.redis.set("sess:same", '{"cookie":{},"userId":"ann"}');
      await both.store.redis.set("shop:same", '{"cookie":{},"userId":"bob"}');
      const [ann, bob] = [NAME, "shop.sid"].map((name) => visitorWith(worker, { [name]: signed("same") }));
      assert.equal((await ann.session())?.user.id, "ann");
      assert.equal((await bob.session())?.user.id, "bob");
    });
  });

  describe("nobody is logged in by an old cookie that came along", () => {
    /** A visitor with an account here, and an old cookie of bob's that was never used here. */
    async function withBob() {
      const { atWorker } = await loggedIn(both, both.worker, "bob");
      const fresh = both.worker.visitor();
      await ok(fresh.register(`here ${crypto.randomUUID()}`, PASSWORD), 201);
      atWorker.cookies.set(OWN, fresh.ticket ?? "");
      return atWorker;
    }

    for (const [what, path, body] of /** @type {const} */ ([
      ["all sessions were ended", "/sessions", {}],
      ["the account was deleted", "/account", { password: PASSWORD }],
    ])) {
      test(`after ${what}`, async () => {
        const visitor = await withBob();
        assert.equal((await visitor.tell("DELETE", path, body)).status, 204);
        assert.equal(await visitor.session(), null);
      });
    }

    test("after a login over it, once that session is over", async () => {
      const { atWorker } = await loggedIn(both, both.worker, "bob");
      const anonymous = both.worker.visitor();
      await ok(anonymous.merge({ a: 1 }));
      atWorker.cookies.set(OWN, anonymous.ticket ?? "");
      await ok(atWorker.register(`later ${crypto.randomUUID()}`, PASSWORD), 201);
      await both.worker.moveClock(25 * HOUR);
      const late = await atWorker.session();
      await both.worker.moveClock(-25 * HOUR);
      assert.equal(late?.user ?? null, null);
    });

    test("after a logout with the new cookie alone, or the old one alone, or both", async () => {
      for (const sent of [[OWN], [NAME], [OWN, NAME]]) {
        const { atWorker } = await loggedIn(both, both.worker);
        await ok(atWorker.look());
        const all = Object.fromEntries(atWorker.cookies);
        const some = Object.fromEntries(sent.map((name) => [name, all[name] ?? ""]));
        await ok(visitorWith(both.worker, some).logout(), 204);
        for (const name of [OWN, NAME]) {
          const late = visitorWith(both.worker, { [name]: all[name] ?? "" });
          assert.equal(await late.session(), null, `${sent} and then ${name}`);
        }
      }
    });
  });

  test("one that was to end after ten minutes does not become one of thirty days", async () => {
    const app = await both.startApp({ session: { cookie: { maxAge: 10 * 60_000 } } });
    const { atWorker } = await loggedIn({ ...both, app }, both.worker);
    const { expires_at } = await ok(atWorker.look());
    assert.ok(Date.parse(expires_at) - Date.now() <= DAY, expires_at);
  });

  test("a session that Express ends while it is being taken over is not", async () => {
    const who = await loggedIn(both, both.worker);
    const taking = both.store.faults.hold(isScript);
    const look = who.atWorker.look();
    await taking.arrived;
    await ok(copyOf(who).atExpress.send("POST", "/logout"), 204);
    taking.release();
    assert.equal((await look).json.session, null);
  });

  test("at its start the Worker says that without user_pointer everybody becomes nobody", async () => {
    const worker = await both.startWorker(moving(["express"]));
    await worker.visitor().look();
    assert.match(worker.logs.join(""), /user_pointer/);
  });

  test("with a wrong secret it is said once that old cookies are signed with another", async () => {
    const worker = await both.startWorker({
      ...moving(),
      secrets: ["not the right one, though it is as long as it has to be"],
    });
    const { atWorker } = await loggedIn(both, worker);
    for (let count = 0; count < 2; count += 1) assert.equal(await atWorker.session(), null);
    assert.equal(worker.logs.join("").match(/FORMAT_SECRETS/g)?.length, 1);
  });

  test("in any order of requests at once with the old cookie, the new one and both, no change is lost or made twice", async () => {
    const other = await both.startWorker(moving());
    for (let round = 0; round < 10; round += 1) {
      const { below, pick } = randomness(77 + round);
      const { atWorker } = await loggedIn(both, both.worker, `user ${round}`);
      const old = Object.fromEntries(atWorker.cookies);
      const jars = [old];
      let [made, unknown] = [0, 0];
      for (const fault of /** @type {const} */ (["lostAnswer", "cut", "refuse"])) {
        both.store.faults.next(fault, { when: () => below(6) === 0 });
      }
      const act = async () => {
        const visitor = visitorWith(pick([both.worker, other]), pick(jars));
        if (below(5) === 0) await visitor.rotate();
        else {
          const { status } = await visitor.increment("/n");
          assert.ok([200, 503].includes(status), String(status));
          status === 200 ? (made += 1) : (unknown += 1);
        }
        const own = visitor.cookies.get(OWN);
        if (own) jars.push(pick([{ [OWN]: own }, { ...old, [OWN]: own }]));
      };
      for (let batch = 0; batch < 3; batch += 1) await Promise.all(Array.from({ length: 6 }, act));
      both.store.faults.clear();
      for (const worker of [both.worker, other]) {
        const { user, data } = await ok(visitorWith(worker, old).look());
        assert.equal(user.id, `user ${round}`);
        assert.ok((data.n ?? 0) >= made && (data.n ?? 0) <= made + unknown, `${data.n}, ${made}, ${unknown}`);
      }
    }
  });
});

describe("made-up ids of Flask's, which nobody signs,", () => {
  const many = (/** @type {number} */ count) =>
    Array.from({ length: count }, (_, index) => `session=made-up-${index}`).join("; ");

  describe("in its own format", () => {
    /** @type {BesideFlask} */
    let both;
    before(async () => {
      both = await startBesideFlask({
        cookie: { user_pointer: "/user_id" },
        settings: { password: FAST_HASH },
      });
    });
    after(() => both?.stop());

    test("cost a logout no more calls than a few", async () => {
      const visitor = both.worker.visitor();
      const logout = () => visitor.send("DELETE", "/auth/session", { headers: { Cookie: many(300) } });
      const { value, calls } = await both.store.counters.during(logout);
      assert.equal(value.status, 204);
      assert.ok(calls <= 8, `${calls} calls`);
    });

    /** @param {string} sid @param {number[]} record MessagePack */
    async function withRecord(sid, record) {
      await both.write(both.prefix + sid, Buffer.from(record));
      return visitorWith(both.worker, { session: sid });
    }
    const text = (/** @type {string} */ value) => [0xa0 + value.length, ...Buffer.from(value)];

    test("a name at the top that is no text keeps nobody from the rest", async () => {
      const visitor = await withRecord("number", [0x82, 0x01, ...text("x"), ...text("n"), 0x01]);
      assert.equal((await visitor.increment("/n")).json.session.data.n, 2);
      const { json: seen } = await both.flask.at(visitor).send("GET", "/test/session");
      assert.equal(seen.data, "{'n': 2, 1: 'x'}");
    });

    test("bytes or a date where the user should stand are nobody", async () => {
      const bytes = await withRecord("bytes", [0x81, ...text("user_id"), 0xc4, 2, 1, 2]);
      const date = await withRecord("date", [0x81, ...text("user_id"), 0xd6, 0xff, 0, 0, 0, 1]);
      assert.deepEqual([(await bytes.session()).user, (await date.session()).user], [null, null]);
    });
  });

  describe("of sessions that are taken over", () => {
    /** @type {BesideFlask} */
    let both;
    before(async () => {
      const limits = { ...NO_LIMITS, routes: [{ path: "/auth/session", limit: "5/1m", by: "session" }] };
      const settings = { limits, password: FAST_HASH };
      both = await startBesideFlask({ accept: { user_pointer: "/user_id" }, settings });
    });
    after(() => both?.stop());

    test("that are handles, which are public, let nobody in, whatever the prefix of records is", async () => {
      const victim = both.worker.visitor();
      await victim.register("victim", PASSWORD);
      const { handle } = await victim.session();
      const accept = [{ format: "flask", record_prefix: "sess:", user_pointer: "/user" }];
      const worker = await both.start({ settings: { cookie: { accept } } });
      const { json: body } = await visitorWith(worker, { session: handle }).look();
      assert.equal(body.session ?? null, null);
    });

    test("leave no key for long", async () => {
      const visitor = both.worker.visitor();
      await visitor.send("DELETE", "/auth/session", { headers: { Cookie: many(8) } });
      for (const key of await both.store.redis.keys("taken:*")) {
        assert.ok((await both.store.redis.ttl(key)) <= 3600, `${await both.store.redis.ttl(key)} s`);
      }
    });

    test("are limited as if there was no cookie", async () => {
      const statuses = [];
      for (let index = 0; index < 8; index += 1) {
        const visitor = visitorWith(both.worker, { session: `unknown-${index}` });
        statuses.push((await visitor.send("GET", "/auth/session")).status);
      }
      assert.ok(statuses.includes(429), statuses.join());
    });
  });
});
