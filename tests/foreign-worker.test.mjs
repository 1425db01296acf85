/** A Worker that uses Cloakroom as a library inherits nothing from it: no entry, no export, no allocator. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { copyFile, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Log, LogLevel, Miniflare } from "miniflare";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const fixture = join(root, "tests/fixtures/foreign-worker");
/** Shared by all runs, so that only the first one takes long. */
const target = join(root, "target/foreign");

/** @type {{ alone: string, withCloakroom: string }} Where the Worker is, without and with Cloakroom. */
let built;
/** @type {Miniflare} */
let miniflare;
before(async () => {
  // The versions that Cloakroom itself is built with, without a look at a registry.
  await copyFile(join(root, "Cargo.lock"), join(fixture, "Cargo.lock"));
  built = { alone: await build("alone", "--no-default-features"), withCloakroom: await build("cloakroom") };
  miniflare = new Miniflare({
    modulesRoot: built.withCloakroom,
    modules: await modules(built.withCloakroom),
    compatibilityDate: "2026-04-01",
    bindings: {
      SESSION_SECRET: "pP3cVQ8m1dRk7ZtYw5sXbN2hJf6gLa9e",
      UPSTASH_REDIS_REST_URL: "https://store.example",
      UPSTASH_REDIS_REST_TOKEN: "token",
    },
    log: new Log(LogLevel.NONE),
    cf: false,
  });
  await miniflare.ready;
});
after(() => miniflare?.dispose());

/**
 * @param {string} name
 * @param {string[]} options
 * @returns {Promise<string>} The folder with its JavaScript and its wasm.
 */
async function build(name, ...options) {
  const out = join(target, "worker", name);
  const env = { ...process.env, CARGO_TARGET_DIR: target };
  const wasm = join(target, "wasm32-unknown-unknown/debug/foreign_worker.wasm");
  await run("cargo", ["build", "--quiet", "--target", "wasm32-unknown-unknown", ...options], {
    cwd: fixture,
    env,
  });
  await run("cargo", ["run", "--quiet", "--package", "bindgen", "--", wasm, out], { cwd: root });
  return out;
}

/** @param {string} folder @returns {Promise<import("miniflare").ModuleDefinition[]>} */
async function modules(folder) {
  const entry = await readFile(join(fixture, "entry.mjs"), "utf8");
  const scripts = (await readdir(folder, { recursive: true })).filter((name) => name.endsWith(".js"));
  return [
    { type: "ESModule", path: join(folder, "entry.mjs"), contents: entry },
    ...scripts.map((name) => ({ type: /** @type {const} */ ("ESModule"), path: join(folder, name) })),
    { type: "CompiledWasm", path: join(folder, "cloakroom_bg.wasm") },
  ];
}

/** @param {string} path */
async function ask(path) {
  return (await miniflare.dispatchFetch(`https://foreign.example${path}`)).text();
}

/** What a module exports, without what wasm-bindgen needs for itself. @param {string} folder */
async function exportsOf(folder) {
  const module = await WebAssembly.compile(await readFile(join(folder, "cloakroom_bg.wasm")));
  const names = WebAssembly.Module.exports(module).map(({ name }) => name);
  return names.filter((name) => !/^(__wbindgen_|__externref_|wasm_bindgen__)/.test(name)).sort();
}

test("its own entry answers, with its own allocator and start function, and with what Cloakroom answers", async () => {
  const text = 'a foreign Worker, started: true, allocator: true, session: {"session":null}';
  assert.equal(await ask("/auth/session"), text);
});

test("it may export what it likes", async () => {
  assert.equal(await ask("/headers"), "the foreign Worker's own export");
});

test("Cloakroom adds no export", async () => {
  const [alone, withCloakroom] = [await exportsOf(built.alone), await exportsOf(built.withCloakroom)];
  assert.ok(alone.includes("fetch") && alone.includes("headers"), alone.join(", "));
  assert.deepEqual(withCloakroom, alone);
});
