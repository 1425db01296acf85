/** The Worker's entry in tests: the built Worker itself, and beside it routes that reach inside. */
import {
  breakRandomness,
  breakSigning,
  fillMemory,
  letTimeFly,
  memorySize,
  moveClock,
  takeCrossings,
} from "./rigging.mjs";
import worker from "../../build/index.js";

/** How much is being done in the background. */
let busy = 0;

/**
 * The context of a request, with an eye on what it leaves for the background.
 * @param {any} context
 */
const watched = (context) => ({
  waitUntil(/** @type {Promise<unknown>} */ work) {
    busy += 1;
    context.waitUntil(work.finally(() => (busy -= 1)));
  },
});

/** When nothing is done in the background any more. */
async function idle() {
  while (busy) await new Promise((done) => setTimeout(done, 1));
}

/** The calls since the last look, when no more come from the background. */
async function lookAtCrossings() {
  await idle();
  return Response.json(takeCrossings());
}

/**
 * Lets the Worker do at once what it does in the background when time has passed.
 * @param {Request} request
 * @param {any} env
 */
async function settle(request, env) {
  /** @type {Promise<unknown>[]} */
  const work = [];
  await worker.fetch(new Request(new URL("/test/nowhere", request.url)), env, {
    waitUntil: (/** @type {Promise<unknown>} */ promise) => void work.push(promise),
  });
  await Promise.all(work);
}

export default {
  /**
   * @param {Request} request
   * @param {any} env
   * @param {any} context
   */
  async fetch(request, env, context) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/test/clock") {
      moveClock(Number(searchParams.get("by")));
      if (searchParams.has("settle")) await settle(request, env);
    } else if (pathname === "/test/memory") fillMemory();
    else if (pathname === "/test/memory-size") return Response.json(memorySize());
    else if (pathname === "/test/randomness") breakRandomness();
    else if (pathname === "/test/signing") breakSigning();
    else if (pathname === "/test/idle") await idle();
    else if (pathname === "/test/timers") letTimeFly(searchParams.has("fly"));
    else if (pathname === "/test/crossings") return lookAtCrossings();
    else return worker.fetch(request, env, watched(context));
    return new Response("done");
  },
};
