/**
 * `npm start`: the Worker at http://localhost:8787, with a database of its own on this machine.
 *
 *   PORT=8788 npm start                 another port (or: npm start -- --port 8788)
 *   npm start -- --state DIR            where data and lock are kept, instead of .local
 *   npm start -- --dev-vars FILE        the secrets, instead of .dev.vars
 *
 * With UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN in the environment or in .dev.vars it uses that
 * database instead.
 */
import { randomBytes } from "node:crypto";
import { mkdirSync } from "node:fs";
import { readFile, rm, writeFile } from "node:fs/promises";
import net from "node:net";
import { join, relative, resolve } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs, parseEnv, stripVTControlCharacters } from "node:util";
import { takeLock } from "./lock.mjs";
import { capture, killPrograms, launch, ROOT, say, sentence, stopPrograms } from "./say.mjs";
import { checkNode, ensureSetup } from "./setup.mjs";

const URL_NAME = "UPSTASH_REDIS_REST_URL";
const TOKEN_NAME = "UPSTASH_REDIS_REST_TOKEN";

/** What wrangler says that nobody needs: its start, and the requests by which we wait for it. */
const CHATTER = [
  /^Using secrets defined in /,
  /^Your Worker has access to the following bindings:/,
  /^(Binding +Resource|env\.)/,
  /^The file src changed, restarting build/,
  /^\[custom build\] *($|Running: |> |build\/?: )/,
  /^(⎔ Starting local server|🪵 +Logs were written)/u,
  /^\[wrangler:info\] (Ready on |✨ Parsed |GET \S+\/health )/,
];

/** npm passes Ctrl-C on to us, who have had it from the terminal already: so soon it is not a second one. */
const SAME_CTRL_C_MS = 1000;

/** What has to be undone in the end, in the order it was done. @type {(() => Promise<unknown>)[]} */
const undo = [stopPrograms];
/** @type {Promise<never> | undefined} */
let ending;

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
  const { port, state, devVars } = options();
  lock(state, port);
  await refuseTakenPort(port);
  const remote = remoteStore(await readSecrets(devVars));

  // 2. What the machine lacks.
  await ensureSetup({ store: !remote });
  await makeSecrets(devVars);

  // 3. The database.
  const store = remote ?? (await localStore(state));

  // 4. The Worker: built first, as here one sees how far it is.
  if ((await launch(process.execPath, ["tools/build.mjs"]).exited) !== 0) {
    throw new Error("The Worker could not be built: see above.");
  }
  const storeVars = join(state, "store.vars");
  await writeSecret(storeVars, `${URL_NAME}=${quote(store.url)}\n${TOKEN_NAME}=${quote(store.token)}\n`);
  undo.push(() => rm(storeVars, { force: true }));
  const wrangler = runWrangler({ port, state, envFiles: [devVars, storeVars] });

  // 5. The address, once it answers.
  const address = `http://localhost:${port}`;
  const answering = await Promise.race([untilHealthy(address, store.where), wrangler.exited]);
  if (answering === true) {
    say(`\n  Cloakroom is at  ${address}`);
    say(`  Sessions are in  ${store.where}`);
    say(`  Secrets are in   ${shown(devVars)}`);
    say(`  Ctrl-C stops it. A change in src/ rebuilds it.\n`);
  }
  await wrangler.exited;
  throw new Error(`wrangler dev ended by itself: what it said is above.`);
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

function options() {
  try {
    const { values } = parseArgs({
      options: { port: { type: "string" }, state: { type: "string" }, "dev-vars": { type: "string" } },
    });
    const port = Number(values.port ?? (process.env.PORT || 8787));
    if (!Number.isInteger(port) || port < 1 || port > 65535) {
      throw new Error(`a port is a number from 1 to 65535, not "${values.port ?? process.env.PORT}"`);
    }
    return {
      port,
      state: resolve(ROOT, values.state ?? ".local"),
      devVars: resolve(ROOT, values["dev-vars"] ?? ".dev.vars"),
    };
  } catch (error) {
    const why = error instanceof Error ? error.message : error;
    throw new Error(`Options are --port N, --state DIR and --dev-vars FILE: ${why}.`, { cause: error });
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

/**
 * The database someone has named, or null.
 *
 * @param {Record<string, string | undefined>} secrets of .dev.vars
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

/** @param {string} state */
async function localStore(state) {
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

/** For a file that wrangler reads. @param {string} value */
function quote(value) {
  return `'${value.replaceAll("$", "\\$")}'`;
}

/** @param {{ port: number, state: string, envFiles: string[] }} settings */
function runWrangler({ port, state, envFiles }) {
  const home = join(state, "wrangler");
  const wrangler = launch(
    process.execPath,
    [
      ...["node_modules/wrangler/bin/wrangler.js", "dev", "--show-interactive-dev-session=false"],
      ...["--ip", "127.0.0.1", "--port", String(port), "--inspector-port", "0"],
      ...["--persist-to", join(home, "state")],
      ...envFiles.flatMap((file) => ["--env-file", file]),
    ],
    {
      capture: true,
      env: {
        CLOUDFLARE_CF_FETCH_ENABLED: "false",
        WRANGLER_SEND_METRICS: "false",
        WRANGLER_HIDE_BANNER: "true", // and with it goes its look for updates
        XDG_CONFIG_HOME: join(home, "config"), // not into the home folder
        npm_config_update_notifier: "false", // its npm, which runs the build
        npm_config_loglevel: "silent",
        npm_config_logs_max: "0",
      },
    },
  );
  for (const stream of [wrangler.stdout, wrangler.stderr]) {
    if (stream) createInterface({ input: stream }).on("line", passOn());
  }
  return wrangler;
}

/** A filter for one stream of wrangler's. */
function passOn() {
  let inDump = false;
  /** @param {string} line */
  return (line) => {
    const plain = stripVTControlCharacters(line);
    // A failed rebuild: the compiler has spoken, and the error object tells it all again.
    if (/^✘ \[ERROR\] Error: Command failed with exit code/.test(plain)) inDump = true;
    else if (/^\S/.test(plain)) inDump = false;
    if (inDump || !plain.trim() || CHATTER.some((pattern) => pattern.test(plain))) return;
    say((process.stdout.isTTY ? line : plain).replace(/^\S*\[(custom build|wrangler:info)\]\S* /, ""));
  };
}

/**
 * @param {string} address
 * @param {string} where the sessions are
 * @returns {Promise<true>}
 */
async function untilHealthy(address, where) {
  const config = await readFile(join(ROOT, "wrangler.toml"), "utf8");
  const base = /^base_path\s*=\s*"(.*?)"/m.exec(config)?.[1] ?? "/auth";
  let said = 0;
  for (;;) {
    const response = await fetch(`${address}${base}/health`, { signal: AbortSignal.timeout(5000) }).catch(
      () => null,
    );
    const text = await response?.text().catch(() => "");
    if (response?.status === 200) return true;
    if (response && response.status !== said) {
      said = response.status;
      const why = said === 503 ? `${where} does not answer` : text?.trim();
      say(`The Worker runs, but ${base}/health says ${said}: ${why}. Waiting for it to become well …`);
    }
    await sleep(200);
  }
}

/** @param {string} path */
function shown(path) {
  const short = relative(process.cwd(), path);
  return short.startsWith("..") ? path : short;
}
