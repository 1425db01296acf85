/** The local store's wire format and commands, compared with Upstash's. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { b64, BASE64, call, result, store } from "./support/local-store.mjs";

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
    ["PUT does the same as POST", "/", ["GET", "k"], { method: "PUT" }, 200, { result: "old" }],
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
    ["DELETE is not allowed", "/", ["GET", "k"], { method: "DELETE" }, 405, /^ERR/],
    ["PATCH is not allowed", "/get/k", undefined, { method: "PATCH" }, 405, /^ERR/],
    ["a pipeline cannot be sent with GET", "/pipeline", undefined, { method: "GET" }, 405, /^ERR/],

    ["an unknown command is refused", "/", ["NOPE"], , 400, /^ERR Command is not available/],
    ["a failing command is refused", "/", ["INCR", "h"], , 400, /^WRONGTYPE/],
    ["a syntax error is refused", "/", ["SET", "k", "v", "SECRET"], , 400, /^ERR syntax error/],
    ["a script that is not known says NOSCRIPT", "/", ["EVALSHA", "0".repeat(40), 0], , 400, /^NOSCRIPT/],
    ["JSON commands are not available", "/", ["JSON.GET", "k"], , 400, /^ERR .*not available/],
    ["SET IFNE is not available", "/", ["SET", "k", "v", "IFNE", "x"], , 400, /^ERR IFNE is not available/],
    [
      "SET IFDEQ is not available",
      "/",
      ["SET", "k", "v", "IFDEQ", "x"],
      ,
      400,
      /^ERR IFDEQ is not available/,
    ],
    ["DELEX IFNE is not available", "/", ["DELEX", "k", "IFNE", "x"], , 400, /^ERR IFNE is not available/],
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
  test("commands for a connection or for the server's operator are not available", async () => {
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

  test("10 MB are accepted and a byte more is refused", async () => {
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

describe("commands that differ between Valkey and Upstash", () => {
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

/** @param {string} text */
async function sha1(text) {
  return Buffer.from(await crypto.subtle.digest("SHA-1", Buffer.from(text))).toString("hex");
}
