/** The client of Cloakroom; index.d.ts says what it promises. */

import { inMemory, withTickets } from "./bearer.js";
import { CloakroomError } from "./errors.js";
import { exchange } from "./exchange.js";
import { copy, difference } from "./patch.js";
import { pause, unless } from "./timing.js";
import { takeTurns } from "./turns.js";
import { watch } from "./watch.js";

/** @import { CallOptions, ChangeOptions, Client, ClientOptions, CloakroomError as Failure } from "../index.d.ts" */

export { CloakroomError };

// What a call is like.
/** It may bring another ticket, or take it away, and goes alone. */
const ALONE = 1;
/** It goes alone as long as no session is known, because it begins one. */
const BEGINS = 2;
/** Made twice, it does the same as made once. */
const REPEATS = 4;
/** After it there is no session. */
const ENDS = 8;

/** The seconds that `waitForLimits: true` stands for. */
const USUAL_WAIT = 60;
/** A day: timers overflow after 24. */
const LONGEST_WAIT = 86_400;
/** A failure that lasts longer than this many seconds is not waited for. */
const LONGEST_FAILURE = 10;
/** How often `update` begins anew. */
const MOST_CONFLICTS = 20;

/** @type {(options?: ClientOptions) => Client<any>} */
export function createClient({
  baseUrl = "/auth",
  fetch: plainFetch = fetch,
  timeout = 15_000,
  retries = 2,
  waitForLimits: usualWait = 0,
  transport,
  storage = inMemory(),
} = {}) {
  const isBearer = transport === "bearer";
  if (isBearer && globalThis.document && plainFetch === fetch)
    throw new CloakroomError("unsupported", "browsers add Origin: use cookies");
  const base = baseUrl.replace(/\/+$/, "");
  const name = `cloakroom ${base}`;
  const send = isBearer ? withTickets(plainFetch, storage) : plainFetch;
  const inTurn = takeTurns(name);
  const [onChange, refresh, show, announce, now, current] = watch(name, () => session());
  /** Whether the visitor has a session, as far as is known. */
  let hasSession = false;

  /**
   * A call: waits for its turn, sends, and takes in the answer before the next one has its turn; and again, if that
   * helps.
   * @param {string} method
   * @param {string} path
   * @param {number} is  what the call is like
   * @param {ChangeOptions} [options]
   * @param {string | null} [member]  the one of the answer that is asked for, if not the whole; null: it has no body
   * @param {any} [body]
   * @param {string} [type]  of the body
   * @returns {Promise<any>} the answer's JSON, or this member of it
   */
  const call = async (
    method,
    path,
    is,
    { signal, waitForLimits = usualWait, ifMatch } = {},
    member = "session",
    body,
    type = "json",
  ) => {
    body = body && JSON.stringify(body);
    // With an ETag it is made once, if at all.
    if (ifMatch === null) is = ALONE | REPEATS;
    else if (ifMatch) is = ifMatch === "*" ? is & ~BEGINS : REPEATS;
    const changes = method !== "GET";
    let seconds = Math.min(
      waitForLimits === true ? USUAL_WAIT : /** @type {number} */ (waitForLimits),
      LONGEST_WAIT,
    );
    let wait = 0;
    let failures = 0;
    /** Of the last try that may have been made, though it failed. @type {Failure | undefined} */
    let lost;
    for (;;) {
      const alone = is & ALONE || (is & BEGINS && !hasSession);
      const controller = new AbortController();
      let isSent = false;

      /** @param {(error: unknown) => void} fail */
      const attempt = async (fail) => {
        if (controller.signal.aborted) return;
        const timer = setTimeout(
          () => fail(new CloakroomError("timeout", "too slow; try again")),
          Math.min(timeout, LONGEST_WAIT * 1000),
        );
        const sentAt = now();
        isSent = true;
        // Of those that go together none may begin a session: if it has ended, they are refused.
        const match = is & BEGINS && !alone ? "*" : ifMatch;
        const [result, headers, text] = await exchange(
          () =>
            send(base + path, {
              method,
              signal: controller.signal,
              credentials: "include",
              redirect: "manual",
              body,
              headers: {
                ...(body && { "Content-Type": `application/${type}` }),
                ...(match && { "If-Match": match }),
                ...(ifMatch === null && { "If-None-Match": "*" }),
              },
            }),
          member,
        ).finally(() => clearTimeout(timer));
        // Only an answer to a bearer ticket depends on it.
        if (isBearer && !/auth/i.test(/** @type {string} */ (headers.get("vary"))))
          throw new CloakroomError("not_cloakroom", "set bearer.enabled");
        if (is & ENDS) await storage.remove();
        if (member === "session" || is & ENDS) {
          hasSession = !!result;
          const etag = headers.get("etag");
          if (hasSession) result.etag = etag;
          show(result ?? null, hasSession && etag + text, sentAt);
        }
        return result;
      };

      try {
        if (wait) await pause(wait * 1000, signal);
        const result = await unless(signal, (resolve, reject) => {
          inTurn(alone, () => attempt(reject)).then(resolve, reject);
        }).finally(() => controller.abort());
        if (changes) announce();
        return result;
      } catch (thrown) {
        const error = /** @type {Failure} */ (thrown);
        const { status = 0, retryAfter = 0 } = error;
        // Of a refusal nothing was done; without an answer, or in a failure, who knows.
        const isUnclear = status < 300 || status > 499;
        if (isUnclear && isSent && changes) {
          error.maybeDone = true;
          lost = error;
        }
        if (status === 401 || status === 412) hasSession = false;
        if (status === 412 && is & BEGINS && !alone) continue;
        if (status === 429 && (wait = Math.max(1, retryAfter)) <= seconds) seconds -= wait;
        else if (
          isUnclear &&
          is & REPEATS &&
          failures < retries &&
          retryAfter <= LONGEST_FAILURE &&
          !signal?.aborted
        )
          wait = retryAfter + ++failures * Math.random();
        else {
          if (lost || (status === 401 && current()?.user)) {
            announce();
            refresh();
          }
          throw lost ?? error;
        }
      }
    }
  };

  /** @type {Client<any>["session"]} */
  const session = (options) => call("GET", "/session", REPEATS, options);

  /** @type {Client<any>["patch"]} */
  const patch = (operations, options) =>
    call("PATCH", "/session/data", BEGINS, options, undefined, operations, "json-patch+json");

  /** A call that brings another ticket. @param {string} path */
  const enter = (path) => (/** @type {unknown} */ body, /** @type {CallOptions=} */ options) =>
    call("POST", path, ALONE, options, undefined, body);

  /** @param {string} path @param {number} is @param {CallOptions} [options] @param {unknown} [body] */
  const end = (path, is, options, body) => call("DELETE", path, ALONE | is, options, null, body);

  /** To a provider, and back. @param {string} how @param {string} provider @param {string} returnTo */
  const way = (how, provider, returnTo) =>
    `/${how}/${encodeURIComponent(provider)}?return_to=${encodeURIComponent(returnTo)}`;

  return {
    get current() {
      return current();
    },
    onChange,
    session,
    patch,
    merge: (partial, options) =>
      call("PATCH", "/session/data", BEGINS | REPEATS, options, undefined, partial),
    increment: (path, value = 1, options) => patch([{ op: "increment", path, value }], options),
    async update(edit, options) {
      /** @type {Failure | undefined} */
      let lost;
      try {
        for (let conflicts = 0; ; conflicts++) {
          const before = await session(options);
          const data = before?.data ?? {};
          const edited = copy(data);
          const operations = difference(data, copy((await edit(edited, before)) ?? edited));
          if (!operations.length) return before;
          // It was made, and others have changed it since; or it was not made. Made again, it might count twice.
          if (lost) throw lost;
          const ifMatch = before ? before.etag : null;
          const changed = await patch(operations, { ...options, ifMatch }).catch((error) => {
            if (error.maybeDone) lost = error;
            else if (error.status !== 412 || conflicts === MOST_CONFLICTS) throw error;
          });
          if (changed) return changed;
          await pause(Math.random() * 50 * conflicts, options?.signal);
        }
      } catch (error) {
        throw lost ?? error;
      }
    },
    rotate: (options) => call("POST", "/session/rotate", ALONE | REPEATS, options),
    register: enter("/register"),
    login: enter("/login"),
    changePassword: enter("/password"),
    resetPassword: enter("/reset"),
    reauthenticate: (password, options) => enter("/reauthenticate")({ password }, options),
    deleteAccount: (password, options) => end("/account", ENDS, options, { password }),
    logout: (options) => end("/session", REPEATS | ENDS, options),
    providers: (options) => call("GET", "/providers", REPEATS, options, "providers"),
    loginUrl: (provider, { returnTo = "/", remember, fresh } = {}) =>
      base + way("login", provider, returnTo) + (remember ? "&remember=1" : "") + (fresh ? "&fresh=1" : ""),
    link: async (provider, { returnTo = "/", ...options } = {}) =>
      (await call("POST", way("link", provider, returnTo), REPEATS, options, "")).location,
    unlink: (provider, options) =>
      call("DELETE", `/link/${encodeURIComponent(provider)}`, REPEATS, options, null),
    devices: (options) => call("GET", "/sessions", REPEATS, options, "sessions"),
    endDevice: (handle, options) =>
      end(`/sessions/${encodeURIComponent(handle)}`, current()?.handle === handle ? ENDS : 0, options),
    endDevices: ({ keepCurrent, ...options } = {}) =>
      keepCurrent ? end("/sessions?keep=current", REPEATS, options) : end("/sessions", ENDS, options),
    profile: (options) => call("GET", "/profile", REPEATS, options, ""),
    updateProfile: (partial, options) => call("PATCH", "/profile", REPEATS, options, "", partial),
  };
}
