/** Whoever logs in at a Flask application is known at the Worker, and the other way round. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startBeside } from "./support/flask-app.mjs";
import { FAST_HASH, randomSecret } from "./support/worker.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {ReturnType<Beside["visitor"]>} Both */

const PASSWORD = "correct horse battery";
const ADMIN_TOKEN = randomSecret();

/** @param {string} user_pointer @param {object} [flask] @param {object} [cookie] */
const beside = (user_pointer, flask, cookie) =>
  startBeside({
    flask,
    cookie: { user_pointer, ...cookie },
    settings: { password: FAST_HASH },
    secrets: { ADMIN_TOKEN },
  });

let accounts = 0;
/** An account of the Worker's, of somebody who is not there any more. @param {Beside} both */
async function account(both) {
  const username = `user-${(accounts += 1)}`;
  const { status, json } = await both.worker.visitor().register(username, PASSWORD);
  assert.equal(status, 201);
  return { username, id: json.session.user.id };
}

/** @param {Visitor} visitor @param {string} path @param {unknown} body */
const post = (visitor, path, body) =>
  visitor.send("POST", path, {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });

/** @param {Visitor} visitor */
const verify = (visitor) => visitor.send("GET", "/auth/verify");

for (const serializer of /** @type {const} */ (["msgpack", "json"])) {
  describe(`with the user's id at /user_id, and ${serializer}`, () => {
    /** @type {Beside} */
    let both;
    before(async () => {
      both = await beside("/user_id", {
        SESSION_SERIALIZATION_FORMAT: serializer,
        SECRET_KEY: "dev",
        SESSION_USE_SIGNER: serializer === "json",
      });
    });
    after(() => both?.stop());

    for (const [what, user_id, id] of /** @type {[string, unknown, string][]} */ ([
      ["text", "ada", "ada"],
      ["a number", 7, "7"],
      ["a large number", 9007199254740991, "9007199254740991"],
      ["in other letters", "ünï 🧥", "ünï 🧥"],
    ])) {
      test(`a login at Flask is one at the Worker: an id that is ${what}`, async () => {
        const visitor = both.visitor();
        await post(visitor.app, "/login", { user_id });
        const session = await visitor.edge.session();
        assert.deepEqual(session.user, { id, name: id, roles: [] });
        const { status, headers } = await verify(visitor.edge);
        assert.equal(status, 200);
        assert.equal(decodeURIComponent(String(headers.get("x-session-user"))), id);
        assert.equal(headers.get("x-session-handle"), session.handle);
        assert.equal(headers.get("x-session-roles"), null);
      });
    }

    for (const user_id of [null, true, [], ["ada"], "", ".", "..", "x".repeat(256), 1.5e300, {}]) {
      test(`nobody is logged in as ${JSON.stringify(user_id).slice(0, 20)}`, async () => {
        const visitor = both.visitor();
        await visitor.app.send("GET", "/");
        await post(visitor.app, "/login", { user_id });
        const { status, json } = await visitor.edge.look();
        if (user_id === 1.5e300) return assert.ok(status === 200);
        assert.deepEqual([status, json.session?.user], [200, null]);
        assert.equal((await verify(visitor.edge)).status, 401);
      });
    }

    test("a login at the Worker is one at Flask, which keeps the cart", async () => {
      const { username, id } = await account(both);
      const visitor = both.visitor();
      await visitor.app.send("POST", "/cart/coat");
      const [old, oldKey] = [visitor.edge.clone(), visitor.key()];
      const { status, json } = await visitor.edge.login(username, PASSWORD);
      assert.equal(status, 200);
      assert.deepEqual([json.session.user.id, json.session.data.cart], [id, { coat: 1 }]);
      assert.ok(json.session.authenticated_at);
      assert.notEqual(visitor.key(), oldKey);
      assert.equal(await both.bytesOf(oldKey), null, "the old id is dead");
      assert.equal((await visitor.app.send("GET", "/dashboard")).text, `Hello, ${id}`);
      assert.deepEqual((await visitor.app.send("POST", "/cart/coat")).json, { coat: 2 });
      assert.match((await visitor.python()).data, new RegExp(`'user_id': '${id}'`));
      assert.equal((await both.flask.at(old).send("GET", "/dashboard")).status, 401);
    });

    test("a login at the Worker without a session begins one, which Flask knows", async () => {
      const { username, id } = await account(both);
      const visitor = both.visitor();
      assert.equal((await visitor.edge.login(username, PASSWORD)).status, 200);
      assert.equal((await visitor.app.send("GET", "/dashboard")).text, `Hello, ${id}`);
    });

    test("a session to be remembered is a permanent one at Flask", async () => {
      const { username } = await account(both);
      for (const [remember, expected] of [
        [true, true],
        [false, false],
      ]) {
        const visitor = both.visitor();
        const { setCookies } = await visitor.edge.login(username, PASSWORD, { remember });
        const [cookie] = setCookies.filter((line) => line.startsWith("session="));
        assert.equal(/; Max-Age=\d/.test(cookie), expected);
        if (remember) assert.equal((await visitor.python()).permanent, true);
      }
    });

    test("registering at the Worker logs in at Flask", async () => {
      const visitor = both.visitor();
      await visitor.app.send("POST", "/cart/coat");
      const username = `new-${randomSecret().slice(0, 8)}`;
      const { status, json } = await visitor.edge.register(username, PASSWORD);
      assert.equal(status, 201, JSON.stringify(json));
      assert.equal((await visitor.app.send("GET", "/dashboard")).text, `Hello, ${json.session.user.id}`);
      assert.deepEqual(json.session.data.cart, { coat: 1 });
    });

    for (const way of ["/logout", "/forget"]) {
      test(`a logout at Flask (${way}) is one at the Worker`, async () => {
        const { username } = await account(both);
        const visitor = both.visitor();
        await visitor.app.send("GET", "/");
        await visitor.edge.login(username, PASSWORD);
        assert.equal((await verify(visitor.edge)).status, 200);
        const old = visitor.edge.clone();
        await visitor.app.send("POST", way);
        for (const one of [visitor.edge, old]) assert.equal((await verify(one)).status, 401);
      });
    }

    test("a logout at the Worker of a user of Flask's is one at Flask", async () => {
      const visitor = both.visitor();
      await post(visitor.app, "/login", { user_id: "ada" });
      const old = visitor.edge.clone();
      assert.equal((await visitor.edge.tell("POST", "/logout", {})).status, 204);
      assert.equal((await both.flask.at(old).send("GET", "/dashboard")).status, 401);
    });

    test("a new id that Flask makes at its login is the one the Worker knows", async () => {
      const visitor = both.visitor();
      await visitor.app.send("GET", "/");
      assert.ok(await visitor.edge.session());
      const old = visitor.edge.clone();
      await post(visitor.app, "/login?regenerate=1", { user_id: "ada" });
      assert.notEqual(visitor.edge.cookies.get("session"), old.cookies.get("session"));
      assert.equal((await visitor.edge.session()).user.id, "ada");
      assert.equal(await old.session(), null);
    });

    test("since when a user is logged in is known of those alone who gave the password to the Worker", async () => {
      const { username } = await account(both);
      const visitor = both.visitor();
      await post(visitor.app, "/login", { user_id: "ada" });
      assert.equal((await visitor.edge.session()).authenticated_at, null);
      assert.equal((await verify(visitor.edge)).headers.get("x-session-authenticated-at"), null);
      await visitor.edge.login(username, PASSWORD);
      assert.ok((await visitor.edge.session()).authenticated_at);
      assert.ok((await verify(visitor.edge)).headers.get("x-session-authenticated-at"));
      await post(visitor.app, "/login", { user_id: "bob" });
      const bob = await visitor.edge.session();
      assert.deepEqual([bob.user.id, bob.authenticated_at], ["bob", null], "not since the one before");
    });

    test("a login at the Worker over another user's session of Flask's takes nothing of it along", async () => {
      const { username, id } = await account(both);
      const visitor = both.visitor();
      await post(visitor.app, "/login", { user_id: "ada" });
      await visitor.app.send("POST", "/cart/secret");
      const { json } = await visitor.edge.login(username, PASSWORD);
      assert.deepEqual([json.session.user.id, json.session.data.cart], [id, undefined]);
      assert.equal((await visitor.app.send("GET", "/dashboard")).text, `Hello, ${id}`);
    });

    test("a user gives the password again at the Worker, under a new id, and Flask goes on", async () => {
      const { username, id } = await account(both);
      const visitor = both.visitor();
      await visitor.edge.login(username, PASSWORD);
      const key = visitor.key();
      const answer = await visitor.edge.tell("POST", "/reauthenticate", { password: PASSWORD });
      assert.equal(answer.status, 200, answer.text);
      assert.notEqual(visitor.key(), key);
      assert.equal((await visitor.app.send("GET", "/dashboard")).text, `Hello, ${id}`);
    });

    test("a back end begins a session at the Worker, and Flask knows its user", async () => {
      const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };
      const visitor = both.visitor();
      const body = { user: { id: "from-elsewhere" }, data: { cart: { hat: 2 } } };
      const { status, json } = await both.worker.visitor().tell("POST", "/admin/sessions", body, headers);
      assert.equal(status, 201);
      visitor.edge.accept(json.set_cookie);
      assert.equal((await visitor.app.send("GET", "/dashboard")).text, "Hello, from-elsewhere");
      assert.deepEqual((await visitor.app.send("POST", "/cart/hat")).json, { hat: 3 });
    });

    test("an operator looks at a session and ends it by its handle", async () => {
      const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };
      const visitor = both.visitor();
      await post(visitor.app, "/login", { user_id: "ada" });
      const { handle } = await visitor.edge.session();
      const path = `/auth/admin/sessions/${handle}`;
      const seen = await both.worker.visitor().send("GET", path, { headers });
      assert.equal(seen.status, 200, seen.text);
      assert.doesNotMatch(seen.text, new RegExp(visitor.sid()));
      assert.equal((await both.worker.visitor().send("DELETE", path, { headers })).status, 204);
      assert.equal(await visitor.edge.session(), null);
      assert.equal((await both.flask.at(visitor.edge).send("GET", "/dashboard")).status, 401);
    });

    for (const [method, path, body] of /** @type {[string, string, unknown?][]} */ ([
      ["GET", "/auth/sessions"],
      ["DELETE", "/auth/sessions"],
      ["POST", "/auth/password", { current: PASSWORD, new: `${PASSWORD} 2` }],
      ["DELETE", "/auth/account", { password: PASSWORD }],
      ["GET", "/auth/admin/users/ada/sessions"],
      ["DELETE", "/auth/admin/users/ada/sessions"],
      ["PUT", "/auth/admin/users/ada/roles", { roles: [] }],
    ])) {
      test(`what the format cannot do is 422 and changes nothing: ${method} ${path}`, async () => {
        const { username } = await account(both);
        const visitor = both.visitor();
        await visitor.edge.login(username, PASSWORD);
        const headers = {
          "Content-Type": "application/json",
          ...(path.includes("admin") && { Authorization: `Bearer ${ADMIN_TOKEN}` }),
        };
        const sent = body ? { headers, body: JSON.stringify(body) } : { headers };
        const { status, json, setCookies } = await visitor.edge.send(method, path, sent);
        assert.deepEqual([status, json?.code, setCookies], [422, "unprocessable", []]);
        assert.equal((await verify(visitor.edge)).status, 200);
        assert.equal((await both.worker.visitor().login(username, PASSWORD)).status, 200);
      });
    }
  });
}

describe("with flask-login, whose user is at /_user_id", () => {
  /** @type {Record<string, Beside>} */
  const sites = {};
  before(async () => {
    for (const SESSION_PROTECTION of ["basic", "strong"]) {
      sites[SESSION_PROTECTION] = await beside("/_user_id", { SECRET_KEY: "dev", SESSION_PROTECTION });
    }
  });
  after(() => Promise.all(Object.values(sites).map((site) => site.stop())));

  test("a login there is one at the Worker, and so is the logout", async () => {
    const visitor = sites.basic.visitor();
    await post(visitor.app, "/account/login", { user_id: "ada" });
    assert.equal((await visitor.app.send("GET", "/account/sensitive")).status, 200);
    assert.equal((await verify(visitor.edge)).headers.get("x-session-user"), "ada");
    await visitor.edge.merge({ note: 1 });
    assert.equal((await visitor.app.send("GET", "/account/sensitive")).status, 200, "as fresh as before");
    await visitor.app.send("POST", "/account/logout");
    assert.equal((await verify(visitor.edge)).status, 401);
  });

  test("a login at the Worker is one there, but not one it takes for fresh", async () => {
    const { username, id } = await account(sites.basic);
    const visitor = sites.basic.visitor();
    await visitor.edge.login(username, PASSWORD);
    assert.equal((await visitor.app.send("GET", "/account")).text, `Hello, ${id}`);
    assert.equal((await visitor.app.send("GET", "/account/sensitive")).status, 401);
    await visitor.edge.logout();
    assert.equal((await visitor.app.send("GET", "/account")).status, 401);
  });

  test("with the strong protection a login at the Worker holds there if it is remembered", async () => {
    const { username, id } = await account(sites.strong);
    const visitor = sites.strong.visitor();
    await visitor.edge.login(username, PASSWORD, { remember: true });
    assert.equal((await visitor.app.send("GET", "/account")).text, `Hello, ${id}`);
  });
});

describe("without a place for the user", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await beside("");
  });
  after(() => both?.stop());

  test("nobody can log in or register at the Worker, and sessions are nobody's", async () => {
    const visitor = both.visitor();
    await post(visitor.app, "/login", { user_id: "ada" });
    assert.equal((await visitor.edge.session()).user, null);
    for (const answer of [
      await visitor.edge.login("somebody", PASSWORD),
      await visitor.edge.register("somebody", PASSWORD),
    ]) {
      assert.deepEqual([answer.status, answer.json.code, answer.setCookies], [422, "unprocessable", []]);
      assert.match(answer.json.detail, /user_pointer/);
    }
    assert.equal((await visitor.app.send("GET", "/dashboard")).status, 200, "still the session it was");
  });
});
