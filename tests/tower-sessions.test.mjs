/**
 * What tower-sessions expects of a store: its own cases (tests/common/mod.rs of tower-sessions 0.15, those of its
 * middleware that a store can break), and what its documentation asks of each method. The Worker is
 * tests/fixtures/tower-sessions-worker.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { useVersions } from "../tools/rust-worker.mjs";
import { buildRustWorker, startRustWorker } from "./support/rust-worker.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const folder = join(root, "tests/fixtures/tower-sessions-worker");
const HOUR = { inactivity: "3600" };
const DAY_SECONDS = 86_400;

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** @type {Awaited<ReturnType<typeof startRustWorker>>} */
let worker;
before(async () => {
  // The versions that the example is built with, whose dependencies are the same.
  await useVersions(folder, join(root, "examples/axum"));
  const built = await buildRustWorker({ folder, name: "tower-sessions" });
  store = await startLocalStore();
  worker = await startRustWorker(built, { store, settings: { key_prefix: "test:" } });
});
after(async () => {
  await worker?.stop();
  await store?.stop();
});
beforeEach(() => store.faults.clear());

/**
 * @param {import("./support/visitor.mjs").Visitor} visitor
 * @param {string} path
 * @param {Record<string, string>} [options] of the layer
 */
const get = (visitor, path, options = HOUR) => visitor.send("GET", path, { headers: options });

/** The attributes of the only cookie that an answer sets. @param {import("./support/visitor.mjs").Answer} answer */
function cookieOf({ setCookies }) {
  assert.equal(setCookies.length, 1, setCookies.join("\n"));
  const [pair, ...attributes] = setCookies[0].split("; ");
  const [name, value] = pair.split("=");
  /** @type {Record<string, string | true>} */
  const found = Object.fromEntries(attributes.map((one) => [one.split("=")[0], one.split("=")[1] ?? true]));
  return { name, value, ...found };
}

/** Not a number if there is none. @param {object} cookie */
const maxAgeOf = (cookie) => Number(/** @type {Record<string, unknown>} */ (cookie)["Max-Age"]);

/** @param {string} key */
const secondsLeft = async (key) => (await store.redis.pTTL(key)) / 1000;

/** As many seconds, of which a few may have passed since. @param {number} actual @param {number} expected */
const near = (actual, expected) =>
  assert.ok(actual <= expected && actual > expected - 10, `${actual}, not ${expected}`);

/** A method of the store. @param {string} path */
async function call(path) {
  const { status, text } = await worker.visitor().send("GET", `/store/${path}`);
  return status === 200 ? text : `${status} ${text}`;
}

/** A new id, as text. */
const newId = () => Buffer.from(crypto.getRandomValues(new Uint8Array(16))).toString("base64url");

const keys = async () => (await store.redis.keys("*")).sort();

test("a request that changes nothing sets no cookie and asks the store nothing", async () => {
  const { value, calls } = await store.counters.during(() => get(worker.visitor(), "/nothing"));
  assert.deepEqual([value.status, value.setCookies, calls], [200, [], 0]);
});

test("the id of a session that does not exist is not taken over, and costs one look", async () => {
  const visitor = worker.visitor();
  visitor.cookies.set("id", "AAAAAAAAAAAAAAAAAAAAAA");
  const { value, byName } = await store.counters.during(() => get(visitor, "/insert/foo/42"));
  assert.equal(value.status, 200);
  assert.notEqual(cookieOf(value).value, "AAAAAAAAAAAAAAAAAAAAAA");
  assert.deepEqual(byName, { GETEX: 1, SET: 1 });
});

test("nor does clearing it, unseen, make a session of it", async () => {
  const visitor = worker.visitor();
  visitor.cookies.set("id", "AAAAAAAAAAAAAAAAAAAAAA");
  const before = await keys();
  assert.equal((await get(visitor, "/clear")).status, 200);
  assert.deepEqual(await keys(), before);
  assert.equal((await get(visitor, "/get/foo")).text, "None");
});

test("a malformed cookie is removed without a look", async () => {
  const visitor = worker.visitor();
  visitor.cookies.set("id", "malformed");
  const { value, calls } = await store.counters.during(() => get(visitor, "/nothing"));
  assert.equal(cookieOf(value).value, "");
  assert.deepEqual([value.status, calls], [200, 0]);
});

for (const { name, options, cookie } of [
  { name: "ends with the browser's session", options: {}, cookie: {} },
  { name: "ends when it was not used for an hour", options: HOUR, cookie: { "Max-Age": "3600" } },
  {
    name: "is of a domain",
    options: { ...HOUR, domain: "example.com" },
    cookie: { "Max-Age": "3600", Domain: "example.com" },
  },
]) {
  test(`the cookie of a session that ${name}`, async () => {
    const { name, value, ...attributes } = cookieOf(await get(worker.visitor(), "/insert/foo/42", options));
    assert.equal(name, "id");
    assert.match(value, /^[\w-]{22}$/);
    assert.deepEqual(attributes, { HttpOnly: true, SameSite: "Strict", Secure: true, Path: "/", ...cookie });
  });
}

test("what was inserted is there for the next request, until it is removed", async () => {
  const visitor = worker.visitor();
  assert.equal((await get(visitor, "/get/foo")).text, "None");
  await get(visitor, "/insert/foo/42");
  assert.equal((await get(visitor, "/get/foo")).text, "Some(42)");
  assert.equal((await get(visitor, "/remove/foo")).text, "Some(42)");
  assert.equal((await get(visitor, "/get/foo")).text, "None");
});

test("names that mean something elsewhere are names like all others", async () => {
  const visitor = worker.visitor();
  for (const key of ["__proto__", "constructor", "%00", "%F0%9F%A7%A5"])
    await get(visitor, `/insert/${key}/42`);
  for (const key of ["__proto__", "constructor", "%00", "%F0%9F%A7%A5"]) {
    assert.equal((await get(visitor, `/get/${key}`)).text, "Some(42)", key);
  }
});

test("a new id has what the old one had, and the old one nothing", async () => {
  const visitor = worker.visitor();
  const first = cookieOf(await get(visitor, "/insert/foo/42"));
  const thief = visitor.clone();
  const second = cookieOf(await get(visitor, "/cycle"));
  assert.notEqual(first.value, second.value);
  assert.equal((await get(visitor, "/get/foo")).text, "Some(42)");
  assert.equal((await get(thief, "/get/foo")).text, "None");
});

for (const domain of [undefined, "localhost"]) {
  test(`a flushed session leaves neither a record nor a cookie (domain: ${domain})`, async () => {
    const visitor = worker.visitor();
    const options = domain ? { ...HOUR, domain } : HOUR;
    const before = await keys();
    await get(visitor, "/insert/foo/42", options);
    const cookie = cookieOf(await get(visitor, "/flush", options));
    const { Expires, ...rest } = /** @type {Record<string, unknown>} */ (cookie);
    const scope = domain ? { Path: "/", Domain: domain } : { Path: "/" };
    // Without `Secure`, for which browsers refuse to remove a `__Host-` cookie with it: the docs say so.
    assert.deepEqual(rest, { name: "id", value: "", "Max-Age": "0", ...scope });
    assert.deepEqual(await keys(), before);
  });
}

test("the time to live follows the expiry, of whichever kind it becomes", async () => {
  const visitor = worker.visitor();
  const before = await keys();
  near(maxAgeOf(cookieOf(await get(visitor, "/insert/foo/42"))), 3600);
  const [key = ""] = (await keys()).filter((one) => !before.includes(one));
  near(await secondsLeft(key), 3600);
  near(maxAgeOf(cookieOf(await get(visitor, "/expiry/in-a-day"))), DAY_SECONDS);
  near(await secondsLeft(key), DAY_SECONDS);
  assert.ok(Number.isNaN(maxAgeOf(cookieOf(await get(visitor, "/expiry/session-end")))));
  near(await secondsLeft(key), 14 * DAY_SECONDS);
  assert.equal((await get(visitor, "/get/foo")).text, "Some(42)");
});

test("a session that is always saved lives on with every request, but not beyond an end that is fixed", async () => {
  const end = Math.floor(Date.now() / 1000) + 1000;
  for (const { options, seconds } of [
    { options: { inactivity: "1000", "always-save": "" }, seconds: 1000 },
    { options: { at: String(end), "always-save": "" }, seconds: 700 },
  ]) {
    const [visitor, before] = [worker.visitor(), await keys()];
    const first = cookieOf(await get(visitor, "/insert/foo/42", options));
    const [key = ""] = (await keys()).filter((one) => !before.includes(one));
    near(await secondsLeft(key), 1000);
    await worker.moveClock(300_000);
    const second = cookieOf(await get(visitor, "/nothing", options));
    await worker.moveClock(-300_000);
    assert.equal(second.value, first.value);
    near(maxAgeOf(second), seconds);
    near(await secondsLeft(key), seconds);
  }
});

test("a session that has expired is gone, whatever the store's own clock says", async () => {
  const visitor = worker.visitor();
  await get(visitor, "/insert/foo/42");
  try {
    await worker.moveClock(3_599_000);
    assert.equal((await get(visitor, "/get/foo")).text, "Some(42)");
    await worker.moveClock(2000);
    const answer = await get(visitor, "/get/foo");
    assert.equal(answer.text, "None");
    assert.equal(cookieOf(answer).value, "");
  } finally {
    await worker.moveClock(-3_601_000);
  }
});

test("a response of 500 saves nothing", async () => {
  const { value, calls } = await store.counters.during(() => get(worker.visitor(), "/insert-and-fail"));
  assert.deepEqual([value.status, value.setCookies, calls], [500, [], 0]);
});

test("create gives an id only once", async () => {
  const id = newId();
  assert.equal(await call(`create/${id}/60/1`), id);
  const other = await call(`create/${id}/60/2`);
  assert.match(other, /^[\w-]{22}$/);
  assert.notEqual(other, id);
  assert.equal(await call(`load/${id}`), '{"value": Number(1)}');
  assert.equal(await call(`load/${other}`), '{"value": Number(2)}');
});

test("save overwrites what is there, and brings back nothing that was deleted", async () => {
  const id = newId();
  await call(`create/${id}/60/1`);
  assert.equal(await call(`save/${id}/60/2`), "");
  assert.equal(await call(`load/${id}`), '{"value": Number(2)}');
  assert.equal(await call(`delete/${id}`), "");
  assert.equal(await call(`save/${id}/60/3`), "");
  assert.equal(await call(`load/${id}`), "None");
  assert.equal(await call(`delete/${id}`), "");
});

test("a record that has expired when it is saved is found by nobody", async () => {
  for (const seconds of [0, -60]) {
    const id = newId();
    assert.equal(await call(`create/${id}/${seconds}/1`), id);
    assert.equal(await call(`load/${id}`), "None");
  }
});

test("each method is one call of one command", async () => {
  const id = newId();
  for (const path of [`create/${id}/60/1`, `save/${id}/60/2`, `load/${id}`, `delete/${id}`]) {
    const { calls, commands } = await store.counters.during(() => call(path));
    assert.deepEqual([calls, commands], [1, 1], path);
  }
});

test("replicas that are behind show no visitor an older session, nor one that has ended", async () => {
  const visitor = worker.visitor();
  await get(visitor, "/insert/foo/1");
  store.faults.lag = [60_000, 60_000];
  await get(visitor, "/insert/foo/2");
  assert.equal((await get(visitor, "/get/foo")).text, "Some(2)");
  await get(visitor, "/cycle");
  assert.equal((await get(visitor, "/get/foo")).text, "Some(2)");
  const copy = visitor.clone();
  await get(visitor, "/flush");
  assert.equal((await get(copy, "/get/foo")).text, "None");
});

test("the store holds nothing that could be used as a cookie, and each key has an end", async () => {
  const visitor = worker.visitor();
  const { value } = cookieOf(await get(visitor, "/insert/foo/42"));
  for (const key of await keys()) {
    assert.match(key, /^test:tower:[\w-]{43}$/);
    assert.ok((await store.redis.pTTL(key)) > 0, key);
    assert.ok(!`${key} ${await store.redis.get(key)}`.includes(value), key);
  }
});

test("what cannot be read is an error without a word of it, and stays", async () => {
  const [visitor, before] = [worker.visitor(), await keys()];
  await get(visitor, "/insert/foo/42");
  const [key = ""] = (await keys()).filter((one) => !before.includes(one));
  await store.redis.set(key, '{"data": "a secret"}');
  const answer = await get(visitor, "/insert/foo/43");
  assert.deepEqual([answer.status, answer.setCookies], [500, []]);
  assert.match(answer.text, /a record of tower-sessions in the store cannot be read$/);
  assert.equal(await store.redis.get(key), '{"data": "a secret"}');
});

test("with the feature http, Cloakroom's own sessions take and answer axum's requests and responses", async () => {
  const visitor = worker.visitor();
  const first = await visitor.send("GET", "/own/count");
  assert.deepEqual([first.status, first.text, first.setCookies.length], [200, "1", 1], first.text);
  assert.equal(first.headers.get("cache-control"), "no-store");
  const second = await visitor.send("GET", "/own/count?again=1");
  assert.deepEqual([second.text, second.setCookies.length], ["2", 0]);
  assert.match(String(second.headers.get("ratelimit")), /^"session";r=\d+;t=\d+$/);
  assert.equal(second.headers.get("vary"), "Cookie");
  const nobody = await visitor.send("GET", "/own/user");
  assert.deepEqual([nobody.status, nobody.json.code], [401, "unauthenticated"]);
  assert.equal((await visitor.send("POST", "/own/login")).setCookies.length, 1);
  assert.equal((await visitor.send("GET", "/own/user")).text, "ann");
  assert.equal((await visitor.send("GET", "/own/count")).text, "3", "a login carries the data over");
  const limited = [];
  for (let index = 0; index < 3; index += 1) limited.push(await visitor.send("GET", "/own/limited"));
  assert.deepEqual(
    limited.map(({ status }) => status),
    [200, 200, 429],
  );
  assert.match(String(limited[2].headers.get("ratelimit")), /"few";r=0/);
  const fresh = worker.visitor();
  const cached = await fresh.send("GET", "/own/cached");
  assert.equal(cached.headers.get("cache-control"), "no-store", "a cookie must not be cached for others");
  assert.equal((await fresh.send("GET", "/own/cached")).headers.get("cache-control"), "public, max-age=60");
});
