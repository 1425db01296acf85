/** The end of an account, and logins in flight while it is deleted or its password changes. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertRefused,
  firstCall,
  loggedIn,
  mergeProfile,
  name,
  registered,
  RIGHT,
  setRoles,
  someone,
  store,
  two,
  useName,
} from "./support/accounts.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */

test("deleting an account leaves one key, which names nobody and expires", async () => {
  await store.redis.flushAll();
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  await visitor.rotate();
  const people = [await loggedIn(), await loggedIn(), await loggedIn()];
  await people[0]?.rotate();
  await people[1]?.logout();
  await people[2]?.tell("POST", "/reauthenticate", { password: RIGHT });
  await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" });
  await loggedIn("another horse");
  await mergeProfile(visitor, { a: 1 });
  await setRoles(id, { roles: ["admin"] });
  const before = visitor.clone();
  const answer = await visitor.tell("DELETE", "/account", { password: "another horse" });
  assert.deepEqual([answer.status, answer.text], [204, ""], answer.text);
  assert.match(answer.setCookies.join(), /^__Host-session=; .*Max-Age=0/);
  const keys = await store.redis.keys("*");
  assert.equal(keys.length, 1, keys.join());
  assert.match(String(keys[0]), /^user:[\w-]+:standing$/);
  const left = String(await store.redis.get(String(keys[0])));
  assert.ok(!left.includes("Ada") && !left.includes(id), left);
  const ttl = await store.redis.pTTL(String(keys[0]));
  assert.ok(ttl > 29 * 86_400_000 && ttl <= 30 * 86_400_000 + 3_600_000);
  for (const one of [before, ...people]) assert.equal(await one.session(), null);
  assertRefused(await someone().login(name, "another horse"), 401, "invalid_credentials");

  // The name is free for a new account.
  const newOwner = await registered();
  const { user } = await newOwner.session();
  assert.notEqual(user.id, id);
  assert.deepEqual(user.roles, []);
  assert.deepEqual((await newOwner.send("GET", "/auth/profile")).json, {});
  assert.equal((await newOwner.send("GET", "/auth/sessions")).json.sessions.length, 1);
  for (const one of [before, ...people]) assert.equal(await one.session(), null);
});

/** Holds a login at each of its calls to the store until `act` is done. @param {(owner: Visitor) => Promise<Answer>} act */
async function assertLoginFailsAcross(act) {
  for (const at of [1, 2, 3]) {
    useName(`${name}x`);
    const owner = await registered();
    if (at > 1) await owner.send("DELETE", "/auth/sessions?keep=current"); // leaves a revocation mark, which a login has to read
    let call = 0;
    const held = store.faults.hold(() => ++call === at);
    const login = two[0].visitor();
    const entering = login.login(name, RIGHT);
    const done = await Promise.race([held.arrived.then(() => false), entering.then(() => true)]);
    if (done) held.release();
    // Only the login is held; the calls of the owner pass.
    assert.ok((await act(owner)).status < 300);
    held.release();
    const answer = await entering;
    assert.ok([200, 401, 409].includes(answer.status), answer.text);
    if (!done) assert.notEqual(answer.status, 200, `held at its call ${at}`);
    assert.equal(await login.session(), null, `held at its call ${at}: ${answer.text}`);
    store.faults.clear();
  }
}

test("a login in flight while the password is changed gets no session", () =>
  assertLoginFailsAcross((owner) =>
    owner.tell("POST", "/password", { current: RIGHT, new: "another horse" }),
  ));

test("a login in flight while the account is deleted gets no session, and leaves no key", async () => {
  await store.redis.flushAll();
  await assertLoginFailsAcross((owner) => owner.tell("DELETE", "/account", { password: RIGHT }));
  const keys = await store.redis.keys("*");
  assert.ok(
    keys.every((key) => /^user:[\w-]+:standing$/.test(key)),
    keys.join(),
  );
});

test("a login in flight gets no session at an isolate whose clock is ahead or behind", async () => {
  for (const skew of [-3000, 3000]) {
    await two[0].moveClock(skew);
    await assertLoginFailsAcross((owner) =>
      owner.clone(two[1].url).tell("POST", "/password", { current: RIGHT, new: "another horse" }),
    );
    await two[0].moveClock(-skew);
  }
});

test("a login that reads the account from a lagging replica gets no session", async () => {
  for (const act of /** @type {((owner: Visitor) => Promise<Answer>)[]} */ ([
    (owner) => owner.tell("POST", "/password", { current: RIGHT, new: "another horse" }),
    (owner) => owner.tell("DELETE", "/account", { password: RIGHT }),
  ])) {
    useName(`${name}x`);
    const owner = await registered();
    store.faults.lag = 5000;
    assert.ok((await act(owner)).status < 300);
    const late = someone();
    assert.ok([401, 409].includes((await late.login(name, RIGHT)).status));
    store.faults.clear();
    assert.equal(late.ticket, undefined);
  }
});

test("a session that begins while its account is being deleted ends with it", async () => {
  for (const command of ["GETEX", "DELEX"]) {
    useName(`${name}x`);
    const owner = await registered();
    const held = store.faults.hold(firstCall(command));
    const deleting = owner.tell("DELETE", "/account", { password: RIGHT });
    await held.arrived;
    const between = someone();
    await between.login(name, RIGHT);
    held.release();
    assert.equal((await deleting).status, 204);
    assert.equal(await between.session(), null, command);
    assert.equal(await store.redis.exists(`account:${name.toLowerCase()}`), 0);
  }
});

test("a profile patch or new roles in flight do not restore a deleted account", async () => {
  for (const act of /** @type {((owner: Visitor, id: string) => Promise<Answer>)[]} */ ([
    (owner) => mergeProfile(owner, { a: 1 }),
    (_, id) => setRoles(id, { roles: ["admin"] }),
  ])) {
    useName(`${name}x`);
    const owner = await registered();
    const { id } = (await owner.session()).user;
    const held = store.faults.hold(firstCall("SET"));
    const acting = act(owner.clone(), id);
    await held.arrived;
    assert.equal((await owner.tell("DELETE", "/account", { password: RIGHT })).status, 204);
    held.release();
    assert.ok([401, 404].includes((await acting).status));
    assert.equal(await store.redis.exists(`account:${name.toLowerCase()}`), 0);
    assertRefused(await someone().login(name, RIGHT), 401, "invalid_credentials");
  }
});
