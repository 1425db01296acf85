/** examples/axum, as an axum author would deploy it: a visit counter whose sessions are tower-sessions'. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { buildRustWorker, startRustWorker } from "./support/rust-worker.mjs";
import { randomSecret, until } from "./support/worker.mjs";

const folder = fileURLToPath(new URL("../examples/axum", import.meta.url));
const DAY = 86_400_000;

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** @type {Awaited<ReturnType<typeof startRustWorker>>[]} Two isolates. */
let workers;
/** @type {Awaited<ReturnType<typeof startRustWorker>>} One that lacks its settings. */
let misconfigured;
before(async () => {
  // With the versions in its Cargo.lock; if they are out of date, cargo says so.
  const built = await buildRustWorker({ folder, name: "axum", args: ["--locked"] });
  store = await startLocalStore();
  const secrets = { SESSION_SECRET: randomSecret() };
  const settings = { key_prefix: "visits:" };
  workers = await Promise.all([1, 2].map(() => startRustWorker(built, { store, settings, secrets })));
  misconfigured = await startRustWorker(built, {
    store,
    secrets: { SESSION_SECRET: "short and secret", UPSTASH_REDIS_REST_TOKEN: undefined },
  });
});
after(async () => {
  await Promise.all([...(workers ?? []), misconfigured].map((worker) => worker?.stop()));
  await store?.stop();
});
beforeEach(() => store.faults.clear());

/** @param {import("./support/visitor.mjs").Visitor} visitor */
async function visit(visitor) {
  const { status, text } = await visitor.send("GET", "/");
  assert.equal(status, 200, text);
  return Number(/^Visits: (\d+)\n$/.exec(text)?.[1]);
}

test("visits are counted, in whichever isolate they arrive, each visitor's on their own", async () => {
  const visitor = workers[0].visitor();
  for (const count of [1, 2, 3, 4, 5]) {
    visitor.url = workers[count % 2].url;
    assert.equal(await visit(visitor), count);
  }
  assert.equal(await visit(workers[0].visitor()), 1);
});

test("a first visit is one call to the store, each further one two", async () => {
  const visitor = workers[0].visitor();
  for (const expected of [{ SET: 1 }, { GETEX: 1, SET: 1 }, { GETEX: 1, SET: 1 }]) {
    const { byName } = await store.counters.during(() => visit(visitor));
    assert.deepEqual(byName, expected);
  }
  for (const key of await store.redis.keys("*")) assert.match(key, /^visits:tower:/);
});

test("the cookie is for the Worker's own eyes, and lasts a day", async () => {
  const { setCookies } = await workers[0].visitor().send("GET", "/");
  assert.equal(setCookies.length, 1);
  const [pair, ...attributes] = setCookies[0].split("; ");
  assert.match(pair, /^id=[\w-]{22}$/);
  assert.deepEqual(attributes.sort(), ["HttpOnly", "Max-Age=86400", "Path=/", "SameSite=Lax", "Secure"]);
});

test("a day without a visit ends the session", async () => {
  const visitor = workers[0].visitor();
  try {
    for (const [moved, count] of [
      [0, 1],
      [DAY - 1000, 2],
      [DAY - 1000, 3],
      [DAY + 1000, 1],
    ]) {
      await workers[0].moveClock(moved);
      assert.equal(await visit(visitor), count);
    }
  } finally {
    await workers[0].moveClock(1000 - 3 * DAY);
  }
});

test("a renewed session counts on under its new id alone", async () => {
  const visitor = workers[0].visitor();
  await visit(visitor);
  const thief = visitor.clone();
  const { status, setCookies } = await visitor.send("POST", "/renew");
  assert.deepEqual([status, setCookies.length], [200, 1]);
  assert.equal(await visit(visitor), 2);
  assert.equal(await visit(thief), 1);
});

test("a forgotten session is gone, in the browser and in the store", async () => {
  const visitor = workers[0].visitor();
  await visit(visitor);
  const copy = visitor.clone(workers[1].url);
  const { status } = await visitor.send("DELETE", "/");
  assert.deepEqual([status, visitor.cookies.size], [200, 0]);
  assert.equal(await visit(visitor), 1);
  assert.equal(await visit(copy), 1);
});

test("forged cookies begin a session of their own, under an id of the Worker's", async () => {
  for (const id of [
    "AAAAAAAAAAAAAAAAAAAAAA",
    "_____________________w",
    "'; FLUSHALL",
    "a".repeat(4000),
    "",
  ]) {
    const visitor = workers[0].visitor();
    visitor.cookies.set("id", id);
    assert.equal(await visit(visitor), 1, id);
    assert.notEqual(visitor.cookies.get("id"), id);
    assert.equal(await visit(visitor), 2, id);
  }
});

test("a visit that is under way when the session is forgotten does not bring it back", async () => {
  const visitor = workers[0].visitor();
  await visit(visitor);
  const copy = visitor.clone();
  const slow = visitor.clone(workers[1].url);
  const writing = store.faults.hold(({ commands }) => commands[0]?.[0] === "SET");
  const answer = slow.send("GET", "/");
  await writing.arrived;
  assert.equal((await visitor.send("DELETE", "/")).status, 200);
  writing.release();
  assert.equal((await answer).status, 200);
  assert.equal(await visit(slow), 1);
  assert.equal(await visit(copy), 1);
});

for (const { what, when } of [
  { what: "not read", when: "GETEX" },
  { what: "not written", when: "SET" },
]) {
  for (const fault of /** @type {const} */ (["refuse", "cut", "quota"])) {
    test(`a session that is ${what} (${fault}) is a 500 that says nothing, and the cookie stays`, async () => {
      const visitor = workers[0].visitor();
      await visit(visitor);
      const cookie = visitor.cookies.get("id") ?? "";
      const logged = workers[0].logs.length;
      store.faults.always(fault, { when: ({ commands }) => commands[0]?.[0] === when });
      const { status, text, setCookies } = await visitor.send("GET", "/");
      assert.deepEqual({ status, text, setCookies }, { status: 500, text: "", setCookies: [] });
      const log = () => workers[0].logs.slice(logged).join("");
      await until(() => /"message":"the store failed: /.test(log()), log);
      assert.doesNotMatch(log(), new RegExp(`${cookie}|visits`));
      store.faults.clear();
      // `cut` executes what it does not answer.
      assert.equal(await visit(visitor), fault === "cut" && when === "SET" ? 3 : 2);
    });
  }
}

test("without its settings it answers 500, and the log says all that is missing, but no secret", async () => {
  const { status, text } = await misconfigured.visitor().send("GET", "/");
  assert.equal(status, 500);
  assert.doesNotMatch(text, /SESSION_SECRET/);
  const log = () => misconfigured.logs.join("");
  await until(() => /UPSTASH_REDIS_REST_TOKEN/.test(log()) && /SESSION_SECRET/.test(log()), log);
  assert.doesNotMatch(log(), /short and secret/);
});
