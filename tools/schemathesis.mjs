/**
 * Schemathesis and openapi-spec-validator of PyPI, which tests/openapi.test.mjs runs: installed into .local, once, with
 * everything they need, and by nobody else's Python packages.
 */
import { execFile } from "node:child_process";
import { stat } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { installFromPyPI } from "./pip.mjs";
import { ROOT } from "./say.mjs";

const run = promisify(execFile);

const PACKAGES = ["schemathesis==4.32.5", "openapi-spec-validator==0.9.0"];
const HOME = path.join(ROOT, ".local", PACKAGES.join("+").replaceAll("==", "-"));

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
  await install(log);
  const env = { ...process.env, PYTHONPATH: HOME, PYTHONNOUSERSITE: "1", PYTHONDONTWRITEBYTECODE: "1" };
  const options = { cwd, env, timeout: 120_000, maxBuffer: 64 * 1024 * 1024 };
  const { stdout, stderr, code } = await run("python3", ["-m", module, ...args], options).then(
    (said) => ({ ...said, code: 0 }),
    (error) => error,
  );
  return { ok: code === 0, output: `${stdout ?? ""}${stderr ?? ""}` };
}

/** @param {(line: string) => void} log */
async function install(log) {
  if (await isThere(HOME)) return;
  log(
    `installing ${PACKAGES.join(" and ")} from PyPI into ${path.relative(ROOT, HOME)} (once, under a minute)`,
  );
  await installFromPyPI(HOME, PACKAGES, {
    missing:
      "Schemathesis is missing: install Python 3.10 or newer with pip, which then fetches it from PyPI",
  });
}

/** @param {string} folder */
const isThere = (folder) =>
  stat(folder).then(
    () => true,
    () => false,
  );
