/** One process at a time: a file that names the one, and the folder in which it does. Needs Node alone. */
import { readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, dirname } from "node:path";

/** @typedef {{ pid: number, script: string, note: string, folder: string }} Holder */

/**
 * Takes the lock, unless a process that still runs holds it.
 *
 * @param {string} file
 * @param {string} [note] for those who find it taken
 * @returns {{ holder?: undefined, release: () => void } | { holder: Holder, release?: undefined }}
 */
export function takeLock(file, note = "") {
  const folder = identityOf(dirname(file));
  const mine = JSON.stringify({ pid: process.pid, script: basename(process.argv[1] ?? ""), note, folder });
  for (let stale = 0; ; stale++) {
    try {
      writeFileSync(file, mine, { flag: "wx" });
      return { release: () => rmSync(file, { force: true }) };
    } catch (error) {
      if (/** @type {NodeJS.ErrnoException} */ (error).code !== "EEXIST" || stale > 3) throw error;
    }
    const holder = holderOf(file);
    if (holder) return { holder };
    rmSync(file, { force: true }); // its writer has ended, or holds the folder that this one is a copy of
  }
}

/**
 * Who holds the lock, if a process that still runs does.
 *
 * @param {string} file
 * @returns {Holder | undefined}
 */
export function holderOf(file) {
  const holder = read(file);
  return holder && holder.folder === identityOf(dirname(file)) && isAlive(holder) ? holder : undefined;
}

/**
 * What a folder keeps when it is moved, and its copy does not have.
 *
 * @param {string} folder
 */
export function identityOf(folder) {
  const { dev, ino } = statSync(folder, { bigint: true });
  return `${dev}:${ino}`;
}

/** @param {string} file @returns {Holder | undefined} */
function read(file) {
  try {
    return JSON.parse(readFileSync(file, "utf8"));
  } catch {
    return undefined;
  }
}

/** Whether the process runs, and is not another one by now. @param {Holder} holder */
function isAlive({ pid, script }) {
  if (pid === process.pid) return false;
  try {
    process.kill(pid, 0);
  } catch (error) {
    return /** @type {NodeJS.ErrnoException} */ (error).code === "EPERM";
  }
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(script);
  } catch {
    return true; // no /proc here: believe it
  }
}
