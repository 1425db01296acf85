/** What a deployment switches off: registration, or usernames and passwords altogether; and what it reserves. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  admin,
  assertRefused,
  name,
  operate,
  registered,
  resetToken,
  RIGHT,
  secrets,
  someone,
  start,
  store,
  useName,
  userPath,
  useToken,
} from "./support/accounts.mjs";
import { FAST_HASH, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */

/** One more isolate whose accounts are set like this. @param {object} accounts */
const startWith = (accounts) => start({ settings: { accounts } });
const [closed, without] = [await startWith({ register: "closed" }), await startWith({ login: false })];

/** The routes of accounts: method, path, a good body. @type {[string, string, unknown][]} */
const ROUTES = [
  ["POST", "/register", { username: "ada", password: RIGHT }],
  ["POST", "/login", { username: "ada", password: RIGHT }],
  ["POST", "/reauthenticate", { password: RIGHT }],
  ["POST", "/password", { current: RIGHT, new: "another horse" }],
  ["POST", "/reset", { token: "x", new: "another horse" }],
  ["DELETE", "/account", { password: RIGHT }],
  ["GET", "/profile", undefined],
  ["PATCH", "/profile", { a: 1 }],
];

test("registration that is closed is 404 and says so, whatever is sent, and costs no call", async () => {
  for (const [method, body, headers] of /** @type {[string, unknown, Record<string, string>?][]} */ ([
    ["POST", { username: name, password: RIGHT }],
    ["POST", {}],
    ["POST", null, { "Content-Type": "text/plain" }],
    ["POST", { username: name, password: RIGHT }, admin],
    ["GET", undefined],
    ["OPTIONS", undefined],
    ["OPTIONS", undefined, { Origin: closed.url, "Access-Control-Request-Method": "POST" }],
  ])) {
    const { value, calls } = await store.counters.during(() =>
      closed.visitor().tell(method, "/register", body, headers),
    );
    assertRefused(value, 404, "not_found");
    assert.match(value.json.detail, /registration is closed here \(accounts\.register\)/);
    assert.equal(calls, 0, method);
  }
  assert.equal(
    (await operate("GET", `/users?name=${encodeURIComponent(name)}`)).status,
    404,
    "none was made",
  );
});

test("where registration is closed accounts are made by the service API, and have every route", async () => {
  const made = await closed
    .visitor()
    .tell("POST", "/admin/users", { username: name, password: RIGHT }, admin);
  assert.equal(made.status, 201, made.text);
  const visitor = closed.visitor();
  assert.equal((await visitor.login(name, RIGHT)).status, 200);
  assert.equal((await visitor.tell("POST", "/reauthenticate", { password: RIGHT })).status, 200);
  assert.equal((await visitor.tell("PATCH", "/profile", { a: 1 })).status, 200);
  assert.equal(
    (await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" })).status,
    200,
  );
  const holder = closed.visitor();
  assert.equal((await useToken(await resetToken(made.json.id), RIGHT, holder)).status, 200);
  assert.equal((await holder.tell("DELETE", "/account", { password: RIGHT })).status, 204);
});

test("without login every route of accounts is 404 and says so, and what was logged in before stays", async () => {
  const visitor = (await registered()).clone(without.url);
  const before = await visitor.session();
  for (const [method, path, body] of ROUTES) {
    for (const one of [visitor, without.visitor()]) {
      const answer = await one.tell(method, path, body);
      assertRefused(answer, 404, "not_found");
      assert.match(answer.json.detail, /users have no passwords here \(accounts\.login\)/);
      assert.deepEqual(answer.setCookies, []);
    }
  }
  assert.deepEqual((await visitor.session()).handle, before.handle);
  assert.equal((await visitor.send("GET", "/auth/verify")).status, 200);
  assert.equal((await visitor.send("GET", "/auth/sessions")).json.sessions.length, 1);
  assert.equal((await visitor.send("POST", "/auth/logout")).status, 204);
});

test("without login the service API has its accounts, and no token opens one", async () => {
  const { id } = (await (await registered()).session()).user;
  const ask = (
    /** @type {string} */ method,
    /** @type {string} */ path,
    /** @type {unknown} */ body = undefined,
  ) => without.visitor().tell(method, `/admin${path}`, body, admin);
  const token = (await ask("POST", `${userPath(id)}/reset`)).json.token;
  assertRefused(await useToken(token, "another horse", without.visitor()), 404, "not_found");
  assert.equal((await ask("GET", `/users?name=${encodeURIComponent(name)}`)).json.id, id);
  assert.equal((await ask("PATCH", userPath(id), { disabled: true })).json.disabled, true);
  assertRefused(await ask("POST", "/sessions", { user: { id } }), 409, "conflict");
  assert.equal((await ask("PATCH", userPath(id), { disabled: false })).json.disabled, false);
  const made = await ask("POST", "/sessions", { user: { id } });
  const visitor = without.visitor();
  visitor.accept(made.json.set_cookie);
  assert.equal((await visitor.session()).user.id, id);
  assert.equal((await ask("DELETE", userPath(id))).status, 204);
  assert.equal(await visitor.session(), null);
});

test("what is off tells nothing of what else is there, and near misses get the same answer as ever", async () => {
  for (const path of ["/auth/register/", "/register", "/auth/administer", "/auth/nowhere"]) {
    const answer = await closed.visitor().send("POST", path);
    assertRefused(answer, 404, "not_found");
    assert.doesNotMatch(answer.json.detail, /register/);
  }
});

test("names that the operator reserves cannot be registered, in any spelling; none, if the list is empty", async () => {
  const own = await startWith({ reserved: ["Wurzel", "Stra\u00dfe"] });
  const none = await startWith({ reserved: [] });
  for (const username of ["wurzel", " WURZEL ", "\uff37urzel", "straße"])
    assertRefused(await own.visitor().register(username, RIGHT), 422, "unprocessable");
  for (const username of ["admin", "Root", "POSTMASTER"])
    assertRefused(await someone().register(username, RIGHT), 422, "unprocessable");
  useName("hostmaster");
  assert.equal((await own.visitor().register("webmaster", RIGHT)).status, 201, "its own list replaces ours");
  const visitor = none.visitor();
  assert.equal((await visitor.register(name, RIGHT)).status, 201);
  assert.equal((await someone().login(name, RIGHT)).status, 200, "who has one keeps it");
});

/** The service API's routes of accounts. @type {[string, string, unknown][]} */
const USERS = [
  ["GET", "/users?name=ada", undefined],
  ["POST", "/users", { username: "ada", password: RIGHT }],
  ["GET", "/users/u", undefined],
  ["PATCH", "/users/u", { disabled: true }],
  ["DELETE", "/users/u", undefined],
  ["POST", "/users/u/reset", undefined],
];

test("with another application's sessions what they cannot do is 422, and never done", async () => {
  for (const [cookie, count] of /** @type {[object, number][]} */ ([
    [{ format: "express", name: "connect.sid", user_pointer: "" }, 6],
    [{ format: "express", name: "connect.sid", user_pointer: "/userId" }, 3],
  ])) {
    const worker = await startWorker({
      store,
      secrets: { ...secrets, FORMAT_SECRETS: '["express secret of enough length 123"]' },
      settings: { password: FAST_HASH, cookie },
    });
    try {
      const answers = [];
      for (const [method, path, body] of USERS)
        answers.push(await worker.visitor().tell(method, `/admin${path}`, body, admin));
      const refused = answers.filter(({ status }) => status === 422);
      assert.equal(refused.length, count, answers.map(({ status, text }) => `${status} ${text}`).join("\n"));
      for (const answer of refused) assertRefused(answer, 422, "unprocessable");
      const reset = await worker.visitor().tell("POST", "/reset", { token: "x", new: "another horse" });
      assertRefused(reset, 422, "unprocessable");
    } finally {
      await worker.stop();
    }
  }
});
