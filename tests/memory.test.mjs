/**
 * Memory: 32 of the worst requests at once, of each kind, stay under 64 MB of wasm memory, and each gets a clear answer.
 * `MEMORY_REPORT=1 node --test tests/memory.test.mjs` prints the table in docs/performance.md.
 */
import assert from "node:assert/strict";
import { request } from "node:http";
import { afterEach, describe, test } from "node:test";
import { randomSecret, startBoth } from "./support/worker.mjs";

/** @typedef {Awaited<ReturnType<typeof startBoth>>} Both */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const AT_ONCE = 32;
const LARGEST_BODY = 256 * 1024;
const MEBIBYTE = 1024 * 1024;
const DATA = "/auth/session/data";
const JSON_TYPE = "application/json";
const MERGE = "application/merge-patch+json";
const PATCH = "application/json-patch+json";
const PASSWORD = "correct horse";
const ADMIN_TOKEN = randomSecret();

/** @type {Both} */
let both;
afterEach(() => both.stop());

/** @param {object} [settings] */
async function start(settings = {}) {
  // A busy machine may take long to move as much data.
  const all = { store: { timeout: "20s" }, ...settings };
  both = await startBoth({ settings: all, secrets: { ADMIN_TOKEN } });
  return both.worker;
}

/** White space after JSON is part of the body. @param {string} json */
const largest = (json) => json.padEnd(LARGEST_BODY, " ");

/** Each object costs wasm a node of a tree. @param {number} depth */
const chain = (depth) => `${'{"":'.repeat(depth)}0${"}".repeat(depth)}`;
const chains = `[${Array.from({ length: 105 }, () => chain(90)).join(",")}]`;

/** @param {number} length */
const members = (length) => Object.fromEntries(Array.from({ length }, (_, index) => [`k${index}`, 0]));

/**
 * @template T
 * @param {(index: number) => T | Promise<T>} make
 */
const all = (make) => Promise.all(Array.from({ length: AT_ONCE }, (_, index) => make(index)));

/** Visitors with a session each. */
const visitors = () =>
  all(async () => {
    const visitor = both.worker.visitor();
    assert.equal((await visitor.merge({ before: 1 })).status, 200);
    return visitor;
  });

/** @param {Visitor} visitor @param {string} type @param {string} body @param {boolean} [chunked] */
const change = (visitor, type, body, chunked) =>
  visitor.send("PATCH", DATA, { headers: { "Content-Type": type }, body, chunked });

/**
 * Makes all requests at once, in front of a store so slow that they meet, and meanwhile small ones.
 * @param {string} name
 * @param {(index: number) => Promise<Answer>} act
 * @param {number[]} statuses that each of them may have
 */
async function burden(name, act, statuses) {
  const { worker, store } = both;
  const bystander = worker.visitor();
  assert.equal((await bystander.merge({ small: 0 })).status, 200);
  store.faults.always({ delay: 100 });
  const answers = all(act);
  for (let count = 1; count <= 3; count += 1) {
    const small = await bystander.increment("/small");
    assert.equal(small.status, 200, `a small request meanwhile: ${small.text}`);
    assert.equal(small.json.session.data.small, count);
  }
  for (const { status, text, json } of await answers) {
    assert.ok(statuses.includes(status), text);
    if (status >= 400) assert.match(json.detail, /\w+ \w+/);
  }
  store.faults.clear();
  const size = await worker.memorySize();
  if (process.env.MEMORY_REPORT) console.log(`| ${name} | ${(size / MEBIBYTE).toFixed(1)} |`);
  assert.ok(size < 64 * MEBIBYTE, `${size} bytes`);
  assert.doesNotMatch(worker.logs.join(""), /trap|panic/);
  return answers;
}

/**
 * Changes: each either has been made, and then is there, or has been refused, and then has changed nothing.
 * @type {{ name: string, type: string, body: string, status: number, chunked?: boolean }[]}
 */
const CHANGES = [
  {
    name: "a JSON Patch of objects in one another, 9,600 values",
    type: PATCH,
    body: largest(`[{"op":"add","path":"/x","value":${chains}}]`),
    status: 200,
  },
  { name: "the same as a merge patch", type: MERGE, body: largest(`{"x":${chains}}`), status: 200 },
  {
    name: "the same in chunks, of no announced length",
    type: MERGE,
    body: largest(`{"x":${chains}}`),
    status: 200,
    chunked: true,
  },
  {
    name: '`[{"op":"add","path":"/x","value":[{"":0},…]}]`, of 74,000 values',
    type: PATCH,
    body: JSON.stringify([{ op: "add", path: "/x", value: Array(37_000).fill({ "": 0 }) }]),
    status: 422,
  },
  {
    name: "1,000 operations of an object each",
    type: PATCH,
    body: largest(
      JSON.stringify(
        Array.from({ length: 1000 }, (_, index) => ({ op: "add", path: `/k${index}`, value: members(1) })),
      ),
    ),
    status: 200,
  },
  {
    name: "a value copied until there are too many",
    type: PATCH,
    body: largest(
      JSON.stringify([
        { op: "add", path: "/x", value: Array(3000).fill({ "": 0 }) },
        { op: "copy", from: "/x", path: "/y" },
        { op: "copy", from: "/x", path: "/z" },
      ]),
    ),
    status: 413,
  },
  {
    name: "a merge patch of 9,000 members",
    type: MERGE,
    body: largest(JSON.stringify(members(9000))),
    status: 413,
  },
  {
    name: "one string",
    type: MERGE,
    body: JSON.stringify({ x: "x".repeat(LARGEST_BODY - 8) }),
    status: 413,
  },
  {
    name: "one string of escapes",
    type: MERGE,
    body: JSON.stringify({ x: "\u0001".repeat(43_000) }),
    status: 413,
  },
];

describe(`${AT_ONCE} changes at once`, () => {
  for (const { name, type, body, status, chunked } of CHANGES) {
    test(`of 256 KiB each are answered ${status}: ${name}`, async () => {
      await start();
      const them = await visitors();
      const make = (/** @type {number} */ index) => change(them[index], type, body, chunked);
      await burden(name, make, [status]);
      for (const visitor of them) {
        const { data } = await visitor.session();
        assert.equal(Object.keys(data).length > 1, status === 200);
        assert.equal(data.before, 1);
      }
    });
  }

  test("that each begin a session are all made", async () => {
    await start();
    const them = await all(() => both.worker.visitor());
    const make = (/** @type {number} */ index) => change(them[index], MERGE, largest(`{"x":${chains}}`));
    await burden("first changes, without a session", make, [200]);
    for (const visitor of them) assert.equal((await visitor.session()).data.x.length, 105);
  });

  test("of sessions that are as large as they may be are all made", async () => {
    await start({ session: { max_bytes: LARGEST_BODY } });
    const them = await visitors();
    const body = (/** @type {string} */ letter) => JSON.stringify({ x: `${letter}${'"'.repeat(131_000)}` });
    await burden("data of 256 KiB, set", (index) => change(them[index], MERGE, body("a")), [200]);
    await burden("the same, changed a little", (index) => them[index].merge({ y: index }), [200]);
    await burden("the same, replaced", (index) => change(them[index], MERGE, body("b")), [200]);
    await burden("the same, under another id", (index) => them[index].rotate(), [200]);
    for (const [index, visitor] of them.entries()) {
      const { data } = await visitor.session();
      assert.deepEqual([data.x[0], data.y], ["b", index]);
    }
  });
});

describe(`${AT_ONCE} at once`, () => {
  /** @param {object} body */
  const post = (body) => ({ headers: { "Content-Type": JSON_TYPE }, body: largest(JSON.stringify(body)) });

  test("registrations and logins, with passwords as costly as by default, are all answered", async () => {
    const worker = await start();
    const names = Array.from({ length: AT_ONCE }, (_, index) => `user ${index}`);
    const send = (/** @type {string} */ path, /** @type {object} */ body) =>
      worker.visitor().send("POST", `/auth/${path}`, post(body));
    const register = (/** @type {number} */ index) =>
      send("register", { username: names[index], password: PASSWORD });
    await burden("registrations", register, [201]);
    const logIn = (/** @type {number} */ index) =>
      send("login", { username: names[index], password: PASSWORD });
    await burden("logins", logIn, [200]);
    const guess = (/** @type {number} */ index) =>
      send("login", { username: names[index], password: "x".repeat(250_000) });
    await burden("logins with a password of 250 KB", guess, [401]);
  });

  test("sessions made by a back end with large data are all there", async () => {
    const worker = await start();
    const body = largest(`{"user":{"id":"u"},"data":{"x":${chains}}}`);
    const headers = { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": JSON_TYPE };
    const make = () => worker.visitor().send("POST", "/auth/admin/sessions", { headers, body });
    await burden("`POST /auth/admin/sessions`", make, [201]);
    const list = await worker.visitor().send("GET", "/auth/admin/users/u/sessions", { headers });
    assert.equal(list.json.sessions.length, AT_ONCE);
  });

  test("lists of a hundred sessions that are as large as they may be are complete", async () => {
    const worker = await start();
    const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };
    const session = { user: { id: "u" }, data: { x: '"'.repeat(32_000) } };
    for (let count = 0; count < 100; count += 1) {
      assert.equal((await worker.visitor().tell("POST", "/admin/sessions", session, headers)).status, 201);
    }
    const look = () => worker.visitor().send("GET", "/auth/admin/users/u/sessions", { headers });
    const answers = await burden("lists of 100 full sessions", look, [200]);
    for (const { json } of await answers) assert.equal(json.sessions.length, 100);
  });
});

describe("uploads that stop before their end", () => {
  /**
   * Sends all of a body but its last byte.
   * @param {string} body
   * @param {Record<string, string>} headers
   */
  function stall(body, headers) {
    const type = { "Content-Type": MERGE, "Content-Length": String(body.length) };
    const outgoing = request(both.worker.url + DATA, {
      method: "PATCH",
      headers: { ...type, ...headers },
      agent: false,
    });
    const answered = new Promise((/** @type {(status: number) => void} */ resolve) => {
      outgoing.on("response", ({ statusCode = 0 }) => resolve(statusCode));
      outgoing.on("error", () => resolve(0));
    });
    outgoing.write(body.slice(0, -1));
    return { answered, finish: () => outgoing.end(body.slice(-1)), stop: () => outgoing.destroy() };
  }
  const body = JSON.stringify({ x: "x".repeat(60_000) }).padEnd(LARGEST_BODY, " ");

  test("of one address leave room for everybody else", async () => {
    const worker = await start();
    const stalled = await all(() => stall(body, { "CF-Connecting-IP": "203.0.113.1" }));
    const headers = { "Content-Type": MERGE, "CF-Connecting-IP": "203.0.113.2" };
    for (let count = 0; count < 3; count += 1) {
      assert.equal((await worker.visitor().send("PATCH", DATA, { headers, body })).status, 200);
    }
    assert.ok((await worker.memorySize()) < 64 * MEBIBYTE);
    for (const { stop } of stalled) stop();
  });

  test("of many addresses give way to one that waits, and are told so", async () => {
    const worker = await start();
    const stalled = await all((index) => stall(body, { "CF-Connecting-IP": `203.0.113.${index}` }));
    const small = await worker.visitor().merge({ small: true });
    assert.equal(small.status, 200, "a small one does not wait");
    const headers = { "Content-Type": MERGE, "CF-Connecting-IP": "198.51.100.1" };
    const answer = await worker.visitor().send("PATCH", DATA, { headers, body });
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.json.session.data.x.length, 60_000);
    assert.equal(await stalled[0].answered, 429);
    assert.ok((await worker.memorySize()) < 64 * MEBIBYTE);
    for (const { stop } of stalled) stop();
  });

  test("are served when they go on and nobody waited", async () => {
    await start();
    const stalled = Array.from({ length: 8 }, () => stall(body, {}));
    assert.equal((await both.worker.visitor().merge({ small: true })).status, 200);
    for (const { finish } of stalled) finish();
    for (const { answered } of stalled) assert.equal(await answered, 200);
  });

  test("and whose senders go away leave their places to others", async () => {
    const worker = await start();
    const stalled = await all((index) => stall(body, { "CF-Connecting-IP": `203.0.113.${index}` }));
    assert.equal((await worker.visitor().merge({ small: true })).status, 200);
    for (const { stop } of stalled) stop();
    const answers = await all((index) => {
      const headers = { "Content-Type": MERGE, "CF-Connecting-IP": `198.51.100.${index}` };
      return worker.visitor().send("PATCH", DATA, { headers, body });
    });
    for (const { status, text } of answers) assert.equal(status, 200, text);
  });
});

test("when more wait for a place than can, the next is told to come back, and its limits", async () => {
  const worker = await start({ limits: { session: "300/1m", mint: "", login: "" } });
  const visitor = worker.visitor();
  await visitor.merge({ a: 1 });
  // Of one address half of the places, and half of the queue.
  both.store.faults.always({ delay: 300 });
  const headers = { "Content-Type": MERGE, "CF-Connecting-IP": "203.0.113.1" };
  const body = largest('{"b":2}');
  const answers = await Promise.all(
    Array.from({ length: 80 }, () => visitor.clone().send("PATCH", DATA, { headers, body })),
  );
  const refused = answers.filter(({ status }) => status !== 200);
  assert.ok(refused.length > 0 && refused.length < 80);
  for (const answer of refused) {
    assert.equal(answer.status, 429, answer.text);
    assert.equal(answer.json.code, "rate_limited");
    assert.match(answer.json.detail, /large request bodies at once.*try again in 1 s/);
    assert.equal(answer.headers.get("retry-after"), "1");
    assert.match(String(answer.headers.get("ratelimit")), /^"session";r=\d+/);
    assert.deepEqual(answer.setCookies, []);
  }
});

test("data from before there were these limits is read, shrinks, and can be replaced", async () => {
  const worker = await start();
  const visitor = worker.visitor();
  const store = both.store.redis;
  await visitor.merge({ a: 1 });
  const [key = ""] = await store.keys("sess:*");
  const stored = String(await store.get(key));
  // As with max_bytes = 4000000, which was allowed.
  const many = `{"list":[${Array(200_000).fill('{"":0}').join(",")}],"a":1}`;
  await store.set(key, stored.replace('{"a":1}', many), { expiration: "KEEPTTL" });

  assert.equal((await visitor.session()).data.list.length, 200_000);
  const refused = await visitor.merge({ list: null });
  assert.equal(refused.status, 413);
  assert.match(refused.json.detail, /replaced as a whole.*"op":"replace"/);
  const replaced = await visitor.patch([{ op: "replace", path: "", value: { a: 2 } }]);
  assert.deepEqual(replaced.json.session.data, { a: 2 });

  const large = `{"text":"${"x".repeat(2_000_000)}","a":1}`;
  await store.set(key, stored.replace('{"a":1}', large), { expiration: "KEEPTTL" });
  assert.equal((await visitor.merge({ b: 1 })).status, 413);
  assert.deepEqual((await visitor.merge({ text: null })).json.session.data, { a: 1 });
  assert.doesNotMatch(worker.logs.join(""), /trap|panic/);
});
