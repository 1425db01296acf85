/** What a request costs beside an Express application: calls to the store and billed commands, as docs/interop.md says. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { costsOf, settings } from "./support/costs.mjs";
import { admin, json, ok, startBeside } from "./support/express.mjs";
import { moveToWindow } from "./support/worker.mjs";

costsOf("Express", "JSON", async (isLimited) => {
  const both = await startBeside({ worker: { settings: settings(isLimited) } });
  return {
    ...both,
    admin,
    async user() {
      const { atExpress, atWorker } = both.someone();
      await ok(atExpress.send("GET", "/"));
      await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
      return atWorker;
    },
  };
});

test("limits.user costs a call of its own, and two commands: whose session it is stands in the record alone", async () => {
  const both = await startBeside({ worker: { settings: { limits: { session: "300/1m", user: "300/1m" } } } });
  try {
    await moveToWindow(both.store, [both.worker]);
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
    await ok(atWorker.look());
    await both.worker.idle();
    const { calls, commands, byName } = await both.store.counters.during(() => ok(atWorker.look()));
    assert.deepEqual({ calls, commands, byName }, { calls: 2, commands: 4, byName: { MGET: 2, INCR: 2 } });
  } finally {
    await both.stop();
  }
});

test("taking a session over costs two calls, one more for its user's account, and its own cookie one; the old cookie alone is two calls each time", async () => {
  const accept = [{ format: "express", user_pointer: "/userId" }];
  const both = await startBeside({
    worker: {
      cookie: { format: "cloakroom", user_pointer: undefined, secure: true, accept },
      settings: { limits: { session: "300/1m" } },
    },
  });
  try {
    await moveToWindow(both.store, [both.worker]);
    const first = both.worker.visitor();
    await ok(first.merge({ a: 1 }));
    await ok(first.look()); // what is done once a minute is done
    await both.worker.idle();
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
    const old = atWorker.clone();
    /** @param {import("./support/visitor.mjs").Visitor} visitor */
    const costOf = async (visitor) => {
      const { calls, commands } = await both.store.counters.during(async () => {
        await ok(visitor.look());
        await both.worker.idle();
      });
      return `${calls} / ${commands}`;
    };
    assert.equal(await costOf(atWorker), "3 / 12");
    assert.equal(await costOf(atWorker), "1 / 3", "the first of a window");
    assert.equal(await costOf(atWorker), "1 / 2");
    assert.equal(await costOf(old.clone()), "2 / 4");
  } finally {
    await both.stop();
  }
});
