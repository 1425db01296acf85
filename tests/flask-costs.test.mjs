/** What a request costs beside a Flask application: calls to the store and billed commands, as docs/interop.md says. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startBeside } from "./support/flask-app.mjs";
import { moveToWindow, NO_LIMITS } from "./support/worker.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */
/** @typedef {ReturnType<Beside["visitor"]>} Visitor */

/**
 * What is done, and its calls and commands: all of them, also those after the response. Scripts run other commands, which are
 * billed too. @type {[string, (visitor: Visitor) => Promise<import("./support/visitor.mjs").Answer>, Record<"msgpack" | "json", [number, number]>][]}
 */
const COSTS = [
  ["a read", ({ edge }) => edge.look(), { msgpack: [1, 2], json: [1, 2] }],
  ["verify", ({ edge }) => edge.send("GET", "/auth/verify"), { msgpack: [1, 2], json: [1, 2] }],
  ["a change", ({ edge }) => edge.increment("/views"), { msgpack: [2, 5], json: [2, 3] }],
  ["a new id", ({ edge }) => edge.rotate(), { msgpack: [2, 7], json: [2, 7] }],
  ["a logout", ({ edge }) => edge.logout(), { msgpack: [2, 6], json: [2, 6] }],
];

for (const serializer of /** @type {const} */ (["msgpack", "json"])) {
  describe(`with ${serializer}`, () => {
    /** @type {Beside} */
    let both;
    before(async () => {
      both = await startBeside({
        flask: { SESSION_SERIALIZATION_FORMAT: serializer, SESSION_USE_SIGNER: true, SECRET_KEY: "dev" },
        cookie: { user_pointer: "/user_id" },
        settings: { limits: { ...NO_LIMITS, session: "300/1m" } },
      });
      // Nothing is to end on the way.
      await moveToWindow(both.store, both.workers);
    });
    after(() => both?.stop());

    /** A user of Flask's, whose session was touched already, and counted in this window. */
    async function user() {
      const visitor = both.visitor();
      await visitor.app.send("GET", "/");
      await visitor.app.send("POST", "/login", {
        headers: { "Content-Type": "application/json" },
        body: '{"user_id":"ada"}',
      });
      await visitor.edge.look();
      await both.worker.idle();
      return visitor;
    }

    for (const [what, act, expected] of COSTS) {
      const [calls, commands] = expected[serializer];
      test(`${what}: at most ${calls} calls, ${commands} commands`, async () => {
        const visitor = await user();
        const cost = await both.store.counters.during(async () => {
          const answer = await act(visitor);
          await both.worker.idle();
          return answer;
        });
        assert.ok(cost.value.status < 300, cost.value.text);
        const spent = `${cost.calls} calls, ${cost.commands} commands: ${JSON.stringify(cost.byName)}`;
        assert.ok(cost.calls <= calls && cost.commands <= commands, spent);
      });
    }

    test("a cookie that no secret has signed: none", async () => {
      const { edge } = await user();
      edge.cookies.set("session", `${String(edge.cookies.get("session")).slice(0, -2)}xx`);
      const { calls } = await both.store.counters.during(async () => {
        assert.equal(await edge.session(), null);
        assert.equal((await edge.send("GET", "/auth/verify")).status, 401);
      });
      assert.equal(calls, 0);
    });

    test("a new session: 2 calls at most, and 4 commands", async () => {
      const { value, calls, commands, byName } = await both.store.counters.during(async () => {
        const answer = await both.worker.visitor().merge({ a: 1 });
        await both.worker.idle();
        return answer;
      });
      assert.equal(value.status, 200);
      assert.ok(
        calls <= 2 && commands <= 4,
        `${calls} calls, ${commands} commands: ${JSON.stringify(byName)}`,
      );
    });
  });
}
