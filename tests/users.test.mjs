/** Users authenticated elsewhere: their sessions, the device list, and revocation that survives races. */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startDeployment } from "./support/worker.mjs";

const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": "application/json" };

/** Two isolates of one deployment, and one without a service API. */
const { store, workers, stop } = await startDeployment([{}, {}, { secrets: { ADMIN_TOKEN: undefined } }], {
  secrets: { SESSION_SECRET: randomSecret(), ADMIN_TOKEN },
  settings: { session: { max_per_user: 5 } },
});
after(stop);
let count = 0;
/** A user that no other test has. */
let id = "";
beforeEach(() => {
  store.faults.clear();
  id = `user ${++count}/ä`;
});

const service = () => workers[0].visitor();
/** @param {string} method @param {string} path @param {unknown} [body] */
const ask = (method, path, body) =>
  service().send(method, `/auth/admin${path}`, {
    headers: admin,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
const sessionsOf = () => `/users/${encodeURIComponent(id)}/sessions`;

/** Logs the user in through the service API. @param {object} [more] @param {Record<string, string>} [headers] */
async function login(more = {}, headers = {}) {
  const answer = await service().send("POST", "/auth/admin/sessions", {
    headers: { ...admin, ...headers },
    body: JSON.stringify({ user: { id, name: "Ada", roles: ["staff"] }, ...more }),
  });
  assert.equal(answer.status, 201, answer.text);
  const visitor = new Visitor(workers[count % 2 ? 1 : 0].url);
  visitor.accept(answer.json.set_cookie);
  return { visitor, answer };
}

test("a session is made for a user who was authenticated elsewhere", async () => {
  const { visitor, answer } = await login({ data: { cart: ["tea"] } });
  assert.deepEqual(Object.keys(answer.json), ["session", "set_cookie"]);
  assert.match(answer.json.set_cookie[0], /^__Host-session=.*; Path=\/; HttpOnly; Secure; SameSite=Lax$/);
  assert.deepEqual(answer.setCookies, [], "the cookie is for the visitor, not for the back end");
  const session = await visitor.session();
  assert.deepEqual(session.user, { id, name: "Ada", roles: ["staff"] });
  assert.deepEqual(session.data, { cart: ["tea"] });
  assert.equal(session.authenticated_at, session.created_at);
  assert.equal((await visitor.increment("/views")).json.session.data.views, 1);
  assert.deepEqual((await visitor.session()).user, session.user);
});

test("a remember-me session has its own lifetime and a persistent cookie", async () => {
  const { visitor, answer } = await login({ remember: true });
  assert.match(answer.json.set_cookie[0], /; Max-Age=(2592000|2591999)$/);
  const session = await visitor.session();
  assert.equal(session.remember, true);
  assert.equal(Date.parse(session.expires_at) - Date.parse(session.created_at), 30 * 86_400_000);
  assert.equal(session.idle_expires_at, session.expires_at);
  assert.match(String((await visitor.rotate()).setCookies[0]), /; Max-Age=25919\d\d$/);
});

test("the service API requires its token, and does not exist without one", async () => {
  const path = `/auth/admin${sessionsOf()}`;
  for (const Authorization of ["", "Bearer", `Bearer ${ADMIN_TOKEN}x`, `Basic ${ADMIN_TOKEN}`, ADMIN_TOKEN]) {
    const { value, calls } = await store.counters.during(() =>
      service().send("GET", path, { headers: { Authorization } }),
    );
    assert.equal(value.status, 401, Authorization);
    assert.equal(value.json.code, "unauthenticated");
    assert.equal(calls, 0);
  }
  assert.equal((await workers[2].visitor().send("GET", path, { headers: admin })).status, 404);
});

test("a malformed request to the service API is told what is wrong", async () => {
  const cases = [
    [{}, /"user" is missing/],
    [{ user: { id: "" } }, /"user.id"/],
    [{ user: { id: 5 } }, /"user.id" must be a string/],
    [{ user: ["u", "n", ["r"]] }, /"user" must be an object/],
    [{ user: null }, /"user" must be an object/],
    [{ user: { id: "u", role: [] } }, /unknown field "user.role"; known fields: id, name, roles/],
    [{ user: { id: "u", roles: "admin" } }, /"user.roles" must be an array/],
    [{ user: { id: "u" }, data: [] }, /"data" must be an object/],
    [{ user: { id: "u" }, remember: "yes" }, /"remember" must be true or false/],
    [{ user: { id: "x".repeat(300) } }, /"user.id" must have 1 to 255 bytes/],
    [[], /the body must be a JSON object/],
  ];
  for (const [body, detail] of /** @type {[unknown, RegExp][]} */ (cases)) {
    const answer = await ask("POST", "/sessions", body);
    assert.equal(answer.status, 400, JSON.stringify(body));
    assert.match(answer.json.detail, detail);
  }
  assert.equal(
    (await ask("POST", "/sessions", { user: { id }, data: { a: "x".repeat(70_000) } })).status,
    413,
  );
});

test("the device list shows where each session came from and which is this one, and no secret", async () => {
  const phone = await login(
    { remember: true },
    { "User-Agent": "Phone/1.0", "CF-Connecting-IP": "203.0.113.77" },
  );
  const desk = await login({}, { "User-Agent": "Desk/2.0", "CF-Connecting-IP": "2001:db8:1:2::9" });
  const answer = await phone.visitor.send("GET", "/auth/sessions");
  assert.equal(answer.status, 200);
  const { sessions } = answer.json;
  assert.deepEqual(
    sessions.map((/** @type {any} */ one) => [one.user_agent, one.ip, one.current, one.remember]),
    [
      ["Phone/1.0", "203.0.113.0", true, true],
      ["Desk/2.0", "2001:db8:1::", false, false],
    ],
  );
  assert.deepEqual(Object.keys(sessions[0]), [
    "handle",
    "current",
    "created_at",
    "last_seen_at",
    "remember",
    "user_agent",
    "ip",
  ]);
  assert.ok(!answer.text.includes(String(desk.visitor.ticket).slice(8, 40)));
  assert.ok(Math.abs(Date.parse(sessions[0].last_seen_at) - Date.now()) < 60_000);
});

test("one session is ended from another, also by the handle it had before a rotation", async () => {
  const [a, b, c] = [await login(), await login(), await login()];
  const handle = (await b.visitor.session()).handle;
  const old = (await c.visitor.session()).handle;
  await c.visitor.rotate();
  assert.equal((await a.visitor.send("DELETE", `/auth/sessions/${handle}`)).status, 204);
  assert.equal(await b.visitor.session(), null);
  assert.equal((await a.visitor.send("DELETE", `/auth/sessions/${old}`)).status, 204);
  assert.equal(await c.visitor.session(), null);
  const list = await a.visitor.send("GET", "/auth/sessions");
  assert.equal(list.json.sessions.length, 1);
  const again = await a.visitor.send("DELETE", `/auth/sessions/${handle}`);
  assert.equal(again.status, 404);
});

test("the current session is ended without a recent login, also when its id has just changed", async () => {
  /** @type {[string, (visitor: Visitor) => Promise<unknown>][]} */
  const cases = [
    ["a rotation by another tab", (visitor) => visitor.rotate()],
    ["a rotation that is due", async () => {}],
  ];
  for (const [what, change] of cases) {
    const { visitor } = await login();
    const { handle } = await visitor.session();
    const other = await login();
    const old = (await other.visitor.session()).handle;
    const rotating = visitor.clone();
    await change(visitor);
    await Promise.all(
      workers.map((worker) => worker.moveClock(what.endsWith("due") ? 61 * 60_000 : 16 * 60_000)),
    );
    assert.equal((await rotating.send("DELETE", `/auth/sessions/${old}`)).status, 403, what);
    const answer = await visitor.send("DELETE", `/auth/sessions/${handle}`);
    assert.equal(answer.status, 204, `${what}: ${answer.text}`);
    assert.match(String(answer.setCookies), /^__Host-session=; .*Max-Age=0$/, what);
    assert.equal(visitor.ticket, undefined);
    assert.notEqual(await other.visitor.session(), null);
  }
});

test("no user can end, list or find another user's session", async () => {
  const mine = await login();
  id = `${id} other`;
  const theirs = await login();
  const { handle } = await theirs.visitor.session();
  assert.equal((await mine.visitor.send("DELETE", `/auth/sessions/${handle}`)).status, 404);
  assert.equal((await mine.visitor.send("DELETE", "/auth/sessions/nonsense")).status, 404);
  assert.notEqual(await theirs.visitor.session(), null);
  const anonymous = workers[0].visitor();
  await anonymous.merge({ a: 1 });
  for (const [method, path] of [
    ["GET", "/auth/sessions"],
    ["DELETE", "/auth/sessions"],
    ["DELETE", `/auth/sessions/${handle}`],
  ]) {
    assert.equal((await anonymous.send(String(method), String(path))).status, 401);
    assert.equal((await workers[0].visitor().send(String(method), String(path))).status, 401);
  }
});

test("DELETE /auth/sessions ends all sessions, or all others, at once", async () => {
  const people = [await login(), await login(), await login()].map(({ visitor }) => visitor);
  assert.equal((await people[0]?.send("DELETE", "/auth/sessions?keep=current"))?.status, 204);
  assert.notEqual(await people[0]?.session(), null);
  for (const one of people.slice(1)) assert.equal(await one.session(), null);
  assert.equal((await people[0]?.send("DELETE", "/auth/sessions?keep=curent"))?.status, 400);

  const later = (await login()).visitor;
  assert.equal((await people[0]?.send("DELETE", "/auth/sessions?keep=current"))?.status, 204, "once more");
  assert.notEqual(await people[0]?.session(), null);
  assert.equal(await later.session(), null);

  const answer = await people[0]?.send("DELETE", "/auth/sessions");
  assert.equal(answer?.status, 204);
  assert.equal(answer?.setCookies.length, 1);
  assert.equal(people[0]?.ticket, undefined);
  assert.notEqual(await (await login()).visitor.session(), null, "a login that begins after it lives");
});

test("the revocation mark alone revokes: sessions missing from the list have ended too", async () => {
  const people = [await login(), await login()].map(({ visitor }) => visitor);
  for (const key of await store.redis.keys("user:*:sessions")) await store.redis.del(key);
  assert.equal((await ask("DELETE", sessionsOf())).status, 200);
  for (const one of people) assert.equal(await one.session(), null);
});

test("a login that began before a revocation counts as before it", async () => {
  const held = store.faults.hold(({ path }) => path === "/multi-exec");
  const pending = login();
  await held.arrived; // it has read the mark, and not yet written the session
  assert.equal((await ask("DELETE", sessionsOf())).status, 200);
  held.release();
  const { visitor } = await pending;
  assert.equal(await visitor.session(), null);
});

test("a read, a touch, a write and a rotation paused during a revoke-all restore nothing", async () => {
  for (const act of /** @type {((visitor: Visitor) => Promise<any>)[]} */ ([
    (visitor) => visitor.look(),
    (visitor) => visitor.merge({ b: 2 }),
    (visitor) => visitor.rotate(),
  ])) {
    for (const [name, keepIndex] of /** @type {[string, boolean][]} */ ([
      ["MGET", true],
      ["SET", true],
      ["SET", false],
    ])) {
      const { visitor } = await login();
      const other = visitor.clone();
      await visitor.forget();
      let first = true;
      const held = store.faults.hold(({ commands }) => {
        const hit = first && commands[0]?.[0] === name;
        if (hit) first = false;
        return hit;
      });
      const acting = act(visitor);
      const arrived = await Promise.race([held.arrived.then(() => true), acting.then(() => false)]);
      if (!keepIndex) for (const key of await store.redis.keys("user:*:sessions")) await store.redis.del(key);
      assert.equal((await ask("DELETE", sessionsOf())).status, 200);
      held.release();
      const answer = await acting;
      store.faults.clear();
      if (arrived) {
        assert.ok(
          answer.status === 401 || answer.json.session === null || name === "MGET",
          `${name} ${answer.text}`,
        );
        if (name === "SET") assert.equal(answer.status, 401, answer.text);
      }
      assert.equal(await other.session(), null);
    }
  }
});

test("of logins concurrent with a revoke-all those acknowledged before it have ended", async () => {
  for (let round = 0; round < 20; round += 1) {
    const early = await Promise.all([1, 2, 3].map(() => login()));
    const revoking = ask("DELETE", sessionsOf());
    const racing = await Promise.all([1, 2].map(() => login()));
    await revoking;
    assert.equal((await ask("DELETE", sessionsOf())).status, 200);
    for (const { visitor } of [...early, ...racing]) assert.equal(await visitor.session(), null);
  }
});

test("a user has at most max_per_user sessions: the oldest live one ends", async () => {
  /** @type {Visitor[]} */
  const people = [];
  for (let index = 0; index < 5; index += 1) people.push((await login()).visitor);
  await people[3]?.logout();
  people.push((await login()).visitor);
  const alive = async () => Promise.all(people.map(async (one) => (await one.session()) !== null));
  assert.deepEqual(await alive(), [true, true, true, false, true, true]);
  people.push((await login()).visitor);
  assert.deepEqual(await alive(), [false, true, true, false, true, true, true]);
});

test("an operator reads a session and ends it", async () => {
  const { visitor } = await login({ data: { a: 1 } });
  const { handle } = await visitor.session();
  const look = await ask("GET", `/sessions/${handle}`);
  assert.equal(look.status, 200);
  assert.deepEqual(look.json.session.data, { a: 1 });
  assert.ok(look.json.session.ttl_seconds > 1700 && look.json.session.ttl_seconds <= 1800);
  assert.equal(
    look.json.session.stored_bytes,
    Buffer.byteLength(String(await store.redis.get(`sess:${handle}`))),
  );
  assert.equal((await ask("GET", sessionsOf())).json.sessions.length, 1);
  assert.equal((await ask("DELETE", `/sessions/${handle}`)).status, 204);
  assert.equal(await visitor.session(), null);
  assert.equal((await ask("GET", `/sessions/${handle}`)).status, 404);
  assert.deepEqual((await ask("GET", sessionsOf())).json, { sessions: [] });

  const anonymous = workers[0].visitor();
  const { session } = (await anonymous.merge({ b: 2 })).json;
  assert.equal((await ask("DELETE", `/sessions/${session.handle}`)).status, 204);
  assert.equal(await anonymous.session(), null);
});

test("a read and a change of a known user's session are one call each; a login two calls and at most eight", async () => {
  const { visitor } = await login();
  const read = await store.counters.during(() => visitor.look());
  assert.deepEqual([read.calls, read.commands], [1, 1]);
  const change = await store.counters.during(() => visitor.merge({ a: 1 }));
  assert.deepEqual([change.calls, change.commands], [1, 3]);
  const another = await store.counters.during(() => login());
  assert.ok(another.calls <= 2 && another.commands <= 8, JSON.stringify(another.byName));
});

test("every key expires", async () => {
  for (const key of await store.redis.keys("*")) assert.ok((await store.redis.pTTL(key)) > 0, key);
});

test("no failure of the store, on any of these routes, logs anyone out or is reported as done", async () => {
  /** @type {[string, import("../tools/local-store/faults.mjs").Fault][]} */
  const faults = [
    ["refuses", { refuse: true }],
    ["is cut off", { cut: true }],
    ["loses its answer", { lostAnswer: true }],
    ["says 401", { status: 401, body: { error: "WRONGPASS" } }],
    ["says 429", { status: 429, body: "slow down" }],
    ["says 500", { status: 500, body: "<h1>no</h1>" }],
    ["answers HTML", { status: 200, body: "<html>" }],
    ["answers null", { status: 200, body: "null" }],
    ["answers an empty list", { status: 200, body: [] }],
    ["answers nulls", { status: 200, body: [{ result: null }] }],
    ["answers numbers", { status: 200, body: [{ result: 1 }, { result: 1 }, { result: 1 }, { result: 1 }] }],
    ["leaves a reply out", { short: true }],
    ["fails a command", { entry: 0, error: "ERR made up" }],
    ["has used up its requests", { quota: true }],
  ];
  const anonymous = workers[0].visitor();
  for (const [name, fault] of faults) {
    for (const call of [1, 2]) {
      id = `user ${++count}`;
      const [mine, other] = [(await login()).visitor, (await login()).visitor];
      const { handle } = await other.session();
      /** @type {[string, () => Promise<import("./support/visitor.mjs").Answer>][]} */
      const acts = [
        ["list", () => mine.send("GET", "/auth/sessions")],
        ["end one", () => mine.send("DELETE", `/auth/sessions/${handle}`)],
        ["end others", () => mine.send("DELETE", "/auth/sessions?keep=current")],
        ["end all", () => mine.send("DELETE", "/auth/sessions")],
        ["admin create", () => ask("POST", "/sessions", { user: { id } })],
        ["admin list", () => ask("GET", sessionsOf())],
        ["admin end all", () => ask("DELETE", sessionsOf())],
        ["admin look", () => ask("GET", `/sessions/${handle}`)],
        ["admin end", () => ask("DELETE", `/sessions/${handle}`)],
        ["admin stats", () => ask("GET", "/stats")],
      ];
      for (const [act, run] of acts) {
        const ticket = mine.ticket;
        let seen = 0;
        store.faults.always(fault, { when: () => ++seen >= call });
        const answer = await run();
        const struck = seen >= call;
        store.faults.clear();
        // A lost answer leaves open whether it was done; a list of nulls is a well-formed "nothing there".
        const open = ["lostAnswer", "cut", "short"].some((kind) => kind in fault);
        const nothing = name === "answers nulls" && [200, 201, 204, 401, 404].includes(answer.status);
        if (struck && !nothing) assert.equal(answer.status, 503, `${act}, call ${call}: the store ${name}`);
        if (answer.status === 503) {
          assert.deepEqual(answer.setCookies, [], act);
          assert.equal(mine.ticket, ticket);
        }
        if (open || nothing) continue;
        if (struck) assert.notEqual(await mine.session(), null, `${act}, call ${call}: the store ${name}`);
        if (struck) assert.notEqual(await other.session(), null, `${act}, call ${call}: the store ${name}`);
      }
    }
  }
  assert.equal(await anonymous.session(), null);
});
