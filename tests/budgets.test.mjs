/**
 * What a request may cost: calls to the store and billed commands (README.md), calls between JavaScript and wasm,
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
before(async () => {
  both = await startBoth({ settings: { cors: { origins: ["https://front.example"] } } });
  await keepScripts(both);
});
after(() => both.stop());
beforeEach(() => void (visitor = both.worker.visitor()));

/** The store is told scripts by their names once it has run them: at the beginning of a window, and later. @param {typeof both} both */
async function keepScripts({ store, worker }) {
  for (const part of [0.02, 0.2]) {
    await moveToWindow(store, [worker], { part });
    for (const visitor of [worker.visitor(), worker.visitor()]) {
      for (const a of [1, 2, 3]) await visitor.merge({ a });
    }
  }
}

/** The preflight that a browser sends before a change of data. */
const preflight = () =>
  visitor.send("OPTIONS", "/auth/session/data", {
    headers: { Origin: "https://front.example", "Access-Control-Request-Method": "PATCH" },
  });

/** A visitor with the ticket, except for one character. */
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

test("nothing for a ticket that the isolate knows to be dead, whatever is asked with it", async () => {
  await visitor.merge({ a: 1 });
  const late = visitor.clone();
  await visitor.logout();
  // A read may be answered by a replica, which is not believed.
  const found = { calls: 2, commands: 3, byName: { MGET: 2, GETEX: 1 } };
  assert.deepEqual(await costOf(() => late.clone().look()), found);
  for (const act of [
    () => late.clone().look(),
    () => late.clone().send("HEAD", "/auth/session"),
    () => late.clone().logout(),
  ]) {
    assert.deepEqual(await costOf(act), NOTHING);
  }
  const begun = { calls: 1, commands: 1, byName: { SET: 1 } };
  assert.deepEqual(await costOf(() => late.merge({ a: 1 })), begun, "the same as without a cookie");
});

test("one call and one command for a read, one command more when a touch is due", async () => {
  await visitor.merge({ a: 1 });
  assert.deepEqual(await costOf(() => visitor.look()), { calls: 1, commands: 1, byName: { MGET: 1 } });
  await both.worker.moveClock(5 * 60_000);
  const touched = { calls: 1, commands: 2, byName: { MGET: 1, PEXPIRE: 1 } };
  assert.deepEqual(await costOf(() => visitor.look()), touched);
  assert.deepEqual(await costOf(() => visitor.look()), { calls: 1, commands: 1, byName: { MGET: 1 } });
});

// Without a limit, nothing else in a change's first call makes the primary answer it: that takes a command more.
test("a change: one call and two commands if the isolate knows the session, else two calls; two commands if nothing changes", async () => {
  await visitor.merge({ a: 1 });
  const known = { calls: 1, commands: 2, byName: { EVALSHA: 1, SET: 1 } };
  assert.deepEqual(await costOf(() => visitor.merge({ a: 2 })), known);
  const same = { calls: 1, commands: 2, byName: { MGET: 1, GETEX: 1 } };
  assert.deepEqual(await costOf(() => visitor.merge({ a: 2 })), same);
  await visitor.forget();
  const read = { calls: 2, commands: 3, byName: { MGET: 1, GETEX: 1, SET: 1 } };
  assert.deepEqual(await costOf(() => visitor.merge({ a: 3 })), read);
});

test("one call and one command for the change that creates a session, two and three for a logout", async () => {
  assert.deepEqual(await costOf(() => visitor.merge({ a: 1 })), {
    calls: 1,
    commands: 1,
    byName: { SET: 1 },
  });
  assert.deepEqual(await costOf(() => visitor.logout()), {
    calls: 2,
    commands: 3,
    byName: { MGET: 1, GETEX: 1, DELEX: 1 },
  });
});

test("four calls and six commands for a rotation, two calls for an old id, and a call after the new one's first use", async () => {
  const { store } = both;
  await visitor.merge({ a: 1 });
  const late = visitor.clone();
  assert.deepEqual(await costOf(() => visitor.rotate()), {
    calls: 4,
    commands: 6,
    byName: { MGET: 1, GETEX: 2, SET: 3 },
  });
  const followed = { calls: 2, commands: 3, byName: { MGET: 2, GETEX: 1 } };
  assert.deepEqual(await costOf(() => late.clone().look()), followed);

  const read = { calls: 1, commands: 1, byName: { MGET: 1 } };
  const held = store.faults.hold(({ commands }) => commands[0]?.[0] === "GETEX");
  const { commands } = await costOf(() => visitor.look());
  assert.equal(commands, read.commands, "until the answer");
  await held.arrived;
  const noted = await store.counters.during(async () => {
    held.release();
    await both.worker.idle();
  });
  assert.deepEqual(noted.byName, { SET: 1, GETEX: 2, PEXPIRE: 1 });
  assert.deepEqual(await costOf(() => visitor.look()), read, "once");
});

describe("with the limits that are set by default", () => {
  const MINUTE = 60_000;
  /** @type {Awaited<ReturnType<typeof startBoth>>} */
  let limited;
  before(async () => {
    limited = await startBoth({ settings: { limits: {}, cors: { origins: ["https://front.example"] } } });
    await keepScripts(limited);
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

  test("nothing without a ticket, with an invalid one, and for a preflight", async () => {
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

  test("a change: three commands, in one call if the isolate knows the session, else in two", async () => {
    const known = { calls: 1, commands: 3, byName: { EVALSHA: 1, INCR: 1, SET: 1 } };
    assert.deepEqual(await cost(() => visitor.merge({ a: 2 })), known);
    await visitor.forget();
    const read = { calls: 2, commands: 3, byName: { MGET: 1, INCR: 1, SET: 1 } };
    assert.deepEqual(await cost(() => visitor.merge({ a: 3 })), read);
  });

  test("no more for a user's read, and for a user's change one command more", async () => {
    assert.equal((await visitor.register("Cy", "correct horse")).status, 201);
    await visitor.look();
    const read = { calls: 1, commands: 2, byName: { MGET: 1, INCR: 1 } };
    assert.deepEqual(await cost(() => visitor.look()), read);
    const changed = { calls: 1, commands: 4, byName: { EVALSHA: 1, INCR: 1, GET: 1, SET: 1 } };
    assert.deepEqual(await cost(() => visitor.merge({ a: 2 })), changed);
  });

  test("one call and two commands for a dead ticket, and nothing from then on", async () => {
    const late = visitor.clone();
    assert.equal((await visitor.logout()).status, 204);
    // It is given back after the answer.
    const held = limited.store.faults.hold(({ commands }) => commands.some(([word]) => word === "DECRBY"));
    const found = { commands: 2, byName: { MGET: 1, INCR: 1 } };
    const { calls, ...first } = await cost(async () => {
      const answer = await late.look();
      await held.arrived;
      return answer;
    });
    assert.deepEqual({ calls: calls - 1, ...first }, { calls: 1, ...found });
    held.release();
    await limited.worker.idle();
    assert.deepEqual(await cost(() => late.look()), NOTHING);
    assert.deepEqual(await cost(() => late.send("GET", "/auth/sessions"), 401), NOTHING);
    assert.deepEqual(await cost(() => late.logout(), 204), NOTHING);
  });

  test("one call and at most five commands for the first change without a session", async () => {
    const first = await cost(() => limited.worker.visitor().merge({ a: 1 }));
    assert.deepEqual(first, { calls: 1, commands: 3, byName: { EVALSHA: 1, INCR: 1, SET: 1 } });
    await moveToWindow(limited.store, [limited.worker], { part: 0.05 });
    const inNewWindow = await cost(() => limited.worker.visitor().merge({ a: 1 }));
    const byName = { EVALSHA: 1, MGET: 1, INCR: 1, PEXPIRE: 1, SET: 1 };
    assert.deepEqual(inNewWindow, { calls: 1, commands: 5, byName });
  });

  test("two calls and three commands for a logout", async () => {
    const ended = { calls: 2, commands: 3, byName: { MGET: 1, INCR: 1, DELEX: 1 } };
    assert.deepEqual(await cost(() => visitor.logout(), 204), ended);
  });

  test("at most five commands for the very first change in an isolate, which reads the store's clock", async () => {
    await moveClocks(limited.store, [limited.worker], 11 * MINUTE);
    await limited.worker.moveClock(0);
    const first = await cost(() => limited.worker.visitor().merge({ a: 1 }));
    assert.deepEqual(first, { calls: 2, commands: 5, byName: { MGET: 1, TIME: 1, SET: 2, INCR: 1 } });
  });

  describe("in calls between JavaScript and wasm", () => {
    const PASSWORD = "correct horse";
    /** A visitor who is logged in. @type {Visitor} */
    let user;
    /** A visitor without a cookie. @type {Visitor} */
    let nobody;
    /** A visitor whose session has ended, which the isolate knows. @type {Visitor} */
    let late;
    before(async () => {
      assert.equal((await limited.worker.visitor().register("Ada", PASSWORD)).status, 201);
    });
    beforeEach(async () => {
      [user, nobody] = [limited.worker.visitor(), limited.worker.visitor()];
      assert.equal((await user.login("Ada", PASSWORD)).status, 200);
      late = visitor.clone();
      assert.equal((await late.clone().logout()).status, 204);
      assert.equal(await late.session(), null);
      visitor = limited.worker.visitor();
      assert.equal((await visitor.merge({ a: 1 })).status, 200);
      assert.equal((await visitor.look()).status, 200);
    });

    /**
     * At most so many calls out of wasm, of any kind: to read the request, to write the response, to call the store, to
     * wait. Each costs time of every such request, so a bound is raised for a reason and not by the way. What needs no
     * store makes no promise either. A read asks for If-Match, If-None-Match and Sec-Fetch-Site; a change for If-Match,
     * If-None-Match and Content-Encoding.
     */
    const BUDGETS = [
      { out: 12, job: "a request without a cookie", act: () => nobody.look() },
      { out: 12, job: "a forged cookie", act: () => forger().look() },
      { out: 12, job: "a ticket that is known to be dead", act: () => late.look() },
      { out: 10, job: "a preflight", act: preflight },
      { out: 26, job: "a read", act: () => visitor.look() },
      { out: 26, job: "a read by a user", act: () => user.look() },
      { out: 56, job: "a change", act: () => visitor.merge({ a: 2 }) },
      { out: 59, job: "a first change", act: () => nobody.merge({ a: 1 }) },
      { out: 36, job: "a logout", act: () => visitor.logout() },
      { out: 76, job: "a login", act: () => nobody.login("Ada", PASSWORD) },
      { out: 90, job: "a registration", act: () => nobody.register("Bob", PASSWORD) },
    ];

    for (const { job, act, out } of BUDGETS) {
      test(`at most ${out} out of wasm: ${job}`, async () => {
        await limited.worker.crossings();
        const { status, text } = await act();
        assert.ok(status < 300, text);
        const { inwards, outwards } = await limited.worker.crossings();
        assert.equal(inwards.fetch, 1, "one request enters wasm once");
        const found = sum(outwards);
        assert.ok(found <= out, `${found}: ${JSON.stringify(outwards, null, 2)}`);
      });
    }
  });
});

/** @param {Record<string, number>} counts */
function sum(counts) {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

test("the bundle has at most 600 KB: the sum of each file's gzip -9", () => {
  const build = new URL("../build/", import.meta.url);
  const sizes = readdirSync(build).map(
    (name) => gzipSync(readFileSync(new URL(name, build)), { level: 9 }).length,
  );
  const size = sizes.reduce((sum, part) => sum + part, 0);
  assert.ok(sizes.length >= 2 && size <= 614_400, `${size} bytes in ${sizes.length} files`);
});
