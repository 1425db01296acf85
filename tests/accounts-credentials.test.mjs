/** Usernames and passwords: which are accepted, and how they are hashed. */
import assert from "node:assert/strict";
import { pbkdf2Sync } from "node:crypto";
import { test } from "node:test";
import {
  assertRefused,
  loggedIn,
  mergeProfile,
  name,
  number,
  registered,
  RIGHT,
  secrets,
  someone,
  start,
  store,
  useName,
  WRONG,
} from "./support/accounts.mjs";
import { startWorker } from "./support/worker.mjs";

// Usernames and passwords

test("different spellings of a name are the same account", async () => {
  const tail = `Żoe${number}`;
  useName(`Ada${tail}`);
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  for (const other of [
    `ada${tail}`,
    `ADA${tail.toUpperCase()}`,
    `ＡＤＡ${tail}`,
    `  Ada${tail.normalize("NFD")}\u3000`,
  ]) {
    assertRefused(await someone().register(other, RIGHT), 409, "conflict");
    const answer = await someone().login(other, RIGHT);
    assert.equal(answer.status, 200, other);
    assert.deepEqual([answer.json.session.user.id, answer.json.session.user.name], [id, name]);
  }
});

test("a name has 1 to 128 characters after normalising, all visible and of one script", async () => {
  const pad = String(number).padStart(6, "0");
  for (const [username, status] of /** @type {[string, number][]} */ ([
    [pad + "é".repeat(122), 201],
    [pad + "é".repeat(123), 422],
    [pad + "e\u0301".repeat(121), 201],
    [pad + "ﷺ".repeat(6), 201], // 18 characters each
    [pad + "ﷺ".repeat(7), 422],
    [pad + "🧥".repeat(122), 201],
    ["", 422],
    [" \u3000 ", 422],
    [`a\u200bda${pad}`, 422],
    [`a\u0000da${pad}`, 422],
    [`a\nda${pad}`, 422],
    [`\u202eada${pad}`, 422],
    [`ada\ufe0f${pad}`, 422],
    [`p\u0430ypal${pad}`, 422],
    [`\u0391da${pad}`, 422],
    [`a\u2800da${pad}`, 422],
    [`\u0301ada${pad}`, 422],
    [`\u093fada${pad}`, 422],
    [`a\u200cda${pad}`, 422],
    [`می\u200cخواهم ${pad}`, 201],
    [`क्\u200dष ${pad}`, 201],
    [`Ада ${pad}`, 201],
    [`__proto__${pad}`, 201],
    [`a:b*"\\ ${pad}`, 201],
  ])) {
    const { value, calls } = await store.counters.during(() => someone().register(username, RIGHT));
    assert.equal(value.status, status, JSON.stringify(username));
    if (status === 422) {
      assertRefused(value, 422, "unprocessable");
      assert.equal(calls, 0);
      assertRefused(await someone().login(username, RIGHT), 401, "invalid_credentials");
    } else assert.equal((await someone().login(username, RIGHT)).status, 200, username);
  }
});

test("a joiner makes no other name", async () => {
  const [joined, plain] = [`می\u200cخواهم j${number}`, `میخواهم j${number}`];
  assert.equal((await someone().register(joined, RIGHT)).status, 201);
  assertRefused(await someone().register(plain, RIGHT), 409, "conflict");
  const answer = await someone().login(plain, RIGHT);
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.json.session.user.name, joined);
});

test("nobody registers a reserved name, in any spelling, and who has one already keeps it", async () => {
  const chief = `Chief ${number}`;
  const reserving = await start({ settings: { accounts: { reserved: [`ＣHIEF ${number}`, "root"] } } });
  const owner = someone();
  assert.equal((await owner.register(chief, RIGHT)).status, 201);
  for (const username of [chief, chief.toUpperCase(), ` ｃhief ${number}`, "root", "RO\uFF2FT"]) {
    const visitor = reserving.visitor();
    const { value, calls } = await store.counters.during(() => visitor.register(username, RIGHT));
    assertRefused(value, 422, "unprocessable");
    assert.match(value.json.detail, /reserved/);
    assert.equal(calls, 0);
  }
  assert.equal((await reserving.visitor().login(chief, RIGHT)).status, 200);
  const reauthenticated = await owner
    .clone(reserving.url)
    .tell("POST", "/reauthenticate", { password: RIGHT });
  assert.equal(reauthenticated.status, 200, reauthenticated.text);
  assertRefused(await someone().register("Administrator", RIGHT), 422, "unprocessable");
  assert.equal((await reserving.visitor().register("Administrator", RIGHT)).status, 201);
});

test("of parallel registrations of one name at two isolates exactly one succeeds", async () => {
  for (const crowd of [2, 20]) {
    useName(`${name}x`);
    const people = Array.from({ length: crowd }, () => someone());
    const answers = await Promise.all(
      people.map((one, index) => one.register(index % 2 ? name.toUpperCase() : name, `${RIGHT} ${index}`)),
    );
    const winners = answers.flatMap(({ status }, index) => (status === 201 ? [index] : []));
    assert.equal(winners.length, 1);
    assert.equal(answers.filter(({ status }) => status === 409).length, crowd - 1);
    assert.ok(answers.every((answer) => answer.status === 201 || answer.setCookies.length === 0));
    await loggedIn(`${RIGHT} ${winners[0]}`);
  }
});

test("a password has 8 to 1024 characters of any kind, and every character counts", async () => {
  for (const [word, status] of /** @type {[string, number][]} */ ([
    ["1q 7x z!", 201],
    ["1q 7xz!", 422],
    ["пароль №7", 201],
    ["🔑🔒🗝️🔐🧥🎫🏠", 201],
    ["\u0000\u0001 null & co", 201],
    ["ä7x".repeat(341) + "x", 201],
    ["ä7x".repeat(341) + "xx", 422],
    ["password1", 422],
    ["aaaaaaaaaaaa", 422],
    [`adalovelace`, 201],
  ])) {
    useName(`${name}x`);
    const { value } = await store.counters.during(() => someone().register(name, word));
    assert.equal(value.status, status, word.slice(0, 20));
    if (status !== 201) {
      assertRefused(value, 422, "unprocessable");
      continue;
    }
    await loggedIn(word);
    const shorter = [...word].slice(0, -1).join("");
    for (const other of [`${word} `, ` ${word}`, shorter, `${shorter}y`])
      assertRefused(await someone().login(name, other), 401, "invalid_credentials");
  }
  useName(`lovelace ${number}`);
  assertRefused(await someone().register(name, name.toUpperCase()), 422, "unprocessable");
});

// Hashes

test("hashes of other systems and with other parameters are accepted at a login, and replaced", async () => {
  const salt = Buffer.from("saltsalt");
  const hash = pbkdf2Sync(RIGHT, salt, 1000, 32, "sha256").toString("base64").replace("=", "");
  const b64 = salt.toString("base64").replace("=", "");
  const visitor = await registered();
  const key = `account:${name.toLowerCase()}`;
  const kept = JSON.parse(String(await store.redis.get(key)));
  assert.match(kept.hash, /^\$argon2id\$v=19\$m=64,t=1,p=1\$[\w+/]{22}\$[\w+/]{43}$/);
  await mergeProfile(visitor, { kept: true });
  for (const old of [
    `$pbkdf2-sha256$i=1000,l=32$${b64}$${hash}`,
    `$pbkdf2-sha256$1000$${b64}$${hash.replaceAll("+", ".")}`,
    `pbkdf2_sha256$1000$saltsalt$${hash}=`,
    "$argon2id$v=19$m=32,t=3,p=1$BwcHBwcHBwcHBwcHBwcHBw$2yExBpsUoY5XojRDVoC4azO5X3CsRm8AH0RCn6mDEw8",
  ]) {
    const now = JSON.parse(String(await store.redis.get(key)));
    await store.redis.set(key, JSON.stringify({ ...now, hash: old }));
    assertRefused(await someone().login(name, WRONG), 401, "invalid_credentials");
    assert.equal(JSON.parse(String(await store.redis.get(key))).hash, old);
    if (old.includes("m=32")) continue; // it is the hash of another password
    const answers = await Promise.all(Array.from({ length: 6 }, () => someone().login(name, RIGHT)));
    assert.deepEqual(
      answers.map(({ status }) => status),
      Array(6).fill(200),
      "also many at once",
    );
    const made = JSON.parse(String(await store.redis.get(key)));
    assert.match(made.hash, /^\$argon2id\$v=19\$m=64,t=1,p=1\$/);
    assert.deepEqual([made.id, made.profile], [kept.id, { kept: true }]);
    await loggedIn();
  }
});

test("the default parameters hash and verify, and replace a weaker hash once", async () => {
  await registered();
  const real = await startWorker({ store, secrets });
  try {
    const key = `account:${name.toLowerCase()}`;
    const hash = async () => JSON.parse(String(await store.redis.get(key))).hash;
    assertRefused(await real.visitor().login(name, WRONG), 401, "invalid_credentials");
    assert.match(await hash(), /m=64,t=1,p=1/);
    assert.equal((await real.visitor().login(name, RIGHT)).status, 200);
    const made = await hash();
    assert.match(made, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$/);
    assert.equal((await real.visitor().login(name, RIGHT)).status, 200);
    assert.equal(await hash(), made, "not again");
  } finally {
    await real.stop();
  }
});

test("an account that an operator writes as documented can be used", async () => {
  const hash = pbkdf2Sync(RIGHT, "saltsalt", 1000, 32, "sha256").toString("base64");
  const account = {
    v: 1,
    rev: "AQEBAQEBAQEBAQEB",
    before: [],
    id: `imported ${number}`,
    name,
    hash: `pbkdf2_sha256$1000$saltsalt$${hash}`,
    roles: ["admin"],
    created_at: Date.now(),
    profile: { town: "Zürich" },
  };
  await store.redis.set(`account:${name.toLowerCase()}`, JSON.stringify(account));
  const visitor = await loggedIn();
  assert.deepEqual((await visitor.session()).user, { id: account.id, name, roles: ["admin"] });
  assert.deepEqual((await visitor.send("GET", "/auth/profile")).json, { town: "Zürich" });
  assert.equal((await visitor.tell("DELETE", "/account", { password: RIGHT })).status, 204);
});
