/** `npm run doctor -- --url …`: a deployment that is well passes, and what is wrong with one, or with what stands in front, is found. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, describe, test } from "node:test";
import { Database } from "../tools/doctor/database.mjs";
import { checkDeployment, Deployment, isEncrypted } from "../tools/doctor/deployment.mjs";
import { store } from "./support/local-store.mjs";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { randomSecret, startWorker } from "./support/worker.mjs";

/** @typedef {import("../tools/doctor/rows.mjs").Result} Result */
/**
 * What stands in front of a Worker changes.
 * @typedef {object} Changes
 * @property {(request: { method: string, path: string, headers: Headers }) => Response | void} [request] answers itself, or not
 * @property {(headers: Headers, request: { method: string, path: string }) => void} [headers] of the answer
 */

const ADMIN_TOKEN = randomSecret();
const settings = {
  key_prefix: "shop:",
  cookie: { same_site: "Strict" },
  cors: { origins: ["https://www.example.com", "https://*.preview.example.com"] },
};
const worker = await startWorker({ store, settings, secrets: { ADMIN_TOKEN } });
after(() => worker.stop());

/**
 * @param {Partial<{ url: string, table: object, adminToken: string | undefined, base: string, at: { url: string, token: string } }>} [what]
 */
async function check({
  url = worker.url,
  table = settings,
  adminToken = ADMIN_TOKEN,
  base = "/auth",
  at = store,
} = {}) {
  const database = new Database({ url: at.url, token: at.token, timeout: 2000 });
  const deployment = new Deployment({ url, base });
  /** @type {Result[]} */
  const results = [];
  const isReached = await checkDeployment({ deployment, table, adminToken, database }, (result) =>
    results.push(result),
  );
  await deployment.end();
  const found = results.filter(({ status }) => status === "failed" || status === "warned");
  const skipped = results.filter(({ status }) => status === "skipped").map(({ id }) => id);
  return { results, skipped, isReached, found, ids: found.map(({ id }) => id) };
}

/** The same behind something that changes what passes. @param {Changes} changes @param {Parameters<typeof check>[0]} [what] */
async function checkBehind({ request: own, headers: change }, what) {
  const server = createServer(async (incoming, outgoing) => {
    const [method, path] = [incoming.method ?? "", incoming.url ?? ""];
    const sent = new Headers(/** @type {Record<string, string>} */ (incoming.headers));
    for (const name of ["host", "connection", "content-length"]) sent.delete(name);
    const chunks = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const body = method === "PATCH" ? Buffer.concat(chunks) : undefined;
    const answer =
      own?.({ method, path, headers: sent }) ??
      (await fetch(worker.url + path, { method, headers: sent, body }));
    const headers = new Headers(answer.headers);
    headers.delete("content-encoding");
    change?.(headers, { method, path });
    outgoing.writeHead(answer.status, [...headers].flat()).end(Buffer.from(await answer.arrayBuffer()));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  try {
    return await check({ url: `http://127.0.0.1:${port}`, ...what });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("a deployment that is well passes every row, and no session is left", async () => {
  const { results, found, isReached } = await check();
  assert.deepEqual(found, []);
  assert.ok(isReached && results.every(({ status }) => status === "passed"), JSON.stringify(results));
  assert.equal(
    results.find(({ id }) => id === "cookie")?.detail,
    "__Host-session; Path=/; HttpOnly; Secure; SameSite=Strict",
  );
  assert.deepEqual(await store.redis.keys("*sess:*"), []);
});

test("so it is behind something that changes nothing", async () => {
  assert.deepEqual((await checkBehind({})).found, []);
});

test("what is not here is not looked at", async () => {
  const { skipped, ids } = await check({ table: { ...settings, cors: {} }, adminToken: "" });
  assert.deepEqual([skipped, ids], [["cors", "admin"], []]);
});

for (const format of ["express", "flask"]) {
  test(`a deployment beside ${format} passes, too`, async () => {
    const table = { cookie: { format, user_pointer: "/userId" }, limits: {} };
    const other = await startWorker({ store, settings: table });
    try {
      const { found, skipped } = await check({ url: other.url, table, adminToken: "" });
      assert.deepEqual(found, []);
      assert.deepEqual(skipped, ["same-database", "cors", "admin"]);
    } finally {
      await other.stop();
    }
  });
}

describe("it notices", () => {
  /** @param {Headers} headers @param {(line: string) => string} change */
  const changeCookies = (headers, change) => {
    const lines = headers.getSetCookie();
    headers.delete("set-cookie");
    for (const line of lines) headers.append("set-cookie", change(line));
  };

  /** @type {[row: string, what: string, Changes, RegExp][]} */
  const inFront = [
    [
      "begin",
      "changes that do not arrive",
      only("PATCH", () => new Response("<html>", { status: 502 })),
      /^status 502/,
    ],
    [
      "begin",
      "cookies that are held back",
      { headers: (headers, { method }) => method === "PATCH" && headers.delete("set-cookie") },
      /sets no cookie$/,
    ],
    [
      "cookie",
      "attributes that are lost",
      { headers: (headers) => changeCookies(headers, (line) => line.replace("; HttpOnly", "")) },
      /^missing: HttpOnly\.$/,
    ],
    [
      "cookie",
      "attributes that are added",
      { headers: (headers) => changeCookies(headers, (line) => `${line}; Domain=example.com`) },
      /^not expected: domain=example\.com\.$/,
    ],
    [
      "headers",
      "answers that may be cached",
      { headers: (headers) => headers.set("cache-control", "public, max-age=600") },
      /^Cache-Control: public, max-age=600$/,
    ],
    [
      "headers",
      "an ETag that became weak",
      { headers: (headers) => headers.set("etag", `W/${headers.get("etag")}`) },
      /^ETag: W\//,
    ],
    [
      "read",
      "cookies that do not arrive",
      only("GET", ({ path, headers }) => void (path === "/auth/session" && headers.delete("cookie"))),
      /another session, or none$/,
    ],
    [
      "cross-site",
      "a proxy that hides where requests come from",
      only("PATCH", ({ headers }) => ["origin", "sec-fetch-site"].forEach((name) => headers.delete(name))),
      /^status 200$/,
    ],
    [
      "cors",
      "preflights that do not arrive",
      only("OPTIONS", () => new Response(null, { status: 204 })),
      /^not https:\/\/www\.example\.com$/,
    ],
    [
      "cors-others",
      "a proxy that allows every origin",
      {
        headers: (headers, { method }) => {
          const isOurs = headers.get("access-control-allow-origin") === "https://www.example.com";
          if (method === "OPTIONS" && !isOurs) headers.set("access-control-allow-origin", "*");
        },
      },
      /^Access-Control-Allow-Origin: \*$/,
    ],
    [
      "end",
      "a logout that does not arrive",
      only("DELETE", () => new Response(null, { status: 204 })),
      /not removed$/,
    ],
  ];
  for (const [row, what, changes, detail] of inFront) {
    test(what, async () => {
      const { ids, found } = await checkBehind(changes);
      assert.deepEqual(ids, [row], JSON.stringify(found));
      assert.match(found[0]?.detail ?? "", detail);
    });
  }

  /** @type {[row: string, what: string, Parameters<typeof check>[0], RegExp][]} */
  const different = [
    [
      "cookie",
      "a cookie of another name",
      { table: { ...settings, cookie: { name: "sid" } } },
      /^no cookie named sid/,
    ],
    [
      "cookie",
      "other attributes",
      { table: { ...settings, cookie: {} } },
      /^missing: SameSite=Lax\. not expected/,
    ],
    [
      "cors",
      "an origin that it does not know",
      { table: { ...settings, cors: { origins: ["https://a.example"] } } },
      /^not/,
    ],
    [
      "same-database",
      "another key_prefix",
      { table: { ...settings, key_prefix: "" } },
      /^the session is not there$/,
    ],
    ["admin", "another ADMIN_TOKEN", { adminToken: randomSecret() }, /^the deployment has another token$/],
    ["health", "another base_path", { base: "/api" }, /^404: is this the Worker's address/],
  ];
  for (const [row, what, options, detail] of different) {
    test(what, async () => {
      const { ids, found } = await check(options);
      assert.deepEqual(ids, [row], JSON.stringify(found));
      assert.match(found[0]?.detail ?? "", detail);
    });
  }

  test("another database", async () => {
    const other = await startLocalStore();
    try {
      assert.deepEqual((await check({ at: other })).ids, ["same-database"]);
    } finally {
      await other.stop();
    }
  });

  test("a clock that is wrong, either way", async () => {
    for (const [by, detail] of /** @type {const} */ ([
      [3_600_000, /^3\d{3} s ahead$/],
      [-7_200_000, /^3\d{3} s behind$/],
    ])) {
      await worker.moveClock(by);
      const { ids, found } = await check();
      assert.deepEqual(ids, ["clock"], JSON.stringify(found));
      assert.match(found[0]?.detail ?? "", detail);
    }
    await worker.moveClock(3_600_000);
  });

  test("a deployment without the service API", async () => {
    const other = await startWorker({ store, settings });
    try {
      const { found } = await check({ url: other.url });
      assert.deepEqual(
        found.map(({ detail }) => detail),
        ["the deployment has none: its service API is off"],
      );
    } finally {
      await other.stop();
    }
  });

  /** @type {[string, object, RegExp][]} */
  const sick = [
    ["secrets that are refused", { SESSION_SECRET: "short" }, /^500 misconfigured: `npx wrangler tail`/],
    [
      "a database that refuses it",
      { UPSTASH_REDIS_REST_TOKEN: "wrong" },
      /^503, its database does not answer/,
    ],
  ];
  for (const [what, secrets, detail] of sick) {
    test(`${what}, and looks no further`, async () => {
      const other = await startWorker({ store, settings, secrets: { ADMIN_TOKEN, ...secrets } });
      try {
        const { ids, found, skipped, isReached } = await check({ url: other.url });
        assert.deepEqual([ids, isReached], [["health"], true]);
        assert.match(found[0]?.detail ?? "", detail);
        assert.ok(skipped.includes("begin") && skipped.includes("end"));
      } finally {
        await other.stop();
      }
    });
  }

  test("that there is a redirect, or another site", async () => {
    for (const [answer, detail] of /** @type {[Response, RegExp][]} */ ([
      [new Response(null, { status: 301, headers: { location: "https://www.example.com/" } }), /a redirect/],
      [new Response("<html>welcome", { status: 200 }), /no answer of Cloakroom's/],
    ])) {
      const { ids, found } = await checkBehind({ request: () => answer });
      assert.deepEqual(ids, ["health"]);
      assert.match(found[0]?.detail ?? "", detail);
    }
  });
});

test("the admin token never goes over a line that others can read", async () => {
  for (const [origin, safe] of /** @type {const} */ ([
    ["https://cloakroom.example.workers.dev", true],
    ["http://localhost:8787", true],
    ["http://127.0.0.1:8787", true],
    ["http://[::1]:8787", true],
    ["http://cloakroom.example.workers.dev", false],
    ["http://127.0.0.1.example.com", false],
    ["http://localhost.example.com", false],
  ])) {
    assert.equal(isEncrypted(origin), safe, origin);
  }
  // An address that is this machine's, and is not known to be.
  const { found, skipped } = await check({ url: worker.url.replace(/127\.0\.0\.1|localhost/, "0.0.0.0") });
  assert.ok(found.some(({ id }) => id === "https"));
  assert.ok(skipped.includes("admin"));
});

/** @param {string} method @param {NonNullable<Changes["request"]>} request @returns {Changes} */
function only(method, request) {
  return { request: (incoming) => (incoming.method === method ? request(incoming) : undefined) };
}
