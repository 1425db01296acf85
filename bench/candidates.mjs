/** Who is compared, and how each is asked for the same jobs. */
import { randomUUID } from "node:crypto";
import { fileURLToPath } from "node:url";
import { SESSION } from "./candidates/session.js";

/** @typedef {import("./lib/load.mjs").Ask} Ask */

/**
 * @typedef {object} Candidate
 * @property {string} name of its folder and for `--only`
 * @property {string} title
 * @property {string} [worker] its source; or `built`, a folder; or `rust`, one with a Cargo.toml; or `node`, a program
 * @property {string} [built]
 * @property {string} [rust]
 * @property {string} [node]
 * @property {string[]} [flags] workerd's compatibility flags
 * @property {Record<string, unknown> | ((origin: string) => Record<string, unknown>)} [tables] bindings that are JSON
 * @property {Record<string, string>} [secrets] more of them
 * @property {Ask | undefined} create makes a session of SESSION's content
 * @property {() => Ask} [register] makes a session of a user's instead, another's each time
 * @property {string} [passing] a cookie that comes with a write and lasts for seconds
 * @property {Ask} read
 * @property {Ask} change adds one to `views`
 * @property {(username: string) => Ask} [login] with PASSWORD
 * @property {(username: string) => Ask} [signUp] makes an account; without it, candidates/password.js has its form
 * @property {number} forged the status that a forged cookie is answered with
 * @property {(body: string) => number} [views] from the answer to `read`
 * @property {boolean} [floor] gives the same answer to everything
 * @property {boolean} [byNameOnly] measured only when `--only` names it
 * @property {boolean} [inFront] of an application, which is needed then
 */

const json = { "Content-Type": "application/json" };
export const PASSWORD = "correct horse battery";
/** @param {string} username */
const credentials = (username) => ({
  method: "POST",
  headers: json,
  body: JSON.stringify({ username, password: PASSWORD }),
});
/** How the peers are asked; each has its own forms, these are ours for them. */
const peer = {
  create: { method: "POST", path: "/session", headers: json, body: JSON.stringify(SESSION) },
  read: { method: "GET", path: "/session" },
  change: {
    method: "POST",
    path: "/session/increment",
    headers: json,
    body: JSON.stringify({ field: "views", by: 1 }),
  },
  login: (/** @type {string} */ username) => ({ path: "/login", ...credentials(username) }),
  forged: 401,
  views: (/** @type {string} */ body) => JSON.parse(body).session.views,
};
const floor = {
  ...peer,
  create: undefined,
  login: undefined,
  forged: 200,
  views: undefined,
  floor: true,
};
const ENDLESS = "1000000000/1m";
/** Nobody is refused, and a hash hides nothing: Argon2id with the least memory there is. */
const SETTINGS = {
  limits: { session: ENDLESS, mint: ENDLESS, login: ENDLESS },
  password: { memory_kib: 8, iterations: 1 },
};
/** @param {string} username */
const register = (username) => ({ path: "/auth/register", ...credentials(username) });

/** @type {Candidate} */
const CLOAKROOM = {
  name: "cloakroom",
  title: "Cloakroom",
  built: fileURLToPath(new URL("../build", import.meta.url)),
  tables: { CLOAKROOM: SETTINGS },
  create: {
    method: "PATCH",
    path: "/auth/session/data",
    headers: { "Content-Type": "application/merge-patch+json" },
    body: JSON.stringify(SESSION),
  },
  passing: "__Host-session-sync", // ten seconds
  read: { method: "GET", path: "/auth/session" },
  change: {
    method: "PATCH",
    path: "/auth/session/data",
    headers: { "Content-Type": "application/json-patch+json" },
    body: JSON.stringify([{ op: "increment", path: "/views", value: 1 }]),
  },
  login: (username) => ({ path: "/auth/login", ...credentials(username) }),
  signUp: register,
  forged: 200, // {"session":null}
  views: (body) => JSON.parse(body).session.data.views,
};

/**
 * Handlers of one's own, in Rust. They do not look at the body of a change: it is known what the change is.
 * @type {Candidate}
 */
const CRATE = {
  ...peer,
  name: "crate",
  title: "Cloakroom as a crate",
  rust: fileURLToPath(new URL("candidates/crate", import.meta.url)),
  tables: CLOAKROOM.tables,
  passing: CLOAKROOM.passing,
  login: undefined,
  forged: 200, // {"session":{}}
};

/**
 * The same in another application's format of cookie and record (docs/interop.md).
 *
 * @param {string} name
 * @param {string} title
 * @param {object} cookie
 * @returns {Candidate}
 */
const inFormat = (name, title, cookie) => ({
  ...CLOAKROOM,
  name,
  title,
  byNameOnly: true,
  tables: { CLOAKROOM: { ...SETTINGS, cookie } },
  passing: undefined,
});

const page = { read: { method: "GET", path: "/page" }, change: { ...peer.change, path: "/page" } };

/**
 * The gateway in front of an application (docs/gateway.md).
 *
 * @param {string} name
 * @param {string} title
 * @param {object} gateway what holds for the page
 * @param {number} forged
 * @returns {Candidate}
 */
const inFront = (name, title, gateway, forged) => ({
  ...page,
  name,
  title,
  built: CLOAKROOM.built,
  byNameOnly: true,
  inFront: true,
  tables: (origin) => ({ CLOAKROOM: { ...SETTINGS, gateway: { origin, ...gateway } } }),
  create: CLOAKROOM.create,
  register: () => register(randomUUID()),
  passing: CLOAKROOM.passing,
  forged,
});

/**
 * Another build of Cloakroom, to be measured beside the present one and asked in the same way.
 *
 * @param {string} folder
 * @param {string} label
 * @returns {Candidate}
 */
export const buildBefore = (folder, label) => ({
  ...CLOAKROOM,
  name: "before",
  title: `Cloakroom before (${label})`,
  built: folder,
});

/** @type {Candidate[]} */
export const CANDIDATES = [
  { name: "constant", title: "Constant answer (floor)", worker: "candidates/constant.js", ...floor },
  { name: "one-call", title: "One constant store call (floor)", worker: "candidates/one-call.js", ...floor },
  {
    name: "same-call",
    title: "Our call and headers, constant (floor)",
    worker: "candidates/same-call.js",
    ...floor,
  },
  CLOAKROOM,
  CRATE,
  inFormat("cloakroom-express", "Cloakroom, Express' sessions", { format: "express" }),
  inFormat("cloakroom-flask", "Cloakroom, Flask's sessions in MessagePack", {
    format: "flask",
    signer: true,
  }),
  {
    name: "hono-upstash",
    title: "Hono + Upstash Redis and Ratelimit",
    worker: "candidates/hono-upstash.js",
    ...peer,
  },
  {
    name: "hono-upstash-tuned",
    title: "Hono + Upstash, tuned: both at once",
    worker: "candidates/hono-upstash-tuned.js",
    ...peer,
  },
  { name: "hono-sessions", title: "hono-sessions + Upstash", worker: "candidates/hono-sessions.js", ...peer },
  {
    name: "iron-session",
    title: "iron-session + Upstash Ratelimit",
    worker: "candidates/iron-session.js",
    ...peer,
  },
  { name: "express", title: "Express on Node (not at the edge)", node: "candidates/express.mjs", ...peer },
  {
    ...floor,
    ...page,
    name: "pass-through",
    title: "Bare pass-through",
    worker: "candidates/pass-through.js",
    byNameOnly: true,
    inFront: true,
  },
  inFront(
    "gateway",
    "Gateway, a rule that requires a user",
    { rules: [{ path: "/page", require: "user" }] },
    401,
  ),
  inFront("gateway-public", "Gateway, a public path", { public: ["/page"] }, 200),
];
