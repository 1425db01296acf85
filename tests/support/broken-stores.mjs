/**
 * Stores that are not like Upstash in one thing each: what a faulty adapter, an older Redis or a change at the provider could do.
 * By the row of `npm run doctor` that has to notice it.
 */
import { setTimeout as sleep } from "node:timers/promises";

/** @typedef {import("../../tools/local-store/faults.mjs").Fault} Fault */
/** @typedef {import("../../tools/local-store/faults.mjs").Semantics} Semantics */
/** @typedef {import("../../tools/local-store/faults.mjs").Written} Written */
/** @typedef {import("../../tools/local-store/faults.mjs").When} When */
/** @typedef {import("../../tools/local-store/encoding.mjs").Command} Command */
/** @typedef {import("../../tools/local-store/encoding.mjs").Outcome} Outcome */
/** @typedef {(command: Command) => Promise<Outcome>} RunOne */
/** @typedef {{ fault?: Fault, when?: When, lag?: number }} Broken */

const LAG_MS = 40;

/** The name of a command, and words that it has. @param {Command} command @param {...string} words */
const is = (command, ...words) =>
  words.every((word, at) => (at ? command.includes(word) : command[0] === word));

/** Other commands are run instead. @param {(command: Command) => Command} change @returns {Broken} */
const runs = (change) => ({
  fault: { semantics: (asked, run) => run(asked.commands.map(change), asked) },
});

/** Replies are others. @param {(outcome: Outcome, command: Command) => Outcome} change @returns {Broken} */
const replies = (change) => ({
  fault: {
    semantics: async (asked, run) => {
      const ran = await run(asked.commands, asked);
      const outcomes = ran.outcomes.map((outcome, at) => change(outcome, asked.commands[at] ?? []));
      return { ...ran, outcomes };
    },
  },
});

/** The reply to a command is another. @param {string[]} words @param {(reply: any, command: Command) => any} change */
const reply = (words, change) =>
  replies((outcome, command) =>
    "result" in outcome && is(command, ...words) ? { result: change(outcome.result, command) } : outcome,
  );

/** The text of an error is another. @param {string} begins @param {string} instead */
const error = (begins, instead) =>
  replies((outcome, command) =>
    "error" in outcome && outcome.error.startsWith(begins) && !is(command, "HINCRBY")
      ? { error: instead }
      : outcome,
  );

/**
 * What a command does is something else. The others of its batch are run as ever, one after the other.
 *
 * @param {(command: Command, request: { atomic: boolean }) => boolean} which
 * @param {(command: Command, run: RunOne) => Promise<Outcome>} work
 * @returns {Broken}
 */
const does = (which, work) => ({
  fault: {
    semantics: async (asked, run) => {
      const isReadable = asked.commands.every((command) => !is(command, "SET") || command.length > 2);
      if (!isReadable || !asked.commands.some((command) => which(command, asked)))
        return run(asked.commands, asked);
      let token = asked.token;
      const runOne = async (/** @type {Command} */ command) => {
        const ran = await run([command], { ...asked, atomic: false, token });
        token = ran.token;
        return /** @type {Outcome} */ (ran.outcomes[0]);
      };
      const outcomes = [];
      for (const command of asked.commands) {
        outcomes.push(await (which(command, asked) ? work(command, runOne) : runOne(command)));
      }
      return { outcomes, token: token ?? "" };
    },
  },
});

/** Answers are others. @param {(answer: Written) => Partial<Written> | undefined} change @returns {Broken} */
const answers = (change) => ({ fault: { rewrite: (answer) => ({ ...answer, ...change(answer) }) } });

/** @param {Outcome} outcome */
const textOf = (outcome) => ("result" in outcome && outcome.result !== null ? String(outcome.result) : null);

/** @param {(command: Command) => boolean} which a command, alone in its pipeline */
const alone =
  (which) =>
  (/** @type {Command} */ command, /** @type {{ atomic: boolean }} */ { atomic }) =>
    !atomic && which(command);

/** @param {string} text of a command's first reply @returns {Outcome} */
const number = (text) => ({ result: text });

/** A batch ends with the first command that fails. @param {boolean} atomic of which kind @returns {Broken} */
const stops = (atomic) => ({
  fault: {
    semantics: async (asked, run) => {
      const ran = await run(asked.commands, asked);
      const failed = ran.outcomes.findIndex((outcome) => "error" in outcome);
      if (asked.atomic !== atomic || failed < 0) return ran;
      const outcomes = ran.outcomes.map((outcome, at) => (at > failed ? { error: "ERR aborted" } : outcome));
      return { ...ran, outcomes };
    },
  },
});

/** @type {Record<string, Broken>} */
export const BROKEN = {
  reach: answers(({ status }) => (status === 200 ? { json: "<html>It works</html>" } : undefined)),
  write: replies((outcome, command) =>
    is(command, "SET") ? { error: "NOPERM this user has no permissions to run the 'set' command" } : outcome,
  ),
  pipeline: stops(false),
  text: reply(["MGET"], (list) =>
    list.map((/** @type {any} */ value) => value && Buffer.from(String(value).replace("\0", ""))),
  ),
  digits: reply(["MGET"], (list) =>
    list.map((/** @type {any} */ value) =>
      /^\d{16,}$/.test(String(value)) ? Buffer.from(`${Number(value)}`) : value,
    ),
  ),
  empty: reply(["MGET"], (list) =>
    list.map((/** @type {any} */ value) => (value?.length === 0 ? null : value)),
  ),
  base64: answers(({ base64, json }) =>
    base64 ? { json: json.replaceAll(/"dGV4dA=="(?=[,\]])/g, '"text"') } : undefined,
  ),
  bytes: reply(["GETEX"], (value) => value && Buffer.from(String(value))),
  "wrong-token": answers(({ status }) =>
    status === 401 ? { status: 400, json: '{"error":"ERR no"}' } : undefined,
  ),
  "error-request": answers(({ json }) => (json.includes("failed to parse") ? { status: 500 } : undefined)),
  "error-method": answers(({ status }) => (status === 405 ? { status: 404 } : undefined)),
  "error-type": error("WRONGTYPE", "ERR no"),
  "error-syntax": error("ERR syntax error", "ERR no"),
  "error-command": error("ERR Command is not available", "ERR no"),
  "error-script": error("NOSCRIPT", "ERR no"),
  path: { fault: { status: 404, body: "" }, when: ({ path }) => path.startsWith("/set/") },
  "key-size": replies((outcome, [, key = ""]) =>
    String(key).endsWith("kkkk") && key.length > 1024
      ? { error: "ERR max key size exceeded. Limit: 1024" }
      : outcome,
  ),
  size: {
    fault: { status: 400, body: { error: "ERR max request size exceeded. Limit: 1048576 bytes" } },
    when: ({ commands }) => JSON.stringify(commands).length > 1_048_576,
  },
  "set-px": does(
    (command) => is(command, "SET", "PX") && command.length === 5,
    async ([name = "", key = "", value = "", ...ttl], run) => {
      const isThere = textOf(await run(["EXISTS", key])) === "1";
      return run([name, key, value, ...(isThere ? ["KEEPTTL"] : ttl)]);
    },
  ),
  "set-nx": does(
    (command) => is(command, "SET", "NX", "PX"),
    async (command, run) => {
      const outcome = await run(command);
      await run(["PEXPIRE", command[1] ?? "", command.at(-1) ?? ""]);
      return outcome;
    },
  ),
  "set-xx-px": runs((command) =>
    is(command, "SET", "XX", "PX") ? command.filter((word) => word !== "XX") : command,
  ),
  "set-xx-keepttl": runs((command) =>
    is(command, "SET", "XX", "KEEPTTL") ? command.filter((word) => word !== "KEEPTTL") : command,
  ),
  "set-ifeq-px": runs((command) =>
    is(command, "SET", "IFEQ", "PX") ? [...command.slice(0, command.indexOf("PX")), "KEEPTTL"] : command,
  ),
  "set-ifeq-keepttl": runs((command) =>
    is(command, "SET", "IFEQ", "KEEPTTL") ? command.filter((word) => word !== "KEEPTTL") : command,
  ),
  "set-ifeq-exact": does(
    (command) => is(command, "SET", "IFEQ") && /\s$/.test(String(command[4])),
    async (command, run) => {
      const stored = textOf(await run(["GET", command[1] ?? ""]));
      const matches = stored?.toLowerCase() === String(command[4]).toLowerCase();
      return run(matches ? command.with(4, stored ?? "") : command);
    },
  ),
  "set-ifeq-type": does(
    (command) => is(command, "SET", "IFEQ"),
    async (command, run) => {
      const outcome = await run(command);
      return "error" in outcome ? run(command.slice(0, 3)) : outcome;
    },
  ),
  "set-ifeq-get": reply(["SET", "IFEQ", "GET"], (old) => old ?? Buffer.from("old")),
  "delex-ifeq": runs((command) => (is(command, "DELEX") ? ["DEL", command[1] ?? ""] : command)),
  msetnx: does(
    (command) => is(command, "MSETNX"),
    async ([, a = "", one = "", b = "", two = ""], run) => {
      const made = [await run(["SET", a, one, "NX"]), await run(["SET", b, two, "NX"])];
      return number(made.every((outcome) => textOf(outcome) === "OK") ? "1" : "0");
    },
  ),
  "mget-missing": reply(["MGET"], (list) => [
    ...list.filter((/** @type {any} */ value) => value !== null),
    ...list.filter((/** @type {any} */ value) => value === null),
  ]),
  "mget-type": {
    fault: {
      semantics: async (asked, run) => {
        const ran = await run(asked.commands, asked);
        const outcomes = [...ran.outcomes];
        for (const [at, command] of asked.commands.entries()) {
          const keys = is(command, "MGET") ? command.slice(1, 9) : [];
          const types = await Promise.all(
            keys.map((key) => run([["TYPE", key]], { ...asked, atomic: false })),
          );
          const isOther = types.some(({ outcomes: [type] }) => type && textOf(type) === "hash");
          if (isOther) outcomes[at] = { error: "WRONGTYPE Operation against a key" };
        }
        return { ...ran, outcomes };
      },
    },
  },
  "mget-many": replies((outcome, command) =>
    is(command, "MGET") && command.length > 512 ? { error: "ERR too many keys" } : outcome,
  ),
  getex: does(
    (command) => is(command, "GETEX"),
    async (command, run) => {
      const outcome = await run(command);
      await run(["PERSIST", command[1] ?? ""]);
      return outcome;
    },
  ),
  del: does(
    (command) => is(command, "DEL"),
    async ([, ...keys], run) => {
      let deleted = 0;
      for (const key of keys) {
        if (textOf(await run(["TYPE", key])) !== "hash") deleted += Number(textOf(await run(["DEL", key])));
      }
      return number(String(deleted));
    },
  ),
  pttl: reply(["PTTL"], (left) => (left === "-2" ? "-1" : left)),
  pexpire: runs((command) => (is(command, "PEXPIRE") && command.length === 3 ? [...command, "NX"] : command)),
  "pexpire-nx": runs((command) => (is(command, "PEXPIRE", "NX") ? command.slice(0, 3) : command)),
  "pexpire-gt": does(
    (command) => is(command, "PEXPIRE", "GT"),
    async (command, run) => {
      const hasTtl = Number(textOf(await run(["PTTL", command[1] ?? ""]))) > 0;
      return run(hasTtl ? command.slice(0, 3) : command);
    },
  ),
  "pexpire-gt-endless": does(
    (command) => is(command, "PEXPIRE", "GT"),
    async (command, run) => {
      const isEndless = textOf(await run(["PTTL", command[1] ?? ""])) === "-1";
      return run(isEndless ? command.slice(0, 3) : command);
    },
  ),
  "longest-ttl": replies((outcome, command) =>
    is(command, "SET", "PX") && Number(command.at(-1)) > 1e12
      ? { error: "ERR invalid expire time in 'set' command" }
      : outcome,
  ),
  expires: runs((command) =>
    is(command, "SET", "PX") && command.at(-1) === "30" ? command.with(-1, "60000") : command,
  ),
  incr: does(
    (command) => is(command, "INCR"),
    async (command, run) => {
      const outcome = await run(command);
      await run(["PERSIST", command[1] ?? ""]);
      return outcome;
    },
  ),
  "incrby-decrby": runs((command) => (is(command, "DECRBY") ? command.with(2, "1") : command)),
  time: reply(["TIME"], ([seconds]) => [seconds]),
  hash: reply(["HGETALL"], (list) => (list.length ? [list] : list)),
  "hash-missing": reply(["HGETALL"], (list) => (list.length ? list : null)),
  hincrby: does(
    (command) => is(command, "HINCRBY"),
    async ([, key = "", field = "", count = ""], run) => {
      const outcome = await run(["HSET", key, field, count]);
      return "error" in outcome ? outcome : number(String(count));
    },
  ),
  hyperloglog: reply(["PFADD"], () => "1"),
  hexpire: replies((outcome, command) =>
    is(command, "HEXPIRE") ? { error: "ERR unknown command" } : outcome,
  ),
  "parallel-ifeq": does(
    alone((command) => is(command, "SET", "IFEQ")),
    async (command, run) => {
      const stored = await run(["GET", command[1] ?? ""]);
      if ("error" in stored) return stored;
      await sleep(20);
      return textOf(stored) === command[4]
        ? run(["SET", command[1] ?? "", command[2] ?? "", "KEEPTTL"])
        : { result: null };
    },
  ),
  "parallel-nx": does(
    alone((command) => is(command, "SET", "NX")),
    async (command, run) => {
      const isThere = textOf(await run(["EXISTS", command[1] ?? ""])) === "1";
      await sleep(20);
      return isThere ? { result: null } : run(command.filter((word) => word !== "NX"));
    },
  ),
  "parallel-incr": does(
    alone((command) => is(command, "INCR")),
    async ([, key = ""], run) => {
      const stored = await run(["GET", key]);
      if ("error" in stored) return stored;
      await sleep(20);
      const next = String(Number(textOf(stored)) + 1);
      await run(["SET", key, next, "KEEPTTL"]);
      return number(next);
    },
  ),
  "multi-atomic": {
    fault: {
      semantics: async (asked, run) => {
        const isReadable = asked.commands.every((command) => !is(command, "SET") || command.length > 2);
        if (!asked.atomic || !isReadable) return run(asked.commands, asked);
        const outcomes = [];
        let token = asked.token;
        for (const command of asked.commands) {
          const ran = await run([command], { ...asked, atomic: false, token });
          outcomes.push(...ran.outcomes);
          token = ran.token;
          await sleep(1);
        }
        return { outcomes, token: token ?? "" };
      },
    },
  },
  "multi-error": stops(true),
  "multi-discard": {
    fault: {
      semantics: async (asked, run) => {
        const ran = await run(asked.commands, asked);
        return ran.discarded ? run(asked.commands, { ...asked, atomic: false }) : ran;
      },
    },
  },
  eval: reply(["EVAL"], (value) => value ?? "0"),
  "eval-commands": replies((outcome, command) =>
    is(command, "EVAL") && String(command[1]).includes("'RENAME'")
      ? { error: "ERR Unknown Redis command called from script" }
      : outcome,
  ),
  "eval-kept": replies((outcome, command) =>
    is(command, "EVALSHA") && !String(command[1]).startsWith("00")
      ? { error: "NOSCRIPT No matching script." }
      : outcome,
  ),
  "eval-atomic": does(
    (command) => is(command, "EVAL") && String(command[1]).includes("local next"),
    async (command, run) => {
      const stored = Number(textOf(await run(["GET", command[3] ?? ""])));
      await sleep(20);
      await run(["SET", command[3] ?? "", String(stored + 1), "PX", command[4] ?? ""]);
      return number(String(stored + 1));
    },
  ),
  "sync-token": answers(() => ({ syncToken: "" })),
  "read-your-writes": {
    lag: LAG_MS,
    fault: { semantics: (asked, run) => run(asked.commands, { ...asked, token: undefined }) },
  },
  "primary-getex": {
    lag: LAG_MS,
    ...runs((command) => (is(command, "GETEX") ? ["GET", command[1] ?? ""] : command)),
  },
  "primary-write": {
    lag: LAG_MS,
    fault: {
      semantics: async (asked, run) => {
        const writes = asked.commands.filter((command) => !is(command, "MGET"));
        const written = writes.map(([, key]) => key);
        /** Reads what is not written here, and so could be read elsewhere. @param {Command} command */
        const strays = (command) =>
          is(command, "MGET") && !command.slice(1).some((key) => written.includes(key));
        if (!asked.atomic || !writes.length || !asked.commands.some(strays))
          return run(asked.commands, asked);
        const reads = await run(asked.commands.filter(strays), { ...asked, atomic: false });
        const ran = await run(asked.commands, asked);
        const outcomes = ran.outcomes.map((outcome, at) =>
          strays(asked.commands[at] ?? []) ? /** @type {Outcome} */ (reads.outcomes.shift()) : outcome,
        );
        return { ...ran, outcomes };
      },
    },
  },
  "latency-read": { fault: { delay: 200 }, when: onKeysOf("latency-read") },
  "latency-transaction": { fault: { delay: 200 }, when: onKeysOf("latency-transaction") },
};

/** @param {string} row @returns {When} */
function onKeysOf(row) {
  return ({ commands }) => commands.some(([name, key]) => name !== "DEL" && key?.includes(`:${row}:`));
}
