/** The signing secret changes under way, twice, and no one who comes by is logged out. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { randomSecret, startWorker } from "./support/worker.mjs";

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
before(async () => void (store = await startLocalStore()));
after(() => store.stop());

test("two new secrets and the removal of the oldest log no active visitor out", async () => {
  const [a, b, c] = [randomSecret(), randomSecret(), randomSecret()];
  const deployments = [[a], [b, a], [c, b, a], [c, b], [c]].map((secrets) => secrets.join(","));
  const visitors = [];
  let tickets = new Set();
  for (const [index, SESSION_SECRET] of deployments.entries()) {
    const worker = await startWorker({ store, secrets: { SESSION_SECRET } });
    try {
      if (index === 0) {
        for (let count = 0; count < 5; count += 1) visitors.push(worker.visitor());
        await Promise.all(visitors.map((visitor) => visitor.merge({ visits: 0 })));
      }
      const keys = new Set();
      await Promise.all(
        visitors.map(async (visitor) => {
          visitor.url = worker.url;
          const answers = await Promise.all([visitor.increment("/visits"), visitor.look(), visitor.look()]);
          for (const answer of answers)
            assert.notEqual(answer.json.session, null, SESSION_SECRET.length + "");
          keys.add(String(visitor.ticket).slice(0, 6));
        }),
      );
      assert.equal(keys.size, 1, "every active ticket is under the first secret");
      const before = tickets;
      tickets = new Set(visitors.map((visitor) => visitor.ticket));
      const reissued = index === 1 || index === 2;
      for (const ticket of tickets) assert.equal(before.has(ticket), index > 0 && !reissued);
    } finally {
      await worker.stop();
    }
  }
  assert.equal(visitors.length, 5);
});
