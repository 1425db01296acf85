/** An account with a password is tied to providers: from then on its owner can log in there, too. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { test } from "node:test";
import {
  assertRefused,
  assertSentTo,
  begin,
  goThere,
  linked,
  logIn,
  operate,
  owner,
  PASSWORD,
  receiver,
  settings,
  somebody,
  someone,
  start,
  store,
  tie,
  untie,
  workers,
} from "./support/links.mjs";

/** The keys that tie identities. */
const linkKeys = async () =>
  (await store.redis.keys("*")).map(String).filter((key) => key.endsWith(":linked"));

test("a tied account can be entered from the provider: the same id, name and roles, not those of there", async () => {
  const { visitor, name, id } = await owner();
  await operate("PUT", `/users/${id}/roles`, { roles: ["editor"] });
  const sub = somebody();
  const before = await visitor.session();
  assertSentTo(await tie(visitor, sub), "/account");
  assert.deepEqual(await visitor.session(), before, "the session stays as it is");
  assert.deepEqual(await linked(visitor), ["acme"]);
  const { user, answer } = await logIn(sub);
  assertSentTo(answer, "/home");
  assert.deepEqual(user, { id, name, roles: ["editor"] });
});

test("a login with it is one of the account's: it carries data over, is in the list, and shows the provider", async () => {
  const { visitor } = await owner();
  const sub = somebody();
  await tie(visitor, sub);
  const guest = someone();
  await guest.merge({ cart: ["coat"] });
  await logIn(sub, guest);
  assert.deepEqual((await guest.session()).data, { cart: ["coat"] });
  const { sessions } = (await visitor.send("GET", "/auth/sessions")).json;
  assert.deepEqual(sessions.map((/** @type {any} */ one) => one.provider).sort(), ["acme", undefined]);
  // Over a session of the account's: the data stays, and the id is another.
  await guest.merge({ cart: ["hat"] });
  const old = guest.clone();
  await logIn(sub, guest);
  assert.deepEqual((await guest.session()).data, { cart: ["hat"] });
  assert.equal(await old.session(), null);
});

test("the address to go to is in the body, as a page's fetch cannot follow it, and the cookie beside it", async () => {
  const { visitor } = await owner();
  const answer = await visitor.send("POST", "/auth/link/acme?return_to=%2Faccount%3Ftab%3D1%23top");
  assert.equal(answer.status, 200, answer.text);
  assert.deepEqual(Object.keys(answer.json), ["location"]);
  assert.match(answer.setCookies.join(), /^__Host-session-login-[0-3]=.*; HttpOnly; .*Max-Age=600$/);
  assertSentTo(await visitor.send("GET", goThere(answer.json.location, somebody())), "/account?tab=1#top");
  assert.ok(![...visitor.cookies.keys()].some((key) => key.includes("-login")), "nothing is left over");
});

test("to tie and to untie again and again does no harm", async () => {
  const { visitor } = await owner();
  const sub = somebody();
  for (let round = 0; round < 2; round += 1) {
    for (let time = 0; time < 2; time += 1) assertSentTo(await tie(visitor, sub), "/account");
    assert.deepEqual(await linked(visitor), ["acme"]);
    for (let time = 0; time < 2; time += 1) assert.equal((await untie(visitor)).status, 204);
    assert.deepEqual(await linked(visitor), []);
    assert.equal((await logIn(sub)).user.id, `acme:${sub}`, "a user of the provider's again");
  }
});

test("an account has one identity of each provider, and as many providers as it likes", async () => {
  const { visitor, id } = await owner();
  const [sub, other] = [somebody(), somebody()];
  await tie(visitor, sub);
  await tie(visitor, other, "other");
  assert.deepEqual(await linked(visitor), ["acme", "other"]);
  assertSentTo(await tie(visitor, somebody()), "/account?login_error=already_linked");
  for (const [id_, who] of /** @type {const} */ ([
    ["acme", sub],
    ["other", other],
  ]))
    assert.equal((await logIn(who, someone(), { id: id_ })).user.id, id);
  assert.equal((await untie(visitor, "other")).status, 204);
  assert.deepEqual(await linked(visitor), ["acme"]);
  // Who is somebody at one provider is nobody's at the other.
  assert.equal((await logIn(sub, someone(), { id: "other" })).user.id, `other:${sub}`);
});

test("an identity is tied to one account, until that lets it go", async () => {
  const [ada, bob] = [await owner(), await owner()];
  const sub = somebody();
  await tie(ada.visitor, sub);
  const before = await bob.visitor.session();
  assertSentTo(await tie(bob.visitor, sub), "/account?login_error=already_linked");
  assert.deepEqual([await bob.visitor.session(), await linked(bob.visitor)], [before, []]);
  assert.equal((await logIn(sub)).user.id, ada.id);
  await untie(ada.visitor);
  assertSentTo(await tie(bob.visitor, sub), "/account");
  assert.equal((await logIn(sub)).user.id, bob.id);
  assert.equal((await untie(ada.visitor)).status, 204, "it has nothing to untie");
  assert.equal((await logIn(sub)).user.id, bob.id);
});

test("a deleted account leaves nothing behind, and its name gets none of its identities", async () => {
  for (const by of ["owner", "operator"]) {
    const { visitor, id, name } = await owner();
    const [sub, other] = [somebody(), somebody()];
    const keys = await linkKeys();
    await tie(visitor, sub);
    await tie(visitor, other, "other");
    assert.equal((await linkKeys()).length, keys.length + 2);
    const answer =
      by === "owner"
        ? await visitor.tell("DELETE", "/account", { password: PASSWORD })
        : await operate("DELETE", `/users/${id}`);
    assert.equal(answer.status, 204, answer.text);
    assert.deepEqual((await linkKeys()).sort(), keys.sort());
    const next = await owner(name);
    assert.equal((await logIn(sub)).user.id, `acme:${sub}`);
    assertSentTo(await tie(next.visitor, sub), "/account");
    assert.equal((await logIn(sub)).user.id, next.id);
  }
});

test("another password, by its owner or by a reset, keeps what is tied", async () => {
  const { visitor, id } = await owner();
  const sub = somebody();
  await tie(visitor, sub);
  const changed = await visitor.tell("POST", "/password", { current: PASSWORD, new: "another horse" });
  assert.equal(changed.status, 200, changed.text);
  assert.equal((await logIn(sub)).user.id, id);
  const { token } = (await operate("POST", `/users/${id}/reset`)).json;
  assert.equal((await someone().tell("POST", "/reset", { token, new: "a third horse" })).status, 200);
  assert.equal((await logIn(sub)).user.id, id);
});

test("an operator sees which providers an account is tied to, and not who its owner is there", async () => {
  const { visitor, id } = await owner();
  const sub = somebody();
  assert.ok(!("providers" in (await operate("GET", `/users/${id}`)).json));
  await tie(visitor, sub);
  const answer = await operate("GET", `/users/${id}`);
  assert.deepEqual(answer.json.providers, ["acme"]);
  assert.ok(!answer.text.includes(sub));
});

test("a new device is told of once, and is known from then on, also to a login with the password", async () => {
  const { visitor, name, id } = await owner();
  const sub = somebody();
  await tie(visitor, sub);
  for (const worker of workers) await receiver.take(worker);
  const events = async () => (await Promise.all(workers.map((worker) => receiver.take(worker)))).flat();
  const { visitor: phone, answer } = await logIn(sub);
  const [event, ...more] = await events();
  assert.deepEqual([event.type, event.user.id, more], ["user.new_device", id, []]);
  assert.equal(event.handle, (await phone.session()).handle);
  assert.ok(answer.setCookies.some((line) => line.startsWith("__Host-session-device=")));
  await phone.logout();
  const again = await logIn(sub, phone);
  assert.ok(!again.answer.setCookies.some((line) => line.startsWith("__Host-session-device=")));
  await phone.logout();
  assert.equal((await phone.login(name, PASSWORD)).status, 200);
  assert.deepEqual(await events(), []);
});

test("a user of a provider's has nothing to tie, and is told why", async () => {
  const { visitor } = await logIn(somebody());
  for (const method of ["POST", "DELETE"])
    for (const id of ["acme", "other"]) {
      const answer = await visitor.send(method, `/auth/link/${id}`);
      assertRefused(answer, 409, "conflict");
      assert.match(answer.json.detail, /only way to log in/);
    }
  assert.deepEqual(await linked(visitor), ["acme"]);
});

test("an account without a password keeps its last way to log in", async () => {
  const username = `No password ${somebody()}`;
  const { json } = await operate("POST", "/users", { username });
  const created = await operate("POST", "/sessions", { user: { id: json.id, name: username } });
  const visitor = someone();
  visitor.accept(created.json.set_cookie);
  const [sub, other] = [somebody(), somebody()];
  assertSentTo(await tie(visitor, sub), "/account");
  assertRefused(await untie(visitor), 409, "conflict");
  assertSentTo(await tie(visitor, other, "other"), "/account");
  assert.equal((await untie(visitor)).status, 204);
  assertRefused(await untie(visitor, "other"), 409, "conflict");
  assert.equal((await logIn(other, someone(), { id: "other" })).user.id, json.id);
});

test("what cannot be tied is refused before anybody is sent anywhere", async () => {
  const { visitor } = await owner();
  const guest = someone();
  await guest.merge({ a: 1 });
  for (const [who, method, path, status, code] of /** @type {const} */ ([
    [someone(), "POST", "acme", 401, "unauthenticated"],
    [someone(), "DELETE", "acme", 401, "unauthenticated"],
    [guest, "POST", "acme", 401, "unauthenticated"],
    [guest, "DELETE", "acme", 401, "unauthenticated"],
    [visitor, "POST", "nobody", 404, "not_found"],
    [visitor, "DELETE", "nobody", 404, "not_found"],
    [visitor, "POST", "acme?return_to=//evil.example", 400, "bad_request"],
    [visitor, "POST", "acme?return_to=https://evil.example", 400, "bad_request"],
    [visitor, "POST", "acme?fresh=1", 400, "bad_request"],
    [visitor, "GET", "acme", 405, "method_not_allowed"],
    [visitor, "PUT", "acme", 405, "method_not_allowed"],
  ]))
    assertRefused(await who.send(method, `/auth/link/${path}`), status, code);
  const created = await operate("POST", "/sessions", { user: { id: "u-42", name: "Of elsewhere" } });
  const elsewhere = someone();
  elsewhere.accept(created.json.set_cookie);
  for (const method of ["POST", "DELETE"])
    assertRefused(await elsewhere.send(method, "/auth/link/acme"), 404, "not_found");
  const headers = { Authorization: `Bearer ${visitor.ticket}`, "Session-Transport": "bearer" };
  assertRefused(await someone().send("POST", "/auth/link/acme", { headers }), 422, "unprocessable");
  assert.deepEqual(await linked(visitor), []);
});

test("without accounts of its own a deployment ties none, and those that are tied can be entered", async () => {
  const { visitor, id } = await owner();
  const sub = somebody();
  await tie(visitor, sub);
  const worker = await start({ settings: { accounts: { ...settings.accounts, login: false } } });
  assertRefused(await worker.visitor().send("POST", "/auth/link/acme"), 404, "not_found");
  assert.equal((await logIn(sub, worker.visitor())).user.id, id);
});

test("with a key for what is stored nobody reads there who the owner of an account is at the provider", async () => {
  const worker = await start({ secrets: { SESSION_ENCRYPTION_KEY: randomBytes(32).toString("base64") } });
  const { visitor, name, id } = await owner();
  const [early, sub] = [somebody(), somebody()];
  await tie(visitor, early, "other");
  visitor.url = worker.url;
  assertSentTo(await tie(visitor, sub), "/account");
  const stored = String(await store.redis.get(`account:${name.toLowerCase()}`));
  assert.ok(stored.includes("sealed") && !stored.includes(sub) && !stored.includes(early), stored);
  assert.equal((await logIn(sub, worker.visitor())).user.id, id);
  assert.equal((await untie(visitor)).status, 204);
  assert.deepEqual(await linked(visitor), ["other"]);
  assert.equal((await visitor.tell("DELETE", "/account", { password: PASSWORD })).status, 204);
  assert.equal((await logIn(early, worker.visitor(), { id: "other" })).user.id, `other:${early}`);
});

test("a failed login there leads back with what had gone wrong, and nothing is tied", async () => {
  const { visitor } = await owner();
  const back = new URL(goThere(await begin(visitor), somebody()), "http://here");
  back.searchParams.delete("code");
  back.searchParams.set("error", "access_denied");
  const answer = await visitor.send("GET", back.pathname + back.search);
  assertSentTo(answer, "/account?login_error=access_denied");
  assert.deepEqual(await linked(visitor), []);
});
