/** The service API's accounts: found by name, made, looked at, disabled, enabled and deleted. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  admin,
  assertRefused,
  firstCall,
  loggedIn,
  name,
  number,
  operate,
  owner,
  registered,
  resetToken,
  RIGHT,
  sessionCreation,
  setDisabled,
  setRoles,
  someone,
  store,
  two,
  useName,
  userPath,
  useToken,
  WRONG,
} from "./support/accounts.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */

const find = (/** @type {string} */ username) =>
  operate("GET", `/users?name=${encodeURIComponent(username)}`);
const serviceSession = (/** @type {string} */ id) => operate("POST", "/sessions", { user: { id } });
/** The keys in which the store holds the name that is in use, or the user. @param {string} id */
async function leftovers(id) {
  const isTheirs = async (/** @type {string} */ key) => {
    const value = (await store.redis.type(key)) === "string" ? await store.redis.get(key) : "";
    return [name.toLowerCase(), id].some((word) => `${key} ${value}`.includes(word));
  };
  const keys = await store.redis.keys("*");
  const theirs = await Promise.all(keys.map(isTheirs));
  return keys.filter((_, index) => theirs[index]);
}
/** Who is logged in. @param {Visitor} visitor */
const userOf = async (visitor) => (await visitor.clone().session())?.user ?? null;

test("an account is found by its name in any spelling, and by its id, and shows no secret", async () => {
  const { visitor, id } = await owner();
  await setRoles(id, { roles: ["editor"] });
  const { created_at } = (await operate("GET", userPath(id))).json;
  assert.ok(Math.abs(Date.parse(created_at) - store.now()) < 60_000);
  const expected = { id, name, roles: ["editor"], disabled: false, created_at };
  for (const spelling of [name, name.toUpperCase(), ` ${name} `, name.replace("A", "\uff21")]) {
    const answer = await find(spelling);
    assert.deepEqual([answer.status, answer.json], [200, expected], spelling);
    assert.equal(answer.headers.get("cache-control"), "no-store, no-transform");
  }
  const plus = await operate("GET", `/users?name=${name.replace(" ", "+")}`);
  assert.deepEqual(plus.json, expected);
  assert.deepEqual((await operate("GET", userPath(id))).json, expected);
  assert.notEqual(await visitor.session(), null);
});

test("a name that is missing, given twice, or not UTF-8 is refused; one that no account can have is nobody's, without a call", async () => {
  for (const query of ["", "?", "?name=", "?nam=x", "?name=x&name=y", "?name=%ff", "?name=x&more=1"]) {
    const { value, calls } = await store.counters.during(() => operate("GET", `/users${query}`));
    assertRefused(value, 400, "bad_request");
    assert.equal(calls, 0, query);
  }
  for (const username of [" ", "x".repeat(129)]) {
    const { value, calls } = await store.counters.during(() => find(username));
    assertRefused(value, 404, "not_found");
    assert.equal(calls, 0, JSON.stringify(username));
  }
  assertRefused(await find(`nobody ${number}`), 404, "not_found");
});

test("an operator makes an account, with roles and a password, also under a reserved name; registering it is too late", async () => {
  for (const [username, body] of /** @type {[string, object][]} */ ([
    [`${name} made`, { password: RIGHT, roles: ["staff"] }],
    ["Admin", { password: RIGHT }],
  ])) {
    const made = await operate("POST", "/users", { username, ...body });
    assert.equal(made.status, 201, made.text);
    const { id, roles, disabled, created_at, ...rest } = made.json;
    assert.deepEqual(rest, { name: username });
    assert.deepEqual([roles, disabled], ["roles" in body ? body.roles : [], false]);
    assert.deepEqual((await find(username)).json, made.json);
    assert.ok(Date.parse(created_at) > 0 && made.setCookies.length === 0);
    const visitor = someone();
    const answer = await visitor.login(username, RIGHT);
    assert.deepEqual(answer.json.session.user, { id, name: username, roles });
    assertRefused(await operate("POST", "/users", { username, password: RIGHT }), 409, "conflict");
    assert.ok((await someone().register(username, RIGHT)).status >= 400);
  }
  assertRefused(await someone().register("root", RIGHT), 422, "unprocessable");
});

test("an account without a password lets nobody in until its owner has chosen one", async () => {
  const { json } = await operate("POST", "/users", { username: name });
  for (const password of ["", RIGHT, "\u0000", "null"])
    assertRefused(await someone().login(name, password), 401, "invalid_credentials");
  const visitor = someone();
  const reset = await useToken(await resetToken(json.id), RIGHT, visitor);
  assert.equal(reset.status, 200, reset.text);
  assert.equal((await visitor.session()).user.id, json.id);
  assert.equal((await someone().login(name, RIGHT)).status, 200);
});

test("what is wrong with a new account, a change or an id is said without a call to the store", async () => {
  const { id } = await owner();
  const long = "x".repeat(256);
  for (const [method, path, body, status] of /** @type {[string, string, unknown, number][]} */ ([
    ["POST", "/users", {}, 400],
    ["POST", "/users", [], 400],
    ["POST", "/users", { username: 5 }, 400],
    ["POST", "/users", { username: null }, 400],
    ["POST", "/users", { username: "x", admin: true }, 400],
    ["POST", "/users", { username: "x", roles: "staff" }, 400],
    ["POST", "/users", { username: "x", roles: ["a,b"] }, 400],
    ["POST", "/users", { username: "x", roles: null }, 400],
    ["POST", "/users", { username: "x", password: 12345678 }, 400],
    ["POST", "/users", { username: "" }, 422],
    ["POST", "/users", { username: "x".repeat(129) }, 422],
    ["POST", "/users", { username: "a\u200bb" }, 422],
    ["POST", "/users", { username: "x", password: "short" }, 422],
    ["POST", "/users", { username: "correct horse", password: RIGHT }, 422],
    ["PATCH", userPath(id), {}, 400],
    ["PATCH", userPath(id), null, 400],
    ["PATCH", userPath(id), { disabled: null }, 400],
    ["PATCH", userPath(id), { disabled: "true" }, 400],
    ["PATCH", userPath(id), { disabled: 1 }, 400],
    ["PATCH", userPath(id), { disabled: true, name: "x" }, 400],
    ["GET", `/users/${long}`, undefined, 400],
    ["PATCH", `/users/${long}`, { disabled: true }, 400],
    ["DELETE", `/users/${long}`, undefined, 400],
    ["DELETE", "/users/%ff", undefined, 400],
    ["POST", `/users/${long}/reset`, undefined, 400],
  ])) {
    const { value, calls } = await store.counters.during(() => operate(method, path, body));
    const what = `${method} ${path} ${JSON.stringify(body)}: ${value.text}`;
    assert.deepEqual([value.status, calls], [status, 0], what);
    assert.equal(value.json.code, status === 400 ? "bad_request" : "unprocessable");
    assert.ok(!value.text.includes(RIGHT));
  }
});

/** Each route of an account, by its id. @type {[string, string, unknown][]} */
const ROUTES = [
  ["GET", "", undefined],
  ["PATCH", "", { disabled: true }],
  ["PATCH", "", { disabled: false }],
  ["DELETE", "", undefined],
  ["POST", "/reset", undefined],
];

test("an id that has no account is 404 on every route, and nothing of it is kept", async () => {
  const elsewhere = `elsewhere ${number}`;
  const guest = someone();
  guest.accept((await serviceSession(elsewhere)).json.set_cookie);
  for (const id of [`nobody ${number}`, elsewhere, "...", "\u0000", "a/b"]) {
    for (const [method, path, body] of ROUTES) {
      const before = await store.redis.keys("*");
      assertRefused(await operate(method, userPath(id) + path, body), 404, "not_found");
      assert.deepEqual((await store.redis.keys("*")).toSorted(), before.toSorted(), `${method} ${path}`);
    }
  }
  assert.notEqual(await guest.session(), null, "one without an account keeps its sessions");
});

test("without the admin token, with a wrong one or a session alone, every route is 401 and does nothing", async () => {
  const { visitor, id } = await owner();
  /** @type {[string, string, unknown][]} */
  const all = [
    ...ROUTES.map(
      ([method, path, body]) =>
        /** @type {[string, string, unknown]} */ ([method, userPath(id) + path, body]),
    ),
    ["GET", `/users?name=${encodeURIComponent(name)}`, undefined],
    ["POST", "/users", { username: `${name} new`, password: RIGHT }],
  ];
  for (const [method, path, body] of all) {
    for (const [who, headers] of /** @type {[Visitor, Record<string, string>][]} */ ([
      [someone(), {}],
      [visitor.clone(), {}],
      [visitor.clone(), { Authorization: "Bearer " }],
      [someone(), { Authorization: `${admin.Authorization}x` }],
      [someone(), { Authorization: admin.Authorization.replace("Bearer", "Basic") }],
    ])) {
      const answer = await who.tell(method, `/admin${path}`, body, headers);
      assertRefused(answer, 401, "unauthenticated");
    }
    const crossSite = await someone().tell(method, `/admin${path}`, body, {
      ...admin,
      "Sec-Fetch-Site": "cross-site",
    });
    if (method !== "GET") assertRefused(crossSite, 403, "cross_site");
  }
  assert.notEqual(await visitor.session(), null);
  assert.equal((await find(`${name} new`)).status, 404);
});

test("a disabled account has no sessions, gets none, and answers like a wrong password; enabled again it has its own", async () => {
  const { visitor, id } = await owner();
  const other = await loggedIn();
  const guest = someone();
  guest.accept((await serviceSession(id)).json.set_cookie);
  const answer = await setDisabled(id, true);
  assert.deepEqual([answer.status, answer.json.disabled, answer.json.id], [200, true, id]);
  for (const one of [visitor, other, guest]) {
    assert.equal(await one.clone().session(), null);
    assertRefused(await one.clone().send("GET", "/auth/verify"), 401, "unauthenticated");
    assert.ok(
      [401, 404].includes((await one.clone().tell("POST", "/reauthenticate", { password: RIGHT })).status),
    );
  }
  assert.deepEqual((await operate("GET", `${userPath(id)}/sessions`)).json, { sessions: [] });
  const [right, wrong] = [await someone().login(name, RIGHT), await someone().login(name, WRONG)];
  assertRefused(right, 401, "invalid_credentials");
  assert.equal(right.text, wrong.text);
  assertRefused(await visitor.clone().login(name, RIGHT), 401, "invalid_credentials");
  assertRefused(await serviceSession(id), 409, "conflict");
  assertRefused(await someone().register(name, RIGHT), 409, "conflict");
  assert.deepEqual((await find(name)).json.disabled, true);
  // Twice, and back.
  assert.equal((await setDisabled(id, true)).json.disabled, true);
  assert.equal((await setDisabled(id, false)).json.disabled, false);
  assert.equal((await setDisabled(id, false)).json.disabled, false);
  for (const one of [visitor, other, guest]) assert.equal(await one.session(), null);
  assert.notEqual(await (await loggedIn()).session(), null);
  assert.equal((await serviceSession(id)).status, 201);
});

test("a disabled account costs a login the same calls as a wrong password", async () => {
  const { id } = await owner();
  const costOf = async (/** @type {string} */ password) => {
    const visitor = two[0].visitor();
    const { value, calls, byName } = await store.counters.during(() => visitor.login(name, password));
    const headers = [...value.headers].filter(([field]) => field !== "date");
    return [value.status, value.text, headers, value.setCookies, calls, byName];
  };
  await costOf(WRONG);
  const wrong = await costOf(WRONG);
  await setDisabled(id, true);
  await two[0].moveClock(0);
  assert.deepEqual([await costOf(RIGHT), await costOf(WRONG)], [wrong, wrong]);
});

test("an operator deletes an account as its owner could: nothing is left, and the name is free", async () => {
  for (const disabled of [false, true]) {
    useName(`${name}x`);
    const { visitor, id } = await owner();
    const guest = someone();
    guest.accept((await serviceSession(id)).json.set_cookie);
    await resetToken(id);
    if (disabled) await setDisabled(id, true);
    const answer = await operate("DELETE", userPath(id));
    assert.deepEqual([answer.status, answer.text, answer.setCookies], [204, "", []]);
    for (const one of [visitor, guest]) assert.equal(await one.clone().session(), null);
    for (const [method, path, body] of ROUTES)
      assertRefused(await operate(method, userPath(id) + path, body), 404, "not_found");
    assertRefused(await someone().login(name, RIGHT), 401, "invalid_credentials");
    assert.deepEqual(await leftovers(id), []);
    const next = await registered();
    assert.notEqual((await next.session()).user.id, id);
    assertRefused(await operate("DELETE", userPath(id)), 404, "not_found");
    assert.notEqual(await next.session(), null, "whose name it is now is another user");
  }
});

/** What an operator does to an account, and whether a request that began before may still succeed afterwards. */
const ENDS = /** @type {[string, (id: string) => Promise<Answer>][]} */ ([
  ["disabled", (id) => setDisabled(id, true)],
  ["deleted", (id) => operate("DELETE", userPath(id))],
]);

/** What is under way meanwhile: stopped before its last call to the store. @type {[string, (owner: Visitor, id: string) => Promise<Visitor>][]} */
const UNDER_WAY = [
  [
    "a login",
    async () => {
      const visitor = someone();
      await visitor.login(name, RIGHT);
      return visitor;
    },
  ],
  [
    "a rotation",
    async (owner) => {
      await owner.rotate();
      return owner;
    },
  ],
  [
    "a change of its session",
    async (owner) => {
      await owner.merge({ a: 1 });
      return owner;
    },
  ],
  [
    "a re-authentication",
    async (owner) => {
      await owner.tell("POST", "/reauthenticate", { password: RIGHT });
      return owner;
    },
  ],
  [
    "a change of its password",
    async (owner) => {
      await owner.tell("POST", "/password", { current: RIGHT, new: "another horse" });
      return owner;
    },
  ],
  [
    "a session of the service API",
    async (_, id) => {
      const visitor = someone();
      const answer = await serviceSession(id);
      if (answer.status === 201) visitor.accept(answer.json.set_cookie);
      return visitor;
    },
  ],
  [
    "a reset of its password",
    async (_, id) => {
      const visitor = someone();
      const made = await operate("POST", `${userPath(id)}/reset`);
      if (made.status === 201) await useToken(made.json.token, "another horse", visitor);
      return visitor;
    },
  ],
];
for (const [what, run] of UNDER_WAY) {
  test(`${what} that is under way leaves no session when the account is disabled or deleted`, async () => {
    for (const [fate, end] of ENDS) {
      for (let call = 1; call < 16; call += 1) {
        useName(`${name.slice(0, 40)}.${call}${fate[1]}`);
        const { visitor, id } = await owner();
        let seen = 0;
        const held = store.faults.hold(() => ++seen === call);
        const running = run(visitor.clone(), id);
        const stopped = await Promise.race([held.arrived.then(() => true), running.then(() => false)]);
        const ended = stopped ? await end(id) : undefined;
        held.release();
        const after = await running;
        if (!stopped) break;
        const where = `${fate} before call ${call}: ${ended?.text}`;
        assert.ok([200, 204].includes(Number(ended?.status)), where);
        assert.equal(await userOf(after), null, where);
        assert.equal(await userOf(visitor), null, where);
        for (const password of [RIGHT, "another horse"])
          assertRefused(await someone().login(name, password), 401, "invalid_credentials");
        if (fate === "deleted") assert.deepEqual(await leftovers(id), [], where);
        else assert.equal((await find(name)).json.disabled, true, where);
      }
    }
  });
}

test("of a disabling and an enabling at the same time the account has one, and can be had either way", async () => {
  for (let round = 0; round < 4; round += 1) {
    useName(`${name}x`);
    const { id } = await owner();
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, turn) => setDisabled(id, turn % 2 === 0)),
    );
    assert.ok(answers.every(({ status }) => status === 200));
    assert.equal((await setDisabled(id, true)).json.disabled, true);
    assertRefused(await someone().login(name, RIGHT), 401, "invalid_credentials");
    assert.equal((await setDisabled(id, false)).json.disabled, false);
    assert.equal((await someone().login(name, RIGHT)).status, 200);
  }
});

test("twenty deletions at once leave nothing, and do not fail", async () => {
  const { visitor, id } = await owner();
  const answers = await Promise.all(Array.from({ length: 20 }, () => operate("DELETE", userPath(id))));
  assert.ok(answers.some(({ status }) => status === 204));
  assert.ok(answers.every(({ status }) => status === 204 || status === 404));
  assert.equal(await visitor.session(), null);
  assert.deepEqual(await leftovers(id), []);
});

test("of twenty accounts made at once with one name there is one", async () => {
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => operate("POST", "/users", { username: name, password: RIGHT })),
  );
  assert.deepEqual(answers.map(({ status }) => status).toSorted(), [201, ...Array(19).fill(409)]);
});

test("an account that changes while it is deleted is deleted, or found by its id until it is", async () => {
  for (const fails of [false, true]) {
    useName(`${name}x`);
    const { id } = await owner();
    const held = store.faults.hold(firstCall("DELEX"));
    const deleting = operate("DELETE", userPath(id));
    await held.arrived;
    assert.equal((await setRoles(id, { roles: ["staff"] })).status, 204);
    const isDeletion = (/** @type {import("../tools/local-store/faults.mjs").Seen} */ { commands }) =>
      commands.some(([word]) => word === "DELEX");
    // The first has been let through, and does not fit any more.
    if (fails) store.faults.always("refuse", { when: isDeletion });
    held.release();
    const answer = await deleting;
    store.faults.clear();
    assert.equal(answer.status, fails ? 503 : 204, answer.text);
    if (fails) assert.equal((await operate("GET", userPath(id))).status, 200);
    assert.equal((await operate("DELETE", userPath(id))).status, fails ? 204 : 404);
    assert.deepEqual(await leftovers(id), []);
  }
});

test("an account that is enabled while it is deleted keeps no session without an account", async () => {
  const { id } = await owner();
  const held = store.faults.hold(firstCall("DELEX"));
  const deleting = operate("DELETE", userPath(id));
  await held.arrived;
  await setDisabled(id, false);
  const visitor = await loggedIn();
  held.release();
  assertRefused(await deleting, 409, "conflict");
  assert.notEqual(await visitor.session(), null);
  assert.equal((await operate("DELETE", userPath(id))).status, 204);
  assert.equal(await visitor.session(), null);
});

test("a record from before accounts could be disabled is one that is not, and a disabled one is not read by older versions", async () => {
  const { id } = await owner();
  const key = `account:${name.toLowerCase()}`;
  const read = async () => JSON.parse(String(await store.redis.get(key)));
  const before = await read();
  assert.deepEqual(["disabled" in before, "reset" in before, before.v], [false, false, 1]);
  await setDisabled(id, true);
  assert.deepEqual([(await read()).v, (await read()).disabled], [2, true]);
  await setDisabled(id, false);
  assert.equal((await read()).v, 1);
});

test("an imported account is found, disabled, enabled, reset and deleted like any other", async () => {
  const { id } = await owner();
  const key = `account:${name.toLowerCase()}`;
  const account = JSON.parse(String(await store.redis.get(key)));
  const hash = "pbkdf2_sha256$1000$saltsalt$qQDPSZa3Ormyy9oK1Pu0ZLLwP2Svzmx3yu8OvDdq/J0=";
  // As Python writes it, with spaces.
  await store.redis.set(key, JSON.stringify({ ...account, hash }, null, 1));
  assert.equal((await find(name)).json.id, id);
  await setDisabled(id, true);
  assertRefused(await someone().login(name, RIGHT), 401, "invalid_credentials");
  assert.equal(JSON.parse(String(await store.redis.get(key))).hash, hash, "not renewed for a disabled one");
  await setDisabled(id, false);
  assert.equal((await someone().login(name, RIGHT)).status, 200);
  assert.equal((await useToken(await resetToken(id), "another horse")).status, 200);
  await store.redis.set(key, JSON.stringify({ ...account, hash, disabled: true }));
  assertRefused(await someone().login(name, RIGHT), 401, "invalid_credentials");
  assert.equal((await operate("DELETE", userPath(id))).status, 204);
});

test("a record that cannot be read is left as it is, on every route", async () => {
  const { id } = await owner();
  const key = `account:${name.toLowerCase()}`;
  await store.redis.set(key, '{"v":3}');
  for (const [method, path, body] of ROUTES)
    assertRefused(await operate(method, userPath(id) + path, body), 500, "internal");
  assertRefused(await find(name), 500, "internal");
  assert.equal(await store.redis.get(key), '{"v":3}');
});

test("a login whose session was written before the mark of a disabling does not live on", async () => {
  const { id } = await owner();
  const held = store.faults.hold(sessionCreation());
  const visitor = someone();
  const login = visitor.login(name, RIGHT);
  await held.arrived;
  const marking = store.faults.hold(({ commands }) => commands.some(([word]) => word === "HGETALL"));
  const disabling = setDisabled(id, true);
  await marking.arrived;
  held.release();
  await login;
  marking.release();
  assert.equal((await disabling).status, 200);
  assert.equal(await visitor.session(), null);
});
