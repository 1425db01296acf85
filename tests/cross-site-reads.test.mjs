/** What pages of other sites make a visitor's browser look at, such as images: without a cookie, and counted for nobody. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { FAST_HASH, startBoth } from "./support/worker.mjs";

const FRONT = "https://front.example";
const EVIL = "https://evil.example";
const ADDRESS = "203.0.113.7";

/** SameSite=None is what lets other sites' images send the cookie. */
const { store, worker, stop } = await startBoth({
  settings: {
    cookie: { same_site: "None" },
    password: FAST_HASH,
    cors: { origins: [FRONT] },
    limits: {
      session: "20/1m",
      ip: "60/1m",
      mint: "",
      login: "",
      routes: [{ path: "/auth/profile", limit: "20/1m", by: "ip" }],
    },
  },
});
after(stop);

const here = { "CF-Connecting-IP": ADDRESS };

let count = 0;
async function user() {
  const visitor = worker.visitor();
  const elsewhere = { "CF-Connecting-IP": "198.51.100.1" };
  assert.equal((await visitor.register(`Ada ${(count += 1)}`, "correct horse", elsewhere)).status, 201);
  return visitor;
}

/** @param {string} site @param {string} mode @param {string} [origin] */
const browser = (site, mode, origin) => ({
  "Sec-Fetch-Site": site,
  "Sec-Fetch-Mode": mode,
  ...(origin ? { Origin: origin } : {}),
  ...here,
});

const IMAGE = browser("cross-site", "no-cors");
const FETCH = browser("cross-site", "cors", EVIL);

describe("a page of another site", () => {
  test("gets what one without a cookie gets, without a call to the store, and no cookie is touched", async () => {
    const visitor = await user();
    for (const headers of [
      IMAGE,
      FETCH,
      browser("cross-site", "websocket"),
      { "Sec-Fetch-Site": "cross-site" },
    ]) {
      for (const [method, path, status] of /** @type {[string, string, number][]} */ ([
        ["GET", "/auth/session", 200],
        ["HEAD", "/auth/session", 200],
        ["GET", "/auth/profile", 401],
        ["GET", "/auth/sessions", 401],
        ["GET", "/auth/login", 405],
        ["GET", "/auth/nowhere", 404],
      ])) {
        const { value: answer, calls } = await store.counters.during(() =>
          visitor.send(method, path, { headers: /** @type {any} */ (headers) }),
        );
        assert.equal(answer.status, status, `${method} ${path}`);
        if (status === 200 && method === "GET") assert.equal(answer.text, '{"session":null}');
        assert.equal(calls, 0);
        assert.deepEqual(answer.setCookies, []);
        assert.equal(answer.headers.get("ratelimit"), null);
        assert.equal(answer.headers.get("access-control-allow-origin"), null);
      }
    }
    visitor.ticket = "A".repeat(148);
    const answer = await visitor.send("GET", "/auth/session", { headers: IMAGE });
    assert.deepEqual(answer.setCookies, [], "a forged cookie stays as well");
  });

  test("uses up nobody's limit: not the session's, the address's or the route's", async () => {
    const visitor = await user();
    const image = (/** @type {string} */ path) => visitor.send("GET", path, { headers: IMAGE });
    const { calls } = await store.counters.during(() =>
      Promise.all(Array.from({ length: 200 }, (_, n) => image(n % 2 ? "/auth/session" : "/auth/profile"))),
    );
    assert.equal(calls, 0);
    const own = await visitor.send("GET", "/auth/profile", { headers: here });
    assert.equal(own.status, 200, own.text);
    const left = Object.fromEntries(
      [...String(own.headers.get("ratelimit")).matchAll(/"([^"]+)";r=(\d+)/g)].map(([, name, r]) => [
        name,
        Number(r),
      ]),
    );
    assert.equal(left["session"], 19);
    assert.equal(left["ip"], 59);
    assert.equal(left["/auth/profile"], 19);
  });

  test("does not end or move a session whose rotation or touch is due", async () => {
    const visitor = await user();
    const { ticket } = visitor;
    await worker.moveClock(20 * 60_000);
    const { calls } = await store.counters.during(() =>
      visitor.send("GET", "/auth/session", { headers: IMAGE }),
    );
    assert.equal(calls, 0);
    assert.equal(visitor.ticket, ticket);
    assert.notEqual(await visitor.session(), null);
  });
});

describe("a request that is the visitor's own, or an allowed page's,", () => {
  for (const [what, headers] of /** @type {[string, Record<string, string>][]} */ ([
    ["a link of another site", browser("cross-site", "navigate")],
    ["an allowed origin", browser("cross-site", "cors", FRONT)],
    ["another host of the same site", browser("same-site", "no-cors")],
    ["a page of its own", browser("same-origin", "cors", "self")],
    ["the address bar", browser("none", "navigate")],
    ["a program", here],
    ["an older browser", { Origin: EVIL, ...here }],
  ])) {
    test(`such as of ${what}, has its cookie and counts`, async () => {
      const visitor = await user();
      const answer = await visitor.send("GET", "/auth/session", { headers });
      assert.notEqual(answer.json.session.user, null);
      assert.match(String(answer.headers.get("ratelimit")), /"session";r=19/);
      assert.equal((await visitor.send("HEAD", "/auth/session", { headers })).status, 200);
    });
  }
});

test("Cloudflare's own limit counts other sites' requests apart from the address's own", async () => {
  const own = await startBoth({ ratelimits: { RATE_LIMITER: { simple: { limit: 3, period: 60 } } } });
  try {
    const visitor = own.worker.visitor();
    const look = (/** @type {Record<string, string>} */ headers) =>
      visitor.send("GET", "/auth/session", { headers });
    const statuses = [];
    for (let n = 0; n < 6; n += 1) statuses.push((await look(IMAGE)).status);
    assert.deepEqual(statuses.toSorted(), [200, 200, 200, 429, 429, 429]);
    assert.equal((await look(here)).status, 200);
  } finally {
    await own.stop();
  }
});
