/** Who is logged in, at Express and at the Worker: where a record holds its user, and who may write there. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import {
  copyOf,
  DAY,
  json,
  keyOf,
  near,
  ok,
  PASSWORD,
  recordAt,
  refused,
  startBeside,
  timeToLive,
} from "./support/express.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */
/** @typedef {import("./support/express.mjs").Someone} Someone */

/** What each place of the user holds after a login: at Express of "ann", at the Worker of an account. */
const POINTERS = /** @type {const} */ ([
  {
    user: "/userId",
    seen: { id: "ann", name: "ann", roles: [] },
    written: (/** @type {any} */ { id }) => ({ userId: id }),
  },
  {
    user: "/user",
    seen: { id: "ann", name: "ANN", roles: ["editor"] },
    written: (/** @type {any} */ { id, name }) => ({ user: { id, name, roles: [] } }),
  },
  {
    user: "/passport/user",
    seen: { id: "ann", name: "ann", roles: [] },
    written: (/** @type {any} */ { id }) => ({ passport: { user: id } }),
  },
]);

/** @param {any} record */
function withoutCookie({ cookie, ...rest }) {
  assert.ok(cookie);
  return rest;
}

for (const { user, seen, written } of POINTERS) {
  describe(`a user at ${user}`, () => {
    /** @type {Beside} */
    let both;
    before(async () => {
      both = await startBeside({ app: { user } });
    });
    after(() => both?.stop());

    async function loggedIn() {
      const who = both.someone();
      await ok(who.atExpress.send("POST", "/login", json({ name: "ann" })));
      return who;
    }

    test("who logs in at Express is known at the Worker", async () => {
      const { atWorker } = await loggedIn();
      assert.deepEqual((await ok(atWorker.look())).user, seen);
      const { status, headers } = await atWorker.send("GET", "/auth/verify");
      assert.deepEqual([status, headers.get("x-session-user")], [200, "ann"]);
    });

    test("who logs in at the Worker is known at Express, and what else was there stays", async () => {
      const { atExpress, atWorker } = both.someone();
      await ok(atExpress.send("PUT", "/session", json({ passport: { strategy: "local" }, cart: ["hat"] })));
      const account = (await ok(atWorker.register("Ada", PASSWORD), 201)).user;
      const record = withoutCookie(await recordAt(both, keyOf(both, atExpress)));
      const { passport } = /** @type {any} */ (written(account));
      assert.deepEqual(record, {
        cart: ["hat"],
        ...written(account),
        passport: { strategy: "local", ...passport },
      });
      assert.equal((await atExpress.send("GET", "/dashboard")).status, 200);
      assert.equal((await atWorker.send("GET", "/auth/verify")).headers.get("x-session-user"), account.id);
      await ok(atExpress.send("POST", "/logout"), 204);
      assert.equal((await atWorker.send("GET", "/auth/verify")).status, 401);
    });

    test("a visitor cannot become somebody, nor change who they are, by a change to the data", async () => {
      const parent = user.slice(0, user.lastIndexOf("/"));
      const top = user.split("/")[1] ?? "";
      const becoming = [
        [{ op: "add", path: user, value: "root" }],
        [{ op: "replace", path: user, value: "root" }],
        [{ op: "add", path: `/${top}`, value: { user: "root", id: "root", roles: ["admin"] } }],
        [{ op: "add", path: "", value: { userId: "root", user: "root", passport: { user: "root" } } }],
        [
          { op: "add", path: "/x", value: { user: "root", id: "root" } },
          { op: "move", from: "/x", path: `/${top}` },
        ],
        [
          { op: "add", path: "/x", value: "root" },
          { op: "copy", from: "/x", path: user },
        ],
        [{ op: "increment", path: user, value: 1 }],
        [{ op: "add", path: `${user}/roles/-`, value: "admin" }],
        parent
          ? { [parent.slice(1)]: { user: "root" } }
          : { [top]: { id: "root", roles: ["admin"], 0: "root" } },
      ];
      const changing = [
        [{ op: "remove", path: user }],
        [{ op: "remove", path: `/${top}` }],
        [{ op: "replace", path: "", value: {} }],
        [{ op: "move", from: user, path: "/elsewhere" }],
        [{ op: "move", from: `/${top}`, path: "/elsewhere" }],
        [{ op: "replace", path: `${user}/id`, value: "root" }],
        { [top]: "root" },
        { [top]: null },
        { [top]: 5 },
      ];
      const [anonymous, known] = [both.someone(), await loggedIn()];
      await ok(anonymous.atWorker.merge({ a: 1 }));
      for (const { who, patches } of [
        { who: anonymous, patches: becoming },
        { who: known, patches: [...becoming, ...changing] },
      ]) {
        const key = keyOf(both, who.atWorker);
        const before = await both.store.redis.get(key);
        for (const patch of patches) await assertRefused(who, patch);
        assert.equal(await both.store.redis.get(key), before);
      }
      // Without a session nothing is begun either.
      const nobody = both.someone();
      for (const patch of becoming) await assertRefused(nobody, patch);
      assert.equal(nobody.atWorker.cookies.size, 0);
      await ok(nobody.atExpress.send("GET", "/dashboard"), 401);
    });

    test("a change beside the user's place is none to it, whatever its name begins with", async () => {
      const { atExpress, atWorker } = await loggedIn();
      const top = user.split("/")[1] ?? "";
      await ok(atWorker.merge({ [`${top}s`]: 1, [top.slice(0, -1)]: 2, nested: { [top]: "root" } }));
      await ok(atWorker.patch([{ op: "copy", from: `/${top}`, path: "/copy" }]));
      await ok(atWorker.patch([{ op: "test", path: `/${top}s`, value: 1 }]));
      assert.equal((await ok(atWorker.look())).user.id, "ann");
      assert.equal((await atExpress.send("GET", "/dashboard")).status, 200);
    });
  });
}

/** A change, a JSON patch or a merge patch, that is refused. @param {Pick<Someone, "atWorker">} who @param {unknown} patch */
async function assertRefused({ atWorker }, patch) {
  const { status, setCookies } = await (Array.isArray(patch) ? atWorker.patch(patch) : atWorker.merge(patch));
  assert.equal(status, 422, JSON.stringify(patch));
  assert.deepEqual(setCookies, []);
}

describe("what stands at the user's place", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside({ app: { user: "/user" } });
  });
  after(() => both?.stop());

  for (const { user, seen } of [
    { user: "ann", seen: { id: "ann", name: "ann", roles: [] } },
    { user: 5, seen: { id: "5", name: "5", roles: [] } },
    { user: 9007199254740991, seen: { id: "9007199254740991", name: "9007199254740991", roles: [] } },
    { user: "Zoë 🧥", seen: { id: "Zoë 🧥", name: "Zoë 🧥", roles: [] } },
    { user: { id: "5", name: "Ann" }, seen: { id: "5", name: "Ann", roles: [] } },
    { user: { id: 5, name: "Ann" }, seen: { id: "5", name: "Ann", roles: [] } },
    { user: { id: "5", name: "Ann", roles: ["admin"] }, seen: { id: "5", name: "Ann", roles: ["admin"] } },
    { user: { id: "5", name: "Ann", email: "ann@x.org", __v: 0 }, seen: { id: "5", name: "Ann", roles: [] } },
    { user: { _id: "5", name: "Ann" }, seen: null },
    { user: { id: null, name: "Ann" }, seen: null },
    { user: {}, seen: null },
    { user: [], seen: null },
    { user: ["ann"], seen: null },
    { user: true, seen: null },
    { user: null, seen: null },
    { user: "", seen: null },
  ]) {
    test(`${JSON.stringify(user)} is ${seen ? `the user ${seen.id}` : "nobody"}`, async () => {
      const { atExpress, atWorker } = both.someone();
      await ok(atExpress.send("PUT", "/session", json({ user, a: 1 })));
      assert.deepEqual((await ok(atWorker.look())).user, seen);
      assert.equal((await atWorker.send("GET", "/auth/verify")).status, seen ? 200 : 401);
      await ok(atWorker.merge({ a: 2 }));
      assert.deepEqual(withoutCookie(await recordAt(both, keyOf(both, atExpress))), { user, a: 2 });
    });
  }

  test("with cookie.writable, nothing else is changed by visitors, nor begun, but read", async () => {
    const writable = ["/cart", "/plan/colour", "/a~1b"];
    const worker = await both.startWorker({ cookie: { writable } });
    const { atExpress, atWorker } = both.someone({ app: both.app, worker });
    const session = { isAdmin: false, plan: { tier: "free", colour: "red" }, "a/b": 1, carts: 1 };
    const refusals = [
      { isAdmin: true },
      { isAdmin: null },
      { other: 1 },
      { carts: 2 },
      { plan: { tier: "gold" } },
      { plan: null },
      { plan: "gold" },
      { cart: ["hat"], other: 1 },
      { a: { b: 2 } },
      [{ op: "replace", path: "", value: { isAdmin: true } }],
      [{ op: "replace", path: "/plan", value: {} }],
      [{ op: "move", from: "/isAdmin", path: "/cart" }],
      [
        { op: "add", path: "/cart", value: { isAdmin: true } },
        { op: "move", from: "/cart", path: "/user" },
      ],
    ];
    // To remove what is not there changes nothing.
    const beginning = refusals.filter((patch) => !/null/.test(JSON.stringify(patch)));
    for (const patch of beginning) await assertRefused({ atWorker }, patch);
    assert.equal(atWorker.cookies.size, 0);
    await ok(atExpress.send("PUT", "/session", json(session)));
    const key = keyOf(both, atExpress);
    const before = await both.store.redis.get(key);
    for (const patch of refusals) await assertRefused({ atWorker }, patch);
    assert.equal(await both.store.redis.get(key), before);

    await ok(atWorker.merge({ plan: { colour: "blue" }, "a/b": { any: "thing" }, cart: ["hat"] }));
    await ok(
      atWorker.patch([
        { op: "add", path: "/cart/-", value: "coat" },
        { op: "remove", path: "/a~1b" },
      ]),
    );
    await ok(atWorker.patch([{ op: "copy", from: "/isAdmin", path: "/cart/0" }]));
    const { "a/b": _, ...rest } = session;
    assert.deepEqual(withoutCookie(await recordAt(both, key)), {
      ...rest,
      plan: { tier: "free", colour: "blue" },
      cart: [false, "hat", "coat"],
    });
  });

  test("a login of which another user takes the place at Express is not a fresh login of theirs", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atWorker.register("Bob", PASSWORD), 201);
    assert.ok((await ok(atWorker.look())).authenticated_at);
    await ok(atExpress.send("POST", "/login/in-place", json({ name: "eve" })));
    const { user, authenticated_at: authenticated } = await ok(atWorker.look());
    assert.deepEqual([user.id, authenticated], ["eve", null]);
  });

  test("over another user's session, a login takes none of their data over", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("POST", "/login", json({ name: "eve" })));
    await ok(atExpress.send("PUT", "/session", json({ secret: "of eve" })));
    const [copy, key] = [copyOf({ atExpress, atWorker }), keyOf(both, atExpress)];
    const { user, data } = await ok(atWorker.register("Cleo", PASSWORD), 201);
    assert.equal(data.secret, undefined);
    assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user.id, user.id);
    assert.equal(await recordAt(both, key), null);
    await ok(copy.atExpress.send("GET", "/dashboard"), 401);
  });

  test("remembered, a session lives for session.remember, at Express too", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atWorker.register("Dora", PASSWORD), 201);
    await ok(atWorker.logout(), 204);
    const login = await atWorker.login("Dora", PASSWORD, { remember: true });
    assert.equal((await ok(login)).remember, true);
    near(Number(/; Max-Age=(\d+)/.exec(login.setCookies.join())?.[1]) * 1000, 30 * DAY);
    const key = keyOf(both, atWorker);
    const { cookie } = await recordAt(both, key);
    assert.equal(cookie.originalMaxAge, 30 * DAY);
    near(Date.parse(cookie.expires) - Date.now(), 30 * DAY);
    near(await timeToLive(both, key), 30 * DAY);
    await both.store.redis.expire(key, 1000);
    await ok(atExpress.send("GET", "/"));
    near(await timeToLive(both, key), 30 * DAY);
  });
});

describe("without a place for the user", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside({ worker: { user: "" } });
  });
  after(() => both?.stop());

  test("nobody is logged in, and a login is refused before anything is made", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
    const { user, data } = await ok(atWorker.look());
    assert.deepEqual([user, data], [null, { userId: "ann" }]);
    const keys = (await both.store.redis.keys("*")).sort();
    for (const path of ["/register", "/login"]) {
      const answer = await atWorker.tell("POST", path, { username: "Ada", password: PASSWORD });
      await refused(answer, 422, "unprocessable");
      assert.deepEqual(answer.setCookies, []);
    }
    assert.deepEqual((await both.store.redis.keys("account*")).sort(), []);
    assert.ok(keys.every((key) => !key.startsWith("account")));
    assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");
  });
});

describe("the place of the cookie's attributes", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside();
  });
  after(() => both?.stop());

  test("no change reaches it, or any member that express-session takes for its own", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("GET", "/"));
    const key = keyOf(both, atExpress);
    const before = await both.store.redis.get(key);
    const reserved = ["id", "req", "touch", "resetMaxAge", "save", "reload", "destroy", "regenerate"];
    const inherited = ["constructor", "toString", "valueOf", "hasOwnProperty", "__proto__"];
    for (const name of ["cookie", ...reserved, ...inherited]) {
      const answers = [
        await atWorker.send("PATCH", "/auth/session/data", {
          headers: { "Content-Type": "application/merge-patch+json" },
          body: `{${JSON.stringify(name)}: {"originalMaxAge": 1}}`,
        }),
        await atWorker.patch([{ op: "add", path: `/${name}`, value: 1 }]),
      ];
      for (const answer of answers) await refused(answer, 422, "unprocessable");
    }
    for (const patch of [
      [{ op: "add", path: "/cookie/originalMaxAge", value: 1 }],
      [{ op: "remove", path: "/cookie" }],
      [{ op: "copy", from: "/cookie", path: "/mine" }],
      [{ op: "test", path: "/cookie/path", value: "/" }],
      [{ op: "move", from: "/views", path: "/cookie" }],
      [{ op: "add", path: "", value: { cookie: {} } }],
    ]) {
      const { status } = await atWorker.patch(patch);
      assert.equal(status, 422, JSON.stringify(patch));
    }
    assert.equal(await both.store.redis.get(key), before);
    // Nested they are names like all others.
    const nested = Object.fromEntries(["cookie", ...reserved].map((name) => [name, 1]));
    await ok(atWorker.merge({ nested }));
    assert.deepEqual((await ok(atExpress.send("GET", "/session"))).data.nested, nested);
  });

  test("a change may replace the whole of the data, and the cookie's attributes stay", async () => {
    const { atExpress, atWorker } = both.someone();
    await ok(atExpress.send("PUT", "/session", json({ a: 1, b: 2 })));
    const { cookie } = await recordAt(both, keyOf(both, atExpress));
    await ok(atWorker.patch([{ op: "replace", path: "", value: { c: 3 } }]));
    assert.deepEqual(await recordAt(both, keyOf(both, atExpress)), { cookie, c: 3 });
  });
});
