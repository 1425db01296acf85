/**
 * What tests need to reach inside a Worker: a clock that moves, the memory of the wasm instance, and a count of
 * what crosses its border. Imported before the Worker, which takes them as it starts. Nothing of this is in the build.
 */
let skew = 0;
const realNow = Date.now;
Date.now = () => realNow() + skew;

/** @param {number} milliseconds */
export const moveClock = (milliseconds) => void (skew += milliseconds);

/** How long a timer of a minute or more takes, when time flies. @type {number | undefined} */
let shortest;
for (const name of /** @type {const} */ (["setTimeout", "setInterval"])) {
  const real = /** @type {Function} */ (globalThis[name]);
  /** @type {any} */ (globalThis)[name] = (/** @type {() => void} */ call, delay = 0) =>
    real(call, delay >= 60_000 ? (shortest ?? delay) : delay);
}

/** Lets long timers be over almost at once, from the next one on; or as they are again. @param {boolean} flies */
export const letTimeFly = (flies) => void (shortest = flies ? 10 : undefined);

/**
 * Calls across the border of wasm, by the names of functions.
 * @typedef {{ inwards: Record<string, number>, outwards: Record<string, number> }} Crossings Of exports, of imports.
 */

/** @returns {Crossings} */
const none = () => ({ inwards: {}, outwards: {} });
/** Of all instances there were. */
let crossings = none();

/** Takes away what was counted so far. */
export function takeCrossings() {
  const taken = crossings;
  crossings = none();
  return taken;
}

/**
 * The same functions, each of whose calls is counted; what is no function stays.
 * @template {Record<string, any>} T
 * @param {T} members
 * @param {keyof Crossings} direction
 * @returns {T}
 */
function counted(members, direction) {
  const entries = Object.entries(members).map(([name, member]) => {
    if (typeof member !== "function") return [name, member];
    const call = (/** @type {unknown[]} */ ...args) => {
      crossings[direction][name] = (crossings[direction][name] ?? 0) + 1;
      return member(...args);
    };
    return [name, call];
  });
  return Object.fromEntries(entries);
}

/** @type {WebAssembly.Memory | undefined} */
let memory;
const Instance = WebAssembly.Instance;
WebAssembly.Instance = /** @type {any} */ (
  class extends Instance {
    /**
     * @param {WebAssembly.Module} module
     * @param {WebAssembly.Imports} imports
     */
    constructor(module, imports) {
      const outwards = Object.entries(imports).map(([from, members]) => [from, counted(members, "outwards")]);
      super(module, Object.fromEntries(outwards));
      memory = /** @type {WebAssembly.Memory} */ (this.exports.memory);
      Object.defineProperty(this, "exports", { value: counted(this.exports, "inwards") });
    }
  }
);

/** Lets the next attempt to get random bytes fail, which no Worker survives: it panics. */
export function breakRandomness() {
  const real = crypto.getRandomValues;
  crypto.getRandomValues = () => {
    crypto.getRandomValues = real;
    throw new Error("a text that could hold data");
  };
}

/** Lets the next signature fail. */
export function breakSigning() {
  const { prototype } = SubtleCrypto;
  const real = prototype.sign;
  prototype.sign = async () => {
    prototype.sign = real;
    throw new Error("a text that could hold data");
  };
}

/** How much memory the wasm instance has, in bytes. It never shrinks: this is the most that it has needed. */
export const memorySize = () => memory?.buffer.byteLength ?? 0;

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
