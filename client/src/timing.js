import { CloakroomError } from "./errors.js";

/**
 * A promise that rejects when the signal aborts first. `start` may give a timer, which ends with it.
 * @template T
 * @param {AbortSignal | undefined} signal
 * @param {(resolve: (value: T) => void, reject: (error: unknown) => void) => ReturnType<typeof setTimeout> | void} start
 * @returns {Promise<T>}
 */
export function unless(signal, start) {
  /** @type {() => void} */
  let abort;
  /** @type {any} */
  let timer;
  return new Promise((resolve, reject) => {
    abort = () => reject(new CloakroomError("aborted", "aborted by its signal", { cause: signal?.reason }));
    if (signal?.aborted) return abort();
    signal?.addEventListener("abort", abort);
    timer = start(resolve, reject);
  }).finally(() => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  });
}

/** @param {number} milliseconds @param {AbortSignal} [signal] @returns {Promise<void>} */
export const pause = (milliseconds, signal) => unless(signal, (resolve) => setTimeout(resolve, milliseconds));
