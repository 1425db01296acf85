/** Events: which there are, when, what they say, and that they give nothing away. */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { startReceiver } from "./support/receiver.mjs";
import { FAST_HASH, randomSecret, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const RIGHT = "correct horse 17";
const OTHER = "battery staple 17";
const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const PHONE = { "User-Agent": "Phone", "CF-Connecting-IP": "203.0.113.77" };

const receiver = await startReceiver();
const settings = { ...receiver.settings, password: FAST_HASH, bearer: { enabled: true } };
const { store, worker, stop } = await startBoth({ settings, secrets: { ...receiver.secrets, ADMIN_TOKEN } });
after(async () => {
  await stop();
  await receiver.stop();
});

let number = 0;
/** A name that no other test has. */
let name = "";
beforeEach(async () => {
  store.faults.clear();
  await receiver.take(worker);
  name = `Ada ${++number}`;
});

const take = () => receiver.take(worker);
/** @param {string} method @param {string} path @param {unknown} [body] */
const ask = (method, path, body) => worker.visitor().tell(method, `/admin${path}`, body, admin);

/** A user who has registered, of which nothing is to be told any more. */
async function registered() {
  const visitor = worker.visitor();
  const answer = await visitor.register(name, RIGHT);
  assert.equal(answer.status, 201, answer.text);
  await take();
  const { id } = answer.json.session.user;
  return { visitor, id, user: { id, name } };
}

/** The only event there was, without its id and time. */
async function only() {
  const events = await take();
  assert.equal(events.length, 1, JSON.stringify(events));
  const { id: _id, at, ...rest } = /** @type {import("./support/receiver.mjs").Event} */ (events[0]);
  assert.ok(Math.abs(Date.parse(at) - Date.now()) < 600_000, at);
  return rest;
}

test("an account that was made is told, whoever made it", async () => {
  const answer = await worker.visitor().register(name, RIGHT);
  const { id } = answer.json.session.user;
  assert.deepEqual(await only(), { type: "user.registered", user: { id, name } });
  const made = await ask("POST", "/users", { username: `${name} B`, roles: ["staff"] });
  assert.equal(made.status, 201);
  assert.deepEqual(await only(), { type: "user.registered", user: { id: made.json.id, name: `${name} B` } });
});

test("a login from a device that the account does not know is told with what the device list shows", async () => {
  const { user } = await registered();
  const phone = worker.visitor();
  const { json } = await phone.login(name, RIGHT, { headers: PHONE });
  const told = { type: "user.new_device", user, handle: json.session.handle };
  assert.deepEqual(await only(), { ...told, user_agent: "Phone", ip: "203.0.113.0" });
});

test("a login from a known device, or over a live session of the same user, is not told", async () => {
  const { visitor } = await registered();
  await visitor.logout();
  assert.equal((await visitor.login(name, RIGHT)).status, 200, "it has the device's cookie");
  const session = worker.visitor();
  session.ticket = visitor.ticket;
  assert.equal((await session.login(name, RIGHT)).status, 200, "it has the session's alone");
  assert.deepEqual(await take(), []);
});

test("a login over somebody else's session is told", async () => {
  const { visitor } = await registered();
  name = `${name} B`;
  const { user } = await registered();
  const stranger = worker.visitor();
  stranger.ticket = visitor.ticket;
  await stranger.login(name, RIGHT);
  const { type, user: told } = await only();
  assert.deepEqual([type, told], ["user.new_device", user]);
});

test("another password is told, and the other devices are new ones from then on", async () => {
  const { visitor, user } = await registered();
  const phone = worker.visitor();
  await phone.login(name, RIGHT);
  await take();
  assert.equal((await visitor.tell("POST", "/password", { current: RIGHT, new: OTHER })).status, 200);
  assert.deepEqual(await only(), { type: "user.password_changed", user });
  assert.equal((await phone.login(name, OTHER)).status, 200);
  assert.equal((await only()).type, "user.new_device");
  await visitor.logout();
  assert.equal((await visitor.login(name, OTHER)).status, 200);
  assert.deepEqual(await take(), [], "the one that changed it is known");
});

test("a reset is told with the token that opens it, and what it comes to as another password", async () => {
  const { id, user } = await registered();
  const { json, status } = await ask("POST", `/users/${id}/reset`);
  assert.equal(status, 201);
  assert.deepEqual(await only(), { type: "user.reset_requested", user, ...json });
  assert.equal(
    (await worker.visitor().tell("POST", "/reset", { token: json.token, new: OTHER })).status,
    200,
  );
  assert.deepEqual(await only(), { type: "user.password_changed", user });
});

test("that an account is disabled, enabled, deleted is told once, and not when nothing changes", async () => {
  const { id, user } = await registered();
  const change = async (/** @type {boolean} */ disabled) =>
    assert.equal((await ask("PATCH", `/users/${id}`, { disabled })).status, 200);
  await change(false);
  assert.deepEqual(await take(), []);
  for (const [disabled, type] of /** @type {[boolean, string][]} */ ([
    [true, "user.disabled"],
    [false, "user.enabled"],
  ])) {
    await change(disabled);
    await change(disabled);
    assert.deepEqual(await only(), { type, user });
  }
  assert.equal((await ask("DELETE", `/users/${id}`)).status, 204);
  assert.equal((await ask("DELETE", `/users/${id}`)).status, 404);
  assert.deepEqual(await only(), { type: "user.deleted", user });
});

test("that its owner has deleted an account is told", async () => {
  const { visitor, user } = await registered();
  assert.equal((await visitor.tell("DELETE", "/account", { password: RIGHT })).status, 204);
  assert.deepEqual(await only(), { type: "user.deleted", user });
});

test("what was done is told although the answer is a failure, and a repetition does not tell it again", async () => {
  const { id, user } = await registered();
  store.faults.always("refuse", {
    when: ({ commands }) => commands.some(([, key]) => key?.endsWith(":standing")),
  });
  const failed = await ask("PATCH", `/users/${id}`, { disabled: true });
  assert.equal(failed.status, 503, failed.text);
  store.faults.clear();
  assert.deepEqual(await only(), { type: "user.disabled", user });
  assert.equal((await ask("PATCH", `/users/${id}`, { disabled: true })).status, 200);
  assert.deepEqual(await take(), []);
});

test("nothing is told of what was refused", async () => {
  const { visitor, id } = await registered();
  const stranger = worker.visitor();
  for (const [answer, status] of /** @type {[Promise<{ status: number }>, number][]} */ ([
    [stranger.login(name, OTHER), 401],
    [stranger.register(name, RIGHT), 409],
    [stranger.register(`${name} B`, "short"), 422],
    [stranger.tell("POST", "/reset", { token: "A".repeat(64), new: OTHER }), 401],
    [visitor.tell("POST", "/password", { current: OTHER, new: OTHER }), 401],
    [visitor.tell("DELETE", "/account", { password: OTHER }), 401],
    [visitor.tell("POST", "/reauthenticate", { password: RIGHT }), 200],
    [ask("POST", "/users", { username: name }), 409],
    [ask("POST", "/users/nobody/reset"), 404],
    [ask("PATCH", "/users/nobody", { disabled: true }), 404],
    [ask("DELETE", "/users/nobody"), 404],
    [ask("PUT", `/users/${id}/roles`, { roles: ["staff"] }), 204],
    [ask("POST", "/sessions", { user: { id: "elsewhere" } }), 201],
  ])) {
    assert.equal((await answer).status, status);
  }
  assert.deepEqual(await take(), []);
});

test("the use of an old id after its grace is told, with the user if there is one", async () => {
  const { visitor, user } = await registered();
  const guest = worker.visitor();
  await guest.merge({ a: 1 });
  const thieves = [visitor.clone(), guest.clone()];
  const handles = [];
  for (const victim of [visitor, guest]) {
    await victim.rotate();
    handles.push((await victim.session()).handle);
  }
  await worker.idle();
  await worker.moveClock(60_000);
  await take();
  for (const [index, thief] of thieves.entries()) {
    assert.equal(await thief.session(), null);
    const told = { type: "session.reuse_detected", user: index === 0 ? user : null };
    assert.deepEqual(await only(), { ...told, handle: handles[index] });
    assert.equal(await thief.session(), null);
    assert.deepEqual(await take(), [], "it has ended already");
  }
});

test("no event but a reset holds a secret, and no log holds anything of an event", async () => {
  const { visitor, id } = await registered();
  const secrets = [RIGHT, OTHER, ADMIN_TOKEN, receiver.secret];
  await worker.visitor().login(name, RIGHT);
  await visitor.tell("POST", "/password", { current: RIGHT, new: OTHER });
  const { token } = (await ask("POST", `/users/${id}/reset`)).json;
  await ask("PATCH", `/users/${id}`, { disabled: true });
  await ask("DELETE", `/users/${id}`);
  secrets.push(...visitor.cookies.values());
  const events = await take();
  assert.equal(events.length, 5);
  for (const event of events) {
    const text = JSON.stringify(event);
    assert.ok(!secrets.some((secret) => text.includes(secret)), text);
    assert.equal(text.includes(token), event.type === "user.reset_requested", text);
    assert.doesNotMatch(text, /\$argon2id|roles/);
  }
  const logs = worker.logs.join("");
  for (const secret of [...secrets, token, name, id, receiver.url]) assert.ok(!logs.includes(secret), logs);
});
