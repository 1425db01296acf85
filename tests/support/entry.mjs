/** The Worker's entry in tests: the built Worker itself, and beside it two routes that reach inside. */
import { fillMemory, moveClock } from "./rigging.mjs";
import worker from "../../build/index.js";

export default {
  /**
   * @param {Request} request
   * @param {any} env
   */
  async fetch(request, env) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/test/clock") moveClock(Number(searchParams.get("by")));
    else if (pathname === "/test/memory") fillMemory();
    else return worker.fetch(request, env);
    return new Response("done");
  },
};
