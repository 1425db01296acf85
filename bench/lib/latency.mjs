/** How long a visitor waits when the store is not next door, and for how many calls to it. */
import { PASSWORD } from "../candidates.mjs";
import { createAccount } from "../candidates/password.js";
import { quantile } from "./figures.mjs";
import { load } from "./load.mjs";
import { inTurn, once, progress, visitors } from "./measure.mjs";
import { prepare, start } from "./serve.mjs";
import { startStore } from "./store.mjs";

/** @typedef {import("../candidates.mjs").Candidate} Candidate */
/** @typedef {import("./load.mjs").Ask} Ask */
/** @typedef {import("./load.mjs").Visitor} Visitor */
/** @typedef {import("./measure.mjs").Server} Server */
/** @typedef {import("./store.mjs").Store} Store */
/** @typedef {"read" | "first change" | "change" | "login"} Job */
/** @typedef {{ job: Job, latency: number, connections: number }} Cell */
/** @typedef {Awaited<ReturnType<typeof wait>>} Waiting */

/** @type {Job[]} */
const JOBS = ["read", "first change", "change", "login"];
/** Requests of each visitor in a round: fewer where they take longer. */
const PLACES = [
  { latency: 5, connections: 1, requests: 12 },
  { latency: 5, connections: 32, requests: 4 },
  { latency: 50, connections: 1, requests: 6 },
  { latency: 50, connections: 32, requests: 2 },
];
const CELLS = JOBS.flatMap((job) => PLACES.map((place) => ({ job, ...place })));
const COUNTED = 20;
const WARM_UP = { visitors: 8, requests: 40 };

/**
 * @param {Candidate[]} candidates
 * @param {{ folder: string, rounds: number }} options
 */
export async function wait(candidates, { folder, rounds }) {
  const store = await startStore();
  /** @type {{ candidate: Candidate, server: Server, cells: (Cell & { latencies: number[] })[] }[]} */
  const runs = [];
  try {
    for (const candidate of candidates.filter(({ login }) => login)) {
      progress(`Starting ${candidate.title}`);
      const ready = await prepare(candidate, folder, store);
      const server = await start(ready, (port) => once(port, candidate.read));
      const cells = CELLS.map(({ job, latency, connections }) => ({
        job,
        latency,
        connections,
        latencies: [],
      }));
      runs.push({ candidate, server, cells });
    }

    /** @type {Record<string, Record<Job, { calls: number, commands: number }>>} */
    const usage = {};
    for (const { candidate, server } of runs) {
      progress(`Warming up and counting: ${candidate.title}`);
      const counts = [];
      for (const job of JOBS) {
        await measure(candidate, server, store, job, WARM_UP.visitors, WARM_UP.requests);
        counts.push([job, await count(candidate, server, store, job)]);
      }
      usage[candidate.name] = Object.fromEntries(counts);
    }

    for (let round = 1; round <= rounds; round += 1) {
      for (const [at, { job, latency, connections, requests }] of CELLS.entries()) {
        progress(
          `Round ${round} of ${rounds}: ${job}, ${connections} connections, ${latency} ms to the store`,
        );
        for (const { candidate, server, cells } of inTurn(runs, round)) {
          const latencies = await measure(candidate, server, store, job, connections, requests, latency);
          cells[at]?.latencies.push(...latencies);
        }
      }
    }
    progress("");
    return {
      rounds,
      candidates: runs.map(({ candidate: { name, title }, cells }) => ({
        name,
        title,
        store: usage[name],
        cells: cells.map(({ latencies, ...cell }) => ({
          ...cell,
          requests: latencies.length,
          p50: quantile(latencies, 0.5),
          p99: quantile(latencies, 0.99),
        })),
      })),
    };
  } finally {
    for (const { server } of runs) await server.stop();
    await store.stop();
  }
}

/**
 * What is measured is prepared with the store next door.
 *
 * @param {Candidate} candidate
 * @param {Server} server
 * @param {Store} store
 * @param {Job} job
 * @param {number} connections
 * @param {number} requests of each
 * @param {number} [latency]
 * @returns {Promise<number[]>} milliseconds
 */
async function measure(candidate, server, store, job, connections, requests, latency = 0) {
  const [all, next] = await PREPARE[job](candidate, server, store, connections, requests);
  await store.setLatency(latency);
  const { latencies } = await load(all, next, { requests, expect: 200 });
  await store.setLatency(0);
  for (const visitor of all) visitor.close();
  return latencies;
}

/** @param {Candidate} candidate @param {Server} server @param {Store} store @param {Job} job */
async function count(candidate, server, store, job) {
  const [all, next] = await PREPARE[job](candidate, server, store, 1, COUNTED + 1);
  await load(all, next, { requests: 1, expect: 200 }); // a window's first request takes more
  const kind = candidate.node ? "own" : "rest";
  const before = (await store.count())[kind];
  await load(all, next, { requests: COUNTED, expect: 200 });
  const after = (await store.count())[kind];
  for (const visitor of all) visitor.close();
  return {
    calls: (after.calls - before.calls) / COUNTED,
    commands: (after.commands - before.commands) / COUNTED,
  };
}

/**
 * Visitors on connections that are there, and what each of them asks next.
 *
 * @typedef {(candidate: Candidate, server: Server, store: Store, connections: number, requests: number) =>
 *   Promise<[visitors: Visitor[], next: (visitor: number) => Ask]>} Prepare
 * @type {Record<Job, Prepare>}
 */
const PREPARE = {
  async read(candidate, server, _, connections) {
    return [await visitors(candidate, server, connections), () => candidate.read];
  },

  async change(candidate, server, _, connections) {
    return [await visitors(candidate, server, connections, "change"), () => candidate.change];
  },

  async "first change"(candidate, server, _, connections) {
    const all = await visitors(candidate, server, connections);
    for (const visitor of all) {
      visitor.cookies.clear();
      visitor.keeps = false;
    }
    return [all, () => /** @type {Ask} */ (candidate.create)];
  },

  /** Each of an account of its own, and over a new session without a user. */
  async login(candidate, server, store, connections, requests) {
    const all = await visitors(candidate, server, connections);
    const asks = await Promise.all(all.map((visitor) => prepareLogins(candidate, visitor, store, requests)));
    return [all, (at) => /** @type {Ask} */ (asks[at]?.pop())];
  },
};

let accounts = 0;

/** @param {Candidate} candidate @param {Visitor} visitor @param {Store} store @param {number} count */
async function prepareLogins({ create, login, signUp }, visitor, store, count) {
  const name = `visitor-${(accounts += 1)}`;
  if (signUp) await visitor.send(signUp(name));
  else await store.set(`account:${name}`, JSON.stringify(await createAccount(name, PASSWORD)));
  const asks = [];
  for (let at = 0; at < count; at += 1) {
    visitor.cookies.clear();
    await visitor.send(/** @type {Ask} */ (create));
    const Cookie = [...visitor.cookies].map((cookie) => cookie.join("=")).join("; ");
    const ask = /** @type {Ask} */ (login?.(name));
    asks.push({ ...ask, headers: { ...ask.headers, Cookie } });
  }
  visitor.cookies.clear();
  visitor.keeps = false;
  return asks;
}
