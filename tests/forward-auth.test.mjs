/** verify, as proxies ask it: by any method, below any path, with whatever their visitor's browser has sent. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { FAST_HASH, randomSecret, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const ADMIN_TOKEN = randomSecret();
const FRONT = "https://front.example";
const METHODS = [
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "PATCH",
  "DELETE",
  "OPTIONS",
  "PROPFIND",
  "REPORT",
  "QUERY",
  "TRACE",
];
const PATHS = [
  "/auth/verify",
  "/auth/verify/",
  "/auth/verify/some/page",
  "/auth/verify//x/%2e%2f/ä;b",
  "/auth/verify/auth/login",
];

const { store, worker, stop } = await startBoth({
  settings: {
    password: FAST_HASH,
    cors: { origins: [FRONT] },
    limits: {
      session: "",
      mint: "",
      login: "",
      routes: [{ path: "/auth/verify/limited*", limit: "3/1m" }],
    },
  },
  secrets: { ADMIN_TOKEN },
});
after(stop);

let count = 0;
/** A visitor with these roles. @param {string[]} roles */
async function user(roles = ["editor"]) {
  const visitor = worker.visitor();
  const body = { user: { id: `u${(count += 1)}`, name: "Ada", roles } };
  const made = await worker
    .visitor()
    .tell("POST", "/admin/sessions", body, { Authorization: `Bearer ${ADMIN_TOKEN}` });
  assert.equal(made.status, 201, made.text);
  const [line] = [made.json.set_cookie].flat();
  visitor.ticket = String(line).match(/^__Host-session=([^;]+)/)?.[1];
  return visitor;
}

/** @param {Answer} answer */
function assertIdentified(answer) {
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.text, "");
  assert.equal(answer.headers.get("x-session-user"), `u${count}`);
  assert.deepEqual(answer.setCookies, []);
}

/** @param {Answer} answer @param {number} status @param {string} code */
function assertRefused(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  if (answer.text) assert.equal(answer.json.code, code);
  assert.equal(answer.headers.get("x-session-user"), null);
  assert.deepEqual(answer.setCookies, []);
}

describe("verify", () => {
  for (const method of METHODS) {
    test(`by ${method} and below any path knows the visitor, and a stranger`, async () => {
      const visitor = await user();
      for (const path of PATHS) {
        const { value: answer, calls } = await store.counters.during(() => visitor.send(method, path));
        assertIdentified(answer);
        assert.equal(calls, 1, path);
        assertRefused(await worker.visitor().send(method, path), 401, "unauthenticated");
      }
    });
  }

  test("looks at neither Origin nor Sec-Fetch-Site, and answers no preflight itself", async () => {
    const visitor = await user();
    const browsers = [
      { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", Origin: "https://evil.example" },
      { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors" },
      { "Sec-Fetch-Site": "same-site" },
      { Origin: "null" },
      { Origin: FRONT },
      { Origin: FRONT, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "x" },
    ];
    for (const headers of browsers) {
      for (const method of ["GET", "POST", "DELETE", "OPTIONS"]) {
        for (const path of ["/auth/verify", "/auth/verify/page"]) {
          const send = { headers: /** @type {any} */ (headers) };
          const answer = await visitor.send(method, path, send);
          assertIdentified(answer);
          assert.deepEqual(
            [...answer.headers.keys()].filter((name) => name.startsWith("access-control-")),
            [],
          );
          assertRefused(await worker.visitor().send(method, path, send), 401, "unauthenticated");
        }
      }
    }
  });

  test("does not mind a body, whatever its size, type and encoding", async () => {
    const visitor = await user();
    for (const body of ["{", "x".repeat(300_000), "x".repeat(1_000_000), gzipSync("x")]) {
      for (const headers of [{}, { "Content-Type": "text/plain", "Content-Encoding": "gzip" }]) {
        for (const chunked of [false, true]) {
          for (const path of ["/auth/verify", "/auth/verify/upload"]) {
            const send = { headers: /** @type {any} */ (headers), body, chunked };
            assertIdentified(await visitor.send("POST", path, send));
          }
        }
      }
    }
  });

  test("asks for a role in its own query alone: below it, the query is the visitor's", async () => {
    const visitor = await user(["editor", "a=b&c"]);
    for (const [query, status, code] of /** @type {[string, number, string][]} */ ([
      ["?role=editor", 200, ""],
      ["?role=a%3Db%26c", 200, ""],
      ["?role=admin", 403, "forbidden"],
      ["?role=edit", 403, "forbidden"],
      ["?role=editor&x=1", 400, "bad_request"],
      ["?role=editor&role=admin", 400, "bad_request"],
      ["?x=1&role=editor", 400, "bad_request"],
      ["?role=", 400, "bad_request"],
      ["?role", 400, "bad_request"],
      ["?Role=editor", 400, "bad_request"],
      ["?x=1", 400, "bad_request"],
    ])) {
      for (const method of ["GET", "POST", "OPTIONS"]) {
        const answer = await visitor.send(method, `/auth/verify${query}`);
        if (status === 200) assertIdentified(answer);
        else assertRefused(answer, status, code);
      }
      assertIdentified(await visitor.send("GET", `/auth/verify/page${query}`));
      const withSlash = await visitor.send("GET", `/auth/verify/${query}`);
      if (status === 403) assertRefused(withSlash, status, code);
      else assertIdentified(withSlash);
    }
  });

  test("never rotates, also where the id's rotation is due", async () => {
    const visitor = await user();
    const { handle } = await visitor.session();
    for (let step = 0; step < 3; step += 1) {
      await worker.moveClock(21 * 60_000);
      for (const path of ["/auth/verify", "/auth/verify/page"]) {
        const answer = await visitor.send("POST", path);
        assertIdentified(answer);
        assert.equal(answer.headers.get("x-session-handle"), handle);
      }
    }
    assert.notEqual((await visitor.session()).handle, handle, "a read does");
  });

  test("leaves a cookie alone that is no ticket, or whose session has ended", async () => {
    const visitor = await user();
    await visitor.clone().logout();
    const forged = worker.visitor();
    forged.ticket = "A".repeat(148);
    for (const one of [visitor, forged]) {
      for (const method of ["GET", "POST"]) {
        assertRefused(await one.send(method, "/auth/verify/page"), 401, "unauthenticated");
      }
    }
  });

  test("asks for the role also with a slash too many, and can only become stricter by a visitor's query", async () => {
    const visitor = await user();
    assertIdentified(await visitor.send("GET", "/auth/verify/?role=editor"));
    assertRefused(await visitor.send("GET", "/auth/verify/?role=admin"), 403, "forbidden");
    assertIdentified(await visitor.send("GET", "/auth/verify/?page=2&role=admin"));
    assertIdentified(await visitor.send("GET", "/auth/verify/page?role=admin"));
  });

  test("is counted by limits.routes like any route, by its whole path", async () => {
    const visitor = await user();
    const statuses = [];
    for (const method of ["GET", "POST", "OPTIONS", "PROPFIND"]) {
      statuses.push((await visitor.send(method, "/auth/verify/limited/page?x=1")).status);
    }
    assert.deepEqual(statuses, [200, 200, 200, 429]);
    assertIdentified(await visitor.send("GET", "/auth/verify/other"));
  });

  test("has no neighbours: paths that only begin like it are not found", async () => {
    const visitor = await user();
    for (const path of [
      "/auth/verifyx",
      "/auth/verify.json",
      "/auth/verify%2Fx",
      "/verify",
      "/auth/Verify",
    ]) {
      assertRefused(await visitor.send("GET", path), 404, "not_found");
    }
  });
});

describe("every query that a route knows", () => {
  test("is refused in the same words when it is another one", async () => {
    const visitor = await user();
    for (const [method, path, known] of [
      ["GET", "/auth/verify", "role=NAME"],
      ["DELETE", "/auth/sessions", "keep=current"],
    ]) {
      for (const query of [
        "?x",
        "?keep=",
        "?role=",
        "?keep=all",
        "?keep=current&x=1",
        "?role=a&role=b",
        "?=",
        "?%72ole=a",
      ]) {
        const answer = await visitor.send(String(method), path + query);
        assertRefused(answer, 400, "bad_request");
        assert.equal(answer.json.detail, `unknown query; the only one here is ?${known}`, query);
      }
    }
    assert.notEqual(await visitor.session(), null);
  });
});
