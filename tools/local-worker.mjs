/**
 * The built Worker in workerd, as a process of `npm start`'s. It does what it is told over the channel to its parent,
 * and ends with it. `{ load: Wanted }` runs the Worker by that configuration, instead of the one before if there was
 * one, and is answered with a `Loaded`.
 *
 * It reads wrangler.toml as wrangler does, by wrangler's own code. `wrangler dev` itself is not used as it does not look
 * at the secrets again, misses changes of wrangler.toml that come while it takes up another one, and ends at some
 * that are half written.
 */
import { readdir, readFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import { Log, LogLevel, Miniflare } from "miniflare";
import { collapsed, told } from "./log.mjs";
import { basePath, tellPage } from "./page.mjs";
import { say, sentence } from "./say.mjs";

/**
 * @typedef {object} Wanted
 * @property {number} port
 * @property {string} config wrangler.toml
 * @property {string} secrets .dev.vars
 * @property {Record<string, string>} bindings more of the environment
 * @property {boolean} open whether anybody can register here although a deployment is closed
 * @property {{ id: string }} [provider] one more of `accounts.providers`
 *
 * @typedef {{ base: string, failed?: undefined } | { base?: undefined, failed: string }} Loaded `base`: where the routes are; when it
 *   failed, the Worker before runs on
 * @typedef {{ timestamp: number, level: string, message: string }} Entry of workerd's log
 */

const PATIENCE_MS = 3000;

/** What nobody needs to read: that the page's headers were read, and how `npm start` looks whether all is well. */
const CHATTER = [/^✨ Parsed /, /^GET \S*\/health \d{3} /];

process.env.WRANGLER_LOG = "warn";
const { unstable_getMiniflareWorkerOptions: readConfig } = await import("wrangler");

/** @type {Miniflare | undefined} */
let miniflare;

let hasSaidOpen = false;

/** One after the other. @type {Promise<unknown>} */
let work = Promise.resolve();
process.on("message", (/** @type {{ load: Wanted }} */ { load: wanted }) => {
  work = work.then(async () => {
    const loaded = await load(wanted).catch((error) => ({ failed: whatIsWrong(error) }));
    process.send?.(loaded);
  });
});
process.once("disconnect", async () => {
  await Promise.race([work, sleep(PATIENCE_MS)]);
  await miniflare?.dispose();
  process.exit(0);
});

/** @param {Wanted} wanted @returns {Promise<Loaded>} */
async function load({ port, config, secrets, bindings, open, provider }) {
  const files = /** @type {{}} */ ({ envFiles: [secrets] }); // which its types do not know
  const { workerOptions, main } = readConfig(config, process.env.CLOUDFLARE_ENV, files);
  if (!main) throw new Error(`"main" is missing in ${basename(config)}: it is "build/index.js".`);
  const written = workerOptions.bindings?.CLOAKROOM;
  const settings = withProvider(open ? opened(written) : written, provider);
  await tellPage(workerOptions.assets?.directory, settings);

  const { modulesRules: _, ...worker } = workerOptions;
  /** @type {import("miniflare").MiniflareOptions} */
  const options = {
    ...worker,
    bindings: { ...worker.bindings, ...(settings === undefined ? {} : { CLOAKROOM: settings }), ...bindings },
    ...(await modules(main)),
    port,
    host: "127.0.0.1",
    cf: false,
    log: new Requests(LogLevel.INFO),
    structuredWorkerdLogs: true,
    handleRuntimeStdio: passOn,
  };
  if (miniflare) await miniflare.setOptions(options);
  else miniflare = new Miniflare(options);
  await miniflare.ready;
  return { base: basePath(settings) };
}

/** The settings, with registration open: the demo page is of no use without an account. @param {any} settings */
function opened(settings) {
  if (settings?.accounts?.register !== "closed") return settings;
  if (!hasSaidOpen)
    say("Anybody can register here; a deployment is closed (wrangler.toml, accounts.register).");
  hasSaidOpen = true;
  return { ...settings, accounts: { ...settings.accounts, register: "open" } };
}

/** The settings, with one provider more. @param {any} settings @param {Wanted["provider"]} provider */
function withProvider(settings, provider) {
  if (!provider) return settings;
  const { accounts = {}, ...others } = settings ?? {};
  const { providers = [] } = accounts;
  // What is no table or list, the Worker itself complains of.
  if (typeof settings === "string" || !Array.isArray(providers)) return settings;
  if (providers.some((/** @type {any} */ other) => other?.id === provider.id)) {
    throw new Error(
      `accounts.providers has one called "${provider.id}" already: give it another id, or start without --demo-provider.`,
    );
  }
  return { ...others, accounts: { ...accounts, providers: [...providers, provider] } };
}

/** The Worker's files, as they are now. @param {string} main */
async function modules(main) {
  const folder = dirname(main);
  const names = (await readdir(folder)).filter((name) => name.endsWith(".wasm"));
  return {
    modulesRoot: folder,
    modules: [
      { type: /** @type {const} */ ("ESModule"), path: main, contents: await readFile(main) },
      ...(await Promise.all(
        names.map(async (name) => ({
          type: /** @type {const} */ ("CompiledWasm"),
          path: join(folder, name),
          contents: await readFile(join(folder, name)),
        })),
      )),
    ],
  };
}

/** Miniflare's own log: the requests, and not its start. */
class Requests extends Log {
  /** @param {number} level @param {string} message */
  logWithLevel(level, message) {
    const plain = stripVTControlCharacters(message);
    if (level <= this.level && !CHATTER.some((pattern) => pattern.test(plain))) say(message);
  }

  logReady() {}
}

/**
 * What the Worker logs, and workerd, which ends by itself only if something is badly wrong.
 *
 * @param {import("node:stream").Readable} stdout
 * @param {import("node:stream").Readable} stderr
 */
function passOn(stdout, stderr) {
  const log = collapsed(say);
  for (const stream of [stdout, stderr]) {
    createInterface({ input: stream }).on("line", (line) => log(messageOf(line)));
  }
  stdout.once("end", () => process.exit(1));
}

/**
 * What a line of workerd's says, for people. Its own errors come with addresses in its program, which tell nobody
 * anything and are never twice the same.
 *
 * @param {string} line JSON, once it runs
 */
function messageOf(line) {
  let message = line;
  try {
    message = /** @type {Entry} */ (JSON.parse(line)).message ?? line;
  } catch {} // not yet
  return told(message)
    .split("\n")
    .map((part) => part.replace(/;? ?\b(stack: |sentryErrorContext = ).*/, ""))
    .map((part) => part.replace(/^.*\bkj\/\S+:\d+: failed: /, "workerd: "))
    .filter(Boolean)
    .join("\n");
}

/** @param {any} error of the configuration, or of workerd */
function whatIsWrong(error) {
  const { text, location, message } = error;
  if (location?.line) return `${basename(location.file ?? "")}, line ${location.line}: ${text}`;
  const isOurs = error instanceof TypeError || error instanceof ReferenceError;
  return isOurs ? sentence(error) : (text ?? message);
}
