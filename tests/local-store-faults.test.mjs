/** What tests do to the local store and read from it: faults, held requests and counters. */
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { call, result, store } from "./support/local-store.mjs";

/** @typedef {import("./support/local-store.mjs").Fault} Fault */

describe("faults", () => {
  /** @param {() => Promise<unknown>} request */
  const failsToArrive = (request) => assert.rejects(request, { name: "TypeError" });

  test("refuse destroys the connection and executes nothing", async () => {
    store.faults.next("refuse");
    await failsToArrive(() => call("/", ["SET", "k", "v"]));
    assert.equal(await result("GET", "k"), null);
  });

  test("hang never answers, and executes only when told to", async () => {
    store.faults.next("hang");
    store.faults.next({ hang: true, execute: true });
    for (const expected of [0, 1]) {
      const signal = AbortSignal.timeout(60);
      await assert.rejects(() => call("/", ["INCR", "k"], { signal }), { name: "TimeoutError" });
      const deadline = Date.now() + 2000;
      while ((await store.redis.exists("k")) !== expected && Date.now() < deadline) await sleep(5);
      assert.equal(await store.redis.exists("k"), expected);
    }
  });

  test("delay answers late", async () => {
    store.faults.next({ delay: 50 });
    const start = performance.now();
    assert.equal(await result("PING"), "PONG");
    assert.ok(performance.now() - start >= 45);
  });

  /** @type {[string, Fault, number, string, RegExp][]} */
  const answers = [
    ["a wrong token", { status: 401, body: { error: "WRONGPASS" } }, 401, '{"error":"WRONGPASS"}', /json/],
    ["a full queue", { status: 429, body: "slow down" }, 429, "slow down", /json/],
    ["a gateway's page", { status: 502, body: "<html>" }, 502, "<html>", /html/],
    ["an empty 500", { status: 500 }, 500, "", /json/],
    ["nonsense with status 200", { status: 200, body: "not json" }, 200, "not json", /json/],
  ];
  for (const [name, fault, status, text, type] of answers) {
    test(`any answer can replace the store's: ${name}`, async () => {
      store.faults.next(fault);
      const answer = await call("/", ["SET", "k", "v"]);
      assert.deepEqual([answer.status, answer.text], [status, text]);
      assert.match(answer.headers.get("content-type") ?? "", type);
      assert.equal(await store.redis.exists("k"), 0);
    });
  }

  test("cut sends half of an answer", async () => {
    await store.redis.set("k", "x".repeat(1000));
    store.faults.next("cut");
    const response = await fetch(`${store.url}/get/k?_token=${store.token}`);
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("content-length"), String('{"result":""}'.length + 1000));
    await failsToArrive(() => response.text());
  });

  test("short leaves out the last entry", async () => {
    store.faults.next("short");
    assert.deepEqual(
      (
        await call("/pipeline", [
          ["ECHO", "a"],
          ["INCR", "n"],
        ])
      ).json(),
      [{ result: "a" }],
    );
    assert.equal(await store.redis.get("n"), "1");
  });

  for (const target of ["/pipeline", "/multi-exec"]) {
    test(`one entry of ${target} fails, executed or not`, async () => {
      const commands = [
        ["INCR", "a"],
        ["INCR", "b"],
        ["INCR", "c"],
      ];
      store.faults.next({ entry: 1, error: "ERR made up" });
      store.faults.next({ entry: 1, execute: true });
      assert.deepEqual((await call(target, commands)).json(), [
        { result: 1 },
        { error: "ERR made up" },
        { result: 1 },
      ]);
      assert.deepEqual(await store.redis.mGet(["a", "b", "c"]), ["1", null, "1"]);
      assert.deepEqual((await call(target, commands)).json(), [
        { result: 2 },
        { error: "ERR internal error" },
        { result: 2 },
      ]);
      assert.deepEqual(await store.redis.mGet(["a", "b", "c"]), ["2", "1", "2"]);
    });
  }

  test("a single command can fail as entry 0", async () => {
    store.faults.next({ entry: 0, error: "ERR made up" });
    const answer = await call("/", ["INCR", "a"]);
    assert.deepEqual([answer.status, answer.json()], [400, { error: "ERR made up" }]);
    assert.equal(await store.redis.exists("a"), 0);
  });

  test("lostAnswer executes and then destroys the connection", async () => {
    store.faults.next("lostAnswer");
    await failsToArrive(() => call("/", ["INCR", "n"]));
    assert.equal(await store.redis.get("n"), "1");
  });

  test("quota refuses a whole request", async () => {
    store.faults.next("quota");
    const answer = await call("/pipeline", [
      ["GET", "a"],
      ["INCR", "n"],
    ]);
    assert.equal(answer.status, 400);
    assert.match(answer.json().error, /^ERR max requests limit exceeded\. Limit: /);
    assert.equal(await store.redis.exists("n"), 0);
  });

  test("capacity refuses what writes", async () => {
    store.faults.always("capacity");
    const [read, write] = (
      await call("/pipeline", [
        ["GET", "a"],
        ["INCR", "n"],
      ])
    ).json();
    assert.deepEqual(read, { result: null });
    assert.match(write.error, /^ERR DB capacity quota exceeded/);
    assert.match(
      (
        await call("/multi-exec", [
          ["GET", "a"],
          ["INCR", "n"],
        ])
      ).json().error,
      /ERR DB capacity/,
    );
    assert.equal(await store.redis.exists("n"), 0);
  });

  test("a fault applies to as many matching calls as asked for, until it is cleared", async () => {
    /** @param {number} count */
    const statuses = async (count) => {
      const list = [];
      for (let i = 0; i < count; i++) list.push((await call("/", ["GET", "k"])).status);
      return list;
    };
    store.faults.next({ status: 500 }, { times: 2 });
    assert.deepEqual(await statuses(3), [500, 500, 200]);
    store.faults.always({ status: 503 }, { when: ({ commands }) => commands[0][0] === "GET" });
    assert.equal((await call("/", ["PING"])).status, 200);
    assert.deepEqual(await statuses(2), [503, 503]);
    store.faults.clear();
    assert.deepEqual(await statuses(1), [200]);
    store.faults.next({ status: 500 }, { when: ({ path }) => path === "/pipeline" });
    assert.deepEqual(await statuses(1), [200]);
    assert.equal((await call("/pipeline", [["PING"]])).status, 500);
  });

  test("a request can be held before it is executed", async () => {
    const hold = store.faults.hold(({ commands }) => commands[0][0] === "SET");
    const slow = call("/", ["SET", "k", "new", "IFEQ", "old"]);
    await result("APPEND", "k", "old");
    assert.deepEqual(await hold.arrived, { path: "/", commands: [["SET", "k", "new", "IFEQ", "old"]] });
    assert.equal(await result("SET", "other", "goes through"), "OK");
    assert.equal(await result("GETDEL", "k"), "old");
    hold.release();
    assert.deepEqual((await slow).json(), { result: null });
  });

  test("a hold that is released holds nothing", async () => {
    store.faults.hold().release();
    assert.equal(await result("PING"), "PONG");
  });

  test("connections are refused while the store does not listen", async () => {
    await result("SET", "k", "v");
    await store.stopListening();
    await assert.rejects(call("/", ["GET", "k"]), { name: "TypeError" });
    const socket = net.connect(Number(new URL(store.url).port), "127.0.0.1");
    await assert.rejects(once(socket, "connect"), { code: "ECONNREFUSED" });
    await store.resumeListening();
    assert.equal(await result("GET", "k"), "v");
  });
});

describe("counters", () => {
  test("every command of a request is billed, and every request is a call", async () => {
    const { value, ...counted } = await store.counters.during(async () => {
      await call("/pipeline", [["SET", "a", 1], ["GET", "a"], ["GET"]]);
      await call("/multi-exec", [
        ["INCR", "a"],
        ["MGET", "a", "b", "c"],
      ]);
      return result("GET", "a");
    });
    assert.equal(value, "2");
    assert.deepEqual(counted, { calls: 3, commands: 6, byName: { SET: 1, GET: 3, INCR: 1, MGET: 1 } });
    assert.deepEqual(store.counters.log, [["SET", "GET", "GET"], ["INCR", "MGET"], ["GET"]]);
  });

  for (const target of ["/", "/pipeline", "/multi-exec"]) {
    test(`a script sent to ${target} is billed with what it runs`, async () => {
      const script = "for i = 1, 3 do redis.call('INCR', KEYS[1]) end return redis.call('GET', KEYS[1])";
      const command = ["EVAL", script, 1, "n"];
      const { value, ...counted } = await store.counters.during(() =>
        call(target, target === "/" ? command : [command]),
      );
      assert.deepEqual([value.json()].flat(), [{ result: "3" }]);
      assert.deepEqual(counted, { calls: 1, commands: 5, byName: { EVAL: 1, INCR: 3, GET: 1 } });
    });
  }

  test("scripts at the same time are each billed for their own", async () => {
    const script = "redis.call('INCR', KEYS[1])";
    const requests = Array.from({ length: 20 }, () => [
      call("/", ["EVAL", script, 1, "n"]),
      call("/", ["INCR", "n"]),
    ]);
    await Promise.all(requests.flat());
    assert.deepEqual(store.counters.byName, { EVAL: 20, INCR: 40 });
  });

  test("what is not executed is not billed, but it is a call", async () => {
    store.faults.next("refuse");
    await assert.rejects(call("/", ["GET", "k"]));
    await call("/", ["GET", "k"], { token: "no" });
    await call("/", "bad");
    assert.deepEqual([store.counters.calls, store.counters.commands], [3, 0]);
  });

  test("bytes of bodies are counted", async () => {
    await call("/", '["ECHO","é"]');
    assert.deepEqual([store.counters.bytesIn, store.counters.bytesOut], [13, 15]);
    store.counters.reset();
    assert.deepEqual(
      { ...store.counters },
      { calls: 0, commands: 0, byName: {}, bytesIn: 0, bytesOut: 0, log: [] },
    );
  });
});
