/**
 * `npm run torture`: random schedules of requests and failures against the built Worker, each checked against
 * what docs/ promises of sessions; and the races known to be dangerous, over and over.
 */
import { parseArgs } from "node:util";
import { startStages, THEMES, torture } from "../tests/support/torture.mjs";
import { explain } from "../tests/support/torture/report.mjs";
import { runScenario, SCENARIOS } from "../tests/support/torture/scenarios.mjs";
import { say, sentence, took } from "./say.mjs";

const USAGE = `npm run torture -- [OPTION…]

  --seed N        the first schedule's seed; without it a random one, which is printed
  --schedules N   how many schedules, each with the next seed (1000)
  --theme NAME    only schedules of this kind: ${Object.keys(THEMES).join(", ")}
  --all           goes on when a promise is broken, and tells each kind of violation once
  --runs N        how often the cheapest scenarios run, the others less often (1000; with --seed 0)
  --seconds N     nothing more begins after that (900)

  node tools/torture.mjs --seed N --schedules 1   plays one schedule again. What is done is the same
                                                  every time, how it interleaves is not: try it often.
It loads what npm run build has built. Exits with 1 when a promise is broken.`;

/** @typedef {import("../tests/support/torture.mjs").Failure} Failure */
/** @typedef {import("../tests/support/torture.mjs").Stage} Stage */

const PROGRESS_MS = 5000;

try {
  process.exit(await main());
} catch (error) {
  console.error(sentence(error));
  process.exit(1);
}

async function main() {
  const options = readOptions();
  if (!options) return 0;
  const { seconds, runs, ...more } = options;
  const since = Date.now();
  const until = since + seconds * 1000;
  say(`seed ${options.seed}`);

  const { stages, stop } = await startStages();
  try {
    const broken = await runScenarios(stages, runs, until);
    const unharmed = await runSchedules(stages, { ...more, until });
    say(`${took(since)} in all`);
    return broken || !unharmed ? 1 : 0;
  } finally {
    await stop();
  }
}

/** @param {Stage[]} stages @param {number} runs @param {number} until */
async function runScenarios([calm], runs, until) {
  let broken = 0;
  if (!calm || runs === 0) return broken;
  for (const scenario of SCENARIOS) {
    const since = Date.now();
    const times = Math.ceil(runs / scenario.cost);
    let done = 0;
    try {
      for (; done < times && Date.now() < until; done += 1) await runScenario(calm, scenario);
      say(`✔ ${scenario.name}: ${done} times (${took(since)})`);
    } catch (error) {
      broken += 1;
      say(`✘ ${scenario.name}, after ${done} times:\n${sentence(error)}`);
    }
  }
  return broken;
}

/**
 * @param {Stage[]} stages
 * @param {{ seed: number, schedules: number, only?: string, goOn: boolean, until: number }} options
 */
async function runSchedules(stages, options) {
  const since = Date.now();
  let said = since;
  const { failures, ...done } = await torture(stages, {
    ...options,
    progress: (tally) => {
      if (Date.now() - said < PROGRESS_MS) return;
      said = Date.now();
      say(`  ${tally.schedules} of ${options.schedules} schedules, ${tally.operations} requests`);
    },
  });
  const sum = `${done.schedules} schedules, ${done.operations} requests (${took(since)})`;
  if (failures.length) {
    say(`✘ ${sum}; ${failures.length} broke what is promised`);
    report(failures);
    return false;
  }
  say(`✔ ${sum}${done.slow ? `; ${done.slow} took too long to be judged` : ""}`);
  if (done.schedules < options.schedules) say(`  ${options.schedules} were wanted; --seconds was over`);
  return true;
}

/** Each kind of violation once, with the seed to see it again, and which others show it. @param {Failure[]} failures */
function report(failures) {
  /** @type {Map<string, Failure[]>} by theme and rule */
  const kinds = new Map();
  for (const failure of failures) {
    for (const rule of new Set(failure.violations.map(({ rule }) => rule))) {
      const kind = `${failure.schedule.theme}: ${rule}`;
      kinds.set(kind, [...(kinds.get(kind) ?? []), failure]);
    }
  }
  for (const [kind, [first, ...others]] of kinds) {
    if (!first) continue;
    const { theme, seed } = first.schedule;
    const violation = first.violations.find(({ rule }) => `${theme}: ${rule}` === kind);
    const seeds = others.slice(0, 10).map(({ schedule }) => schedule.seed);
    say(`\n${violation ? explain(violation) : kind}`);
    say(`\n  ${theme}, seed ${seed}${seeds.length ? `; also ${others.length}: ${seeds.join(", ")}` : ""}`);
    say(`  Again: node tools/torture.mjs --theme ${theme} --seed ${seed} --schedules 1`);
  }
}

function readOptions() {
  const text = { type: /** @type {const} */ ("string") };
  const { values } = parseArgs({
    options: {
      seed: text,
      schedules: text,
      runs: text,
      seconds: text,
      theme: text,
      all: { type: "boolean" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    say(USAGE);
    return undefined;
  }
  const number = (
    /** @type {"seed" | "schedules" | "runs" | "seconds"} */ name,
    /** @type {number} */ otherwise,
  ) => {
    const value = values[name] === undefined ? otherwise : Number(values[name]);
    if (!Number.isSafeInteger(value) || value < 0)
      throw new Error(`--${name} takes a whole number\n\n${USAGE}`);
    return value;
  };
  return {
    only: values.theme,
    goOn: values.all ?? false,
    seed: number("seed", Math.floor(Math.random() * 1e9)),
    schedules: number("schedules", 1000),
    runs: number("runs", values.seed === undefined ? 1000 : 0),
    seconds: number("seconds", 900),
  };
}
