/**
 * A Rust Worker of somebody else's that uses Cloakroom: what `worker-build` makes of it, without what `worker-build`
 * downloads.
 */
import { execFile } from "node:child_process";
import { copyFile, readdir, readFile, rename } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Log, LogLevel, Miniflare } from "miniflare";
import { Visitor } from "./visitor.mjs";
import { randomSecret } from "./worker.mjs";

/** @typedef {Awaited<ReturnType<typeof buildRustWorker>>} RustWorker */

const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));
/** Shared by all of them and by all runs, so that only the first one takes long. */
const target = join(root, "target/foreign");

/** The entry that `worker-build` would write, with the Worker's `#[event(fetch)]`; and a clock that a test can move. */
export const ENTRY = `
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
 * @param {boolean} [options.release]
 * @param {string[]} [options.args]  more arguments for `cargo build`
 * @param {string} [options.entry]  the text of its entry, if it has one of its own
 */
export async function buildRustWorker({ folder, name, release = false, args = [], entry = ENTRY }) {
  const out = join(target, "worker", name);
  await bindgen(await compile(folder, release ? ["--release", ...args] : args), out);
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
  const lock = join(options.folder, "Cargo.lock");
  // Another test may be reading it: never half a file.
  await copyFile(join(root, "Cargo.lock"), `${lock}.${process.pid}`);
  await rename(`${lock}.${process.pid}`, lock);
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

/**
 * @param {string} folder
 * @param {string[]} args
 * @returns {Promise<string>} The wasm.
 */
async function compile(folder, args) {
  const { stdout } = await run(
    "cargo",
    [
      "build",
      "--quiet",
      "--target",
      "wasm32-unknown-unknown",
      "--message-format",
      "json-render-diagnostics",
      ...args,
    ],
    { cwd: folder, env: { ...process.env, CARGO_TARGET_DIR: target }, maxBuffer: 64 * 1024 * 1024 },
  );
  const manifest = join(folder, "Cargo.toml");
  const messages = stdout.split("\n").flatMap((line) => (line.startsWith("{") ? [JSON.parse(line)] : []));
  const own = messages.find(
    (message) => message.manifest_path === manifest && message.target.kind.includes("cdylib"),
  );
  const wasm = own?.filenames.find((/** @type {string} */ file) => file.endsWith(".wasm"));
  if (!wasm) throw new Error(`${manifest} makes no wasm: it needs [lib] crate-type = ["cdylib"]`);
  return wasm;
}

/**
 * @param {string} wasm
 * @param {string} out
 */
async function bindgen(wasm, out) {
  await run("cargo", ["run", "--quiet", "--package", "bindgen", "--", wasm, out], { cwd: root });
}
