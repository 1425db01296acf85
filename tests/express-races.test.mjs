/** Express and the Worker at the same session at the same time. express-session writes whole records: the last writer wins. */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import {
  timeToLive,
  MINUTE,
  DAY,
  copyOf,
  json,
  keyOf,
  ok,
  PASSWORD,
  recordAt,
  refused,
  sidOf,
  startBeside,
} from "./support/express.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */
/** @typedef {import("./support/worker.mjs").Worker} Worker */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** @type {Beside} */
let both;
/** Another isolate. @type {Worker} */
let other;
before(async () => {
  both = await startBeside();
  other = await both.startWorker();
});
after(() => both?.stop());
afterEach(() => both.store.faults.clear());

/** Stops the next write of the Worker's just before it is done. */
const holdWrite = (command = "SET") =>
  both.store.faults.hold(({ commands }) => commands.some(([word]) => word === command));

async function loggedIn(name = "ann") {
  const who = both.someone();
  await ok(who.atExpress.send("POST", "/login", json({ name })));
  return { ...who, elsewhere: at(other, who) };
}

/** The same visitor at another isolate. @param {Worker} worker @param {ReturnType<Beside["someone"]>} who */
function at(worker, { atWorker }) {
  const visitor = worker.visitor();
  visitor.cookies = atWorker.cookies;
  return visitor;
}

describe("changes", () => {
  test("fifty at once, in two isolates, are all in the record that Express reads", async () => {
    const { atExpress, atWorker, elsewhere } = await loggedIn();
    const changes = Array.from({ length: 50 }, (_, index) =>
      (index % 2 ? atWorker : elsewhere).increment("/n"),
    );
    for (const answer of await Promise.all(changes)) await ok(answer);
    assert.equal((await ok(atExpress.send("GET", "/session"))).data.n, 50);
  });

  test("requests at Express that only look take none of them back", async () => {
    const { atExpress, atWorker } = await loggedIn();
    const requests = Array.from({ length: 40 }, (_, index) =>
      index % 2 ? atWorker.increment("/n") : atExpress.send("GET", "/dashboard"),
    );
    for (const answer of await Promise.all(requests)) await ok(answer);
    assert.equal((await ok(atWorker.look())).data.n, 20);
  });

  test("one that Express makes between the Worker's look and its write is kept, and so is the Worker's", async () => {
    const { atExpress, atWorker } = await loggedIn();
    const writing = holdWrite();
    const change = atWorker.increment("/n");
    await writing.arrived;
    assert.equal((await ok(atExpress.send("GET", "/"))).views, 1);
    writing.release();
    const { data } = await ok(change);
    assert.deepEqual([data.n, data.views], [1, 1]);
    const { data: session } = await ok(atExpress.send("GET", "/session"));
    assert.deepEqual([session.n, session.views], [1, 1]);
  });

  test("one that the Worker makes while Express holds the session is overwritten: Express writes what it read", async () => {
    const { atExpress, atWorker } = await loggedIn();
    await ok(atWorker.merge({ kept: 1, n: 1 }));
    const held = both.app.hold();
    const slow = atExpress.send("POST", "/slow", json({ slow: true }));
    await held.arrived;
    assert.equal((await ok(atWorker.increment("/n"))).data.n, 2);
    assert.equal((await ok(atWorker.look())).data.n, 2, "until then it is there");
    held.release();
    await ok(slow);
    const { data } = await ok(atWorker.look());
    assert.deepEqual([data.kept, data.n, data.slow], [1, 1, true]);
    // And nothing before or after it.
    assert.equal((await ok(atWorker.increment("/n"))).data.n, 2);
    assert.equal((await ok(atExpress.send("GET", "/session"))).data.n, 2);
  });

  test("with reload, an application keeps the Worker's change too", async () => {
    const { atExpress, atWorker } = await loggedIn();
    await ok(
      both.app.run(atExpress, async (request) => {
        await ok(atWorker.merge({ edge: 1 }));
        await new Promise((done, fail) =>
          request.session.reload((/** @type {unknown} */ error) => (error ? fail(error) : done(undefined))),
        );
        request.session.app = 1;
      }),
    );
    const { data } = await ok(atWorker.look());
    assert.deepEqual([data.edge, data.app], [1, 1]);
  });

  test("one whose answer is lost is made once, or not said to be made", async () => {
    const { atExpress, atWorker } = await loggedIn();
    const isWrite = (/** @type {{ commands: string[][] }} */ { commands }) =>
      commands.some(([word]) => word === "SET");
    both.store.faults.next("lostAnswer", { when: isWrite });
    const { status } = await atWorker.increment("/n");
    assert.ok([200, 503].includes(status), String(status));
    assert.equal((await ok(atExpress.send("GET", "/session"))).data.n, 1);
    both.store.faults.always("refuse", { when: isWrite });
    await refused(atWorker.increment("/n"), 503, "store_unavailable");
    both.store.faults.clear();
    assert.equal((await ok(atExpress.send("GET", "/session"))).data.n, 1);
  });
});

describe("a session that ends at Express", () => {
  for (const { name, end } of [
    { name: "a logout", end: "/logout" },
    { name: "a login, which gives another id", end: "/login" },
  ]) {
    test(`by ${name}, while a change at the Worker is under way: nothing is made of it`, async () => {
      const { atExpress, atWorker, elsewhere } = await loggedIn();
      const [key, copy] = [keyOf(both, atExpress), copyOf({ atExpress, atWorker })];
      const writing = holdWrite();
      const change = copy.atWorker.merge({ late: true });
      await writing.arrived;
      const { status } = await atExpress.send("POST", end, json({ name: "ann" }));
      assert.ok(status < 300);
      writing.release();
      await refused(change, 401, "unauthenticated");
      assert.equal(await recordAt(both, key), null);
      assert.equal((await ok(elsewhere.look()))?.user?.id ?? null, end === "/login" ? "ann" : null);
      assert.equal(await copy.atWorker.session(), null);
    });
  }
});

/**
 * How the Worker ends an id.
 * @type {{ name: string, end: (visitor: Visitor) => Promise<import("./support/visitor.mjs").Answer> }[]}
 */
const ENDS = [
  { name: "a logout", end: (visitor) => visitor.logout() },
  { name: "a rotation", end: (visitor) => visitor.rotate() },
  { name: "a login", end: (visitor) => visitor.register(`Ada ${crypto.randomUUID()}`, PASSWORD) },
];

describe("a session that ends at the Worker while a request of Express' holds it", () => {
  for (const { name, end } of ENDS) {
    test(`by ${name}: the record that Express writes back is no session at the Worker, which deletes it again`, async () => {
      const who = await loggedIn();
      const { atExpress, atWorker } = who;
      await ok(atWorker.look());
      const [key, copy] = [keyOf(both, atExpress), copyOf(who)];
      const atOther = at(other, copy);
      const held = both.app.hold();
      const slow = copy.atExpress.send("POST", "/slow", json({ slow: true }));
      await held.arrived;
      const ended = await end(atWorker);
      assert.ok(ended.status < 300, ended.text);
      assert.equal(await recordAt(both, key), null);
      held.release();
      await ok(slow);
      assert.ok(await recordAt(both, key), "Express has written it back");

      assert.equal(await atOther.session(), null);
      await other.idle();
      assert.equal(await recordAt(both, key), null);
      await ok(copy.atExpress.send("GET", "/dashboard"), 401);
      assert.equal(await copy.atWorker.session(), null);
    });

    test(`by ${name}: no request of the Worker's with the old cookie finds it`, async () => {
      const who = await loggedIn();
      const { atExpress, atWorker } = who;
      const [key, copy] = [keyOf(both, atExpress), copyOf(who)];
      const record = String(await both.store.redis.get(key));
      const ended = await end(atWorker);
      assert.ok(ended.status < 300, ended.text);
      for (const send of [
        () => at(other, copy).send("GET", "/auth/verify"),
        () => at(other, copy).rotate(),
        () => copy.atWorker.send("GET", "/auth/verify"),
      ]) {
        await both.store.redis.set(key, record, { expiration: { type: "EX", value: 1000 } });
        await refused(send(), 401, "unauthenticated");
      }
      // A change begins another, which holds the new data alone.
      await both.store.redis.set(key, record, { expiration: { type: "EX", value: 1000 } });
      const { data, user } = await ok(copy.atWorker.merge({ mine: 1 }));
      assert.deepEqual([data, user], [{ mine: 1 }, null]);
      assert.notEqual(keyOf(both, copy.atWorker), key);
    });
  }

  for (const { what, options } of [
    { what: "cookie.maxAge", options: { session: { cookie: { maxAge: 30 * DAY } } } },
    { what: "a ttl of connect-redis' own", options: { store: { ttl: (30 * DAY) / 1000 } } },
  ]) {
    for (const { name, end } of ENDS) {
      test(`by ${name}: that is known for as long as a record that is written back lasts by ${what}`, async () => {
        const who = both.someone({ app: await both.startApp(options), worker: both.worker });
        await ok(who.atExpress.send("GET", "/"));
        const before = await both.store.redis.keys("foreign:*");
        assert.ok((await end(who.atWorker)).status < 300);
        await both.worker.idle();
        const keys = (await both.store.redis.keys("foreign:*")).filter((key) => !before.includes(key));
        const stored = await Promise.all(keys.map((key) => both.store.redis.get(key)));
        const note = keys.find((_, index) => /ended_at/.test(String(stored[index]))) ?? "";
        const left = await timeToLive(both, note);
        assert.ok(left >= 30 * DAY - MINUTE, `${left} ms`);
      });
    }
  }

  test("an isolate that has never seen the session knows that it has ended", async () => {
    const who = await loggedIn();
    const [key, copy] = [keyOf(both, who.atExpress), copyOf(who)];
    const record = String(await both.store.redis.get(key));
    await ok(who.atWorker.logout(), 204);
    await both.store.redis.set(key, record, { expiration: { type: "EX", value: 1000 } });
    const fresh = await both.startWorker();
    assert.equal(await at(fresh, copy).session(), null);
  });

  test("rotations at once lead to sessions of which each cookie given out works, or is replaced", async () => {
    const { atExpress, atWorker, elsewhere } = await loggedIn();
    const copies = [atWorker, elsewhere].map((visitor) => visitor.clone());
    const answers = await Promise.all(copies.map((visitor) => visitor.rotate()));
    const winners = copies.filter((_, index) => answers[index].status === 200);
    assert.ok(winners.length >= 1);
    for (const { status } of answers) assert.ok([200, 401, 409].includes(status), String(status));
    const [winner] = winners;
    atExpress.cookies.set("connect.sid", String(winner?.cookies.get("connect.sid")));
    assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");
    assert.equal(new Set(winners.map((visitor) => sidOf(visitor))).size, 1, "one session, not two");
  });
});

test("an application that restarts loses no session, of its own or of the Worker's", async () => {
  const app = await both.startApp();
  const [one, two] = [both.someone({ app, worker: both.worker }), both.someone({ app, worker: both.worker })];
  await ok(one.atExpress.send("POST", "/login", json({ name: "ann" })));
  await ok(two.atWorker.merge({ views: 5 }));
  const { port } = app;
  await app.stop();
  await ok(one.atWorker.merge({ meanwhile: true }));
  assert.equal((await ok(one.atWorker.look())).user.id, "ann", "the Worker goes on");
  const again = await both.startApp({ port });
  assert.equal(again.url, app.url);
  assert.equal((await ok(one.atExpress.send("GET", "/dashboard"))).user, "ann");
  assert.equal((await ok(one.atExpress.send("GET", "/session"))).data.meanwhile, true);
  assert.equal((await ok(two.atExpress.send("GET", "/"))).views, 6);
});
