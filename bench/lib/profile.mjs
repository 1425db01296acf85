/** Where the time goes: samples of the serving workerd by Linux' `perf`, sorted into a few parts. */
import { execFileSync, spawn } from "node:child_process";
import { rmSync } from "node:fs";
import { join } from "node:path";
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
/** @typedef {import("./attribute.mjs").Part} Part */
/** @typedef {Record<Part, number>} Split */
/** @typedef {{ cpu: number, parts: Split }} Round microseconds of each request */
/** @typedef {Round & { title: string, job: Job, rounds: Round[] }} Profiled */
/** @typedef {{ rounds: number, profiled: Profiled[] }} Profile */

/** @type {{ name: string, jobs: Job[] }[]} */
const SUBJECTS = [
  { name: "same-call", jobs: ["read"] },
  { name: "cloakroom", jobs: ["forged", "read", "change"] },
  { name: "hono-upstash", jobs: ["read"] },
];

const CONNECTIONS = 32;
/** V8 compiles what is called often. */
const WARM_UP_MS = 2500;
/** Samples per second of each thread that runs. */
const FREQUENCY = 2000;
const INSTALL = `--profile needs perf. Debian: apt install linux-perf; Ubuntu: apt install linux-tools-generic. As another user
than root it also needs: sudo sysctl kernel.perf_event_paranoid=1 kernel.kptr_restrict=0`;

/**
 * @param {{ folder: string, rounds: number, milliseconds: number }} options
 * @returns {Promise<Profile>}
 */
export async function profile({ folder, rounds, milliseconds }) {
  checkPerf(folder);
  const store = await startStore();
  /** @type {{ stop: () => Promise<unknown> }[]} */
  const servers = [];
  /** @type {string[]} */
  const maps = [];
  try {
    await store.set("bench:constant", JSON.stringify(SESSION));
    const runs = [];
    for (const { name, jobs } of SUBJECTS) {
      const candidate = /** @type {Candidate} */ (CANDIDATES.find((one) => one.name === name));
      const ready = await prepare(candidate, folder, store, { areFunctionsNamed: true });
      const server = await start(ready, (port) => once(port, candidate.read));
      servers.push(server);
      maps.push(`/tmp/perf-${server.pid}.map`);
      for (const job of jobs) {
        progress(`Warming up: ${name}, ${job}`);
        const loaded = await underLoad(candidate, server, job);
        await loaded({ milliseconds: WARM_UP_MS });
        loaded.end();
        runs.push({ candidate, job, server, rounds: /** @type {Round[]} */ ([]) });
      }
    }
    for (let round = 1; round <= rounds; round += 1) {
      for (const { candidate, job, server, rounds: figures } of runs) {
        progress(`Round ${round} of ${rounds}: ${candidate.name}, ${job}`);
        const loaded = await underLoad(candidate, server, job);
        const began = server.cpu();
        const { result, samples } = await sample(server, join(folder, "perf.data"), () =>
          loaded({ milliseconds }),
        );
        const cpu = ((server.cpu() - began) * 1000) / result.requests;
        figures.push({ cpu, parts: split(samples, cpu) });
        loaded.end();
      }
    }
    progress("");
    return {
      rounds,
      profiled: runs.map(({ candidate, job, rounds }) => {
        const cpu = median(rounds.map(({ cpu }) => cpu));
        // A mean, as samples of some parts are few; as parts of the median.
        const means = splitBy((part) => rounds.reduce((sum, { parts, cpu }) => sum + parts[part] / cpu, 0));
        const parts = splitBy((part) => (means[part] / rounds.length) * cpu);
        return { title: candidate.title, job, cpu, parts, rounds };
      }),
    };
  } finally {
    for (const server of servers) await server.stop();
    await store.stop();
    for (const map of maps) rmSync(map, { force: true });
  }
}

/** @param {string} folder */
function checkPerf(folder) {
  const file = join(folder, "perf.check");
  try {
    execFileSync("perf", ["record", "-q", "-e", "cpu-clock", "-o", file, "true"], { stdio: "ignore" });
  } catch {
    throw new Error(INSTALL);
  }
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

/**
 * Samples the server while the work is done: how many samples each function has.
 * @template T
 * @param {Server} server
 * @param {string} file for what perf writes
 * @param {() => Promise<T>} work
 * @returns {Promise<{ result: T, samples: { file: string, name: string, count: number }[] }>}
 */
async function sample({ pid }, file, work) {
  const clock = ["-e", "cpu-clock", "-F", String(FREQUENCY)];
  const perf = spawn("perf", ["record", "-q", ...clock, "-p", String(pid), "-o", file], { stdio: "ignore" });
  const ended = new Promise((resolve) => perf.on("exit", resolve));
  const result = await work();
  perf.kill("SIGINT");
  await ended;
  const args = ["report", "-q", "-i", file, "--stdio", "--sort", "dso,symbol", "-n", "-t", "\t"];
  const text = execFileSync("perf", args, {
    encoding: "utf8",
    maxBuffer: 1 << 28,
    stdio: ["ignore", "pipe", "ignore"],
  });
  const samples = text.split("\n").flatMap((line) => {
    const [, count, file, symbol] = line.split("\t").map((field) => field.trim());
    if (!file || !symbol || !Number(count)) return [];
    return [{ file, name: symbol.replace(/^\[\S\]\s+/, ""), count: Number(count) }];
  });
  return { result, samples };
}

/** @param {{ file: string, name: string, count: number }[]} samples @param {number} cpu microseconds of a request @returns {Split} */
function split(samples, cpu) {
  const sums = splitBy(() => 0);
  const all = samples.reduce((sum, { count }) => sum + count, 0);
  for (const { file, name, count } of samples) sums[partOf(file, name)] += (count / all) * cpu;
  return sums;
}

/** @param {(part: Part) => number} of @returns {Split} */
function splitBy(of) {
  const names = /** @type {Part[]} */ (Object.keys(PARTS));
  return /** @type {Split} */ (Object.fromEntries(names.map((name) => [name, of(name)])));
}
