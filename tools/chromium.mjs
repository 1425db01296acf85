/**
 * Where this machine's Chromium is. Knows how to find one and, as root on a Debian-like system, how to
 * install one; does not know what it is for.
 */

import { execFile } from "node:child_process";
import { access, constants, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** The one sentence for a caller that got `null`. */
export const NO_CHROMIUM =
  "No Chromium found: install chromium or google-chrome, or set CHROMIUM to its path.";

/**
 * The path of a Chromium, or null when there is none and none can be installed.
 *
 * `CHROMIUM` in the environment is taken at its word: when it names nothing that can be run, nothing else
 * is tried.
 *
 * @param {{ log?: (line: string) => void, install?: boolean }} [options]
 *   `log` is told before anything is installed and why an installation failed; `install: false` only looks.
 * @returns {Promise<string | null>}
 */
export async function findChromium({ log = () => {}, install = true } = {}) {
  const named = process.env.CHROMIUM;
  if (named) return (await isExecutable(named)) ? named : onPath([named]);

  const found = await onPath(NAMES);
  if (found || !install || process.getuid?.() !== 0) return found;

  const apt = await onPath(["apt-get"]);
  if (!apt) return null;
  try {
    const env = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
    log("No Chromium on this machine; installing Debian's with apt-get (about a minute, once).");
    await run(apt, ["update", "-q"], { env, maxBuffer: Infinity });
    await run(apt, ["install", "-y", "-q", "--no-install-recommends", "chromium"], {
      env,
      maxBuffer: Infinity,
    });
  } catch (error) {
    log(`apt-get could not install Chromium: ${lastLine(error)}`);
  }
  return onPath(NAMES);
}

/** @param {string[]} names  the first that PATH has */
async function onPath(names) {
  const folders = (process.env.PATH ?? "").split(delimiter).filter(Boolean);
  for (const name of names) {
    for (const folder of folders) {
      const path = join(folder, name);
      if (await isExecutable(path)) return path;
    }
  }
  return null;
}

/** @param {string} path */
async function isExecutable(path) {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

/** @param {unknown} error  of `execFile`: what the program said last, else the error's own text */
function lastLine(error) {
  const { stderr, message } = /** @type {{ stderr?: string, message?: string }} */ (error);
  return (stderr || message || String(error)).trim().split("\n").at(-1);
}
