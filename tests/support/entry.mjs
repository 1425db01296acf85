/** The Worker's entry in tests: the built Worker itself, and beside it two routes that reach inside. */
import { fillMemory, moveClock } from "./rigging.mjs";
import worker from "../../build/index.js";

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
    else return worker.fetch(request, env, context);
    return new Response("done");
  },
};
