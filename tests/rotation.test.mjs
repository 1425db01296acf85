/** New ids: by themselves, on request, for everybody the same; how many a minute, and what an old one costs. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  ADMIN_TOKEN,
  guest,
  HOUR,
  moveClocks,
  rotateAndPresent,
  SECOND,
  start,
  store,
  workers,
} from "./support/rotation.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

test("an id changes by itself once in rotate_every, with the first request after that", async () => {
  const visitor = workers[0].visitor();
  const { session } = (await visitor.merge({ a: 1 })).json;
  await moveClocks(HOUR - 60 * SECOND);
  assert.equal((await visitor.session()).handle, session.handle);
  await moveClocks(61 * SECOND);
  const answer = await visitor.look();
  assert.equal(answer.status, 200);
  assert.equal(answer.setCookies.length, 1);
  assert.notEqual(answer.json.session.handle, session.handle);
  assert.deepEqual(answer.json.session.data, { a: 1 });
  assert.equal(answer.json.session.expires_at, session.expires_at, "the absolute end stays");
  assert.deepEqual((await visitor.look()).setCookies, []);
});

test("a change at the time of a rotation is made to the session under its new id", async () => {
  const visitor = workers[0].visitor();
  const { session } = (await visitor.merge({ a: 1 })).json;
  await moveClocks(HOUR);
  const answer = await visitor.merge({ b: 2 });
  assert.notEqual(answer.json.session.handle, session.handle);
  assert.deepEqual((await visitor.session()).data, { a: 1, b: 2 });
});

test("20 parallel requests at the time of a rotation get one successor, and none is refused", async () => {
  const visitor = workers[0].visitor();
  await visitor.merge({ views: 0 });
  await moveClocks(HOUR);
  const people = Array.from({ length: 20 }, (_, index) => visitor.clone(workers[index % 2 ? 1 : 0].url));
  const answers = await Promise.all(
    people.map((one, index) => (index % 4 ? one.look() : one.increment("/views"))),
  );
  assert.deepEqual([...new Set(answers.map((answer) => answer.status))], [200]);
  assert.equal(new Set(answers.map((answer) => answer.json.session.handle)).size, 1);
  assert.equal(new Set(people.map((one) => one.ticket)).size, 1);
  const now = await people[0]?.session();
  assert.equal(now.data.views, 5);
});

test("with rotate_every empty an id stays as long as the session", async () => {
  const visitor = workers[2].visitor();
  const { session } = (await visitor.merge({ a: 1 })).json;
  for (let hours = 0; hours < 20; hours += 5) {
    await moveClocks(5 * HOUR);
    assert.equal((await visitor.session()).handle, session.handle);
  }
});

test("a session is rotated on request eight times a minute, and then told when it may be again", async () => {
  const visitor = await guest();
  for (let count = 0; count < 8; count += 1) {
    assert.equal((await visitor.rotate()).status, 200);
    await moveClocks(SECOND);
  }
  const { handle } = await visitor.session();
  const refused = await visitor.rotate();
  assert.equal(refused.status, 429, refused.text);
  assert.equal(refused.json.code, "rate_limited");
  assert.match(refused.json.detail, /"rotate"/);
  assert.deepEqual(refused.setCookies, []);
  assert.equal((await visitor.session()).handle, handle, "and it lives");
  const seconds = Number(refused.headers.get("Retry-After"));
  assert.ok(seconds > 50 && seconds <= 53, String(seconds));
  await moveClocks((seconds - 2) * SECOND);
  assert.equal((await visitor.rotate()).status, 429);
  await moveClocks(2 * SECOND);
  assert.equal((await visitor.rotate()).status, 200);
});

test("an old id asked to rotate leads to the successor that there is, as often as one likes", async () => {
  const visitor = await guest();
  const late = visitor.clone();
  const { handle } = (await visitor.rotate()).json.session;
  for (let count = 0; count < 20; count += 1) {
    const answer = await late.clone().rotate();
    assert.equal(answer.status, 200);
    assert.equal(answer.json.session.handle, handle);
  }
  for (let count = 1; count < 8; count += 1) assert.equal((await visitor.rotate()).status, 200);
  assert.equal((await visitor.rotate()).status, 429);
});

test("a rotation that is due by itself waits when there were eight within the minute, and refuses nobody", async () => {
  const hasty = await start({ settings: { session: { rotate_every: "1s" } } });
  const visitor = hasty.visitor();
  await visitor.merge({ a: 1 });
  const handles = new Set();
  for (let second = 0; second < 36; second += 2) {
    await hasty.moveClock(2 * SECOND);
    const answer = await visitor.look();
    assert.deepEqual([answer.status, answer.json.session?.data], [200, { a: 1 }]);
    handles.add(answer.json.session.handle);
  }
  assert.equal(handles.size, 8);
});

test("an old id costs at most two calls, however many rotations there were before and after it", async () => {
  const visitor = await guest();
  /** @type {Visitor[]} */
  const before = [];
  // The first twenty-two are a good while ago; of the others each is as good as its successor was presented lately.
  for (let count = 0; count < 30; count += 1) {
    if (count < 22) await moveClocks(8 * SECOND);
    else if (count === 22) await moveClocks(60 * SECOND);
    before.push(visitor.clone());
    await rotateAndPresent(visitor);
  }
  const session = await visitor.session();
  for (const late of before.slice(22)) {
    for (const worker of workers.slice(0, 2)) {
      const { value, calls } = await store.counters.during(() => late.clone(worker.url).session());
      assert.deepEqual(value, session);
      assert.ok(calls <= 2, `${calls} calls`);
    }
  }
});

test("the list of a user's sessions does not grow with their rotations", async () => {
  const worker = workers[0];
  const visitor = worker.visitor();
  const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };
  const made = await worker.visitor().tell("POST", "/admin/sessions", { user: { id: "often" } }, headers);
  visitor.ticket = String(made.json.set_cookie[0]).match(/^__Host-session=([^;]+)/)?.[1];
  for (let count = 0; count < 70; count += 1) {
    const { handle } = await visitor.session();
    assert.equal((await visitor.rotate()).status, 200);
    // Its grace is over, and the store has forgotten it.
    await store.redis.del(`sess:${handle}`);
    await moveClocks(10 * SECOND);
  }
  await worker.idle();
  const [list] = await store.redis.keys("user:*:sessions");
  const length = await store.redis.hLen(String(list));
  assert.ok(length <= 33, `${length} handles`);
});
