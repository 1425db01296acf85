/** Moving over from Flask: the Worker in its own format takes Flask's sessions over, and nobody is logged out by it. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startBeside } from "./support/flask-app.mjs";
import { NO_LIMITS, until } from "./support/worker.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */
/** @typedef {import("./support/flask-app.mjs").FlaskSettings} FlaskSettings */

const OWN = "__Host-session";

/** @type {Record<string, FlaskSettings>} */
const APPLICATIONS = {
  "msgpack and no signer": {},
  "JSON, the signer and a prefix": {
    SESSION_SERIALIZATION_FORMAT: "json",
    SESSION_USE_SIGNER: true,
    SECRET_KEY: "dev",
    SESSION_KEY_PREFIX: "shop:",
  },
};

for (const [what, flask] of Object.entries(APPLICATIONS)) {
  describe(`from an application with ${what}`, () => {
    /** @type {Beside} */
    let both;
    before(async () => {
      both = await startBeside({ flask, isolates: 2, accept: { user_pointer: "/user_id" } });
    });
    after(() => both?.stop());

    /** A visitor whom Flask has logged in. */
    async function ada() {
      const visitor = both.visitor();
      await visitor.app.send("GET", "/");
      await visitor.app.send("POST", "/login", {
        headers: { "Content-Type": "application/json" },
        body: '{"user_id":"ada"}',
      });
      return visitor;
    }

    test("a session becomes one of the Worker's, with its data and user, and stays Flask's as it was", async () => {
      const visitor = await ada();
      const record = await both.bytesOf(visitor.key());
      const answer = await visitor.edge.look();
      const { user, data } = answer.json.session;
      assert.deepEqual([user.id, data.views, data.user_id], ["ada", 1, "ada"]);
      assert.deepEqual(
        answer.setCookies.map((line) => line.split("=")[0]),
        [OWN],
      );
      assert.deepEqual(await both.bytesOf(visitor.key()), record);
      assert.equal((await visitor.edge.increment("/views", 10)).json.session.data.views, 11);
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 2", "from here on each has its own");
      assert.equal((await visitor.app.send("GET", "/dashboard")).text, "Hello, ada");
    });

    test("all requests with the old cookie lead to the same session, in whichever isolate", async () => {
      const visitor = await ada();
      const answers = await Promise.all(
        Array.from({ length: 12 }, (_, index) =>
          visitor.edge.clone(both.workers[index % 2].url).increment("/n"),
        ),
      );
      const sessions = answers.map(({ json }) => json.session);
      assert.equal(new Set(sessions.map(({ handle }) => handle)).size, 1);
      assert.equal(Math.max(...sessions.map(({ data }) => data.n)), 12);
    });

    test("a logout ends both, and the old cookie does not begin another", async () => {
      const visitor = await ada();
      const old = visitor.edge.clone();
      const key = visitor.key();
      await visitor.edge.look();
      const { status, setCookies } = await visitor.edge.logout();
      assert.equal(status, 204);
      assert.deepEqual(setCookies.map((line) => line.split("=")[0]).sort(), [OWN, both.name].sort());
      assert.equal(await both.bytesOf(key), null);
      assert.equal(await old.session(), null);
      assert.equal((await both.flask.at(old).send("GET", "/dashboard")).status, 401);
    });

    test("a cookie that leads nowhere takes nothing over", async () => {
      const visitor = both.visitor();
      for (const cookie of ["A".repeat(43), `${"A".repeat(43)}.${"A".repeat(27)}`, "a.b"]) {
        visitor.edge.cookies.set(both.name, cookie);
        const { status, json, setCookies } = await visitor.edge.look();
        assert.deepEqual([status, json.session, setCookies], [200, null, []]);
      }
    });
  });
}

test("values that JSON lacks are taken over as what they are shown as", async () => {
  const both = await startBeside({ accept: {} });
  try {
    const visitor = both.visitor();
    await visitor.app.send("POST", "/test/special");
    const before = await visitor.python();
    const { special } = (await visitor.edge.session()).data;
    assert.deepEqual([special.bytes, special.uuid], ["AP/+", "12345678-1234-5678-1234-567812345678"]);
    assert.equal((await visitor.edge.merge({ special: { bytes: "other" } })).status, 200);
    assert.equal((await visitor.python()).data, before.data, "Flask's own are as they were");
  } finally {
    await both.stop();
  }
});

test("a pickle is not taken over: no session, the record stays, and the log says what to set", async () => {
  const both = await startBeside({ accept: {}, settings: { limits: NO_LIMITS } });
  try {
    const { json } = await both.flask.visitor().send("GET", "/test/pickles");
    const record = Buffer.from(json[4], "base64");
    const sid = "pickle".padEnd(43, "x");
    await both.write(`session:${sid}`, record);
    const visitor = both.worker.visitor();
    visitor.cookies.set("session", sid);
    const answer = await visitor.look();
    assert.ok(answer.status === 500 || answer.json.session === null, answer.text);
    assert.deepEqual(answer.setCookies, []);
    assert.deepEqual(await both.bytesOf(`session:${sid}`), record);
    const log = () => both.worker.logs.join("");
    await until(() => /SESSION_SERIALIZATION_FORMAT/.test(log()), log);
    assert.ok(!log().includes(sid));
  } finally {
    await both.stop();
  }
});
