/** What happens when the store's answers get lost: reads are repeated, writes are settled by reading. */
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;
/** @type {Visitor} */
let visitor;
before(async () => void (both = await startBoth()));
after(() => both.stop());
beforeEach(() => {
  both.store.faults.clear();
  visitor = both.worker.visitor();
});

/** @param {string} name @returns {(request: { commands: string[][] }) => boolean} */
const command =
  (name) =>
  ({ commands }) =>
    commands.some(([first]) => first === name);

/** What writes a change: after a read, or in the call that reads. */
const WRITES = [command("SET"), command("EVALSHA")];

test("a read that fails transiently is repeated, and the visitor does not notice", async () => {
  await visitor.merge({ a: 1 });
  for (const fault of /** @type {const} */ (["refuse", "cut", "lostAnswer"])) {
    both.store.faults.next(fault, { times: 2 });
    const { value, calls } = await both.store.counters.during(() => visitor.look());
    assert.equal(value.status, 200, fault);
    assert.deepEqual(value.json.session.data, { a: 1 });
    assert.equal(calls, 3, fault);
  }
  for (const status of [429, 500, 503]) {
    both.store.faults.next({ status, body: "busy" }, { times: 1 });
    assert.equal((await visitor.look()).status, 200, String(status));
  }
});

test("a permanent failure is not repeated", async () => {
  await visitor.merge({ a: 1 });
  for (const fault of [
    { status: 401, body: "{}" },
    { status: 400, body: "{}" },
    { status: 200, body: "<html>" },
  ]) {
    both.store.faults.next(fault);
    const { value, calls } = await both.store.counters.during(() => visitor.look());
    assert.equal(value.status, 503);
    assert.equal(calls, 1, String(fault.status));
  }
});

test("an increment whose answer was lost counts once, whether it was made or not", async () => {
  for (const fault of /** @type {const} */ (["lostAnswer", "cut", "refuse"])) {
    for (const [index, when] of WRITES.entries()) {
      const one = both.worker.visitor();
      await one.increment("/views");
      if (index === 0) await one.forget();
      both.store.faults.next(fault, { when });
      const answer = await one.increment("/views");
      assert.equal(answer.status, 200, fault);
      assert.equal(answer.json.session.data.views, 2, fault);
      assert.equal((await one.session()).data.views, 2, fault);
    }
  }
});

test("an increment whose answer was lost counts once although others changed the session since", async () => {
  await visitor.increment("/views");
  const others = visitor.clone();
  await visitor.forget();
  both.store.faults.next("lostAnswer", { when: command("SET") });
  const held = both.store.faults.hold(command("MGET"));
  const read = visitor.increment("/views"); // its first read
  await held.arrived;
  held.release();
  const settling = both.store.faults.hold(command("MGET"));
  await settling.arrived; // its second read: the write was made, the answer was lost
  await others.increment("/views");
  await others.increment("/views");
  settling.release();
  const answer = await read;
  assert.equal(answer.status, 200);
  assert.equal((await visitor.session()).data.views, 4);
});

test("a write whose outcome cannot be determined any more is answered as a failure", async () => {
  await visitor.increment("/views");
  const others = visitor.clone();
  await visitor.forget();
  both.store.faults.next("lostAnswer", { when: command("SET") });
  const first = both.store.faults.hold(command("MGET"));
  const lost = visitor.increment("/views");
  await first.arrived;
  first.release();
  const settling = both.store.faults.hold(command("MGET"));
  await settling.arrived;
  for (let count = 0; count < 8; count += 1) await others.increment("/views");
  settling.release();
  assert.equal((await lost).status, 503, "an unknown outcome is not reported as a success");
  assert.equal((await visitor.session()).data.views, 10, "it was made, once");
});

test("a first change whose answer was lost creates one session", async () => {
  for (const fault of /** @type {const} */ (["lostAnswer", "refuse"])) {
    const before = (await both.store.redis.keys("sess:*")).length;
    const one = both.worker.visitor();
    both.store.faults.next(fault, { when: command("SET") });
    const answer = await one.merge({ a: 1 });
    assert.equal(answer.status, 200, fault);
    assert.deepEqual((await one.session()).data, { a: 1 });
    assert.equal((await both.store.redis.keys("sess:*")).length, before + 1, fault);
  }
});

test("a rotation whose answer was lost makes one successor", async () => {
  for (const [fault, skip] of /** @type {["lostAnswer" | "refuse", number][]} */ ([
    ["lostAnswer", 0],
    ["refuse", 0],
    ["lostAnswer", 1],
    ["refuse", 1],
  ])) {
    const one = both.worker.visitor();
    const { session } = (await one.merge({ a: 1 })).json;
    const late = one.clone();
    let seen = 0;
    both.store.faults.next(fault, { when: (request) => command("SET")(request) && seen++ === skip });
    const answer = await one.rotate();
    assert.equal(answer.status, 200, `${fault} ${skip}`);
    assert.notEqual(answer.json.session.handle, session.handle);
    assert.equal((await late.session()).handle, answer.json.session.handle);
    assert.deepEqual((await one.session()).data, { a: 1 });
  }
});

test("a logout whose answer was lost ends the session", async () => {
  for (const fault of /** @type {const} */ (["lostAnswer", "refuse"])) {
    const one = both.worker.visitor();
    await one.merge({ a: 1 });
    const other = one.clone();
    both.store.faults.next(fault, { when: command("DELEX") });
    assert.equal((await one.logout()).status, 204, fault);
    assert.equal(await other.session(), null, fault);
  }
});

test("a store that hangs costs its timeout once, and is not called again", async () => {
  await visitor.merge({ a: 1 });
  both.store.faults.always("hang");
  const { value, calls } = await both.store.counters.during(() => visitor.look());
  assert.equal(value.status, 503);
  assert.equal(calls, 1);
});

test("a record that cannot be read is an error: it is logged by handle, left as it is, and only a logout removes it", async () => {
  const { redis } = both.store;
  for (const text of ["not JSON", '{"v":99,"data":{}}', Buffer.from([0xff, 0xfe])]) {
    const one = both.worker.visitor();
    const { session } = (await one.merge({ a: 1 })).json;
    const key = `sess:${session.handle}`;
    await redis.set(key, text, { expiration: "KEEPTTL" });
    const before = await redis.dump(key);

    for (const answer of [
      await one.clone().look(),
      await one.clone().rotate(),
      await one.clone().merge({ b: 2 }),
      await one.clone().increment("/a"),
    ]) {
      assert.equal(answer.status, 500, answer.text);
      assert.equal(answer.json.code, "internal");
      assert.deepEqual(answer.setCookies, []);
    }
    assert.deepEqual(await redis.dump(key), before);
    assert.match(both.worker.logs.join(""), new RegExp(`session ${session.handle} cannot be read`));

    const gone = await one.logout();
    assert.equal(gone.status, 204);
    assert.equal(one.ticket, undefined);
    assert.equal(await redis.exists(key), 0);
  }
});

test("a login goes through although the visitor's old record cannot be read", async () => {
  const visitor = both.worker.visitor();
  const { handle } = (await visitor.merge({ a: 1 })).json.session;
  await both.store.redis.set(`sess:${handle}`, "not JSON", { expiration: "KEEPTTL" });
  assert.equal((await visitor.look()).status, 500);
  const answer = await visitor.register(`Ada ${handle.replace(/[^a-z]/gi, "")}`, "correct horse");
  assert.equal(answer.status, 201, answer.text);
  assert.deepEqual(answer.json.session.data, {});
  assert.equal((await visitor.look()).status, 200);
  assert.equal(await both.store.redis.get(`sess:${handle}`), "not JSON");
});

test("a key of another type holds no session, and is left as it is", async () => {
  const { redis } = both.store;
  const one = both.worker.visitor();
  const key = `sess:${(await one.merge({ a: 1 })).json.session.handle}`;
  await redis.del(key);
  await redis.hSet(key, "a", "b");
  assert.equal((await one.clone().look()).text, '{"session":null}');
  assert.equal((await one.clone().rotate()).status, 401);
  assert.equal((await one.clone().logout()).status, 204);
  assert.equal((await one.merge({ b: 2 })).status, 200);
  assert.deepEqual((await one.session()).data, { b: 2 });
  assert.deepEqual(await redis.hGetAll(key), { a: "b" });
});
