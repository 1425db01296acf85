/** The origin behind the gateway changes the visitor's session by headers of its answer. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { eventsIn } from "./support/log.mjs";
import { NO_LIMITS, moveClocks, startDeployment, until } from "./support/worker.mjs";

const PASSWORD = "correct horse battery";
const ADMIN = "an admin token of the tests, 2026-11-28";
const PATCH = "X-Session-Patch";
const SET_COOKIE = "X-Session-Set-Cookie";
const RULES = [{ path: "/rule*", require: "user" }];

/** @type {import("node:http").Server} */
let server;
let origin = "";
/** What the origin does before it answers. */
let beforeAnswer = async () => {};
/** The origin's answer. @type {{ status?: number, headers?: Record<string, string | string[]> }} */
let answer = {};
/** The identity that it was told last. */
let handle = "";
/** Whether an answer that never ends by itself was given up. */
let isGivenUp = false;

before(async () => {
  server = createServer(async (request, response) => {
    handle = String(request.headers["x-session-handle"]);
    await beforeAnswer();
    response.writeHead(answer.status ?? 200, answer.headers);
    if (request.url !== "/endless") return void response.end(answer.status === 304 ? undefined : "done");
    isGivenUp = false;
    response.on("close", () => (isGivenUp = true));
    response.write("begin");
  });
  const sockets = /** @type {import("node:events").EventEmitter} */ (new WebSocketServer({ server }));
  sockets.on("headers", (lines) =>
    lines.push(`${PATCH}: {"a":1}`, "X-Session-Note: x", "Set-Cookie: sid=stolen", "Set-Cookie: b=1"),
  );
  sockets.on("connection", (socket) =>
    socket.on("message", (/** @type {Buffer} */ text) => socket.send(String(text))),
  );
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  origin = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

/** @param {object} [gateway] @param {object} [more] @param {object} [cookie] */
const start = (gateway, more, cookie) =>
  startDeployment([{}], {
    settings: { cookie: { name: "sid", secure: false, ...cookie }, gateway: { origin, ...gateway }, ...more },
    secrets: { ADMIN_TOKEN: ADMIN },
  });

/** @param {unknown} patch */
const patching = (patch) => ({ headers: { [PATCH]: JSON.stringify(patch) } });

/**
 * The lines of a session that the application begins by the service API, as it passes them on.
 * @param {{ visitor: () => import("./support/visitor.mjs").Visitor }} worker
 * @param {object} [more]
 */
async function begin(worker, more = {}) {
  const body = JSON.stringify({ user: { id: "7", name: "ada" }, ...more });
  const headers = { Authorization: `Bearer ${ADMIN}`, "Content-Type": "application/json" };
  const { status, json } = await worker.visitor().send("POST", "/auth/admin/sessions", { headers, body });
  assert.equal(status, 201);
  return /** @type {string[]} */ (json.set_cookie);
}

/** @param {import("./support/visitor.mjs").Visitor} visitor @param {string} [path] @param {object} [options] */
function ask(visitor, path = "/page", options) {
  return visitor.send("GET", path, options);
}

describe("an origin that changes the session", () => {
  /** @type {Awaited<ReturnType<typeof startDeployment>>} */
  let both;
  /** @type {(typeof both)["workers"][0]} */
  let worker;
  before(async () => {
    both = await start({ public: ["/public/*"], rules: RULES }, { session: { max_bytes: 8000 } });
    [worker] = both.workers;
  });
  after(() => both.stop());

  test("a patch is stored before the answer is seen, and the visitor sees no X-Session header", async () => {
    const ada = worker.visitor();
    assert.equal((await ada.register("ada", PASSWORD)).status, 201);
    const headers = {
      [PATCH]: '{"cart":[1],"theme":null}',
      "X-Session-Note": "x",
      "Session-Token": "y",
      A: "b",
    };
    answer = { headers };
    const seen = await ask(ada);
    assert.deepEqual([seen.status, seen.text, seen.headers.get("a")], [200, "done", "b"]);
    assert.deepEqual(
      [...seen.headers.keys()].filter((name) => /session/.test(name)),
      [],
    );
    assert.deepEqual((await ada.session()).data, { cart: [1] });
    assert.deepEqual(seen.setCookies, [], "the id is the same");
  });

  test("other scripts are percent-encoded", async () => {
    const visitor = worker.visitor();
    answer = { headers: { [PATCH]: encodeURIComponent(JSON.stringify({ имя: "Ἀδα\r\nX: y" })) } };
    assert.equal((await ask(visitor)).status, 200);
    assert.deepEqual((await visitor.session()).data, { имя: "Ἀδα\r\nX: y" });
  });

  test("without a session a patch begins an anonymous one, whose ticket no cache may keep", async () => {
    for (const cache of ["public, max-age=60", "private"]) {
      const visitor = worker.visitor();
      answer = {
        headers: { ...patching({ a: 1 }).headers, "Cache-Control": cache, "CDN-Cache-Control": "max-age=9" },
      };
      const seen = await ask(visitor);
      assert.equal(seen.setCookies.length, 1);
      assert.deepEqual(
        [seen.headers.get("cache-control"), seen.headers.get("cdn-cache-control")],
        ["private", null],
      );
      assert.deepEqual((await visitor.session()).data, { a: 1 });
    }
  });

  test("a patch of parallel answers is made to the newest state: none is lost", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    let asked = 0;
    beforeAnswer = async () => {
      asked += 1;
      answer = patching({ [`n${asked}`]: asked });
    };
    const all = await Promise.all(Array.from({ length: 20 }, () => ask(visitor)));
    beforeAnswer = async () => {};
    assert.ok(all.every(({ status }) => status === 200));
    assert.equal(Object.keys((await visitor.session()).data).length, 21);
  });

  test("an answer without those headers costs no call more, one with a patch one more", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    const calls = async () => (await both.store.counters.during(() => ask(visitor))).calls;
    answer = {};
    assert.equal(await calls(), 1);
    answer = patching({ a: 5 });
    assert.equal(await calls(), 2);
  });

  test("a large session is not kept while the origin answers, and read again to be changed", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    answer = patching({ big: "x".repeat(6000) });
    assert.equal((await ask(visitor)).status, 200);
    answer = patching({ a: 1 });
    const { calls } = await both.store.counters.during(() => ask(visitor));
    assert.deepEqual([calls, (await visitor.session()).data.a], [3, 1]);
  });

  test("a patch that is none is 502, and neither the visitor nor the log gets its value", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    for (const patch of ["[1]", "secret", '{"secret":', "1", "", "%7B%FF", '{"a":1}, {"b":2}', "%5B%5D"]) {
      answer = { headers: { [PATCH]: patch } };
      const { status, json, headers } = await ask(visitor);
      assert.deepEqual([status, json.code], [502, "bad_gateway"], patch);
      assert.equal(headers.get("cache-control"), "no-store, no-transform");
    }
    assert.deepEqual((await visitor.session()).data, { a: 0 });
    assert.doesNotMatch(worker.logs.join(""), /secret/);
    assert.match(worker.logs.join(""), /X-Session-Patch of the origin's answer must be a JSON object/);
  });

  test("a patch that cannot be stored is our problem, and the origin's answer is given up", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    answer = patching({ big: "x".repeat(9000) });
    const tooLarge = await ask(visitor, "/endless");
    assert.deepEqual([tooLarge.status, tooLarge.json.code], [413, "too_large"]);
    await until(() => isGivenUp);
    answer = patching({ a: 1 });
    beforeAnswer = async () => void both.store.faults.always("refuse");
    const { status, json, setCookies } = await ask(visitor);
    both.store.faults.clear();
    beforeAnswer = async () => {};
    assert.deepEqual([status, json.code, setCookies], [503, "store_unavailable", []]);
    assert.deepEqual((await visitor.session()).data, { a: 0 });
    const [first, second] = eventsIn(worker, "session_change_failed").slice(-2);
    assert.deepEqual(
      [first.code, first.headers, second.status, second.handle],
      ["too_large", [PATCH], 503, (await visitor.session()).handle],
    );
  });

  test("a session that ends while the origin answers is 401, and stays ended", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    const other = visitor.clone();
    answer = patching({ a: 1 });
    beforeAnswer = async () => void (await other.logout());
    const { status, json } = await ask(visitor);
    beforeAnswer = async () => {};
    assert.deepEqual([status, json.code], [401, "unauthenticated"]);
    assert.equal(await visitor.session(), null);
  });

  test("public paths and pages of other sites change nothing, which is logged without the value", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    answer = patching({ a: "secret" });
    const foreign = { headers: { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors" } };
    for (const [path, options, why] of /** @type {[string, object, RegExp][]} */ ([
      ["/public/x", {}, /public/],
      ["/page", foreign, /another site/],
    ])) {
      const seen = await ask(visitor, path, options);
      assert.deepEqual([seen.status, seen.headers.get(PATCH), seen.setCookies], [200, null, []]);
      assert.match(eventsIn(worker, "session_change_ignored").at(-1)?.message ?? "", why);
    }
    assert.deepEqual((await visitor.session()).data, { a: 0 });
    assert.doesNotMatch(worker.logs.join(""), /secret/);
  });

  test("a WebSocket opens without those headers and without cookies of ours", async () => {
    const socket = new WebSocket(`${worker.url.replace("http", "ws")}/socket`);
    const [response] = await once(socket, "upgrade");
    assert.deepEqual(response.headers["set-cookie"], ["b=1"]);
    assert.deepEqual(
      Object.keys(response.headers).filter((name) => name.startsWith("x-session")),
      [],
    );
    socket.send("hello");
    assert.equal(String((await once(socket, "message"))[0]), "hello");
    socket.close();
    await once(socket, "close");
    assert.match(eventsIn(worker, "session_change_ignored").at(-1)?.message ?? "", /WebSocket/);
  });

  test("a change comes also with an answer that has no body", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    answer = { status: 304, headers: { [PATCH]: '{"a":2}' } };
    const { status, text } = await ask(visitor);
    assert.deepEqual([status, text, (await visitor.session()).data], [304, "", { a: 2 }]);
  });

  test("an application with its own login hands over the cookies of a session", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 0 });
    const lines = await begin(worker, { remember: true, data: { b: 1 } });
    const weakened = lines.map((line) => line.split(";")[0] + "; Domain=evil.example; SameSite=None");
    answer = {
      headers: { [SET_COOKIE]: JSON.stringify(weakened), "Set-Cookie": ["sid=x", "=sid=x", "c=d"] },
    };
    const seen = await ask(visitor, "/login");
    const [foreign, own] = seen.setCookies;
    assert.equal(foreign, "c=d");
    assert.match(own, /^sid=[\w-]{148}; Path=\/; HttpOnly; SameSite=Lax; Max-Age=2591\d+$/);
    assert.equal(seen.headers.getSetCookie().length, 3, "with the one for read-your-writes");
    const session = await visitor.session();
    assert.deepEqual([session.user.name, session.data, session.remember], ["ada", { b: 1 }, true]);
    assert.equal((await ask(visitor, "/rule")).status, 200);
  });

  test("a patch beside them changes the session that they begin", async () => {
    const visitor = worker.visitor();
    const lines = await begin(worker, { data: { b: 1 } });
    const { calls } = await both.store.counters.during(async () => {
      answer = { headers: { [SET_COOKIE]: JSON.stringify(lines), ...patching({ c: 2 }).headers } };
      assert.equal((await ask(visitor, "/login")).status, 200);
    });
    assert.deepEqual((await visitor.session()).data, { b: 1, c: 2 });
    assert.equal(calls, 2, "none for a session of nobody's");
  });

  test("lines that are not ours are 502, and set nothing", async () => {
    const [ticket, sync] = await begin(worker);
    const flipped = ticket.replace(
      /^(sid=.{20})./,
      (_, start) => `${start}${ticket[start.length] === "A" ? "B" : "A"}`,
    );
    for (const lines of [
      '["',
      "{}",
      "[]",
      "[1]",
      JSON.stringify([sync]),
      JSON.stringify([ticket, ticket]),
      JSON.stringify([ticket, "sid-sync=x"]),
      JSON.stringify([ticket, "theme=dark"]),
      JSON.stringify([flipped]),
      JSON.stringify(["sid=; Max-Age=0"]),
      JSON.stringify([ticket.replace("sid=", "SID=")]),
    ]) {
      const visitor = worker.visitor();
      answer = { headers: { [SET_COOKIE]: lines } };
      const { status, json, setCookies } = await ask(visitor, "/login");
      assert.deepEqual([status, json.code, setCookies], [502, "bad_gateway", []], lines.slice(0, 40));
    }
    assert.ok(!worker.logs.join("").includes(ticket.slice(4, 60)));
  });

  test("the handle that the origin is told ends the session by the service API", async () => {
    const visitor = worker.visitor();
    answer = { headers: { [SET_COOKIE]: JSON.stringify(await begin(worker)) } };
    await ask(visitor, "/login");
    answer = {};
    assert.equal((await ask(visitor, "/rule")).status, 200);
    const headers = { Authorization: `Bearer ${ADMIN}` };
    const path = `/auth/admin/sessions/${handle}`;
    assert.equal((await worker.visitor().send("DELETE", path, { headers })).status, 204);
    assert.equal((await ask(visitor, "/rule")).status, 401);
  });
});

test("sessions that patches begin are limited per address", async () => {
  const both = await start({}, { limits: { ...NO_LIMITS, mint: "2/1m" } });
  try {
    answer = patching({ a: 1 });
    const all = [];
    for (let count = 0; count < 3; count += 1) all.push(await ask(both.workers[0].visitor()));
    assert.deepEqual([all.map(({ status }) => status), all[2].setCookies], [[200, 200, 429], []]);
  } finally {
    await both.stop();
  }
});

test("a change survives a rotation on the way, and a store that failed before", async () => {
  const both = await start();
  const [worker] = both.workers;
  try {
    const visitor = worker.visitor();
    await visitor.register("ada", PASSWORD);
    for (const minutes of [29, 29, 5]) {
      assert.equal((await visitor.session()).user.name, "ada");
      await moveClocks(both.store, [worker], minutes * 60_000);
    }
    answer = patching({ a: 1 });
    const rotated = await ask(visitor);
    assert.deepEqual([rotated.status, rotated.setCookies.length], [200, 1]);
    assert.deepEqual((await visitor.session()).data, { a: 1 });
    // The store fails when the request arrives, and is there again when the origin has answered.
    answer = patching({ b: 2 });
    both.store.faults.always("refuse");
    beforeAnswer = async () => void both.store.faults.clear();
    assert.equal((await ask(visitor)).status, 200);
    assert.deepEqual((await visitor.session()).data, { a: 1, b: 2 });
  } finally {
    beforeAnswer = async () => {};
    both.store.faults.clear();
    await both.stop();
  }
});

test("where nobody asks for the session it is read for a change alone", async () => {
  const both = await start({ identity: "none" });
  try {
    const visitor = both.workers[0].visitor();
    await visitor.merge({ a: 0 });
    answer = {};
    assert.equal((await both.store.counters.during(() => ask(visitor))).calls, 0);
    answer = patching({ b: 1 });
    const seen = await ask(visitor);
    assert.deepEqual([seen.status, seen.setCookies], [200, []]);
    assert.deepEqual((await visitor.session()).data, { a: 0, b: 1 });
  } finally {
    await both.stop();
  }
});

test("a client without a cookie jar gets its ticket in Session-Token", async () => {
  const both = await start({}, { bearer: { enabled: true } });
  try {
    const headers = { "Session-Transport": "bearer" };
    answer = patching({ a: 1 });
    const begun = await both.workers[0].visitor().send("GET", "/page", { headers });
    const ticket = String(begun.headers.get("session-token"));
    assert.deepEqual([ticket.length, begun.setCookies], [148, []]);
    answer = { headers: { [SET_COOKIE]: JSON.stringify(await begin(both.workers[0])) } };
    const authorized = { ...headers, Authorization: `Bearer ${ticket}` };
    const login = await both.workers[0].visitor().send("GET", "/login", { headers: authorized });
    const replaced = { ...headers, Authorization: `Bearer ${login.headers.get("session-token")}` };
    const session = await both.workers[0].visitor().send("GET", "/auth/session", { headers: replaced });
    assert.equal(session.json.session.user.name, "ada");
  } finally {
    await both.stop();
  }
});

for (const format of ["express", "flask"]) {
  test(`a ${format} application may change all of its record but who is logged in`, async () => {
    const signer = format === "flask" ? { signer: true } : {};
    const cookie = { format, user_pointer: "/user", writable: ["/theme"], ...signer };
    const both = await start({}, {}, cookie);
    const [worker] = both.workers;
    try {
      const visitor = worker.visitor();
      answer = { headers: { [SET_COOKIE]: JSON.stringify(await begin(worker, { remember: true })) } };
      const [line] = (await ask(visitor, "/login")).setCookies;
      assert.match(line, format === "express" ? /; Max-Age=259(2000|1999)$/ : /SameSite=Lax/);
      answer = patching({ cart: [1] });
      assert.equal((await ask(visitor)).status, 200);
      const { user, data } = await visitor.session();
      assert.deepEqual([user.name, data.cart], ["ada", [1]]);
      for (const patch of [{ user: { id: "1" } }, { user: null }]) {
        answer = patching(patch);
        const { status, json } = await ask(visitor);
        assert.deepEqual([status, json.code], [422, "unprocessable"]);
      }
      // The application begins a session of its own and patches it in one answer.
      const newcomer = worker.visitor();
      const [own] = await begin(worker);
      answer = { headers: { ...patching({ cart: [3] }).headers, "Set-Cookie": own } };
      const begun = await ask(newcomer);
      assert.deepEqual([begun.status, begun.setCookies], [200, [own]]);
      assert.deepEqual((await newcomer.session()).data.cart, [3]);
      const forged = own.replace(
        /^(sid=.{15})./,
        (_, start) => `${start}${own[start.length] === "A" ? "B" : "A"}`,
      );
      answer = { headers: { ...patching({ cart: [3] }).headers, "Set-Cookie": forged } };
      assert.equal((await ask(worker.visitor())).status, 502);
      assert.equal((await visitor.session()).user.id, "7");
      assert.equal((await visitor.merge({ cart: [2] })).status, 422, "a visitor may not");
    } finally {
      await both.stop();
    }
  });
}
