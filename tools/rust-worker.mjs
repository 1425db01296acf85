/**
 * A Rust Worker of somebody else's that uses Cloakroom: what `worker-build` makes of it, without what `worker-build`
 * downloads.
 */
import { execFile } from "node:child_process";
import { copyFile, mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
/** Shared by all of them and by all runs, so that only the first one takes long. */
export const TARGET = join(root, "target/foreign");

/** What is compiled may use these without asking. */
export const FEATURES = [
  "--enable-bulk-memory",
  "--enable-nontrapping-float-to-int",
  "--enable-sign-ext",
  "--enable-mutable-globals",
  "--enable-multivalue",
  "--enable-reference-types",
];

/** The entry that `worker-build` would write: the Worker's `#[event(fetch)]`. */
const ENTRY = `
  import { fetch, initSync } from "./cloakroom.js";
  import module from "./cloakroom_bg.wasm";
  initSync({ module });
  export default { fetch };
`;

/**
 * @param {string} folder
 * @param {string[]} args
 * @returns {Promise<string>} The wasm.
 */
export async function compile(folder, args) {
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
    { cwd: folder, env: { ...process.env, CARGO_TARGET_DIR: TARGET }, maxBuffer: 64 * 1024 * 1024 },
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
 * Writes the module and its JavaScript: `cloakroom.js`, `cloakroom_bg.wasm`.
 * @param {string} wasm
 * @param {string} out  the folder
 */
export async function writeBorder(wasm, out) {
  await run("cargo", ["run", "--quiet", "--package", "bindgen", "--", wasm, out], { cwd: root });
}

/**
 * Gives a Worker of this project's own the versions that another is built with, without a look at a registry.
 * @param {string} folder  where its Cargo.toml is
 * @param {string} [other]  the other's; if it is missing, Cloakroom's own
 */
export async function useVersions(folder, other = root) {
  const lock = join(folder, "Cargo.lock");
  // Another build may be reading it: never half a file.
  await copyFile(join(other, "Cargo.lock"), `${lock}.${process.pid}`);
  await rename(`${lock}.${process.pid}`, lock);
}

/**
 * Builds a Worker as it would be deployed: `index.js` and `cloakroom_bg.wasm`.
 * @param {object} options
 * @param {string} options.folder  where its Cargo.toml is
 * @param {string} options.name  of what is built
 * @param {string[]} [options.args]  more arguments for `cargo build`
 * @returns {Promise<string>} the folder with both
 */
export async function bundleRustWorker({ folder, name, args = [] }) {
  const parts = join(TARGET, "worker", name);
  const out = join(parts, "bundle");
  await writeBorder(await compile(folder, ["--release", ...args]), parts);
  await mkdir(out, { recursive: true });
  const [wasm, optimised] = [parts, out].map((folder) => join(folder, "cloakroom_bg.wasm"));
  const optimiser = join(root, "node_modules/binaryen/bin/wasm-opt");
  await run(process.execPath, [optimiser, ...FEATURES, "-O", "--strip-debug", wasm, "-o", optimised]);
  const { build } = await import("esbuild");
  await build({
    stdin: { contents: ENTRY, resolveDir: parts },
    outfile: join(out, "index.js"),
    external: ["*.wasm"],
    bundle: true,
    format: "esm",
    minify: true,
  });
  return out;
}
