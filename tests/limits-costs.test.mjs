/** What a counted request costs, and how long a refused caller waits. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  all,
  assertRefused,
  counters,
  from,
  guest,
  has,
  look,
  member,
  MINUTE,
  passed,
  seconds,
  someAddress,
  someUser,
  limitStates,
  startTwo,
  store,
  untilCounted,
} from "./support/limits.mjs";
import { moveClocks, moveToWindow } from "./support/worker.mjs";

/** @typedef {import("./support/limits.mjs").Answer} Answer */
/** @typedef {import("./support/limits.mjs").Worker} Worker */

const two = await startTwo();

// Calls and commands

/** @param {() => Promise<Answer>} act @param {number} [status] */
async function costOf(act, status = 200) {
  const { value, calls, commands, byName } = await store.counters.during(act);
  assert.equal(value.status, status, value.text);
  return { calls, commands, byName };
}

test("a read costs one call: two commands, three the first time in a window, one more for each further limit", async () => {
  await moveClocks(store, all, 11 * MINUTE); // the store's clock is read again
  await moveToWindow(store, all);
  const visitor = await guest(two[0]);
  await look(visitor);
  assert.deepEqual(await costOf(() => look(visitor)), {
    calls: 1,
    commands: 2,
    byName: { MGET: 1, INCR: 1 },
  });
  await moveToWindow(store, all, { part: 0.05 }); // in less than a minute: nothing is due in the background
  const first = { calls: 1, commands: 3, byName: { MGET: 1, SET: 1, INCR: 1 } };
  assert.deepEqual(await costOf(() => look(visitor)), first);
  assert.deepEqual(await costOf(() => look(visitor)), {
    calls: 1,
    commands: 2,
    byName: { MGET: 1, INCR: 1 },
  });

  const logged = await member(two[0], someUser());
  const both = { calls: 1, commands: 5, byName: { MGET: 1, SET: 2, INCR: 2 } };
  assert.deepEqual(await costOf(() => look(logged)), both);
  assert.deepEqual(await costOf(() => look(logged)), { calls: 1, commands: 3, byName: { MGET: 1, INCR: 2 } });
});

test("reading the store's clock costs one more command, once a minute", async () => {
  await moveClocks(store, all, 2 * MINUTE);
  const visitor = await guest(two[0]); // which reads it
  const times = async (/** @type {number} */ milliseconds) => {
    await moveClocks(store, all, milliseconds);
    return (await costOf(() => look(visitor))).byName.TIME ?? 0;
  };
  assert.deepEqual([await times(0), await times(50_000)], [0, 0]);
  assert.deepEqual([await times(11_000), await times(0), await times(50_000)], [1, 0, 0]);
});

test("the first change without a session costs one call and five commands, two calls until the store's clock and the script are known", async () => {
  for (const most of [2, 2]) {
    const first = await costOf(() => two[0].visitor().merge({ a: 1 }, from()));
    assert.ok(first.calls <= most && first.commands <= 6, JSON.stringify(first));
  }
  const next = await costOf(() => two[0].visitor().merge({ a: 1 }, from()));
  const byName = { EVALSHA: 1, MGET: 1, INCR: 1, PEXPIRE: 1, SET: 1 };
  assert.deepEqual(next, { calls: 1, commands: 5, byName });
});

test("a request without a limit costs nothing", async () => {
  const visitor = two[0].visitor();
  const nothing = { calls: 0, commands: 0, byName: {} };
  assert.deepEqual(await costOf(() => look(visitor)), nothing);
  visitor.ticket = "A".repeat(148);
  const forged = await costOf(() => look(visitor));
  assert.deepEqual(forged, nothing);
  assert.deepEqual(await costOf(() => visitor.send("GET", "/auth/nowhere"), 404), nothing);
  assert.deepEqual(await counters(), []);
});

// Refused callers

test("a caller over a limit costs no call until Retry-After is over, and then succeeds", async () => {
  const visitor = await guest(two[0]);
  for (let count = 0; count < 5; count += 1) assert.equal((await look(visitor)).status, 200);
  const refused = await look(visitor);
  const at = store.now();
  assertRefused(refused, "session");
  await untilCounted("session", 5);
  const wait = seconds(refused);
  const nothing = { calls: 0, commands: 0, byName: {} };
  for (const part of [0, 0.3, 0.9]) {
    await moveClocks(store, all, Math.max(0, Math.floor(at + part * wait * 1000 - store.now())));
    assert.deepEqual(await costOf(() => look(visitor), 429), nothing);
    const again = await look(visitor);
    assertRefused(again, "session");
    assert.ok(Math.abs(seconds(again) - (at + wait * 1000 - store.now()) / 1000) <= 1.1, again.text);
  }
  // Retry-After is rounded up to whole seconds: a second earlier the caller still waits.
  await moveClocks(store, all, Math.floor(at + (wait - 1) * 1000 - 50 - store.now()));
  assert.deepEqual(await costOf(() => look(visitor), 429), nothing);
  await moveClocks(store, all, Math.ceil(at + wait * 1000 - store.now()));
  assert.equal((await look(visitor)).status, 200);
});

test("a retry after Retry-After succeeds, for every policy and at another isolate", async () => {
  /** @type {[string, number, () => Promise<(worker: Worker) => Promise<Answer>>][]} */
  const cases = [
    [
      "session",
      5,
      async () => {
        const visitor = await guest(two[0]);
        return (worker) => look(visitor.clone(worker.url));
      },
    ],
    [
      "mint",
      4,
      async () => {
        const address = someAddress();
        return (worker) => worker.visitor().merge({ a: 1 }, from(address));
      },
    ],
    [
      "GET /api/search",
      3,
      async () => {
        const address = someAddress();
        return (worker) => worker.visitor().send("GET", "/api/search", { headers: from(address) });
      },
    ],
  ];
  for (const [name, limit, prepare] of cases) {
    const send = await prepare();
    await send(two[0]);
    await send(two[1]);
    await moveToWindow(store, all, { part: 0.2 });
    for (let count = 0; count < 3 * limit; count += 1) await send(two[count % 2]);
    await sleep(50); // refunds come after the response
    for (let round = 0; round < 4; round += 1) {
      const refused = await send(two[round % 2]);
      const at = store.now();
      assertRefused(refused, name);
      await sleep(30);
      await moveClocks(store, all, Math.ceil(at + seconds(refused) * 1000 - store.now()));
      const next = await send(two[(round + 1) % 2]);
      assert.notEqual(next.status, 429, `${name}, round ${round}: ${next.text}`);
      for (let count = 0; count < limit; count += 1) await send(two[count % 2]);
      await sleep(30);
    }
  }
});

test("a retry after Retry-After succeeds when several limits were exceeded at once", async () => {
  const visitor = await guest(two[0]);
  for (let count = 0; count < 5; count += 1) assert.equal((await look(visitor)).status, 200);
  await moveToWindow(store, all, { part: 0.5 });
  const search = () => visitor.send("GET", "/api/search", { headers: from() });
  for (let count = 0; count < 3; count += 1) assert.equal((await search()).status, 404);
  const refused = await search();
  const at = store.now();
  assertRefused(refused, "session");
  await untilCounted("session", 3);
  await moveClocks(store, all, Math.ceil(at + seconds(refused) * 1000 - store.now()));
  const next = await search();
  assert.notEqual(next.status, 429, next.text);
});

test("a slow call does not set an isolate's clock wrong", async () => {
  await moveClocks(store, all, 11 * MINUTE);
  await moveToWindow(store, all);
  const visitor = (await guest(two[1])).clone(two[0].url);
  const held = store.faults.hold(has("TIME"));
  const slow = look(visitor);
  await held.arrived;
  await moveClocks(store, all, 1800);
  held.release();
  assert.equal((await slow).status, 200);
  const left = () => MINUTE - (store.now() % MINUTE);
  await moveClocks(store, all, 500 + (Math.floor(left()) % 1000));
  const [{ t }] = limitStates(await look(visitor));
  assert.ok(t * 1000 >= left(), `the window ends in ${left()} ms, and not after ${t} s`);
});

test("a caller who keeps sending waits no longer than the first Retry-After, and refused requests are refunded", async () => {
  const visitor = await guest(two[0]);
  const send = (/** @type {number} */ index) => look(visitor.clone(two[index % 2].url));
  for (let count = 0; count < 5; count += 1) await send(count);
  const refused = await look(visitor);
  const end = store.now() + seconds(refused) * 1000;
  assertRefused(refused, "session");
  for (let round = 0; round < 20; round += 1) {
    const answers = await Promise.all(Array.from({ length: 10 }, (_, index) => send(index)));
    assert.equal(passed(answers), 0);
    const latest = Math.max(...answers.map((answer) => store.now() + seconds(answer) * 1000));
    assert.ok(latest <= end + 1500, `${latest - end} ms longer in round ${round}`);
    await moveClocks(store, all, Math.floor((end - store.now() - 3000) / 4));
  }
  await untilCounted("session", 5);
  await moveClocks(store, all, Math.ceil(end - store.now()));
  assert.equal((await look(visitor)).status, 200);
});

test("a caller who keeps sending through many windows still gets the limit through in every one", async () => {
  const visitor = await guest(two[0]);
  let count = 0;
  for (let step = 0; step < 60; step += 1) {
    const answers = await Promise.all([0, 1, 0, 1].map((at) => look(visitor.clone(two[at].url))));
    count += passed(answers);
    await moveClocks(store, all, 5000);
  }
  // Five minutes of 5/1m, and a bit for the first minute.
  assert.ok(count >= 22 && count <= 30, `${count} passed`);
});
