/** Upstash's REST format: how answers, errors, texts and bytes look; and how long it takes. */
import { ends, KEPT, PIPELINE, TRANSACTION, TTL } from "./database.mjs";
import { about, errorLike, expect, Expected, expectReply, Finding } from "./finding.mjs";

/** @typedef {import("./rows.mjs").Row} Row */
/** @typedef {import("./database.mjs").Database} Database */

/** What JSON, HTTP and careless strings damage. */
const TEXT = 'a "quoted" \\ line\n\ttab \u0000\u0001\u007f é ß 漢 🧥 \u2028 \ufeff </script> ';
const BYTES = Buffer.from([0, 0x80, 0xff, 0xfe, 0xc3, 0x28, 0x0a, 0x22, 0xed, 0xa0, 0x80]);
/** Base64 has no spaces. */
const PLAIN_ERROR = new Expected(
  "a plain error",
  (outcome) => "error" in outcome && /\w \w/.test(outcome.error),
);
/** As long as a cookie, in which an Express application may have put the id. */
const LONG_KEY = 4000;
const SAMPLES = 7;
const SLOW_MS = 150;

const STOP = "Nothing else can be checked.";
const NAME_ALONE =
  "The log of the Worker would not say what to do about this error. Nothing else depends on it.";
const NOT_USED = "Nothing today: the Worker does without.";

/** The first: without these nothing else can be said. @type {Row[]} */
export const reach = [
  {
    id: "reach",
    what: "the database answers in Upstash's format (PING)",
    otherwise: `Check UPSTASH_REDIS_REST_URL and UPSTASH_REDIS_REST_TOKEN: copy both again from the database's page. ${STOP}`,
    check: ({ database }) => database.steps([[["PING"], "PONG"]], { path: PIPELINE }),
  },
  {
    id: "write",
    what: "the token allows writing (SET, DEL)",
    otherwise: `Copy the standard token, not the read-only one; look at the database's page if it is full or paused. ${STOP}`,
    check: ({ database, key }) =>
      database.steps(
        [
          [["SET", key("a"), "v", "PX", TTL], "OK"],
          [["DEL", key("a")], 1],
        ],
        { path: PIPELINE },
      ),
  },
];

/** @type {Row[]} */
export const wire = [
  {
    id: "pipeline",
    what: "a pipeline runs to its end, also behind a command that fails",
    otherwise:
      "What is written in the background (touches, lists of devices, counters) would be lost when one of it fails.",
    check: ({ database, key }) =>
      database.steps(
        [
          [["SET", key("a"), "text", "PX", TTL], "OK"],
          [["HINCRBY", key("a"), "f", "1"], errorLike()],
          [["DEL", key("a")], 1],
        ],
        { path: PIPELINE },
      ),
  },
  {
    id: "text",
    what: "texts come back as they were: quotes, control characters, Unicode",
    otherwise: "Compare-and-set would never match sessions that hold such text: changes to them end in 409.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), TEXT, "PX", TTL], "OK"],
        [["MGET", key("a")], [TEXT]],
      ]),
  },
  {
    id: "digits",
    what: "a value of digits comes back as text, not as a number",
    otherwise: "Counters of rate limits would be read as 0, and limits would let too much through.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "0012", "PX", TTL], "OK"],
        [["SET", key("b"), "9007199254740993", "PX", TTL], "OK"],
        [
          ["MGET", key("a"), key("b")],
          ["0012", "9007199254740993"],
        ],
      ]),
  },
  {
    id: "empty",
    what: "an empty value is a value, not a missing key",
    otherwise: "Beside Flask or Express an empty record would be taken for an ended session.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "", "PX", TTL], "OK"],
        [
          ["MGET", key("a"), key("missing")],
          ["", null],
        ],
      ]),
  },
  {
    id: "base64",
    what: "Upstash-Encoding: base64 encodes every text but OK, also in lists",
    otherwise: 'Sessions beside Flask (cookie.format or accept = "flask") cannot be read: 503.',
    check: ({ database, key }) =>
      database.steps(
        [
          [["SET", key("a"), "text", "PX", TTL], "OK"],
          [
            ["MGET", key("a"), key("missing")],
            [Buffer.from("text").toString("base64"), null],
          ],
          [["PTTL", key("a")], about(KEPT)],
          [["GETEX", key("a")], Buffer.from("text").toString("base64")],
          [["HINCRBY", key("a"), "f", "1"], PLAIN_ERROR],
        ],
        { base64: true },
      ),
  },
  {
    id: "bytes",
    what: "bytes that are no text keep their value, through a script and back",
    otherwise:
      'Sessions beside Flask (cookie.format or accept = "flask") would be damaged: do not use it with this store.',
    check: async ({ database, key }) => {
      const script = `#!lua flags=allow-key-locking
local bytes = ARGV[1]:gsub('..', function(pair) return string.char(tonumber(pair, 16)) end)
redis.call('SET', KEYS[1], bytes, 'PX', ARGV[2])
return 1`;
      await database.steps([[["EVAL", script, "1", key("a"), BYTES.toString("hex"), TTL], 1]]);
      await database.steps([[["GETEX", key("a")], BYTES.toString("base64")]], { base64: true });
    },
  },
  {
    id: "wrong-token",
    what: "a wrong token is refused: 401, WRONGPASS",
    otherwise:
      "Anyone who finds the URL could read and change sessions; or the log would not say that the token is wrong.",
    check: async ({ database }) => {
      const answer = await database.call(PIPELINE, [["PING"]], { token: "doctor-not-a-token", afresh: true });
      expect(answer.status === 401, database.said(answer));
      expectReply("a wrong token", errorIn(answer.text), errorLike("WRONGPASS", "NOAUTH"));
    },
  },
  {
    id: "error-request",
    what: 'a request that is not understood is one {"error"}, with status 400',
    otherwise: NAME_ALONE,
    isOptional: true,
    check: async ({ database }) => {
      const answer = await database.call(PIPELINE, [], { body: '{"no": "list"}' });
      expect(answer.status === 400 && "error" in errorIn(answer.text), database.said(answer));
    },
  },
  {
    id: "error-method",
    what: "a method that is not used is refused with status 405",
    otherwise: NAME_ALONE,
    isOptional: true,
    check: async ({ database }) => {
      const answer = await database.call("/ping", [], { method: "DELETE" });
      expect(answer.status === 405, database.said(answer));
    },
  },
  {
    id: "error-type",
    what: "a command on a value of another type fails with WRONGTYPE",
    otherwise: NAME_ALONE,
    isOptional: true,
    check: ({ database, key }) =>
      database.steps(
        [[["HSET", key("a"), "f", "v"], 1], ends(key("a")), [["INCR", key("a")], errorLike("WRONGTYPE")]],
        { path: PIPELINE },
      ),
  },
  {
    id: "error-syntax",
    what: "an option that is not known fails with ERR syntax error",
    otherwise: NAME_ALONE,
    isOptional: true,
    check: ({ database, key }) =>
      database.steps([[["SET", key("a"), "v", "PX", TTL, "NOSUCHOPTION"], errorLike("ERR syntax error")]], {
        path: PIPELINE,
      }),
  },
  {
    id: "error-command",
    what: "a command that is not known fails with ERR unknown command",
    otherwise: NAME_ALONE,
    isOptional: true,
    check: async ({ database }) => {
      const answer = await database.call(PIPELINE, [["NOSUCHCOMMAND"]]);
      const wanted = errorLike("ERR unknown command", "ERR Command is not available");
      expectReply("NOSUCHCOMMAND", errorIn(answer.text), wanted);
    },
  },
  {
    id: "error-script",
    what: "a script that is not known fails with NOSCRIPT (EVALSHA)",
    otherwise: NOT_USED,
    isOptional: true,
    check: ({ database, key }) =>
      database.steps([[["EVALSHA", "0".repeat(40), "1", key("a")], errorLike("NOSCRIPT")]], {
        path: PIPELINE,
      }),
  },
  {
    id: "path",
    what: "a command can be written as a path",
    otherwise: NOT_USED,
    isOptional: true,
    check: async ({ database, key }) => {
      const path = `/set/${encodeURIComponent(key("a"))}/v/PX/${TTL}`;
      const answer = await database.call(path, [], { body: "" });
      expect(answer.status === 200 && answer.text === '{"result":"OK"}', database.said(answer));
    },
  },
  {
    id: "key-size",
    what: "a key of 4 KB is accepted",
    otherwise: "Long names and long ids of an application beside the Worker fail: shorten key_prefix.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("k".repeat(LONG_KEY)), "v", "PX", TTL], "OK"],
        [["MGET", key("k".repeat(LONG_KEY))], ["v"]],
      ]),
  },
  {
    id: "size",
    what: "a request of 1 MB and a value of 500 KB are accepted",
    otherwise:
      "Large sessions cannot be stored: lower session.max_bytes to a quarter of what the plan allows in a request.",
    check: async ({ database, key }) => {
      // The largest session.max_bytes, twice for what is escaped; the old value and the new.
      const [old, replacement] = ["a", "b"].map((letter) => letter.repeat(2 * 262_144));
      await database.steps([[["SET", key("a"), String(old), "PX", TTL], "OK"]]);
      await database.steps([
        [["SET", key("a"), String(replacement), "IFEQ", String(old), "KEEPTTL"], "OK"],
        [["SET", key("a"), "v", "IFEQ", String(replacement), "KEEPTTL"], "OK"],
      ]);
    },
  },
];

/** @type {Row[]} */
export const speed = [
  {
    id: "latency-read",
    what: "a read is fast (MGET in a pipeline)",
    otherwise: latency("read"),
    check: ({ database, key }) => measure(database, PIPELINE, [["MGET", key("a"), key("b")]]),
  },
  {
    id: "latency-transaction",
    what: "a transaction is fast (MGET and INCR)",
    otherwise: latency("counted request"),
    check: async ({ database, key }) => {
      const create = ["SET", key("n"), "0", "NX", "PX", TTL];
      return measure(database, TRANSACTION, [create, ["MGET", key("a")], ["INCR", key("n")]]);
    },
  },
];

/** @param {string} what */
function latency(what) {
  return (
    `Every ${what} waits this long, and is answered 503 after store.timeout. From here it is the way of this machine; a Worker ` +
    "near the database's region is closer. If it stays so, choose a region near your visitors, or raise store.timeout."
  );
}

/**
 * @param {Database} database
 * @param {string} path
 * @param {string[][]} commands
 */
async function measure(database, path, commands) {
  const times = [];
  for (let sample = 0; sample < SAMPLES; sample += 1) {
    const { took, ...answer } = await database.call(path, commands);
    expect(answer.status === 200, database.said({ took, ...answer }));
    times.push(Math.round(took));
  }
  times.sort((a, b) => a - b);
  const [median = 0, slowest = 0] = [times[SAMPLES >> 1], times.at(-1)];
  const detail = `${median} ms in the middle of ${SAMPLES}, ${slowest} ms at most`;
  if (median > SLOW_MS) throw new Finding(detail, "warned");
  return detail;
}

/** The error of a whole answer, or of its first entry. @param {string} text @returns {import("./finding.mjs").Outcome} */
function errorIn(text) {
  try {
    const [entry] = [JSON.parse(text)].flat();
    if (typeof entry.error === "string") return { error: entry.error };
    if ("result" in entry) return { result: entry.result };
  } catch {} // not Upstash's format
  return { result: null };
}
