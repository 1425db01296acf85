/** How long a tab waits for one that hangs, in milliseconds. */
const PATIENCE = 15_000;

/**
 * Who may be under way with whom. What brings a new ticket goes alone: it waits for those before it, and those behind it
 * wait. Then no answer to an older ticket arrives after the one that brings the newer.
 *
 * Among the tabs of an origin the browser's own locks do the same. Where they are refused, or another tab hangs, a tab
 * goes on by itself.
 * @param {string} name  the same in every tab
 */
export function takeTurns(name) {
  /** Those under way or waiting, and whether each goes alone. @type {Map<Promise<unknown>, boolean | number>} */
  const queue = new Map();

  /** @template T @param {boolean | number} alone @param {() => Promise<T>} work @returns {Promise<T>} */
  const acrossTabs = async (alone, work) => {
    let began;
    try {
      // Elsewhere than in a page, visitors would wait for each other.
      if (globalThis.location)
        return await navigator.locks.request(
          name,
          { mode: alone ? "exclusive" : "shared", signal: AbortSignal.timeout(PATIENCE) },
          () => ((began = 1), work()),
        );
    } catch (error) {
      // Otherwise it is of the lock.
      if (began) throw error;
    }
    return work();
  };

  /** @template T @param {boolean | number} alone @param {() => Promise<T>} work @returns {Promise<T>} */
  return (alone, work) => {
    const before = [...queue].map(([over, isAlone]) => (alone || isAlone) && over);
    const done = Promise.all(before).then(() => acrossTabs(alone, work));
    /** @type {Promise<unknown>} */
    const over = done.catch(() => {}).then(() => queue.delete(over));
    queue.set(over, alone);
    return done;
  };
}
