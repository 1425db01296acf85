/** The local store against what it stands in for: Upstash's wire format, and Upstash's own clients. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis";
import { startValkey } from "../tools/valkey.mjs";
import { startLocalStore } from "../tools/local-store/index.mjs";

/** @typedef {import("../tools/local-store/faults.mjs").Fault} Fault */

/** @type {import("../tools/local-store/index.mjs").LocalStore} */
let store;
before(async () => void (store = await startLocalStore()));
after(() => store.stop());
beforeEach(async () => {
  store.faults.clear();
  await store.redis.flushDb();
  store.counters.reset();
});

/**
 * @typedef {object} CallOptions
 * @property {string} [method]
 * @property {string} [url] of another endpoint of the store
 * @property {string | null} [token]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */

/**
 * @param {string} target path and query
 * @param {unknown} [body] sent as it is if text or bytes, else as JSON
 * @param {CallOptions} [options]
 */
async function call(
  target,
  body,
  { method = "POST", url = store.url, token = store.token, headers, signal } = {},
) {
  const response = await fetch(url + target, {
    method,
    body: body === undefined ? undefined : raw(body) ? /** @type {any} */ (body) : JSON.stringify(body),
    headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...headers },
    signal,
  });
  const text = await response.text();
  const syncToken = response.headers.get("upstash-sync-token");
  return {
    status: response.status,
    text,
    json: () => JSON.parse(text),
    syncToken,
    headers: response.headers,
  };
}

/** @param {unknown} body */
const raw = (body) => typeof body === "string" || body instanceof Uint8Array;

/** @param {...(string | number)} command */
const result = async (...command) => (await call("/", command)).json().result;

const BASE64 = { headers: { "upstash-encoding": "base64" } };
const b64 = (/** @type {string} */ text) => Buffer.from(text).toString("base64");

describe("the wire format", () => {
  /** @type {[string, string, unknown, object | undefined, number, unknown][]} */
  const table = [
    ["a command is a JSON array", "/", ["SET", "k", "v"], , 200, { result: "OK" }],
    ["an argument can be a number", "/", ["SET", "k", 7, "EX", 100, "GET"], , 200, { result: "old" }],
    ["an argument can be a boolean", "/", ["ECHO", true], , 200, { result: "true" }],
    [
      "a large integer keeps its digits",
      "/",
      '["ECHO", 9007199254740993]',
      ,
      200,
      { result: "9007199254740993" },
    ],
    ["a command's name can be lower case", "/", ["get", "k"], , 200, { result: "old" }],
    ["PUT is as good as POST", "/", ["GET", "k"], { method: "PUT" }, 200, { result: "old" }],
    ["a missing key is null", "/", ["GET", "none"], , 200, { result: null }],
    ["an integer is a number", "/", ["STRLEN", "k"], , 200, { result: 3 }],
    ["a hash is a flat array", "/", ["HGETALL", "h"], , 200, { result: ["f", "1", "g", "2"] }],
    ["an empty hash is an empty array", "/", ["HGETALL", "none"], , 200, { result: [] }],
    ["a scored member is text", "/", ["ZRANGE", "z", 0, -1, "WITHSCORES"], , 200, { result: ["m", "1.5"] }],
    ["a status other than OK is a string", "/", ["TYPE", "h"], , 200, { result: "hash" }],
    ["arrays nest", "/", ["EVAL", "return {1,{'a',false}}", 0], , 200, { result: [1, ["a", null]] }],
    ["SELECT 0 changes nothing", "/", ["SELECT", 0], , 200, { result: "OK" }],

    ["base64 spares OK", "/", ["SET", "k", "v"], BASE64, 200, { result: "OK" }],
    ["base64 spares integers", "/", ["STRLEN", "k"], BASE64, 200, { result: 3 }],
    ["base64 spares null", "/", ["GET", "none"], BASE64, 200, { result: null }],
    ["base64 covers a string", "/", ["GET", "k"], BASE64, 200, { result: b64("old") }],
    ["base64 covers a status", "/", ["PING"], BASE64, 200, { result: b64("PONG") }],
    ["base64 covers arrays", "/", ["MGET", "k", "none"], BASE64, 200, { result: [b64("old"), null] }],
    [
      "base64 covers nested arrays",
      "/",
      ["EVAL", "return {{'a'}}", 0],
      BASE64,
      200,
      { result: [[b64("a")]] },
    ],
    ["base64 covers an OK that is a value", "/", ["ECHO", "OK"], BASE64, 200, { result: b64("OK") }],
    [
      "base64 spares errors",
      "/",
      ["GET"],
      BASE64,
      400,
      { error: "ERR wrong number of arguments for 'get' command" },
    ],

    ["a path is a command", "/set/k/v/EX/100", undefined, , 200, { result: "OK" }],
    ["a path can be asked for with GET", "/get/k", undefined, { method: "GET" }, 200, { result: "old" }],
    ["a path is percent-decoded", "/echo/a%2Fb%20c%F0%9F%A7%A5", undefined, , 200, { result: "a/b c🧥" }],
    ["a plus sign in a path is one", "/echo/a+b", undefined, , 200, { result: "a+b" }],
    ["an empty segment is an empty argument", "/echo/", undefined, , 200, { result: "" }],
    ["a body is a path's last argument", "/echo", '{"raw": 1}', , 200, { result: '{"raw": 1}' }],
    ["a query follows the body", "/set/k?EX=100&GET", "v", , 200, { result: "old" }],
    ["a token in the query is no argument", "/echo/x?_token=unused", undefined, , 200, { result: "x" }],

    [
      "a pipeline answers in order",
      "/pipeline",
      [
        ["GET", "k"],
        ["STRLEN", "k"],
      ],
      ,
      200,
      [{ result: "old" }, { result: 3 }],
    ],
    ["a pipeline's entry is base64", "/pipeline", [["GET", "k"]], BASE64, 200, [{ result: b64("old") }]],
    [
      "a transaction answers in order",
      "/multi-exec",
      [
        ["GET", "k"],
        ["DEL", "k"],
      ],
      ,
      200,
      [{ result: "old" }, { result: 1 }],
    ],
    ["a transaction's entry is base64", "/multi-exec", [["GET", "k"]], BASE64, 200, [{ result: b64("old") }]],

    ["bad JSON is refused", "/", '["GET", "SECRET', , 400, /^ERR failed to parse/],
    ["a command must be an array", "/", { GET: "k" }, , 400, /^ERR failed to parse/],
    ["a command must be flat: array", "/", ["SET", "k", ["v"]], , 400, /^ERR failed to parse/],
    ["a command must be flat: object", "/", ["SET", "k", { v: 1 }], , 400, /^ERR failed to parse/],
    ["an argument cannot be null", "/", ["SET", "k", null], , 400, /^ERR failed to parse/],
    ["a command must not be empty", "/", [], , 400, /^ERR empty command/],
    ["a command must have a name", "/", [""], , 400, /^ERR empty command/],
    ["the bare root is no command", "/", undefined, { method: "GET" }, 400, /^ERR empty command/],
    ["a body must be there", "/", undefined, , 400, /^ERR failed to parse/],
    ["bad percent-encoding is refused", "/get/%zz", undefined, , 400, /^ERR failed to parse/],
    ["an unknown path is an unknown command", "/foo", undefined, , 400, /^ERR Command is not available/],
    ["a pipeline must be an array", "/pipeline", {}, , 400, /^ERR failed to parse/],
    ["a pipeline must not be empty", "/pipeline", [], , 400, /^ERR empty pipeline/],
    ["a pipeline is an array of arrays", "/pipeline", ["GET", "k"], , 400, /^ERR failed to parse/],
    ["a transaction is an array of arrays", "/multi-exec", ["GET", "k"], , 400, /^ERR failed to parse/],
    [
      "a wrong token is refused",
      "/",
      ["GET", "k"],
      { token: "no" },
      401,
      /^WRONGPASS invalid or missing auth token$/,
    ],
    ["a missing token is refused", "/", ["GET", "k"], { token: null }, 401, /^WRONGPASS/],
    [
      "a wrong token in the query is refused",
      "/get/k?_token=no",
      undefined,
      { token: null },
      401,
      /^WRONGPASS/,
    ],
    [
      "a pipeline with a wrong token is one error",
      "/pipeline",
      [["GET", "k"]],
      { token: "no" },
      401,
      /^WRONGPASS/,
    ],
    ["DELETE is no method", "/", ["GET", "k"], { method: "DELETE" }, 405, /^ERR/],
    ["PATCH is no method", "/get/k", undefined, { method: "PATCH" }, 405, /^ERR/],
    ["GET is no way to send a pipeline", "/pipeline", undefined, { method: "GET" }, 405, /^ERR/],

    ["an unknown command is refused", "/", ["NOPE"], , 400, /^ERR Command is not available/],
    ["a failing command is refused", "/", ["INCR", "h"], , 400, /^WRONGTYPE/],
    ["a syntax error is refused", "/", ["SET", "k", "v", "SECRET"], , 400, /^ERR syntax error/],
    ["a script that is not known says NOSCRIPT", "/", ["EVALSHA", "0".repeat(40), 0], , 400, /^NOSCRIPT/],
    ["JSON commands are not there", "/", ["JSON.GET", "k"], , 400, /^ERR .*not available/],
    ["SET IFNE is not there", "/", ["SET", "k", "v", "IFNE", "x"], , 400, /^ERR IFNE is not available/],
    ["SET IFDEQ is not there", "/", ["SET", "k", "v", "IFDEQ", "x"], , 400, /^ERR IFDEQ is not available/],
    ["DELEX IFNE is not there", "/", ["DELEX", "k", "IFNE", "x"], , 400, /^ERR IFNE is not available/],
  ];
  for (const [name, target, body, options, status, expected] of table) {
    test(name, async () => {
      await store.redis.set("k", "old");
      await store.redis.hSet("h", { f: "1", g: "2" });
      await store.redis.zAdd("z", { value: "m", score: 1.5 });
      const answer = await call(target, body, options);
      const json = answer.json();
      if (expected instanceof RegExp) {
        assert.deepEqual(Object.keys(json), ["error"]);
        assert.match(json.error, expected);
        assert.doesNotMatch(answer.text, /SECRET/);
      } else {
        assert.deepEqual(json, expected);
      }
      assert.equal(answer.status, status);
      assert.match(answer.headers.get("content-type") ?? "", /^application\/json/);
      assert.ok(answer.syncToken, "every answer carries a sync token");
    });
  }

  const forbidden =
    "BLPOP k 1|BRPOP k 1|BLMOVE a b LEFT LEFT 1|BZPOPMIN k 1|XREAD BLOCK 1 STREAMS k 0|WAIT 0 0|WATCH k|UNWATCH|" +
    "MULTI|EXEC|DISCARD|SUBSCRIBE k|PSUBSCRIBE k|SSUBSCRIBE k|UNSUBSCRIBE|MONITOR|SELECT 1|CLIENT LIST|" +
    "CONFIG GET *|SHUTDOWN|DEBUG SLEEP 0|SAVE|BGSAVE|REPLICAOF a 1|CLUSTER INFO|ACL LIST|AUTH x|HELLO 3|RESET|" +
    "QUIT|MODULE LIST|SWAPDB 0 1|MOVE k 1|SCRIPT KILL|ROLE|SYNC|SLOWLOG GET|LATENCY DOCTOR|FAILOVER";
  test("commands that belong to a connection or to the server's keeper are not available", async () => {
    for (const command of forbidden.split("|")) {
      const answer = await call("/", command.split(" "));
      assert.equal(answer.status, 400, command);
      assert.match(answer.json().error, /^ERR Command is not available/, command);
    }
    assert.equal(await result("PING"), "PONG");
    assert.deepEqual(await result("XREAD", "STREAMS", "none", 0), null);
  });

  test("HEAD is answered without a body", async () => {
    const answer = await call("/get/none", undefined, { method: "HEAD" });
    assert.deepEqual([answer.status, answer.text], [200, ""]);
  });

  test("the token may come in the query", async () => {
    const answer = await call(`/set/k/v?_token=${store.token}&NX`, undefined, { token: null });
    assert.deepEqual(answer.json(), { result: "OK" });
  });

  test("10 MB are taken and a byte more is refused", async () => {
    const command = (/** @type {number} */ size) =>
      JSON.stringify(["SET", "k", ""]).replace('""', `"${"x".repeat(size)}"`);
    const limit = 10 * 1024 * 1024;
    const frame = command(0).length;
    assert.deepEqual((await call("/", command(limit - frame))).json(), { result: "OK" });
    const answer = await call("/", command(limit - frame + 1));
    assert.equal(answer.status, 400);
    assert.match(answer.json().error, /^ERR max request size exceeded/);
    assert.equal(await store.redis.strLen("k"), limit - frame);
  });

  test("bytes that are not UTF-8 come in by the path and the body, and go out whole as base64", async () => {
    const bytes = Buffer.from([0xff, 0x00, 0xfe, 0x41]);
    assert.deepEqual((await call("/set/%ff%00", bytes)).json(), { result: "OK" });
    assert.deepEqual((await call("/get/%ff%00", undefined, BASE64)).json(), {
      result: bytes.toString("base64"),
    });
    assert.deepEqual((await call("/get/%ff%00")).json(), { result: "\ufffd\0\ufffdA" });
  });

  test("text of every kind is the same on the way out", async () => {
    for (const text of ["", "🧥", "é", '"\\\n\u2028', "\0", "OK", "null", "7"]) {
      await result("SET", "k", text);
      assert.equal(await result("GET", "k"), text);
      assert.equal((await call("/", ["GET", "k"], BASE64)).json().result, b64(text));
    }
  });

  test("no error repeats an argument", async () => {
    await store.redis.set("k", "text");
    const commands = [
      ["SECRET"],
      ["SECRET", "SECRET"],
      ["GET", "SECRET", "SECRET"],
      ["SET", "k", "v", "SECRET"],
      ["EXPIRE", "k", "SECRET"],
      ["INCRBY", "k", "SECRET"],
      ["HSET", "SECRET", "f"],
      ["OBJECT", "SECRET", "k"],
      ["SCRIPT", "SECRET"],
      ["FCALL", "SECRET", 0],
      ["XREADGROUP", "GROUP", "g", "c", "STREAMS", "SECRET", ">"],
      ["XREADGROUP", "GROUP", "it's SECRET", "c", "STREAMS", "k2", ">"],
      ["FUNCTION", "LOAD", "#!SECRET name=x\n"],
      ["DELEX", "k", "SECRET", "v"],
      ["ZADD", "z", "SECRET", "m"],
      ["SELECT", "SECRET"],
    ];
    for (const command of commands) {
      const { status, text } = await call("/", command);
      assert.equal(status, 400, command.join(" "));
      assert.doesNotMatch(text, /SECRET/, command.join(" "));
    }
  });
});

describe("pipelines and transactions", () => {
  test("a pipeline goes on after a command that fails", async () => {
    await store.redis.hSet("h", "f", "1");
    const answer = await call("/pipeline", [["SET", "a", 1], ["INCR", "h"], ["NOPE"], ["INCR", "a"]]);
    assert.equal(answer.status, 200);
    const [set, wrongType, unknown, incr] = answer.json();
    assert.deepEqual([set, incr], [{ result: "OK" }, { result: 2 }]);
    assert.match(wrongType.error, /^WRONGTYPE/);
    assert.match(unknown.error, /^ERR Command is not available/);
  });

  test("a transaction goes on after a command that fails when run", async () => {
    await store.redis.hSet("h", "f", "1");
    const answer = await call("/multi-exec", [
      ["SET", "a", 1],
      ["INCR", "h"],
      ["INCR", "a"],
    ]);
    assert.equal(answer.status, 200);
    const [set, wrongType, incr] = answer.json();
    assert.deepEqual([set, incr], [{ result: "OK" }, { result: 2 }]);
    assert.match(wrongType.error, /^WRONGTYPE/);
  });

  for (const wrong of [["NOPE"], ["BLPOP", "a", 1], ["GET"], ["SET", "a", "v", "IFNE", "x"]]) {
    test(`a transaction with ${wrong.join(" ")} in it is discarded as a whole`, async () => {
      const answer = await call("/multi-exec", [["SET", "a", 1], wrong, ["INCR", "a"]]);
      assert.equal(answer.status, 400);
      assert.match(answer.json().error, /^EXECABORT/);
      assert.equal(await store.redis.exists("a"), 0);
    });
  }

  test("nothing comes between the commands of a transaction", async () => {
    let running = true;
    const outside = (async () => {
      while (running) await store.redis.incr("n");
    })();
    const others = Array.from({ length: 100 }, () => call("/", ["INCR", "n"]));
    const transactions = Array.from({ length: 50 }, () =>
      call("/multi-exec", [
        ["INCR", "n"],
        ["EVAL", "return redis.call('INCR', KEYS[1])", 1, "n"],
        ["INCR", "n"],
      ]),
    );
    for (const answer of await Promise.all(transactions)) {
      const [first, second, third] = answer
        .json()
        .map((/** @type {{ result: number }} */ entry) => entry.result);
      assert.deepEqual([second, third], [first + 1, first + 2]);
    }
    running = false;
    await Promise.all([...others, outside]);
  });
});

describe("commands that Valkey does not have as Upstash has them", () => {
  /** @type {[string, (string | number)[], unknown, string | null][]} */
  const table = [
    ["SET IFEQ writes what is still the same", ["SET", "k", "new", "IFEQ", "old"], "OK", "new"],
    ["SET IFEQ leaves what has changed", ["SET", "k", "new", "IFEQ", "older"], null, "old"],
    ["SET IFEQ with GET gives the old value", ["SET", "k", "new", "IFEQ", "old", "GET"], "old", "new"],
    [
      "SET IFEQ with GET gives nothing when it fails",
      ["set", "k", "new", "ifeq", "older", "get"],
      null,
      "old",
    ],
    ["SET IFEQ takes a TTL along", ["SET", "k", "new", "IFEQ", "old", "EX", 100], "OK", "new"],
    ["SET with a value called IFEQ is a plain SET", ["SET", "k", "IFEQ", "GET"], "old", "IFEQ"],
    ["DELEX deletes", ["DELEX", "k"], 1, null],
    ["DELEX IFEQ deletes what is still the same", ["DELEX", "k", "IFEQ", "old"], 1, null],
    ["DELEX IFEQ leaves what has changed", ["delex", "k", "ifeq", "older"], 0, "old"],
  ];
  for (const [name, command, expected, left] of table) {
    test(name, async () => {
      await store.redis.set("k", "old");
      assert.deepEqual(await result(...command), expected);
      assert.equal(await store.redis.get("k"), left);
    });
  }

  test("SET IFEQ creates nothing", async () => {
    assert.equal(await result("SET", "k", "new", "IFEQ", "old", "GET"), null);
    assert.equal(await store.redis.exists("k"), 0);
  });

  test("FLUSHALL empties the store", async () => {
    await result("SET", "k", "v");
    assert.equal(await result("FLUSHALL"), "OK");
    assert.equal(await result("DBSIZE"), 0);
  });

  const flags = ["allow-key-locking", "no-writes,allow-key-locking", "allow-key-locking,no-writes"];
  for (const flag of flags) {
    test(`a script with the flags ${flag} runs under the hash of its own text`, async () => {
      const script = `#!lua flags=${flag}\nreturn ARGV[1] .. '${flag}'`;
      const sha = await sha1(script);
      assert.match((await call("/", ["EVALSHA", sha, 0, "x"])).json().error, /^NOSCRIPT/);
      assert.equal(await result("EVAL", script, 0, "x"), `x${flag}`);
      assert.equal(await result("EVALSHA", sha.toUpperCase(), 0, "y"), `y${flag}`);
      await result("SCRIPT", "FLUSH");
      assert.deepEqual(await result("SCRIPT", "EXISTS", sha), [0]);
      assert.equal(await result("SCRIPT", "LOAD", script), sha);
      assert.deepEqual(await result("SCRIPT", "EXISTS", sha), [1]);
      assert.equal(await result("EVALSHA", sha, 0, "z"), `z${flag}`);
    });
  }

  test("a script's other flags stay", async () => {
    const script = "#!lua flags=allow-key-locking,no-writes\nreturn redis.call('SET', KEYS[1], 'v')";
    assert.match(
      (await call("/", ["EVAL", script, 1, "k"])).json().error,
      /^ERR Write commands are not allowed/,
    );
  });
});

describe("a replica that is behind", () => {
  const LAG = 300;
  /** @param {string | null} token @param {...(string | number)} command */
  const withToken = (token, ...command) =>
    call("/", command, { headers: { "upstash-sync-token": token ?? "" } });

  test("a read without a token is stale until the lag is over, one with it waits", async () => {
    await result("SET", "k", "old");
    store.faults.lag = LAG;
    assert.equal(await result("GET", "k"), "old", "switching it on brings the replica up to date");
    const write = await withToken("", "SET", "k", "new");
    const written = performance.now();
    assert.deepEqual((await withToken("", "GET", "k")).json(), { result: "old" });
    assert.equal(await result("GET", "k"), "old");
    assert.deepEqual((await withToken(write.syncToken, "GET", "k")).json(), { result: "new" });
    const waited = performance.now() - written;
    assert.ok(waited > LAG / 2 && waited < LAG * 10, `waited ${waited} ms`);
    assert.equal(await result("GET", "k"), "new");
  });

  test("a token from a read covers what that read has seen, and no more", async () => {
    store.faults.lag = LAG;
    const write = await withToken("", "SET", "k", "1");
    const read = await withToken(write.syncToken, "GET", "k");
    await withToken("", "SET", "k", "2");
    assert.deepEqual((await withToken(read.syncToken, "GET", "k")).json(), { result: "1" });
  });

  test("an invented token asks for nothing", async () => {
    store.faults.lag = 10_000;
    await result("SET", "k", "new");
    for (const token of ["x", "OTk5OTk5", b64("aa:999999999"), "\u00ff"]) {
      assert.deepEqual((await withToken(token, "GET", "k")).json(), { result: null });
    }
  });

  test("what a write is conditional on is never stale", async () => {
    store.faults.lag = 10_000;
    assert.equal(await result("SET", "k", "1"), "OK");
    assert.equal(await result("SET", "k", "2", "IFEQ", "1"), "OK");
    assert.equal(await result("INCR", "k"), 3);
    assert.equal(await result("GETDEL", "k"), "3");
    assert.equal(await result("GET", "k"), null);
  });

  test("reads in a pipeline are stale, in a transaction that writes they are not", async () => {
    store.faults.lag = 10_000;
    const commands = [
      ["INCR", "n"],
      ["GET", "n"],
      ["MGET", "n"],
    ];
    assert.deepEqual((await call("/pipeline", commands)).json().map(value), [1, null, [null]]);
    assert.deepEqual((await call("/multi-exec", commands)).json().map(value), [2, "2", ["2"]]);
    assert.deepEqual((await call("/multi-exec", [["GET", "n"]])).json().map(value), [null]);
  });

  test("every kind of write arrives, in order and with its TTL", async () => {
    store.faults.lag = 20;
    await call("/pipeline", [
      ["SET", "gone", "1"],
      ["FLUSHALL"],
      ["SET", "a", "1", "PX", 100_000],
      ["EVAL", "redis.call('SET', KEYS[1], redis.call('INCR', KEYS[2]))", 2, "b", "n"],
      ["MSET", "c", "1", "d", "2"],
      ["DEL", "c"],
      ["HSET", "h", "f", "1"],
      ["HEXPIRE", "h", 100, "FIELDS", 1, "f"],
      ["ZADD", "z", 1, "m"],
      ["ZUNIONSTORE", "y", 1, "z"],
      ["LPUSH", "l", 1],
      ["LMPOP", 1, "l", "LEFT"],
      ["INCR", "z"],
    ]);
    const last = await call("/multi-exec", [
      ["SET", "e", "1"],
      ["GETDEL", "d"],
    ]);
    assert.deepEqual((await withToken(last.syncToken, "KEYS", "*")).json().result.sort(), [..."abehnyz"]);
    assert.equal(await result("GET", "b"), "1");
    const ttl = await result("PTTL", "a");
    assert.ok(ttl > 90_000 && ttl <= 100_000, `PTTL ${ttl}`);
    const [fieldTtl] = await result("HTTL", "h", "FIELDS", 1, "f");
    assert.ok(fieldTtl > 90 && fieldTtl <= 100, `HTTL ${fieldTtl}`);
  });

  test("switched off it is gone at once, and switched on again it knows everything", async () => {
    store.faults.lag = 10_000;
    await result("SET", "k", "1");
    assert.equal(await result("GET", "k"), null);
    store.faults.lag = 0;
    assert.equal(await result("GET", "k"), "1");
    await result("SET", "k", "2");
    store.faults.lag = 10_000;
    assert.equal(await result("GET", "k"), "2");
    const write = await withToken("", "SET", "k", "3");
    const waiting = withToken(write.syncToken, "GET", "k");
    assert.equal(await result("GET", "k"), "2");
    store.faults.lag = 0;
    assert.deepEqual((await waiting).json(), { result: "3" });
  });
});

describe("several replicas, each behind on its own", () => {
  const NEVER = 60_000;
  /** @param {number} region @param {(string | number)[]} command @param {string | null} [token] */
  const at = async (region, command, token) =>
    call("/", command, {
      url: await store.urlOf(region),
      headers: token ? { "upstash-sync-token": token } : {},
    });
  /** @param {number[]} regions @param {(string | number)[]} command @param {string | null} [token] */
  const results = (regions, command, token) =>
    Promise.all(regions.map(async (region) => (await at(region, command, token)).json().result));

  test("each region is behind by its own lag, and a token waits for that region's replica alone", async () => {
    await result("SET", "k", "old");
    store.faults.lag = [0, 100, 300, NEVER];
    const write = await at(3, ["SET", "k", "new"]);
    const written = performance.now();
    assert.deepEqual(await results([0, 1, 2, 3], ["GET", "k"]), ["new", "old", "old", "old"]);
    /** @type {number[]} */
    const waits = [];
    for (const region of [0, 1, 2]) {
      assert.deepEqual((await at(region, ["GET", "k"], write.syncToken)).json(), { result: "new" });
      waits.push(performance.now() - written);
    }
    assert.ok(waits[1] > 50 && waits[2] > waits[1] + 50, `waited ${waits} ms`);
    assert.deepEqual(await results([1, 2, 3], ["GET", "k"]), ["new", "new", "old"]);
  });

  test("callers without a region are served by one replica after the other, whatever they write", async () => {
    store.faults.lag = [0, NEVER];
    const answers = [];
    for (let n = 1; n <= 4; n++) {
      await result("SET", "k", n);
      answers.push(await result("GET", "k"));
    }
    assert.deepEqual(answers, ["1", null, "3", null]);
    const pipeline = [
      ["GET", "k"],
      ["GET", "k"],
    ];
    assert.deepEqual((await call("/pipeline", pipeline)).json().map(value), ["4", "4"]);
    assert.deepEqual((await call("/pipeline", pipeline)).json().map(value), [null, null]);
  });

  test("a token from a read covers what was seen there also at a replica that is further behind", async () => {
    store.faults.lag = [0, 100, 200];
    const written = await at(0, ["SET", "k", "1"]);
    for (const [from, to] of [
      [0, 1],
      [0, 2],
      [1, 2],
    ]) {
      await at(0, ["INCR", "k"]);
      const seen = await at(from, ["GET", "k"], written.syncToken);
      const then = await at(to, ["GET", "k"], seen.syncToken);
      assert.ok(Number(then.json().result) >= Number(seen.json().result), `${from} to ${to}`);
    }
  });

  test("writes from any region go to the primary, and arrive at every replica in their order", async () => {
    store.faults.lag = [20, 40, 60, 80];
    for (const region of [0, 1, 2, 3, 0, 1, 2, 3]) await at(region, ["APPEND", "k", region]);
    const last = await at(1, ["GETDEL", "gone"]);
    assert.deepEqual(await results([0, 1, 2, 3], ["GET", "k"], last.syncToken), Array(4).fill("01230123"));
  });

  test("the list can change: who joins knows everything, who stays keeps behind, who goes is gone", async () => {
    store.faults.lag = NEVER;
    await result("SET", "k", "1");
    store.faults.lag = [NEVER, NEVER];
    assert.deepEqual([store.faults.lag, store.faults.lags], [NEVER, [NEVER, NEVER]]);
    assert.deepEqual(await results([0, 1], ["GET", "k"]), [null, "1"]);
    await result("SET", "k", "2");
    assert.deepEqual(await results([0, 1], ["GET", "k"]), [null, "1"]);
    store.faults.lag = [0, NEVER, NEVER];
    assert.deepEqual(await results([0, 1, 2], ["GET", "k"]), ["2", "1", "2"]);
    store.faults.lag = NEVER;
    assert.deepEqual(store.faults.lags, [NEVER]);
    await result("SET", "k", "3");
    assert.deepEqual(await results([0, 1, 2], ["GET", "k"]), ["2", "2", "2"], "regions share what there is");
    store.faults.clear();
    assert.deepEqual([store.faults.lag, store.faults.lags], [0, [0]]);
    assert.deepEqual(await results([0, 1, 2], ["GET", "k"]), ["3", "3", "3"]);
  });

  test("a lag that is none is refused, and changes nothing", () => {
    store.faults.lag = [1, 2];
    for (const lag of [[], [1, -1], [NaN], Array(9).fill(1)]) {
      assert.throws(() => (store.faults.lag = lag), RangeError);
    }
    assert.deepEqual(store.faults.lags, [1, 2]);
  });

  test("a region's endpoint is the store's: its token, its silence, and its port all along", async () => {
    const url = await store.urlOf(1);
    assert.equal(await store.urlOf(1), url);
    assert.notEqual(await store.urlOf(2), url);
    assert.equal((await call("/", ["PING"], { url, token: "no" })).status, 401);
    await store.stopListening();
    await assert.rejects(call("/", ["PING"], { url }), { name: "TypeError" });
    await store.resumeListening();
    assert.deepEqual((await call("/", ["PING"], { url })).json(), { result: "PONG" });
  });

  test("Upstash's own client reads its own writes in every region", async () => {
    store.faults.lag = [50, 100, 150];
    for (const region of [0, 1, 2]) {
      const redis = new Redis({ url: await store.urlOf(region), token: store.token });
      await redis.set("k", region);
      assert.equal(await redis.get("k"), region);
    }
  });
});

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
    test(`any answer can be put in place of the store's: ${name}`, async () => {
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

  test("a fault strikes as often as it should, those that match, until it is cleared", async () => {
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

  test("a hold that is taken back holds nothing", async () => {
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

describe("data on disk", () => {
  test("survives a stop and a start, and is refused to a second store", async () => {
    const dir = await mkdtemp(path.join(os.tmpdir(), "local-store-"));
    try {
      const first = await startLocalStore({ dir, token: "one" });
      const redis = new Redis({ url: first.url, token: "one" });
      await redis.set("k", "v", { ex: 1000 });
      await assert.rejects(startLocalStore({ dir }), /in use/);
      await first.stop();
      const second = await startLocalStore({ dir });
      assert.equal(await second.redis.get("k"), "v");
      assert.ok((await second.redis.ttl("k")) > 900);
      await second.stop();
    } finally {
      await rm(dir, { recursive: true });
    }
  });

  test("a store can use a Valkey that outlives it", async () => {
    const valkey = await startValkey();
    const first = await startLocalStore({ valkey });
    await first.redis.set("k", "v");
    await first.stop();
    const second = await startLocalStore({ valkey });
    assert.equal(await second.redis.get("k"), "v");
    await second.stop();
    await valkey.stop();
    assert.ok(!existsSync(valkey.socket));
  });

  test("without a folder nothing is left, also when the process is killed", async () => {
    const script =
      'import { startValkey } from "./tools/valkey.mjs"; console.log((await startValkey()).socket); setInterval(() => {}, 1000);';
    const child = spawn(process.execPath, ["--input-type=module", "-e", script]);
    const [socket] = await new Promise((resolve) =>
      child.stdout.once("data", (data) => resolve(String(data).split("\n"))),
    );
    assert.ok(existsSync(socket));
    child.kill("SIGKILL");
    const deadline = Date.now() + 5000;
    while (existsSync(path.dirname(socket)) && Date.now() < deadline) await sleep(10);
    assert.ok(!existsSync(path.dirname(socket)), "the server has stopped and its folder is gone");
  });
});

describe("Upstash's own client", () => {
  for (const responseEncoding of /** @type {const} */ (["base64", false])) {
    for (const enableAutoPipelining of [true, false]) {
      describe(`with responseEncoding ${responseEncoding} and enableAutoPipelining ${enableAutoPipelining}`, () => {
        /** @type {Redis} */
        let redis;
        before(() => {
          redis = new Redis({
            url: store.url,
            token: store.token,
            responseEncoding,
            enableAutoPipelining,
            retry: false,
          });
        });

        test("values of every kind come back", async () => {
          const object = { text: "🧥é", list: [1, null, true] };
          assert.equal(await redis.set("object", object), "OK");
          assert.deepEqual(await redis.get("object"), object);
          assert.equal(await redis.get("none"), null);
          assert.equal(await redis.set("text", "OK"), "OK");
          assert.equal(await redis.get("text"), "OK");
          assert.deepEqual(await redis.mget("text", "none"), ["OK", null]);
          assert.equal(await redis.incrby("n", 41), 41);
          assert.equal(await redis.hset("h", { a: 1, b: "two" }), 2);
          assert.deepEqual(await redis.hgetall("h"), { a: 1, b: "two" });
          assert.equal(await redis.zadd("z", { score: 1.5, member: "m" }), 1);
          assert.deepEqual(await redis.zrange("z", 0, -1, { withScores: true }), ["m", 1.5]);
          assert.deepEqual(await redis.scan(0, { match: "ob*", count: 1000 }), ["0", ["object"]]);
          assert.equal(await redis.ping(), "PONG");
          assert.equal(await redis.expire("n", 100), 1);
          assert.equal(await redis.ttl("n"), 100);
          assert.deepEqual(await redis.eval("return {KEYS[1], ARGV[1]}", ["k"], ["a"]), ["k", "a"]);
          assert.deepEqual(await redis.createScript("return {ARGV[1]}").exec([], ["a"]), ["a"]);
        });

        test("commands at the same time are one request only when pipelined", async () => {
          const { value, calls, commands } = await store.counters.during(() =>
            Promise.all([redis.incr("n"), redis.incr("n"), redis.incr("n")]),
          );
          assert.deepEqual(value.toSorted(), [1, 2, 3]);
          assert.deepEqual([calls, commands], [enableAutoPipelining ? 1 : 3, 3]);
        });

        test("pipeline() and multi() answer in order", async () => {
          for (const chain of [redis.pipeline(), redis.multi()]) {
            const results = await chain.set("k", { a: 1 }).get("k").incr("n").hgetall("none").exec();
            assert.deepEqual(results, ["OK", { a: 1 }, results[2], null]);
          }
          assert.equal(await redis.get("n"), 2);
        });

        test("errors are thrown, or kept per entry", async () => {
          await redis.set("text", "text");
          await assert.rejects(redis.incr("text"), /ERR value is not an integer/);
          const results = await redis.pipeline().incr("text").get("text").exec({ keepErrors: true });
          assert.match(results[0].error ?? "", /^ERR value is not an integer/);
          assert.equal(results[1].result, "text");
          await assert.rejects(
            new Redis({ url: store.url, token: "no", retry: false }).get("k"),
            /WRONGPASS/,
          );
        });
      });
    }
  }

  for (const enableAutoPipelining of [true, false]) {
    test(`reads its own writes from a stale replica, auto-pipelining ${enableAutoPipelining}`, async () => {
      const options = { url: store.url, token: store.token, enableAutoPipelining };
      const sees = new Redis({ ...options, readYourWrites: true });
      const misses = new Redis({ ...options, readYourWrites: false });
      await sees.set("k", "old");
      store.faults.lag = 300;
      await sees.set("k", "new");
      assert.equal(await misses.get("k"), "old");
      assert.equal(await sees.get("k"), "new");
    });
  }
});

describe("Upstash's own rate limiter", () => {
  const limiters = {
    fixedWindow: Ratelimit.fixedWindow(10, "24 h"),
    slidingWindow: Ratelimit.slidingWindow(10, "24 h"),
    tokenBucket: Ratelimit.tokenBucket(3, "24 h", 10),
  };
  for (const [name, limiter] of Object.entries(limiters)) {
    test(`${name} lets exactly its limit through, of requests at the same time and after`, async () => {
      const redis = new Redis({ url: store.url, token: store.token });
      const ratelimit = new Ratelimit({ redis, limiter, ephemeralCache: false, prefix: "r" });
      const passed = async (/** @type {number} */ count, id = "me") => {
        const verdicts = await Promise.all(Array.from({ length: count }, () => ratelimit.limit(id)));
        return verdicts.filter(({ success }) => success).length;
      };
      assert.equal(await passed(1), 1);
      assert.equal(await passed(30), 9);
      assert.equal(await passed(5), 0);
      assert.equal(await passed(12, "someone else"), 10);
      const [key] = await store.redis.keys("r:*");
      assert.ok((await store.redis.ttl(key)) > 0);
    });
  }

  test("fixedWindow costs two commands once its script is known", async () => {
    const redis = new Redis({ url: store.url, token: store.token });
    const ratelimit = new Ratelimit({ redis, limiter: limiters.fixedWindow, ephemeralCache: false });
    await ratelimit.limit("me");
    const { value, ...counted } = await store.counters.during(() => ratelimit.limit("me"));
    assert.equal(value.remaining, 8);
    assert.deepEqual(counted, { calls: 1, commands: 2, byName: { EVALSHA: 1, INCRBY: 1 } });
  });
});

/** @param {{ result: unknown }} entry */
function value(entry) {
  return entry.result;
}

/** @param {string} text */
async function sha1(text) {
  return Buffer.from(await crypto.subtle.digest("SHA-1", Buffer.from(text))).toString("hex");
}
