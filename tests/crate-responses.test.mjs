/** The crate: what it adds to an author's own responses, of whatever kind. */
import assert from "node:assert/strict";
import { request } from "node:http";
import { after, before, beforeEach, describe, test } from "node:test";
import { operate, startCrateWorkers } from "./support/crate.mjs";

/** @type {import("./support/crate.mjs").CrateWorkers} */
let crate;
/** @type {import("./support/crate.mjs").Visitor} */
let visitor;
before(async () => {
  const limits = { session: "300/1m", mint: "1000/1m" };
  crate = await startCrateWorkers({ name: "crate-responses", isolates: 1, settings: { limits } });
});
after(() => crate?.stop());
beforeEach(() => {
  crate.upstream.reset();
  visitor = crate.workers[0].visitor();
});

/** Kinds of responses, some of which have headers that cannot be changed. */
const KINDS = [
  { path: "/text", status: 200, body: "text" },
  { path: "/redirect", status: 302, body: "" },
  { path: "/proxied", status: 200, body: "upstream" },
  { path: "/no-content", status: 204, body: "" },
  { path: "/stream", status: 200, body: "one, two" },
];

for (const { path, status, body } of KINDS) {
  test(`a visitor's first change brings a cookie along with ${path}, the next one none`, async () => {
    const first = await visitor.send("GET", `${path}?count`);
    assert.equal(first.status, status, first.text);
    assert.equal(first.text, body);
    assert.equal(first.setCookies.length, 1);
    assert.match(first.setCookies[0], /^__Host-session=[\w-]+; .*HttpOnly/);
    for (const count of [2, 3]) {
      const next = await visitor.send("GET", `${path}?count`);
      assert.deepEqual([next.status, next.text, next.setCookies], [status, body, []], `visit ${count}`);
    }
    assert.equal((await operate(visitor, [{ do: "get", key: "views" }])).json[0], 3);
  });

  test(`${path} says whose it is, and how much of the limit is left`, async () => {
    await visitor.send("GET", "/text?count");
    const { headers } = await visitor.send("GET", path);
    assert.equal(headers.get("vary"), "Cookie");
    assert.equal(headers.get("cache-control"), "no-store");
    assert.match(headers.get("ratelimit-policy") ?? "", /"session";q=300;w=60/);
    assert.match(headers.get("ratelimit") ?? "", /"session";r=\d+;t=\d+/);
  });

  test(`${path} to a visitor without a session begins none`, async () => {
    const { value, calls } = await crate.store.counters.during(() => visitor.send("GET", path));
    assert.equal(value.status, status);
    assert.deepEqual([value.setCookies, calls], [[], 0]);
    assert.equal(value.headers.get("vary"), "Cookie");
  });
}

test("what an upstream server has answered keeps its own headers", async () => {
  crate.upstream.answerWith((_, response) => {
    response.setHeader("Content-Type", "application/x-coat");
    response.setHeader("Set-Cookie", ["a=1", "b=2"]);
    response.setHeader("Vary", "Accept-Language");
    response.statusCode = 203;
    response.end("proxied");
  });
  const { status, text, headers } = await visitor.send("GET", "/proxied?count");
  assert.deepEqual([status, text], [203, "proxied"]);
  assert.equal(headers.get("content-type"), "application/x-coat");
  assert.equal(headers.get("vary"), "Accept-Language, Cookie");
  const names = headers.getSetCookie().map((line) => line.split("=")[0]);
  assert.deepEqual(names.sort(), ["__Host-session", "__Host-session-sync", "a", "b"]);
});

describe("a response that may be cached", () => {
  test("stays so without a cookie of ours, and varies by the cookie", async () => {
    const { headers } = await visitor.send("GET", "/public");
    assert.equal(headers.get("cache-control"), "public, max-age=60");
    assert.equal(headers.get("vary"), "Accept, Cookie");
    assert.deepEqual(headers.getSetCookie(), ["theme=dark"]);
  });

  test("is not cached if a cookie of ours comes with it", async () => {
    const { headers } = await visitor.send("GET", "/public?count");
    assert.equal(headers.get("cache-control"), "no-store");
    assert.ok(headers.getSetCookie().includes("theme=dark"));
  });
});

test("a WebSocket is opened, with a cookie if the session is new, and the change is written", async () => {
  for (const expected of [1, 0]) {
    const { status, setCookies, vary } = await upgrade("/websocket?count");
    assert.equal(status, 101);
    const own = setCookies.filter((line) => line.startsWith("__Host-session="));
    assert.equal(own.length, expected);
    assert.equal(vary, "Cookie");
  }
  assert.equal((await operate(visitor, [{ do: "get", key: "views" }])).json[0], 2);
});

/** @param {string} path @returns {Promise<{ status?: number, setCookies: string[], vary?: string }>} */
function upgrade(path) {
  const headers = {
    Connection: "Upgrade",
    Upgrade: "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    ...(visitor.cookies.size ? { Cookie: visitor.cookieHeader() } : {}),
  };
  return new Promise((resolve, reject) => {
    const outgoing = request(visitor.url + path, { headers, agent: false });
    outgoing.on("upgrade", ({ statusCode, headers }, socket) => {
      socket.destroy();
      const setCookies = headers["set-cookie"] ?? [];
      visitor.accept(setCookies);
      resolve({ status: statusCode, setCookies, vary: headers.vary });
    });
    outgoing.on("response", ({ statusCode }) => reject(new Error(`no upgrade but ${statusCode}`)));
    outgoing.on("error", reject);
    outgoing.end();
  });
}
