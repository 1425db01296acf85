/** The gateway attacked: by requests that no browser sends, by other sites' pages, and by the origin itself. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { sendRaw } from "./support/raw.mjs";
import { fieldsOf, startRawOrigin } from "./support/raw-origin.mjs";
import { NO_LIMITS, randomSecret, startDeployment } from "./support/worker.mjs";

const ADMIN_TOKEN = randomSecret();
const answer = (/** @type {string[]} */ ...lines) =>
  ["HTTP/1.1 200 OK", "Content-Length: 2", ...lines, "", "ok"].join("\r\n");
const ORIGIN = {
  "/toss": answer(
    ...["=sid=x", " = sid=x", "sid=x", "  sid =x", "\tsid\t=x", "sid-sync=x", "=sid-device=x", "mine=1"].map(
      (line) => `Set-Cookie: ${line}; Path=/`,
    ),
  ),
  "/shared": answer("Cache-Control: public, max-age=60"),
  "/own": answer("Cache-Control: no-store"),
  "/hop": answer(
    "Proxy-Authenticate: Basic",
    "Proxy-Connection: close",
    "Keep-Alive: timeout=5",
    "Trailer: Mine",
  ),
  "/101": "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n",
  "/999": "HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\nok",
  "/nonsense": "nonsense\r\n\r\n",
};
const SOCKET = {
  Connection: "Upgrade",
  Upgrade: "websocket",
  "Sec-WebSocket-Version": "13",
  "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
};

/** @type {Awaited<ReturnType<typeof startRawOrigin>>} */
let origin;
/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let both;
let url = "";
let cookie = "";

before(async () => {
  origin = await startRawOrigin(ORIGIN);
  both = await startDeployment([{}], {
    settings: {
      cookie: { name: "sid", secure: false },
      bearer: { enabled: true },
      limits: { ...NO_LIMITS, routes: [{ path: "/search*", limit: "1/1h", by: "ip" }] },
      gateway: {
        origin: origin.url,
        public: ["/assets/*"],
        rules: [
          { path: "/admin*", require: "role:admin" },
          { path: "/files/*", require: "user" },
          { path: "/caf%C3%A9*", require: "user" },
          { path: "/group%2Fproject", require: "user" },
        ],
      },
    },
    secrets: { ADMIN_TOKEN },
  });
  ({ url } = both.workers[0]);
  cookie = `sid=${await login("Ada")}`;
});
after(async () => {
  await both?.stop();
  origin?.stop();
});
beforeEach(() => void (origin.reached.length = 0));

/** The ticket of a user of this name. @param {string} name @param {string[]} [roles] */
async function login(name, roles = []) {
  const body = { user: { id: `id of ${name}`, name, roles } };
  const visitor = both.workers[0].visitor();
  const operator = { Authorization: `Bearer ${ADMIN_TOKEN}` };
  const { status, json } = await visitor.tell("POST", "/admin/sessions", body, operator);
  assert.equal(status, 201);
  visitor.accept(json.set_cookie);
  return visitor.cookies.get("sid");
}

/**
 * Sends a head as it is, and the fields that have reached the origin, or none if it was not asked.
 * @param {string} target @param {Record<string, string> | string[]} [headers] @param {{ method?: string, body?: string }} [more]
 */
async function send(target, headers = {}, { method = "GET", body = "" } = {}) {
  origin.reached.length = 0;
  const lines = Array.isArray(headers)
    ? headers
    : Object.entries(headers).map(([name, value]) => `${name}: ${value}`);
  const isClosed = !lines.some((line) => /^(connection|upgrade):/i.test(line));
  const head = [`${method} ${target} HTTP/1.1`, `Host: ${new URL(url).host}`, ...lines];
  if (isClosed) head.push("Connection: close");
  const text = await sendRaw(url, `${head.join("\r\n")}\r\n\r\n${body}`);
  const [reached] = origin.reached;
  return {
    status: Number(text.slice(9, 12)),
    code: /"code":"(\w+)"/.exec(text)?.[1],
    text,
    path: reached?.split(" ")[1],
    fields: reached === undefined ? undefined : fieldsOf(reached),
  };
}

describe("a request", () => {
  test("that could be two is none, or the same one for everybody", async () => {
    const inner = `GET /admin/hidden HTTP/1.1\r\nHost: a\r\n\r\n`;
    for (const [headers, body] of /** @type {[string[], string][]} */ ([
      [["Content-Length: 6", "Transfer-Encoding: chunked"], `0\r\n\r\n${inner}`],
      [["Transfer-Encoding: chunked", "Content-Length: 4"], `0\r\n\r\n${inner}`],
      [["Transfer-Encoding : chunked", "Content-Length: 4"], `0\r\n\r\n${inner}`],
      [["Transfer-Encoding: xchunked", "Content-Length: 4"], `0\r\n\r\n${inner}`],
      [["Transfer-Encoding: chunked, identity"], `0\r\n\r\n${inner}`],
      [["Content-Length: 4", "Content-Length: 60"], `body${inner}`],
      [["Content-Length: 4, 60"], `body${inner}`],
      [["Content-Length: +4"], `body${inner}`],
      [["Content-Length: -1"], `body${inner}`],
      [["X-A: b", " Content-Length: 60", "Content-Length: 4"], `body${inner}`],
      [["X-A: b\rContent-Length: 60", "Content-Length: 4"], `body${inner}`],
      [["X-A: b\0", "Content-Length: 4"], `body${inner}`],
    ])) {
      await send("/a", headers, { method: "POST", body });
      const paths = origin.reached.map((head) => head.split(" ")[1]);
      assert.ok(paths.length <= 1 && paths.every((path) => path === "/a"), `${headers}: ${paths}`);
      assert.ok(!origin.reached.join("").includes("hidden"), `${headers}`);
    }
  });

  test("for another host, or for a path in a form of its own, is matched as what is passed on", async () => {
    const { host } = new URL(url);
    for (const target of [
      `http://${host}/admin/x`,
      "http://evil.example/admin/x",
      "/x/../admin/x",
      "/x/%2e%2e/admin/x",
      "/x\\..\\admin\\x",
      "\\admin/x",
      "//admin/x",
      "//evil.example/admin/x",
      "/admin/x#/assets/y",
      "/admin\t/x",
      "admin/x",
      "@evil.example/admin/x",
      "*",
    ]) {
      const { status, path } = await send(target);
      assert.ok(status >= 400 || path === undefined || !path.startsWith("/admin"), `${target}: ${path}`);
    }
    for (const host of ["a/admin?", "a#", "a@b", "evil.example, a"]) {
      origin.reached.length = 0;
      await sendRaw(url, `GET /admin/x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
      assert.deepEqual(origin.reached, [], host);
    }
  });

  test("whose path may be read as one with another rule or limit is refused", async () => {
    for (const path of [
      "/files%2fx",
      "/files%5Cx",
      "/files%252fx",
      "/x/%252e%252e/files/y",
      "/files;x=1/y",
      "/files%3bx/y",
      "/;x/files/y",
      "/%2ffiles/x",
      "/%5cfiles/x",
      "/x%2f..%2ffiles/x",
      "/files./x",
      "/files%20/x",
      "/files%00/x",
      "/%2561dmin",
      "/assets;x/y",
      "/caf%c3%a9",
      "/%73earch",
      "/;/search",
      "/%2fsearch",
      "/%2573earch",
    ]) {
      for (const headers of [[], [`Cookie: ${cookie}`]]) {
        const { status, code, fields } = await send(path, headers);
        assert.deepEqual([status, code, fields], [400, "bad_request", undefined], path);
      }
    }
    // They have their uses elsewhere.
    for (const path of [
      "/a%2Fb",
      "/a;v=1/b",
      "/x/y.",
      "/a%20b",
      "/%C3%A9",
      "/assets/x;v=1",
      "/assets/a%2fb",
    ]) {
      assert.deepEqual([(await send(path)).path], [path]);
    }
    for (const path of ["/files/a%2fb", "/files/x;v=1", "/caf%C3%A9/x", "/group%2Fproject"]) {
      assert.equal((await send(path)).status, 401, path);
      assert.equal((await send(path, { Cookie: cookie })).path, path);
    }
  });

  test("says nothing of who asks, from where and for what that the origin could take for ours", async () => {
    const names = [
      "Session-User",
      "Session-Jwt",
      "Forwarded-For",
      "Forwarded-User",
      "Forwarded-Prefix",
      "Forwarded",
    ]
      .concat(["Original-URL", "Original-Host", "Rewrite-URL", "Real-IP", "Client-IP", "Host"])
      .map((name) => `X-${name}`)
      .concat(["Forwarded", "Forwarded-For", "Client-IP", "True-Client-IP", "Fastly-Client-IP"]);
    const forged = names.flatMap((name) => [
      name,
      name.replaceAll("-", "_"),
      name.replace("-", "_").toUpperCase(),
    ]);
    const { fields = {} } = await send("/a", [
      ...forged.map((name) => `${name}: forged`),
      "Connection: close, X-Forwarded-Proto, X-Session-User, Cookie, X-A",
      "X-A: forged",
    ]);
    assert.doesNotMatch(JSON.stringify(fields), /forged/);
    const { host } = new URL(url);
    assert.deepEqual(
      [fields["x-forwarded-for"], fields["x-forwarded-host"], fields["x-forwarded-proto"]],
      ["127.0.0.1", host, "http"],
    );
  });

  test("whose name has lines of its own makes no header line", async () => {
    for (const name of [
      "a\r\nX-Session-Roles: admin",
      "Ада, Ünal",
      "a\tb\u0000\u007f",
      '%41;,="',
      "\u2028\ud83d\ude00",
    ]) {
      const ticket = await login(
        name,
        ["a b", "ä\n"].filter((role) => !/[\n,]/.test(role)),
      );
      const { fields = {} } = await send("/a", { Cookie: `sid=${ticket}` });
      assert.deepEqual(
        [fields["x-session-name"], fields["x-session-user"], fields["x-session-roles"]].map((value) =>
          decodeURIComponent(String(value)),
        ),
        [name, `id of ${name}`, "a b"],
      );
      assert.match(String(fields["x-session-name"]), /^[\w%.~-]+$/);
    }
  });

  test("keeps our cookies from the origin, however they are joined", async () => {
    for (const [lines, left] of /** @type {[string[], string | undefined][]} */ ([
      [[`Cookie: a=1; ${cookie}; b=2`], "a=1; b=2"],
      [["Cookie: a=1", `Cookie: ${cookie}`], undefined],
      [[`Cookie: ${cookie}`, "Cookie: a=1"], undefined],
      [[`Cookie: a=1;${cookie};${cookie}`], "a=1"],
      [[`Cookie: a=1;\t${cookie} ; "sid"=b`], 'a=1; "sid"=b'],
    ])) {
      const { fields } = await send("/a", lines);
      assert.equal(fields?.cookie, left, `${lines}`);
    }
  });

  test("of a method that no gateway passes on is told so", async () => {
    const body = { body: "hello", method: "GET" };
    const withBody = await send("/a", ["Content-Length: 5"], body);
    assert.deepEqual([withBody.status, withBody.code, withBody.fields], [400, "bad_request", undefined]);
    const trace = await send("/a", { Cookie: cookie }, { method: "TRACE" });
    assert.deepEqual([trace.status, trace.code, trace.fields], [405, "method_not_allowed", undefined]);
    const options = await send("/a", ["Content-Length: 5"], { body: "hello", method: "OPTIONS" });
    assert.equal(options.status, 200);
  });
});

test("a page of another site asks for nobody, not by a WebSocket either", async () => {
  const { host } = new URL(url);
  for (const [headers, isKnown, method] of /** @type {[Record<string, string>, boolean, string?][]} */ ([
    [{}, true],
    [{ Origin: "https://evil.example" }, false, "POST"],
    [{ "Sec-Fetch-Site": "same-site" }, false, "POST"],
    [{ "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors" }, false],
    [{ "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors" }, false, "OPTIONS"],
    [{ "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate" }, true],
    [{ ...SOCKET }, true],
    [{ ...SOCKET, Origin: `http://${host}` }, true],
    [{ ...SOCKET, Origin: "https://evil.example" }, false],
    [{ ...SOCKET, Origin: "null" }, false],
    [{ ...SOCKET, Origin: `http://evil.${host}`, "Sec-Fetch-Site": "same-site" }, false],
    [{ ...SOCKET, Origin: "https://evil.example", "Sec-Fetch-Site": "cross-site" }, false],
  ])) {
    const all = { Cookie: cookie, "Content-Length": "0", ...headers };
    const { fields } = await send("/a", all, { method });
    assert.equal(fields?.["x-session-name"], isKnown ? "Ada" : undefined, JSON.stringify(headers));
    if (!isKnown) assert.equal(fields?.["x-session-handle"], undefined);
  }
});

describe("an origin", () => {
  const setCookies = (/** @type {string} */ text) =>
    [...text.matchAll(/^set-cookie: *([^\r]*)/gim)].map(([, line]) => line);

  test("sets no cookie of our names, not one without a name either", async () => {
    assert.deepEqual(setCookies((await send("/toss")).text), ["mine=1; Path=/"]);
  });

  test("tells the visitor nothing of its own connection", async () => {
    const { text } = await send("/hop");
    assert.match(text, /^HTTP\/1.1 200 /);
    assert.doesNotMatch(text, /^(proxy-|keep-alive:|trailer:)/im);
  });

  test("makes no answer with a ticket one that caches share", async () => {
    const caching = (/** @type {string} */ text) => text.match(/^cache-control: *([^\r]*)/im)?.[1];
    for (const [path, own, withTicket] of [
      ["/shared", "public, max-age=60", "private"],
      ["/own", "no-store", "no-store"],
    ]) {
      const headers = { Cookie: `sid=${await login("Grace")}` };
      const before = await send(path, headers);
      assert.deepEqual([setCookies(before.text), caching(before.text)], [[], own]);
      await both.workers[0].moveClock(61 * 60_000);
      const renewed = await send(path, headers);
      assert.match(setCookies(renewed.text)[0] ?? "", /^sid=/);
      assert.equal(caching(renewed.text), withTicket);
    }
  });

  test("that answers nonsense is 502, and logs nobody out", async () => {
    for (const path of ["/101", "/999", "/nonsense"]) {
      const { status, code, text } = await send(path, { Cookie: cookie });
      assert.deepEqual([status, code, setCookies(text)], [502, "bad_gateway", []], path);
    }
  });
});

test("a client without cookies gets its new ticket through the gateway", async () => {
  const headers = { "Session-Transport": "bearer", Authorization: `Bearer ${await login("Bea")}` };
  const first = await send("/shared", headers);
  assert.deepEqual([first.fields?.["x-session-name"], first.fields?.authorization], ["Bea", undefined]);
  assert.match(first.text, /^vary: .*cookie, authorization/im);
  await both.workers[0].moveClock(61 * 60_000);
  const { text } = await send("/shared", headers);
  assert.match(text, /^session-token: \S{40,}/im);
  assert.match(text, /^cache-control: private\r/im);
  assert.doesNotMatch(text, /^set-cookie/im);
});
