/** A copied cookie is found out: an id used half a minute after its successor was presented ends the session. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  familyOf,
  GRACE,
  guest,
  headOf,
  HOUR,
  isNoted,
  moveClocks,
  present,
  rotateAndPresent,
  SECOND,
  store,
  workers,
} from "./support/rotation.mjs";
import { until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** Matches a call that begins with this command for the head of a family. @param {string} name @returns {(seen: { commands: string[][] }) => boolean} */
const isNote =
  (name) =>
  ({ commands: [first] }) =>
    first?.[0] === name && Boolean(first[1]?.startsWith("family:"));

/** Nothing of the session is left in the store. @param {Visitor} visitor @param {string[]} handles */
async function assertNothingLeft(visitor, handles) {
  const keys = [...handles.map((handle) => `sess:${handle}`), `family:${familyOf(visitor)}`];
  await until(
    async () => (await store.redis.exists(keys)) === 0,
    () => `something is left of ${keys.join(", ")}`,
  );
}

test("an old id used after its grace ends the session and its successor, and the log has only its handle", async () => {
  const visitor = await guest();
  const { session } = (await visitor.merge({ secret: "blue" })).json;
  const thief = visitor.clone();
  const { handle } = await rotateAndPresent(visitor);
  await moveClocks(GRACE - SECOND);
  assert.equal((await thief.clone().look()).json.session.data.secret, "blue", "still within the grace");
  await moveClocks(SECOND);

  const answer = await thief.look();
  assert.equal(answer.text, '{"session":null}');
  const ticket = visitor.ticket;
  assert.equal(await visitor.session(), null);
  const log = workers[0].logs.join("");
  assert.match(log, /session [\w-]{24} was ended: an old id of it was used after its grace/);
  assert.ok(!log.includes("blue") && !log.includes(session.handle) && !log.includes(String(ticket)));
  visitor.ticket = ticket;
  await assertNothingLeft(visitor, [handle]);
});

test("it makes no difference whether the thief or the owner has moved on", async () => {
  for (const when of ["at once", "hours later"]) {
    const owner = await guest();
    const thief = owner.clone(workers[1].url);
    if (when === "hours later") await moveClocks(5 * HOUR);
    await rotateAndPresent(thief);
    await moveClocks(GRACE);
    assert.equal((await owner.merge({ b: 2 })).json.session.data.a, undefined, "another session");
    assert.equal(await thief.session(), null, when);
  }
});

test("the time of an old id runs from the first use of its successor, and not from each", async () => {
  const visitor = await guest();
  const thief = visitor.clone();
  await rotateAndPresent(visitor);
  for (let count = 0; count < 3; count += 1) {
    await moveClocks(GRACE / 3);
    await Promise.all(workers.slice(0, 2).map((worker) => visitor.clone(worker.url).look()));
  }
  assert.equal(await thief.session(), null);
  assert.equal(await visitor.session(), null);
});

test("the use of an old id does not prolong the time of older ones", async () => {
  const visitor = await guest();
  const thief = visitor.clone();
  await rotateAndPresent(visitor);
  const late = visitor.clone();
  await moveClocks(GRACE - SECOND);
  await rotateAndPresent(visitor);
  assert.notEqual(await late.session(), null);
  await moveClocks(SECOND);
  assert.equal((await thief.rotate()).status, 401);
  assert.equal(await visitor.session(), null);
});

test("seventy rotations in a row hide no theft: who is left behind ends the session for the other", async () => {
  for (const isForgotten of [false, true]) {
    await store.redis.flushAll();
    const owner = await guest();
    const thief = owner.clone();
    for (let count = 0; count < 70; count += 1) {
      await moveClocks(8 * SECOND);
      assert.equal((await thief.rotate()).status, 200, `rotation ${count}`);
    }
    const { handle } = await present(thief);
    if (isForgotten) {
      // The store has let go of everything that leads on from old ids.
      for (const key of await store.redis.keys("sess:*")) {
        if (key !== `sess:${handle}`) await store.redis.del(key);
      }
    }
    const { value, calls } = await store.counters.during(() => owner.session());
    assert.equal(value, null);
    assert.ok(calls <= 8, `${calls} calls, to end it too`);
    assert.equal((await thief.rotate()).status, 401);
    assert.match(workers[0].logs.join(""), new RegExp(`session ${handle} was ended`));
    const left = (await store.redis.keys("*")).filter((key) => !key.startsWith("stats:"));
    if (isForgotten) assert.deepEqual(left, [], "nothing is left behind");
  }
});

test("a note of an older first use that comes late hides no reuse", async () => {
  for (const delayed of ["the read", "the write"]) {
    const visitor = await guest();
    const thieves = [visitor.clone()];
    await visitor.rotate();
    const held = store.faults.hold(isNote(delayed === "the read" ? "GETEX" : "SET"));
    await visitor.look();
    await held.arrived;
    thieves.push(visitor.clone());
    // Meanwhile the next rotation, and its first use at another isolate.
    assert.equal((await visitor.rotate()).status, 200);
    visitor.url = workers[1].url;
    await present(visitor);
    const head = await headOf(visitor);
    held.release();
    await workers[0].idle();
    assert.deepEqual(await headOf(visitor), head, `the later head stays when ${delayed} was late`);
    assert.equal(await isNoted(visitor), true);
    await moveClocks(GRACE);
    for (const thief of thieves) assert.equal(await thief.session(), null);
    assert.equal(await visitor.session(), null);
  }
});

test("a first use noted twice at once, at two isolates, is noted once", async () => {
  const visitor = await guest();
  await visitor.rotate();
  const held = [store.faults.hold(isNote("SET")), store.faults.hold(isNote("SET"))];
  await Promise.all(workers.slice(0, 2).map((worker) => visitor.clone(worker.url).look()));
  await Promise.all(held.map(({ arrived }) => arrived));
  held[0].release();
  await until(() => isNoted(visitor));
  const head = await headOf(visitor);
  held[1].release();
  await Promise.all(workers.map((worker) => worker.idle()));
  assert.deepEqual(await headOf(visitor), head);
});

test("a thief whose session was ended has a dead ticket, and begins nothing but a session of their own", async () => {
  const visitor = workers[0].visitor();
  assert.equal((await visitor.register("Stolen from", "correct horse")).status, 201);
  const thief = visitor.clone();
  await rotateAndPresent(visitor);
  await moveClocks(GRACE);
  assert.equal((await thief.clone().send("GET", "/auth/profile")).status, 401);
  for (const worker of workers.slice(0, 2)) {
    const again = thief.clone(worker.url);
    assert.equal((await again.rotate()).status, 401);
    assert.equal(again.ticket, undefined, "what changes something removes the cookie");
    const { session } = (await thief.clone(worker.url).merge({ mine: 1 })).json;
    assert.deepEqual([session.user, session.data], [null, { mine: 1 }]);
  }
});

test("with on_reuse = ignore an old id has no session after its grace, and the session goes on", async () => {
  const visitor = await guest(2);
  const late = visitor.clone();
  await rotateAndPresent(visitor);
  await moveClocks(GRACE);
  assert.equal(await late.session(), null);
  assert.equal((await late.logout()).status, 204);
  assert.deepEqual((await visitor.session()).data, { a: 1 });
});

test("a theft that is found out while the store fails ends nothing, and is found out again", async () => {
  const visitor = await guest();
  const thief = visitor.clone();
  await rotateAndPresent(visitor);
  await moveClocks(GRACE);
  store.faults.always("refuse", { when: ({ commands }) => commands[0]?.[0] === "DELEX" });
  const answer = await thief.look();
  assert.equal(answer.status, 503);
  assert.deepEqual(answer.setCookies, []);
  store.faults.clear();
  assert.equal(await thief.session(), null);
  assert.equal(await visitor.session(), null);
});
