/** A Worker that uses Cloakroom as a library inherits nothing from it: no entry, no export, no allocator. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Log, LogLevel, Miniflare } from "miniflare";
import { buildFixture } from "./support/rust-worker.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "tests/fixtures/foreign-worker");

/** @type {Record<"alone" | "withCloakroom", Awaited<ReturnType<typeof buildFixture>>>} */
let built;
/** @type {Miniflare} */
let miniflare;
before(async () => {
  const entry = await readFile(join(folder, "entry.mjs"), "utf8");
  built = {
    alone: await buildFixture({ folder, name: "alone", args: ["--no-default-features"], entry }),
    withCloakroom: await buildFixture({ folder, name: "cloakroom", entry }),
  };
  miniflare = new Miniflare({
    modulesRoot: built.withCloakroom.folder,
    modules: await built.withCloakroom.modules(),
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

/** @param {string} path */
async function ask(path) {
  return (await miniflare.dispatchFetch(`https://foreign.example${path}`)).text();
}

/** What a module exports, without what wasm-bindgen needs for itself. @param {{ folder: string }} worker */
async function exportsOf({ folder }) {
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
