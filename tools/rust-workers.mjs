/**
 * Compiles what is written in Rust and the tests start, most of it Workers of others: so no test waits for a compiler, or
 * shares its cores with one.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { compile, useVersions } from "./rust-worker.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const [examples, fixtures] = [join(root, "examples"), join(root, "tests/fixtures")];
const [axum, tower] = [join(examples, "axum"), join(fixtures, "tower-sessions-worker")];

// The versions that the example is built with, whose dependencies are the same.
await useVersions(tower, axum);
for (const name of ["foreign-worker", "crate-worker", "minimal-worker"])
  await useVersions(join(fixtures, name));

for (const [folder, ...args] of [
  [join(fixtures, "foreign-worker")],
  [join(fixtures, "foreign-worker"), "--no-default-features"],
  [join(fixtures, "crate-worker")],
  [join(examples, "worker"), "--locked"],
  [axum, "--locked"],
  [tower],
  [join(fixtures, "minimal-worker"), "--release"],
]) {
  await compile(folder, args);
}

// No Worker, but an origin behind one.
await promisify(execFile)("cargo", ["build", "--quiet", "--package", "verify-jwt"], { cwd: root });
