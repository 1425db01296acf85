/** The comparison: every candidate is up, and each cell is measured for one after the other, round after round. */
import { SESSION } from "../candidates/session.js";
import { INCREMENTS, increments } from "./contention.mjs";
import { median } from "./figures.mjs";
import { load, Visitor } from "./load.mjs";
import { startOrigin } from "./origin.mjs";
import { prepare, start } from "./serve.mjs";
import { startStore } from "./store.mjs";

/** @typedef {import("../candidates.mjs").Candidate} Candidate */
/** @typedef {"read" | "change" | "forged"} Job */
/** @typedef {{ job: Job, connections: number, latency: number }} Cell */
/** @typedef {{ cpu: number, perSecond: number, p50: number, p99: number }} Figures `cpu`: milliseconds per request */
/** @typedef {Cell & Figures & { rounds: Figures[] }} Measured the medians, and what they are of */
/** @typedef {Awaited<ReturnType<typeof measure>>} Measurements */
/** @typedef {Awaited<ReturnType<typeof start>>} Server */

const JOBS = /** @type {Job[]} */ (["read", "change", "forged"]);
/** So many rounds of the first table's cells to one of the others: they are what is compared most closely. */
const OFTENER = 3;
const WARM_UP_MS = 1000;
const COUNTED = 200;
/** What parallel increments meet: a store that is not next door. */
const REAL_LATENCY_MS = 5;

/** @param {Cell} cell */
const isOfFirstTable = ({ connections, latency }) => connections === 32 && latency === 0;

/** @param {boolean} all or only what the first table shows @param {Job[]} jobs @returns {Cell[]} */
function cellsOf(all, jobs) {
  const cells = [];
  for (const job of jobs) {
    for (const latency of job === "forged" ? [0] : [0, REAL_LATENCY_MS]) {
      for (const connections of [1, 32]) cells.push({ job, connections, latency });
    }
  }
  return all ? cells : cells.filter(isOfFirstTable);
}

/**
 * @param {Candidate[]} candidates
 * @param {object} options
 * @param {string} options.folder
 * @param {number} options.rounds
 * @param {number} options.milliseconds of each measurement
 * @param {number} options.starts
 * @param {boolean} options.all or only what the first table shows
 * @param {Job[]} [options.jobs]
 */
export async function measure(candidates, { folder, rounds, milliseconds, starts, all, jobs = JOBS }) {
  const store = await startStore();
  const origin = candidates.some(({ inFront }) => inFront) ? await startOrigin() : undefined;
  const cells = cellsOf(all, jobs);
  try {
    await store.set("bench:constant", JSON.stringify(SESSION));
    const runs = [];
    for (const candidate of candidates) {
      const ready = await prepare(candidate, folder, store, { origin: origin?.url });
      const server = await start(ready, (port) => once(port, candidate.read));
      runs.push({
        candidate,
        ready,
        server,
        cells: cells.map((cell) => ({ cell, rounds: /** @type {Figures[]} */ ([]) })),
      });
    }

    console.log("Warming up, and counting what each job asks of the store …");
    /** @type {Awaited<ReturnType<typeof count>>[]} */
    const usage = [];
    for (const { candidate, server } of runs) {
      await warmUp(candidate, server, jobs);
      usage.push(await count(candidate, server, store, jobs));
    }

    for (let round = 1; round <= rounds * OFTENER; round += 1) {
      for (const [at, cell] of cells.entries()) {
        if (round > rounds && !isOfFirstTable(cell)) continue;
        const { job, connections, latency } = cell;
        progress(
          `Round ${round} of ${rounds * OFTENER}: ${job}, ${connections} connections, ${latency} ms of store latency`,
        );
        await store.setLatency(latency);
        for (const run of inTurn(runs, round)) {
          run.cells[at]?.rounds.push(await measureCell(run.candidate, run.server, cell, milliseconds));
        }
      }
    }
    progress("");

    console.log(`${INCREMENTS} increments at a time, and starts …`);
    /** @type {(Awaited<ReturnType<typeof increments>> | undefined)[]} */
    const kept = [];
    for (const { candidate, server } of runs) {
      kept.push(candidate.views ? await increments(candidate, [server], store, REAL_LATENCY_MS) : undefined);
    }
    const memory = runs.map(({ server }) => server.memory());

    /** @type {number[][]} */
    const startups = runs.map(() => []);
    for (let round = 1; round <= starts; round += 1) {
      for (const [at, { candidate, ready, server }] of inTurn([...runs.entries()], round)) {
        const [visitor] = await visitors(candidate, server, 1);
        visitor?.close();
        const another = await start(ready, (port) => once(port, candidate.read, visitor?.cookies));
        startups[at]?.push(another.startup);
        await another.stop();
      }
    }
    for (const { server } of runs) await server.stop();

    return {
      rounds,
      candidates: runs.map(({ candidate, ready, cells }, at) => ({
        name: candidate.name,
        title: candidate.title,
        floor: candidate.floor ?? false,
        cells: cells.map(({ cell, rounds }) => ({ ...cell, ...medians(rounds), rounds })),
        store: usage[at],
        increments: kept[at],
        bundle: ready.size,
        startup: median(startups[at] ?? []),
        startups: startups[at],
        memory: memory[at],
      })),
    };
  } finally {
    await origin?.stop();
    await store.stop();
  }
}

/**
 * One way in a round, the other way in the next: whatever drifts in the course of a round is on the side of neither of
 * two neighbours.
 *
 * @template T
 * @param {T[]} all
 * @param {number} round
 */
export const inTurn = (all, round) => (round % 2 ? all : all.toReversed());

/**
 * @param {Candidate} candidate
 * @param {Server} server
 * @param {Cell} cell
 * @param {number} milliseconds
 * @returns {Promise<Figures>}
 */
async function measureCell(candidate, server, { job, connections }, milliseconds) {
  // New sessions each time: none grows old, so that no renewal comes due in one cell and not in another.
  const all = await visitors(candidate, server, connections, job);
  const ask = job === "change" ? candidate.change : candidate.read;
  const expect = job === "forged" ? candidate.forged : 200;
  await load(all, ask, { requests: Math.ceil(64 / connections), expect });
  const before = server.cpu();
  const { requests, perSecond, p50, p99 } = await load(all, ask, { milliseconds, expect });
  const cpu = (server.cpu() - before) / requests;
  for (const visitor of all) visitor.close();
  return { cpu, perSecond, p50, p99 };
}

/**
 * Visitors who each have a session, or a cookie that somebody has tampered with.
 *
 * @param {Candidate} candidate
 * @param {Server} server
 * @param {number} count
 * @param {Job} [job]
 */
export async function visitors(candidate, server, count, job = "read") {
  const all = Array.from({ length: count }, () => new Visitor(server.port));
  await Promise.all(
    all.map(async (visitor) => {
      if (!candidate.create) {
        visitor.cookies.set(
          "session",
          "of about the usual length of such a thing, which nobody looks at".replaceAll(" ", "-"),
        );
        return;
      }
      const { status, body } = await visitor.send(candidate.register?.() ?? candidate.create);
      if (status !== 200 && status !== 201)
        throw new Error(`${candidate.name}: no session: ${status} ${body.slice(0, 300)}`);
      if (visitor.cookies.size === 0) throw new Error(`${candidate.name}: no cookie`);
    }),
  );
  // Most reads come later than this cookie lasts.
  if (job === "read" && candidate.passing)
    all.forEach(({ cookies }) => cookies.delete(candidate.passing ?? ""));
  if (job === "forged") all.forEach(forge);
  return all;
}

/** Another letter near the end, which is in the signature with each of them. @param {Visitor} visitor */
function forge(visitor) {
  visitor.keeps = false;
  for (const [name, value] of visitor.cookies) {
    const isEscaped = (/** @type {number} */ at) => /%.?$/.test(value.slice(0, at));
    const at = [...value].findLastIndex(
      (letter, at) => at < value.length - 10 && /[a-z]/i.test(letter) && !isEscaped(at),
    );
    if (at < 0) throw new Error("this cookie cannot be forged");
    visitor.cookies.set(name, value.slice(0, at) + (value[at] === "A" ? "B" : "A") + value.slice(at + 1));
  }
}

/** @param {Candidate} candidate @param {Server} server @param {Job[]} jobs */
async function warmUp(candidate, server, jobs) {
  for (const job of jobs) {
    await measureCell(candidate, server, { job, connections: 8, latency: 0 }, WARM_UP_MS / jobs.length);
  }
}

/**
 * @param {Candidate} candidate
 * @param {Server} server
 * @param {import("./store.mjs").Store} store
 * @param {Job[]} jobs
 */
async function count(candidate, server, store, jobs) {
  /** @type {Partial<Record<Job, import("./store.mjs").Counted>>} */
  const usage = {};
  for (const job of jobs) {
    const all = await visitors(candidate, server, 1, job);
    const ask = job === "change" ? candidate.change : candidate.read;
    const expect = job === "forged" ? candidate.forged : 200;
    await load(all, ask, { requests: 3, expect });
    const kind = candidate.node ? "own" : "rest";
    const before = (await store.count())[kind];
    await load(all, ask, { requests: COUNTED, expect });
    const after = (await store.count())[kind];
    usage[job] = {
      calls: (after.calls - before.calls) / COUNTED,
      commands: (after.commands - before.commands) / COUNTED,
      bytes: (after.bytes - before.bytes) / COUNTED,
    };
    all[0]?.close();
  }
  return usage;
}

/**
 * One request on a connection of its own.
 *
 * @param {number} port
 * @param {import("./load.mjs").Ask} ask
 * @param {Map<string, string>} [cookies]
 */
export async function once(port, ask, cookies = new Map()) {
  const visitor = new Visitor(port);
  visitor.cookies = cookies;
  try {
    return await visitor.send(ask);
  } finally {
    visitor.close();
  }
}

/** @param {Figures[]} rounds @returns {Figures} */
function medians(rounds) {
  const of = (/** @type {keyof Figures} */ name) => median(rounds.map((figures) => figures[name]));
  return { cpu: of("cpu"), perSecond: of("perSecond"), p50: of("p50"), p99: of("p99") };
}

/** @param {string} line replaces the one before, on a terminal */
export function progress(line) {
  if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${line}`);
  else if (line) console.log(line);
}
