/** The crate: which cookies are a session, how one begins, is exchanged and ends, and what the visitor's browser is told. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import { dataOf, operate, startCrateWorkers } from "./support/crate.mjs";
import { randomSecret, until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {import("./support/crate.mjs").Operation} Operation */
const HOUR = 3_600_000;
const NOTHING = { calls: 0, commands: 0, byName: {} };

/** @type {import("./support/crate.mjs").CrateWorkers} */
let crate;
/** @type {import("./support/crate.mjs").Isolate} */
let worker;
/** @type {import("./support/crate.mjs").Visitor} */
let visitor;
before(async () => {
  crate = await startCrateWorkers({ name: "crate-sessions" });
  [worker] = crate.workers;
});
after(() => crate?.stop());
beforeEach(async () => {
  crate.upstream.reset();
  crate.store.faults.clear();
  visitor = worker.visitor();
  assert.equal((await operate(visitor, [insert("a", 1)])).status, 200);
});

/** @param {string} key @param {unknown} value @returns {Operation} */
const insert = (key, value) => ({ do: "insert", key, value });

/** @param {Answer} answer */
const removed = ({ setCookies }) =>
  setCookies.filter((line) => /^__Host-session=; .*Max-Age=0/.test(line)).length;

/** @param {Answer} answer */
const issued = ({ setCookies }) => setCookies.filter((line) => /^__Host-session=[\w-]{40}/.test(line)).length;

describe("a cookie that is no ticket of ours", () => {
  /** @type {Record<string, (ticket: string) => string>} */
  const FORGERIES = {
    "with another character": (ticket) =>
      ticket.slice(0, 40) + (ticket[40] === "A" ? "B" : "A") + ticket.slice(41),
    "without its first": (ticket) => ticket.slice(1),
    "without its last": (ticket) => ticket.slice(0, -1),
    "with one more": (ticket) => `${ticket}A`,
    empty: () => "",
    "8 KB long": () => "x".repeat(8000),
  };
  for (const [what, forge] of Object.entries(FORGERIES)) {
    test(`(${what}) is no session, and finding that out makes no call`, async () => {
      visitor.ticket = forge(String(visitor.ticket));
      const { value, ...cost } = await crate.store.counters.during(() =>
        operate(visitor.clone(), [{ do: "data" }]),
      );
      assert.deepEqual([value.status, value.json], [200, [{}]]);
      assert.deepEqual(cost, NOTHING);
      assert.equal(removed(value), 1, "a request that may change something removes it");
      assert.equal(
        removed(await operate(visitor, [{ do: "data" }], { method: "GET" })),
        0,
        "a safe one does not",
      );
    });
  }

  test("is replaced by the first change", async () => {
    visitor.ticket = "nonsense";
    assert.equal(issued(await operate(visitor, [insert("b", 2)])), 1);
    assert.deepEqual(await dataOf(visitor), { b: 2 });
  });

  test("past its end is no session, either", async () => {
    const later = await crate.start({});
    const late = visitor.clone();
    late.url = later.url;
    await later.moveClock(25 * HOUR);
    const { value, ...cost } = await crate.store.counters.during(() => operate(late, [{ do: "data" }]));
    assert.deepEqual([value.json, cost], [[{}], NOTHING]);
  });

  test("by a secret that is not known here keeps: it may be being rolled out", async () => {
    const stranger = await crate.start({ secrets: { SESSION_SECRET: randomSecret() } });
    const other = visitor.clone();
    other.url = stranger.url;
    const answer = await operate(other, [{ do: "data" }]);
    assert.deepEqual([answer.json, answer.setCookies], [[{}], []]);
  });

  test("beside the good one, as of another path, does no harm", async () => {
    const cookie = `__Host-session=planted; ${visitor.cookieHeader()}; __Host-session=planted`;
    const answer = await worker
      .visitor()
      .send("GET", '/operations?run=[{"do":"data"}]', { headers: { Cookie: cookie } });
    assert.deepEqual([answer.json, answer.setCookies], [[{ a: 1 }], []]);
  });

  test("of a path of one's own is set and read under that name and path", async () => {
    const settings = { base_path: "/operations/auth", cookie: { name: "shop", path: "/operations" } };
    const shop = (await crate.start({ settings })).visitor();
    const { setCookies } = await operate(shop, [insert("b", 2)]);
    assert.match(setCookies[0], /^shop=[\w-]+; .*Path=\/operations/);
    assert.deepEqual(await dataOf(shop), { b: 2 });
  });
});

describe("a session that was ended", () => {
  /** @type {Record<string, (other: typeof visitor) => Promise<Answer>>} */
  const ENDINGS = {
    "by a logout": (other) => operate(other, [{ do: "log_out" }]),
    "with all of the user's": (other) => operate(other, [{ do: "end_all" }]),
  };
  for (const [how, end] of Object.entries(ENDINGS)) {
    test(`(${how}) is none, in the other isolate, too`, async () => {
      await operate(visitor, [{ do: "log_in", user: "ada" }]);
      const late = visitor.clone();
      late.url = crate.workers[1].url;
      assert.deepEqual(await dataOf(late), { a: 1 });
      assert.equal(removed(await end(visitor)), 1);
      const read = await operate(late, [{ do: "data" }], { method: "GET" });
      assert.deepEqual([read.json, read.setCookies], [[{}], []]);
      const change = await operate(late, [insert("b", 2)]);
      assert.equal(issued(change), 1);
      assert.deepEqual(await dataOf(late), { b: 2 }, "a new one, which holds only what is new");
    });

    test(`(${how}) while a handler works on it is not brought back`, async () => {
      for (const method of /** @type {const} */ (["POST", "GET"])) {
        const user = worker.visitor();
        await operate(user, [insert("a", 1), { do: "log_in", user: `ada-${method}` }]);
        const elsewhere = user.clone();
        elsewhere.url = crate.workers[1].url;
        const held = crate.upstream.hold();
        const working = operate(user, [insert("b", 2), { do: "wait" }], { method });
        await held.arrived;
        assert.equal((await end(elsewhere)).status, 200);
        held.release();
        const answer = await working;
        assert.deepEqual([answer.status, answer.json.code], [401, "unauthenticated"], method);
        assert.equal(issued(answer), 0);
        assert.equal(
          removed(answer),
          method === "POST" ? 1 : 0,
          "a safe request's answer may have been overtaken",
        );
        assert.deepEqual(await dataOf(user), {});
      }
    });
  }

  test("by a logout in the handler of a safe request takes its cookie along", async () => {
    const answer = await operate(visitor, [{ do: "log_out" }], { method: "GET" });
    assert.deepEqual([answer.status, removed(answer)], [200, 1]);
    assert.equal(visitor.ticket, undefined);
  });

  test("can be followed by another in the same request", async () => {
    const old = visitor.clone();
    const answer = await operate(visitor, [insert("lost", 1), { do: "log_out" }, insert("b", 2)]);
    assert.deepEqual([answer.status, issued(answer), removed(answer)], [200, 1, 0]);
    assert.deepEqual([await dataOf(visitor), await dataOf(old)], [{ b: 2 }, {}]);
  });
});

describe("a login", () => {
  test("exchanges the id, carries over what an anonymous session holds, and the old id is dead", async () => {
    const old = visitor.clone();
    const answer = await operate(visitor, [insert("b", 2), { do: "log_in", user: "ada" }, insert("c", 3)]);
    assert.deepEqual([answer.status, issued(answer)], [200, 1], answer.text);
    assert.deepEqual([await dataOf(visitor), await dataOf(old)], [{ a: 1, b: 2, c: 3 }, {}]);
    assert.equal((await visitor.send("GET", "/through-helpers")).text, "ADA");
  });

  test("is two calls, with the look at the account and the changes before it, and with the request's own three", async () => {
    for (const [user, calls] of /** @type {const} */ ([
      [worker.visitor(), 2],
      [visitor, 3],
    ])) {
      crate.store.counters.reset();
      const operations = [{ do: "remove", key: "a" }, insert("b", 2), { do: "log_in", user: "dee" }];
      assert.equal((await operate(user, operations)).status, 200);
      // After the answer the old record is deleted.
      const sent = crate.store.counters.log.filter(([name]) => name !== "DEL");
      assert.equal(sent.length, calls, JSON.stringify(sent));
      assert.ok(sent.flat().length <= 10, JSON.stringify(sent));
      assert.deepEqual(await dataOf(user), { b: 2 });
    }
  });

  test("makes the changes before it to what another request has left", async () => {
    const elsewhere = visitor.clone();
    elsewhere.url = crate.workers[1].url;
    const held = crate.upstream.hold();
    const working = operate(visitor, [
      { do: "increment", key: "a", by: 10 },
      { do: "wait" },
      { do: "log_in", user: "ada" },
    ]);
    await held.arrived;
    await operate(elsewhere, [{ do: "increment", key: "a", by: 100 }, insert("b", 2)]);
    held.release();
    assert.equal((await working).status, 200);
    assert.deepEqual(await dataOf(visitor), { a: 111, b: 2 });
  });

  test("shows nothing of another user's session, also if that ends meanwhile, and no changes to it", async () => {
    for (const ends of [false, true]) {
      const shared = worker.visitor();
      await operate(shared, [insert("of", "ada"), { do: "log_in", user: "ada" }]);
      const elsewhere = shared.clone();
      const held = crate.upstream.hold();
      const working = operate(shared, [
        insert("also of", "ada"),
        { do: "wait" },
        { do: "log_in", user: "bob" },
      ]);
      await held.arrived;
      if (ends) await operate(elsewhere, [{ do: "log_out" }]);
      held.release();
      assert.equal((await working).status, 200);
      assert.deepEqual(await dataOf(shared), {});
      assert.equal((await shared.send("GET", "/through-helpers")).text, "BOB");
    }
  });

  test("that is to be remembered has a cookie that outlives the browser", async () => {
    for (const [remember, age] of /** @type {const} */ ([
      [true, /; Max-Age=(2592000|2591999)(;|$)/],
      [false, /^(?!.*Max-Age)/],
    ])) {
      const { setCookies } = await operate(worker.visitor(), [{ do: "log_in", user: "ada", remember }]);
      assert.match(String(setCookies.find((line) => line.startsWith("__Host-session="))), age);
    }
  });

  test("is told to the visitor also with the refusal that comes after it", async () => {
    const tooLarge = insert("b", "x".repeat(70_000));
    const answer = await operate(visitor, [{ do: "log_in", user: "ada" }, tooLarge]);
    assert.deepEqual([answer.status, issued(answer)], [413, 1]);
    assert.equal((await visitor.send("GET", "/through-helpers")).text, "ADA");
  });

  test("is told to the visitor also with the failure that comes after it", async () => {
    const held = crate.upstream.hold();
    const working = operate(visitor, [{ do: "log_in", user: "ada" }, { do: "wait" }, insert("b", 2)]);
    await held.arrived;
    crate.store.faults.always("refuse");
    held.release();
    const answer = await working;
    assert.deepEqual([answer.status, issued(answer)], [503, 1], "the id before it is dead");
    crate.store.faults.clear();
    assert.deepEqual(await dataOf(visitor), { a: 1 });
  });

  test("of a user that cannot be is refused, and leaves everything as it is", async () => {
    for (const user of ["", "x".repeat(256), { id: "a", name: "a", roles: ["a,b"] }]) {
      const { status, json, setCookies } = await operate(visitor, [{ do: "log_in", user }]);
      assert.deepEqual([status, json.code, setCookies], [422, "unprocessable", []]);
    }
    assert.deepEqual(await dataOf(visitor), { a: 1 });
  });

  test("of a user whose account of the service's is disabled is refused, and leaves everything as it is", async () => {
    const tag = createHash("sha256").update("cloakroom user tag v1 eve").digest().subarray(0, 16);
    const account = {
      v: 1,
      rev: "AQEBAQEBAQEBAQEB",
      id: "eve",
      name: "Eve",
      hash: "",
      created_at: 0,
      profile: {},
    };
    const set = (/** @type {object} */ more) =>
      crate.store.redis.mSet({
        "account:eve": JSON.stringify({ ...account, ...more }),
        [`user:${tag.toString("base64url")}:account`]: "eve",
      });
    await set({ disabled: true });
    const { status, json, setCookies } = await operate(visitor, [{ do: "log_in", user: "eve" }]);
    assert.deepEqual([status, json.code, setCookies], [409, "conflict", []]);
    assert.match(json.detail, /the account of this user is disabled/);
    assert.deepEqual(await dataOf(visitor), { a: 1 });
    await set({});
    assert.equal((await operate(visitor, [{ do: "log_in", user: "eve" }])).status, 200);
  });

  test("is in the user's list, from which every other one can be ended", async () => {
    const [laptop, phone] = [worker.visitor(), crate.workers[1].visitor()];
    for (const device of [laptop, phone]) await operate(device, [{ do: "log_in", user: "cy" }]);
    const [listed] = (await operate(laptop, [{ do: "list" }])).json;
    assert.deepEqual(
      listed.map((/** @type {any} */ one) => one.current),
      [true, false],
    );
    assert.equal((await operate(laptop, [{ do: "end_others" }])).status, 200);
    assert.equal((await operate(laptop, [{ do: "list" }])).json[0].length, 1);
    assert.equal((await operate(phone, [{ do: "list" }])).status, 401);
  });
});

describe("a rotation", () => {
  test("that is due happens at load, once, and the handler's change goes to the new id", async () => {
    await worker.moveClock(HOUR + 1000);
    try {
      const answer = await operate(visitor, [insert("b", 2)]);
      assert.deepEqual([answer.status, issued(answer)], [200, 1]);
      const next = await operate(visitor, [insert("c", 3)]);
      assert.deepEqual([next.status, issued(next)], [200, 0]);
      assert.deepEqual(await dataOf(visitor), { a: 1, b: 2, c: 3 });
    } finally {
      await worker.moveClock(-HOUR - 1000);
    }
  });

  test("asked for keeps the session under a new id, and follows requests under way", async () => {
    const old = visitor.clone();
    const answer = await operate(visitor, [insert("b", 2), { do: "cycle" }, insert("c", 3), { do: "cycle" }]);
    assert.deepEqual([answer.status, issued(answer)], [200, 1]);
    assert.notEqual(visitor.ticket, old.ticket);
    assert.deepEqual(await dataOf(visitor), { a: 1, b: 2, c: 3 });
    assert.equal((await operate(old, [insert("d", 4)])).status, 200);
    assert.deepEqual(await dataOf(visitor), { a: 1, b: 2, c: 3, d: 4 });
  });

  test("by another request while a handler works loses no change", async () => {
    const elsewhere = visitor.clone();
    elsewhere.url = crate.workers[1].url;
    const held = crate.upstream.hold();
    const working = operate(visitor, [insert("b", 2), { do: "wait" }]);
    await held.arrived;
    assert.equal((await operate(elsewhere, [{ do: "cycle" }, insert("c", 3)])).status, 200);
    held.release();
    assert.equal((await working).status, 200);
    assert.deepEqual(await dataOf(elsewhere), { a: 1, b: 2, c: 3 });
  });

  test("of nobody's session changes nothing", async () => {
    const { status, setCookies } = await operate(worker.visitor(), [{ do: "cycle" }]);
    assert.deepEqual([status, setCookies], [200, []]);
  });
});

test("a new id whose cookie gets lost with a dropped session is in the log", async () => {
  await operate(visitor, [{ do: "log_in", user: "ada" }]);
  worker.logs.length = 0;
  await visitor.send("GET", "/dropped-login");
  await until(() => worker.logs.join("").includes("dropped with a new id that its visitor does not learn"));
});
