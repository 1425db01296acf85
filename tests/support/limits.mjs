/** What the tests of limits share: a deployment, started with the import, its callers, and what answers say of limits. */
import assert from "node:assert/strict";
import { after, beforeEach } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { moveClocks, moveToWindow, randomSecret, startDeployment } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Visitor} Visitor */
/** @typedef {import("./visitor.mjs").Answer} Answer */
/** @typedef {import("./worker.mjs").Worker} Worker */

export const MINUTE = 60_000;
/** How long a counter of a minute is kept, at the most. */
const KEPT = 4 * MINUTE;
export const ADMIN_TOKEN = randomSecret();
export const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
/** An origin that is allowed to read answers. */
export const ORIGIN = "https://front.example";
export const secrets = { SESSION_SECRET: randomSecret(), ADMIN_TOKEN };

const deployment = await startDeployment([], { secrets, settings: { cors: { origins: [ORIGIN] } } });
after(deployment.stop);

export const { store, start } = deployment;
/** All isolates that a test file has started. */
export const all = deployment.workers;

/** Isolates with the same limits. @param {number} count @param {object} settings */
export const startAlike = (count, settings) =>
  Promise.all(Array.from({ length: count }, () => deployment.start({ settings })));

/** Four isolates with limits of a hundred. */
export function startFour() {
  const routes = [{ path: "/api/*", limit: "100/1m", by: "ip" }];
  const limits = { session: "100/1m", user: "100/1m", ip: "150/1m", mint: "100/1m", routes };
  return startAlike(4, { limits });
}

/** Two isolates with small limits, which fail closed. */
export function startTwo() {
  // The order of routes is of no importance.
  const routes = [
    { path: "/api/*", limit: "80/1m", by: "ip" },
    { path: "/api/search*", limit: "4/1m" },
    { path: "/api/*", method: "GET", limit: "70/1m", by: "ip" },
    { path: "/api/search", method: "GET", limit: "3/1m" },
    { path: "/api/search", limit: "60/1m", by: "ip" },
    { path: "/api/mine", limit: "3/1m", by: "user" },
    { path: "/api/off", limit: "" },
  ];
  return startAlike(2, { limits: { session: "5/1m", user: "8/1m", mint: "4/1m", routes } });
}

/** An isolate with a limit per address. @param {"closed" | "open"} on_failure */
export async function startPerAddress(on_failure) {
  const limits = { session: "5/1m", ip: "50/1m", mint: "" };
  return deployment.start({ settings: { limits, store: { timeout: "200ms", on_failure } } });
}

beforeEach(async () => {
  store.faults.clear();
  // What is due in the background would cost calls in the middle of a test.
  await moveClocks(store, all, 2 * MINUTE);
  await Promise.all(all.map((worker) => worker.moveClock(0)));
  await store.redis.flushAll();
  await moveToWindow(store, all);
});

let addresses = 0;
/** An address that nobody has used yet. */
export function someAddress() {
  addresses += 1;
  return `10.${addresses >> 16}.${(addresses >> 8) & 255}.${addresses & 255}`;
}

/** The headers of a client at an address. @param {string} [address] */
export const from = (address = someAddress()) => ({ "CF-Connecting-IP": address });

/** A visitor with a new session. @param {Worker} worker */
export async function guest(worker) {
  const visitor = worker.visitor();
  const answer = await visitor.merge({ a: 1 }, from());
  assert.equal(answer.status, 200, answer.text);
  return visitor;
}

let users = 0;
/** A user that no other test has. */
export const someUser = () => `user-${(users += 1)}`;

/** A visitor who is logged in. @param {Worker} worker @param {string} id */
export async function member(worker, id) {
  const visitor = worker.visitor();
  const headers = { ...admin, ...from(), "Content-Type": "application/json" };
  const body = JSON.stringify({ user: { id } });
  const answer = await worker.visitor().send("POST", "/auth/admin/sessions", { headers, body });
  assert.equal(answer.status, 201, answer.text);
  visitor.accept(answer.json.set_cookie);
  return visitor;
}

/** @param {Visitor} visitor @param {string} [address] */
export const look = (visitor, address) => visitor.send("GET", "/auth/session", { headers: from(address) });

/** How many of these passed; the others are all 429. @param {Answer[]} answers */
export function passed(answers) {
  const others = answers.filter((answer) => answer.status >= 500 || answer.status === 0);
  assert.deepEqual(
    others.map((answer) => answer.text),
    [],
  );
  return answers.filter((answer) => answer.status !== 429).length;
}

/** The counters in the store, by their keys. @param {string} [pattern] */
export async function counters(pattern = "limit:*") {
  const keys = (await store.redis.keys(pattern)).sort();
  return Promise.all(keys.map(async (key) => ({ key, count: Number(await store.redis.get(key)) })));
}

/**
 * Waits until the counters of a limit in this window are these: refused requests have been refunded.
 * @param {string} limit
 * @param {number[]} counts
 */
export async function untilCounted(limit, ...counts) {
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

/** The keys of counters that never expire. */
export async function immortal() {
  const keys = await store.redis.keys("limit:*");
  const ttls = await Promise.all(keys.map(async (key) => ({ key, ttl: await store.redis.pTTL(key) })));
  return ttls.filter(({ ttl }) => ttl === -1 || ttl > KEPT).map(({ key }) => key);
}

/**
 * The same after all repairs: a counter that came back without a time to live gets one in the background; later,
 * when the store is slow.
 * @param {Worker} worker
 */
export async function immortalAfterRepairs(worker) {
  await worker.moveClock(0);
  for (let tries = 0; tries < 5 && (await immortal()).length > 0; tries += 1) {
    await sleep(50);
    await moveClocks(store, all, 6000);
    await worker.moveClock(0);
  }
  return await immortal();
}

/** What Retry-After says. */
export const seconds = (/** @type {Answer} */ answer) => {
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
 * What the RateLimit fields of a response say, the tightest limit first.
 * @param {Answer} answer
 */
export function limitStates(answer) {
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
export const names = (answer) => limitStates(answer).map(({ name }) => name);

/** @param {Answer} answer */
export function assertUncounted(answer, what = "") {
  assert.equal(answer.headers.get("RateLimit"), null, what);
  assert.equal(answer.headers.get("RateLimit-Policy"), null, what);
}

/** @param {Answer} answer @param {string} limit that is named */
export function assertRefused(answer, limit) {
  assert.equal(answer.status, 429, answer.text);
  assert.match(String(answer.headers.get("Content-Type")), /^application\/problem\+json/);
  const { type, status, code, detail } = answer.json;
  assert.deepEqual([type, status, code], ["about:blank", 429, "rate_limited"]);
  assert.ok(detail.includes(`"${limit}"`), detail);
  assert.deepEqual(answer.setCookies, []);
  assert.equal(answer.headers.get("Cache-Control"), "no-store, no-transform");
  // The first that is broken is named; the longest wait of all that are is told.
  const used = limitStates(answer).filter(({ r }) => r === 0);
  assert.ok(used.some(({ name, t }) => name === limit && t <= seconds(answer)));
  assert.ok(used.some(({ t }) => t === seconds(answer)));
}

/** Matches calls to the store with this command. @param {string} name @returns {(seen: { commands: string[][] }) => boolean} */
export const has =
  (name) =>
  ({ commands }) =>
    commands.some(([first]) => first === name);

/** What the report for operators counts under a name. @param {Worker} worker @param {string} name */
export async function countOf(worker, name) {
  await moveClocks(store, all, 2 * MINUTE);
  await look(worker.visitor());
  await worker.moveClock(0);
  const { days } = (
    await worker.visitor().send("GET", "/auth/admin/stats", { headers: { ...admin, ...from() } })
  ).json;
  return days.reduce((/** @type {number} */ sum, /** @type {any} */ day) => sum + (day[name] ?? 0), 0);
}
