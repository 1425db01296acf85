/** What answers and the report for operators say of limits. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  admin,
  all,
  assertRefused,
  assertUncounted,
  countOf,
  guest,
  look,
  names,
  ORIGIN,
  someAddress,
  limitStates,
  startPerAddress,
  startTwo,
  store,
} from "./support/limits.mjs";
import { moveToWindow } from "./support/worker.mjs";

/** @typedef {import("./support/limits.mjs").Visitor} Visitor */
/** @typedef {import("./support/limits.mjs").Answer} Answer */

const two = await startTwo();

const closed = await startPerAddress("closed");

test("every counted response has the RateLimit fields, whatever its status", async () => {
  const visitor = await guest(closed);
  const big = "x".repeat(70_000);
  const json = { "Content-Type": "application/json" };
  /** @type {[number, (one: Visitor) => Promise<Answer>][]} */
  const cases = [
    [200, (one) => one.look()],
    [200, (one) => one.merge({ b: 2 })],
    [200, (one) => one.rotate()],
    [200, (one) => one.send("GET", "/auth/health")],
    [200, (one) => one.send("GET", "/auth/admin/stats", { headers: admin })],
    [400, (one) => one.send("PATCH", "/auth/session/data", { headers: json, body: "{" })],
    [401, (one) => one.send("GET", "/auth/sessions")],
    [401, (one) => one.send("GET", "/auth/admin/stats")],
    [404, (one) => one.send("GET", "/auth/nowhere")],
    [404, (one) => one.send("GET", "/elsewhere")],
    [405, (one) => one.send("PUT", "/auth/session")],
    [412, (one) => one.merge({ c: 3 }, { "If-Match": '"another"' })],
    [413, (one) => one.merge({ big })],
    [413, (one) => one.merge({ big: big.repeat(4) })],
    [
      415,
      (one) =>
        one.send("PATCH", "/auth/session/data", { headers: { "Content-Type": "text/plain" }, body: "a" }),
    ],
    [422, (one) => one.patch([{ op: "remove", path: "/nothing" }])],
    [204, (one) => one.logout()],
  ];
  let before = 5;
  for (const [index, [status, act]] of cases.entries()) {
    if (index % 4 === 0) {
      await moveToWindow(store, all); // so that none is over a limit
      await moveToWindow(store, all);
      before = 5;
    }
    const answer = await act(visitor);
    assert.equal(answer.status, status, answer.text);
    const [session, ip] = limitStates(answer);
    assert.deepEqual([session.name, session.q, session.w], ["session", 5, 60], `case ${index}`);
    assert.deepEqual([ip.name, ip.q, ip.w], ["ip", 50, 60]);
    assert.equal(session.r, (before -= 1), `case ${index}: it counts once`);
  }
});

test("a 429 has the fields, a page of an allowed origin may read them, and no cookie is set", async () => {
  const visitor = await guest(two[0]);
  for (let count = 0; count < 5; count += 1) await look(visitor);
  for (const from of ["the store", "memory"]) {
    const answer = await visitor.send("GET", "/auth/session", { headers: { Origin: ORIGIN } });
    assertRefused(answer, "session");
    const exposed = String(answer.headers.get("Access-Control-Expose-Headers")).split(/, */);
    assert.deepEqual(
      ["RateLimit", "RateLimit-Policy", "Retry-After"].filter((name) => !exposed.includes(name)),
      [],
      from,
    );
    assert.equal(answer.headers.get("Access-Control-Allow-Origin"), ORIGIN);
    assert.match(answer.json.detail, /the limit "session" of 5 requests in 60 s/);
  }
});

test("the tightest policy comes first", async () => {
  const visitor = await guest(closed);
  const address = someAddress();
  assert.deepEqual(names(await look(visitor, address)), ["session", "ip"]);
  for (let count = 0; count < 47; count += 1) await look(closed.visitor(), address);
  const answer = await look(visitor, address);
  assert.deepEqual(
    limitStates(answer).map(({ name, r }) => [name, r]),
    [
      ["ip", 1],
      ["session", 3],
    ],
  );
});

test("a response to an uncounted request has no RateLimit fields", async () => {
  const visitor = two[0].visitor();
  assertUncounted(await look(visitor), "no cookie");
  assertUncounted(await visitor.send("GET", "/auth/nowhere"), "nowhere");
  assertUncounted(await visitor.logout(), "logout");
  assertUncounted(await visitor.send("GET", "/auth/health"), "health");
  visitor.ticket = "A".repeat(148);
  assertUncounted(await look(visitor), "forged");
});

test("the report for operators counts refused requests", async () => {
  const before = await countOf(two[0], "rate_limited");
  await moveToWindow(store, all);
  const visitor = await guest(two[0]);
  for (let count = 0; count < 12; count += 1) await look(visitor);
  assert.equal(await countOf(two[0], "rate_limited"), before + 7);
});
