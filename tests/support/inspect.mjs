/** What the tests of `POST /auth/admin/inspect` share: a look at a cookie that must leave no trace, whatever it finds. */
import assert from "node:assert/strict";
import { takeSnapshot } from "./snapshot.mjs";

/** @typedef {import("./worker.mjs").Worker} Worker */
/** @typedef {import("./worker.mjs").LocalStore} LocalStore */
/** @typedef {import("./visitor.mjs").Visitor} Visitor */
/** @typedef {import("./visitor.mjs").Answer} Answer */
/** @typedef {Record<string, string>} Headers */

/** The commands that change nothing: `GETEX` without an option is a read that no replica answers. */
const READS = ["MGET", "GETEX"];
/** Times to live run on while a test looks. */
const SLOW_MS = 30_000;

/**
 * Looks at a cookie, and that the look left no trace: in the store, in the answer, in what is done after it.
 * @param {{ store: LocalStore, worker: Worker, admin: Headers }} deployment
 * @param {string | undefined} cookie
 * @returns {Promise<{ answer: Answer, calls: number, byName: Record<string, number> }>}
 */
export async function lookAt({ store, worker, admin }, cookie) {
  await worker.idle();
  const before = await dump(store);
  const { value, calls, byName } = await store.counters.during(async () => {
    const answer = await worker.visitor().tell("POST", "/admin/inspect", { cookie }, admin);
    await worker.idle();
    return answer;
  });
  const after = await dump(store);
  const without = Object.keys(byName).filter((name) => !READS.includes(name));
  assert.deepEqual(without, [], "it only reads");
  assert.deepEqual(after.values, before.values, "nothing is written");
  for (const [key, ttl] of Object.entries(after.ttls)) {
    const was = before.ttls[key];
    const has = ttl === null ? was === null : was !== null && ttl <= was && was - ttl < SLOW_MS;
    assert.ok(has, `the time to live of ${key} was ${was}, and is ${ttl}`);
  }
  assert.deepEqual(value.headers.getSetCookie(), []);
  const secret = /[\w-]{43,}/.exec(cookie ?? "")?.[0];
  assert.ok(!secret || !value.text.includes(secret), "an answer that holds the cookie");
  return { answer: value, calls, byName };
}

/** All but the counters of the day, which come from earlier requests, a while later. @param {LocalStore} store */
async function dump(store) {
  const all = Object.entries(await takeSnapshot(store.redis)).filter(([key]) => !key.startsWith("stats:"));
  return {
    values: all.map(([key, { type, value }]) => [key, type, value]),
    ttls: Object.fromEntries(all.map(([key, { ttl }]) => [key, ttl])),
  };
}

/**
 * What a cookie is said to be.
 * @param {Parameters<typeof lookAt>[0]} deployment
 * @param {string | undefined} cookie
 */
export async function inspect(deployment, cookie) {
  const { answer } = await lookAt(deployment, cookie);
  assert.equal(answer.status, 200, answer.text);
  const { alive, reason, ...more } = answer.json;
  assert.equal(alive, reason === null, answer.text);
  return { reason, ...more };
}

/** A record that lives for an hour. @param {LocalStore} store @param {string} key @param {string} value */
export const write = (store, key, value) =>
  store.redis.set(key, value, { expiration: { type: "EX", value: 3600 } });
