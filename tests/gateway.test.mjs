/** The gateway in front of a real origin: an HTTP server of Node's that tells what has reached it. */
import assert from "node:assert/strict";
import { createServer, get } from "node:http";
import { after, before, describe, test } from "node:test";
import { NO_LIMITS, startDeployment } from "./support/worker.mjs";

const PASSWORD = "correct horse battery";
const ADMIN = "an admin token of the tests, 2026-11-28";

/** @type {import("node:http").Server} */
let server;
let origin = "";
/** What has reached the origin. @type {{ method?: string, url?: string, headers: import("node:http").IncomingHttpHeaders, body: string }[]} */
let seen = [];

before(async () => {
  server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const { method, url, headers } = request;
    seen.push({ method, url, headers, body: Buffer.concat(chunks).toString() });
    if (url === "/hang") return;
    if (url === "/moved")
      return void response.writeHead(302, { Location: "https://elsewhere.example/" }).end();
    if (url === "/cookies") response.setHeader("Set-Cookie", ["sid=stolen", "theme=dark; Path=/"]);
    if (url === "/cached") response.setHeader("Cache-Control", "public, max-age=60");
    response.setHeader("X-Origin", "yes");
    response.end(`${method} ${url}`);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  origin = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

/** @param {object} gateway @param {object} [more] */
const start = (gateway, more = {}) =>
  startDeployment([{}], {
    settings: { cookie: { name: "sid", secure: false }, gateway: { origin, ...gateway }, ...more },
    secrets: { ADMIN_TOKEN: ADMIN },
  });

/** @param {{ url: string }} worker @param {string} path @param {RequestInit} [init] */
async function ask({ url }, path, init = {}) {
  seen = [];
  const response = await fetch(url + path, { redirect: "manual", ...init });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

/**
 * As a browser navigates: Node's `fetch` says of itself that it does not.
 * @param {{ url: string }} worker @param {string} path @param {Record<string, string>} headers
 */
const navigate = ({ url }, path, headers) =>
  new Promise((done, fail) => {
    get(url + path, { headers }, (response) => {
      response.resume();
      done([response.statusCode, response.headers.location]);
    }).on("error", fail);
  });

describe("a gateway with rules", () => {
  /** @type {Awaited<ReturnType<typeof startDeployment>>} */
  let both;
  /** @type {import("./support/visitor.mjs").Visitor} */
  let ada;
  before(async () => {
    both = await start(
      {
        public: ["/assets/*"],
        rules: [
          { path: "/dashboard*", require: "user", on_refused: "redirect:/login" },
          { path: "/dashboard/help", require: "none" },
          { path: "/admin/*", require: "role:admin" },
          { path: "/danger", require: "fresh", on_refused: "redirect:/login?why=fresh" },
        ],
      },
      {
        limits: { ...NO_LIMITS, routes: [{ path: "/limited", limit: "2/1m" }] },
        session: { rotate_every: "1h" },
      },
    );
    ada = both.workers[0].visitor();
    assert.equal((await ada.register("ada", PASSWORD)).status, 201);
  });
  after(() => both.stop());
  const cookie = () => ({ cookie: `sid=${ada.cookies.get("sid")}` });

  test("method, path, query and body reach the origin, and its answer the visitor", async () => {
    const answer = await ask(both.workers[0], "/a/b?x=1&x=%20", { method: "PUT", body: "hello" });
    assert.deepEqual(
      [answer.status, answer.text, answer.headers.get("x-origin")],
      [200, "PUT /a/b?x=1&x=%20", "yes"],
    );
    assert.deepEqual([seen[0].method, seen[0].body], ["PUT", "hello"]);
  });

  test("redirects are the visitor's to follow", async () => {
    const answer = await ask(both.workers[0], "/moved");
    assert.deepEqual([answer.status, answer.headers.get("location")], [302, "https://elsewhere.example/"]);
  });

  test("the origin is told who asks, and never by the visitor", async () => {
    const forged = {
      "x-session-user": "root",
      x_session_roles: "admin",
      "X-Session-Jwt": "x",
      "x-forwarded-for": "1.1.1.1",
    };
    await ask(both.workers[0], "/", {
      headers: { ...forged, forwarded: "for=1.1.1.1", "x-real-ip": "1.1.1.1" },
    });
    for (const name of ["x-session-user", "x_session_roles", "x-session-jwt", "forwarded"]) {
      assert.equal(seen[0].headers[name], undefined, name);
    }
    assert.doesNotMatch(JSON.stringify(seen[0].headers), /1\.1\.1\.1/);
    const answer = await ask(both.workers[0], "/", { headers: { ...cookie(), ...forged } });
    const { headers } = seen[0];
    assert.deepEqual([headers["x-session-name"], headers["x-session-roles"]], ["ada", undefined]);
    assert.match(String(headers["x-session-user"]), /^[\w-]+$/);
    assert.match(String(headers["x-session-handle"]), /^[\w-]{24}$/);
    assert.equal(headers["x-forwarded-host"], new URL(both.workers[0].url).host);
    assert.equal(headers["x-forwarded-proto"], "http");
    assert.match(String(answer.headers.get("vary")), /Cookie/);
    assert.equal(answer.headers.get("cache-control"), "private");
  });

  test("our cookies and tokens are cut out, others stay", async () => {
    const headers = {
      cookie: `a=1; sid=${ada.cookies.get("sid")}; sid-device=x; b=2`,
      authorization: `Bearer ${ADMIN}`,
    };
    await ask(both.workers[0], "/", { headers });
    assert.deepEqual([seen[0].headers.cookie, seen[0].headers.authorization], ["a=1; b=2", undefined]);
    await ask(both.workers[0], "/", { headers: { cookie: "a=1", authorization: "Bearer theirs" } });
    assert.deepEqual([seen[0].headers.cookie, seen[0].headers.authorization], ["a=1", "Bearer theirs"]);
  });

  test("cookies of our names that the origin sets are dropped, others kept; its caching is its own", async () => {
    const answer = await ask(both.workers[0], "/cookies");
    assert.deepEqual(answer.headers.getSetCookie(), ["theme=dark; Path=/"]);
    assert.equal((await ask(both.workers[0], "/cached")).headers.get("cache-control"), "public, max-age=60");
  });

  test("who is not logged in gets 401 or, as a navigation, the login page with the way back", async () => {
    const plain = await ask(both.workers[0], "/dashboard/x?y=1");
    assert.deepEqual([plain.status, JSON.parse(plain.text).code], [401, "unauthenticated"]);
    for (const [name, value] of [
      ["sec-fetch-mode", "navigate"],
      ["accept", "text/html,*/*;q=0.8"],
    ]) {
      const page = await navigate(both.workers[0], "/dashboard/x?y=1&z=%2f", { [name]: value });
      assert.deepEqual(page, [303, "/login?return_to=%2Fdashboard%2Fx%3Fy%3D1%26z%3D%252f"]);
    }
    assert.equal(seen.length, 0, "the origin was not asked");
    assert.equal((await ask(both.workers[0], "/dashboard/help")).status, 200);
    assert.equal((await ask(both.workers[0], "/dashboard", { headers: cookie() })).status, 200);
  });

  test("a role that is missing is 403, a stale login 403 or the login page", async () => {
    const { status, text } = await ask(both.workers[0], "/admin/x", { headers: cookie() });
    assert.deepEqual([status, JSON.parse(text).code, seen.length], [403, "forbidden", 0]);
    assert.equal((await ask(both.workers[0], "/danger", { headers: cookie() })).status, 200);
  });

  test("paths that an origin could read otherwise are refused", async () => {
    for (const path of [
      "//dashboard",
      "/a//b",
      "/%64ashboard",
      "/x/..%2fdashboard",
      "/x/..;/dashboard",
      "/..%5cdashboard",
    ]) {
      const { status, text } = await ask(both.workers[0], path);
      assert.deepEqual([status, JSON.parse(text).code, seen.length], [400, "bad_request", 0], path);
    }
  });

  test("limits of routes hold before the origin is asked", async () => {
    const visitor = both.workers[0].visitor();
    await visitor.merge({ a: 1 });
    const headers = { cookie: `sid=${visitor.cookies.get("sid")}` };
    const all = await Promise.all(
      Array.from({ length: 6 }, () => fetch(`${both.workers[0].url}/limited`, { headers })),
    );
    assert.deepEqual(all.map(({ status }) => status).sort(), [200, 200, 429, 429, 429, 429]);
  });

  test("public paths cost no call to the store, others one with a ticket and none without", async () => {
    const calls = async (/** @type {string} */ path, headers = {}) =>
      (await both.store.counters.during(() => ask(both.workers[0], path, { headers }))).calls;
    assert.deepEqual(
      [await calls("/assets/x.js", cookie()), await calls("/other"), await calls("/other", cookie())],
      [0, 0, 1],
    );
  });

  test("a page of another site asks for nobody", async () => {
    const headers = { ...cookie(), "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" };
    await ask(both.workers[0], "/", { headers });
    assert.equal(seen[0].headers["x-session-user"], undefined);
    assert.equal((await ask(both.workers[0], "/dashboard", { headers, method: "POST" })).status, 401);
  });

  test("an id that is due for a new one gets it on the way", async () => {
    const grace = both.workers[0].visitor();
    assert.equal((await grace.register("grace", PASSWORD)).status, 201);
    await both.workers[0].moveClock(61 * 60_000);
    const answer = await ask(both.workers[0], "/", {
      headers: { cookie: `sid=${grace.cookies.get("sid")}` },
    });
    assert.equal(answer.headers.getSetCookie().filter((line) => line.startsWith("sid=")).length, 1);
    assert.equal(seen[0].headers["x-session-name"], "grace");
  });

  test("a store that fails concerns only what needs the session", async () => {
    const lives = both.workers[0].visitor();
    assert.equal((await lives.register("lives", PASSWORD)).status, 201);
    const headers = { cookie: `sid=${lives.cookies.get("sid")}` };
    both.store.faults.always("refuse");
    try {
      assert.equal((await ask(both.workers[0], "/dashboard", { headers })).status, 503);
      assert.equal((await ask(both.workers[0], "/free", { headers })).status, 200);
      assert.equal(seen[0].headers["x-session-user"], undefined);
    } finally {
      both.store.faults.clear();
    }
  });
});

test("an origin that does not answer in time is 504, one that is not there 502; nobody is logged out", async () => {
  const slow = await start({ timeout: "300ms" });
  try {
    const visitor = slow.workers[0].visitor();
    await visitor.merge({ a: 1 });
    const headers = { cookie: `sid=${visitor.cookies.get("sid")}` };
    const late = await ask(slow.workers[0], "/hang", { headers });
    assert.deepEqual([late.status, JSON.parse(late.text).code], [504, "bad_gateway"]);
    assert.deepEqual(late.headers.getSetCookie(), []);
  } finally {
    await slow.stop();
  }
  const gone = await start({ origin: "http://127.0.0.1:1" });
  try {
    const answer = await ask(gone.workers[0], "/");
    assert.deepEqual([answer.status, JSON.parse(answer.text).code], [502, "bad_gateway"]);
    assert.equal((await gone.workers[0].visitor().look()).status, 200);
  } finally {
    await gone.stop();
  }
});

test("a preflight is the origin's to answer, also under a rule, and says nobody asks", async () => {
  const deployment = await start({ rules: [{ path: "/members*", require: "user" }] });
  try {
    const preflight = { Origin: "https://www.example.com", "Access-Control-Request-Method": "PUT" };
    const headers = { ...preflight, Cookie: "sid=x; theme=dark", "X-Session-User": "forged" };
    /** @type {Record<string, string>[]} */
    const senders = [{}, { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors" }];
    for (const more of senders) {
      const init = { method: "OPTIONS", headers: { ...headers, ...more } };
      const answer = await ask(deployment.workers[0], "/members/1", init);
      assert.deepEqual([answer.status, answer.text], [200, "OPTIONS /members/1"]);
      assert.equal(seen[0]?.headers["x-session-user"], undefined);
    }
    const bare = await ask(deployment.workers[0], "/members/1", { method: "OPTIONS" });
    assert.deepEqual([bare.status, seen.length], [401, 0], "what is no preflight is under the rule");
  } finally {
    await deployment.stop();
  }
});
