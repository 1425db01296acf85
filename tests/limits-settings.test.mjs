/** The limits of routes, invalid settings, and Cloudflare's own limit in front. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import {
  assertRefused,
  assertUncounted,
  counters,
  from,
  guest,
  look,
  member,
  names,
  seconds,
  secrets,
  someAddress,
  someUser,
  limitStates,
  start,
  startTwo,
  store,
} from "./support/limits.mjs";
import { eventsIn, messagesOf } from "./support/log.mjs";
import { startWorker, until } from "./support/worker.mjs";

/** @typedef {import("./support/limits.mjs").Visitor} Visitor */
/** @typedef {import("./support/limits.mjs").Answer} Answer */

const two = await startTwo();

test("of the limits of routes the most specific applies", async () => {
  const cases = [
    ["GET", "/api/search", "GET /api/search"],
    ["HEAD", "/api/search", "GET /api/search"],
    ["POST", "/api/search", "/api/search"],
    ["POST", "/api/searches", "/api/search*"],
    ["GET", "/api/search/deep", "/api/search*"],
    ["GET", "/api/other", "GET /api/*"],
    ["POST", "/api/other", "/api/*"],
    ["GET", "/api/search?page=2", "GET /api/search"],
    ["GET", "/api", ""],
    ["GET", "/API/search", ""],
    ["GET", "/elsewhere", ""],
  ];
  for (const [method, path, name] of cases) {
    const answer = await two[0].visitor().send(method, path, { headers: from() });
    assert.equal(answer.status, 404, `${method} ${path}`);
    if (name === "") assertUncounted(answer, path);
    else assert.deepEqual(names(answer), [name], `${method} ${path}`);
  }
});

test("a route's limit by user falls back to the session, and then to the address", async () => {
  const id = someUser();
  const [one, other] = [await member(two[0], id), await member(two[1], id)];
  const stranger = await guest(two[0]);
  const mine = (/** @type {Visitor} */ visitor, address = someAddress()) =>
    visitor.send("GET", "/api/mine", { headers: from(address) });
  const left = (/** @type {Answer} */ answer) =>
    limitStates(answer).find(({ name }) => name === "/api/mine")?.r;
  assert.deepEqual([left(await mine(one)), left(await mine(other)), left(await mine(one))], [2, 1, 0]);
  assertRefused(await mine(other), "/api/mine");
  assert.deepEqual([left(await mine(stranger)), left(await mine(stranger))], [2, 1], "by session");
  const address = someAddress();
  assert.equal(left(await mine(two[0].visitor(), address)), 2, "by address");
  assert.equal(left(await mine(two[1].visitor(), address)), 1);
  assert.equal((await look(other)).status, 200, "elsewhere the user is not over a limit");
});

test("invalid limits are refused at start, and the log names each of them", async () => {
  const good = { path: "/a", limit: "1/1m" };
  const bad = [
    { path: "a", limit: "1/1m" },
    { path: "/a*b", limit: "1/1m" },
    { path: "/a?b=c", limit: "1/1m" },
    { limit: "1/1m" },
    { ...good, method: "get" },
    { ...good, method: "FETCH" },
    { ...good, by: "planet" },
    { path: "/b", limit: "1/0s" },
    { path: "/c", limit: "0/1m" },
    { path: "/d", limit: "many" },
    { path: "/e", limit: "1/1m", burst: 3 },
  ];
  const limits = { session: "300", ip: "1/32d", other: "1/1m", routes: [good, good, ...bad] };
  const worker = await startWorker({ store, secrets, settings: { limits } });
  try {
    const answer = await look(worker.visitor());
    assert.equal(answer.status, 500);
    assert.equal(answer.json.code, "misconfigured");
    assert.ok(!answer.text.includes("planet") && !answer.text.includes("limits"));
    await until(() => eventsIn(worker, "misconfigured").length > 10);
    const log = messagesOf(worker);
    const fields = [
      "path",
      "path",
      "path",
      "path",
      "method",
      "method",
      "by",
      "limit",
      "limit",
      "limit",
      "burst",
    ];
    const expected = ["routes[1].path", ...fields.map((field, index) => `routes[${index + 2}].${field}`)];
    for (const field of ["session", "ip", "other", ...expected]) {
      assert.ok(log.includes(`CLOAKROOM.limits.${field}`), `${field} in ${log}`);
    }
    assert.ok(!log.includes("routes[0]"));
  } finally {
    await worker.stop();
  }
});

test("a window may be as long as 31 days", async () => {
  const worker = await start({ settings: { limits: { session: "", mint: "", ip: "2/31d" } } });
  const address = someAddress();
  const spend = () => look(worker.visitor(), address);
  for (const status of [200, 200, 429]) assert.equal((await spend()).status, status);
  const DAY = 86_400;
  const refused = await spend();
  assert.match(refused.json.detail, /in 2678400 s/);
  const wait = seconds(refused);
  assert.ok(wait > 0 && wait <= 62 * DAY, String(wait));
  const [ttl] = await Promise.all(
    (await counters(`limit:ip:${address}:*`)).map(({ key }) => store.redis.ttl(key)),
  );
  assert.ok(ttl && ttl > 61 * DAY && ttl < 63 * DAY, String(ttl));
});

test("with RATE_LIMITER bound, a flood from one address is refused before anything else, without a call to the store", async () => {
  const limits = { session: "50/1m", mint: "" };
  const worker = await startWorker({
    store,
    secrets,
    settings: { limits },
    ratelimits: { RATE_LIMITER: { simple: { limit: 3, period: 10 } } },
  });
  try {
    const visitor = await guest(worker);
    // It counts in windows of ten seconds, by a clock that is not moved.
    const left = 10_000 - (Date.now() % 10_000);
    if (left < 2000) await sleep(left + 50);
    for (const { alike, other } of [
      { alike: ["203.0.113.8"], other: "203.0.113.9" },
      { alike: ["2001:db8:7:7::1", "2001:DB8:7:7:ffff::9"], other: "2001:db8:7:8::1" },
    ]) {
      for (let count = 0; count < 3; count += 1) {
        const answer = await look(visitor, alike[count % alike.length]);
        assert.equal(answer.status, 200, answer.text);
      }
      for (const one of [visitor, worker.visitor()]) {
        for (const address of alike) {
          const { value, calls } = await store.counters.during(() => look(one, address));
          assert.deepEqual([value.status, value.json?.code, calls], [429, "rate_limited", 0], value.text);
          assert.equal(seconds(value), 60);
          assert.deepEqual(value.setCookies, []);
          assertUncounted(value);
        }
      }
      assert.equal((await look(visitor, other)).status, 200, "other addresses are not affected");
    }
  } finally {
    await worker.stop();
  }
});

test("without RATE_LIMITER nothing is refused in front of the limits", async () => {
  const address = someAddress();
  for (let count = 0; count < 12; count += 1) {
    assert.equal((await look(two[0].visitor(), address)).status, 200);
  }
});
