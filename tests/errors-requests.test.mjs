/** Refused requests: no session, another site, an unknown path or method, a conflict, a condition that does not match. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect } from "node:net";
import { describe, test } from "node:test";
import {
  assertNoBody,
  assertProblem,
  assertRefused,
  contents,
  DATA,
  guest,
  MARK,
  MERGE,
  ROUTES,
  signing,
  start,
  store,
  stranger,
  Watched,
  worker,
} from "./support/errors.mjs";

/** @typedef {import("./support/errors.mjs").Answer} Answer */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** The methods that workerd passes on to a Worker. */
const METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "QUERY"];

describe("401", () => {
  test("a rotation needs a session", async () => {
    const expected = { status: 401, code: "unauthenticated", calls: 0 };
    await assertRefused(() => stranger().rotate(), expected);
  });

  for (const [name, act] of /** @type {[string, (visitor: Visitor) => Promise<Answer>][]} */ ([
    ["change", (visitor) => visitor.merge({ views: 2 })],
    ["rotation", (visitor) => visitor.rotate()],
  ])) {
    test(`a ${name} of a session that ends meanwhile creates nothing, and removes the cookie`, async () => {
      const visitor = await guest();
      await visitor.forget();
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
  test("a page of another site changes nothing, and costs no call to the store", async () => {
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
    test(`${path.slice(0, 60)} is not found, whatever the method`, async () => {
      const visitor = await guest();
      for (const method of ["GET", "POST", "PATCH", "DELETE", "OPTIONS"]) {
        const act = () => visitor.send(method, path);
        await assertRefused(act, { status: 404, code: "not_found", calls: 0 });
      }
    });
  }

  for (const [path, hint] of [
    ["/auth/session/", "did you mean /auth/session?"],
    ["/auth//session", "did you mean /auth/session?"],
    ["/AUTH/Session", "did you mean /auth/session?"],
    ["/session", "did you mean /auth/session?"],
    ["/session/data/", "did you mean /auth/session/data?"],
    ["/login", "did you mean /auth/login?"],
    ["/auth/sessions/x/", "did you mean /auth/sessions/{handle}?"],
    ["/auth", "the routes are below it, such as /auth/session"],
    ["/auth/", "the routes are below it, such as /auth/session"],
    ["/auth/admin/stats/", undefined],
    ["/auth/nowhere", undefined],
  ]) {
    test(`${path} is answered with ${hint ? `a hint: ${hint}` : "no hint"}`, async () => {
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const { status, json } = await stranger().send(method, String(path));
        assert.equal(status, 404);
        assert.equal(json.detail, `there is nothing at this path${hint ? `: ${hint}` : ""}`);
      }
    });
  }

  test("the routes are where base_path says, and nowhere else", async () => {
    const moved = await start({
      settings: { base_path: "/api/coats" },
      secrets: { SESSION_SECRET: signing },
    });
    const bare = await start({ settings: { base_path: "" }, secrets: { SESSION_SECRET: signing } });
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

  test("a query and a fragment are not part of the path", async () => {
    assert.equal((await stranger().send("GET", "/auth/session?x=/y#/z")).status, 200);
  });
});

describe("405", () => {
  for (const { path, methods } of ROUTES) {
    for (const method of METHODS.filter((each) => !methods.includes(each) && each !== "OPTIONS")) {
      test(`${method} ${path} is not allowed, and the answer lists the methods that are`, async () => {
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

describe("405 with a hint", () => {
  for (const [method, path, hint] of [
    ["POST", "/auth/session", "PATCH /auth/session/data"],
    ["PUT", "/auth/session", "PATCH /auth/session/data"],
    ["PATCH", "/auth/session", "PATCH /auth/session/data"],
    ["GET", "/auth/session/data", "GET /auth/session"],
    ["POST", "/auth/session/data", "allowed: PATCH"],
    ["DELETE", "/auth/session/data", "DELETE /auth/session"],
    ["POST", "/auth/sessions", "PATCH /auth/session/data"],
    ["GET", "/auth/sessions/x", "GET /auth/sessions"],
    ["GET", "/auth/login", "GET /auth/session"],
    ["GET", "/auth/logout", "POST /auth/logout"],
    ["PUT", "/auth/profile", "allowed: GET, HEAD, PATCH"],
    ["POST", "/auth/account", "POST /auth/register"],
  ]) {
    test(`${method} ${path}: ${hint}`, async () => {
      const { status, headers, json } = await stranger().send(String(method), String(path));
      assert.equal(status, 405);
      assert.ok(json.detail.endsWith(hint), json.detail);
      assert.ok(json.detail.includes(`allowed: ${headers.get("allow")}`), json.detail);
    });
  }
});

describe("OPTIONS", () => {
  for (const { path, methods } of ROUTES) {
    test(`for ${path} answers with the methods that are there, without a call to the store`, async () => {
      for (const someone of [await guest(), stranger()]) {
        const { value: answer, calls } = await store.counters.during(() => someone.send("OPTIONS", path));
        assert.equal(answer.status, 204);
        assert.equal(answer.headers.get("allow"), methods.join(", "));
        assertNoBody(answer);
        assert.deepEqual(answer.setCookies, []);
        assert.equal(calls, 0);
      }
    });
  }
});

describe("409", () => {
  for (const [name, act] of /** @type {[string, (visitor: Visitor) => Promise<Answer>][]} */ ([
    ["change", (visitor) => visitor.increment("/views")],
    ["rotation", (visitor) => visitor.rotate()],
  ])) {
    test(`a ${name} of a session that keeps changing is given up at the deadline`, async () => {
      const visitor = await guest();
      const session = await visitor.session();
      const key = `sess:${session.handle}`;
      let attempts = 0;
      /** Another name for the state, just before it is replaced. @type {import("../tools/local-store/faults.mjs").Semantics} */
      const semantics = async ({ commands, ...options }, run) => {
        const name = `"rev":"${String(attempts).padStart(16, "A")}"`;
        const stored = String(await store.redis.get(key)).replace(/"rev":"[^"]*"/, name);
        await store.redis.sendCommand(["SET", key, stored, "KEEPTTL"]);
        return run(commands, options);
      };
      store.faults.always(
        { semantics },
        {
          when: ({ commands }) => {
            const replaces = commands.some(
              (command) => command.includes("IFEQ") || /^EVAL/.test(command[0] ?? ""),
            );
            if (replaces && ++attempts === 5) void worker.moveClock(60_000, { settle: false });
            return replaces;
          },
        },
      );
      assertProblem(await act(visitor), 409, "conflict");
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
    test(`If-Match: ${ifMatch.slice(0, 30)} does not match the session`, async () => {
      const visitor = await guest();
      const expected = { status: 412, code: "precondition_failed", calls: 1 };
      await assertRefused(() => visitor.merge({ views: 2 }, { "If-Match": ifMatch }), expected);
    });
  }

  test("the session's own tag does not match when it is weak, cut or without its quotes", async () => {
    const visitor = await guest();
    const etag = (await visitor.look()).headers.get("etag") ?? "";
    assert.match(etag, /^"[^"]+"$/);
    const expected = { status: 412, code: "precondition_failed", calls: 1 };
    for (const tag of [`W/${etag}`, etag.slice(1, -1), etag.slice(0, -1), etag.toUpperCase(), `${etag}x`]) {
      await assertRefused(() => visitor.merge({ views: 2 }, { "If-Match": tag }), expected);
    }
    await assertRefused(() => visitor.patch([], { "If-Match": `W/${etag}` }), expected);
  });

  test("a list with the session's tag in it matches, and so does *", async () => {
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

  test("without a session no condition matches, not even *, and no session is created", async () => {
    for (const ifMatch of ["*", '"a"']) {
      const act = () => stranger().merge({ views: 2 }, { "If-Match": ifMatch });
      await assertRefused(act, { status: 412, code: "precondition_failed", calls: 0 });
    }
  });

  test("a tag from before the last change does not match", async () => {
    const visitor = await guest();
    const etag = (await visitor.look()).headers.get("etag") ?? "";
    await visitor.increment("/views");
    const act = () => visitor.merge({ views: 0 }, { "If-Match": etag });
    await assertRefused(act, { status: 412, code: "precondition_failed", calls: 1 });
  });
});

describe("unusual clients", () => {
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

  test("a client that disconnects in the middle of a body changes nothing and disturbs nobody", async () => {
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

  test("a client that disconnects during a call to the store disturbs nobody", async () => {
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

  test("parallel refusals and changes each get their own answer", async () => {
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
