/**
 * A database behind Upstash's REST format, spoken to as the Worker does (`src/store`, `src/platform`): one POST for a batch, every
 * argument a text, no redirect followed, a deadline on every call, the sync token sent back.
 *
 * Keys are below a random prefix, and every one that was named is deleted in the end.
 */
import { randomBytes } from "node:crypto";
import { expectReply, Finding, shortened, Unreachable } from "./finding.mjs";

/** @typedef {import("./finding.mjs").Outcome} Outcome */
/** @typedef {import("./finding.mjs").Wanted} Wanted */
/** @typedef {[command: string[], wanted: Wanted]} Step */

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {string} text
 * @property {string | null} syncToken
 * @property {number} took milliseconds
 *
 * @typedef {object} How a call is made
 * @property {boolean} [base64] asks for replies as base64
 * @property {boolean} [afresh] as someone who has not written anything: without a sync token
 * @property {string} [token] another token than the database's
 * @property {string} [body] instead of commands
 * @property {string} [method]
 */

export const PIPELINE = "/pipeline";
export const TRANSACTION = "/multi-exec";

/** So long a key lasts that nobody could delete, in milliseconds. */
export const KEPT = 600_000;
export const TTL = String(KEPT);

/** A key that was made without a time to live gets one. @param {string} key @returns {Step} */
export const ends = (key) => [["PEXPIRE", key, TTL], 1];

export class Database {
  #url;
  #token;
  #timeout;
  #syncToken = "";
  /** @type {Set<string>} */
  #keys = new Set();
  /** @type {Set<Promise<unknown>>} */
  #underWay = new Set();
  #isClosed = false;

  /** @param {{ url: string, token: string, timeout: number, keyPrefix?: string }} database `timeout`: milliseconds */
  constructor({ url, token, timeout, keyPrefix = "" }) {
    this.#url = url.replace(/\/+$/, "");
    this.#token = token;
    this.#timeout = timeout;
    this.prefix = `${keyPrefix}doctor:${randomBytes(8).toString("hex")}:`;
  }

  get host() {
    return new URL(this.#url).host;
  }

  get timeout() {
    return this.#timeout;
  }

  /** The full name of a key, which will be deleted. @param {string} name */
  key(name) {
    const key = this.prefix + name;
    this.#keys.add(key);
    return key;
  }

  /**
   * @param {string} path
   * @param {string[][]} commands
   * @param {How} [how]
   * @returns {Promise<Answer>} Throws {@link Unreachable}.
   */
  call(path, commands, how = {}) {
    if (this.#isClosed) throw new Finding("interrupted", "skipped");
    return this.#send(path, commands, how);
  }

  /**
   * The outcomes of a batch. Throws a finding if they are not in Upstash's format.
   *
   * @param {string} path
   * @param {string[][]} commands
   * @param {How} [how]
   * @returns {Promise<Outcome[]>}
   */
  async run(path, commands, how) {
    return this.#outcomes(await this.call(path, commands, how), commands.length);
  }

  /**
   * Runs commands in one call, and compares their replies with those that are wanted.
   *
   * @param {Step[]} steps
   * @param {How & { path?: string }} [how] without a path as one transaction, so that the primary answers
   */
  async steps(steps, { path = TRANSACTION, ...how } = {}) {
    const commands = steps.map(([command]) => command);
    const outcomes = await this.run(path, commands, how);
    outcomes.forEach((outcome, at) => {
      const [command = [], wanted = null] = steps[at] ?? [];
      expectReply(this.form(command), outcome, wanted);
    });
  }

  /** A command for people: without our prefix, and short. @param {string[]} command */
  form(command) {
    const words = command.map((word) => word.replaceAll(this.prefix, ""));
    return shortened(words.map((word) => (word.length > 24 ? "…" : word)).join(" "));
  }

  /** What an answer says, for people: never the token. @param {Answer} answer */
  said({ status, text }) {
    let error;
    try {
      error = JSON.parse(text).error;
    } catch {} // not Upstash's format
    const what =
      typeof error === "string" ? `"${shortened(this.#harmless(error))}"` : "no error in Upstash's format";
    return `status ${status}, ${what}`;
  }

  /**
   * Waits for what is under way, and deletes every key. From here on nothing is called.
   *
   * @returns {Promise<string | undefined>} why keys may be left
   */
  async close() {
    this.#isClosed = true;
    // A write that arrives after the deletion would leave its key.
    await Promise.allSettled(this.#underWay);
    const keys = [...this.#keys];
    this.#keys.clear();
    if (!keys.length) return undefined;
    try {
      const twice = [
        ["DEL", ...keys],
        ["DEL", ...keys],
      ];
      const [, second] = this.#outcomes(await this.#send(TRANSACTION, twice, {}), twice.length);
      expectReply("DEL of deleted keys", /** @type {Outcome} */ (second), 0);
      return undefined;
    } catch (error) {
      return error instanceof Finding ? error.message : String(error);
    }
  }

  /**
   * @param {string} path
   * @param {string[][]} commands
   * @param {How} how
   */
  #send(path, commands, how) {
    const answer = this.#post(path, commands, how);
    const settled = answer.catch(() => {}).finally(() => this.#underWay.delete(settled));
    this.#underWay.add(settled);
    return answer;
  }

  /**
   * @param {string} path
   * @param {string[][]} commands
   * @param {How} how
   * @returns {Promise<Answer>}
   */
  async #post(path, commands, { base64, afresh, token = this.#token, body, method = "POST" }) {
    const since = performance.now();
    try {
      const response = await fetch(this.#url + path, {
        method,
        body: body ?? JSON.stringify(commands),
        headers: {
          authorization: `Bearer ${token}`,
          "upstash-sync-token": afresh ? "" : this.#syncToken,
          ...(base64 ? { "upstash-encoding": "base64" } : {}),
        },
        redirect: "manual",
        signal: AbortSignal.timeout(this.#timeout),
      });
      const text = await response.text();
      const syncToken = response.headers.get("upstash-sync-token");
      if (!afresh && response.status === 200) this.#syncToken = syncToken ?? "";
      return { status: response.status, text, syncToken, took: performance.now() - since };
    } catch (error) {
      throw new Unreachable(whyUnreachable(error, this.#timeout));
    }
  }

  /**
   * @param {Answer} answer
   * @param {number} count
   * @returns {Outcome[]}
   */
  #outcomes(answer, count) {
    if (answer.status !== 200) throw new Finding(this.said(answer));
    /** @type {any} */
    let entries;
    try {
      entries = JSON.parse(answer.text);
    } catch {
      throw new Finding("the answer is not JSON: does the URL lead to the database's REST API?");
    }
    if (!Array.isArray(entries)) throw new Finding(this.said(answer));
    expectCount(entries.length, count);
    return entries.map((entry) => {
      if (typeof entry?.error === "string") return { error: this.#harmless(entry.error) };
      if (entry && "result" in entry) return { result: entry.result };
      throw new Finding('an entry of the answer is neither {"result"} nor {"error"}');
    });
  }

  /** @param {string} text */
  #harmless(text) {
    return text.replaceAll(this.#token, "…").replaceAll(this.prefix, "");
  }
}

/** @param {number} length @param {number} count */
function expectCount(length, count) {
  if (length !== count) throw new Finding(`${count} commands were sent, and ${length} replies came`);
}

/**
 * Why `fetch` has thrown, for people.
 *
 * @param {any} error
 * @param {number} timeout
 */
export function whyUnreachable(error, timeout) {
  if (error?.name === "TimeoutError") return `no answer within ${timeout} ms`;
  const code = error?.cause?.code ?? error?.cause?.errors?.[0]?.code ?? "";
  const known = /** @type {Record<string, string>} */ ({
    ENOTFOUND: "there is no such host",
    EAI_AGAIN: "the host's name could not be looked up",
    ECONNREFUSED: "the connection was refused",
    ECONNRESET: "the connection broke off",
    UND_ERR_SOCKET: "the connection broke off",
  });
  return known[code] ?? `no connection (${code || "no reason given"})`;
}
