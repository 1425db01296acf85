/**
 * The demo pages are static, and cannot ask the Worker where its routes are: they are told here, in a file of their own.
 * As a script, after the build, it does so by wrangler.toml and, when CLOUDFLARE_ENV is set, by that environment; and
 * it puts the client of client/ beside the pages, in one file.
 */
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const DEFAULT = "/auth";
const LINE = /^export const BASE = ".*";$/m;

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { unstable_readConfig: readConfig } = await import("wrangler");
  const config = fileURLToPath(new URL("../wrangler.toml", import.meta.url));
  const { assets, vars } = readConfig({ config, env: process.env.CLOUDFLARE_ENV }, { hideWarnings: true });
  await tellPage(assets?.directory, vars.CLOAKROOM);
  await bringClient(assets?.directory);
}

/**
 * Writes `base_path` into the page's base.js, if it says something else. Without a page, as in a deployment that
 * serves the routes alone, there is nothing to do.
 *
 * @param {string | undefined} folder of the page
 * @param {unknown} settings the CLOAKROOM table
 */
export async function tellPage(folder, settings) {
  if (!folder) return;
  const file = join(folder, "base.js");
  const text = await readFile(file, "utf8").catch(() => "");
  const base = basePath(settings);
  const told = text.replace(LINE, () => `export const BASE = ${JSON.stringify(base)};`);
  if (told !== text) await writeFile(file, told);
}

/**
 * Brings the client that the pages have up to date. Pages without one, such as your own, get none.
 *
 * @param {string | undefined} folder of the pages
 */
export async function bringClient(folder) {
  if (!folder) return;
  const file = join(folder, "client.js");
  const text = await readFile(file, "utf8").catch(() => "");
  const client = text && (await clientInOneFile());
  if (client !== text) await writeFile(file, client);
}

/** The client as one ES module that needs no build step. @returns {Promise<string>} */
export async function clientInOneFile() {
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("../client/src/index.js", import.meta.url))],
    bundle: true,
    write: false,
    format: "esm",
    target: "es2022",
    banner: {
      js: "// The client (client/) in one file, as `npm run build` writes it. Its types are in client.d.ts.",
    },
    logLevel: "warning",
  });
  return outputFiles[0]?.text ?? "";
}

/**
 * Where a Worker with these settings has its routes. With a `base_path` that it refuses, this is a path all the same:
 * such a Worker says at every path what is wrong.
 *
 * @param {unknown} settings the CLOAKROOM table
 * @returns {string} "" or a path without a slash at its end
 */
export function basePath(settings) {
  const { base_path: path = DEFAULT } = /** @type {{ base_path?: unknown }} */ (settings ?? {});
  const inner = typeof path === "string" ? path.replace(/^\/+|\/+$/g, "") : "";
  return inner && `/${inner}`;
}
