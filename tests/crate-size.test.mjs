/**
 * How large a Worker becomes by using the crate: the ten lines of its front page, built as an author's `worker-build
 * --release` builds them.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { buildFixture, ENTRY } from "./support/rust-worker.mjs";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "tests/fixtures/minimal-worker");

/** What is compiled may use these without asking. */
const FEATURES = [
  "--enable-bulk-memory",
  "--enable-nontrapping-float-to-int",
  "--enable-sign-ext",
  "--enable-mutable-globals",
  "--enable-multivalue",
  "--enable-reference-types",
];

/** There to notice an accident, as the service's own guard is. */
const GUARD = 250_000;

test(`a Worker of ten lines has at most ${GUARD} bytes: the sum of each file's gzip -9`, async (t) => {
  const built = await buildFixture({ folder, name: "minimal", release: true });
  // 1. The wasm, optimised.
  const wasm = join(built.folder, "cloakroom_bg.wasm");
  const optimised = join(built.folder, "optimised.wasm");
  const optimiser = join(root, "node_modules/binaryen/bin/wasm-opt");
  await run(process.execPath, [optimiser, ...FEATURES, "-O", "--strip-debug", wasm, "-o", optimised]);
  // 2. The JavaScript, in one minified file.
  const { outputFiles } = await build({
    stdin: { contents: ENTRY, resolveDir: built.folder },
    external: ["*.wasm"],
    bundle: true,
    format: "esm",
    minify: true,
    write: false,
  });
  const sizes = [await readFile(optimised), ...outputFiles.map(({ contents }) => contents)].map(
    (bytes) => gzipSync(bytes, { level: 9 }).length,
  );
  const size = sizes.reduce((sum, part) => sum + part);
  t.diagnostic(`${size} bytes: ${sizes.join(" + ")}`);
  assert.equal(sizes.length, 2);
  assert.ok(size <= GUARD, `${size} bytes: ${sizes.join(" + ")}`);
});
