/**
 * Where this machine's nginx is. As root on a Debian-like system it is unpacked from Debian's package into .local, not
 * installed: an installed one would start as a service.
 */
import { access, constants, mkdir } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { capture, ROOT } from "./say.mjs";

/** The one sentence for a caller that got `null`. */
export const NO_NGINX = "No nginx found: install nginx.";

const FOLDER = join(ROOT, ".local", "nginx");

/**
 * The path of an nginx that runs, or null when there is none and none can be unpacked.
 * @param {(line: string) => void} log  is told before anything is fetched
 * @returns {Promise<string | null>}
 */
export async function findNginx(log) {
  const unpacked = join(FOLDER, "usr/sbin");
  const folders = [...(process.env.PATH ?? "").split(delimiter).filter(Boolean), "/usr/sbin", unpacked];
  return (await firstIn(folders)) ?? ((await unpack(log)) ? firstIn([unpacked]) : null);
}

/** @param {string[]} folders */
async function firstIn(folders) {
  for (const folder of folders) {
    const path = join(folder, "nginx");
    const isThere = await access(path, constants.X_OK).then(
      () => true,
      () => false,
    );
    // One that was unpacked may lack a library.
    if (isThere && (await capture(path, ["-v"])).code === 0) return path;
  }
  return null;
}

/** @param {(line: string) => void} log */
async function unpack(log) {
  if (process.getuid?.() !== 0 || (await capture("apt-get", ["--version"])).code !== 0) return false;
  log("No nginx on this machine; fetching Debian's with apt-get (some seconds, once).");
  await mkdir(FOLDER, { recursive: true });
  const script =
    'cd "$0" && apt-get update && apt-get download nginx && dpkg-deb -x nginx_*.deb . && rm nginx_*.deb';
  return (await capture("sh", ["-c", script, FOLDER])).code === 0;
}
