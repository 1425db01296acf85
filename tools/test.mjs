/**
 * `npm test`: every check there is, in one go; non-zero when one failed.
 *
 *   npm test -- NAME    only the checks and the files of tests/ whose names contain NAME
 *
 * The last line counts tests; a check without tests of its own counts as one.
 */
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { capture, launch, ROOT, say, sentence, stopPrograms, took } from "./say.mjs";
import { ensureSetup } from "./setup.mjs";

/** @typedef {{ ok: boolean, passed?: number, failed?: number, output?: string, note?: string }} Outcome */
/** @typedef {{ name: string, what: string, run: () => Promise<Outcome> }} Check */

/** Each file has a Valkey and a workerd of its own; two at a time is what two cores bear. */
const AT_ONCE = 2;
/** A file that takes longer hangs. */
const PATIENCE_MS = 300_000;
/** These build the Worker that the other files load, so they run after them, one by one. */
const ALONE = /^(start|example-express)\b/;

const QUIET = {
  WRANGLER_SEND_METRICS: "false",
  WRANGLER_HIDE_BANNER: "true",
  CLOUDFLARE_CF_FETCH_ENABLED: "false",
};
const WASM = ["--lib", "--target", "wasm32-unknown-unknown", "--features", "service"];

/** @type {Check} beside cargo's, of which it needs nothing */
const PRETTIER = {
  name: "prettier",
  what: "JavaScript, JSON and CSS are formatted",
  run: () => node("prettier/bin/prettier.cjs", "--check", "."),
};

/** @type {Check[]} one after the other, as cargo lets only one at its files */
const RUST = [
  { name: "fmt", what: "Rust is formatted", run: formatted },
  {
    name: "clippy",
    what: "lints on this machine",
    run: () => cargo("clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"),
  },
  {
    name: "clippy-wasm",
    what: "lints of the Worker itself",
    run: () => cargo("clippy", ...WASM, "--", "-D", "warnings"),
  },
  { name: "cargo-test", what: "tests of the core", run: cargoTest },
  { name: "doc", what: "the documentation builds", run: () => cargo("doc", "--no-deps", "--all-features") },
  {
    name: "package",
    what: "what would be published compiles by itself",
    run: () => cargo("package", "--quiet", "--allow-dirty"),
  },
];

/** @type {Check} */
const BUILD = { name: "build", what: "the Worker", run: build };
/** @type {Check} */
const WORKERS = {
  name: "rust-workers",
  what: "Workers of others that use the crate",
  run: async () => ({ ok: (await launch(process.execPath, ["tools/rust-workers.mjs"]).exited) === 0 }),
};
/** The files that start them. */
const USES_WORKERS = /^(axum|crate-|example-worker|foreign-worker|gateway-identity|tower-sessions)/;
/** @type {Check} with those of what the build has written */
const TSC = { name: "tsc", what: "the types in JavaScript hold", run: () => node("typescript/bin/tsc") };
/** @type {Check} */
const DEPLOY = { name: "deploy", what: "what wrangler would upload", run: dryRun };

const temp = await mkdtemp(join(tmpdir(), "cloakroom-test-"));
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
  process.once(signal, () => void stopPrograms().then(() => leave(130)));
}
try {
  await leave(await main(process.argv[2] ?? ""));
} catch (error) {
  console.error(sentence(error));
  await leave(1);
}

/** @param {string} wanted */
async function main(wanted) {
  const since = Date.now();
  const files = (await readdir(join(ROOT, "tests"))).filter((name) => name.endsWith(".test.mjs")).sort();
  /** @param {Check[]} checks */
  const chosen = (checks) => checks.filter(({ name }) => name.includes(wanted));

  const together = files.filter((name) => !ALONE.test(name) && name.includes(wanted));
  const usesWorkers = together.some((name) => USES_WORKERS.test(name));
  const afterwards = [
    ...(usesWorkers ? [WORKERS] : []),
    ...chosen([
      TSC,
      ...(together.length
        ? [{ name: wanted, what: together.join(", "), run: () => nodeTests(together) }]
        : []),
      ...files
        .filter((name) => ALONE.test(name))
        .map((name) => ({ name, what: "npm start itself", run: () => nodeTests([name]) })),
      DEPLOY,
    ]),
  ];
  const first = [chosen([PRETTIER]), chosen(RUST)];
  const builds = afterwards.length > 0 || BUILD.name.includes(wanted);
  if (!builds && !first.flat().length) {
    const names = [PRETTIER, ...RUST, BUILD, TSC, DEPLOY].map(({ name }) => name);
    throw new Error(
      `No check and no test file has "${wanted}" in its name. There are: ${[...names, ...files].join(", ")}.`,
    );
  }
  await ensureSetup({ forTests: true });

  /** @type {{ check: Check, outcome: Outcome }[]} */
  const results = [];
  /** @param {Check[]} checks */
  const inOrder = async (checks) => {
    for (const check of checks) results.push({ check, outcome: await perform(check) });
  };
  await Promise.all(first.map(inOrder));
  if (builds) {
    await inOrder([BUILD]);
    if (results.at(-1)?.outcome.ok) await inOrder(afterwards);
    else
      for (const check of afterwards)
        results.push({ check, outcome: { ok: false, note: "not run: no build" } });
  }
  return summary(results, since);
}

/**
 * @param {Check} check
 * @returns {Promise<Outcome>}
 */
async function perform({ name, what, run }) {
  const since = Date.now();
  say(`▶ ${title(name, what)}`);
  const outcome = await run();
  if (!outcome.ok && outcome.output) say(outcome.output.trimEnd());
  say(
    `${outcome.ok ? "✔" : "✘"} ${name || "tests"} (${took(since)})${outcome.note ? `: ${outcome.note}` : ""}`,
  );
  return outcome;
}

/**
 * @param {{ check: Check, outcome: Outcome }[]} results
 * @param {number} since
 */
function summary(results, since) {
  let [passed, failed] = [0, 0];
  say("");
  for (const { check, outcome } of results) {
    const own = (outcome.passed ?? 0) + (outcome.failed ?? 0);
    passed += own ? (outcome.passed ?? 0) : Number(outcome.ok);
    // A run that failed has failed, even when each test of it that could report was well.
    failed += outcome.ok ? 0 : outcome.failed || 1;
    if (!outcome.ok) say(`✘ ${title(check.name, check.what)}${outcome.note ? `: ${outcome.note}` : ""}`);
  }
  say(`${results.length} checks in ${took(since)}`);
  say(`${passed} passed, ${failed} failed`);
  return failed ? 1 : 0;
}

/**
 * @param {string} name
 * @param {string} what
 */
function title(name, what) {
  return `${name || "tests"}: ${what}`;
}

/** @param {string[]} args @returns {Promise<Outcome>} */
async function cargo(...args) {
  const { code, output } = await capture("cargo", args, { env: { RUSTDOCFLAGS: "-D warnings" } });
  return { ok: code === 0, output };
}

/** The crate, and beside it the Workers that use it, which are packages of their own. @returns {Promise<Outcome>} */
async function formatted() {
  const rooms = ["examples", "tests/fixtures", "bench/candidates"];
  const names = await Promise.all(
    rooms.map(async (room) => (await readdir(join(ROOT, room))).map((name) => join(room, name))),
  );
  const manifests = names.flat().map((folder) => join(folder, "Cargo.toml"));
  const packages = manifests.filter((manifest) => existsSync(join(ROOT, manifest)));
  const outcomes = [await cargo("fmt", "--all", "--check")];
  for (const manifest of packages) outcomes.push(await cargo("fmt", "--check", "--manifest-path", manifest));
  return outcomes.find(({ ok }) => !ok) ?? { ok: true };
}

/** @returns {Promise<Outcome>} */
async function cargoTest() {
  const outcome = await cargo("test", "--no-fail-fast", "--all-features");
  let [passed, failed] = [0, 0];
  for (const [, good, bad] of (outcome.output ?? "").matchAll(
    /^test result: .*? (\d+) passed; (\d+) failed/gm,
  )) {
    passed += Number(good);
    failed += Number(bad);
  }
  return { ...outcome, passed, failed, note: `${passed} passed, ${failed} failed` };
}

/** @param {string} script in node_modules @param {string[]} args @returns {Promise<Outcome>} */
async function node(script, ...args) {
  const { code, output } = await capture(process.execPath, [join("node_modules", script), ...args]);
  return { ok: code === 0, output };
}

/** It says itself what it does. @returns {Promise<Outcome>} */
async function build() {
  return { ok: (await launch(process.execPath, ["tools/build.mjs"]).exited) === 0 };
}

/** @param {string[]} files of tests/ @returns {Promise<Outcome>} */
async function nodeTests(files) {
  const tap = join(temp, `${files[0]}.tap`);
  const reporters = ["--test-reporter=spec", "--test-reporter-destination=stdout"];
  reporters.push("--test-reporter=tap", `--test-reporter-destination=${tap}`);
  const paths = files.map((name) => join("tests", name));
  const args = [
    "--test",
    `--test-concurrency=${AT_ONCE}`,
    `--test-timeout=${PATIENCE_MS}`,
    ...reporters,
    ...paths,
  ];
  const code = await launch(process.execPath, args).exited;

  const text = await readFile(tap, "utf8").catch(() => "");
  /** @param {string} what */
  const count = (what) => Number(new RegExp(`^# ${what} (\\d+)$`, "m").exec(text)?.[1] ?? 0);
  const [passed, failed] = [count("pass"), count("fail") + count("cancelled")];
  const skipped = count("skipped") + count("todo");
  const note = `${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ""}`;
  return { ok: code === 0, passed, failed, note };
}

/** @returns {Promise<Outcome>} */
async function dryRun() {
  const args = [
    "node_modules/wrangler/bin/wrangler.js",
    "deploy",
    "--dry-run",
    "--outdir",
    join(temp, "upload"),
  ];
  const env = { ...QUIET, XDG_CONFIG_HOME: join(temp, "config") };
  const { code, output } = await capture(process.execPath, args, { env });
  return { ok: code === 0, output, note: /Total Upload: .*/.exec(stripVTControlCharacters(output))?.[0] };
}

/** @param {number} code */
async function leave(code) {
  await rm(temp, { recursive: true, force: true });
  process.exit(code);
}
