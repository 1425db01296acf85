/**
 * The Worker's entry in tests: the built Worker itself, and around it the means to move its clock and to use
 * up its memory. Nothing of this is in the build.
 */
import worker from "../../build/index.js";

let skew = 0;
const realNow = Date.now;
Date.now = () => realNow() + skew;

/** @type {WebAssembly.Memory | undefined} */
let memory;
const Instance = WebAssembly.Instance;
WebAssembly.Instance = /** @type {any} */ (
  class extends Instance {
    /** @param {ConstructorParameters<typeof WebAssembly.Instance>} args */
    constructor(...args) {
      super(...args);
      memory = /** @type {WebAssembly.Memory} */ (this.exports.memory);
    }
  }
);

/** Takes every page that is left, so that the next larger allocation fails. */
function fillMemory() {
  let pages = 32_768;
  while (memory && pages >= 1) {
    try {
      memory.grow(pages);
    } catch {
      pages /= 2;
    }
  }
}

export default {
  /**
   * @param {Request} request
   * @param {any} env
   */
  async fetch(request, env) {
    const { pathname, searchParams } = new URL(request.url);
    if (pathname === "/test/clock") skew += Number(searchParams.get("by"));
    else if (pathname === "/test/memory") fillMemory();
    else return worker.fetch(request, env);
    return new Response("done");
  },
};
