/** What the tests of rotations share: a deployment, started with the import, and what the store knows of a family of ids. */
import assert from "node:assert/strict";
import { after, beforeEach } from "node:test";
import { randomSecret, startDeployment, until } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Visitor} Visitor */

export const SECOND = 1000;
export const HOUR = 3_600_000;
/** How long an old id is good after its successor was first presented. */
export const GRACE = 30 * SECOND;
export const ADMIN_TOKEN = randomSecret();

/** Two isolates of one deployment, and one that ignores the reuse of old ids. */
const deployment = await startDeployment(
  [{}, {}, { settings: { session: { on_reuse: "ignore", rotate_every: "" } } }],
  { secrets: { SESSION_SECRET: randomSecret(), ADMIN_TOKEN } },
);
after(deployment.stop);
export const { store, workers, start } = deployment;
beforeEach(() => store.faults.clear());

/** @param {number} milliseconds */
export const moveClocks = (milliseconds) =>
  Promise.all(workers.map((worker) => worker.moveClock(milliseconds)));

/** The head of the family of a visitor's session, as the store has it. @param {Visitor} visitor @returns {Promise<any>} */
export async function headOf(visitor) {
  const head = await store.redis.get(`family:${familyOf(visitor)}`);
  return head === null ? null : JSON.parse(String(head));
}

/** The name of the family is in the ticket; see src/ticket/mod.rs. @param {Visitor} visitor */
export const familyOf = (visitor) =>
  Buffer.from(String(visitor.ticket), "base64url").subarray(67, 76).toString("base64url");

/** Whether it is noted that the newest id of a visitor's session was presented. @param {Visitor} visitor */
export const isNoted = async (visitor) => Boolean((await headOf(visitor))?.successors?.at(-1)?.seen);

/** Presents the visitor's id, another one if a rotation was due, and waits until that is noted. @param {Visitor} visitor */
export async function present(visitor) {
  let answer = await visitor.look();
  if (answer.setCookies.length) answer = await visitor.look();
  assert.notEqual(answer.json.session, null);
  await until(
    () => isNoted(visitor),
    () => "the first use of an id is not noted",
  );
  return answer.json.session;
}

/** Rotates, and presents the new id. @param {Visitor} visitor */
export async function rotateAndPresent(visitor) {
  const answer = await visitor.rotate();
  assert.equal(answer.status, 200, answer.text);
  return present(visitor);
}

/** A visitor with a session. @param {number} [at] index of the isolate */
export async function guest(at = 0) {
  const visitor = workers[at].visitor();
  assert.equal((await visitor.merge({ a: 1 })).status, 200);
  return visitor;
}
