/**
 * What the version before has stored lives on: its store and its visitors' cookies, as tests/fixtures/make-store.mjs
 * wrote them down, meet the present build a moment later.
 */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { restoreSnapshot } from "./support/snapshot.mjs";
import { Visitor } from "./support/visitor.mjs";
import { moveClocks, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {import("./fixtures/make-store.mjs").Fixture} Fixture */

/** @type {Fixture} */
const old = JSON.parse(readFileSync(new URL("fixtures/store-0.1.json", import.meta.url), "utf8"));
const MADE_AT = Date.parse(old.made_at);
const MINUTE = 60_000;
const DEVICE = "__Host-session-device";
const admin = { Authorization: `Bearer ${old.secrets.ADMIN_TOKEN}`, "Content-Type": "application/json" };

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** An isolate that has just started. @type {Awaited<ReturnType<typeof startWorker>>} */
let worker;

before(async () => void (store = await startLocalStore()));
after(() => store.stop());
beforeEach(async () => {
  worker = await startWorker({ store, secrets: old.secrets, settings: old.settings });
  await restoreSnapshot(store.redis, old.keys, { atLeast: 10 * MINUTE });
  // Both to the moment that the store was written down: the Worker's clock is new, the store's was moved before.
  store.moveClock(MADE_AT - store.now());
  await worker.moveClock(MADE_AT - Date.now(), { settle: false });
});
afterEach(() => worker.stop());

/** @param {Record<string, string>} cookies */
function holderOf(cookies) {
  const visitor = new Visitor(worker.url);
  visitor.cookies = new Map(Object.entries(cookies));
  return visitor;
}

/** Someone, with the cookies they had. @param {string} name */
const visitorNamed = (name) => holderOf(old.visitors[name].cookies);

/** The same device after its session has ended. @param {string} name */
const deviceOf = (name) => holderOf({ [DEVICE]: old.visitors[name].cookies[DEVICE] });

/** @param {string} method @param {string} path @param {unknown} [body] */
const service = (method, path, body) =>
  worker.visitor().send(method, `/auth/admin${path}`, {
    headers: admin,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });

/** @param {string} key @returns {Promise<any>} */
const stored = async (key) => JSON.parse(String(await store.redis.get(key)));

/** @param {string} key @returns {any} */
const storedBefore = (key) => JSON.parse(/** @type {string} */ (old.keys[key].value));

/** @param {Answer} answer @param {number} [status] */
function answers(answer, status = 200) {
  assert.equal(answer.status, status, answer.text);
  return answer;
}

/** What the data of the session in this answer is, to the letter. @param {Answer} answer @param {string} data */
const holds = (answer, data) => assert.ok(answer.text.includes(`"data":${data}`), `${answer.text}\n${data}`);

/**
 * The names of members in their order, at any depth but in data and profile, which are the application's.
 * @param {any} value
 * @returns {any}
 */
function namesIn(value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return undefined;
  const isFree = (/** @type {string} */ name) => name === "data" || name === "profile";
  return Object.entries(value).map(([name, member]) => [name, isFree(name) ? undefined : namesIn(member)]);
}

/**
 * Both have the same version and the same names in the same order; beside them the newer one has those in `added`, which
 * the version before ignores.
 * @param {string} key
 * @param {string} [oldKey]
 * @param {string[]} [added]  each a name, or two joined by a dot
 */
async function isOfOldForm(key, oldKey = key, added = []) {
  const [now, then] = [await stored(key), storedBefore(oldKey)];
  assert.equal(now.v, then.v, key);
  for (const path of added) {
    const names = path.split(".");
    const last = String(names.pop());
    const owner = names.reduce((value, name) => value[name], now);
    assert.ok(last in owner, `${key}: ${path}`);
    delete owner[last];
  }
  assert.deepEqual(namesIn(now), namesIn(then), key);
}

test("every session is read as it was: handle, user, times, data to the digit, and ETag", async () => {
  for (const [name, { session, data, etag }] of Object.entries(old.visitors)) {
    if (name === "unreadable") continue;
    const answer = answers(await visitorNamed(name).look());
    const whole = session && { ...session, data: JSON.parse(data) };
    assert.deepEqual(answer.json, { session: whole }, name);
    assert.equal(answer.headers.get("etag"), etag, name);
    assert.deepEqual(
      answer.setCookies.filter((line) => !/; Max-Age=0/.test(line)),
      [],
      name,
    );
    if (session !== null) holds(answer, data);
  }
});

test("a change goes on from what was stored: integers keep every digit, other numbers are doubles", async () => {
  const { data, etag } = old.visitors.anonymous;
  const visitor = visitorNamed("anonymous");
  answers(await visitor.merge({ name: "new" }, { "If-Match": String(etag) }));
  answers(await visitor.merge({ name: "newer" }, { "If-Match": String(etag) }), 412);
  const operations = [
    { op: "increment", path: "/views", value: 1 },
    { op: "increment", path: "/price", value: 0.2 },
    { op: "increment", path: "/integers/4", value: 1 },
    { op: "remove", path: "/name" },
  ];
  const expected = data
    .replace('"views":41', '"views":42')
    .replace('"price":0.1', '"price":0.30000000000000004')
    .replace("9007199254740993", "9007199254740994");
  /** Doubles may be written in another form: what counts is the value, and every digit of an integer. */
  const numbers = (/** @type {string} */ json) =>
    json.replace(/-?\d+(\.\d+)?([eE][+-]?\d+)?/g, (text) => {
      const isInteger = /^-?[1-9]\d*$|^0$/.test(text) && BigInt.asIntN(80, BigInt(text)) < 2n ** 64n;
      return isInteger ? text : String(Number(text));
    });
  for (const answer of [answers(await visitor.patch(operations)), answers(await visitor.look())]) {
    const text = /"data":(\{.*\}),"created_at"/.exec(answer.text)?.[1] ?? "";
    assert.equal(numbers(text), numbers(expected));
  }

  const people = Array.from({ length: 10 }, () => visitorNamed("account"));
  await Promise.all(people.map(async (one) => answers(await one.increment("/views"))));
  assert.deepEqual((await people[0].session()).data, { cart: ["tea"], views: 11 });
});

test("what is written has the form it had: names of members, their order, and the version", async () => {
  for (const name of ["anonymous", "account", "changed", "phone", "foreign", "rotated"]) {
    const { handle } = old.visitors[name].session;
    const key = `sess:${handle}`;
    const { session } = answers(await visitorNamed(name).merge({ more: true })).json;
    assert.equal(session.handle, handle);
    await isOfOldForm(key);
    const [now, then] = [await stored(key), storedBefore(key)];
    assert.notEqual(now.rev, then.rev, name);
    assert.deepEqual(now.before, [then.rev, ...then.before], name);
    const kept = [
      "user",
      "created_at",
      "authenticated_at",
      "expires_at",
      "remember",
      "marks",
      "device",
      "family",
    ];
    for (const member of kept) assert.deepEqual(now[member], then[member], `${name}: ${member}`);
  }

  const [redirect, head] = [`sess:${old.rotated_handle}`, `family:${storedBefore(rotatedKey()).family}`];
  const account = visitorNamed("account");
  const before = old.visitors.account.session;
  const { session } = answers(await account.rotate()).json;
  await isOfOldForm(`sess:${session.handle}`, `sess:${before.handle}`, ["rotations"]);
  await isOfOldForm(`sess:${before.handle}`, redirect, ["moved.from"]);
  const { family } = await stored(`sess:${session.handle}`);
  await isOfOldForm(`family:${family}`, head, ["from", "successors"]);

  const json = { "Content-Type": "application/merge-patch+json" };
  answers(await account.tell("PATCH", "/profile", { theme: "light" }, json));
  await isOfOldForm("account:ada lovelace");
  assert.deepEqual((await stored("account:ada lovelace")).profile, { ...old.profile, theme: "light" });
  answers(await service("PUT", `/users/${before.user.id}/roles`, { roles: ["reader"] }), 204);
  await isOfOldForm(standingKeyWith("roles"));

  const change = { current: old.passwords["Bob Ünïcode"], new: "yet another door key" };
  answers(await visitorNamed("changed").tell("POST", "/password", change));
  await isOfOldForm("account:bob ünïcode", undefined, ["password_rev"]);
  await isOfOldForm(standingKeyWith("mark"));
  assert.match((await stored("account:bob ünïcode")).hash, /^\$argon2id\$v=19\$m=64,t=1,p=1\$/);
});

const rotatedKey = () => `sess:${old.visitors.rotated.session.handle}`;

/** @param {string} member */
const standingKeyWith = (member) =>
  String(Object.keys(old.keys).find((key) => key.endsWith(":standing") && member in storedBefore(key)));

test("ids that were rotated a moment ago lead to their one successor, by cookie and by handle", async () => {
  const { handle } = old.visitors.rotated.session;
  for (const cookies of old.rotated_cookies) {
    const answer = answers(await holderOf(cookies).look());
    assert.equal(answer.json.session?.handle, handle);
    assert.equal(answer.setCookies.length, 1);
  }
  for (const cookies of old.rotated_cookies) answers(await holderOf(cookies).increment("/views"));
  assert.deepEqual((await visitorNamed("rotated").session()).data, { rotations: 3, views: 10 });
  const found = answers(await service("GET", `/sessions/${old.rotated_handle}`));
  assert.equal(found.json.session.handle, handle);
  answers(await holderOf(old.rotated_cookies[1]).logout(), 204);
  assert.equal(await visitorNamed("rotated").session(), null);
});

test("an id that was rotated, used after its grace, is theft and ends the session", async () => {
  assert.notEqual(await visitorNamed("rotated").session(), null);
  await moveClocks(store, [worker], 2 * MINUTE);
  assert.notEqual(await visitorNamed("rotated").session(), null);
  assert.equal(await holderOf(old.rotated_cookies[0]).session(), null);
  assert.equal(await visitorNamed("rotated").session(), null);
});

test("a logout ends what the version before has begun", async () => {
  for (const name of ["leaving", "account", "foreign", "rotated"]) {
    answers(await visitorNamed(name).logout(), 204);
    assert.equal(await visitorNamed(name).session(), null, name);
    assert.equal(await store.redis.exists(`sess:${old.visitors[name].session.handle}`), 0, name);
  }
});

test("passwords are still right, and devices are strangers until they have logged in once", async () => {
  const { user } = old.visitors.account.session;
  const word = old.passwords[user.name];
  const owner = deviceOf("account");
  const { session } = answers(await owner.login(user.name, word)).json;
  assert.deepEqual(session.user, user);
  assert.deepEqual(answers(await owner.send("GET", "/auth/profile")).json, old.profile);
  const stranger = { "CF-Connecting-IP": "203.0.113.9" };
  for (let count = 0; count < 10; count += 1) {
    answers(await worker.visitor().login(user.name, `guess ${count}`, { headers: stranger }), 401);
  }
  answers(await worker.visitor().login(user.name, word, { headers: stranger }), 429);
  answers(await deviceOf("account").login(user.name, word), 429);
  answers(await owner.login(user.name, word));
});

test("a changed password stays changed, and the sessions that it ended stay ended", async () => {
  const { name } = old.visitors.changed.session.user;
  assert.equal(await visitorNamed("ended").session(), null);
  answers(await deviceOf("changed").login(name, "an old door key"), 401);
  const owner = deviceOf("changed");
  answers(await owner.login(name, old.passwords[name]));
  assert.notEqual(await owner.session(), null);
  assert.notEqual(await visitorNamed("changed").session(), null, "the one it was changed with lives on");
});

test("wrong passwords that were given before the upgrade count after it", async () => {
  const headers = { "CF-Connecting-IP": "203.0.113.9" };
  for (let count = old.guesses; count < 10; count += 1) {
    answers(await worker.visitor().login("Dave", "wrong", { headers }), 401);
  }
  answers(await worker.visitor().login("Dave", old.passwords.Dave, { headers }), 429);
});

// Its counter has another key, which stays through renewed logins: the quota of the minute in which the upgrade falls begins
// anew, once.
test("a session from before the upgrade has one quota after it, through a rotation too", async () => {
  const visitor = visitorNamed("counted");
  const { family } = storedBefore(`sess:${old.visitors.counted.session.handle}`);
  const acts = [() => visitor.look(), () => visitor.rotate(), () => visitor.look()];
  for (const [index, act] of acts.entries()) {
    const answer = answers(await act());
    assert.match(String(answer.headers.get("ratelimit")), new RegExp(`"session";r=${299 - index};`));
  }
  const counters = await store.redis.keys(`limit:session:${family.slice(0, 8)}:*`);
  assert.equal(counters.length, 1);
});

test("roles and profile hold, and can be changed", async () => {
  const account = visitorNamed("account");
  const { user } = old.visitors.account.session;
  const verify = (/** @type {string} */ role) =>
    account.send("GET", `/auth/verify?role=${encodeURIComponent(role)}`);
  for (const role of user.roles) answers(await verify(role));
  answers(await verify("reader"), 403);
  assert.deepEqual(answers(await account.send("GET", "/auth/profile")).json, old.profile);
  answers(await service("PUT", `/users/${encodeURIComponent(user.id)}/roles`, { roles: ["reader"] }), 204);
  answers(await verify("reader"));
  answers(await verify("admin"), 403);
});

test("the list of devices is complete, and each of them can be ended", async () => {
  const phone = visitorNamed("phone");
  const listed = answers(await phone.send("GET", "/auth/sessions")).json.sessions;
  /** When it was seen is told from times to live, which were not kept to the second. @param {any[]} sessions */
  const withoutTime = (sessions) => sessions.map(({ last_seen_at, ...rest }) => rest);
  assert.deepEqual(withoutTime(listed), withoutTime(old.devices.sessions));
  answers(await phone.send("DELETE", `/auth/sessions/${old.visitors.laptop.session.handle}`), 204);
  assert.equal(await visitorNamed("laptop").session(), null);
  assert.notEqual(await visitorNamed("tablet").session(), null);
  answers(await phone.send("DELETE", "/auth/sessions?keep=current"), 204);
  assert.equal(await visitorNamed("tablet").session(), null);
  assert.notEqual(await phone.session(), null);
});

test("ending all sessions of a user ends those from before the upgrade, and none that begins after", async () => {
  const names = ["phone", "laptop", "tablet"];
  const { user } = old.visitors.phone.session;
  const answer = await service("DELETE", `/users/${encodeURIComponent(user.id)}/sessions`);
  assert.ok([200, 204].includes(answer.status), answer.text);
  for (const name of names) assert.equal(await visitorNamed(name).session(), null, name);
  const owner = deviceOf("phone");
  answers(await owner.login(user.name, old.passwords[user.name]));
  assert.notEqual(await owner.session(), null);
});

test("an account from before the upgrade can be deleted, and leaves nothing but a mark", async () => {
  const body = { password: old.passwords["Bob Ünïcode"] };
  answers(await visitorNamed("changed").tell("DELETE", "/account", body), 204);
  assert.equal(await visitorNamed("changed").session(), null);
  const tag = String(standingKeyWith("mark")).split(":")[1];
  const left = (await store.redis.keys("*")).map(String).filter((key) => key.includes(String(tag)));
  assert.deepEqual(left, [standingKeyWith("mark")]);
  assert.equal(await store.redis.exists("account:bob ünïcode"), 0);
});

test("the service API knows the sessions of users authenticated elsewhere", async () => {
  const { user, handle } = old.visitors.foreign.session;
  const path = `/users/${encodeURIComponent(user.id)}/sessions`;
  const { sessions } = answers(await service("GET", path)).json;
  assert.deepEqual(
    sessions.map((/** @type {any} */ session) => session.handle),
    [handle],
  );
  assert.deepEqual(answers(await service("GET", `/sessions/${handle}`)).json.session.user, user);
  answers(await service("DELETE", `/sessions/${handle}`), 204);
  assert.equal(await visitorNamed("foreign").session(), null);
});

test("the counters of the day are told as they were", async () => {
  const { days, signing_keys } = answers(await service("GET", "/stats")).json;
  assert.deepEqual(signing_keys, old.stats.signing_keys);
  for (const [name, value] of Object.entries(old.stats.days[0])) assert.deepEqual(days[0][name], value, name);
});

// docs/api.md, Errors. Builds up to 0.1 (d9f4b67) treat such a record as absent and answer 200.
test("a record that cannot be read is an error, and nobody's logout", async () => {
  const answer = await visitorNamed("unreadable").look();
  assert.deepEqual({ status: answer.status, code: answer.json.code }, { status: 500, code: "internal" });
});
