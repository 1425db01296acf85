/** What a visitor must not write into a session of a Flask application: who they are, and what the operator named. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startBeside } from "./support/flask-app.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */

const OF_MERGES = "application/merge-patch+json";
const OF_PATCHES = "application/json-patch+json";

/** @param {string} path @param {unknown} value */
const add = (path, value) => ({ op: "add", path, value });

/**
 * What visitors may not write (`writable`: all else but this), what is in the record, and patches of which each is to be refused. @type {{ name: string,
 * user_pointer: string, writable?: string[], record: object, merges: unknown[], patches: unknown[][], allowed: [string, unknown][] }[]}
 */
const SITES = [
  {
    name: "a member at the top",
    user_pointer: "/user_id",
    record: { user_id: "ada", cart: { coat: 1 } },
    merges: [{ user_id: "root" }, { user_id: null }, { user_id: { id: "root" } }, { cart: null, user_id: 1 }],
    patches: [
      [add("/user_id", "root")],
      [{ op: "replace", path: "/user_id", value: "root" }],
      [{ op: "remove", path: "/user_id" }],
      [{ op: "move", from: "/cart/coat", path: "/user_id" }],
      [{ op: "copy", from: "/cart/coat", path: "/user_id" }],
      [{ op: "move", from: "/user_id", path: "/cart/user" }],
      [{ op: "increment", path: "/user_id", value: 1 }],
      [add("", { user_id: "root" })],
      [add("", {})],
      [{ op: "replace", path: "", value: { user_id: "root" } }],
      [{ op: "remove", path: "" }],
      [{ op: "copy", from: "/cart", path: "" }],
      [{ op: "move", from: "/cart", path: "" }],
      [add("/cart/coat", 2), add("/user_id", "root")],
      [{ op: "remove", path: "/user_id" }, add("/user_id", "root")],
    ],
    allowed: [
      [OF_MERGES, { cart: { coat: 2 } }],
      [OF_MERGES, { user_id2: "root", User_id: "root" }],
      [OF_PATCHES, [add("/cart/user_id", "x")]],
      [OF_PATCHES, [{ op: "copy", from: "/user_id", path: "/note" }]],
      [OF_PATCHES, [{ op: "test", path: "/user_id", value: "ada" }]],
    ],
  },
  {
    name: "a member that is not there yet",
    user_pointer: "/user_id",
    record: { cart: { coat: 1, user_id: "root" }, theme: "dark" },
    merges: [{ user_id: "root" }, { user_id: 7 }],
    patches: [
      [add("/user_id", "root")],
      [{ op: "move", from: "/cart/user_id", path: "/user_id" }],
      [{ op: "copy", from: "/cart/user_id", path: "/user_id" }],
      [{ op: "move", from: "/cart", path: "" }],
      [{ op: "copy", from: "/cart", path: "" }],
      [{ op: "increment", path: "/user_id", value: 7 }],
      [add("", { user_id: "root" })],
    ],
    allowed: [[OF_MERGES, { cart: null }]],
  },
  {
    name: "a place inside of another",
    user_pointer: "/auth/user/id",
    writable: ["/auth/theme", "/auth/user/name", "/a~1b", "/cart"],
    record: {
      auth: { user: { id: "ada" }, role: "reader", theme: "dark" },
      csrf_token: "t",
      spare: { id: 1 },
    },
    merges: [
      { auth: null },
      { auth: "root" },
      { auth: { user: null } },
      { auth: { user: { id: "root" } } },
      { auth: { role: "admin" } },
      { auth: { user: { name: "Ada", id: "root" } } },
      { csrf_token: "known" },
      { csrf_token: null },
      { cart: { coat: 1 }, is_admin: true },
    ],
    patches: [
      [add("/auth", { user: { id: "root" }, role: "admin" })],
      [add("/auth/user", { id: "root" })],
      [{ op: "replace", path: "/auth/user", value: { id: "root" } }],
      [{ op: "remove", path: "/auth" }],
      [{ op: "move", from: "/spare", path: "/auth/user" }],
      [{ op: "copy", from: "/spare", path: "/auth/user" }],
      [{ op: "move", from: "/auth", path: "/elsewhere" }],
      [{ op: "replace", path: "/auth/role", value: "admin" }],
      [{ op: "increment", path: "/level", value: 1 }],
      [{ op: "move", from: "/csrf_token", path: "/cart" }],
      [{ op: "move", from: "/auth/role", path: "/auth/theme" }],
      [{ op: "copy", from: "/spare", path: "/auth/spare" }],
      [add("/csrf_token", "known")],
      [{ op: "remove", path: "/auth" }, add("/auth", { user: { id: "root" } })],
    ],
    allowed: [
      [OF_MERGES, { auth: { theme: "light" } }],
      [OF_MERGES, { auth: { role: "reader", theme: null }, csrf_token: "t" }],
      [OF_MERGES, { cart: { coat: 1, is_admin: true }, "a/b": [1] }],
      [OF_PATCHES, [{ op: "increment", path: "/cart/coat", value: 1 }]],
      [OF_PATCHES, [add("/auth/user/name", "Ada")]],
    ],
  },
  {
    name: "a place with signs that a pointer escapes",
    user_pointer: "/who~1is~0it",
    record: { "who/is~it": "ada" },
    merges: [{ "who/is~it": "root" }],
    patches: [[add("/who~1is~0it", "root")]],
    allowed: [[OF_MERGES, { "who~1is~0it": "root" }]],
  },
];

for (const serializer of /** @type {const} */ (["msgpack", "json"])) {
  for (const { name, user_pointer, writable, record, merges, patches, allowed } of SITES) {
    describe(`${name}, with ${serializer},`, () => {
      /** @type {Beside} */
      let both;
      before(async () => {
        both = await startBeside({
          flask: { SESSION_SERIALIZATION_FORMAT: serializer },
          cookie: { user_pointer, ...(writable && { writable }) },
        });
      });
      after(() => both?.stop());

      async function victim() {
        const visitor = both.visitor();
        const headers = { "Content-Type": "application/json" };
        const body = JSON.stringify(record);
        assert.equal((await visitor.app.send("PATCH", "/test/session", { headers, body })).status, 204);
        return visitor;
      }

      /** @param {import("./support/visitor.mjs").Visitor} visitor @param {string} type @param {unknown} body */
      const send = (visitor, type, body) =>
        visitor.send("PATCH", "/auth/session/data", {
          headers: { "Content-Type": type },
          body: JSON.stringify(body),
        });

      test("is not for a visitor to change", async () => {
        const visitor = await victim();
        const before = await both.bytesOf(visitor.key());
        const attempts = [
          ...merges.map((merge) => /** @type {const} */ ([OF_MERGES, merge])),
          ...patches.map((patch) => /** @type {const} */ ([OF_PATCHES, patch])),
        ];
        for (const [type, body] of attempts) {
          const { status, json, setCookies } = await send(visitor.edge, type, body);
          const what = JSON.stringify(body);
          assert.deepEqual([status, json.code, setCookies], [422, "unprocessable", []], what);
          assert.deepEqual(await both.bytesOf(visitor.key()), before, what);
        }
      });

      test("is not for a visitor to begin a session with", async () => {
        const keys = (await both.records()).length;
        for (const merge of merges.filter((merge) => !/null/.test(JSON.stringify(merge)))) {
          const visitor = both.visitor();
          const { status, setCookies } = await send(visitor.edge, OF_MERGES, merge);
          assert.deepEqual([status, setCookies], [422, []], JSON.stringify(merge));
        }
        assert.equal((await both.records()).length, keys);
      });

      test("does not keep anybody from changing the rest", async () => {
        const visitor = await victim();
        const user = (await visitor.edge.session()).user;
        for (const [type, body] of allowed) {
          const answer = await send(visitor.edge, type, body);
          assert.equal(answer.status, 200, `${JSON.stringify(body)} ${answer.text}`);
          assert.equal(answer.json.session.user?.id, user?.id);
        }
        assert.equal((await visitor.python()).found, true);
      });
    });
  }
}
