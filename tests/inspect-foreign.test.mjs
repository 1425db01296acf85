/** `POST /auth/admin/inspect` on the cookies of Express and Flask: beside the application, and while it is replaced. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { admin, copyOf, json, ok, PASSWORD, sidOf, startBeside } from "./support/express.mjs";
import { SECRET } from "./support/express-app.mjs";
import { NAME, sign } from "./support/express-cookies.mjs";
import { startBeside as startBesideFlask } from "./support/flask-app.mjs";
import { inspect as inspectAt, lookAt, write } from "./support/inspect.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */
/** @typedef {import("./support/express.mjs").Someone} Someone */
/** @typedef {import("./support/flask-app.mjs").Beside} BesideFlask */
/** @typedef {import("./support/worker.mjs").Worker} Worker */

const OLD_SECRET = "an older secret of the application's";
const MAX_BYTES = 2000;
const OWN = "__Host-session";
const NOTHING = { reason: "forged", handle: null, issued_at: null, key: null };
/** What a record cannot be. */
const UNREADABLE = {
  "no JSON": "not JSON",
  "a list": "[1]",
  "too large": `{"cookie":{},"x":"${"x".repeat(3 * MAX_BYTES)}"}`,
};

/** A cookie with this id. @param {string} sid */
const cookieOf = (sid, secret = SECRET) => encodeURIComponent(`s:${sign(sid, secret)}`);

/** @param {Someone} who */
const carried = ({ atWorker }) => atWorker.cookies.get(NAME) ?? assert.fail("there is a cookie");

let number = 0;
let sid = "";
beforeEach(() => {
  number += 1;
  sid = `an-id-that-no-other-test-has-${number}`;
});

describe("beside Express, in its format", () => {
  /** @type {Beside} */
  let both;
  /** @param {string | undefined} cookie @param {Worker} [worker] */
  const inspect = (cookie, worker = both.worker) => inspectAt({ store: both.store, worker, admin }, cookie);
  /** @param {string} cookie */
  const look = (cookie) => lookAt({ store: both.store, worker: both.worker, admin }, cookie);
  before(async () => {
    const settings = { session: { max_bytes: MAX_BYTES } };
    both = await startBeside({ worker: { settings, secrets: [SECRET, OLD_SECRET] } });
  });
  after(() => both?.stop());

  async function someone() {
    const who = both.someone();
    await ok(who.atExpress.send("GET", "/"));
    return who;
  }

  test("a session is alive before anybody has seen it here, and after, for one call", async () => {
    const who = await someone();
    const { answer, calls } = await look(carried(who));
    assert.equal(calls, 1);
    const { handle } = await ok(who.atWorker.look());
    const told = { alive: true, reason: null, handle, issued_at: null, key: "application" };
    assert.deepEqual(answer.json, told);
    const { alive: _, ...same } = told;
    for (const form of [carried(who), decodeURIComponent(carried(who)), `x=1; ${NAME}=${carried(who)}`]) {
      assert.deepEqual(await inspect(form), same, form);
    }
  });

  test("it is not touched", async () => {
    const who = await someone();
    const key = `sess:${sidOf(who.atExpress)}`;
    await both.store.redis.pExpire(key, 60_000);
    await inspect(carried(who));
    assert.ok((await both.store.redis.pTTL(key)) <= 60_000);
  });

  test("an id that has a '=' in it, as somebody's own generator may make it, is found decoded too", async () => {
    sid += "a=b==";
    await write(both.store, `sess:${sid}`, '{"cookie":{}}');
    for (const cookie of [cookieOf(sid), decodeURIComponent(cookieOf(sid))]) {
      assert.equal((await inspect(cookie)).reason, null, cookie);
    }
  });

  test("an older secret of the application's counts like the first, and another is forged", async () => {
    await write(both.store, `sess:${sid}`, '{"cookie":{}}');
    assert.equal((await inspect(cookieOf(sid, OLD_SECRET))).reason, null);
    assert.deepEqual(await inspect(cookieOf(sid, "another secret")), NOTHING);
    const native = await both.startWorker({
      cookie: { format: "cloakroom", user_pointer: undefined, secure: true },
    });
    const visitor = native.visitor();
    await visitor.merge({ a: 1 });
    for (const forged of [visitor.ticket, "x", `${NAME}=`, `${cookieOf(sid)}x`]) {
      const { answer, calls } = await look(forged ?? "");
      assert.deepEqual([answer.json.reason, calls], ["forged", 0], forged);
    }
  });

  /** @type {[string, string, (who: Someone) => Promise<unknown>][]} */
  const DEAD = [
    ["by a logout at Express", "ended", ({ atExpress }) => ok(atExpress.send("POST", "/logout"), 204)],
    ["by a logout here", "ended", ({ atWorker }) => ok(atWorker.logout(), 204)],
    [
      "by a login at Express",
      "ended",
      ({ atExpress }) => ok(atExpress.send("POST", "/login", json({ name: "ann" }))),
    ],
    ["by a login here", "ended", ({ atWorker }) => ok(atWorker.register(`ann ${sid}`, PASSWORD), 201)],
    [
      "by an operator",
      "ended",
      async ({ atWorker }) => {
        const { handle } = await ok(atWorker.look());
        const path = `/auth/admin/sessions/${handle}`;
        await both.worker.idle();
        await ok(both.worker.visitor().send("DELETE", path, { headers: admin }), 204);
      },
    ],
    ["by a rotation here", "rotated", ({ atWorker }) => ok(atWorker.rotate())],
    ["unused for too long", "ended", ({ atExpress }) => both.store.redis.del(`sess:${sidOf(atExpress)}`)],
  ];
  for (const [how, reason, end] of DEAD) {
    test(`a session that was ended ${how} is ${reason}`, async () => {
      const who = await someone();
      const [cookie, key] = [carried(who), `sess:${sidOf(who.atExpress)}`];
      const record = String(await both.store.redis.get(key));
      await end(who);
      const { reason: told, handle, key: signed } = await inspect(cookie);
      assert.deepEqual([told, typeof handle, signed], [reason, "string", "application"]);
      if (!how.includes("here")) return;
      await write(both.store, key, record);
      assert.equal((await inspect(cookie)).reason, reason, "also when the application has written it back");
    });
  }

  for (const [what, record] of Object.entries(UNREADABLE)) {
    test(`a record that is ${what} is refused as a visitor's request is, and left as it is`, async () => {
      await write(both.store, `sess:${sid}`, record);
      const visitor = both.worker.visitor();
      visitor.cookies.set(NAME, cookieOf(sid));
      const { status, json } = await visitor.look();
      const { answer } = await look(cookieOf(sid));
      assert.deepEqual([answer.status, answer.json.code], [status, json.code]);
      assert.ok(status === 500 || status === 422, answer.text);
      assert.ok(!both.worker.logs.join("").includes(sid));
    });
  }

  test("a dead store is 503", async () => {
    const cookie = carried(await someone());
    both.store.faults.always("refuse");
    const answer = await both.worker.visitor().tell("POST", "/admin/inspect", { cookie }, admin);
    both.store.faults.clear();
    assert.deepEqual([answer.status, answer.json.code], [503, "store_unavailable"]);
  });
});

describe("while Express is replaced", () => {
  /** @type {Beside} */
  let both;
  /** @param {string | undefined} cookie @param {Worker} [worker] */
  const inspect = (cookie, worker = both.worker) => inspectAt({ store: both.store, worker, admin }, cookie);
  /** @param {string} cookie */
  const look = (cookie) => lookAt({ store: both.store, worker: both.worker, admin }, cookie);
  const moving = (more = {}) => ({
    cookie: {
      format: "cloakroom",
      user_pointer: undefined,
      secure: true,
      accept: [{ format: "express", user_pointer: "/userId", ...more }],
    },
    settings: { session: { max_bytes: MAX_BYTES, idle: "10h" } },
  });
  before(async () => {
    both = await startBeside({ worker: moving() });
  });
  after(() => both?.stop());

  async function loggedIn(name = `ann ${sid}`) {
    const who = both.someone();
    await ok(who.atExpress.send("POST", "/login", json({ name })));
    return who;
  }

  test("an old cookie is alive before its session is taken over, and takes nothing over", async () => {
    const who = await loggedIn();
    for (const form of [carried(who), `${NAME}=${carried(who)}`, `${NAME}="${carried(who)}"; theme=dark`]) {
      const { answer, calls } = await look(form);
      const { handle, ...told } = answer.json;
      assert.deepEqual(told, { alive: true, reason: null, issued_at: null, key: null });
      assert.match(handle, /^[\w-]{24}$/);
      assert.ok(calls <= 3, `${calls} calls`);
    }
    assert.equal((await ok(who.atWorker.look())).user.id, `ann ${sid}`);
  });

  test("afterwards it leads to the session, wherever that has gone, and so does the new one", async () => {
    const who = await loggedIn();
    const old = carried(who);
    const { handle } = await ok(who.atWorker.look());
    assert.equal((await inspect(old)).handle, handle);
    const { handle: next } = await ok(who.atWorker.rotate());
    assert.equal((await inspect(old)).handle, next);
    const { reason, handle: told, key } = await inspect(who.atWorker.ticket);
    assert.deepEqual([reason, told, typeof key], [null, next, "string"]);
  });

  test("it is rotated when its grace is over", async () => {
    const worker = await both.startWorker(moving());
    const who = await loggedIn();
    const old = carried(who);
    who.atWorker.url = worker.url;
    await ok(who.atWorker.look());
    await ok(who.atWorker.rotate());
    const { handle } = await ok(who.atWorker.look());
    await worker.idle();
    await worker.moveClock(30_000);
    assert.equal((await inspect(old, worker)).reason, "rotated");
    assert.equal((await ok(who.atWorker.look())).handle, handle);
  });

  test("of a dead ticket and an old cookie that lives, the latter counts, as in a request", async () => {
    const who = await loggedIn();
    const dead = copyOf(who).atWorker;
    await ok(dead.look());
    const other = await loggedIn(`bob ${sid}`);
    await ok(dead.logout(), 204);
    const header = `${OWN}=${"A".repeat(148)}; ${NAME}=${carried(other)}`;
    assert.equal((await inspect(header)).reason, null);
    assert.equal((await inspect(`${OWN}=${"A".repeat(148)}; ${NAME}=${carried(who)}`)).reason, "ended");
  });

  /** @param {string} id */
  const endAll = (id) => {
    const path = `/auth/admin/users/${encodeURIComponent(id)}/sessions`;
    return ok(both.worker.visitor().send("DELETE", path, { headers: admin }));
  };
  /** @type {[string, string, (who: Someone) => Promise<unknown>][]} */
  const DEAD = [
    ["by a logout at Express", "ended", ({ atExpress }) => ok(atExpress.send("POST", "/logout"), 204)],
    ["by a logout here", "ended", ({ atWorker }) => ok(atWorker.logout(), 204)],
    ["by an operator, with all of its user's", "revoked", () => endAll(`ann ${sid}`)],
  ];
  for (const [how, reason, end] of DEAD) {
    for (const when of ["before", "after"]) {
      test(`a session that was ended ${how} ${when} it could be taken over is ${reason}`, async () => {
        const who = await loggedIn();
        const before = copyOf(who);
        if (when === "after") await ok(who.atWorker.look());
        await end(who);
        // What was taken over is the Worker's own: Express ends its record alone.
        const lives = when === "after" && how.endsWith("Express");
        assert.equal((await inspect(carried(before))).reason, lives ? null : reason);
        assert.equal((await ok(before.atWorker.look())) === null, !lives, "a visitor sees the same");
      });
    }
  }

  for (const [what, record] of Object.entries(UNREADABLE)) {
    test(`a record that is ${what} is 500, logged by a handle, and left as it is`, async () => {
      await write(both.store, `sess:${sid}`, record);
      const { answer } = await look(cookieOf(sid));
      assert.deepEqual([answer.status, answer.json.code], [500, "internal"]);
      assert.ok(!both.worker.logs.join("").includes(sid));
    });
  }

  test("what no secret has signed is forged, and costs no call", async () => {
    for (const cookie of [cookieOf(sid, "another secret"), `${NAME}=${cookieOf(sid, "another secret")}`]) {
      const { answer, calls } = await look(cookie);
      assert.deepEqual([answer.json, calls], [{ alive: false, ...NOTHING }, 0]);
    }
  });

  test("once it means nothing any more, it is nobody's", async () => {
    const who = await loggedIn();
    const worker = await both.startWorker(moving({ until: "2026-01-01" }));
    assert.deepEqual(await inspect(carried(who), worker), NOTHING);
  });
});

for (const [what, flask] of /** @type {[string, import("./support/flask-app.mjs").FlaskSettings][]} */ ([
  ["without a signer", {}],
  ["with a signer", { SESSION_USE_SIGNER: true, SECRET_KEY: "dev" }],
])) {
  describe(`beside Flask ${what}`, () => {
    /** @type {BesideFlask} */
    let both;
    /** @param {string | undefined} cookie */
    const inspect = (cookie) => inspectAt({ store: both.store, worker: both.worker, admin }, cookie);
    before(async () => {
      const ADMIN_TOKEN = admin.Authorization.slice("Bearer ".length);
      both = await startBesideFlask({ flask, secrets: { ADMIN_TOKEN } });
    });
    after(() => both?.stop());

    async function someone() {
      const visitor = both.visitor();
      await visitor.app.send("GET", "/");
      return { ...visitor, cookie: visitor.edge.cookies.get(both.name) ?? assert.fail("there is a cookie") };
    }

    test("a session is alive, in every form", async () => {
      const { edge, cookie } = await someone();
      const told = await inspect(cookie);
      const { handle } = await edge.session();
      assert.deepEqual(told, { reason: null, handle, issued_at: null, key: "application" });
      assert.deepEqual(await inspect(`x=1; ${both.name}="${cookie}"`), told);
    });

    test("a session that was ended by a logout here, or is gone, is ended; one that was rotated is rotated", async () => {
      const [out, gone, rotated] = [await someone(), await someone(), await someone()];
      const key = gone.key();
      await out.edge.logout();
      await both.store.redis.del(key);
      assert.equal((await rotated.edge.rotate()).status, 200);
      const reasons = [];
      for (const { cookie } of [out, gone, rotated]) reasons.push((await inspect(cookie)).reason);
      assert.deepEqual(reasons, ["ended", "ended", "rotated"]);
    });

    test("what Flask could not have made is forged", async () => {
      const { cookie } = await someone();
      for (const forged of [`${cookie}.x`, "a/b", flask.SESSION_USE_SIGNER ? cookie.slice(0, -1) : "é"]) {
        assert.deepEqual(await inspect(forged), NOTHING, forged);
      }
    });

    test("a record that cannot be read is 500, and left as it is", async () => {
      const { cookie, key } = await someone();
      await both.write(key(), Buffer.from([0xc1, 0xff]));
      const { answer } = await lookAt({ store: both.store, worker: both.worker, admin }, cookie);
      assert.deepEqual([answer.status, answer.json.code], [500, "internal"]);
    });
  });
}

describe("while Flask without a signer is replaced, any text may be an id of its", () => {
  /** @type {BesideFlask} */
  let both;
  /** @param {string | undefined} cookie */
  const inspect = (cookie) => inspectAt({ store: both.store, worker: both.worker, admin }, cookie);
  before(async () => {
    const ADMIN_TOKEN = admin.Authorization.slice("Bearer ".length);
    both = await startBesideFlask({ accept: { user_pointer: "/user_id" }, secrets: { ADMIN_TOKEN } });
  });
  after(() => both?.stop());

  test("an old cookie is alive before and after its session is taken over", async () => {
    const { edge, app } = both.visitor();
    await app.send("GET", "/");
    const cookie = edge.cookies.get(both.name);
    assert.equal((await inspect(cookie)).reason, null);
    const { handle } = await edge.session();
    assert.equal((await inspect(`${both.name}=${cookie}`)).handle, handle);
    assert.equal((await inspect(edge.ticket)).handle, handle);
    await edge.logout();
    assert.equal((await inspect(cookie)).reason, "ended");
  });

  test("yet what has the form of a ticket is one, and no id that nobody knows", async () => {
    const other = await both.start({
      secrets: { SESSION_SECRET: "another secret of 32 characters and more" },
    });
    const visitor = other.visitor();
    await visitor.merge({ a: 1 });
    const ticket = String(visitor.ticket);
    assert.equal((await inspect(ticket)).reason, "unknown_key");
    const { edge } = both.visitor();
    await edge.merge({ a: 1 });
    const flipped = edge.ticket?.endsWith("A") ? "B" : "A";
    assert.equal((await inspect(edge.ticket?.slice(0, -1) + flipped)).reason, "forged");
  });
});
