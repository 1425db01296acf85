/**
 * What decides what a request may do is the primary's state, also when no limit is on and the replica that is near is far
 * behind. And nothing that is sent to reach the primary could do harm.
 */
import assert from "node:assert/strict";
import { after, beforeEach, describe, test } from "node:test";
import { takeSnapshot } from "./support/snapshot.mjs";
import { FAST_HASH, NO_LIMITS, randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const SYNC = "__Host-session-sync";
const PASSWORD = "correct horse";
const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
/** So far behind that no test sees the replica catch up. */
const LONG = 60_000;

/** An isolate at the primary, and one whose replica lags; without limits. And one with them. */
const { store, workers, stop } = await startDeployment(
  [{ region: 0 }, { region: 1 }, { region: 0, settings: { limits: {} } }],
  {
    secrets: { SESSION_SECRET: randomSecret(), ADMIN_TOKEN },
    settings: { limits: NO_LIMITS, password: FAST_HASH, store: { timeout: "10s" } },
  },
);
after(stop);
const [near, far, limited] = workers;
beforeEach(() => store.faults.clear());
let count = 0;

/** The replica falls behind: it knows what was done up to now. */
const fallBehind = () => void (store.faults.lag = [0, LONG]);

/** The same cookies at the isolate whose replica lags, without the companion that would make it catch up. @param {Visitor} visitor */
function atReplica(visitor) {
  const other = visitor.clone(far.url);
  other.cookies.delete(SYNC);
  return other;
}

/** A user with a session on two devices, and a profile. */
async function owner() {
  const username = `Owner ${(count += 1)}`;
  const visitor = near.visitor();
  assert.equal((await visitor.register(username, PASSWORD)).status, 201);
  const laptop = near.visitor();
  assert.equal((await laptop.login(username, PASSWORD)).status, 200);
  assert.equal((await laptop.tell("PATCH", "/profile", { theme: "dark" })).status, 200);
  const { handle } = await laptop.session();
  const { handle: own, user } = await visitor.session();
  return { visitor, laptop, handle, own, user, username };
}
/** @typedef {Awaited<ReturnType<typeof owner>>} Owner */

/** @type {[string, (of: Owner) => Promise<Answer>][]} */
const ENDS = [
  ["it was logged out", ({ visitor }) => visitor.clone().logout()],
  ["another device has ended it", ({ laptop, own }) => laptop.send("DELETE", `/auth/sessions/${own}`)],
  [
    "another device has ended all others",
    ({ laptop }) => laptop.send("DELETE", "/auth/sessions?keep=current"),
  ],
  [
    "the password was changed",
    ({ laptop }) => laptop.tell("POST", "/password", { current: PASSWORD, new: "battery staple" }),
  ],
  [
    "an operator has ended all",
    ({ user }) =>
      near
        .visitor()
        .send("DELETE", `/auth/admin/users/${encodeURIComponent(user.id)}/sessions`, { headers: admin }),
  ],
];

/** What an ended session may not do. @type {[string, (visitor: Visitor, of: Owner) => Promise<Answer>][]} */
const ACTS = [
  ["change the profile", (visitor) => visitor.tell("PATCH", "/profile", { theme: "stolen" })],
  ["list the sessions", (visitor) => visitor.send("GET", "/auth/sessions")],
  ["end one of them", (visitor, { handle }) => visitor.send("DELETE", `/auth/sessions/${handle}`)],
  ["end all others", (visitor) => visitor.send("DELETE", "/auth/sessions?keep=current")],
  ["end all", (visitor) => visitor.send("DELETE", "/auth/sessions")],
  ["rotate", (visitor) => visitor.rotate()],
  ["reauthenticate", (visitor) => visitor.tell("POST", "/reauthenticate", { password: PASSWORD })],
  [
    "change the password",
    (visitor) => visitor.tell("POST", "/password", { current: PASSWORD, new: "staple battery" }),
  ],
  ["delete the account", (visitor) => visitor.tell("DELETE", "/account", { password: PASSWORD })],
];

describe("an ended session, which a replica still has,", () => {
  for (const [what, end] of ENDS) {
    for (const [job, act] of ACTS) {
      test(`may not ${job}: ${what}`, async () => {
        const all = await owner();
        fallBehind();
        assert.ok((await end(all)).status < 300, what);
        const ended = atReplica(all.visitor);
        const answer = await act(ended, all);
        assert.equal(answer.status, 401, answer.text);
        assert.equal(answer.json.code, "unauthenticated");
        const account = JSON.parse(String(await store.redis.get(`account:${all.username.toLowerCase()}`)));
        assert.equal(account.profile.theme, "dark");
        const isGone = /operator/.test(what);
        assert.equal((await all.laptop.session()) === null, isGone, "the owner's other session is as it was");
      });
    }
  }

  test("gives its data to nobody: a change begins another one", async () => {
    const all = await owner();
    await all.visitor.merge({ private: 1 });
    fallBehind();
    await all.visitor.clone().logout();
    const answer = await atReplica(all.visitor).merge({ mine: 1 });
    assert.deepEqual([answer.json.session.user, answer.json.session.data], [null, { mine: 1 }]);
  });
});

describe("a change through a replica that is behind", () => {
  test("that changes nothing of the old state is made to the new one", async () => {
    const { visitor } = await owner();
    await visitor.merge({ colour: "red" });
    fallBehind();
    await visitor.merge({ colour: "blue" });
    const answer = await atReplica(visitor).merge({ colour: "red" });
    assert.equal(answer.status, 200);
    assert.equal(answer.json.session.data.colour, "red");
    assert.equal((await visitor.session()).data.colour, "red", "what was acknowledged is not lost");
  });

  test("is judged by the new state: If-Match, a test, an increment, the profile", async () => {
    const { visitor } = await owner();
    const old = String((await visitor.merge({ n: 1 })).headers.get("ETag"));
    const oldProfile = String((await visitor.send("GET", "/auth/profile")).headers.get("ETag"));
    fallBehind();
    const now = String((await visitor.merge({ n: 5 })).headers.get("ETag"));
    await visitor.tell("PATCH", "/profile", { theme: "light" });
    assert.equal((await atReplica(visitor).merge({ n: 2 }, { "If-Match": old })).status, 412);
    assert.equal((await atReplica(visitor).patch([{ op: "test", path: "/n", value: 1 }])).status, 422);
    assert.equal((await atReplica(visitor).merge({ m: 1 }, { "If-Match": now })).status, 200);
    assert.equal((await atReplica(visitor).increment("/n")).json.session.data.n, 6);
    const stale = { "If-Match": oldProfile };
    assert.equal((await atReplica(visitor).tell("PATCH", "/profile", { theme: "dark" }, stale)).status, 412);
    const back = await atReplica(visitor).tell("PATCH", "/profile", { theme: "dark" });
    assert.equal(back.json.theme, "dark");
    assert.equal((await visitor.send("GET", "/auth/profile")).json.theme, "dark");
  });

  test("has the roles that the user has now", async () => {
    const { visitor, user } = await owner();
    fallBehind();
    const answer = await near
      .visitor()
      .tell("PUT", `/admin/users/${user.id}/roles`, { roles: ["editor"] }, admin);
    assert.equal(answer.status, 204);
    assert.deepEqual((await atReplica(visitor).merge({ a: 1 })).json.session.user.roles, ["editor"]);
  });
});

describe("what is sent to the store", () => {
  /** Runs this, and collects every command. @param {() => Promise<unknown>} act */
  async function commandsOf(act) {
    /** @type {string[][]} */
    const all = [];
    store.faults.always(
      {},
      {
        when: ({ commands }) => {
          all.push(...commands);
          return false;
        },
      },
    );
    await act();
    await Promise.all(workers.map((worker) => worker.moveClock(0)));
    store.faults.clear();
    return all;
  }

  /** Everything that can be asked of the Worker, at this isolate. @param {import("./support/worker.mjs").Worker} worker */
  async function everything(worker) {
    const username = `Everything ${(count += 1)}`;
    const visitor = worker.visitor();
    const dead = worker.visitor();
    const acts = [
      () => dead.merge({ a: 1 }),
      () => dead.clone().logout(),
      () => dead.look(),
      () => dead.rotate(),
      () => visitor.merge({ a: 1 }),
      () => visitor.register(username, PASSWORD),
      () => visitor.clone().look(),
      () => visitor.merge({ a: 2 }),
      () => visitor.rotate(),
      () => visitor.look(),
      () => visitor.send("GET", "/auth/verify"),
      () => visitor.send("GET", "/auth/sessions"),
      () => visitor.send("GET", "/auth/profile"),
      () => visitor.tell("PATCH", "/profile", { a: 1 }),
      () => visitor.login(username, PASSWORD),
      () => visitor.login(username, "wrong horse!"),
      () => visitor.tell("POST", "/reauthenticate", { password: PASSWORD }),
      () => visitor.tell("POST", "/password", { current: PASSWORD, new: "battery staple" }),
      () => visitor.send("DELETE", "/auth/sessions?keep=current"),
      async () => {
        const { handle, user } = await visitor.session();
        const path = `/auth/admin/users/${encodeURIComponent(user.id)}`;
        await visitor.send("GET", `${path}/sessions`, { headers: admin });
        await visitor.send("GET", `/auth/admin/sessions/${handle}`, { headers: admin });
        await visitor.tell("PUT", path.replace("/auth", "") + "/roles", { roles: ["a"] }, admin);
        return visitor.send("GET", "/auth/admin/stats", { headers: admin });
      },
      () => visitor.clone().tell("DELETE", "/account", { password: "battery staple" }),
      () => visitor.look(),
      () => worker.visitor().send("GET", "/auth/health"),
    ];
    for (const act of acts) {
      const { status, text } = await act();
      assert.ok(status < 500, text);
    }
  }

  for (const [what, worker] of /** @type {const} */ ([
    ["without limits", near],
    ["with limits", limited],
  ])) {
    test(`has no time to live that would delete a key if the store read it otherwise, ${what}`, async () => {
      const commands = await commandsOf(() => everything(worker));
      assert.ok(commands.length > 50);
      const words = (/** @type {string[]} */ command) => command.join(" ");
      const expiries = commands.filter(([name]) => /EXPIRE/.test(name));
      assert.ok(expiries.length > 0);
      for (const command of expiries) {
        assert.equal(command[0], "PEXPIRE", words(command));
        assert.ok(Number(command[2]) >= 30_000, words(command));
        assert.ok(!command[1].startsWith("account:") && !command[1].startsWith("name:"), words(command));
      }
      for (const command of commands) {
        const at = command.indexOf("PX");
        if (at > 0) assert.ok(Number(command[at + 1]) >= 30_000, words(command));
        if (command[0] === "GETEX") assert.equal(command.length, 2, words(command));
      }
    });
  }

  test("to read from the primary changes nothing: neither values nor times to live", async () => {
    const { visitor, laptop } = await owner();
    await visitor.rotate();
    await visitor.look();
    await Promise.all(workers.map((worker) => worker.moveClock(0)));
    /** In minutes, times to live are the same before and after. */
    const contents = async () => {
      const snapshot = await takeSnapshot(store.redis);
      return Object.entries(snapshot).map(([key, { ttl, type, value }]) => ({
        key,
        type,
        value,
        ttl: ttl && Math.round((ttl + 20_000) / 60_000),
      }));
    };
    const before = await contents();
    for (const act of [
      () => visitor.send("GET", "/auth/sessions"),
      () => laptop.send("GET", "/auth/sessions"),
      () => visitor.merge({}),
      () => visitor.tell("PATCH", "/profile", { theme: "dark" }),
      () => visitor.patch([{ op: "test", path: "", value: {} }]),
      () => visitor.merge({ a: 1 }, { "If-Match": '"x"' }),
    ]) {
      await act();
    }
    assert.deepEqual(await contents(), before);
  });
});
