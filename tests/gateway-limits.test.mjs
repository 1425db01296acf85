/** Limits on what the gateway passes on: who is counted, where, and what operators learn of refusals. */
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, describe, test } from "node:test";
import { eventsIn } from "./support/log.mjs";
import { NO_LIMITS, moveToWindow, startDeployment, until } from "./support/worker.mjs";

const PASSWORD = "correct horse battery";
const ADMIN = "an admin token of the tests, 2026-11-28";
const MINUTE = 60_000;

/** @type {import("node:http").Server} */
let server;
let origin = "";
/** How many requests have reached the origin. */
let reached = 0;

before(async () => {
  server = createServer((_, response) => {
    reached += 1;
    response.end("done");
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  origin = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
});
after(() => {
  server.closeAllConnections();
  server.close();
});

/** @param {object} limits @param {object} [gateway] @param {object} [cookie] @param {number} [isolates] */
const start = (limits, gateway, cookie, isolates = 1) =>
  startDeployment(
    Array.from({ length: isolates }, () => ({})),
    {
      settings: {
        cookie: { name: "sid", secure: false, ...cookie },
        gateway: { origin, ...gateway },
        limits: { ...NO_LIMITS, ...limits },
        // A machine that does other things, too, may be slow.
        store: { timeout: "30s" },
      },
      secrets: {
        ADMIN_TOKEN: ADMIN,
        SESSION_SECRET: "pP3cVQ8m1dRk7ZtYw5sXbN2hJf6gLa9e",
      },
    },
  );

/** The statuses of requests one after the other. @param {() => Promise<{ status: number }>} ask @param {number} count */
async function statuses(ask, count) {
  const all = [];
  for (let done = 0; done < count; done += 1) all.push((await ask()).status);
  return all;
}

/** The refusals in the log. @param {{ logs: string[] }} worker */
const refusals = (worker) => eventsIn(worker, "gateway_refused");

describe("200 parallel requests against a limit of 100", () => {
  for (const by of ["session", "user", "ip"]) {
    test(`let exactly 100 reach the origin, from two isolates, by ${by}`, async () => {
      const both = await start({ routes: [{ path: "/app*", limit: "100/1h", by }] }, {}, {}, 2);
      try {
        const [first, second] = both.workers;
        await moveToWindow(both.store, both.workers, { length: 60 * MINUTE });
        const visitor = first.visitor();
        await visitor.register("ada", PASSWORD);
        const visitors = [visitor, visitor.clone(second.url)];
        reached = 0;
        const all = await Promise.all(
          Array.from({ length: 200 }, (_, index) => visitors[index % 2].send("GET", `/app/${index}`)),
        );
        /** @type {Record<number, number>} */
        const byStatus = {};
        for (const { status } of all) byStatus[status] = (byStatus[status] ?? 0) + 1;
        assert.deepEqual(byStatus, { 200: 100, 429: 100 });
        assert.equal(reached, 100);
        const refused = all.find(({ status }) => status === 429);
        assert.deepEqual([refused?.json.code, refused?.headers.has("retry-after")], ["rate_limited", true]);
      } finally {
        await both.stop();
      }
    });
  }
});

test("limits.session counts where the session is asked for, and nowhere else", async () => {
  const routes = [
    { path: "/byip*", limit: "100/1h", by: "ip" },
    { path: "/bysession*", limit: "100/1h", by: "session" },
  ];
  const limits = { session: "3/1h", routes };
  const rules = [
    { path: "/rule*", require: "user" },
    { path: "/rule/open", require: "none" },
  ];
  for (const [identity, path, counts] of /** @type {[string, string, boolean][]} */ ([
    ["headers", "/page", true],
    ["headers", "/public/x", false],
    ["headers", "/rule/open", true],
    ["none", "/page", false],
    ["none", "/rule/open", false],
    ["none", "/rule", true],
    ["none", "/byip", false],
    ["none", "/bysession", true],
  ])) {
    const both = await start(limits, { identity, rules, public: ["/public/*"] });
    try {
      await moveToWindow(both.store, both.workers, { length: 60 * MINUTE });
      const visitor = both.workers[0].visitor();
      assert.equal((await visitor.register("ada", PASSWORD)).status, 201);
      const last = counts ? 429 : 200;
      assert.deepEqual(
        await statuses(() => visitor.send("GET", path), 5),
        [200, 200, 200, last, last],
        `${identity} ${path}`,
      );
    } finally {
      await both.stop();
    }
  }
});

test("a page of another site uses up nobody's limit, and saying so is no way around one", async () => {
  const both = await start({ session: "3/1h", routes: [{ path: "/app*", limit: "3/1h" }] });
  try {
    await moveToWindow(both.store, both.workers, { length: 60 * MINUTE });
    const visitor = both.workers[0].visitor();
    await visitor.register("ada", PASSWORD);
    const headers = { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors" };
    const foreign = () => visitor.send("GET", "/app", { headers });
    assert.deepEqual(await statuses(foreign, 5), [200, 200, 200, 429, 429]);
    assert.deepEqual(await statuses(() => visitor.send("GET", "/app"), 4), [200, 200, 200, 429]);
    const elsewhere = () => visitor.send("GET", "/elsewhere", { headers });
    assert.deepEqual(await statuses(elsewhere, 5), [200, 200, 200, 200, 200]);
  } finally {
    await both.stop();
  }
});

test("limits.ip counts every request but those of public paths", async () => {
  const both = await start({ ip: "3/1h" }, { identity: "none", public: ["/public/*"] });
  try {
    await moveToWindow(both.store, both.workers, { length: 60 * MINUTE });
    const visitor = both.workers[0].visitor();
    assert.deepEqual(await statuses(() => visitor.send("GET", "/public/x"), 5), [200, 200, 200, 200, 200]);
    assert.deepEqual(await statuses(() => visitor.send("GET", "/page"), 4), [200, 200, 200, 429]);
  } finally {
    await both.stop();
  }
});

test("a limit that names a public path holds there, by session, user and address", async () => {
  for (const by of ["session", "user", "ip"]) {
    const routes = [{ path: "/public/costly", limit: "2/1h", by }];
    const both = await start({ session: "1/1h", routes }, { public: ["/public/*"] });
    try {
      await moveToWindow(both.store, both.workers, { length: 60 * MINUTE });
      const visitor = both.workers[0].visitor();
      await visitor.register("ada", PASSWORD);
      assert.deepEqual(await statuses(() => visitor.send("GET", "/public/costly"), 3), [200, 200, 429], by);
      assert.equal((await visitor.send("GET", "/public/else")).status, 200);
    } finally {
      await both.stop();
    }
  }
});

test("a limit by user holds for sessions of an application that only their records name", async () => {
  const routes = [{ path: "/app*", limit: "2/1h", by: "user" }];
  const cookie = { format: "express", user_pointer: "/user" };
  const both = await start({ routes }, { identity: "none" }, cookie);
  try {
    await moveToWindow(both.store, both.workers, { length: 60 * MINUTE });
    const visitors = [];
    for (let count = 0; count < 2; count += 1) {
      const visitor = both.workers[0].visitor();
      const headers = { Authorization: `Bearer ${ADMIN}`, "Content-Type": "application/json" };
      const body = JSON.stringify({ user: { id: "7", name: "ada" } });
      const { json } = await both.workers[0]
        .visitor()
        .send("POST", "/auth/admin/sessions", { headers, body });
      visitor.accept(json.set_cookie);
      visitors.push(visitor);
    }
    const seen = [];
    for (const visitor of [...visitors, ...visitors]) seen.push((await visitor.send("GET", "/app")).status);
    assert.deepEqual(seen, [200, 200, 429, 429]);
  } finally {
    await both.stop();
  }
});

test("each refusal is one line with the rule, the limit and the handle, and is counted; never a path or an id", async () => {
  const rules = [
    { path: "/rule*", require: "user" },
    { path: "/admin/*", require: "role:admin" },
  ];
  const routes = [{ path: "/rule/limited*", limit: "1/1h" }];
  const both = await start({ routes }, { rules });
  const [worker] = both.workers;
  try {
    await moveToWindow(both.store, both.workers, { length: 60 * MINUTE });
    const visitor = worker.visitor();
    const { json } = await visitor.register("ada", PASSWORD);
    const { handle, user } = json.session;
    for (const path of [
      "/rule/limited/secret-1",
      "/rule/limited/secret-2",
      "/admin/secret-3",
      "/secret-4//x",
    ]) {
      await visitor.send("GET", path);
    }
    await worker.visitor().send("POST", "/rule/secret-5");
    await worker.visitor().send("PURGE", "/rule/secret-6");
    await until(() => refusals(worker).length === 5);
    const lines = refusals(worker).map(({ event, level, message, ...line }) => line);
    const none = { method: "GET" };
    assert.deepEqual(lines, [
      {
        ...none,
        status: 429,
        code: "rate_limited",
        rule: "/rule*",
        require: "user",
        limit: "/rule/limited*",
      },
      { ...none, status: 403, code: "forbidden", rule: "/admin/*", require: "role:admin", handle },
      { ...none, status: 400, code: "bad_request" },
      { ...none, status: 401, code: "unauthenticated", rule: "/rule*", require: "user", method: "POST" },
      { ...none, status: 401, code: "unauthenticated", rule: "/rule*", require: "user", method: "other" },
    ]);
    const logs = worker.logs.join("");
    for (const secret of ["secret-", user.id, String(visitor.cookies.get("sid"))]) {
      assert.ok(!logs.includes(secret), secret);
    }
    await worker.moveClock(61_000);
    const headers = { Authorization: `Bearer ${ADMIN}` };
    const stats = await worker.visitor().send("GET", "/auth/admin/stats", { headers });
    assert.equal(stats.json.days[0].gateway_refused, 5);
  } finally {
    await both.stop();
  }
});
