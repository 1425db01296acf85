/** The crate: the cache, in two isolates. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { startCrateWorkers } from "./support/crate.mjs";
import { until } from "./support/worker.mjs";

/** @type {import("./support/crate.mjs").CrateWorkers} */
let crate;
/** @type {import("./support/crate.mjs").Upstream} */
let upstream;
/** At each isolate one. @type {import("./support/crate.mjs").Visitor[]} */
let visitors;
/** Another one for each test. */
let key = "";
let tests = 0;
before(async () => {
  crate = await startCrateWorkers({ name: "crate-cache" });
  ({ upstream } = crate);
  visitors = crate.workers.map((worker) => worker.visitor());
});
after(() => crate?.stop());
beforeEach(() => {
  key = `key-${(tests += 1)}`;
  crate.store.faults.clear();
  upstream.reset();
});

/** @param {number} isolate */
const ask = (isolate, seconds = 60) => visitors[isolate].send("GET", `/cached?key=${key}&seconds=${seconds}`);

/** The upstream server answers so from here on. @param {string} text */
const say = (text, status = 200) =>
  upstream.answerWith((_, response) => void response.writeHead(status).end(text));

/** @param {number} milliseconds */
const moveClock = (milliseconds) =>
  Promise.all(crate.workers.map((worker) => worker.moveClock(milliseconds)));

test("a value is computed once, and then is there in every isolate, for one call", async () => {
  say("one");
  for (const isolate of [0, 0, 1, 1]) assert.equal((await ask(isolate)).json, "one");
  assert.equal(upstream.calls, 1);
  const { calls, byName } = await crate.store.counters.during(() => ask(1));
  assert.deepEqual([calls, byName], [1, { MGET: 1 }]);
});

test("of many who ask at once, in both isolates, one computes, and all get what it gets", async () => {
  say("one");
  const held = upstream.hold();
  const asking = Array.from({ length: 20 }, (_, index) => ask(index % 2));
  await held.arrived;
  // Whoever has found that somebody computes looks again and again.
  await until(() => crate.store.counters.byName.MGET > 60);
  held.release();
  for (const { status, json } of await Promise.all(asking)) assert.deepEqual([status, json], [200, "one"]);
  assert.equal(upstream.calls, 1);
});

test("while one computes the next value, the others get the one before", async () => {
  say("one");
  await ask(0);
  await moveClock(61_000);
  try {
    say("two");
    const held = upstream.hold();
    const computing = ask(0);
    await held.arrived;
    for (const isolate of [0, 1, 1]) assert.equal((await ask(isolate)).json, "one");
    held.release();
    assert.equal((await computing).json, "two");
    assert.equal((await ask(1)).json, "two");
    assert.equal(upstream.calls, 2);
  } finally {
    await moveClock(-61_000);
  }
});

test("what there is not is kept like any value", async () => {
  say("", 404);
  for (const isolate of [0, 1, 0]) assert.deepEqual((await ask(isolate)).json, null);
  assert.equal(upstream.calls, 1);
});

describe("a computation that fails", () => {
  test("is its caller's failure alone, and the next one who asks computes again", async () => {
    say("", 500);
    assert.equal((await ask(0)).status, 500);
    say("one");
    assert.equal((await ask(1)).json, "one");
    assert.equal(upstream.calls, 2);
  });

  test("while others wait lets one of them compute", async () => {
    say("", 500);
    const held = upstream.hold();
    const first = ask(0);
    await held.arrived;
    const others = [ask(1), ask(0), ask(1)];
    const { MGET } = crate.store.counters.byName;
    await until(() => crate.store.counters.byName.MGET > MGET + 6);
    upstream.answerWith((_, response) => {
      response.statusCode = 500;
      response.end();
      say("one");
    });
    held.release();
    assert.equal((await first).status, 500);
    for (const { json } of await Promise.all(others)) assert.equal(json, "one");
    assert.equal(upstream.calls, 2);
  });
});

test("a dead store costs the caching and nothing else", async () => {
  say("one");
  crate.store.faults.always("refuse");
  for (const isolate of [0, 1])
    assert.deepEqual([(await ask(isolate)).status, (await ask(isolate)).json], [200, "one"]);
  assert.equal(upstream.calls, 4);
  await until(() => crate.logs().includes("a value was computed, because the store failed"));
  assert.ok(!crate.logs().includes(key) && !crate.logs().includes(crate.store.token));
});

describe("a value that is forgotten", () => {
  const forget = (isolate = 0) => visitors[isolate].send("GET", `/forget?key=${key}`);

  test("is computed again", async () => {
    say("one");
    await ask(0);
    assert.equal((await forget(1)).status, 200);
    say("two");
    assert.equal((await ask(0)).json, "two");
  });

  test("while it is computed is not stored by that computation", async () => {
    say("one");
    const held = upstream.hold();
    const computing = ask(0);
    await held.arrived;
    await forget(1);
    held.release();
    assert.equal((await computing).json, "one");
    say("two");
    assert.equal((await ask(1)).json, "two");
    assert.equal((await ask(0)).json, "two");
  });

  test("of a dead store is a failure that its caller learns", async () => {
    crate.store.faults.always("refuse");
    assert.equal((await forget()).status, 503);
  });
});

test("a session and the cache have nothing to do with each other", async () => {
  say("one");
  const { setCookies, headers } = await ask(0);
  assert.deepEqual(setCookies, []);
  assert.equal(headers.get("vary"), "Cookie");
});
