/** Limits while the store fails: counters expire all the same, and on_failure decides what passes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  ADMIN_TOKEN,
  all,
  assertRefused,
  assertUncounted,
  counters,
  countOf,
  from,
  guest,
  has,
  immortal,
  immortalAfterRepairs,
  look,
  MINUTE,
  passed,
  secrets,
  limitStates,
  someAddress,
  start,
  startPerAddress,
  startTwo,
  store,
} from "./support/limits.mjs";
import { moveClocks, until } from "./support/worker.mjs";

/** @typedef {import("./support/limits.mjs").Visitor} Visitor */
/** @typedef {import("./support/limits.mjs").Answer} Answer */

const two = await startTwo();

const closed = await startPerAddress("closed");

const open = await startPerAddress("open");

// Times to live

/** Failures of the call that counts. @type {[string, import("../tools/local-store/faults.mjs").Fault][]} */
const FAULTS = [
  ["refuse", { refuse: true }],
  ["hang", { hang: true }],
  ["hang after it was executed", { hang: true, execute: true }],
  ["cut", { cut: true }],
  ["lostAnswer", { lostAnswer: true }],
  ["short", { short: true }],
  ["status 500 after it was executed", { status: 500, body: "{}", execute: true }],
  ["garbage", { status: 200, body: "<html>" }],
  ["garbage after it was executed", { status: 200, body: "<html>", execute: true }],
  ["quota", { quota: true }],
  ["capacity", { capacity: true }],
  ...[0, 1, 2, 3].map((entry) => /** @type {[string, object]} */ ([`entry ${entry}`, { entry }])),
];

/** What was done to the counter before the fault. @type {Record<string, (visitor: Visitor) => Promise<void>>} */
const COUNTERS = {
  "that is new": async () => {},
  "that is known to exist": async (visitor) => void (await look(visitor)),
  "that is known to exist, and was lost": async (visitor) => {
    await look(visitor);
    await store.redis.flushAll();
  },
};

for (const [state, prepare] of Object.entries(COUNTERS)) {
  test(`no fault leaves a counter without a time to live: a counter ${state}`, async () => {
    /** @type {string[]} */
    const found = [];
    for (const [name, fault] of FAULTS) {
      for (const worker of [closed, open]) {
        await store.redis.flushAll();
        const visitor = await guest(worker);
        await prepare(visitor);
        store.faults.next(fault, { when: has("INCR") });
        const answer = await look(visitor);
        assert.ok([200, 503].includes(answer.status), `${name}: ${answer.text}`);
        store.faults.clear();
        for (const key of await immortalAfterRepairs(worker))
          found.push(`${name}: ${key.replace(/:[^:]*:\d+$/, "")}`);
      }
    }
    assert.deepEqual(found, []);
  });
}

test("a pipeline delayed until its counter was lost or its window over leaves no counter that never expires", async () => {
  for (const isKnown of [false, true]) {
    for (const loss of ["flushed", "over"]) {
      const visitor = await guest(closed);
      if (isKnown) await look(visitor);
      const held = store.faults.hold(has("INCR"));
      const answer = look(visitor);
      await held.arrived;
      if (loss === "over") await moveClocks(store, all, 3 * MINUTE);
      for (const { key } of await counters()) await store.redis.del(key);
      held.release();
      const { status } = await answer;
      assert.ok([200, 503].includes(status), `${loss}: ${status}`);
      assert.deepEqual(await immortalAfterRepairs(closed), [], `${loss}, ${isKnown}`);
    }
  }
});

test("a refund to a lost counter leaves one with a time to live, or none", async () => {
  const visitor = await guest(closed);
  for (let count = 0; count < 5; count += 1) await look(visitor);
  const held = store.faults.hold(has("DECRBY"));
  assertRefused(await look(visitor), "session");
  await held.arrived;
  await store.redis.flushAll();
  held.release();
  await until(async () => (await counters()).length > 0);
  assert.deepEqual(await immortal(), []);
});

test("a refund to a lost counter does not take it below zero", async () => {
  const visitor = await guest(closed);
  for (let count = 0; count < 5; count += 1) await look(visitor);
  const held = store.faults.hold(has("DECRBY"));
  await Promise.all(Array.from({ length: 10 }, () => look(visitor)));
  await held.arrived;
  await store.redis.flushAll();
  held.release();
  await until(async () => (await counters()).length > 0);
  await closed.idle();
  const below = (await counters("limit:session:*")).filter(({ count }) => count < 0);
  assert.deepEqual(
    below.map(({ count }) => count),
    [],
  );
});

test("a repair of a counter that failed in the background is repeated later", async () => {
  const visitor = await guest(closed);
  await look(visitor);
  for (const { key } of await counters()) await store.redis.del(key);
  store.faults.always("refuse", { when: has("PEXPIRE") });
  const before = closed.logs.length;
  await look(visitor);
  await until(() => closed.logs.slice(before).join("").includes("could not be corrected"));
  store.faults.clear();
  assert.equal((await immortal()).length, 1);
  await moveClocks(store, all, 6000);
  await look(visitor);
  await closed.moveClock(0);
  await until(async () => (await immortal()).length === 0);
});

test("no refund is lost, however many wait while the store refuses them", async () => {
  const worker = await start({ settings: { limits: { ip: "1/1m", session: "", mint: "" } } });
  const addresses = Array.from({ length: 300 }, someAddress);
  /** Fifty at a time. */
  const everyone = async () => {
    const answers = [];
    for (let first = 0; first < addresses.length; first += 50) {
      const some = addresses.slice(first, first + 50);
      answers.push(...(await Promise.all(some.map((address) => look(worker.visitor(), address)))));
    }
    return answers;
  };
  assert.equal(passed(await everyone()), addresses.length);
  store.faults.always("quota", { when: has("DECRBY") });
  assert.equal(passed(await everyone()), 0);
  assert.equal((await counters("limit:ip:10.*")).filter(({ count }) => count === 2).length, addresses.length);
  store.faults.clear();
  await moveClocks(store, all, 6000);
  await worker.moveClock(0);
  // One each; and none in the windows in which the first were counted before the store's clock was known.
  const after = (await counters("limit:ip:10.*")).filter(({ count }) => count !== 0);
  assert.deepEqual([after.length, ...new Set(after.map(({ count }) => count))], [addresses.length, 1]);
});

// on_failure

test("closed: while the store fails every answer is 503, and no cookie is set or removed", async () => {
  const visitor = await guest(closed);
  /** @type {[string, () => Promise<Answer>][]} */
  const sends = [
    ["a session", () => look(visitor)],
    ["no session, but an address", () => look(closed.visitor())],
    ["nowhere", () => closed.visitor().send("GET", "/nowhere", { headers: from() })],
    ["a first change", () => closed.visitor().merge({ a: 1 }, from())],
  ];
  for (const fault of /** @type {const} */ (["refuse", "hang"])) {
    store.faults.always(fault);
    for (const [what, send] of sends) {
      const answer = await send();
      assert.equal(answer.status, 503, `${fault}, ${what}: ${answer.text}`);
      assert.equal(answer.json.code, "store_unavailable");
      assert.equal(answer.headers.get("Retry-After"), "1");
      assert.deepEqual(answer.setCookies, []);
    }
    store.faults.clear();
  }
  assert.equal(limitStates(await look(visitor))[0].r, 4, "nothing was counted");
});

test("open: what needs only counters passes uncounted, with a log line and in the report; what needs a session is 503", async () => {
  const visitor = await guest(open);
  const headers = from();
  /** @type {[number, () => Promise<Answer>][]} */
  const sends = [
    [200, () => look(open.visitor())],
    [404, () => open.visitor().send("GET", "/nowhere", { headers })],
    [204, () => open.visitor().send("DELETE", "/auth/session", { headers })],
    [503, () => look(visitor)],
    [503, () => visitor.merge({ b: 2 }, headers)],
    [503, () => open.visitor().merge({ a: 1 }, headers)],
    [404, () => visitor.send("GET", "/nowhere", { headers })],
  ];
  const told = () => open.logs.join("").match(/passed without being counted/g)?.length ?? 0;
  let passes = 0;
  for (const fault of /** @type {const} */ (["refuse", "hang"])) {
    store.faults.always(fault);
    for (const [status, send] of sends) {
      const before = told();
      const answer = await send();
      assert.equal(answer.status, status, `${fault}: ${answer.text}`);
      if (status === 503) {
        assert.equal(answer.headers.get("Retry-After"), "1");
        assert.deepEqual(answer.setCookies, []);
        continue;
      }
      assertUncounted(answer);
      await until(() => told() > before);
      assert.equal(told(), before + 1, "once for each");
      passes += 1;
    }
    store.faults.clear();
  }
  const log = open.logs.join("");
  for (const secret of [store.token, secrets.SESSION_SECRET, ADMIN_TOKEN, String(visitor.ticket)]) {
    assert.ok(!log.includes(secret));
  }
  assert.ok(!/limit:|sess:|10\.0\./.test(log), log);
  assert.ok((await countOf(open, "passed_uncounted")) >= passes);
});

test("a counter that fails lets the request pass with a log line when open, and refuses it when closed", async () => {
  for (const worker of [closed, open]) {
    const visitor = await guest(worker);
    await look(visitor);
    const failing = { entry: 2, error: "ERR value is not an integer or out of range" }; // MGET, INCR, INCR
    const before = worker.logs.join("").length;
    store.faults.next(failing, { when: has("INCR") });
    const answer = await visitor.look();
    assert.equal(answer.status, worker === open ? 200 : 503, answer.text);
    if (worker === open) {
      assert.equal(answer.json.session.data.a, 1);
      await until(() => worker.logs.join("").slice(before).includes("passed without being counted"));
    }
  }
});

test("a call that counts is not repeated after a transient failure", async () => {
  for (const fault of /** @type {const} */ (["refuse", "lostAnswer", "cut"])) {
    for (const worker of [closed, open]) {
      const visitor = await guest(worker);
      assert.equal(limitStates(await look(visitor))[0].r, 4);
      store.faults.next(fault, { when: has("INCR") });
      store.counters.log = [];
      const answer = await look(visitor);
      assert.equal(store.counters.log.filter((names) => names.includes("INCR")).length, 1, fault);
      if (worker === open) {
        assert.deepEqual([answer.status, answer.json.session.data], [200, { a: 1 }], answer.text);
        assertUncounted(answer);
      } else {
        assert.equal(answer.status, 503, answer.text);
        assert.deepEqual([answer.headers.get("Retry-After"), answer.setCookies], ["1", []]);
      }
      assert.equal(limitStates(await look(visitor))[0].r, fault === "refuse" ? 3 : 2, fault);
    }
  }
});

test("closed: a first change that was not counted is refused, and nothing is written; one that was made was counted", async () => {
  for (const fault of /** @type {const} */ (["refuse", "lostAnswer", "cut"])) {
    const visitor = closed.visitor();
    await closed.visitor().merge({ a: 0 }); // the store keeps the script
    store.faults.next(fault, { when: ({ commands }) => /^(INCR|EVALSHA)$/.test(commands[0]?.[0] ?? "") });
    const before = (await store.redis.keys("sess:*")).length;
    const answer = await visitor.merge({ a: 1 });
    const isMade = fault !== "refuse";
    assert.equal(answer.status, isMade ? 200 : 503, `${fault}: ${answer.text}`);
    assert.equal(answer.setCookies.length, isMade ? 1 : 0);
    assert.equal((await store.redis.keys("sess:*")).length, before + (isMade ? 1 : 0));
  }
});

test("a request that was not counted is not refunded", async () => {
  const visitor = await guest(two[0]);
  for (let count = 0; count < 5; count += 1) await look(visitor);
  // Refused by a read of the counters, after the call that counts was not executed.
  store.faults.next("refuse", { when: has("INCR") });
  const answer = await look(visitor);
  assert.ok([429, 503].includes(answer.status), answer.text);
  await sleep(50);
  assert.deepEqual(
    (await counters("limit:session:*")).map(({ count }) => count),
    [5],
  );
  assert.equal((await look(visitor.clone(two[1].url))).status, 429);
});
