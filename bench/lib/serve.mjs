/** Makes a candidate ready to run, runs it under plain `workerd serve` or Node, and reads what it uses from /proc. */
import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import * as workerd from "workerd";
import { freePort } from "../../tools/port.mjs";
import { bundleRustWorker, useVersions } from "../../tools/rust-worker.mjs";
import { killPrograms, launch } from "../../tools/say.mjs";

/** @typedef {import("../candidates.mjs").Candidate} Candidate */
/** @typedef {import("./store.mjs").Store} Store */
/** @typedef {{ program: string, args: (port: number) => string[], env: Record<string, string>, size?: Size, noise?: string }} Ready `noise`: in lines that it writes for each request */
/** @typedef {{ raw: number, gzip: number }} Size */

const BENCH = fileURLToPath(new URL("..", import.meta.url));
const COMPATIBILITY_DATE = "2026-04-01";
/** The package says so as a module with, and as one without a default. @type {string} */
const WORKERD = /** @type {any} */ (workerd.default)?.default ?? workerd.default;
const START_TIMEOUT_MS = 15_000;
/** The same for all. */
const SECRET = "the-secret-of-the-benchmark-of-more-than-32-characters";

/**
 * Bundles a candidate as wrangler would, and writes workerd's configuration.
 *
 * @param {Candidate} candidate
 * @param {string} folder for what is made
 * @param {Store} store
 * @param {{ areFunctionsNamed?: boolean, origin?: string }} [options] `areFunctionsNamed`: to perf; `origin`: of the application
 *   behind it
 * @returns {Promise<Ready>}
 */
export async function prepare(candidate, folder, store, { areFunctionsNamed = false, origin = "" } = {}) {
  const secrets = {
    SESSION_SECRET: SECRET,
    UPSTASH_REDIS_REST_URL: store.url,
    UPSTASH_REDIS_REST_TOKEN: store.token,
    ...(candidate.inFront ? { ORIGIN: origin } : {}),
    ...candidate.secrets,
  };
  if (candidate.node) {
    const entry = join(BENCH, candidate.node);
    const env = { SESSION_SECRET: SECRET, NODE_ENV: "production" };
    return { program: process.execPath, args: (port) => [entry, String(port), store.socket], env };
  }

  const home = join(folder, candidate.name);
  mkdirSync(home, { recursive: true });
  const wasm = [];
  const built = candidate.rust ? await buildRust(candidate.name, candidate.rust) : candidate.built;
  if (built) {
    // Copied, as somebody may build while this runs.
    for (const file of ["index.js", "cloakroom_bg.wasm"]) copyFileSync(join(built, file), join(home, file));
    wasm.push("cloakroom_bg.wasm");
  } else {
    await build({
      entryPoints: [join(BENCH, candidate.worker ?? "")],
      outfile: join(home, "index.js"),
      bundle: true,
      minify: !areFunctionsNamed,
      format: "esm",
      target: "es2024",
      conditions: ["workerd", "worker", "browser"],
      define: { "process.env.NODE_ENV": '"production"' },
      external: ["node:*", "cloudflare:*"],
      logLevel: "warning",
    });
  }
  const files = ["index.js", ...wasm].map((file) => readFileSync(join(home, file)));
  const modules = [
    '(name = "index.js", esModule = embed "index.js")',
    ...wasm.map((file) => `(name = "${file}", wasm = embed "${file}")`),
  ];
  const { tables = {} } = candidate;
  const bindings = [
    ...Object.entries(secrets).map(([name, text]) => `(name = "${name}", text = ${JSON.stringify(text)})`),
    ...Object.entries(typeof tables === "function" ? tables(origin) : tables).map(
      ([name, table]) => `(name = "${name}", json = ${JSON.stringify(JSON.stringify(table))})`,
    ),
  ];
  const config = join(home, "config.capnp");
  writeFileSync(
    config,
    `using Workerd = import "/workerd/workerd.capnp";

const config :Workerd.Config = (
  v8Flags = [${areFunctionsNamed ? '"--perf-basic-prof", "--no-logfile-per-isolate", "--logfile=/dev/null"' : ""}],
  services = [
    (name = "main", worker = .main),
    (name = "internet", network = (allow = ["public", "private"])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "main")],
);

const main :Workerd.Worker = (
  modules = [${modules.join(", ")}],
  bindings = [${bindings.join(", ")}],
  compatibilityDate = "${COMPATIBILITY_DATE}",
  compatibilityFlags = [${(candidate.flags ?? []).map((flag) => `"${flag}"`).join(", ")}],
);
`,
  );
  return {
    program: WORKERD,
    args: (port) => ["serve", config, "--socket-addr", `http=127.0.0.1:${port}`],
    env: {},
    noise: candidate.inFront ? '"event":"gateway_refused"' : undefined,
    size: {
      raw: files.reduce((sum, file) => sum + file.length, 0),
      gzip: files.reduce((sum, file) => sum + gzipSync(file, { level: 9 }).length, 0),
    },
  };
}

/** @param {string} name @param {string} folder */
async function buildRust(name, folder) {
  await useVersions(folder);
  return bundleRustWorker({ folder, name: `bench-${name}` });
}

process.on("exit", killPrograms);

/**
 * Starts a candidate and waits until `isServed`. It ends with us, also when we are killed.
 *
 * @param {Ready} ready
 * @param {(port: number) => Promise<unknown>} isServed throws while it is not
 * @param {string[]} [more] arguments
 */
export async function start({ program, args, env, noise }, isServed, more = []) {
  const port = await freePort();
  const began = performance.now();
  const guarded = launch(program, [...args(port), ...more], { env, capture: noise !== undefined });
  for (const input of [guarded.stdout, guarded.stderr]) {
    if (!input) continue;
    createInterface({ input }).on("line", (line) => line.includes(noise ?? "") || console.error(line));
  }
  let isOver = false;
  const exited = guarded.exited.then(() => (isOver = true));
  const stop = async () => {
    guarded.kill();
    await exited;
  };
  for (;;) {
    try {
      await isServed(port);
      break;
    } catch (error) {
      if (isOver || performance.now() - began > START_TIMEOUT_MS) {
        await stop();
        throw new Error(`${program} ${args(port).join(" ")} did not start`, { cause: error });
      }
      await sleep(1);
    }
  }
  const startup = performance.now() - began;
  // The first child of the shell that ends it with us.
  const pid = parseInt(readFileSync(`/proc/${guarded.pid}/task/${guarded.pid}/children`, "utf8"), 10);
  return {
    port,
    pid,
    /** Milliseconds from spawn to the first response. */
    startup,
    /** CPU time of the process so far, user and system, all threads, in milliseconds. */
    cpu() {
      const threads = readdirSync(`/proc/${pid}/task`);
      const nanoseconds = (/** @type {string} */ thread) =>
        parseInt(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "utf8"), 10);
      return threads.reduce((sum, thread) => sum + nanoseconds(thread), 0) / 1e6;
    },
    /** Resident memory in bytes. */
    memory: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]) * 1024,
    stop,
  };
}
