/** That the checker of stolen ids sees what it is there to see: histories made up for it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { explain } from "./support/torture/report.mjs";
import { checkThefts } from "./support/torture/thefts-check.mjs";

/** @typedef {import("./support/torture/thefts-check.mjs").Operation} Operation */
/** @typedef {import("./support/torture/thefts-check.mjs").History} History */

const BIRTH = "here";
const SECOND = 1000;

/** An answer that shows the session. @param {string} handle @param {number} [n] @returns {Partial<Operation>} */
const sees = (handle, n = 0) => ({ status: 200, session: { handle, data: { birth: BIRTH, n } } });
const seesNothing = { status: 200, session: null };

/** A read with this id. @param {string} carried @param {string} [handle] which it leads to @returns {Partial<Operation>} */
const look = (carried, handle = carried) => ({ carried, ...sees(handle) });
/** @param {string} carried @returns {Partial<Operation>} */
const lookInVain = (carried) => ({ carried, ...seesNothing });
/** @param {string} carried @param {string} handle @returns {Partial<Operation>} */
const rotate = (carried, handle) => ({ kind: "rotate", ...look(carried, handle) });
/** @param {string} carried @returns {Partial<Operation>} */
const logout = (carried) => ({ kind: "logout", carried, status: 204 });
/** So many rotations in a row, from `a0` on. @param {number} count @returns {Partial<Operation>[]} */
const rotations = (count) => Array.from({ length: count }, (_, at) => rotate(`a${at}`, `a${at + 1}`));

/**
 * A history out of a few words: each operation takes a tick, and nothing is left for the background after it.
 * A number lets so much time pass.
 * @param {(Partial<Operation> | number)[]} told
 * @param {Partial<History>} [more]
 * @returns {History}
 */
const history = (told, more = {}) => {
  let now = 0;
  /** @type {Operation[]} */
  const operations = [];
  for (const one of told) {
    if (typeof one === "number") {
      now += one;
      continue;
    }
    /** @type {Operation} */
    const operation = {
      id: operations.length,
      client: 0,
      kind: "look",
      carried: "a",
      birth: BIRTH,
      start: now,
      end: now + 1,
      settled: now + 2,
      faults: 0,
      status: 0,
      ...one,
    };
    operations.push(operation);
    now += 3;
  }
  return { operations, stored: [], faults: 0, ...more };
};

/** @type {[string, string[], History][]} */
const HISTORIES = [
  [
    "a session that is rotated, used and left",
    [],
    history([
      look("a"),
      rotate("a", "b"),
      look("a", "b"),
      { kind: "increment", carried: "b", ...sees("b", 1) },
      { carried: "b", ...sees("b", 1) },
      logout("b"),
      lookInVain("b"),
    ]),
  ],
  [
    "an old id, hours after an answer was lost",
    [],
    history([rotate("a", "b"), 5 * 3600 * SECOND, look("a", "b"), 60 * SECOND, look("a", "b")]),
  ],
  [
    "somebody logged out hours after an answer was lost",
    ["ended without cause"],
    history([rotate("a", "b"), 5 * 3600 * SECOND, lookInVain("a")]),
  ],
  [
    "a change turned away after an outage",
    ["ended without cause"],
    history([
      rotate("a", "b"),
      31 * SECOND,
      { kind: "increment", carried: "a", status: 401, session: undefined },
    ]),
  ],
  [
    "somebody logged out, by an answer that shows another session",
    ["ended without cause"],
    history([
      rotate("a", "b"),
      31 * SECOND,
      { kind: "increment", carried: "a", status: 200, session: { handle: "c", data: { n: 1 } } },
    ]),
  ],
  [
    "an old id just after its successor was presented",
    ["ended without cause"],
    history([rotate("a", "b"), 60 * SECOND, look("b"), 29 * SECOND, lookInVain("a")]),
  ],
  [
    "an old id after its time, found out for all",
    [],
    history([rotate("a", "b"), look("b"), 31 * SECOND, lookInVain("a"), lookInVain("b")]),
  ],
  [
    "an old id that works after its time",
    ["theft not found"],
    history([rotate("a", "b"), look("b"), 31 * SECOND, look("a", "b")]),
  ],
  [
    "an old id from two rotations ago that works after its time",
    ["theft not found"],
    history([
      rotate("a", "b"),
      look("b"),
      31 * SECOND,
      rotate("b", "c"),
      { ...look("c"), faults: 1 },
      look("a", "c"),
    ]),
  ],
  [
    "an old id whose successor was presented while the store failed: it may work, and it may not",
    [],
    history([rotate("a", "b"), { ...look("b"), faults: 1 }, 31 * SECOND, look("a", "b"), lookInVain("a")]),
  ],
  [
    "an old id whose successor was presented, and perhaps not noted yet",
    [],
    history([rotate("a", "b"), { ...look("b"), settled: undefined }, 31 * SECOND, look("a", "b")]),
  ],
  [
    "a thief who stays in, while the owner is out",
    ["resurrected"],
    history([rotate("a", "b"), look("b"), 31 * SECOND, lookInVain("a"), look("b")]),
  ],
  [
    "an owner who is thrown out in silence, while the thief stays in",
    ["ended without cause", "resurrected"],
    history([rotate("a", "b"), lookInVain("a"), look("b")]),
  ],
  [
    "what a thief has made while the theft could not be dealt with",
    [],
    history([rotate("a", "b"), look("b"), 31 * SECOND, { carried: "a", status: 503, faults: 3 }, look("b")]),
  ],
  ["a store that is fine, and a 503", ["unexpected answer"], history([{ status: 503 }])],
  ["an internal error", ["unexpected answer"], history([{ status: 500, faults: 1 }])],
  ["a logout, and who comes back", ["resurrected"], history([rotate("a", "b"), logout("a"), look("b")])],
  ["an id that comes back", ["fork"], history([rotate("a", "b"), look("b"), look("a")])],
  [
    "two ids in the end",
    ["fork"],
    history([
      { ...rotate("a", "b"), kind: "look", end: 10 },
      { ...look("b"), start: 1, end: 10, last: true },
      { ...look("a", "c"), start: 1, end: 10, last: true },
    ]),
  ],
  ["a rotation that leaves the id", ["not rotated"], history([rotate("a", "a")])],
  ["8 rotations at once", [], history([...rotations(8), { kind: "rotate", carried: "a8", status: 429 }])],
  ["9 rotations at once", ["too many rotations"], history(rotations(9))],
  ["9 rotations, one after the other", [], history(rotations(9).flatMap((one) => [one, 8 * SECOND]))],
  [
    "a rotation refused after few",
    ["refused without cause"],
    history([...rotations(3), { kind: "rotate", carried: "a3", status: 429 }]),
  ],
  [
    "a rotation refused to an old id that has a successor",
    ["refused without cause"],
    history([...rotations(8), { kind: "rotate", carried: "a7", status: 429 }]),
  ],
  [
    "a read that follows one id after the other",
    ["too many calls"],
    history([
      { ...look("a"), calls: 4 },
      { ...look("a"), calls: 3, again: true },
    ]),
  ],
  [
    "reads that note something in the background",
    [],
    history([
      { ...look("a"), calls: 4 },
      { ...look("a"), calls: 2, again: true },
    ]),
  ],
  [
    "an increment that is lost",
    ["lost update"],
    history([{ kind: "increment", carried: "a", ...sees("a", 1) }, look("a")]),
  ],
  [
    "an increment made twice",
    ["made twice"],
    history([
      { kind: "increment", status: 503, faults: 1 },
      { carried: "a", ...sees("a", 2) },
    ]),
  ],
  ["verify, which sets a cookie", ["cookie changed"], history([{ kind: "verify", status: 200, cookies: 1 }])],
  ["verify, which finds no user's session", [], history([{ kind: "verify", status: 401 }, look("a")])],
  [
    "verify, which logs a user out",
    ["ended without cause", "resurrected"],
    history([{ kind: "verify", status: 401, user: "ann" }, look("a")]),
  ],
  [
    "a head left behind",
    ["left behind"],
    history([logout("a")], { stored: [{ key: "family:x", ttl: 1000 }] }),
  ],
  ["a key for ever", ["no time to live"], history([look("a")], { stored: [{ key: "limit:x", ttl: -1 }] })],
];

for (const [name, rules, recorded] of HISTORIES) {
  test(`the checker on ${name}: ${rules.join(", ") || "nothing"}`, () => {
    const found = checkThefts(recorded);
    assert.deepEqual([...new Set(found.map(({ rule }) => rule))].sort(), [...rules].sort());
    for (const violation of found) assert.match(explain(violation), new RegExp(`^${violation.rule}: `));
  });
}
