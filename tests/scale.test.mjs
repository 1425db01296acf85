/** The arithmetic of docs/scale.md: from what requests cost to commands, dollars and latency; and what `npm run bench -- --scale` counts. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { keysIn } from "../bench/lib/hot.mjs";
import { checkMemory, kindOf } from "../bench/lib/population.mjs";
import { UPSTASH } from "../bench/lib/prices.mjs";
import * as model from "../tools/scale/model.mjs";
import { PLACES, quantile, roundTrip, simulate } from "../tools/scale/simulate.mjs";

/** @typedef {import("../tools/scale/model.mjs").Kind} Kind */
/** @typedef {import("../tools/scale/simulate.mjs").Place} Place */
/** @typedef {import("../tools/scale/model.mjs").Where} Where */

const root = fileURLToPath(new URL("..", import.meta.url));
const read = (/** @type {string} */ path) => readFileSync(`${root}${path}`, "utf8");
const results = model.readResults();
const all = model.candidates(results);
const [cloakroom, uncounted, hono, express] = /** @type {import("../tools/scale/model.mjs").Candidate[]} */ (
  all
);
const places = /** @type {Place[]} */ (Object.keys(PLACES));

/** @param {number} found @param {number} expected @param {string} [what] */
function assertClose(found, expected, what, part = 1e-9) {
  assert.ok(Math.abs(found - expected) <= part * Math.abs(expected), `${what}: ${found}, not ${expected}`);
}

test("docs/scale.md has the tables that npm run scale makes now", () => {
  const printed = execFileSync(process.execPath, ["tools/scale.mjs"], { cwd: root, encoding: "utf8" }).trim();
  const page = read("docs/scale.md");
  const marked = [...page.matchAll(/<!-- (\w+) -->\n([^]*?)\n<!-- \/\1 -->/g)];
  const tables = marked.map(([, name, table]) => `${name}\n\n${table}`);
  const sorted = (/** @type {string[]} */ parts) => parts.toSorted().join("\n\n");
  assert.equal(
    sorted(tables),
    sorted(printed.split(/\n\n(?=\w+\n\n)/)),
    "npm run scale -- --write brings it up to date",
  );
});

// What a request costs

test("what a request of the mix costs is what the README says", () => {
  const readme = read("README.md");
  const rows = {
    read: "read, counted by `limits.session`",
    change: "change; of a session that the isolate does not know",
    forged: "no cookie; a forged",
    first: "first change, which begins the session, counted by `limits.mint`",
  };
  for (const [kind, start] of /** @type {[Kind, string][]} */ (Object.entries(rows))) {
    const row = readme.split("\n").find((line) => line.startsWith(`| ${start}`));
    const [, calls, commands] = row?.match(/\| (\d+)[^|]* \| (\d+)[^|]* \|$/) ?? [];
    const budget = cloakroom.budgets[kind];
    assert.equal(budget.calls.length, Number(calls), row);
    assert.equal(budget.reads + budget.writes, Number(commands), row);
  }
});

test("what a peer's request costs is what the benchmark has counted", () => {
  for (const { name, budgets } of [hono, express]) {
    const counted = results.comparison?.candidates.find((one) => one.name === name)?.store;
    for (const job of /** @type {const} */ (["read", "change", "forged"])) {
      const { calls, reads, writes } = budgets[job];
      assert.equal(calls.length, Math.round(counted?.[job]?.calls ?? NaN), `${name}, ${job}`);
      assert.equal(reads + writes, Math.round(counted?.[job]?.commands ?? NaN), `${name}, ${job}`);
    }
  }
});

test("reads and writes are told apart by the commands that a row lists", () => {
  const budget = model.readBudgets(
    "| a | 2 | 6: MGET, 2 SET, GETEX, 2 INCR | $1 | $2 |\n| b | 1 | 1: MGET | x | y |\n",
  );
  assert.deepEqual(budget("a"), { calls: ["primary", "primary"], reads: 1, writes: 5 });
  assert.deepEqual(budget("b"), { calls: ["nearest"], reads: 1, writes: 0 });
  assert.throws(() => budget("c"), /docs\/limits\.md has no row "c"/);
  assert.throws(() => model.readBudgets("| a | 1 | 1: FLUSHALL | x | y |"), /FLUSHALL/);
});

// Sums

test("the parts of the mix are the whole, also when a visitor meets several isolates", () => {
  for (const spread of [1, 4, 64]) {
    const parts = model.parts(cloakroom, { ...model.TRAFFIC, spread });
    const sum = parts.reduce((sum, { part }) => sum + part, 0);
    assertClose(sum, 1, `${spread}`);
    const outdated = parts.find(({ budget }) => budget === cloakroom.outdated)?.part ?? NaN;
    assert.equal(outdated === 0, spread === 1, "alone an isolate knows the newest state");
    assert.ok(outdated < model.MIX.change);
  }
});

test("commands are what the requests cost, their windows' first ones, touches, and what isolates do by themselves", () => {
  const rate = 1000;
  const { calls, reads, writes, extra, isolates } = model.load(cloakroom, rate);
  const of = (/** @type {(budget: import("../tools/scale/model.mjs").Budget) => number} */ value) =>
    rate * model.parts(cloakroom).reduce((sum, { part, budget }) => sum + part * value(budget), 0);
  assertClose(
    calls,
    of((budget) => budget.calls.length),
    "calls",
  );
  assertClose(reads, of((budget) => budget.reads) + isolates / 60, "reads");
  const { read: looks, change, first } = model.MIX;
  const more = rate * ((looks + change) * (extra.window + extra.touch) + first);
  const own = (isolates * model.STATISTICS) / 60;
  assertClose(writes, of((budget) => budget.writes) + more + own, "writes");
  assert.ok(model.load(uncounted, rate).writes < writes);
});

test("ten times as many requests are ten times as many commands, once there are isolates for them", () => {
  for (const candidate of all) {
    const [some, many] = [1000, 10_000].map((rate) => model.load(candidate, rate));
    for (const name of /** @type {const} */ (["calls", "reads", "writes"])) {
      assertClose(many?.[name] ?? NaN, 10 * (some?.[name] ?? NaN), `${candidate.name}, ${name}`);
    }
  }
});

test("a write is billed once per region, and a read once", () => {
  const { reads, writes } = model.load(cloakroom, 100);
  for (const regions of [1, 2, 5]) {
    const { commands, byUse } = model.month(cloakroom, 100, regions, 0);
    assertClose(commands, model.MONTH * (reads + regions * writes), `${regions} regions`);
    assert.ok(byUse >= commands * UPSTASH.command);
  }
});

test("a plan is the smallest that holds the sessions, their traffic and the commands", () => {
  const plan = (/** @type {number} */ rate, /** @type {number} */ regions, /** @type {number} */ bytes) =>
    model.month(cloakroom, rate, regions, bytes).plan;
  assert.deepEqual(plan(1, 1, 200), { name: "250 MB", price: 10 });
  assert.deepEqual(plan(1, 1, 900), { name: "1 GB", price: 20 });
  assert.deepEqual(plan(1, 5, 1300), { name: "5 GB", price: 300 });
  assert.equal(plan(4000, 1, 1300)?.name, "100 GB", "the first of 16,000 commands a second");
  assert.equal(plan(10_000, 1, 1300), undefined);
  assert.equal(model.month(cloakroom, 10_000, 1, 1300).fitsByUse, false);
});

test("what is included costs nothing more", () => {
  const { workers, requests } = model.month(cloakroom, 1, 1, 1000);
  assert.equal(requests, 2_592_000);
  assert.equal(workers, 5);
});

// First ones

test("of requests at random the part that are the first in a period is what a count gives", () => {
  let state = 1;
  const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647;
  for (const [things, requests] of [
    [1000, 200],
    [1000, 1000],
    [1000, 6000],
  ]) {
    let firsts = 0;
    const rounds = 50;
    for (let round = 0; round < rounds; round += 1) {
      const seen = new Set();
      for (let count = 0; count < requests; count += 1) seen.add(Math.floor(random() * things));
      firsts += seen.size;
    }
    assertClose(model.firsts(requests / things), firsts / rounds / requests, `${requests}`, 0.01);
  }
});

test("an isolate remembers as many as the crate says", () => {
  const most = (/** @type {string} */ path, /** @type {string} */ name) =>
    Number(new RegExp(`const ${name}: usize = ([\\d_]+);`).exec(read(path))?.[1]?.replaceAll("_", ""));
  assert.equal(model.REMEMBERED.windows, most("src/limit/memory.rs", "MAX_REMEMBERED"));
  assert.equal(model.REMEMBERED.touches, most("src/isolate.rs", "MAX_TOUCHED"));
});

test("an isolate with too many to remember finds more of them new, and never more than all", () => {
  const most = 1000;
  let before = 0;
  for (const things of [10, 1000, 1100, 5000, 1e6]) {
    const part = model.firstsRemembered(6, things, most);
    if (things <= most) assert.equal(part, model.firsts(6));
    assert.ok(part >= before && part <= 1, `${things}: ${part}`);
    before = part;
  }
  assert.ok(before > 0.99);
});

// The simulation

/** @param {Where[]} calls */
const job = (calls, commands = 0) => [{ kind: "all", share: 1, calls, commands }];

test("a round trip is the same in both directions, and each pair of places has one", () => {
  for (const one of places) {
    for (const other of places) {
      assert.equal(roundTrip(one, other), roundTrip(other, one));
      assert.equal(roundTrip(one, other) > 0, one !== other);
    }
  }
});

test("Little's law: under way are the rate times the mean time", () => {
  const { times, underWay, requests, end } = simulate({ jobs: job(["primary"]), rate: 200, seconds: 50 });
  const mean = times().reduce((sum, time) => sum + time, 0) / requests;
  assertClose(underWay, (requests / end) * mean, "under way");
  assertClose(underWay, (200 * mean) / 1000, "by the rate that was asked for", 0.05);
});

test("the same seed gives the same, another one another", () => {
  const run = (/** @type {number} */ seed) =>
    simulate({ jobs: job(["primary", "primary"]), rate: 50, seconds: 20, seed }).times();
  assert.deepEqual(run(7), run(7));
  assert.notDeepEqual(run(7), run(8));
});

test("each call to the primary is a round trip to it, and a Worker beside it makes only the first one", () => {
  const p50 = (/** @type {Where[]} */ calls, /** @type {"visitor" | "primary"} */ worker = "visitor") => {
    const { times } = simulate({ jobs: job(calls), rate: 100, seconds: 60, worker });
    return (/** @type {Place} */ place) => quantile(times({ place }), 0.5);
  };
  const [near, one, two] = [p50(["nearest"]), p50(["primary"]), p50(["primary", "primary"])];
  const placed = p50(["primary", "primary"], "primary");
  for (const place of places) {
    const trip = roundTrip(place, "frankfurt");
    assert.ok(near(place) < 20, `${place}: ${near(place)}`);
    assert.ok(one(place) >= 0.85 * trip && one(place) <= trip + 20, `${place}: ${one(place)}`);
    assert.ok(Math.abs(two(place) - 2 * one(place)) < 20, `${place}: ${two(place)}`);
    assert.ok(placed(place) <= one(place) + 12, `${place}: ${placed(place)}`);
  }
});

test("the primary is as busy as its commands are many; with too many it falls behind", () => {
  const run = (/** @type {number} */ commands) =>
    simulate({ jobs: job(["primary"], commands), rate: 1000, seconds: 10, perSecond: 10_000 });
  assertClose(run(2).utilisation, 0.2, "busy", 0.05);
  assertClose(run(20).utilisation, 2, "busy", 0.05);
  const last = (/** @type {number} */ commands) => quantile(run(commands).times(), 0.99);
  assert.ok(last(2) < 400, `${last(2)}`);
  assert.ok(last(20) > 8000, "ten seconds of twice as many as it can do are ten seconds late");
});

// What npm run bench -- --scale counts

test("a line of MONITOR names keys, of which kinds are made", () => {
  for (const [line, keys, reads] of /** @type {[string, string[], boolean][]} */ ([
    ['1.5 [0 unix:/x] "SET" "sess:abc" "{\\"v\\":1,\\"a\\":\\"sess:no\\"}" "PX" "5"', ["sess:abc"], false],
    ['1.5 [0 unix:/x] "MGET" "sess:abc" "family:def"', ["sess:abc", "family:def"], true],
    ['1.5 [0 lua] "INCRBY" "limit:session:abc:29" "1"', ["limit:session:abc:29"], false],
    ['1.5 [0 unix:/x] "EVAL" "return 1" "1" "sess:abc"', [], false],
    ['1.5 [0 unix:/x] "MULTI"', [], false],
  ])) {
    assert.deepEqual(keysIn(line), { keys, reads }, line);
  }
  for (const [key, kind] of [
    ["sess:oPzTmvzMLXeuDhcAxlEA0m8d", "sess:…"],
    ["user:W5mFHxzQHphIkp8jCPn54I:sessions", "user:…:sessions"],
    ["limit:login-address:192.0.2.7:5878401", "limit:login-address:…:WINDOW"],
    ["limit:session:BwcHBwcH:29392005", "limit:session:…:WINDOW"],
    ["stats:2026-11-29:users", "stats:DAY:users"],
    ["account:ada", "account:…"],
  ]) {
    assert.equal(kindOf(key), kind);
  }
});

test("a machine with too little free memory is told so before anything is filled", () => {
  checkMemory("MemTotal: 9 kB\nMemAvailable:   8388608 kB\n");
  for (const text of ["MemAvailable:   2097152 kB\n", "MemTotal: 1 kB\n"]) {
    assert.throws(() => checkMemory(text), /needs 4 GB of free memory/);
  }
});
