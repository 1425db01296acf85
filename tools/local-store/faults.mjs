/**
 * Ways for the store to fail, on request. A fault is a set of properties that can be combined; one without a
 * value can be written as its bare name: `next("refuse")` is `next({ refuse: true })`.
 */

/** @typedef {import("./database.mjs").Answer} Answer */
/** @typedef {import("./database.mjs").Options} Options */
/** @typedef {import("./encoding.mjs").Command} Command */

/**
 * In the order in which they take effect.
 *
 * @typedef {object} Fault
 * @property {number} [delay] milliseconds to wait before anything else
 * @property {boolean} [refuse] the connection is destroyed before an answer; nothing is executed
 * @property {boolean} [hang] no answer, ever; nothing is executed
 * @property {number} [status] this status instead of an answer; nothing is executed
 * @property {string | object} [body] goes with `status`
 * @property {Record<string, string>} [headers] go with `status`
 * @property {boolean} [quota] the plan's commands are used up: the request is refused
 * @property {boolean} [capacity] the disk is full: whatever writes fails
 * @property {number} [entry] this entry fails, and is not executed
 * @property {string} [error] the text that goes with `entry`
 * @property {boolean} [execute] with `hang`, `status` or `entry`: executes all the same
 * @property {boolean} [short] the last entry of a pipeline's answer is missing
 * @property {boolean} [cut] half of the answer, then the connection is destroyed
 * @property {boolean} [lostAnswer] the connection is destroyed instead of the answer
 * @property {Semantics} [semantics] what the commands do instead of what Upstash's do
 * @property {(answer: Written) => Written} [rewrite] what is sent instead of Upstash's answer
 */

/**
 * A store that is not quite like Upstash.
 *
 * @typedef {(asked: { commands: Command[] } & Options, run: Run) => Promise<Answer>} Semantics
 * @typedef {(commands: Command[], options: Options) => Promise<Answer>} Run as Upstash does
 *
 * @typedef {object} Written an answer as it is sent
 * @property {number} status
 * @property {string} json
 * @property {string} syncToken
 * @property {boolean} base64 whether the caller asked for it
 */

/** @typedef {"refuse" | "hang" | "quota" | "capacity" | "short" | "cut" | "lostAnswer"} FaultName */

/**
 * @typedef {object} Seen what a fault is chosen by
 * @property {string} path of the URL, such as `/pipeline`
 * @property {string[][]} commands empty when there is none that can be read
 */

/** @typedef {(seen: Seen) => boolean} When */

/**
 * @typedef {object} Hold
 * @property {Promise<Seen>} arrived when a request has come and is being held
 * @property {() => void} release lets it be executed; without one, the hold is taken back
 */

/**
 * @typedef {object} Gate
 * @property {When} when
 * @property {boolean} taken whether a request stands before it
 * @property {(seen: Seen) => void} arrive
 * @property {Promise<void>} opened
 * @property {() => void} open
 */

export class Faults {
  /** @type {{ fault: Fault, left: number, when: When }[]} */
  #armed = [];
  /** @type {Gate[]} */
  #holds = [];
  #replication;

  /** @param {import("./replication.mjs").Replication} replication */
  constructor(replication) {
    this.#replication = replication;
  }

  /** @returns {number} how far reads are behind at the most, in milliseconds; 0: they are not */
  get lag() {
    return Math.max(...this.lags);
  }

  /** @param {number | number[]} milliseconds a list: of so many replicas, each behind on its own; 0 is the primary itself */
  set lag(milliseconds) {
    this.#replication.lags = [milliseconds].flat();
  }

  /** How far each replica is behind. */
  get lags() {
    return this.#replication.lags;
  }

  /**
   * Strikes the next matching requests.
   *
   * @param {FaultName | Fault} fault
   * @param {{ times?: number, when?: When }} [options]
   */
  next(fault, { times = 1, when = () => true } = {}) {
    this.#armed.push({ fault: named(fault), left: times, when });
  }

  /**
   * Strikes every matching request until `clear()`.
   *
   * @param {FaultName | Fault} fault
   * @param {{ when?: When }} [options]
   */
  always(fault, { when } = {}) {
    this.next(fault, { times: Infinity, when });
  }

  /**
   * Stops the next matching request just before it is executed.
   *
   * @param {When} [when]
   * @returns {Hold}
   */
  hold(when = () => true) {
    /** @type {Gate} */
    const gate = { when, taken: false, arrive: () => {}, opened: Promise.resolve(), open: () => {} };
    const arrived = new Promise((/** @type {(seen: Seen) => void} */ resolve) => (gate.arrive = resolve));
    gate.opened = new Promise((/** @type {(nothing: void) => void} */ resolve) => (gate.open = resolve));
    this.#holds.push(gate);
    const release = () => {
      this.#holds = this.#holds.filter((other) => other !== gate);
      gate.open();
    };
    return { arrived, release };
  }

  /** No more faults, no more lag; what is held goes on. */
  clear() {
    this.#armed = [];
    for (const { open } of this.#holds) open();
    this.#holds = [];
    if (this.lag > 0) this.lag = 0;
  }

  /**
   * The fault that strikes this request: of those that match, the one asked for first. It is used up.
   *
   * @param {() => Seen} see
   * @returns {Fault}
   */
  strike(see) {
    if (this.#armed.length === 0) return {};
    const seen = see();
    const armed = this.#armed.find(({ when }) => when(seen));
    if (!armed) return {};
    armed.left -= 1;
    if (armed.left <= 0) this.#armed = this.#armed.filter((other) => other !== armed);
    return armed.fault;
  }

  /**
   * @param {() => Seen} see
   * @returns {Promise<void> | undefined} when the request may go on
   */
  gate(see) {
    if (this.#holds.length === 0) return undefined;
    const seen = see();
    const gate = this.#holds.find(({ taken, when }) => !taken && when(seen));
    if (!gate) return undefined;
    gate.taken = true;
    gate.arrive(seen);
    return gate.opened;
  }
}

/**
 * @param {FaultName | Fault} fault
 * @returns {Fault}
 */
function named(fault) {
  return typeof fault === "string" ? { [fault]: true } : fault;
}
