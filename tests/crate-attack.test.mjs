/** The crate under attack, and in the hands of authors in a hurry. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { dataOf, operate, startCrateWorkers } from "./support/crate.mjs";

/** @type {import("./support/crate.mjs").CrateWorkers} */
let crate;
/** @type {import("./support/crate.mjs").Isolate} */
let isolate;
/** @type {import("./support/crate.mjs").Visitor} */
let visitor;
before(async () => {
  crate = await startCrateWorkers({ name: "crate-attack", isolates: 1 });
  [isolate] = crate.workers;
});
after(() => crate?.stop());
beforeEach(() => {
  crate.store.faults.clear();
  crate.upstream.reset();
  visitor = isolate.visitor();
});

/** @param {string} name @param {string} [argument] */
const attack = (name, argument = "", who = visitor) => who.send("POST", `/attacks/${name}?${argument}`);

describe("a new cookie", () => {
  const SHARED = ["cdn-cache-control", "cloudflare-cdn-cache-control", "surrogate-control"];

  for (const caching of ["private", "public,max-age=60", "max-age=60,private=%22x-name%22"]) {
    test(`is kept by no shared cache, whatever an author says to it beside ${caching}`, async () => {
      const first = await attack("for-shared-caches", caching);
      assert.equal(first.setCookies.length, 1);
      for (const name of SHARED) assert.equal(first.headers.get(name), "no-store", name);
      assert.equal(first.headers.get("cache-control"), caching === "private" ? "private" : "no-store");
      // Read-your-writes has a cookie, too.
      const second = await attack("for-shared-caches", caching);
      assert.deepEqual([second.setCookies, second.headers.getSetCookie().length], [[], 1]);
      for (const name of SHARED) assert.equal(second.headers.get(name), "no-store", name);
    });
  }
});

describe("a limit", () => {
  test("that one request asks several times at once lets no more through than one after the other", async () => {
    const { json } = await attack("limits-at-once", "ada,bob,ada,ada,bob,ada,cy");
    const left = (/** @type {string} */ who) =>
      json.filter((/** @type {string} */ one) => one.startsWith(who));
    assert.deepEqual(left("ada").sort(), ["ada 0", "ada 1", "ada refused", "ada refused"]);
    assert.deepEqual(left("bob").sort(), ["bob 0", "bob 1"]);
    assert.deepEqual(left("cy"), ["cy 1"]);
  });

  test("by session is not escaped by beginning a new one each time", async () => {
    const statuses = [];
    for (const who of [1, 2, 3, 4].map(() => isolate.visitor())) {
      statuses.push((await attack("limit-of-a-new-session", "", who)).status);
    }
    assert.deepEqual(statuses, [200, 200, 429, 429]);
  });
});

describe("many visitors in one isolate, all at once", () => {
  for (const name of ["a wait in the handlers", "slow answers of the store"]) {
    test(`get each their own session and their own cookie through ${name}`, async () => {
      const visitors = Array.from({ length: 20 }, (_, index) => ({
        id: `${name} ${index}`,
        visitor: isolate.visitor(),
      }));
      const held = crate.upstream.hold();
      if (name.startsWith("slow")) crate.store.faults.always({ delay: 20 });
      const answers = visitors.map(({ id, visitor }) =>
        operate(visitor, [
          { do: "insert", key: "id", value: id },
          { do: "wait" },
          { do: "save" },
          { do: "log_in", user: id },
          { do: "increment", key: "views", by: 1 },
          { do: "data" },
        ]),
      );
      await held.arrived;
      held.release();
      for (const [index, { id, visitor }] of visitors.entries()) {
        const { json, setCookies } = await answers[index];
        assert.deepEqual(json.at(-1), { id, views: 1 });
        assert.equal(setCookies.length, 1);
        assert.deepEqual(await dataOf(visitor), { id, views: 1 });
        const [listed] = (await operate(visitor, [{ do: "list" }])).json;
        assert.deepEqual([listed.length, listed[0].current], [1, true]);
      }
      assert.equal(new Set(visitors.map(({ visitor }) => visitor.ticket)).size, visitors.length);
    });
  }
});

test("a session that its user ends under the handle of before its rotation is logged out", async () => {
  const rotating = await crate.start({ settings: { session: { rotate_every: "1m" } } });
  const user = rotating.visitor();
  const [, [{ handle }]] = (await operate(user, [{ do: "log_in", user: "ada" }, { do: "list" }])).json;
  await rotating.moveClock(61_000);
  const ended = await attack("end", handle, user);
  assert.deepEqual([ended.status, ended.json], [200, [false, false]]);
  assert.match(ended.setCookies.join(), /Max-Age=0/);
  assert.equal(user.ticket, undefined);
});

test("a login that grows too old while the handler waits is not fresh any more", async () => {
  await operate(visitor, [{ do: "log_in", user: "ada" }]);
  const held = crate.upstream.hold();
  const answer = attack("fresh-after-a-wait");
  await held.arrived;
  await isolate.moveClock(16 * 60_000);
  held.release();
  assert.deepEqual((await answer).json, [true, false]);
});

test("faults of the configuration reach no client, whatever an author shows of an error", async () => {
  const faulty = await crate.start({ secrets: { SESSION_SECRET: undefined, UPSTASH_REDIS_REST_TOKEN: "" } });
  const { text } = await faulty.visitor().send("GET", "/faults");
  assert.match(text, /its log says what to change/);
  assert.doesNotMatch(text, /SESSION_SECRET|TOKEN/);
  assert.match(faulty.logs.join(""), /SESSION_SECRET is missing/);
});
