/** What a login makes of the session before it, and of the sessions on other devices. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertRefused,
  firstCall,
  loggedIn,
  mergeProfile,
  name,
  number,
  registered,
  RIGHT,
  sessionCreation,
  someone,
  store,
  two,
  useName,
} from "./support/accounts.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */

// Session fixation

test("a login ends the session id before it, and carries its data over", async () => {
  for (const enter of /** @type {((visitor: Visitor) => Promise<Answer>)[]} */ ([
    (visitor) => visitor.register(name, RIGHT),
    (visitor) => visitor.login(name, RIGHT),
  ])) {
    const visitor = someone();
    await visitor.merge({ cart: ["tea"] });
    const old = visitor.clone(two[0].url);
    const { handle } = await visitor.session();
    const answer = await enter(visitor);
    assert.ok(answer.status < 300, answer.text);
    assert.deepEqual(answer.json.session.data, { cart: ["tea"] });
    assert.notEqual(answer.json.session.handle, handle);
    assert.equal(await store.redis.exists(`sess:${handle}`), 0);
    assert.equal(await old.clone(two[1].url).session(), null);
    const late = await old.merge({ x: 1 });
    assert.deepEqual([late.json.session.user, late.json.session.data], [null, { x: 1 }]);
    assert.deepEqual((await visitor.session()).data, { cart: ["tea"] });
  }
});

test("a login with the old id of a rotated session carries its data over, and ends both ids", async () => {
  await registered();
  const visitor = someone();
  await visitor.merge({ a: 1 });
  const old = visitor.clone();
  await visitor.rotate();
  const rotated = visitor.clone();
  const late = old.clone();
  const answer = await late.login(name, RIGHT);
  assert.deepEqual([answer.status, answer.json.session.data], [200, { a: 1 }]);
  for (const one of [old, rotated]) assert.equal(await one.session(), null);
  assert.notEqual(await late.session(), null, "it was not taken for theft");
});

test("a concurrent login loses no acknowledged change", async () => {
  await registered();
  for (const what of ["change", "login"]) {
    const visitor = someone();
    await visitor.merge({ n: 0 });
    const changer = visitor.clone(two[0].url);
    await changer.forget();
    const when = what === "login" ? sessionCreation() : firstCall("SET");
    const held = store.faults.hold(when);
    const holding = what === "login" ? visitor.login(name, RIGHT) : changer.increment("/n");
    await held.arrived;
    const other = await (what === "login" ? changer.increment("/n") : visitor.login(name, RIGHT));
    assert.equal(other.status, 200);
    held.release();
    const answer = await holding;
    if (what === "login") {
      assert.equal(answer.status, 200, answer.text);
    } else {
      assertRefused(answer, 401, "unauthenticated");
    }
    assert.equal((await visitor.session()).data.n, what === "login" ? 1 : 0);
    assert.equal((await visitor.session()).user.name, name);
  }
});

test("of many changes concurrent with a login the session keeps every acknowledged one", async () => {
  await registered();
  for (let round = 0; round < 5; round += 1) {
    const visitor = someone();
    await visitor.merge({ n: 0 });
    const changers = Array.from({ length: 6 }, (_, index) => visitor.clone(two[index % 2 ? 1 : 0].url));
    const changing = changers.map((one) => one.increment("/n"));
    const [login, ...changes] = await Promise.all([visitor.login(name, RIGHT), ...changing]);
    assert.equal(login?.status, 200);
    // One that comes after the login has an anonymous session of its own.
    const before = login?.json.session.data.n;
    const acknowledged = changes.filter(
      ({ status, json }) =>
        status === 200 && json.session.data.n <= before && !("views" in json.session.data),
    );
    assert.ok(changes.every(({ status }) => status === 200 || status === 401));
    assert.ok(before <= 6 && acknowledged.length >= before);
  }
});

test("a login in another user's session ends that session and takes nothing from it", async () => {
  for (const enter of ["login", "register"]) {
    useName(`mallory ${number} ${enter}`);
    await registered();
    const other = `victim ${number} ${enter}`;
    if (enter === "login") await someone().register(other, RIGHT);
    const visitor = await loggedIn();
    await visitor.merge({ secret: 1 });
    await mergeProfile(visitor, { mine: true });
    const before = visitor.clone();
    const answer =
      enter === "login" ? await visitor.login(other, RIGHT) : await visitor.register(other, RIGHT);
    assert.deepEqual([answer.json.session.data, answer.json.session.user.name], [{}, other]);
    assert.equal(await before.session(), null);
    assert.deepEqual((await visitor.send("GET", "/auth/profile")).json, {});
    assert.equal(
      (await visitor.send("GET", "/auth/sessions")).json.sessions.length,
      enter === "login" ? 2 : 1,
    );
    // The same user again: data stays.
    await visitor.merge({ mine: 1 });
    assert.deepEqual((await visitor.login(other, RIGHT)).json.session.data, { mine: 1 });
  }
});

// Devices

test("a remembered login has its own lifetime, is listed with its device and address, and can be ended", async () => {
  await registered();
  const phone = someone();
  const headers = { "User-Agent": "Phone/1.0", "CF-Connecting-IP": "203.0.113.77" };
  const answer = await phone.login(name, RIGHT, { remember: true, headers });
  assert.match(
    String(answer.setCookies.find((line) => line.startsWith("__Host-session="))),
    /; Max-Age=(2592000|2591999)$/,
  );
  const { session } = answer.json;
  assert.equal(session.remember, true);
  assert.equal(Date.parse(session.expires_at) - Date.parse(session.created_at), 30 * 86_400_000);
  const desk = await loggedIn();
  const { sessions } = (await desk.send("GET", "/auth/sessions")).json;
  assert.equal(sessions.length, 3);
  const listed = sessions.find((/** @type {any} */ one) => one.remember);
  assert.deepEqual(
    [listed.user_agent, listed.ip, listed.current, listed.handle],
    ["Phone/1.0", "203.0.113.0", false, session.handle],
  );
  assert.equal(listed.created_at, session.created_at);
  assert.ok(Date.parse(listed.last_seen_at) - Date.parse(listed.created_at) < 10_000);
  // A reauthentication keeps them.
  await phone.tell("POST", "/reauthenticate", { password: RIGHT });
  const later = (await phone.send("GET", "/auth/sessions")).json.sessions;
  const mine = later.find((/** @type {any} */ one) => one.current);
  assert.deepEqual([mine.user_agent, mine.ip, mine.remember], ["Phone/1.0", "203.0.113.0", true]);
  assert.equal((await desk.send("DELETE", `/auth/sessions/${mine.handle}`)).status, 204);
  assert.equal(await phone.session(), null);
});

test("with more logins than max_per_user the oldest session ends", async () => {
  const people = [await registered()];
  for (let index = 0; index < 4; index += 1) people.push(await loggedIn());
  const alive = await Promise.all(people.map(async (one) => (await one.session()) !== null));
  assert.deepEqual(alive, [false, true, true, true, true]);
});
