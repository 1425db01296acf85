/**
 * Tells of changes to files. It looks at them instead of asking the system to be told: so every way to save (in
 * place, by truncating and writing, by renaming a new file over the old one) is the same, on every system, and
 * nothing is missed while an earlier change is dealt with. Needs Node alone.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const LOOK_EVERY_MS = 250;

/**
 * Yields the paths that have changed since the call, each time when nothing has moved between two looks: not in the
 * middle of a save, and once for many in a row.
 *
 * @param {string[]} paths files, which may be missing, and folders, which are looked at with all that is in them
 * @param {string[]} [except] files in them that do not count
 */
export function changes(paths, except = []) {
  return from(look(paths, except), paths, except);
}

/**
 * @param {Promise<Map<string, string>>} first
 * @param {string[]} paths
 * @param {string[]} except
 * @returns {AsyncGenerator<Set<string>, never>}
 */
async function* from(first, paths, except) {
  let known = await first;
  let last = known;
  for (;;) {
    await sleep(LOOK_EVERY_MS);
    const now = await look(paths, except);
    const isAtRest = paths.every((path) => now.get(path) === last.get(path));
    last = now;
    if (!isAtRest) continue;
    const changed = paths.filter((path) => now.get(path) !== known.get(path));
    known = now;
    if (changed.length) yield new Set(changed);
  }
}

/** What each path is like now. @param {string[]} paths @param {string[]} except */
async function look(paths, except) {
  const prints = await Promise.all(paths.map((path) => print(path, except)));
  return new Map(paths.map((path, i) => [path, prints[i] ?? ""]));
}

/** @param {string} path @param {string[]} except @returns {Promise<string>} "" when there is nothing */
async function print(path, except) {
  if (except.includes(path)) return "";
  const about = await stat(path, { bigint: true }).catch(() => undefined);
  if (!about) return "";
  if (!about.isDirectory()) return `${about.ino} ${about.size} ${about.mtimeNs} ${about.ctimeNs}`;
  const names = (await readdir(path).catch(() => /** @type {string[]} */ ([]))).sort();
  const prints = await Promise.all(names.map((name) => print(join(path, name), except)));
  return names.map((name, i) => `${name}: ${prints[i]}`).join("\n");
}
