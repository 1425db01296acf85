/**
 * The built Worker in workerd, through Miniflare, in front of the local store and its real Valkey.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Log, LogLevel, Miniflare } from "miniflare";
import { startLocalStore } from "../../tools/local-store/index.mjs";
import { Visitor } from "./visitor.mjs";

/** @typedef {Awaited<ReturnType<typeof startWorker>>} Worker */
/** @typedef {Awaited<ReturnType<typeof startLocalStore>>} LocalStore */
/** @typedef {import("./rigging.mjs").Crossings} Crossings */
/**
 * What an isolate is started with; `region`: at that region's endpoint of the store.
 * @typedef {Omit<Parameters<typeof startWorker>[0], "store"> & { region?: number }} Isolate
 */

/** Most tests are faster than any limit allows. */
export const NO_LIMITS = { session: "", mint: "", login: "" };
/** The cheapest parameters of Argon2id that there are. */
export const FAST_HASH = { memory_kib: 64, iterations: 1 };

const root = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Starts an isolate of the Worker.
 * @param {object} options
 * @param {LocalStore} options.store
 * @param {object} [options.settings] The CLOAKROOM table.
 * @param {Record<string, unknown>} [options.secrets] More of the environment, or other values; undefined removes one.
 * @param {import("miniflare").WorkerOptions["ratelimits"]} [options.ratelimits] Cloudflare's own, by their bindings.
 * @param {Partial<Pick<import("miniflare").WorkerOptions, "kvNamespaces" | "serviceBindings" | "assets">>} [options.others] Other bindings.
 * @param {string} [options.build] The folder of another build.
 */
export async function startWorker({
  store,
  settings = {},
  secrets = {},
  ratelimits,
  others,
  build = join(root, "build"),
}) {
  /** @type {string[]} What the Worker has logged. */
  const logs = [];
  const environment = {
    CLOAKROOM: typeof settings === "object" ? { limits: NO_LIMITS, ...settings } : settings,
    SESSION_SECRET: randomSecret(),
    UPSTASH_REDIS_REST_URL: store.url,
    UPSTASH_REDIS_REST_TOKEN: store.token,
    ...secrets,
  };
  const miniflare = new Miniflare({
    rootPath: root,
    modulesRoot: root,
    modules: [
      { type: "ESModule", path: "tests/support/entry.mjs" },
      { type: "ESModule", path: "tests/support/rigging.mjs" },
      { type: "ESModule", path: "build/index.js", contents: await readFile(join(build, "index.js")) },
      {
        type: "CompiledWasm",
        path: "build/cloakroom_bg.wasm",
        contents: await readFile(join(build, "cloakroom_bg.wasm")),
      },
    ],
    compatibilityDate: "2026-04-01",
    bindings: /** @type {any} */ (
      Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined))
    ),
    ratelimits,
    ...others,
    log: new Log(LogLevel.NONE),
    handleRuntimeStdio(
      /** @type {import("node:stream").Readable} */ stdout,
      /** @type {import("node:stream").Readable} */ stderr,
    ) {
      for (const stream of [stdout, stderr]) stream.on("data", (chunk) => logs.push(String(chunk)));
    },
    cf: false,
  });
  const url = new URL(await miniflare.ready).origin;

  /** Tells the test's entry something; see entry.mjs. @param {string} what */
  const tell = async (what) => (await fetch(`${url}/test/${what}`)).text();
  return {
    url,
    logs,
    /** The secret that signs. */
    secret: environment.SESSION_SECRET,
    /** A new visitor, with an empty cookie jar. */
    visitor: () => new Visitor(url),
    /**
     * Moves the Worker's clock; the store's stays. What that makes due in the background is done at once, unless
     * told otherwise.
     * @param {number} milliseconds
     */
    moveClock: (milliseconds, { settle = true } = {}) =>
      tell(`clock?by=${milliseconds}${settle ? "&settle" : ""}`),
    /** Uses up the memory of the wasm instance, so that it traps. */
    fillMemory: () => tell("memory"),
    /** How much memory the wasm instance has taken, at most, in bytes. */
    memorySize: async () => Number(await tell("memory-size")),
    /** Lets the next attempt to get random bytes fail, so that it panics. */
    breakRandomness: () => tell("randomness"),
    /** Lets the next signature of the platform's fail. */
    breakSigning: () => tell("signing"),
    /** When nothing is done in the background any more. */
    idle: () => tell("idle"),
    /** Lets timers of a minute and more be over almost at once, from the next request on. */
    letTimeFly: (flies = true) => tell(`timers${flies ? "?fly" : ""}`),
    /** What has crossed the border of wasm since the last look. @returns {Promise<Crossings>} */
    crossings: async () => JSON.parse(await tell("crossings")),
    stop: () => miniflare.dispose(),
  };
}

/**
 * Isolates of the Worker in front of a store of their own, all stopped together.
 * @param {Isolate[]} isolates  those to begin with
 * @param {Pick<Isolate, "settings" | "secrets">} [common]  what all isolates have, unless they say otherwise
 */
export async function startDeployment(isolates, { settings, secrets } = {}) {
  const store = await startLocalStore();
  const launch = async (/** @type {Isolate} */ { region, ...own }) =>
    startWorker({
      store: region === undefined ? store : { ...store, url: await store.urlOf(region) },
      ratelimits: own.ratelimits,
      others: own.others,
      settings: typeof own.settings === "string" ? own.settings : { ...settings, ...own.settings },
      secrets: { ...secrets, ...own.secrets },
    });
  const workers = await Promise.all(isolates.map(launch)).catch(async (error) => {
    await store.stop();
    throw error;
  });
  return {
    store,
    workers,
    /** One more isolate. @param {Isolate} [isolate] */
    async start(isolate = {}) {
      const worker = await launch(isolate);
      workers.push(worker);
      return worker;
    },
    async stop() {
      await Promise.all(workers.map((worker) => worker.stop()));
      await store.stop();
    },
  };
}

/** A Worker with a store of its own, stopped together. @param {Isolate} [options] */
export async function startBoth(options = {}) {
  const { store, workers, stop } = await startDeployment([options]);
  return { store, worker: workers[0], stop };
}

/**
 * Moves the clocks of a store and of its isolates together: time passes, except for times to live.
 * @param {LocalStore} store
 * @param {Worker[]} workers
 * @param {number} milliseconds
 */
export async function moveClocks(store, workers, milliseconds) {
  store.moveClock(milliseconds);
  await Promise.all(workers.map((worker) => worker.moveClock(milliseconds, { settle: false })));
}

/**
 * The same, to this part of the next window of a limit.
 * @param {LocalStore} store
 * @param {Worker[]} workers
 * @param {{ length?: number, part?: number }} [where]
 */
export async function moveToWindow(store, workers, { length = 60_000, part = 0.1 } = {}) {
  const now = store.now();
  await moveClocks(store, workers, Math.ceil((Math.floor(now / length) + 1 + part) * length - now));
}

export const randomSecret = () => randomBytes(32).toString("base64url");

/**
 * Waits until a condition holds that becomes true after an answer, such as a line in the log.
 * @param {() => boolean | Promise<boolean>} condition
 * @param {() => string} [explain]  what to say when it does not become true
 * @param {number} [most]  how often it is looked at, every 10 ms
 */
export async function until(condition, explain = () => "it did not happen", most = 300) {
  for (let tries = 0; tries < most; tries += 1) {
    if (await condition()) return;
    await sleep(10);
  }
  assert.fail(explain());
}
