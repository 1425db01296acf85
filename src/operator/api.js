/**
 * The service API as the page calls it. The admin token is in a variable of this module and nowhere else. Nothing here
 * throws, and nothing touches the document.
 */

/** A call without an answer for this many milliseconds counts as failed. */
const PATIENCE = 20_000;

/** There as long as the service API is. It costs the store nothing. */
const PAGE_FILE = new URL("icon.svg", import.meta.url);

/** What a header can hold of a token. */
const TOKEN = /^[\x21-\x7e]+$/;

/**
 * An answer. `status` is 0 without one. `isOver`: nobody waits for it any more, as the token was forgotten or another look-up
 * has begun. `isOff`: the whole service API is not there.
 * @typedef {{ status: number, json: any, retryAfter: number, isLate: boolean, isOver: boolean, isOff: boolean }} Answer
 */

let token = "";
/** Ends all calls under way when the token is forgotten. */
let holding = new AbortController();
/** How far the Worker's clock is ahead of this one, in milliseconds. */
let ahead = 0;
/** Told when the Worker refuses the token. */
let refused = () => {};

/** The Worker's time. */
export const now = () => Date.now() + ahead;

/** @param {() => void} listener */
export function onRefused(listener) {
  refused = listener;
}

/** Holds this token from now on. @param {string} given @returns {boolean} whether it can be one */
export function hold(given) {
  forget();
  if (!TOKEN.test(given)) return false;
  token = given;
  return true;
}

/** Forgets the token, and whatever its calls bring. */
export function forget() {
  token = "";
  holding.abort();
  holding = new AbortController();
}

export const isHeld = () => token !== "";

export const stats = () => call("GET", "stats");
/** @param {string} name @param {AbortSignal} [signal] */
export const accountOf = (name, signal) =>
  call("GET", `users?name=${encodeURIComponent(name)}`, undefined, signal);
/** @param {string} id @param {AbortSignal} [signal] */
export const account = (id, signal) => call("GET", user(id), undefined, signal);
/** @param {string} id @param {AbortSignal} [signal] */
export const sessionsOf = (id, signal) => call("GET", `${user(id)}/sessions`, undefined, signal);
/** @param {string} handle @param {AbortSignal} [signal] */
export const session = (handle, signal) => call("GET", one(handle), undefined, signal);
/** @param {string} cookie @param {AbortSignal} [signal] */
export const inspect = (cookie, signal) => call("POST", "inspect", { cookie }, signal);

/** @param {string} handle */
export const endSession = (handle) => call("DELETE", one(handle));
/** @param {string} id */
export const endSessions = (id) => call("DELETE", `${user(id)}/sessions`);
/** @param {string} id @param {boolean} disabled */
export const setDisabled = (id, disabled) => call("PATCH", user(id), { disabled });
/** @param {string} id */
export const deleteAccount = (id) => call("DELETE", user(id));
/** @param {string} id */
export const beginReset = (id) => call("POST", `${user(id)}/reset`);

/** @param {Answer} answer */
export const succeeded = ({ status }) => status >= 200 && status < 300;

/** Whether what was asked for is not there. @param {Answer} answer */
export const isMissing = ({ status, isOff }) => status === 404 && !isOff;

/**
 * Why a call did not succeed and what to do, for people.
 * @param {Answer} answer
 * @param {boolean} [isChange]  whether it was to change something
 */
export function reason({ status, json, retryAfter, isLate, isOff }, isChange = false) {
  const unknown = isChange ? " Whether it was done is not known; to do it again does no harm." : "";
  const detail = typeof json?.detail === "string" ? json.detail : "";
  const sentence = detail && detail.replace(/^./u, upper).replace(/[^.!?]$/u, "$&.");
  if (isLate) return `No answer within ${PATIENCE / 1000} seconds.${unknown || " Try again."}`;
  if (status === 0) return `The Worker could not be reached. Check the connection, then try again.${unknown}`;
  if (status === 401) return "The token is not the one this deployment has (ADMIN_TOKEN). Nothing was done.";
  if (isOff)
    return "The service API is not there any more: ADMIN_TOKEN is not set, or it has moved. Nothing was done.";
  if (status === 429) {
    return `Too many requests. Nothing was done; try again in ${retryAfter} s. (${sentence})`;
  }
  if (status === 503) return `The store did not answer as it should. Try again in ${retryAfter} s.${unknown}`;
  if (status === 500 && json?.code === "misconfigured") {
    return "The deployment's settings are wrong: its log says what to change (npx wrangler tail). Nothing was done.";
  }
  if (!json) return `Something between here and the Worker answered ${status}. Try again later.${unknown}`;
  return `${sentence || "The Worker gave no reason."} (${[status, json.code].filter(Boolean).join(" ")})${status >= 500 ? unknown : ""}`;
}

/** @param {string} letter */
const upper = (letter) => letter.toUpperCase();

/** @param {string} id */
const user = (id) => `users/${encodeURIComponent(id)}`;
/** @param {string} handle */
const one = (handle) => `sessions/${encodeURIComponent(handle)}`;

/**
 * @param {string} method
 * @param {string} route  below the page's own path
 * @param {unknown} [body]
 * @param {AbortSignal} [signal]
 * @returns {Promise<Answer>}
 */
async function call(method, route, body, signal) {
  const held = holding.signal;
  const late = AbortSignal.timeout(PATIENCE);
  const isOver = () => held.aborted || Boolean(signal?.aborted);
  /** @type {Answer} */
  const answer = { status: 0, json: undefined, retryAfter: 1, isLate: false, isOver: false, isOff: false };
  try {
    const response = await fetch(new URL(`../${route}`, import.meta.url), {
      method,
      headers: {
        Authorization: `Bearer ${token}`,
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      // Should the operator be a visitor too: this is not the visitor's call, and counts for no session.
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      referrerPolicy: "no-referrer",
      signal: AbortSignal.any([held, late, ...(signal ? [signal] : [])]),
    });
    const text = await response.text();
    answer.status = response.status;
    answer.json = parsed(text);
    answer.retryAfter = Number(response.headers.get("Retry-After")) || 1;
    // Without an ADMIN_TOKEN there is no page either.
    answer.isOff = answer.status === 404 && !(await fetch(PAGE_FILE, { cache: "no-store" })).ok;
    ahead = Date.parse(response.headers.get("Date") ?? "") - Date.now() || 0;
  } catch {
    answer.status = 0;
    answer.isLate = late.aborted && !isOver();
  }
  answer.isOver = isOver();
  if (answer.status === 401 && !answer.isOver) {
    refused();
    answer.isOver = true;
  }
  return answer;
}

/** JSON with its numbers to the digit, where the browser can keep them. @param {string} text */
function parsed(text) {
  const { rawJSON } = /** @type {{ rawJSON?: (text: string) => unknown }} */ (JSON);
  /** @type {(key: string, value: unknown, context?: { source?: string }) => unknown} */
  const exact = (_, value, context) => {
    const isExact = typeof value !== "number" || Number.isSafeInteger(value) || !context?.source || !rawJSON;
    return isExact || String(value) === context.source ? value : rawJSON(context?.source ?? "");
  };
  try {
    return text ? JSON.parse(text, exact) : undefined;
  } catch {
    return undefined;
  }
}
