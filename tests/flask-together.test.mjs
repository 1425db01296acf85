/** A Flask application and the Worker at the same session in the same moment, and how long its record lives. */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { LIFETIME, startBeside, startFlask } from "./support/flask-app.mjs";
import { FAST_HASH, until } from "./support/worker.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */

const HOUR = 3_600_000;

/** Whether a call writes a record. @param {{ commands: string[][] }} call */
const writes = ({ commands }) =>
  commands.some(
    ([word, ...rest]) =>
      /^(SET|EVAL|EVALSHA)$/.test(word) && rest.some((text) => text.startsWith("session:")),
  );

for (const serializer of /** @type {const} */ (["msgpack", "json"])) {
  describe(`at the same time, with ${serializer},`, () => {
    /** @type {Beside} */
    let both;
    before(async () => {
      both = await startBeside({
        isolates: 2,
        flask: { SESSION_SERIALIZATION_FORMAT: serializer },
        cookie: { user_pointer: "/user_id" },
        settings: { password: FAST_HASH },
      });
    });
    after(() => both?.stop());
    afterEach(() => both.store.faults.clear());

    async function guest() {
      const visitor = both.visitor();
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 1");
      return visitor;
    }

    for (const method of /** @type {const} */ (["GET", "POST"])) {
      const what = method === "GET" ? "that only reads" : "that writes";

      test(`a session that has ended at the Worker stays so, with a request under way at Flask ${what}`, async () => {
        const visitor = await guest();
        const [key, cookies] = [visitor.key(), new Map(visitor.edge.cookies)];
        const finish = await both.flask.slow(visitor.edge, method);
        assert.equal((await visitor.edge.logout()).status, 204);
        assert.equal((await finish()).status, 200);
        assert.notEqual(await both.bytesOf(key), null, "Flask has written its record back");

        for (const worker of both.workers) {
          const late = worker.visitor();
          late.cookies = new Map(cookies);
          assert.equal(await late.session(), null, "at either isolate");
          assert.equal((await late.send("GET", "/auth/verify")).status, 401);
          assert.equal((await late.merge({ a: 1 }, { "If-Match": "*" })).status, 412);
        }
        await until(async () => (await both.bytesOf(key)) === null);
        const later = both.worker.visitor();
        later.cookies = new Map(cookies);
        const { json } = await later.merge({ a: 1 });
        assert.deepEqual([json.session.data.views, json.session.data.a], [undefined, 1], "begins another");
      });

      test(`an id that was changed at the Worker does not come back, with a request under way at Flask ${what}`, async () => {
        const visitor = await guest();
        const [oldKey, old] = [visitor.key(), visitor.edge.clone()];
        const finish = await both.flask.slow(visitor.edge.clone(), method);
        assert.equal((await visitor.edge.rotate()).status, 200);
        assert.equal((await finish()).status, 200);
        assert.notEqual(await both.bytesOf(oldKey), null, "Flask has written its record back");
        assert.equal(await old.session(), null);
        assert.equal((await visitor.data()).views, 1);
        await until(async () => (await both.bytesOf(oldKey)) === null);
      });

      test(`whoever logs in at the Worker does so under an id nobody had before, with a request under way at Flask ${what}`, async () => {
        const visitor = await guest();
        const old = visitor.edge.clone();
        const finish = await both.flask.slow(visitor.edge.clone(), method);
        const { status } = await visitor.edge.register(`${serializer}-${method}`, "correct horse battery");
        assert.equal(status, 201);
        assert.equal((await finish()).status, 200);
        assert.equal((await old.send("GET", "/auth/verify")).status, 401);
        assert.equal((await both.flask.at(old).send("GET", "/dashboard")).status, 401);
        assert.equal((await visitor.edge.send("GET", "/auth/verify")).status, 200);
        assert.equal((await visitor.app.send("GET", "/dashboard")).status, 200);
      });
    }

    test("a change that Flask's came before is made to what Flask wrote", async () => {
      const visitor = await guest();
      const held = both.store.faults.hold(writes);
      const added = visitor.edge.increment("/views", 10);
      await held.arrived;
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 2");
      await visitor.app.send("POST", "/cart/coat");
      held.release();
      const { status, json } = await added;
      assert.deepEqual([status, json.session.data.views, json.session.data.cart], [200, 12, { coat: 1 }]);
    });

    test("a change to a session that Flask ends meanwhile is 401, and brings nothing back", async () => {
      const visitor = await guest();
      const [key, slow] = [visitor.key(), visitor.edge.clone()];
      const held = both.store.faults.hold(writes);
      const added = slow.increment("/views");
      await held.arrived;
      await visitor.app.send("POST", "/logout");
      held.release();
      const { status, json } = await added;
      assert.deepEqual([status, json.code], [401, "unauthenticated"]);
      assert.equal(await both.bytesOf(key), null);
    });

    test("of two whole records the last counts, and the Worker shows what there is", async () => {
      const visitor = await guest();
      const finish = await both.flask.slow(visitor.edge, "POST");
      assert.equal((await visitor.edge.increment("/views", 10)).json.session.data.views, 11);
      await finish();
      assert.equal((await visitor.data()).views, 2, "Flask had read 1");
      assert.equal((await visitor.edge.increment("/views", 10)).json.session.data.views, 12);
    });

    test("a request that only reads writes over a change where Flask refreshes each request, which is its default", async () => {
      for (const [SESSION_REFRESH_EACH_REQUEST, views] of /** @type {[boolean, number][]} */ ([
        [true, 1],
        [false, 11],
      ])) {
        const settings = { SESSION_SERIALIZATION_FORMAT: serializer, SESSION_REFRESH_EACH_REQUEST };
        const flask = await startFlask(both.store, settings);
        try {
          const visitor = await guest();
          const finish = await flask.slow(visitor.edge, "GET");
          assert.equal((await visitor.edge.increment("/views", 10)).status, 200);
          assert.equal((await finish()).text, "1");
          assert.equal((await visitor.data()).views, views, `refreshing: ${SESSION_REFRESH_EACH_REQUEST}`);
        } finally {
          await flask.stop();
        }
      }
    });

    test("changes at both at once never leave a record that one of them cannot read", async () => {
      const visitor = await guest();
      const at = (/** @type {number} */ index) => visitor.edge.clone(both.workers[index % 2].url);
      const all = Array.from({ length: 24 }, (_, index) =>
        index % 3 ? at(index).increment("/edge") : both.flask.at(visitor.edge).send("GET", "/"),
      );
      for (const { status } of await Promise.all(all)) assert.ok([200, 409].includes(status), String(status));
      const { views, edge } = await visitor.data();
      assert.ok(views > 1 && (edge ?? 0) <= 16, `${views} ${edge}`);
      assert.equal((await visitor.app.send("GET", "/")).text, `Views: ${views + 1}`);
    });

    test("a change is made once, however often its answer is lost, and is said to be made only if that is known", async () => {
      const visitor = await guest();
      for (const times of [1, 2]) {
        both.store.faults.next("lostAnswer", { times, when: writes });
        const merged = await visitor.edge.merge({ note: times });
        assert.deepEqual([merged.status, merged.json.session?.data.note], [200, times]);
      }
      both.store.faults.next("lostAnswer", { when: writes });
      // Flask may have counted to the same number.
      const { status, json, setCookies } = await visitor.edge.increment("/views", 10);
      assert.deepEqual([status, json.code, setCookies], [503, "store_unavailable", []]);
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 12");
    });

    test("a change whose answer is lost, and that Flask has written over, is 503 and not said to be lost", async () => {
      const visitor = await guest();
      both.store.faults.next("lostAnswer", { when: writes });
      let isLost = false;
      const held = both.store.faults.hold((call) => {
        const wasLost = isLost;
        isLost ||= writes(call);
        return wasLost;
      });
      const added = visitor.edge.increment("/views", 10);
      await held.arrived;
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 12");
      held.release();
      const { status, json, setCookies } = await added;
      assert.deepEqual([status, json.code, setCookies], [503, "store_unavailable", []]);
      assert.equal((await visitor.data()).views, 12, "made once");
    });

    test("a store that fails ends nothing and writes nothing", async () => {
      const visitor = await guest();
      const record = await both.bytesOf(visitor.key());
      both.store.faults.always("refuse");
      for (const act of [
        () => visitor.edge.look(),
        () => visitor.edge.increment("/views"),
        () => visitor.edge.rotate(),
        () => visitor.edge.logout(),
        () => visitor.edge.send("GET", "/auth/verify"),
      ]) {
        const { status, setCookies } = await act();
        assert.deepEqual([status, setCookies], [503, []]);
      }
      both.store.faults.clear();
      assert.deepEqual(await both.bytesOf(visitor.key()), record);
      assert.equal((await visitor.data()).views, 1);
    });
  });
}

describe("a record's time to live", () => {
  /** @type {Beside} */
  let both;
  /** @type {import("./support/worker.mjs").Worker} */
  let worker;
  before(async () => {
    both = await startBeside({ settings: { session: { idle: "1m", absolute: "2m", touch_every: "5m" } } });
  });
  after(() => both?.stop());
  /** Another isolate for each test, which has touched nothing yet. @param {object} [settings] */
  async function guest(settings) {
    worker = await both.start({ settings });
    const edge = worker.visitor();
    const app = both.flask.at(edge);
    assert.equal((await app.send("GET", "/")).text, "Views: 1");
    const key = `session:${edge.cookies.get("session")}`;
    return { edge, app, key, seconds: () => both.secondsOf(key) };
  }
  /** @param {string} key @param {number} seconds */
  const cut = (key, seconds) => both.store.redis.expire(key, seconds);
  /** @param {number} actual @param {number} expected */
  const near = (actual, expected) => actual <= expected && actual > expected - 60;

  test("is Flask's own after a session was begun, or its id changed", async () => {
    const { edge } = await guest();
    const visitor = worker.visitor();
    await visitor.merge({ a: 1 });
    const begun = await both.secondsOf(`session:${visitor.cookies.get("session")}`);
    assert.ok(near(begun, LIFETIME), `${begun}`);
    await edge.look();
    const before = `session:${edge.cookies.get("session")}`;
    await cut(before, 2000);
    await edge.rotate();
    const after = await both.secondsOf(`session:${edge.cookies.get("session")}`);
    assert.ok(near(after, 2000) || near(after, LIFETIME), `${after}: kept, or as if it were used`);
  });

  test("stays as it is with a change, and is Flask's own again after a touch", async () => {
    const { edge, key, seconds } = await guest();
    await cut(key, 2000);
    await edge.look();
    await until(async () => near(await seconds(), LIFETIME));
    await cut(key, 2000);
    for (const act of [() => edge.look(), () => edge.increment("/views"), () => edge.merge({ a: 1 })]) {
      assert.equal((await act()).status, 200);
      await worker.idle();
      assert.ok(near(await seconds(), 2000), "not touched twice in five minutes");
    }
    await worker.moveClock(6 * 60_000);
    await edge.look();
    await until(async () => near(await seconds(), LIFETIME));
  });

  test("is never cut by a touch, and never set where there is none", async () => {
    for (const [seconds, expected] of /** @type {[number | undefined, number][]} */ ([
      [2 * LIFETIME, 2 * LIFETIME],
      [undefined, -1],
    ])) {
      const visitor = await guest();
      if (seconds) await cut(visitor.key, seconds);
      else await both.store.redis.persist(visitor.key);
      await visitor.edge.look();
      await worker.idle();
      assert.equal((await visitor.edge.increment("/views")).status, 200);
      await worker.idle();
      const left = await visitor.seconds();
      assert.ok(expected < 0 ? left === -1 : near(left, expected), `${left}`);
    }
  });

  test("is left alone with touch = false, for an application that does not refresh it by each request either", async () => {
    const cookie = { format: "flask", record_ttl: LIFETIME, touch: false };
    const { edge, key, seconds } = await guest({ cookie });
    await cut(key, 2000);
    for (const act of [() => edge.look(), () => edge.increment("/views"), () => edge.look()]) {
      assert.equal((await act()).status, 200);
      await worker.moveClock(6 * 60_000);
      assert.ok(near(await seconds(), 2000));
    }
  });

  test("alone ends a session, and not what ends sessions of the Worker's own", async () => {
    const { edge, app, key } = await guest();
    assert.ok(await edge.session());
    await worker.moveClock(10 * HOUR);
    const session = await edge.session();
    assert.equal(session?.data.views, 1, "idle and absolute are over");
    assert.equal(session.expires_at, session.idle_expires_at);
    const left = Date.parse(session.expires_at) - (Date.now() + 10 * HOUR);
    assert.ok(Math.abs(left - LIFETIME * 1000) < 60_000, `${left}`);
    assert.equal((await app.send("GET", "/")).text, "Views: 2");
    await both.store.redis.del(key);
    assert.equal(await edge.session(), null);
  });

  test("is not looked after by ids that nobody has", async () => {
    await guest();
    const visitor = worker.visitor();
    visitor.cookies.set("session", "B".repeat(43));
    await visitor.look();
    await worker.idle();
    assert.deepEqual(await both.store.redis.keys(`*${"B".repeat(43)}*`), []);
  });
});
