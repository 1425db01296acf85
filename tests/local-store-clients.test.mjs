/** Upstash's own clients at the local store, and what is left when the store stops. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { before, describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Ratelimit } from "@upstash/ratelimit";
import { Redis } from "@upstash/redis";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { startValkey } from "../tools/valkey.mjs";
import { store } from "./support/local-store.mjs";

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
