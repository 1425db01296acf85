/** Where the time goes: V8's samples of the serving workerd, sorted into a few parts. */
import { copyFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { WebSocket } from "ws";
import { freePort } from "../../tools/port.mjs";
import { CANDIDATES } from "../candidates.mjs";
import { SESSION } from "../candidates/session.js";
import { PARTS, partOf } from "./attribute.mjs";
import { median } from "./figures.mjs";
import { load } from "./load.mjs";
import { once, progress, visitors } from "./measure.mjs";
import { prepare, start } from "./serve.mjs";
import { startStore } from "./store.mjs";

/** @typedef {import("../candidates.mjs").Candidate} Candidate */
/** @typedef {import("./measure.mjs").Job} Job */
/** @typedef {import("./measure.mjs").Server} Server */
/** @typedef {Record<Part, number>} Split */
/** @typedef {{ cpu: number, parts: Split }} Round microseconds of each request */
/** @typedef {Round & { title: string, job: Job, rounds: Round[] }} Profiled */
/** @typedef {{ rounds: number, profiled: Profiled[] }} Profile */
/** @typedef {import("./attribute.mjs").Node} Node */
/** @typedef {import("./attribute.mjs").Part} Part */
/** @typedef {import("./attribute.mjs").Regions} Regions */
/** @typedef {{ nodes: Node[], samples: number[], timeDeltas: number[] }} Samples */

/** @type {{ name: string, jobs: Job[] }[]} */
const SUBJECTS = [
  { name: "one-call", jobs: ["read"] },
  { name: "cloakroom", jobs: ["forged", "read", "change"] },
  { name: "hono-upstash", jobs: ["read"] },
];

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
/** Where the Worker's JavaScript begins: the first that there is. */
const ENTRIES = ["src/entry.js", "src/edge.js"];
const CONNECTIONS = 32;
const WARM_UP_MS = 1500;
/** Between samples, in microseconds. More often disturbs what is measured. */
const INTERVAL = 500;

/**
 * @param {{ folder: string, rounds: number, milliseconds: number }} options
 * @returns {Promise<Profile>}
 */
export async function profile({ folder, rounds, milliseconds }) {
  const store = await startStore();
  /** @type {{ stop: () => Promise<unknown> }[]} */
  const servers = [];
  try {
    await store.set("bench:constant", JSON.stringify(SESSION));
    const runs = [];
    for (const { name, jobs } of SUBJECTS) {
      const candidate = await readable(name, folder);
      const ready = await prepare(candidate, folder, store, { minify: false });
      const address = `127.0.0.1:${await freePort()}`;
      const isServed = (/** @type {number} */ port) => once(port, candidate.read);
      const server = await start(ready, isServed, [`--inspector-addr=${address}`]);
      servers.push(server);
      const inspector = await inspect(address);
      const regions = regionsOf(readFileSync(join(folder, name, "index.js"), "utf8"));
      for (const job of jobs) {
        progress(`Warming up: ${name}, ${job}`);
        const loaded = await underLoad(candidate, server, job);
        await loaded({ milliseconds: WARM_UP_MS });
        loaded.end();
        const rounds = /** @type {Round[]} */ ([]);
        runs.push({ candidate, job, server, inspector, regions, rounds });
      }
    }

    for (let round = 1; round <= rounds; round += 1) {
      for (const { candidate, job, server, inspector, regions, rounds: figures } of runs) {
        progress(`Round ${round} of ${rounds}: ${candidate.name}, ${job}`);
        const loaded = await underLoad(candidate, server, job);
        // Once without the profiler, which takes time itself.
        const began = server.cpu();
        const { requests } = await loaded({ milliseconds: milliseconds / 2 });
        const cpu = ((server.cpu() - began) * 1000) / requests;
        const sampled = await inspector.sample(() => loaded({ milliseconds }));
        figures.push({ cpu, parts: split(sampled.samples, regions, sampled.result.requests) });
        loaded.end();
      }
    }
    progress("");
    for (const { inspector } of runs) inspector.close();
    return {
      rounds,
      profiled: runs.map(({ candidate, job, rounds }) => {
        const cpu = median(rounds.map(({ cpu }) => cpu));
        // A mean, as samples of some parts are few.
        const parts = splitBy(
          (part) => rounds.reduce((sum, { parts }) => sum + parts[part], 0) / rounds.length,
        );
        const sampled = Object.values(parts).reduce((sum, part) => sum + part);
        parts.workerd = Math.max(0, cpu - sampled);
        return { title: candidate.title, job, cpu, parts, rounds };
      }),
    };
  } finally {
    for (const server of servers) await server.stop();
    await store.stop();
  }
}

/**
 * A candidate whose functions have names: Cloakroom's JavaScript is bundled again, as tools/build.mjs does, but not
 * minified.
 *
 * @param {string} name
 * @param {string} folder
 * @returns {Promise<Candidate>}
 */
async function readable(name, folder) {
  const candidate = /** @type {Candidate} */ (CANDIDATES.find((one) => one.name === name));
  if (!candidate.built) return candidate;
  const built = join(folder, `${name}-readable`);
  mkdirSync(built);
  copyFileSync(join(candidate.built, "cloakroom_bg.wasm"), join(built, "cloakroom_bg.wasm"));
  const glue = join(ROOT, "target/worker/cloakroom.js");
  const plugin = /** @type {import("esbuild").Plugin} */ ({
    name: "parts",
    setup(bundler) {
      bundler.onResolve({ filter: /\/cloakroom\.js$/ }, ({ kind }) =>
        kind === "entry-point" ? undefined : { path: glue },
      );
      bundler.onResolve({ filter: /\.wasm$/ }, ({ path }) => ({ path, external: true }));
    },
  });
  const entry = ENTRIES.find((path) => existsSync(join(ROOT, path))) ?? "";
  await build({
    absWorkingDir: ROOT,
    entryPoints: [entry],
    outfile: join(built, "index.js"),
    bundle: true,
    format: "esm",
    target: "es2022",
    logLevel: "silent",
    plugins: [plugin],
  }).catch((/** @type {Error} */ error) => {
    throw new Error(`${entry} and target/worker do not fit, run npm run build: ${error.message}`);
  });
  return { ...candidate, built };
}

/** @param {Candidate} candidate @param {Server} server @param {Job} job */
async function underLoad(candidate, server, job) {
  const all = await visitors(candidate, server, CONNECTIONS, job);
  const ask = job === "change" ? candidate.change : candidate.read;
  const expect = job === "forged" ? candidate.forged : 200;
  await load(all, ask, { requests: 2, expect });
  const loaded = (/** @type {{ milliseconds: number }} */ until) => load(all, ask, { ...until, expect });
  return Object.assign(loaded, { end: () => all.forEach((visitor) => visitor.close()) });
}

/** V8's inspector of a workerd. @param {string} address */
async function inspect(address) {
  const [{ webSocketDebuggerUrl }] = await (await fetch(`http://${address}/json`)).json();
  const socket = new WebSocket(webSocketDebuggerUrl);
  await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
  /** @type {Map<number, { resolve: (result: any) => void, reject: (error: Error) => void }>} */
  const waiting = new Map();
  socket.on("message", (/** @type {Buffer} */ data) => {
    const { id, result, error } = JSON.parse(String(data));
    if (error) waiting.get(id)?.reject(new Error(`the inspector: ${error.message}`));
    else waiting.get(id)?.resolve(result);
    waiting.delete(id);
  });
  let last = 0;
  const ask = (/** @type {string} */ method, params = {}) =>
    new Promise((resolve, reject) => {
      waiting.set((last += 1), { resolve, reject });
      socket.send(JSON.stringify({ id: last, method, params }));
    });
  // From the beginning: of functions that are compiled before, it could not say later which were inlined where.
  await ask("Profiler.enable");
  await ask("Profiler.setSamplingInterval", { interval: INTERVAL });
  return {
    /** @template T @param {() => Promise<T>} work @returns {Promise<{ result: T, samples: Samples }>} */
    async sample(work) {
      await ask("Profiler.start");
      const result = await work();
      const { profile } = await ask("Profiler.stop");
      return { result, samples: profile };
    },
    close: () => socket.close(),
  };
}

/** esbuild writes the path of each source as a comment where it begins. @param {string} bundle @returns {Regions} */
function regionsOf(bundle) {
  const regions = [];
  for (const [line, text] of bundle.split("\n").entries()) {
    const file = /^\/\/ (\S+\.m?js)$/.exec(text)?.[1];
    if (file) regions.push({ line, file });
  }
  return regions;
}

/**
 * A sample stands for the time until the next one, but for no more than two intervals: then the thread had to wait for
 * a core, or for work. Without `workerd`, most of which is outside of V8 and not sampled.
 *
 * @param {Samples} samples
 * @param {Regions} regions
 * @param {number} requests
 * @returns {Split} of each request
 */
function split({ nodes, samples, timeDeltas }, regions, requests) {
  /** @type {Map<number, Node>} */
  const parents = new Map();
  for (const node of nodes) for (const child of node.children ?? []) parents.set(child, node);
  const parts = new Map(nodes.map((node) => [node.id, partOf(node, parents, regions)]));
  const sums = splitBy(() => 0);
  for (const [at, id] of samples.entries()) {
    const part = parts.get(id);
    if (part) sums[part] += Math.min(timeDeltas[at + 1] ?? INTERVAL, 2 * INTERVAL) / requests;
  }
  sums.workerd = 0;
  return sums;
}

/** @param {(part: Part) => number} of @returns {Split} */
function splitBy(of) {
  const names = /** @type {Part[]} */ (Object.keys(PARTS));
  return /** @type {Split} */ (Object.fromEntries(names.map((name) => [name, of(name)])));
}
