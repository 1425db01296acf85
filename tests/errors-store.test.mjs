/** The store fails, in every way: 503, and nobody is logged out, nothing overwritten, nothing told. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  assertNoBody,
  assertNothingTold,
  assertProblem,
  assertRefused,
  contents,
  FORGED,
  guest,
  MARK,
  secrets,
  signing,
  start,
  store,
  stranger,
  Watched,
  worker,
} from "./support/errors.mjs";
import { randomSecret, until } from "./support/worker.mjs";

/** @typedef {import("./support/errors.mjs").Answer} Answer */
/** @typedef {import("../tools/local-store/faults.mjs").Fault} Fault */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** An isolate of the same deployment that does not wait long for its store. */
const impatient = await start({
  secrets: { SESSION_SECRET: signing },
  settings: { store: { timeout: "200ms" } },
});

/**
 * @typedef {object} StoreRequest a request that needs the store
 * @property {string} name
 * @property {(visitor: Visitor) => Promise<Answer>} act
 * @property {number} [call] which of its calls to the store is to fail; the first unless it says otherwise
 * @property {boolean} [writes] whether that call writes
 * @property {boolean} [copied] whether a rotation has written its copy by then
 * @property {boolean} [first] whether it comes from a visitor without a session
 * @property {boolean} [known] whether the isolate knows the session
 */

/** @type {StoreRequest[]} */
const REQUESTS = [
  { name: "a read", act: (visitor) => visitor.look() },
  { name: "a read by HEAD", act: (visitor) => visitor.send("HEAD", "/auth/session") },
  { name: "a change, when it reads", act: (visitor) => visitor.increment("/views") },
  { name: "a change, when it writes", act: (visitor) => visitor.increment("/views"), call: 2, writes: true },
  {
    name: "a change of what is known",
    act: (visitor) => visitor.increment("/views"),
    writes: true,
    known: true,
  },
  { name: "a first change", act: (visitor) => visitor.merge({ mark: MARK }), writes: true, first: true },
  { name: "a rotation, when it reads", act: (visitor) => visitor.rotate() },
  { name: "a rotation, when it copies", act: (visitor) => visitor.rotate(), call: 2, writes: true },
  {
    name: "a rotation, when it moves",
    act: (visitor) => visitor.rotate(),
    call: 3,
    writes: true,
    copied: true,
  },
  { name: "a logout, when it reads", act: (visitor) => visitor.logout() },
  { name: "a logout, when it deletes", act: (visitor) => visitor.logout(), call: 2, writes: true },
  { name: "a health check", act: (visitor) => visitor.send("GET", "/auth/health") },
  { name: "a health check by HEAD", act: (visitor) => visitor.send("HEAD", "/auth/health") },
];

/** @param {string} name */
const requestOf = (name) => /** @type {StoreRequest} */ (REQUESTS.find((one) => one.name === name));

describe("503", () => {
  const result = (/** @type {unknown} */ value) => ({ status: 200, body: [{ result: value }] });
  const half = '[{"result":["{\\"v\\":1,\\"rev\\":';
  /**
   * `executes`: the commands are executed all the same. `slow`: no answer comes until
   * store.timeout is over.
   * @type {{ name: string, fault: Fault, executes?: boolean, slow?: boolean }[]}
   */
  const failures = [
    { name: "destroys the connection", fault: { refuse: true } },
    { name: "never answers", fault: { hang: true }, slow: true },
    {
      name: "stops in its answer",
      fault: { status: 200, headers: { "content-length": "999" }, body: half },
      slow: true,
    },
    { name: "is cut off in its answer", fault: { cut: true }, executes: true },
    { name: "loses its answer", fault: { lostAnswer: true }, executes: true },
    { name: "knows another token", fault: { status: 401, body: { error: `WRONGPASS ${MARK}` } } },
    { name: "is asked too often", fault: { status: 429, body: { error: "ERR too many requests" } } },
    { name: "says 500", fault: { status: 500, body: `SECRET sess: ${MARK}` } },
    { name: "says 500 as HTML", fault: { status: 500, body: `<h1>${MARK}</h1>` } },
    { name: "says 204", fault: { status: 204 } },
    { name: "sends us elsewhere", fault: { status: 307, headers: { location: "http://127.0.0.1:9/thief" } } },
    { name: "says 200 with HTML", fault: { status: 200, body: "<html>Sign in to the hotel's wifi</html>" } },
    { name: "says 200 with nothing", fault: { status: 200, body: "" } },
    { name: "says 200 with half an answer", fault: { status: 200, body: half } },
    { name: "says null", fault: { status: 200, body: "null" } },
    { name: "sends one reply instead of a list", fault: { status: 200, body: { result: null } } },
    { name: "sends an error instead of a list", fault: { status: 200, body: { error: `ERR ${MARK}` } } },
    { name: "sends an empty list", fault: { status: 200, body: [] } },
    { name: "sends a list of null", fault: { status: 200, body: [null] } },
    { name: "sends a reply with nothing in it", fault: { status: 200, body: [{}] } },
    { name: "sends an object where a value is due", fault: result({ a: 1 }) },
    {
      name: "sends more replies than commands",
      fault: { status: 200, body: Array(9).fill({ result: null }) },
    },
    { name: "leaves the last reply out", fault: { short: true }, executes: true },
    { name: "fails the first command", fault: { entry: 0, error: `ERR '${MARK}' of 'sess:x' is wrong` } },
    { name: "fails in words of its own", fault: { entry: 0, error: `${MARK} is not for you` } },
    { name: "has used up its requests", fault: { quota: true } },
  ];

  /** Lets all calls from one on fail. @param {Fault} fault @param {{ call?: number }} request */
  function failFrom(fault, { call = 1 }) {
    let seen = 0;
    store.faults.always(fault, { when: () => ++seen >= call });
  }

  /** @param {Answer} answer @param {string} [note] */
  function assertUnavailable(answer, note) {
    assert.equal(answer.status, 503, note);
    assert.equal(answer.headers.get("retry-after"), "1");
    assert.deepEqual(answer.setCookies, []);
    if (answer.text === "") assertNoBody(answer);
    else assertProblem(answer, 503, "store_unavailable");
  }

  for (const { name, fault, executes = false, slow = false } of failures) {
    test(`a store that ${name} logs nobody out and overwrites nothing`, async (t) => {
      for (const request of REQUESTS) {
        await t.test(request.name, async () => {
          store.faults.clear();
          await store.redis.flushAll();
          const { url } = slow ? impatient : worker;
          const visitor = request.first ? stranger() : await guest();
          const session = await visitor.session();
          const before = await contents();

          const unlucky = new Watched(url);
          unlucky.ticket = visitor.ticket;
          if (request.known) await unlucky.look();
          else if (!request.first) await unlucky.forget();
          failFrom(fault, request);
          const { value: answer, calls } = await store.counters.during(() => request.act(unlucky));
          store.faults.clear();

          assertUnavailable(answer);
          // Calls that can be repeated are; on a loaded machine the short timeout may come first.
          if (!slow) assert.ok(calls >= (request.call ?? 1), `${calls} calls`);
          assert.equal(unlucky.ticket, visitor.ticket);
          if (executes && request.writes) return;
          const after = await contents();
          // A copy that no redirect leads to expires; removing it could be wrong.
          const kept = request.copied
            ? after.filter(({ key }) => before.some((one) => one.key === key))
            : after;
          assert.deepEqual(kept, before);
          assert.ok(after.length <= before.length + 1 && after.every(({ expires }) => expires));
          const again = await visitor.look();
          assert.deepEqual(again.json.session, session);
          assert.deepEqual(again.setCookies, []);
        });
      }
    });
  }

  test("a store that refuses connections logs nobody out, and is used again when it is back", async () => {
    const visitor = await guest();
    const session = await visitor.session();
    const before = await contents();
    await store.stopListening();
    try {
      for (const { first, act } of REQUESTS) assertUnavailable(await act(first ? stranger() : visitor));
    } finally {
      await store.resumeListening();
    }
    assert.deepEqual(await contents(), before);
    assert.deepEqual(await visitor.session(), session);
    assert.equal((await visitor.send("GET", "/auth/health")).json.status, "ok");
  });

  test("a full store can still be read, and a write that it refuses changes nothing", async () => {
    const visitor = await guest();
    const session = await visitor.session();
    store.faults.always("capacity");
    for (const { act, writes, first } of REQUESTS.filter(({ writes }) => writes)) {
      assert.ok(writes);
      await assertRefused(() => act(first ? stranger() : visitor), {
        status: 503,
        code: "store_unavailable",
      });
    }
    assert.deepEqual(await visitor.session(), session);
    store.faults.clear();
    assert.deepEqual(await visitor.session(), session);
  });

  test("a rotation of which only one of two writes fails loses no session, whichever it is", async (t) => {
    for (const step of ["copies", "moves"]) {
      await t.test(step, async () => {
        const visitor = await guest();
        const session = await visitor.session();
        failFrom({ entry: 0, error: "ERR made up" }, requestOf(`a rotation, when it ${step}`));
        assertUnavailable(await visitor.rotate());
        store.faults.clear();
        assert.deepEqual((await visitor.session())?.data, session.data);
      });
    }
  });

  for (const { name, act, writes } of REQUESTS.filter(({ first }) => !first)) {
    test(`a lost answer to ${name} leaves a complete session, or none after a logout`, async () => {
      const visitor = await guest();
      for (const call of [1, 2]) {
        failFrom({ lostAnswer: true }, { call });
        const answer = await act(visitor);
        store.faults.clear();
        if (answer.status === 503) assertUnavailable(answer);
        if (name.startsWith("a logout")) continue;
        const session = await visitor.session();
        assert.equal(session.data.mark, MARK);
        assert.ok([1, 2, 3].includes(session.data.views), `${writes}: ${session.data.views}`);
      }
    });
  }

  const noList = [null, [], "OK", 5, [5], [null, null], [["x"]]];
  /** What no working store answers to the command. @type {[string, unknown[]][]} */
  const wrongKinds = [
    ["a read", noList],
    ["a change, when it reads", noList],
    ["a change, when it writes", [5, [], "QUEUED", ["OK", "OK"]]],
    ["a first change", [5, [], "QUEUED", ["OK", "OK"]]],
    ["a rotation, when it reads", noList],
    ["a rotation, when it copies", [5, [], "QUEUED", ["OK", "OK"]]],
    ["a rotation, when it moves", [5, [], "QUEUED", ["OK", "OK"]]],
    ["a logout, when it reads", noList],
    ["a logout, when it deletes", [null, "OK", [], ["x", "y"]]],
    ["a health check", [null, 5, []]],
  ];
  for (const [name, values] of wrongKinds) {
    const { act, first, copied, call = 1 } = requestOf(name);
    test(`an answer of the wrong type to ${name} is a failure, never taken for "not found"`, async (t) => {
      for (const value of values) {
        await t.test(JSON.stringify(value), async () => {
          const visitor = first ? stranger() : await guest();
          const before = await contents();
          failFrom(result(value), { call });
          const answer = await act(visitor);
          store.faults.clear();
          assertUnavailable(answer, `${answer.status} ${answer.text} ${answer.setCookies}`);
          if (!copied) assert.deepEqual(await contents(), before);
        });
      }
    });
  }

  test("a logout through a rotated id that failed half-way is completed by the next one", async () => {
    const visitor = await guest();
    const elsewhere = new Watched(worker.url);
    elsewhere.ticket = visitor.ticket;
    await visitor.rotate();
    // `elsewhere` still has the old id, which redirects to the new one.
    // Calls: read the old record, read the new one, delete it.
    failFrom({ refuse: true }, { ...requestOf("a logout, when it deletes"), call: 3 });
    assertUnavailable(await elsewhere.logout());
    store.faults.clear();
    assert.equal((await visitor.session()).data.mark, MARK);
    assert.equal((await elsewhere.logout()).status, 204);
    assert.equal(await visitor.session(), null, "an acknowledged logout ends the session");
  });

  test("a forged cookie is not removed while the store fails", async () => {
    for (const request of REQUESTS.filter(({ first, name }) => first || /health/.test(name))) {
      const forger = stranger();
      forger.ticket = FORGED;
      failFrom({ refuse: true }, request);
      assertUnavailable(await request.act(forger));
      store.faults.clear();
      assert.equal(forger.ticket, FORGED);
    }
  });

  test("a touch that was due is made when the store works again", async () => {
    const visitor = await guest();
    const { ticket } = visitor;
    await worker.moveClock(6 * 60_000);
    for (const request of REQUESTS.filter(({ first, call = 1 }) => !first && call === 1)) {
      failFrom({ refuse: true }, request);
      assertUnavailable(await request.act(visitor), request.name);
      store.faults.clear();
    }
    assert.equal(visitor.ticket, ticket);
    const { value: answer, byName } = await store.counters.during(() => visitor.look());
    assert.equal(answer.json.session.data.mark, MARK);
    assert.deepEqual(byName, { MGET: 1, PEXPIRE: 1 });

    // The session is read, but its new time to live is refused.
    const other = await guest();
    await worker.moveClock(6 * 60_000);
    failFrom({ entry: 1, error: "ERR made up" }, requestOf("a read"));
    assertUnavailable(await other.look());
    store.faults.clear();
    assert.deepEqual((await store.counters.during(() => other.look())).byName, { MGET: 1, PEXPIRE: 1 });
    await worker.moveClock(-12 * 60_000);
  });

  test("a ticket under an older secret is not reissued while the store fails", async () => {
    const newer = randomSecret();
    secrets.add(newer);
    const rotated = await start({ secrets: { SESSION_SECRET: `${newer},${signing}` } });
    const visitor = new Watched(rotated.url);
    visitor.ticket = (await guest()).ticket;
    for (const request of REQUESTS.filter(({ first }) => !first)) {
      failFrom({ refuse: true }, request);
      assertUnavailable(await request.act(visitor), request.name);
      store.faults.clear();
    }
    const answer = await visitor.look();
    assert.equal(answer.json.session.data.mark, MARK);
    assert.equal(answer.setCookies.length, 1);
  });

  test("the log says that the store failed and what to check", async () => {
    const visitor = await guest();
    store.faults.next({ status: 401, body: { error: "WRONGPASS" } });
    await visitor.look();
    store.faults.next({ status: 200, body: "<html>" });
    await visitor.look();
    const log = () => worker.logs.join("");
    await until(() => /check UPSTASH_REDIS_REST_TOKEN/.test(log()));
    await until(() => /check UPSTASH_REDIS_REST_URL/.test(log()));
  });
});

test("no problem and no log line contains a secret, a ticket, an id, a key or a session's data", async () => {
  const log = await assertNothingTold({ leastProblems: 400, leastTickets: 100 });
  assert.match(log, /the store failed/);
});
