/**
 * How large a Worker becomes by using the crate: the ten lines of its front page, built as an author's `worker-build
 * --release` builds them.
 */
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { bundleRustWorker, useVersions } from "../tools/rust-worker.mjs";

const folder = fileURLToPath(new URL("fixtures/minimal-worker", import.meta.url));
/** There to notice an accident, as the service's own guard is. */
const GUARD = 370_000;

test(`a Worker of ten lines has at most ${GUARD} bytes: the sum of each file's gzip -9`, async (t) => {
  await useVersions(folder);
  const bundle = await bundleRustWorker({ folder, name: "minimal" });
  const files = await readdir(bundle);
  const contents = await Promise.all(files.map((file) => readFile(join(bundle, file))));
  const sizes = contents.map((bytes) => gzipSync(bytes, { level: 9 }).length);
  const size = sizes.reduce((sum, part) => sum + part, 0);
  t.diagnostic(`${size} bytes: ${files.map((file, index) => `${file} ${sizes[index]}`).join(", ")}`);
  assert.deepEqual(files.sort(), ["cloakroom_bg.wasm", "index.js"]);
  assert.ok(size <= GUARD, `${size} bytes`);
});
