/** The life of a session, as the tutorials tell it: counter, form, cart, looking into the store, logging out. */
import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { startBoth } from "./support/worker.mjs";

const MINUTE = 60_000;

/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;
/** @type {import("./support/visitor.mjs").Visitor} */
let visitor;
before(async () => void (both = await startBoth()));
after(() => both.stop());
beforeEach(() => void (visitor = both.worker.visitor()));

/** What the store holds of a session. @param {{ handle: string }} session */
const stored = async ({ handle }) => JSON.parse(String(await both.store.redis.get(`sess:${handle}`)));

/** Milliseconds the store will keep it. @param {{ handle: string }} session */
const timeToLive = ({ handle }) => both.store.redis.pTTL(`sess:${handle}`);

/** @param {number} actual @param {number} expected */
const about = (actual, expected) =>
  assert.ok(Math.abs(actual - expected) < MINUTE / 2, `${actual} is not about ${expected}`);

test("a read without a session creates none", async () => {
  const keys = (await both.store.redis.keys("sess:*")).length;
  const answer = await visitor.look();
  assert.equal(answer.status, 200);
  assert.equal(answer.text, '{"session":null}');
  assert.equal(answer.headers.get("etag"), null);
  assert.deepEqual(answer.setCookies, []);
  assert.equal((await both.store.redis.keys("sess:*")).length, keys);
});

test("a visit counter begins with the first change and counts on", async () => {
  for (const views of [1, 2, 3]) {
    const answer = await visitor.increment("/views");
    assert.equal(answer.status, 200);
    assert.deepEqual(answer.json.session.data, { views });
    assert.equal(answer.setCookies.length, views === 1 ? 1 : 0);
  }
  assert.deepEqual((await visitor.session()).data, { views: 3 });
});

test("a session has the shape of the contract, and an idle and an absolute end", async () => {
  const { headers, json } = await visitor.merge({ a: 1 });
  const { session } = json;
  assert.deepEqual(Object.keys(json), ["session"]);
  assert.deepEqual(Object.keys(session), [
    "handle",
    "user",
    "data",
    "created_at",
    "authenticated_at",
    "expires_at",
    "idle_expires_at",
    "remember",
  ]);
  const { user, authenticated_at, remember } = session;
  assert.deepEqual(
    { user, authenticated_at, remember },
    { user: null, authenticated_at: null, remember: false },
  );
  for (const name of ["created_at", "expires_at", "idle_expires_at"]) {
    assert.match(session[name], /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  }
  about(Date.parse(session.created_at), Date.now());
  about(Date.parse(session.expires_at), Date.now() + 24 * 60 * MINUTE);
  about(Date.parse(session.idle_expires_at), Date.now() + 30 * MINUTE);
  about(await timeToLive(session), 30 * MINUTE);
  assert.equal(headers.get("content-type"), "application/json");
  assert.equal(headers.get("cache-control"), "no-store, no-transform");
  assert.equal(headers.get("vary"), "Cookie");
  assert.equal(headers.get("x-content-type-options"), "nosniff");
});

test("a multi-step form is merged step by step, and null removes", async () => {
  await visitor.merge({ form: { name: "Ada", mail: "ada@example.com" } });
  await visitor.merge({ form: { street: "Main Street 1" }, step: 2 });
  const { json } = await visitor.merge({ form: { mail: null } });
  assert.deepEqual(json.session.data, { form: { name: "Ada", street: "Main Street 1" }, step: 2 });
});

test("a cart is changed by JSON patch, all or nothing", async () => {
  await visitor.patch([
    { op: "add", path: "/cart", value: [] },
    { op: "add", path: "/cart/-", value: { sku: "tea", n: 1 } },
    { op: "increment", path: "/cart/0/n", value: 2 },
  ]);
  const refused = await visitor.patch([
    { op: "add", path: "/cart/-", value: { sku: "cake" } },
    { op: "test", path: "/cart/0/n", value: 99 },
  ]);
  assert.equal(refused.status, 422);
  assert.deepEqual((await visitor.session()).data, { cart: [{ sku: "tea", n: 3 }] });
});

test("text of every script survives the round trip through the store", async () => {
  const data = {
    text: 'Größe „5“ 😀 \u0000 \\ " \u2028 </script>',
    n: 0.1,
    big: 9007199254740991,
    small: 5e-324,
  };
  await visitor.merge(data);
  await visitor.merge({ more: true });
  const session = await visitor.session();
  assert.deepEqual(session.data, { ...data, more: true });
  assert.deepEqual((await stored(session)).data, { ...data, more: true });
});

test("the ETag changes exactly when the stored session does", async () => {
  const first = (await visitor.merge({ a: 1 })).headers.get("etag");
  assert.match(String(first), /^"[\w-]+"$/);
  assert.equal((await visitor.look()).headers.get("etag"), first);
  assert.equal((await visitor.merge({ a: 1 })).headers.get("etag"), first, "a change that changes nothing");
  assert.equal((await visitor.rotate()).headers.get("etag"), first, "a new id");
  const second = (await visitor.merge({ a: 2 })).headers.get("etag");
  assert.notEqual(second, first);
  assert.notEqual((await visitor.merge({ a: 1 })).headers.get("etag"), first, "back to the same data");
});

test("If-Match admits a change only if there was no other since", async () => {
  const etag = String((await visitor.merge({ a: 1 })).headers.get("etag"));
  assert.equal((await visitor.merge({ a: 2 }, { "If-Match": `"other", ${etag}` })).status, 200);
  assert.equal((await visitor.merge({ a: 3 }, { "If-Match": etag })).status, 412);
  assert.equal((await visitor.merge({ a: 4 }, { "If-Match": "*" })).status, 200);
  assert.deepEqual((await visitor.session()).data, { a: 4 });
});

test("a rotation gives the session a new id and handle, and the old id redirects to it for the grace period", async () => {
  const { session } = (await visitor.merge({ cart: ["tea"] })).json;
  const late = visitor.clone();
  const rotated = await visitor.rotate();
  assert.equal(rotated.status, 200);
  assert.equal(rotated.setCookies.length, 1);
  assert.notEqual(rotated.json.session.handle, session.handle);
  const { handle: _old, idle_expires_at: _before, ...rest } = session;
  const { handle: _new, idle_expires_at: _after, ...now } = rotated.json.session;
  assert.deepEqual(now, rest);

  const followed = await late.look();
  assert.equal(followed.json.session.handle, rotated.json.session.handle);
  assert.equal(late.ticket, visitor.ticket, "every request through a redirect gets the same ticket");
});

test("rotations and logouts without a session are harmless", async () => {
  const rotate = await visitor.rotate();
  assert.equal(rotate.status, 401);
  assert.equal(rotate.json.code, "unauthenticated");
  assert.deepEqual(rotate.setCookies, []);
  const logout = await visitor.logout();
  assert.equal(logout.status, 204);
  assert.deepEqual(logout.setCookies, []);
});

test("a logout removes record and cookie, and the ticket is invalid from then on", async () => {
  const { session } = (await visitor.merge({ a: 1 })).json;
  const thief = visitor.clone();
  const answer = await visitor.logout();
  assert.equal(answer.status, 204);
  assert.equal(answer.text, "");
  assert.deepEqual(answer.setCookies, ["__Host-session=; Path=/; HttpOnly; Secure; SameSite=Lax; Max-Age=0"]);
  assert.equal(await both.store.redis.exists(`sess:${session.handle}`), 0);
  assert.equal(await thief.session(), null);
});

test("a logout with an id that was just rotated ends the successor too", async () => {
  await visitor.merge({ a: 1 });
  const late = visitor.clone();
  await visitor.rotate();
  await visitor.rotate();
  assert.equal((await late.logout()).status, 204);
  assert.equal(await visitor.session(), null);
});

test("a ticket whose session has ended is no session to a read, and a change creates a new session", async () => {
  await visitor.merge({ a: 1 });
  const dead = visitor.clone();
  await visitor.logout();

  const read = await dead.look();
  assert.equal(read.text, '{"session":null}');
  assert.deepEqual(read.setCookies, [], "the answer may arrive after one that sets a newer cookie");

  assert.deepEqual((await dead.merge({ b: 2 })).json.session.data, { b: 2 });
  assert.deepEqual((await dead.session()).data, { b: 2 });
});

test("the record in the store has the session's data, expires, and does not contain the session id", async () => {
  const { session } = (await visitor.merge({ cart: ["tea"] })).json;
  const record = await stored(session);
  assert.deepEqual(record.data, session.data);
  assert.equal(record.expires_at, Math.floor(record.expires_at));
  const id = Buffer.from(String(visitor.ticket), "base64url").subarray(5, 37);
  const dump = JSON.stringify(record) + session.handle;
  for (const spelling of /** @type {const} */ (["base64url", "base64", "hex"])) {
    assert.ok(!dump.includes(id.toString(spelling)), spelling);
  }
  for (const key of await both.store.redis.keys("*")) assert.ok((await both.store.redis.pTTL(key)) > 0, key);
});

test("use renews the time to live at most once in touch_every, and sets no cookie", async () => {
  const first = (await visitor.merge({ a: 1 })).json.session;
  const { worker, store } = both;

  await worker.moveClock(4 * MINUTE);
  assert.deepEqual((await visitor.look()).setCookies, []);

  await worker.moveClock(2 * MINUTE);
  await store.redis.pExpire(`sess:${first.handle}`, MINUTE);
  const renewed = await visitor.look();
  about(await timeToLive(first), 30 * MINUTE);
  assert.deepEqual(renewed.setCookies, []);
  about(Date.parse(renewed.json.session.idle_expires_at) - Date.parse(first.idle_expires_at), 6 * MINUTE);
  assert.equal(renewed.json.session.expires_at, first.expires_at);
  const next = await store.counters.during(() => visitor.look());
  assert.equal(next.byName.PEXPIRE, undefined);
  assert.equal(next.value.json.session.idle_expires_at, renewed.json.session.idle_expires_at);
});

test("1,000 reads in one slice make one TTL write, also with one ticket that is never replaced", async () => {
  await visitor.merge({ a: 1 });
  await both.worker.moveClock(6 * MINUTE);
  const { byName } = await both.store.counters.during(async () => {
    for (let round = 0; round < 20; round += 1) {
      await Promise.all(Array.from({ length: 50 }, () => visitor.clone().look()));
    }
  });
  assert.deepEqual(byName, { MGET: 1000, PEXPIRE: 1 });
});

test("no use moves the absolute end: a ticket replayed for a day ends with the session", async () => {
  await visitor.merge({ a: 1 });
  const { worker, store } = both;
  for (let hour = 0; hour < 24; hour += 1) {
    await store.redis.persist(`sess:${(await visitor.session()).handle}`); // only the Worker's own rules count here
    await worker.moveClock(59.9 * MINUTE);
  }
  assert.deepEqual((await visitor.session()).data, { a: 1 });
  await visitor.rotate();
  await worker.moveClock(3 * MINUTE);
  const { value, calls } = await store.counters.during(() => visitor.look());
  assert.equal(value.json.session, null);
  assert.equal(calls, 0);
});

test("HEAD is GET without a body", async () => {
  await visitor.merge({ a: 1 });
  const head = await visitor.send("HEAD", "/auth/session");
  const get = await visitor.look();
  assert.equal(head.status, 200);
  assert.equal(head.text, "");
  assert.equal(head.headers.get("etag"), get.headers.get("etag"));
});

test("a health check answers ok after a call to the store", async () => {
  const { value, calls } = await both.store.counters.during(() => visitor.send("GET", "/auth/health"));
  assert.equal(value.status, 200);
  assert.deepEqual(value.json, { status: "ok" });
  assert.equal(calls, 1);
});
