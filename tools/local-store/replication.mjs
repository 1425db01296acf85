/**
 * What the primary tells its replicas, and which of them serves whom. Each lags on its own.
 *
 * The clock is the number of writes so far, the offset; a sync token is an offset in disguise.
 */
import { randomBytes } from "node:crypto";
import { Replica } from "./replica.mjs";

/** @typedef {import("./database.mjs").Send} Send */
/** @typedef {import("./encoding.mjs").Command} Command */

/**
 * A write on its way to the replicas.
 *
 * @typedef {object} Entry
 * @property {number} offset
 * @property {boolean} wanted whether any replica needs to be told what was written
 * @property {(commands: Command[]) => void} arrived to be called with what brings a replica up to it
 */

/** Copies everything at once, with the TTLs, so that nothing is written meanwhile. */
const COPY_ALL = `
redis.call('SELECT', ARGV[1])
redis.call('FLUSHDB')
redis.call('SELECT', 0)
for _, key in ipairs(redis.call('KEYS', '*')) do redis.call('COPY', key, key, 'DB', ARGV[1]) end`;

export class Replication {
  /** Tokens of another run mean nothing here. */
  #run = randomBytes(6).toString("hex");
  #replicas;
  /** How many of the replicas take part. */
  #count = 1;
  /** Whose turn it is to serve a caller without a region. */
  #turn = 0;
  /** The offset of the latest write. */
  written = 0;

  /**
   * @param {Send} primary
   * @param {Send[]} sends each runs a command on a replica: on database 1, 2, and so on
   */
  constructor(primary, sends) {
    this.#replicas = sends.map((send, at) => {
      return new Replica(send, () => primary(["EVAL", COPY_ALL, "0", String(at + 1)]));
    });
  }

  get lags() {
    return this.#replicas.slice(0, this.#count).map(({ lag }) => lag);
  }

  /** One replica for each, behind by so many milliseconds. What 0 stands for is the primary itself. */
  set lags(list) {
    const { length } = this.#replicas;
    if (list.length < 1 || list.length > length) throw new RangeError(`there are 1 to ${length} replicas`);
    if (!list.every((lag) => lag >= 0)) throw new RangeError("lag is a number of milliseconds");
    this.#count = list.length;
    this.#turn = 0;
    this.#replicas.forEach((replica, at) => replica.lagBy(list[at] ?? 0, this.written));
  }

  get lagging() {
    return this.#replicas.some(({ lagging }) => lagging);
  }

  close() {
    for (const replica of this.#replicas) replica.close();
  }

  /**
   * The replica that serves a call. While it does not lag, the primary does.
   *
   * @param {number} [region] a caller's, who is always served by the same one; the others get one after the other
   * @returns {Replica}
   */
  serving(region = this.#turn++) {
    return this.#replicas[region % this.#count];
  }

  /**
   * Makes room for a write that is about to be sent.
   *
   * @returns {Entry}
   */
  expect() {
    const offset = ++this.written;
    const told = this.#replicas.flatMap((replica) => replica.expect(offset) ?? []);
    return {
      offset,
      wanted: told.length > 0,
      arrived: (commands) => told.forEach((tell) => tell(commands)),
    };
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
}
