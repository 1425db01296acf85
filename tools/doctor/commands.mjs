/** The commands that the store client sends (`src/store/batch.rs`): what each does, and what it replies. */
import { setTimeout as sleep } from "node:timers/promises";
import { ends, KEPT, PIPELINE, TRANSACTION, TTL } from "./database.mjs";
import { about, between, errorLike, expect, expectReply, Finding, oneOf } from "./finding.mjs";

/** @typedef {import("./rows.mjs").Row} Row */

/** The longest time to live that is sent: a century, `milliseconds` in `src/store/batch.rs`. */
const CENTURY = 3_155_760_000_000;
/** Another than {@link KEPT}, so that one is told from the other. */
const HOUR = 3_600_000;
const MANY = 1000;
const EXPIRES_AFTER = 30;
const PATIENCE_MS = 1500;
const LARGEST_SKEW_MS = 5000;

const LOST = "Changes to sessions and accounts get lost, or ended sessions come back. Do not use this store.";
const ENDLESS =
  "Keys would be kept too long, or for ever: the database fills up, and sessions outlive their end.";
const SHORT = "Visitors would be logged out too early.";
const LIMITS = "Rate limits would count wrongly: too much passes, or too little.";
const STATS = "The counters per day (GET /auth/admin/stats) would be wrong. Sessions do not depend on it.";
const DEVICES = "The list of a user's devices, and ending all of them, would not work.";

/** @type {Row[]} */
export const values = [
  {
    id: "set-px",
    what: "SET … PX writes a value with a time to live",
    otherwise: ENDLESS,
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "first", "PX", String(HOUR)], "OK"],
        [["SET", key("a"), "second", "PX", TTL], "OK"],
        [["MGET", key("a")], ["second"]],
        [["PTTL", key("a")], about(KEPT)],
      ]),
  },
  {
    id: "set-nx",
    what: "SET … NX PX writes only what is not there",
    otherwise:
      "A session would replace another, and a window of a rate limit would begin again with each request.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "first", "NX", "PX", TTL], "OK"],
        [["SET", key("a"), "second", "NX", "PX", String(HOUR)], null],
        [["MGET", key("a")], ["first"]],
        [["PTTL", key("a")], about(KEPT)],
      ]),
  },
  {
    id: "set-xx-px",
    what: "SET … XX PX writes only what is there",
    otherwise: "A record that was deleted would come back.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "v", "XX", "PX", TTL], null],
        [["MGET", key("a")], [null]],
        [["HSET", key("b"), "f", "v"], 1],
        ends(key("b")),
        [["SET", key("b"), "second", "XX", "PX", String(HOUR)], "OK"],
        [["PTTL", key("b")], about(HOUR)],
      ]),
  },
  {
    id: "set-xx-keepttl",
    what: "SET … XX KEEPTTL writes only what is there, and keeps its time to live",
    otherwise: "After a login the record of a session would come back, or be kept for ever.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "v", "XX", "KEEPTTL"], null],
        [["MGET", key("a")], [null]],
        [["INCR", key("b")], 1],
        ends(key("b")),
        [["SET", key("b"), "second", "XX", "KEEPTTL"], "OK"],
        [["PTTL", key("b")], about(KEPT)],
      ]),
  },
  {
    id: "set-ifeq-px",
    what: "SET … IFEQ … PX replaces a value only if it is the old one (compare-and-set)",
    otherwise: LOST,
    check: ({ database, key }) =>
      database.steps([
        [["INCRBY", key("a"), "7"], 7],
        ends(key("a")),
        [["SET", key("a"), "other", "IFEQ", "8", "PX", String(HOUR)], null],
        [["SET", key("missing"), "other", "IFEQ", "7", "PX", String(HOUR)], null],
        [
          ["MGET", key("a"), key("missing")],
          ["7", null],
        ],
        [["PTTL", key("a")], about(KEPT)],
        [["SET", key("a"), "new", "IFEQ", "7", "PX", String(HOUR)], "OK"],
        [["MGET", key("a")], ["new"]],
        [["PTTL", key("a")], about(HOUR)],
      ]),
  },
  {
    id: "set-ifeq-keepttl",
    what: "SET … IFEQ … KEEPTTL does so, and keeps the time to live",
    otherwise: LOST,
    check: ({ database, key }) =>
      database.steps([
        [["INCRBY", key("a"), "7"], 7],
        [["SET", key("a"), "8", "IFEQ", "7", "KEEPTTL"], "OK"],
        [["PTTL", key("a")], -1],
        ends(key("a")),
        [["SET", key("a"), "other", "IFEQ", "7", "KEEPTTL"], null],
        [["SET", key("missing"), "other", "IFEQ", "7", "KEEPTTL"], null],
        [["SET", key("a"), "9", "IFEQ", "8", "KEEPTTL"], "OK"],
        [
          ["MGET", key("a"), key("missing")],
          ["9", null],
        ],
        [["PTTL", key("a")], about(KEPT)],
      ]),
  },
  {
    id: "set-ifeq-exact",
    what: "IFEQ compares every byte: case, spaces, digits, Unicode",
    otherwise: LOST,
    check: ({ database, key }) => {
      const stored = `1.0 Émile ${"x".repeat(5000)} \n`;
      const others = [
        stored.replace("1.0", "1"),
        stored.replace("É", "E\u0301"),
        stored.toLowerCase(),
        stored.trimEnd(),
        stored.replace(/x /, "y "),
        `${stored}\0`,
      ];
      /** @type {import("./database.mjs").Step[]} */
      const refused = others.map((other) => [["SET", key("a"), "v", "IFEQ", other, "KEEPTTL"], null]);
      return database.steps([
        [["SET", key("a"), stored, "PX", TTL], "OK"],
        ...refused,
        [["SET", key("a"), "v", "IFEQ", stored, "KEEPTTL"], "OK"],
      ]);
    },
  },
  {
    id: "set-ifeq-type",
    what: "IFEQ never replaces a value of another type",
    otherwise: "A key that another application uses would be overwritten: set key_prefix.",
    check: async ({ database, key }) => {
      /** @type {import("./database.mjs").Step[]} */
      const create = [[["HSET", key("a"), "f", "v"], 1], ends(key("a"))];
      await database.steps(create);
      const set = ["SET", key("a"), "v", "IFEQ", "v", "KEEPTTL"];
      await database.steps([[set, oneOf(null, errorLike())]], { path: PIPELINE });
      await database.steps([
        [["HLEN", key("a")], 1],
        [["HDEL", key("a"), "f"], 1],
      ]);
    },
  },
  {
    id: "set-ifeq-get",
    what: "SET … IFEQ … GET replies null when the value is another",
    otherwise: "Nothing today: the Worker does without.",
    isOptional: true,
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "old", "PX", TTL], "OK"],
        [["SET", key("a"), "v", "IFEQ", "other", "GET", "KEEPTTL"], null],
        [["SET", key("a"), "v", "IFEQ", "old", "GET", "KEEPTTL"], "old"],
      ]),
  },
  {
    id: "delex-ifeq",
    what: "DELEX … IFEQ deletes a value only if it is the old one (compare-and-delete)",
    otherwise:
      "A logout would end the session that another login has just begun, or none. Do not use this store.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "old", "PX", TTL], "OK"],
        [["DELEX", key("a"), "IFEQ", "other"], 0],
        [["DELEX", key("missing"), "IFEQ", "old"], 0],
        [["MGET", key("a")], ["old"]],
        [["DELEX", key("a"), "IFEQ", "old"], 1],
        [["MGET", key("a")], [null]],
      ]),
  },
  {
    id: "msetnx",
    what: "MSETNX writes all keys or none",
    otherwise: "Two people could register the same name at the same time, or an account would be half made.",
    check: ({ database, key }) =>
      database.steps([
        [["MSETNX", key("a"), "1", key("b"), "2"], 1],
        [["MSETNX", key("b"), "other", key("c"), "3"], 0],
        [
          ["MGET", key("a"), key("b"), key("c")],
          ["1", "2", null],
        ],
        [["PTTL", key("a")], -1],
        ...[key("a"), key("b")].map(ends),
      ]),
  },
  {
    id: "mget-missing",
    what: "MGET replies with null for a key that is not there, in its place",
    otherwise: "Ended sessions would not be seen to be ended, or one session would be taken for another.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "1", "PX", TTL], "OK"],
        [["SET", key("b"), "2", "PX", TTL], "OK"],
        [
          ["MGET", key("x"), key("b"), key("y"), key("a"), key("b")],
          [null, "2", null, "1", "2"],
        ],
      ]),
  },
  {
    id: "mget-type",
    what: "MGET replies with null for a value of another type, and does not fail",
    otherwise:
      "A key that another application uses would make every request of a visitor fail: set key_prefix.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "1", "PX", TTL], "OK"],
        [["HSET", key("hash"), "f", "v"], 1],
        ends(key("hash")),
        [
          ["MGET", key("a"), key("hash")],
          ["1", null],
        ],
      ]),
  },
  {
    id: "mget-many",
    what: `MGET reads ${MANY} keys at once`,
    otherwise: DEVICES,
    check: async ({ database, key }) => {
      const keys = Array.from({ length: MANY - 1 }, () => key("missing"));
      const [set, outcome] = await database.run(TRANSACTION, [
        ["SET", key("first"), "v", "PX", TTL],
        ["MGET", key("first"), ...keys],
      ]);
      if (set && "error" in set) expectReply("SET", set, "OK");
      const list = outcome && "result" in outcome && Array.isArray(outcome.result) ? outcome.result : [];
      expect(
        list.length === MANY && list[0] === "v",
        `MGET of ${MANY} keys replied with ${list.length} values`,
      );
    },
  },
  {
    id: "getex",
    what: "GETEX replies with a value and leaves its time to live alone",
    otherwise:
      "Reads that decide about authority (logins, ends, lists) would shorten or lengthen sessions, or fail.",
    check: ({ database, key }) =>
      database.steps([
        [["INCR", key("a")], 1],
        ends(key("a")),
        [["GETEX", key("a")], "1"],
        [["GETEX", key("missing")], null],
        [["PTTL", key("a")], about(KEPT)],
      ]),
  },
  {
    id: "del",
    what: "DEL deletes keys of any type, and replies with how many there were",
    otherwise: "Accounts and sessions would not be deleted, or be said to be gone when they are not.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "v", "PX", TTL], "OK"],
        [["HSET", key("b"), "f", "v"], 1],
        [["DEL", key("a"), key("b"), key("missing")], 2],
        [["DEL", key("a")], 0],
      ]),
  },
];

/** @type {Row[]} */
export const expiry = [
  {
    id: "pttl",
    what: "PTTL replies in milliseconds; -1: no end, -2: no key",
    otherwise: DEVICES,
    check: ({ database, key }) =>
      database.steps([
        [["PTTL", key("missing")], -2],
        [["INCR", key("a")], 1],
        [["PTTL", key("a")], -1],
        [["PEXPIRE", key("a"), String(HOUR)], 1],
        [["PTTL", key("a")], about(HOUR)],
      ]),
  },
  {
    id: "pexpire",
    what: "PEXPIRE sets a time to live, of a value of any type",
    otherwise: ENDLESS,
    check: ({ database, key }) =>
      database.steps([
        [["PEXPIRE", key("missing"), TTL], 0],
        [["HSET", key("a"), "f", "v"], 1],
        [["PEXPIRE", key("a"), String(HOUR)], 1],
        [["PEXPIRE", key("a"), TTL], 1],
        [["PTTL", key("a")], about(KEPT)],
      ]),
  },
  {
    id: "pexpire-nx",
    what: "PEXPIRE … NX gives a time to live only to a key that has none",
    otherwise: LIMITS,
    check: ({ database, key }) =>
      database.steps([
        [["INCR", key("a")], 1],
        [["PEXPIRE", key("a"), TTL, "NX"], 1],
        [["PEXPIRE", key("a"), String(HOUR), "NX"], 0],
        [["PTTL", key("a")], about(KEPT)],
        [["PEXPIRE", key("missing"), TTL, "NX"], 0],
      ]),
  },
  {
    id: "pexpire-gt",
    what: "PEXPIRE … GT only ever lengthens a time to live",
    otherwise: SHORT,
    check: ({ database, key }) =>
      database.steps([
        [["INCR", key("a")], 1],
        ends(key("a")),
        [["PEXPIRE", key("a"), "1", "GT"], 0],
        [["PTTL", key("a")], about(KEPT)],
        [["PEXPIRE", key("a"), String(HOUR), "GT"], 1],
        [["PTTL", key("a")], about(HOUR)],
        [["PEXPIRE", key("missing"), TTL, "GT"], 0],
      ]),
  },
  {
    id: "pexpire-gt-endless",
    what: "PEXPIRE … GT leaves a key alone that has no time to live",
    otherwise: "Records of an application beside the Worker that have no end would get one.",
    check: ({ database, key }) =>
      database.steps([
        [["INCR", key("a")], 1],
        [["PEXPIRE", key("a"), String(HOUR), "GT"], 0],
        [["PTTL", key("a")], -1],
        ends(key("a")),
      ]),
  },
  {
    id: "longest-ttl",
    what: "a time to live of a century is accepted",
    otherwise: "Whatever is to be kept for very long could not be written.",
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "v", "PX", String(CENTURY)], "OK"],
        [["PTTL", key("a")], between(CENTURY - KEPT, CENTURY)],
        [["DEL", key("a")], 1],
      ]),
  },
  {
    id: "expires",
    what: "a key is gone when its time is over, for reads, compare-and-set and NX alike",
    otherwise: "Sessions would outlive their end.",
    check: async ({ database, key }) => {
      await database.steps([[["SET", key("a"), "v", "PX", String(EXPIRES_AFTER)], "OK"]]);
      const deadline = Date.now() + PATIENCE_MS;
      for (;;) {
        await sleep(EXPIRES_AFTER);
        const [left] = await database.run(TRANSACTION, [["GETEX", key("a")]]);
        if (left && "result" in left && left.result === null) break;
        if (Date.now() > deadline)
          throw new Finding(`a key of ${EXPIRES_AFTER} ms was there after ${PATIENCE_MS} ms`);
      }
      await database.steps([
        [["MGET", key("a")], [null]],
        [["SET", key("a"), "other", "IFEQ", "v", "PX", TTL], null],
        [["SET", key("a"), "new", "NX", "PX", TTL], "OK"],
      ]);
    },
  },
];

/** @type {Row[]} */
export const counting = [
  {
    id: "incr",
    what: "INCR counts, replies with a number, and keeps the time to live",
    otherwise: LIMITS,
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "0", "NX", "PX", TTL], "OK"],
        [["INCR", key("a")], 1],
        [["INCR", key("a")], 2],
        [["PTTL", key("a")], about(KEPT)],
        [["MGET", key("a")], ["2"]],
      ]),
  },
  {
    id: "incrby-decrby",
    what: "INCRBY and DECRBY count several, and keep the time to live",
    otherwise: LIMITS,
    check: ({ database, key }) =>
      database.steps([
        [["SET", key("a"), "20", "NX", "PX", TTL], "OK"],
        [["INCRBY", key("a"), "20"], 40],
        [["DECRBY", key("a"), "30"], 10],
        [["PTTL", key("a")], about(KEPT)],
      ]),
  },
  {
    id: "time",
    what: "TIME replies with seconds and microseconds, near this machine's clock",
    otherwise:
      "Rate limits go by the store's clock. If this machine's own is right, limits are exact all the same; a store whose clock " +
      "jumps begins windows anew.",
    check: async ({ database }) => {
      const sent = Date.now();
      const [outcome] = await database.run(TRANSACTION, [["TIME"]]);
      const received = Date.now();
      const parts = outcome && "result" in outcome && Array.isArray(outcome.result) ? outcome.result : [];
      const isTime =
        parts.length === 2 && parts.every((part) => typeof part === "string" && /^\d+$/.test(part));
      if (!isTime) expectReply("TIME", outcome ?? { result: null }, ["seconds", "microseconds"]);
      const ahead = Math.round(Number(parts[0]) * 1000 + Number(parts[1]) / 1000 - (sent + received) / 2);
      const detail = `${Math.abs(ahead)} ms ${ahead < 0 ? "behind" : "ahead of"} this machine`;
      if (Math.abs(ahead) > LARGEST_SKEW_MS) throw new Finding(detail, "warned");
      return detail;
    },
  },
  {
    id: "hash",
    what: "HSET, HLEN, HGETALL and HDEL keep a list; HGETALL replies with names and values in turn",
    otherwise: DEVICES,
    check: ({ database, key }) =>
      database.steps([
        [["HSET", key("a"), "f", "1"], 1],
        [["HSET", key("a"), "f", "2"], 0],
        ends(key("a")),
        [
          ["HGETALL", key("a")],
          ["f", "2"],
        ],
        [["HLEN", key("a")], 1],
        [["HDEL", key("a"), "f", "missing"], 1],
      ]),
  },
  {
    id: "hash-missing",
    what: "HGETALL and HLEN of a hash that is not there reply with [] and 0",
    otherwise: DEVICES,
    check: ({ database, key }) =>
      database.steps([
        [["HGETALL", key("a")], []],
        [["HLEN", key("a")], 0],
      ]),
  },
  {
    id: "hincrby",
    what: "HINCRBY adds to a number in a hash",
    otherwise: STATS,
    check: ({ database, key }) =>
      database.steps([
        [["HINCRBY", key("a"), "f", "2"], 2],
        [["HINCRBY", key("a"), "f", "3"], 5],
        ends(key("a")),
        [["HLEN", key("a")], 1],
      ]),
  },
  {
    id: "hyperloglog",
    what: "PFADD and PFCOUNT count distinct names",
    otherwise: STATS,
    check: ({ database, key }) =>
      database.steps([
        [["PFCOUNT", key("missing")], 0],
        [["PFADD", key("a"), "x", "y"], 1],
        [["PFADD", key("a"), "x"], 0],
        ends(key("a")),
        [["PFCOUNT", key("a")], 2],
      ]),
  },
  {
    id: "hexpire",
    what: "HEXPIRE gives a field of a hash a time to live",
    otherwise: "Nothing today: the Worker does without.",
    isOptional: true,
    check: ({ database, key }) =>
      database.steps([
        [["HSET", key("a"), "f", "v"], 1],
        ends(key("a")),
        [["HEXPIRE", key("a"), "60", "FIELDS", "1", "f"], [1]],
        [["HTTL", key("a"), "FIELDS", "1", "f"], [60]],
      ]),
  },
];
