/**
 * What a request may cost: calls to the store and billed commands (DESIGN.md), calls between JavaScript and wasm,
 * and the size of the bundle.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { after, before, beforeEach, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { moveClocks, moveToWindow, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;
/** @type {Visitor} */
let visitor;
before(
  async () => void (both = await startBoth({ settings: { cors: { origins: ["https://front.example"] } } })),
);
after(() => both.stop());
beforeEach(() => void (visitor = both.worker.visitor()));

/** Asks for leave to change data, as a browser does first. */
const preflight = () =>
  visitor.send("OPTIONS", "/auth/session/data", {
    headers: { Origin: "https://front.example", "Access-Control-Request-Method": "PATCH" },
  });

/** Somebody with the visitor's ticket, but for one character. */
function forger() {
  const ticket = String(visitor.ticket);
  const forger = visitor.clone();
  forger.ticket = ticket.slice(0, 40) + (ticket[40] === "A" ? "B" : "A") + ticket.slice(41);
  return forger;
}

/** @param {() => Promise<import("./support/visitor.mjs").Answer>} act */
async function costOf(act) {
  const { value, calls, commands, byName } = await both.store.counters.during(act);
  assert.ok(value.status < 300, value.text);
  return { calls, commands, byName };
}

const NOTHING = { calls: 0, commands: 0, byName: {} };

test("nothing for a request without a cookie, and for a preflight", async () => {
  assert.deepEqual(await costOf(() => visitor.look()), NOTHING);
  assert.deepEqual(await costOf(() => visitor.logout()), NOTHING);
  await visitor.merge({ a: 1 });
  assert.deepEqual(await costOf(preflight), NOTHING);
});

test("nothing for a forged, malformed or expired ticket", async () => {
  await visitor.merge({ a: 1 });
  const ticket = String(visitor.ticket);
  for (const value of [String(forger().ticket), ticket.slice(1), `${ticket}A`, "", "x".repeat(8000)]) {
    visitor.ticket = value;
    assert.deepEqual(await costOf(() => visitor.look()), NOTHING, value.slice(0, 40));
  }
  visitor.ticket = ticket;
  await both.worker.moveClock(24 * 3_600_000);
  assert.deepEqual(await costOf(() => visitor.look()), NOTHING);
});

test("one call and one command for a read, one command more when a touch is due", async () => {
  await visitor.merge({ a: 1 });
  assert.deepEqual(await costOf(() => visitor.look()), { calls: 1, commands: 1, byName: { MGET: 1 } });
  await both.worker.moveClock(5 * 60_000);
  const touched = { calls: 1, commands: 2, byName: { MGET: 1, PEXPIRE: 1 } };
  assert.deepEqual(await costOf(() => visitor.look()), touched);
  assert.deepEqual(await costOf(() => visitor.look()), { calls: 1, commands: 1, byName: { MGET: 1 } });
});

test("two calls and two commands for a change, one for a change that changes nothing", async () => {
  await visitor.merge({ a: 1 });
  assert.deepEqual(await costOf(() => visitor.merge({ a: 2 })), {
    calls: 2,
    commands: 2,
    byName: { MGET: 1, SET: 1 },
  });
  assert.deepEqual(await costOf(() => visitor.merge({ a: 2 })), {
    calls: 1,
    commands: 1,
    byName: { MGET: 1 },
  });
});

test("one call and one command for the change that begins a session, two of each for a logout", async () => {
  assert.deepEqual(await costOf(() => visitor.merge({ a: 1 })), {
    calls: 1,
    commands: 1,
    byName: { SET: 1 },
  });
  assert.deepEqual(await costOf(() => visitor.logout()), {
    calls: 2,
    commands: 2,
    byName: { MGET: 1, DELEX: 1 },
  });
});

test("four calls and four commands for a rotation, a call more to follow an old id", async () => {
  await visitor.merge({ a: 1 });
  const late = visitor.clone();
  assert.deepEqual(await costOf(() => visitor.rotate()), {
    calls: 4,
    commands: 4,
    byName: { MGET: 1, SET: 3 },
  });
  assert.deepEqual(await costOf(() => late.look()), { calls: 2, commands: 2, byName: { MGET: 2 } });
  assert.deepEqual(await costOf(() => late.look()), { calls: 1, commands: 1, byName: { MGET: 1 } });
});

test("two calls and three commands to find that a session has ended: the primary is asked too", async () => {
  await visitor.merge({ a: 1 });
  const late = visitor.clone();
  await visitor.logout();
  assert.deepEqual(await costOf(() => late.look()), {
    calls: 2,
    commands: 3,
    byName: { MGET: 2, PEXPIRE: 1 },
  });
});

describe("with the limits that are set by default", () => {
  const MINUTE = 60_000;
  /** @type {Awaited<ReturnType<typeof startBoth>>} */
  let limited;
  before(async () => {
    limited = await startBoth({ settings: { limits: {}, cors: { origins: ["https://front.example"] } } });
  });
  after(() => limited.stop());
  beforeEach(async () => {
    // The store's clock, which is looked at every minute, has just been; and nothing is due in the background.
    await moveClocks(limited.store, [limited.worker], 11 * MINUTE);
    await limited.worker.moveClock(0);
    await moveToWindow(limited.store, [limited.worker]);
    visitor = limited.worker.visitor();
    assert.equal((await visitor.merge({ a: 1 })).status, 200);
    assert.equal((await visitor.look()).status, 200);
  });

  /** @param {() => Promise<import("./support/visitor.mjs").Answer>} act @param {number} [status] */
  async function cost(act, status = 200) {
    const { value, calls, commands, byName } = await limited.store.counters.during(act);
    assert.equal(value.status, status, value.text);
    return { calls, commands, byName };
  }

  test("nothing without a ticket, with one that is none, and for a preflight", async () => {
    const nobody = limited.worker.visitor();
    assert.deepEqual(await cost(() => nobody.look()), NOTHING);
    assert.deepEqual(await cost(() => nobody.logout(), 204), NOTHING);
    for (const value of [`${visitor.ticket}A`, String(visitor.ticket).slice(1), "", "x".repeat(8000)]) {
      nobody.ticket = value;
      assert.deepEqual(await cost(() => nobody.look()), NOTHING);
    }
    assert.deepEqual(await cost(preflight, 204), NOTHING);
  });

  test("nothing for a caller who is known to be over a limit", async () => {
    await Promise.all(Array.from({ length: 305 }, () => visitor.look()));
    await limited.worker.moveClock(0);
    assert.deepEqual(await cost(() => visitor.look(), 429), NOTHING);
    assert.deepEqual(await cost(() => visitor.merge({ a: 2 }), 429), NOTHING);
  });

  test("one call and two commands for a read, one command more the first time in a window", async () => {
    const read = { calls: 1, commands: 2, byName: { MGET: 1, INCR: 1 } };
    assert.deepEqual(await cost(() => visitor.look()), read);
    await moveToWindow(limited.store, [limited.worker], { part: 0.05 });
    const first = { calls: 1, commands: 3, byName: { MGET: 1, SET: 1, INCR: 1 } };
    assert.deepEqual(await cost(() => visitor.look()), first);
    assert.deepEqual(await cost(() => visitor.look()), read);
  });

  test("one command more for a touch that is due, and after so long one for the store's clock", async () => {
    await moveClocks(limited.store, [limited.worker], 5 * MINUTE);
    await limited.worker.moveClock(0);
    const touched = { calls: 1, commands: 5, byName: { MGET: 1, PEXPIRE: 1, TIME: 1, SET: 1, INCR: 1 } };
    assert.deepEqual(await cost(() => visitor.look()), touched);
    assert.deepEqual((await cost(() => visitor.look())).commands, 2);
  });

  test("two calls and three commands for a change", async () => {
    const changed = { calls: 2, commands: 3, byName: { MGET: 1, INCR: 1, SET: 1 } };
    assert.deepEqual(await cost(() => visitor.merge({ a: 2 })), changed);
  });

  test("two calls and at most five commands for the first change without a session", async () => {
    const first = await cost(() => limited.worker.visitor().merge({ a: 1 }));
    assert.deepEqual(first, { calls: 2, commands: 3, byName: { MGET: 1, INCR: 1, SET: 1 } });
    await moveToWindow(limited.store, [limited.worker], { part: 0.05 });
    const inNewWindow = await cost(() => limited.worker.visitor().merge({ a: 1 }));
    assert.deepEqual(inNewWindow, { calls: 2, commands: 4, byName: { MGET: 1, SET: 2, INCR: 1 } });
  });

  test("two calls and three commands for a logout", async () => {
    const ended = { calls: 2, commands: 3, byName: { MGET: 1, INCR: 1, DELEX: 1 } };
    assert.deepEqual(await cost(() => visitor.logout(), 204), ended);
  });

  test("at most five commands for the very first change in an isolate, which looks at the store's clock", async () => {
    await moveClocks(limited.store, [limited.worker], 11 * MINUTE);
    await limited.worker.moveClock(0);
    const first = await cost(() => limited.worker.visitor().merge({ a: 1 }));
    assert.deepEqual(first, { calls: 2, commands: 5, byName: { MGET: 1, TIME: 1, SET: 2, INCR: 1 } });
  });

  describe("in calls between JavaScript and wasm", () => {
    const PASSWORD = "correct horse";
    /** Somebody who is logged in. @type {Visitor} */
    let user;
    /** Somebody without a cookie. @type {Visitor} */
    let nobody;
    before(async () => {
      assert.equal((await limited.worker.visitor().register("Ada", PASSWORD)).status, 201);
    });
    beforeEach(async () => {
      [user, nobody] = [limited.worker.visitor(), limited.worker.visitor()];
      assert.equal((await user.login("Ada", PASSWORD)).status, 200);
    });

    /**
     * Calls into wasm that do work (`start`, a `resume` for each call to the store, and the same for what is left for
     * the background), calls into wasm that only lay out and free its memory, and calls out of wasm: for random bytes,
     * and to fold the name of an account.
     */
    const BUDGETS = [
      { work: 1, memory: 2, out: 0, job: "a request without a cookie", act: () => nobody.look() },
      { work: 1, memory: 2, out: 0, job: "a forged cookie", act: () => forger().look() },
      { work: 1, memory: 2, out: 0, job: "a preflight", act: preflight },
      { work: 2, memory: 5, out: 0, job: "a read", act: () => visitor.look() },
      { work: 2, memory: 5, out: 0, job: "a read by a user", act: () => user.look() },
      { work: 3, memory: 9, out: 1, job: "a change", act: () => visitor.merge({ a: 2 }) },
      { work: 3, memory: 9, out: 3, job: "a first change", act: () => nobody.merge({ a: 1 }) },
      { work: 3, memory: 8, out: 0, job: "a logout", act: () => visitor.logout() },
      { work: 5, memory: 16, out: 7, job: "a login", act: () => nobody.login("Ada", PASSWORD) },
      { work: 6, memory: 19, out: 10, job: "a registration", act: () => nobody.register("Bob", PASSWORD) },
    ];

    for (const { job, act, ...budget } of BUDGETS) {
      const { work, memory, out } = budget;
      test(`into wasm ${work}, for its memory ${memory}, out of it ${out}: ${job}`, async () => {
        await limited.worker.crossings();
        const { status, text } = await act();
        assert.ok(status < 300, text);
        const { inwards, outwards } = await limited.worker.crossings();
        // Names that begin so are those of wasm-bindgen.
        const found = { work: sum(inwards, /^(?!__)/), memory: sum(inwards, /^__/), out: sum(outwards) };
        assert.deepEqual(found, budget, JSON.stringify({ inwards, outwards }, null, 2));
      });
    }
  });
});

/** @param {Record<string, number>} counts @param {RegExp} [names] */
function sum(counts, names = /./) {
  return Object.entries(counts).reduce((total, [name, count]) => total + (names.test(name) ? count : 0), 0);
}

test("the bundle has at most 150 KB: the sum of each file's gzip -9", () => {
  const build = new URL("../build/", import.meta.url);
  const sizes = readdirSync(build).map(
    (name) => gzipSync(readFileSync(new URL(name, build)), { level: 9 }).length,
  );
  const size = sizes.reduce((sum, part) => sum + part, 0);
  assert.ok(sizes.length >= 2 && size <= 153_600, `${size} bytes in ${sizes.length} files`);
});
