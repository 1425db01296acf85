/** The crate: changes are never lost, whatever they are named, and however many there are at once. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { dataOf, operate, startCrateWorkers } from "./support/crate.mjs";
import { until } from "./support/worker.mjs";

/** @typedef {import("./support/crate.mjs").Operation} Operation */

/** @type {import("./support/crate.mjs").CrateWorkers} */
let crate;
/** @type {import("./support/crate.mjs").Visitor} */
let visitor;
/** The same visitor at the other isolate. @type {import("./support/crate.mjs").Visitor} */
let elsewhere;
before(async () => {
  const settings = { session: { max_bytes: 2000 } };
  crate = await startCrateWorkers({ name: "crate-changes", settings });
});
after(() => crate?.stop());
beforeEach(async () => {
  crate.upstream.reset();
  crate.store.faults.clear();
  visitor = crate.workers[0].visitor();
  assert.equal((await operate(visitor, [insert("a", 1)])).status, 200);
  elsewhere = visitor.clone();
  elsewhere.url = crate.workers[1].url;
});

/** @param {string} key @param {unknown} value @returns {Operation} */
const insert = (key, value) => ({ do: "insert", key, value });
/** @param {string} key @param {unknown} by @returns {Operation} */
const increment = (key, by) => ({ do: "increment", key, by });
/** @param {string} key @returns {Operation} */
const get = (key) => ({ do: "get", key });
/** @param {string} key @returns {Operation} */
const remove = (key) => ({ do: "remove", key });

describe("a member", () => {
  const KEYS = [
    "__proto__",
    "constructor",
    "toString",
    "",
    " ",
    "a/b",
    "/",
    "~",
    "~0",
    "~1",
    "-",
    "0",
    ".",
    "..",
    '"',
    "\\",
    "\n\u0000\u007f",
    "$serde_json::private::RawValue",
    "$serde_json::private::Number",
    "🧥",
    "e\u0301",
    "\u202e",
    "null",
    "k".repeat(500),
  ];
  for (const key of KEYS) {
    test(`named ${JSON.stringify(key).slice(0, 40)} is one like any other`, async () => {
      const first = await operate(visitor, [get(key), insert(key, { b: [1] }), get(key), { do: "data" }]);
      assert.equal(first.status, 200, first.text);
      const holding = { a: 1, ["x"]: 0 };
      Reflect.deleteProperty(holding, "x");
      Object.defineProperty(holding, key, { value: { b: [1] }, enumerable: true, writable: true });
      assert.deepEqual(first.json.slice(0, 3), [null, null, { b: [1] }]);
      assert.deepEqual(Object.entries(first.json[3]).sort(), Object.entries(holding).sort());
      const second = await operate(visitor, [
        get(key),
        remove(key),
        get(key),
        increment(key, 2),
        increment(key, 3),
      ]);
      assert.deepEqual(second.json, [{ b: [1] }, { b: [1] }, null, 2, 5]);
      const third = await operate(visitor, [get(key), { do: "double", key, plus: 1 }, get(key), remove(key)]);
      assert.deepEqual(third.json, [5, 11, 11, 11]);
      assert.deepEqual(await dataOf(visitor), { a: 1 });
    });
  }

  const VALUES = [null, true, 0, -1, 1.5, 1e300, "", "\u0000", [], {}, [[]], { "": { "": null } }, "🧥"];
  for (const value of VALUES) {
    test(`of value ${JSON.stringify(value)} is read as it was written`, async () => {
      await operate(visitor, [insert("b", value)]);
      const { json, text } = await operate(elsewhere, [get("b"), { do: "data" }]);
      assert.deepEqual(json, [value, { a: 1, b: value }], text);
    });
  }

  test("keeps every digit of a 64-bit integer", async () => {
    for (const text of ["9007199254740993", "18446744073709551615", "-9223372036854775808"]) {
      const operations = `[{"do":"insert","key":"b","value":${text}},{"do":"get","key":"b"}]`;
      assert.equal((await visitor.send("POST", "/operations", { body: operations })).text, `[null,${text}]`);
      assert.equal((await operate(elsewhere, [get("b")])).text, `[${text}]`);
    }
  });
});

describe("a change that cannot be", () => {
  const deep = (/** @type {number} */ levels) => JSON.parse("[".repeat(levels) + "]".repeat(levels));
  /** @type {Record<string, [number, string, Operation[]]>} */
  const REFUSED = {
    "too large": [413, "too_large", [insert("b", "x".repeat(2000))]],
    "too large together": [413, "too_large", [insert("b", "x".repeat(1200)), insert("c", "x".repeat(1200))]],
    "too large by its name": [413, "too_large", [insert("k".repeat(2000), 1)]],
    "too large by a merge": [413, "too_large", [{ do: "patch", patch: { b: { c: "x".repeat(2000) } } }]],
    "too large by an update": [413, "too_large", [{ do: "push", key: "b", value: "x".repeat(2000) }]],
    "too deep": [422, "unprocessable", [insert("b", deep(110))]],
    "an increment of a text": [422, "unprocessable", [insert("b", "text"), increment("b", 1)]],
    "an increment by a text": [422, "unprocessable", [increment("a", "1")]],
    "an increment to no number": [422, "unprocessable", [insert("b", 1e308), increment("b", 1e308)]],
  };
  for (const [what, [status, code, operations]] of Object.entries(REFUSED)) {
    test(`(${what}) is refused, and what is stored stays`, async () => {
      for (const visit of [visitor, crate.workers[0].visitor()]) {
        const before = await dataOf(visit);
        const answer = await operate(visit, operations);
        assert.deepEqual([answer.status, answer.json.code], [status, code], answer.text);
        assert.deepEqual(answer.setCookies, []);
        assert.deepEqual(await dataOf(visit), before);
      }
    });
  }

  test("because of what another request has added meanwhile is refused when it is written", async () => {
    const held = crate.upstream.hold();
    const working = operate(visitor, [insert("b", "x".repeat(1500)), { do: "wait" }]);
    await held.arrived;
    await operate(elsewhere, [insert("c", "x".repeat(1500))]);
    held.release();
    const { status, json } = await working;
    assert.deepEqual([status, json.code], [413, "too_large"]);
    assert.deepEqual(Object.keys(await dataOf(visitor)).sort(), ["a", "c"]);
  });
});

describe("the number of calls", () => {
  /** @param {Operation[]} operations */
  const callsOf = async (operations, visit = visitor) => {
    const { value, calls } = await crate.store.counters.during(() => operate(visit, operations));
    assert.equal(value.status, 200, value.text);
    return calls;
  };
  test("is one to load, one to write however much changes, and none for what changes nothing", async () => {
    assert.equal(await callsOf([{ do: "data" }]), 1);
    assert.equal(await callsOf([insert("b", 1), insert("c", 2), increment("a", 1), remove("b")]), 2);
    assert.equal(await callsOf([insert("c", 2), remove("nothing"), { do: "patch", patch: {} }]), 1);
    assert.equal(await callsOf([insert("d", 2), { do: "discard" }]), 1);
    assert.equal(await callsOf([insert("d", 2), { do: "save" }, { do: "save" }]), 2);
    assert.equal(await callsOf([insert("e", 2), { do: "double", key: "a", plus: 0 }]), 2);
  });

  test("without a session is none to load, and one to begin it", async () => {
    const nobody = () => crate.workers[0].visitor();
    assert.equal(await callsOf([{ do: "data" }, get("a"), remove("a"), { do: "discard" }], nobody()), 0);
    assert.equal(await callsOf([insert("b", 1), increment("c", 1)], nobody()), 1);
    assert.equal(await callsOf([insert("b", 1), { do: "discard" }], nobody()), 0);
    assert.equal(await callsOf([{ do: "push", key: "b", value: 1 }], nobody()), 1);
    assert.equal(await callsOf([{ do: "look" }], nobody()), 0);
  });
});

describe("changes at the same time", () => {
  test("to different members are all kept", async () => {
    const held = crate.upstream.hold();
    const working = operate(visitor, [insert("b", 2), { do: "wait" }]);
    await held.arrived;
    await operate(elsewhere, [insert("c", 3), remove("a")]);
    held.release();
    assert.equal((await working).status, 200);
    assert.deepEqual(await dataOf(visitor), { b: 2, c: 3 });
  });

  test("computed from what was there are computed again", async () => {
    // Held before its compare-and-set, until another request has changed what it has read.
    const isWrite = (/** @type {{ commands: string[][] }} */ { commands }) =>
      commands.some(([name]) => name === "SET");
    const held = crate.store.faults.hold(isWrite);
    const working = operate(visitor, [{ do: "double", key: "a", plus: 0 }]);
    await held.arrived;
    await operate(elsewhere, [insert("a", 50)]);
    held.release();
    const { json } = await working;
    assert.deepEqual([json, await dataOf(visitor)], [[100], { a: 100 }]);
  });

  for (const seed of [1, 2, 3, 4, 5, 6]) {
    test(`in any order are all kept (history ${seed})`, async () => {
      const random = generator(seed);
      const sums = { x: 0, y: 0 };
      /** @type {Record<string, number>} */
      const members = {};
      /** @type {string[]} */
      const pushed = [];
      /** @type {(() => Operation)[]} */
      const makers = [
        () => {
          const key = random() < 0.5 ? "x" : "y";
          const by = Math.floor(random() * 20) - 5;
          sums[key] += by;
          return increment(key, by);
        },
        () => {
          const name = `m${Object.keys(members).length}`;
          members[name] = Math.floor(random() * 100);
          return random() < 0.5
            ? insert(name, members[name])
            : { do: "patch", patch: { [name]: members[name] } };
        },
        () => {
          pushed.push(`p${pushed.length}`);
          return { do: "push", key: "list", value: pushed.at(-1) };
        },
      ];
      const requests = Array.from({ length: 24 }, () =>
        Array.from({ length: 1 + Math.floor(random() * 3) }, () =>
          makers[Math.floor(random() * makers.length)](),
        ),
      );
      const answers = await Promise.all(
        requests.map((operations, index) =>
          operate(index % 2 ? visitor.clone() : elsewhere.clone(), operations),
        ),
      );
      for (const { status, text } of answers) assert.equal(status, 200, text);
      const { a, x = 0, y = 0, list = [], ...rest } = await dataOf(visitor);
      assert.deepEqual({ a, x, y }, { a: 1, ...sums });
      assert.deepEqual(rest, members);
      assert.deepEqual(list.sort(), pushed.sort());
    });
  }

  test("of which one does not fit what another would write are made, and say so, if the other is not made", async () => {
    const { counters, faults } = crate.store;
    const isWrite = (/** @type {{ commands: string[][] }} */ { commands }) => commands[0]?.[0] === "SET";
    faults.next({ entry: 0, error: "OOM command not allowed" }, { when: isWrite });
    const held = faults.hold(isWrite);
    const large = operate(visitor.clone(), [insert("large", "x".repeat(1900))]);
    await held.arrived;
    const before = counters.calls;
    const small = operate(visitor.clone(), [{ do: "double", key: "y".repeat(100), plus: 1 }]);
    await until(() => counters.calls > before); // it has read, and waits for the other's write
    held.release();
    assert.equal((await large).status, 503);
    assert.deepEqual((await small).json, [1]);
    assert.deepEqual(await dataOf(visitor), { a: 1, ["y".repeat(100)]: 1 });
  });

  test("behind lagging replicas are all kept", async () => {
    crate.store.faults.lag = 300;
    try {
      const visits = Array.from({ length: 10 }, (_, index) =>
        operate(index % 2 ? visitor.clone() : elsewhere.clone(), [increment("n", 1)], { method: "GET" }),
      );
      for (const { status, text } of await Promise.all(visits)) assert.equal(status, 200, text);
    } finally {
      crate.store.faults.clear();
    }
    assert.equal((await operate(visitor, [get("n")])).json[0], 10);
  });
});

/** Random numbers from 0 to 1, the same for the same seed (mulberry32). @param {number} seed */
function generator(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
