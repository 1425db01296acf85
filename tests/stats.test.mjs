/** Counters per day: the events, and which keys' tickets are still in use, counted outside of any request. */
import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { FAST_HASH, randomSecret, startBoth, startWorker, until } from "./support/worker.mjs";

const MINUTE = 60_000;
const ADMIN_TOKEN = randomSecret();
const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const [older, newer] = [randomSecret(), randomSecret()];

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** @type {Awaited<ReturnType<typeof startWorker>>} */
let worker;
/** @type {import("./support/visitor.mjs").Visitor[]} Two with tickets under the older secret. */
let visitors;

before(async () => {
  store = await startLocalStore();
  const before = await startWorker({ store, secrets: { SESSION_SECRET: older } });
  visitors = [before.visitor(), before.visitor()];
  await Promise.all(visitors.map((visitor) => visitor.merge({ a: 1 })));
  await before.stop();
  worker = await startWorker({ store, secrets: { SESSION_SECRET: `${newer},${older}`, ADMIN_TOKEN } });
  for (const visitor of visitors) visitor.url = worker.url;
});
after(async () => {
  await worker.stop();
  await store.stop();
});
afterEach(() => store.faults.clear());

const report = async () => (await worker.visitor().send("GET", "/auth/admin/stats", { headers })).json;
const isTally = (/** @type {{ commands: string[][] }} */ { commands }) => commands[0]?.[0] === "HINCRBY";

/** @param {string} key */
const seen = async (key) => (await report()).days[0]?.tickets_by_key[key] ?? 0;

test("the report lists the keys in their order, and counts the valid tickets under each", async () => {
  const { signing_keys, longest_session_seconds, days } = await report();
  assert.equal(signing_keys.length, 2);
  assert.equal(longest_session_seconds, 30 * 24 * 3600, "session.remember, by default");
  assert.ok(signing_keys.every((/** @type {string} */ key) => /^[0-9a-f]{8}$/.test(key)));
  assert.deepEqual(days, []);
  const [now, then] = signing_keys;

  const [stays, comes] = visitors;
  const late = stays.clone();
  for (let count = 0; count < 3; count += 1) await comes.look(); // one under the older, then under the newer
  const forger = worker.visitor();
  forger.ticket = "A".repeat(148);
  await forger.look();
  await worker.moveClock(MINUTE, { settle: false });
  await late.look();
  await until(async () => (await seen(now)) === 2 && (await seen(then)) === 2);

  const [key] = await store.redis.keys("stats:*");
  assert.match(String(key), /^stats:\d{4}-\d\d-\d\d$/);
  assert.ok((await store.redis.pTTL(String(key))) > 35 * 24 * 60 * MINUTE);
});

test("counters are written after the response, and at most once a minute", async () => {
  const [visitor] = visitors;
  await visitor.look();
  await worker.moveClock(MINUTE, { settle: false });
  const held = store.faults.hold(isTally);
  assert.equal((await visitor.look()).status, 200, "the response does not wait for the counters");
  await held.arrived;
  held.release();
  await until(async () => (store.counters.byName.HINCRBY ?? 0) > 0);

  const { byName } = await store.counters.during(async () => {
    for (let count = 0; count < 20; count += 1) await visitor.look();
  });
  assert.deepEqual(byName, { MGET: 20 });
});

test("counters that could not be written are logged and written later, and delay no request", async () => {
  const [visitor] = visitors;
  const { signing_keys } = await report();
  await visitor.look();
  const before = await seen(signing_keys[0]);

  store.faults.always("refuse", { when: isTally });
  await worker.moveClock(MINUTE, { settle: false });
  assert.equal((await visitor.look()).status, 200);
  await until(async () => worker.logs.join("").includes("the counters of the day could not be written"));
  store.faults.clear();
  await worker.moveClock(MINUTE, { settle: false });
  await visitor.look();
  await until(async () => (await seen(signing_keys[0])) >= before + 2);
});

test("the report requires the admin token", async () => {
  assert.equal((await worker.visitor().send("GET", "/auth/admin/stats")).status, 401);
});

test("events are counted per day, outside of any request", async () => {
  const settings = { password: FAST_HASH, limits: { session: "", mint: "", login: "2/5m" } };
  const { store, worker, stop } = await startBoth({ secrets: { ADMIN_TOKEN }, settings });
  try {
    const people = [worker.visitor(), worker.visitor(), worker.visitor()];
    const { byName } = await store.counters.during(async () => {
      for (const [index, one] of people.entries()) {
        await one.register(`user ${index}`, "correct horse");
        await one.session();
      }
      await people[0]?.logout();
      await people[0]?.login("user 0", "correct horse");
      const stranger = worker.visitor();
      for (let attempt = 0; attempt < 3; attempt += 1) await stranger.login("nobody", "wrong horse!");
      const second = worker.visitor();
      await second.login("user 1", "correct horse");
      await people[1]?.send("DELETE", "/auth/sessions?keep=current");
      await people[2]?.send("POST", "/auth/logout");
    });
    for (const command of ["HINCRBY", "PFADD", "PFCOUNT"]) assert.equal(byName[command], undefined);
    await worker.moveClock(MINUTE + 1000);
    const report = await worker.visitor().send("GET", "/auth/admin/stats", { headers });
    const { day, tickets_by_key, ...counted } = report.json.days[0];
    assert.deepEqual(counted, {
      sessions_created: 5,
      logins: 5,
      failed_logins: 2,
      logouts: 2,
      revocations: 1,
      rate_limited: 1,
      passed_uncounted: 0,
      events_lost: 0,
      gateway_refused: 0,
      distinct_users: 3,
    });
    for (const key of await store.redis.keys("stats:*")) assert.ok((await store.redis.pTTL(key)) > 0);
  } finally {
    await stop();
  }
});
