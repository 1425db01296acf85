/**
 * A replica that is behind: a further database of the same Valkey. What a write has made of its keys arrives
 * here `lag` milliseconds later, in the order of the writes.
 */

/** @typedef {import("./database.mjs").Send} Send */
/** @typedef {import("./encoding.mjs").Command} Command */

/**
 * A write on its way to the replica.
 *
 * @typedef {object} Entry
 * @property {number} offset
 * @property {Command[]} [commands] what brings the replica up to it
 * @property {number} [due] on `performance.now()`'s clock
 */

export class Replica {
  #copyAll;
  #lag = 0;
  /** The offset up to which the replica knows everything. */
  applied = 0;
  /** @type {Entry[]} */
  #pending = [];
  /** @type {{ offset: number, wake: () => void }[]} */
  #waiting = [];
  /** @type {Promise<unknown>} */
  #ready = Promise.resolve();
  /** @type {NodeJS.Timeout | undefined} */
  #timer;

  /**
   * @param {Send} send runs a command on the replica
   * @param {() => Promise<unknown>} copyAll makes it what the primary is
   */
  constructor(send, copyAll) {
    this.send = send;
    this.#copyAll = copyAll;
  }

  /** Milliseconds; 0: it is switched off. */
  get lag() {
    return this.#lag;
  }

  get lagging() {
    return this.#lag > 0;
  }

  /**
   * What is already under way keeps its time.
   *
   * @param {number} milliseconds 0 switches the replica off
   * @param {number} written the offset of the latest write
   */
  lagBy(milliseconds, written) {
    const wasOff = this.#lag === 0;
    this.#lag = milliseconds;
    if (wasOff && this.lagging) this.#ready = this.#copyAll();
    if (wasOff || !this.lagging) this.#catchUp(written);
  }

  close() {
    clearTimeout(this.#timer);
  }

  /**
   * Makes room for a write that is about to be sent.
   *
   * @param {number} offset the write's
   * @returns {((commands: Command[]) => void) | undefined} to be called with what the write has made of its keys; nothing
   *   when the replica need not be told
   */
  expect(offset) {
    if (!this.lagging) {
      this.applied = offset;
      return undefined;
    }
    /** @type {Entry} */
    const entry = { offset };
    this.#pending.push(entry);
    return (commands) => {
      entry.commands = commands;
      entry.due = performance.now() + this.#lag;
      this.#apply();
    };
  }

  /**
   * @param {number} offset
   * @returns {Promise<void>} once the replica knows everything up to there
   */
  async reach(offset) {
    await this.#ready;
    if (this.applied >= offset) return;
    await new Promise((resolve) => this.#waiting.push({ offset, wake: () => resolve(undefined) }));
  }

  #apply() {
    clearTimeout(this.#timer);
    for (let entry = this.#pending[0]; entry?.commands; entry = this.#pending[0]) {
      const wait = /** @type {number} */ (entry.due) - performance.now();
      if (wait > 0) {
        this.#timer = setTimeout(() => this.#apply(), wait);
        return;
      }
      this.#pending.shift();
      // Reads go over the same connection, so what is sent is as good as done.
      for (const command of entry.commands) void this.send(command).catch(() => {});
      this.applied = entry.offset;
      this.#wake();
    }
  }

  /** @param {number} offset */
  #catchUp(offset) {
    clearTimeout(this.#timer);
    this.#pending = [];
    this.applied = offset;
    this.#wake();
  }

  #wake() {
    const waiting = this.#waiting;
    this.#waiting = waiting.filter(({ offset }) => offset > this.applied);
    for (const { offset, wake } of waiting) if (offset <= this.applied) wake();
  }
}
