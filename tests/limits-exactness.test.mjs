/** Limits are exact: how many requests pass, at several isolates, with lagging replicas and with wrong clocks. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import {
  all,
  assertRefused,
  from,
  guest,
  has,
  look,
  member,
  MINUTE,
  passed,
  someAddress,
  someUser,
  startFour,
  startTwo,
  store,
  untilCounted,
} from "./support/limits.mjs";
import { moveClocks, moveToWindow, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/limits.mjs").Visitor} Visitor */
/** @typedef {import("./support/limits.mjs").Answer} Answer */
/** @typedef {import("./support/limits.mjs").Worker} Worker */

const four = await startFour();

const two = await startTwo();

/** Sends requests in parallel, to the four isolates in turn. @param {number} count @param {(worker: Worker, index: number) => Promise<Answer>} send */
const inParallel = (count, send) =>
  Promise.all(Array.from({ length: count }, (_, index) => send(four[index % four.length], index)));

/** @param {Visitor} visitor @param {number} [count] */
const flood = (visitor, count = 200) => inParallel(count, (worker) => look(visitor.clone(worker.url)));

/** Limits of a hundred, and how to make requests that each counts. @type {Record<string, () => Promise<(worker: Worker, index: number) => Promise<Answer>>>} */
const HUNDREDS = {
  async session() {
    const visitor = await guest(four[0]);
    return (worker) => look(visitor.clone(worker.url));
  },
  async user() {
    const id = someUser();
    const sessions = [await member(four[0], id), await member(four[1], id)];
    return (worker, index) => look(sessions[(index >> 2) % 2].clone(worker.url));
  },
  async mint() {
    const address = someAddress();
    return (worker) => worker.visitor().merge({ a: 1 }, from(address));
  },
  async "/api/*"() {
    const address = someAddress();
    return (worker) => worker.visitor().send("GET", "/api/anything", { headers: from(address) });
  },
};

for (const [name, prepare] of Object.entries(HUNDREDS)) {
  test(`of 200 parallel requests at four isolates the limit ${name} of 100 lets exactly 100 through`, async () => {
    const answers = await inParallel(200, await prepare());
    assert.equal(passed(answers), 100);
    for (const answer of answers) {
      if (answer.status !== 429) assert.equal(answer.status, name.startsWith("/") ? 404 : 200, answer.text);
    }
    const refused = answers.filter((answer) => answer.status === 429);
    assert.ok(refused.some((answer) => answer.json.detail.includes(`"${name}"`)));
    if (name === "mint") assert.equal((await store.redis.keys("sess:*")).length, 100);
    await untilCounted(name === "/api/*" ? "/api/[*]" : name, 100);
  });
}

test("of 300 parallel requests from one address, without a session, the limit ip of 150 lets exactly 150 through", async () => {
  const address = someAddress();
  const answers = await inParallel(300, (worker) => look(worker.visitor(), address));
  assert.equal(passed(answers), 150);
});

test("every flood gets exactly the limit through, and a second flood nothing", async () => {
  for (let round = 0; round < 3; round += 1) {
    const visitor = await guest(four[round % four.length]);
    assert.equal(passed(await flood(visitor)), 100, `round ${round}`);
    assert.equal(passed(await flood(visitor, 40)), 0, `round ${round}, again`);
  }
});

test("requests of the window before count by the part that the sliding window still covers", async () => {
  const cases = [
    { before: 100, part: 0.001 },
    { before: 100, part: 0.25 },
    { before: 200, part: 0.5 },
    { before: 30, part: 0.9 },
  ];
  const covered = (/** @type {number} */ count, unsure = 0) => {
    const left = MINUTE - ((store.now() + unsure) % MINUTE);
    return Math.floor((count * left) / MINUTE);
  };
  // The store's clock is known to half of a round trip, which is short when nothing else is going on.
  await moveClocks(store, all, 11 * MINUTE);
  for (const worker of four) await look(worker.visitor());
  for (const { before, part } of cases) {
    await moveToWindow(store, all);
    const visitor = await guest(four[0]);
    const first = Math.min(100, before);
    assert.equal(passed(await flood(visitor, before)), first);
    await untilCounted("session", first);
    await moveToWindow(store, all, { part });
    const least = 100 - covered(first, -30);
    const count = passed(await flood(visitor));
    const most = 100 - covered(first, 30);
    assert.ok(count >= least && count <= most, `${count} of ${least} to ${most}: ${before} before, ${part}`);
  }
});

test("a lagging replica does not let more through", async () => {
  const visitor = await guest(four[0]);
  store.faults.lag = 5000;
  const first = passed(await flood(visitor));
  await moveToWindow(store, all, { part: 0.01 });
  const second = passed(await flood(visitor));
  assert.ok(first + second <= 110, `${first} and ${second} passed within a minute`);
});

test("a request over several limits is refused by the first, and refunded to the others", async () => {
  const id = someUser();
  const address = someAddress();
  const [one, other] = [await member(two[0], id), await member(two[1], id)];
  for (let count = 0; count < 4; count += 1) {
    for (const visitor of [one, other]) assert.equal((await look(visitor, address)).status, 200);
  }
  assertRefused(await look(one), "user");
  assertRefused(await look(other), "user");
  await untilCounted("session", 4, 4);
  await untilCounted("user", 8);
});

test("a transient failure lets no request past a limit", async () => {
  const visitor = await guest(four[0]);
  // The first call of each request to the store is refused and not executed.
  store.faults.always("refuse", { when: has("INCR") });
  const answers = await flood(visitor);
  const count = answers.filter((answer) => answer.status === 200).length;
  assert.ok(count <= 100, `${count} passed`);
});

// The bound of a sliding window

/**
 * A steady flood from isolates whose clocks go wrong, against an exact log by the store's clock: in a span of the
 * window's length that begins, by the clock that is furthest behind, at a part of a window, pass at most the limit and
 * that part of it, and as much more as the clocks are apart.
 * @param {{ limit: number, skews: number[], jumps?: number[], burst?: boolean }} options
 */
async function floodAgainstLog({ limit, skews, jumps, burst = false }) {
  const length = 10_000;
  const itsStore = await startLocalStore();
  const settings = { limits: { session: "", mint: "", ip: `${limit}/10s` } };
  const workers = await Promise.all(skews.map(() => startWorker({ store: itsStore, settings })));
  try {
    const address = someAddress();
    /** @type {{ sent: number, received: number }[]} */
    const log = [];
    const send = async (/** @type {Worker} */ worker) => {
      const sent = itsStore.now();
      const answer = await look(worker.visitor(), address);
      assert.ok(answer.status === 200 || answer.status === 429, answer.text);
      if (answer.status === 200) log.push({ sent, received: itsStore.now() });
    };
    await Promise.all(workers.map((worker, index) => worker.moveClock(skews[index], { settle: false })));
    // Every isolate reads the store's clock with a request from another address. (A later test is about an isolate that has not read it.)
    for (const worker of workers) await look(worker.visitor());
    await moveToWindow(itsStore, workers, { length, part: burst ? 0.5 : 0 });
    const begin = itsStore.now();
    let steps = 0;
    let jumped = false;
    while (itsStore.now() < begin + (burst ? 2 : 3) * length) {
      if (jumps && !jumped && itsStore.now() >= begin + (burst ? 0.3 : 1.7) * length) {
        jumped = true;
        await Promise.all(workers.map((worker, at) => worker.moveClock(jumps[at], { settle: false })));
      }
      await Promise.all(workers.map(send));
      steps += 1;
      await moveClocks(itsStore, workers, 300 + ((steps * 37) % 150));
    }
    assert.ok(log.length >= limit * (burst ? 1.5 : 2), `${log.length} passed in ${steps} steps`);
    /** Half of a slow round trip: as exactly the store's clock is known. */
    const unsure = 100;
    const behind = Math.max(0, ...(jumps ?? []).map((jump) => -jump));
    const apart = (behind + Math.max(0, ...(jumps ?? []))) / length;
    for (const { sent: first } of log) {
      const within = log.filter(({ sent, received }) => sent >= first && received < first + length).length;
      const part = Math.min(1, (((first - behind) % length) + unsure) / length);
      const bound = limit + Math.ceil((part + apart) * limit);
      assert.ok(within <= bound, `${within} in a span from ${part} of a window on that may have ${bound}`);
    }
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
    await itsStore.stop();
  }
}

test("a steady flood gets no more than the bound, from isolates whose clocks are off by 2 s", () =>
  floodAgainstLog({ limit: 20, skews: [0, 2000, -2000, 700] }));

test("a steady flood gets no more than the bound when clocks are corrected or go wrong during it", () =>
  floodAgainstLog({ limit: 20, skews: [0, 2000, -2000, 0], jumps: [0, -2000, 2000, 2000] }));

test("a flood from the middle of a window gets no more than the bound when a clock goes wrong during it", () =>
  floodAgainstLog({ limit: 20, skews: [0, 0, 0], jumps: [0, 2000, -2000], burst: true }));

test("a new isolate whose clock is behind lets no more than the limit through", async () => {
  const itsStore = await startLocalStore();
  const settings = { limits: { session: "", mint: "", ip: "20/1m" } };
  const workers = await Promise.all([0, 1].map(() => startWorker({ store: itsStore, settings })));
  try {
    const address = someAddress();
    const burst = (/** @type {Worker} */ worker) =>
      Promise.all(Array.from({ length: 30 }, () => look(worker.visitor(), address)));
    await workers[1].moveClock(-2000, { settle: false });
    await moveToWindow(itsStore, workers, { part: 0.01 });
    const first = passed(await burst(workers[0]));
    const second = passed(await burst(workers[1]));
    assert.ok(first + second <= 21, `${first} and ${second} passed of a limit of 20`);
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
    await itsStore.stop();
  }
});

test("isolates on both sides of a window's end count together", async () => {
  const search = (/** @type {Worker} */ worker, /** @type {string} */ address) =>
    worker.visitor().send("GET", "/api/search", { headers: from(address) });
  const burst = (/** @type {Worker} */ worker, /** @type {string} */ address) =>
    Promise.all(Array.from({ length: 10 }, () => search(worker, address)));
  await moveToWindow(store, all, { part: 58.5 / 60 });
  for (const worker of two) await search(worker, someAddress()); // reads the store's clock
  await two[0].moveClock(2000, { settle: false });
  try {
    const address = someAddress();
    assert.equal(passed(await burst(two[0], address)), 3, "already in the next window");
    assert.equal(passed(await burst(two[1], address)), 0, "still in this one");
  } finally {
    await two[0].moveClock(-2000, { settle: false });
  }
});
