/** Tying as an attacker would like it: into another's account, with another's session, twice, half, or too late. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertRefused,
  assertSentTo,
  begin,
  goThere,
  linked,
  logIn,
  operate,
  owner,
  PASSWORD,
  somebody,
  someone,
  start,
  store,
  tie,
  untie,
  wait,
} from "./support/links.mjs";

const MINUTE = 60_000;

/** Matches calls to the store with such a command, the first so many. @param {RegExp} pattern */
const calls = (pattern, times = 1) => {
  let left = times;
  return (/** @type {{ commands: string[][] }} */ { commands }) =>
    commands.some((command) => pattern.test(command.slice(0, 2).join(" "))) && (left -= 1) >= 0;
};
/** The script that ties. */
const TYING = /^EVAL [^]*KEYS\[3\] and/;

test("a callback of the attacker's ties nothing in the victim's browser, not even with the attacker's cookie", async () => {
  const [mallory, victim] = [await owner(), await owner()];
  const sub = somebody();
  const session = await victim.visitor.session();
  const back = goThere(await begin(mallory.visitor), sub);
  assertSentTo(await victim.visitor.send("GET", back), "/?login_error=invalid_state");
  for (const [name, value] of mallory.visitor.cookies)
    if (name.includes("-login")) victim.visitor.cookies.set(name, value);
  assertSentTo(await victim.visitor.send("GET", back), "/account?login_error=invalid_state");
  assert.deepEqual(await victim.visitor.session(), session);
  assert.deepEqual([await linked(victim.visitor), await linked(mallory.visitor)], [[], []]);
  assert.equal((await logIn(sub)).user.id, `acme:${sub}`);
});

test("what was begun by one user is not ended by another, nor by nobody", async () => {
  const [ada, bob] = [await owner(), await owner()];
  const sub = somebody();
  for (const turn of [
    () => ada.visitor.logout(),
    () => ada.visitor.login(bob.name, PASSWORD),
    () => logIn(somebody(), ada.visitor),
  ]) {
    await ada.visitor.login(ada.name, PASSWORD);
    const back = goThere(await begin(ada.visitor), sub);
    await turn();
    const session = await ada.visitor.session();
    assertSentTo(await ada.visitor.send("GET", back), "/account?login_error=invalid_state");
    assert.deepEqual(await ada.visitor.session(), session);
    assert.equal((await logIn(sub)).user.id, `acme:${sub}`);
  }
  await ada.visitor.login(ada.name, PASSWORD);
  const back = goThere(await begin(ada.visitor), sub);
  await ada.visitor.login(ada.name, PASSWORD);
  assertSentTo(await ada.visitor.send("GET", back), "/account");
});

test("a page of another site begins nothing and unties nothing", async () => {
  const { visitor } = await owner();
  await tie(visitor, somebody());
  for (const [name, value] of [
    ["Sec-Fetch-Site", "cross-site"],
    ["Sec-Fetch-Site", "same-site"],
    ["Origin", "https://evil.example"],
  ])
    for (const method of ["POST", "DELETE"]) {
      const answer = await visitor.send(method, "/auth/link/acme", { headers: { [name]: value } });
      assertRefused(answer, 403, "cross_site");
    }
  assert.deepEqual(await linked(visitor), ["acme"]);
});

test("a callback that comes again does nothing", async () => {
  const { visitor } = await owner();
  const back = goThere(await begin(visitor), somebody());
  assertSentTo(await visitor.send("GET", back), "/account");
  await untie(visitor);
  assertSentTo(await visitor.send("GET", back), "/?login_error=invalid_state");
  assert.deepEqual(await linked(visitor), []);
});

test("what was begun to tie is no login, and a login ties nothing", async () => {
  const { visitor, name } = await owner();
  const sub = somebody();
  const elsewhere = someone();
  const back = goThere(await begin(visitor), sub);
  for (const [name, value] of visitor.cookies)
    if (name.includes("-login")) elsewhere.cookies.set(name, value);
  assertSentTo(await elsewhere.send("GET", back), "/account?login_error=invalid_state");
  assert.equal(await elsewhere.session(), null);
  // Who logs in there while logged in to the account is the provider's user from then on; the account is not theirs by that.
  assert.equal((await logIn(sub, visitor.clone())).user.id, `acme:${sub}`);
  await visitor.login(name, PASSWORD);
  assert.deepEqual(await linked(visitor), []);
});

test("live sessions of the provider's own user stay that user's", async () => {
  const sub = somebody();
  const early = await logIn(sub);
  await early.visitor.merge({ mine: 1 });
  const { visitor, id } = await owner();
  assertSentTo(await tie(visitor, sub), "/account");
  const session = await early.visitor.session();
  assert.deepEqual([session.user.id, session.data], [`acme:${sub}`, { mine: 1 }]);
  // The next login is one to the account, and takes nothing of theirs along.
  await logIn(sub, early.visitor);
  const next = await early.visitor.session();
  assert.deepEqual([next.user.id, next.data], [id, {}]);
});

test("a disabled account cannot be entered from the provider either, until it is enabled", async () => {
  const { visitor, id } = await owner();
  const sub = somebody();
  await tie(visitor, sub);
  assert.equal((await operate("PATCH", `/users/${id}`, { disabled: true })).status, 200);
  const guest = someone();
  await guest.merge({ kept: 1 });
  const session = await guest.session();
  assertSentTo((await logIn(sub, guest)).answer, "/home?login_error=access_denied");
  assert.deepEqual(await guest.session(), session);
  await operate("PATCH", `/users/${id}`, { disabled: false });
  assert.equal((await logIn(sub, guest)).user.id, id);
});

test("a login that is overtaken by the untying and the end of all sessions is none; so with a disabling and a deletion", async () => {
  for (const overtake of [
    async (/** @type {Awaited<ReturnType<typeof owner>>} */ { visitor }) => {
      assert.equal((await untie(visitor)).status, 204);
      assert.equal((await visitor.send("DELETE", "/auth/sessions")).status, 204);
    },
    async (/** @type {Awaited<ReturnType<typeof owner>>} */ { id }) =>
      assert.equal((await operate("PATCH", `/users/${id}`, { disabled: true })).status, 200),
    async (/** @type {Awaited<ReturnType<typeof owner>>} */ { id }) =>
      assert.equal((await operate("DELETE", `/users/${id}`)).status, 204),
  ]) {
    const ada = await owner();
    const sub = somebody();
    await tie(ada.visitor, sub);
    const held = store.faults.hold(calls(/^HSET/));
    const login = logIn(sub);
    await held.arrived;
    await overtake(ada);
    held.release();
    const { answer, user } = await login;
    assertSentTo(answer, "/home?login_error=invalid_state");
    assert.equal(user, undefined);
  }
});

test("another password ends what was begun to tie, also in the last moment", async () => {
  const change = (/** @type {import("./support/visitor.mjs").Visitor} */ visitor) =>
    visitor.tell("POST", "/password", { current: PASSWORD, new: "another horse" });
  const sub = somebody();
  const early = await owner();
  const back = goThere(await begin(early.visitor), sub);
  assert.equal((await change(early.visitor)).status, 200);
  assertSentTo(await early.visitor.send("GET", back), "/account?login_error=invalid_state");
  // Somebody else with a session of the account's: the owner is faster by a hair.
  const late = await owner();
  const thief = late.visitor.clone();
  const held = store.faults.hold(calls(TYING));
  const theft = tie(thief, sub);
  await held.arrived;
  assert.equal((await change(late.visitor)).status, 200);
  held.release();
  assertSentTo(await theft, "/account?login_error=invalid_state");
  assert.deepEqual(await linked(late.visitor), []);
  assert.equal((await logIn(sub)).user.id, `acme:${sub}`);
});

test("of two accounts that want one identity at the same moment exactly one gets it", async () => {
  for (let round = 0; round < 8; round += 1) {
    const [ada, bob] = [await owner(), await owner()];
    const sub = somebody();
    // Both have read that it is nobody's before one of them writes.
    const held = [store.faults.hold(calls(TYING)), store.faults.hold(calls(TYING))];
    const both = Promise.all([tie(ada.visitor, sub), tie(bob.visitor, sub)]);
    await Promise.all(held.map(({ arrived }) => arrived));
    for (const { release } of round % 2 ? held : held.toReversed()) release();
    const locations = (await both).map(({ headers }) => headers.get("location"));
    assert.deepEqual(locations.toSorted(), ["/account", "/account?login_error=already_linked"]);
    const winner = locations[0] === "/account" ? ada : bob;
    assert.equal((await logIn(sub)).user.id, winner.id);
    assert.deepEqual([...(await linked(ada.visitor)), ...(await linked(bob.visitor))], ["acme"]);
  }
});

test("of two identities that one account wants at the same moment it gets exactly one", async () => {
  const { visitor, id } = await owner();
  const subs = [somebody(), somebody()];
  const held = [store.faults.hold(calls(TYING)), store.faults.hold(calls(TYING))];
  const both = Promise.all(subs.map((sub) => tie(visitor.clone(), sub)));
  await Promise.all(held.map(({ arrived }) => arrived));
  for (const { release } of held) release();
  const locations = (await both).map(({ headers }) => headers.get("location"));
  assert.deepEqual(locations.toSorted(), ["/account", "/account?login_error=already_linked"]);
  const [first, second] = [(await logIn(subs[0])).user.id, (await logIn(subs[1])).user.id];
  assert.deepEqual([first === id, second === id].filter(Boolean), [true]);
});

test("an identity that its account lets go in this moment is not taken from whoever gets it", async () => {
  const [ada, bob] = [await owner(), await owner()];
  const sub = somebody();
  await tie(ada.visitor, sub);
  const held = store.faults.hold(calls(TYING));
  await untie(ada.visitor);
  const late = tie(bob.visitor, sub);
  await held.arrived;
  // It was nobody's when Bob looked.
  assertSentTo(await tie(ada.visitor, sub), "/account");
  held.release();
  assertSentTo(await late, "/account?login_error=already_linked");
  assert.equal((await logIn(sub)).user.id, ada.id);
});

/** The key that ties an identity to the account of this name. @param {string} name */
async function keyOf(name) {
  for (const key of (await store.redis.keys("*:linked")).map(String))
    if (String(await store.redis.get(key)) === name.toLowerCase()) return key;
  throw new Error("it is not tied");
}

test("what contradicts itself in the store is not tied, and gives way to the next who asks", async () => {
  for (const [what, spoil] of /** @type {const} */ ([
    ["the key is lost", (/** @type {string} */ key) => store.redis.del(key)],
    ["it names nobody", (/** @type {string} */ key) => store.redis.set(key, "nobody of this name")],
    [
      "it names another",
      (/** @type {string} */ key, /** @type {string} */ other) => store.redis.set(key, other),
    ],
  ])) {
    const [ada, bob] = [await owner(), await owner()];
    const sub = somebody();
    await tie(ada.visitor, sub);
    await spoil(await keyOf(ada.name), bob.name.toLowerCase());
    assert.equal((await logIn(sub)).user.id, `acme:${sub}`, what);
    // Its account can have it back.
    assertSentTo(await tie(ada.visitor, sub), "/account");
    assert.equal((await logIn(sub)).user.id, ada.id, what);
    // Or another gets it, and keeps it, whatever the first one still says of itself.
    await spoil(await keyOf(ada.name), bob.name.toLowerCase());
    assertSentTo(await tie(bob.visitor, sub), "/account");
    assertSentTo(await tie(ada.visitor, sub), "/account?login_error=already_linked");
    assert.equal((await untie(ada.visitor)).status, 204);
    assert.equal((await logIn(sub)).user.id, bob.id, what);
  }
});

test("an account that lost an identity, and gets it back in this moment, keeps it", async () => {
  const [ada, bob, carol] = [await owner(), await owner(), await owner()];
  const sub = somebody();
  await tie(ada.visitor, sub);
  // The key names Bob, who says nothing of it: so it is nobody's when Carol looks.
  await store.redis.set(await keyOf(ada.name), bob.name.toLowerCase());
  const held = store.faults.hold(calls(TYING));
  const late = tie(carol.visitor, sub);
  await held.arrived;
  assertSentTo(await tie(bob.visitor, sub), "/account");
  held.release();
  assertSentTo(await late, "/account?login_error=already_linked");
  assert.equal((await logIn(sub)).user.id, bob.id);
});

test("ties that fail count by address like logins, and need no place for a session", async () => {
  const limits = { session: "", login: "1/5m", mint: "1/1m" };
  const worker = await start({ settings: { limits } });
  const headers = { "CF-Connecting-IP": "203.0.113.77" };
  const { visitor } = await owner();
  visitor.url = worker.url;
  for (let attempt = 0; attempt < 10; attempt += 1) {
    const begun = await visitor.send("POST", "/auth/link/acme", { headers });
    const back = new URL(goThere(begun.json.location, somebody()), worker.url);
    back.searchParams.set("code", "guessed");
    const answer = await visitor.send("GET", back.pathname + back.search, { headers });
    assertSentTo(answer, "/?login_error=invalid_response");
  }
  const begun = await visitor.send("POST", "/auth/link/acme", { headers });
  const back = goThere(begun.json.location, somebody());
  assertRefused(await visitor.send("GET", back, { headers }), 429, "rate_limited");
  // Ties that succeed are not counted.
  const other = { "CF-Connecting-IP": "203.0.114.77" };
  for (let attempt = 0; attempt < 12; attempt += 1) {
    const { json } = await visitor.send("POST", "/auth/link/acme", { headers: other });
    const answer = await visitor.send("GET", goThere(json.location, "the same"), { headers: other });
    assertSentTo(answer, "/");
  }
});

// The last, as it moves the clock.
test("a login that was too long ago ties and unties nothing, neither at the beginning nor at the end", async () => {
  const { visitor } = await owner();
  await tie(visitor, somebody(), "other");
  await wait(8 * MINUTE);
  const back = goThere(await begin(visitor), somebody());
  await wait(8 * MINUTE);
  assertSentTo(await visitor.send("GET", back), "/account?login_error=reauthentication_required");
  assertRefused(await visitor.send("POST", "/auth/link/acme"), 403, "reauthenticate");
  assertRefused(await untie(visitor, "other"), 403, "reauthenticate");
  assert.deepEqual(await linked(visitor), ["other"]);
  assert.equal((await visitor.tell("POST", "/reauthenticate", { password: PASSWORD })).status, 200);
  assertSentTo(await tie(visitor, somebody()), "/account");
});
