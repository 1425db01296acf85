/**
 * A replica that is behind: database 1 of the same Valkey. What a write has made of its keys arrives here
 * `lag` milliseconds later, in the order of the writes.
 *
 * Its clock is the number of writes so far, the offset; a sync token is an offset in disguise.
 */
import { randomBytes } from "node:crypto";

/** @typedef {import("./database.mjs").Send} Send */
/** @typedef {import("./encoding.mjs").Command} Command */

/**
 * A write on its way to the replica.
 *
 * @typedef {object} Entry
 * @property {number} offset
 * @property {boolean} wanted whether the replica needs to be told what was written
 * @property {(commands: Command[]) => void} arrived to be called with what brings the replica up to it
 * @property {Command[]} [commands]
 * @property {number} [due] on `performance.now()`'s clock
 */

/** Copies everything at once, with the TTLs, so that nothing is written meanwhile. */
const COPY_ALL = `
redis.call('SELECT', 1)
redis.call('FLUSHDB')
redis.call('SELECT', 0)
for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', key, key, 'DB', 1) end`;

export class Replica {
  /** Tokens of another run mean nothing here. */
  #run = randomBytes(6).toString("hex");
  #primary;
  #lag = 0;
  /** The offset of the latest write. */
  #written = 0;
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
   * @param {Send} primary
   * @param {Send} send runs a command on the replica
   */
  constructor(primary, send) {
    this.#primary = primary;
    this.send = send;
  }

  get lag() {
    return this.#lag;
  }

  /** Milliseconds; 0 switches the replica off. What is already under way keeps its time. */
  set lag(milliseconds) {
    if (!(milliseconds >= 0)) throw new RangeError("lag is a number of milliseconds");
    const wasOff = this.#lag === 0;
    this.#lag = milliseconds;
    if (milliseconds === 0) this.#catchUp(this.#written);
    else if (wasOff) {
      this.#ready = this.#primary(["EVAL", COPY_ALL, "0"]);
      this.#catchUp(this.#written);
    }
  }

  get lagging() {
    return this.#lag > 0;
  }

  close() {
    clearTimeout(this.#timer);
  }

  /**
   * Makes room for a write that is about to be sent.
   *
   * @returns {Entry}
   */
  expect() {
    const offset = ++this.#written;
    if (!this.lagging) {
      this.applied = offset;
      return { offset, wanted: false, arrived: () => {} };
    }
    /** @type {Entry} */
    const entry = {
      offset,
      wanted: true,
      arrived: (commands) => {
        entry.commands = commands;
        entry.due = performance.now() + this.#lag;
        this.#apply();
      },
    };
    this.#pending.push(entry);
    return entry;
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

  /**
   * @param {number} offset
   * @returns {string}
   */
  tokenOf(offset) {
    return Buffer.from(`${this.#run}:${offset}`).toString("base64");
  }

  /**
   * @param {string | undefined} token
   * @returns {number} 0, which asks for nothing, unless it is a token of ours
   */
  offsetOf(token) {
    if (!token) return 0;
    const [run, offset] = Buffer.from(token, "base64").toString().split(":");
    return run === this.#run && /^\d{1,15}$/.test(offset) ? Number(offset) : 0;
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
