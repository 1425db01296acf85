/**
 * What requests of a mix cost at some rate: the store's calls and commands, and dollars a month. What one request costs
 * stands in docs/limits.md, where `npm run costs` has counted it; CPU time and bytes are the benchmark's.
 */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { CLOUDFLARE, CLOUDFLARE_INCLUDED, UPSTASH, UPSTASH_PLANS } from "../../bench/lib/prices.mjs";
import { READS, WRITES } from "../billed.mjs";
import { ROOT } from "../say.mjs";

/** @typedef {keyof typeof MIX} Kind */
/** @typedef {"primary" | "nearest"} Where a call is answered: at the primary if it writes or counts */
/** @typedef {{ calls: Where[], reads: number, writes: number }} Budget of one request: billed commands */
/** @typedef {{ cpu: number, bytes: number }} Usage milliseconds, and bytes between Worker and store */
/**
 * `opens`: who pays a write more for a window's first request: of each isolate, or of all; `touches`: with a write of their own; `outdated`: what a
 * change costs that another isolate was before
 * @typedef {{ name: string, title: string, isWorker: boolean, opens?: "isolate" | "store", touches: boolean, budgets: Record<Kind, Budget>, outdated?: Budget, usage: Record<Kind, Usage> }} Candidate
 */
/** @typedef {typeof TRAFFIC} Traffic */
/** @typedef {ReturnType<typeof load>} Load */

/** Parts of all requests. Change it to yours. */
export const MIX = { read: 0.8, change: 0.15, forged: 0.03, first: 0.01, login: 0.01 };

/** How visitors ask. Cloudflare publishes neither how many isolates there are nor which of them a request comes to. */
export const TRAFFIC = {
  /** Between two requests of one visitor, while the session is in use. */
  secondsBetween: 10,
  /** Requests a second that one isolate serves. */
  perIsolate: 20,
  /** How many isolates one visitor's requests are spread over. */
  spread: 4,
  /** The window of `limits.session`, */
  windowSeconds: 60,
  /** and `session.touch_every`. */
  touchEverySeconds: 300,
  /** Sessions that the store holds. */
  sessions: 1e6,
};

/** The rows of docs/limits.md that say what one request costs. */
export const ROWS = {
  read: "read, counted by `session`",
  change: "change, counted by `session`",
  forged: "no cookie",
  first: "first change, which begins the session, counted by `mint`",
  login: "login with a password, and what it counted as a failure given back",
};
/** A change in an isolate that knows an older state. */
export const CHANGE_OUTDATED = "change, of a session that another isolate has changed since";
/** Without `limits.session`. */
export const READ_UNCOUNTED = "read, all limits switched off";

/** The peers' requests, as their commands are; tests/scale.test.mjs compares the sums with what the benchmark has counted. */
const HONO = {
  read: budget(["primary", "nearest"], 4, 1), // EVALSHA, 2 GET, INCRBY; GET
  change: budget(["primary", "nearest", "primary"], 4, 2), // and SET
};
const EXPRESS = {
  read: budget(["primary", "primary", "primary"], 3, 2), // GET; EVALSHA, INCR, PTTL; EXPIRE
  change: budget(["primary", "primary", "primary"], 3, 2), // SET in its place
};

/** Of a password's hash, docs/operations.md. */
const LOGIN_CPU_MS = 40;
/** What an isolate that was asked at all writes once a minute: three counters of the day, its users, two times to live. */
export const STATISTICS = 6;
const MINUTE = 60;
export const MONTH = 30 * 24 * 3600;
const GB = 1e9;
/** What an isolate remembers at most (src/limit/memory.rs, src/isolate.rs). */
export const REMEMBERED = { windows: 20_000, touches: 10_000 };

/** @param {Where[]} calls @param {number} reads @param {number} writes @returns {Budget} */
function budget(calls, reads, writes) {
  return { calls, reads, writes };
}

/**
 * Rows of docs/limits.md: what a request of each costs.
 *
 * @param {string} [page] its text
 * @returns {(row: string) => Budget} throws if there is none of that name
 */
export function readBudgets(page = readFileSync(join(ROOT, "docs/limits.md"), "utf8")) {
  /** @type {Map<string, Budget>} */
  const rows = new Map();
  for (const [, name = "", calls, list = ""] of page.matchAll(
    /^\| (.+?) \| (\d+) \| \d+(?:: ([^|]+?))? \|/gm,
  )) {
    let [reads, writes] = [0, 0];
    for (const [, count = "1", command = ""] of list.matchAll(/(?:(\d+) )?([A-Z]+)/g)) {
      if (READS.includes(command)) reads += Number(count);
      else if (WRITES.includes(command)) writes += Number(count);
      else throw new Error(`tools/billed.mjs has to be told whether ${command} is a read or a write`);
    }
    const where = writes ? /** @type {const} */ ("primary") : /** @type {const} */ ("nearest");
    if (!rows.has(name)) rows.set(name, budget(Array(Number(calls)).fill(where), reads, writes));
  }
  return (row) => {
    const found = rows.get(row);
    if (!found)
      throw new Error(
        `docs/limits.md has no row "${row}": tools/scale/model.mjs names one that there is not`,
      );
    return found;
  };
}

/** The results of `npm run bench`. @returns {import("../../bench/lib/report.mjs").Results} */
export const readResults = () => JSON.parse(readFileSync(join(ROOT, "bench/results.json"), "utf8"));

/**
 * Cloakroom, and those it is compared with. What the benchmark does not do with a peer (the first change, a login) counts
 * there as a change: as little as it can be.
 *
 * @returns {Candidate[]}
 */
export function candidates(results = readResults(), row = readBudgets()) {
  const usage = (/** @type {string} */ name) => {
    const found = results.comparison?.candidates.find((one) => one.name === name);
    if (!found) throw new Error(`bench/results.json has no ${name}: npm run bench -- --comparison --write`);
    const of = (/** @type {"read" | "change" | "forged"} */ job) => ({
      cpu:
        found.cells.find((cell) => cell.job === job && cell.connections === 32 && cell.latency === 0)?.cpu ??
        NaN,
      bytes: found.store?.[job]?.bytes ?? NaN,
    });
    const change = of("change");
    const login = { ...change, cpu: change.cpu + LOGIN_CPU_MS };
    return { read: of("read"), change, forged: of("forged"), first: change, login };
  };
  const peer = (/** @type {{ read: Budget, change: Budget }} */ { read, change }) => ({
    read,
    change,
    forged: budget([], 0, 0),
    first: change,
    login: change,
  });
  const ours = /** @type {Record<Kind, Budget>} */ (
    Object.fromEntries(Object.entries(ROWS).map(([kind, name]) => [kind, row(name)]))
  );
  const uncounted = { ...ours, read: row(READ_UNCOUNTED) };
  const outdated = row(CHANGE_OUTDATED);
  const hono = { opens: /** @type {const} */ ("store"), touches: false, isWorker: true };
  const cloakroom = {
    outdated,
    opens: /** @type {const} */ ("isolate"),
    touches: true,
    isWorker: true,
  };
  return [
    { ...cloakroom, name: "cloakroom", title: "Cloakroom", budgets: ours, usage: usage("cloakroom") },
    {
      ...cloakroom,
      name: "uncounted",
      title: 'Cloakroom, `limits.session = ""`',
      budgets: uncounted,
      usage: usage("cloakroom"),
    },
    {
      ...hono,
      name: "hono-upstash",
      title: "Hono + Upstash",
      budgets: peer(HONO),
      usage: usage("hono-upstash"),
    },
    {
      touches: false,
      isWorker: false,
      name: "express",
      title: "Express + connect-redis (its server not included)",
      budgets: peer(EXPRESS),
      usage: usage("express"),
    },
  ];
}

/**
 * Of requests that come at random for one thing, `expected` in a period: the part that are the first in it.
 *
 * @param {number} expected
 */
export const firsts = (expected) => (expected > 0 ? (1 - Math.exp(-expected)) / expected : 1);

/**
 * The same in an isolate that serves many, and forgets all of them when they are more than `most`.
 *
 * @param {number} expected requests of each in a period
 * @param {number} things that are in use in the isolate
 * @param {number} most that it remembers
 */
export function firstsRemembered(expected, things, most) {
  const seen = things * (1 - Math.exp(-expected));
  if (seen <= most) return firsts(expected);
  // It forgets each time it has seen so many: the periods are shorter.
  return firsts(-Math.log1p(-most / things));
}

/**
 * The parts of the mix, by what they cost: a change finds the state that its isolate knows, or that of another isolate since.
 *
 * @param {Candidate} candidate
 * @param {Traffic} [traffic]
 * @returns {{ kind: Kind, part: number, budget: Budget }[]}
 */
export function parts({ budgets, outdated }, { spread } = TRAFFIC) {
  const kinds = /** @type {[Kind, number][]} */ (Object.entries(MIX));
  const all = kinds.map(([kind, part]) => ({ kind, part, budget: budgets[kind] }));
  if (!outdated) return all;
  // Of a visitor's requests before this one, back to the last one here, none elsewhere was a change.
  const known = 1 / (1 + ((spread - 1) * MIX.change) / (MIX.read + MIX.change));
  return all.flatMap((one) =>
    one.kind === "change"
      ? [
          { ...one, part: one.part * known },
          { ...one, part: one.part * (1 - known), budget: outdated },
        ]
      : [one],
  );
}

/**
 * The store's load by so many requests a second, before replication.
 *
 * @param {Candidate} candidate
 * @param {number} rate requests a second
 * @param {Traffic} [traffic]
 */
export function load(candidate, rate, traffic = TRAFFIC) {
  const { budgets, opens, touches } = candidate;
  const { secondsBetween, perIsolate, spread, windowSeconds, touchEverySeconds } = traffic;
  const isolates = Math.max(spread, Math.ceil(rate / perIsolate));
  const inUse = rate * secondsBetween;
  const inIsolate = (inUse * spread) / isolates;
  const inAnIsolate = (/** @type {number} */ seconds, /** @type {number} */ most) =>
    firstsRemembered(seconds / secondsBetween / spread, inIsolate, most);
  const opened = {
    isolate: () => inAnIsolate(windowSeconds, REMEMBERED.windows),
    store: () => firsts(windowSeconds / secondsBetween),
  };
  const extra = {
    /** Writes of a request that is counted by a session: its window's first, … */
    window: opens ? opened[opens]() : 0,
    /** … and a touch that is due. */
    touch: touches ? inAnIsolate(touchEverySeconds, REMEMBERED.touches) : 0,
  };
  let [calls, reads, writes] = [0, 0, 0];
  for (const { kind, part, budget } of parts(candidate, traffic)) {
    const isCounted = budgets.read.writes > 0 && (kind === "read" || kind === "change");
    // Each address' windows count as new ones: there are many.
    const opening = isCounted ? extra.window : kind === "first" ? 1 : 0;
    const touched = kind === "read" || kind === "change" ? extra.touch : 0;
    calls += part * budget.calls.length;
    reads += part * budget.reads;
    writes += part * (budget.writes + opening + touched);
  }
  const background = opens === "isolate" ? (isolates * STATISTICS) / MINUTE : 0;
  const clock = opens === "isolate" ? isolates / MINUTE : 0;
  return {
    isolates,
    inUse,
    extra,
    /** Per second. */
    calls: rate * calls,
    reads: rate * reads + clock,
    writes: rate * writes + background,
  };
}

/**
 * Dollars a month.
 *
 * @param {Candidate} candidate
 * @param {number} rate
 * @param {number} regions of the database, the primary's included
 * @param {number} bytesOfSession in the store
 * @param {Traffic} [traffic]
 */
export function month(candidate, rate, regions, bytesOfSession, traffic = TRAFFIC) {
  const { reads, writes } = load(candidate, rate, traffic);
  const requests = rate * MONTH;
  const of = (/** @type {(kind: Kind) => number} */ value) =>
    Object.entries(MIX).reduce((sum, [kind, part]) => sum + part * value(/** @type {Kind} */ (kind)), 0);
  const beyond = (/** @type {number} */ used, /** @type {number} */ included) => Math.max(0, used - included);
  const { price, requests: included, cpuMilliseconds } = CLOUDFLARE_INCLUDED;
  const cpu = requests * of((kind) => candidate.usage[kind].cpu);
  const workers = candidate.isWorker
    ? price +
      beyond(requests, included) * CLOUDFLARE.request +
      beyond(cpu, cpuMilliseconds) * CLOUDFLARE.cpuMillisecond
    : 0;
  const commands = MONTH * (reads + regions * writes);
  const gigabytes = (requests * of((kind) => candidate.usage[kind].bytes)) / GB;
  const stored = (traffic.sessions * bytesOfSession) / GB;
  const { payAsYouGo, fixed, readRegion } = UPSTASH_PLANS;
  const perSecond = reads + writes;
  const byUse =
    commands * UPSTASH.command +
    beyond(gigabytes, payAsYouGo.free.traffic) * GB * UPSTASH.byte +
    beyond(regions * stored, payAsYouGo.free.gigabytes) * payAsYouGo.gigabyte;
  const plan = fixed.find(
    (plan) => plan.gigabytes >= stored && plan.traffic >= gigabytes && plan.perSecond >= perSecond,
  );
  return {
    requests,
    /** Billed: a write once per region. */
    commands,
    workers,
    traffic: gigabytes,
    stored,
    /** What the primary has to do each second. */
    perSecond,
    byUse,
    fitsByUse: perSecond <= payAsYouGo.perSecond,
    plan: plan && { name: plan.name, price: plan.price * (1 + readRegion * (regions - 1)) },
  };
}
