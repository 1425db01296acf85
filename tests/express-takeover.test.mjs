/** Moving over: the Worker in its own format takes Express' sessions over, and nobody is logged out on the way or back. */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import {
  admin,
  copyOf,
  DAY,
  json,
  keyOf,
  MINUTE,
  ok,
  PASSWORD,
  recordAt,
  refused,
  startBeside,
} from "./support/express.mjs";
import { NAME, sign } from "./support/express-cookies.mjs";
import { SECRET } from "./support/express-app.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */
/** @typedef {import("./support/worker.mjs").Worker} Worker */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const OWN = "__Host-session";
const ACCEPT = { format: "express", user_pointer: "/userId" };

/** The Worker's configuration in its own format, taking over what `accept` says. @param {unknown} accept */
const moving = (accept = [ACCEPT], more = {}) => ({
  cookie: { format: "cloakroom", user_pointer: undefined, secure: true, accept, ...more },
});

/** @type {Beside} */
let both;
/** Another isolate. @type {Worker} */
let other;
before(async () => {
  both = await startBeside({ worker: moving() });
  other = await both.startWorker();
});
after(() => both?.stop());
afterEach(() => both.store.faults.clear());

/** A visitor who is logged in at Express, with visits counted. @param {Beside["app"]} [app] */
async function loggedIn(app = both.app, worker = both.worker) {
  const who = both.someone({ app, worker });
  await ok(who.atExpress.send("POST", "/login", json({ name: "ann" })));
  await ok(who.atExpress.send("GET", "/"));
  return who;
}

/** The same visitor elsewhere, with a jar of their own. @param {Worker} worker @param {Visitor} visitor */
function at(worker, visitor) {
  const copy = worker.visitor();
  copy.cookies = new Map(visitor.cookies);
  return copy;
}

test("at its next request a session of Express' is one of the Worker's, with its data and user", async () => {
  const { atExpress, atWorker } = await loggedIn();
  const key = keyOf(both, atExpress);
  const before = await both.store.redis.get(key);
  const answer = await atWorker.look();
  const { user, data } = await ok(answer);
  assert.deepEqual([user.id, data.views], ["ann", 1]);
  assert.equal(answer.setCookies.length, 1);
  assert.match(answer.setCookies[0], new RegExp(`^${OWN}=[\\w-]{148};`));
  assert.equal(await both.store.redis.get(key), before, "the application's record stays as it was");
  assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");

  // From here on the Worker's session is its own.
  assert.deepEqual((await ok(atWorker.increment("/views", 10))).data.views, 11);
  assert.equal((await ok(atExpress.send("GET", "/"))).views, 2);
  const again = await atWorker.look();
  assert.deepEqual([(await ok(again)).data.views, again.setCookies], [11, []]);
});

test("with the shortest form of the setting, it is taken over without a user", async () => {
  const worker = await both.startWorker(moving(["express"]));
  const { atWorker } = await loggedIn(both.app, worker);
  const { user, data } = await ok(atWorker.look());
  assert.deepEqual([user, data.userId, data.views], [null, "ann", 1]);
});

describe("it becomes one session", () => {
  test("of many requests at once, in two isolates", async () => {
    const { atWorker } = await loggedIn();
    const copies = Array.from({ length: 20 }, (_, index) => at(index % 2 ? other : both.worker, atWorker));
    const sessions = await Promise.all(copies.map(async (visitor) => ok(visitor.increment("/n"))));
    assert.equal(new Set(sessions.map(({ handle }) => handle)).size, 1);
    for (const visitor of copies) assert.equal((await ok(visitor.look())).data.n, 20);
  });

  test("of a client that never keeps the new cookie", async () => {
    const { atWorker } = await loggedIn();
    /** @type {Set<string>} */
    const handles = new Set();
    for (let count = 1; count <= 5; count += 1) {
      const session = await ok(at(count % 2 ? other : both.worker, atWorker).increment("/n"));
      assert.equal(session.data.n, count);
      handles.add(session.handle);
    }
    assert.equal(handles.size, 1);
  });

  test("across rotations, of which a client with the old cookie alone is no thief", async () => {
    const worker = await both.startWorker({
      ...moving(),
      settings: { session: { rotate_every: "1h", idle: "10h" } },
    });
    const { atWorker } = await loggedIn(both.app, worker);
    const old = at(worker, atWorker);
    const { handle } = await ok(atWorker.look());
    await worker.moveClock(61 * MINUTE);
    assert.notEqual((await ok(atWorker.look())).handle, handle, "it has rotated");
    await worker.moveClock(2 * MINUTE);
    const { handle: latest, user } = await ok(atWorker.look());
    assert.deepEqual((await ok(old.look())).handle, latest);
    assert.deepEqual([(await ok(atWorker.look())).handle, user.id], [latest, "ann"]);
  });

  for (const fault of /** @type {const} */ (["lostAnswer", "cut", "refuse"])) {
    test(`when answers of the store are lost on the way (${fault})`, async () => {
      const { atWorker } = await loggedIn();
      for (const index of [1, 2, 3]) {
        let calls = 0;
        const isThis = () => (calls += 1) === index;
        both.store.faults.next(fault, { when: isThis });
        const { status, setCookies } = await at(both.worker, atWorker).look();
        assert.ok([200, 503].includes(status), String(status));
        if (status === 503) assert.deepEqual(setCookies, []);
        both.store.faults.clear();
      }
      const sessions = [await ok(at(other, atWorker).look()), await ok(at(both.worker, atWorker).look())];
      assert.deepEqual([sessions[0].user.id, sessions[0].handle], ["ann", sessions[1].handle]);
    });
  }
});

test("a proxy that asks verify is told who it is, and no cookie is set on the way", async () => {
  const { atWorker } = await loggedIn();
  for (let count = 0; count < 2; count += 1) {
    const answer = await at(both.worker, atWorker).send("GET", "/auth/verify");
    assert.deepEqual([answer.status, answer.headers.get("x-session-user")], [200, "ann"]);
    assert.deepEqual(answer.headers.getSetCookie(), []);
  }
});

describe("the end", () => {
  test("by a logout at the Worker: at Express too, and both cookies go", async () => {
    const who = await loggedIn();
    const { atExpress, atWorker } = who;
    const [key, before] = [keyOf(both, atExpress), copyOf(who)];
    await ok(atWorker.look());
    const answer = await atWorker.logout();
    assert.equal(answer.status, 204);
    const removed = answer.setCookies.map((line) => line.split("=")[0]).sort();
    assert.deepEqual(removed, [OWN, NAME].sort());
    for (const line of answer.setCookies) assert.match(line, /Max-Age=0/);
    assert.equal(await recordAt(both, key), null);
    await ok(before.atExpress.send("GET", "/dashboard"), 401);
    assert.equal(await before.atWorker.session(), null);
    assert.equal(await at(other, before.atWorker).session(), null);
  });

  test("by a logout with the old cookie alone, before anything was taken over", async () => {
    const who = await loggedIn();
    const [key, before] = [keyOf(both, who.atExpress), copyOf(who)];
    await ok(who.atWorker.logout(), 204);
    assert.equal(await recordAt(both, key), null);
    assert.equal(await before.atWorker.session(), null);
    await ok(before.atExpress.send("GET", "/dashboard"), 401);
  });

  test("of the Worker's session, by an operator: the old cookie begins no other", async () => {
    const who = await loggedIn();
    const before = copyOf(who);
    const { handle } = await ok(who.atWorker.look());
    const path = `/auth/admin/sessions/${handle}`;
    assert.equal((await both.worker.visitor().send("DELETE", path, { headers: admin })).status, 204);
    assert.equal(await at(other, before.atWorker).session(), null);
    await refused(before.atWorker.send("GET", "/auth/verify"), 401, "unauthenticated");
  });

  test("of all sessions of the user, by an operator: the old cookie begins no other", async () => {
    const who = both.someone();
    await ok(who.atExpress.send("POST", "/login", json({ name: "zoe" })));
    const before = copyOf(who);
    await ok(who.atWorker.look());
    const ended = await both.worker
      .visitor()
      .send("DELETE", "/auth/admin/users/zoe/sessions", { headers: admin });
    assert.deepEqual([ended.status, ended.json], [200, { ended: 1 }]);
    assert.equal(await at(other, before.atWorker).session(), null);
  });

  test("with the account of the user, which is disabled: also when the mark of that has expired", async () => {
    const { user } = await ok(
      both.someone().atWorker.register(`Barred ${crypto.randomUUID()}`, PASSWORD),
      201,
    );
    const operate = (/** @type {string} */ method, /** @type {string} */ path, /** @type {unknown} */ body) =>
      ok(both.worker.visitor().tell(method, `/admin${path}`, body, admin));
    const who = both.someone();
    await ok(who.atExpress.send("POST", "/login", json({ name: user.id })));
    const cookie = `${NAME}=${who.atWorker.cookies.get(NAME)}`;
    await operate("PATCH", `/users/${user.id}`, { disabled: true });
    for (const when of ["before", "after"]) {
      assert.equal(await copyOf(who).atWorker.session(), null, when);
      await refused(copyOf(who).atWorker.send("GET", "/auth/verify"), 401, "unauthenticated");
      const { alive, reason } = await operate("POST", "/inspect", { cookie });
      assert.deepEqual([alive, reason], [false, "revoked"], when);
      for (const key of await both.store.redis.keys("user:*:standing")) await both.store.redis.del(key);
    }
    await operate("PATCH", `/users/${user.id}`, { disabled: false });
    assert.equal((await ok(copyOf(who).atWorker.look())).user.id, user.id);
  });

  test("by a logout at Express before anything was taken over: there is nothing to take", async () => {
    const who = await loggedIn();
    const before = copyOf(who);
    await ok(who.atExpress.send("POST", "/logout"), 204);
    assert.equal(await before.atWorker.session(), null);
    assert.ok(!before.atWorker.cookies.has(OWN));
  });
});

describe("which cookie counts", () => {
  test("a live one of the Worker's comes first, whatever the old one is", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atWorker.merge({ own: true }));
    await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
    const answer = await atWorker.look();
    const { user, data } = await ok(answer);
    assert.deepEqual([user, data, answer.setCookies], [null, { own: true }, []]);
  });

  test("behind a dead one of the Worker's, the old one is taken over", async () => {
    const dead = both.someone();
    await ok(dead.atWorker.merge({ own: true }));
    const ticket = String(dead.atWorker.ticket);
    await ok(dead.atWorker.logout(), 204);
    const { atWorker } = await loggedIn();
    atWorker.cookies.set(OWN, ticket);
    assert.equal((await ok(atWorker.look())).user.id, "ann");
  });

  test("a forged one is nothing, and costs no call", async () => {
    const visitor = both.worker.visitor();
    for (const value of [
      "s:x.y",
      `s:${sign("x", "another's")}`,
      sign("x", SECRET),
      "s:",
      "",
      "x".repeat(5000),
    ]) {
      visitor.cookies.set(NAME, encodeURIComponent(value));
      const { value: answer, calls } = await both.store.counters.during(() => visitor.look());
      assert.deepEqual([answer.json, calls, answer.setCookies], [{ session: null }, 0, []], value);
    }
  });

  test("after the date that was set, it means nothing", async () => {
    const date = (/** @type {number} */ days) => new Date(Date.now() + days * DAY).toISOString().slice(0, 10);
    const [past, future] = await Promise.all([
      both.startWorker(moving([{ ...ACCEPT, until: date(-2) }])),
      both.startWorker(moving([{ ...ACCEPT, until: date(3) }])),
    ]);
    const { atWorker } = await loggedIn();
    const { value, calls } = await both.store.counters.during(() => at(past, atWorker).look());
    assert.deepEqual([value.json, calls], [{ session: null }, 0]);
    assert.equal((await ok(at(future, atWorker).look())).user.id, "ann");
    await future.moveClock(5 * DAY);
    assert.equal(await at(future, atWorker).session(), null);
  });

  test("with other names, prefixes and places", async () => {
    const [app, worker] = await Promise.all([
      both.startApp({ session: { name: "sid" }, store: { prefix: "shop:" }, user: "/passport/user" }),
      both.startWorker(
        moving([{ format: "express", name: "sid", record_prefix: "shop:", user_pointer: "/passport/user" }]),
      ),
    ]);
    const { atWorker } = await loggedIn(app, worker);
    const { user, data } = await ok(atWorker.look());
    assert.deepEqual([user.id, data.views], ["ann", 1]);
  });
});

test("what cannot be read is not taken over, and not overwritten", async () => {
  for (const text of ["not JSON", "{}", "[]", '{"userId":"ann"}']) {
    const sid = `unreadable ${text}`;
    await both.store.redis.set(`sess:${sid}`, text);
    const visitor = both.worker.visitor();
    visitor.cookies.set(NAME, encodeURIComponent(`s:${sign(sid, SECRET)}`));
    const { json: body, setCookies } = await visitor.look();
    assert.deepEqual([body.session ?? null, setCookies], [null, []], text);
    assert.equal(await both.store.redis.get(`sess:${sid}`), text);
  }
});

describe("live visitors across the switch", () => {
  test("Express alone, the Worker beside it, the Worker's own format, and back", async () => {
    const beside = await both.startWorker({ cookie: { format: "express", user_pointer: "/userId" } });
    const { atExpress, atWorker } = await loggedIn();
    // 1. Beside it.
    atWorker.url = beside.url;
    assert.equal((await ok(atWorker.increment("/views"))).data.views, 2);
    // 2. The Worker has been switched over; the application still serves some pages.
    atWorker.url = both.worker.url;
    assert.deepEqual((await ok(atWorker.look())).data.views, 2);
    assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");
    await ok(atWorker.increment("/views"));
    // 3. And back: the application's record is still there.
    atWorker.url = beside.url;
    const { user, data } = await ok(atWorker.look());
    assert.deepEqual([user.id, data.views], ["ann", 2]);
    // 4. And over again: to the session of before.
    atWorker.url = both.worker.url;
    assert.deepEqual((await ok(atWorker.look())).data.views, 3);
  });

  test("isolates of both kinds at once, as while it is rolled out", async () => {
    const beside = await both.startWorker({ cookie: { format: "express", user_pointer: "/userId" } });
    const { atExpress, atWorker } = await loggedIn();
    for (let round = 0; round < 3; round += 1) {
      for (const worker of [beside, both.worker, other]) {
        atWorker.url = worker.url;
        assert.equal((await ok(atWorker.look())).user.id, "ann");
      }
      assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");
    }
  });

  test("a login at the Worker over a session that is taken over has its data, and a new id", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("GET", "/"));
    const before = copyOf({ atExpress, atWorker });
    const { user, data } = await ok(atWorker.register(`Moved ${crypto.randomUUID()}`, PASSWORD), 201);
    assert.equal(data.views, 1);
    assert.equal((await ok(atWorker.look())).user.id, user.id);
    assert.equal((await before.atWorker.session())?.user ?? null, null, "the old cookie is not logged in");
  });
});
