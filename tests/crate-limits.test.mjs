/** The crate: limits of a handler's own. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { dataOf, operate, startCrateWorkers } from "./support/crate.mjs";
import { until } from "./support/worker.mjs";

/** @typedef {import("./support/crate.mjs").Operation} Operation */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */

/** @type {import("./support/crate.mjs").CrateWorkers} */
let crate;
/** @type {import("./support/crate.mjs").Visitor} */
let visitor;
/** Another one for each test. */
let name = "";
let tests = 0;
before(async () => void (crate = await startCrateWorkers({ name: "crate-limits" })));
after(() => crate?.stop());
beforeEach(async () => {
  name = `limit-${(tests += 1)}`;
  crate.store.faults.clear();
  visitor = crate.workers[0].visitor();
  await operate(visitor, [{ do: "insert", key: "a", value: 1 }]);
});

/** @param {object} [more] @returns {Operation} */
const limit = (more) => ({ do: "limit", name, quota: "5/1h", ...more });

/** @param {typeof visitor} who @param {object} [more] */
const ask = (who, more) => operate(who, [limit(more)]);

/** What is left, which every answer's fields say, too. @param {Promise<Answer>} asking */
async function left(asking) {
  const { status, json, headers, text } = await asking;
  assert.equal(status, 200, text);
  const [[quota, remaining]] = json;
  assert.equal(headers.get("ratelimit-policy"), `"${name}";q=${quota};w=3600`);
  assert.match(String(headers.get("ratelimit")), new RegExp(`^"${name}";r=${remaining};t=\\d+$`));
  return remaining;
}

/** @param {Promise<Answer>} asking */
async function assertRefused(asking) {
  const { status, json, headers } = await asking;
  assert.deepEqual([status, json?.code], [429, "rate_limited"]);
  assert.match(json.detail, new RegExp(name));
  assert.match(String(headers.get("retry-after")), /^\d+$/);
  assert.match(String(headers.get("ratelimit")), new RegExp(`"${name}";r=0`));
}

test("a limit lets exactly its quota pass, whichever isolate is asked, and then says when to come back", async () => {
  const elsewhere = visitor.clone();
  elsewhere.url = crate.workers[1].url;
  const answers = await Promise.all(
    Array.from({ length: 12 }, (_, index) => ask(index % 2 ? visitor : elsewhere)),
  );
  assert.deepEqual(answers.filter(({ status }) => status === 200).length, 5);
  for (const who of [visitor, elsewhere]) await assertRefused(ask(who));
  assert.equal(await left(ask(crate.workers[1].visitor(), { by: "another visitor" })), 4);
});

test("a cost is taken as a whole or not at all", async () => {
  assert.equal(await left(ask(visitor, { cost: 3 })), 2);
  assert.equal((await ask(visitor, { cost: 3 })).status, 429);
  assert.equal(await left(ask(visitor, { cost: 2 })), 0);
  await assertRefused(ask(visitor, { cost: 1 }));
  assert.equal((await ask(visitor, { cost: 6 })).status, 429);
});

test("looking takes nothing, and is not refused", async () => {
  for (const expected of [5, 5]) assert.equal(await left(ask(visitor, { cost: 0 })), expected);
  await ask(visitor, { cost: 5 });
  for (const expected of [0, 0]) assert.equal(await left(ask(visitor, { cost: 0 })), expected);
});

describe("what is counted together", () => {
  test("is a session, also after a login and a rotation", async () => {
    assert.equal(await left(ask(visitor)), 4);
    await operate(visitor, [{ do: "cycle" }]);
    assert.equal(await left(ask(visitor)), 3);
    const another = crate.workers[0].visitor();
    await operate(another, [{ do: "insert", key: "a", value: 1 }]);
    assert.equal(await left(ask(another)), 4);
  });

  test("is by user all of the user's sessions", async () => {
    const phone = crate.workers[1].visitor();
    for (const who of [visitor, phone]) await operate(who, [{ do: "log_in", user: name }]);
    assert.equal(await left(ask(visitor, { by: "user" })), 4);
    assert.equal(await left(ask(phone, { by: "user" })), 3);
  });

  test("is by address everybody there, also without a session", async () => {
    assert.equal(await left(ask(visitor, { by: "address" })), 4);
    assert.equal(await left(ask(crate.workers[1].visitor(), { by: "address" })), 3);
    assert.equal(
      await left(ask(crate.workers[0].visitor())),
      2,
      "for whom it is what is asked without a session",
    );
  });

  test("is by a text whoever says the same, and the store does not hold it", async () => {
    assert.equal(await left(ask(visitor, { by: "tenant of the test" })), 4);
    assert.equal(await left(ask(crate.workers[1].visitor(), { by: "tenant of the test" })), 3);
    assert.equal(await left(ask(visitor, { by: "Tenant of the test" })), 4);
    assert.deepEqual(await crate.store.redis.keys("*enant of*"), []);
  });

  test("are several limits each on its own, in one request", async () => {
    const second = { ...limit(), name: `${name}-second`, quota: "9/1h" };
    const { json, headers } = await operate(visitor, [limit(), second, limit()]);
    assert.deepEqual(json, [
      [5, 4],
      [9, 8],
      [5, 3],
    ]);
    assert.match(
      String(headers.get("ratelimit")),
      new RegExp(`"${name}";r=3;t=\\d+, "${name}-second";r=8;t=\\d+`),
    );
  });
});

test("a refusal writes none of the changes before it that were not saved", async () => {
  const spend = limit({ cost: 5 });
  const { status } = await operate(visitor, [
    { do: "insert", key: "saved", value: 1 },
    { do: "save" },
    { do: "insert", key: "not saved", value: 1 },
    spend,
    spend,
  ]);
  assert.equal(status, 429);
  assert.deepEqual(await dataOf(visitor), { a: 1, saved: 1 });
});

test("no counter is without an end", async () => {
  await ask(visitor);
  await ask(visitor, { cost: 2, by: "text" });
  for (const key of await crate.store.redis.keys("*"))
    assert.ok((await crate.store.redis.pTTL(key)) > 0, key);
});

describe("a name or a quota that cannot be", () => {
  for (const wrong of [
    { name: "session" },
    { name: "login" },
    { name: "" },
    { name: 'a"b' },
    { name: "n".repeat(65) },
    { quota: "" },
    { quota: "many" },
    { quota: "0/1m" },
    { quota: "5/0s" },
    { quota: "5/1y" },
  ]) {
    test(`(${JSON.stringify(wrong).slice(0, 30)}) is a mistake of the handler's, told in the log`, async () => {
      const [worker] = crate.workers;
      worker.logs.length = 0;
      const { status, json, text } = await ask(visitor, wrong);
      assert.deepEqual([status, json.code], [500, "internal"]);
      assert.doesNotMatch(text, /limit/);
      await until(() => worker.logs.join("").includes("Session::limit: "));
    });
  }
});

describe("a dead store", () => {
  test("is a 503, and nothing passes uncounted", async () => {
    const nobody = crate.workers[0].visitor();
    crate.store.faults.always("refuse");
    const { status, json } = await ask(nobody);
    assert.deepEqual([status, json.code], [503, "store_unavailable"]);
  });

  test("lets pass what is only counted, if the settings say so", async () => {
    const open = await crate.start({ settings: { store: { on_failure: "open" } } });
    crate.store.faults.always("refuse");
    const { status, json } = await ask(open.visitor());
    assert.deepEqual([status, json], [200, [[5, 5]]]);
    await until(() => open.logs.join("").includes("without being counted"));
  });
});
