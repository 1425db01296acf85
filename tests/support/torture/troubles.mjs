/** What goes wrong in the store while a schedule is carried out, and when. */
import { setTimeout as sleep } from "node:timers/promises";

/** @typedef {import("../worker.mjs").LocalStore} LocalStore */

/**
 * @typedef {object} Trouble
 * @property {import("../../../tools/local-store/faults.mjs").Fault} fault
 * @property {string} command strikes calls that begin with this command, or to this path; "" any
 * @property {number} skip spares so many of them first
 * @property {number} times and then strikes so many
 */

export class Troubles {
  /** When a fault struck, on `performance.now()`'s clock. @type {number[]} */
  strikes = [];
  /** When the last delayed call reaches the store. */
  #arrives = 0;
  #faults;

  /** @param {LocalStore} store */
  constructor(store) {
    this.#faults = store.faults;
  }

  /** From now on things go wrong. @param {Trouble[]} troubles */
  arm(troubles) {
    for (const { fault, command, skip, times } of troubles) {
      let left = skip;
      this.#faults.next(fault, {
        times,
        when: ({ path, commands }) => {
          const first = commands[0]?.[0] ?? "";
          // A script writes, too.
          const isWrite = command === "SET" && first.startsWith("EVAL");
          const matches = command.startsWith("/") ? path === command : first === command || isWrite;
          if ((command !== "" && !matches) || left-- > 0) return false;
          this.strikes.push(performance.now());
          this.#arrives = Math.max(this.#arrives, performance.now() + (fault.delay ?? 0));
          return true;
        },
      });
    }
  }

  /** No more faults; what is delayed arrives. */
  async settle() {
    this.#faults.clear();
    const wait = this.#arrives - performance.now();
    if (wait > -20) await sleep(wait + 30);
  }

  /** How many struck in this time. @param {number} start @param {number} end */
  during(start, end) {
    return this.strikes.filter((at) => at >= start && at <= end).length;
  }
}
