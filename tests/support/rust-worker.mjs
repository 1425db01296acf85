/** A Rust Worker of somebody else's that uses Cloakroom: built, and started in Miniflare. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { Log, LogLevel, Miniflare } from "miniflare";
import { compile, TARGET, useVersions, writeBorder } from "../../tools/rust-worker.mjs";
import { Visitor } from "./visitor.mjs";
import { randomSecret } from "./worker.mjs";

/** @typedef {Awaited<ReturnType<typeof buildRustWorker>>} RustWorker */

/** The entry that `worker-build` would write, with the Worker's `#[event(fetch)]`; and a clock that a test can move. */
const ENTRY = `
  import { fetch, initSync } from "./cloakroom.js";
  import module from "./cloakroom_bg.wasm";

  let skew = 0;
  const RealDate = Date;
  globalThis.Date = class extends RealDate {
    constructor(...given) {
      super(...(given.length ? given : [RealDate.now() + skew]));
    }
    static now() {
      return RealDate.now() + skew;
    }
  };
  initSync({ module });

  export default {
    async fetch(request, env, context) {
      const { pathname, searchParams } = new URL(request.url);
      if (pathname !== "/test/clock") return fetch(request, env, context);
      skew += Number(searchParams.get("by"));
      return new Response("done");
    },
  };
`;

/**
 * Compiles a Worker, for tests without optimisation, in which it takes seconds.
 * @param {object} options
 * @param {string} options.folder  where its Cargo.toml is
 * @param {string} options.name  of what is built; two builds of one Worker need two
 * @param {string[]} [options.args]  more arguments for `cargo build`
 * @param {string} [options.entry]  the text of its entry, if it has one of its own
 */
export async function buildRustWorker({ folder, name, args = [], entry = ENTRY }) {
  const out = join(TARGET, "worker", name);
  await writeBorder(await compile(folder, args), out);
  return {
    /** With its JavaScript and its wasm: `cloakroom.js`, `cloakroom_bg.wasm`. */
    folder: out,
    /** For Miniflare, whose `modulesRoot` is the folder. @returns {Promise<import("miniflare").ModuleDefinition[]>} */
    async modules() {
      const scripts = (await readdir(out, { recursive: true })).filter((file) => file.endsWith(".js"));
      return [
        { type: "ESModule", path: join(out, "entry.mjs"), contents: entry },
        ...scripts.map((file) => ({ type: /** @type {const} */ ("ESModule"), path: join(out, file) })),
        { type: "CompiledWasm", path: join(out, "cloakroom_bg.wasm") },
      ];
    },
  };
}

/**
 * The same for a Worker of the tests' own: with the versions that Cloakroom itself is built with, without a look at a
 * registry.
 * @param {Parameters<typeof buildRustWorker>[0]} options
 */
export async function buildFixture(options) {
  await useVersions(options.folder);
  return buildRustWorker(options);
}

/**
 * Starts an isolate of a Worker.
 * @param {RustWorker} built
 * @param {object} options
 * @param {import("./worker.mjs").LocalStore} options.store
 * @param {object} [options.settings]  the CLOAKROOM table
 * @param {Record<string, unknown>} [options.secrets]  more of the environment, or other values; undefined removes one
 */
export async function startRustWorker(built, { store, settings = {}, secrets = {} }) {
  /** @type {string[]} What the Worker has logged. */
  const logs = [];
  const environment = {
    CLOAKROOM: settings,
    SESSION_SECRET: randomSecret(),
    UPSTASH_REDIS_REST_URL: store.url,
    UPSTASH_REDIS_REST_TOKEN: store.token,
    ...secrets,
  };
  const miniflare = new Miniflare({
    modulesRoot: built.folder,
    modules: await built.modules(),
    compatibilityDate: "2026-04-01",
    bindings: /** @type {any} */ (
      Object.fromEntries(Object.entries(environment).filter(([, value]) => value !== undefined))
    ),
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
  return {
    url,
    logs,
    /** A new visitor, with an empty cookie jar. */
    visitor: () => new Visitor(url),
    /** Moves the Worker's clock; the store's stays. @param {number} milliseconds */
    moveClock: async (milliseconds) => (await fetch(`${url}/test/clock?by=${milliseconds}`)).text(),
    stop: () => miniflare.dispose(),
  };
}
