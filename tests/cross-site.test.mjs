/** Pages of other sites: what they cannot do, and what an origin in cors.origins can. */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const FRONT = "https://front.example";
const LOCAL = "http://localhost:3000";
const EVIL = "https://evil.example";
const SELF = "self"; // the Worker's own origin, known once it runs
const MERGE = "application/merge-patch+json";
const PATHS = {
  "/auth/session": "GET, HEAD, DELETE",
  "/auth/session/data": "PATCH",
  "/auth/session/rotate": "POST",
  "/auth/health": "GET, HEAD",
};

/** What changes something. @type {[string, string][]} */
const CHANGES = [
  ["PATCH", "/auth/session/data"],
  ["POST", "/auth/session/rotate"],
  ["DELETE", "/auth/session"],
];

/** An isolate with FRONT and LOCAL in cors.origins, and one without any. */
const {
  store,
  workers: [open, closed],
  stop,
} = await startDeployment([{ settings: { cors: { origins: [FRONT, LOCAL] } } }, {}], {
  secrets: { SESSION_SECRET: randomSecret() },
});
after(stop);

/** What a browser sends of itself. @param {string | undefined} site @param {string | undefined} origin */
function browser(site, origin) {
  /** @type {Record<string, string>} */
  const headers = {};
  if (site !== undefined) headers["Sec-Fetch-Site"] = site;
  if (origin !== undefined) headers.Origin = origin === SELF ? closed.url : origin;
  return headers;
}

async function guest(worker = closed) {
  const visitor = worker.visitor();
  assert.equal((await visitor.merge({ views: 1 })).status, 200);
  return visitor;
}

async function contents() {
  const keys = (await store.redis.keys("*")).sort();
  return keys.length === 0 ? [] : [keys, await store.redis.mGet(keys)];
}

/**
 * @param {Visitor} visitor
 * @param {string} method
 * @param {string} path
 * @param {Record<string, string>} headers
 */
function change(visitor, method, path, headers) {
  if (method !== "PATCH") return visitor.send(method, path, { headers });
  return visitor.send(method, path, { headers: { "Content-Type": MERGE, ...headers }, body: '{"views":2}' });
}

/** @param {Answer} answer */
function assertRefused(answer) {
  assert.equal(answer.status, 403, answer.text);
  assert.equal(answer.headers.get("content-type"), "application/problem+json");
  assert.equal(answer.json.code, "cross_site");
  assert.equal(answer.headers.get("cache-control"), "no-store, no-transform");
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
  assert.deepEqual(answer.setCookies, []);
}

/** @param {Answer} answer */
const corsHeaders = (answer) =>
  [...answer.headers.keys()].filter((name) => name.startsWith("access-control-"));

/** @param {Answer} answer @param {string} [name] */
const listed = (answer, name = "vary") =>
  (answer.headers.get(name) ?? "").split(",").map((item) => item.trim().toLowerCase());

/** @param {Answer} answer @param {string} origin */
function assertReadableFrom(answer, origin) {
  assert.equal(answer.headers.get("access-control-allow-origin"), origin);
  assert.equal(answer.headers.get("access-control-allow-credentials"), "true");
  assert.ok(listed(answer).includes("origin"), `Vary: ${answer.headers.get("vary")}`);
}

describe("a state-changing request", () => {
  /** Sec-Fetch-Site and Origin. @type {[string | undefined, string | undefined][]} */
  const refused = [
    ["cross-site", EVIL],
    ["cross-site", undefined],
    ["cross-site", "null"],
    ["cross-site", SELF],
    ["same-site", "http://other.127.0.0.1"],
    ["same-site", undefined],
    ["same-site", SELF],
    ["Same-Origin", SELF],
    ["none, cross-site", SELF],
    ["same-origin, cross-site", SELF],
    ["same-origin;", SELF],
    ["nonsense", SELF],
    [undefined, EVIL],
    [undefined, "null"],
    [undefined, "NULL"],
    [undefined, "undefined"],
    [undefined, "*"],
    [undefined, "file://"],
    [undefined, "http://127.0.0.1"],
    [undefined, "http://127.0.0.1:1"],
    [undefined, FRONT],
  ];
  for (const [site, origin] of refused) {
    test(`with Sec-Fetch-Site: ${site} and Origin: ${origin} is refused without a call to the store`, async () => {
      const visitor = await guest();
      const before = await contents();
      for (const [method, path] of CHANGES) {
        for (const someone of [visitor, closed.visitor()]) {
          const act = () => change(someone, method, path, browser(site, origin));
          const { value: answer, calls } = await store.counters.during(act);
          assertRefused(answer);
          assert.equal(calls, 0);
        }
      }
      assert.deepEqual(await contents(), before);
    });
  }

  test("is refused when the Origin only looks like the Worker's own", async () => {
    const visitor = await guest();
    const before = await contents();
    const { host, port } = new URL(closed.url);
    for (const origin of [
      `https://${host}`,
      `http://localhost:${port}`,
      `http://${host}/`,
      `http://${host}.evil.example`,
      `http://evil.example#${host}`,
      `http://${host}@evil.example`,
      `http://evil@${host}`,
      `HTTP://${host}`,
      `http://${host}0`,
      `http://0x7f.1:${port}`,
      host,
      `//${host}`,
      `http://${host}, ${EVIL}`,
      `http://${host} ${EVIL}`,
      `${EVIL} http://${host}`,
    ]) {
      const { value: answer, calls } = await store.counters.during(() =>
        change(visitor, "PATCH", "/auth/session/data", { Origin: origin }),
      );
      assert.equal(answer.status, 403, origin);
      assert.equal(calls, 0);
    }
    assert.deepEqual(await contents(), before);
  });

  test("is refused when it brings more than one Origin or Sec-Fetch-Site", async () => {
    const visitor = await guest();
    for (const headers of [
      { Origin: [closed.url, EVIL] },
      { Origin: [EVIL, closed.url] },
      { "Sec-Fetch-Site": ["same-origin", "cross-site"] },
      { "Sec-Fetch-Site": ["cross-site", "same-origin"] },
    ]) {
      assertRefused(await visitor.send("DELETE", "/auth/session", { headers: /** @type {any} */ (headers) }));
    }
    assert.equal((await visitor.session()).data.views, 1);
  });

  test("of a form on another site, which sends no preflight, is refused like any other", async () => {
    const visitor = await guest();
    for (const type of [
      "text/plain",
      "application/x-www-form-urlencoded",
      "multipart/form-data; boundary=x",
    ]) {
      const headers = { ...browser("cross-site", EVIL), "Content-Type": type };
      assertRefused(await visitor.send("PATCH", "/auth/session/data", { headers, body: '{"a":1}' }));
      assertRefused(await visitor.send("POST", "/auth/session/rotate", { headers, body: "a=1" }));
    }
  });

  test("is refused also with a header or a parameter that names another method", async () => {
    const visitor = await guest();
    const headers = {
      ...browser("cross-site", EVIL),
      "X-HTTP-Method-Override": "GET",
      "X-HTTP-Method": "GET",
    };
    assertRefused(await visitor.send("DELETE", "/auth/session?_method=GET", { headers }));
    const look = await visitor.send("GET", "/auth/session?_method=DELETE", {
      headers: { "X-HTTP-Method-Override": "DELETE" },
    });
    assert.equal(look.json.session.data.views, 1);
    assert.equal((await visitor.session()).data.views, 1);
  });

  test("is refused also with a Referer, a Host or a forwarded host of the Worker", async () => {
    const visitor = await guest();
    for (const headers of [
      { Referer: `${closed.url}/` },
      { "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https" },
      { Forwarded: "host=evil.example;proto=https" },
      { "X-Original-URL": `${EVIL}/auth/session` },
    ]) {
      const all = { ...browser(undefined, EVIL), ...headers };
      assertRefused(await change(visitor, "DELETE", "/auth/session", /** @type {any} */ (all)));
    }
  });

  /** @type {[string | undefined, string | undefined][]} */
  const allowed = [
    [undefined, undefined],
    [undefined, SELF],
    ["same-origin", SELF],
    ["same-origin", undefined],
    ["none", undefined],
    ["", undefined],
    [undefined, ""],
    // What Sec-Fetch-Site says weighs more: browsers send null as the origin after redirects.
    ["same-origin", "null"],
  ];
  for (const [site, origin] of allowed) {
    test(`with Sec-Fetch-Site: ${site} and Origin: ${origin} is the visitor's own`, async () => {
      const visitor = await guest();
      for (const [method, path] of CHANGES) {
        const answer = await change(visitor, method, path, browser(site, origin));
        assert.equal(answer.status, method === "DELETE" ? 204 : 200, answer.text);
      }
    });
  }

  test("is the visitor's own whatever the case of the host and its port are", async () => {
    const visitor = closed.visitor();
    for (const [host, origin, status] of /** @type {[string, string, number][]} */ ([
      ["Coats.Example", "http://coats.example", 204],
      ["coats.example:80", "http://coats.example", 204],
      ["coats.example:8080", "http://coats.example:8080", 204],
      ["coats.example:8080", "http://coats.example", 403],
      ["coats.example", "http://coats.example:8080", 403],
      ["coats.example", "http://coats.example.", 403],
      ["coats.example", "http://www.coats.example", 403],
    ])) {
      const answer = await visitor.send("DELETE", "/auth/session", {
        headers: { Host: host, Origin: origin },
      });
      assert.equal(answer.status, status, `${host} ${origin}`);
    }
  });

  for (const origin of [FRONT, LOCAL]) {
    test(`from ${origin} is accepted when that is in cors.origins, and its answer is readable there`, async () => {
      for (const site of ["cross-site", "same-site", undefined]) {
        const visitor = await guest(open);
        for (const [method, path] of CHANGES) {
          const answer = await change(visitor, method, path, browser(site, origin));
          assert.equal(answer.status, method === "DELETE" ? 204 : 200, answer.text);
          assertReadableFrom(answer, origin);
        }
      }
    });
  }

  test("from an allowed origin may create a session", async () => {
    const answer = await change(open.visitor(), "PATCH", "/auth/session/data", browser("cross-site", FRONT));
    assert.equal(answer.status, 200);
    assert.equal(answer.setCookies.length, 1);
    assertReadableFrom(answer, FRONT);
  });
});

/** Origins that resemble FRONT or LOCAL, and are neither. */
const LOOKALIKES = [
  EVIL,
  "null",
  "*",
  "http://front.example",
  "https://FRONT.example",
  "HTTPS://front.example",
  "https://front.example/",
  "https://front.example:443",
  "https://front.example:8443",
  "https://front.example.",
  "https://front.example.evil.example",
  "https://evilfront.example",
  "https://www.front.example",
  "https://front.example@evil.example",
  "https://front.example%20",
  "https://front.example, https://evil.example",
  "https://front.example https://evil.example",
  "https://frontXexample",
  "https://front.exampl",
  "https://fr\u00f6nt.example",
  "http://localhost",
  "http://localhost:30000",
  "http://localhost:3000.evil.example",
  "https://localhost:3000",
  "http://127.0.0.1:3000",
  "http://[::1]:3000",
];

describe("an origin that is not in cors.origins", () => {
  for (const origin of LOOKALIKES) {
    test(`such as ${origin} changes nothing and reads nothing`, async () => {
      const visitor = await guest(open);
      const before = await contents();
      for (const site of ["cross-site", undefined]) {
        const { value: answer, calls } = await store.counters.during(() =>
          change(visitor, "PATCH", "/auth/session/data", browser(site, origin)),
        );
        assertRefused(answer);
        assert.deepEqual(corsHeaders(answer), []);
        assert.ok(listed(answer).includes("origin"));
        assert.equal(calls, 0);
      }
      const look = await visitor.send("GET", "/auth/session", { headers: browser("cross-site", origin) });
      assert.equal(look.status, 200);
      assert.deepEqual(corsHeaders(look), []);
      assert.ok(listed(look).includes("origin"), "else a cache hands the answer to an allowed page");
      assert.deepEqual(await contents(), before);
    });
  }

  test("is all of them when none is set", async () => {
    const visitor = await guest();
    for (const origin of [FRONT, LOCAL, EVIL, "null", closed.url]) {
      const answer = await visitor.send("GET", "/auth/session", { headers: browser("cross-site", origin) });
      assert.deepEqual(corsHeaders(answer), []);
    }
  });
});

describe("a preflight", () => {
  /** @param {string} origin @param {string} method @returns {Record<string, string>} */
  const asking = (origin, method) => ({
    Origin: origin,
    "Access-Control-Request-Method": method,
    "Access-Control-Request-Headers": "content-type,if-match",
    "Sec-Fetch-Site": "cross-site",
    "Sec-Fetch-Mode": "cors",
  });

  for (const [path, methods] of Object.entries(PATHS)) {
    for (const origin of [FRONT, LOCAL]) {
      test(`for ${path} from ${origin} says what may be sent, without a call to the store`, async () => {
        for (const method of [...methods.split(", "), "PUT"]) {
          const { value: answer, calls } = await store.counters.during(() =>
            open.visitor().send("OPTIONS", path, { headers: asking(origin, method) }),
          );
          assert.equal(answer.status, 204);
          assert.equal(answer.text, "");
          assert.equal(calls, 0);
          assertReadableFrom(answer, origin);
          assert.equal(answer.headers.get("access-control-allow-methods"), methods);
          const headers = listed(answer, "access-control-allow-headers");
          assert.deepEqual(headers, ["content-type", "if-match", "if-none-match"]);
          assert.match(answer.headers.get("access-control-max-age") ?? "", /^\d+$/);
          assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
          assert.deepEqual(answer.setCookies, []);
        }
      });
    }

    test(`for ${path} from anywhere else says nothing`, async () => {
      for (const origin of LOOKALIKES) {
        const { value: answer, calls } = await store.counters.during(() =>
          open.visitor().send("OPTIONS", path, { headers: asking(origin, "PATCH") }),
        );
        assert.equal(answer.status, 204);
        assert.equal(calls, 0);
        assert.deepEqual(corsHeaders(answer), [], origin);
        assert.ok(listed(answer).includes("origin"));
      }
    });

    test(`for ${path} says nothing to anyone when no origin is set`, async () => {
      const answer = await closed.visitor().send("OPTIONS", path, { headers: asking(FRONT, "PATCH") });
      assert.equal(answer.status, 204);
      assert.deepEqual(corsHeaders(answer), []);
    });
  }

  test("says each thing once: a browser refuses an origin that is named twice", async () => {
    const answer = await open
      .visitor()
      .send("OPTIONS", "/auth/session", { headers: asking(FRONT, "DELETE") });
    for (const name of corsHeaders(answer).concat("vary")) {
      const items = listed(answer, name);
      assert.deepEqual(items, [...new Set(items)], name);
    }
  });

  test("with a forged cookie or a valid one neither removes it nor calls the store", async () => {
    const visitor = await guest(open);
    for (const ticket of [visitor.ticket, "A".repeat(148), "x"]) {
      visitor.ticket = ticket;
      const { value: answer, calls } = await store.counters.during(() =>
        visitor.send("OPTIONS", "/auth/session", { headers: asking(FRONT, "DELETE") }),
      );
      assert.equal(answer.status, 204);
      assert.deepEqual(answer.setCookies, []);
      assert.equal(calls, 0);
    }
  });

  test("is answered while the store is unreachable", async () => {
    await store.stopListening();
    try {
      const answer = await open
        .visitor()
        .send("OPTIONS", "/auth/session", { headers: asking(FRONT, "DELETE") });
      assert.equal(answer.status, 204);
    } finally {
      await store.resumeListening();
    }
  });

  test("needs an origin and a requested method: without them OPTIONS says what methods there are", async () => {
    for (const headers of [{}, { Origin: FRONT }, { "Access-Control-Request-Method": "PATCH" }]) {
      const answer = await open
        .visitor()
        .send("OPTIONS", "/auth/session", { headers: /** @type {any} */ (headers) });
      assert.equal(answer.status, 204);
      assert.equal(answer.headers.get("allow"), PATHS["/auth/session"]);
      assert.equal(answer.headers.get("access-control-allow-methods"), null);
    }
  });
});

describe("an answer to an allowed origin", () => {
  /** @type {[string, number, (visitor: Visitor, headers: Record<string, string>) => Promise<Answer>][]} */
  const answers = [
    ["a look", 200, (visitor, headers) => visitor.send("GET", "/auth/session", { headers })],
    ["a look by HEAD", 200, (visitor, headers) => visitor.send("HEAD", "/auth/session", { headers })],
    ["a change", 200, (visitor, headers) => visitor.merge({ views: 3 }, headers)],
    ["a rotation", 200, (visitor, headers) => visitor.send("POST", "/auth/session/rotate", { headers })],
    ["health", 200, (visitor, headers) => visitor.send("GET", "/auth/health", { headers })],
    [
      "malformed JSON",
      400,
      (visitor, headers) => sendText(visitor, "{", { "Content-Type": MERGE, ...headers }),
    ],
    ["an unknown path", 404, (visitor, headers) => visitor.send("GET", "/auth/nowhere", { headers })],
    ["a wrong method", 405, (visitor, headers) => visitor.send("PUT", "/auth/session", { headers })],
    ["a wrong tag", 412, (visitor, headers) => visitor.merge({ a: 1 }, { "If-Match": '"x"', ...headers })],
    [
      "too much",
      413,
      (visitor, headers) => sendText(visitor, "x".repeat(262_145), { "Content-Type": MERGE, ...headers }),
    ],
    ["an unknown type", 415, (visitor, headers) => sendText(visitor, "{}", headers)],
    ["a misfit", 422, (visitor, headers) => visitor.patch([{ op: "remove", path: "/x" }], headers)],
    ["a logout", 204, (visitor, headers) => visitor.send("DELETE", "/auth/session", { headers })],
    [
      "a rotation of nothing",
      401,
      (visitor, headers) => visitor.send("POST", "/auth/session/rotate", { headers }),
    ],
  ];

  test("is readable there, and says that it depends on the cookie and the origin", async (t) => {
    const visitor = await guest(open);
    for (const [name, status, act] of answers) {
      await t.test(`${name}: ${status}`, async () => {
        const answer = await act(visitor, browser("cross-site", FRONT));
        assert.equal(answer.status, status, answer.text);
        assertPublic(answer);
      });
    }
  });

  test("is readable there also when the store fails", async () => {
    const visitor = await guest(open);
    store.faults.always("refuse");
    const answer = await visitor.send("GET", "/auth/session", { headers: browser("cross-site", FRONT) });
    store.faults.clear();
    assert.equal(answer.status, 503);
    assert.equal(answer.headers.get("retry-after"), "1");
    assertPublic(answer);
  });

  test("does not depend on what the browser says of the site", async () => {
    const visitor = await guest(open);
    for (const site of ["same-site", "same-origin", "none", undefined]) {
      assertPublic(await visitor.send("GET", "/auth/session", { headers: browser(site, LOCAL) }), LOCAL);
    }
  });

  /** @param {Answer} answer */
  function assertPublic(answer, origin = FRONT) {
    assertReadableFrom(answer, origin);
    assert.ok(listed(answer).includes("cookie"), `Vary: ${answer.headers.get("vary")}`);
    const exposed = listed(answer, "access-control-expose-headers");
    for (const name of ["etag", "ratelimit", "ratelimit-policy", "retry-after", "allow", "accept-patch"]) {
      assert.ok(exposed.includes(name), `${name} is exposed`);
    }
    for (const name of corsHeaders(answer).concat("vary")) {
      const items = listed(answer, name);
      assert.deepEqual(items, [...new Set(items)], name);
    }
  }

  /** @param {Visitor} visitor @param {string} body @param {Record<string, string>} headers */
  function sendText(visitor, body, headers) {
    return visitor.send("PATCH", "/auth/session/data", { headers, body });
  }
});
