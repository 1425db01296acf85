/**
 * A Rust Worker of somebody else's that uses Cloakroom: what `worker-build` makes of it, without what `worker-build`
 * downloads.
 */
import { execFile } from "node:child_process";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = fileURLToPath(new URL("../..", import.meta.url));
/** Shared by all of them and by all runs, so that only the first one takes long. */
const target = join(root, "target/foreign");

/** The entry that `worker-build` would write: the Worker's `#[event(fetch)]` and nothing else. */
const ENTRY = `
  import { fetch, initSync } from "./cloakroom.js";
  import module from "./cloakroom_bg.wasm";
  initSync({ module });
  export default { fetch };
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
