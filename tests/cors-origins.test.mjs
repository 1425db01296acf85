/** The settings of cors: patterns of origins, further request headers; and what the log says of an origin that is missing. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { randomSecret, startDeployment, until } from "./support/worker.mjs";

/** @typedef {import("./support/worker.mjs").Worker} Worker */

const PATTERN = "https://*.preview.example.com";
const EXACT = "https://front.example";
const PORT = "https://*.example.net:8443";

const {
  store,
  workers: [open],
  start,
  stop,
} = await startDeployment(
  [{ settings: { cors: { origins: [EXACT, PATTERN, PORT], headers: ["traceparent", "X-Request-Id"] } } }],
  { secrets: { SESSION_SECRET: randomSecret() } },
);
after(stop);

/** @param {string} origin @param {Worker} [worker] */
const preflight = (origin, worker = open, path = "/auth/session/data") =>
  worker.visitor().send("OPTIONS", path, {
    headers: { Origin: origin, "Access-Control-Request-Method": "PATCH", "Sec-Fetch-Site": "cross-site" },
  });

/** @param {string} origin */
const change = (origin) =>
  open
    .visitor()
    .merge({ a: 1 }, { Origin: origin, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors" });

describe("an origin", () => {
  for (const origin of [
    EXACT,
    "https://a.preview.example.com",
    "https://pr-17.preview.example.com",
    "https://xn--bcher-kva.preview.example.com",
    "https://a.example.net:8443",
  ]) {
    test(`such as ${origin} may call and read`, async () => {
      const answer = await change(origin);
      assert.equal(answer.status, 200, answer.text);
      assert.equal(answer.headers.get("access-control-allow-origin"), origin);
      assert.match(String(answer.headers.get("vary")), /Origin/);
      assert.equal((await preflight(origin)).headers.get("access-control-allow-origin"), origin);
    });
  }

  for (const origin of [
    "https://preview.example.com",
    "https://a.b.preview.example.com",
    "https://.preview.example.com",
    "https://*.preview.example.com",
    "http://a.preview.example.com",
    "https://a.preview.example.com:8443",
    "https://a.preview.example.com.",
    "https://A.preview.example.com",
    "https://a.preview.example.com.evil.example",
    "https://evil.example/.preview.example.com",
    "https://evil.example?.preview.example.com",
    "https://evil.example#.preview.example.com",
    "https://evil.example:80.preview.example.com",
    "https://user@a.preview.example.com",
    "https://evilpreview.example.com",
    `https://${"a".repeat(64)}.preview.example.com`,
    "https://evil.example, https://a.preview.example.com",
    "https://a.example.net",
  ]) {
    test(`such as ${origin.slice(0, 60)} may not`, async () => {
      const answer = await change(origin);
      assert.equal(answer.status, 403, answer.text);
      for (const one of [answer, await preflight(origin)]) {
        assert.equal(one.headers.get("access-control-allow-origin"), null);
      }
    });
  }
});

test("a preflight allows the headers that routes read, and those of cors.headers", async () => {
  const answer = await preflight(EXACT);
  assert.equal(
    answer.headers.get("access-control-allow-headers"),
    "Content-Type, If-Match, If-None-Match, traceparent, X-Request-Id",
  );
});

test("OPTIONS that is no preflight says nothing of origins, and 404 to a path that is none", async () => {
  for (const headers of [{}, { Origin: EXACT }, { "Access-Control-Request-Method": "PATCH" }]) {
    for (const [path, status] of /** @type {[string, number][]} */ ([
      ["/auth/profile", 204],
      ["/auth/nowhere", 404],
      ["/auth/admin/stats", 404],
    ])) {
      const { value: answer, calls } = await store.counters.during(() =>
        open.visitor().send("OPTIONS", path, { headers: /** @type {any} */ (headers) }),
      );
      assert.equal(answer.status, status, path);
      assert.equal(answer.headers.get("allow"), status === 204 ? "GET, HEAD, PATCH" : null);
      assert.equal(calls, 0);
    }
  }
  assert.equal(
    (await preflight(EXACT, open, "/auth/admin/stats")).status,
    404,
    "there is no service API here",
  );
});

describe("a preflight from an origin that is not allowed", () => {
  const lines = (/** @type {Worker} */ worker) =>
    worker.logs
      .join("")
      .split("\n")
      .filter((line) => line.includes("cors.origins"));

  test("is logged once for each isolate and origin, with the origin and what to do", async () => {
    for (const settings of [{}, { cors: { origins: [EXACT] } }]) {
      const worker = await start({ settings });
      for (const origin of ["https://shop.example:8443", EXACT, "https://shop.example:8443", "null"]) {
        await preflight(origin, worker);
      }
      const expected = settings.cors ? 2 : 3;
      await until(
        () => lines(worker).length >= expected,
        () => worker.logs.join(""),
      );
      const found = lines(worker);
      assert.equal(found.length, expected, found.join("\n"));
      assert.match(
        String(found[0]),
        /a page of https:\/\/shop\.example:8443 .* add its origin to cors\.origins/,
      );
    }
  });

  test("cannot write what it likes to the log, nor fill it", async () => {
    const worker = await start({});
    const nasty = [
      "https://a.example \t[31mred",
      "\u00e9\u00ff",
      "x".repeat(8000),
      "a'\"`$(reboot)<script>;{}",
    ];
    for (const origin of nasty) await preflight(origin, worker);
    await Promise.all(Array.from({ length: 100 }, (_, n) => preflight(`https://${n}.example`, worker)));
    await until(
      () => lines(worker).length >= 20,
      () => worker.logs.join(""),
    );
    await preflight("https://the-last.example", worker);
    const found = lines(worker);
    assert.equal(found.length, 20);
    for (const line of found) {
      assert.ok(line.length < 300, line);
      assert.match(line, /a page of [\w\-.:/[\]?]+…? was not allowed/);
    }
  });
});

describe("a setting of cors that lets strangers in, or matches nothing, is refused at start", () => {
  for (const [cors, fault] of /** @type {[object, RegExp][]} */ ([
    [{ origins: ["*"] }, /cors\.origins: exact origins/],
    [{ origins: ["https://*"] }, /cors\.origins: this pattern lets strangers in/],
    [{ origins: ["https://*.com"] }, /cors\.origins: this pattern lets strangers in/],
    [{ origins: ["https://*.co.uk"] }, /cors\.origins: this pattern lets strangers in/],
    [{ origins: ["https://*.vercel.app"] }, /cors\.origins: this pattern lets strangers in/],
    [{ origins: ["https://www.*.example.com"] }, /cors\.origins: a pattern has one/],
    [{ origins: ["https://*.*.example.com"] }, /cors\.origins: a pattern has one/],
    [{ origins: ["https://pr-*.example.com"] }, /cors\.origins: a pattern has one/],
    [{ origins: ["https://*.example.com/"] }, /cors\.origins: exact origins/],
    [{ headers: ["*"] }, /cors\.headers: names of request headers/],
    [{ headers: ["a b"] }, /cors\.headers: names of request headers/],
    [{ headers: ["a\r\nSet-Cookie: x=1"] }, /cors\.headers: names of request headers/],
  ])) {
    test(JSON.stringify(cors), async () => {
      const worker = await start({ settings: { cors } });
      assert.equal((await worker.visitor().look()).json.code, "misconfigured");
      await until(
        () => fault.test(worker.logs.join("")),
        () => worker.logs.join(""),
      );
    });
  }
});
