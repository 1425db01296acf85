/** A replicated database: whoever has written reads it back at once, at every isolate, although replicas lag. */
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { randomSecret, startWorker } from "./support/worker.mjs";

const LAG = 500;
const SYNC = "__Host-session-sync";

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** @type {Awaited<ReturnType<typeof startWorker>>[]} */
let workers = [];
/** @type {import("./support/visitor.mjs").Visitor} */
let visitor;

before(async () => {
  store = await startLocalStore();
  const secrets = { SESSION_SECRET: randomSecret() };
  workers = await Promise.all([1, 2, 3].map(() => startWorker({ store, secrets })));
});
after(async () => {
  await Promise.all(workers.map((worker) => worker.stop()));
  await store.stop();
});
beforeEach(() => {
  store.faults.clear();
  visitor = workers[0].visitor();
});

/** The visitor's next request goes to another isolate. @param {number} index */
const goTo = (index) => void (visitor.url = workers[index].url);

test("what was written is read back at once at another isolate, through a replica that lags by 500 ms", async () => {
  store.faults.lag = LAG;
  assert.equal((await visitor.merge({ a: 1 })).status, 200);
  goTo(1);
  assert.deepEqual((await visitor.session())?.data, { a: 1 });
  await visitor.merge({ a: 2 });
  goTo(2);
  assert.deepEqual((await visitor.session())?.data, { a: 2 });
  await visitor.rotate();
  goTo(0);
  assert.deepEqual((await visitor.session())?.data, { a: 2 });
});

test("without the companion cookie the replica's old state is read, which is what the cookie is for", async () => {
  await visitor.merge({ a: 1 });
  store.faults.lag = LAG;
  await visitor.merge({ a: 2 });
  visitor.cookies.delete(SYNC);
  assert.deepEqual((await visitor.session())?.data, { a: 1 });
});

test("a change through a replica that lags is applied to the newest state", async () => {
  await visitor.increment("/views");
  store.faults.lag = 200;
  const others = [1, 2].map((index) => visitor.clone(workers[index].url));
  for (const one of others) one.cookies.delete(SYNC);
  await visitor.increment("/views");
  await Promise.all(others.map((one) => one.increment("/views")));
  store.faults.lag = 0;
  assert.equal((await visitor.session()).data.views, 4);
});

test("the companion comes with writes alone, lives ten seconds, and has the ticket's attributes", async () => {
  const written = await visitor.merge({ a: 1 });
  const lines = written.headers.getSetCookie().filter((line) => line.startsWith(SYNC));
  assert.equal(lines.length, 1);
  assert.match(String(lines[0]), /; Path=\/; HttpOnly; Secure; SameSite=Lax; Max-Age=10$/);
  const read = await visitor.look();
  assert.deepEqual(read.headers.getSetCookie(), []);
  const leaving = await visitor.logout();
  assert.ok(leaving.headers.getSetCookie().some((line) => line.startsWith(`${SYNC}=;`)));
  assert.equal(visitor.cookies.size, 0);
});

test("a forged, old or foreign companion is no more than none", async () => {
  await visitor.merge({ a: 1 });
  const good = String(visitor.cookies.get(SYNC));
  const forged = (good.startsWith("A") ? "B" : "A") + good.slice(1);
  for (const value of [forged, String(visitor.ticket), "", "x".repeat(5000), "%0d%0aX: y"]) {
    visitor.cookies.set(SYNC, value);
    const answer = await visitor.look();
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.json.session.data, { a: 1 });
  }
  const ticket = visitor.ticket;
  visitor.ticket = good;
  assert.equal(await visitor.session(), null, "and it lets nobody in");
  visitor.ticket = ticket;
});
