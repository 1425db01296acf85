/** `npm run inspect`: see USAGE. */
import { parseArgs } from "node:util";
import { ask, EXIT, findDeployment, Stop } from "./deployment.mjs";
import { sentence } from "./say.mjs";
import { columns, pairs, printable, printableJson } from "./table.mjs";

/** @typedef {import("./deployment.mjs").Deployment} Deployment */
/** @typedef {{ isFound: boolean, json: unknown, text: string }} Found `text`: the same for people */

const USAGE = `npm run inspect -- WHAT [--json]

Looks at a deployment, and changes nothing there.

  handle:HANDLE   a session, by the handle that logs and lists show
  cookie:-        a visitor's cookie or ticket, from standard input: what it is, and if it is dead, why
  user:ID         a user's account and sessions
  name:NAME       the same by the name of the account
  stats           the counters of the last 35 days

  --json          what the service API answers
  --dev-vars FILE, --state DIR   those of npm start, if it was started with them

The deployment is that of CLOAKROOM_URL and ADMIN_TOKEN in the environment, else in .dev.vars, else what npm start runs.
Exit codes: 0 found (a cookie: alive), 1 not, 2 wrong usage, 3 not reached or refused.`;

/** As many bytes as the service API reads. */
const MAX_INPUT = 256 * 1024;
const MAX_DATA = 2000;

/** What stands before a cookie or a ticket in a line of headers. */
const HEADER = /^((set-)?cookie:|(authorization: *)?bearer )\s*/i;

/** @type {[unit: string, seconds: number][]} */
const UNITS = [
  ["d", 86_400],
  ["h", 3600],
  ["min", 60],
];

/** @type {Record<string, (deployment: Deployment, value: string) => Promise<Found>>} */
const SUBJECTS = { handle: session, cookie, user, name };

/** @type {Record<string, string>} */
const REASONS = {
  ended: "it has ended: logged out, replaced by a login, or unused for too long",
  expired: "it is past its absolute end",
  rotated:
    "the session has another id by now, and the time in which this one was good is over: its use is a sign of a copy",
  revoked: "all sessions of its user were ended after it was issued",
  forged: "no secret of this deployment has signed it, or it is no ticket",
  unknown_key:
    "it is signed with a secret that is not known there: dropped, not rolled out yet, or another deployment's",
};

try {
  const { what, json, ...places } = options();
  const look = subject(what);
  const found = await look(await findDeployment(places));
  console.log(json ? printableJson(found.json) : found.text);
  process.exitCode = found.isFound ? EXIT.found : EXIT.notFound;
} catch (error) {
  console.error(error instanceof Stop ? error.message : sentence(error));
  process.exitCode = error instanceof Stop ? error.code : EXIT.refused;
}

function options() {
  /** @type {any} */
  let parsed;
  try {
    parsed = parseArgs({
      allowPositionals: true,
      options: {
        json: { type: "boolean" },
        help: { type: "boolean", short: "h" },
        "dev-vars": { type: "string" },
        state: { type: "string" },
      },
    });
  } catch (error) {
    throw usage(error instanceof Error ? error.message : String(error));
  }
  const { values, positionals } = parsed;
  if (values.help) {
    console.log(USAGE);
    process.exit(EXIT.found);
  }
  if (positionals.length !== 1) throw usage("Say one thing to look at.");
  return { what: positionals[0], json: values.json, devVars: values["dev-vars"], state: values.state };
}

/** @param {string} why */
function usage(why) {
  return new Stop(`${why}\n\n${USAGE}`, EXIT.usage);
}

/** What is to be looked at. Nothing of it is repeated in an error: it may be a cookie. @param {string} what */
function subject(what) {
  const [, kind = what, value] = /^([a-z]+):([^]*)$/.exec(what) ?? [];
  if (what === "stats") return stats;
  if (!Object.hasOwn(SUBJECTS, kind) || value === undefined) {
    throw usage("What to look at is handle:HANDLE, cookie:-, user:ID, name:NAME or stats.");
  }
  if (kind === "cookie" && value !== "-") {
    throw new Stop(
      "A cookie lets its holder in, and what is on a command line is seen in the list of processes and kept in the shell's " +
        "history and npm's log: give it on standard input, npm run inspect -- cookie:- < FILE. This one was not sent; end " +
        "its session if others can read this machine.",
      EXIT.usage,
    );
  }
  if (kind === "handle" && !/^[\w-]{24}$/.test(value)) {
    const isTicket = value.length > 24;
    throw usage(
      isTicket
        ? "A handle has 24 characters: a longer text may be a cookie, which belongs on standard input (cookie:-)."
        : "A handle has 24 letters, digits, - and _.",
    );
  }
  if (!value) throw usage(`There is nothing behind "${kind}:".`);
  if (kind === "user" && /^\.\.?$/.test(value)) throw usage('No user has the id "." or "..".');
  return (/** @type {Deployment} */ deployment) => SUBJECTS[kind](deployment, value);
}

/** @param {Deployment} deployment @param {string} handle @returns {Promise<Found>} */
async function session(deployment, handle) {
  const { status, json } = await ask(deployment, "GET", `/sessions/${handle}`);
  if (status !== 200) return missing("There is no session with this handle: it has ended, or never was.");
  const { session } = json;
  const data = printableJson(session.data, 0);
  const rows = pairs([
    ["session", session.handle],
    ["user", session.user ? userText(session.user) : "nobody: an anonymous session"],
    ["began", time(session.created_at)],
    ["password given", time(session.authenticated_at)],
    ["ends", time(session.expires_at)],
    ["ends unused", time(session.idle_expires_at)],
    ["remember", session.remember ? "yes" : "no"],
    ["stored", `${session.stored_bytes ?? "?"} bytes, for ${session.ttl_seconds ?? "?"} s more`],
  ]);
  const shown = data.length > MAX_DATA ? `${data.slice(0, MAX_DATA)}… (--json shows all)` : data;
  return { isFound: true, json, text: `${rows}\ndata            ${shown}` };
}

/** @param {Deployment} deployment @returns {Promise<Found>} */
async function cookie(deployment) {
  const { json } = await ask(deployment, "POST", "/inspect", { cookie: await readCookie() });
  const { alive, reason, handle, issued_at, key } = json;
  const text = pairs([
    ["cookie", alive ? "alive" : `dead (${reason})`],
    ["because", REASONS[reason]],
    [alive ? "session" : "handle", handle],
    ["issued", time(issued_at)],
    ["signed by", key],
    ["more", alive ? `npm run inspect -- handle:${handle}` : null],
  ]);
  return { isFound: alive, json, text };
}

/** The cookie, also from headers as browsers and curl show them, and from a file of curl's cookies (`-c`). */
async function readCookie() {
  if (process.stdin.isTTY) console.error("Paste the cookie, press Enter, and then Ctrl-D:");
  let text = "";
  for await (const chunk of process.stdin.setEncoding("utf8")) {
    text += chunk;
    if (text.length > MAX_INPUT) throw usage("There is more on standard input than a cookie.");
  }
  const all = text.split(/\r?\n/).map((line) => line.trim());
  const headers = all.filter((line) => HEADER.test(line));
  // Among headers only these matter; in a file of cookies no comment does.
  const lines = headers.length ? headers : all.filter((line) => line && !/^#( |$)/.test(line));
  const value = lines.map((line) => named(line.replace(HEADER, ""))).join("; ");
  if (!value) throw usage("There is no cookie on standard input.");
  return value;
}

/** NAME=VALUE of a line of a file of cookies; another line as it is. @param {string} line */
function named(line) {
  const fields = line.split("\t");
  return fields.length === 7 ? `${fields[5]}=${fields[6]}` : line;
}

/** @param {Deployment} deployment @param {string} id @returns {Promise<Found>} */
async function user(deployment, id) {
  const { status, json: account } = await ask(deployment, "GET", `/users/${encodeURIComponent(id)}`);
  return userFound(deployment, id, status === 200 ? account : null);
}

/** @param {Deployment} deployment @param {string} name @returns {Promise<Found>} */
async function name(deployment, name) {
  const { status, json: account } = await ask(deployment, "GET", `/users?name=${encodeURIComponent(name)}`);
  if (status !== 200) return missing("There is no account of this name.");
  return userFound(deployment, account.id, account);
}

/** @param {Deployment} deployment @param {string} id @param {any} account null: they have none @returns {Promise<Found>} */
async function userFound(deployment, id, account) {
  // 422: the sessions are another application's, which has no list of them.
  const { status, json } = await ask(deployment, "GET", `/users/${encodeURIComponent(id)}/sessions`);
  /** @type {any[] | null} */
  const sessions = status === 200 ? json.sessions : null;
  if (!account && !sessions?.length)
    return missing("There is no account with this id, and no session of such a user.");
  const rows = pairs([
    ["user", id],
    ["name", account?.name],
    ["roles", account?.roles.join(", ") || null],
    ["account", !account ? "none: its users log in elsewhere" : account.disabled ? "disabled" : "enabled"],
    ["made", time(account?.created_at)],
    ["sessions", sessions ? sessions.length : json.detail],
  ]);
  const names = ["handle", "began", "last seen", "remember", "address", "browser"];
  const list = sessions?.map(({ handle, created_at, last_seen_at, remember, ip, user_agent }) => [
    handle,
    ...[created_at, last_seen_at].map(time),
    remember ? "yes" : "no",
    ip,
    user_agent,
  ]);
  const text = list?.length ? `${rows}\n\n${columns(names, list)}` : rows;
  return { isFound: true, json: { account, sessions }, text };
}

/** @param {Deployment} deployment @returns {Promise<Found>} */
async function stats(deployment) {
  const { json } = await ask(deployment, "GET", "/stats");
  const { signing_keys, days } = json;
  const [newest] = days;
  const counters = Object.keys(newest ?? {}).filter((name) => name !== "day" && name !== "tickets_by_key");
  const keys = [
    ...new Set([
      ...signing_keys,
      ...days.flatMap((/** @type {any} */ day) => Object.keys(day.tickets_by_key)),
    ]),
  ];
  const counted = columns(
    ["day", ...counters.map((name) => name.replaceAll("_", " "))],
    days.map((/** @type {any} */ day) => [day.day, ...counters.map((name) => day[name])]),
  );
  const seen = columns(
    ["tickets by key", ...keys],
    days.map((/** @type {any} */ day) => [day.day, ...keys.map((key) => day.tickets_by_key[key] ?? 0)]),
  );
  const signing = `signing keys: ${signing_keys.map(printable).join(", ")} (the first signs)`;
  const text = days.length ? `${counted}\n\n${seen}\n\n${signing}` : `Nothing is counted yet.\n${signing}`;
  return { isFound: true, json, text };
}

/** @param {string} text @returns {Found} */
function missing(text) {
  return { isFound: false, json: null, text };
}

/** @param {{ id: string, name: string, roles: string[] }} user */
function userText({ id, name, roles }) {
  return id + (name === id ? "" : ` (${name})`) + (roles.length ? `, ${roles.join(", ")}` : "");
}

/** A time as it is answered, to the second, and how far away it is. @param {string | null | undefined} text */
function time(text) {
  if (!text) return null;
  const seconds = Math.round((Date.parse(text) - Date.now()) / 1000);
  const [unit, length] = UNITS.find(([, length]) => Math.abs(seconds) >= length) ?? ["s", 1];
  const distance = `${Math.floor(Math.abs(seconds) / length)} ${unit}`;
  return `${text.replace(/\.\d+Z$/, "Z")} (${seconds > 0 ? `in ${distance}` : `${distance} ago`})`;
}
