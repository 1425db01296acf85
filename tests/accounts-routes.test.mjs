/** The routes of accounts: what they answer, refuse and cost. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  address,
  admin,
  assertRefused,
  DEVICE,
  name,
  number,
  registered,
  RIGHT,
  setRoles,
  someone,
  startLimited,
  store,
  two,
  useName,
  WRONG,
} from "./support/accounts.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */

const limited = await startLimited();

test("registering logs in: 201, the session, its cookie and a device cookie", async () => {
  const visitor = someone();
  const answer = await visitor.register(` ${name} `, RIGHT);
  assert.equal(answer.status, 201, answer.text);
  const { session } = answer.json;
  assert.equal(session.user.name, name);
  assert.ok(session.user.id.length >= 16);
  assert.deepEqual([session.user.roles, session.data, session.remember], [[], {}, false]);
  assert.equal(session.authenticated_at, session.created_at);
  assert.deepEqual(
    answer.setCookies.map((line) => line.split("=")[0]).toSorted(),
    ["__Host-session", DEVICE].toSorted(),
  );
  for (const line of answer.setCookies)
    assert.match(line, /; Path=\/; HttpOnly; Secure; SameSite=Lax(; Max-Age=15552000)?$/);
  assert.match(String(answer.headers.get("etag")), /^"[^"]+"$/);
  assert.equal(answer.headers.get("cache-control"), "no-store, no-transform");
  assert.match(String(answer.headers.get("vary")), /Cookie/);
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
  assert.deepEqual(await visitor.session(), session);
  assertRefused(await someone().register(name, RIGHT), 409, "conflict");
});

test("a login answers with the session and its cookie; the device cookie is set once", async () => {
  await registered();
  const visitor = someone();
  const answer = await visitor.login(name, RIGHT);
  assert.equal(answer.status, 200);
  assert.equal(answer.setCookies.length, 2);
  assert.ok(answer.setCookies.every((line) => line.includes(DEVICE) || !line.includes("Max-Age")));
  assert.equal((await visitor.login(name, RIGHT)).setCookies.length, 1);
  assert.deepEqual((await visitor.look()).setCookies, []);
  const wrong = await visitor.login(name, WRONG);
  assertRefused(wrong, 401, "invalid_credentials");
  assert.deepEqual(wrong.setCookies, []);
  assert.equal(wrong.headers.get("cache-control"), "no-store, no-transform");
  assert.notEqual(await visitor.session(), null, "a failed login ends nothing");
});

test("POST /auth/logout does what DELETE /auth/session does, with and without a session", async () => {
  for (const logout of /** @type {((visitor: Visitor) => Promise<Answer>)[]} */ ([
    (visitor) => visitor.logout(),
    (visitor) => visitor.send("POST", "/auth/logout"),
  ])) {
    useName(`${name}x`);
    const visitor = await registered();
    const before = visitor.clone();
    const answer = await logout(visitor);
    assert.deepEqual([answer.status, answer.text], [204, ""]);
    assert.match(answer.setCookies.join(), /^__Host-session=; .*Max-Age=0/);
    assert.equal(await before.session(), null);
    const again = await logout(someone());
    assert.deepEqual([again.status, again.setCookies], [204, []]);
  }
});

test("verify names the user in headers, and no value can break out of its header", async () => {
  useName(`Zoë, "山田" ${number}`);
  const visitor = await registered();
  const { user, handle } = await visitor.session();
  assert.equal((await setRoles(user.id, { roles: ["admin", "a;b"] })).status, 204);
  const answer = await visitor.send("GET", "/auth/verify");
  assert.deepEqual([answer.status, answer.text], [200, ""]);
  const header = (/** @type {string} */ word) => answer.headers.get(`x-session-${word}`);
  assert.equal(header("user"), user.id);
  assert.equal(header("name"), encodeURIComponent(name));
  assert.equal(header("roles"), "admin,a%3Bb");
  assert.equal(header("handle"), handle);
  assert.equal(answer.headers.get("cache-control"), "no-store, no-transform");
  for (const [query, status] of /** @type {[string, number][]} */ ([
    ["?role=admin", 200],
    ["?role=a%3Bb", 200],
    ["?role=Admin", 403],
    ["?role=adm", 403],
    ["?role=", 400],
    ["?rolle=admin", 400],
    ["?role=admin&role=x", 400],
    ["?role=%ff", 400],
  ])) {
    const checked = await visitor.send("GET", `/auth/verify${query}`);
    assert.equal(checked.status, status, query);
    if (status === 403) assertRefused(checked, 403, "forbidden");
    assert.equal(checked.headers.has("x-session-user"), status === 200);
  }
  assert.equal((await visitor.send("HEAD", "/auth/verify")).headers.get("x-session-user"), user.id);
  const anonymous = someone();
  await anonymous.merge({ a: 1 });
  for (const one of [anonymous, someone()])
    assertRefused(await one.send("GET", "/auth/verify"), 401, "unauthenticated");
});

test("every route refuses a malformed request without a call to the store", async () => {
  const visitor = await registered();
  const bodies = [
    ["POST", "/register", { username: "x y", password: RIGHT }],
    ["POST", "/login", { username: "x y", password: RIGHT }],
    ["POST", "/reauthenticate", { password: RIGHT }],
    ["POST", "/password", { current: RIGHT, new: "another horse" }],
    ["DELETE", "/account", { password: RIGHT }],
  ];
  for (const [method, path, good] of /** @type {[string, string, Record<string, string>][]} */ (bodies)) {
    const wrong = [
      [],
      null,
      "x",
      { ...good, more: 1 },
      ...Object.keys(good).flatMap((field) => [
        { ...good, [field]: undefined },
        { ...good, [field]: 5 },
        { ...good, [field]: null },
      ]),
    ];
    for (const body of wrong) {
      const { value, byName } = await store.counters.during(() => visitor.tell(method, path, body));
      assertRefused(value, 400, "bad_request");
      assert.ok(!value.text.includes(RIGHT));
      assert.deepEqual(byName, {}, `${path} ${JSON.stringify(body)}`);
    }
    for (const body of ["", "{", '{"password":"\\ud800"}', '{"a":1,"a":2}']) {
      const headers = { "Content-Type": "application/json" };
      assertRefused(await visitor.send(method, `/auth${path}`, { headers, body }), 400, "bad_request");
    }
    const type = { "Content-Type": "text/plain" };
    assertRefused(await visitor.tell(method, path, good, type), 415, "unsupported_media_type");
    const get = await visitor.send("GET", `/auth${path}`);
    assertRefused(get, 405, "method_not_allowed");
    assert.equal(get.headers.get("allow"), method);
    const foreign = await visitor.tell(method, path, good, { "Sec-Fetch-Site": "cross-site" });
    assertRefused(foreign, 403, "cross_site");
  }
  assertRefused(
    await visitor.tell("POST", "/login", { username: "x", password: "y", remember: 1 }),
    400,
    "bad_request",
  );
  assertRefused(await visitor.register("x", "y".repeat(300_000)), 413, "too_large");
  for (const [path, method, allow] of /** @type {[string, string, string][]} */ ([
    ["/profile", "POST", "GET, HEAD, PATCH"],
    ["/logout", "GET", "POST"],
    ["/sessions", "POST", "GET, HEAD, DELETE"],
    ["/sessions/AAAA", "GET", "DELETE"],
  ])) {
    const answer = await visitor.send(method, `/auth${path}`);
    assertRefused(answer, 405, "method_not_allowed");
    assert.equal(answer.headers.get("allow"), allow);
  }
  assert.notEqual(await visitor.session(), null);
});

test("routes that need a login answer 401 without one, and 404 to users of the service API", async () => {
  const made = await someone().tell("POST", "/admin/sessions", { user: { id: `u${number}` } }, admin);
  const foreign = someone();
  foreign.accept(made.json.set_cookie);
  const anonymous = someone();
  await anonymous.merge({ a: 1 });
  for (const [method, path, body] of /** @type {[string, string, unknown][]} */ ([
    ["POST", "/reauthenticate", { password: RIGHT }],
    ["POST", "/password", { current: RIGHT, new: "another horse" }],
    ["DELETE", "/account", { password: RIGHT }],
    ["PATCH", "/profile", { a: 1 }],
    ["GET", "/profile", undefined],
  ])) {
    assertRefused(await someone().tell(method, path, body), 401, "unauthenticated");
    assertRefused(await anonymous.tell(method, path, body), 401, "unauthenticated");
    const answer = await foreign.tell(method, path, body);
    assertRefused(answer, 404, "not_found");
    assert.deepEqual(answer.setCookies, []);
  }
  assert.notEqual(await anonymous.session(), null);
});

test("a login is two calls to the store, and a registration three", async () => {
  /**
   * Calls and commands until the answer. `later`: a call comes after it, with what a success gives back, or for what is left
   * of the session that was replaced.
   * @param {() => Promise<Answer>} run
   */
  const cost = async (run, { later = false } = {}) => {
    const isLater = (/** @type {string[]} */ [word]) => word === "DECRBY" || word === "DEL";
    const held = store.faults.hold(({ commands }) => commands.some(isLater));
    const { calls, commands } = await store.counters.during(async () => {
      const answer = await run();
      assert.ok(answer.status < 300, answer.text);
      if (later) await held.arrived;
    });
    held.release();
    return later ? [calls - 1, commands] : [calls, commands];
  };
  const visitor = two[0].visitor();
  assert.deepEqual(await cost(() => visitor.register(name, RIGHT)), [3, 8]);
  const other = two[0].visitor();
  assert.deepEqual(await cost(() => other.login(name, RIGHT)), [2, 7]);
  assert.deepEqual(await cost(() => other.login(name, RIGHT), { later: true }), [2, 8]);
  // With limits, and their counters there already: one more each, for the account, the address and the sessions begun there.
  const headers = { "CF-Connecting-IP": address };
  await limited[0].visitor().login(name, WRONG); // has looked at the store's clock
  useName(`${name} limited`);
  await registered([limited[1], limited[1]]);
  await limited[0].moveClock(0);
  for (const expected of [12, 9]) {
    const stranger = limited[0].visitor();
    const login = () => stranger.login(name, RIGHT, { headers });
    assert.deepEqual(await cost(login, { later: true }), [2, expected]);
    await limited[0].moveClock(0);
  }
  assert.deepEqual(await cost(() => other.send("GET", "/auth/verify")), [1, 1]);
  assert.deepEqual(await cost(() => other.send("GET", "/auth/profile")), [2, 3]);
});
