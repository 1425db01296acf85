/**
 * `npm run costs`: what requests cost at the store, ours and those of Upstash's own rate limiter. Counted on the
 * local store, never timed.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis";
import { FAST_HASH, randomSecret, startWorker } from "../tests/support/worker.mjs";
import { READS, WRITES } from "./billed.mjs";
import { startLocalStore } from "./local-store/index.mjs";
import { ROOT, say, sentence } from "./say.mjs";

/** @typedef {import("./local-store/index.mjs").LocalStore} LocalStore */
/** @typedef {import("../tests/support/worker.mjs").Worker} Worker */
/** @typedef {import("../tests/support/visitor.mjs").Answer} Answer */

/**
 * What one request costs.
 *
 * @typedef {object} Cost
 * @property {number} calls to the store
 * @property {Record<string, number>} byName the commands that are billed
 */

/** @typedef {[request: string, cost: Cost]} Row */

const USAGE = `npm run costs -- [OPTION…]

  --write    puts the table into docs/limits.md; without it, it is printed

It loads what npm run build has built.`;

const PAGE = join(ROOT, "docs/limits.md");
const MARKED = /(?<=<!-- costs -->\n)[^]*(?=\n<!-- \/costs -->)/;

const DOLLARS_PER_MILLION = 2; // $0.20 per 100,000
/** A primary and one read region. */
const REGIONS = 2;
const KNOWN = [...READS, ...WRITES];

/** Longer than this takes. What a request costs depends neither on the window's length nor on the limit. */
const WINDOW = "24 h";
const QUOTA = `3/${WINDOW.replace(" ", "")}`;
/** For an address, which is the same for all here. */
const LOOSE = "300/24h";
const PATIENCE_MS = 5000;
const ADMIN_TOKEN = randomSecret();

/** As in the examples of Upstash's pages, with a longer window. */
const LIMITERS = {
  fixedWindow: Ratelimit.fixedWindow(3, WINDOW),
  slidingWindow: Ratelimit.slidingWindow(3, WINDOW),
  tokenBucket: Ratelimit.tokenBucket(3, WINDOW, 3),
  cachedFixedWindow: Ratelimit.cachedFixedWindow(3, WINDOW),
};

try {
  await main();
} catch (error) {
  console.error(sentence(error));
  process.exitCode = 1;
}

async function main() {
  const options = /** @type {const} */ ({
    write: { type: "boolean" },
    help: { type: "boolean", short: "h" },
  });
  const { values } = parseArgs({ options });
  if (values.help) return say(USAGE);
  const table = await measure();
  if (!values.write) return say(table);
  const page = await readFile(PAGE, "utf8");
  if (!MARKED.test(page))
    throw new Error(`${PAGE} has no place for it between <!-- costs --> and <!-- /costs -->`);
  const updated = page.replace(MARKED, () => table);
  await writeFile(PAGE, updated);
}

/** @returns {Promise<string>} the table */
async function measure() {
  const store = await startLocalStore();
  try {
    const ours = await costsOfCloakroom(store);
    const theirs = await costsOfRatelimit(store);
    return [
      `| one request | store calls | billed commands | a million | Global, ${REGIONS - 1} read region |`,
      "|---|---|---|---|---|",
      "| **Cloakroom** | | | | |",
      ...ours.map(line),
      "| **@upstash/ratelimit** | | | | |",
      ...theirs.alone.map(line),
      "| **@upstash/ratelimit, and the session read by @upstash/redis** | | | | |",
      ...theirs.together.map(line),
    ].join("\n");
  } finally {
    await store.stop();
  }
}

/** @param {Row} row */
function line([request, { calls, byName }]) {
  const unknown = Object.keys(byName).find((name) => !KNOWN.includes(name));
  if (unknown) throw new Error(`tools/billed.mjs has to be told whether ${unknown} is a read or a write`);
  const present = KNOWN.filter((name) => name in byName);
  const count = (/** @type {string[]} */ names) => names.reduce((sum, name) => sum + (byName[name] ?? 0), 0);
  const list = present.map((name) => (byName[name] > 1 ? `${byName[name]} ${name}` : name)).join(", ");
  const commands = count(present);
  const everywhere = count(READS) + REGIONS * count(WRITES);
  const price = (/** @type {number} */ billed) => `$${(billed * DOLLARS_PER_MILLION).toFixed(2)}`;
  const cells = [request, calls, list ? `${commands}: ${list}` : 0, price(commands), price(everywhere)];
  return `| ${cells.join(" | ")} |`;
}

/**
 * @param {LocalStore} store
 * @returns {Promise<Row[]>}
 */
async function costsOfCloakroom(store) {
  /** @type {Row[]} */
  const rows = [];
  /** @param {string} name @param {number} status of the answer @param {() => Promise<Answer>} request */
  const count = async (name, status, request) => {
    const { value, calls, byName } = await store.counters.during(request);
    if (value.status !== status) throw new Error(`${name}: answered ${value.status}, ${value.text}`);
    rows.push([name, { calls, byName }]);
  };

  await withWorker(store, {}, async (worker) => {
    const visitor = worker.visitor();
    await count("no cookie", 200, () => visitor.look());
    await visitor.merge({ n: 1 });
    await count("read, all limits switched off", 200, () => visitor.look());
  });

  await withWorker(store, { session: QUOTA, mint: LOOSE }, async (worker) => {
    await began(worker); // opens the windows of all, and asks for the time
    await (await began(worker)).merge({ n: 2 }); // the store learns the scripts
    const visitor = worker.visitor();
    await count("first change, which begins the session, counted by `mint`", 200, () =>
      visitor.merge({ n: 1 }),
    );
    await count("read, counted by `session`, the first in its window", 200, () => visitor.look());
    await count("read, counted by `session`", 200, () => visitor.look());
    const other = await began(worker);
    await count("change, counted by `session`", 200, () => other.merge({ n: 2 }));
    const forgotten = await began(worker);
    await forgotten.merge({ n: 2 }, { "If-Match": '"another"' }); // refused: the isolate forgets it
    await count("change, of a session that the isolate does not know", 200, () => forgotten.merge({ n: 2 }));
    const roaming = await began(worker);
    await elsewhere(store, worker, (another) => roaming.clone(another.url).merge({ n: 2 }));
    await count("change, of a session that another isolate has changed since", 200, () =>
      roaming.merge({ n: 3 }),
    );
    await visitor.look();
    const refused = () => refunded(store, () => visitor.look());
    await count("refused the first time, and what it counted given back", 429, refused);
    await count("refused, each time after that", 429, () => visitor.look());
    await count("login by the service API", 201, () => logIn(worker));
    const user = await loggedIn(worker);
    await count("logout, counted by `session`", 204, () => user.logout());
  });

  await withWorker(store, { session: QUOTA, mint: LOOSE, login: LOOSE }, async (worker) => {
    const password = "correct horse battery";
    await worker.visitor().register("Ada", password);
    await worker.visitor().login("Ada", password); // from here on the windows have begun
    await worker.idle();
    await count("login with a password, and what it counted as a failure given back", 200, async () => {
      const answer = await worker.visitor().login("Ada", password);
      await worker.idle();
      return answer;
    });
  });

  await withWorker(store, { session: QUOTA, ip: LOOSE }, async (worker) => {
    const visitor = await began(worker);
    await count("no cookie, counted by `ip`", 200, () => worker.visitor().look());
    await count("read, counted by `session` and `ip`", 200, () => visitor.look());
  });

  const routes = [{ path: "/auth/session", limit: QUOTA, by: "session" }];
  await withWorker(store, { session: QUOTA, ip: LOOSE, user: QUOTA, routes }, async (worker) => {
    const user = await loggedIn(worker);
    await count("read, counted by `session`, `user`, `ip` and a limit of the path", 200, () => user.look());
  });
  return rows;
}

/**
 * @param {LocalStore} store
 * @param {object} limits those that are switched on
 * @param {(worker: Worker) => Promise<void>} use
 */
async function withWorker(store, limits, use) {
  const settings = { limits: { session: "", mint: "", ...limits }, password: FAST_HASH };
  const worker = await startWorker({ store, settings, secrets: { ADMIN_TOKEN } });
  try {
    await use(worker);
  } finally {
    await worker.stop();
  }
}

/**
 * In another isolate of the same deployment.
 *
 * @param {LocalStore} store
 * @param {Worker} worker
 * @param {(another: Worker) => Promise<unknown>} use
 */
async function elsewhere(store, { secret }, use) {
  const secrets = { SESSION_SECRET: secret };
  const another = await startWorker({ store, settings: { limits: { session: QUOTA } }, secrets });
  try {
    await use(another);
    await another.idle();
  } finally {
    await another.stop();
  }
}

/** Someone with a session, which this isolate has counted before. @param {Worker} worker */
async function began(worker) {
  const visitor = worker.visitor();
  await visitor.merge({ n: 1 });
  await visitor.look();
  return visitor;
}

/** A user with a session, which this isolate has counted before. @param {Worker} worker */
async function loggedIn(worker) {
  const user = worker.visitor();
  const { json } = await logIn(worker);
  user.ticket = json.set_cookie[0].match(/=([^;]+)/)[1];
  await user.look();
  return user;
}

/** @param {Worker} worker */
function logIn(worker) {
  const headers = { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ user: { id: "ada" } });
  return worker.visitor().send("POST", "/auth/admin/sessions", { headers, body });
}

/**
 * With what is given back after the response to a refused request.
 *
 * @param {LocalStore} store
 * @param {() => Promise<Answer>} request
 */
async function refunded({ counters }, request) {
  const before = counters.byName.DECRBY;
  const answer = await request();
  for (const since = Date.now(); counters.byName.DECRBY === before; await sleep(5)) {
    if (Date.now() - since > PATIENCE_MS) throw new Error("what a refused request counted is not given back");
  }
  return answer;
}

/**
 * What `limit` costs, with what it leaves for `waitUntil`.
 *
 * @param {LocalStore} store
 * @returns {Promise<{ alone: Row[], together: Row[] }>}
 */
async function costsOfRatelimit(store) {
  const redis = new Redis({ url: store.url, token: store.token });
  await redis.set("session", { n: 1 });
  const readSession = async () => void (await redis.get("session"));
  /** @type {Row[]} */
  const alone = [];
  /** @type {Row[]} */
  const together = [];

  /** @param {Ratelimit} ratelimit @param {boolean} [success] */
  const limit = async (ratelimit, success = true) => {
    const verdict = await ratelimit.limit("me");
    if (verdict.success !== success)
      throw new Error(`the official limiter answered success: ${verdict.success}`);
    await verdict.pending;
  };
  /** @param {Row[]} rows @param {string} name @param {() => Promise<void>} request */
  const count = async (rows, name, request) => {
    const { calls, byName } = await store.counters.during(request);
    rows.push([name, { calls, byName }]);
  };

  /** @type {Ratelimit[]} */
  const knowing = [];
  for (const [name, limiter] of Object.entries(LIMITERS)) {
    /** As in another isolate. @param {{ prefix?: string, ephemeralCache?: false, analytics?: true }} [options] */
    const start = (options) => new Ratelimit({ redis, limiter, prefix: name, ...options });
    await limit(start({ prefix: `${name}, before` })); // the store learns the script

    const ratelimit = start();
    await count(alone, `\`${name}\`, the first in its window`, () => limit(ratelimit));
    await count(alone, `\`${name}\``, () => limit(ratelimit));
    await count(together, `\`${name}\``, () => limit(ratelimit).then(readSession));
    // This one does not go without a cache; in another isolate it is empty.
    const asking = start(name === "cachedFixedWindow" ? {} : { ephemeralCache: false });
    await count(alone, `\`${name}\`, refused, not known from \`ephemeralCache\``, () => limit(asking, false));
    await limit(ratelimit, false);
    knowing.push(ratelimit);
  }
  await count(alone, "each of these, refused, known from `ephemeralCache`", async () => {
    for (const ratelimit of knowing) await limit(ratelimit, false);
  });

  const limiter = LIMITERS.slidingWindow;
  const ratelimit = new Ratelimit({ redis, limiter, prefix: "analytics", analytics: true });
  await limit(ratelimit);
  await count(alone, "`slidingWindow` with `analytics: true`", () => limit(ratelimit));
  await count(together, "`slidingWindow` with `analytics: true`", () => limit(ratelimit).then(readSession));
  await limit(ratelimit, false);
  await count(alone, "the same, refused, known from `ephemeralCache`", () => limit(ratelimit, false));
  return { alone, together };
}
