/** `npm run doctor` that is interrupted leaves nothing behind. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { startDoctor } from "./support/doctor.mjs";
import { store } from "./support/local-store.mjs";
import { startWorker, until } from "./support/worker.mjs";

const database = () => ({ UPSTASH_REDIS_REST_URL: store.url, UPSTASH_REDIS_REST_TOKEN: store.token });

describe("interrupted", () => {
  for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"])) {
    test(`by ${signal} it removes its keys, also that which is on its way`, async () => {
      const hold = store.faults.hold(({ commands }) => commands.some(([, key]) => key?.includes(":msetnx:")));
      const started = await startDoctor([], { env: database() });
      await hold.arrived;
      assert.notDeepEqual(await store.redis.keys("*:doctor:*"), null);
      started.kill(signal);
      started.kill(signal); // as npm and a terminal do together
      hold.release();
      const { code, output } = await started.ended;
      assert.equal(code, 130);
      assert.match(output, /✔ the keys are removed\n\nInterrupted\. /);
      assert.deepEqual(await store.redis.keys("*"), []);
    });
  }

  test("it ends the session that it has begun", async () => {
    const worker = await startWorker({ store, secrets: {} });
    try {
      const isAboutSession = (/** @type {string[][]} */ commands) =>
        commands.length === 2 && commands[0]?.[0] === "MGET" && /^sess:[^:]+$/.test(commands[0][1] ?? "");
      const hold = store.faults.hold(
        ({ commands }) => isAboutSession(commands) && commands[1]?.[0] === "GETEX",
      );
      const started = await startDoctor(["--url", worker.url, "--json"], { env: database() });
      await hold.arrived;
      assert.equal((await store.redis.keys("sess:*")).length, 1);
      started.kill("SIGINT");
      hold.release();
      const { code, output } = await started.ended;
      const report = JSON.parse(output);
      assert.deepEqual([code, report.ok, report.interrupted], [130, false, true]);
      await until(async () => (await store.redis.keys("sess:*")).length === 0);
    } finally {
      await worker.stop();
    }
  });

  test("keys that cannot be removed are named, and expire by themselves", async () => {
    const hold = store.faults.hold(({ commands }) =>
      commands.some(([, key]) => key?.includes(":delex-ifeq:")),
    );
    const started = await startDoctor([], { env: database() });
    await hold.arrived;
    store.faults.always({ status: 500 });
    started.kill("SIGINT");
    hold.release();
    const { code, output } = await started.ended;
    assert.equal(code, 130);
    assert.match(
      output,
      /! the keys are removed\n {6}found: status 500.*\n {6}so: Keys may be left under doctor:[0-9a-f]+:/,
    );
    store.faults.clear();
    const left = await store.redis.keys("doctor:*");
    assert.ok(left.length > 0);
    for (const key of left) assert.ok((await store.redis.pTTL(key)) > 0, key);
  });
});
