/** Guessing passwords: a stranger learns no names, and limits count every attempt. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  address,
  assertRefused,
  DEVICE,
  inTurn,
  name,
  number,
  registered,
  RIGHT,
  secrets,
  someone,
  start,
  startLimited,
  store,
  two,
  useName,
  WRONG,
} from "./support/accounts.mjs";
import { startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** @typedef {import("./support/accounts.mjs").Answer} Answer */

const limited = await startLimited();

// Unknown names

/** An answer without the fields that differ from one request to the next. @param {Answer} answer */
const comparable = ({ status, text, headers, setCookies }) => {
  const all = [...headers].filter(([name]) => !["date", "ratelimit", "retry-after"].includes(name));
  return JSON.stringify([status, text, all, setCookies]);
};

test("an unknown name, an invalid name and a wrong password get the same answer after the same calls to the store", async () => {
  for (const workers of [two, limited]) {
    useName(`${name}x`);
    await registered(workers);
    const answers = new Set();
    const costs = new Set();
    /** With the refund after the response. */
    const attempt = async (
      /** @type {Visitor} */ visitor,
      /** @type {string} */ username,
      /** @type {Record<string, string>} */ headers,
    ) => {
      const answer = await visitor.login(username, WRONG, { headers });
      await workers[0].moveClock(0);
      return answer;
    };
    for (const username of [name, `nobody ${number}`, "", "a\u200bb", "x".repeat(20_000), `p\u0430ypal`]) {
      const headers = { "CF-Connecting-IP": address };
      const visitor = workers[0].visitor();
      const { value, calls, byName } = await store.counters.during(() => attempt(visitor, username, headers));
      const { TIME, ...rest } = byName;
      if (username === name) continue; // the first opens the address's counter
      answers.add(comparable(value));
      costs.add(JSON.stringify([calls, rest]));
    }
    const headers = { "CF-Connecting-IP": address };
    const visitor = workers[0].visitor();
    const { value, calls, byName } = await store.counters.during(() => attempt(visitor, name, headers));
    answers.add(comparable(value));
    assert.equal(answers.size, 1, [...answers].join("\n"));
    if (workers === two) costs.add(JSON.stringify([calls, byName]));
    assert.ok(costs.size <= (workers === two ? 1 : 2), [...costs].join("\n"));
  }
});

test("as much work is done whether the account exists or not, and however its password was hashed", async () => {
  await registered();
  const [light, imported] = [name, `imported ${number}`];
  const hash = "pbkdf2_sha256$1000$saltsalt$qQDPSZa3Ormyy9oK1Pu0ZLLwP2Svzmx3yu8OvDdq/J0=";
  const account = JSON.parse(String(await store.redis.get(`account:${name.toLowerCase()}`)));
  await store.redis.set(`account:${imported}`, JSON.stringify({ ...account, name: imported, hash }));
  useName(`${name} heavy`);
  await registered();
  const [before, heavy] = await Promise.all([1, 2].map(() => startWorker({ store, secrets })));
  // A hash that takes the default memory, made by another isolate than the one whose memory will be full.
  assert.equal((await before?.visitor().login(name, RIGHT))?.status, 200);
  await before?.stop();
  assert.ok(heavy);
  try {
    const act = async (/** @type {() => Promise<Answer>} */ run) => {
      await heavy.visitor().register(name, RIGHT); // allocates what any request needs
      await heavy.fillMemory(); // hashing traps from here on
      return (await run()).status;
    };
    for (const username of [name, light, imported, `nobody ${number}`, "", "a\u200bb"])
      assert.equal(await act(() => heavy.visitor().login(username, WRONG)), 500, username);
    assert.equal(await act(() => heavy.visitor().register(name, RIGHT)), 409, "nothing else traps");
  } finally {
    await heavy.stop();
  }
});

test("unknown names are limited like known ones", async () => {
  await registered(limited);
  const tries = [name, `nobody ${number}`].map(async (username, index) => {
    const seen = [];
    for (let attempt = 0; attempt < 13; attempt += 1) {
      const headers = {
        "CF-Connecting-IP": `${address.replace("198", "203")}`.replace(/\d+$/, `${index + 1}`),
      };
      const answer = await limited[0].visitor().login(username, attempt === 12 ? RIGHT : WRONG, { headers });
      const remaining = /"login";r=(\d+)/.exec(String(answer.headers.get("ratelimit")))?.[1];
      const policy = answer.headers.get("ratelimit-policy");
      seen.push([answer.status, answer.json.code, remaining, policy, answer.json.detail.slice(0, 40)]);
      assert.equal(answer.headers.has("retry-after"), answer.status === 429);
    }
    return seen;
  });
  const [known, unknown] = await Promise.all(tries);
  assert.deepEqual(known, unknown);
  assert.deepEqual(
    known?.map(([status]) => status),
    [...Array(10).fill(401), 429, 429, 429],
    "the last with the right password",
  );
});

// Limits

test("of fifty parallel guesses at two isolates exactly as many are checked as the limit allows", async () => {
  await registered(limited);
  const guess = (/** @type {string} */ username) =>
    Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        someone(limited).login(username, WRONG, {
          headers: { "CF-Connecting-IP": `${address.slice(0, -1)}${index}` },
        }),
      ),
    );
  for (const username of [name, `nobody ${number}`]) {
    const answers = await guess(username);
    const looked = answers.filter(({ status }) => status === 401);
    assert.equal(looked.length, 10, username);
    const over = answers.filter(({ status }) => status === 429);
    assert.equal(over.length, 40);
    for (const answer of over) {
      assertRefused(answer, 429, "rate_limited");
      assert.match(answer.json.detail, /"login" of 10 failed logins in 300 s/);
      assert.ok(Number(answer.headers.get("retry-after")) > 0);
    }
  }
});

test("a successful login is refunded to the limit", async () => {
  await registered(limited);
  for (let attempt = 0; attempt < 25; attempt += 1) {
    const answer = await limited[0]
      .visitor()
      .login(name, RIGHT, { headers: { "CF-Connecting-IP": address } });
    assert.equal(answer.status, 200, `${attempt}: ${answer.text}`);
    await limited[0].moveClock(0);
  }
});

test("while an account is under attack its owner logs in from a known device, and nobody else does", async () => {
  const owner = await registered(limited);
  await owner.logout();
  useName(`${name} other`);
  const other = await registered(limited);
  useName(name.replace(" other", ""));
  const device = String(owner.cookies.get(DEVICE));
  for (let attempt = 0; attempt < 11; attempt += 1)
    await someone(limited).login(name, WRONG, { headers: { "CF-Connecting-IP": address } });
  const strangers = [
    undefined,
    other.cookies.get(DEVICE),
    `${device.slice(0, -1)}${device.endsWith("A") ? "B" : "A"}`,
    owner.ticket,
    device.slice(0, 20),
    "",
  ];
  for (const value of strangers) {
    const stranger = someone(limited);
    if (value !== undefined) stranger.cookies.set(DEVICE, value);
    assertRefused(
      await stranger.login(name, RIGHT, { headers: { "CF-Connecting-IP": address } }),
      429,
      "rate_limited",
    );
  }
  assert.equal((await owner.login(name, RIGHT)).status, 200);
  // A known device has its budget, and no more.
  const thief = owner.clone();
  const statuses = [];
  for (let attempt = 0; attempt < 12; attempt += 1) statuses.push((await thief.login(name, WRONG)).status);
  assert.deepEqual(new Set(statuses.slice(0, 9)), new Set([401]));
  assert.deepEqual(statuses.slice(-1), [429]);
});

let places = 0;
/** The headers of a client at an address that nobody has used yet. */
const elsewhere = () => ({ "CF-Connecting-IP": `10.1.${(places += 1) >> 8}.${places & 255}` });

/** A login from a new address. @param {Visitor} visitor @param {string} [password] */
const tryLogin = (visitor, password = RIGHT) => visitor.login(name, password, { headers: elsewhere() });

/** Guesses until strangers are refused. */
async function attack() {
  for (let attempt = 0; attempt < 11; attempt += 1) await tryLogin(someone(limited), WRONG);
  assertRefused(await tryLogin(someone(limited)), 429, "rate_limited");
}

/** How many wrong passwords are looked at until this device is refused. @param {string} cookie */
async function budgetOf(cookie) {
  for (let guesses = 0; guesses < 30; guesses += 1) {
    const visitor = someone(limited);
    visitor.cookies.set(DEVICE, cookie);
    if ((await tryLogin(visitor, WRONG)).status === 429) return guesses;
  }
  assert.fail("no limit");
}

const CHANGE = { current: RIGHT, new: "another horse" };

test("however often an owner logs in, the devices of an account have twenty budgets and not more", async () => {
  await registered(limited);
  /** @type {string[]} */
  const devices = [];
  for (let login = 0; login < 60; login += 1) {
    const visitor = someone(limited);
    assert.equal((await tryLogin(visitor)).status, 200);
    devices.push(String(visitor.cookies.get(DEVICE)));
  }
  await attack();
  let looked = 0;
  for (const device of devices) looked += await budgetOf(device);
  assert.ok(looked <= 200, `${looked} guesses`);
  assert.ok(looked >= 100, `only ${looked} guesses`);
});

test("a known device is charged to its address, too", async () => {
  const headers = { "CF-Connecting-IP": address };
  for (let owner = 0; owner < 10; owner += 1) {
    useName(`${name}x`);
    const device = await registered(limited);
    for (let guess = 0; guess < 10; guess += 1)
      assert.equal((await device.login(name, WRONG, { headers })).status, 401, `${owner}, ${guess}`);
  }
  const answer = await someone(limited).login(`nobody ${number}`, WRONG, { headers });
  assertRefused(answer, 429, "rate_limited");
  assert.match(answer.json.detail, /"login-address" of 100 failed logins/);
});

test("a changed password makes all devices unknown but the one that changed it", async () => {
  const phone = await registered(limited);
  const thief = phone.clone();
  const home = someone(limited);
  assert.equal((await tryLogin(home)).status, 200);
  const changed = await home.tell("POST", "/password", CHANGE, elsewhere());
  assert.equal(changed.status, 200, changed.text);
  assert.ok(changed.setCookies.some((line) => line.startsWith(`${DEVICE}=`)));
  await attack();
  for (const stranger of [thief, phone])
    assertRefused(await tryLogin(stranger, "another horse"), 429, "rate_limited");
  // It has not used up what the other devices have.
  assert.equal((await tryLogin(home, "another horse")).status, 200);
  assert.equal(await budgetOf(String(thief.cookies.get(DEVICE))), 0);
});

test("a device that is not known any more counts as a stranger before its password is looked at", async () => {
  const device = await registered(limited);
  const old = String(device.cookies.get(DEVICE));
  assert.equal((await device.tell("POST", "/password", CHANGE, elsewhere())).status, 200);
  assert.equal(await budgetOf(old), 10);
  assertRefused(await tryLogin(someone(limited), "another horse"), 429, "rate_limited");
  assert.equal((await tryLogin(device, "another horse")).status, 200);
});

test("a device is not known to the account that has its name next", async () => {
  const owner = await registered(limited);
  const old = String(owner.cookies.get(DEVICE));
  assert.equal((await owner.tell("DELETE", "/account", { password: RIGHT }, elsewhere())).status, 204);
  await registered(limited);
  await attack();
  assert.equal(await budgetOf(old), 0);
});

test("a hash that is renewed under other settings leaves all devices known", async () => {
  const owner = await registered(limited);
  const limits = { session: "", mint: "", login: "10/5m" };
  const stronger = await start({ settings: { limits, password: { memory_kib: 64, iterations: 2 } } });
  assert.equal((await tryLogin(owner.clone(stronger.url))).status, 200);
  await attack();
  assert.equal((await tryLogin(owner)).status, 200);
});

test("credential stuffing from one address is stopped at ten times the limit", async () => {
  const headers = { "CF-Connecting-IP": address };
  const answers = await Promise.all(
    Array.from({ length: 120 }, (_, index) =>
      someone(limited).login(`stuffed ${number} ${index}`, WRONG, { headers }),
    ),
  );
  assert.equal(answers.filter(({ status }) => status === 401).length, 100);
  const over = answers.find(({ status }) => status === 429);
  assert.match(over?.json.detail, /"login-address" of 100 failed logins in 300 s/);
});

test("a password given while logged in counts as an attempt of this session", async () => {
  for (const [method, path, body] of /** @type {[string, string, unknown][]} */ ([
    ["POST", "/reauthenticate", { password: WRONG }],
    ["POST", "/password", { current: WRONG, new: "another horse" }],
    ["DELETE", "/account", { password: WRONG }],
  ])) {
    useName(`${name}x`);
    const visitor = await registered(limited);
    const answers = await Promise.all(
      Array.from({ length: 15 }, () =>
        visitor.clone(inTurn(limited).url).tell(method, path, body, { "CF-Connecting-IP": address }),
      ),
    );
    assert.deepEqual(
      answers.map(({ status }) => status).toSorted(),
      [...Array(10).fill(401), ...Array(5).fill(429)],
      path,
    );
    const refused = await visitor.tell("POST", "/reauthenticate", { password: RIGHT }, elsewhere());
    assertRefused(refused, 429, "rate_limited");
    assert.notEqual(await visitor.session(), null);
    assert.equal(
      (await visitor.clone().login(name, RIGHT)).status,
      200,
      "the account and the device are free",
    );
  }
});

test("while an account is under attack its owner, logged in, needs no device cookie to give the password", async () => {
  const owner = await registered(limited);
  owner.cookies.delete(DEVICE);
  await attack();
  const answer = await owner.tell("POST", "/reauthenticate", { password: RIGHT }, elsewhere());
  assert.equal(answer.status, 200, answer.text);
  const changed = await owner.tell("POST", "/password", CHANGE, elsewhere());
  assert.equal(changed.status, 200, changed.text);
  owner.cookies.delete(DEVICE);
  const deleted = await owner.tell("DELETE", "/account", { password: "another horse" }, elsewhere());
  assert.equal(deleted.status, 204, deleted.text);
});
