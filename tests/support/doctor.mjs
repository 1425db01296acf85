/** `npm run doctor` as a person starts it: settings and secrets in a temporary folder, nothing of it in the environment. */
import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before } from "node:test";
import { fileURLToPath } from "node:url";
import { checkSettings, readSettings } from "../../tools/doctor/settings.mjs";

const script = fileURLToPath(new URL("../../tools/doctor.mjs", import.meta.url));

/** The least that wrangler asks for. */
export const CONFIG = 'name = "cloakroom"\nmain = "build/index.js"\ncompatibility_date = "2026-04-01"\n';
const DEFAULTS = `${CONFIG}[vars.CLOAKROOM]\nbase_path = "/auth"\n`;

/** @type {string} */
let folder;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "cloakroom-doctor-"));
});
after(() => rm(folder, { recursive: true, force: true }));

/**
 * @typedef {{ config?: string, vars?: string, mode?: number }} Files `config`: the text of wrangler.toml; `vars`: that of .dev.vars
 */

/** @param {Files} files @returns {Promise<{ config: string, devVars: string }>} */
async function write({ config = DEFAULTS, vars, mode = 0o600 }) {
  const own = await mkdtemp(join(folder, "own-"));
  const places = { config: join(own, "wrangler.toml"), devVars: join(own, ".dev.vars") };
  await writeFile(places.config, config);
  if (vars !== undefined) await writeFile(places.devVars, vars, { mode });
  return places;
}

/** What it finds in these files, without a process of its own. @param {Files} files */
export async function troublesOf(files) {
  const places = await write(files);
  /** @type {import("../../tools/doctor/rows.mjs").Result[]} */
  const results = [];
  await checkSettings(await readSettings(places), places, (result) => results.push(result));
  return results.filter(({ status }) => status === "failed" || status === "warned");
}

/**
 * @param {string[]} options
 * @param {Files & { env?: Record<string, string> }} [where]
 */
export async function startDoctor(options, { env = {}, ...files } = {}) {
  const { config, devVars } = await write(files);
  const places = ["--config", config, "--dev-vars", devVars];
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/UPSTASH|SECRET|TOKEN|CLOAKROOM/.test(name),
  );
  const child = spawn(process.execPath, [script, ...places, ...options], {
    env: { ...Object.fromEntries(inherited), XDG_CONFIG_HOME: folder, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [output, errors] = ["", ""];
  child.stdout.setEncoding("utf8").on("data", (text) => (output += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (errors += text));
  /** @type {Promise<{ code: number | null, output: string, errors: string }>} */
  const ended = new Promise((done) => child.once("close", (code) => done({ code, output, errors })));
  return { ended, output: () => output, kill: (/** @type {NodeJS.Signals} */ signal) => child.kill(signal) };
}

/** @param {Parameters<typeof startDoctor>} args */
export async function doctor(...args) {
  return (await startDoctor(...args)).ended;
}

/** The same with its report. @param {string[]} options @param {Parameters<typeof startDoctor>[1]} [where] */
export async function doctorJson(options, where) {
  const { code, output, errors } = await doctor(["--json", ...options], where);
  if (!output) throw new Error(`no report: ${errors}`);
  /** @type {{ ok: boolean, interrupted: boolean, about: Record<string, string>, rows: import("../../tools/doctor/rows.mjs").Result[] }} */
  const report = JSON.parse(output);
  const troubles = report.rows.filter(({ status }) => status === "failed" || status === "warned");
  return {
    code,
    output,
    errors,
    report,
    troubles,
    row: (/** @type {string} */ id) => report.rows.find((row) => row.id === id),
  };
}
