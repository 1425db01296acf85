/**
 * What a command is, and what stands between Upstash's commands and Valkey's: which are read or write,
 * which are not to be had over REST, which have another name or answer here.
 */
import { createHash } from "node:crypto";

/** @typedef {import("./encoding.mjs").Arg} Arg */
/** @typedef {import("./encoding.mjs").Command} Command */
/** @typedef {import("./encoding.mjs").Reply} Reply */

/**
 * @typedef {object} Entry of Valkey's own table of commands
 * @property {Set<string>} flags
 * @property {[number, number, number]} keys position of the first key, of the last, and the step between them
 */

/**
 * A command as it will be run.
 *
 * @typedef {object} Plan
 * @property {string} name as it is billed and logged, upper case
 * @property {"read" | "write" | "other"} kind
 * @property {boolean} script whether it runs other commands, which are billed too
 * @property {Command} args what Valkey gets
 * @property {[number, number, number] | "movable"} keys where its keys are
 * @property {string} [refusal] the error it gets instead of being run
 * @property {(reply: Reply) => Reply} [translate] from Valkey's answer to Upstash's
 */

const SCRIPTS = new Set(["EVAL", "EVALSHA", "EVAL_RO", "EVALSHA_RO", "FCALL", "FCALL_RO"]);

/** Not over REST: what belongs to a connection, or to the operator of the server. */
const FORBIDDEN_FLAGS = ["admin", "blocking", "no_multi"];
const FORBIDDEN = new Set(
  (
    "MULTI EXEC DISCARD UNWATCH SUBSCRIBE PSUBSCRIBE SSUBSCRIBE UNSUBSCRIBE PUNSUBSCRIBE SUNSUBSCRIBE " +
    "SPUBLISH AUTH HELLO RESET QUIT CLIENT CONFIG ACL MODULE CLUSTER ASKING READONLY READWRITE LATENCY " +
    "MEMORY SLOWLOG COMMANDLOG LASTSAVE ROLE FAILOVER MIGRATE MOVE SWAPDB"
  ).split(" "),
);
/** Flagged as blocking, but only with this argument. */
const BLOCKING_WITH = new Map([
  ["XREAD", "BLOCK"],
  ["XREADGROUP", "BLOCK"],
]);

export class CommandTable {
  /** @type {Map<string, Entry>} */
  #entries = new Map();
  /** The SHA-1 a client knows a script by → that of the text Valkey was given. @type {Map<string, string>} */
  #scripts = new Map();

  /** @param {any[]} replies of `COMMAND` */
  constructor(replies) {
    for (const reply of replies) this.#add(reply);
  }

  /** @param {any[]} reply */
  #add(reply) {
    const [name, , flags, first, last, step, , , , subcommands] = reply;
    const keys = /** @type {[number, number, number]} */ ([first, last, step].map(Number));
    this.#entries.set(String(name).toUpperCase(), { flags: new Set(flags.map(String)), keys });
    for (const subcommand of subcommands ?? []) this.#add(subcommand);
  }

  /**
   * @param {Command} command
   * @returns {Plan}
   */
  plan(command) {
    const name = command[0].toString().toUpperCase();
    const option = (/** @type {number} */ at) => (command[at] ?? "").toString().toUpperCase();
    const has = (/** @type {string} */ word) => command.slice(1).some((_, i) => option(i + 1) === word);
    const lacks = (/** @type {string} */ what) =>
      refuse(name, `ERR ${what} is not available in the local store`);

    if (name === "DELEX" && !this.#entries.has("DELEX")) {
      if (command.length === 2) return { ...this.plan(["DEL", command[1]]), name };
      if (command.length !== 4) return refuse(name, "ERR wrong number of arguments for 'delex' command");
      if (option(2) !== "IFEQ")
        return lacks(/^IF(NE|DEQ|DNE)$/.test(option(2)) ? option(2) : "this condition");
      return { ...this.plan(["DELIFEQ", command[1], command[3]]), name };
    }
    if (name.startsWith("JSON.") && !this.#entries.has(name)) return lacks("JSON");

    const entry = this.#entries.get(`${name}|${option(1)}`) ?? this.#entries.get(name);
    if (!entry) return refuse("(unknown)", unavailable());
    if (isForbidden(name, entry, has)) return refuse(name, unavailable(name));

    const script = SCRIPTS.has(name);
    /** @type {Plan} */
    const plan = {
      name,
      kind: entry.flags.has("readonly") ? "read" : entry.flags.has("write") || script ? "write" : "other",
      script,
      args: command,
      keys: entry.flags.has("movablekeys") ? "movable" : entry.keys,
    };
    switch (name) {
      case "SELECT":
        return option(1) === "0" && command.length === 2 ? plan : refuse(name, unavailable(name));
      case "SET":
        return this.#set(plan, option, lacks);
      case "FLUSHALL": // the replicas are databases of the same server
        return { ...plan, args: ["FLUSHDB", ...command.slice(1)] };
      case "EVAL":
      case "EVAL_RO":
        return { ...plan, args: command.map((arg, at) => (at === 1 ? this.#load(arg) : arg)) };
      case "EVALSHA":
      case "EVALSHA_RO":
        return { ...plan, args: command.map((arg, at) => (at === 1 ? this.#sha(arg) : arg)) };
      case "SCRIPT":
        return this.#script(plan, option(1));
    }
    return plan;
  }

  /**
   * Where the keys of a command are in its arguments; a "movable" plan has to be asked about.
   *
   * @param {Plan} plan
   * @returns {Arg[]}
   */
  static keysOf({ args, keys }) {
    if (keys === "movable" || keys[0] === 0) return [];
    const [first, last, step] = keys;
    const end = last < 0 ? args.length + last : last;
    return args.filter((_, at) => at >= first && at <= end && (at - first) % step === 0);
  }

  /**
   * @param {Plan} plan
   * @param {(at: number) => string} option
   * @param {(what: string) => Plan} lacks
   * @returns {Plan}
   */
  #set(plan, option, lacks) {
    const { args } = plan;
    let ifeq = -1;
    let get = false;
    for (let at = 3; at < args.length; at++) {
      const word = option(at);
      if (word === "IFEQ") ifeq = ++at;
      else if (/^IF(NE|DEQ|DNE)$/.test(word) && !this.#entries.has("DELEX")) return lacks(word);
      else if (/^(EX|PX|EXAT|PXAT)$/.test(word)) at++;
      else if (word === "GET") get = true;
    }
    if (ifeq < 0 || !get || ifeq >= args.length) return plan;
    // Valkey answers with the value that was there also when the condition failed. It held exactly if that
    // value is the expected one.
    const expected = Buffer.from(args[ifeq]);
    return { ...plan, translate: (old) => (Buffer.isBuffer(old) && old.equals(expected) ? old : null) };
  }

  /**
   * @param {Plan} plan
   * @param {string} subcommand
   * @returns {Plan}
   */
  #script(plan, subcommand) {
    const [name, , ...rest] = plan.args;
    switch (subcommand) {
      case "LOAD": {
        if (rest.length !== 1) return plan;
        const sha = Buffer.from(sha1(rest[0]));
        return { ...plan, args: [name, "LOAD", this.#load(rest[0])], translate: () => sha };
      }
      case "EXISTS":
        return { ...plan, args: [name, "EXISTS", ...rest.map((sha) => this.#sha(sha))] };
      case "FLUSH":
        return plan;
      default:
        return refuse(plan.name, unavailable("SCRIPT"));
    }
  }

  /**
   * Valkey does not know the flag `allow-key-locking`. A client will still ask for the script by the hash of
   * the text with the flag in it.
   *
   * @param {Arg} script
   * @returns {Arg}
   */
  #load(script) {
    const text = typeof script === "string" ? script : script.toString("latin1");
    const [line] = text.split("\n", 1);
    if (!/^#!.*allow-key-locking/.test(line)) return script;
    const stripped = line.replace(/flags=(\S*)/, (_, /** @type {string} */ flags) => {
      const kept = flags.split(",").filter((flag) => flag !== "allow-key-locking");
      return kept.length > 0 ? `flags=${kept.join(",")}` : "";
    });
    const known = stripped.trimEnd() + text.slice(line.length);
    const result = typeof script === "string" ? known : Buffer.from(known, "latin1");
    this.#scripts.set(sha1(script), sha1(result));
    return result;
  }

  /**
   * @param {Arg} sha
   * @returns {Arg}
   */
  #sha(sha) {
    return this.#scripts.get(sha.toString().toLowerCase()) ?? sha;
  }

  /**
   * Valkey quotes arguments in some errors. Ours are read by people who must not see what is in the store,
   * so a quotation stays only if it is the name of a command.
   *
   * @param {string} message
   * @returns {string}
   */
  withoutValues(message) {
    const known = /^[^']*'([a-z|_]+)'[^']*$/i.exec(message);
    if (known && this.#entries.has(known[1].toUpperCase())) return message;
    return message.replace(/'.*'/s, "'…'");
  }
}

/**
 * @param {string} name
 * @param {Entry} entry
 * @param {(word: string) => boolean} has
 * @returns {boolean}
 */
function isForbidden(name, { flags }, has) {
  if (FORBIDDEN.has(name)) return true;
  const blockingWith = BLOCKING_WITH.get(name);
  if (blockingWith) return has(blockingWith);
  return FORBIDDEN_FLAGS.some((flag) => flags.has(flag));
}

/**
 * @param {string} [name] only of a command that exists: anything else may be a value in the wrong place
 * @returns {string}
 */
function unavailable(name) {
  return `ERR Command is not available${name ? `: '${name}'` : ""}`;
}

/**
 * @param {string} name
 * @param {string} refusal
 * @returns {Plan}
 */
function refuse(name, refusal) {
  return { name, kind: "other", script: false, args: [name], keys: [0, 0, 0], refusal };
}

/**
 * @param {Arg} text
 * @returns {string}
 */
function sha1(text) {
  return createHash("sha1").update(text).digest("hex");
}
