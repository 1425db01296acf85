/**
 * A secret is replaced while isolates with the old and with the new configuration answer the same visitors: nobody is
 * logged out, also by an operator who takes one step instead of two.
 */
import assert from "node:assert/strict";
import { after, beforeEach, describe, test } from "node:test";
import { assertIssued, assertRemoved, NAME } from "./support/cookies.mjs";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startDeployment, startWorker, until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {import("./support/worker.mjs").Worker} Worker */

const [OLD, NEW] = [randomSecret(), randomSecret()];
/** An isolate with each configuration that there is during a replacement. */
const { store, workers, stop } = await startDeployment(
  [OLD, `${OLD},${NEW}`, `${NEW},${OLD}`, NEW].map((SESSION_SECRET) => ({ secrets: { SESSION_SECRET } })),
);
after(stop);
const [old, prepared, turned, dropped] = workers;
beforeEach(() => store.faults.clear());

/** A visitor who is logged in. @param {Worker} worker @param {string} name */
async function registered(worker, name) {
  const visitor = worker.visitor();
  assert.equal((await visitor.register(name, "correct horse")).status, 201);
  return visitor;
}

/** Everything that can be asked of a session. @type {[string, number, (visitor: Visitor) => Promise<Answer>][]} */
const REQUESTS = [
  ["a read", 200, (visitor) => visitor.look()],
  ["a read by HEAD", 200, (visitor) => visitor.send("HEAD", "/auth/session")],
  ["a rotation", 401, (visitor) => visitor.rotate()],
  ["a logout", 204, (visitor) => visitor.logout()],
  ["a logout by POST", 204, (visitor) => visitor.send("POST", "/auth/logout")],
  ["verify", 401, (visitor) => visitor.send("GET", "/auth/verify")],
  ["the device list", 401, (visitor) => visitor.send("GET", "/auth/sessions")],
  ["ending all sessions", 401, (visitor) => visitor.send("DELETE", "/auth/sessions")],
  ["the profile", 401, (visitor) => visitor.send("GET", "/auth/profile")],
  ["a change of the profile", 401, (visitor) => visitor.tell("PATCH", "/profile", { a: 1 })],
  ["a wrong login", 401, (visitor) => visitor.login("Nobody here", "wrong horse!")],
  ["an unknown path", 404, (visitor) => visitor.send("POST", "/auth/nowhere")],
];

describe("a cookie under a key that the isolate does not know", () => {
  for (const [job, status, act] of REQUESTS) {
    test(`stays whatever is asked with it: ${job}`, async () => {
      for (const [from, to] of [
        [turned, old],
        [old, dropped],
      ]) {
        const visitor = from.visitor();
        await visitor.merge({ mark: job });
        const away = visitor.clone(to.url);
        const { value: answer, calls } = await store.counters.during(() => act(away));
        assert.equal(answer.status, status, answer.text);
        assert.deepEqual(answer.setCookies, []);
        if (!job.includes("login")) assert.equal(calls, 0);
        assert.equal(away.ticket, visitor.ticket);
        assert.deepEqual((await visitor.session()).data, { mark: job }, "and the session lives");
      }
    });
  }

  test("is replaced by a change, which begins another session, and by a login", async () => {
    const visitor = turned.visitor();
    await visitor.merge({ mark: 1 });
    const away = visitor.clone(old.url);
    const changed = await away.merge({ mine: 1 });
    assert.deepEqual(changed.json.session.data, { mine: 1 });
    assertIssued(changed);
    assert.deepEqual((await away.session()).data, { mine: 1 });

    await registered(old, "Elsewhere");
    const there = visitor.clone(old.url);
    const answer = await there.login("Elsewhere", "correct horse");
    assert.equal(answer.status, 200, answer.text);
    assert.equal((await there.session()).user.name, "Elsewhere");
    assert.deepEqual((await visitor.session()).data, { mark: 1 });
  });

  test("stays also when it comes with others that are useless", async () => {
    const visitor = turned.visitor();
    await visitor.merge({ mark: 1 });
    const ended = old.visitor();
    await ended.merge({ mark: 2 });
    const dead = String(ended.ticket);
    await ended.logout();
    for (const others of [["junk"], [dead], [dead, "junk", "A".repeat(148)]]) {
      for (const values of [
        [String(visitor.ticket), ...others],
        [...others, String(visitor.ticket)],
      ]) {
        const headers = { Cookie: values.map((value) => `${NAME}=${value}`).join("; ") };
        for (const [method, path] of [
          ["DELETE", "/auth/session"],
          ["POST", "/auth/session/rotate"],
        ]) {
          const answer = await new Visitor(old.url).send(method, path, { headers });
          assert.deepEqual(answer.setCookies, [], `${method} ${others.length}`);
        }
      }
    }
    const useless = await new Visitor(old.url).send("DELETE", "/auth/session", {
      headers: { Cookie: `${NAME}=${dead}; ${NAME}=junk` },
    });
    assertRemoved(useless);
  });

  test("is told to the operator once in an isolate, in words that say what to do, and without the cookie", async () => {
    const isolate = await startWorker({ store, secrets: { SESSION_SECRET: OLD } });
    try {
      const visitor = turned.visitor();
      await visitor.merge({ mark: 1 });
      const lines = () => isolate.logs.join("").match(/a ticket is signed with a secret that .*/g) ?? [];
      for (let count = 0; count < 5; count += 1) {
        const away = visitor.clone(isolate.url);
        await away.look();
        await away.logout();
      }
      await until(() => lines().length > 0);
      await isolate.moveClock(0);
      assert.equal(lines().length, 1);
      assert.match(String(lines()[0]), /SESSION_SECRET/);
      const said = isolate.logs.join("");
      for (const secret of [OLD, NEW, String(visitor.ticket)]) assert.ok(!said.includes(secret));
    } finally {
      await isolate.stop();
    }
  });
});

describe("visitors who move between isolates", () => {
  test("with new,old and with old, are logged in again wherever their ticket is known", async () => {
    const visitor = await registered(turned, "In one step");
    for (let count = 0; count < 5; count += 1) {
      visitor.url = old.url;
      assert.equal(await visitor.session(), null, "not there");
      visitor.url = turned.url;
      assert.equal((await visitor.session())?.user.name, "In one step");
    }
  });

  /** @param {Worker[]} isolates @param {string} name */
  async function wander(isolates, name) {
    const visitor = await registered(isolates[0], name);
    for (let step = 0; step < 12; step += 1) {
      visitor.url = isolates[(step * 7) % isolates.length].url;
      const answer = step % 3 ? await visitor.look() : await visitor.increment("/n");
      assert.equal(answer.status, 200);
      assert.equal(answer.json.session?.user.name, name, `step ${step}`);
    }
    assert.equal((await visitor.rotate()).status, 200);
    for (const { url } of isolates) assert.equal((await visitor.clone(url).session())?.data.n, 4);
  }

  test("are logged in everywhere in each of the two steps, and after them", async () => {
    await wander([old, prepared], "First step");
    await wander([prepared, turned], "Second step");
    await wander([turned, dropped], "Afterwards");
  });
});
