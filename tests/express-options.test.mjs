/** The options of express-session and connect-redis, one by one, with the Worker beside the application. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  copyOf,
  DAY,
  HOUR,
  json,
  keyOf,
  MINUTE,
  near,
  ok,
  PASSWORD,
  recordAt,
  sidOf,
  startBeside,
  timeToLive,
} from "./support/express.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */
/** @typedef {import("./support/express.mjs").AppOptions} AppOptions */

/** @type {Beside} */
let both;
before(async () => {
  both = await startBeside();
});
after(() => both?.stop());

/** The time to live after the Worker has touched a session that had little left. @param {ReturnType<Beside["someone"]>} who */
async function touched({ atWorker }, key = keyOf(both, atWorker), worker = both.worker) {
  await ok(atWorker.look());
  await worker.idle();
  await both.store.redis.pExpire(key, 100_000);
  await worker.moveClock(6 * MINUTE);
  await ok(atWorker.look());
  await worker.idle();
  return timeToLive(both, key);
}

describe("how long a session lives", () => {
  for (const {
    name,
    options,
    lives,
    ends = lives,
  } of /** @type {{ name: string, options: AppOptions, lives: number, ends?: number }[]} */ ([
    { name: "cookie.maxAge", options: { session: { cookie: { maxAge: HOUR } } }, lives: HOUR },
    { name: "a long cookie.maxAge", options: { session: { cookie: { maxAge: 90 * DAY } } }, lives: 90 * DAY },
    { name: "no cookie.maxAge", options: {}, lives: DAY },
    { name: "a function as cookie", options: { session: { cookie: () => ({ maxAge: HOUR }) } }, lives: HOUR },
    {
      name: "a ttl of connect-redis' own, unknown to the Worker",
      options: { store: { ttl: 7200 } },
      lives: 2 * HOUR,
      ends: DAY,
    },
  ])) {
    test(`${name}: a touch gives it as long again as the application's would`, async () => {
      const who = both.someone({ app: await both.startApp(options), worker: both.worker });
      await ok(who.atExpress.send("GET", "/"));
      const key = keyOf(both, who.atExpress);
      near(await timeToLive(both, key), lives);
      near(await touched(who), ends);
      // Not again before session.touch_every is over.
      await both.store.redis.pExpire(key, 100_000);
      await ok(who.atWorker.look());
      await both.worker.idle();
      near(await timeToLive(both, key), 100_000);
      // Express' own touch.
      await ok(who.atExpress.send("GET", "/cart"));
      near(await timeToLive(both, key), lives);
    });
  }

  test("a ttl of connect-redis' own is told to the Worker as record_ttl", async () => {
    const [app, worker] = await Promise.all([
      both.startApp({ store: { ttl: 7200 } }),
      both.startWorker({ cookie: { record_ttl: 7200 } }),
    ]);
    const who = both.someone({ app, worker });
    await ok(who.atWorker.merge({ a: 1 }));
    near(await timeToLive(both, keyOf(both, who.atWorker)), 2 * HOUR);
    near(await touched(who, undefined, worker), 2 * HOUR);
  });

  test("disableTTL: a record without an end never gets one from the Worker", async () => {
    const who = both.someone({
      app: await both.startApp({ store: { disableTTL: true } }),
      worker: both.worker,
    });
    await ok(who.atExpress.send("GET", "/"));
    const key = keyOf(both, who.atExpress);
    assert.equal(await timeToLive(both, key), -1);
    for (let count = 0; count < 3; count += 1) {
      await ok(who.atWorker.merge({ count }));
      await both.worker.moveClock(6 * MINUTE);
      await ok(who.atWorker.look());
      await both.worker.idle();
      assert.equal(await timeToLive(both, key), -1);
    }
    await ok(who.atWorker.rotate());
    assert.equal(await timeToLive(both, keyOf(both, who.atWorker)), -1);
  });

  test("disableTouch, told to the Worker as touch = false: only what changes a session at Express prolongs it", async () => {
    const [app, worker] = await Promise.all([
      both.startApp({ store: { disableTouch: true } }),
      both.startWorker({ cookie: { touch: false } }),
    ]);
    const who = both.someone({ app, worker });
    await ok(who.atExpress.send("GET", "/"));
    near(await touched(who, undefined, worker), 100_000);
    await ok(who.atWorker.merge({ a: 1 }));
    await ok(who.atExpress.send("GET", "/cart"));
    near(await timeToLive(both, keyOf(both, who.atExpress)), 100_000);
    await ok(who.atExpress.send("GET", "/"));
    near(await timeToLive(both, keyOf(both, who.atExpress)), DAY);
  });

  test("a touch never brings the end nearer", async () => {
    const who = both.someone({
      app: await both.startApp({ session: { cookie: { maxAge: HOUR } } }),
      worker: both.worker,
    });
    await ok(who.atExpress.send("GET", "/"));
    const key = keyOf(both, who.atExpress);
    await both.store.redis.pExpire(key, 5 * HOUR);
    await both.worker.moveClock(6 * MINUTE);
    await ok(who.atWorker.look());
    await both.worker.idle();
    near(await timeToLive(both, key), 5 * HOUR);
  });

  for (const value of [false, 0, -1, "1h", [], {}, true, 1e300]) {
    test(`an originalMaxAge of ${JSON.stringify(value)} ends no session`, async () => {
      const who = both.someone();
      await ok(who.atExpress.send("GET", "/"));
      const key = keyOf(both, who.atExpress);
      const record = await recordAt(both, key);
      record.cookie = { ...record.cookie, originalMaxAge: value, expires: false };
      await both.store.redis.set(key, JSON.stringify(record), { expiration: { type: "EX", value: 1000 } });
      const left = await touched(who);
      assert.ok(left > 90_000, `${left} ms`);
      await ok(who.atWorker.merge({ a: 1 }));
      assert.deepEqual((await recordAt(both, key)).cookie.originalMaxAge, value);
    });
  }

  test("the record's cookie.expires is not read as an end: Express itself renews it only when it saves", async () => {
    const who = both.someone({
      app: await both.startApp({ session: { cookie: { maxAge: HOUR } } }),
      worker: both.worker,
    });
    await ok(who.atExpress.send("GET", "/"));
    const key = keyOf(both, who.atExpress);
    const record = await recordAt(both, key);
    record.cookie.expires = "2020-01-01T00:00:00.000Z";
    await both.store.redis.set(key, JSON.stringify(record), { expiration: "KEEPTTL" });
    assert.deepEqual((await ok(who.atWorker.look())).data, { views: 1 });
    assert.equal((await ok(who.atExpress.send("GET", "/"))).views, 2);
  });

  test("what the Worker says of the end is the same as Express would have it", async () => {
    const worker = await both.startWorker();
    for (const { session, lives } of [
      { session: { cookie: { maxAge: HOUR } }, lives: HOUR },
      { session: {}, lives: DAY },
    ]) {
      const who = both.someone({ app: await both.startApp({ session }), worker });
      await ok(who.atExpress.send("GET", "/"));
      const { expires_at: ends, idle_expires_at: idle, created_at: begun } = await ok(who.atWorker.look());
      assert.equal(ends, idle);
      near(Date.parse(ends) - Date.now(), lives);
      assert.ok(Math.abs(Date.parse(begun) - Date.now()) < 10_000);
    }
  });

  test("a cookie that outlives the browser does so after a rotation and a login of the Worker's too", async () => {
    const app = await both.startApp({ session: { cookie: { maxAge: HOUR } } });
    const who = both.someone({ app, worker: both.worker });
    await ok(who.atExpress.send("GET", "/"));
    const answers = [await who.atWorker.rotate(), await who.atWorker.register("Olga", PASSWORD)];
    for (const { status, setCookies, text } of answers) {
      assert.ok(status < 300, text);
      const cookie = setCookies.find((line) => line.startsWith("connect.sid=")) ?? "";
      const seconds = Number(/; Max-Age=(\d+)/.exec(cookie)?.[1]);
      near(seconds * 1000, HOUR);
    }
  });
});

describe("when Express saves and sets cookies", () => {
  test("rolling: Express renews the cookie with each answer, the Worker does not, and it is one session", async () => {
    const app = await both.startApp({ session: { rolling: true, cookie: { maxAge: HOUR } } });
    const { atExpress, atWorker } = both.someone({ app, worker: both.worker });
    await ok(atExpress.send("GET", "/"));
    const sid = sidOf(atExpress);
    for (let count = 2; count < 5; count += 1) {
      assert.deepEqual((await atWorker.increment("/views", 10)).setCookies, []);
      assert.deepEqual((await atWorker.look()).setCookies, []);
      const answer = await atExpress.send("GET", "/");
      assert.equal(answer.setCookies.length, 1);
      assert.equal(sidOf(atExpress), sid);
    }
    assert.deepEqual((await ok(atWorker.look())).data, { views: 34 });
  });

  test("rolling, of a session that the Worker began: Express renews its cookie too", async () => {
    const app = await both.startApp({ session: { rolling: true, cookie: { maxAge: HOUR } } });
    const { atExpress, atWorker } = both.someone({ app, worker: both.worker });
    await ok(atWorker.merge({ a: 1 }));
    const sid = sidOf(atWorker);
    const answer = await atExpress.send("GET", "/");
    assert.equal(answer.setCookies.length, 1);
    assert.equal(sidOf(atExpress), sid);
    // It keeps what the record says: to the end of the browser's session.
    assert.doesNotMatch(answer.setCookies[0], /Expires/);
  });

  test("resave: Express writes the record at each request, and none of the Worker's changes between them is lost", async () => {
    const app = await both.startApp({ session: { resave: true } });
    const { atExpress, atWorker } = both.someone({ app, worker: both.worker });
    await ok(atExpress.send("GET", "/"));
    for (let count = 1; count < 6; count += 1) {
      await ok(atWorker.increment("/edge"));
      await ok(atExpress.send("GET", "/cart"));
      await ok(atExpress.send("GET", "/"));
      assert.deepEqual((await ok(atWorker.look())).data, { views: count + 1, edge: count });
    }
  });

  test("resave: a session that has ended at the Worker is not begun again by a later request", async () => {
    const app = await both.startApp({ session: { resave: true, saveUninitialized: true } });
    const { atExpress, atWorker } = both.someone({ app, worker: both.worker });
    await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
    const copy = copyOf({ atExpress, atWorker });
    const key = keyOf(both, atExpress);
    await ok(atWorker.logout(), 204);
    await ok(copy.atExpress.send("GET", "/dashboard"), 401);
    assert.notEqual(keyOf(both, copy.atExpress), key, "express-session gives another id");
    assert.equal(await recordAt(both, key), null);
  });

  test("saveUninitialized: a session without any data is a session", async () => {
    const app = await both.startApp({ session: { saveUninitialized: true } });
    const { atExpress, atWorker } = both.someone({ app, worker: both.worker });
    await ok(atExpress.send("GET", "/cart"));
    const { data, user } = await ok(atWorker.look());
    assert.deepEqual([data, user], [{}, null]);
    await ok(atWorker.merge({ a: 1 }));
    assert.equal((await ok(atExpress.send("GET", "/session"))).data.a, 1);
  });

  test("without saveUninitialized neither of the two begins a session by being looked at", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("GET", "/cart"));
    assert.equal(await atWorker.session(), null);
    assert.equal(atExpress.cookies.size, 0);
  });

  for (const unset of ["keep", "destroy"]) {
    test(`unset: "${unset}", when the application lets go of the session`, async () => {
      const app = await both.startApp({ session: { unset } });
      const { atExpress, atWorker } = both.someone({ app, worker: both.worker });
      await ok(atExpress.send("GET", "/"));
      const copy = copyOf({ atExpress, atWorker });
      await ok(app.run(atExpress, (request) => (request.session = null)));
      assert.deepEqual((await copy.atWorker.session())?.data ?? null, unset === "keep" ? { views: 1 } : null);
    });
  }

  test("another name for the cookie", async () => {
    const [app, worker] = await Promise.all([
      both.startApp({ session: { name: "sid" } }),
      both.startWorker({ cookie: { name: "sid" } }),
    ]);
    const { atExpress, atWorker } = both.someone({ app, worker });
    await ok(atExpress.send("GET", "/"));
    assert.deepEqual((await ok(atWorker.look())).data, { views: 1 });
    await ok(atWorker.rotate());
    assert.deepEqual(
      [...atWorker.cookies.keys()].filter((name) => !name.endsWith("-sync")),
      ["sid"],
    );
    assert.equal((await ok(atExpress.send("GET", "/"))).views, 2);
  });
});

describe("connect-redis' prefix", () => {
  for (const { prefix, cookie, settings = {} } of [
    { prefix: "shop:", cookie: { record_prefix: "shop:" } },
    { prefix: "shop:sess:", cookie: {}, settings: { key_prefix: "shop:" } },
    { prefix: "shop:visitors:", cookie: { record_prefix: "visitors:" }, settings: { key_prefix: "shop:" } },
    { prefix: "säß 🧥/", cookie: { record_prefix: "säß 🧥/" } },
    { prefix: "", cookie: { record_prefix: "" } },
  ]) {
    test(`${JSON.stringify(prefix)} is found with ${JSON.stringify({ ...cookie, ...settings })}`, async () => {
      const [app, worker] = await Promise.all([
        both.startApp({ store: { prefix } }),
        both.startWorker({ cookie, settings }),
      ]);
      const { atExpress, atWorker } = both.someone({ app, worker });
      await ok(atExpress.send("GET", "/"));
      assert.deepEqual((await ok(atWorker.increment("/views"))).data, { views: 2 });
      const other = both.someone({ app, worker });
      await ok(other.atWorker.merge({ views: 5 }));
      assert.equal((await ok(other.atExpress.send("GET", "/"))).views, 6);
      assert.ok(await recordAt(both, keyOf(both, other.atWorker, { prefix })));
      await ok(atWorker.rotate());
      assert.equal((await ok(atExpress.send("GET", "/"))).views, 3);
      await ok(atWorker.logout(), 204);
      assert.equal((await ok(atExpress.send("GET", "/"))).views, 1);
    });
  }
});

describe("genid: ids of the application's own", () => {
  let count = 0;
  for (const id of [
    "plain",
    "with.dots.in.it.",
    ".",
    "a/b/../c",
    "user:ann:1",
    "s:s:s:",
    "with space and\ttab",
    "quoted\"'`",
    "percent%41%zz%",
    "a+b=c&d;e,f",
    "!'()*~-_",
    "Zoë — 🧥🎩",
    "e\u0301",
    "{curly}[square]\\back",
    "x".repeat(200),
    "\u0001\u007f",
  ]) {
    test(`${JSON.stringify(id.slice(0, 40))} is the same session at both`, async () => {
      count += 1;
      const unique = `${count}${id}`;
      const app = await both.startApp({ session: { genid: () => unique } });
      const { atExpress, atWorker } = both.someone({ app, worker: both.worker });
      await ok(atExpress.send("GET", "/"));
      assert.equal(sidOf(atExpress), unique);
      assert.deepEqual((await ok(atWorker.increment("/views"))).data, { views: 2 });
      assert.equal((await ok(atExpress.send("GET", "/"))).views, 3);
      await ok(atWorker.rotate());
      assert.notEqual(sidOf(atWorker), unique);
      assert.equal((await ok(atExpress.send("GET", "/"))).views, 4);
      await ok(atWorker.logout(), 204);
      assert.equal(await recordAt(both, `sess:${unique}`), null);
    });
  }
});

describe("what a record holds beside what the Worker changes", () => {
  const values = {
    date: "2026-01-02T03:04:05.678Z",
    unicode: "Zoë — 日本語 🧥👩‍👩‍👧 \u2028 \u0000 \ud83e\udde5",
    "ключ 🔑": { "a/b": 1, "m~n": 2, "": 3, " ": 4 },
    numbers: [
      0,
      -0,
      0.1,
      0.1 + 0.2,
      5e-324,
      1.7976931348623157e308,
      2 ** 53,
      -(2 ** 53),
      1e21,
      1e-7,
      123456789.123456,
    ],
    nothing: null,
    empty: [{}, [], ""],
    flash: { info: ["saved"], error: [] },
    deep: [[[[[[[["x"]]]]]]]],
    0: "a name that is a number",
  };

  test("survives every change, to the last digit, and so do attributes of the cookie that the Worker does not know", async () => {
    const app = await both.startApp({
      session: {
        cookie: {
          maxAge: HOUR,
          sameSite: "strict",
          partitioned: true,
          priority: "high",
          path: "/",
          custom: "x",
        },
      },
    });
    const { atExpress, atWorker } = both.someone({ app, worker: both.worker });
    await ok(atExpress.send("PUT", "/session", json(values)));
    const key = keyOf(both, atExpress);
    const before = await recordAt(both, key);
    for (let round = 0; round < 3; round += 1) {
      await ok(atWorker.merge({ round }));
      await ok(
        atWorker.patch([
          { op: "add", path: "/deep/-", value: round },
          { op: "remove", path: "/deep/1" },
        ]),
      );
    }
    for (const change of [() => atWorker.merge({ round: 2 }), () => atWorker.rotate()]) {
      await ok(change());
      const record = await recordAt(both, keyOf(both, atWorker));
      // As a save of Express' would, a write begins originalMaxAge anew.
      assert.ok(record.cookie.expires >= before.cookie.expires);
      before.cookie.expires = record.cookie.expires;
      assert.deepEqual(record, { ...before, round: 2 });
    }
    assert.deepEqual((await ok(atWorker.look())).data, { ...JSON.parse(JSON.stringify(values)), round: 2 });
    const { data: session } = await ok(atExpress.send("GET", "/session"));
    assert.deepEqual({ ...session, cookie: 0 }, { ...before, round: 2, cookie: 0 });
  });

  test("whole numbers beyond JavaScript's own are kept to the digit", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("GET", "/"));
    const key = keyOf(both, atExpress);
    const text = String(await both.store.redis.get(key));
    const withBig = text.replace(/}$/, ',"big":9223372036854775807}');
    await both.store.redis.set(key, withBig, { expiration: "KEEPTTL" });
    await ok(atWorker.merge({ a: 1 }));
    assert.match(String(await both.store.redis.get(key)), /"big":9223372036854775807/);
  });
});
