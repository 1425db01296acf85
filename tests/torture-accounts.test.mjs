/** That the checker of accounts sees what it is there to see: histories made up for it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { checkAccounts } from "./support/torture/accounts-check.mjs";
import { explain } from "./support/torture/report.mjs";

/** @typedef {import("./support/torture/accounts-check.mjs").Operation} Operation */
/** @typedef {import("./support/torture/accounts-check.mjs").History} History */
/** @typedef {import("./support/torture/documents.mjs").Data} Data */

const EMPTY = { birth: "here", n: 0, log: /** @type {string[]} */ ([]), own: {}, flag: 0 };

/** An answer with the session. @param {Data} [data] @param {object | null} [user] @returns {Partial<Operation>} */
const sees = (data = {}, user = {}) => ({
  status: 200,
  session: { handle: "A", user, data: { ...EMPTY, ...data } },
});
const gone = { status: 401, code: "unauthenticated" };
const wrong = { status: 401, code: "invalid_credentials" };
const overlapping = { start: 3, end: 8 };

/** @param {string} tag @param {number} [family] @returns {Partial<Operation>} */
const append = (tag, family = 1) => ({ kind: "append", change: "append", tag, family });
/** @param {number} [family] @returns {Partial<Operation>} */
const increment = (family = 1) => ({ kind: "increment", change: "increment", family });
/** What gives the session of one family another id. @param {import("./support/torture/accounts-check.mjs").AnyKind} kind @param {Data} [data] @param {number} [begins] @param {number} [family] @returns {Partial<Operation>} */
const swap = (kind, data = {}, begins = 2, family = 1) => ({
  kind,
  family,
  begins,
  password: "one",
  ...sees(data),
});
/** A look with a ticket of this family. @param {number} [family] @param {Data} [data] @returns {Partial<Operation>} */
const look = (family = 1, data = {}) => ({ family, ...sees(data) });
/** @param {number} [family] @returns {Partial<Operation>} */
const lookInVain = (family = 1) => ({ family, status: 200, session: null });
/** A look with a ticket of the family 3, a session of its own. @type {Partial<Operation>} */
const lookAtOther = {
  birth: undefined,
  family: 3,
  status: 200,
  session: { handle: "B", user: {}, data: {} },
};
/** Another session of the account. @param {number} begins @param {Partial<Operation>} [more] @returns {Partial<Operation>} */
const login = (begins, more) => ({
  kind: "login",
  birth: undefined,
  family: undefined,
  begins,
  password: "one",
  ...sees(),
  session: { handle: "B", user: {}, data: {} },
  ...more,
});
/** @param {Partial<Operation>} [more] @returns {Partial<Operation>} */
const changed = (more) => ({ ...swap("password"), next: "two", ...more });
/** A change of the profile, and what it shows then. @param {Partial<Operation>} change @param {Data} [profile] @returns {Partial<Operation>} */
const profile = (change, profile) => ({
  ...change,
  kind: /** @type {"profile-append"} */ (`profile-${change.change}`),
  status: profile ? 200 : (change.status ?? 0),
  ...(profile ? { profile: { n: 0, log: [], own: {}, flag: 0, ...profile } } : {}),
});
/** @param {Data} data @returns {Partial<Operation>} */
const seesProfile = (data) => ({ ...profile({}, data), kind: "profile" });
/** @param {number} value @returns {Partial<Operation>} */
const set = (value) => ({ kind: "set", change: "set", value, family: 1 });

/**
 * A history out of a few words: the session of a user, whose ids are of family 1, and then what is done with it. Each
 * operation takes one tick, and begins one after the other's end unless it says otherwise.
 * @param {Partial<Operation>[]} told
 * @param {Partial<History>} [more]
 * @param {Partial<Operation>} [began]
 * @returns {History}
 */
const history = (told, more = {}, began = sees()) => {
  const operations = [{ kind: /** @type {const} */ ("create"), begins: 1, ...began }, ...told].map(
    (one, id) => {
      /** @type {Operation} */
      const all = { id, client: 1, kind: "look", start: 2 * id, end: 2 * id + 1, status: 0, family: 1 };
      return { ...all, birth: "here", ...one };
    },
  );
  return { operations, stored: [], faults: 0, left: false, ...more };
};
/** One that begins with nobody's session. @param {Partial<Operation>[]} told @param {Partial<History>} [more] */
const guests = (told, more) => history(told, more, sees({}, null));

/** @type {[string, string[], History][]} */
const HISTORIES = [
  [
    "a login, a re-authentication and a change of the password",
    [],
    guests([
      { ...append("a"), ...sees({ log: ["a"] }, null) },
      swap("login", { log: ["a"] }),
      { ...lookInVain(1) },
      { ...append("b", 2), ...sees({ log: ["a", "b"] }) },
      swap("reauthenticate", { log: ["a", "b"] }, 3, 2),
      lookInVain(2),
      { ...swap("password", { log: ["a", "b"] }, 4, 3), next: "two" },
      lookInVain(3),
      look(4, { log: ["a", "b"] }),
    ]),
  ],
  .../** @type {const} */ (["login", "reauthenticate", "password"]).map(
    (kind) =>
      /** @type {[string, string[], History]} */ ([
        `an old id that is alive after the 200 to: ${kind}`,
        ["resurrected"],
        history([swap(kind), look(1)]),
      ]),
  ),
  [
    "a change acknowledged under the old id",
    ["fork", "lost update", "resurrected"],
    history([
      swap("login"),
      { ...append("b", 2), ...sees({ log: ["b"] }) },
      { ...append("a"), ...sees({ log: ["a"] }) },
    ]),
  ],
  [
    "a change acknowledged before a login, and missing in its answer",
    ["lost update"],
    history([{ ...append("a"), ...sees({ log: ["a"] }) }, swap("login")]),
  ],
  [
    "a change acknowledged during a login, and missing in its answer",
    ["lost update"],
    history([
      { ...append("a"), ...overlapping, ...sees({ log: ["a"] }) },
      { ...swap("login"), ...overlapping },
    ]),
  ],
  [
    "an increment acknowledged during a re-authentication, and missing",
    ["lost update"],
    history([
      { ...increment(), ...overlapping, ...sees({ n: 1 }) },
      { ...swap("reauthenticate"), ...overlapping },
    ]),
  ],
  [
    "a change that was answered 401, and made",
    ["made although refused"],
    history([
      { ...append("a"), ...overlapping, ...gone },
      { ...swap("login", { log: ["a"] }), ...overlapping },
    ]),
  ],
  [
    "a change without an answer, made or not",
    [],
    history([
      { ...append("a"), status: 503 },
      { ...append("b"), status: 503 },
      swap("login", { log: ["b"] }),
    ]),
  ],
  [
    "a session whose data a login forgets",
    ["not carried over"],
    history([swap("login", { birth: undefined })]),
  ],
  [
    "two logins at once: the second finds nothing to carry over",
    [],
    history([
      { ...swap("login"), ...overlapping },
      { ...swap("login", { birth: undefined }, 3), ...overlapping },
    ]),
  ],
  [
    "a login that failed, and its old cookie, which works",
    [],
    history([{ kind: "login", status: 503 }, look(1)], { faults: 2 }),
  ],
  [
    "a login that failed, and logged the visitor out",
    ["ended without cause"],
    history([{ kind: "login", status: 503 }, lookInVain(1)], { faults: 2 }),
  ],
  [
    "the same after so many lost answers that nobody can know",
    [],
    history([{ kind: "login", status: 503 }, lookInVain(1)], { faults: 3 }),
  ],
  [
    "a re-authentication that finds no session",
    ["ended without cause"],
    history([{ kind: "reauthenticate", ...gone }], { faults: 2 }),
  ],
  ["a password that is wrong", [], history([{ kind: "reauthenticate", ...wrong }, look(1)])],
  [
    "a password changed, and another session that lives",
    ["resurrected"],
    history([login(3), changed(), lookAtOther]),
  ],
  [
    "a password changed, and a later session that lives",
    [],
    history([changed(), login(3, { password: "two" }), lookAtOther]),
  ],
  [
    "a password changed, and a login with the old one that arrives late",
    ["resurrected"],
    history([
      { ...login(3), start: 3, end: 9 },
      { ...changed(), start: 4, end: 8 },
      { ...lookAtOther, start: 10, end: 11 },
    ]),
  ],
  ["an old password that logs in", ["resurrected"], history([changed(), login(3)])],
  [
    "a new password that does not",
    ["refused without cause"],
    history([changed(), { ...login(3), ...wrong, password: "two", begins: undefined, session: undefined }]),
  ],
  [
    "a password changed by a request that was refused",
    ["refused without cause"],
    history([
      { kind: "password", ...wrong, password: "one", next: "two" },
      { ...login(3), ...wrong, begins: undefined, session: undefined },
    ]),
  ],
  .../** @type {[Partial<Operation>, string][]} */ ([
    [profile({ change: "append", tag: "a" }, { log: ["a"] }), "profile"],
    [{ kind: "list", status: 200 }, "list"],
    [{ kind: "end", target: 3, status: 404 }, "list to end another"],
    [{ kind: "keep", status: 204 }, "others"],
    [{ kind: "rotate", ...sees() }, "id"],
    [{ ...set(1), ...sees({ flag: 1 }) }, "data"],
  ]).map(
    ([operation, what]) =>
      /** @type {[string, string[], History]} */ ([
        `an ended session that gets at its user's ${what}, where a replica is behind`,
        ["resurrected"],
        history([
          { kind: "logout", status: 204 },
          { ...operation, kind: operation.kind ?? "look", lagging: true },
        ]),
      ]),
  ),
  [
    "an ended session that a replica still shows",
    [],
    history([
      { kind: "logout", status: 204 },
      { ...look(1), lagging: true },
      { kind: "verify", status: 200, lagging: true },
    ]),
  ],
  [
    "what a session kept from others' end, and what ended them",
    ["resurrected"],
    history([login(3), { kind: "keep", status: 204 }, look(1), lookAtOther]),
  ],
  [
    "a session ended from the list",
    ["resurrected"],
    history([login(3), { kind: "end", target: 3, status: 204 }, lookAtOther]),
  ],
  ["somebody turned away", ["ended without cause"], history([{ kind: "list", ...gone }])],
  [
    "nobody's session, which lists nothing",
    [],
    guests([
      { kind: "list", ...gone },
      { family: 1, ...sees({}, null) },
    ]),
  ],
  [
    "a flag set to what it was, and back",
    [],
    history([{ ...set(1), ...sees({ flag: 1 }) }, { ...set(0), ...sees({ flag: 0 }) }, look(1, { flag: 0 })]),
  ],
  [
    "a flag whose later change was judged to change nothing",
    ["lost update"],
    history([
      { ...set(1), ...sees({ flag: 1 }) },
      { ...set(0), ...sees({ flag: 0 }), lagging: true },
      look(1, { flag: 1 }),
    ]),
  ],
  [
    "a flag set twice at once",
    [],
    history([
      { ...set(1), ...overlapping, ...sees({ flag: 1 }) },
      { ...set(0), ...overlapping, ...sees({ flag: 0 }) },
      { ...look(1, { flag: 1 }), start: 9, end: 10 },
    ]),
  ],
  [
    "a flag without an answer",
    [],
    history([{ ...set(1), status: 503 }, look(1), look(1, { flag: 1 })], { faults: 1 }),
  ],
  ["a flag that nobody set", ["lost update"], history([look(1, { flag: 1 })])],
  [
    "increments of the profile, one without an answer",
    [],
    history([
      profile({ change: "increment" }, { n: 1 }),
      profile({ change: "increment", status: 503 }),
      seesProfile({ n: 2 }),
    ]),
  ],
  [
    "an increment of the profile that counts twice",
    ["made twice"],
    history([profile({ change: "increment" }, { n: 2 }), seesProfile({ n: 2 })]),
  ],
  [
    "an increment of the profile that is lost",
    ["lost update"],
    history([
      { ...profile({ change: "increment" }, { n: 1 }), ...overlapping },
      { ...profile({ change: "increment" }, { n: 1 }), ...overlapping },
      { ...seesProfile({ n: 1 }), start: 9, end: 10 },
    ]),
  ],
  [
    "an entry of the profile that is there twice",
    ["made twice"],
    history([profile({ change: "append", tag: "a" }, { log: ["a", "a"] })]),
  ],
  [
    "a refused change of the profile that was made",
    ["made although refused"],
    history([
      { kind: "logout", status: 204 },
      { ...profile({ change: "append", tag: "a" }), ...gone },
      {
        ...seesProfile({ log: ["a"] }),
        family: 2,
      },
    ]),
  ],
  [
    "rotations, more than are allowed",
    ["too many rotations"],
    history(
      Array.from({ length: 9 }, (_, at) => ({
        kind: /** @type {const} */ ("rotate"),
        status: 200,
        session: { handle: `B${at}`, user: {}, data: EMPTY },
      })),
    ),
  ],
  ["a rotation refused", ["refused without cause"], history([{ kind: "rotate", status: 429 }])],
  [
    "a head left behind by a logout",
    ["left behind"],
    history([{ kind: "logout", status: 204 }], {
      left: true,
      stored: [{ key: "family:x", ttl: 1000, value: "" }],
    }),
  ],
  [
    "what an account may leave behind",
    [],
    history([{ kind: "delete", status: 204 }], {
      left: true,
      stored: [{ key: "user:x:standing", ttl: 1000, value: "" }],
    }),
  ],
  [
    "what an account may not leave behind",
    ["left behind"],
    history([{ kind: "delete", status: 204 }], {
      left: true,
      stored: [{ key: "user:x:account", ttl: -1, value: "" }],
    }),
  ],
  ["a cookie changed on a 503", ["cookie changed on a failure"], history([{ status: 503, cookies: 1 }])],
  ["an internal error", ["unexpected answer"], history([{ status: 500 }])],
];

for (const [name, rules, recorded] of HISTORIES) {
  test(`the checker on ${name}: ${rules.join(", ") || "nothing"}`, () => {
    const found = checkAccounts(recorded);
    assert.deepEqual([...new Set(found.map(({ rule }) => rule))].sort(), [...rules].sort());
    for (const violation of found) assert.match(explain(violation), new RegExp(`^${violation.rule}: `));
  });
}
