/** The service API's users: which ids, names and roles they may have, and how many sessions a revocation ends. */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startBoth } from "./support/worker.mjs";

const ADMIN_TOKEN = randomSecret();
const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const { store, worker, stop } = await startBoth({ secrets: { ADMIN_TOKEN } });
after(stop);
let count = 0;
beforeEach(() => store.faults.clear());

/** @param {string} method @param {string} path @param {unknown} [body] */
const ask = (method, path, body) => worker.visitor().tell(method, `/admin${path}`, body, headers);
/** @param {object} user */
const logIn = (user) => ask("POST", "/sessions", { user });
/** @param {string} id */
const sessionsOf = (id) => `/users/${encodeURIComponent(id)}/sessions`;
const someId = () => `user ${(count += 1)}`;

/** Somebody who is logged in. @param {string} id */
async function visitorOf(id) {
  const answer = await logIn({ id });
  assert.equal(answer.status, 201, answer.text);
  const visitor = worker.visitor();
  visitor.accept(answer.json.set_cookie);
  return visitor;
}

/** @type {[string, string][]} */
const IDS = [
  ["one byte", "u"],
  ["255 bytes", "x".repeat(255)],
  ["255 bytes of other alphabets", "山".repeat(85)],
  ["slashes", "a/b//c/"],
  ["what URLs give a meaning", "a?b#c%2F%d&e=+;:@"],
  ["spaces and line breaks", " a\n\t\u0000b "],
  ["three dots", "..."],
  ["a dot and a slash", "./"],
  ["quotes and backslashes", "\"'\\`"],
  ["an emoji", "👩‍🚀"],
];
for (const [name, id] of IDS) {
  test(`a user's id may hold ${name}, and names the user in the path`, async () => {
    const visitor = await visitorOf(id);
    assert.equal((await visitor.session()).user.id, id);
    const listed = await ask("GET", sessionsOf(id));
    assert.equal(listed.json.sessions.length, 1, listed.text);
    const ended = await ask("DELETE", sessionsOf(id));
    assert.deepEqual([ended.status, ended.json], [200, { ended: 1 }]);
    assert.equal(await visitor.session(), null);
  });
}

test("an id that no path could name, or that is too long, is refused by the name of its field", async () => {
  for (const [id, detail] of /** @type {[string, RegExp][]} */ ([
    ["", /"user\.id" must have 1 to 255 bytes/],
    ["x".repeat(256), /"user\.id" must have 1 to 255 bytes/],
    ["山".repeat(86), /"user\.id" must have 1 to 255 bytes/],
    [".", /"user\.id" must not be "\." or "\.\."/],
    ["..", /"user\.id" must not be "\." or "\.\."/],
  ])) {
    const { value: answer, calls } = await store.counters.during(() => logIn({ id }));
    assert.deepEqual([answer.status, answer.json.code, calls], [400, "bad_request", 0], id);
    assert.match(answer.json.detail, detail);
  }
});

test("the same holds in paths, on every route of a user", async () => {
  for (const [encoded, detail] of /** @type {[string, RegExp][]} */ ([
    ["x".repeat(256), /the user id in the path must have 1 to 255 bytes/],
    [encodeURIComponent("山".repeat(86)), /the user id in the path must have 1 to 255 bytes/],
    ["%ff", /not UTF-8/],
  ])) {
    for (const [method, path, body] of /** @type {[string, string, object?][]} */ ([
      ["GET", "sessions"],
      ["DELETE", "sessions"],
      ["PUT", "roles", { roles: [] }],
    ])) {
      const { value: answer, calls } = await store.counters.during(() =>
        ask(method, `/users/${encoded}/${path}`, body),
      );
      assert.deepEqual([answer.status, calls], [400, 0], `${method} ${path}`);
      assert.match(answer.json.detail, detail);
    }
  }
  assert.equal((await ask("GET", `/users/${"x".repeat(255)}/sessions`)).status, 200);
});

test("without a name, or with an empty one, people see the id", async () => {
  for (const name of [undefined, null, ""]) {
    const id = someId();
    const answer = await logIn({ id, name });
    assert.deepEqual(answer.json.session.user, { id, name: id, roles: [] });
  }
  const long = await logIn({ id: someId(), name: "x".repeat(257) });
  assert.match(long.json.detail, /"user\.name" must have at most 256 bytes/);
});

/** @type {[string, unknown[], number | null][]} */
const ROLES = [
  ["one character", ["a"], null],
  ["64 characters, whatever they are", ["👩".repeat(64), "a b", "a;b", "ä%2C"], null],
  ["a hundred", Array(100).fill("r"), null],
  ["65 characters", ["a", "b", "x".repeat(65)], 2],
  ["a comma", ["a", "b,c"], 1],
  ["nothing", [""], 0],
];
for (const [name, roles, wrong] of ROLES) {
  test(`roles of ${name} are ${wrong === null ? "allowed" : "refused, by their place"}, everywhere`, async () => {
    const owner = worker.visitor();
    const { user } = (await owner.register(someId(), "correct horse battery")).json.session;
    const answers = [
      { field: "user.roles", answer: await logIn({ id: someId(), roles }), right: 201 },
      { field: "roles", answer: await ask("PUT", `/users/${user.id}/roles`, { roles }), right: 204 },
    ];
    for (const { field, answer, right } of answers) {
      assert.equal(answer.status, wrong === null ? right : 400, answer.text);
      if (wrong !== null)
        assert.equal(answer.json.detail, `"${field}[${wrong}]" must have 1 to 64 characters, and no comma`);
    }
    assert.deepEqual((await owner.session()).user.roles, wrong === null ? roles : []);
  });
}

test("a hundred roles are enough", async () => {
  const answer = await logIn({ id: someId(), roles: Array(101).fill("r") });
  assert.match(answer.json.detail, /"user\.roles" must have at most 100 roles/);
});

/** Rotates as far as its `step`-th call to the store, and stops there. @param {Visitor} visitor @param {number} step */
async function rotateAndStop(visitor, step) {
  let seen = 0;
  const held = store.faults.hold(() => ++seen === step);
  const rotating = visitor.rotate();
  await held.arrived;
  return async () => {
    held.release();
    await rotating;
  };
}

/**
 * What has become of a user's three sessions before they are all ended, and how many that ends.
 * @type {[string, (visitors: Visitor[], id: string) => Promise<unknown>, number][]}
 */
const FATES = [
  ["nothing", async () => {}, 3],
  ["one was logged out", ([one]) => one.logout(), 2],
  [
    "one was ended by its handle",
    async ([one]) => ask("DELETE", `/sessions/${(await one.session()).handle}`),
    2,
  ],
  ["one was rotated", ([one]) => one.rotate(), 3],
  [
    "one was rotated five times",
    async ([one]) => {
      for (let turn = 0; turn < 5; turn += 1) await one.rotate();
    },
    3,
  ],
  [
    "one was rotated and logged out",
    async ([one]) => {
      await one.rotate();
      await one.logout();
    },
    2,
  ],
  ["one has expired", async ([one]) => store.redis.del(`sess:${(await one.session()).handle}`), 2],
  [
    "one has its absolute end behind it",
    async ([one]) => {
      const key = `sess:${(await one.session()).handle}`;
      const record = JSON.parse(String(await store.redis.get(key)));
      await store.redis.set(key, JSON.stringify({ ...record, expires_at: Date.now() - 1000 }), {
        KEEPTTL: true,
      });
    },
    2,
  ],
  ["one cannot be read", async ([one]) => store.redis.set(`sess:${(await one.session()).handle}`, "{"), 2],
  [
    "the list is lost",
    async (_, id) => {
      for (const key of await store.redis.keys("user:*:sessions")) await store.redis.del(key);
      assert.equal((await ask("GET", sessionsOf(id))).json.sessions.length, 0);
    },
    0,
  ],
  [
    "all were ended, and their records are left over",
    async (_, id) => {
      store.faults.always("refuse", { when: ({ commands }) => commands[0]?.[0] === "DEL" });
      assert.deepEqual((await ask("DELETE", sessionsOf(id))).json, { ended: 3 });
      store.faults.clear();
      assert.equal((await store.redis.keys("sess:*")).length, 4, "and that of somebody else");
    },
    0,
  ],
  ["all were ended by their owner", ([one]) => one.send("DELETE", "/auth/sessions"), 0],
  ["the others were ended by their owner", ([one]) => one.send("DELETE", "/auth/sessions?keep=current"), 1],
];
for (const [fate, act, expected] of FATES) {
  test(`of three sessions ${expected} are ended if before that: ${fate}`, async () => {
    await store.redis.flushAll();
    const id = someId();
    const visitors = [await visitorOf(id), await visitorOf(id), await visitorOf(id)];
    const other = await visitorOf(someId());
    await act(
      visitors.map((visitor) => visitor.clone()),
      id,
    );
    const answer = await ask("DELETE", sessionsOf(id));
    assert.deepEqual([answer.status, answer.json], [200, { ended: expected }]);
    assert.deepEqual((await ask("DELETE", sessionsOf(id))).json, { ended: 0 }, "the second time");
    assert.notEqual(await other.session(), null);
    const later = await visitorOf(id);
    assert.notEqual(await later.session(), null, "a login after that lives");
    assert.deepEqual((await ask("DELETE", sessionsOf(id))).json, { ended: 1 });
  });
}

test("nobody's sessions are none", async () => {
  assert.deepEqual((await ask("DELETE", sessionsOf("nobody"))).json, { ended: 0 });
});

for (const step of [2, 3]) {
  test(`a session whose rotation stands before its call ${step} is ended once`, async () => {
    const id = someId();
    const [one, other] = [await visitorOf(id), await visitorOf(id)];
    const goOn = await rotateAndStop(one.clone(), step);
    assert.deepEqual((await ask("DELETE", sessionsOf(id))).json, { ended: 2 });
    await goOn();
    for (const visitor of [one, other]) assert.equal(await visitor.session(), null);
  });
}

test("the number is right although the answer to the revocation is lost, and newer sessions live", async () => {
  const id = someId();
  const visitors = [await visitorOf(id), await visitorOf(id)];
  const isRevocation = (/** @type {import("../tools/local-store/faults.mjs").Seen} */ { path, commands }) =>
    path === "/multi-exec" &&
    commands.some(([name]) => name === "HGETALL") &&
    commands.some(([name]) => name === "SET");
  store.faults.next("lostAnswer", { when: isRevocation });
  // It looks again whether its mark was set: by then somebody has logged in.
  const held = store.faults.hold(
    ({ commands }) => commands[0]?.[0] === "GETEX" && commands[0][1].includes("standing"),
  );
  const first = ask("DELETE", sessionsOf(id));
  await held.arrived;
  held.release();
  const second = store.faults.hold(
    ({ commands }) => commands[0]?.[0] === "GETEX" && commands[0][1].includes("standing"),
  );
  await second.arrived;
  const later = visitorOf(id);
  second.release();
  const answer = await first;
  assert.deepEqual([answer.status, answer.json], [200, { ended: 2 }]);
  for (const visitor of visitors) assert.equal(await visitor.session(), null);
  assert.notEqual(await (await later).session(), null);
});

test("sessions that are ended and cannot be counted are 503, and stay ended", async () => {
  const id = someId();
  const visitor = await visitorOf(id);
  store.faults.always("refuse", { when: ({ commands }) => commands.some(([name]) => name === "MGET") });
  const answer = await ask("DELETE", sessionsOf(id));
  store.faults.clear();
  assert.equal(answer.status, 503);
  assert.equal(await visitor.session(), null);
});
