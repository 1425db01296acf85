/** The crate: an error that leaves a handler, by whatever way, is answered as what it is. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { dataOf, operate, startCrateWorkers } from "./support/crate.mjs";
import { randomSecret, until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */

/** @type {import("./support/crate.mjs").CrateWorkers} */
let crate;
/** @type {import("./support/crate.mjs").Visitor} */
let visitor;
before(async () => void (crate = await startCrateWorkers({ name: "crate-errors", isolates: 1 })));
after(() => crate?.stop());
beforeEach(async () => {
  crate.store.faults.clear();
  visitor = crate.workers[0].visitor();
  assert.equal((await operate(visitor, [{ do: "insert", key: "a", value: 1 }])).status, 200);
});

/** @param {Answer} answer @param {[number, string]} problem  its status and its code */
function assertProblem({ status, json, headers, text }, [expected, code]) {
  assert.equal(status, expected, text);
  assert.equal(headers.get("content-type"), "application/problem+json");
  assert.deepEqual([json.status, json.code], [expected, code]);
  assert.equal(headers.get("cache-control"), "no-store, no-transform");
}

describe("a dead store", () => {
  for (const fault of /** @type {const} */ (["refuse", "quota", "cut"])) {
    for (const path of ["/text?count", "/operations?run=[]", "/through-helpers"]) {
      test(`(${fault}) makes ${path} a 503 that logs nobody out`, async () => {
        crate.store.faults.always(fault);
        const answer = await visitor.send("GET", path);
        assertProblem(answer, [503, "store_unavailable"]);
        assert.equal(answer.headers.get("retry-after"), "1");
        assert.deepEqual(answer.headers.getSetCookie(), []);
        crate.store.faults.clear();
        assert.deepEqual(await dataOf(visitor), { a: 1 });
      });
    }
  }

  test("that dies between load and save is a 503 too, and nothing is written", async () => {
    crate.store.faults.always("refuse", {
      when: ({ commands }) => commands.some(([name]) => /^(SET|EVAL|EVALSHA)$/.test(name ?? "")),
    });
    const answer = await visitor.send("GET", "/text?count");
    assertProblem(answer, [503, "store_unavailable"]);
    assert.deepEqual(answer.headers.getSetCookie(), []);
    crate.store.faults.clear();
    assert.deepEqual(await dataOf(visitor), { a: 1 });
  });

  test("is no matter for visitors without a session who change nothing", async () => {
    crate.store.faults.always("refuse");
    const answer = await crate.workers[0].visitor().send("GET", "/text");
    assert.deepEqual([answer.status, answer.text], [200, "text"]);
  });
});

describe("a limit", () => {
  test("that is used up is a 429 that says when to come back, at load and for a session that would begin", async () => {
    const limits = { session: "3/1m", mint: "1/1m", login: "" };
    const strict = await crate.start({ settings: { limits } });
    const one = strict.visitor();
    await operate(one, [{ do: "insert", key: "a", value: 1 }]);
    for (const left of [2, 1, 0]) {
      const { status, headers } = await one.send("GET", "/text");
      assert.deepEqual(
        [status, headers.get("ratelimit")?.match(/"session";r=(\d+)/)?.[1]],
        [200, String(left)],
      );
    }
    for (const [who, name] of /** @type {const} */ ([
      [one, "session"],
      [strict.visitor(), "mint"],
    ])) {
      const refused = await who.send("GET", "/text?count");
      assertProblem(refused, [429, "rate_limited"]);
      assert.match(refused.headers.get("retry-after") ?? "", /^\d+$/);
      assert.match(refused.headers.get("ratelimit") ?? "", new RegExp(`"${name}";r=0`));
      assert.match(refused.headers.get("ratelimit-policy") ?? "", new RegExp(`"${name}";q=`));
      assert.deepEqual(refused.headers.getSetCookie(), []);
    }
  });
});

describe("a misconfigured environment", () => {
  test("is a 500 that says nothing, and the log lists every fault", async () => {
    const broken = await crate.start({
      settings: { session: { idle: "soon" }, colour: "red" },
      secrets: { SESSION_SECRET: "short and secret", UPSTASH_REDIS_REST_TOKEN: undefined },
    });
    for (const path of ["/text?count", "/operations?run=[]"]) {
      const answer = await broken.visitor().send("GET", path);
      assertProblem(answer, [500, "misconfigured"]);
      assert.doesNotMatch(answer.text, /idle|colour|SESSION_SECRET|UPSTASH/);
    }
    const faults = [/session\.idle/, /colour/, /SESSION_SECRET/, /UPSTASH_REDIS_REST_TOKEN/];
    await until(
      () => faults.every((fault) => fault.test(broken.logs.join(""))),
      () => broken.logs.join(""),
    );
    const log = broken.logs.join("");
    assert.doesNotMatch(log, /short and secret/);
    assert.equal(log.match(/SESSION_SECRET/g)?.length, 1, "once per isolate");
  });
});

describe("a problem of ours", () => {
  test("is the same through functions that return worker's Result", async () => {
    const answer = await visitor.send("GET", "/through-helpers");
    assertProblem(answer, [401, "unauthenticated"]);
    assert.equal(answer.headers.get("www-authenticate"), "Bearer");
    assert.equal(answer.headers.get("vary"), "Cookie");
    await operate(visitor, [{ do: "log_in", user: "ada" }]);
    assert.equal((await visitor.send("GET", "/through-helpers")).text, "ADA");
  });

  test("that leaves a handler takes the changes along that were not written", async () => {
    assertProblem(await visitor.send("POST", "/refused-change"), [401, "unauthenticated"]);
    assert.deepEqual(await dataOf(visitor), { a: 1 });
  });

  test("without `handle` is an exception of the Worker's, of which the visitor learns nothing", async () => {
    assert.equal((await visitor.send("GET", "/ten-lines")).text, "Views: 1");
    crate.store.faults.always("refuse");
    const { status, headers, text } = await visitor.send("GET", "/ten-lines");
    assert.equal(status, 500);
    assert.deepEqual(headers.getSetCookie(), []);
    assert.doesNotMatch(text, new RegExp(crate.store.token));
  });
});

describe("an author's own error", () => {
  test("stays the author's, and takes the changes along", async () => {
    const [worker] = crate.workers;
    const { status, text } = await visitor.send("POST", "/own-error");
    assert.deepEqual([status, text], [500, "INTERNAL SERVER ERROR"], "what `worker` answers to it");
    await until(() => worker.logs.join("").includes("the author's own"));
    assert.deepEqual(await dataOf(visitor), { a: 1 });
  });
});

describe("a request of another site's page", () => {
  /** @type {Record<string, string>[]} */
  const FOREIGN = [
    { "Sec-Fetch-Site": "cross-site" },
    { "Sec-Fetch-Site": "same-site" },
    { Origin: "https://evil.example" },
  ];

  for (const headers of FOREIGN) {
    test(`(${JSON.stringify(headers)}) is the handler's matter, unless it asks`, async () => {
      assert.equal((await visitor.send("POST", "/unchecked", { headers })).status, 200);
      assertProblem(await visitor.send("POST", "/checked", { headers }), [403, "cross_site"]);
      assert.equal((await visitor.send("GET", "/checked", { headers })).status, 200, "a safe one");
      assert.equal(
        (await operate(visitor, [{ do: "get", key: "a" }], { headers })).json[0],
        1,
        "with its session",
      );
    });
  }

  test("is checked no differently for a program and for the site's own pages", async () => {
    /** @type {Record<string, string>[]} */
    const own = [
      {},
      { "Sec-Fetch-Site": "same-origin" },
      { "Sec-Fetch-Site": "none" },
      { Origin: visitor.url },
    ];
    for (const headers of own) {
      assert.equal(
        (await visitor.send("POST", "/checked", { headers })).status,
        200,
        JSON.stringify(headers),
      );
    }
  });
});

test("no log has a secret, an id or anything of a visitor's in it", async () => {
  const { logs, store } = crate;
  const secret = randomSecret();
  await operate(visitor, [
    { do: "insert", key: secret, value: secret },
    { do: "increment", key: secret, by: 1 },
  ]);
  await visitor.send("GET", "/dropped");
  await until(() => logs().includes("dropped with changes"));
  for (const private_ of [secret, String(visitor.ticket), store.token, "visitor's"]) {
    assert.ok(!logs().includes(private_), private_);
  }
});

test("a session that is dropped with changes says so in the log, once, and without them", async () => {
  const [worker] = crate.workers;
  worker.logs.length = 0;
  assert.equal((await visitor.send("GET", "/dropped")).text, "dropped");
  await until(() => worker.logs.join("").includes("dropped"));
  assert.match(
    worker.logs.join(""),
    /a session was dropped with changes that were not written: .*Session::respond/,
  );
  assert.equal(worker.logs.join("").match(/a session was dropped/g)?.length, 1);
  assert.deepEqual(await dataOf(visitor), { a: 1 });
});
