/**
 * Programs that tests run and people seldom have. As root on a Debian-like system they are unpacked from Debian's package
 * into .local, not installed: an installed server would start as a service.
 */
import { access, constants, mkdir, mkdtemp, rename, rm } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { capture, ROOT } from "./say.mjs";

const LOCAL = join(ROOT, ".local");
const PLACES = ["usr/sbin", "usr/bin"];

/**
 * The path of a program that runs, or null when there is none and none can be unpacked.
 * @param {string} name  of the program, which is its package's too
 * @param {object} options
 * @param {string} options.version  the argument that makes it say its version and end
 * @param {(line: string) => void} options.log  is told before anything is fetched
 * @returns {Promise<string | null>}
 */
export async function findDebian(name, { version, log }) {
  const unpacked = PLACES.map((place) => join(LOCAL, name, place));
  const found = await firstThatRuns(name, version, ["/usr/sbin", ...unpacked]);
  return found ?? ((await unpack(name, log)) ? firstThatRuns(name, version, unpacked) : null);
}

/**
 * The first on PATH or in these folders that runs: one that was unpacked may lack a library.
 * @param {string} name
 * @param {string} version
 * @param {string[]} folders
 */
export async function firstThatRuns(name, version, folders) {
  for (const folder of [...(process.env.PATH ?? "").split(delimiter).filter(Boolean), ...folders]) {
    const path = join(folder, name);
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere && (await capture(path, [version])).code === 0) return path;
  }
  return null;
}

/**
 * Unpacks a package beside its place and moves it there whole, so that two processes may do it at once.
 * @param {string} name
 * @param {(line: string) => void} log
 */
async function unpack(name, log) {
  if (process.getuid?.() !== 0 || (await capture("apt-get", ["--version"])).code !== 0) return false;
  log(`No ${name} on this machine; fetching Debian's with apt-get (some seconds, once).`);
  await mkdir(LOCAL, { recursive: true });
  const folder = await mkdtemp(join(LOCAL, `${name}.tmp-`));
  try {
    // One after the other: apt-get fails while another has the lists of packages.
    const script =
      'exec 9> "$2" && flock 9 && cd "$0" && apt-get update && apt-get download "$1" && dpkg-deb -x "$1"_*.deb . && rm "$1"_*.deb';
    if ((await capture("sh", ["-c", script, folder, name, join(LOCAL, "apt.lock")])).code !== 0) return false;
    await rename(folder, join(LOCAL, name)).catch((error) => {
      if (error.code !== "ENOTEMPTY" && error.code !== "EEXIST") throw error; // else the other process won
    });
    return true;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
