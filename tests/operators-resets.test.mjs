/** Resetting a password: a token of one use, made by the service API, lets its holder choose another password. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertRefused,
  DEVICE,
  firstCall,
  inTurn,
  loggedIn,
  MINUTE,
  name,
  number,
  operate,
  owner,
  registered,
  resetToken,
  RIGHT,
  setDisabled,
  someone,
  startLimited,
  store,
  two,
  useName,
  userPath,
  useToken,
  WRONG,
} from "./support/accounts.mjs";
import { moveClocks } from "./support/worker.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */
/** @typedef {import("../tools/local-store/faults.mjs").Seen} Seen */

const NEW = "another horse";
const limited = await startLimited();

const accountKey = () => `account:${name.toLowerCase()}`;
/** Whether the account is opened by the old password, or by the new one. */
async function passwords() {
  const answers = await Promise.all([RIGHT, NEW].map((word) => someone().login(name, word)));
  return answers.map(({ status }) => status);
}
/** The mark that ends all sessions of a user. @param {Seen} seen */
const isRevocation = ({ commands }) => commands.some(([word]) => word === "HGETALL");

test("a token lets its holder in with another password, once, and ends every session", async () => {
  const { visitor, id } = await owner();
  const other = await loggedIn();
  const made = await operate("POST", `${userPath(id)}/reset`);
  assert.equal(made.status, 201);
  assert.deepEqual(Object.keys(made.json).toSorted(), ["expires_at", "token"]);
  assert.match(made.json.token, /^[\w-]{64}$/);
  assert.ok(Math.abs(Date.parse(made.json.expires_at) - store.now() - 30 * MINUTE) < MINUTE);
  assert.notEqual(await visitor.session(), null, "nothing has ended yet");

  const holder = someone();
  await holder.merge({ cart: [1] });
  const anonymous = holder.ticket;
  const answer = await useToken(made.json.token, NEW, holder);
  assert.equal(answer.status, 200, answer.text);
  const { session } = answer.json;
  assert.deepEqual([session.user.id, session.data, session.remember], [id, { cart: [1] }, false]);
  assert.notEqual(session.authenticated_at, null);
  assert.notEqual(holder.ticket, anonymous);
  assert.deepEqual(
    answer.setCookies.map((line) => line.split("=")[0]).toSorted(),
    ["__Host-session", DEVICE].toSorted(),
  );
  for (const one of [visitor, other]) assert.equal(await one.session(), null);
  assert.deepEqual(await passwords(), [401, 200]);
  assertRefused(await useToken(made.json.token, RIGHT), 401, "invalid_credentials");
  assert.notEqual(await holder.session(), null, "a used token ends nothing");
  assert.deepEqual(await passwords(), [401, 200]);
});

test("who is logged in, as the same user or another, is so under a new id as the token's user", async () => {
  for (const isSame of [true, false]) {
    useName(`${name}x`);
    const { visitor, id } = await owner();
    let holder = visitor;
    if (!isSame) {
      holder = someone();
      await holder.register(`${name} other`, RIGHT);
    }
    await holder.merge({ private: 1 });
    const before = holder.clone();
    const answer = await useToken(await resetToken(id), NEW, holder);
    assert.equal(answer.status, 200, answer.text);
    assert.equal((await holder.session()).user.id, id);
    assert.deepEqual((await holder.session()).data, {});
    assert.equal(await before.session(), null);
  }
});

test("only the token's hash is stored, and it is nowhere else", async () => {
  const { id } = await owner();
  const token = await resetToken(id);
  const bytes = Buffer.from(token, "base64url");
  const stored = String(await store.redis.get(accountKey()));
  for (const secret of [token, bytes.subarray(16).toString("base64url"), bytes.toString("hex")])
    assert.ok(!stored.includes(secret));
  assert.ok(JSON.parse(stored).reset.hash);
  await useToken(token, "short");
  await useToken(token, NEW);
  assert.ok(two.every(({ logs }) => !logs.join("").includes(token)));
  assert.equal("reset" in JSON.parse(String(await store.redis.get(accountKey()))), false);
});

/** How a token comes to its end. @type {[string, (owner: Visitor, id: string) => Promise<unknown>][]} */
const ENDS = [
  ["a later one", (_, id) => resetToken(id)],
  ["a login with the password", () => loggedIn()],
  ["a changed password", (owner) => owner.tell("POST", "/password", { current: RIGHT, new: RIGHT })],
  ["a disabled account", (_, id) => setDisabled(id, true)],
  [
    "an account that was disabled and enabled again",
    async (_, id) => {
      await setDisabled(id, true);
      await setDisabled(id, false);
    },
  ],
  ["the account's deletion", (owner) => owner.tell("DELETE", "/account", { password: RIGHT })],
  [
    "the account's deletion, and another of its name",
    async (_, id) => {
      await operate("DELETE", userPath(id));
      await registered();
    },
  ],
];
for (const [what, end] of ENDS) {
  test(`a token is ended by ${what}`, async () => {
    const { visitor, id } = await owner();
    const token = await resetToken(id);
    await end(visitor, id);
    const answer = await useToken(token, NEW);
    assertRefused(answer, 401, "invalid_credentials");
    assert.deepEqual(answer.setCookies, []);
    assert.equal((await passwords())[1], 401);
    if (await store.redis.exists(accountKey())) await setDisabled(id, false);
  });
}

test("a wrong password, another user's login, an ended or renewed session end no token", async () => {
  const { visitor, id } = await owner();
  const token = await resetToken(id);
  await someone().login(name, WRONG);
  await visitor.tell("POST", "/reauthenticate", { password: RIGHT });
  await visitor.tell("PATCH", "/profile", { a: 1 });
  await operate("PUT", `${userPath(id)}/roles`, { roles: ["staff"] });
  await operate("DELETE", `${userPath(id)}/sessions`);
  await someone().register(`${name} other`, RIGHT);
  assertRefused(await useToken(token, "password1"), 422, "unprocessable");
  const answer = await useToken(token, NEW);
  assert.equal(answer.status, 200, answer.text);
  assert.deepEqual(answer.json.session.user.roles, ["staff"]);
});

test("a token made for a disabled account opens nothing until it is enabled", async () => {
  const { id } = await owner();
  await setDisabled(id, true);
  const token = await resetToken(id);
  assertRefused(await useToken(token, NEW), 401, "invalid_credentials");
  assert.deepEqual(await passwords(), [401, 401]);
  await setDisabled(id, false);
  assert.equal((await useToken(token, NEW)).status, 200);
});

test("a token is good for thirty minutes, by the Worker's clock", async () => {
  const { id } = await owner();
  const [early, late] = [await resetToken(id), await resetToken(id)];
  assertRefused(await useToken(early, NEW), 401, "invalid_credentials");
  await moveClocks(store, [...two, ...limited], 29 * MINUTE);
  const again = name;
  useName(`${name} second`);
  const second = await owner();
  const kept = await resetToken(second.id);
  await moveClocks(store, [...two, ...limited], 2 * MINUTE);
  assertRefused(await useToken(late, NEW), 401, "invalid_credentials");
  assert.equal((await useToken(kept, NEW)).status, 200);
  useName(again);
  assert.deepEqual(await passwords(), [200, 401]);
});

test("what is no token is 401 without a call to the store, and what is none of ours changes nothing", async () => {
  const { visitor, id } = await owner();
  const token = await resetToken(id);
  const flipped = (/** @type {number} */ at) =>
    token.slice(0, at) + (token[at] === "A" ? "B" : "A") + token.slice(at + 1);
  for (const text of [
    "",
    "x",
    token.slice(1),
    `${token}A`,
    `${token}=`,
    ` ${token}`,
    "x".repeat(10_000),
    "🧥",
  ]) {
    const { value, calls } = await store.counters.during(() => useToken(text, NEW));
    assertRefused(value, 401, "invalid_credentials");
    assert.equal(calls, 0, text.slice(0, 80));
  }
  const answers = new Set();
  for (let at = 0; at < token.length; at += 1) {
    const answer = await useToken(flipped(at), NEW);
    assertRefused(answer, 401, "invalid_credentials");
    answers.add(answer.text);
  }
  assert.equal(answers.size, 1);
  assert.notEqual(await visitor.session(), null);
  assert.equal((await useToken(token, NEW)).status, 200);
});

test("what is wrong with the request is said, and does not use the token up", async () => {
  const { visitor, id } = await owner();
  const token = await resetToken(id);
  for (const [body, status, code] of /** @type {[unknown, number, string][]} */ ([
    [{}, 400, "bad_request"],
    [null, 400, "bad_request"],
    [{ token }, 400, "bad_request"],
    [{ new: NEW }, 400, "bad_request"],
    [{ token, new: 5 }, 400, "bad_request"],
    [{ token: null, new: NEW }, 400, "bad_request"],
    [{ token, new: NEW, remember: true }, 400, "bad_request"],
    [{ token, new: "short" }, 422, "unprocessable"],
    [{ token, new: "password1" }, 422, "unprocessable"],
    [{ token, new: "x1y2z3".repeat(200) }, 422, "unprocessable"],
  ])) {
    const answer = await visitor.clone().tell("POST", "/reset", body);
    assertRefused(answer, status, code);
    assert.ok(!answer.text.includes(token) && answer.setCookies.length === 0);
  }
  const foreign = await visitor
    .clone()
    .tell("POST", "/reset", { token, new: NEW }, { "Sec-Fetch-Site": "cross-site" });
  assertRefused(foreign, 403, "cross_site");
  const get = await someone().send("GET", `/auth/reset?token=${token}`);
  assertRefused(get, 405, "method_not_allowed");
  assert.equal(get.headers.get("allow"), "POST");
  assert.match(get.json.detail, /this is no page; .*POST \/auth\/reset/);
  assert.notEqual(await visitor.session(), null);
  assert.equal((await useToken(token, NEW)).status, 200);
});

test("of thirty-two uses at once at two isolates one succeeds, and its session lives", async () => {
  for (let round = 0; round < 5; round += 1) {
    useName(`${name}x`);
    const { visitor, id } = await owner();
    const token = await resetToken(id);
    const words = Array.from({ length: 32 }, (_, index) => `${NEW} ${index}`);
    const visitors = words.map(() => someone());
    const answers = await Promise.all(words.map((word, index) => useToken(token, word, visitors[index])));
    assert.deepEqual(answers.map(({ status }) => status).toSorted(), [200, ...Array(31).fill(401)]);
    const index = answers.findIndex(({ status }) => status === 200);
    assert.equal((await visitors[index]?.session())?.user.id, id, "no loser has ended it");
    assert.equal(await visitor.session(), null);
    const logins = await Promise.all(words.map((word) => someone().login(name, word)));
    assert.deepEqual(
      logins.map(({ status }) => status),
      words.map((_, at) => (at === index ? 200 : 401)),
    );
  }
});

/** What comes between two steps of a use of the token; afterwards its sessions live. @type {[string, (owner: Visitor, id: string, token: string) => Promise<Visitor>, number][]} */
const BETWEEN = [
  [
    "another use of it",
    async (_, __, token) => {
      const visitor = someone();
      assert.equal((await useToken(token, NEW, visitor)).status, 200);
      return visitor;
    },
    200,
  ],
  ["a login with the password", () => loggedIn(), 200],
  [
    "a changed password",
    async (owner) => {
      const answer = await owner.tell("POST", "/password", { current: RIGHT, new: NEW });
      assert.equal(answer.status, 200, answer.text);
      return owner;
    },
    200,
  ],
];
for (const [what, run] of BETWEEN) {
  test(`${what} that overtakes a use of the token either comes before it, or lets it end nothing`, async () => {
    for (let call = 1; call < 16; call += 1) {
      useName(`${name.slice(0, 40)}.${call}`);
      const { visitor, id } = await owner();
      const token = await resetToken(id);
      const holder = someone();
      let seen = 0;
      const held = store.faults.hold(() => ++seen === call);
      const using = useToken(token, "a third horse", holder);
      const stopped = await Promise.race([held.arrived.then(() => true), using.then(() => false)]);
      if (!stopped) {
        held.release();
        break;
      }
      const settled = { answer: /** @type {Visitor | undefined} */ (undefined) };
      let failure;
      try {
        settled.answer = await run(visitor, id, token);
      } catch (error) {
        // It was too late: the token's use has ended its session, or changed its password.
        failure = error;
      }
      held.release();
      const answer = await using;
      const where = `before call ${call}: ${answer.status}`;
      if (answer.status === 401) {
        assert.equal(answer.json.code, "invalid_credentials", where);
        assert.equal(failure, undefined, `${where}: ${failure}`);
        assert.notEqual(await settled.answer?.session(), null, where);
        assert.equal((await someone().login(name, "a third horse")).status, 401, where);
      } else {
        assert.ok([200, 409].includes(answer.status), `${where} ${answer.text}`);
        assert.equal((await someone().login(name, "a third horse")).status, 200, where);
        if (settled.answer) assert.equal(await settled.answer.session(), null, where);
      }
    }
  });
}

test("a login that gave the old password in time does not live past a reset, whatever its isolate's clock says", async () => {
  for (const ahead of [0, 20_000]) {
    useName(`${name}x`);
    const { id } = await owner();
    const token = await resetToken(id);
    await two[0].moveClock(ahead);
    const visitor = two[0].visitor();
    // It has seen the account, and is about to end the reset.
    const held = store.faults.hold(({ commands }) =>
      commands.some(([word, key]) => word === "SET" && key === accountKey()),
    );
    const login = visitor.login(name, RIGHT);
    await held.arrived;
    const holder = two[1].visitor();
    assert.equal((await useToken(token, NEW, holder)).status, 200);
    held.release();
    assert.notEqual((await login).status, 200);
    assert.equal((await visitor.session())?.user ?? null, null);
    assert.notEqual(await holder.session(), null);
    await two[0].moveClock(-ahead);
  }
});

test("a token that is used while its account is deleted lets nobody in and leaves nothing", async () => {
  for (let call = 1; call < 16; call += 1) {
    useName(`${name.slice(0, 40)}.${call}`);
    const { visitor, id } = await owner();
    const token = await resetToken(id);
    const holder = someone();
    let seen = 0;
    const held = store.faults.hold(() => ++seen === call);
    const using = useToken(token, NEW, holder);
    const stopped = await Promise.race([held.arrived.then(() => true), using.then(() => false)]);
    if (stopped) assert.equal((await operate("DELETE", userPath(id))).status, 204);
    held.release();
    const answer = await using;
    if (!stopped) break;
    const where = `before call ${call}: ${answer.text}`;
    assert.ok([401, 409].includes(answer.status) || call > 7, where);
    if (answer.status === 401) assert.equal(answer.json.code, "invalid_credentials", where);
    for (const one of [holder, visitor]) assert.equal((await one.session())?.user ?? null, null, where);
    assert.equal(await store.redis.exists(accountKey()), 0, where);
  }
});

test("a reset is not made, and no token used, for somebody who guesses: attempts count by address", async () => {
  const { id } = await owner();
  const token = await resetToken(id);
  const headers = { "CF-Connecting-IP": `192.0.3.${number & 255}` };
  const guess = (/** @type {string} */ text) =>
    inTurn(limited).visitor().tell("POST", "/reset", { token: text, new: NEW }, headers);
  const wrong = `${token.slice(0, -2)}${token.endsWith("AA") ? "BB" : "AA"}`;
  const answers = await Promise.all(Array.from({ length: 110 }, (_, turn) => guess(turn % 2 ? wrong : "x")));
  assert.equal(answers.filter(({ status }) => status === 401).length, 100);
  assert.equal(answers.filter(({ status }) => status === 429).length, 10);
  assertRefused(await guess(token), 429, "rate_limited");
  assert.equal((await useToken(token, NEW)).status, 200, "elsewhere it opens");
});

test("a reset that succeeds is given back to the limit", async () => {
  const headers = { "CF-Connecting-IP": `192.0.4.${number & 255}` };
  const { id } = await owner();
  for (let turn = 0; turn < 12; turn += 1) {
    const answer = await limited[0]
      .visitor()
      .tell("POST", "/reset", { token: await resetToken(id), new: NEW }, headers);
    assert.equal(answer.status, 200, answer.text);
  }
  await limited[0].moveClock(0);
  const login = await limited[0].visitor().login(name, WRONG, { headers });
  assert.match(String(login.headers.get("ratelimit")), /"login";r=9/);
});

test("the device that resets the password is known from then on, and those of the old password are not", async () => {
  const { visitor, id } = await owner();
  const old = String(visitor.cookies.get(DEVICE));
  const holder = someone();
  await useToken(await resetToken(id), NEW, holder);
  const known = String(holder.cookies.get(DEVICE));
  for (let attempt = 0; attempt < 11; attempt += 1) await limited[0].visitor().login(name, WRONG);
  for (const [cookie, status] of /** @type {[string, number][]} */ ([
    [old, 429],
    [known, 200],
  ])) {
    const device = limited[0].visitor();
    device.cookies.set(DEVICE, cookie);
    assert.equal((await device.login(name, NEW)).status, status);
  }
});

test("a token costs three calls to the store to make, and twelve to use", async () => {
  const { id } = await owner();
  const made = await store.counters.during(() => operate("POST", `${userPath(id)}/reset`));
  assert.deepEqual([made.calls, made.commands], [3, 4]);
  const used = await store.counters.during(() => useToken(made.value.json.token, NEW));
  assert.equal(used.value.status, 200);
  assert.equal(used.calls, 12);
});
