/**
 * The Worker's entry: runs the wasm module's `fetch`, and replaces an instance that has trapped. A trap (a panic, memory
 * used up) leaves an instance in an unknown state, so every request in it is lost: each is answered 500, none hangs.
 */
import { initSync, __wbg_reset_state, fetch as respond } from "./cloakroom.js";
import module from "./cloakroom_bg.wasm";

/** @typedef {{ waitUntil(work: Promise<unknown>): void }} Context */
/** @typedef {() => void} Abandon Ends the wait for work whose instance is gone. */

/** What wasm-bindgen throws when a callback is called that a replaced instance has left behind. */
const STALE = /^Cannot invoke closure from previous WASM instance/;

/** How often a request that waits shows workerd that it does, in milliseconds. */
const SIGN_OF_LIFE_MS = 60_000;

initSync({ module });
/** Whether the instance can be used. It cannot if its replacement failed, for which the next request tries again. */
let isUsable = true;
/** @type {Set<Abandon>} Whatever waits for the current instance. */
let waiting = new Set();

export default {
  /**
   * @param {Request} request
   * @param {unknown} env
   * @param {Context} context
   * @returns {Response | Promise<Response>}
   */
  fetch(request, env, context) {
    if (!isUsable && !replaceInstance()) return internal();
    try {
      const answer = respond(request, env, watched(context));
      return answer instanceof Promise ? finished(answer, context) : answer;
    } catch (error) {
      noticeFailure(error);
      return internal();
    }
  },
};

// A request that waits runs in microtasks, so most traps are no exception of a call into wasm. Nothing else here throws.
addEventListener("error", (event) => {
  event.preventDefault();
  noticeFailure(event.error);
});
// A callback of a promise may trap too; but promises are also rejected by the platform.
addEventListener("unhandledrejection", (event) => {
  event.preventDefault();
  if (event.reason instanceof WebAssembly.RuntimeError) noticeFailure(event.reason);
});

/**
 * The response of a request that has to wait.
 * @param {Promise<Response>} answer
 * @param {Context} context
 */
async function finished(answer, context) {
  const response = run(answer);
  // A request whose visitor has gone away is carried out to its end: cut off, it would stay in the instance for ever.
  context.waitUntil(response);
  // Made here and not where the trap is noticed: a response belongs to the request in which it is made.
  return (await response) ?? internal();
}

/**
 * Waits for what the instance does, but not longer than it lives.
 * @template T
 * @param {Promise<T>} work
 * @returns {Promise<T | undefined>} undefined when the instance is lost.
 */
async function run(work) {
  // workerd cancels a request that waits for nothing of its own. One whose instance is lost would do so for a moment, until
  // word reaches it from the request that noticed the trap. However long it has waited: an upload may take minutes.
  const pending = setInterval(() => {}, SIGN_OF_LIFE_MS);
  try {
    return await settled(work);
  } finally {
    clearInterval(pending);
  }
}

/**
 * @template T
 * @param {Promise<T>} work
 * @returns {Promise<T | undefined>}
 */
function settled(work) {
  return new Promise((resolve) => {
    const abandon = () => resolve(undefined);
    waiting.add(abandon);
    work.then(
      (result) => {
        waiting.delete(abandon);
        resolve(result);
      },
      (error) => {
        // It never rejects by itself. If the instance is another one by now, that trap has been dealt with.
        if (waiting.has(abandon)) noticeFailure(error);
        abandon();
      },
    );
  });
}

/**
 * The context of a request, whose background work ends with the instance too.
 * @param {Context} context
 * @returns {Context}
 */
function watched(context) {
  return { waitUntil: (work) => context.waitUntil(run(work)) };
}

/** @param {unknown} error */
function noticeFailure(error) {
  const { name, message: text } = error instanceof Error ? error : { name: typeof error, message: "" };
  if (STALE.test(text)) return;
  // An error's text could hold data, its name cannot. The line is of the form that src/log.rs has.
  const message = `the instance was replaced after a trap (${name})`;
  console.error(JSON.stringify({ event: "instance_replaced", level: "error", message }));
  replaceInstance();
  const lost = waiting;
  waiting = new Set();
  for (const abandon of lost) abandon();
}

/** @returns {boolean} Whether there is a new one. */
function replaceInstance() {
  try {
    __wbg_reset_state();
    isUsable = true;
  } catch {
    isUsable = false;
  }
  return isUsable;
}

/** The answer to a request whose instance is lost. */
function internal() {
  const problem = {
    type: "about:blank",
    title: "Internal Server Error",
    status: 500,
    detail: "something went wrong here; the request may or may not have been carried out",
    code: "internal",
  };
  const headers = {
    "Content-Type": "application/problem+json",
    "Cache-Control": "no-store, no-transform",
    "X-Content-Type-Options": "nosniff",
  };
  return new Response(JSON.stringify(problem), { status: 500, headers });
}
