/**
 * What tests need to reach inside a Worker: a clock that moves, and the memory of the wasm instance. Imported
 * before the Worker, which takes both as it starts. Nothing of this is in the build.
 */
let skew = 0;
const realNow = Date.now;
Date.now = () => realNow() + skew;

/** @param {number} milliseconds */
export const moveClock = (milliseconds) => void (skew += milliseconds);

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

/** Takes every page of memory that is left, so that the next larger allocation fails. */
export function fillMemory() {
  let pages = 32_768;
  while (memory && pages >= 1) {
    try {
      memory.grow(pages);
    } catch {
      pages = Math.floor(pages / 2);
    }
  }
}
