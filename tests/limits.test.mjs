/** Rate limits, seen from outside: exact from however many isolates, cheap, honest, and the same under faults. */
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { moveClocks, moveToWindow, randomSecret, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {Awaited<ReturnType<typeof startWorker>>} Worker */

const MINUTE = 60_000;
/** How long a counter of a minute is kept, at the most. */
const KEPT = 4 * MINUTE;
const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const ORIGIN = "https://front.example";
const secrets = { SESSION_SECRET: randomSecret(), ADMIN_TOKEN };

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** Four isolates of one deployment with limits of a hundred. @type {Worker[]} */
let four;
/** Two of one with small limits, where requests fail closed. @type {[Worker, Worker]} */
let two;
/** As them, but with a limit per address. @type {Worker} */
let closed;
/** As that, but failing open. @type {Worker} */
let open;
/** @type {Worker[]} */
let all;

/** The routes of `two`, in no order. */
const ROUTES = [
  { path: "/api/*", limit: "80/1m", by: "ip" },
  { path: "/api/search*", limit: "4/1m" },
  { path: "/api/*", method: "GET", limit: "70/1m", by: "ip" },
  { path: "/api/search", method: "GET", limit: "3/1m" },
  { path: "/api/search", limit: "60/1m", by: "ip" },
  { path: "/api/mine", limit: "3/1m", by: "user" },
  { path: "/api/off", limit: "" },
];

before(async () => {
  store = await startLocalStore();
  const start = (/** @type {object} */ settings) =>
    startWorker({ store, secrets, settings: { cors: { origins: [ORIGIN] }, ...settings } });
  const hundred = {
    limits: {
      session: "100/1m",
      user: "100/1m",
      ip: "150/1m",
      mint: "100/1m",
      routes: [{ path: "/api/*", limit: "100/1m", by: "ip" }],
    },
  };
  const small = { limits: { session: "5/1m", user: "8/1m", mint: "4/1m", routes: ROUTES } };
  const failing = (/** @type {string} */ on_failure) => ({
    limits: { session: "5/1m", ip: "50/1m", mint: "" },
    store: { timeout: "200ms", on_failure },
  });
  four = await Promise.all([hundred, hundred, hundred, hundred].map(start));
  const [one, other, ...rest] = await Promise.all(
    [small, small, failing("closed"), failing("open")].map(start),
  );
  two = [one, other];
  [closed, open] = rest;
  all = [...four, ...two, closed, open];
});
after(async () => {
  await Promise.all(all.map((worker) => worker.stop()));
  await store.stop();
});
beforeEach(async () => {
  store.faults.clear();
  // What is due in the background would cost calls in the middle of a test.
  await moveClocks(store, all, 2 * MINUTE);
  await Promise.all(all.map((worker) => worker.moveClock(0)));
  await store.redis.flushAll();
  await moveToWindow(store, all);
});

let addresses = 0;
/** An address nobody has used yet. */
function someAddress() {
  addresses += 1;
  return `10.${addresses >> 16}.${(addresses >> 8) & 255}.${addresses & 255}`;
}

/** What a client there sends along. @param {string} [address] */
const from = (address = someAddress()) => ({ "CF-Connecting-IP": address });

/** Someone with a new session. @param {Worker} worker */
async function guest(worker) {
  const visitor = worker.visitor();
  const answer = await visitor.merge({ a: 1 }, from());
  assert.equal(answer.status, 200, answer.text);
  return visitor;
}

let users = 0;
/** Someone logged in. @param {Worker} worker @param {string} id */
async function member(worker, id) {
  const visitor = worker.visitor();
  const headers = { ...admin, ...from(), "Content-Type": "application/json" };
  const body = JSON.stringify({ user: { id } });
  const answer = await worker.visitor().send("POST", "/auth/admin/sessions", { headers, body });
  assert.equal(answer.status, 201, answer.text);
  visitor.ticket = answer.json.set_cookie.match(/=([^;]*)/)[1];
  return visitor;
}

/** @param {Visitor} visitor @param {string} [address] */
const look = (visitor, address) => visitor.send("GET", "/auth/session", { headers: from(address) });

/** How many of these were let through; the others are all 429. @param {Answer[]} answers */
function passed(answers) {
  const others = answers.filter((answer) => answer.status >= 500 || answer.status === 0);
  assert.deepEqual(
    others.map((answer) => answer.text),
    [],
  );
  return answers.filter((answer) => answer.status !== 429).length;
}

/** Sends requests in parallel, to the four isolates in turn. @param {number} count @param {(worker: Worker, index: number) => Promise<Answer>} send */
const inParallel = (count, send) =>
  Promise.all(Array.from({ length: count }, (_, index) => send(four[index % four.length], index)));

/** @param {Visitor} visitor @param {number} [count] */
const flood = (visitor, count = 200) => inParallel(count, (worker) => look(visitor.clone(worker.url)));

/** @param {() => boolean | Promise<boolean>} done */
async function until(done, what = "it did not happen", patience = 300) {
  for (let tries = 0; tries < patience; tries += 1) {
    if (await done()) return;
    await sleep(10);
  }
  assert.fail(what);
}

/** The counters there are, by their keys. @param {string} [pattern] */
async function counters(pattern = "limit:*") {
  const keys = (await store.redis.keys(pattern)).sort();
  return Promise.all(keys.map(async (key) => ({ key, count: Number(await store.redis.get(key)) })));
}

/**
 * Waits until the counters of a limit in this window are these: what was refused has been given back.
 * @param {string} limit
 * @param {number[]} counts
 */
async function untilCounted(limit, ...counts) {
  const pattern = `limit:${limit}:*:${Math.floor(store.now() / MINUTE)}`;
  /** @type {number[]} */
  let seen = [];
  const reach = async () => {
    seen = (await counters(pattern)).map(({ count }) => count);
    return seen.toSorted().join() === counts.toSorted().join();
  };
  for (let tries = 0; tries < 200; tries += 1) {
    if (await reach()) return;
    await sleep(10);
  }
  assert.deepEqual(seen, counts, pattern);
}

/** The keys of counters that will never go away. */
async function immortal() {
  const keys = await store.redis.keys("limit:*");
  const ttls = await Promise.all(keys.map(async (key) => ({ key, ttl: await store.redis.pTTL(key) })));
  return ttls.filter(({ ttl }) => ttl === -1 || ttl > KEPT).map(({ key }) => key);
}

/**
 * The same, when there was time for all repairs: what has come back without a time to live gets it in the
 * background; later, if the store is slow to do so.
 * @param {Worker} worker
 */
async function unmended(worker) {
  await worker.moveClock(0);
  for (let tries = 0; tries < 5 && (await immortal()).length > 0; tries += 1) {
    await sleep(50);
    await moveClocks(store, all, 6000);
    await worker.moveClock(0);
  }
  return await immortal();
}

const seconds = (/** @type {Answer} */ answer) => {
  const text = String(answer.headers.get("Retry-After"));
  assert.match(text, /^[1-9][0-9]*$/);
  return Number(text);
};

/**
 * A list of structured fields (RFC 9651) whose members are strings with integers for parameters; strictly.
 * @param {string | null} text
 */
function parseList(text) {
  assert.ok(text, "the field is missing");
  const member = /^"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"((?:;[a-z*][a-z0-9_.*-]*=-?[0-9]{1,15})*)/;
  /** @type {{ name: string, parameters: Record<string, number> }[]} */
  const members = [];
  let rest = text;
  for (;;) {
    const found = member.exec(rest);
    assert.ok(found, `"${rest}" of "${text}" is not a list of strings`);
    const pairs = found[2]
      .split(";")
      .slice(1)
      .map((pair) => pair.split("="));
    members.push({
      name: found[1].replace(/\\(.)/g, "$1"),
      parameters: Object.fromEntries(pairs.map(([key, value]) => [key, Number(value)])),
    });
    rest = rest.slice(found[0].length);
    if (rest === "") return members;
    const comma = /^[ \t]*,[ \t]*/.exec(rest);
    assert.ok(comma, `"${rest}" of "${text}" does not go on with a comma`);
    rest = rest.slice(comma[0].length);
  }
}

/**
 * What a response says of the limits it was counted for, the tightest first.
 * @param {Answer} answer
 */
function standings(answer) {
  const policies = parseList(answer.headers.get("RateLimit-Policy"));
  const limits = parseList(answer.headers.get("RateLimit"));
  assert.deepEqual(
    limits.map(({ name }) => name),
    policies.map(({ name }) => name),
  );
  let least = 0;
  return policies.map(({ name, parameters: policy }, index) => {
    const { parameters: limit } = limits[index];
    assert.deepEqual(
      [Object.keys(policy), Object.keys(limit)],
      [
        ["q", "w"],
        ["r", "t"],
      ],
    );
    const [{ q, w }, { r, t }] = [policy, limit];
    assert.ok(r >= least && r < q, `${name}: ${r} of ${q} after ${least}`);
    assert.ok(t > 0 && t <= 2 * w, `${name}: ${t} s of ${w} s`);
    least = r;
    return { name, q, w, r, t };
  });
}

/** @param {Answer} answer */
const names = (answer) => standings(answer).map(({ name }) => name);

/** @param {Answer} answer */
function assertUncounted(answer, what = "") {
  assert.equal(answer.headers.get("RateLimit"), null, what);
  assert.equal(answer.headers.get("RateLimit-Policy"), null, what);
}

/** @param {Answer} answer @param {string} limit that is named */
function assertRefused(answer, limit) {
  assert.equal(answer.status, 429, answer.text);
  assert.match(String(answer.headers.get("Content-Type")), /^application\/problem\+json/);
  const { type, status, code, detail } = answer.json;
  assert.deepEqual([type, status, code], ["about:blank", 429, "rate_limited"]);
  assert.ok(detail.includes(`"${limit}"`), detail);
  assert.deepEqual(answer.setCookies, []);
  assert.equal(answer.headers.get("Cache-Control"), "no-store");
  // The first that is broken is named; the longest wait of all that are is told.
  const used = standings(answer).filter(({ r }) => r === 0);
  assert.ok(used.some(({ name, t }) => name === limit && t <= seconds(answer)));
  assert.ok(used.some(({ t }) => t === seconds(answer)));
}

/** @param {string} name @returns {(seen: { commands: string[][] }) => boolean} */
const has =
  (name) =>
  ({ commands }) =>
    commands.some(([first]) => first === name);

// Exactness

/** What is limited to a hundred, and how to do it. @type {Record<string, () => Promise<(worker: Worker, index: number) => Promise<Answer>>>} */
const HUNDREDS = {
  async session() {
    const visitor = await guest(four[0]);
    return (worker) => look(visitor.clone(worker.url));
  },
  async user() {
    const id = `user-${(users += 1)}`;
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

test("exactly as many pass every time, and none in a second wave", async () => {
  for (let round = 0; round < 3; round += 1) {
    const visitor = await guest(four[round % four.length]);
    assert.equal(passed(await flood(visitor)), 100, `round ${round}`);
    assert.equal(passed(await flood(visitor, 40)), 0, `round ${round}, again`);
  }
});

test("what passed in the window before counts by the part that is still covered", async () => {
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
  // The store's clock is known as exactly as half of a round trip, which is short when nothing else is going on.
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

test("a replica that is behind does not let more through", async () => {
  const visitor = await guest(four[0]);
  store.faults.lag = 5000;
  const first = passed(await flood(visitor));
  await moveToWindow(store, all, { part: 0.01 });
  const second = passed(await flood(visitor));
  assert.ok(first + second <= 110, `${first} and ${second} passed within a minute`);
});

test("of a request that breaks several limits the first is named, and the others get theirs back", async () => {
  const id = `user-${(users += 1)}`;
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

// The bound

/**
 * A steady flood from isolates whose clocks go wrong, against an exact log by the store's clock: in a span of the
 * window's length that begins, by the clock that is furthest behind, at a part of a window, pass at most the limit and
 * that part of it, and as much more as the clocks are apart.
 * @param {{ limit: number, skews: number[], jumps?: number[], burst?: boolean }} options
 */
async function floodAgainstLog({ limit, skews, jumps, burst = false }) {
  const length = 10_000;
  const its = await startLocalStore();
  const settings = { limits: { session: "", mint: "", ip: `${limit}/10s` } };
  const workers = await Promise.all(skews.map(() => startWorker({ store: its, settings })));
  try {
    const address = someAddress();
    /** @type {{ sent: number, received: number }[]} */
    const log = [];
    const send = async (/** @type {Worker} */ worker) => {
      const sent = its.now();
      const answer = await look(worker.visitor(), address);
      assert.ok(answer.status === 200 || answer.status === 429, answer.text);
      if (answer.status === 200) log.push({ sent, received: its.now() });
    };
    await Promise.all(workers.map((worker, index) => worker.moveClock(skews[index], { settle: false })));
    // All hear the store's clock with a request from elsewhere; what comes before that is another test's.
    for (const worker of workers) await look(worker.visitor());
    await moveToWindow(its, workers, { length, part: burst ? 0.5 : 0 });
    const begin = its.now();
    let steps = 0;
    let jumped = false;
    while (its.now() < begin + (burst ? 2 : 3) * length) {
      if (jumps && !jumped && its.now() >= begin + (burst ? 0.3 : 1.7) * length) {
        jumped = true;
        await Promise.all(workers.map((worker, at) => worker.moveClock(jumps[at], { settle: false })));
      }
      await Promise.all(workers.map(send));
      steps += 1;
      await moveClocks(its, workers, 300 + ((steps * 37) % 150));
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
    await its.stop();
  }
}

test("a steady flood gets no more than the bound, from isolates whose clocks are off by 2 s", () =>
  floodAgainstLog({ limit: 20, skews: [0, 2000, -2000, 700] }));

test("nor when their clocks are put right, or wrong, under way", () =>
  floodAgainstLog({ limit: 20, skews: [0, 2000, -2000, 0], jumps: [0, -2000, 2000, 2000] }));

test("nor when the flood begins in the middle of a window, and a clock goes wrong under way", () =>
  floodAgainstLog({ limit: 20, skews: [0, 0, 0], jumps: [0, 2000, -2000], burst: true }));

test("nor from an isolate that is new, and whose clock is behind", async () => {
  const its = await startLocalStore();
  const settings = { limits: { session: "", mint: "", ip: "20/1m" } };
  const workers = await Promise.all([0, 1].map(() => startWorker({ store: its, settings })));
  try {
    const address = someAddress();
    const burst = (/** @type {Worker} */ worker) =>
      Promise.all(Array.from({ length: 30 }, () => look(worker.visitor(), address)));
    await workers[1].moveClock(-2000, { settle: false });
    await moveToWindow(its, workers, { part: 0.01 });
    const first = passed(await burst(workers[0]));
    const second = passed(await burst(workers[1]));
    assert.ok(first + second <= 21, `${first} and ${second} passed of a limit of 20`);
  } finally {
    await Promise.all(workers.map((worker) => worker.stop()));
    await its.stop();
  }
});

test("isolates on both sides of a window's end count together", async () => {
  const search = (/** @type {Worker} */ worker, /** @type {string} */ address) =>
    worker.visitor().send("GET", "/api/search", { headers: from(address) });
  const burst = (/** @type {Worker} */ worker, /** @type {string} */ address) =>
    Promise.all(Array.from({ length: 10 }, () => search(worker, address)));
  await moveToWindow(store, all, { part: 58.5 / 60 });
  for (const worker of two) await search(worker, someAddress()); // hears the store's clock
  await two[0].moveClock(2000, { settle: false });
  try {
    const address = someAddress();
    assert.equal(passed(await burst(two[0], address)), 3, "in the next window already");
    assert.equal(passed(await burst(two[1], address)), 0, "still in this one");
  } finally {
    await two[0].moveClock(-2000, { settle: false });
  }
});

// Costs

/** @param {() => Promise<Answer>} act @param {number} [status] */
async function costOf(act, status = 200) {
  const { value, calls, commands, byName } = await store.counters.during(act);
  assert.equal(value.status, status, value.text);
  return { calls, commands, byName };
}

test("a read costs one call: two commands, three the first time in a window, one more for each further limit", async () => {
  await moveClocks(store, all, 11 * MINUTE); // the store's clock is looked at again
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

  const logged = await member(two[0], `user-${(users += 1)}`);
  const both = { calls: 1, commands: 5, byName: { MGET: 1, SET: 2, INCR: 2 } };
  assert.deepEqual(await costOf(() => look(logged)), both);
  assert.deepEqual(await costOf(() => look(logged)), { calls: 1, commands: 3, byName: { MGET: 1, INCR: 2 } });
});

test("the store's clock costs a command more, once a minute", async () => {
  await moveClocks(store, all, 2 * MINUTE);
  const visitor = await guest(two[0]); // which looks at it
  const times = async (/** @type {number} */ milliseconds) => {
    await moveClocks(store, all, milliseconds);
    return (await costOf(() => look(visitor))).byName.TIME ?? 0;
  };
  assert.deepEqual([await times(0), await times(50_000)], [0, 0]);
  assert.deepEqual([await times(11_000), await times(0), await times(50_000)], [1, 0, 0]);
});

test("the first change without a session costs two calls and at most five commands", async () => {
  const first = await costOf(() => two[0].visitor().merge({ a: 1 }, from()));
  assert.ok(first.calls === 2 && first.commands <= 5, JSON.stringify(first));
  const next = await costOf(() => two[0].visitor().merge({ a: 1 }, from()));
  assert.deepEqual(next, { calls: 2, commands: 4, byName: { MGET: 1, SET: 2, INCR: 1 } });
});

test("a request that no limit is for costs nothing", async () => {
  const visitor = two[0].visitor();
  const nothing = { calls: 0, commands: 0, byName: {} };
  assert.deepEqual(await costOf(() => look(visitor)), nothing);
  visitor.ticket = "A".repeat(148);
  const forged = await costOf(() => look(visitor));
  assert.deepEqual(forged, nothing);
  assert.deepEqual(await costOf(() => visitor.send("GET", "/auth/nowhere"), 404), nothing);
  assert.deepEqual(await counters(), []);
});

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
  // It is rounded up to whole seconds: a second before, it is not over.
  await moveClocks(store, all, Math.floor(at + (wait - 1) * 1000 - 50 - store.now()));
  assert.deepEqual(await costOf(() => look(visitor), 429), nothing);
  await moveClocks(store, all, Math.ceil(at + wait * 1000 - store.now()));
  assert.equal((await look(visitor)).status, 200);
});

test("Retry-After is honest for every policy, with the window before half over and at another isolate", async () => {
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
    await sleep(50); // what was refused is given back after its response
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

test("Retry-After is honest when several limits are broken at once", async () => {
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
  const [{ t }] = standings(await look(visitor));
  assert.ok(t * 1000 >= left(), `the window ends in ${left()} ms, and not after ${t} s`);
});

// Refused calls

test("whoever keeps hammering waits no longer than the first Retry-After said, and what was refused is given back", async () => {
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

test("hammering through many windows still gets as many through as the limit, in every one", async () => {
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

// Times to live

/** What may go wrong with the call that counts. @type {[string, import("../tools/local-store/faults.mjs").Fault][]} */
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

/** How the counter is when the fault strikes, and what happens to it. @type {Record<string, (visitor: Visitor) => Promise<void>>} */
const COUNTERS = {
  "not there yet": async () => {},
  "known to be there": async (visitor) => void (await look(visitor)),
  "known to be there, and lost": async (visitor) => {
    await look(visitor);
    await store.redis.flushAll();
  },
};

for (const [state, prepare] of Object.entries(COUNTERS)) {
  test(`no fault leaves a counter without a time to live: one ${state}`, async () => {
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
        for (const key of await unmended(worker)) found.push(`${name}: ${key.replace(/:[^:]*:\d+$/, "")}`);
      }
    }
    assert.deepEqual(found, []);
  });
}

test("a pipeline that was held until its counter was lost, or its window over, leaves no counter for ever", async () => {
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
      assert.deepEqual(await unmended(closed), [], `${loss}, ${isKnown}`);
    }
  }
});

test("counters given back after they were lost come back with a time to live, or not at all", async () => {
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

test("counters given back after they were lost do not go below zero", async () => {
  const visitor = await guest(closed);
  for (let count = 0; count < 5; count += 1) await look(visitor);
  const held = store.faults.hold(has("DECRBY"));
  await Promise.all(Array.from({ length: 10 }, () => look(visitor)));
  await held.arrived;
  await store.redis.flushAll();
  held.release();
  await until(async () => (await counters()).length > 0);
  await closed.moveClock(0);
  const below = (await counters("limit:session:*")).filter(({ count }) => count < 0);
  assert.deepEqual(
    below.map(({ count }) => count),
    [],
  );
});

test("what could not be done in the background for a counter is done later", async () => {
  const visitor = await guest(closed);
  await look(visitor);
  for (const { key } of await counters()) await store.redis.del(key);
  store.faults.always("refuse", { when: has("PEXPIRE") });
  const before = closed.logs.length;
  await look(visitor);
  await until(() => closed.logs.slice(before).join("").includes("could not be put right"));
  store.faults.clear();
  assert.equal((await immortal()).length, 1);
  await moveClocks(store, all, 6000);
  await look(visitor);
  await closed.moveClock(0);
  await until(async () => (await immortal()).length === 0, `${await immortal()}`);
});

// Fields

test("every response that was counted says how the caller stands, whatever its status", async () => {
  const visitor = await guest(closed);
  const big = "x".repeat(70_000);
  const json = { "Content-Type": "application/json" };
  /** @type {[number, (one: Visitor) => Promise<Answer>][]} */
  const cases = [
    [200, (one) => one.look()],
    [200, (one) => one.merge({ b: 2 })],
    [200, (one) => one.rotate()],
    [200, (one) => one.send("GET", "/auth/health")],
    [200, (one) => one.send("GET", "/auth/admin/stats", { headers: admin })],
    [400, (one) => one.send("PATCH", "/auth/session/data", { headers: json, body: "{" })],
    [401, (one) => one.send("GET", "/auth/sessions")],
    [401, (one) => one.send("GET", "/auth/admin/stats")],
    [404, (one) => one.send("GET", "/auth/nowhere")],
    [404, (one) => one.send("GET", "/elsewhere")],
    [405, (one) => one.send("PUT", "/auth/session")],
    [412, (one) => one.merge({ c: 3 }, { "If-Match": '"another"' })],
    [413, (one) => one.merge({ big })],
    [413, (one) => one.merge({ big: big.repeat(4) })],
    [
      415,
      (one) =>
        one.send("PATCH", "/auth/session/data", { headers: { "Content-Type": "text/plain" }, body: "a" }),
    ],
    [422, (one) => one.patch([{ op: "remove", path: "/nothing" }])],
    [204, (one) => one.logout()],
  ];
  let before = 5;
  for (const [index, [status, act]] of cases.entries()) {
    if (index % 4 === 0) {
      await moveToWindow(store, all); // that none is over a limit
      await moveToWindow(store, all);
      before = 5;
    }
    const answer = await act(visitor);
    assert.equal(answer.status, status, answer.text);
    const [session, ip] = standings(answer);
    assert.deepEqual([session.name, session.q, session.w], ["session", 5, 60], `case ${index}`);
    assert.deepEqual([ip.name, ip.q, ip.w], ["ip", 50, 60]);
    assert.equal(session.r, (before -= 1), `case ${index}: it counts once`);
  }
});

test("the fields are there on a 429 and an allowed page may read them; no cookie comes with it", async () => {
  const visitor = await guest(two[0]);
  for (let count = 0; count < 5; count += 1) await look(visitor);
  for (const from of ["the store", "memory"]) {
    const answer = await visitor.send("GET", "/auth/session", { headers: { Origin: ORIGIN } });
    assertRefused(answer, "session");
    const exposed = String(answer.headers.get("Access-Control-Expose-Headers")).split(/, */);
    assert.deepEqual(
      ["RateLimit", "RateLimit-Policy", "Retry-After"].filter((name) => !exposed.includes(name)),
      [],
      from,
    );
    assert.equal(answer.headers.get("Access-Control-Allow-Origin"), ORIGIN);
    assert.match(answer.json.detail, /the limit "session" of 5 in 60 s/);
  }
});

test("the tightest policy comes first", async () => {
  const visitor = await guest(closed);
  const address = someAddress();
  assert.deepEqual(names(await look(visitor, address)), ["session", "ip"]);
  for (let count = 0; count < 47; count += 1) await look(closed.visitor(), address);
  const answer = await look(visitor, address);
  assert.deepEqual(
    standings(answer).map(({ name, r }) => [name, r]),
    [
      ["ip", 1],
      ["session", 3],
    ],
  );
});

test("a response to what was not counted says nothing of limits", async () => {
  const visitor = two[0].visitor();
  assertUncounted(await look(visitor), "no cookie");
  assertUncounted(await visitor.send("GET", "/auth/nowhere"), "nowhere");
  assertUncounted(await visitor.logout(), "logout");
  assertUncounted(await visitor.send("GET", "/auth/health"), "health");
  visitor.ticket = "A".repeat(148);
  assertUncounted(await look(visitor), "forged");
});

// Who is counted

test("a session is counted for whatever comes with its cookie, except what another site or a preflight sends", async () => {
  const visitor = await guest(two[0]);
  const preflight = { Origin: ORIGIN, "Access-Control-Request-Method": "PATCH" };
  for (let count = 0; count < 8; count += 1) {
    const foreign = await visitor.merge({ b: 2 }, { "Sec-Fetch-Site": "cross-site" });
    assert.equal(foreign.status, 403);
    assertUncounted(foreign);
    const asked = await visitor.send("OPTIONS", "/auth/session/data", { headers: preflight });
    assert.equal(asked.status, 204);
    assertUncounted(asked);
  }
  const refusals = [
    () => visitor.send("GET", "/auth/nowhere"),
    () => visitor.send("PUT", "/auth/session"),
    () => visitor.send("PATCH", "/auth/session/data", { body: "{" }),
    () => visitor.send("GET", "/auth/health"),
    () => visitor.send("GET", "/auth/admin/stats"),
  ];
  for (const [index, send] of refusals.entries()) assert.equal(standings(await send())[0].r, 4 - index);
  for (const send of refusals) assertRefused(await send(), "session");
  const foreign = await visitor.merge({ b: 2 }, { "Sec-Fetch-Site": "cross-site" });
  assert.equal(foreign.status, 403, "what another site sends is refused as that");
});

test("a limit per address counts every request, also those without a session", async () => {
  const address = someAddress();
  const forger = closed.visitor();
  forger.ticket = "A".repeat(148);
  const headers = from(address);
  const sends = [
    () => look(closed.visitor(), address),
    () => look(forger.clone(), address),
    () => closed.visitor().send("GET", "/nowhere", { headers }),
    () => closed.visitor().send("GET", "/auth/health", { headers }),
    () => closed.visitor().merge({ a: 1 }, headers),
    () => closed.visitor().send("DELETE", "/auth/session", { headers }),
  ];
  let left = 50;
  for (const send of sends) assert.equal(standings(await send())[0].r, (left -= 1));
  for (; left > 0; left -= 1) await look(closed.visitor(), address);
  sends.splice(1, 1); // with the forged cookie, which goes, also with a 429
  for (const send of sends) assertRefused(await send(), "ip");
  assert.equal((await look(closed.visitor())).status, 200, "others are not concerned");
});

test("a limit follows its session through rotations, and to those who use an older id", async () => {
  const visitor = await guest(two[0]);
  const late = visitor.clone(two[1].url);
  assert.equal(standings(await visitor.rotate())[0].r, 4);
  assert.equal(standings(await visitor.look())[0].r, 3);
  assert.equal(standings(await late.clone().look())[0].r, 2);
  assert.equal(standings(await visitor.rotate())[0].r, 1);
  assert.equal(standings(await late.clone().look())[0].r, 0);
  assertRefused(await visitor.look(), "session");
  assertRefused(await late.look(), "session");
});

test("to drop the cookie does not help: not to begin sessions, nor on a route limited by session", async () => {
  const address = someAddress();
  const headers = from(address);
  for (let count = 0; count < 4; count += 1) {
    assert.equal((await two[count % 2].visitor().merge({ a: 1 }, headers)).status, 200);
  }
  for (const worker of two) assertRefused(await worker.visitor().merge({ a: 1 }, headers), "mint");

  const visitor = await guest(two[0]);
  const search = (/** @type {Visitor} */ one) => one.send("GET", "/api/search", { headers });
  for (let count = 0; count < 3; count += 1) assert.equal((await search(visitor)).status, 404);
  assertRefused(await search(visitor), "GET /api/search");
  for (let count = 0; count < 3; count += 1) {
    assert.equal((await search(two[count % 2].visitor())).status, 404, "of all without a session there");
  }
  for (const worker of two) assertRefused(await search(worker.visitor()), "GET /api/search");
});

test("addresses of one subscriber count together", async () => {
  const alike = [
    ["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true],
    ["2001:db8:1:2::1", "2001:DB8:0001:0002:0:0:0:9", true],
    ["2001:db8:1:3::1", "2001:db8:1:4::1", false],
    ["::ffff:203.0.113.5", "203.0.113.5", true],
    ["203.0.113.6", "203.0.113.7", false],
  ];
  for (const [one, other, isSame] of alike) {
    await store.redis.flushAll();
    assert.equal(standings(await look(closed.visitor(), String(one)))[0].r, 49);
    assert.equal(
      standings(await look(closed.visitor(), String(other)))[0].r,
      isSame ? 48 : 49,
      `${one} ${other}`,
    );
    await moveToWindow(store, all);
  }
});

test("all requests whose address is not known count together", async () => {
  await moveToWindow(store, all);
  const bare = async () => standings(await closed.visitor().look())[0].r;
  const first = await bare();
  assert.equal(await bare(), first - 1);
});

test("a user is counted over all sessions", async () => {
  const id = `user-${(users += 1)}`;
  const [one, other] = [await member(two[0], id), await member(two[1], id)];
  const stranger = await member(two[0], `user-${(users += 1)}`);
  for (let count = 0; count < 4; count += 1) {
    await look(one);
    const standing = standings(await look(other)).find(({ name }) => name === "user");
    assert.equal(standing?.r, 6 - 2 * count);
  }
  for (const visitor of [one, other]) assertRefused(await look(visitor), "user");
  assertRefused(await look(await member(two[1], id)), "user");
  assert.equal((await look(stranger)).status, 200);
});

// Sessions begun

test("only a session that is really begun is charged for", async () => {
  const address = someAddress();
  const headers = from(address);
  const json = { ...headers, "Content-Type": "application/json" };
  /** @type {[number, (one: Visitor) => Promise<Answer>][]} */
  const refusals = [
    [
      422,
      (one) =>
        one.send("PATCH", "/auth/session/data", {
          headers: { ...headers, "Content-Type": "application/json-patch+json" },
          body: '[{"op":"remove","path":"/nothing"}]',
        }),
    ],
    [412, (one) => one.merge({ a: 1 }, { ...headers, "If-Match": '"another"' })],
    [412, (one) => one.merge({ a: 1 }, { ...headers, "If-Match": "*" })],
    [413, (one) => one.merge({ a: "x".repeat(70_000) }, headers)],
    [413, (one) => one.merge({ a: "x".repeat(300_000) }, headers)],
    [400, (one) => one.send("PATCH", "/auth/session/data", { headers: json, body: "{" })],
    [
      415,
      (one) =>
        one.send("PATCH", "/auth/session/data", {
          headers: { ...headers, "Content-Type": "text/plain" },
          body: "{}",
        }),
    ],
    [403, (one) => one.merge({ a: 1 }, { ...headers, "Sec-Fetch-Site": "cross-site" })],
  ];
  for (const [status, act] of refusals) {
    const { value, calls } = await store.counters.during(() => act(two[0].visitor()));
    assert.deepEqual([value.status, calls], [status, 0], value.text);
    assertUncounted(value, String(status));
  }
  const visitor = two[0].visitor();
  assert.deepEqual(
    standings(await visitor.merge({ a: 1 }, headers)).map(({ name, r }) => [name, r]),
    [["mint", 3]],
  );
  assert.deepEqual(names(await visitor.merge({ a: 2 }, headers)), ["session"], "it is there already");
  await untilCounted("mint", 1);
});

test("a session that is refused is given back, and the ticket's session with it stays as counted", async () => {
  const address = someAddress();
  for (let count = 0; count < 4; count += 1) await two[0].visitor().merge({ a: 1 }, from(address));
  for (const worker of two) assertRefused(await worker.visitor().merge({ a: 1 }, from(address)), "mint");
  await untilCounted("mint", 4);
  assert.equal((await store.redis.keys("sess:*")).length, 4);
});

test("a change with a dead ticket begins a session, and is charged for", async () => {
  const visitor = await guest(two[0]);
  const dead = visitor.clone();
  await visitor.logout();
  const headers = from();
  const answer = await dead.clone().merge({ b: 2 }, headers);
  assert.deepEqual(answer.json.session.data, { b: 2 });
  assert.deepEqual(names(answer).toSorted(), ["mint", "session"]);
  for (let count = 0; count < 3; count += 1)
    assert.equal((await two[1].visitor().merge({}, headers)).status, 200);
  assertRefusedWithCookie(await dead.merge({ b: 2 }, headers));
  await moveToWindow(store, all);
});

/** Of a dead ticket the cookie may go, also with a 429. @param {Answer} answer */
function assertRefusedWithCookie(answer) {
  assert.equal(answer.status, 429, answer.text);
  assert.ok(answer.json.detail.includes('"mint"'), answer.text);
  assert.ok(answer.setCookies.every((line) => line.includes("Max-Age=0")));
}

// The store fails

test("closed: when the store fails for long the answer is 503, at once on what it is, and no cookie is touched", async () => {
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
  assert.equal(standings(await look(visitor))[0].r, 4, "nothing was counted");
});

test("open: what needs only counters passes uncounted, and is logged and counted; what needs the session is 503", async () => {
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

test("open and closed: a counter in error lets pass, and is told of, or it does not", async () => {
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

test("a call that counts is not sent again when it fails for a moment", async () => {
  for (const fault of /** @type {const} */ (["refuse", "lostAnswer", "cut"])) {
    for (const worker of [closed, open]) {
      const visitor = await guest(worker);
      assert.equal(standings(await look(visitor))[0].r, 4);
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
      assert.equal(standings(await look(visitor))[0].r, fault === "refuse" ? 3 : 2, fault);
    }
  }
});

test("what fails for a moment is no way past a limit", async () => {
  const visitor = await guest(four[0]);
  // Of each request the first call to the store is refused, and nothing was executed.
  store.faults.always("refuse", { when: has("INCR") });
  const answers = await flood(visitor);
  const count = answers.filter((answer) => answer.status === 200).length;
  assert.ok(count <= 100, `${count} passed`);
});

test("what was not counted is not given back", async () => {
  const visitor = await guest(two[0]);
  for (let count = 0; count < 5; count += 1) await look(visitor);
  // Refused by what a look at the counters said, after the call that counts was not executed.
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

// Routes

test("of the limits for routes the most specific counts", async () => {
  const cases = [
    ["GET", "/api/search", "GET /api/search"],
    ["HEAD", "/api/search", "GET /api/search"],
    ["POST", "/api/search", "/api/search"],
    ["POST", "/api/searches", "/api/search*"],
    ["GET", "/api/search/deep", "/api/search*"],
    ["GET", "/api/other", "GET /api/*"],
    ["POST", "/api/other", "/api/*"],
    ["GET", "/api/search?page=2", "GET /api/search"],
    ["GET", "/api", ""],
    ["GET", "/API/search", ""],
    ["GET", "/elsewhere", ""],
  ];
  for (const [method, path, name] of cases) {
    const answer = await two[0].visitor().send(method, path, { headers: from() });
    assert.equal(answer.status, 404, `${method} ${path}`);
    if (name === "") assertUncounted(answer, path);
    else assert.deepEqual(names(answer), [name], `${method} ${path}`);
  }
});

test("a route's limit is of a session, a user or an address; without the first of these of the next", async () => {
  const id = `user-${(users += 1)}`;
  const [one, other] = [await member(two[0], id), await member(two[1], id)];
  const stranger = await guest(two[0]);
  const mine = (/** @type {Visitor} */ visitor, address = someAddress()) =>
    visitor.send("GET", "/api/mine", { headers: from(address) });
  const left = (/** @type {Answer} */ answer) =>
    standings(answer).find(({ name }) => name === "/api/mine")?.r;
  assert.deepEqual([left(await mine(one)), left(await mine(other)), left(await mine(one))], [2, 1, 0]);
  assertRefused(await mine(other), "/api/mine");
  assert.deepEqual([left(await mine(stranger)), left(await mine(stranger))], [2, 1], "by session");
  const address = someAddress();
  assert.equal(left(await mine(two[0].visitor(), address)), 2, "by address");
  assert.equal(left(await mine(two[1].visitor(), address)), 1);
  assert.equal((await look(other)).status, 200, "elsewhere the user is not over a limit");
});

test("bad limits are refused at start, and the log says which and what to change", async () => {
  const good = { path: "/a", limit: "1/1m" };
  const bad = [
    { path: "a", limit: "1/1m" },
    { path: "/a*b", limit: "1/1m" },
    { path: "/a?b=c", limit: "1/1m" },
    { limit: "1/1m" },
    { ...good, method: "get" },
    { ...good, method: "FETCH" },
    { ...good, by: "planet" },
    { path: "/b", limit: "1/0s" },
    { path: "/c", limit: "0/1m" },
    { path: "/d", limit: "many" },
    { path: "/e", limit: "1/1m", burst: 3 },
  ];
  const limits = { session: "300", ip: "1/25h", other: "1/1m", routes: [good, good, ...bad] };
  const worker = await startWorker({ store, secrets, settings: { limits } });
  try {
    const answer = await look(worker.visitor());
    assert.equal(answer.status, 500);
    assert.equal(answer.json.code, "misconfigured");
    assert.ok(!answer.text.includes("planet") && !answer.text.includes("limits"));
    await until(() => worker.logs.length > 0);
    const log = worker.logs.join("");
    const fields = [
      "path",
      "path",
      "path",
      "path",
      "method",
      "method",
      "by",
      "limit",
      "limit",
      "limit",
      "burst",
    ];
    const expected = ["routes[1].path", ...fields.map((field, index) => `routes[${index + 2}].${field}`)];
    for (const field of ["session", "ip", "other", ...expected]) {
      assert.ok(log.includes(`CLOAKROOM.limits.${field}`), `${field} in ${log}`);
    }
    assert.ok(!log.includes("routes[0]"));
  } finally {
    await worker.stop();
  }
});

// Cloudflare's own limit in front

test("with RATE_LIMITER bound, a flood from one address is refused before anything else, without a call", async () => {
  const limits = { session: "50/1m", mint: "" };
  const worker = await startWorker({
    store,
    secrets,
    settings: { limits },
    ratelimits: { RATE_LIMITER: { simple: { limit: 3, period: 10 } } },
  });
  try {
    const visitor = await guest(worker);
    // It counts in windows of ten seconds, by a clock that is not moved.
    const left = 10_000 - (Date.now() % 10_000);
    if (left < 2000) await sleep(left + 50);
    for (const { alike, other } of [
      { alike: ["203.0.113.8"], other: "203.0.113.9" },
      { alike: ["2001:db8:7:7::1", "2001:DB8:7:7:ffff::9"], other: "2001:db8:7:8::1" },
    ]) {
      for (let count = 0; count < 3; count += 1) {
        const answer = await look(visitor, alike[count % alike.length]);
        assert.equal(answer.status, 200, answer.text);
      }
      for (const one of [visitor, worker.visitor()]) {
        for (const address of alike) {
          const { value, calls } = await store.counters.during(() => look(one, address));
          assert.deepEqual([value.status, value.json?.code, calls], [429, "rate_limited", 0], value.text);
          assert.equal(seconds(value), 60);
          assert.deepEqual(value.setCookies, []);
          assertUncounted(value);
        }
      }
      assert.equal((await look(visitor, other)).status, 200, "others are not concerned");
    }
  } finally {
    await worker.stop();
  }
});

test("without RATE_LIMITER nobody is refused in front", async () => {
  const address = someAddress();
  for (let count = 0; count < 12; count += 1) {
    assert.equal((await look(two[0].visitor(), address)).status, 200);
  }
});

// Counted

/** @param {Worker} worker @param {string} name */
async function countOf(worker, name) {
  await moveClocks(store, all, 2 * MINUTE);
  await look(worker.visitor());
  await worker.moveClock(0);
  const { days } = (
    await worker.visitor().send("GET", "/auth/admin/stats", { headers: { ...admin, ...from() } })
  ).json;
  return days.reduce((/** @type {number} */ sum, /** @type {any} */ day) => sum + (day[name] ?? 0), 0);
}

test("the report for operators counts what was refused", async () => {
  const before = await countOf(two[0], "rate_limited");
  await moveToWindow(store, all);
  const visitor = await guest(two[0]);
  for (let count = 0; count < 12; count += 1) await look(visitor);
  assert.equal(await countOf(two[0], "rate_limited"), before + 7);
});
