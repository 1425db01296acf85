/** The client against the Worker: what each call does, what it costs, and what it weighs. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { CloakroomError } from "../client/src/index.js";
import { bundle, cookieJar, failure, page, startBehindProxy } from "./support/client.mjs";
import { FAST_HASH, randomSecret } from "./support/worker.mjs";

const ADMIN_TOKEN = randomSecret();
const { proxy } = await startBehindProxy({ settings: { password: FAST_HASH }, secrets: { ADMIN_TOKEN } });

const PASSWORD = "correct horse";
let number = 0;
/** Credentials of an account that is not there yet. */
const someone = () => ({ username: `Client ${(number += 1)}`, password: PASSWORD });

/** A page whose visitor is logged in. */
async function loggedIn() {
  const client = page(proxy.url);
  const credentials = someone();
  await client.register(credentials);
  proxy.clear();
  return { client, credentials };
}

test("weighs at most 3.2 KB, minified and gzipped", async (t) => {
  const size = async (/** @type {boolean} */ minify) =>
    gzipSync(await bundle({ minify }), { level: 9 }).length;
  t.diagnostic(`${await size(true)} bytes, ${await size(false)} if it is not minified`);
  assert.ok((await size(true)) <= 3276, `${await size(true)} bytes`);
});

describe("a session", () => {
  test("is null until the first change, which begins it", async () => {
    const client = page(proxy.url);
    assert.equal(await client.session(), null);
    const session = await client.merge({ cart: ["tea"] });
    assert.deepEqual([session.user, session.data], [null, { cart: ["tea"] }]);
    assert.match(session.etag, /^".+"$/);
    assert.deepEqual(await client.session(), session);
    assert.deepEqual(client.current, session);
    assert.deepEqual(proxy.took(), ["GET session", "PATCH session/data", "GET session"]);
  });

  test("is changed by a JSON Patch, by a merge patch, and by counting", async () => {
    const client = page(proxy.url);
    await client.patch([{ op: "add", path: "/cart", value: ["tea"] }]);
    await client.merge({ theme: "dark" });
    await client.increment("/views");
    const { data } = await client.increment("/views", 41);
    assert.deepEqual(data, { cart: ["tea"], theme: "dark", views: 42 });
    assert.equal(proxy.took().length, 4, "a request for each");
  });

  test("is changed only in the state that ifMatch names, only if it is there, or only if it is not", async () => {
    const client = page(proxy.url);
    assert.equal((await failure(client.merge({ a: 1 }, { ifMatch: "*" }))).code, "precondition_failed");
    const first = await client.merge({ a: 1 }, { ifMatch: null });
    assert.equal((await failure(client.merge({ a: 2 }, { ifMatch: null }))).code, "precondition_failed");
    await client.merge({ a: 3 }, { ifMatch: first.etag });
    assert.equal(
      (await failure(client.merge({ a: 4 }, { ifMatch: first.etag }))).code,
      "precondition_failed",
    );
    assert.deepEqual((await client.merge({ b: 5 }, { ifMatch: "*" })).data, { a: 3, b: 5 });
  });

  test("has another id after a rotation, and is gone after a logout", async () => {
    const client = page(proxy.url);
    const { handle } = await client.merge({ a: 1 });
    const rotated = await client.rotate();
    assert.notEqual(rotated.handle, handle);
    assert.equal(await client.logout(), undefined);
    assert.equal(client.current, null);
    assert.equal(await client.session(), null);
    await client.logout();
  });
});

describe("an update", () => {
  test("reads, and sends what differs: by changing its copy, or with new data", async () => {
    const client = page(proxy.url);
    await client.update((data) => void (data.views = 1));
    await client.update((data, session) => ({ ...data, cart: ["tea"], began: session?.created_at }));
    proxy.clear();
    const session = await client.update(async (data) => void data.cart.push("cake"));
    assert.deepEqual(session?.data.cart, ["tea", "cake"]);
    assert.deepEqual(JSON.parse(proxy.seen[1].body), [{ op: "add", path: "/cart/1", value: "cake" }]);
    assert.deepEqual(proxy.took(), ["GET session", "PATCH session/data"]);
  });

  test("that changes nothing sends nothing", async () => {
    const client = page(proxy.url);
    assert.equal(await client.update(() => {}), null);
    const before = await client.merge({ a: { b: [1, { c: 2 }] } });
    assert.deepEqual(await client.update((data) => structuredClone(data)), before);
    assert.deepEqual(proxy.took(), ["GET session", "PATCH session/data", "GET session"]);
  });

  test("makes any document of any other", async () => {
    const client = page(proxy.url);
    const documents = [
      { a: [1, 2, 3, 4, 5], "x/y~z": { "": null } },
      { a: [2, 3], "x/y~z": { "": [null, {}] }, b: "" },
      { a: { 0: 1 }, "~1": false, constructor: 1, toString: {} },
      JSON.parse('{"a": [[1], [2, [3]]], "__proto__": {"a": 1}, "constructor": {}}'),
      JSON.parse('{"a": [[], [2, [4]], null], "__proto__": {"a": [1]}, "constructor": []}'),
      {},
      { list: Array.from({ length: 1500 }, (_, i) => i) },
      { list: Array.from({ length: 1500 }, (_, i) => -i - 1) },
    ];
    for (const document of documents) {
      const session = await client.update(() => document);
      assert.deepEqual(session?.data, document);
      assert.deepEqual((await client.session())?.data, document);
    }
  });

  test("leaves numbers alone that JavaScript cannot hold", async () => {
    const jar = cookieJar();
    const client = page(proxy.url, {}, jar);
    await client.merge({ other: 1 });
    const init = {
      method: "PATCH",
      headers: { "content-type": "application/json" },
      body: '{"big":9007199254740993,"list":[9007199254740993,1]}',
    };
    await jar.fetch(`${proxy.url}/auth/session/data`, init);
    await client.update((data) => void ((data.other = 2), data.list.push(2)));
    const text = await (await jar.fetch(`${proxy.url}/auth/session`, {})).text();
    for (const part of ['"big":9007199254740993', '"list":[9007199254740993,1,2]', '"other":2'])
      assert.ok(text.includes(part), text);
  });

  test("of many at once loses none, and counts none twice", async () => {
    const jar = cookieJar();
    const clients = [1, 2, 3].map(() => page(proxy.url, {}, jar));
    await clients[0].merge({ n: 0 });
    const add = (/** @type {any} */ data) => void (data.n += 1);
    await Promise.all([...clients, ...clients].map((client) => client.update(add)));
    assert.equal((await clients[0].session())?.data.n, 6);
  });

  test("whose function throws changes nothing, and throws the same", async () => {
    const client = page(proxy.url);
    const oops = new Error("oops");
    assert.equal(await failure(client.update(() => Promise.reject(oops))), oops);
    assert.equal(await client.session(), null);
  });
});

describe("an account", () => {
  test("is registered, logged in to, proven again, given another password, and deleted", async () => {
    const client = page(proxy.url);
    const { username, password } = someone();
    await client.merge({ cart: 1 });
    const registered = await client.register({ username, password });
    assert.deepEqual([registered.user?.name, registered.data], [username, { cart: 1 }]);
    await client.logout();
    const session = await client.login({ username, password, remember: true });
    assert.ok(session.remember);
    assert.equal((await client.reauthenticate(password)).user?.name, username);
    await client.changePassword({ current: password, new: "battery staple" });
    assert.deepEqual(await client.profile(), {});
    assert.deepEqual(await client.updateProfile({ city: "London" }), { city: "London" });
    assert.deepEqual(await client.profile(), { city: "London" });
    assert.equal(await client.deleteAccount("battery staple"), undefined);
    assert.equal(client.current, null);
    assert.equal(await client.session(), null);
    assert.equal(proxy.took().length, 11, "a request for each");
  });

  test("gets another password by the token of a reset, once", async () => {
    const { client, credentials } = await loggedIn();
    const id = (await client.session())?.user?.id;
    const answer = await fetch(`${proxy.url}/auth/admin/users/${id}/reset`, {
      method: "POST",
      headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
    });
    const { token } = await answer.json();
    const other = page(proxy.url);
    const session = await other.resetPassword({ token, new: "battery staple" });
    assert.equal(session.user?.name, credentials.username);
    assert.equal(await client.session(), null, "every other session has ended");
    const again = await failure(other.resetPassword({ token, new: "battery staple" }));
    assert.deepEqual([again.code, (await other.session())?.user?.id], ["invalid_credentials", id]);
  });

  test("has devices, which are listed and ended", async () => {
    const { client, credentials } = await loggedIn();
    const [phone, tablet] = [page(proxy.url), page(proxy.url)];
    await Promise.all([phone.login(credentials), tablet.login(credentials)]);
    const devices = await client.devices();
    assert.deepEqual(devices.map(({ current }) => current).sort(), [false, false, true]);
    await client.endDevice(String((await phone.session())?.handle));
    assert.equal(await phone.session(), null);
    await client.endDevices({ keepCurrent: true });
    assert.equal(await tablet.session(), null);
    assert.equal((await client.devices()).length, 1);
    await client.endDevice(String(client.current?.handle));
    assert.equal(client.current, null);
    await client.login(credentials);
    await client.endDevices();
    assert.equal(client.current, null);
    assert.equal(await client.session(), null);
  });

  test("refuses with the Worker's code, status and detail, and nothing was done", async () => {
    const { client, credentials } = await loggedIn();
    for (const [call, code, status] of /** @type {[() => Promise<unknown>, string, number][]} */ ([
      [() => page(proxy.url).login({ ...credentials, password: "wrong horse" }), "invalid_credentials", 401],
      [() => page(proxy.url).register(credentials), "conflict", 409],
      [() => page(proxy.url).register({ ...someone(), password: "short" }), "unprocessable", 422],
      [() => page(proxy.url).devices(), "unauthenticated", 401],
      [() => page(proxy.url).rotate(), "unauthenticated", 401],
      [() => client.patch([{ op: "remove", path: "/nothing" }]), "unprocessable", 422],
      [() => client.endDevice("../logout"), "not_found", 404],
    ])) {
      const error = await failure(call());
      assert.equal(error.constructor, CloakroomError);
      assert.deepEqual([error.name, error.code, error.status], ["CloakroomError", code, status]);
      assert.equal(error.message, error.detail);
      assert.equal(error.maybeDone, false);
      assert.ok(!JSON.stringify(error).includes(PASSWORD));
    }
    assert.ok(await client.session());
  });
});

describe("those who listen", () => {
  test("hear the newest session of each call that changes it, once", async () => {
    const { client, credentials } = await loggedIn();
    /** @type {any[]} */
    const heard = [];
    const stop = client.onChange((session) => heard.push(session && [session.user?.name, session.data]));
    await client.merge({ a: 1 });
    await client.merge({ a: 1 });
    await client.session();
    await client.logout();
    await client.session();
    await client.login(credentials);
    await client.updateProfile({ city: "London" });
    const name = credentials.username;
    assert.deepEqual(heard, [[name, { a: 1 }], null, [name, {}]]);
    stop();
    await client.merge({ a: 2 });
    assert.equal(heard.length, 3);
  });

  test("are told at once what is there, if nothing is known", async () => {
    const jar = cookieJar();
    await page(proxy.url, {}, jar).merge({ a: 1 });
    proxy.clear();
    const client = page(proxy.url, {}, jar);
    const session = await new Promise((resolve) => client.onChange(resolve));
    assert.deepEqual(session.data, { a: 1 });
    assert.deepEqual(proxy.took(), ["GET session"]);
  });

  test("end at the newest when answers overtake each other: it is looked again, once", async () => {
    const client = page(proxy.url);
    await client.merge({ a: 0 });
    /** @type {any[]} */
    const heard = [];
    client.onChange((session) => heard.push(session?.data));
    let release = () => {};
    const until = new Promise((resolve) => (release = () => resolve(undefined)));
    proxy.clear();
    proxy.next(/PATCH/, { kind: "late", until });
    const late = client.merge({ a: 1 });
    while (!proxy.seen.length) await new Promise(setImmediate);
    // The first is made, but not answered.
    while ((await client.session())?.data.a !== 1);
    await client.merge({ b: 2 });
    proxy.took();
    release();
    await late;
    while (!proxy.seen.length) await new Promise(setImmediate);
    await client.session();
    assert.deepEqual(heard.at(-1), { a: 1, b: 2 });
    assert.ok(heard.filter((data) => data.b).length === 1, "never back to the older one");
    assert.deepEqual(proxy.took(), ["GET session", "GET session"]);
  });

  test("do no harm to a call when they throw", async () => {
    const client = page(proxy.url);
    const thrown = new Promise((resolve) => process.setUncaughtExceptionCaptureCallback(resolve));
    client.onChange(() => {
      throw new Error("of a listener");
    });
    assert.deepEqual((await client.merge({ a: 1 })).data, { a: 1 });
    assert.match(String(await thrown), /of a listener/);
    process.setUncaughtExceptionCaptureCallback(null);
  });
});
