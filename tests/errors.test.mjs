/** Every way to be refused: CONTRACT.md's table of errors, row by row, and what a refusal must leave alone. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { after, before, beforeEach, describe, test } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {import("../tools/local-store/faults.mjs").Fault} Fault */
/** @typedef {Parameters<Visitor["send"]>} Send */

const MERGE = "application/merge-patch+json";
const PATCH = "application/json-patch+json";
const DATA = "/auth/session/data";
const LARGEST_BODY = 256 * 1024;
const LARGEST_DATA = 65_536;
/** In the data of every session here; no problem and no log line may hold it. */
const MARK = "kept-in-the-coat-and-shown-to-nobody";
const FORGED = "A".repeat(148);

/** RFC 9110's own phrases, which RFC 9457 wants as the title of an about:blank problem. @type {Record<number, string>} */
const TITLES = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  412: "Precondition Failed",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Content",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

const ROUTES = [
  { path: "/auth/session", methods: ["GET", "HEAD", "DELETE"] },
  { path: DATA, methods: ["PATCH"] },
  { path: "/auth/session/rotate", methods: ["POST"] },
  { path: "/auth/health", methods: ["GET", "HEAD"] },
];

/** What workerd lets through to a Worker. */
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"];

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** @type {import("./support/worker.mjs").Worker} */
let worker;
/** The same deployment with little patience for its store. @type {import("./support/worker.mjs").Worker} */
let hasty;
/** @type {import("./support/worker.mjs").Worker[]} */
const workers = [];
/** Every problem that anyone got. @type {Answer[]} */
const problems = [];
/** Every ticket that was handed out. @type {Set<string>} */
const tickets = new Set();
/** @type {Set<string>} */
const secrets = new Set();

/** A visitor whose every answer is kept for the last test. */
class Watched extends Visitor {
  /** @param {Send} request */
  async send(...request) {
    const answer = await super.send(...request);
    if (answer.status >= 400) problems.push(answer);
    if (this.ticket) tickets.add(this.ticket);
    return answer;
  }
}

/** @param {Omit<Parameters<typeof startWorker>[0], "store">} [options] */
async function open(options) {
  const opened = await startWorker({ store, ...options });
  workers.push(opened);
  return opened;
}

const signing = randomSecret();

before(async () => {
  store = await startLocalStore();
  worker = await open({ secrets: { SESSION_SECRET: signing } });
  hasty = await open({ secrets: { SESSION_SECRET: signing }, settings: { store: { timeout: "200ms" } } });
  for (const secret of [signing, store.token]) secrets.add(secret);
});
beforeEach(async () => {
  store.faults.clear();
  await store.redis.flushAll();
});
after(async () => {
  await Promise.all(workers.map((each) => each.stop()));
  await store.stop();
});

/** Someone without a session. */
const stranger = () => new Watched(worker.url);

/** Someone whose session holds the mark. */
async function guest(url = worker.url) {
  const visitor = new Watched(url);
  const answer = await visitor.merge({ mark: MARK, views: 1, list: [0], text: "x" });
  assert.equal(answer.status, 200);
  return visitor;
}

/** All that is in the store but counters, to the letter, and whether it will go by itself. */
async function contents() {
  const keys = (await store.redis.keys("*")).filter((key) => !key.startsWith("stats:")).sort();
  return Promise.all(
    keys.map(async (key) => ({
      key,
      value: await store.redis.get(key),
      expires: (await store.redis.pTTL(key)) > 0,
    })),
  );
}

/**
 * What is the same for every problem.
 * @param {Answer} answer
 * @param {number} status
 * @param {string} code
 */
function assertProblem(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.headers.get("content-type"), "application/problem+json");
  assert.deepEqual(Object.keys(answer.json).sort(), ["code", "detail", "status", "title", "type"]);
  const { detail, ...rest } = answer.json;
  assert.deepEqual(rest, { type: "about:blank", title: TITLES[status], status, code });
  assert.match(detail, /\w+ \w+/);
  assert.doesNotMatch(
    detail,
    /sess:|\b(MGET|GETDEL|SET|IFEQ|PEXPIRE|PING)\b|panicked|\.rs\b|\.js\b|https?:\/\//,
  );
  assertHeaders(answer);
}

/** @param {Answer} answer */
function assertHeaders(answer) {
  assert.equal(answer.headers.get("cache-control"), "no-store");
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
}

/**
 * Does what is to be refused, and checks that the refusal is whole: the problem, no cookie, nothing changed in the
 * store, and no more calls to it than it takes to know.
 * @param {() => Promise<Answer>} act
 * @param {{ status: number, code: string, calls?: number }} expected
 */
async function assertRefused(act, { status, code, calls }) {
  const before = await contents();
  const { value: answer, calls: made } = await store.counters.during(act);
  assertProblem(answer, status, code);
  assert.deepEqual(answer.setCookies, []);
  assert.deepEqual(await contents(), before);
  if (calls !== undefined) assert.equal(made, calls, "calls to the store");
  return answer;
}

/** @param {Visitor} visitor @param {string} type @param {string | Buffer} body @param {boolean} [chunked] */
const change = (visitor, type, body, chunked) =>
  visitor.send("PATCH", DATA, { headers: { "Content-Type": type }, body, chunked });

/** @param {number} size */
const paddedTo = (size) => '{"a":1}'.padEnd(size, " ");

describe("400", () => {
  const where = /at line \d+ column \d+/;
  const nested = (/** @type {string} */ before, /** @type {string} */ after) =>
    `{"a":${before.repeat(5000)}1${after.repeat(5000)}}`;
  /** @type {[string, string | Buffer][]} */
  const malformed = [
    ["an empty body", ""],
    ["white space", " \r\n\t "],
    ["an open object", '{"a":1'],
    ["a closing brace too many", '{"a":1}}'],
    ["text after the object", '{"a":1} x'],
    ["two objects", '{"a":1}{"b":2}'],
    ["a trailing comma", '{"a":1,}'],
    ["a comment", '{"a":1/**/}'],
    ["single quotes", "{'a':1}"],
    ["a name without quotes", "{a:1}"],
    ["a byte order mark", '\u{feff}{"a":1}'],
    ["UTF-16", Buffer.from('{"a":1}', "utf16le")],
    ["bytes that are not UTF-8", Buffer.from('{"a":"\xff\xfe"}', "latin1")],
    ["an overlong encoding", Buffer.from('{"a":"\xc0\xaf"}', "latin1")],
    ["a surrogate in UTF-8", Buffer.from('{"a":"\xed\xa0\x80"}', "latin1")],
    ["half of a surrogate pair", '{"a":"\\ud800"}'],
    ["a line break in a string", '{"a":"\n"}'],
    ["a NUL in a string", '{"a":"\0"}'],
    ["a NUL after the object", '{"a":1}\0'],
    ["NaN", '{"a":NaN}'],
    ["Infinity", '{"a":-Infinity}'],
    ["a number that is too large", '{"a":1e999}'],
    ["a number with a leading zero", '{"a":01}'],
    ["a hexadecimal number", '{"a":0x10}'],
    ["a form", "a=1&b=2"],
    ["5,000 objects inside one another", nested('{"b":', "}")],
    ["5,000 arrays inside one another", nested("[", "]")],
    ["5,000 arrays that are never closed", '{"a":' + "[".repeat(5000)],
  ];
  for (const [name, body] of malformed) {
    test(`${name} is not JSON, and the answer says where`, async () => {
      const visitor = await guest();
      const expected = { status: 400, code: "bad_request", calls: 0 };
      for (const type of ["application/json", MERGE, PATCH]) {
        const { json } = await assertRefused(() => change(visitor, type, body), expected);
        assert.match(json.detail, where);
      }
    });
  }

  test("a request without any body is malformed too", async () => {
    const visitor = await guest();
    const act = () => visitor.send("PATCH", DATA, { headers: { "Content-Type": MERGE } });
    await assertRefused(act, { status: 400, code: "bad_request", calls: 0 });
  });

  /** @type {[string, unknown][]} */
  const wrong = [
    [MERGE, [1]],
    [MERGE, "text"],
    [MERGE, 1],
    [MERGE, null],
    [MERGE, true],
    ["application/json", [{ op: "add", path: "/a", value: 1 }]],
    [PATCH, {}],
    [PATCH, { op: "add", path: "/a", value: 1 }],
    [PATCH, null],
    [PATCH, "text"],
    [PATCH, [1]],
    [PATCH, [null]],
    [PATCH, [[]]],
    [PATCH, [{}]],
    [PATCH, [{ path: "/a", value: 1 }]],
    [PATCH, [{ op: "frobnicate", path: "/a" }]],
    [PATCH, [{ op: "ADD", path: "/a", value: 1 }]],
    [PATCH, [{ op: 1, path: "/a", value: 1 }]],
    [PATCH, [{ op: null, path: "/a", value: 1 }]],
    [PATCH, [{ op: "add", value: 1 }]],
    [PATCH, [{ op: "add", path: "/a" }]],
    [PATCH, [{ op: "replace", path: "/a" }]],
    [PATCH, [{ op: "test", path: "/a" }]],
    [PATCH, [{ op: "add", path: 1, value: 1 }]],
    [PATCH, [{ op: "add", path: ["a"], value: 1 }]],
    [PATCH, [{ op: "add", path: "a", value: 1 }]],
    [PATCH, [{ op: "add", path: "#/a", value: 1 }]],
    [PATCH, [{ op: "add", path: "/~", value: 1 }]],
    [PATCH, [{ op: "add", path: "/~2", value: 1 }]],
    [PATCH, [{ op: "remove", path: "views" }]],
    [PATCH, [{ op: "move", path: "/a" }]],
    [PATCH, [{ op: "copy", path: "/a", from: "text" }]],
    [PATCH, [{ op: "move", path: "/a", from: null }]],
    [PATCH, [{ op: "increment", path: "/views" }]],
    [PATCH, [{ op: "increment", path: "/views", value: "1" }]],
    [PATCH, [{ op: "increment", path: "/views", value: null }]],
    [PATCH, [{ op: "increment", path: "/views", value: [1] }]],
    [PATCH, [{ op: "increment", path: "views", value: 1 }]],
    // The first operation is right, the second makes the whole wrong.
    [PATCH, [{ op: "increment", path: "/views", value: 1 }, { op: "frobnicate" }]],
  ];
  for (const [type, body] of wrong) {
    test(`${JSON.stringify(body)} is no ${type}`, async () => {
      const expected = { status: 400, code: "bad_request", calls: 0 };
      await assertRefused(() => change(stranger(), type, JSON.stringify(body)), expected);
      const visitor = await guest();
      await assertRefused(() => change(visitor, type, JSON.stringify(body)), expected);
    });
  }
});

describe("401", () => {
  test("a rotation needs a session", async () => {
    const expected = { status: 401, code: "unauthenticated", calls: 0 };
    await assertRefused(() => stranger().rotate(), expected);
  });

  for (const [name, act] of /** @type {[string, (visitor: Visitor) => Promise<Answer>][]} */ ([
    ["change", (visitor) => visitor.merge({ views: 2 })],
    ["rotation", (visitor) => visitor.rotate()],
  ])) {
    test(`a ${name} of a session that ends meanwhile makes nothing, and takes the cookie away`, async () => {
      const visitor = await guest();
      const writes = store.faults.hold(({ commands }) => commands.some(([command]) => command === "SET"));
      const waiting = act(visitor);
      await writes.arrived;
      assert.equal(
        (await new Watched(worker.url).send("DELETE", "/auth/session", cookieOf(visitor))).status,
        204,
      );
      writes.release();
      const answer = await waiting;
      assertProblem(answer, 401, "unauthenticated");
      assert.match(answer.setCookies.join("\n"), /^__Host-session=;.*Max-Age=0$/);
      assert.deepEqual(await contents(), []);
    });
  }
});

/** @param {Visitor} visitor */
const cookieOf = (visitor) => ({ headers: { Cookie: visitor.cookieHeader() } });

describe("403", () => {
  test("another site's page changes nothing, and the store is not asked", async () => {
    const visitor = await guest();
    const headers = { "Content-Type": MERGE, "Sec-Fetch-Site": "cross-site", Origin: "https://evil.example" };
    const act = () => visitor.send("PATCH", DATA, { headers, body: "{}" });
    await assertRefused(act, { status: 403, code: "cross_site", calls: 0 });
  });
});

describe("404", () => {
  const paths = [
    "/",
    "/auth",
    "/auth/",
    "/auth/session/",
    "/auth/session/data/",
    "/auth/session/data/x",
    "/auth/health/",
    "/authsession",
    "/auth//session",
    "//auth/session",
    "//session",
    "/session",
    "/AUTH/session",
    "/auth/Session",
    "/auth/%73ession",
    "/auth%2Fsession",
    "/%61uth/session",
    "/auth/session%00",
    "/auth/session%20",
    "/auth/session%2F",
    "/auth/session;x=1",
    "/auth/session%0d%0aSet-Cookie:%20x=1",
    "/auth/s%C3%A9ssion",
    "/x/../auth/session/../../session",
    "/auth/admin/stats",
    "/.env",
    `/auth/${"x".repeat(16_000)}`,
    `/auth/session/${"../".repeat(5000)}etc/passwd`,
  ];
  for (const path of paths) {
    test(`${path.slice(0, 60)} leads nowhere, whatever the method`, async () => {
      const visitor = await guest();
      for (const method of ["GET", "POST", "PATCH", "DELETE", "OPTIONS"]) {
        const act = () => visitor.send(method, path);
        await assertRefused(act, { status: 404, code: "not_found", calls: 0 });
      }
    });
  }

  test("the routes are where base_path says, and nowhere else", async () => {
    const moved = await open({ settings: { base_path: "/api/coats" }, secrets: { SESSION_SECRET: signing } });
    const bare = await open({ settings: { base_path: "" }, secrets: { SESSION_SECRET: signing } });
    for (const { url, base } of [
      { url: moved.url, base: "/api/coats" },
      { url: bare.url, base: "" },
    ]) {
      const visitor = new Watched(url);
      assert.equal((await visitor.send("GET", `${base}/session`)).status, 200);
      assert.equal((await visitor.send("GET", `${base}/health`)).status, 200);
      for (const path of [
        "/auth/session",
        `${base}/auth/session`,
        `${base}/`,
        "/api/session",
        "/api/coatssession",
      ]) {
        await assertRefused(() => visitor.send("GET", path), { status: 404, code: "not_found", calls: 0 });
      }
    }
  });

  test("a query and a fragment are no part of the path", async () => {
    assert.equal((await stranger().send("GET", "/auth/session?x=/y#/z")).status, 200);
  });
});

describe("405", () => {
  for (const { path, methods } of ROUTES) {
    for (const method of METHODS.filter((each) => !methods.includes(each))) {
      test(`${method} is not for ${path}, which says what is`, async () => {
        const visitor = await guest();
        const before = await contents();
        const { value: answer, calls } = await store.counters.during(() => visitor.send(method, path));
        assert.equal(answer.status, 405);
        assert.equal(answer.headers.get("allow"), methods.join(", "));
        if (method === "HEAD") assertNoBody(answer);
        else assertProblem(answer, 405, "method_not_allowed");
        assert.deepEqual(answer.setCookies, []);
        assert.equal(calls, 0);
        assert.deepEqual(await contents(), before);
      });
    }
  }
});

describe("409", () => {
  const keepsChanging = /** @type {const} */ ({ status: 200, body: [{ result: null }] });
  for (const [name, act] of /** @type {[string, (visitor: Visitor) => Promise<Answer>][]} */ ([
    ["change", (visitor) => visitor.increment("/views")],
    ["rotation", (visitor) => visitor.rotate()],
  ])) {
    test(`a ${name} of a session that keeps changing is given up at the deadline`, async () => {
      const visitor = await guest();
      const session = await visitor.session();
      let attempts = 0;
      store.faults.always(keepsChanging, {
        when: ({ commands }) => {
          const replaces = commands.some((command) => command.includes("IFEQ"));
          if (replaces && ++attempts === 5) void worker.moveClock(60_000, { settle: false });
          return replaces;
        },
      });
      await assertRefused(() => act(visitor), { status: 409, code: "conflict" });
      assert.ok(attempts >= 5, `${attempts} attempts`);
      store.faults.clear();
      await worker.moveClock(-60_000);
      assert.deepEqual(await visitor.session(), session);
    });
  }
});

describe("412", () => {
  const wrong = [
    '"another"',
    "another",
    '""',
    '"',
    ",",
    "W/*",
    '"a", "b"',
    '"a",W/"b",,',
    "**",
    `"${"x".repeat(10_000)}"`,
  ];
  for (const ifMatch of wrong) {
    test(`If-Match: ${ifMatch.slice(0, 30)} is not the state of this session`, async () => {
      const visitor = await guest();
      const expected = { status: 412, code: "precondition_failed", calls: 1 };
      await assertRefused(() => visitor.merge({ views: 2 }, { "If-Match": ifMatch }), expected);
    });
  }

  test("the right tag made weak, cut or without its quotes is a wrong one", async () => {
    const visitor = await guest();
    const etag = (await visitor.look()).headers.get("etag") ?? "";
    assert.match(etag, /^"[^"]+"$/);
    const expected = { status: 412, code: "precondition_failed", calls: 1 };
    for (const tag of [`W/${etag}`, etag.slice(1, -1), etag.slice(0, -1), etag.toUpperCase(), `${etag}x`]) {
      await assertRefused(() => visitor.merge({ views: 2 }, { "If-Match": tag }), expected);
    }
    await assertRefused(() => visitor.patch([], { "If-Match": `W/${etag}` }), expected);
  });

  test("a list with the right tag in it, and *, are let through", async () => {
    const visitor = await guest();
    for (const [index, wrap] of [
      (/** @type {string} */ tag) => tag,
      (/** @type {string} */ tag) => `"x", ${tag}`,
      (/** @type {string} */ tag) => `${tag},W/"y"`,
      () => "*",
    ].entries()) {
      const etag = (await visitor.look()).headers.get("etag") ?? "";
      assert.equal((await visitor.merge({ views: 10 + index }, { "If-Match": wrap(etag) })).status, 200);
    }
  });

  test("without a session no condition holds, not even *, and no session is made", async () => {
    for (const ifMatch of ["*", '"a"']) {
      const act = () => stranger().merge({ views: 2 }, { "If-Match": ifMatch });
      await assertRefused(act, { status: 412, code: "precondition_failed", calls: 0 });
    }
  });

  test("a tag that was right before the last change is wrong after it", async () => {
    const visitor = await guest();
    const etag = (await visitor.look()).headers.get("etag") ?? "";
    await visitor.increment("/views");
    const act = () => visitor.merge({ views: 0 }, { "If-Match": etag });
    await assertRefused(act, { status: 412, code: "precondition_failed", calls: 1 });
  });
});

describe("413", () => {
  const tooLarge = /** @type {const} */ ({ status: 413, code: "too_large" });

  test("256 KiB of body are read, however they come", async () => {
    for (const chunked of [false, true]) {
      const answer = await change(stranger(), MERGE, paddedTo(LARGEST_BODY), chunked);
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.json.session.data, { a: 1 });
    }
  });

  for (const [name, size, chunked] of /** @type {[string, number, boolean][]} */ ([
    ["a byte more, announced", LARGEST_BODY + 1, false],
    ["a byte more, in chunks", LARGEST_BODY + 1, true],
    ["a megabyte, announced", 1 << 20, false],
  ])) {
    test(`${name}, is too much`, async () => {
      const visitor = await guest();
      for (const type of [MERGE, PATCH]) {
        await assertRefused(() => change(visitor, type, paddedTo(size), chunked), { ...tooLarge, calls: 0 });
      }
    });
  }

  for (const [method, path] of [
    ["POST", "/auth/session/rotate"],
    ["DELETE", "/auth/session"],
  ]) {
    test(`${method} ${path} refuses a request over 256 KiB, though it needs no body at all`, async () => {
      const visitor = await guest();
      const act = () => visitor.send(method, path, { body: paddedTo(LARGEST_BODY + 1) });
      await assertRefused(act, { ...tooLarge, calls: 0 });
    });
  }

  /** @param {number} size */
  const dataOf = (size) => ({ a: "x".repeat(size - '{"a":""}'.length) });

  test("data of max_bytes is kept, a byte more is not, and no session is made for it", async () => {
    assert.equal((await stranger().merge(dataOf(LARGEST_DATA))).status, 200);
    await assertRefused(() => stranger().merge(dataOf(LARGEST_DATA + 1)), { ...tooLarge, calls: 0 });
  });

  test("a session that is there stays as it is when a change would make it too large", async () => {
    const visitor = await guest();
    await assertRefused(() => visitor.merge(dataOf(LARGEST_DATA)), { ...tooLarge, calls: 1 });
    const value = "é".repeat(LARGEST_DATA / 2);
    await assertRefused(() => visitor.patch([{ op: "add", path: "/e", value }]), { ...tooLarge, calls: 1 });
    assert.equal((await visitor.increment("/views")).status, 200);
  });

  test("copies of copies are stopped before they fill the memory", async () => {
    const visitor = await guest();
    for (const copy of [
      (/** @type {number} */ n) => ({ op: "copy", from: "", path: `/c${n}` }),
      (/** @type {number} */ n) => ({ op: "copy", from: "/list", path: "/list/0", n }),
    ]) {
      const bomb = Array.from({ length: 200 }, (_, n) => copy(n));
      await assertRefused(() => visitor.patch(bomb), { ...tooLarge, calls: 1 });
      await assertRefused(() => visitor.patch(bomb.concat(bomb)), { ...tooLarge, calls: 1 });
    }
    assert.equal((await visitor.increment("/views")).status, 200);
    assert.doesNotMatch(worker.logs.join(""), /trap/);
  });

  test("1,000 operations are done, one more is too much", async () => {
    const visitor = await guest();
    const steps = (/** @type {number} */ length) =>
      Array.from({ length }, () => ({ op: "increment", path: "/views", value: 1 }));
    assert.equal((await visitor.patch(steps(1000))).json.session.data.views, 1001);
    await assertRefused(() => visitor.patch(steps(1001)), { ...tooLarge, calls: 0 });
  });
});

describe("415", () => {
  const types = [
    undefined,
    "",
    "text/plain",
    "text/plain; application/json",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/json, text/plain",
    "application/vnd.api+json",
    "application/json-patch",
    "*/*",
    "application/*",
    "application /json",
    "x".repeat(10_000),
  ];
  for (const type of types) {
    test(`${type === undefined ? "no type at all" : `"${type.slice(0, 40)}"`} is no type of change`, async () => {
      const visitor = await guest();
      /** @type {Record<string, string>} */
      const headers = type === undefined ? {} : { "Content-Type": type };
      for (const someone of [visitor, stranger()]) {
        const act = () => someone.send("PATCH", DATA, { headers, body: '{"a":1}' });
        const expected = { status: 415, code: "unsupported_media_type", calls: 0 };
        const answer = await assertRefused(act, expected);
        assert.equal(
          answer.headers.get("accept-patch"),
          "application/json, application/merge-patch+json, application/json-patch+json",
        );
      }
    });
  }

  test("types are compared without their case and parameters", async () => {
    for (const type of [
      "Application/JSON",
      "application/merge-patch+json;charset=latin1",
      "application/json ; a=b",
    ]) {
      assert.equal((await change(stranger(), type, '{"a":1}')).status, 200);
    }
  });
});

describe("422", () => {
  const misfits = [
    { op: "test", path: "/views", value: 2 },
    { op: "test", path: "/views", value: "1" },
    { op: "test", path: "/missing", value: null },
    { op: "remove", path: "/missing" },
    { op: "remove", path: "" },
    { op: "remove", path: "/list/-" },
    { op: "replace", path: "/missing", value: 1 },
    { op: "replace", path: "", value: [1] },
    { op: "replace", path: "", value: null },
    { op: "add", path: "/missing/a", value: 1 },
    { op: "add", path: "/text/a", value: 1 },
    { op: "add", path: "/list/2", value: 1 },
    { op: "add", path: "/list/01", value: 1 },
    { op: "add", path: "/list/-1", value: 1 },
    { op: "add", path: "/list/x", value: 1 },
    { op: "add", path: "/list/99999999999999999999", value: 1 },
    { op: "add", path: "", value: "text" },
    { op: "move", from: "/missing", path: "/a" },
    { op: "move", from: "/list", path: "/list/0" },
    { op: "move", from: "", path: "/a" },
    { op: "copy", from: "/missing", path: "/a" },
    { op: "copy", from: "/list/1", path: "/a" },
    { op: "increment", path: "/text", value: 1 },
    { op: "increment", path: "/list", value: 1 },
    { op: "increment", path: "", value: 1 },
    { op: "increment", path: "/missing/views", value: 1 },
    { op: "increment", path: "/list/1", value: 1 },
    { op: "increment", path: "/list/-", value: 1 },
    { op: "increment", path: "/views/x", value: 1 },
  ];
  for (const misfit of misfits) {
    test(`${JSON.stringify(misfit)} does not fit, and what came before it is not done either`, async () => {
      const visitor = await guest();
      const etag = (await visitor.look()).headers.get("etag");
      const first = { op: "add", path: "/new", value: true };
      const last = { op: "increment", path: "/views", value: 100 };
      const expected = { status: 422, code: "unprocessable", calls: 1 };
      for (const patch of [[misfit], [first, misfit], [first, last, misfit, last]]) {
        await assertRefused(() => visitor.patch(patch), expected);
      }
      assert.equal((await visitor.look()).headers.get("etag"), etag);
    });
  }

  test("sums that no number can hold are refused, not rounded", async () => {
    const visitor = await guest();
    await change(visitor, MERGE, '{"big":18446744073709551615,"small":-9223372036854775808,"huge":1e308}');
    for (const [path, value] of [
      ["/big", "1"],
      ["/small", "-1"],
      ["/huge", "1e308"],
    ]) {
      const patch = `[{"op":"increment","path":"${path}","value":${value}}]`;
      await assertRefused(() => change(visitor, PATCH, patch), {
        status: 422,
        code: "unprocessable",
        calls: 1,
      });
    }
  });

  test("what does not fit empty data makes no session", async () => {
    const act = () => stranger().patch([{ op: "test", path: "/views", value: 1 }]);
    await assertRefused(act, { status: 422, code: "unprocessable", calls: 0 });
  });

  test("a patch may not nest deeper than it can be read again", async () => {
    const visitor = await guest();
    const deep = '{"a":'.repeat(120) + "1" + "}".repeat(120);
    await assertRefused(() => change(visitor, MERGE, deep), { status: 422, code: "unprocessable" });
    assert.equal((await visitor.session()).data.mark, MARK);
  });

  test("numbers that are equal are equal to a test, however they are written (RFC 6902 section 4.6)", async () => {
    const visitor = await guest();
    for (const one of ["1", "1.0", "1e0", "10e-1"]) {
      const answer = await change(visitor, PATCH, `[{"op":"test","path":"/views","value":${one}}]`);
      assert.equal(answer.status, 200, `${one}: ${answer.text}`);
    }
  });
});

describe("500", () => {
  /** @type {[string, { settings?: object, secrets?: Record<string, unknown> }, RegExp[]][]} */
  const misconfigurations = [
    ["no secrets at all", withSecrets({ SESSION_SECRET: undefined }), [/SESSION_SECRET is missing/]],
    ["a short secret", withSecrets({ SESSION_SECRET: "Kq7-too-short-3" }), [/SESSION_SECRET has 15 char/]],
    [
      "a placeholder among the secrets",
      withSecrets({ SESSION_SECRET: `${randomSecret()},change-me-change-me-change-me-change-me` }),
      [/SESSION_SECRET looks like a placeholder/],
    ],
    ["a short admin token", withSecrets({ ADMIN_TOKEN: "Zr5-opensesame" }), [/ADMIN_TOKEN has 14 char/]],
    ["an empty admin token", withSecrets({ ADMIN_TOKEN: "" }), [/ADMIN_TOKEN is missing/]],
    [
      "no store",
      withSecrets({ UPSTASH_REDIS_REST_URL: undefined, UPSTASH_REDIS_REST_TOKEN: "" }),
      [/UPSTASH_REDIS_REST_URL is missing/, /UPSTASH_REDIS_REST_TOKEN is missing/],
    ],
    [
      "many wrong settings",
      {
        settings: {
          base_path: "auth/",
          sesion: {},
          cookie: { same_site: "None", secure: false, format: "express", colour: "red" },
          session: { idle: "soon", max_bytes: "many" },
          limits: { session: "300" },
          cors: { origins: ["*"] },
          store: { on_failure: "shrug" },
        },
      },
      [
        /CLOAKROOM\.base_path: /,
        /CLOAKROOM\.sesion is not known; known here: base_path, key_prefix, cookie, session, limits/,
        /CLOAKROOM\.cookie\.same_site: /,
        /CLOAKROOM\.cookie\.name: /,
        /CLOAKROOM\.cookie\.format: /,
        /CLOAKROOM\.cookie\.colour is not known/,
        /CLOAKROOM\.session\.idle: /,
        /CLOAKROOM\.session\.max_bytes: /,
        /CLOAKROOM\.limits\.session: /,
        /CLOAKROOM\.cors\.origins: /,
        /CLOAKROOM\.store\.on_failure: /,
      ],
    ],
    ["no table", { settings: /** @type {any} */ ("{") }, [/CLOAKROOM is a table/]],
  ];
  for (const [name, options, faults] of misconfigurations) {
    test(`${name}: every request is answered the same, and the log says what to change`, async () => {
      const broken = await open(options);
      if (typeof broken.secret === "string") for (const text of broken.secret.split(",")) secrets.add(text);
      const visitor = new Watched(broken.url);
      visitor.ticket = (await guest()).ticket;
      const before = await contents();
      const { calls } = await store.counters.during(async () => {
        for (const { path, methods } of [...ROUTES, { path: "/elsewhere", methods: ["GET"] }]) {
          for (const method of methods) {
            const answer = await visitor.send(method, path);
            assert.equal(answer.status, 500);
            assert.deepEqual(answer.setCookies, []);
            if (method === "HEAD") {
              assertNoBody(answer);
              continue;
            }
            assertProblem(answer, 500, "misconfigured");
            assert.doesNotMatch(
              answer.text,
              /CLOAKROOM|SECRET|TOKEN|UPSTASH|base_path|cookie|placeholder|short/i,
            );
          }
        }
      });
      assert.equal(calls, 0);
      assert.deepEqual(await contents(), before);
      await eventually(() => faults.every((fault) => fault.test(broken.logs.join(""))), broken.logs);
    });
  }
});

/** @param {Record<string, unknown>} values */
function withSecrets(values) {
  return { secrets: values };
}

/**
 * What the Worker logs arrives on its own way, a little after its answer.
 * @param {() => boolean} condition
 * @param {unknown} shown
 */
async function eventually(condition, shown) {
  for (let attempt = 0; attempt < 200 && !condition(); attempt++) await pause(10);
  assert.ok(condition(), JSON.stringify(shown));
}

/** @param {Answer} answer to HEAD */
function assertNoBody(answer) {
  assert.equal(answer.text, "");
  assertHeaders(answer);
  if (answer.status >= 400) assert.equal(answer.headers.get("content-type"), "application/problem+json");
}

/**
 * @typedef {object} Asking something that needs the store
 * @property {string} name
 * @property {(visitor: Visitor) => Promise<Answer>} act
 * @property {number} [call] which of its calls to the store is to fail; the first unless it says otherwise
 * @property {boolean} [writes] whether that call changes something
 * @property {boolean} [copied] whether a rotation has made its copy by then
 * @property {boolean} [first] whether it is done by someone without a session
 */

/** @type {Asking[]} */
const ASKINGS = [
  { name: "a look", act: (visitor) => visitor.look() },
  { name: "a look by HEAD", act: (visitor) => visitor.send("HEAD", "/auth/session") },
  { name: "a change, when it reads", act: (visitor) => visitor.increment("/views") },
  { name: "a change, when it writes", act: (visitor) => visitor.increment("/views"), call: 2, writes: true },
  { name: "a first change", act: (visitor) => visitor.merge({ mark: MARK }), writes: true, first: true },
  { name: "a rotation, when it reads", act: (visitor) => visitor.rotate() },
  { name: "a rotation, when it copies", act: (visitor) => visitor.rotate(), call: 2, writes: true },
  {
    name: "a rotation, when it moves",
    act: (visitor) => visitor.rotate(),
    call: 3,
    writes: true,
    copied: true,
  },
  { name: "a logout, when it reads", act: (visitor) => visitor.logout() },
  { name: "a logout, when it deletes", act: (visitor) => visitor.logout(), call: 2, writes: true },
  { name: "a question for the store's health", act: (visitor) => visitor.send("GET", "/auth/health") },
  { name: "the same by HEAD", act: (visitor) => visitor.send("HEAD", "/auth/health") },
];

/** @param {string} name */
const askingFor = (name) => /** @type {Asking} */ (ASKINGS.find((one) => one.name === name));

describe("503", () => {
  const result = (/** @type {unknown} */ value) => ({ status: 200, body: [{ result: value }] });
  const half = '[{"result":["{\\"v\\":1,\\"rev\\":';
  /**
   * `executes`: what was asked is done all the same, so what it wrote stays. `slow`: nothing comes until
   * store.timeout is over.
   * @type {{ name: string, fault: Fault, executes?: boolean, slow?: boolean }[]}
   */
  const failures = [
    { name: "destroys the connection", fault: { refuse: true } },
    { name: "never answers", fault: { hang: true }, slow: true },
    {
      name: "stops in its answer",
      fault: { status: 200, headers: { "content-length": "999" }, body: half },
      slow: true,
    },
    { name: "is cut off in its answer", fault: { cut: true }, executes: true },
    { name: "loses its answer", fault: { lostAnswer: true }, executes: true },
    { name: "knows another token", fault: { status: 401, body: { error: `WRONGPASS ${MARK}` } } },
    { name: "is asked too often", fault: { status: 429, body: { error: "ERR too many requests" } } },
    { name: "says 500", fault: { status: 500, body: `SECRET sess: ${MARK}` } },
    { name: "says 500 as HTML", fault: { status: 500, body: `<h1>${MARK}</h1>` } },
    { name: "says 204", fault: { status: 204 } },
    { name: "sends us elsewhere", fault: { status: 307, headers: { location: "http://127.0.0.1:9/thief" } } },
    { name: "says 200 with HTML", fault: { status: 200, body: "<html>Sign in to the hotel's wifi</html>" } },
    { name: "says 200 with nothing", fault: { status: 200, body: "" } },
    { name: "says 200 with half an answer", fault: { status: 200, body: half } },
    { name: "says null", fault: { status: 200, body: "null" } },
    { name: "sends one reply instead of a list", fault: { status: 200, body: { result: null } } },
    { name: "sends an error instead of a list", fault: { status: 200, body: { error: `ERR ${MARK}` } } },
    { name: "sends an empty list", fault: { status: 200, body: [] } },
    { name: "sends a list of null", fault: { status: 200, body: [null] } },
    { name: "sends a reply with nothing in it", fault: { status: 200, body: [{}] } },
    { name: "sends an object where a value is due", fault: result({ a: 1 }) },
    {
      name: "sends more replies than commands",
      fault: { status: 200, body: Array(9).fill({ result: null }) },
    },
    { name: "leaves the last reply out", fault: { short: true }, executes: true },
    { name: "fails the first command", fault: { entry: 0, error: `ERR '${MARK}' of 'sess:x' is wrong` } },
    { name: "fails in words of its own", fault: { entry: 0, error: `${MARK} is not for you` } },
    { name: "has used up its requests", fault: { quota: true } },
  ];

  /** From one call on. @param {Fault} fault @param {{ call?: number }} asking */
  function strike(fault, { call = 1 }) {
    let seen = 0;
    store.faults.always(fault, { when: () => ++seen >= call });
  }

  /** @param {Answer} answer @param {string} [note] */
  function assertUnavailable(answer, note) {
    assert.equal(answer.status, 503, note);
    assert.equal(answer.headers.get("retry-after"), "1");
    assert.deepEqual(answer.setCookies, []);
    if (answer.text === "") assertNoBody(answer);
    else assertProblem(answer, 503, "store_unavailable");
  }

  for (const { name, fault, executes = false, slow = false } of failures) {
    test(`a store that ${name} logs nobody out and overwrites nothing`, async (t) => {
      for (const asking of ASKINGS) {
        await t.test(asking.name, async () => {
          store.faults.clear();
          await store.redis.flushAll();
          const { url } = slow ? hasty : worker;
          const visitor = asking.first ? stranger() : await guest();
          const session = await visitor.session();
          const before = await contents();

          const unlucky = new Watched(url);
          unlucky.ticket = visitor.ticket;
          strike(fault, asking);
          const { value: answer, calls } = await store.counters.during(() => asking.act(unlucky));
          store.faults.clear();

          assertUnavailable(answer);
          // What can be repeated without harm is; and a machine under load may run out of the little patience.
          if (!slow) assert.ok(calls >= (asking.call ?? 1), `${calls} calls`);
          assert.equal(unlucky.ticket, visitor.ticket);
          if (executes && asking.writes) return;
          const after = await contents();
          // A rotation's copy that nothing leads to goes by itself; taking it away could be wrong.
          const kept = asking.copied
            ? after.filter(({ key }) => before.some((one) => one.key === key))
            : after;
          assert.deepEqual(kept, before);
          assert.ok(after.length <= before.length + 1 && after.every(({ expires }) => expires));
          const again = await visitor.look();
          assert.deepEqual(again.json.session, session);
          assert.deepEqual(again.setCookies, []);
        });
      }
    });
  }

  test("a store that refuses connections logs nobody out, and is found again when it is back", async () => {
    const visitor = await guest();
    const session = await visitor.session();
    const before = await contents();
    await store.stopListening();
    try {
      for (const { first, act } of ASKINGS) assertUnavailable(await act(first ? stranger() : visitor));
    } finally {
      await store.resumeListening();
    }
    assert.deepEqual(await contents(), before);
    assert.deepEqual(await visitor.session(), session);
    assert.equal((await visitor.send("GET", "/auth/health")).json.status, "ok");
  });

  test("a store that is full can still be read, and what it cannot write is not lost half", async () => {
    const visitor = await guest();
    const session = await visitor.session();
    store.faults.always("capacity");
    for (const { act, writes, first } of ASKINGS.filter(({ writes }) => writes)) {
      assert.ok(writes);
      await assertRefused(() => act(first ? stranger() : visitor), {
        status: 503,
        code: "store_unavailable",
      });
    }
    assert.deepEqual(await visitor.session(), session);
    store.faults.clear();
    assert.deepEqual(await visitor.session(), session);
  });

  test("a rotation of which only one of two commands fails loses no session, whichever it is", async (t) => {
    for (const step of ["copies", "moves"]) {
      await t.test(step, async () => {
        const visitor = await guest();
        const session = await visitor.session();
        strike({ entry: 0, error: "ERR made up" }, askingFor(`a rotation, when it ${step}`));
        assertUnavailable(await visitor.rotate());
        store.faults.clear();
        assert.deepEqual((await visitor.session())?.data, session.data);
      });
    }
  });

  for (const { name, act, writes } of ASKINGS.filter(({ first }) => !first)) {
    test(`a lost answer to ${name} leaves a session that is whole, or none if that was the wish`, async () => {
      const visitor = await guest();
      for (const call of [1, 2]) {
        strike({ lostAnswer: true }, { call });
        const answer = await act(visitor);
        store.faults.clear();
        if (answer.status === 503) assertUnavailable(answer);
        if (name.startsWith("a logout")) continue;
        const session = await visitor.session();
        assert.equal(session.data.mark, MARK);
        assert.ok([1, 2, 3].includes(session.data.views), `${writes}: ${session.data.views}`);
      }
    });
  }

  const noList = [null, [], "OK", 5, [5], [null, null], [["x"]]];
  /** What no working store says to the command it is an answer to. @type {[string, unknown[]][]} */
  const wrongKinds = [
    ["a look", noList],
    ["a change, when it reads", noList],
    ["a change, when it writes", [5, [], "QUEUED", ["OK", "OK"]]],
    ["a first change", [5, [], "QUEUED", ["OK", "OK"]]],
    ["a rotation, when it reads", noList],
    ["a rotation, when it copies", [5, [], "QUEUED", ["OK", "OK"]]],
    ["a rotation, when it moves", [5, [], "QUEUED", ["OK", "OK"]]],
    ["a logout, when it reads", noList],
    ["a logout, when it deletes", [null, "OK", [], ["x", "y"]]],
    ["a question for the store's health", [null, 5, []]],
  ];
  for (const [name, values] of wrongKinds) {
    const { act, first, copied, call = 1 } = askingFor(name);
    test(`an answer to ${name} that is of the wrong kind is a failure, never taken for "nothing there"`, async (t) => {
      for (const value of values) {
        await t.test(JSON.stringify(value), async () => {
          const visitor = first ? stranger() : await guest();
          const before = await contents();
          strike(result(value), { call });
          const answer = await act(visitor);
          store.faults.clear();
          assertUnavailable(answer, `${answer.status} ${answer.text} ${answer.setCookies}`);
          if (!copied) assert.deepEqual(await contents(), before);
        });
      }
    });
  }

  test("a logout that failed half way, on the way a rotation left, is not acknowledged by the next one", async () => {
    const visitor = await guest();
    const elsewhere = new Watched(worker.url);
    elsewhere.ticket = visitor.ticket;
    await visitor.rotate();
    // `elsewhere` still holds the old id, which leads to the new one.
    // The old record, the new one, and then its end.
    strike({ refuse: true }, { ...askingFor("a logout, when it deletes"), call: 3 });
    assertUnavailable(await elsewhere.logout());
    store.faults.clear();
    assert.equal((await visitor.session()).data.mark, MARK);
    assert.equal((await elsewhere.logout()).status, 204);
    assert.equal(await visitor.session(), null, "an acknowledged logout is the end of the session");
  });

  test("a forged cookie is not removed by an answer that knows nothing", async () => {
    for (const asking of ASKINGS.filter(({ first, name }) => first || /health|same/.test(name))) {
      const forger = stranger();
      forger.ticket = FORGED;
      strike({ refuse: true }, asking);
      assertUnavailable(await asking.act(forger));
      store.faults.clear();
      assert.equal(forger.ticket, FORGED);
    }
  });

  test("a touch that was due waits for the store, and then is done", async () => {
    const visitor = await guest();
    const { ticket } = visitor;
    await worker.moveClock(6 * 60_000);
    for (const asking of ASKINGS.filter(({ first }) => !first)) {
      strike({ refuse: true }, asking);
      assertUnavailable(await asking.act(visitor), asking.name);
      store.faults.clear();
    }
    assert.equal(visitor.ticket, ticket);
    const answer = await visitor.look();
    assert.equal(answer.json.session.data.mark, MARK);
    assert.equal(answer.setCookies.length, 1);

    // The session is read, its new time to live is refused.
    const other = await guest();
    await worker.moveClock(6 * 60_000);
    strike({ entry: 1, error: "ERR made up" }, askingFor("a look"));
    assertUnavailable(await other.look());
    store.faults.clear();
    assert.equal((await other.look()).setCookies.length, 1);
    await worker.moveClock(-12 * 60_000);
  });

  test("a ticket under an older secret is not issued again by an answer that knows nothing", async () => {
    const newer = randomSecret();
    secrets.add(newer);
    const turned = await open({ secrets: { SESSION_SECRET: `${newer},${signing}` } });
    const visitor = new Watched(turned.url);
    visitor.ticket = (await guest()).ticket;
    for (const asking of ASKINGS.filter(({ first }) => !first)) {
      strike({ refuse: true }, asking);
      assertUnavailable(await asking.act(visitor), asking.name);
      store.faults.clear();
    }
    const answer = await visitor.look();
    assert.equal(answer.json.session.data.mark, MARK);
    assert.equal(answer.setCookies.length, 1);
  });

  test("the log says that the store failed and what to look at", async () => {
    const visitor = await guest();
    store.faults.next({ status: 401, body: { error: "WRONGPASS" } });
    await visitor.look();
    store.faults.next({ status: 200, body: "<html>" });
    await visitor.look();
    const log = () => worker.logs.join("");
    await eventually(() => /check UPSTASH_REDIS_REST_TOKEN/.test(log()), worker.logs);
    await eventually(() => /check UPSTASH_REDIS_REST_URL/.test(log()), worker.logs);
  });
});

describe("sloppy visitors", () => {
  test("HEAD is GET without the body, also when it is refused", async () => {
    const visitor = await guest();
    for (const path of ["/auth/session", "/auth/health", "/auth/session/data", "/auth/nowhere"]) {
      const [get, head] = [await visitor.send("GET", path), await visitor.send("HEAD", path)];
      assert.equal(head.status, get.status);
      assertNoBody(head);
      for (const name of ["content-type", "etag", "allow", "vary"]) {
        assert.equal(head.headers.get(name), get.headers.get(name), `${path} ${name}`);
      }
    }
  });

  test("a visitor who goes away in the middle of a body changes nothing and disturbs nobody", async () => {
    const visitor = await guest();
    const before = await contents();
    const { hostname, port, host } = new URL(worker.url);
    for (const length of ["Content-Length: 100000", "Transfer-Encoding: chunked"]) {
      const socket = connect(Number(port), hostname);
      await once(socket, "connect");
      const head = `PATCH ${DATA} HTTP/1.1\r\nHost: ${host}\r\nContent-Type: ${MERGE}\r\n${length}\r\n`;
      socket.write(`${head}Cookie: ${visitor.cookieHeader()}\r\n\r\n7\r\n{"a":1,`);
      socket.destroySoon();
      await once(socket, "close");
      assert.equal((await visitor.look()).status, 200);
    }
    assert.deepEqual(await contents(), before);
  });

  test("a visitor who goes away while the store is asked disturbs nobody", async () => {
    const visitor = await guest();
    const { hostname, port, host } = new URL(worker.url);
    const held = store.faults.hold();
    const socket = connect(Number(port), hostname);
    socket.write(`GET /auth/session HTTP/1.1\r\nHost: ${host}\r\nCookie: ${visitor.cookieHeader()}\r\n\r\n`);
    await held.arrived;
    socket.destroy();
    held.release();
    const looks = Array.from({ length: 10 }, () => visitor.session());
    for (const session of await Promise.all(looks)) assert.equal(session.data.mark, MARK);
  });

  test("refusals and changes at the same time get each their own answer", async () => {
    const visitor = await guest();
    const answers = await Promise.all(
      Array.from({ length: 40 }, (_, index) =>
        index % 2 ? visitor.increment("/views") : visitor.patch([{ op: "test", path: "/views", value: -1 }]),
      ),
    );
    for (const [index, answer] of answers.entries()) assert.equal(answer.status, index % 2 ? 200 : 422);
    assert.equal((await visitor.session()).data.views, 21);
  });
});

test("no refusal and no line of the log has told a secret, a ticket, an id, a key or a session's data", async () => {
  const stopped = workers.splice(0);
  await Promise.all(stopped.map((each) => each.stop()));
  const log = stopped.map((each) => each.logs.join("")).join("\n");
  assert.match(log, /the store failed/);
  assert.ok(problems.length > 500 && tickets.size > 100, "there is something to look through");
  const told = [log, ...problems.map(({ headers, text }) => JSON.stringify([...headers]) + text)].join("\n");

  const ids = [...tickets].filter((ticket) => ticket !== FORGED).map((ticket) => idOf(ticket));
  const unspeakable = [
    ...secrets,
    ...tickets,
    ...ids.flatMap((id) =>
      ["base64url", "base64", "hex"].map((form) => id.toString(/** @type {any} */ (form))),
    ),
    new URL(store.url).host,
    MARK,
    "sess:",
    "WRONGPASS",
  ];
  for (const text of unspeakable) {
    const at = told.indexOf(text);
    assert.equal(at, -1, `${text} in …${told.slice(Math.max(0, at - 200), at + 200)}…`);
  }
});

/** The session id in a ticket; see src/ticket/mod.rs. @param {string} ticket */
function idOf(ticket) {
  return Buffer.from(ticket, "base64url").subarray(5, 37);
}
