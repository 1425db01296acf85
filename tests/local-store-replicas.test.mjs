/** Replicas of the local store, which lag behind as long as they are told to. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { Redis } from "@upstash/redis";
import { b64, call, result, store } from "./support/local-store.mjs";

describe("a lagging replica", () => {
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

  test("an invented token has no effect", async () => {
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

  test("switched off the lag ends at once, and switched on again the replica knows everything", async () => {
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

describe("several replicas, each with its own lag", () => {
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

  test("a token from a read covers what it saw also at a replica that lags more", async () => {
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

  test("the list of lags can change: a new replica knows everything, an old one keeps its lag, a removed one is gone", async () => {
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

  test("an invalid lag is refused, and changes nothing", () => {
    store.faults.lag = [1, 2];
    for (const lag of [[], [1, -1], [NaN], Array(9).fill(1)]) {
      assert.throws(() => (store.faults.lag = lag), RangeError);
    }
    assert.deepEqual(store.faults.lags, [1, 2]);
  });

  test("a region's endpoint has the store's token, refuses connections with it, and keeps its port", async () => {
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

/** @param {{ result: unknown }} entry */
function value(entry) {
  return entry.result;
}
