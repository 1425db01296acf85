/** Nobody is logged out because an answer with a new id was lost, or was late: an old id is good until the new one was seen. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ADMIN_TOKEN,
  familyOf,
  GRACE,
  guest,
  headOf,
  HOUR,
  isNoted,
  moveClocks,
  present,
  rotateAndPresent,
  SECOND,
  store,
  workers,
} from "./support/rotation.mjs";
import { until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** How long the store keeps the redirect from an id whose successor was presented. */
const REDIRECT_TTL = 60 * SECOND;

/** @param {string} handle */
const timeToLive = (handle) => store.redis.pTTL(`sess:${handle}`);

/** What an operator sees of a handle. @param {string} handle */
const inspect = (handle) =>
  workers[0].visitor().send("GET", `/auth/admin/sessions/${handle}`, {
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
  });

/** The visitor did not get the answer: they go on with what they have. @param {Visitor} visitor @param {(one: Visitor) => Promise<unknown>} act */
const losingTheAnswer = (visitor, act) => act(visitor.clone());

for (const [what, begin] of /** @type {[string, (one: Visitor) => Promise<unknown>][]} */ ([
  ["an explicit rotation", (one) => one.rotate()],
  [
    "a rotation that was due",
    async (one) => {
      await moveClocks(HOUR + SECOND);
      return one.look();
    },
  ],
])) {
  test(`a phone that lost the answer to ${what} goes on hours later, and loses answers again`, async () => {
    const phone = await guest();
    const old = phone.clone();
    await losingTheAnswer(phone, begin);
    for (let lost = 0; lost < 4; lost += 1) {
      await moveClocks(3 * HOUR);
      await losingTheAnswer(phone, async (one) => {
        const { value, calls } = await store.counters.during(() => one.increment("/n"));
        assert.equal(value.status, 200, value.text);
        assert.equal(value.json.session.data.n, lost + 1);
        assert.notEqual(one.ticket, old.ticket, "the successor is offered again");
        assert.ok(calls <= 3, `${calls} calls`);
      });
    }
    // At last it arrives, and from then on the old one's time runs.
    assert.deepEqual((await phone.session()).data, { a: 1, n: 4 });
    assert.notEqual(phone.ticket, old.ticket);
    await present(phone);
    await moveClocks(GRACE - SECOND);
    assert.deepEqual((await old.clone().session()).data, { a: 1, n: 4 });
    assert.equal((await phone.session()).data.n, 4);
  });
}

test("an outage of 31 s or more right after a rotation logs nobody out", async () => {
  for (const seconds of [31, 61, 600]) {
    const visitor = await guest();
    const [late, later] = [visitor.clone(), visitor.clone()];
    await visitor.rotate();
    store.faults.always("refuse");
    for (const one of [visitor, late]) assert.equal((await one.look()).status, 503);
    await moveClocks(seconds * SECOND);
    for (const one of [visitor, late]) assert.equal((await one.look()).status, 503);
    store.faults.clear();
    // What had the old id under way comes first, or last.
    const { handle } = await late.session();
    assert.equal((await present(visitor)).handle, handle);
    await moveClocks(GRACE - SECOND);
    assert.equal((await later.session())?.handle, handle, `${seconds} s`);
  }
});

test("a proxy that drops Set-Cookie logs nobody out: verify every hour, and reads every hour", async () => {
  const acts = [
    (/** @type {Visitor} */ one) => one.send("GET", "/auth/verify"),
    (/** @type {Visitor} */ one) => one.look(),
    (/** @type {Visitor} */ one) => one.merge({ b: 2 }),
  ];
  for (const [index, act] of acts.entries()) {
    const visitor = workers[0].visitor();
    assert.equal((await visitor.register(`Behind a proxy ${index}`, "correct horse")).status, 201);
    for (let hours = 0; hours < 20; hours += 1) {
      await moveClocks(HOUR + SECOND);
      const answer = await act(visitor.clone(workers[hours % 2].url));
      assert.equal(answer.status, 200, `after ${hours} hours: ${answer.text}`);
      if (index === 0) assert.deepEqual(answer.setCookies, []);
    }
    assert.notEqual(await visitor.session(), null);
  }
});

test("a redirect lives as long as its session until the successor was presented, and then for a minute", async () => {
  const visitor = await guest();
  const { handle } = await visitor.session();
  const whole = await timeToLive(handle);
  const late = visitor.clone();
  await visitor.rotate();
  const kept = await timeToLive(handle);
  assert.ok(kept > whole - 10 * SECOND && kept <= 30 * 60 * SECOND, String(kept));
  // The old id's use is none of the new one, of which nobody outside knows yet.
  await late.clone().look();
  assert.equal(await isNoted(visitor), false);
  assert.ok((await timeToLive(handle)) > REDIRECT_TTL);
  await present(visitor);
  const left = await timeToLive(handle);
  assert.ok(left > REDIRECT_TTL - 10 * SECOND && left <= REDIRECT_TTL, String(left));
});

test("what leads from an old id does not need its redirect: the head of the family knows the way", async () => {
  const visitor = await guest();
  const first = visitor.clone();
  const handles = [(await visitor.session()).handle];
  for (let count = 0; count < 3; count += 1) handles.push((await rotateAndPresent(visitor)).handle);
  for (const handle of handles.slice(0, -1)) await store.redis.del(`sess:${handle}`);
  assert.equal((await first.session()).handle, handles[3]);
});

test("the head of a family names the newest id, the one before it, and the rotations whose grace is not over", async () => {
  const visitor = await guest();
  assert.equal(await headOf(visitor), null, "no rotation, no head");
  const before = await visitor.session();
  const { handle } = (await visitor.rotate()).json.session;
  const head = await headOf(visitor);
  assert.deepEqual(Object.keys(head), ["v", "generation", "to", "from", "successors"]);
  assert.deepEqual([head.v, head.generation, head.to, head.from], [1, 1, handle, before.handle]);
  assert.deepEqual(
    head.successors.map((/** @type {any} */ one) => Object.keys(one)),
    [["rotation"]],
  );
  await present(visitor);
  for (let count = 0; count < 5; count += 1) {
    await moveClocks(GRACE + SECOND);
    await rotateAndPresent(visitor);
    const { successors, generation, from } = await headOf(visitor);
    assert.equal(generation, count + 2);
    assert.ok(successors.length <= 2, `${successors.length} rotations are kept`);
    assert.notEqual(from, before.handle);
  }
  assert.ok((await store.redis.pTTL(`family:${familyOf(visitor)}`)) > 0);
});

test("whatever an old id asks for is done to the session, hours after the rotation too", async () => {
  const visitor = await guest();
  const late = visitor.clone();
  const old = (await visitor.session()).handle;
  const { handle } = (await visitor.rotate()).json.session;
  await moveClocks(5 * HOUR);
  assert.equal((await inspect(old)).json.session?.handle, handle, "an operator finds it by the old handle");
  assert.deepEqual((await late.clone().merge({ b: 2 })).json.session.data, { a: 1, b: 2 });
  assert.equal((await late.clone(workers[1].url).rotate()).json.session.handle, handle);
  assert.equal((await late.logout()).status, 204);
  assert.equal(await visitor.session(), null);
  for (const key of [`sess:${old}`, `sess:${handle}`, `family:${familyOf(late.clone())}`]) {
    assert.equal(await store.redis.exists(key), 0, key);
  }
});

test("an old handle leads to the session until half a minute after the new id was presented", async () => {
  const visitor = await guest();
  const old = (await visitor.session()).handle;
  const { handle } = await rotateAndPresent(visitor);
  assert.equal((await inspect(old)).json.session?.handle, handle);
  await moveClocks(GRACE);
  assert.equal((await inspect(old)).status, 404);
  assert.equal((await visitor.session()).handle, handle, "looking is no theft");
});

test("a first use that could not be noted is noted at the next, and holds nothing up", async () => {
  const visitor = await guest();
  await visitor.rotate();
  const isNote = (/** @type {{ commands: string[][] }} */ { commands }) =>
    commands.some(([, key]) => key?.startsWith("family:")) && commands[0]?.[0] !== "MGET";
  store.faults.always("refuse", { when: isNote });
  for (let count = 0; count < 3; count += 1) {
    assert.equal((await visitor.look()).status, 200);
    await workers[0].moveClock(0);
  }
  assert.equal(await isNoted(visitor), false);
  store.faults.clear();
  await visitor.look();
  await until(() => isNoted(visitor));
});

test("an id is presented also when it was never asked for: the first use is noted at every isolate", async () => {
  const visitor = await guest();
  await visitor.rotate();
  visitor.url = workers[1].url;
  await present(visitor);
});
