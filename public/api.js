/**
 * The Worker's routes as the page calls them. Every call comes back as an exchange, also one that failed;
 * nothing here throws and nothing touches the document.
 */

import { BASE } from "./base.js";

/** A call without an answer for this many milliseconds counts as failed. */
const PATIENCE = 15_000;

/** Members of a request that are for the Worker alone. */
const SECRETS = new Set(["password", "current", "new"]);

/** A problem with one member of a request begins with its name. People see which field is meant. */
const MEMBER = /^"(\w+)": /;

/** Response headers worth showing, as their standards spell them. */
const SHOWN = [
  "Content-Type",
  "ETag",
  "Cache-Control",
  "Vary",
  "RateLimit-Policy",
  "RateLimit",
  "Retry-After",
];

/**
 * @typedef {{ id: string, name: string, roles: string[] }} User
 * @typedef {{ handle: string, user: User | null, data: Record<string, unknown>, created_at: string,
 *   expires_at: string, idle_expires_at: string, remember: boolean }} Session
 * @typedef {{ title?: string, detail?: string, code?: string }} Problem  RFC 9457
 * @typedef {[name: string, value: string][]} Headers
 * @typedef {{ handle: string, current: boolean, created_at: string, last_seen_at: string, remember: boolean,
 *   user_agent: string | null, ip: string | null, provider?: string }} Device
 * @typedef {{ id: string, name: string, linked: boolean }} Provider
 *
 * @typedef {object} Exchange
 * @property {string} method
 * @property {string} path
 * @property {Headers} sent            the headers the page set itself
 * @property {string} [body]          as it may be shown: passwords are masked
 * @property {number} status           0: no answer, `failure` says why
 * @property {Headers} received
 * @property {string} text
 * @property {unknown} json            `undefined` when the answer is not JSON
 * @property {string} [failure]
 * @property {number} ms
 * @property {number} clock            what the Worker's clock is ahead of ours, in milliseconds
 */

export const look = () => call("GET", "/session");
export const rotate = () => call("POST", "/session/rotate");
export const logOut = () => call("DELETE", "/session");

/**
 * Adds to a counter, wherever it stands by then.
 * @param {string} path  a JSON pointer
 * @param {number} value
 */
export const increment = (path, value) =>
  call("PATCH", "/session/data", {
    type: "application/json-patch+json",
    body: [{ op: "increment", path, value }],
  });

/**
 * Merges fields into the data; null takes one out.
 * @param {Record<string, unknown>} fields
 * @param {string | null} [ifMatch]  refuse when the session's ETag is another by now
 */
export const merge = (fields, ifMatch) =>
  call("PATCH", "/session/data", { type: "application/json", body: fields, ifMatch });

/** @param {string} username  @param {string} password */
export const register = (username, password) => send("POST", "/register", { username, password });

/** @param {string} username  @param {string} password  @param {boolean} remember */
export const logIn = (username, password, remember) =>
  send("POST", "/login", { username, password, remember });

/** @param {string} password */
export const reauthenticate = (password) => send("POST", "/reauthenticate", { password });

/** @param {string} current  @param {string} next */
export const changePassword = (current, next) => send("POST", "/password", { current, new: next });

/** @param {string} password */
export const deleteAccount = (password) => send("DELETE", "/account", { password });

export const profile = () => call("GET", "/profile");

/** Merges fields into the profile; null takes one out. @param {Record<string, unknown>} fields */
export const changeProfile = (fields) => send("PATCH", "/profile", fields);

export const devices = () => call("GET", "/sessions");

/** @param {string} handle */
export const endDevice = (handle) => call("DELETE", `/sessions/${encodeURIComponent(handle)}`);
export const endOthers = () => call("DELETE", "/sessions?keep=current");

/** Where one can log in, beside a password. */
export const providers = () => call("GET", "/providers");

/**
 * The address that leads to a provider, and back to a path of this site.
 * @param {string} provider  @param {string} returnTo  @param {{ remember?: boolean, fresh?: boolean }} [how]
 */
export function loginAddress(provider, returnTo, { remember, fresh } = {}) {
  const query = `return_to=${encodeURIComponent(returnTo)}${remember ? "&remember=1" : ""}${fresh ? "&fresh=1" : ""}`;
  return `${BASE}/login/${provider}?${query}`;
}

/**
 * The address that logs out here, and leads to a provider to log out there.
 * @param {string} provider  @param {string} returnTo
 */
export const logoutAddress = (provider, returnTo) =>
  `${BASE}/logout/${provider}?return_to=${encodeURIComponent(returnTo)}`;

/** Answers with the address to go on to. @param {string} provider  @param {string} returnTo */
export const link = (provider, returnTo) =>
  call("POST", `/link/${provider}?return_to=${encodeURIComponent(returnTo)}`);

/** @param {string} provider */
export const unlink = (provider) => call("DELETE", `/link/${provider}`);

/** @param {Exchange} exchange */
export const succeeded = (exchange) => exchange.status >= 200 && exchange.status < 300;

/** The session an answer holds; null for none. @param {Exchange} exchange */
export const sessionOf = (exchange) =>
  /** @type {{ session?: Session | null } | undefined} */ (exchange.json)?.session ?? null;

/** @param {Exchange} exchange  @param {string} name */
export const header = (exchange, name) => exchange.received.find(([n]) => n === name)?.[1] ?? null;

/** What kind of problem an answer is, in the Worker's word for it. @param {Exchange} exchange */
export const code = (exchange) => /** @type {Problem | undefined} */ (exchange.json)?.code ?? "";

/** Which member of the request a problem is about, if it names one. @param {Exchange} exchange */
export const member = (exchange) =>
  MEMBER.exec(/** @type {Problem | undefined} */ (exchange.json)?.detail ?? "")?.[1];

/** Why an exchange did not succeed, for people. @param {Exchange} exchange */
export function reason(exchange) {
  if (exchange.failure) return exchange.failure;
  const { title, detail, code } = /** @type {Problem} */ (exchange.json ?? {});
  const said = detail?.replace(MEMBER, "") ?? title ?? "The Worker gave no reason.";
  const sentence = said.replace(/^./, (first) => first.toUpperCase()).replace(/[^.!?]$/, "$&.");
  return `${sentence} (${[exchange.status, code].filter(Boolean).join(" ")})`;
}

/** @param {string} method  @param {string} route  @param {unknown} body */
const send = (method, route, body) => call(method, route, { type: "application/json", body });

/**
 * @param {string} method
 * @param {string} route
 * @param {{ type?: string, body?: unknown, ifMatch?: string | null }} [content]
 * @returns {Promise<Exchange>}
 */
async function call(method, route, { type, body, ifMatch } = {}) {
  /** @type {Headers} */
  const sent = [];
  if (type) sent.push(["Content-Type", type]);
  if (ifMatch) sent.push(["If-Match", ifMatch]);
  /** @type {Exchange} */
  const exchange = {
    ...{
      method,
      path: BASE + route,
      sent,
      body: body === undefined ? undefined : JSON.stringify(body, masked),
    },
    ...{ status: 0, received: [], text: "", json: undefined, ms: 0, clock: 0 },
  };

  const start = performance.now();
  try {
    const signal = AbortSignal.timeout(PATIENCE);
    const content = { method, headers: sent, body: JSON.stringify(body) };
    const response = await fetch(exchange.path, { ...content, signal });
    exchange.text = await response.text();
    exchange.status = response.status;
    exchange.received = SHOWN.flatMap((name) => {
      const value = response.headers.get(name);
      return value === null ? [] : [[name, value]];
    });
    exchange.json = parsed(exchange.text);
    exchange.clock = Date.parse(response.headers.get("Date") ?? "") - Date.now() || 0;
  } catch (error) {
    const late = error instanceof DOMException && error.name === "TimeoutError";
    exchange.failure = late
      ? `No answer within ${PATIENCE / 1000} seconds. Whether it was done is not known: look again.`
      : "The Worker could not be reached. Check the connection and try again.";
  }
  exchange.ms = performance.now() - start;
  return exchange;
}

/** @param {string} key  @param {unknown} value */
function masked(key, value) {
  return SECRETS.has(key) && typeof value === "string" ? "••••••••" : value;
}

/** @param {string} text */
function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
