/** Python with Flask and Flask-Session, for examples/flask and for the tests, which try flask-login as well. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { packagesFromPyPI, pythonWith } from "./pip.mjs";
import { launch, ROOT } from "./say.mjs";

const REQUIREMENTS = join(ROOT, "examples/flask/requirements.txt");

/**
 * Starts a Python program that may import them, and takes its orders from the environment.
 *
 * @param {string} script
 * @param {{ env?: Record<string, string>, capture?: boolean, log?: (line: string) => void }} [options] as of `launch`;
 *   `log` says what a slow step does
 * @throws when there is no Python; the message is one sentence for the person at the terminal
 */
export async function launchFlask(script, { env = {}, capture = false, log } = {}) {
  const required = (await readFile(REQUIREMENTS, "utf8")).split("\n").filter(Boolean);
  const home = await packagesFromPyPI([...required, "Flask-Login==0.6.3"], {
    missing: "Flask is missing: install Python 3.9 or newer with pip, which then fetches it from PyPI",
    log,
  });
  return launch("python3", ["-u", script], { env: { ...pythonWith(home), ...env }, capture });
}
