/** Accounts, seen from outside: registering, logging in, and what attackers, races and a failing store make of it. */
import assert from "node:assert/strict";
import { pbkdf2Sync } from "node:crypto";
import { after, before, beforeEach, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { randomSecret, startBoth, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {Awaited<ReturnType<typeof startWorker>>} Worker */
/** @typedef {import("../tools/local-store/faults.mjs").When} When */
/** @typedef {import("../tools/local-store/faults.mjs").Fault} Fault */

const MINUTE = 60_000;
const RIGHT = "correct horse";
const WRONG = "wrong horse!";
const DEVICE = "__Host-session-device";
const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const secrets = { SESSION_SECRET: randomSecret(), ADMIN_TOKEN };
/** As light as Argon2id gets. */
const password = { memory_kib: 64, iterations: 1 };

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** Two isolates of one deployment, without limits. @type {[Worker, Worker]} */
let two;
/** The same with limits. @type {[Worker, Worker]} */
let limited;
let count = 0;
/** A name nobody else has. */
let name = "";
/** An address nobody else has. */
let address = "";

before(async () => {
  store = await startLocalStore();
  const start = (/** @type {object} */ limits) =>
    startWorker({ store, secrets, settings: { password, session: { max_per_user: 4 }, limits } });
  const off = { session: "", mint: "", login: "" };
  const on = { session: "", mint: "1000/1m", login: "10/5m" };
  const [a, b, c, d] = await Promise.all([off, off, on, on].map(start));
  two = [a, b];
  limited = [c, d];
});
after(async () => {
  await Promise.all([...two, ...limited].map((worker) => worker.stop()));
  await store.stop();
});
beforeEach(() => {
  store.faults.clear();
  count += 1;
  name = `Ada ${count}`;
  address = `198.51.${count >> 8}.${count & 255}`;
});

/** An isolate, each in turn. */
let turn = 0;
const someone = (/** @type {Worker[]} */ workers = two) =>
  /** @type {Worker} */ (workers[(turn += 1) % 2]).visitor();

/** Somebody new with an account. @param {Worker[]} [workers] */
async function registered(workers = two) {
  const visitor = someone(workers);
  const answer = await visitor.register(name, RIGHT, { "CF-Connecting-IP": "192.0.2.1" });
  assert.equal(answer.status, 201, answer.text);
  return visitor;
}

/** Somebody who logs in. @param {string} [word] */
async function loggedIn(word = RIGHT) {
  const visitor = someone();
  const answer = await visitor.login(name, word);
  assert.equal(answer.status, 200, answer.text);
  return visitor;
}

/** @param {Visitor} visitor @param {unknown} patch @param {Record<string, string>} [headers] */
const mergeProfile = (visitor, patch, headers = {}) =>
  visitor.tell("PATCH", "/profile", patch, { "Content-Type": "application/merge-patch+json", ...headers });

/** @param {string} id @param {unknown} body */
const setRoles = (id, body) =>
  someone().tell("PUT", `/admin/users/${encodeURIComponent(id)}/roles`, body, admin);

/** @param {Answer} answer @param {number} status @param {string} code */
function refused(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.json.code, code);
  assert.equal(answer.headers.get("content-type"), "application/problem+json");
}

/** The first matching call to the store. @param {string} command @returns {When} */
const first = (command) => {
  let is = true;
  return ({ commands }) => {
    const hit = is && commands.some(([word]) => word === command);
    if (hit) is = false;
    return hit;
  };
};
/** The call that begins a session. */
const begins = () => first("HSET");

// 1. The routes.

test("registering is a login: 201, the session, its cookie and one that makes the device known", async () => {
  const visitor = someone();
  const answer = await visitor.register(` ${name} `, RIGHT);
  assert.equal(answer.status, 201, answer.text);
  const { session } = answer.json;
  assert.equal(session.user.name, name);
  assert.ok(session.user.id.length >= 16);
  assert.deepEqual([session.user.roles, session.data, session.remember], [[], {}, false]);
  assert.equal(session.authenticated_at, session.created_at);
  assert.deepEqual(
    answer.setCookies.map((line) => line.split("=")[0]).toSorted(),
    ["__Host-session", DEVICE].toSorted(),
  );
  for (const line of answer.setCookies)
    assert.match(line, /; Path=\/; HttpOnly; Secure; SameSite=Lax(; Max-Age=15552000)?$/);
  assert.match(String(answer.headers.get("etag")), /^"[^"]+"$/);
  assert.equal(answer.headers.get("cache-control"), "no-store");
  assert.match(String(answer.headers.get("vary")), /Cookie/);
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
  assert.deepEqual(await visitor.session(), session);
  refused(await someone().register(name, RIGHT), 409, "conflict");
});

test("a login has the session and its cookie; the device's comes once", async () => {
  await registered();
  const visitor = someone();
  const answer = await visitor.login(name, RIGHT);
  assert.equal(answer.status, 200);
  assert.equal(answer.setCookies.length, 2);
  assert.ok(answer.setCookies.every((line) => line.includes(DEVICE) || !line.includes("Max-Age")));
  assert.equal((await visitor.login(name, RIGHT)).setCookies.length, 1);
  assert.deepEqual((await visitor.look()).setCookies, []);
  const wrong = await visitor.login(name, WRONG);
  refused(wrong, 401, "invalid_credentials");
  assert.deepEqual(wrong.setCookies, []);
  assert.equal(wrong.headers.get("cache-control"), "no-store");
  assert.notEqual(await visitor.session(), null, "a failed login ends nothing");
});

test("POST /auth/logout is DELETE /auth/session, with a session and without", async () => {
  for (const logout of /** @type {((visitor: Visitor) => Promise<Answer>)[]} */ ([
    (visitor) => visitor.logout(),
    (visitor) => visitor.send("POST", "/auth/logout"),
  ])) {
    name += "x";
    const visitor = await registered();
    const before = visitor.clone();
    const answer = await logout(visitor);
    assert.deepEqual([answer.status, answer.text], [204, ""]);
    assert.match(answer.setCookies.join(), /^__Host-session=; .*Max-Age=0/);
    assert.equal(await before.session(), null);
    const again = await logout(someone());
    assert.deepEqual([again.status, again.setCookies], [204, []]);
  }
});

test("verify says who is logged in, in headers that nothing can break out of", async () => {
  name = `Zoë, "山田" ${count}`;
  const visitor = await registered();
  const { user, handle } = await visitor.session();
  assert.equal((await setRoles(user.id, { roles: ["admin", "a,b"] })).status, 204);
  const answer = await visitor.send("GET", "/auth/verify");
  assert.deepEqual([answer.status, answer.text], [200, ""]);
  const header = (/** @type {string} */ word) => answer.headers.get(`x-session-${word}`);
  assert.equal(header("user"), user.id);
  assert.equal(header("name"), encodeURIComponent(name));
  assert.equal(header("roles"), "admin,a%2Cb");
  assert.equal(header("handle"), handle);
  assert.equal(answer.headers.get("cache-control"), "no-store");
  for (const [query, status] of /** @type {[string, number][]} */ ([
    ["?role=admin", 200],
    ["?role=a%2Cb", 200],
    ["?role=Admin", 403],
    ["?role=adm", 403],
    ["?role=", 400],
    ["?rolle=admin", 400],
    ["?role=admin&role=x", 400],
    ["?role=%ff", 400],
  ])) {
    const checked = await visitor.send("GET", `/auth/verify${query}`);
    assert.equal(checked.status, status, query);
    if (status === 403) refused(checked, 403, "forbidden");
    assert.equal(checked.headers.has("x-session-user"), status === 200);
  }
  assert.equal((await visitor.send("HEAD", "/auth/verify")).headers.get("x-session-user"), user.id);
  const anonymous = someone();
  await anonymous.merge({ a: 1 });
  for (const one of [anonymous, someone()])
    refused(await one.send("GET", "/auth/verify"), 401, "unauthenticated");
});

test("the profile is a document of its own: patched, conditional, and there after the session", async () => {
  const visitor = await registered();
  const empty = await visitor.send("GET", "/auth/profile");
  assert.deepEqual([empty.status, empty.json, empty.setCookies], [200, {}, []]);
  assert.match(String(empty.headers.get("content-type")), /^application\/json/);
  const tag = String(empty.headers.get("etag"));
  assert.match(tag, /^"[^"]+"$/);
  const merged = await mergeProfile(visitor, { town: "Zürich", n: 1 }, { "If-Match": tag });
  assert.deepEqual([merged.status, merged.json], [200, { town: "Zürich", n: 1 }]);
  assert.notEqual(merged.headers.get("etag"), tag);
  refused(await mergeProfile(visitor, { n: 5 }, { "If-Match": tag }), 412, "precondition_failed");
  const type = { "Content-Type": "application/json-patch+json" };
  const steps = [
    { op: "test", path: "/n", value: 1 },
    { op: "increment", path: "/n", value: 2 },
    { op: "remove", path: "/town" },
  ];
  assert.deepEqual((await visitor.tell("PATCH", "/profile", steps, type)).json, { n: 3 });
  refused(await visitor.tell("PATCH", "/profile", steps, type), 422, "unprocessable");
  refused(await visitor.tell("PATCH", "/profile", [{ op: "fly" }], type), 400, "bad_request");
  refused(await mergeProfile(visitor, []), 400, "bad_request");
  refused(
    await visitor.tell("PATCH", "/profile", {}, { "Content-Type": "text/plain" }),
    415,
    "unsupported_media_type",
  );
  refused(await mergeProfile(visitor, { big: "x".repeat(70_000) }), 413, "too_large");
  const last = (await visitor.send("GET", "/auth/profile")).headers.get("etag");
  const { id } = (await visitor.session()).user;
  assert.equal((await setRoles(id, { roles: ["staff"] })).status, 204);
  await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" });
  await visitor.tell("POST", "/password", { current: "another horse", new: RIGHT });
  const same = await mergeProfile(visitor, { n: 3 }, { "If-Match": String(last) });
  assert.deepEqual(
    [same.status, same.headers.get("etag")],
    [200, last],
    "what is not the profile is not in its tag",
  );
  await visitor.logout();
  const again = await loggedIn();
  assert.deepEqual((await again.send("GET", "/auth/profile")).json, { n: 3 });
  assert.equal((await again.send("HEAD", "/auth/profile")).status, 200);
});

test("parallel patches of a profile, through two isolates, lose nothing", async () => {
  const visitor = await registered();
  const type = { "Content-Type": "application/json-patch+json" };
  const add = (/** @type {Visitor} */ one) =>
    one.tell("PATCH", "/profile", [{ op: "increment", path: "/n", value: 1 }], type);
  const answers = await Promise.all(
    Array.from({ length: 16 }, (_, index) => add(visitor.clone(two[index % 2 ? 1 : 0].url))),
  );
  assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
  assert.deepEqual((await visitor.send("GET", "/auth/profile")).json, { n: 16 });
});

test("every route says what is wrong with a request, before the store is asked", async () => {
  const visitor = await registered();
  const bodies = [
    ["POST", "/register", { username: "x y", password: RIGHT }],
    ["POST", "/login", { username: "x y", password: RIGHT }],
    ["POST", "/reauthenticate", { password: RIGHT }],
    ["POST", "/password", { current: RIGHT, new: "another horse" }],
    ["DELETE", "/account", { password: RIGHT }],
  ];
  for (const [method, path, good] of /** @type {[string, string, Record<string, string>][]} */ (bodies)) {
    const wrong = [
      [],
      null,
      "x",
      { ...good, more: 1 },
      ...Object.keys(good).flatMap((field) => [
        { ...good, [field]: undefined },
        { ...good, [field]: 5 },
        { ...good, [field]: null },
      ]),
    ];
    for (const body of wrong) {
      const { value, byName } = await store.counters.during(() => visitor.tell(method, path, body));
      refused(value, 400, "bad_request");
      assert.ok(!value.text.includes(RIGHT));
      assert.deepEqual(byName, {}, `${path} ${JSON.stringify(body)}`);
    }
    for (const body of ["", "{", '{"password":"\\ud800"}', '{"a":1,"a":2}']) {
      const headers = { "Content-Type": "application/json" };
      refused(await visitor.send(method, `/auth${path}`, { headers, body }), 400, "bad_request");
    }
    const type = { "Content-Type": "text/plain" };
    refused(await visitor.tell(method, path, good, type), 415, "unsupported_media_type");
    const get = await visitor.send("GET", `/auth${path}`);
    refused(get, 405, "method_not_allowed");
    assert.equal(get.headers.get("allow"), method);
    const foreign = await visitor.tell(method, path, good, { "Sec-Fetch-Site": "cross-site" });
    refused(foreign, 403, "cross_site");
  }
  refused(
    await visitor.tell("POST", "/login", { username: "x", password: "y", remember: 1 }),
    400,
    "bad_request",
  );
  refused(await visitor.register("x", "y".repeat(300_000)), 413, "too_large");
  for (const [path, method, allow] of /** @type {[string, string, string][]} */ ([
    ["/profile", "POST", "GET, HEAD, PATCH"],
    ["/verify", "POST", "GET, HEAD"],
    ["/logout", "GET", "POST"],
    ["/sessions", "POST", "GET, HEAD, DELETE"],
    ["/sessions/AAAA", "GET", "DELETE"],
  ])) {
    const answer = await visitor.send(method, `/auth${path}`);
    refused(answer, 405, "method_not_allowed");
    assert.equal(answer.headers.get("allow"), allow);
  }
  assert.notEqual(await visitor.session(), null);
});

test("what needs somebody logged in is 401 without, and 404 for users of the service API", async () => {
  const made = await someone().tell("POST", "/admin/sessions", { user: { id: `u${count}` } }, admin);
  const foreign = someone();
  foreign.ticket = made.json.set_cookie.match(/^__Host-session=([^;]+);/)[1];
  const anonymous = someone();
  await anonymous.merge({ a: 1 });
  for (const [method, path, body] of /** @type {[string, string, unknown][]} */ ([
    ["POST", "/reauthenticate", { password: RIGHT }],
    ["POST", "/password", { current: RIGHT, new: "another horse" }],
    ["DELETE", "/account", { password: RIGHT }],
    ["PATCH", "/profile", { a: 1 }],
    ["GET", "/profile", undefined],
  ])) {
    refused(await someone().tell(method, path, body), 401, "unauthenticated");
    refused(await anonymous.tell(method, path, body), 401, "unauthenticated");
    const answer = await foreign.tell(method, path, body);
    refused(answer, 404, "not_found");
    assert.deepEqual(answer.setCookies, []);
  }
  assert.notEqual(await anonymous.session(), null);
});

test("a wrong password ends nothing and does nothing, wherever it is asked for", async () => {
  const visitor = await registered();
  for (const [method, path, body] of /** @type {[string, string, unknown][]} */ ([
    ["POST", "/reauthenticate", { password: WRONG }],
    ["POST", "/password", { current: WRONG, new: "another horse" }],
    ["DELETE", "/account", { password: WRONG }],
  ])) {
    const answer = await visitor.tell(method, path, body);
    refused(answer, 401, "invalid_credentials");
    assert.deepEqual(answer.setCookies, []);
  }
  assert.notEqual(await visitor.session(), null);
  refused(await visitor.tell("POST", "/password", { current: RIGHT, new: "short" }), 422, "unprocessable");
  await loggedIn();
});

// 2. Names and passwords.

test("spellings of one name are one account", async () => {
  const tail = `Żoe${count}`;
  name = `Ada${tail}`;
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  for (const other of [
    `ada${tail}`,
    `ADA${tail.toUpperCase()}`,
    `ＡＤＡ${tail}`,
    `  Ada${tail.normalize("NFD")}\u3000`,
  ]) {
    refused(await someone().register(other, RIGHT), 409, "conflict");
    const answer = await someone().login(other, RIGHT);
    assert.equal(answer.status, 200, other);
    assert.deepEqual([answer.json.session.user.id, answer.json.session.user.name], [id, name]);
  }
});

test("a name has 1 to 128 characters after normalising, all visible and of one script", async () => {
  const pad = String(count).padStart(6, "0");
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
    [`Ада ${pad}`, 201],
    [`__proto__${pad}`, 201],
    [`a:b*"\\ ${pad}`, 201],
  ])) {
    const { value, calls } = await store.counters.during(() => someone().register(username, RIGHT));
    assert.equal(value.status, status, JSON.stringify(username));
    if (status === 422) {
      refused(value, 422, "unprocessable");
      assert.equal(calls, 0);
      refused(await someone().login(username, RIGHT), 401, "invalid_credentials");
    } else assert.equal((await someone().login(username, RIGHT)).status, 200, username);
  }
});

test("of registrations of one name at once, over two isolates, one is made", async () => {
  for (const crowd of [2, 20]) {
    name += "x";
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

test("a password has 8 to 1024 characters of any kind, and every one counts", async () => {
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
    name += "x";
    const { value } = await store.counters.during(() => someone().register(name, word));
    assert.equal(value.status, status, word.slice(0, 20));
    if (status !== 201) {
      refused(value, 422, "unprocessable");
      continue;
    }
    await loggedIn(word);
    const shorter = [...word].slice(0, -1).join("");
    for (const other of [`${word} `, ` ${word}`, shorter, `${shorter}y`])
      refused(await someone().login(name, other), 401, "invalid_credentials");
  }
  name = `lovelace ${count}`;
  refused(await someone().register(name, name.toUpperCase()), 422, "unprocessable");
});

// 3. Unknown names.

/** What an answer looks like apart from what counts. @param {Answer} answer */
const face = ({ status, text, headers, setCookies }) => {
  const all = [...headers].filter(([name]) => !["date", "ratelimit", "retry-after"].includes(name));
  return JSON.stringify([status, text, all, setCookies]);
};

test("an unknown name, an impossible one and a wrong password look the same and ask the store the same", async () => {
  for (const workers of [two, limited]) {
    name += "x";
    await registered(workers);
    const faces = new Set();
    const costs = new Set();
    for (const username of [name, `nobody ${count}`, "", "a\u200bb", "x".repeat(20_000), `p\u0430ypal`]) {
      const headers = { "CF-Connecting-IP": address };
      const visitor = workers[0].visitor();
      const { value, calls, byName } = await store.counters.during(() =>
        visitor.login(username, WRONG, { headers }),
      );
      await workers[0].moveClock(0);
      const { TIME, ...rest } = byName;
      if (username === name) continue; // the first opens the address's counter
      faces.add(face(value));
      costs.add(JSON.stringify([calls, rest]));
    }
    const headers = { "CF-Connecting-IP": address };
    const { value, calls, byName } = await store.counters.during(() =>
      workers[0].visitor().login(name, WRONG, { headers }),
    );
    faces.add(face(value));
    assert.equal(faces.size, 1, [...faces].join("\n"));
    if (workers === two) costs.add(JSON.stringify([calls, byName]));
    assert.ok(costs.size <= (workers === two ? 1 : 2), [...costs].join("\n"));
  }
});

test("a password is hashed whether there is such a name or not", async () => {
  await registered();
  const [before, heavy] = await Promise.all([1, 2].map(() => startWorker({ store, secrets })));
  // A hash made with as much memory as is needed today. (Not by the one whose memory is to be full.)
  assert.equal((await before?.visitor().login(name, RIGHT))?.status, 200);
  await before?.stop();
  assert.ok(heavy);
  try {
    const act = async (/** @type {() => Promise<Answer>} */ run) => {
      await heavy.visitor().register(name, RIGHT); // what any request needs
      await heavy.fillMemory(); // whoever hashes now traps
      return (await run()).status;
    };
    for (const username of [name, `nobody ${count}`, "", "a\u200bb"])
      assert.equal(await act(() => heavy.visitor().login(username, WRONG)), 500, username);
    assert.equal(await act(() => heavy.visitor().register(name, RIGHT)), 409, "nothing else does");
  } finally {
    await heavy.stop();
  }
});

test("names that don't exist run into the limit like those that do", async () => {
  await registered(limited);
  const tries = [name, `nobody ${count}`].map(async (username, index) => {
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

// 4. Guessing.

test("of fifty guesses at once, over two isolates, exactly the limit is looked at", async () => {
  await registered(limited);
  const guess = (/** @type {string} */ username) =>
    Promise.all(
      Array.from({ length: 50 }, (_, index) =>
        someone(limited).login(username, WRONG, {
          headers: { "CF-Connecting-IP": `${address.slice(0, -1)}${index}` },
        }),
      ),
    );
  for (const username of [name, `nobody ${count}`]) {
    const answers = await guess(username);
    const looked = answers.filter(({ status }) => status === 401);
    assert.equal(looked.length, 10, username);
    const over = answers.filter(({ status }) => status === 429);
    assert.equal(over.length, 40);
    for (const answer of over) {
      refused(answer, 429, "rate_limited");
      assert.match(answer.json.detail, /"login" of 10 in 300 s/);
      assert.ok(Number(answer.headers.get("retry-after")) > 0);
    }
  }
});

test("a success gives its attempt back", async () => {
  await registered(limited);
  for (let attempt = 0; attempt < 25; attempt += 1) {
    const answer = await limited[0]
      .visitor()
      .login(name, RIGHT, { headers: { "CF-Connecting-IP": address } });
    assert.equal(answer.status, 200, `${attempt}: ${answer.text}`);
    await limited[0].moveClock(0);
  }
});

test("the owner gets in from a known device while the account is hammered, and nobody with another cookie", async () => {
  const owner = await registered(limited);
  await owner.logout();
  name += " other";
  const other = await registered(limited);
  name = name.replace(" other", "");
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
    refused(
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

test("stuffing over many accounts from one address is stopped at ten times the limit", async () => {
  const headers = { "CF-Connecting-IP": address };
  const answers = await Promise.all(
    Array.from({ length: 120 }, (_, index) =>
      someone(limited).login(`stuffed ${count} ${index}`, WRONG, { headers }),
    ),
  );
  assert.equal(answers.filter(({ status }) => status === 401).length, 100);
  const over = answers.find(({ status }) => status === 429);
  assert.match(over?.json.detail, /"login-address" of 100 in 300 s/);
});

test("a password given while logged in is an attempt too", async () => {
  for (const [method, path, body] of /** @type {[string, string, unknown][]} */ ([
    ["POST", "/reauthenticate", { password: WRONG }],
    ["POST", "/password", { current: WRONG, new: "another horse" }],
    ["DELETE", "/account", { password: WRONG }],
  ])) {
    name += "x";
    const visitor = await registered(limited);
    visitor.cookies.delete(DEVICE);
    const answers = await Promise.all(
      Array.from({ length: 15 }, () =>
        visitor
          .clone(limited[(turn += 1) % 2]?.url)
          .tell(method, path, body, { "CF-Connecting-IP": address }),
      ),
    );
    assert.deepEqual(
      answers.map(({ status }) => status).toSorted(),
      [...Array(10).fill(401), ...Array(5).fill(429)],
      path,
    );
    refused(await visitor.tell("POST", "/reauthenticate", { password: RIGHT }), 429, "rate_limited");
    assert.notEqual(await visitor.session(), null);
  }
});

// 5. Fixation.

test("the id before a login is dead after it, and its data is carried over", async () => {
  for (const enter of /** @type {((visitor: Visitor) => Promise<Answer>)[]} */ ([
    (visitor) => visitor.register(name, RIGHT),
    (visitor) => visitor.login(name, RIGHT),
  ])) {
    const visitor = someone();
    await visitor.merge({ cart: ["tea"] });
    const old = visitor.clone(two[0].url);
    const { handle } = await visitor.session();
    const answer = await enter(visitor);
    assert.ok(answer.status < 300, answer.text);
    assert.deepEqual(answer.json.session.data, { cart: ["tea"] });
    assert.notEqual(answer.json.session.handle, handle);
    assert.equal(await store.redis.exists(`sess:${handle}`), 0);
    assert.equal(await old.clone(two[1].url).session(), null);
    const late = await old.merge({ x: 1 });
    assert.deepEqual([late.json.session.user, late.json.session.data], [null, { x: 1 }]);
    assert.deepEqual((await visitor.session()).data, { cart: ["tea"] });
  }
});

test("a rotated anonymous session is carried over by its old id, and both ids are dead", async () => {
  await registered();
  const visitor = someone();
  await visitor.merge({ a: 1 });
  const old = visitor.clone();
  await visitor.rotate();
  const rotated = visitor.clone();
  const late = old.clone();
  const answer = await late.login(name, RIGHT);
  assert.deepEqual([answer.status, answer.json.session.data], [200, { a: 1 }]);
  for (const one of [old, rotated]) assert.equal(await one.session(), null);
  assert.notEqual(await late.session(), null, "and that was not taken for theft");
});

test("no acknowledged change is lost to a login at the same time", async () => {
  await registered();
  for (const what of ["change", "login"]) {
    const visitor = someone();
    await visitor.merge({ n: 0 });
    const changer = visitor.clone(two[0].url);
    const when = what === "login" ? begins() : first("SET");
    const held = store.faults.hold(when);
    const holding = what === "login" ? visitor.login(name, RIGHT) : changer.increment("/n");
    await held.arrived;
    const other = await (what === "login" ? changer.increment("/n") : visitor.login(name, RIGHT));
    assert.equal(other.status, 200);
    held.release();
    const answer = await holding;
    if (what === "login") {
      assert.equal(answer.status, 200, answer.text);
    } else {
      refused(answer, 401, "unauthenticated");
    }
    assert.equal((await visitor.session()).data.n, what === "login" ? 1 : 0);
    assert.equal((await visitor.session()).user.name, name);
  }
});

test("many changes against a login: what is acknowledged is there after it", async () => {
  await registered();
  for (let round = 0; round < 5; round += 1) {
    const visitor = someone();
    await visitor.merge({ n: 0 });
    const changers = Array.from({ length: 6 }, (_, index) => visitor.clone(two[index % 2 ? 1 : 0].url));
    const changing = changers.map((one) => one.increment("/n"));
    const [login, ...changes] = await Promise.all([visitor.login(name, RIGHT), ...changing]);
    assert.equal(login?.status, 200);
    // One that comes after the login has an anonymous session of its own.
    const before = login?.json.session.data.n;
    const acknowledged = changes.filter(
      ({ status, json }) =>
        status === 200 && json.session.data.n <= before && !("views" in json.session.data),
    );
    assert.ok(changes.every(({ status }) => status === 200 || status === 401));
    assert.ok(before <= 6 && acknowledged.length >= before);
  }
});

test("a login on top of somebody else's session mixes nothing, and ends it", async () => {
  for (const enter of ["login", "register"]) {
    name = `mallory ${count} ${enter}`;
    await registered();
    const other = `victim ${count} ${enter}`;
    if (enter === "login") await someone().register(other, RIGHT);
    const visitor = await loggedIn();
    await visitor.merge({ secret: 1 });
    await mergeProfile(visitor, { mine: true });
    const before = visitor.clone();
    const answer =
      enter === "login" ? await visitor.login(other, RIGHT) : await visitor.register(other, RIGHT);
    assert.deepEqual([answer.json.session.data, answer.json.session.user.name], [{}, other]);
    assert.equal(await before.session(), null);
    assert.deepEqual((await visitor.send("GET", "/auth/profile")).json, {});
    assert.equal(
      (await visitor.send("GET", "/auth/sessions")).json.sessions.length,
      enter === "login" ? 2 : 1,
    );
    // The same user again: data stays.
    await visitor.merge({ mine: 1 });
    assert.deepEqual((await visitor.login(other, RIGHT)).json.session.data, { mine: 1 });
  }
});

// 6. A password given not long ago.

test("sensitive routes want a password given not long ago, and reauthenticating gives them one", async () => {
  const { store, worker, stop } = await startBoth({
    settings: { password, limits: { session: "", mint: "", login: "" } },
  });
  try {
    const visitor = worker.visitor();
    await visitor.register(name, RIGHT);
    const second = worker.visitor();
    await second.login(name, RIGHT);
    const { handle } = await second.session();
    await visitor.merge({ a: 1 });
    const before = await visitor.session();
    await worker.moveClock(14 * MINUTE);
    assert.equal((await visitor.send("DELETE", "/auth/sessions?keep=current")).status, 204);
    assert.equal(await second.session(), null);
    await second.login(name, RIGHT);
    await worker.moveClock(2 * MINUTE);
    for (const [method, path, body] of /** @type {[string, string, unknown][]} */ ([
      ["POST", "/password", { current: RIGHT, new: "another horse" }],
      ["DELETE", "/account", { password: RIGHT }],
      ["DELETE", "/sessions", undefined],
      ["DELETE", "/sessions?keep=current", undefined],
      ["DELETE", `/sessions/${handle}`, undefined],
    ])) {
      const answer = await visitor.tell(method, path, body);
      refused(answer, 403, "reauthenticate");
      assert.deepEqual(answer.setCookies, []);
    }
    const old = visitor.clone();
    const answer = await visitor.tell("POST", "/reauthenticate", { password: RIGHT });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.setCookies.length, 1);
    const { session } = answer.json;
    assert.notEqual(session.handle, before.handle);
    assert.ok(Date.parse(session.authenticated_at) - Date.parse(before.authenticated_at) >= 16 * MINUTE);
    assert.deepEqual(
      [session.expires_at, session.created_at, session.data, session.user],
      [before.expires_at, before.created_at, before.data, before.user],
    );
    assert.equal(await old.session(), null, "without a grace");
    assert.notEqual(await visitor.session(), null, "and that was not taken for theft");
    assert.equal((await visitor.send("GET", "/auth/sessions")).json.sessions.length, 2);
    assert.equal(
      (await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" })).status,
      200,
    );
    assert.equal(await second.session(), null);
    // Also an id that was rotated before, and was used after that.
    await visitor.rotate();
    const rotated = visitor.clone();
    await visitor.tell("POST", "/reauthenticate", { password: "another horse" });
    await worker.moveClock(2 * MINUTE);
    assert.equal(await rotated.session(), null);
    assert.notEqual(await visitor.session(), null);
    assert.equal(store.counters.byName.EVAL, undefined);
  } finally {
    await stop();
  }
});

test("a change in flight with the old ticket makes nothing when it was reauthenticated", async () => {
  const visitor = await registered();
  await visitor.merge({ n: 0 });
  const changer = visitor.clone();
  const held = store.faults.hold(first("SET"));
  const changing = changer.increment("/n");
  await held.arrived;
  assert.equal((await visitor.tell("POST", "/reauthenticate", { password: RIGHT })).status, 200);
  held.release();
  refused(await changing, 401, "unauthenticated");
  assert.equal((await visitor.session()).data.n, 0);

  // The other way round it is carried over.
  const late = visitor.clone();
  const renewing = store.faults.hold(begins());
  const renewed = visitor.tell("POST", "/reauthenticate", { password: RIGHT });
  await renewing.arrived;
  assert.equal((await late.increment("/n")).status, 200);
  renewing.release();
  assert.equal((await renewed).json.session.data.n, 1);
  assert.equal((await visitor.session()).data.n, 1);
});

// 7. Everywhere at once.

test("another password ends every other session and gives this one a new id, everywhere", async () => {
  const visitor = await registered();
  const others = [await loggedIn(), await loggedIn()];
  const old = visitor.clone();
  const { user } = await visitor.session();
  const answer = await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" });
  assert.equal(answer.status, 200, answer.text);
  assert.deepEqual(answer.json.session.user, user);
  for (const { url } of two) {
    for (const one of [...others, old]) assert.equal(await one.clone(url).session(), null);
    assert.notEqual(await visitor.clone(url).session(), null);
    const stranger = someone();
    stranger.url = url;
    refused(await stranger.login(name, RIGHT), 401, "invalid_credentials");
    assert.equal((await stranger.login(name, "another horse")).status, 200);
    assert.equal((await stranger.session()).user.id, user.id);
  }
  const again = await visitor.tell("POST", "/password", { current: "another horse", new: RIGHT });
  assert.equal(again.status, 200, "and once more");
  assert.equal((await visitor.send("GET", "/auth/sessions")).json.sessions.length, 1);
});

test("of two changes of a password at once one is made", async () => {
  const visitor = await registered();
  const other = await loggedIn();
  const words = ["another horse", "a third horse"];
  const answers = await Promise.all(
    [visitor, other].map((one, index) =>
      one.tell("POST", "/password", { current: RIGHT, new: words[index] }),
    ),
  );
  const done = answers.findIndex(({ status }) => status === 200);
  assert.ok(
    answers.filter(({ status }) => status === 200).length <= 1,
    answers.map(({ text }) => text).join(),
  );
  assert.ok(answers.every(({ status }) => [200, 401, 409].includes(status)));
  const works = [];
  for (const word of [RIGHT, ...words]) works.push((await someone().login(name, word)).status === 200);
  assert.equal(works.filter(Boolean).length, 1);
  if (done >= 0) assert.ok(works[done + 1]);
});

test("roles hold from the next request, everywhere, through rotations and logins", async () => {
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  const tag = async () => (await visitor.look()).headers.get("etag");
  const before = await tag();
  for (const roles of [["admin"], ["admin", "staff"], ["staff"], []]) {
    const last = await tag();
    assert.equal((await setRoles(id, { roles })).status, 204);
    for (const { url } of two) {
      const here = visitor.clone(url);
      assert.deepEqual((await here.session()).user.roles, roles);
      const verified = await here.send("GET", "/auth/verify?role=admin");
      assert.equal(verified.status, roles.includes("admin") ? 200 : 403);
    }
    const now = await tag();
    assert.notEqual(now, last);
    assert.equal((await setRoles(id, { roles })).status, 204);
    assert.equal(await tag(), now, "the same roles are no change");
    for (const key of await store.redis.keys("user:*:standing")) await store.redis.pExpire(key, 10_000);
    assert.equal((await setRoles(id, { roles })).status, 204);
    const ttls = (await store.redis.keys("user:*:standing")).map((key) => store.redis.pTTL(key));
    assert.ok(Math.max(...(await Promise.all(ttls))) > 10_000, "and last longer all the same");
    const change = await visitor.merge({ roles: roles.length }, { "If-Match": String(now) });
    assert.equal(change.status, 200);
    await visitor.rotate();
    assert.deepEqual((await visitor.session()).user.roles, roles);
    const again = await loggedIn();
    assert.deepEqual((await again.session()).user.roles, roles);
    await again.logout();
    await visitor.tell("POST", "/reauthenticate", { password: RIGHT });
    assert.deepEqual((await visitor.session()).user.roles, roles);
  }
  assert.notEqual(before, null);
  for (const key of await store.redis.keys("user:*:standing")) await store.redis.del(key);
  const kept = await loggedIn();
  assert.deepEqual((await kept.session()).user.roles, [], "the account knows them too");
});

test("of two changes of roles at once the account and the sessions have the same", async () => {
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  // The earlier one comes later to what holds for the sessions: before it reads that, or before it writes it.
  for (const [command, roles] of /** @type {const} */ ([
    ["GETEX", "a"],
    ["SET", "b"],
  ])) {
    const held = store.faults.hold(({ commands }) =>
      commands.some(([word, key]) => word === command && key?.endsWith(":standing")),
    );
    const earlier = setRoles(id, { roles: [`${roles} earlier`] });
    await held.arrived;
    assert.equal((await setRoles(id, { roles: [`${roles} later`] })).status, 204);
    held.release();
    assert.equal((await earlier).status, 204);
    assert.deepEqual((await visitor.session()).user.roles, [`${roles} later`]);
    assert.deepEqual((await (await loggedIn()).session()).user.roles, [`${roles} later`]);
  }
});

test("roles are for accounts that are there, and are a list of strings", async () => {
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  for (const body of [
    {},
    [],
    { roles: "admin" },
    { roles: [1] },
    { roles: null },
    { roles: [], role: 1 },
    { roles: ["x".repeat(257)] },
    { roles: Array(101).fill("a") },
  ])
    refused(await setRoles(id, body), 400, "bad_request");
  for (const unknown of ["nobody", `${id}x`, "ä/ö"])
    refused(await setRoles(unknown, { roles: [] }), 404, "not_found");
  refused(await someone().tell("PUT", `/admin/users/${id}/roles`, { roles: [] }), 401, "unauthenticated");
  const wrong = await someone().send("GET", `/auth/admin/users/${id}/roles`, { headers: admin });
  refused(wrong, 405, "method_not_allowed");
  assert.equal(wrong.headers.get("allow"), "PUT");
  assert.equal((await visitor.tell("DELETE", "/account", { password: RIGHT })).status, 204);
  refused(await setRoles(id, { roles: ["admin"] }), 404, "not_found");
});

// 8. The end of an account.

test("deleting an account leaves one key behind, without a name, that ends by itself", async () => {
  await store.redis.flushAll();
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  await visitor.rotate();
  const people = [await loggedIn(), await loggedIn(), await loggedIn()];
  await people[0]?.rotate();
  await people[1]?.logout();
  await people[2]?.tell("POST", "/reauthenticate", { password: RIGHT });
  await visitor.tell("POST", "/password", { current: RIGHT, new: "another horse" });
  await loggedIn("another horse");
  await mergeProfile(visitor, { a: 1 });
  await setRoles(id, { roles: ["admin"] });
  const before = visitor.clone();
  const answer = await visitor.tell("DELETE", "/account", { password: "another horse" });
  assert.deepEqual([answer.status, answer.text], [204, ""], answer.text);
  assert.match(answer.setCookies.join(), /^__Host-session=; .*Max-Age=0/);
  const keys = await store.redis.keys("*");
  assert.equal(keys.length, 1, keys.join());
  assert.match(String(keys[0]), /^user:[\w-]+:standing$/);
  const left = String(await store.redis.get(String(keys[0])));
  assert.ok(!left.includes("Ada") && !left.includes(id), left);
  const ttl = await store.redis.pTTL(String(keys[0]));
  assert.ok(ttl > 29 * 86_400_000 && ttl <= 30 * 86_400_000 + 3_600_000);
  for (const one of [before, ...people]) assert.equal(await one.session(), null);
  refused(await someone().login(name, "another horse"), 401, "invalid_credentials");

  // The name is free, for somebody else.
  const heir = await registered();
  const { user } = await heir.session();
  assert.notEqual(user.id, id);
  assert.deepEqual(user.roles, []);
  assert.deepEqual((await heir.send("GET", "/auth/profile")).json, {});
  assert.equal((await heir.send("GET", "/auth/sessions")).json.sessions.length, 1);
  for (const one of [before, ...people]) assert.equal(await one.session(), null);
});

/** Holds a login at each of its calls while `act` happens, and then lets it go on. @param {(owner: Visitor) => Promise<Answer>} act */
async function loginAcross(act) {
  for (const at of [1, 2, 3]) {
    name += "x";
    const owner = await registered();
    if (at > 1) await owner.send("DELETE", "/auth/sessions?keep=current"); // there is a mark, which a login has to learn
    let call = 0;
    const held = store.faults.hold(() => ++call === at);
    const login = two[0].visitor();
    const entering = login.login(name, RIGHT);
    const done = await Promise.race([held.arrived.then(() => false), entering.then(() => true)]);
    if (done) held.release();
    // Only the login is held: the owner's calls pass.
    assert.ok((await act(owner)).status < 300);
    held.release();
    const answer = await entering;
    assert.ok([200, 401, 409].includes(answer.status), answer.text);
    if (!done) assert.notEqual(answer.status, 200, `held at its call ${at}`);
    assert.equal(await login.session(), null, `held at its call ${at}: ${answer.text}`);
    store.faults.clear();
  }
}

test("a login in flight while the password is changed gets no session", () =>
  loginAcross((owner) => owner.tell("POST", "/password", { current: RIGHT, new: "another horse" })));

test("a login in flight while the account is deleted gets no session, and leaves no key", async () => {
  await store.redis.flushAll();
  await loginAcross((owner) => owner.tell("DELETE", "/account", { password: RIGHT }));
  const keys = await store.redis.keys("*");
  assert.ok(
    keys.every((key) => /^user:[\w-]+:standing$/.test(key)),
    keys.join(),
  );
});

test("nor does one on an isolate whose clock is ahead or behind", async () => {
  for (const skew of [-3000, 3000]) {
    await two[0].moveClock(skew);
    await loginAcross((owner) =>
      owner.clone(two[1].url).tell("POST", "/password", { current: RIGHT, new: "another horse" }),
    );
    await two[0].moveClock(-skew);
  }
});

test("nor does one that reads the account from a replica that is behind", async () => {
  for (const act of /** @type {((owner: Visitor) => Promise<Answer>)[]} */ ([
    (owner) => owner.tell("POST", "/password", { current: RIGHT, new: "another horse" }),
    (owner) => owner.tell("DELETE", "/account", { password: RIGHT }),
  ])) {
    name += "x";
    const owner = await registered();
    store.faults.lag = 5000;
    assert.ok((await act(owner)).status < 300);
    const late = someone();
    assert.ok([401, 409].includes((await late.login(name, RIGHT)).status));
    store.faults.clear();
    assert.equal(late.ticket, undefined);
  }
});

test("whoever logs in while the account is being deleted is logged out with it", async () => {
  for (const command of ["GETEX", "DELEX"]) {
    name += "x";
    const owner = await registered();
    const held = store.faults.hold(first(command));
    const deleting = owner.tell("DELETE", "/account", { password: RIGHT });
    await held.arrived;
    const between = someone();
    await between.login(name, RIGHT);
    held.release();
    assert.equal((await deleting).status, 204);
    assert.equal(await between.session(), null, command);
    assert.equal(await store.redis.exists(`account:${name.toLowerCase()}`), 0);
  }
});

test("a profile patch and new roles in flight bring no deleted account back", async () => {
  for (const act of /** @type {((owner: Visitor, id: string) => Promise<Answer>)[]} */ ([
    (owner) => mergeProfile(owner, { a: 1 }),
    (_, id) => setRoles(id, { roles: ["admin"] }),
  ])) {
    name += "x";
    const owner = await registered();
    const { id } = (await owner.session()).user;
    const held = store.faults.hold(first("SET"));
    const acting = act(owner.clone(), id);
    await held.arrived;
    assert.equal((await owner.tell("DELETE", "/account", { password: RIGHT })).status, 204);
    held.release();
    assert.ok([401, 404].includes((await acting).status));
    assert.equal(await store.redis.exists(`account:${name.toLowerCase()}`), 0);
    refused(await someone().login(name, RIGHT), 401, "invalid_credentials");
  }
});

// 9. Remember me, devices.

test("a remembered login has a lifetime of its own, is listed with where it came from, and can be ended", async () => {
  await registered();
  const phone = someone();
  const headers = { "User-Agent": "Phone/1.0", "CF-Connecting-IP": "203.0.113.77" };
  const answer = await phone.login(name, RIGHT, { remember: true, headers });
  assert.match(
    String(answer.setCookies.find((line) => line.startsWith("__Host-session="))),
    /; Max-Age=(2592000|2591999)$/,
  );
  const { session } = answer.json;
  assert.equal(session.remember, true);
  assert.equal(Date.parse(session.expires_at) - Date.parse(session.created_at), 30 * 86_400_000);
  const desk = await loggedIn();
  const { sessions } = (await desk.send("GET", "/auth/sessions")).json;
  assert.equal(sessions.length, 3);
  const listed = sessions.find((/** @type {any} */ one) => one.remember);
  assert.deepEqual(
    [listed.user_agent, listed.ip, listed.current, listed.handle],
    ["Phone/1.0", "203.0.113.0", false, session.handle],
  );
  assert.equal(listed.created_at, session.created_at);
  assert.ok(Date.parse(listed.last_seen_at) - Date.parse(listed.created_at) < 10_000);
  // What is known of it stays with it.
  await phone.tell("POST", "/reauthenticate", { password: RIGHT });
  const later = (await phone.send("GET", "/auth/sessions")).json.sessions;
  const mine = later.find((/** @type {any} */ one) => one.current);
  assert.deepEqual([mine.user_agent, mine.ip, mine.remember], ["Phone/1.0", "203.0.113.0", true]);
  assert.equal((await desk.send("DELETE", `/auth/sessions/${mine.handle}`)).status, 204);
  assert.equal(await phone.session(), null);
});

test("with more logins than max_per_user the oldest session goes", async () => {
  const people = [await registered()];
  for (let index = 0; index < 4; index += 1) people.push(await loggedIn());
  const alive = await Promise.all(people.map(async (one) => (await one.session()) !== null));
  assert.deepEqual(alive, [false, true, true, true, true]);
});

// 10. Hashes.

test("hashes of other systems and of other parameters log in, and are made anew", async () => {
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
    refused(await someone().login(name, WRONG), 401, "invalid_credentials");
    assert.equal(JSON.parse(String(await store.redis.get(key))).hash, old);
    if (old.includes("m=32")) continue; // of another password
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

test("the real parameters hash, verify and are brought up to date", async () => {
  await registered();
  const real = await startWorker({ store, secrets });
  try {
    const key = `account:${name.toLowerCase()}`;
    const hash = async () => JSON.parse(String(await store.redis.get(key))).hash;
    refused(await real.visitor().login(name, WRONG), 401, "invalid_credentials");
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

test("an account made as documented, by an operator, is one", async () => {
  const hash = pbkdf2Sync(RIGHT, "saltsalt", 1000, 32, "sha256").toString("base64");
  const account = {
    v: 1,
    rev: "AQEBAQEBAQEBAQEB",
    before: [],
    id: `imported ${count}`,
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

// 11. Counters.

test("what happens is counted per day, off everybody's path", async () => {
  const settings = { password, limits: { session: "", mint: "", login: "2/5m" } };
  const { store, worker, stop } = await startBoth({ secrets: { ADMIN_TOKEN }, settings });
  try {
    const people = [worker.visitor(), worker.visitor(), worker.visitor()];
    const { byName } = await store.counters.during(async () => {
      for (const [index, one] of people.entries()) {
        await one.register(`user ${index}`, RIGHT);
        await one.session();
      }
      await people[0]?.logout();
      await people[0]?.login("user 0", RIGHT);
      const stranger = worker.visitor();
      for (let attempt = 0; attempt < 3; attempt += 1) await stranger.login("nobody", WRONG);
      const second = worker.visitor();
      await second.login("user 1", RIGHT);
      await people[1]?.send("DELETE", "/auth/sessions?keep=current");
      await people[2]?.send("POST", "/auth/logout");
    });
    for (const command of ["HINCRBY", "PFADD", "PFCOUNT"]) assert.equal(byName[command], undefined);
    await worker.moveClock(MINUTE + 1000);
    const report = await worker.visitor().send("GET", "/auth/admin/stats", { headers: admin });
    const { day, tickets_by_key, ...counted } = report.json.days[0];
    assert.deepEqual(counted, {
      sessions_created: 5,
      logins: 5,
      failed_logins: 2,
      logouts: 2,
      revocations: 1,
      rate_limited: 1,
      passed_uncounted: 0,
      distinct_users: 3,
    });
    for (const key of await store.redis.keys("stats:*")) assert.ok((await store.redis.pTTL(key)) > 0);
  } finally {
    await stop();
  }
});

// 12. The store fails.

/** @type {[string, Fault][]} */
const FAULTS = [
  ["refuses", { refuse: true }],
  ["is cut off", { cut: true }],
  ["loses its answer", { lostAnswer: true }],
  ["says 401", { status: 401, body: { error: "WRONGPASS" } }],
  ["says 500", { status: 500, body: "<h1>no</h1>" }],
  ["says 500 and does it", { status: 500, body: "<h1>no</h1>", execute: true }],
  ["answers HTML", { status: 200, body: "<html>" }],
  ["answers an empty list", { status: 200, body: [] }],
  ["answers numbers", { status: 200, body: [{ result: 7 }, { result: 7 }, { result: 7 }] }],
  ["leaves a reply out", { short: true }],
  ["fails a command", { entry: 0, error: "ERR made up" }],
  ["is full", { capacity: true }],
];

/** What a visitor tries while the store fails, and tries again when it works. */
const ACTS = [
  ["register", (/** @type {Visitor} */ one) => one.register(`${name} new`, RIGHT), 201],
  ["login", (/** @type {Visitor} */ one) => one.login(name, RIGHT), 200],
  [
    "reauthenticate",
    (/** @type {Visitor} */ one) => one.tell("POST", "/reauthenticate", { password: RIGHT }),
    200,
  ],
  [
    "password",
    (/** @type {Visitor} */ one) => one.tell("POST", "/password", { current: RIGHT, new: "another horse" }),
    200,
  ],
  ["profile", (/** @type {Visitor} */ one) => mergeProfile(one, { a: 1 }), 200],
  ["delete", (/** @type {Visitor} */ one) => one.tell("DELETE", "/account", { password: RIGHT }), 204],
];

for (const always of [false, true]) {
  test(`a store that fails ${always ? "from some call on" : "once"}: 503 or done, no cookie lost, nothing half made`, async () => {
    for (const [act, run, status] of /** @type {[string, (one: Visitor) => Promise<Answer>, number][]} */ (
      ACTS
    )) {
      for (const [what, fault] of FAULTS) {
        for (let call = 1; call < 16; call += 1) {
          name = `faulty ${(count += 1)}`;
          const owner = await registered();
          const other = act === "password" ? await loggedIn() : undefined;
          const isEntry = act === "register" || act === "login";
          const visitor = isEntry ? someone() : owner;
          if (isEntry) await visitor.merge({ n: 1 });
          const { ticket } = visitor;
          let seen = 0;
          store.faults.next(fault, { times: always ? Infinity : 1, when: () => ++seen >= call });
          const answer = await run(visitor);
          store.faults.clear();
          const where = `${act}, call ${call}: the store ${what}: ${answer.status} ${answer.text}`;
          if (seen < call) {
            assert.equal(answer.status, status, where);
            break;
          }
          assert.ok([status, 409, 503].includes(answer.status), where);
          if (answer.status === 503) {
            assert.deepEqual(answer.setCookies, [], where);
            assert.equal(answer.headers.get("retry-after"), "1");
          }
          if (answer.status >= 400) assert.equal(visitor.ticket, ticket);
          // Nothing is in the way of trying again: with the same words, or with what was made.
          const after = visitor.ticket ? await visitor.session() : null;
          if (isEntry) {
            if (answer.status === status) assert.deepEqual(after.data, { n: 1 }, where);
            const again = await run(visitor);
            assert.ok([status, act === "register" ? 409 : status].includes(again.status), where);
            const word = await someone().login(act === "register" ? `${name} new` : name, RIGHT);
            assert.equal(word.status, 200, where);
            const { id } = word.json.session.user;
            assert.equal((await setRoles(id, { roles: ["staff"] })).status, 204, where);
          } else if (act === "delete") {
            const left = await store.redis.exists(`account:${name}`);
            if (answer.status === 204) assert.equal(left, 0, where);
            const again = someone();
            const entered = left ? await again.login(name, RIGHT) : await again.register(name, RIGHT);
            assert.ok(entered.status < 300, where);
            assert.equal((await again.tell("DELETE", "/account", { password: RIGHT })).status, 204, where);
          } else {
            const words = [RIGHT, "another horse"];
            const statuses = await Promise.all(
              words.map(async (word) => (await someone().login(name, word)).status),
            );
            assert.equal(statuses.filter((one) => one === 200).length, 1, where);
            if (answer.status === status) assert.notEqual(after, null, where);
            if (answer.status === status && act === "password") assert.equal(statuses[1], 200, where);
            if (other && statuses[1] === 200) assert.equal(await other.session(), null, where);
          }
        }
      }
    }
  });
}

test("a store that hangs is 503, and what it did late is no harm", async () => {
  const slow = await startWorker({
    store,
    secrets,
    settings: { password, store: { timeout: "400ms" }, limits: { session: "", mint: "", login: "" } },
  });
  try {
    for (const execute of [false, true]) {
      name += "x";
      const visitor = slow.visitor();
      store.faults.always({ hang: true, execute });
      const answer = await visitor.register(name, RIGHT);
      store.faults.clear();
      refused(answer, 503, "store_unavailable");
      assert.deepEqual(answer.setCookies, []);
      store.faults.next({ hang: true, execute }, { when: first("MSETNX") });
      assert.equal((await visitor.register(name, RIGHT)).status, 201, "a lost answer is settled");
      store.faults.next({ hang: true, execute }, { when: begins() });
      assert.equal((await visitor.login(name, RIGHT)).status, 200);
      assert.notEqual(await visitor.session(), null);
    }
  } finally {
    store.faults.clear();
    await slow.stop();
  }
});

test("a lost answer to a login, after all sessions were ended, loses no data", async () => {
  const owner = await registered();
  await owner.send("DELETE", "/auth/sessions?keep=current");
  for (const command of ["HSET", "XX"]) {
    const visitor = someone();
    await visitor.merge({ n: 1 });
    let is = true;
    store.faults.next("lostAnswer", {
      when: ({ commands }) => {
        const hit = is && commands.some((words) => words.includes(command));
        if (hit) is = false;
        return hit;
      },
    });
    const answer = await visitor.login(name, RIGHT);
    assert.equal(is, false);
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual((await visitor.session()).data, { n: 1 });
  }
});

// 13. What it costs.

test("a login is two calls to the store, and a registration three", async () => {
  /** @param {string} what @param {() => Promise<Answer>} run */
  const cost = async (what, run) => {
    const { value, calls, commands, byName } = await store.counters.during(run);
    assert.ok(value.status < 300, value.text);
    if (process.env["SHOW"]) console.log(what, calls, commands, JSON.stringify(byName));
    return [calls, commands];
  };
  const visitor = two[0].visitor();
  assert.deepEqual(await cost("register", () => visitor.register(name, RIGHT)), [3, 7]);
  const other = two[0].visitor();
  assert.deepEqual(await cost("login", () => other.login(name, RIGHT)), [2, 6]);
  assert.deepEqual(await cost("login again", () => other.login(name, RIGHT)), [2, 7]);
  // With limits, and their counters there already: one more each, for the account, the address and the sessions begun
  // there; what a success gives back comes after the answer.
  const headers = { "CF-Connecting-IP": address };
  await limited[0].visitor().login(name, WRONG); // has looked at the store's clock
  name += " limited";
  await registered([limited[1], limited[1]]);
  await limited[0].moveClock(0);
  for (const expected of [12, 9]) {
    const held = store.faults.hold(({ commands }) => commands.some(([word]) => word === "DECRBY"));
    const stranger = limited[0].visitor();
    assert.deepEqual(
      (await cost("login, limited", () => stranger.login(name, RIGHT, { headers }))).slice(1),
      [expected],
    );
    held.release();
    await limited[0].moveClock(0);
  }
  assert.deepEqual(await cost("verify", () => other.send("GET", "/auth/verify")), [1, 1]);
  assert.deepEqual(await cost("profile", () => other.send("GET", "/auth/profile")), [2, 3]);
});

// 14. Secrets.

test("no log line and no answer holds a password, a hash, an id or a ticket", async () => {
  const { store, worker, stop } = await startBoth({
    settings: { password, limits: { session: "", mint: "", login: "" } },
  });
  try {
    const visitor = worker.visitor();
    const texts = [(await visitor.register("Ada", RIGHT)).text];
    const tickets = [visitor.ticket];
    const kept = JSON.parse(String(await store.redis.get("account:ada")));
    for (const fault of FAULTS) {
      for (const run of [
        () => visitor.login("Ada", RIGHT),
        () => visitor.login("Ada", WRONG),
        () => visitor.tell("POST", "/reauthenticate", { password: WRONG }),
        () => visitor.tell("POST", "/password", { current: WRONG, new: RIGHT }),
        () => visitor.register("Ada", RIGHT),
      ]) {
        store.faults.next(fault[1]);
        texts.push((await run()).text);
        store.faults.clear();
        tickets.push(visitor.ticket);
      }
    }
    const dump = [];
    for (const key of await store.redis.keys("sess:*")) dump.push(await store.redis.get(key));
    const said = worker.logs.join("");
    assert.match(said, /the store failed/);
    for (const [what, text] of [
      ["log", said],
      ["answer", texts.join("\n")],
      ["store", dump.join("\n")],
    ]) {
      for (const secret of [RIGHT, WRONG, kept.hash, kept.hash.split("$").at(-1), ...tickets])
        assert.ok(!secret || !text?.includes(secret), `${what}: ${secret}`);
    }
    assert.ok(!said.includes(kept.id));
  } finally {
    await stop();
  }
});
