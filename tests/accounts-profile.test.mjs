/** What an account says of its user: profile and roles. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  admin,
  assertRefused,
  loggedIn,
  mergeProfile,
  registered,
  RIGHT,
  setRoles,
  someone,
  store,
  two,
} from "./support/accounts.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */

// Profile

test("the profile is separate from the session: it is patched, takes If-Match, and outlives a logout", async () => {
  const visitor = await registered();
  const empty = await visitor.send("GET", "/auth/profile");
  assert.deepEqual([empty.status, empty.json, empty.setCookies], [200, {}, []]);
  assert.match(String(empty.headers.get("content-type")), /^application\/json/);
  const tag = String(empty.headers.get("etag"));
  assert.match(tag, /^"[^"]+"$/);
  const merged = await mergeProfile(visitor, { town: "Zürich", n: 1 }, { "If-Match": tag });
  assert.deepEqual([merged.status, merged.json], [200, { town: "Zürich", n: 1 }]);
  assert.notEqual(merged.headers.get("etag"), tag);
  assertRefused(await mergeProfile(visitor, { n: 5 }, { "If-Match": tag }), 412, "precondition_failed");
  const type = { "Content-Type": "application/json-patch+json" };
  const steps = [
    { op: "test", path: "/n", value: 1 },
    { op: "increment", path: "/n", value: 2 },
    { op: "remove", path: "/town" },
  ];
  assert.deepEqual((await visitor.tell("PATCH", "/profile", steps, type)).json, { n: 3 });
  assertRefused(await visitor.tell("PATCH", "/profile", steps, type), 422, "unprocessable");
  assertRefused(await visitor.tell("PATCH", "/profile", [{ op: "fly" }], type), 400, "bad_request");
  assertRefused(await mergeProfile(visitor, []), 400, "bad_request");
  assertRefused(
    await visitor.tell("PATCH", "/profile", {}, { "Content-Type": "text/plain" }),
    415,
    "unsupported_media_type",
  );
  assertRefused(await mergeProfile(visitor, { big: "x".repeat(70_000) }), 413, "too_large");
  const last = (await visitor.send("GET", "/auth/profile")).headers.get("etag");
  const { id } = (await visitor.session()).user;
  assert.equal((await setRoles(id, { roles: ["staff"] })).status, 204);
  await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" });
  await visitor.tell("POST", "/password", { current: "another horse", new: RIGHT });
  const same = await mergeProfile(visitor, { n: 3 }, { "If-Match": String(last) });
  assert.deepEqual(
    [same.status, same.headers.get("etag")],
    [200, last],
    "what is not the profile is not in its tag",
  );
  await visitor.logout();
  const again = await loggedIn();
  assert.deepEqual((await again.send("GET", "/auth/profile")).json, { n: 3 });
  assert.equal((await again.send("HEAD", "/auth/profile")).status, 200);
});

test("parallel patches of a profile at two isolates lose nothing", async () => {
  const visitor = await registered();
  const type = { "Content-Type": "application/json-patch+json" };
  const add = (/** @type {Visitor} */ one) =>
    one.tell("PATCH", "/profile", [{ op: "increment", path: "/n", value: 1 }], type);
  const answers = await Promise.all(
    Array.from({ length: 16 }, (_, index) => add(visitor.clone(two[index % 2 ? 1 : 0].url))),
  );
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.deepEqual((await visitor.send("GET", "/auth/profile")).json, { n: 16 });
});

// Roles

test("new roles apply from the next request at every isolate, and survive rotations and logins", async () => {
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  const tag = async () => (await visitor.look()).headers.get("etag");
  const before = await tag();
  for (const roles of [["admin"], ["admin", "staff"], ["staff"], []]) {
    const last = await tag();
    assert.equal((await setRoles(id, { roles })).status, 204);
    for (const { url } of two) {
      const here = visitor.clone(url);
      assert.deepEqual((await here.session()).user.roles, roles);
      const verified = await here.send("GET", "/auth/verify?role=admin");
      assert.equal(verified.status, roles.includes("admin") ? 200 : 403);
    }
    const now = await tag();
    assert.notEqual(now, last);
    assert.equal((await setRoles(id, { roles })).status, 204);
    assert.equal(await tag(), now, "the same roles are no change");
    for (const key of await store.redis.keys("user:*:standing")) await store.redis.pExpire(key, 10_000);
    assert.equal((await setRoles(id, { roles })).status, 204);
    const ttls = (await store.redis.keys("user:*:standing")).map((key) => store.redis.pTTL(key));
    assert.ok(Math.max(...(await Promise.all(ttls))) > 10_000, "and last longer all the same");
    const change = await visitor.merge({ roles: roles.length }, { "If-Match": String(now) });
    assert.equal(change.status, 200);
    await visitor.rotate();
    assert.deepEqual((await visitor.session()).user.roles, roles);
    const again = await loggedIn();
    assert.deepEqual((await again.session()).user.roles, roles);
    await again.logout();
    await visitor.tell("POST", "/reauthenticate", { password: RIGHT });
    assert.deepEqual((await visitor.session()).user.roles, roles);
  }
  assert.notEqual(before, null);
  for (const key of await store.redis.keys("user:*:standing")) await store.redis.del(key);
  const kept = await loggedIn();
  assert.deepEqual((await kept.session()).user.roles, [], "the account knows them too");
});

test("after two concurrent changes of roles the account and its sessions agree", async () => {
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  // The earlier change is held before it reads the user's state, or before it writes it.
  for (const [command, roles] of /** @type {const} */ ([
    ["GETEX", "a"],
    ["SET", "b"],
  ])) {
    const held = store.faults.hold(({ commands }) =>
      commands.some(([word, key]) => word === command && key?.endsWith(":standing")),
    );
    const earlier = setRoles(id, { roles: [`${roles} earlier`] });
    await held.arrived;
    assert.equal((await setRoles(id, { roles: [`${roles} later`] })).status, 204);
    held.release();
    assert.equal((await earlier).status, 204);
    assert.deepEqual((await visitor.session()).user.roles, [`${roles} later`]);
    assert.deepEqual((await (await loggedIn()).session()).user.roles, [`${roles} later`]);
  }
});

test("roles are a list of strings, and need an existing account", async () => {
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  for (const body of [
    {},
    [],
    { roles: "admin" },
    { roles: [1] },
    { roles: null },
    { roles: [], role: 1 },
    { roles: ["x".repeat(257)] },
    { roles: Array(101).fill("a") },
  ])
    assertRefused(await setRoles(id, body), 400, "bad_request");
  for (const unknown of ["nobody", `${id}x`, "ä/ö"])
    assertRefused(await setRoles(unknown, { roles: [] }), 404, "not_found");
  assertRefused(
    await someone().tell("PUT", `/admin/users/${id}/roles`, { roles: [] }),
    401,
    "unauthenticated",
  );
  const wrong = await someone().send("GET", `/auth/admin/users/${id}/roles`, { headers: admin });
  assertRefused(wrong, 405, "method_not_allowed");
  assert.equal(wrong.headers.get("allow"), "PUT");
  assert.equal((await visitor.tell("DELETE", "/account", { password: RIGHT })).status, 204);
  assertRefused(await setRoles(id, { roles: ["admin"] }), 404, "not_found");
});
