/** What holds when many call at once: compare-and-set and counters, transactions, scripts, replicas. */
import { createHash } from "node:crypto";
import { ends, PIPELINE, TRANSACTION, TTL } from "./database.mjs";
import { errorLike, expect, Finding, shortened } from "./finding.mjs";

/** @typedef {import("./rows.mjs").Row} Row */
/** @typedef {import("./finding.mjs").Outcome} Outcome */

const CALLERS = 12;
const TRIES = 5;

const STALE =
  "A login, a logout or an end of all sessions could be decided by an old copy of the data, so that what has ended lives on for a moment.";
const HALF =
  "Rate limits would let more through than they should, and what belongs together would be half written.";
const SCRIPTS =
  "Sessions beside Express or Flask (cookie.format, cookie.accept) would not work or get lost, and accounts could not be tied to providers (accounts.providers). Without these settings no script is needed.";

/** Each command that the scripts in `src/session` and `src/account` call, as they call it; replies 1 or with what is not as it should be. */
const SCRIPT = `#!lua flags=allow-key-locking
local function bytes(hex) return (hex:gsub('..', function(pair) return string.char(tonumber(pair, 16)) end)) end
if redis.call('GET', KEYS[1]) then return 'GET of a missing key' end
if redis.call('EXISTS', KEYS[1]) ~= 0 then return 'EXISTS of a missing key' end
if redis.call('PTTL', KEYS[1]) ~= -2 then return 'PTTL of a missing key' end
if not redis.call('SET', KEYS[1], bytes(ARGV[1]), 'NX', 'PX', ARGV[2]) then return 'SET NX' end
if redis.call('SET', KEYS[1], 'other', 'NX', 'PX', ARGV[2]) then return 'SET NX of a key that is there' end
if redis.call('GET', KEYS[1]) ~= bytes(ARGV[1]) then return 'GET of bytes' end
redis.call('SET', KEYS[1], '{"ended_at":1,"originalMaxAge":5}', 'KEEPTTL')
local left = redis.call('PTTL', KEYS[1])
if left < 1 or left > tonumber(ARGV[2]) then return 'SET KEEPTTL' end
redis.call('SET', KEYS[2], 'old', 'PX', string.format('%.0f', math.min(tonumber(ARGV[2]), 34560000000)))
redis.call('RENAME', KEYS[1], KEYS[2])
if redis.call('EXISTS', KEYS[1]) ~= 0 or redis.call('EXISTS', KEYS[2]) ~= 1 then return 'RENAME' end
local moved = redis.call('GET', KEYS[2])
if not string.find(moved, '"ended_at":', 1, true) then return 'string.find' end
if tonumber(string.match(moved, '"originalMaxAge":(%d+)')) ~= 5 then return 'string.match' end
redis.call('HSET', KEYS[3], 'f', 'v')
redis.call('PEXPIRE', KEYS[3], ARGV[2])
if KEYS[4] then return 'KEYS' end
redis.call('SET', KEYS[2], 'for ever')
if redis.call('PTTL', KEYS[2]) ~= -1 then return 'SET' end
if redis.call('DEL', KEYS[2]) ~= 1 then return 'DEL' end
return 1`;

/** What the scripts of changes do besides: read missing keys, count, hash and cut a text, reply with lists in lists. */
const CHANGE = `#!lua flags=allow-key-locking
local values = redis.call('MGET', unpack(KEYS))
local counts, found = {}, {}
for i = 1, 2 do
  if redis.call('INCR', KEYS[3]) == 1 then redis.call('PEXPIRE', KEYS[3], ARGV[1]) end
  counts[i] = tonumber(values[3] or 0) or 0
end
for i = 1, 2 do found[i] = values[i] end
if not values[1] or redis.sha1hex(values[1]) ~= ARGV[4] then return {0, counts, found} end
local left = 7 - 7 % tonumber(ARGV[2])
redis.call('SET', KEYS[1], ARGV[3] .. string.sub(values[1], 2, left / 4) .. string.sub(values[1], #values[1]), 'KEEPTTL')
local not_made = redis.call('SET', KEYS[1], 'next', 'IFEQ', 'another', 'KEEPTTL')
redis.call('DECR', KEYS[3])
return {1, counts, {not_made, redis.call('GET', KEYS[2])}}`;

/** Counts without INCR: right only if nothing comes between. */
const COUNT = `#!lua flags=allow-key-locking
local next = tonumber(redis.call('GET', KEYS[1]) or '0') + 1
redis.call('SET', KEYS[1], tostring(next), 'PX', ARGV[1])
return next`;

const sha1 = (/** @type {string} */ text) => createHash("sha1").update(text).digest("hex");

/** @type {Row[]} */
export const together = [
  {
    id: "parallel-ifeq",
    what: `of ${CALLERS} compare-and-sets at once exactly one is made`,
    otherwise: "Changes to sessions and accounts get lost. Do not use this store.",
    check: async ({ database, key }) => {
      await database.steps([[["SET", key("a"), "old", "PX", TTL], "OK"]]);
      const replies = await atOnce(CALLERS, async (caller) =>
        only(await database.run(PIPELINE, [["SET", key("a"), String(caller), "IFEQ", "old", "KEEPTTL"]])),
      );
      const made = replies.filter((reply) => reply === "OK").length;
      expect(made === 1, `${made} were made`);
    },
  },
  {
    id: "parallel-nx",
    what: `of ${CALLERS} SET … NX at once exactly one is made`,
    otherwise: "Windows of rate limits would begin again, and one session would replace another.",
    check: async ({ database, key }) => {
      const replies = await atOnce(CALLERS, async (caller) =>
        only(await database.run(PIPELINE, [["SET", key("a"), String(caller), "NX", "PX", TTL]])),
      );
      const made = replies.filter((reply) => reply === "OK").length;
      expect(made === 1, `${made} were made`);
    },
  },
  {
    id: "parallel-incr",
    what: `${CALLERS} INCR at once get ${CALLERS} different numbers`,
    otherwise: "Rate limits would let more through than they should.",
    check: async ({ database, key }) => {
      await database.steps([[["SET", key("a"), "0", "PX", TTL], "OK"]]);
      const replies = await atOnce(CALLERS, async () =>
        only(await database.run(PIPELINE, [["INCR", key("a")]])),
      );
      expectCount(replies);
    },
  },
  {
    id: "multi-atomic",
    what: "nothing comes between the commands of a transaction",
    otherwise: HALF,
    check: async ({ database, key }) => {
      await database.steps([[["SET", key("a"), "0", "PX", TTL], "OK"]]);
      const pairs = await atOnce(CALLERS, async () => {
        const commands = [
          ["INCRBY", key("a"), "1"],
          ["MGET", key("a")],
          ["INCRBY", key("a"), "1"],
        ];
        const [first, seen, second] = (await database.run(TRANSACTION, commands)).map(resultOf);
        return String(seen) === String(first) && Number(second) === Number(first) + 1;
      });
      const broken = pairs.filter((holds) => !holds).length;
      expect(broken === 0, `in ${broken} of ${CALLERS} transactions others came between`);
    },
  },
  {
    id: "multi-error",
    what: "a transaction runs to its end, also behind a command that fails",
    otherwise:
      "A request whose session cannot be read would not be counted by its rate limit, or the other way round.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "text", "PX", TTL], "OK"],
        [["HINCRBY", key("a"), "f", "1"], errorLike()],
        [["MGET", key("a")], ["text"]],
        [["DEL", key("a")], 1],
      ]),
  },
  {
    id: "multi-discard",
    what: "a transaction with a command that cannot be read is not run at all",
    otherwise: HALF,
    check: async ({ database, key }) => {
      const answer = await database.call(TRANSACTION, [
        ["SET", key("a"), "v", "PX", TTL],
        ["SET", key("a")],
      ]);
      await database.steps([
        [["MGET", key("a")], [null]],
        [["GETEX", key("a")], null],
      ]);
      let isOneError = false;
      try {
        isOneError = typeof JSON.parse(answer.text).error === "string";
      } catch {} // not Upstash's format
      expect(isOneError, `it was not refused as a whole: status ${answer.status}`);
    },
  },
  {
    id: "eval",
    what: "EVAL runs a script and replies with numbers, texts, null and lists",
    otherwise: SCRIPTS,
    check: ({ database, key }) =>
      database.steps(
        [
          [["EVAL", "return #KEYS * 10 + #ARGV", "1", key("a"), "x", "y"], 12],
          [["EVAL", "return -1", "1", key("a")], -1],
          [["EVAL", "return ARGV[1] .. ' é'", "1", key("a"), "text"], "text é"],
          [["EVAL", "return nil", "1", key("a")], null],
        ],
        { path: PIPELINE },
      ),
  },
  {
    id: "eval-commands",
    what: "a script that locks its keys alone (flags=allow-key-locking) can call what it needs",
    otherwise: SCRIPTS,
    check: async ({ database, key }) => {
      const keys = [key("a"), key("b"), key("c")];
      const command = ["EVAL", SCRIPT, "3", ...keys, "00ff80", TTL];
      const reply = only(await database.run(PIPELINE, [command]));
      expect(reply === 1, `in it, not as in Redis: ${String(reply)}`);
    },
  },
  {
    id: "eval-kept",
    what: "a script that has run is kept, and runs by its name (EVALSHA)",
    otherwise:
      "Each change of a session takes two calls instead of one. Nothing is lost, and no setting is needed: the Worker finds out by itself.",
    isOptional: true,
    check: async ({ database, key }) => {
      const rest = ["3", key("a"), key("b"), key("n"), TTL, "4", "é", sha1("1234")];
      await database.steps(
        [
          [
            ["EVAL", CHANGE, ...rest],
            [0, [0, 0], [null, null]],
          ],
          [["SET", key("a"), "1234", "PX", TTL], "OK"],
          [
            ["EVALSHA", sha1(CHANGE), ...rest],
            [1, [2, 2], [null, null]],
          ],
          [["SET", key("a"), "other", "IFEQ", "é4", "KEEPTTL"], "OK"],
        ],
        { path: PIPELINE },
      );
    },
  },
  {
    id: "eval-atomic",
    what: "nothing comes between the commands of a script",
    otherwise: SCRIPTS,
    check: async ({ database, key }) => {
      const replies = await atOnce(CALLERS, async () =>
        only(await database.run(PIPELINE, [["EVAL", COUNT, "1", key("a"), TTL]])),
      );
      expectCount(replies);
    },
  },
];

/** @type {Row[]} */
export const replicas = [
  {
    id: "sync-token",
    what: "every answer has a sync token",
    otherwise:
      "With read regions, visitors would not see their own changes for a moment. In one region nothing follows.",
    isOptional: true,
    check: async ({ database }) => {
      const answer = await database.call(PIPELINE, [["PING"]], { afresh: true });
      expect(Boolean(answer.syncToken), "there is none");
    },
  },
  {
    id: "read-your-writes",
    what: "with the sync token a read sees what was written before",
    otherwise: "With read regions, visitors would not see their own changes for a moment.",
    check: async ({ database, key }) => {
      for (let turn = 1; turn <= TRIES; turn += 1) {
        await database.steps([[["SET", key("a"), String(turn), "PX", TTL], "OK"]]);
        await database.steps([[["MGET", key("a")], [String(turn)]]], { path: PIPELINE });
      }
    },
  },
  {
    id: "primary-getex",
    what: "a transaction with GETEX in it is answered by the primary",
    otherwise: STALE,
    check: async ({ database, key }) => {
      for (let turn = 1; turn <= TRIES; turn += 1) {
        await database.steps([[["SET", key("a"), String(turn), "PX", TTL], "OK"]], { afresh: true });
        await database.steps(
          [
            [["MGET", key("a")], [String(turn)]],
            [["GETEX", key("a")], String(turn)],
          ],
          { afresh: true },
        );
      }
    },
  },
  {
    id: "primary-write",
    what: "a transaction that writes reads from the primary, too",
    otherwise: "Rate limits would go by old counts, and let more through than they should.",
    check: async ({ database, key }) => {
      await database.steps([[["INCR", key("n")], 1], ends(key("n"))]);
      for (let turn = 1; turn <= TRIES; turn += 1) {
        await database.steps([[["SET", key("a"), String(turn), "PX", TTL], "OK"]], { afresh: true });
        await database.steps(
          [
            [["MGET", key("a")], [String(turn)]],
            [["INCR", key("n")], turn + 1],
          ],
          { afresh: true },
        );
      }
    },
  },
];

/**
 * @template T
 * @param {number} count
 * @param {(caller: number) => Promise<T>} work
 * @returns {Promise<T[]>}
 */
async function atOnce(count, work) {
  const outcomes = await Promise.allSettled(Array.from({ length: count }, (_, caller) => work(caller)));
  return outcomes.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
}

/** The reply to the only command. @param {Outcome[]} outcomes */
function only([outcome]) {
  return resultOf(outcome);
}

/** @param {Outcome | undefined} outcome */
function resultOf(outcome) {
  if (outcome && "result" in outcome) return outcome.result;
  throw new Finding(`a command failed: "${shortened(outcome?.error ?? "")}"`);
}

/** 1, 2, 3 and so on, in any order. @param {unknown[]} replies */
function expectCount(replies) {
  const different = new Set(replies.filter((reply) => Number.isInteger(reply)));
  const isWhole = replies.every((_, at) => different.has(at + 1));
  expect(isWhole, `${replies.length} callers got ${different.size} different numbers`);
}
