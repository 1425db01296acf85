/** The password of a logged-in user: reauthentication, and its change. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertRefused,
  firstCall,
  loggedIn,
  MINUTE,
  name,
  registered,
  RIGHT,
  sessionCreation,
  someone,
  store,
  two,
  WRONG,
} from "./support/accounts.mjs";
import { FAST_HASH, startBoth } from "./support/worker.mjs";

test("a wrong password changes nothing and keeps the session, on every route that asks for one", async () => {
  const visitor = await registered();
  for (const [method, path, body] of /** @type {[string, string, unknown][]} */ ([
    ["POST", "/reauthenticate", { password: WRONG }],
    ["POST", "/password", { current: WRONG, new: "another horse" }],
    ["DELETE", "/account", { password: WRONG }],
  ])) {
    const answer = await visitor.tell(method, path, body);
    assertRefused(answer, 401, "invalid_credentials");
    assert.deepEqual(answer.setCookies, []);
  }
  assert.notEqual(await visitor.session(), null);
  const weak = await visitor.tell("POST", "/password", { current: RIGHT, new: "short" });
  assertRefused(weak, 422, "unprocessable");
  assert.equal(weak.json.detail, '"new": a password has at least 8 characters');
  const registration = await someone().register(`${name} x`, "password1");
  assertRefused(registration, 422, "unprocessable");
  assert.equal(registration.json.detail, '"password": this password is too common; choose another');
  await loggedIn();
});

test("a password is good for as long as its owner keeps it", async () => {
  const { worker, stop } = await startBoth({ settings: { password: FAST_HASH } });
  try {
    await worker.visitor().register(name, RIGHT);
    await worker.moveClock(1000 * 24 * 60 * MINUTE);
    const answer = await worker.visitor().login(name, RIGHT);
    assert.equal(answer.status, 200, answer.text);
  } finally {
    await stop();
  }
});

test("sensitive routes require a recent password, and reauthenticating provides one", async () => {
  const { store, worker, stop } = await startBoth({
    settings: { password: FAST_HASH },
  });
  try {
    const visitor = worker.visitor();
    await visitor.register(name, RIGHT);
    const second = worker.visitor();
    await second.login(name, RIGHT);
    const { handle } = await second.session();
    await visitor.merge({ a: 1 });
    const before = await visitor.session();
    await worker.moveClock(14 * MINUTE);
    assert.equal((await visitor.send("DELETE", "/auth/sessions?keep=current")).status, 204);
    assert.equal(await second.session(), null);
    await second.login(name, RIGHT);
    await worker.moveClock(2 * MINUTE);
    for (const [method, path, body] of /** @type {[string, string, unknown][]} */ ([
      ["POST", "/password", { current: RIGHT, new: "another horse" }],
      ["DELETE", "/account", { password: RIGHT }],
      ["DELETE", "/sessions", undefined],
      ["DELETE", "/sessions?keep=current", undefined],
      ["DELETE", `/sessions/${handle}`, undefined],
    ])) {
      const answer = await visitor.tell(method, path, body);
      assertRefused(answer, 403, "reauthenticate");
      assert.deepEqual(answer.setCookies, []);
    }
    const old = visitor.clone();
    const answer = await visitor.tell("POST", "/reauthenticate", { password: RIGHT });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.setCookies.length, 1);
    const { session } = answer.json;
    assert.notEqual(session.handle, before.handle);
    assert.ok(Date.parse(session.authenticated_at) - Date.parse(before.authenticated_at) >= 16 * MINUTE);
    assert.deepEqual(
      [session.expires_at, session.created_at, session.data, session.user],
      [before.expires_at, before.created_at, before.data, before.user],
    );
    assert.equal(await old.session(), null, "the old id has no grace period");
    assert.notEqual(await visitor.session(), null, "it was not taken for theft");
    assert.equal((await visitor.send("GET", "/auth/sessions")).json.sessions.length, 2);
    assert.equal(
      (await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" })).status,
      200,
    );
    assert.equal(await second.session(), null);
    // Also an id that was rotated before, and was used after that.
    await visitor.rotate();
    const rotated = visitor.clone();
    await visitor.tell("POST", "/reauthenticate", { password: "another horse" });
    await worker.moveClock(2 * MINUTE);
    assert.equal(await rotated.session(), null);
    assert.notEqual(await visitor.session(), null);
  } finally {
    await stop();
  }
});

test("a change in flight during a reauthentication is refused or carried over, never lost", async () => {
  const visitor = await registered();
  await visitor.merge({ n: 0 });
  const changer = visitor.clone();
  await changer.forget();
  const held = store.faults.hold(firstCall("SET"));
  const changing = changer.increment("/n");
  await held.arrived;
  assert.equal((await visitor.tell("POST", "/reauthenticate", { password: RIGHT })).status, 200);
  held.release();
  assertRefused(await changing, 401, "unauthenticated");
  assert.equal((await visitor.session()).data.n, 0);

  // A change that is written before the reauthentication is carried over.
  const late = visitor.clone();
  const renewing = store.faults.hold(sessionCreation());
  const renewed = visitor.tell("POST", "/reauthenticate", { password: RIGHT });
  await renewing.arrived;
  assert.equal((await late.increment("/n")).status, 200);
  renewing.release();
  assert.equal((await renewed).json.session.data.n, 1);
  assert.equal((await visitor.session()).data.n, 1);
});

test("a password change ends every other session and gives this one a new id, at every isolate", async () => {
  const visitor = await registered();
  const others = [await loggedIn(), await loggedIn()];
  const old = visitor.clone();
  const { user } = await visitor.session();
  const answer = await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" });
  assert.equal(answer.status, 200, answer.text);
  assert.deepEqual(answer.json.session.user, user);
  for (const { url } of two) {
    for (const one of [...others, old]) assert.equal(await one.clone(url).session(), null);
    assert.notEqual(await visitor.clone(url).session(), null);
    const stranger = someone();
    stranger.url = url;
    assertRefused(await stranger.login(name, RIGHT), 401, "invalid_credentials");
    assert.equal((await stranger.login(name, "another horse")).status, 200);
    assert.equal((await stranger.session()).user.id, user.id);
  }
  const again = await visitor.tell("POST", "/password", { current: "another horse", new: RIGHT });
  assert.equal(again.status, 200, "and once more");
  assert.equal((await visitor.send("GET", "/auth/sessions")).json.sessions.length, 1);
});

test("of two concurrent password changes at most one succeeds", async () => {
  const visitor = await registered();
  const other = await loggedIn();
  const words = ["another horse", "a third horse"];
  const answers = await Promise.all(
    [visitor, other].map((one, index) =>
      one.tell("POST", "/password", { current: RIGHT, new: words[index] }),
    ),
  );
  const done = answers.findIndex(({ status }) => status === 200);
  assert.ok(
    answers.filter(({ status }) => status === 200).length <= 1,
    answers.map(({ text }) => text).join(),
  );
  assert.ok(answers.every(({ status }) => [200, 401, 409].includes(status)));
  const works = [];
  for (const word of [RIGHT, ...words]) works.push((await someone().login(name, word)).status === 200);
  assert.equal(works.filter(Boolean).length, 1);
  if (done >= 0) assert.ok(works[done + 1]);
});
