/** `npm run scale`: commands, dollars and latency from one request a second to ten thousand. Counted and simulated, the same each time. */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { UPSTASH, UPSTASH_PLANS } from "../bench/lib/prices.mjs";
import { ROOT, say, sentence } from "./say.mjs";
import * as model from "./scale/model.mjs";
import { PLACES, quantile, simulate } from "./scale/simulate.mjs";

/** @typedef {import("./scale/model.mjs").Candidate} Candidate */
/** @typedef {import("./scale/model.mjs").Where} Where */
/** @typedef {import("./scale/simulate.mjs").Place} Place */

const USAGE = `npm run scale -- [OPTION…]

  --write    puts the tables into docs/scale.md; without it, they are printed

What it counts with: docs/limits.md (npm run costs -- --write) and bench/results.json (npm run bench -- --write); the mix of
requests and how visitors behave are at the top of tools/scale/model.mjs, prices in bench/lib/prices.mjs.`;

const PAGE = join(ROOT, "docs/scale.md");
const RATES = [1, 100, 10_000];
const REGIONS = [1, 5];
/** Before `npm run bench -- --scale` has measured it. */
const BYTES_OF_SESSION = 1300;
const STORE_TIMEOUT_MS = 2000;
const { payAsYouGo } = UPSTASH_PLANS;

const number = (/** @type {number} */ value, digits = 0) =>
  value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits });
const few = (/** @type {number} */ value) => number(value, value < 10 ? 2 : 0);
const percent = (/** @type {number} */ part) => `${number(100 * part, part < 0.1 ? 1 : 0)} %`;
const dollars = (/** @type {number} */ amount) => `$${number(amount)}`;

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
  const tables = Object.entries(allTables());
  if (!values.write) return say(tables.map(([name, table]) => `${name}\n\n${table}`).join("\n\n"));
  let page = await readFile(PAGE, "utf8");
  for (const [name, table] of tables) {
    const marked = new RegExp(`(?<=<!-- ${name} -->\n)[^]*?(?=<!-- /${name} -->)`);
    if (!marked.test(page))
      throw new Error(`${PAGE} has no place between <!-- ${name} --> and <!-- /${name} -->`);
    page = page.replace(marked, () => `${table}\n`);
  }
  await writeFile(PAGE, page);
}

/** By their marks in docs/scale.md. */
function allTables() {
  const results = model.readResults();
  const row = model.readBudgets();
  const all = model.candidates(results, row);
  const [cloakroom] = /** @type {[Candidate]} */ (/** @type {unknown} */ (all));
  const bytes = results.scale?.memory.bytes ?? BYTES_OF_SESSION;
  return {
    mix: mixTable(cloakroom),
    commands: commandsTable(all),
    dollars: dollarsTable(all, bytes),
    capacity: capacityTable(all, bytes),
    queue: queueTable(cloakroom),
    latency: latencyTable(row),
    memory: memoryTable(cloakroom),
    settings: settingsTable(all),
    flood: floodTable(bytes),
  };
}

/** @param {string[]} head @param {string[][]} lines */
function table(head, lines) {
  const rule = head.map((_, at) => (at ? "---:" : "---"));
  return [head, rule, ...lines].map((line) => `| ${line.join(" | ")} |`).join("\n");
}

/** @param {Candidate} cloakroom */
function mixTable(cloakroom) {
  const titles = {
    read: "read the session",
    change: "change its data",
    forged: "no cookie, or a forged one",
    first: "the first change, which begins a session",
    login: "login with a password",
  };
  return table(
    ["", "of all requests", "store calls", "reads", "writes"],
    model.parts(cloakroom).map(({ kind, part, budget }) => {
      const { calls, reads, writes } = budget;
      const title =
        budget === cloakroom.outdated ? "the same, after a change by another isolate" : titles[kind];
      return [title, percent(part), ...[calls.length, reads, writes].map(String)];
    }),
  );
}

/** @param {Candidate[]} all */
function commandsTable(all) {
  return table(
    [
      "",
      "requests a second",
      "store calls a second",
      "commands a second",
      "of 10,000",
      "billed a month, 1 region",
      "5 regions",
    ],
    all.flatMap((candidate) =>
      RATES.map((rate) => {
        const { calls, reads, writes } = model.load(candidate, rate);
        const billed = REGIONS.map((regions) => model.month(candidate, rate, regions, 0).commands / 1e6);
        return [
          candidate.title,
          number(rate),
          few(calls),
          few(reads + writes),
          percent((reads + writes) / payAsYouGo.perSecond),
          ...billed.map((millions) => `${number(millions)} million`),
        ];
      }),
    ),
  );
}

/** @param {Candidate[]} all @param {number} bytes of a session */
function dollarsTable(all, bytes) {
  return table(
    [
      "",
      "requests a second",
      "Workers",
      "Upstash by use, 1 region",
      "5 regions",
      "fixed plan, 1 region",
      "5 regions",
    ],
    all.flatMap((candidate) =>
      RATES.map((rate) => {
        const [one, five] = REGIONS.map((regions) => model.month(candidate, rate, regions, bytes));
        const byUse = (/** @type {typeof one} */ month) =>
          month ? `${dollars(month.byUse)}${month.fitsByUse ? "" : " ✗"}` : "";
        const fixed = (/** @type {typeof one} */ month) =>
          month?.plan ? `${dollars(month.plan.price)} (${month.plan.name})` : "✗";
        return [
          candidate.title,
          number(rate),
          candidate.isWorker ? dollars(one?.workers ?? NaN) : "",
          ...[byUse(one), byUse(five), fixed(one), fixed(five)],
        ];
      }),
    ),
  );
}

/** @param {Candidate[]} all @param {number} bytes of a session */
function capacityTable(all, bytes) {
  // In proportion, once there are more isolates than a visitor meets.
  const many = 10_000;
  const plan = /** @type {typeof UPSTASH_PLANS.fixed[number]} */ (
    UPSTASH_PLANS.fixed.find(({ gigabytes }) => gigabytes * 1e9 >= model.TRAFFIC.sessions * bytes)
  );
  return table(
    [
      "",
      "commands a request",
      `by use is dearer than the ${plan.name} plan (${dollars(plan.price)}) from … requests a second on`,
      "10,000 commands are used up by",
      "16,000 by",
    ],
    all.map((candidate) => {
      const { reads, writes } = model.load(candidate, many);
      const each = (reads + writes) / many;
      const oneMore = model.month(candidate, many, 1, 0).commands * UPSTASH.command;
      return [
        candidate.title,
        few(each),
        few((plan.price * many) / oneMore),
        number(10_000 / each),
        number(16_000 / each),
      ];
    }),
  );
}

/** @param {Candidate} cloakroom */
function queueTable(cloakroom) {
  return table(
    [
      "requests a second",
      "the primary is busy",
      "p50",
      "p99",
      `over ${number(STORE_TIMEOUT_MS)} ms`,
      "under way at once",
    ],
    [1, 100, 1000, 3000, 4000, 10_000].map((rate) => {
      const seconds = rate < 100 ? 1000 : 10;
      const run = simulate({ jobs: jobsOf(cloakroom, rate), rate, seconds, perSecond: payAsYouGo.perSecond });
      const times = run.times();
      const late = times.filter((time) => time > STORE_TIMEOUT_MS).length / times.length;
      return [
        number(rate),
        percent(run.utilisation),
        ...[quantile(times, 0.5), quantile(times, 0.99)].map((time) => `${number(time)} ms`),
        percent(late),
        few(run.underWay),
      ];
    }),
  );
}

/** @param {Candidate} candidate @param {number} rate */
function jobsOf(candidate, rate) {
  const { reads, writes } = model.load(candidate, rate);
  const parts = model.parts(candidate);
  const counted = parts.reduce((sum, { part, budget }) => sum + part * (budget.reads + budget.writes), 0);
  // What comes beside, of windows, touches and clocks, is spread over all.
  const factor = (reads + writes) / rate / counted;
  return parts.map(({ kind, part, budget }) => ({
    kind,
    share: part,
    calls: budget.calls,
    commands: factor * (budget.reads + budget.writes),
  }));
}

/** @param {(row: string) => import("./scale/model.mjs").Budget} row */
function latencyTable(row) {
  /** @param {string} title @param {Where[]} calls @param {"visitor" | "primary"} [worker] */
  const scenario = (title, calls, worker) => ({ title, calls, worker });
  const scenarios = [
    scenario("read", row(model.ROWS.read).calls),
    scenario('read, `limits.session = ""`', row(model.READ_UNCOUNTED).calls),
    scenario("change in 1 call", ["primary"]),
    scenario("change in 2 calls", ["primary", "primary"]),
    scenario("change in 2 calls, `placement`", ["primary", "primary"], "primary"),
    scenario("Hono + Upstash: read", ["primary", "nearest"]),
    scenario("Hono + Upstash: change", ["primary", "nearest", "primary"]),
    scenario("Express beside its Redis: read or change", ["primary", "primary", "primary"], "primary"),
  ];
  const places = /** @type {[Place, string][]} */ (Object.entries(PLACES));
  return table(
    ["p50 / p99 in ms, for visitors in", ...places.map(([, title]) => title)],
    scenarios.map(({ title, calls, worker }) => {
      const { times } = simulate({
        jobs: [{ kind: "all", share: 1, calls, commands: 0 }],
        rate: 100,
        seconds: 100,
        worker,
      });
      const both = (/** @type {number[]} */ sorted) =>
        `${number(quantile(sorted, 0.5))} / ${number(quantile(sorted, 0.99))}`;
      return [title, ...places.map(([place]) => both(times({ place })))];
    }),
  );
}

/** What a read costs in an isolate that serves many. @param {Candidate} cloakroom */
function memoryTable({ budgets }) {
  const { secondsBetween, touchEverySeconds } = model.TRAFFIC;
  const { windows, touches } = model.REMEMBERED;
  return table(
    [
      "sessions in use in one isolate",
      "requests a second to it",
      "opens the window",
      "touches",
      "commands a read",
    ],
    [1000, 10_000, 20_000, 50_000, 200_000].map((sessions) => {
      const opened = model.firstsRemembered(60 / secondsBetween, sessions, windows);
      const touched = model.firstsRemembered(touchEverySeconds / secondsBetween, sessions, touches);
      const commands = budgets.read.reads + budgets.read.writes + opened + touched;
      return [
        number(sessions),
        number(sessions / secondsBetween),
        percent(opened),
        percent(touched),
        few(commands),
      ];
    }),
  );
}

/** @param {Candidate[]} all */
function settingsTable([cloakroom, uncounted]) {
  const rate = 100;
  /** @type {[string, Candidate | undefined, Partial<import("./scale/model.mjs").Traffic>][]} */
  const settings = [
    ["the defaults", cloakroom, {}],
    ['`session.touch_every = "15m"`', cloakroom, { touchEverySeconds: 900 }],
    ['`limits.session = "1500/5m"`', cloakroom, { windowSeconds: 300 }],
    ["both of them", cloakroom, { touchEverySeconds: 900, windowSeconds: 300 }],
    ['`limits.session = ""`, `touch_every = "15m"`', uncounted, { touchEverySeconds: 900 }],
  ];
  return table(
    [
      "",
      ...[1, 4, 16].map(
        (spread) => `commands a request, ${spread} ${spread > 1 ? "isolates" : "isolate"} a visitor`,
      ),
      "by use, a month, 1 region",
      "5 regions",
    ],
    settings.map(([title, candidate = cloakroom, changed]) => {
      const traffic = { ...model.TRAFFIC, ...changed };
      const each = [1, 4, 16].map((spread) => {
        const { reads, writes } = model.load(candidate, rate, { ...traffic, spread });
        return few((reads + writes) / rate);
      });
      const billed = REGIONS.map((regions) =>
        dollars(model.month(candidate, rate, regions, 0, traffic).byUse),
      );
      return [title, ...each, ...billed];
    }),
  );
}

/** @param {number} bytes of a session */
function floodTable(bytes) {
  // The defaults: limits.mint of "60/1m", session.idle of "30m".
  const [perMinute, minutes] = [60, 30];
  return table(
    ["addresses", "sessions begun a second", "commands a second", "sessions in the store", "of memory"],
    [1, 100, 10_000].map((addresses) => {
      const sessions = addresses * perMinute * minutes;
      const perSecond = (addresses * perMinute) / 60;
      const { reads, writes } = model.readBudgets()(model.ROWS.first);
      return [
        number(addresses),
        number(perSecond),
        number(perSecond * (reads + writes)),
        number(sessions),
        `${number((sessions * bytes) / 1e6)} MB`,
      ];
    }),
  );
}
