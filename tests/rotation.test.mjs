/** New ids: by themselves, for everybody the same, and what happens when an old one is used after its time. */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const HOUR = 3_600_000;
const GRACE = 30_000;

/** Two isolates of one deployment, and one that ignores the reuse of old ids. */
const { store, workers, stop } = await startDeployment(
  [{}, {}, { settings: { session: { on_reuse: "ignore", rotate_every: "" } } }],
  { secrets: { SESSION_SECRET: randomSecret() } },
);
after(stop);
/** @type {Visitor} */
let visitor;
beforeEach(() => {
  store.faults.clear();
  visitor = workers[0].visitor();
});

/** @param {number} milliseconds */
const moveClocks = (milliseconds) => Promise.all(workers.map((worker) => worker.moveClock(milliseconds)));

/** Keeps a session of this test alive in the store, whose clock does not move. */
const keepAll = async () => {
  for (const key of await store.redis.keys("sess:*")) await store.redis.persist(key);
};

test("an id changes by itself once in rotate_every, with the first request after that", async () => {
  const { session } = (await visitor.merge({ a: 1 })).json;
  await moveClocks(HOUR - 60_000);
  await keepAll();
  assert.equal((await visitor.session()).handle, session.handle);
  await moveClocks(61_000);
  await keepAll();
  const answer = await visitor.look();
  assert.equal(answer.status, 200);
  assert.equal(answer.setCookies.length, 1);
  assert.notEqual(answer.json.session.handle, session.handle);
  assert.deepEqual(answer.json.session.data, { a: 1 });
  assert.equal(answer.json.session.expires_at, session.expires_at, "the absolute end stays");
  assert.deepEqual((await visitor.look()).setCookies, []);
});

test("a change at the time of a rotation is made to the session under its new id", async () => {
  const { session } = (await visitor.merge({ a: 1 })).json;
  await moveClocks(HOUR);
  await keepAll();
  const answer = await visitor.merge({ b: 2 });
  assert.notEqual(answer.json.session.handle, session.handle);
  assert.deepEqual((await visitor.session()).data, { a: 1, b: 2 });
});

test("20 parallel requests at the time of a rotation get one successor, and none is refused", async () => {
  await visitor.merge({ views: 0 });
  await moveClocks(HOUR);
  await keepAll();
  const people = Array.from({ length: 20 }, (_, index) => visitor.clone(workers[index % 2 ? 1 : 0].url));
  const answers = await Promise.all(
    people.map((one, index) => (index % 4 ? one.look() : one.increment("/views"))),
  );
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
  assert.equal(new Set(answers.map((answer) => answer.json.session.handle)).size, 1);
  assert.equal(new Set(people.map((one) => one.ticket)).size, 1);
  const now = await people[0]?.session();
  assert.equal(now.data.views, 5);
});

test("an id used after its grace period ends the session and its successor, and the log has only its handle", async () => {
  const { session } = (await visitor.merge({ secret: "blue" })).json;
  const thief = visitor.clone();
  await visitor.rotate();
  await moveClocks(GRACE - 1000);
  assert.equal((await thief.clone().look()).json.session.data.secret, "blue", "still within the grace");
  await moveClocks(1001);

  const answer = await thief.look();
  assert.equal(answer.text, '{"session":null}');
  assert.equal(answer.setCookies.length, 1);
  assert.equal(await visitor.session(), null);
  const log = workers[0].logs.join("");
  assert.match(log, /session [\w-]{24} was ended: an old id of it was used after its grace/);
  assert.ok(!log.includes("blue") && !log.includes(session.handle));
});

test("an id from several rotations ago ends the session too", async () => {
  await visitor.merge({ a: 1 });
  const thief = visitor.clone();
  for (let count = 0; count < 5; count += 1) await visitor.rotate();
  await moveClocks(GRACE);
  assert.equal((await thief.rotate()).status, 401);
  assert.equal(await visitor.session(), null);
});

test("with on_reuse = ignore an old id has no session after its grace period, and the session goes on", async () => {
  visitor = workers[2].visitor();
  await visitor.merge({ a: 1 });
  const late = visitor.clone();
  await visitor.rotate();
  await moveClocks(GRACE);
  assert.equal(await late.session(), null);
  assert.equal((await late.logout()).status, 204);
  assert.deepEqual((await visitor.session()).data, { a: 1 });
});

test("with rotate_every empty an id stays as long as the session", async () => {
  visitor = workers[2].visitor();
  const { session } = (await visitor.merge({ a: 1 })).json;
  for (let hours = 0; hours < 20; hours += 5) {
    await moveClocks(5 * HOUR);
    await keepAll();
    assert.equal((await visitor.session()).handle, session.handle);
  }
});

test("an id from any number of rotations ago is recognised as old, also after the store has forgotten it", async () => {
  await store.redis.flushAll();
  const { session } = (await visitor.merge({ a: 1 })).json;
  const thief = visitor.clone();
  for (let count = 0; count < 70; count += 1) await visitor.rotate();
  assert.ok(
    (await store.redis.pTTL(`sess:${session.handle}`)) <= 2 * GRACE,
    "the way is kept a little longer than its grace",
  );
  for (const key of await store.redis.keys("sess:*")) {
    if (key !== `sess:${(await visitor.session()).handle}`) await store.redis.del(key);
  }
  const { value, calls } = await store.counters.during(() => thief.session());
  assert.equal(value, null);
  assert.ok(calls <= 6, `${calls} calls`);
  assert.equal(await visitor.session(), null);
  assert.deepEqual(await store.redis.keys("*"), [], "nothing is left behind");
});
