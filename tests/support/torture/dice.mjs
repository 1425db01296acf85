/** Chance, the same every time for the same seed. */

/** @param {number} seed @returns {() => number} from 0 up to 1 (splitmix32) */
export function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return ((mixed ^ (mixed >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** @param {number} seed */
export function dice(seed) {
  const next = random(seed);
  return {
    next,
    /** @param {number} share of the cases in which it is true */
    chance: (share) => next() < share,
    /** A whole number. @param {number} low @param {number} high */
    between: (low, high) => low + Math.floor(next() * (high - low + 1)),
    /** @template T @param {[number, T][]} options by weight @returns {T} */
    draw: (options) => {
      let left = next() * options.reduce((sum, [weight]) => sum + weight, 0);
      const found = options.find(([weight]) => (left -= weight) < 0) ?? options[0];
      return /** @type {[number, T]} */ (found)[1];
    },
    /** @template T @param {number} count @param {() => T} make */
    times: (count, make) => Array.from({ length: count }, make),
  };
}
