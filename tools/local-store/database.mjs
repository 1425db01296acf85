/**
 * Runs planned commands on Valkey: one by one or as a transaction, on the primary or, when they only
 * read, on a replica that lags; and says what they cost.
 */
import { createClient, RESP_TYPES } from "@redis/client";
import { CommandTable } from "./commands.mjs";
import { Replication } from "./replication.mjs";

/** @typedef {import("./commands.mjs").Plan} Plan */
/** @typedef {import("./counters.mjs").Counters} Counters */
/** @typedef {import("./encoding.mjs").Arg} Arg */
/** @typedef {import("./encoding.mjs").Command} Command */
/** @typedef {import("./encoding.mjs").Outcome} Outcome */
/** @typedef {import("./encoding.mjs").Reply} Reply */
/** @typedef {import("./replica.mjs").Replica} Replica */

/** @typedef {(command: Command) => Promise<Reply>} Send */

/**
 * @typedef {object} Answer
 * @property {Outcome[]} outcomes
 * @property {string} [discarded] why a transaction was not run at all
 * @property {string} token covers what the answer's caller has written and seen
 */

/**
 * @typedef {object} Options of a run
 * @property {boolean} atomic
 * @property {string | undefined} token the caller's latest
 * @property {number} [region] whose replica serves the caller; else the next one does
 */

/**
 * @typedef {object} Context of a run
 * @property {Map<Plan, Arg[]>} keys that writes touch; known only while a replica lags
 * @property {boolean} atomic
 * @property {Replica | undefined} replica for what reads
 * @property {number} seen the offset up to which the caller has to be shown everything
 */

/** Bytes for values and exact digits for integers: see `Reply`. */
const TYPES = {
  [RESP_TYPES.BLOB_STRING]: Buffer,
  [RESP_TYPES.SIMPLE_STRING]: String,
  [RESP_TYPES.NUMBER]: String,
};

/** @type {Map<Plan, Arg[]>} */
const NO_KEYS = new Map();
/** As many as can lag at the same time. */
const REPLICAS = 4;
const DISCARDED = "EXECABORT Transaction discarded because of: ";

export class Database {
  #primary;
  #table;
  #counters;
  #close;
  /** How far `TIME` is ahead of Valkey's clock, in milliseconds. Times to live stay real. */
  clockAhead = 0;

  /**
   * @param {string} socket Valkey's
   * @param {Counters} counters
   */
  static async open(socket, counters) {
    const databases = Array.from({ length: 1 + REPLICAS }, (_, database) => connect(socket, database));
    const clients = await Promise.all(databases);
    const [primary, ...others] = clients.map(rawSend);
    await Promise.all(others.map((send) => send(["FLUSHDB"])));
    const table = new CommandTable(/** @type {any[]} */ (await primary(["COMMAND"])));
    const close = () => clients.forEach((client) => client.destroy());
    return new Database(primary, new Replication(primary, others), table, counters, close);
  }

  /**
   * @param {Send} primary
   * @param {Replication} replication
   * @param {CommandTable} table
   * @param {Counters} counters
   * @param {() => void} close
   */
  constructor(primary, replication, table, counters, close) {
    this.#primary = primary;
    this.replication = replication;
    this.#table = table;
    this.#counters = counters;
    this.#close = close;
  }

  /** A token that covers nothing. */
  get token() {
    return this.replication.tokenOf(0);
  }

  close() {
    this.replication.close();
    this.#close();
  }

  /**
   * @param {Command} command
   * @returns {Plan}
   */
  plan(command) {
    const plan = this.#table.plan(command);
    const translate = (/** @type {Reply} */ time) => later(time, this.clockAhead);
    return plan.name === "TIME" && this.clockAhead !== 0 ? { ...plan, translate } : plan;
  }

  /**
   * @param {Plan[]} plans
   * @param {Options} options
   * @returns {Promise<Answer>}
   */
  async run(plans, { atomic, token, region }) {
    const seen = this.replication.offsetOf(token);
    // Up to the last byte sent nothing else waits, so that commands are run in the order given.
    const keys = this.replication.lagging ? await this.#keysOf(plans) : NO_KEYS;
    const reads = plans.some((plan) => plan.kind === "read");
    const replica = reads ? this.replication.serving(region) : undefined;
    const context = { keys, atomic, replica, seen };
    for (const plan of plans) this.#counters.bill(plan.name);
    if (!atomic) {
      const runs = await Promise.all(plans.map((plan) => this.#runSafely([plan], context)));
      return {
        outcomes: runs.map((run) => run.outcomes[0]),
        token: this.replication.tokenOf(Math.max(seen, ...runs.map((run) => run.offset))),
      };
    }
    const refused = plans.find((plan) => plan.refusal);
    const refusal = refused && DISCARDED + refused.refusal;
    if (refused || plans.length === 0) {
      return { outcomes: [], discarded: refusal, token: this.replication.tokenOf(seen) };
    }
    const { outcomes, offset, discarded } = await this.#runSafely(plans, context);
    return {
      outcomes,
      discarded: discarded && DISCARDED + discarded,
      token: this.replication.tokenOf(offset),
    };
  }

  /**
   * Plans that belong together: one command, or a transaction. What fails is an outcome, not an exception.
   *
   * @param {Plan[]} plans
   * @param {Context} context
   * @returns {Promise<{ outcomes: Outcome[], offset: number, discarded?: string }>}
   */
  async #runSafely(plans, context) {
    const { seen } = context;
    try {
      if (plans[0].refusal) return { outcomes: [{ error: plans[0].refusal }], offset: seen };
      return await this.#runTogether(plans, context);
    } catch (error) {
      const discarded = this.#table.withoutValues(/** @type {Error} */ (error).message);
      return { outcomes: [{ error: discarded }], offset: seen, discarded };
    }
  }

  /**
   * @param {Plan[]} plans
   * @param {Context} context
   * @returns {Promise<{ outcomes: Outcome[], offset: number }>}
   */
  async #runTogether(plans, { keys, atomic, replica, seen }) {
    const writes = plans.filter((plan) => plan.kind === "write");

    // 1. Where. Only a replica can be behind; a transaction that writes belongs to the primary as a whole.
    let behind = writes.length === 0 && plans.some((plan) => plan.kind === "read") ? replica : undefined;
    if (behind?.lagging) await behind.reach(seen);
    if (!behind?.lagging) behind = undefined; // it may have been switched off meanwhile, and knows no more
    const send = behind?.send ?? this.#primary;
    const known = behind?.applied ?? this.replication.written;

    // 2. What is sent along: statistics around each script, and for the replicas what was written.
    const commands = plans.flatMap(({ script, args }) => (script ? [STATISTICS, args, STATISTICS] : [args]));
    const entry = writes.length > 0 ? this.replication.expect() : undefined;
    const written = entry?.wanted ? writes.flatMap((plan) => keys.get(plan) ?? []) : [];
    const copies = written.flatMap((key) => [
      ["DUMP", key],
      ["PEXPIRETIME", key],
    ]);
    const group = atomic || commands.length > 1 || copies.length > 0;

    // 3. Run, hand over, bill.
    let replies;
    try {
      replies = group ? await transaction(send, [...commands, ...copies]) : [await settle(send(commands[0]))];
    } catch (error) {
      entry?.arrived([]);
      throw error;
    }
    const copied = replies.splice(commands.length);
    entry?.arrived([
      ...writes.filter((plan) => isFlush(plan)).map((plan) => plan.args),
      ...written.flatMap((key, at) => restore(key, copied[2 * at], copied[2 * at + 1])),
    ]);
    const outcomes = plans.map((plan) => {
      if (!plan.script) return this.#outcome(plan, /** @type {Reply} */ (replies.shift()));
      const [before, reply, after] = replies.splice(0, 3);
      this.#billInner(plan, before, after);
      return this.#outcome(plan, reply);
    });
    return { outcomes, offset: Math.max(seen, entry ? entry.offset : known) };
  }

  /**
   * @param {Plan} plan
   * @param {Reply} reply
   * @returns {Outcome}
   */
  #outcome(plan, reply) {
    if (reply instanceof Error) return { error: this.#table.withoutValues(reply.message) };
    return { result: plan.translate ? plan.translate(reply) : reply };
  }

  /**
   * @param {Plan[]} plans
   * @returns {Promise<Map<Plan, Arg[]>>} the keys of those that write
   */
  async #keysOf(plans) {
    const writes = plans.filter((plan) => plan.kind === "write" && !plan.refusal);
    const lists = writes.map(async (plan) => {
      if (plan.keys !== "movable") return CommandTable.keysOf(plan);
      const keys = await settle(this.#primary(["COMMAND", "GETKEYS", ...plan.args]));
      return Array.isArray(keys) ? /** @type {Buffer[]} */ (keys) : []; // an error: it has none
    });
    const keys = await Promise.all(lists);
    return new Map(writes.map((plan, at) => [plan, keys[at]]));
  }

  /**
   * Bills what a script ran, from Valkey's own statistics of before and after.
   *
   * @param {Plan} plan
   * @param {Reply} before
   * @param {Reply} after
   */
  #billInner(plan, before, after) {
    const earlier = callsByCommand(before);
    const own = plan.args[0].toString().toUpperCase();
    for (const [name, calls] of callsByCommand(after)) {
      const itself = name === own || name === "INFO" ? 1 : 0;
      const inner = calls - (earlier.get(name) ?? 0) - itself;
      if (inner > 0) this.#counters.bill(name, inner);
    }
  }
}

const STATISTICS = ["INFO", "commandstats"];

/**
 * @param {Reply} statistics
 * @returns {Map<string, number>}
 */
function callsByCommand(statistics) {
  const lines = String(statistics).matchAll(/^cmdstat_([^:|]+)[^:]*:calls=(\d+)/gm);
  /** @type {Map<string, number>} */
  const calls = new Map();
  for (const [, name, count] of lines) {
    const key = name.toUpperCase();
    calls.set(key, (calls.get(key) ?? 0) + Number(count));
  }
  return calls;
}

/**
 * @param {Reply} time seconds and microseconds, or an error
 * @param {number} milliseconds
 * @returns {Reply}
 */
function later(time, milliseconds) {
  if (!Array.isArray(time)) return time;
  const moved = Number(time[0]) * 1e6 + Number(time[1]) + milliseconds * 1000;
  return [Math.floor(moved / 1e6), moved % 1e6].map((number) => Buffer.from(String(number)));
}

/** @param {Plan} plan */
function isFlush(plan) {
  return plan.args[0].toString().toUpperCase() === "FLUSHDB";
}

/**
 * What makes a replica's key what the primary's was.
 *
 * @param {Arg} key
 * @param {Reply} dump
 * @param {Reply} expires in milliseconds since 1970, or negative for never
 * @returns {Command[]}
 */
function restore(key, dump, expires) {
  if (!Buffer.isBuffer(dump)) return [["DEL", key]];
  const at = String(expires);
  return [["RESTORE", key, at.startsWith("-") ? "0" : at, dump, "REPLACE", "ABSTTL"]];
}

/**
 * @param {Send} send
 * @param {Command[]} commands
 * @returns {Promise<Reply[]>} an Error for each that failed; rejects when none was run
 */
async function transaction(send, commands) {
  const queued = [["MULTI"], ...commands].map((command) => settle(send(command)));
  const done = await settle(send(["EXEC"]));
  if (Array.isArray(done)) return done;
  const why = (await Promise.all(queued)).find((reply) => reply instanceof Error);
  throw why ?? done;
}

/**
 * @param {Promise<Reply>} reply
 * @returns {Promise<Reply>}
 */
function settle(reply) {
  return reply.catch((error) => error);
}

/**
 * @param {string} socket
 * @param {number} database
 */
async function connect(socket, database) {
  const client = createClient({
    socket: { path: socket, tls: false, reconnectStrategy: false },
    RESP: 2,
    database,
    disableClientInfo: true,
    maintNotifications: "disabled",
  });
  client.on("error", () => {}); // the commands under way fail, and say so to their callers
  await client.connect();
  return client;
}

/**
 * @param {Awaited<ReturnType<typeof connect>>} client
 * @returns {Send}
 */
function rawSend(client) {
  const options = { typeMapping: TYPES };
  return (command) => /** @type {Promise<any>} */ (client.sendCommand(/** @type {any} */ (command), options));
}
