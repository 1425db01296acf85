/**
 * Races with a known dangerous moment, at which one of two is paused in the store. Each throws when the
 * contract is broken.
 */
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { STORE_TIMEOUT } from "./stage.mjs";

/** @typedef {import("./stage.mjs").Stage} Stage */
/** @typedef {import("../visitor.mjs").Visitor} Visitor */
/** @typedef {import("../visitor.mjs").Answer} Answer */

/** Of the stage's touch_every, and a bit. */
const TOUCH_DUE = 2500;

/** @param {Stage} stage @param {number} [worker] */
const newcomer = (stage, worker = 0) => /** @type {Visitor} */ (stage.workers[worker]?.visitor());

/** The same visitor at the other isolate. @param {Stage} stage @param {Visitor} visitor */
const elsewhere = (stage, visitor) => visitor.clone(stage.workers[1]?.url);

/** Pauses the next call with this command in it. @param {Stage} stage @param {string} command */
const hold = (stage, command) =>
  stage.store.faults.hold(({ commands }) => commands.some(([name]) => name === command));

/**
 * Pauses what `act` does on the way to the store, lets `meanwhile` happen, and lets it go on.
 * @param {Stage} stage
 * @param {string} command
 * @param {() => Promise<Answer>} act
 * @param {() => Promise<unknown>} meanwhile
 */
async function paused(stage, command, act, meanwhile) {
  const held = hold(stage, command);
  const acting = act();
  await held.arrived;
  await meanwhile();
  held.release();
  return acting;
}

/** @param {Visitor} visitor */
async function leave(visitor) {
  assert.equal((await visitor.logout()).status, 204);
}

/** Nobody has a session any more, and nothing of one is stored. @param {Stage} stage @param {Visitor[]} visitors */
async function assertOver(stage, ...visitors) {
  for (const visitor of visitors) assert.equal((await visitor.look()).text, '{"session":null}', "alive");
  const records = (await stage.store.redis.keys("*")).filter((key) => key.includes("sess:"));
  assert.deepEqual(records, [], "left behind");
}

/** Whom a session was taken from. @param {Stage} stage @param {"MGET" | "PEXPIRE" | "SET"} command @param {(one: Visitor) => Promise<Answer>} act */
async function acrossLogout(stage, command, act) {
  const visitor = newcomer(stage);
  await visitor.merge({ a: 1 });
  if (command === "PEXPIRE") await stage.moveClocks(TOUCH_DUE);
  const one = elsewhere(stage, visitor);
  const later = visitor.clone();
  const answer = await paused(
    stage,
    command,
    () => act(one),
    () => leave(visitor),
  );
  await assertOver(stage, later, one);
  return answer;
}

/** @param {Stage} stage */
async function aReadPausedAcrossALogout(stage) {
  const answer = await acrossLogout(stage, "MGET", (one) => one.look());
  assert.equal(answer.text, '{"session":null}');
}

/** @param {Stage} stage */
async function aTouchPausedAcrossALogout(stage) {
  const answer = await acrossLogout(stage, "PEXPIRE", (one) => one.look());
  assert.equal(answer.text, '{"session":null}');
}

/** @param {Stage} stage */
async function aWritePausedAcrossALogout(stage) {
  const answer = await acrossLogout(stage, "SET", (one) => one.merge({ a: 2 }));
  assert.equal(answer.status, 401);
}

/** @param {Stage} stage */
async function aRotationPausedAcrossALogout(stage) {
  const answer = await acrossLogout(stage, "SET", (one) => one.rotate());
  assert.equal(answer.status, 401);
}

/** The first write of a session gets no answer, is sent again, and reaches the store when all is over. @param {Stage} stage */
async function aFirstWriteThatArrivesAfterTheLogout(stage) {
  const visitor = newcomer(stage);
  const late = STORE_TIMEOUT + 300;
  stage.store.faults.next({ delay: late }, { when: ({ commands }) => commands[0]?.[0] === "SET" });
  const sent = performance.now();
  assert.equal((await visitor.merge({ a: 1 })).status, 200);
  const later = visitor.clone();
  await leave(visitor);
  await sleep(sent + late + 50 - performance.now());
  assert.equal((await later.look()).text, '{"session":null}', "alive");
}

/** @param {Stage} stage */
async function aRotationUnder20Requests(stage) {
  const visitor = newcomer(stage);
  await visitor.merge({ views: 0 });
  const rotates = Math.floor(Math.random() * 20);
  const people = Array.from({ length: 20 }, (_, index) =>
    index % 2 ? elsewhere(stage, visitor) : visitor.clone(),
  );
  const answers = await Promise.all(
    people.map((one, index) => {
      if (index === rotates) return one.rotate();
      return index % 3 ? one.look() : one.increment("/views");
    }),
  );
  assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200], "turned away");
  const seen = await Promise.all([visitor, ...people].map((one) => one.session()));
  const made = people.filter((_, index) => index !== rotates && index % 3 === 0).length;
  assert.deepEqual(new Set(seen.map(({ handle }) => handle)).size, 1, "forked");
  assert.deepEqual([...new Set(seen.map(({ data }) => data.views))], [made], "lost");
}

let users = 0;

/** A user, and what our back end does for them. @param {Stage} stage */
function serveUser(stage) {
  const user = `user-${++users}`;
  return {
    /** Someone with a new session of this user. @param {number} [worker] */
    async login(worker) {
      const visitor = newcomer(stage, worker);
      assert.equal((await stage.office.login(visitor, user, { a: 1 })).status, 201, "login");
      return visitor;
    },
    async revokeAll() {
      assert.equal((await stage.office.revoke(newcomer(stage, 1), user)).status, 200, "revoke-all");
    },
  };
}

/** The store loses the list of every user's sessions. @param {Stage} stage */
async function loseIndex({ store: { redis } }) {
  const keys = await redis.keys("user:*:sessions");
  if (keys.length) await redis.del(keys);
}

/**
 * Five logins that are under way, or just done, when all sessions of the user are revoked.
 * @param {Stage} stage
 * @param {boolean} [losesIndex]
 */
async function loginsAgainstRevokeAll(stage, losesIndex = false) {
  const { login, revokeAll } = serveUser(stage);
  const first = await login();
  const holds = Array.from({ length: 5 }, () => hold(stage, "SET"));
  const logins = holds.map((_, index) => login(index % 2));
  await Promise.all(holds.map(({ arrived }) => arrived));
  const [early, late] = [holds.slice(0, 2), holds.slice(2)];
  for (const { release } of early) release();
  if (losesIndex) await loseIndex(stage);
  await revokeAll();
  for (const { release } of late) release();
  for (const visitor of [first, ...(await Promise.all(logins))]) {
    assert.equal((await visitor.look()).text, '{"session":null}', "alive");
  }
  const next = await login();
  assert.notEqual(await next.session(), null, "a login after the revocation");
}

/** @param {Stage} stage */
const loginsAgainstRevokeAllWithoutIndex = (stage) => loginsAgainstRevokeAll(stage, true);

/**
 * @param {Stage} stage
 * @param {"MGET" | "PEXPIRE" | "SET"} command
 * @param {(one: Visitor) => Promise<Answer>} act
 */
async function acrossRevokeAll(stage, command, act) {
  const { login, revokeAll } = serveUser(stage);
  const visitor = await login();
  if (command === "PEXPIRE") await stage.moveClocks(TOUCH_DUE);
  if (Math.random() < 0.5) await loseIndex(stage);
  const [one, later] = [elsewhere(stage, visitor), visitor.clone()];
  const answer = await paused(stage, command, () => act(one), revokeAll);
  for (const each of [visitor, later]) assert.equal((await each.look()).text, '{"session":null}', "alive");
  return answer;
}

/** @param {Stage} stage */
async function aReadPausedAcrossARevokeAll(stage) {
  const answer = await acrossRevokeAll(stage, "MGET", (one) => one.look());
  assert.equal(answer.text, '{"session":null}');
}

/** @param {Stage} stage */
async function aTouchPausedAcrossARevokeAll(stage) {
  const answer = await acrossRevokeAll(stage, "PEXPIRE", (one) => one.look());
  assert.equal(answer.text, '{"session":null}');
}

/** @param {Stage} stage */
async function aWritePausedAcrossARevokeAll(stage) {
  const answer = await acrossRevokeAll(stage, "SET", (one) => one.merge({ a: 2 }));
  assert.equal(answer.status, 401);
}

/** @param {Stage} stage */
async function aRotationPausedAcrossARevokeAll(stage) {
  const answer = await acrossRevokeAll(stage, "SET", (one) => one.rotate());
  assert.equal(answer.status, 401);
}

/** The session of a user who ends all others is changed meanwhile. @param {Stage} stage */
async function aWriteToWhatIsKept(stage) {
  const visitor = await serveUser(stage).login();
  const write = () => elsewhere(stage, visitor).merge({ a: 2 });
  const keep = () => visitor.clone().send("DELETE", "/auth/sessions?keep=current");
  assert.equal((await paused(stage, "SET", write, keep)).status, 200, "turned away");
  assert.equal((await visitor.session()).data.a, 2, "lost");
}

/**
 * @typedef {object} Scenario
 * @property {string} name
 * @property {(stage: Stage) => Promise<unknown>} run
 * @property {number} cost how many of the cheapest it takes the time of
 */

/** @type {Scenario[]} */
export const SCENARIOS = [
  { name: "a read paused across a logout", run: aReadPausedAcrossALogout, cost: 1 },
  { name: "a touch paused across a logout", run: aTouchPausedAcrossALogout, cost: 1 },
  { name: "a write paused across a logout", run: aWritePausedAcrossALogout, cost: 1 },
  { name: "a rotation paused across a logout", run: aRotationPausedAcrossALogout, cost: 1 },
  { name: "a rotation under 20 requests", run: aRotationUnder20Requests, cost: 5 },
  {
    name: "a first write that arrives after the logout",
    run: aFirstWriteThatArrivesAfterTheLogout,
    cost: 200,
  },
  { name: "logins against revoke-all", run: loginsAgainstRevokeAll, cost: 1 },
  { name: "logins against revoke-all, the index lost", run: loginsAgainstRevokeAllWithoutIndex, cost: 1 },
  { name: "a read paused across a revoke-all", run: aReadPausedAcrossARevokeAll, cost: 1 },
  { name: "a touch paused across a revoke-all", run: aTouchPausedAcrossARevokeAll, cost: 1 },
  { name: "a write paused across a revoke-all", run: aWritePausedAcrossARevokeAll, cost: 1 },
  { name: "a rotation paused across a revoke-all", run: aRotationPausedAcrossARevokeAll, cost: 1 },
  { name: "a write paused while its session is kept from a revocation", run: aWriteToWhatIsKept, cost: 1 },
];

/**
 * Runs a scenario on an empty store without faults.
 * @param {Stage} stage
 * @param {Scenario} scenario
 */
export async function runScenario(stage, { run }) {
  stage.store.faults.clear();
  try {
    await run(stage);
  } finally {
    stage.store.faults.clear();
    await stage.store.redis.flushDb();
  }
}
