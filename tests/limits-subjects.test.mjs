/** Who is counted: sessions, users, addresses, and sessions that are created. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  all,
  assertRefused,
  assertUncounted,
  from,
  guest,
  look,
  member,
  names,
  ORIGIN,
  someAddress,
  someUser,
  limitStates,
  startPerAddress,
  startTwo,
  store,
  untilCounted,
} from "./support/limits.mjs";
import { moveToWindow } from "./support/worker.mjs";

/** @typedef {import("./support/limits.mjs").Visitor} Visitor */
/** @typedef {import("./support/limits.mjs").Answer} Answer */

const two = await startTwo();

const closed = await startPerAddress("closed");

test("every request with its cookie counts for a session, except preflights and requests of other sites", async () => {
  const visitor = await guest(two[0]);
  const preflight = { Origin: ORIGIN, "Access-Control-Request-Method": "PATCH" };
  for (let count = 0; count < 8; count += 1) {
    const foreign = await visitor.merge({ b: 2 }, { "Sec-Fetch-Site": "cross-site" });
    assert.equal(foreign.status, 403);
    assertUncounted(foreign);
    const asked = await visitor.send("OPTIONS", "/auth/session/data", { headers: preflight });
    assert.equal(asked.status, 204);
    assertUncounted(asked);
  }
  const refusals = [
    () => visitor.send("GET", "/auth/nowhere"),
    () => visitor.send("PUT", "/auth/session"),
    () => visitor.send("PATCH", "/auth/session/data", { body: "{" }),
    () => visitor.send("GET", "/auth/health"),
    () => visitor.send("GET", "/auth/admin/stats"),
  ];
  for (const [index, send] of refusals.entries()) assert.equal(limitStates(await send())[0].r, 4 - index);
  for (const send of refusals) assertRefused(await send(), "session");
  const foreign = await visitor.merge({ b: 2 }, { "Sec-Fetch-Site": "cross-site" });
  assert.equal(foreign.status, 403, "what another site sends is refused as that");
});

test("a limit per address counts every request, also those without a session", async () => {
  const address = someAddress();
  const forger = closed.visitor();
  forger.ticket = "A".repeat(148);
  const headers = from(address);
  const sends = [
    () => look(closed.visitor(), address),
    () => look(forger.clone(), address),
    () => closed.visitor().send("GET", "/nowhere", { headers }),
    () => closed.visitor().send("GET", "/auth/health", { headers }),
    () => closed.visitor().merge({ a: 1 }, headers),
    () => closed.visitor().send("DELETE", "/auth/session", { headers }),
  ];
  let left = 50;
  for (const send of sends) assert.equal(limitStates(await send())[0].r, (left -= 1));
  for (; left > 0; left -= 1) await look(closed.visitor(), address);
  sends.splice(1, 1); // the one with the forged cookie, which is removed, also with a 429
  for (const send of sends) assertRefused(await send(), "ip");
  assert.equal((await look(closed.visitor())).status, 200, "other addresses are not affected");
});

test("a session keeps its counter through rotations, also for requests with an older id", async () => {
  const visitor = await guest(two[0]);
  const late = visitor.clone(two[1].url);
  assert.equal(limitStates(await visitor.rotate())[0].r, 4);
  assert.equal(limitStates(await visitor.look())[0].r, 3);
  assert.equal(limitStates(await late.clone().look())[0].r, 2);
  assert.equal(limitStates(await visitor.rotate())[0].r, 1);
  assert.equal(limitStates(await late.clone().look())[0].r, 0);
  assertRefused(await visitor.look(), "session");
  assertRefused(await late.look(), "session");
});

test("dropping the cookie evades neither the limit on new sessions nor a route's limit per session", async () => {
  const address = someAddress();
  const headers = from(address);
  for (let count = 0; count < 4; count += 1) {
    assert.equal((await two[count % 2].visitor().merge({ a: 1 }, headers)).status, 200);
  }
  for (const worker of two) assertRefused(await worker.visitor().merge({ a: 1 }, headers), "mint");

  const visitor = await guest(two[0]);
  const search = (/** @type {Visitor} */ one) => one.send("GET", "/api/search", { headers });
  for (let count = 0; count < 3; count += 1) assert.equal((await search(visitor)).status, 404);
  assertRefused(await search(visitor), "GET /api/search");
  for (let count = 0; count < 3; count += 1) {
    assert.equal(
      (await search(two[count % 2].visitor())).status,
      404,
      "all requests without a session there share a counter",
    );
  }
  for (const worker of two) assertRefused(await search(worker.visitor()), "GET /api/search");
});

test("addresses of one subscriber count together", async () => {
  const alike = [
    ["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", true],
    ["2001:db8:1:2::1", "2001:DB8:0001:0002:0:0:0:9", true],
    ["2001:db8:1:3::1", "2001:db8:1:4::1", false],
    ["::ffff:203.0.113.5", "203.0.113.5", true],
    ["203.0.113.6", "203.0.113.7", false],
  ];
  for (const [one, other, isSame] of alike) {
    await store.redis.flushAll();
    assert.equal(limitStates(await look(closed.visitor(), String(one)))[0].r, 49);
    assert.equal(
      limitStates(await look(closed.visitor(), String(other)))[0].r,
      isSame ? 48 : 49,
      `${one} ${other}`,
    );
    await moveToWindow(store, all);
  }
});

test("all requests without a known address count together", async () => {
  await moveToWindow(store, all);
  const bare = async () => limitStates(await closed.visitor().look())[0].r;
  const first = await bare();
  assert.equal(await bare(), first - 1);
});

test("all sessions of a user count together", async () => {
  const id = someUser();
  const [one, other] = [await member(two[0], id), await member(two[1], id)];
  const stranger = await member(two[0], someUser());
  for (let count = 0; count < 4; count += 1) {
    await look(one);
    const limitState = limitStates(await look(other)).find(({ name }) => name === "user");
    assert.equal(limitState?.r, 6 - 2 * count);
  }
  for (const visitor of [one, other]) assertRefused(await look(visitor), "user");
  assertRefused(await look(await member(two[1], id)), "user");
  assert.equal((await look(stranger)).status, 200);
});

// New sessions

test("only a session that is really created is counted", async () => {
  const address = someAddress();
  const headers = from(address);
  const json = { ...headers, "Content-Type": "application/json" };
  /** @type {[number, (one: Visitor) => Promise<Answer>][]} */
  const refusals = [
    [
      422,
      (one) =>
        one.send("PATCH", "/auth/session/data", {
          headers: { ...headers, "Content-Type": "application/json-patch+json" },
          body: '[{"op":"remove","path":"/nothing"}]',
        }),
    ],
    [412, (one) => one.merge({ a: 1 }, { ...headers, "If-Match": '"another"' })],
    [412, (one) => one.merge({ a: 1 }, { ...headers, "If-Match": "*" })],
    [413, (one) => one.merge({ a: "x".repeat(70_000) }, headers)],
    [413, (one) => one.merge({ a: "x".repeat(300_000) }, headers)],
    [400, (one) => one.send("PATCH", "/auth/session/data", { headers: json, body: "{" })],
    [
      415,
      (one) =>
        one.send("PATCH", "/auth/session/data", {
          headers: { ...headers, "Content-Type": "text/plain" },
          body: "{}",
        }),
    ],
    [403, (one) => one.merge({ a: 1 }, { ...headers, "Sec-Fetch-Site": "cross-site" })],
  ];
  for (const [status, act] of refusals) {
    const { value, calls } = await store.counters.during(() => act(two[0].visitor()));
    assert.deepEqual([value.status, calls], [status, 0], value.text);
    assertUncounted(value, String(status));
  }
  const visitor = two[0].visitor();
  assert.deepEqual(
    limitStates(await visitor.merge({ a: 1 }, headers)).map(({ name, r }) => [name, r]),
    [["mint", 3]],
  );
  assert.deepEqual(names(await visitor.merge({ a: 2 }, headers)), ["session"], "the session exists already");
  await untilCounted("mint", 1);
});

test("a session that is refused is refunded, and not created", async () => {
  const address = someAddress();
  for (let count = 0; count < 4; count += 1) await two[0].visitor().merge({ a: 1 }, from(address));
  for (const worker of two) assertRefused(await worker.visitor().merge({ a: 1 }, from(address)), "mint");
  await untilCounted("mint", 4);
  assert.equal((await store.redis.keys("sess:*")).length, 4);
});

test("a change with the ticket of an ended session creates a session, and is counted as that alone", async () => {
  const visitor = await guest(two[0]);
  const dead = visitor.clone();
  await visitor.logout();
  const headers = from();
  const answer = await dead.clone().merge({ b: 2 }, headers);
  assert.deepEqual(answer.json.session.data, { b: 2 });
  assert.deepEqual(names(answer), ["mint"], "a dead ticket uses up nobody's limit");
  for (let count = 0; count < 3; count += 1)
    assert.equal((await two[1].visitor().merge({}, headers)).status, 200);
  assertRefusedWithCookie(await dead.merge({ b: 2 }, headers));
  await moveToWindow(store, all);
});

/** The cookie of an ended session may be removed with a 429. @param {Answer} answer */
function assertRefusedWithCookie(answer) {
  assert.equal(answer.status, 429, answer.text);
  assert.ok(answer.json.detail.includes('"mint"'), answer.text);
  assert.ok(answer.setCookies.every((line) => line.includes("Max-Age=0")));
}
