/** A hundred changes of one session at the same time: who is answered what, what is kept, how often it is tried. */
import { median, quantile } from "./figures.mjs";
import { Visitor } from "./load.mjs";
import { inTurn, once, progress, visitors } from "./measure.mjs";
import { prepare, start } from "./serve.mjs";
import { startStore } from "./store.mjs";

/** @typedef {import("../candidates.mjs").Candidate} Candidate */
/** @typedef {import("./measure.mjs").Server} Server */
/** @typedef {import("./store.mjs").Store} Store */
/** @typedef {Awaited<ReturnType<typeof contend>>} Contention */

export const INCREMENTS = 100;
const ISOLATES = 4;
const STORE_MS = 50;

/**
 * @param {Candidate[]} candidates
 * @param {{ folder: string, rounds: number }} options
 */
export async function contend(candidates, { folder, rounds }) {
  const store = await startStore();
  /** @type {{ candidate: Candidate, servers: Server[], rounds: Awaited<ReturnType<typeof increments>>[] }[]} */
  const runs = [];
  try {
    for (const candidate of candidates.filter(({ views, rust }) => views && !rust)) {
      progress(`Starting ${candidate.title}`);
      const ready = await prepare({ ...candidate, tables: withDefaultLimits(candidate) }, folder, store);
      /** @type {Server[]} */
      const servers = [];
      runs.push({ candidate, servers, rounds: [] });
      for (let isolate = 0; isolate < ISOLATES; isolate += 1) {
        servers.push(await start(ready, (port) => once(port, candidate.read)));
      }
      await increments(candidate, servers, store, 0); // warms up
    }
    for (let round = 1; round <= rounds; round += 1) {
      for (const { candidate, servers, rounds: figures } of inTurn(runs, round)) {
        progress(`Round ${round} of ${rounds}: ${candidate.title}`);
        figures.push(await increments(candidate, servers, store, STORE_MS));
      }
    }
    progress("");
    return {
      rounds,
      increments: INCREMENTS,
      isolates: ISOLATES,
      latency: STORE_MS,
      candidates: runs.map(({ candidate: { name, title }, rounds }) => ({ name, title, rounds })),
    };
  } finally {
    for (const { servers } of runs) for (const server of servers) await server.stop();
    await store.stop();
  }
}

/** Of Cloakroom; the others have none. @param {Candidate} candidate */
function withDefaultLimits({ tables }) {
  return typeof tables === "object"
    ? { CLOAKROOM: { .../** @type {object} */ (tables.CLOAKROOM), limits: {} } }
    : tables;
}

/**
 * Increments of one session, each on a connection of its own, which go to the isolates in turn.
 *
 * @param {Candidate} candidate
 * @param {Server[]} servers
 * @param {Store} store
 * @param {number} latency
 */
export async function increments(candidate, servers, store, latency) {
  // 1. A session, and as many tabs, whose connections are there.
  const [owner] = servers[0] ? await visitors(candidate, servers[0], 1) : [];
  if (!owner || !candidate.views) throw new Error(`${candidate.name} has no sessions`);
  const tabs = Array.from(
    { length: INCREMENTS },
    (_, at) => new Visitor(servers[at % servers.length]?.port ?? 0),
  );
  await Promise.all(tabs.map((tab) => tab.send(candidate.read)));
  for (const tab of tabs) tab.cookies = new Map(owner.cookies);

  // 2. All at once.
  await store.setLatency(latency);
  const before = await store.count();
  const began = performance.now();
  /** @type {number[]} */
  const latencies = [];
  let last = owner;
  const answers = await Promise.all(
    tabs.map(async (tab) => {
      const answer = await tab.send(candidate.change);
      latencies.push(performance.now() - began);
      last = tab;
      return answer;
    }),
  );
  const after = await store.count();
  await store.setLatency(0);

  // 3. What is there. A browser has the cookie that came last.
  const { body } = await last.send(candidate.read);
  for (const visitor of [owner, ...tabs]) visitor.close();
  return {
    acknowledged: answers.filter(({ status }) => status === 200).length,
    /** With which other statuses the rest was answered. */
    refused: answers.map(({ status }) => status).filter((status) => status !== 200),
    survived: candidate.views(body),
    ...(candidate.node
      ? {} // many commands go out in one piece
      : {
          /** For each change: calls to the store that would write the session; and of all kinds. */
          tries: (after.writes - before.writes) / INCREMENTS,
          calls: (after.rest.calls - before.rest.calls) / INCREMENTS,
        }),
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    longest: Math.max(...latencies),
  };
}
