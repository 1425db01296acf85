/**
 * Where schedules are carried out: two isolates of one deployment and their store, which live as long as the stage
 * does. One schedule after the other shares them: each has sessions of its own, and leaves an empty store behind.
 */
import { startLocalStore } from "../../../tools/local-store/index.mjs";
import { FAST_HASH, randomSecret, startWorker } from "../worker.mjs";
import { openOffice } from "./office.mjs";

/** @typedef {Awaited<ReturnType<typeof startStage>>} Stage */
/** @typedef {keyof typeof SESSIONS} StageKind */

/** The smallest store.timeout a fault waits out; a late call is executed after it. */
export const STORE_TIMEOUT = 1000;

/** What the stages differ in. */
const SESSIONS = {
  /** Ids change only when asked to. */
  calm: { touch_every: "2s", rotate_every: "" },
  /** Ids change by themselves, all the time. */
  restless: { touch_every: "2s", rotate_every: "3s" },
  /** Hours pass, and no session ends because of that. */
  patient: { rotate_every: "1h", idle: "9d", absolute: "10d" },
};

/** @param {StageKind} kind */
export async function startStage(kind) {
  const store = await startLocalStore();
  const settings = {
    session: SESSIONS[kind],
    limits: { session: "", mint: "", login: "" },
    password: FAST_HASH,
    store: { timeout: `${STORE_TIMEOUT}ms` },
  };
  const secrets = { SESSION_SECRET: randomSecret(), ADMIN_TOKEN: randomSecret() };
  const start = () => startWorker({ store, settings, secrets });
  const workers = await Promise.all([start(), start()]).catch(async (error) => {
    await store.stop();
    throw error;
  });
  let skew = 0;
  /** Moves the Workers' clocks; the store's stays. @param {number} milliseconds */
  const moveClocks = async (milliseconds) => {
    skew += milliseconds;
    await Promise.all(workers.map((worker) => worker.moveClock(milliseconds)));
  };
  return {
    kind,
    store,
    workers,
    office: openOffice(secrets.ADMIN_TOKEN),
    /** The Workers' clock. */
    now: () => Date.now() + skew,
    moveClocks,
    /** Lets time pass for the Workers and for the store, with all that expires there. @param {number} milliseconds */
    async passTime(milliseconds) {
      store.moveClock(milliseconds);
      await age(store.redis, milliseconds);
      await moveClocks(milliseconds);
    },
    /** When nothing is done in the background any more. */
    idle: () => Promise.all(workers.map((worker) => worker.idle())),
    async stop() {
      await Promise.all(workers.map((worker) => worker.stop()));
      await store.stop();
    },
  };
}

/** One of each kind. */
export async function startStages() {
  const kinds = /** @type {StageKind[]} */ (Object.keys(SESSIONS));
  const stages = await Promise.all(kinds.map((kind) => startStage(kind)));
  return { stages, stop: () => Promise.all(stages.map((stage) => stage.stop())) };
}

/** Every key has so much less to live. @param {import("../worker.mjs").LocalStore["redis"]} redis @param {number} milliseconds */
async function age(redis, milliseconds) {
  const keys = await redis.keys("*");
  const ages = keys.map(async (key) => {
    const ttl = await redis.pTTL(key);
    if (ttl < 0) return;
    // Valkey deletes a key whose time to live is not above 0.
    await redis.pExpire(key, ttl - milliseconds);
  });
  await Promise.all(ages);
}
