/**
 * Schemathesis and openapi-spec-validator of PyPI, which tests/openapi.test.mjs runs: installed into .local, once, with
 * everything they need, and by nobody else's Python packages.
 */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { packagesFromPyPI, pythonWith } from "./pip.mjs";
import { ROOT } from "./say.mjs";

const run = promisify(execFile);

const PACKAGES = ["schemathesis==4.32.5", "openapi-spec-validator==0.9.0"];

/**
 * Runs a module of theirs.
 *
 * @param {string} module
 * @param {string[]} args
 * @param {{ cwd?: string, log?: (line: string) => void }} [options]
 * @returns {Promise<{ ok: boolean, output: string }>}
 * @throws when there is no Python; the message is one sentence for the person at the terminal
 */
export async function runPython(module, args, { cwd = ROOT, log = console.error } = {}) {
  const home = await packagesFromPyPI(PACKAGES, {
    missing:
      "Schemathesis is missing: install Python 3.10 or newer with pip, which then fetches it from PyPI",
    log,
  });
  const env = { ...process.env, ...pythonWith(home) };
  const options = { cwd, env, timeout: 120_000, maxBuffer: 64 * 1024 * 1024 };
  const { stdout, stderr, code } = await run("python3", ["-m", module, ...args], options).then(
    (said) => ({ ...said, code: 0 }),
    (error) => error,
  );
  return { ok: code === 0, output: `${stdout ?? ""}${stderr ?? ""}` };
}
