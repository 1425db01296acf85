/** The short form of `npm run torture`; and that its checker sees what it is there to see. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { draw, startStages, THEMES, torture } from "./support/torture.mjs";
import { check } from "./support/torture/check.mjs";
import { explain } from "./support/torture/report.mjs";
import { runScenario, SCENARIOS } from "./support/torture/scenarios.mjs";

/** @typedef {import("./support/torture/check.mjs").Operation} Operation */
/** @typedef {import("./support/torture/check.mjs").History} History */

const SCHEDULES = 30;
const SCHEDULES_MS = 7000;

/** @type {Awaited<ReturnType<typeof startStages>>} */
let all;
before(async () => void (all = await startStages()));
after(() => all.stop());

for (const only of Object.keys(THEMES)) {
  test(`random schedules of ${only} and failures violate no guarantee`, async (t) => {
    const seed = Math.floor(Math.random() * 1e9);
    const until = Date.now() + SCHEDULES_MS;
    const { failures, ...done } = await torture(all.stages, { seed, schedules: SCHEDULES, only, until });
    t.diagnostic(`seed ${seed}: ${done.schedules} schedules, ${done.operations} requests`);
    const [failure] = failures;
    const again = `node tools/torture.mjs --theme ${only} --seed ${failure?.schedule.seed} --schedules 1`;
    assert.ok(!failure, `${failure?.violations.slice(0, 3).map(explain).join("\n")}\n${again}`);
    assert.ok(done.schedules > done.slow);
  });
}

for (const scenario of SCENARIOS) {
  test(`race: ${scenario.name}`, async () => {
    for (let run = 0; run < (scenario.cost > 100 ? 1 : 3); run += 1) {
      await runScenario(/** @type {(typeof all.stages)[0]} */ (all.stages[0]), scenario);
    }
  });
}

test("a seed determines its schedule", () => {
  for (const theme of Object.keys(THEMES)) {
    assert.deepEqual(draw(7, theme), draw(7, theme));
    assert.notDeepEqual(draw(7, theme), draw(8, theme));
  }
  const themes = Array.from({ length: 50 }, (_, seed) => draw(seed).theme);
  assert.deepEqual([...new Set(themes)].sort(), Object.keys(THEMES).sort());
});

/** Where all begins: a session with an empty log. */
const EMPTY = { birth: "here", n: 0, log: /** @type {string[]} */ ([]), own: {} };

/** An answer with the session. @param {object} [data] @param {string} [handle] @param {string} [user] @returns {Partial<Operation>} */
const sees = (data = {}, handle = "A", user) => {
  const session = { handle, user: user ? { id: user } : null, data: { ...EMPTY, ...data } };
  return { status: 200, session, etag: JSON.stringify(session.data) };
};
const seesNothing = { status: 200, session: null };

/**
 * A history out of a few words: each operation takes one tick, and begins one after the other's end unless it
 * says otherwise.
 * @param {Partial<Operation>[]} operations
 * @param {Partial<History>} [more]
 * @param {Partial<Operation>} [began] how the session began
 * @returns {History}
 */
const history = (operations, more = {}, began = { kind: "create", ...sees() }) => {
  const whole = [began, ...operations].map((operation, id) => {
    /** @type {Operation} */
    const all = {
      id,
      client: 1,
      kind: "look",
      start: 2 * id,
      end: 2 * id + 1,
      status: 0,
      cookies: 0,
      lagging: false,
      birth: "here",
      user: "",
    };
    return { ...all, carried: "A", ...operation };
  });
  return { restless: false, faulty: true, operations: whole, stored: [], ...more };
};

/** Ann sees one of her sessions. @param {string} [birth] @param {object} [data] @returns {Partial<Operation>} */
const annSees = (birth = "here", data = {}) => {
  return { user: "ann", birth, ...sees({ birth, ...data }, "A", "ann") };
};
/** @param {string} [birth] @returns {Partial<Operation>} */
const annSeesNothing = (birth = "here") => ({ ...annSees(birth), ...seesNothing });
/** @param {string} [birth] @returns {Partial<Operation>} */
const login = (birth) => ({ ...annSees(birth), kind: "login", status: 201, etag: null });
/** All of a user's sessions ended. @param {Partial<Operation>} [more] @returns {Partial<Operation>} */
const revoke = (more) => ({ kind: "revoke", user: "ann", birth: undefined, status: 200, ...more });
/** All of Ann's sessions ended but this one. @param {string} [birth] @returns {Partial<Operation>} */
const keep = (birth = "here") => ({ kind: "keep", user: "ann", birth, status: 204 });
/** This one ended. @param {number} status @returns {Partial<Operation>} */
const end = (status) => ({ kind: "end", user: "ann", status });
const overlapping = { start: 3, end: 6 };

/** A history that begins with a session of Ann's. @param {Partial<Operation>[]} operations @param {Partial<History>} [more] */
const annsHistory = (operations, more) => history(operations, more, login());

/** @type {[string, string[], History][]} */
const HISTORIES = [
  [
    "a good one",
    [],
    history([
      { kind: "append", tag: "a", ...sees({ log: ["a"] }) },
      { kind: "increment", ...sees({ log: ["a"], n: 1 }) },
      { kind: "increment", status: 503 },
      { kind: "rotate", ...sees({ log: ["a"], n: 2 }, "B") },
      { kind: "merge", number: 1, ...sees({ log: ["a"], n: 2, own: { c1: 1 } }, "B") },
      { kind: "logout", status: 204 },
      { kind: "increment", status: 200, session: { handle: "C", data: { n: 1 } } },
      { ...seesNothing },
    ]),
  ],
  [
    "an append that is lost",
    ["lost update"],
    history([{ kind: "append", tag: "a", ...sees({ log: ["a"] }) }, sees()]),
  ],
  [
    "an increment that is lost",
    ["lost update"],
    history([
      { kind: "increment", start: 2, end: 5, ...sees({ n: 1 }) },
      { kind: "increment", start: 2, end: 5, ...sees({ n: 1 }) },
      sees({ n: 1 }),
    ]),
  ],
  [
    "a key that is lost",
    ["lost update"],
    history([{ kind: "merge", number: 1, ...sees({ own: { c1: 1 } }) }, sees()]),
  ],
  [
    "an answer that says what was not done",
    ["acknowledged but not made"],
    history([{ kind: "append", tag: "a", ...sees() }]),
  ],
  [
    "an older state, shown later",
    ["lost update"],
    history([
      sees({ n: 0, log: [] }),
      { start: 1, end: 9, kind: "append", tag: "a", status: 503 },
      sees({ log: ["a"] }),
      sees(),
    ]),
  ],
  ["an increment made twice", ["made twice"], history([{ kind: "increment", status: 503 }, sees({ n: 2 })])],
  [
    "an append made twice",
    ["made twice"],
    history([{ kind: "append", tag: "a", ...sees({ log: ["a", "a"] }) }]),
  ],
  [
    "a refused change that was made",
    ["made although refused"],
    history([{ kind: "misfit", tag: "a", status: 422 }, sees({ log: ["a"] })]),
  ],
  [
    "a change that was answered 401 among faults, and made",
    ["made although refused"],
    history([
      { kind: "append", tag: "a", status: 401, start: 2, end: 9 },
      { ...sees({ log: ["a"] }), start: 2, end: 9 },
      { kind: "logout", status: 204, start: 2, end: 9 },
    ]),
  ],
  ["a rotation refused after none", ["refused without cause"], history([{ kind: "rotate", status: 429 }])],
  [
    "nine rotations at once",
    ["too many rotations"],
    history(
      Array.from({ length: 9 }, (_, at) => ({
        kind: "rotate",
        carried: `A${at}`,
        ...sees({}, `A${at + 1}`),
      })),
      {},
      { kind: "create", ...sees({}, "A0") },
    ),
  ],
  [
    "an old id that is refused after its grace, and ends nothing",
    ["resurrected"],
    history([
      { kind: "rotate", ...sees({}, "B") },
      { kind: "reuse", ...seesNothing },
      { ...sees({}, "B"), carried: "B" },
    ]),
  ],
  ["data that nobody wrote", ["out of nowhere"], history([sees({ log: ["x"] })])],
  ["a session that comes back", ["resurrected"], history([{ kind: "logout", status: 204 }, sees()])],
  [
    "a change acknowledged after a logout",
    ["resurrected"],
    history([
      { kind: "logout", status: 204 },
      { kind: "increment", ...sees({ n: 1 }) },
    ]),
  ],
  [
    "old data in a new session",
    ["resurrected"],
    history([
      { kind: "logout", status: 204 },
      { kind: "increment", status: 200, session: { handle: "B", data: { n: 5 } } },
    ]),
  ],
  ["an old id that works after its grace", ["resurrected"], history([{ kind: "reuse", ...sees() }])],
  [
    "an empty session invented",
    ["ended without cause", "resurrected"],
    history([{ ...seesNothing }, sees()]),
  ],
  ["somebody turned away", ["ended without cause"], history([{ kind: "rotate", status: 401 }])],
  [
    "two successors in the end",
    ["fork", "more than one successor"],
    history([
      { kind: "rotate", ...sees({}, "B") },
      { ...sees({}, "B"), last: true },
      { ...sees({}, "C"), last: true },
    ]),
  ],
  ["an id that comes back", ["fork"], history([{ kind: "rotate", ...sees({}, "B") }, sees()])],
  [
    "two pasts",
    ["fork"],
    history([
      { kind: "append", tag: "a", start: 2, end: 9, ...sees({ log: ["a"] }) },
      { kind: "append", tag: "b", start: 2, end: 9, ...sees({ log: ["b"] }) },
    ]),
  ],
  ["a rotation that leaves the id", ["not rotated"], history([{ kind: "rotate", ...sees() }])],
  [
    "a condition met twice",
    ["condition met twice"],
    history([
      { kind: "condition", tag: "a", ifMatch: '"1"', start: 2, end: 9, ...sees({ log: ["a"] }) },
      { kind: "condition", tag: "b", ifMatch: '"1"', start: 2, end: 9, ...sees({ log: ["a", "b"] }) },
    ]),
  ],
  [
    "one ETag for two states",
    ["ETag"],
    history([{ kind: "increment", ...sees({ n: 1 }), etag: JSON.stringify(EMPTY) }]),
  ],
  ["a cookie changed on a 503", ["cookie changed on a failure"], history([{ status: 503, cookies: 1 }])],
  ["an internal error", ["unexpected answer"], history([{ status: 500 }])],
  ["a key for ever", ["no time to live"], history([], { stored: [{ key: "sess:A", ttl: -1, value: "" }] })],
  [
    "a record left behind",
    ["left behind"],
    history([{ kind: "logout", status: 204 }], {
      faulty: false,
      stored: [{ key: "sess:A", ttl: 1000, value: '{"data":{"birth":"here"}}' }],
    }),
  ],
  [
    "its own write not seen through a replica",
    ["lost update"],
    history([
      { kind: "increment", ...sees({ n: 1 }), lagging: true },
      { ...sees(), lagging: true, after: 1 },
    ]),
  ],
  [
    "a replica that is behind, asked by somebody else",
    [],
    history([
      { kind: "increment", ...sees({ n: 1 }), lagging: true },
      { ...sees(), lagging: true },
      { ...seesNothing, lagging: true },
    ]),
  ],
  [
    "revocations, and logins before, meanwhile and after",
    [],
    annsHistory([
      { ...login("overtaken"), ...overlapping },
      { ...login("later"), ...overlapping },
      { ...revoke(), ...overlapping },
      login("next"),
      annSeesNothing(),
      annSeesNothing("overtaken"),
      annSees("later"),
      annSees("next"),
      keep("next"),
      { ...keep("later"), status: 401 },
      annSees("next"),
      { ...end(204), birth: "next" },
      { ...end(404), birth: "next" },
    ]),
  ],
  ["a session that outlives a revocation", ["resurrected"], annsHistory([revoke(), annSees()])],
  [
    "a change acknowledged after a revocation, while the replica is behind",
    ["resurrected"],
    annsHistory([revoke(), { ...annSees("here", { n: 1 }), kind: "increment", lagging: true }]),
  ],
  [
    "a look at a replica that does not know of the revocation yet",
    [],
    annsHistory([revoke(), { ...annSees(), lagging: true }]),
  ],
  [
    "a login after a revocation, dead",
    ["ended without cause"],
    annsHistory([revoke(), login("next"), annSeesNothing("next")]),
  ],
  [
    "a login during a revocation, dead and then alive",
    ["resurrected"],
    annsHistory([
      { ...login("overtaken"), ...overlapping },
      { ...revoke(), ...overlapping },
      annSeesNothing("overtaken"),
      annSees("overtaken"),
    ]),
  ],
  [
    "revocations without an answer, one of which was made, and late",
    [],
    annsHistory([
      revoke({ status: 503 }),
      annSees(),
      revoke({ status: 0 }),
      login("next"),
      annSees("next"),
      annSeesNothing(),
      annSeesNothing("next"),
    ]),
  ],
  [
    "a revocation without an answer that is taken back",
    ["resurrected"],
    annsHistory([revoke({ status: 503 }), annSeesNothing(), annSees()]),
  ],
  [
    "a refused revocation that was made",
    ["ended without cause", "unexpected answer"],
    annsHistory([revoke({ status: 401 }), annSeesNothing()]),
  ],
  [
    "another user's revocation",
    ["ended without cause"],
    annsHistory([revoke({ user: "bob" }), annSeesNothing()]),
  ],
  ["a revocation that ends what is kept", ["ended without cause"], annsHistory([keep(), annSeesNothing()])],
  [
    "a revocation that keeps another one",
    ["resurrected"],
    annsHistory([login("other"), keep("other"), annSees()]),
  ],
  ["a revocation by the dead", ["resurrected"], annsHistory([revoke(), keep()])],
  ["an ended session that comes back", ["resurrected"], annsHistory([end(204), annSees()])],
  [
    "a session not found by its handle",
    ["ended without cause", "resurrected"],
    annsHistory([end(404), annSees()]),
  ],
  [
    "a session ended by its handle while the replica is behind",
    ["resurrected"],
    annsHistory([
      { ...end(204), lagging: true },
      { ...annSees("here", { n: 1 }), kind: "increment", lagging: true },
    ]),
  ],
  [
    "a change that another session shows",
    ["lost update", "out of nowhere"],
    annsHistory([
      login("other"),
      { ...annSees("here", { log: ["a"] }), kind: "append", tag: "a" },
      annSees(),
      annSees("other", { log: ["a"] }),
    ]),
  ],
  [
    "another session in the answer",
    ["ended without cause", "resurrected", "somebody else's"],
    annsHistory([login("other"), { ...annSees("other"), birth: "here" }]),
  ],
  [
    "a session of somebody else",
    ["somebody else's"],
    annsHistory([{ ...annSees(), ...sees({}, "A", "bob") }]),
  ],
  [
    "a user's new session out of a dead ticket",
    ["somebody else's"],
    annsHistory([
      revoke(),
      { ...annSees(), kind: "increment", session: { handle: "C", user: { id: "ann" }, data: { n: 1 } } },
    ]),
  ],
  [
    "a revoked session's record left behind",
    ["left behind"],
    annsHistory([revoke()], {
      faulty: false,
      stored: [{ key: "sess:A", ttl: 1000, value: '{"data":{"birth":"here"}}' }],
    }),
  ],
  [
    "the record of a login that a revocation overtook",
    [],
    annsHistory(
      [
        { ...login("overtaken"), ...overlapping },
        { ...revoke(), ...overlapping },
      ],
      {
        faulty: false,
        stored: [{ key: "sess:A", ttl: 1000, value: '{"data":{"birth":"overtaken"}}' }],
      },
    ),
  ],
];

for (const [name, rules, recorded] of HISTORIES) {
  test(`the checker on ${name}: ${rules.join(", ") || "nothing"}`, () => {
    const found = check(recorded);
    assert.deepEqual([...new Set(found.map(({ rule }) => rule))].sort(), [...rules].sort());
    for (const violation of found) assert.match(explain(violation), new RegExp(`^${violation.rule}: `));
  });
}
