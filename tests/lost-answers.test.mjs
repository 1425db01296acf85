/**
 * The store did what it was asked, and its answer was lost: everything is done once, and nothing is said that is not so.
 */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { name, nextNumber, registered, RIGHT, someone, store, two, useName } from "./support/accounts.mjs";
import { until } from "./support/worker.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */
/** @typedef {import("./support/accounts.mjs").When} When */

/** Matches a call with a command of this name, one of whose arguments begins so. @param {string} command @param {string} [argument] @returns {When} */
const has =
  (command, argument = "") =>
  ({ commands }) =>
    commands.some(([word, ...rest]) => word === command && rest.some((text) => text.startsWith(argument)));

/** The compare-and-set of a session, or of an account; also by a script. @param {string} prefix @returns {When} */
const write =
  (prefix) =>
  ({ commands }) =>
    commands.some(
      ([word, key = "", first = "", how = ""]) =>
        (word === "SET" && key.startsWith(prefix) && how === "IFEQ") ||
        (/^EVAL/.test(word) && first > "1" && how.startsWith(prefix)),
    );

/** The transaction that puts a new session in the place of another. @type {When} */
const swap = ({ commands }) =>
  has("SET", "sess:")({ path: "", commands }) && has("HSET")({ path: "", commands });

/** @param {Visitor} visitor */
const incrementProfile = (visitor) =>
  visitor.tell("PATCH", "/profile", [{ op: "increment", path: "/n", value: 1 }], {
    "Content-Type": "application/json-patch+json",
  });

/** @returns {Promise<any>} */
const account = async () => JSON.parse(String(await store.redis.get(`account:${name.toLowerCase()}`)));

/** Holds what comes next after such a call. @param {When} when */
function holdAfter(when) {
  let isMade = false;
  return store.faults.hold((seen) => {
    const wasMade = isMade;
    isMade ||= when(seen);
    return wasMade;
  });
}

/** The next registration is another user's. */
const nextUser = async () => useName(`${name} ${nextNumber()}`);

/** @param {Answer} answer */
function assertUnknown(answer) {
  assert.equal(answer.status, 503, answer.text);
  assert.equal(answer.json.code, "store_unavailable");
  assert.deepEqual(answer.setCookies, [], "no cookie is touched");
}

/** What a change is made to. @type {[string, string, (one: Visitor) => Promise<Answer>, (one: Visitor) => Promise<number>][]} */
const COUNTERS = [
  ["the session's data", "sess:", (one) => one.increment("/n"), async (one) => (await one.session()).data.n],
  ["the profile", "account:", incrementProfile, async () => (await account()).profile.n],
];

describe("a change", () => {
  for (const [what, prefix, increment, read] of COUNTERS) {
    test(`of ${what} is made once, however often its answer is lost`, async () => {
      const visitor = await registered();
      let made = 0;
      for (const times of [1, 2, 3, 5]) {
        store.faults.next("lostAnswer", { times, when: write(prefix) });
        const answer = await increment(visitor);
        store.faults.clear();
        assert.equal(answer.status, 200, answer.text);
        assert.equal(await read(visitor), (made += 1), `${times} lost`);
      }
      // All answers are lost: it is made once or not at all, and nobody is told either.
      store.faults.always("lostAnswer", { when: write(prefix) });
      const answer = await increment(visitor);
      store.faults.clear();
      if (answer.status !== 200) assertUnknown(answer);
      assert.equal(await read(visitor), made + 1);
    });

    test(`of ${what} is made once when others make theirs before it is read again`, async () => {
      const visitor = await registered();
      const other = visitor.clone(two[1].url);
      await increment(visitor);
      // A state names the four before it: after more changes nobody can tell any more.
      for (const others of [1, 2, 4, 5, 8]) {
        const before = await read(visitor);
        store.faults.next("lostAnswer", { when: write(prefix) });
        const rest = holdAfter(write(prefix));
        const changing = increment(visitor.clone(two[0].url));
        await rest.arrived;
        for (let index = 0; index < others; index += 1) assert.equal((await increment(other)).status, 200);
        rest.release();
        const answer = await changing;
        if (others <= 4) assert.equal(answer.status, 200, answer.text);
        else assertUnknown(answer);
        assert.equal(await read(visitor), before + 1 + others);
      }
    });

    test(`of ${what} that may have been made is unknown, and not refused, when all ends before it is read again`, async () => {
      const visitor = await registered();
      const { handle } = await visitor.session();
      store.faults.next("lostAnswer", { when: write(prefix) });
      const rest = holdAfter(write(prefix));
      const changing = increment(visitor.clone());
      await rest.arrived;
      await store.redis.del([`sess:${handle}`, `account:${name.toLowerCase()}`]);
      rest.release();
      assertUnknown(await changing);
    });

    test(`of ${what} that was not made, because all has ended, is refused as that`, async () => {
      const visitor = await registered();
      const { handle } = await visitor.session();
      await visitor.forget();
      const writing = store.faults.hold(write(prefix));
      const changing = increment(visitor.clone());
      await writing.arrived;
      await store.redis.del([`sess:${handle}`, `account:${name.toLowerCase()}`]);
      writing.release();
      const answer = await changing;
      assert.equal(answer.status, 401, answer.text);
      assert.equal(answer.json.code, "unauthenticated");
    });
  }
});

/** What puts a new session in the place of the old one. @type {[string, (one: Visitor) => Promise<Answer>][]} */
const SWAPS = [
  ["a login", (one) => one.login(name, RIGHT)],
  ["a renewed login", (one) => one.tell("POST", "/reauthenticate", { password: RIGHT })],
  ["a changed password", (one) => one.tell("POST", "/password", { current: RIGHT, new: RIGHT })],
];

describe("a new id", () => {
  for (const [what, act] of SWAPS) {
    /** The visitor has the new id, the old one is dead, and all is there that was acknowledged. @param {Answer} answer @param {Visitor} visitor @param {Visitor} old @param {object} data */
    const assertSwapped = async (answer, visitor, old, data) => {
      assert.equal(answer.status, 200, answer.text);
      assert.notEqual(visitor.ticket, old.ticket);
      for (const { url } of two) {
        assert.equal(await old.clone(url).session(), null, "the old id is dead");
        const session = await visitor.clone(url).session();
        assert.deepEqual([session?.data, session?.user.name], [data, name]);
      }
    };

    test(`of ${what} is the visitor's, however often the answer to the swap is lost`, async () => {
      for (const times of [1, 2, 3, 5]) {
        const visitor = await registered();
        await visitor.merge({ cart: times });
        const old = visitor.clone();
        store.faults.next("lostAnswer", { times, when: swap });
        await assertSwapped(await act(visitor), visitor, old, { cart: times });
        await nextUser();
      }
    });

    test(`of ${what} replaces the old one also if that is changed in the same moment and the answer is lost`, async () => {
      for (const [times, changes] of [
        [1, 1],
        [2, 1],
        [1, 3],
      ]) {
        const visitor = await registered();
        await visitor.merge({ cart: 0 });
        const old = visitor.clone();
        store.faults.next("lostAnswer", { times, when: swap });
        const swapping = store.faults.hold(swap);
        const answering = act(visitor);
        await swapping.arrived;
        for (let change = 1; change <= changes; change += 1) {
          assert.equal((await old.clone(two[1].url).merge({ cart: change })).status, 200);
        }
        swapping.release();
        await assertSwapped(await answering, visitor, old, { cart: changes });
        await nextUser();
      }
    });

    test(`of ${what} leaves nothing behind: one session in the list, and the keys of one`, async () => {
      const visitor = await registered();
      await visitor.rotate();
      await visitor.look();
      const before = await keysBesides();
      store.faults.next("lostAnswer", { times: 2, when: swap });
      assert.equal((await act(visitor)).status, 200);
      const listed = (await visitor.send("GET", "/auth/sessions")).json.sessions;
      assert.equal(listed.length, 1);
      await until(
        async () => (await keysBesides()).filter((key) => !before.includes(key)).length === 1,
        () => "keys of attempts whose answers were lost are left",
      );
    });
  }

  /** All sessions and heads of families. */
  const keysBesides = async () =>
    (await store.redis.keys("*")).filter((key) => /^(sess|family):/.test(key)).toSorted();

  for (const [what, act] of SWAPS) {
    test(`of ${what} is the visitor's, whichever two answers are lost, and everything is there`, async () => {
      for (let first = 1; first <= 6; first += 1) {
        for (let second = first + 1; second <= first + 3; second += 1) {
          const owner = await registered();
          const visitor = what === "a login" ? someone() : owner;
          await visitor.merge({ cart: ["tea"] });
          const old = visitor.clone();
          let calls = 0;
          store.faults.always("lostAnswer", { when: () => [first, second].includes((calls += 1)) });
          const answer = await act(visitor);
          store.faults.clear();
          const where = `${first} and ${second}: ${answer.text}`;
          assert.equal(answer.status, 200, where);
          const session = await visitor.session();
          assert.deepEqual([session?.data, session?.user.name], [{ cart: ["tea"] }, name], where);
          assert.equal(await old.session(), null, where);
          await nextUser();
        }
      }
    });
  }

  test("that cannot be found out is 503, and the cookie stays", async () => {
    for (const [, act] of SWAPS) {
      const visitor = await registered();
      const { ticket } = visitor;
      store.faults.always("lostAnswer", { when: swap });
      const answer = await act(visitor);
      store.faults.clear();
      if (answer.status === 200) assert.notEqual(await visitor.session(), null);
      else {
        assertUnknown(answer);
        assert.equal(visitor.ticket, ticket);
      }
      await nextUser();
    }
  });
});

describe("a logout", () => {
  /** A visitor whose session was rotated, so that its family has a head. */
  async function rotated() {
    const visitor = await registered();
    const first = visitor.clone();
    assert.equal((await visitor.rotate()).status, 200);
    await visitor.look();
    const family = Buffer.from(String(visitor.ticket), "base64url").subarray(67, 76).toString("base64url");
    const head = `family:${family}`;
    await until(async () => String(await store.redis.get(head)).includes('"seen"'));
    return { visitor, first, head };
  }

  test("that meets a change deletes the head of the family only when the session is gone", async () => {
    const { visitor, head } = await rotated();
    const other = visitor.clone(two[1].url);
    const deleting = store.faults.hold(has("DELEX"));
    const again = store.faults.hold(has("DELEX"));
    const leaving = visitor.clone().logout();
    await deleting.arrived;
    assert.equal((await other.merge({ a: 1 })).status, 200);
    deleting.release();
    await again.arrived;
    assert.equal(await store.redis.exists(head), 1, "the session is still there");
    assert.notEqual(await other.clone().session(), null);
    again.release();
    assert.equal((await leaving).status, 204);
    assert.equal(await other.session(), null);
    await until(async () => (await store.redis.exists(head)) === 0);
  });

  test("that fails for good leaves a session whose old ids still lead to it, and whose reuse is found out", async () => {
    const { visitor, first, head } = await rotated();
    store.faults.always("refuse", { when: has("DELEX") });
    assertUnknown(await visitor.clone().logout());
    store.faults.clear();
    assert.equal(await store.redis.exists(head), 1);
    assert.notEqual(await first.clone().session(), null);
    await Promise.all(two.map((worker) => worker.moveClock(31_000)));
    assert.equal(await first.session(), null);
    await Promise.all(two.map((worker) => worker.moveClock(-31_000)));
    assert.equal(await visitor.session(), null, "there is a copy of a cookie");
  });

  for (const [what, begin] of /** @type {[string, (one: Visitor) => Promise<Answer>][]} */ ([
    ["a rotation", (one) => one.rotate()],
    ["the first use of a new id", (one) => one.look()],
  ])) {
    test(`during ${what} leaves nothing of the family behind`, async () => {
      const visitor = await registered();
      const late = visitor.clone(two[1].url);
      if (what !== "a rotation") {
        await visitor.rotate();
        late.ticket = visitor.ticket;
      }
      const writing = store.faults.hold(has("SET", "family:"));
      const answering = begin(visitor);
      await writing.arrived;
      assert.equal((await late.logout()).status, 204);
      writing.release();
      await answering;
      await Promise.all(two.map((worker) => worker.moveClock(0)));
      assert.equal(await visitor.session(), null);
      const family = Buffer.from(String(late.ticket ?? visitor.ticket), "base64url").subarray(67, 76);
      await until(
        async () => (await store.redis.exists(`family:${family.toString("base64url")}`)) === 0,
        () => "the head of a family whose session has ended is left",
      );
    });
  }
});
