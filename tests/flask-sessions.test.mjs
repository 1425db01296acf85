/** Sessions of a Flask application with Flask-Session, which the Worker uses at the same time, and the other way round. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startBeside } from "./support/flask-app.mjs";
import { startWorker, NO_LIMITS, until } from "./support/worker.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */
/** @typedef {import("./support/flask-app.mjs").FlaskSettings} FlaskSettings */

const SECRET_KEY = "a secret of the tutorials' length";

/** @type {Record<string, FlaskSettings>} */
const APPLICATIONS = {
  "with Flask-Session as it comes": {},
  "with the signer, and sessions that end with the browser": {
    SECRET_KEY,
    SESSION_USE_SIGNER: true,
    SESSION_PERMANENT: false,
  },
  "with JSON, a prefix, a cookie and a length of ids of its own": {
    SESSION_SERIALIZATION_FORMAT: "json",
    SESSION_KEY_PREFIX: "shop:sessions:",
    SESSION_COOKIE_NAME: "shop",
    SESSION_ID_LENGTH: 64,
    SESSION_PERMANENT: false,
  },
  "with JSON and the signer, writing only what has changed": {
    SESSION_SERIALIZATION_FORMAT: "json",
    SECRET_KEY,
    SESSION_USE_SIGNER: true,
    SESSION_REFRESH_EACH_REQUEST: false,
  },
};

for (const [what, flask] of Object.entries(APPLICATIONS)) {
  describe(`beside an application ${what}`, () => {
    const permanent = flask.SESSION_PERMANENT === false ? {} : { _permanent: true };
    /** @type {Beside} */
    let both;
    before(async () => {
      both = await startBeside({ flask });
    });
    after(() => both?.stop());

    /** A visitor whose session Flask began. */
    async function guest() {
      const visitor = both.visitor();
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 1");
      return visitor;
    }

    test("a session of Flask's is read by the Worker, which sets no cookie and writes no record", async () => {
      const visitor = await guest();
      const record = await both.bytesOf(visitor.key());
      const { status, json, setCookies } = await visitor.edge.look();
      assert.deepEqual([status, setCookies], [200, []]);
      const { handle, created_at, expires_at, idle_expires_at, ...session } = json.session;
      assert.deepEqual(session, {
        user: null,
        data: { ...permanent, views: 1 },
        authenticated_at: null,
        remember: session.remember,
      });
      assert.equal(expires_at, idle_expires_at);
      assert.ok(Date.parse(created_at) <= Date.parse(expires_at));
      assert.ok(!handle.includes(visitor.sid()) && !visitor.sid().includes(handle), "no id");
      assert.deepEqual(await both.bytesOf(visitor.key()), record);
    });

    test("a session of Flask's is changed by the Worker, and Flask goes on with it", async () => {
      const visitor = await guest();
      const sid = visitor.sid();
      const added = await visitor.edge.increment("/views", 5);
      assert.deepEqual([added.status, added.json.session.data.views], [200, 6]);
      assert.deepEqual(added.setCookies, [], "its cookie is as good as before");
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 7");
      const put = [{ op: "add", path: "/cart", value: { coat: 1 } }];
      assert.equal((await visitor.edge.patch(put)).status, 200);
      assert.deepEqual((await visitor.app.send("POST", "/cart/hat")).json, { coat: 1, hat: 1 });
      assert.equal((await visitor.edge.merge({ cart: { coat: null } })).status, 200);
      assert.deepEqual(await visitor.data(), { ...permanent, views: 7, cart: { hat: 1 } });
      assert.equal(visitor.sid(), sid);
    });

    test("a session begun at the Worker is Flask's as well", async () => {
      const visitor = both.visitor();
      const began = await visitor.edge.merge({ views: 41, note: "ünï 🧥" });
      assert.deepEqual([began.status, began.setCookies.length], [200, 1]);
      assert.match(visitor.sid(), /^[\w-]{43,}$/, "an id as Flask-Session makes them");
      const sid = visitor.sid();
      assert.match((await visitor.python()).data, /'note': 'ünï 🧥'/);
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 42");
      assert.equal(visitor.sid(), sid, "Flask goes on with it");
      const { views, note } = await visitor.data();
      assert.deepEqual({ views, note }, { views: 42, note: "ünï 🧥" });
    });

    test("changes at both in turn are all kept", async () => {
      const visitor = await guest();
      for (let round = 0; round < 5; round += 1) {
        assert.equal((await visitor.edge.increment("/views")).status, 200);
        assert.equal((await visitor.app.send("GET", "/")).status, 200);
        assert.equal((await visitor.app.send("POST", "/cart/hat")).status, 200);
      }
      assert.deepEqual(await visitor.data(), { ...permanent, views: 11, cart: { hat: 5 } });
    });

    test("changes at the Worker all at once are all kept", async () => {
      const visitor = await guest();
      const added = await Promise.all(Array.from({ length: 15 }, () => visitor.edge.increment("/views")));
      assert.ok(added.every(({ status }) => status === 200));
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 17");
    });

    test("a new id of the Worker's is Flask's at once, and the old one is dead at both", async () => {
      const visitor = await guest();
      const [old, oldKey] = [visitor.edge.clone(), visitor.key()];
      const rotated = await visitor.edge.rotate();
      assert.deepEqual([rotated.status, rotated.setCookies.length], [200, 1]);
      assert.notEqual(visitor.key(), oldKey);
      assert.equal(await both.bytesOf(oldKey), null);
      assert.equal((await visitor.app.send("GET", "/")).text, "Views: 2");
      assert.equal(await old.session(), null, "no grace");
      assert.equal((await both.flask.at(old).send("GET", "/")).text, "Views: 1");
      assert.equal((await visitor.data()).views, 2);
    });

    test("without a session there is nothing to give a new id to", async () => {
      const visitor = both.visitor();
      assert.equal((await visitor.edge.rotate()).status, 401);
    });

    test("a logout at the Worker is one at Flask", async () => {
      const visitor = await guest();
      const [old, key] = [visitor.edge.clone(), visitor.key()];
      const { status, setCookies } = await visitor.edge.logout();
      assert.deepEqual([status, setCookies.length], [204, 1]);
      assert.equal(visitor.edge.cookies.has(both.name), false);
      assert.equal(await both.bytesOf(key), null);
      assert.equal((await both.flask.at(old).send("GET", "/")).text, "Views: 1");
      assert.notEqual(both.prefix + old.cookies.get(both.name), key, "under a new id");
    });

    test("a logout at Flask is one at the Worker", async () => {
      const visitor = await guest();
      assert.ok(await visitor.edge.session());
      const old = visitor.edge.clone();
      assert.equal((await visitor.app.send("POST", "/logout")).status, 302);
      assert.equal(await both.store.redis.exists(both.prefix + old.cookies.get(both.name)), 0);
      assert.equal(await old.session(), null);
      assert.equal((await old.merge({ a: 1 }, { "If-Match": "*" })).status, 412);
      const begun = await old.merge({ a: 1 });
      const { _permanent, ...data } = begun.json.session.data;
      assert.deepEqual([begun.status, data], [200, { a: 1 }], "a new one, with the new alone");
    });

    test("an application that is started again knows them all, and so does another isolate", async () => {
      const [mine, theirs] = [await guest(), both.visitor()];
      await theirs.edge.merge({ views: 1 });
      await both.restartFlask();
      for (const { edge } of [mine, theirs]) {
        assert.equal((await both.flask.at(edge).send("GET", "/")).text, "Views: 2");
        assert.equal((await edge.session()).data.views, 2);
      }
    });

    test("of two sessions in one browser the one that lives is meant", async () => {
      const [dead, living] = [await guest(), await guest()];
      const name = both.name;
      const cookie = [dead, living].map(({ edge }) => `${name}=${edge.cookies.get(name)}`).join("; ");
      await dead.app.send("POST", "/logout");
      const visitor = both.worker.visitor();
      const answer = await visitor.send("GET", "/auth/session", { headers: { Cookie: cookie } });
      assert.equal(answer.json.session?.handle, (await living.edge.session()).handle);
    });
  });
}

describe("the limit of a session", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside({ isolates: 2, settings: { limits: { ...NO_LIMITS, session: "5/1m" } } });
  });
  after(() => both?.stop());

  test("counts its requests to the Worker, in all isolates together, and none to Flask", async () => {
    const visitor = both.visitor();
    for (let visit = 0; visit < 10; visit += 1) await visitor.app.send("GET", "/");
    const asked = Array.from({ length: 12 }, (_, index) =>
      visitor.edge.clone(both.workers[index % 2].url).look(),
    );
    const statuses = (await Promise.all(asked)).map(({ status }) => status);
    assert.equal(statuses.filter((status) => status === 200).length, 5);
    assert.equal(statuses.filter((status) => status === 429).length, 7);
    assert.equal((await visitor.app.send("GET", "/")).text, "Views: 11");
    const other = both.visitor();
    await other.app.send("GET", "/");
    assert.equal((await other.edge.look()).status, 200, "another's");
  });

  test("is not spent by ids that somebody made up", async () => {
    const visitor = both.visitor();
    visitor.edge.cookies.set("session", "A".repeat(43));
    for (let time = 0; time < 8; time += 1) {
      const { status, json } = await visitor.edge.look();
      assert.deepEqual([status, json.session], [200, null]);
    }
  });
});

test("at its start the Worker says once what is weaker beside an application, and no secret", async () => {
  const both = await startBeside({ flask: { SECRET_KEY: "short", SESSION_USE_SIGNER: true } });
  try {
    const visitor = both.visitor();
    for (let visit = 0; visit < 3; visit += 1) {
      await visitor.app.send("GET", "/");
      assert.equal((await visitor.edge.look()).status, 200);
    }
    const log = () => both.worker.logs.join("");
    await until(() => /flask/.test(log()), log);
    assert.doesNotMatch(log(), new RegExp(`"short"|${visitor.sid()}`));
    assert.equal(log().match(/FORMAT_SECRETS/g)?.length, 1, "a short secret, once");
    const second = await startWorker({ store: both.store, settings: { limits: NO_LIMITS } });
    try {
      await second.visitor().look();
      assert.doesNotMatch(second.logs.join(""), /flask/);
    } finally {
      await second.stop();
    }
  } finally {
    await both.stop();
  }
});
