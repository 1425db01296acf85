/**
 * Settings and secrets, as they are here: wrangler.toml, read by wrangler's own code, and .dev.vars or the environment. Whether they
 * are right is said by the Worker itself, which is started with them. Of a secret nothing is told but its length.
 */
import { access, readFile, stat } from "node:fs/promises";
import { randomBytes } from "node:crypto";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseEnv } from "node:util";
import { lineOf } from "../log.mjs";
import { ROOT } from "../say.mjs";
import { expect, Finding } from "./finding.mjs";
import { checked } from "./rows.mjs";

/** @typedef {import("./rows.mjs").Tell} Tell */

export const URL_NAME = "UPSTASH_REDIS_REST_URL";
export const TOKEN_NAME = "UPSTASH_REDIS_REST_TOKEN";

/** Secrets, in the order in which they are shown. The first three are needed. */
const SECRETS = [
  "SESSION_SECRET",
  URL_NAME,
  TOKEN_NAME,
  "ADMIN_TOKEN",
  "FORMAT_SECRETS",
  "JWT_KEYS",
  "EVENTS_SECRET",
  "SESSION_ENCRYPTION_KEY",
];
const NEEDED = 3;
const PROVIDER = /^PROVIDER_\w+_SECRET$/;
const LISTS = ["SESSION_SECRET", "SESSION_ENCRYPTION_KEY"];
const ARRAYS = ["FORMAT_SECRETS", "JWT_KEYS"];
/** In their place when they are not here, so that the rest can be looked at. */
const STANDINS = { [URL_NAME]: "https://name.upstash.io", [TOKEN_NAME]: "token" };

const PATIENCE_MS = 10_000;
const GROUP = "settings";

/**
 * @typedef {object} Settings
 * @property {Record<string, any>} table CLOAKROOM; empty if it cannot be read
 * @property {Record<string, unknown>} vars
 * @property {string[]} services the names of service bindings
 * @property {Map<string, { value: string, where: string }>} secrets
 * @property {string} [problem] why wrangler.toml cannot be read
 *
 * @typedef {{ config: string, devVars: string, env?: string }} Places
 */

/** @param {Places} places @returns {Promise<Settings>} */
export async function readSettings({ config, devVars, env }) {
  // 1. Secrets: the environment goes before the file, as in npm start.
  const file = parseEnv(await readFile(devVars, "utf8").catch(() => ""));
  /** @type {Settings["secrets"]} */
  const secrets = new Map();
  const names = [
    ...SECRETS,
    ...Object.keys({ ...file, ...process.env }).filter((name) => PROVIDER.test(name)),
  ];
  for (const name of new Set(names)) {
    const [own, other] = [process.env[name], file[name]];
    if (own) secrets.set(name, { value: own, where: "the environment" });
    else if (other !== undefined) secrets.set(name, { value: other, where: basename(devVars) });
  }
  // 2. The rest.
  try {
    process.env.WRANGLER_LOG ??= "error";
    const { unstable_readConfig: readConfig } = await import("wrangler");
    const { vars, services } = readConfig({ config, env }, { hideWarnings: true });
    const all = { ...vars, ...(file.CLOAKROOM ? { CLOAKROOM: file.CLOAKROOM } : {}) };
    const table = asTable(all.CLOAKROOM);
    const bindings = (services ?? []).map((/** @type {{ binding: string }} */ service) => service.binding);
    return { table, vars: all, services: bindings, secrets };
  } catch (error) {
    const problem = error instanceof Error ? error.message : String(error);
    return { table: {}, vars: {}, services: [], secrets, problem };
  }
}

/** @param {unknown} value the table, or its JSON text @returns {Record<string, any>} */
function asTable(value) {
  try {
    const table = typeof value === "string" ? JSON.parse(value) : value;
    return table && typeof table === "object" && !Array.isArray(table) ? table : {};
  } catch {
    return {};
  }
}

/** In milliseconds. @param {unknown} text such as "2s" @param {number} otherwise */
export function duration(text, otherwise) {
  const [, count, unit = ""] = /^(\d+)([smhd])$/.exec(String(text)) ?? [];
  const seconds = /** @type {Record<string, number>} */ ({ s: 1, m: 60, h: 3600, d: 86_400 });
  return count ? Number(count) * (seconds[unit] ?? 1) * 1000 : otherwise;
}

/**
 * @param {Settings} settings
 * @param {Places} places
 * @param {Tell} tell
 */
export async function checkSettings(settings, { config, devVars }, tell) {
  const { vars, secrets, problem } = settings;
  const name = basename(config);
  /** @param {Parameters<typeof row>} args */
  const add = async (...args) => tell(await row(...args));

  // 1. Can it be read, and is it safe to keep?
  await add("config", `${name} can be read`, "Without it the Worker cannot be deployed.", () => {
    if (problem) throw new Finding(problem);
  });
  const isSecret = (/** @type {string} */ one) => SECRETS.includes(one) || PROVIDER.test(one);
  await add(
    "secrets-in-config",
    `no secret stands in ${name}`,
    "Whoever reads the repository knows it: remove it there, make a new one, and set it with `npx wrangler secret put`.",
    () => {
      const there = Object.keys(vars).filter(isSecret);
      expect(!there.length, there.join(", "));
    },
  );
  const mode = await stat(devVars).then(
    (stats) => stats.mode,
    () => 0,
  );
  await add(
    "dev-vars",
    `${basename(devVars)} is readable by its owner alone`,
    `Others on this machine can read the secrets: chmod 600 ${basename(devVars)}.`,
    () => {
      if (!mode) throw new Finding("there is no such file", "skipped");
      if (mode & 0o077 && process.platform !== "win32") throw new Finding("others can read it", "warned");
    },
  );

  // 2. What the Worker says to all of it.
  const verdict = problem ? undefined : await askWorker(settings);
  const faults = verdict?.faults ?? [];
  const known = [...secrets.keys()];
  for (const [at, secret] of [...new Set([...SECRETS.slice(0, NEEDED), ...known])].entries()) {
    const own = secrets.get(secret);
    const wrong = faults.filter((fault) => fault.startsWith(secret));
    const otherwise = "The Worker answers every request with 500 misconfigured.";
    await add(secret, `${secret} has the right form`, otherwise, () => {
      if (!own)
        throw new Finding(
          at < NEEDED ? "not here: `npx wrangler secret list` names the deployed ones" : "",
          "skipped",
        );
      if (wrong.length) throw new Finding(wrong.join("\n"));
      return `${measured(secret, own.value)}, from ${own.where}`;
    });
  }
  await add(
    "settings",
    "the Worker accepts the settings",
    "The Worker answers every request with 500 misconfigured; or it does not do what was meant.",
    () => {
      if (problem) throw new Finding("see above", "skipped");
      if (!verdict) throw new Finding("the Worker is not built here: `npm run build`", "skipped");
      const others = faults.filter((fault) => !known.some((secret) => fault.startsWith(secret)));
      if (others.length) throw new Finding(others.join("\n"));
      if (verdict.notices.length) throw new Finding(verdict.notices.join("\n"), "warned");
    },
  );
}

/** @param {string} id @param {string} what @param {string} otherwise @param {() => string | void} check */
async function row(id, what, otherwise, check) {
  const { result } = await checked({ group: GROUP, id, what, otherwise }, check);
  return result;
}

/** How long a secret is. @param {string} name @param {string} value */
function measured(name, value) {
  if (name === URL_NAME) return URL.canParse(value) ? new URL(value).host : `${value.length} characters`;
  if (LISTS.includes(name)) {
    const lengths = value.split(",").map((one) => one.trim().length);
    return lengths.length > 1
      ? `${lengths.length} of ${lengths.join(", ")} characters`
      : `${lengths[0]} characters`;
  }
  if (ARRAYS.includes(name)) {
    try {
      const { length } = JSON.parse(value);
      return `${length} in it`;
    } catch {} // the Worker says so
  }
  return `${value.length} characters`;
}

/**
 * Starts the built Worker with these settings, here and for one question.
 *
 * @param {Settings} settings
 * @returns {Promise<{ faults: string[], notices: string[] } | undefined>} nothing if there is no build
 */
async function askWorker({ vars, secrets, services, table }) {
  const folder = join(ROOT, "build");
  const names = ["index.js", "cloakroom_bg.wasm"];
  const built = await Promise.all(
    names.map((name) =>
      access(join(folder, name)).then(
        () => true,
        () => false,
      ),
    ),
  );
  if (built.includes(false)) return undefined;
  const { Log, LogLevel, Miniflare } = await import("miniflare");
  const [script, wasm] = await Promise.all(names.map((name) => readFile(join(folder, name))));
  let log = "";
  const standins = { SESSION_SECRET: randomBytes(32).toString("base64url"), ...STANDINS };
  const own = Object.fromEntries([...secrets].map(([name, { value }]) => [name, value]));
  const miniflare = new Miniflare({
    modulesRoot: folder,
    modules: [
      { type: "ESModule", path: join(folder, "index.js"), contents: /** @type {any} */ (script) },
      { type: "CompiledWasm", path: join(folder, "cloakroom_bg.wasm"), contents: /** @type {any} */ (wasm) },
    ],
    compatibilityDate: "2026-04-01",
    bindings: /** @type {any} */ ({ ...standins, ...vars, ...own }),
    serviceBindings: Object.fromEntries(services.map((name) => [name, () => new Response(null)])),
    log: new Log(LogLevel.NONE),
    handleRuntimeStdio: (
      /** @type {import("node:stream").Readable} */ out,
      /** @type {import("node:stream").Readable} */ error,
    ) => {
      for (const stream of [out, error]) stream.setEncoding("utf8").on("data", (text) => (log += text));
    },
    cf: false,
  });
  try {
    const base = typeof table.base_path === "string" ? table.base_path : "/auth";
    const address = new URL(await miniflare.ready);
    address.pathname = `${base.startsWith("/") ? base : `/${base}`}/openapi.json`;
    const { status } = await fetch(address, { signal: AbortSignal.timeout(PATIENCE_MS), redirect: "manual" });
    const isRefused = status === 500;
    // What is logged comes a moment after the answer.
    for (let tries = 0; tries < 100 && (isRefused ? !linesOf(log).faults.length : tries < 5); tries += 1)
      await sleep(20);
    const { faults, notices } = linesOf(log);
    if (isRefused && !faults.length) faults.push(`the Worker answered with status ${status}`);
    return { faults, notices };
  } finally {
    await miniflare.dispose();
  }
}

/** What the Worker has logged of its settings. @param {string} log */
function linesOf(log) {
  const lines = log.split("\n").flatMap((text) => lineOf(text) ?? []);
  const [faults = [], notices = []] = ["misconfigured", "setting_noticed"].map((event) =>
    lines.filter((line) => line.event === event).map(({ message }) => message),
  );
  return { faults, notices };
}
