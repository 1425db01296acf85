/**
 * Many at once: no acknowledged change is lost, an ended session stays ended, a rotation has one successor.
 * Two isolates share one store; a request is paused in the store where the order of things matters.
 */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const secrets = { SESSION_SECRET: randomSecret() };
const { store, workers, stop } = await startDeployment([{}, {}], { secrets });
after(stop);
/** @type {Visitor} */
let visitor;
beforeEach(() => {
  store.faults.clear();
  visitor = workers[0].visitor();
});

/** As many as `count` people with the visitor's ticket, at the isolates in turn. @param {number} count */
const crowd = (count) => Array.from({ length: count }, (_, index) => visitor.clone(workers[index % 2].url));

/** @param {import("./support/visitor.mjs").Answer[]} answers */
const statuses = (answers) => [...new Set(answers.map((answer) => answer.status))];

/** Pauses the next request whose first command has this name. @param {string} name */
const hold = (name) => store.faults.hold(({ commands }) => commands[0]?.[0] === name);

test("50 parallel increments of one session leave 50, with fewer than ten tries each", async () => {
  await visitor.merge({ views: 0 });
  const { value: answers, byName } = await store.counters.during(() =>
    Promise.all(crowd(50).map((one) => one.increment("/views"))),
  );
  assert.deepEqual(statuses(answers), [200]);
  assert.deepEqual((await visitor.session()).data, { views: 50 });
  const seen = answers.map((answer) => answer.json.session.data.views).sort((a, b) => a - b);
  assert.deepEqual(
    seen,
    Array.from({ length: 50 }, (_, index) => index + 1),
    "each saw its own",
  );
  // Who did not give way to others would try 15 times and more.
  assert.ok(Number(byName.SET) < 500, `${byName.SET} tries`);
});

test("50 parallel patches of 50 different keys leave 50", async () => {
  await visitor.merge({ before: true });
  const answers = await Promise.all(crowd(50).map((one, index) => one.merge({ [`key${index}`]: index })));
  assert.deepEqual(statuses(answers), [200]);
  const expected = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`key${index}`, index]));
  assert.deepEqual((await visitor.session()).data, { ...expected, before: true });
});

test("of 20 parallel changes on the same condition exactly one is made", async () => {
  const etag = String((await visitor.merge({ winner: null, ready: true })).headers.get("etag"));
  const answers = await Promise.all(
    crowd(20).map((one, index) => one.merge({ winner: index }, { "If-Match": etag })),
  );
  assert.equal(answers.filter((answer) => answer.status === 200).length, 1);
  assert.equal(answers.filter((answer) => answer.status === 412).length, 19);
  assert.equal(
    (await visitor.session()).data.winner,
    answers.findIndex((answer) => answer.status === 200),
  );
});

test("a logout during a slow write stays a logout", async () => {
  const keys = (await store.redis.keys("sess:*")).length;
  await visitor.merge({ a: 1 });
  const [writer] = crowd(1);
  await writer.forget();
  const held = hold("SET");
  const writing = writer.merge({ a: 2 });
  await held.arrived;
  assert.equal((await visitor.logout()).status, 204);
  held.release();

  const answer = await writing;
  assert.equal(answer.status, 401);
  assert.equal(answer.json.code, "unauthenticated");
  assert.equal(writer.ticket, undefined, "the ticket is taken back");
  assert.equal((await store.redis.keys("sess:*")).length, keys, "the record is gone");
});

test("a logout during a rotation stays a logout", async () => {
  await visitor.merge({ a: 1 });
  const [other] = crowd(1);
  const keys = (await store.redis.keys("sess:*")).length;
  const held = hold("SET");
  const rotating = other.rotate();
  await held.arrived;
  await visitor.logout();
  held.release();
  assert.equal((await rotating).status, 401);
  assert.equal((await store.redis.keys("sess:*")).length, keys - 1, "no copy is left behind");
});

test("a rotation during a logout does not save the session", async () => {
  await visitor.merge({ a: 1 });
  const [other] = crowd(1);
  const held = hold("DELEX");
  const leaving = visitor.logout();
  await held.arrived;
  assert.equal((await other.rotate()).status, 200);
  held.release();
  assert.equal((await leaving).status, 204);
  assert.equal(await other.session(), null);
});

test("a read in flight while the session ends does not restore it", async () => {
  await visitor.merge({ a: 1 });
  await workers[0].moveClock(6 * 60_000); // so that the read carries a touch
  await workers[1].moveClock(6 * 60_000);
  const [reader] = crowd(1);
  const held = hold("MGET");
  const reading = reader.look();
  await held.arrived;
  await visitor.logout();
  held.release();
  assert.equal((await reading).json.session, null);
  assert.equal(await visitor.session(), null);
});

test("20 parallel rotations of one id make one successor", async () => {
  const { session } = (await visitor.merge({ a: 1 })).json;
  const people = crowd(20);
  const answers = await Promise.all(people.map((one) => one.rotate()));
  assert.deepEqual(statuses(answers), [200]);
  const handles = new Set(answers.map((answer) => answer.json.session.handle));
  assert.equal(handles.size, 1);
  assert.ok(!handles.has(session.handle));
  assert.equal(new Set(people.map((one) => one.ticket)).size, 1, "and everybody has the same ticket");
});

test("of parallel changes, reads and a rotation none is lost or refused", async () => {
  await visitor.merge({ views: 0 });
  const people = crowd(31);
  const answers = await Promise.all(
    people.map((one, index) => {
      if (index === 10) return one.rotate();
      return index % 3 === 0 ? one.look() : one.increment("/views");
    }),
  );
  assert.deepEqual(statuses(answers), [200]);
  const changes = answers.filter((_, index) => index !== 10 && index % 3 !== 0).length;
  const now = await people[10].session();
  assert.equal(now.data.views, changes);
});

test("a change paused during a rotation is made to the successor", async () => {
  await visitor.merge({ a: 1 });
  const [writer] = crowd(1);
  await writer.forget();
  const held = hold("SET");
  const writing = writer.merge({ b: 2 });
  await held.arrived;
  const rotated = await visitor.rotate();
  held.release();
  const answer = await writing;
  assert.equal(answer.status, 200);
  assert.equal(answer.json.session.handle, rotated.json.session.handle);
  assert.deepEqual((await visitor.session()).data, { a: 1, b: 2 });
});

test("parallel first changes without a ticket create a session each", async () => {
  const people = Array.from({ length: 10 }, () => workers[0].visitor());
  const answers = await Promise.all(people.map((one) => one.increment("/n")));
  assert.equal(new Set(answers.map((answer) => answer.json.session.handle)).size, 10);
});

test("a change reaches a session through a replica that lags behind", async () => {
  await visitor.merge({ views: 0 });
  store.faults.lag = 150;
  const answers = await Promise.all(crowd(6).map((one) => one.increment("/views")));
  store.faults.lag = 0;
  assert.deepEqual(statuses(answers), [200]);
  assert.equal((await visitor.session()).data.views, 6);
});
