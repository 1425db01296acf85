/** `npm run doctor`: whether a database does what the Worker relies on, and whether settings and a deployment are as they should be. */
import { resolve } from "node:path";
import { parseArgs } from "node:util";
import { Database } from "./doctor/database.mjs";
import { checkDeployment, Deployment } from "./doctor/deployment.mjs";
import { Report } from "./doctor/report.mjs";
import { checkDatabase, checked } from "./doctor/rows.mjs";
import { checkSettings, duration, readSettings, TOKEN_NAME, URL_NAME } from "./doctor/settings.mjs";
import { Finding } from "./doctor/finding.mjs";
import { basePath } from "./page.mjs";
import { ROOT, say, sentence } from "./say.mjs";

const USAGE = `npm run doctor -- [OPTION…]

Checks the database that ${URL_NAME} and ${TOKEN_NAME} name, in the environment or in
.dev.vars: every command that the Worker sends, and what it relies on. It writes keys of its own under a random prefix
and removes them again, also when it is interrupted; about 500 billed commands. Also the settings in wrangler.toml and the
secrets, of which it shows the length alone.

  --url URL         also a deployment: its health, cookie, CORS and clock; or CLOAKROOM_URL in the environment.
                    Begins one session there, and ends it
  --local           a database on this machine instead, to see what the report looks like
  --config FILE     instead of wrangler.toml
  --env NAME        an environment of it; or CLOUDFLARE_ENV
  --dev-vars FILE   instead of .dev.vars
  --json            the report as JSON
  --help

Exit codes: 0 nothing failed, 1 something failed, 2 wrong usage, 3 the database or the deployment cannot be reached or
refuses to be used, 130 interrupted.`;

/** Also without a setting. */
const TIMEOUT_MS = 2000;

class UsageError extends Error {}

/** What has to be removed again. @type {(() => Promise<unknown>)[]} */
const undo = [];
let isEnding = false;

process.exitCode = await main().catch((error) => {
  if (!(error instanceof UsageError)) throw error;
  console.error(`${error.message}\n\n${USAGE}`);
  return 2;
});

/** @returns {Promise<number>} the exit code */
async function main() {
  // 1. What is to be checked.
  const options = readOptions();
  if (options.help) {
    say(USAGE);
    return 0;
  }
  const places = { config: options.config, devVars: options.devVars, env: options.env };
  const settings = await readSettings(places);
  const { table, secrets } = settings;
  const remote = await chooseDatabase(options, secrets);
  const database =
    remote && new Database({ ...remote, timeout: timeoutOf(table), keyPrefix: textOf(table.key_prefix) });
  const deployment = options.url ? new Deployment({ url: options.url, base: basePath(table) }) : undefined;
  const report = new Report({
    isJson: options.json,
    about: {
      ...(database ? { database: `${database.host}, keys under ${database.prefix}` } : {}),
      ...(deployment ? { deployment: deployment.origin } : {}),
    },
  });

  // 2. Whatever happens, nothing is left behind.
  const cleanUp = () => removeAll({ database, deployment, report });
  let interrupted = false;
  const onSignal = () => {
    if (interrupted) return; // npm passes Ctrl-C on to us, who have had it already; and it does not take long
    [interrupted, isEnding] = [true, true];
    void cleanUp().then(() => {
      report.end({ interrupted });
      process.exit(130);
    });
  };
  const tell = (/** @type {import("./doctor/rows.mjs").Result} */ result) => {
    if (!isEnding) report.add(result);
  };

  // 3. The checks.
  let [hasDatabase, hasDeployment] = [true, true];
  try {
    await checkSettings(settings, places, tell);
    // wrangler and Miniflare would end the process at once, and leave our keys behind.
    for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
      process.removeAllListeners(signal).on(signal, onSignal);
    }
    if (database) hasDatabase = await checkDatabase(database, tell);
    if (deployment) {
      const adminToken = secrets.get("ADMIN_TOKEN")?.value;
      const checkedToo = hasDatabase ? database : undefined;
      hasDeployment = await checkDeployment({ deployment, table, adminToken, database: checkedToo }, tell);
    }
  } finally {
    if (!isEnding) await cleanUp();
  }
  if (interrupted) return new Promise(() => {}); // the other one ends it
  report.end({ interrupted });
  if (!hasDatabase || !hasDeployment) return 3;
  return report.count("failed") ? 1 : 0;
}

/**
 * @param {{ database: Database | undefined, deployment: Deployment | undefined, report: Report }} what
 */
async function removeAll({ database, deployment, report }) {
  /** @param {string} id @param {string} what @param {string} otherwise @param {() => Promise<string | void>} check */
  const row = async (id, what, otherwise, check) => {
    report.add((await checked({ group: "clean-up", id, what, otherwise }, check)).result);
  };
  if (deployment) {
    await row("session", "the session is ended", "It ends by itself when it is not used.", async () => {
      await deployment.end();
    });
  }
  if (database) {
    const otherwise = `Keys may be left under ${database.prefix}; those with a time to live expire within ten minutes.`;
    await row("keys", "the keys are removed", otherwise, async () => {
      const why = await database.close();
      if (why) throw new Finding(why, "warned");
    });
  }
  for (const step of undo) await step();
}

function readOptions() {
  try {
    const { values } = parseArgs({
      options: {
        url: { type: "string" },
        local: { type: "boolean" },
        config: { type: "string" },
        env: { type: "string" },
        "dev-vars": { type: "string" },
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
      },
    });
    const url = values.url ?? (process.env.CLOAKROOM_URL || undefined);
    if (url !== undefined && !(URL.canParse(url) && /^https?:$/.test(new URL(url).protocol))) {
      throw new Error("a deployment's URL is like https://cloakroom.example.workers.dev");
    }
    return {
      url,
      local: values.local ?? false,
      json: values.json ?? false,
      help: values.help ?? false,
      env: values.env ?? (process.env.CLOUDFLARE_ENV || undefined),
      config: resolve(ROOT, values.config ?? "wrangler.toml"),
      devVars: resolve(ROOT, values["dev-vars"] ?? ".dev.vars"),
    };
  } catch (error) {
    throw new UsageError(sentence(new Error(error instanceof Error ? error.message : String(error))));
  }
}

/**
 * @param {ReturnType<typeof readOptions>} options
 * @param {Map<string, { value: string }>} secrets
 * @returns {Promise<{ url: string, token: string } | undefined>}
 */
async function chooseDatabase({ local, url: deployment }, secrets) {
  if (local) {
    const { startLocalStore } = await import("./local-store/index.mjs");
    const store = await startLocalStore();
    undo.push(store.stop);
    return store;
  }
  const [url, token] = [secrets.get(URL_NAME)?.value, secrets.get(TOKEN_NAME)?.value];
  if (url && token) {
    if (!URL.canParse(url))
      throw new UsageError(`${URL_NAME} is the REST URL of the database, like https://name.upstash.io.`);
    return { url, token };
  }
  if (url || token) throw new UsageError(`${url ? TOKEN_NAME : URL_NAME} is missing: set both.`);
  if (deployment) return undefined;
  throw new UsageError(
    `There is nothing to check: set ${URL_NAME} and ${TOKEN_NAME} in the environment or in .dev.vars, give --url, or try --local.`,
  );
}

/** @param {Record<string, any>} table */
function timeoutOf({ store }) {
  return duration(store?.timeout, TIMEOUT_MS);
}

/** @param {unknown} value */
function textOf(value) {
  return typeof value === "string" ? value : "";
}
