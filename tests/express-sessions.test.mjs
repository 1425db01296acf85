/** Sessions of Express, express-session and connect-redis at the Worker, and the Worker's there, at the same time. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  admin,
  copyOf,
  DAY,
  json,
  keyOf,
  near,
  ok,
  PASSWORD,
  recordAt,
  refused,
  sidOf,
  startBeside,
  timeToLive,
} from "./support/express.mjs";
import { until } from "./support/worker.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */
/** @typedef {import("./support/express.mjs").Someone} Someone */

const CLIENTS = /** @type {const} */ ({ redis: "connect-redis 9", ioredis: "connect-redis 8" });

for (const [client, version] of /** @type {["redis" | "ioredis", string][]} */ (Object.entries(CLIENTS))) {
  describe(`${version} with ${client}`, () => {
    /** @type {Beside} */
    let both;
    /** @type {Someone} */
    let who;
    before(async () => {
      both = await startBeside({ app: { client } });
    });
    after(() => both?.stop());

    /** A visitor whom the application has counted this often. @param {number} [views] */
    async function visited(views = 1) {
      who = both.someone();
      for (let count = 1; count <= views; count += 1) {
        assert.equal((await ok(who.atExpress.send("GET", "/"))).views, count);
      }
      return who;
    }

    /** A visitor who is logged in at the application. */
    async function loggedIn(name = "ann") {
      who = both.someone();
      await ok(who.atExpress.send("POST", "/login", json({ name })));
      return who;
    }

    /** After the first answer to a session the Worker touches it. @param {import("./support/visitor.mjs").Visitor} visitor */
    async function firstLook(visitor) {
      await ok(visitor.look());
      await both.worker.idle();
    }

    describe("a session that Express began", () => {
      test("is read, in one call, and its cookie stays as it is", async () => {
        const { atExpress, atWorker } = await visited(2);
        await firstLook(atWorker);
        const { value: answer, calls, byName } = await both.store.counters.during(() => atWorker.look());
        const { user, data, authenticated_at: authenticated } = await ok(answer);
        assert.deepEqual(
          { user, data, authenticated },
          { user: null, data: { views: 2 }, authenticated: null },
        );
        assert.deepEqual([answer.setCookies, calls, byName], [[], 1, { MGET: 1, GETEX: 1 }]);
        assert.equal((await ok(atExpress.send("GET", "/"))).views, 3);
      });

      test("has the same public name at each read, which is not its id", async () => {
        const { atExpress, atWorker } = await visited();
        const { handle } = await ok(atWorker.look());
        assert.equal((await ok(atWorker.look())).handle, handle);
        const sid = sidOf(atExpress);
        assert.ok(!handle.includes(sid) && !sid.includes(handle));
      });

      test("is changed, and Express goes on with what it became", async () => {
        const { atExpress, atWorker } = await visited(2);
        const before = await recordAt(both, keyOf(both, atExpress));
        const changed = await atWorker.merge({ colour: "green", nested: { deep: [1, null, { x: true }] } });
        assert.deepEqual((await ok(changed)).data, {
          views: 2,
          colour: "green",
          nested: { deep: [1, null, { x: true }] },
        });
        assert.deepEqual(changed.setCookies, []);
        await ok(atWorker.increment("/views", 40));
        assert.equal((await ok(atExpress.send("GET", "/"))).views, 43);
        await ok(atExpress.send("POST", "/cart", json({ item: "coat" })));
        await ok(atWorker.patch([{ op: "add", path: "/cart/-", value: "hat" }]));
        assert.deepEqual(await ok(atExpress.send("GET", "/cart")), ["coat", "hat"]);
        await ok(atWorker.merge({ colour: null }));
        assert.deepEqual(await recordAt(both, keyOf(both, atExpress)), {
          ...before,
          views: 43,
          nested: { deep: [1, null, { x: true }] },
          cart: ["coat", "hat"],
        });
      });

      test("keeps its time to live when it is changed", async () => {
        const { atExpress, atWorker } = await visited();
        await firstLook(atWorker);
        const key = keyOf(both, atExpress);
        await both.store.redis.expire(key, 1000);
        await ok(atWorker.merge({ colour: "green" }));
        near(await timeToLive(both, key), 1_000_000);
      });

      test("is named by its ETag, which a save of Express' that changes nothing leaves alone", async () => {
        const { atExpress, atWorker } = await visited();
        const etag = String((await atWorker.look()).headers.get("etag"));
        await ok(both.app.run(atExpress, (request) => request.session.save()));
        const same = await atWorker.send("GET", "/auth/session", { headers: { "If-None-Match": etag } });
        assert.equal(same.status, 304);
        await ok(atExpress.send("GET", "/"));
        await refused(atWorker.merge({ a: 1 }, { "If-Match": etag }), 412, "precondition_failed");
        assert.notEqual((await atWorker.look()).headers.get("etag"), etag);
      });

      test("is that of a user, at each route that needs one", async () => {
        const { atExpress, atWorker } = await loggedIn();
        const { user, handle } = await ok(atWorker.look());
        assert.deepEqual(user, { id: "ann", name: "ann", roles: [] });
        const verified = await atWorker.send("GET", "/auth/verify");
        const headers = ["user", "name", "roles", "handle", "authenticated-at"].map((name) =>
          verified.headers.get(`x-session-${name}`),
        );
        assert.deepEqual([verified.status, ...headers], [200, "ann", "ann", null, handle, null]);
        await refused(atWorker.send("GET", "/auth/verify?role=admin"), 403, "forbidden");
        await ok(atExpress.send("POST", "/logout"), 204);
        await refused(atWorker.send("GET", "/auth/verify"), 401, "unauthenticated");
      });

      test("gets another id, of which the old one leads nowhere, at either", async () => {
        const { atExpress, atWorker } = await loggedIn();
        await ok(atExpress.send("GET", "/"));
        const [thief, oldKey, before] = [copyOf(who), keyOf(both, atExpress), await ok(atWorker.look())];
        const rotated = await atWorker.rotate();
        const { handle, user, data } = await ok(rotated);
        assert.equal(rotated.setCookies.length, 1);
        assert.notEqual(handle, before.handle);
        assert.deepEqual([user, data], [before.user, before.data]);
        assert.notEqual(keyOf(both, atExpress), oldKey);
        assert.equal(await recordAt(both, oldKey), null);
        assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");
        assert.equal((await ok(atExpress.send("GET", "/"))).views, 2);
        assert.equal(await thief.atWorker.session(), null);
        await ok(thief.atExpress.send("GET", "/dashboard"), 401);
      });

      for (const [method, path] of [
        ["DELETE", "/auth/session"],
        ["POST", "/auth/logout"],
      ]) {
        test(`is ended by ${method} ${path}, at Express too`, async () => {
          const { atExpress, atWorker } = await loggedIn();
          const [copy, key] = [copyOf(who), keyOf(both, atExpress)];
          const ended = await atWorker.send(method, path);
          assert.equal(ended.status, 204);
          assert.match(ended.setCookies.join(), /^connect\.sid=; .*Max-Age=0/);
          assert.equal(await both.store.redis.exists(key), 0);
          for (const visitor of [who, copy]) {
            await ok(visitor.atExpress.send("GET", "/dashboard"), 401);
            assert.equal(await visitor.atWorker.session(), null);
          }
          assert.equal((await ok(copy.atExpress.send("GET", "/"))).views, 1);
          assert.notEqual(keyOf(both, copy.atExpress), key);
        });
      }

      test("is looked at and ended by operators, by its public name", async () => {
        const { atExpress, atWorker } = await loggedIn();
        const { handle } = await ok(atWorker.look());
        const operator = both.worker.visitor();
        const path = `/auth/admin/sessions/${handle}`;
        const seen = await operator.send("GET", path, { headers: admin });
        assert.equal(seen.status, 200, seen.text);
        assert.equal(seen.json.session.user.id, "ann");
        near(seen.json.session.ttl_seconds * 1000, DAY);
        assert.ok(!seen.text.includes(sidOf(atExpress)), "never the id");
        assert.equal((await operator.send("DELETE", path, { headers: admin })).status, 204);
        await ok(atExpress.send("GET", "/dashboard"), 401);
        assert.equal(await atWorker.session(), null);
      });
    });

    describe("a session that the Worker began", () => {
      test("is Express' own, of the form in which Express writes it", async () => {
        const { atExpress, atWorker } = both.someone();
        const begun = await atWorker.merge({ views: 6 });
        const { data, user, remember } = await ok(begun);
        assert.deepEqual({ data, user, remember }, { data: { views: 6 }, user: null, remember: false });
        assert.equal(begun.setCookies.length, 1);
        assert.match(begun.setCookies[0], /^connect\.sid=s%3A[\w-]{16,}\.[\w%]+; /);
        assert.doesNotMatch(begun.setCookies[0], /Max-Age|Expires/);
        assert.match(begun.setCookies[0], /; HttpOnly/);

        const key = keyOf(both, atWorker);
        const { cookie, ...rest } = await recordAt(both, key);
        assert.deepEqual(rest, { views: 6 });
        assert.deepEqual([cookie.originalMaxAge, cookie.expires], [null, null]);
        assert.deepEqual([cookie.httpOnly, cookie.path, cookie.sameSite], [true, "/", "lax"]);
        assert.ok(!cookie.secure && !cookie.domain);
        near(await timeToLive(both, key), DAY);

        const sid = sidOf(atWorker);
        assert.equal((await ok(atExpress.send("GET", "/"))).views, 7);
        assert.equal((await ok(atExpress.send("GET", "/session"))).id, sid);
        assert.equal(sidOf(atExpress), sid, "Express takes it and makes none of its own");
        assert.deepEqual((await ok(atWorker.look())).data, { views: 7 });
      });

      test("is ended by Express", async () => {
        const { atExpress, atWorker } = both.someone();
        await ok(atWorker.merge({ views: 6 }));
        const copy = copyOf({ atExpress, atWorker });
        await ok(atExpress.send("POST", "/logout"), 204);
        assert.equal(await copy.atWorker.session(), null);
      });

      test("has an id that nobody can guess, and that is no other session's", async () => {
        const ids = [];
        for (let count = 0; count < 20; count += 1) {
          const { atWorker } = both.someone();
          await ok(atWorker.merge({ a: 1 }));
          ids.push(sidOf(atWorker));
        }
        assert.equal(new Set(ids).size, 20);
        // At least what express-session's own has: 24 random bytes.
        for (const id of ids) assert.ok(id.length >= 32, id);
      });
    });

    test("a visitor who logs in at the Worker is logged in at Express, under another id", async () => {
      const { atExpress, atWorker } = await visited(3);
      const [thief, oldKey] = [copyOf(who), keyOf(both, atExpress)];
      const name = `Émile 🧥 ${client}`;
      const { user, data } = await ok(atWorker.register(name, PASSWORD), 201);
      assert.deepEqual([user.name, data], [name, { views: 3, userId: user.id }]);
      assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, user.id);
      assert.equal((await ok(atExpress.send("GET", "/"))).views, 4);
      assert.equal(await recordAt(both, oldKey), null);
      assert.equal(await thief.atWorker.session(), null);
      await ok(thief.atExpress.send("GET", "/dashboard"), 401);

      await ok(atExpress.send("POST", "/logout"), 204);
      assert.equal(await atWorker.session(), null);
      assert.equal((await ok(atWorker.login(name, PASSWORD))).user.id, user.id);
      assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, user.id);
      const { authenticated_at: first } = await ok(atWorker.look());
      assert.ok(first);
      const renewed = await atWorker.tell("POST", "/reauthenticate", { password: PASSWORD });
      assert.ok((await ok(renewed)).authenticated_at >= first);
      assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, user.id);
    });

    test("a session that a back end makes at the Worker, for a user authenticated elsewhere, is logged in at Express", async () => {
      const user = { id: "from-elsewhere", name: "Ann", roles: ["editor"] };
      const made = await both.worker
        .visitor()
        .tell("POST", "/admin/sessions", { user, data: { a: 1 } }, admin);
      assert.equal(made.status, 201, made.text);
      const { atExpress, atWorker } = both.someone();
      atWorker.accept(made.json.set_cookie);
      assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "from-elsewhere");
      const seen = await ok(atWorker.look());
      // At /userId there is room for the id alone: the rest is kept beside the record.
      assert.deepEqual([seen.user, seen.data.a], [user, 1]);
    });

    test("the profile of an account is there for a visitor whose session Express began", async () => {
      const { atExpress, atWorker } = both.someone();
      await ok(atExpress.send("GET", "/"));
      await ok(atWorker.register(`Profile ${client}`, PASSWORD), 201);
      const merged = await atWorker.tell("PATCH", "/profile", { colour: "green" });
      assert.equal(merged.status, 200, merged.text);
      assert.deepEqual((await atWorker.send("GET", "/auth/profile")).json, { colour: "green" });
    });

    test("redis-cli shows Express' records under Express' keys alone", async () => {
      await both.store.redis.flushDb();
      const { atExpress } = await visited();
      const other = both.someone();
      await ok(other.atWorker.merge({ a: 1 }));
      await ok(who.atWorker.look());
      const keys = await both.store.redis.keys("sess:*");
      assert.deepEqual(keys.sort(), [keyOf(both, atExpress), keyOf(both, other.atWorker)].sort());
      const ids = await both.app.store.ids();
      assert.deepEqual(ids.sort(), [sidOf(atExpress), sidOf(other.atWorker)].sort());
      assert.equal((await both.app.store.all()).length, 2);
    });
  });
}

describe("what the Worker says and refuses in this format", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside({ worker: { settings: { limits: { session: "5/1m", mint: "", login: "" } } } });
  });
  after(() => both?.stop());

  test("it says once what is weaker than in its own", async () => {
    await ok(both.someone().atWorker.look());
    await ok(both.someone().atWorker.look());
    const log = () => both.worker.logs.join("");
    await until(() => /express/i.test(log()), log);
    assert.equal(log().match(/in plain/g)?.length, 1, log());
  });

  test("requests with a session of Express' are limited, each session for itself", async () => {
    const [one, other] = [both.someone(), both.someone()];
    for (const { atExpress } of [one, other]) await ok(atExpress.send("GET", "/"));
    for (let left = 4; left >= 0; left -= 1) {
      const answer = await one.atWorker.look();
      assert.equal(answer.status, 200);
      assert.match(String(answer.headers.get("ratelimit")), new RegExp(`^"session";r=${left};`));
    }
    await refused(one.atWorker.look(), 429, "rate_limited");
    await both.worker.idle();
    const { calls, value } = await both.store.counters.during(() => one.atWorker.look());
    await refused(value, 429, "rate_limited");
    assert.equal(calls, 0);
    await ok(other.atWorker.look());
    assert.equal((await ok(one.atExpress.send("GET", "/"))).views, 2, "the application is not limited");
  });

  test("a user of Express' is limited over all sessions", async () => {
    const limits = { session: "", user: "4/1m", mint: "", login: "" };
    const worker = await both.startWorker({ settings: { limits } });
    const ann = [both.someone({ app: both.app, worker }), both.someone({ app: both.app, worker })];
    const bob = both.someone({ app: both.app, worker });
    for (const { atExpress } of ann) await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
    await ok(bob.atExpress.send("POST", "/login", json({ name: "bob" })));
    for (let count = 0; count < 4; count += 1) await ok(ann[count % 2].atWorker.look());
    for (const { atWorker } of ann) await refused(atWorker.look(), 429, "rate_limited");
    await ok(bob.atWorker.look());
  });

  for (const [method, path, body] of /** @type {[string, string, unknown?][]} */ ([
    ["GET", "/sessions"],
    ["DELETE", "/sessions"],
    ["POST", "/password", { current: PASSWORD, new: "another horse" }],
    ["DELETE", "/account", { password: PASSWORD }],
    ["GET", "/admin/users/ann/sessions"],
    ["DELETE", "/admin/users/ann/sessions"],
    ["PUT", "/admin/users/ann/roles", { roles: ["admin"] }],
    ["PATCH", "/admin/users/ann", { disabled: true }],
    ["DELETE", "/admin/users/ann"],
    ["POST", "/admin/users/ann/reset"],
    ["POST", "/reset", { token: "x", new: "another horse" }],
  ])) {
    test(`${method} ${path}: the format cannot, and nothing is done`, async () => {
      const { atExpress, atWorker } = both.someone();
      await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
      const headers = path.startsWith("/admin") ? admin : {};
      const answer =
        body === undefined
          ? await atWorker.send(method, `/auth${path}`, { headers })
          : await atWorker.tell(method, path, body, headers);
      await refused(answer, 422, "unprocessable");
      assert.deepEqual(answer.setCookies, []);
      assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");
    });
  }
});
