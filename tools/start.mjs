/**
 * `npm start`: the Worker at http://localhost:8787, with a database of its own on this machine.
 *
 *   PORT=8788 npm start                 another port (or: npm start -- --port 8788)
 *   npm start -- --state DIR            where data and lock are kept, instead of .local
 *   npm start -- --dev-vars FILE        the secrets, instead of .dev.vars
 *   npm start -- --config FILE          the configuration, instead of wrangler.toml
 *   npm start -- --closed               nobody can register, as wrangler.toml has it for a deployment
 *   npm start -- --demo-provider        an OpenID provider beside it, to try logging in with others
 *
 * With UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN in the environment or in .dev.vars it uses that
 * database instead. A change to the code, the page, the configuration or the secrets is taken up while it runs; one
 * that cannot be leaves the Worker before running.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import net from "node:net";
import { join, relative, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, parseEnv } from "node:util";
import { takeLock } from "./lock.mjs";
import { capture, killPrograms, launch, launchScript, ROOT, say, sentence, stopPrograms } from "./say.mjs";
import { checkNode, ensureSetup } from "./setup.mjs";
import { changes } from "./watch.mjs";

/** @import { DemoProvider } from "./demo-provider.mjs" */
/** @import { Loaded, Wanted } from "./local-worker.mjs" */

/**
 * @typedef {{ port: number, state: string, devVars: string, config: string, closed: boolean, demoProvider: boolean }} Places
 * @typedef {{ url: string, token: string, where: string }} Store
 */

const URL_NAME = "UPSTASH_REDIS_REST_URL";
const TOKEN_NAME = "UPSTASH_REDIS_REST_TOKEN";

/** Of what the Worker is built. */
const SOURCES = ["src", "Cargo.toml", "Cargo.lock"].map((name) => join(ROOT, name));
const PAGE = join(ROOT, "public");

/** How often a Worker that is not well is looked at: soon, and then not so soon. */
const LOOK_AGAIN_MS = { first: 100, longest: 5000 };
/** So long a Worker may take for its first answer before that is worth a word. */
const SILENT_MS = 5000;

/** npm passes Ctrl-C on to us, who have had it from the terminal already: so soon it is not a second one. */
const SAME_CTRL_C_MS = 1000;

/** What has to be undone in the end, in the order it was done. @type {(() => Promise<unknown>)[]} */
const undo = [stopPrograms];
/** @type {Promise<never> | undefined} */
let ending;
/** @type {Promise<Store> | undefined} */
let local;

let firstSignal = 0;
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
  process.on(signal, () => {
    if (!ending) {
      firstSignal = Date.now();
      say("\nStopping …");
      void end(0, "Stopped.");
    } else if (signal === "SIGINT" && Date.now() - firstSignal > SAME_CTRL_C_MS) {
      killPrograms();
      process.exit(130);
    }
  });
}

try {
  await main();
} catch (error) {
  await end(1, sentence(error));
}

async function main() {
  // 1. Everything that can be wrong at once, before anything slow.
  checkNode();
  const places = options();
  const { port, state, devVars } = places;
  lock(state, port);
  await refuseTakenPort(port);
  const isLocal = !remoteStore(await readSecrets(devVars));

  // 2. What the machine lacks.
  await ensureSetup({ store: isLocal });
  await makeSecrets(devVars);

  // 3. The database.
  const store = await chooseStore(places);

  // 4. The provider.
  const provider = places.demoProvider ? await startProvider(port) : undefined;

  // 5. The Worker: what changes from here on is taken up.
  const watched = changes(
    [...SOURCES, PAGE, places.config, devVars],
    [join(PAGE, "base.js")], // written when the Worker is loaded
  );
  if (!(await build())) throw new Error("The Worker could not be built: see above.");
  const worker = startWorker(state, provider);
  const ended = worker.exited.then(() => {
    throw new Error("The Worker's process ended by itself: what it said is above.");
  });
  await Promise.race([keepUp(worker, watched, places, store, provider), ended]);
}

/**
 * Runs the Worker as the files are, and after each change again.
 *
 * @param {ReturnType<typeof startWorker>} worker
 * @param {AsyncGenerator<Set<string>, never>} watched
 * @param {Places} places
 * @param {Store} store
 * @param {DemoProvider} [provider]
 */
async function keepUp(worker, watched, places, store, provider) {
  let [isLoaded, isReady] = [false, false];
  let check = new AbortController();

  /** @param {string} [changed] what is taken up */
  const load = async (changed) => {
    const { failed, base } = await worker.load(places, store);
    if (failed !== undefined) {
      const instead = isLoaded ? " Until then the Worker runs as it was." : "";
      return say(`${failed}\nPut that right and save the file: it is looked at again at once.${instead}`);
    }
    isLoaded = true;
    provider?.serve(base);
    check.abort();
    check = new AbortController();
    const { signal } = check;
    if (changed) say(`Taken up: ${changed}.`);
    const address = `http://localhost:${places.port}`;
    void untilHealthy(address, base, store.where, signal).then((isHealthy) => {
      if (!isHealthy || isReady) return;
      isReady = true;
      say(`\n  Cloakroom is at  ${address}`);
      say(`  Sessions are in  ${store.where}`);
      say(`  Secrets are in   ${shown(places.devVars)}`);
      if (provider) say(`  Log in with      the demo provider at ${provider.issuer}: any name, no password`);
      say(`  Ctrl-C stops it. A change in ${watchedPlaces(places)} is taken up at once.\n`);
    });
  };

  await load();
  for await (const changed of watched) {
    const sources = SOURCES.filter((source) => changed.has(source));
    if (sources.length && !(await build())) {
      say("It could not be built: see above. Put that right and save the file: it is built again at once.");
      for (const source of sources) changed.delete(source);
      if (!changed.size) continue;
    }
    if (changed.has(places.devVars)) {
      const before = store;
      store = await chooseStore(places).catch((error) => {
        say(`${sentence(error)} Until then sessions stay in ${before.where}.`);
        return before;
      });
      if (store.where !== before.where) say(`Sessions are in  ${store.where}`);
    }
    await load([...changed].map(shown).join(", "));
  }
}

/**
 * Ends everything once, by the first who asks.
 *
 * @param {number} code
 * @param {string} last
 */
function end(code, last) {
  ending ??= (async () => {
    for (const step of [...undo].reverse()) {
      await step().catch((error) => console.error(sentence(error)));
    }
    if (code === 0) say(last);
    else console.error(last);
    process.exit(code);
  })();
  return ending;
}

/** @returns {Places} */
function options() {
  try {
    const { values } = parseArgs({
      options: {
        port: { type: "string" },
        state: { type: "string" },
        "dev-vars": { type: "string" },
        config: { type: "string" },
        closed: { type: "boolean" },
        "demo-provider": { type: "boolean" },
      },
    });
    const port = Number(values.port ?? (process.env.PORT || 8787));
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw new Error(`a port is a number from 1 to 65535, not "${values.port ?? process.env.PORT}"`);
    }
    return {
      port,
      state: resolve(ROOT, values.state ?? ".local"),
      devVars: resolve(ROOT, values["dev-vars"] ?? ".dev.vars"),
      config: resolve(ROOT, values.config ?? "wrangler.toml"),
      closed: values.closed ?? false,
      demoProvider: values["demo-provider"] ?? false,
    };
  } catch (error) {
    const why = error instanceof Error ? error.message : error;
    throw new Error(
      `Options are --port N, --state DIR, --dev-vars FILE, --config FILE, --closed and --demo-provider: ${why}.`,
      {
        cause: error,
      },
    );
  }
}

/**
 * Two at once would share the data.
 *
 * @param {string} state
 * @param {number} port
 */
function lock(state, port) {
  mkdirSync(state, { recursive: true, mode: 0o700 });
  const { holder, release } = takeLock(join(state, "lock"), `http://localhost:${port}`);
  if (holder) {
    throw new Error(
      `npm start is already running here (process ${holder.pid}, ${holder.note}): stop it first, or keep ` +
        `other data beside it: npm start -- --port 8788 --state .local/second`,
    );
  }
  undo.unshift(async () => release()); // last of all
}

/** @param {number} port */
async function refuseTakenPort(port) {
  const choose = `PORT=${port === 8788 ? 8789 : 8788} npm start`;
  for (const host of ["127.0.0.1", "::1"]) {
    if (await isAnswered(port, host)) {
      const by = await userOf(port);
      throw new Error(`Port ${port} is in use${by}. Stop what uses it, or choose another: ${choose}`);
    }
  }
  const server = net.createServer();
  await new Promise((done, failed) => {
    server.once("error", failed).listen(port, "127.0.0.1", () => server.close(done));
  }).catch(({ code }) => {
    throw new Error(`Port ${port} cannot be used (${code}). Choose another: ${choose}`);
  });
}

/**
 * @param {number} port
 * @param {string} host
 * @returns {Promise<boolean>}
 */
function isAnswered(port, host) {
  return new Promise((done) => {
    const socket = net.connect({ port, host }, () => done(true)).once("error", () => done(false));
    socket.once("connect", () => socket.destroy());
  });
}

/** @param {number} port */
async function userOf(port) {
  const { output } = await capture("lsof", ["-nP", `-iTCP:${port}`, "-sTCP:LISTEN", "-Fpc"]);
  const [, pid, name] = /^p(\d+)\nc(.+)$/m.exec(output) ?? [];
  return pid ? ` by ${name} (process ${pid})` : "";
}

/** @param {string} file @returns {Promise<Record<string, string | undefined>>} */
async function readSecrets(file) {
  return parseEnv(await readFile(file, "utf8").catch(() => ""));
}

/** The database someone has named, else the one on this machine. @param {Places} places */
async function chooseStore({ devVars, state }) {
  return remoteStore(await readSecrets(devVars)) ?? localStore(state);
}

/**
 * The database someone has named, or null.
 *
 * @param {Record<string, string | undefined>} secrets of .dev.vars
 * @returns {Store | null}
 */
function remoteStore(secrets) {
  const url = process.env[URL_NAME] || secrets[URL_NAME];
  const token = process.env[TOKEN_NAME] || secrets[TOKEN_NAME];
  if (!url && !token) return null;
  if (!url || !token) {
    const [there, missing] = url ? [URL_NAME, TOKEN_NAME] : [TOKEN_NAME, URL_NAME];
    throw new Error(
      `${there} is set but ${missing} is not: set both to use that database, or neither for the local one.`,
    );
  }
  if (!/^https?:/.test(url) || !URL.canParse(url)) {
    throw new Error(`${URL_NAME} must be the REST address of the database, such as https://name.upstash.io.`);
  }
  return { url, token, where: `the database at ${new URL(url).host}` };
}

/** The one on this machine, started when it is first asked for. @param {string} state @returns {Promise<Store>} */
function localStore(state) {
  return (local ??= startLocal(state));
}

/** @param {string} state @returns {Promise<Store>} */
async function startLocal(state) {
  const { startLocalStore } = await import("./local-store/index.mjs");
  const dir = join(state, "data");
  const { url, token, stop } = await startLocalStore({ dir });
  undo.push(stop);
  return { url, token, where: `${shown(dir)} (kept when you stop)` };
}

/**
 * Makes the secrets that are missing; what is there is not touched.
 *
 * @param {string} file
 */
async function makeSecrets(file) {
  const known = await readSecrets(file);
  const text = await readFile(file, "utf8").catch(() => null);
  const random = () => randomBytes(48).toString("base64url");
  let more = text === null ? "# Secrets for npm start on this machine alone; not for git.\n" : "";
  if (!("SESSION_SECRET" in known)) {
    more += `\n# Signs tickets. To rotate, put a new one and a comma in front of it.\nSESSION_SECRET=${random()}\n`;
  }
  if (!("ADMIN_TOKEN" in known)) {
    more += `\n# Opens the service API under /auth/admin.\nADMIN_TOKEN=${random()}\n`;
  }
  if (!more) return;
  await writeSecret(file, text && !text.endsWith("\n") ? `${text}\n${more}` : `${text ?? ""}${more}`);
  say(`${text === null ? "Made" : "Added what was missing to"} ${shown(file)}, with random secrets.`);
}

/**
 * @param {string} file
 * @param {string} text
 */
async function writeSecret(file, text) {
  await writeFile(file, text, { mode: 0o600 });
}

/** As here one sees how far it is. @returns {Promise<boolean>} whether it could be built */
async function build() {
  return (await launch(process.execPath, ["tools/build.mjs"]).exited) === 0;
}

/** @param {number} port the Worker's @returns {Promise<DemoProvider>} */
async function startProvider(port) {
  const { startDemoProvider } = await import("./demo-provider.mjs");
  const provider = await startDemoProvider({ port });
  undo.push(provider.stop);
  return provider;
}

/** The process that runs the Worker, and says what that logs. @param {string} state @param {DemoProvider} [provider] */
function startWorker(state, provider) {
  const process = launchScript("tools/local-worker.mjs", {
    env: { XDG_CONFIG_HOME: join(state, "wrangler") }, // not into the home folder
  });
  return {
    exited: process.exited,
    /** @param {Places} places @param {Store} store @returns {Promise<Loaded>} */
    load: ({ port, config, devVars, closed }, { url, token }) => {
      const bindings = { [URL_NAME]: url, [TOKEN_NAME]: token, ...provider?.secrets };
      /** @type {Wanted} */
      const wanted = {
        ...{ port, config, secrets: devVars, bindings, open: !closed },
        provider: provider?.settings,
      };
      return process.ask({ load: wanted });
    },
  };
}

/**
 * Says, until the Worker is well, what is wrong with it: each thing once.
 *
 * @param {string} address
 * @param {string} base where its routes are
 * @param {string} where the sessions are
 * @param {AbortSignal} signal that it is not to be waited for any more
 * @returns {Promise<boolean>} whether it is well
 */
async function untilHealthy(address, base, where, signal) {
  const since = Date.now();
  let said = -1;
  let pause = LOOK_AGAIN_MS.first;
  while (!signal.aborted) {
    const timeout = AbortSignal.timeout(SILENT_MS);
    const response = await fetch(`${address}${base}/health`, {
      redirect: "manual",
      signal: AbortSignal.any([signal, timeout]),
    }).catch(() => null);
    const text = (await response?.text().catch(() => ""))?.trim() ?? "";
    const status = response?.status ?? 0;
    if (signal.aborted || status === 200) return status === 200;
    await sleep(pause); // what the Worker has to say about it comes first
    if (status !== said && (status || Date.now() - since > SILENT_MS)) {
      said = status;
      say(trouble(status, text, `${base}/health`, where));
    }
    pause = Math.min(2 * pause, LOOK_AGAIN_MS.longest);
  }
  return false;
}

/**
 * @param {number} status 0: no answer
 * @param {string} text
 * @param {string} path
 * @param {string} where the sessions are
 */
function trouble(status, text, path, where) {
  if (text.includes('"misconfigured"')) {
    return "Cloakroom is misconfigured: what to change is said above. Save the file, and it is tried again at once.";
  }
  if (status === 503) return `Cloakroom runs, but ${where} does not answer as it should. Waiting for it …`;
  if (!status) return `Cloakroom has not answered at ${path} yet. Waiting for it …`;
  return `Cloakroom runs, but ${path} says ${status}: ${text}. Waiting for it to become well …`;
}

/** What is watched, for people. @param {Places} places */
function watchedPlaces({ config, devVars }) {
  return `src/, public/, ${shown(config)} or ${shown(devVars)}`;
}

/** @param {string} path */
function shown(path) {
  const short = relative(process.cwd(), path);
  return short.startsWith("..") ? path : short;
}
