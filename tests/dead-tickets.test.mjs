/** A good ticket whose session has ended costs next to nothing, and uses up nobody's limit. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  admin,
  all,
  assertRefused,
  from,
  guest,
  limitStates,
  look,
  member,
  names,
  passed,
  someAddress,
  someUser,
  startAlike,
  store,
  untilCounted,
} from "./support/limits.mjs";
import { moveToWindow } from "./support/worker.mjs";

/** @typedef {import("./support/limits.mjs").Visitor} Visitor */
/** @typedef {import("./support/limits.mjs").Answer} Answer */

/** Two isolates. */
const two = await startAlike(2, {
  limits: {
    session: "5/1m",
    user: "8/1m",
    mint: "4/1m",
    routes: [
      { path: "/auth/session", method: "GET", limit: "3/1m", by: "session" },
      { path: "/auth/verify", limit: "3/1m", by: "user" },
    ],
  },
});
/** The names of the limits of these routes. */
const [SHOW, VERIFY] = ["GET /auth/session", "/auth/verify"];

/** Ends all sessions of a user. @param {string} id */
async function endAll(id) {
  const headers = { ...admin, ...from() };
  const answer = await two[0].visitor().send("DELETE", `/auth/admin/users/${id}/sessions`, { headers });
  assert.ok(answer.status < 300, answer.text);
}

/** An owner, and a thief with the owner's last ticket, who was thrown out. */
async function thrownOut() {
  const id = someUser();
  const thief = await member(two[0], id);
  await endAll(id);
  return { thief, owner: await member(two[0], id) };
}

/** What is left of a limit by this answer. @param {Answer} answer @param {string} limit */
const left = (answer, limit) => limitStates(answer).find(({ name }) => name === limit)?.r;

/** Everything that was put off until after answers is done. */
const settle = () => Promise.all(two.map((worker) => worker.moveClock(0)));

test("from its second use on it costs no call, whatever is asked with it", async () => {
  const { thief } = await thrownOut();
  for (const worker of two) {
    const first = await store.counters.during(() => thief.clone(worker.url).rotate());
    assert.equal(first.value.status, 401);
    assert.equal(first.byName.MGET, 1, "what counts is answered by the primary, which is believed");
    await settle();
  }
  /** @type {[number, (one: Visitor) => Promise<Answer>][]} */
  const cases = [
    [204, (one) => one.logout()],
    [401, (one) => one.rotate()],
    [401, (one) => one.send("GET", "/auth/sessions")],
    [401, (one) => one.send("DELETE", "/auth/sessions")],
    [401, (one) => one.send("GET", "/auth/profile")],
    [401, (one) => one.tell("PATCH", "/profile", { a: 1 })],
    [401, (one) => one.tell("POST", "/reauthenticate", { password: "correct horse" })],
    [401, (one) => one.send("DELETE", "/auth/sessions/W5mFHxzQHphIkp8jCPn54IoR")],
  ];
  for (const worker of two) {
    for (const [status, act] of cases) {
      const { value, calls } = await store.counters.during(() => act(thief.clone(worker.url)));
      assert.deepEqual([value.status, calls], [status, 0], `${act}: ${value.text}`);
    }
  }
});

test("a thief who was thrown out uses up nothing of the owner's", async () => {
  const { thief, owner } = await thrownOut();
  for (const worker of two) {
    for (let count = 0; count < 20; count += 1) {
      assert.equal((await thief.clone(worker.url).send("GET", "/auth/profile")).status, 401);
    }
  }
  await settle();
  assert.equal(left(await look(owner), "user"), 7);
  await untilCounted("user", 1);
});

test("nor does a thief who sends everything at once", async () => {
  const { thief, owner } = await thrownOut();
  const flood = two.flatMap((worker) =>
    Array.from({ length: 40 }, () => thief.clone(worker.url).send("GET", "/auth/profile")),
  );
  for (const answer of await Promise.all(flood)) assert.equal(answer.status, 401, answer.text);
  await settle();
  for (const worker of two) {
    assert.equal((await look(owner.clone(worker.url))).status, 200, "the owner is not refused");
  }
  await untilCounted("user", 2);
});

for (const [name, path, status] of /** @type {const} */ ([
  [SHOW, "/auth/session", 200],
  [VERIFY, "/auth/verify", 401],
])) {
  test(`twenty dead tickets get nobody round the limit of ${name}: they count by address`, async () => {
    const headers = from(someAddress());
    const dead = [];
    for (let count = 0; count < 20; count += 1) {
      const visitor = await member(two[0], someUser());
      dead.push(visitor.clone(two[count % 2].url));
      assert.equal((await visitor.logout()).status, 204);
    }
    const answers = [];
    for (const one of dead) answers.push(await one.send("GET", path, { headers }));
    assert.equal(passed(answers), 3);
    for (const [index, answer] of answers.entries()) {
      if (index < 3) assert.equal(answer.status, status);
      else assertRefused(answer, name);
    }
    for (const worker of two) {
      assertRefused(await worker.visitor().send("GET", path, { headers }), name);
      assertRefused(await dead[0].clone(worker.url).send("GET", path, { headers }), name);
    }
  });
}

test("sessions begun with dead tickets are counted by address", async () => {
  const address = someAddress();
  const visitor = await guest(two[0]);
  const dead = visitor.clone();
  await visitor.logout();
  const answers = [];
  for (let count = 0; count < 8; count += 1) answers.push(await dead.clone().merge({ b: 2 }, from(address)));
  assert.equal(passed(answers), 4);
  assert.equal((await store.redis.keys("sess:*")).length, 4);
});

test("a session has one quota through rotations and whatever else gives it a new id", async () => {
  const visitor = two[0].visitor();
  const password = "correct horse";
  assert.equal((await visitor.register(`Quota ${someUser()}`, password, from())).status, 201);
  const acts = [
    () => visitor.look(),
    () => visitor.rotate(),
    () => visitor.tell("POST", "/reauthenticate", { password }, from()),
    () => visitor.tell("POST", "/password", { current: password, new: "battery staple" }, from()),
    () => visitor.look(),
  ];
  for (const [index, act] of acts.entries()) {
    const answer = await act();
    assert.equal(answer.status, 200, answer.text);
    assert.equal(left(answer, "session"), 4 - index, String(act));
  }
  assertRefused(await visitor.look(), "session");
});

test("a logout is counted for the session that it ends", async () => {
  const visitor = await guest(two[0]);
  await look(visitor);
  const answer = await visitor.logout();
  assert.equal(answer.status, 204);
  assert.equal(left(answer, "session"), 3);
  await settle();
  await untilCounted("session", 2);
});

test("a ticket is not dead because the store fails, or holds what cannot be read, or a limit is reached", async () => {
  const visitor = await guest(two[0]);
  const { handle } = (await look(visitor)).json.session;
  const key = `sess:${handle}`;
  const record = String(await store.redis.get(key));
  store.faults.next("refuse", { times: 3 });
  assert.equal((await look(visitor)).status, 503);
  store.faults.clear();
  await store.redis.set(key, "nonsense", { expiration: { type: "EX", value: 60 } });
  assert.equal((await look(visitor)).status, 500);
  await store.redis.set(key, record, { expiration: { type: "EX", value: 60 } });
  for (let count = 0; count < 6; count += 1) await look(visitor);
  assert.equal((await look(visitor)).status, 429);
  await moveToWindow(store, all);
  await moveToWindow(store, all);
  assert.deepEqual((await look(visitor)).json.session?.data, { a: 1 });
});

test("the answer to a dead ticket tells of the limits that it counted in: those of the address alone", async () => {
  const { thief } = await thrownOut();
  for (let count = 0; count < 2; count += 1) {
    const answer = await thief.send("GET", "/auth/session", { headers: from() });
    assert.equal(answer.status, 200);
    assert.deepEqual(names(answer), [SHOW]);
  }
});
