/**
 * Everything that must be there before the Worker can be built, run and tested, on a machine that has
 * rustup's Rust, Node with npm, and Python 3. What is there already is not done again. Needs Node alone.
 */
import { access, readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { delimiter, join } from "node:path";
import { capture, ROOT, say, step } from "./say.mjs";

/** The oldest Node that the locked packages run on. */
const NODE = "20.18.1";
const WASM = "wasm32-unknown-unknown";
/** As https://rustup.rs says. */
const RUSTUP =
  "curl --proto =https --tlsv1.2 -fsS https://sh.rustup.rs | sh -s -- -y --profile minimal --no-modify-path";

/**
 * @param {{ forTests?: boolean, store?: boolean }} [needs] `forTests`: also rustfmt and clippy; `store: false`:
 *   no Valkey, as another database is used
 */
export async function ensureSetup({ forTests = false, store = true } = {}) {
  checkNode();
  await checkRust({ forTests });
  await installPackages();
  if (store) await installValkey();
}

export function checkNode() {
  if (isOlder(process.versions.node, NODE)) {
    throw new Error(
      `This is Node ${process.versions.node}: install Node ${NODE} or newer (https://nodejs.org).`,
    );
  }
}

/** What package-lock.json says, into node_modules. Packages' own install scripts are not needed, and not run. */
export async function installPackages() {
  if (await packagesMatch()) return;
  await step("Installing the npm packages (the first time under a minute)", async () => {
    const { code, output } = await capture("npm", ["ci", "--ignore-scripts", "--no-audit", "--no-fund"]);
    if (code === 127) throw new Error("npm is missing: install it with Node (https://nodejs.org).");
    if (code !== 0)
      throw new Error(`${output.trim()}\nThe npm packages could not be installed: npm says why above.`);
  });
}

/** Whether npm's own note of what it installed is what package-lock.json asks for. */
async function packagesMatch() {
  const [wanted, installed] = await Promise.all(
    ["package-lock.json", "node_modules/.package-lock.json"].map(async (name) => {
      const text = await readFile(join(ROOT, name), "utf8").catch(() => "{}");
      /** @type {Record<string, { integrity?: string, optional?: boolean }>} */
      const packages = JSON.parse(text).packages ?? {};
      delete packages[""];
      return packages;
    }),
  );
  return (
    Object.keys(installed).every((name) => name in wanted) &&
    Object.entries(wanted).every(([name, { integrity, optional }]) =>
      installed[name] ? installed[name].integrity === integrity : optional,
    )
  );
}

/**
 * Rust for a build at Cloudflare (Workers Builds, which the deploy button starts): its machines have none. Nowhere else is
 * anything installed.
 */
export async function bringRust() {
  if (process.env.WORKERS_CI !== "1") return;
  const folder = join(process.env.CARGO_HOME || join(homedir(), ".cargo"), "bin");
  process.env.PATH = [folder, process.env.PATH].join(delimiter);
  if ((await capture("cargo", ["--version"])).code !== 0) {
    await step("Installing Rust, which this build machine lacks", async () => {
      const { output } = await capture("sh", ["-c", RUSTUP]);
      if ((await capture("cargo", ["--version"])).code !== 0) {
        throw new Error(`${output.trim()}\nRust could not be installed: rustup says why above.`);
      }
    });
  }
  await checkRust();
}

/** @param {{ forTests?: boolean }} [needs] */
export async function checkRust({ forTests = false } = {}) {
  const [cargo, rustc] = await Promise.all([
    capture("cargo", ["--version"]),
    capture("rustc", ["--version"]),
  ]);
  if (cargo.code === 127 || rustc.code === 127) {
    throw new Error(
      "Rust is missing (no cargo and rustc on PATH): install it from https://rustup.rs, open a new terminal and try again.",
    );
  }
  if (cargo.code !== 0 || rustc.code !== 0) {
    throw new Error(
      `Rust does not run: ${(cargo.code ? cargo : rustc).output.trim().split("\n")[0]}; "rustup default stable" installs it.`,
    );
  }
  const manifest = await readFile(join(ROOT, "Cargo.toml"), "utf8");
  const needed = /^rust-version = "(.+)"/m.exec(manifest)?.[1] ?? "0";
  const version = /\d+\.\d+\.\d+/.exec(rustc.output)?.[0] ?? "0";
  if (isOlder(version, needed)) {
    throw new Error(
      `This is Rust ${version}: ${needed} or newer is needed; "rustup update stable" installs it.`,
    );
  }

  if (!(await hasTarget())) await rustup(`Rust's ${WASM} target`, ["target", "add", WASM], hasTarget);
  if (forTests && !(await hasLinters())) {
    await rustup("rustfmt and clippy", ["component", "add", "rustfmt", "clippy"], hasLinters);
  }
}

async function hasTarget() {
  const { code, output } = await capture("rustc", ["--print", "target-libdir", "--target", WASM]);
  return (
    code === 0 &&
    access(output.trim()).then(
      () => true,
      () => false,
    )
  );
}

async function hasLinters() {
  const tools = await Promise.all(["fmt", "clippy"].map((tool) => capture("cargo", [tool, "--version"])));
  return tools.every(({ code }) => code === 0);
}

/**
 * @param {string} what
 * @param {string[]} args
 * @param {() => Promise<boolean>} isThere
 */
async function rustup(what, args, isThere) {
  await step(`Installing ${what} with rustup`, async () => {
    const { code, output } = await capture("rustup", args);
    if (code === 127) throw new Error(`${what} missing, and no rustup to install it: see https://rustup.rs.`);
    if (code !== 0)
      throw new Error(`${output.trim()}\n${what} could not be installed: rustup says why above.`);
  });
  if (!(await isThere())) {
    throw new Error(
      `${what} missing in the Rust that PATH finds, which is not rustup's: put ~/.cargo/bin first on PATH.`,
    );
  }
}

/** A Valkey server, which the local store runs on. */
export async function installValkey() {
  const { findValkey } = await import("./valkey.mjs");
  const since = Date.now();
  await findValkey({ log: say });
  if (Date.now() - since > 2000) say(`  done in ${((Date.now() - since) / 1000).toFixed(1)} s`);
}

/**
 * @param {string} version
 * @param {string} than
 */
function isOlder(version, than) {
  return version.localeCompare(than, "en", { numeric: true }) < 0;
}
