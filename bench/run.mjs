/** `npm run bench`: see USAGE. */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { sentence } from "../tools/say.mjs";

/** @typedef {import("./lib/report.mjs").Results} Results */
/** @typedef {keyof Results} Part */

const USAGE = `npm run bench -- [OPTION…]

Measures what a session check costs, next to what people use today. All candidates run at the same time, under plain
workerd, and are measured in turn, round after round; the figures are medians over the rounds.

  --comparison   what is measured without an option: next to others
  --growth       instead: how Cloakroom's cost grows with data, limits and sessions
  --profile      instead: what the CPU time of a request goes into, by Linux' perf (it says what to install)
  --gateway      instead: what the gateway takes in front of an application, next to a bare pass-through
  --latency      instead: how long a visitor waits for a store that is 5 and 50 ms away, next to others
  --contention   instead: a hundred changes of one session at once over four isolates, next to others
  --scale        instead: a million sessions in the store, their memory, latency and hot keys; four minutes, 4 GB of free memory
  --crossings    instead: what each kind of call into the platform takes
  --write        into docs/performance.md, and bench/results.json, cpu.svg and profile.svg; else it is printed. Measures
                 all of these, or those that are named, and leaves the figures of the others; and brings docs/scale.md
                 up to date, which sums them up
  --quick        shorter and fewer rounds, and only the cells of the first table
  --rounds N     5, or 3 with --quick
  --only NAME    one candidate (more with commas), besides the floors; not with --growth, --profile, --gateway, --crossings, --scale, --write. Some, as
                 cloakroom-express and cloakroom-flask, are measured only when they are named
  --before DIR   an earlier build as a further candidate, "before", and a table of the new against it. DIR has its index.js
                 and cloakroom_bg.wasm: build/ of another checkout, say
  --before-label TEXT  what to call it, if not by the name of its folder
  --data KB      sessions hold so much more: a cart with many things
  --no-floors    without the floors
  --no-build     takes what is in build/`;

const BENCH = fileURLToPath(new URL(".", import.meta.url));
const RESULTS = join(BENCH, "results.json");
const PAGE = join(BENCH, "../docs/performance.md");
const MARKED = /(?<=<!-- results -->\n)[^]*(?=\n<!-- \/results -->)/;

const options = readOptions();
if (process.platform !== "linux") fail("CPU time is read from /proc, so this needs Linux");
const rounds = options.rounds ?? (options.quick ? 3 : 5);
const parts = choose();

// 1. What is needed.
if (!options["no-build"]) {
  const { ensureSetup } = await import("../tools/setup.mjs");
  await ensureSetup();
  execFileSync(process.execPath, [join(BENCH, "../tools/build.mjs")], { stdio: "inherit" });
}
installPeers();
process.env.BENCH_KILOBYTES = options.data ?? "0"; // before the candidates are read
const { CANDIDATES, buildBefore } = await import("./candidates.mjs");
const { measure } = await import("./lib/measure.mjs");
const { grow } = await import("./lib/growth.mjs");
const { wait } = await import("./lib/latency.mjs");
const { contend } = await import("./lib/contention.mjs");
const { profile } = await import("./lib/profile.mjs");
const { scale } = await import("./lib/scale.mjs");
const { report } = await import("./lib/report.mjs");
const { cross } = await import("./lib/crossings.mjs");
const { IN_FRONT } = await import("./lib/gateway.mjs");
const { cpuChart, profileChart } = await import("./lib/chart.mjs");

const candidates = chooseCandidates();

// 2. The runs.
const folder = mkdtempSync(join(tmpdir(), "cloakroom-bench-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => process.exit(130));
/** @type {Record<Part, () => Promise<any>>} */
const runs = {
  comparison: () =>
    measure(candidates, {
      folder,
      rounds,
      milliseconds: options.quick ? 500 : 800,
      starts: options.quick && !options.before ? 3 : 15,
      all: !options.quick,
    }),
  profile: () => profile({ folder, rounds, milliseconds: options.quick ? 1200 : 2500 }),
  gateway: () =>
    measure(
      CANDIDATES.filter(({ name }) => name === "cloakroom" || IN_FRONT.includes(name)),
      {
        folder,
        rounds,
        milliseconds: options.quick ? 500 : 800,
        starts: 1, // it is the same build
        all: !options.quick,
        jobs: ["read", "forged"],
      },
    ),
  latency: () => wait(candidates, { folder, rounds }),
  contention: () => contend(candidates, { folder, rounds }),
  crossings: () => cross({ folder, rounds, milliseconds: options.quick ? 200 : 400 }),
  growth: () => grow({ folder, rounds, milliseconds: options.quick ? 300 : 800 }),
  scale: () => scale({ folder, rounds, milliseconds: options.quick ? 300 : 800 }),
};
/** @type {Results} */
const results = {};
for (const part of parts) {
  results[part] = await recorded(runs[part]).catch((error) => fail(sentence(error)));
}

// 3. The report.
console.log(`\n${report(results)}`);
if (options.write) {
  const { comparison, profile, crossings, gateway, latency, contention, growth, scale } = {
    ...written(),
    ...results,
  };
  const all = { comparison, profile, crossings, gateway, latency, contention, growth, scale };
  const page = readFileSync(PAGE, "utf8");
  if (!MARKED.test(page)) fail(`${PAGE} has no place between <!-- results --> and <!-- /results -->`);
  writeFileSync(
    PAGE,
    page.replace(MARKED, () => report(all)),
  );
  writeFileSync(RESULTS, `${JSON.stringify(all, null, 1)}\n`);
  execFileSync(process.execPath, [join(BENCH, "../tools/scale.mjs"), "--write"]);
  if (comparison) writeFileSync(join(BENCH, "cpu.svg"), cpuChart(comparison));
  if (profile) writeFileSync(join(BENCH, "profile.svg"), profileChart(profile));
}

/** @returns {Part[]} */
function choose() {
  const all = /** @type {Part[]} */ ([
    "comparison",
    "profile",
    "crossings",
    "gateway",
    "latency",
    "contention",
    "growth",
    "scale",
  ]);
  const named = all.filter((part) => options[part]);
  if (named.length) return named;
  return options.write ? all : ["comparison"];
}

/** An earlier build comes right before the present one: the closer in time, the better they compare. */
function chooseCandidates() {
  const { before } = options;
  const known = CANDIDATES.flatMap((candidate) =>
    before && candidate.name === "cloakroom"
      ? [buildBefore(before.folder, before.label), candidate]
      : [candidate],
  );
  const wanted = options.only?.split(",");
  const strangers = wanted?.filter((name) => !known.some((candidate) => candidate.name === name)) ?? [];
  if (strangers.length) {
    fail(`no such candidate: ${strangers}; there are ${known.map(({ name }) => name).join(", ")}`);
  }
  return known.filter(({ name, floor, byNameOnly }) => {
    if (byNameOnly && !wanted?.includes(name)) return false;
    if (floor) return wanted?.includes(name) || !options["no-floors"];
    return !wanted || wanted.includes(name) || name === "before";
  });
}

/** @param {() => Promise<any>} run @returns {Promise<any>} its figures, and how they came about */
async function recorded(run) {
  const began = new Date();
  const [before] = loadavg();
  const figures = await run();
  return {
    date: began.toISOString(),
    command: `npm run bench -- ${withoutFolders(process.argv.slice(2)).join(" ")}`.replace(/ -- $/, ""),
    machine: {
      cpu: cpus()[0]?.model ?? "",
      cores: cpus().length,
      kernel: execFileSync("uname", ["-sr"]).toString().trim(),
      node: process.versions.node,
      /** What else ran: the load average just before. Well under 1 is calm. */
      loadBefore: before ?? 0,
    },
    versions: installed(),
    seconds: Math.round((Date.now() - began.getTime()) / 1000),
    ...figures,
  };
}

/** Where an earlier build lay on this machine tells nobody anything. @param {string[]} args */
function withoutFolders(args) {
  return args.map((arg, at) =>
    args[at - 1] === "--before" ? "DIR" : arg.replace(/^--before=.*/s, "--before=DIR"),
  );
}

/** @returns {Results} what earlier runs have written */
function written() {
  try {
    return JSON.parse(readFileSync(RESULTS, "utf8"));
  } catch {
    return {};
  }
}

function readOptions() {
  const known = /** @type {const} */ ({
    comparison: { type: "boolean" },
    growth: { type: "boolean" },
    profile: { type: "boolean" },
    gateway: { type: "boolean" },
    latency: { type: "boolean" },
    contention: { type: "boolean" },
    crossings: { type: "boolean" },
    scale: { type: "boolean" },
    write: { type: "boolean" },
    quick: { type: "boolean" },
    rounds: { type: "string" },
    only: { type: "string" },
    before: { type: "string" },
    "before-label": { type: "string" },
    data: { type: "string" },
    "no-floors": { type: "boolean" },
    "no-build": { type: "boolean" },
    help: { type: "boolean", short: "h" },
  });
  try {
    const { values } = parseArgs({ options: known });
    if (values.help) {
      console.log(USAGE);
      process.exit();
    }
    if (values.rounds !== undefined && !/^[1-9]\d*$/.test(values.rounds)) {
      throw new Error(`--rounds is a number from 1 on, not "${values.rounds}"`);
    }
    if (values.data !== undefined && (!/^[1-9]\d?$/.test(values.data) || values.write)) {
      throw new Error("--data is a number of KB from 1 to 99, and does not go with --write");
    }
    const isOther = values.growth || values.profile || values.gateway || values.crossings || values.scale;
    if (values.only !== undefined && (isOther || values.write)) {
      throw new Error(
        "--only goes with none of --growth, --profile, --gateway, --crossings, --scale and --write",
      );
    }
    const before = readBefore(values.before, values["before-label"]);
    const only = values.only?.split(",");
    if (before && only && !only.includes("cloakroom")) {
      throw new Error("--before needs cloakroom to compare with: --only cloakroom");
    }
    if (only?.includes("before") && !before) throw new Error("--only before needs --before DIR");
    if ((before || values["no-floors"]) && isOther && !values.comparison) {
      throw new Error(
        "--before and --no-floors are of the comparison, not of --growth, --profile, --gateway, --crossings or --scale",
      );
    }
    if (values["no-floors"] && values.write) throw new Error("--no-floors does not go with --write");
    return { ...values, before, rounds: values.rounds === undefined ? undefined : Number(values.rounds) };
  } catch (error) {
    return fail(`${/** @type {Error} */ (error).message}\n\n${USAGE}`);
  }
}

/** @param {string | undefined} given @param {string | undefined} label */
function readBefore(given, label) {
  if (given === undefined) {
    if (label !== undefined) throw new Error("--before-label needs --before DIR");
    return undefined;
  }
  const folder = resolve(process.env.INIT_CWD ?? ".", given); // npm itself runs us in the project's folder
  for (const file of ["index.js", "cloakroom_bg.wasm"]) {
    if (!existsSync(join(folder, file))) throw new Error(`--before: there is no ${join(folder, file)}`);
  }
  // It stands in tables and pictures.
  if (label !== undefined && !/^[\w .,:+/-]+$/.test(label)) {
    throw new Error("--before-label is of letters, digits, spaces and . , : + / - _");
  }
  const name = basename(folder) === "build" ? basename(dirname(folder)) : basename(folder);
  return { folder, label: label ?? name };
}

/** The peers, which are dependencies of this folder only. Their install scripts are not needed, and not run. */
function installPeers() {
  const asked = JSON.parse(readFileSync(join(BENCH, "package.json"), "utf8")).dependencies;
  const there = installed();
  if (Object.entries(asked).every(([name, version]) => there[name] === version)) return;
  console.log("Installing what Cloakroom is compared with, into bench/node_modules …");
  const quietly = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
  execFileSync("npm", ["ci", ...quietly], { cwd: BENCH, stdio: "inherit" });
}

/** @returns {Record<string, string>} the peers' versions */
function installed() {
  const { dependencies } = JSON.parse(readFileSync(join(BENCH, "package.json"), "utf8"));
  /** @type {Record<string, string>} */
  const versions = {};
  for (const name of Object.keys(dependencies)) {
    try {
      const text = readFileSync(join(BENCH, "node_modules", name, "package.json"), "utf8");
      versions[name] = JSON.parse(text).version;
    } catch {
      // Missing: to be installed.
    }
  }
  return versions;
}

/** @param {string} why @returns {never} */
function fail(why) {
  console.error(`bench: ${why}`);
  process.exit(1);
}
