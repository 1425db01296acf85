/** `POST /auth/admin/inspect` on tickets of ours: every reason there is, and what each look costs. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { inspect as inspectAt, lookAt } from "./support/inspect.mjs";
import { FAST_HASH, NO_LIMITS, randomSecret, startDeployment, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/worker.mjs").Worker} Worker */

const HOUR = 3_600_000;
const GRACE = 30_000;
const NAME = "__Host-session";
const RIGHT = "correct horse";
const NEW_PASSWORD = "battery staple";
const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const [older, newer] = [randomSecret(), randomSecret()];

const secrets = { SESSION_SECRET: `${newer},${older}`, ADMIN_TOKEN };
const session = { idle: "10h", rotate_every: "", max_per_user: 3 };
const settings = { password: FAST_HASH, limits: NO_LIMITS, session, bearer: { enabled: true } };
const deployment = await startDeployment([{}, {}], { settings, secrets });
const { store, start } = deployment;
const [worker, late] = deployment.workers;
/** The same deployment before its secret was replaced. @type {Worker} */
let former;
/** @type {Worker} */
let stranger;
before(async () => {
  former = await start({ secrets: { SESSION_SECRET: older } });
  stranger = await startWorker({ store, settings, secrets: { SESSION_SECRET: randomSecret() } });
  await late.moveClock(25 * HOUR);
});
after(async () => {
  await stranger?.stop();
  await deployment.stop();
});
beforeEach(() => store.faults.clear());

/** @param {string | undefined} cookie @param {Worker} [at] */
const inspect = (cookie, at = worker) => inspectAt({ store, worker: at, admin }, cookie);
/** @param {string | undefined} cookie @param {Worker} [at] */
const look = (cookie, at = worker) => lookAt({ store, worker: at, admin }, cookie);
/** @param {string} method @param {string} path @param {unknown} [body] */
const operate = async (method, path, body) => {
  const answer = await worker.visitor().tell(method, `/admin${path}`, body, admin);
  assert.ok(answer.status < 300, answer.text);
  return answer;
};

/** A visitor with a session. @param {Worker} [at] */
async function guest(at = worker) {
  const visitor = at.visitor();
  assert.equal((await visitor.merge({ a: 1 })).status, 200);
  return visitor;
}

let count = 0;
/** A user with an account, who is logged in. */
async function owner() {
  const [visitor, name] = [worker.visitor(), `owner ${(count += 1)}`];
  const answer = await visitor.register(name, RIGHT);
  assert.equal(answer.status, 201, answer.text);
  const { user, handle } = answer.json.session;
  return { visitor, name, id: String(user.id), handle: String(handle) };
}

/** The same user on another device. @param {string} name */
async function device(name, password = RIGHT) {
  const visitor = worker.visitor();
  const answer = await visitor.login(name, password);
  assert.equal(answer.status, 200, answer.text);
  return visitor;
}

/** Deletes what leads operators to the sessions of a user. */
async function loseLists() {
  for (const key of await store.redis.keys("user:*:sessions")) await store.redis.del(key);
}

/** @param {Visitor} visitor @param {Promise<import("./support/visitor.mjs").Answer>} sent */
async function done(visitor, sent) {
  const answer = await sent;
  assert.ok(answer.status < 300, answer.text);
  await worker.idle();
  return visitor;
}

describe("a ticket that lives", () => {
  test("is told with its session's handle, when it was issued, and the key that signed it", async () => {
    const visitor = await guest();
    const { handle } = await visitor.session();
    const { signing_keys } = (await operate("GET", "/stats")).json;
    const { reason, handle: told, issued_at, key } = await inspect(visitor.ticket);
    assert.deepEqual([reason, told, key], [null, handle, signing_keys[0]]);
    assert.match(issued_at, /^\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    assert.ok(Math.abs(Date.parse(issued_at) - Date.now()) < 60_000, issued_at);
  });

  test("under an older secret shows which, until that is dropped", async () => {
    const visitor = await guest(former);
    const { signing_keys } = (await operate("GET", "/stats")).json;
    const { reason, key } = await inspect(visitor.ticket);
    assert.deepEqual([reason, key], [null, signing_keys[1]]);
    const dropped = await start({ secrets: { SESSION_SECRET: newer } });
    const told = { reason: "unknown_key", handle: null, issued_at: null, key: null };
    assert.deepEqual(await inspect(visitor.ticket, dropped), told);
  });

  test("is the same from a cookie and from a client that carries it in Authorization", async () => {
    const headers = { "Session-Transport": "bearer", "Content-Type": "application/json" };
    const body = '{"a":1}';
    const answer = await worker.visitor().send("PATCH", "/auth/session/data", { headers, body });
    const ticket = answer.headers.get("session-token") ?? assert.fail(answer.text);
    assert.deepEqual((await inspect(ticket)).handle, answer.json.session.handle);
  });

  test("by an old id within the grace leads to the session's new handle", async () => {
    const visitor = await guest();
    const old = visitor.ticket;
    const { handle } = (await visitor.rotate()).json.session;
    for (const ticket of [old, visitor.ticket]) {
      const { reason, handle: told } = await inspect(ticket);
      assert.deepEqual([reason, told], [null, handle]);
    }
    await visitor.rotate();
    assert.equal((await inspect(old)).handle, (await visitor.session()).handle);
  });
});

describe("however it is pasted", () => {
  /** @type {[string, (ticket: string) => string][]} */
  const FORMS = [
    ["the value", (ticket) => ticket],
    ["the value in quotes", (ticket) => `"${ticket}"`],
    ["the value on a line of its own", (ticket) => `\n  ${ticket}\r\n`],
    ["NAME=VALUE", (ticket) => `${NAME}=${ticket}`],
    ["NAME and a value in quotes", (ticket) => `${NAME}="${ticket}"`],
    ["a whole Cookie header", (ticket) => `theme=dark; ${NAME}=${ticket}; ${NAME}-sync=A.B; lang=en`],
    ["two Cookie lines, joined", (ticket) => `theme=dark, ${NAME}=${ticket}`],
    ["a Set-Cookie line", (ticket) => `${NAME}=${ticket}; Path=/; HttpOnly; Secure; SameSite=Lax`],
  ];
  for (const [name, form] of FORMS) {
    test(`it is found in ${name}`, async () => {
      const visitor = await guest();
      assert.equal((await inspect(form(visitor.ticket ?? ""))).handle, (await visitor.session()).handle);
    });
  }

  test("of several cookies the one counts that would count in a request: the latest that lives", async () => {
    const [first, second, ended] = [await guest(), await guest(), await guest()];
    const { handle } = await second.session();
    const tickets = [first, second, ended].map(({ ticket }) => `${NAME}=${ticket}`);
    await ended.logout();
    for (const order of [tickets, tickets.toReversed()]) {
      assert.equal((await inspect(order.join("; "))).handle, handle);
    }
    const [{ reason }, dead] = [await inspect(`${NAME}=x; ${tickets[2]}`), await inspect(tickets[2])];
    assert.deepEqual([reason, dead.reason], ["ended", "ended"], "what is known of one is more than nothing");
    const many = Array(100).fill(tickets[2]).join("; ");
    assert.ok((await look(many)).calls <= 8);
  });
});

describe("a ticket that has ended", () => {
  /** @type {[string, () => Promise<{ ticket: string | undefined }>][]} */
  const ENDED = [
    ["by a logout", async () => keep(await guest(), (visitor) => visitor.logout())],
    [
      "by a login in its place",
      async () => {
        const { name } = await owner();
        return keep(await guest(), (visitor) => visitor.login(name, RIGHT));
      },
    ],
    [
      "by giving the password again",
      async () =>
        keep((await owner()).visitor, (visitor) =>
          visitor.tell("POST", "/reauthenticate", { password: RIGHT }),
        ),
    ],
    [
      "unused for too long",
      async () => {
        const visitor = await guest();
        await store.redis.del(`sess:${(await visitor.session()).handle}`);
        return visitor;
      },
    ],
    [
      "by an operator, alone",
      async () => {
        const { visitor, handle } = await owner();
        await operate("DELETE", `/sessions/${handle}`);
        return visitor;
      },
    ],
    [
      "by its user, on another device",
      async () => {
        const { visitor, name, handle } = await owner();
        const other = await device(name);
        return done(visitor, other.send("DELETE", `/auth/sessions/${handle}`));
      },
    ],
    [
      "as the oldest of too many",
      async () => {
        const { visitor, name } = await owner();
        for (let more = 0; more < session.max_per_user; more += 1) await device(name);
        return visitor;
      },
    ],
    [
      "after it was rotated, by its new id",
      async () => {
        const visitor = await guest();
        const old = visitor.clone();
        await visitor.rotate();
        return done(old, visitor.logout());
      },
    ],
  ];
  for (const [how, make] of ENDED) {
    test(`${how}: ended`, async () => {
      const { ticket } = await make();
      const { reason, handle, key } = await inspect(ticket);
      assert.deepEqual([reason, typeof handle, typeof key], ["ended", "string", "string"]);
    });
  }

  test("past its absolute end is expired, which costs no call", async () => {
    const visitor = await guest();
    const { handle } = await visitor.session();
    const { answer, calls } = await look(visitor.ticket, late);
    assert.deepEqual([answer.json.reason, answer.json.handle, calls], ["expired", handle, 0]);
  });
});

/** What a visitor holds who did not keep the cookie of the answer. @param {Visitor} visitor @param {(visitor: Visitor) => ReturnType<Visitor["send"]>} act */
async function keep(visitor, act) {
  const { ticket } = visitor;
  await done(visitor, act(visitor));
  assert.notEqual(visitor.ticket, ticket);
  return { ticket };
}

describe("a ticket whose user's sessions were all ended", () => {
  /** @type {[string, (user: Awaited<ReturnType<typeof owner>>) => Promise<unknown>][]} */
  const REVOKED = [
    ["by an operator", ({ id }) => operate("DELETE", `/users/${id}/sessions`)],
    [
      "by an operator, the list of them being lost",
      async ({ id }) => {
        await loseLists();
        await operate("DELETE", `/users/${id}/sessions`);
      },
    ],
    [
      "by the user",
      async ({ name }) => done(await device(name), (await device(name)).send("DELETE", "/auth/sessions")),
    ],
    [
      "by the user, but one",
      async ({ name }) => (await device(name)).send("DELETE", "/auth/sessions?keep=current"),
    ],
    [
      "by another password",
      async ({ name }) => {
        const body = { current: RIGHT, new: NEW_PASSWORD };
        const other = await device(name);
        return done(other, other.tell("POST", "/password", body));
      },
    ],
    [
      "by a reset of the password",
      async ({ id }) => {
        const { token } = (await operate("POST", `/users/${id}/reset`)).json;
        const other = worker.visitor();
        return done(other, other.tell("POST", "/reset", { token, new: NEW_PASSWORD }));
      },
    ],
    [
      "with the account, which was disabled",
      ({ id }) => operate("PATCH", `/users/${id}`, { disabled: true }),
    ],
    [
      "with the account, which is enabled again",
      async ({ id }) => {
        await operate("PATCH", `/users/${id}`, { disabled: true });
        await operate("PATCH", `/users/${id}`, { disabled: false });
      },
    ],
    ["with the account, which an operator deleted", ({ id }) => operate("DELETE", `/users/${id}`)],
    [
      "with the account, which its owner deleted",
      async ({ name }) => {
        const other = await device(name);
        return done(other, other.tell("DELETE", "/account", { password: RIGHT }));
      },
    ],
    [
      "as far as anybody can say: what holds for all of them cannot be read",
      async () => {
        for (const key of await store.redis.keys("user:*:standing")) await store.redis.del(key);
        const user = (await store.redis.keys("user:*:sessions")).map((key) => String(key).split(":")[1]);
        for (const tag of user)
          await store.redis.set(`user:${tag}:standing`, "?", { expiration: { type: "EX", value: 60 } });
      },
    ],
  ];
  for (const [how, revoke] of REVOKED) {
    test(`${how}: revoked`, async () => {
      const user = await owner();
      const old = user.visitor.clone();
      await user.visitor.rotate();
      await revoke(user);
      await worker.idle();
      for (const { ticket } of [user.visitor, old]) assert.equal((await inspect(ticket)).reason, "revoked");
      for (const key of await store.redis.keys("user:*")) await store.redis.del(key);
    });
  }

  test("does not concern the session that asked for it, nor later ones", async () => {
    const { visitor, name } = await owner();
    await done(visitor, visitor.send("DELETE", "/auth/sessions?keep=current"));
    for (const { ticket } of [visitor, await device(name)])
      assert.equal((await inspect(ticket)).reason, null);
  });
});

describe("what is no ticket of ours", () => {
  const NOTHING = { handle: null, issued_at: null, key: null };
  /** @type {[string, (ticket: string, visitor: Visitor) => string | undefined | Promise<string | undefined>][]} */
  const FORGED = [
    [
      "a ticket with another last character",
      (ticket) => ticket.slice(0, -1) + (ticket.endsWith("A") ? "B" : "A"),
    ],
    ["a ticket of which the end is missing", (ticket) => ticket.slice(0, -1)],
    ["the cookie beside it", (_, visitor) => visitor.cookies.get(`${NAME}-sync`)],
    ["a handle", async (_, visitor) => (await visitor.session()).handle],
    ["as many letters", () => "A".repeat(148)],
    ["other alphabets", () => "坏".repeat(50)],
    ["a value as long as the body may be", () => "x".repeat(200_000)],
    ["a cookie of ours without a value", () => `${NAME}=`],
    [
      "a ticket of the same secret for another cookie",
      async () => {
        const other = await start({ settings: { cookie: { name: "__Host-other" } } });
        const visitor = other.visitor();
        await visitor.merge({ a: 1 });
        return visitor.cookies.get("__Host-other");
      },
    ],
  ];
  for (const [what, make] of FORGED) {
    test(`${what} is forged, which costs no call`, async () => {
      const visitor = await guest();
      const cookie = await make(visitor.ticket ?? "", visitor);
      assert.ok(cookie);
      const { answer, calls } = await look(cookie);
      assert.deepEqual([answer.json, calls], [{ alive: false, reason: "forged", ...NOTHING }, 0]);
    });
  }

  test("a ticket of another deployment is of an unknown key, which costs no call", async () => {
    const { ticket } = await guest(stranger);
    const { answer, calls } = await look(`${NAME}=${ticket}`);
    assert.deepEqual([answer.json, calls], [{ alive: false, reason: "unknown_key", ...NOTHING }, 0]);
  });
});

describe("looking changes nothing for anybody", () => {
  test("a touch that is due stays due", async () => {
    const at = await start();
    const visitor = await guest(at);
    await at.moveClock(HOUR);
    assert.equal((await inspect(visitor.ticket, at)).reason, null);
    const { byName } = await store.counters.during(() => visitor.session());
    assert.equal(byName.PEXPIRE, 1);
  });

  test("a rotation that is due stays due", async () => {
    const at = await start({ settings: { session: { ...session, rotate_every: "1h" } } });
    const visitor = await guest(at);
    const { handle } = await visitor.session();
    await at.moveClock(2 * HOUR);
    assert.equal((await inspect(visitor.ticket, at)).handle, handle);
    assert.equal((await visitor.look()).setCookies.length, 1);
  });

  test("the first use of a new id is not noted, so that the old one stays good", async () => {
    const at = await start();
    const visitor = await guest(at);
    const old = visitor.clone();
    await visitor.rotate();
    await inspect(visitor.ticket, at);
    await at.moveClock(2 * GRACE);
    const { handle } = await old.session();
    assert.deepEqual(
      [(await inspect(old.ticket, at)).handle, (await visitor.session()).handle],
      [handle, handle],
    );
  });

  test("an old id after its grace is rotated, raises no alarm, and ends no session", async () => {
    const at = await start();
    const visitor = await guest(at);
    const old = visitor.clone();
    await visitor.rotate();
    const { handle } = await visitor.session();
    await at.idle();
    await at.moveClock(GRACE);
    for (let again = 0; again < 2; again += 1)
      assert.equal((await inspect(old.ticket, at)).reason, "rotated");
    assert.equal((await inspect(visitor.ticket, at)).handle, handle);
    assert.doesNotMatch(at.logs.join(""), /was ended/);
    assert.notEqual(await visitor.clone().session(), null, "it lives");

    const { ticket } = visitor;
    assert.equal(await old.clone().session(), null);
    assert.match(at.logs.join(""), /was ended/, "its use is another thing");
    await at.idle();
    for (const dead of [ticket, old.ticket]) assert.equal((await inspect(dead, at)).reason, "ended");
  });

  test("where the reuse of old ids is ignored, one after its grace is rotated as well, and a visitor sees the same", async () => {
    const at = await start({ settings: { session: { ...session, on_reuse: "ignore" } } });
    const visitor = await guest(at);
    const old = visitor.clone();
    await visitor.rotate();
    await visitor.session();
    await at.idle();
    await at.moveClock(GRACE);
    assert.equal((await inspect(old.ticket, at)).reason, "rotated");
    assert.deepEqual([await old.session(), (await inspect(visitor.ticket, at)).reason], [null, null]);
  });

  test("it counts for no limit of the visitor's, and for no counter of the day", async () => {
    const at = await start({ settings: { limits: { session: "3/1m", user: "3/1m", mint: "", login: "" } } });
    const answer = await operate("POST", "/sessions", { user: { id: "counted" } });
    const visitor = at.visitor();
    visitor.accept(answer.json.set_cookie);
    for (let again = 0; again < 5; again += 1) assert.equal((await inspect(visitor.ticket, at)).reason, null);
    assert.match((await visitor.look()).headers.get("ratelimit") ?? "", /;r=2;/);

    const quiet = await start();
    await inspect(visitor.ticket, quiet);
    const stats = async () => (await operate("GET", "/stats")).json.days;
    const before = await stats();
    await quiet.moveClock(120_000);
    await inspect(visitor.ticket, quiet);
    assert.deepEqual(await stats(), before);
  });
});

test("it costs one call, and one more for an old id: reads, of which the primary answers", async () => {
  const { visitor } = await owner();
  const old = visitor.ticket;
  const costs = async (/** @type {string | undefined} */ ticket) => {
    const { calls, byName } = await look(ticket);
    return { calls, byName };
  };
  const once = { calls: 1, byName: { MGET: 1, GETEX: 1 } };
  assert.deepEqual(await costs(old), once);
  await visitor.rotate();
  assert.deepEqual(await costs(visitor.ticket), once);
  assert.deepEqual(await costs(old), { calls: 2, byName: { MGET: 2, GETEX: 2 } });
});

describe("when it cannot say", () => {
  test("a record that cannot be read is 500, logged by its handle, and left as it is", async () => {
    const visitor = await guest();
    const { handle } = await visitor.session();
    await store.redis.set(`sess:${handle}`, '{"v":2}', { expiration: { type: "EX", value: 60 } });
    const { answer } = await look(visitor.ticket);
    assert.deepEqual([answer.status, answer.json.code], [500, "internal"]);
    const log = worker.logs.join("");
    assert.ok(log.includes(handle) && !log.includes(String(visitor.ticket)));
  });

  for (const fault of /** @type {const} */ (["refuse", "lostAnswer", "cut"])) {
    test(`a dead store is 503 (${fault})`, async () => {
      const visitor = await guest();
      store.faults.always(fault);
      const answer = await worker.visitor().tell("POST", "/admin/inspect", { cookie: visitor.ticket }, admin);
      assert.deepEqual([answer.status, answer.json.code], [503, "store_unavailable"]);
      assert.deepEqual(answer.headers.getSetCookie(), []);
    });
  }

  for (const [what, cookie] of /** @type {[string, unknown][]} */ ([
    ["nothing", undefined],
    ["an empty text", ""],
    ["blanks", " \n"],
    ["a number", 1],
    ["a list", ["x"]],
    ["other cookies", "theme=dark; lang=en"],
    ["a cookie whose name is spelt otherwise", "__host-session=x"],
  ])) {
    test(`${what} is a bad request`, async () => {
      const answer = await worker.visitor().tell("POST", "/admin/inspect", { cookie }, admin);
      assert.deepEqual([answer.status, answer.json.code], [400, "bad_request"], answer.text);
      assert.match(answer.json.detail, /"cookie"/);
    });
  }

  test("only the admin token opens it, and without one there is no such route", async () => {
    const { ticket } = await guest();
    const ask = (/** @type {Worker} */ at, headers = {}) =>
      at.visitor().tell("POST", "/admin/inspect", { cookie: ticket }, headers);
    assert.equal((await ask(worker)).status, 401);
    assert.equal((await ask(worker, { Authorization: `Bearer ${ticket}` })).status, 401);
    assert.equal((await ask(stranger, admin)).status, 404);
    const got = await worker.visitor().send("GET", "/auth/admin/inspect", { headers: admin });
    assert.deepEqual([got.status, got.headers.get("allow")], [405, "POST"]);
  });
});
