/** `npm run encryption`: see USAGE. */
import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { createClient } from "@redis/client";
import { ask, EXIT, findDeployment, Stop } from "./deployment.mjs";
import { readSettings, TOKEN_NAME, URL_NAME } from "./doctor/settings.mjs";
import { ROOT, sentence } from "./say.mjs";
import { columns, printable } from "./table.mjs";
import { socketOf } from "./valkey.mjs";

/** @typedef {(commands: string[][]) => Promise<any[]>} Send */
/** @typedef {{ keys: string[], seals: boolean }} Keys `keys`: ids, in the order of the setting */

const NAME = "SESSION_ENCRYPTION_KEY";
const USAGE = `npm run encryption [-- OPTION…]

Under which keys of ${NAME} what is stored is sealed, and so which of them can be dropped. It looks at the
first characters of each record, which name a key, and opens none.

  --reseal          also has every account that is sealed otherwise than it would be today sealed anew, by the deployment
                    that CLOAKROOM_URL and ADMIN_TOKEN name
  --json            the counts as JSON
  --config FILE, --env NAME, --dev-vars FILE, --state DIR   as of npm start and npm run doctor

The database is that of ${URL_NAME} and ${TOKEN_NAME} in the environment, else in .dev.vars, else
the local one of npm start. A command is billed for each record.
Exit codes: 0 every key but the first can be dropped, 1 not yet, 2 wrong usage, 3 not reached or refused.`;

/** What can be sealed, by the beginning of its key behind key_prefix. */
const KINDS = {
  "sess:": "sessions",
  "account:": "accounts",
  "tower:": "tower-sessions",
  "cache:": "cached values",
  "cache-sha256:": "cached values",
};
const COLUMNS = [...new Set(Object.values(KINDS))];
const BEFORE = '{"v":1,"sealed":"';
const ID_LENGTH = 8;
/** In the place of a session that was rotated or replaced; never sealed, as there is nothing in it. */
const REDIRECT = '{"v":1,"moved":';
const UNSEALED = "unsealed";
const AT_ONCE = 500;
const PATIENCE_MS = 30_000;

let close = async () => {};
try {
  process.exitCode = await main();
} catch (error) {
  console.error(error instanceof Stop ? error.message : sentence(error));
  process.exitCode = error instanceof Stop ? error.code : EXIT.refused;
} finally {
  await close();
}

async function main() {
  // 1. Where, and under which keys.
  const { values } = options();
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const devVars = resolve(ROOT, values["dev-vars"] ?? ".dev.vars");
  const config = resolve(ROOT, values.config ?? "wrangler.toml");
  const settings = await readSettings({ config, devVars, env: values.env ?? process.env.CLOUDFLARE_ENV });
  const secret = (/** @type {string} */ name) => settings.secrets.get(name)?.value ?? "";
  const keys = idsOf(secret(NAME));
  const send = await database(secret(URL_NAME), secret(TOKEN_NAME), values.state ?? ".local");
  const prefix = String(settings.table.key_prefix ?? "");

  // 2. What is sealed how; and, if asked for, the accounts sealed anew.
  let { counts, stale } = await count(send, prefix, keys);
  if (values.reseal && stale.length) {
    const deployment = await findDeployment({ devVars: values["dev-vars"], state: values.state });
    for (const name of stale) await ask(deployment, "GET", `/users?name=${encodeURIComponent(name)}`);
    // They are sealed after the answers.
    for (let left = 20; left && stale.length; left -= 1) {
      await new Promise((done) => setTimeout(done, 100));
      ({ counts, stale } = await count(send, prefix, keys));
    }
  }

  // 3. What follows.
  const rows = rowsOf(counts, keys);
  if (values.json) console.log(JSON.stringify(rows, null, 2));
  else {
    const cells = rows.map(({ key, id, counts }) => [key, id, ...COLUMNS.map((kind) => counts[kind] ?? 0)]);
    console.log(columns(["key", "id", ...COLUMNS], cells));
    console.log(
      `\n${rows
        .map(({ says }) => says)
        .filter(Boolean)
        .join("\n")}`,
    );
  }
  return rows.every(({ isDone }) => isDone) ? EXIT.found : EXIT.notFound;
}

function options() {
  const text = { type: /** @type {const} */ ("string") };
  const flag = { type: /** @type {const} */ ("boolean") };
  try {
    return parseArgs({
      options: {
        reseal: flag,
        json: flag,
        help: { ...flag, short: "h" },
        config: text,
        env: text,
        "dev-vars": text,
        state: text,
      },
    });
  } catch (error) {
    throw new Stop(`${error instanceof Error ? error.message : error}\n\n${USAGE}`, EXIT.usage);
  }
}

/** The ids of the keys, as src/encryption.rs makes them. @param {string} text @returns {Keys} */
function idsOf(text) {
  const entries = text.split(",").map((entry) => entry.trim());
  const seals = entries[0] !== "none" && text !== "";
  const keys = entries
    .filter((entry) => entry && entry !== "none")
    .map((entry) => Buffer.from(entry, "base64"));
  if (keys.some((key) => key.length !== 32)) {
    throw new Stop(`${NAME} holds what is no key: npm run doctor says more.`, EXIT.usage);
  }
  const id = (/** @type {Buffer} */ key) =>
    createHash("sha256").update("cloakroom encryption key id v1 ").update(key).digest().subarray(0, 6);
  return { keys: keys.map((key) => id(key).toString("base64url")), seals };
}

/** @param {string} url @param {string} token @param {string} state @returns {Promise<Send>} */
async function database(url, token, state) {
  if (url && token) {
    if (!URL.canParse(url)) throw new Stop(`${URL_NAME} is no URL.`, EXIT.usage);
    return async (commands) => {
      const response = await fetch(`${url.replace(/\/+$/, "")}/pipeline`, {
        method: "POST",
        headers: { Authorization: `Bearer ${token}` },
        body: JSON.stringify(commands),
        redirect: "error", // the token is for nobody else
        signal: AbortSignal.timeout(PATIENCE_MS),
      }).catch((error) => {
        const why = printable(error.cause?.code ?? error.cause?.message ?? error.message);
        throw new Stop(`The database cannot be reached: ${why}.`, EXIT.refused);
      });
      const replies = await response.json().catch(() => undefined);
      if (!Array.isArray(replies)) throw new Stop(`The database answered ${response.status}.`, EXIT.refused);
      const wrong = replies.find((reply) => "error" in reply);
      if (wrong) throw new Stop(`The database says: ${printable(wrong.error)}`, EXIT.refused);
      return replies.map((reply) => reply.result);
    };
  }
  const path = await socketOf(join(resolve(ROOT, state), "data"));
  if (!path) {
    const what = `Set ${URL_NAME} and ${TOKEN_NAME}, or start the local store with npm start.`;
    throw new Stop(what, EXIT.usage);
  }
  const redis = createClient({ socket: { path, tls: false, reconnectStrategy: false } });
  redis.on("error", () => {}); // the command gets it
  await redis.connect();
  close = async () => redis.destroy();
  return (commands) => Promise.all(commands.map((command) => redis.sendCommand(command)));
}

/**
 * How many records of which kind are sealed under which key.
 * @param {Send} send
 * @param {string} prefix
 * @param {Keys} keys
 * @returns {Promise<{ counts: Map<string, Record<string, number>>, stale: string[] }>} `stale`: names of accounts that are
 *   not sealed as they would be today
 */
async function count(send, prefix, { keys, seals }) {
  const current = seals ? keys[0] : UNSEALED;
  /** @type {Map<string, Record<string, number>>} */
  const counts = new Map();
  const stale = new Set();
  const seen = new Set();
  const pattern = `${prefix.replace(/[\\*?[\]]/g, "\\$&")}*`;
  let cursor = "0";
  do {
    const [[next, found]] = await send([
      ["SCAN", cursor, "MATCH", pattern, "COUNT", String(AT_ONCE), "TYPE", "string"],
    ]);
    cursor = String(next);
    const records = found.flatMap((/** @type {string} */ key) => {
      const name = key.slice(prefix.length);
      const kind = Object.entries(KINDS).find(([start]) => name.startsWith(start));
      // A key may be found more than once.
      return kind && !seen.has(key) && seen.add(key)
        ? [{ key, kind: kind[1], name: name.slice(kind[0].length) }]
        : [];
    });
    if (!records.length) continue;
    const length = BEFORE.length + ID_LENGTH;
    const starts = await send(
      records.map((/** @type {{ key: string }} */ { key }) => ["GETRANGE", key, "0", String(length - 1)]),
    );
    for (const [index, { kind, name }] of records.entries()) {
      const start = String(starts[index]);
      if (start === "" || start.startsWith(REDIRECT)) continue;
      const id = start.startsWith(BEFORE) ? start.slice(BEFORE.length) : UNSEALED;
      const row = counts.get(id) ?? {};
      counts.set(id, { ...row, [kind]: (row[kind] ?? 0) + 1 });
      if (kind === "accounts" && id !== current && (id === UNSEALED || keys.includes(id))) stale.add(name);
    }
  } while (cursor !== "0");
  return { counts, stale: [...stale] };
}

/** @param {Map<string, Record<string, number>>} counts @param {Keys} keys */
function rowsOf(counts, { keys, seals }) {
  const unknown = [...counts.keys()].filter((id) => id !== UNSEALED && !keys.includes(id));
  return [...keys, ...unknown, UNSEALED].map((id, index) => {
    const found = counts.get(id) ?? {};
    const total = Object.values(found).reduce((sum, one) => sum + one, 0);
    const place = keys.includes(id)
      ? `entry ${index + 1 + (seals ? 0 : 1)}`
      : id === UNSEALED
        ? UNSEALED
        : "unknown";
    const isCurrent = seals ? index === 0 && keys.length > 0 : id === UNSEALED;
    return {
      key: place,
      id: id === UNSEALED ? "" : id,
      counts: found,
      isDone: isCurrent || total === 0,
      says: verdict(),
    };

    function verdict() {
      if (isCurrent) return id === UNSEALED ? "" : `${place} (${id}) seals.`;
      if (place === "unknown")
        return `${id} is no key of ${NAME} here: what is sealed under it cannot be read, unless the deployment has it.`;
      if (total === 0)
        return id === UNSEALED ? "" : `${place} (${id}) can be dropped: nothing is sealed under it.`;
      const rest = found.accounts ? "; accounts when they are next used, or with --reseal" : "";
      const what =
        id === UNSEALED ? "What is unsealed" : `${place} (${id}) is still needed: what is sealed under it`;
      return `${what} is sealed anew when it is next written, or ends${rest}.`;
    }
  });
}
