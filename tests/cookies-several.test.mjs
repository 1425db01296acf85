/**
 * Several tickets in one request: a name without `__Host-` can be set for another path, or by another host of the domain.
 * The one whose session lives counts, of several such the latest; a logout ends them all.
 */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const NAME = "sid";
const { store, workers, stop } = await startDeployment([{}, {}], {
  settings: { cookie: { name: NAME, secure: false } },
  secrets: { SESSION_SECRET: randomSecret() },
});
after(stop);
beforeEach(() => store.faults.clear());
const [here, there] = workers;

/** A session, begun so many seconds later than it is now. @param {string} mark @param {number} seconds */
async function begin(mark, seconds) {
  await here.moveClock(seconds * 1000);
  const visitor = here.visitor();
  assert.equal((await visitor.merge({ mark })).status, 200);
  await here.moveClock(seconds * -1000);
  return visitor;
}

/** What was begun at 1, 2, 3 … seconds; those in capitals have ended since. @param {string[]} marks */
async function tickets(...marks) {
  const visitors = [];
  for (const [index, mark] of marks.entries()) visitors.push(await begin(mark, index + 1));
  for (const [index, mark] of marks.entries()) {
    if (mark === mark.toUpperCase()) {
      const { handle } = (await visitors[index].look()).json.session;
      await store.redis.del(`sess:${handle}`);
    }
  }
  return visitors.map((visitor) => String(visitor.cookies.get(NAME)));
}

/** A request with all of these tickets. @param {string} method @param {string} path @param {string[]} all @param {unknown} [body] */
const send = (method, path, all, body, url = here.url) =>
  new Visitor(url).send(method, path, {
    headers: {
      Cookie: all.map((ticket) => `${NAME}=${ticket}`).join("; "),
      "Content-Type": "application/json",
    },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });

/** @param {string[]} all */
const look = (all, url = here.url) => send("GET", "/auth/session", all, undefined, url);

/** In every order. @template T @param {T[]} items @returns {T[][]} */
const orders = (items) =>
  items.length < 2
    ? [items]
    : items.flatMap((item, index) =>
        orders(items.filter((_, other) => other !== index)).map((rest) => [item, ...rest]),
      );

for (const [marks, counts] of /** @type {[string[], string | undefined][]} */ ([
  [["live", "DEAD"], "live"],
  [["DEAD", "live"], "live"],
  [["older", "newer"], "newer"],
  [["older", "newer", "DEAD"], "newer"],
  [["older", "DEAD", "newer"], "newer"],
  [["live", "DEAD", "GONE"], "live"],
  [["DEAD", "GONE"], undefined],
])) {
  test(`of tickets begun in the order ${marks.join(", ")}, ${counts ?? "none"} counts`, async () => {
    const all = await tickets(...marks);
    for (const order of orders(all)) {
      for (const url of [here.url, there.url]) {
        const answer = await look(order, url);
        assert.equal(answer.status, 200, answer.text);
        assert.equal(answer.json.session?.data.mark, counts);
        assert.deepEqual(answer.setCookies, []);
      }
    }
  });
}

test("what is changed, rotated or listed is the one whose session lives, and its cookie stays", async () => {
  const all = await tickets("live", "DEAD");
  const changed = await send("PATCH", "/auth/session/data", all, { more: 1 });
  assert.deepEqual(changed.json.session?.data, { mark: "live", more: 1 });
  assert.deepEqual(changed.setCookies, []);
  const refused = await send("POST", "/auth/reauthenticate", all, { password: "correct horse" });
  assert.equal(refused.status, 401, "nobody is logged in");
  assert.deepEqual(refused.setCookies, []);
  const rotated = await send("POST", "/auth/session/rotate", all);
  assert.equal(rotated.json.session?.data.mark, "live");
  assert.equal(rotated.setCookies.length, 1);
  assert.match(rotated.setCookies[0], /^sid=[\w-]{148};/);
});

test("when all have ended a change begins another session, and the cookie is replaced", async () => {
  const all = await tickets("DEAD", "GONE");
  const begun = await send("PATCH", "/auth/session/data", all, { more: 1 });
  assert.deepEqual(begun.json.session.data, { more: 1 });
  assert.match(begun.setCookies[0], /^sid=[\w-]{148};/);
});

for (const marks of [
  ["one", "another"],
  ["one", "DEAD", "another"],
  ["one", "another", "DEAD"],
  ["one", "two", "three", "four", "five"],
]) {
  test(`a logout with tickets begun in the order ${marks.join(", ")} ends all, and removes the cookie`, async () => {
    for (const [method, path] of [
      ["DELETE", "/auth/session"],
      ["POST", "/auth/logout"],
    ]) {
      const all = await tickets(...marks);
      const answer = await send(method, path, all.toReversed());
      assert.equal(answer.status, 204, answer.text);
      assert.equal(answer.setCookies.length, 1);
      assert.match(answer.setCookies[0], /^sid=; .*Max-Age=0$/);
      for (const ticket of all) {
        for (const { url } of workers) assert.equal((await look([ticket], url)).json.session, null);
      }
    }
  });
}

test("a logout that fails in the middle is 503 and keeps the cookie; asked again, it ends the rest", async () => {
  const all = await tickets("one", "another");
  let deletions = 0;
  store.faults.always("refuse", { when: ({ commands }) => commands[0]?.[0] === "DELEX" && ++deletions > 1 });
  const failed = await send("DELETE", "/auth/session", all);
  assert.equal(failed.status, 503);
  assert.deepEqual(failed.setCookies, []);
  store.faults.clear();
  assert.equal((await send("DELETE", "/auth/session", all)).status, 204);
  for (const ticket of all) assert.equal((await look([ticket], there.url)).json.session, null);
});

test("dead ones cost their calls once in an isolate, and a request looks at eight tickets at most", async () => {
  const all = await tickets("live", ...Array.from({ length: 10 }, (_, index) => `DEAD ${index}`));
  const first = await store.counters.during(() => look(all));
  assert.ok(first.calls <= 2 * 8, `${first.calls} calls`);
  await look(all);
  const later = await store.counters.during(() => look(all));
  assert.deepEqual([later.value.json.session?.data.mark, later.calls], ["live", 1]);
});

test("a ticket that a lagging replica does not know is not taken for dead", async () => {
  const [older] = await tickets("older");
  store.faults.lag = 3000;
  const [newer] = await tickets("newer");
  for (const { url } of workers) {
    assert.equal((await look([older, newer], url)).json.session?.data.mark, "newer");
    assert.equal((await look([newer], url)).json.session?.data.mark, "newer");
  }
});
