/**
 * `npm run bench`: what a session check costs, next to what people use today. All candidates run at the same time,
 * under plain workerd, and are measured in turn, round after round; the figures are medians over the rounds.
 *
 *   --quick      about a minute: fewer rounds, and only the cells of the first table
 *   --only NAME  one candidate (more with commas), besides the floors
 *   --rounds N   5, or 3 with --quick
 *   --write      results.md, results.json and cpu.svg in bench/; else the table is printed
 *   --no-build   takes what is in build/
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const BENCH = fileURLToPath(new URL(".", import.meta.url));
const { values: options } = parseArgs({
  options: {
    quick: { type: "boolean", default: false },
    only: { type: "string" },
    rounds: { type: "string" },
    write: { type: "boolean", default: false },
    "no-build": { type: "boolean", default: false },
  },
});
if (process.platform !== "linux") fail("CPU time is read from /proc, so this needs Linux");

// 1. What is needed.
if (!options["no-build"]) {
  const { ensureSetup } = await import("../tools/setup.mjs");
  await ensureSetup();
  execFileSync(process.execPath, [join(BENCH, "../tools/build.mjs")], { stdio: "inherit" });
}
installPeers();
const { CANDIDATES } = await import("./candidates.mjs");
const { measure } = await import("./lib/measure.mjs");
const { chart, table } = await import("./lib/report.mjs");

const wanted = options.only?.split(",");
const strangers = wanted?.filter((name) => !CANDIDATES.some((candidate) => candidate.name === name)) ?? [];
if (strangers.length) {
  fail(`no such candidate: ${strangers}; there are ${CANDIDATES.map(({ name }) => name).join(", ")}`);
}
const candidates = CANDIDATES.filter(({ name, floor }) => floor || !wanted || wanted.includes(name));

// 2. The run.
const began = new Date();
const [before] = loadavg();
const folder = mkdtempSync(join(tmpdir(), "cloakroom-bench-"));
process.on("exit", () => rmSync(folder, { recursive: true, force: true }));
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));
const figures = await measure(candidates, {
  folder,
  rounds: Number(options.rounds ?? (options.quick ? 3 : 5)),
  milliseconds: options.quick ? 500 : 800,
  starts: options.quick ? 3 : 7,
  all: !options.quick,
});

// 3. The report.
const results = {
  date: began.toISOString(),
  command: `npm run bench -- ${process.argv.slice(2).join(" ")}`.replace(/ -- $/, ""),
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
const markdown = table(results);
console.log(`\n${markdown}`);
if (options.write) {
  writeFileSync(join(BENCH, "results.md"), markdown);
  writeFileSync(join(BENCH, "results.json"), `${JSON.stringify(results, null, 1)}\n`);
  writeFileSync(join(BENCH, "cpu.svg"), chart(results));
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
