/** Tickets in headers of their own, for clients without a cookie jar: CONTRACT.md sections 4 and 11. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const JSON_TYPE = { "Content-Type": "application/json" };
const ADMIN_TOKEN = "wV8sQ2mZ4kT7xR1nB6yL9dF3hJ5gC0pA";
const PASSWORD = "correct horse battery staple";

/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let deployment;
before(async () => {
  const bearer = { enabled: true };
  const accounts = { login: "", mint: "" };
  deployment = await startDeployment(
    [
      { settings: { bearer } },
      { settings: { bearer, limits: { ...accounts, session: "3/1m" } } },
      { settings: {} },
    ],
    {
      settings: { limits: accounts, password: { memory_kib: 64, iterations: 1 } },
      secrets: { ADMIN_TOKEN },
    },
  );
});
after(() => deployment.stop());

/** A program that keeps its ticket itself. */
class Program {
  /** @type {string | undefined} */
  token;
  /** @param {number} [isolate] */
  constructor(isolate = 0) {
    this.visitor = deployment.workers[isolate].visitor();
  }

  /**
   * @param {string} method
   * @param {string} path
   * @param {unknown} [body]
   * @param {Record<string, string>} [headers]
   */
  async ask(method, path, body, headers = {}) {
    const answer = await this.visitor.send(method, `/auth${path}`, {
      headers: {
        "Session-Transport": "bearer",
        ...(this.token ? { Authorization: `Bearer ${this.token}` } : {}),
        ...(body === undefined ? {} : JSON_TYPE),
        ...headers,
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    const token = answer.headers.get("session-token");
    if (token !== null) this.token = token || undefined;
    return answer;
  }

  /** Begins a session. */
  async begin() {
    const answer = await this.ask("PATCH", "/session/data", { cart: ["tea"] });
    assert.equal(answer.status, 200, answer.text);
    assert.ok(this.token);
    return answer;
  }
}

/** @param {Answer} answer */
function assertNoCookie(answer) {
  assert.deepEqual(answer.headers.getSetCookie(), []);
  assert.equal(answer.headers.get("vary"), "Cookie, Authorization");
}

test("the ticket comes in Session-Token when a session begins, and no cookie does", async () => {
  const program = new Program();
  const nothing = await program.ask("GET", "/session");
  assert.equal(nothing.text, '{"session":null}');
  assertNoCookie(nothing);
  assert.equal(nothing.headers.get("session-token"), null);
  assertNoCookie(await program.begin());
  const read = await program.ask("GET", "/session");
  assert.deepEqual(read.json.session.data, { cart: ["tea"] });
  assert.equal(read.headers.get("session-token"), null, "only a new ticket is told");
  assertNoCookie(read);
});

test("accounts, rotation, devices and logout work alike", async () => {
  const program = new Program();
  const username = `ann${Date.now()}`;
  await program.begin();
  const anonymous = program.token;
  for (const answer of [
    await program.ask("POST", "/register", { username, password: PASSWORD }),
    await program.ask("POST", "/login", { username, password: PASSWORD }),
    await program.ask("POST", "/reauthenticate", { password: PASSWORD }),
    await program.ask("POST", "/session/rotate"),
  ]) {
    assert.ok(answer.status < 300, answer.text);
    assert.ok(answer.headers.get("session-token"), "a new ticket");
    assertNoCookie(answer);
    assert.deepEqual(answer.json.session.data, { cart: ["tea"] });
  }
  const devices = await program.ask("GET", "/sessions");
  assert.deepEqual(
    devices.json.sessions.map((/** @type {any} */ one) => one.current),
    [true],
  );
  const verified = await program.ask("GET", "/verify");
  assert.equal(verified.headers.get("x-session-name"), username);
  const old = new Program();
  old.token = anonymous;
  assert.equal((await old.ask("GET", "/session")).text, '{"session":null}', "the id before a login is dead");

  const copy = new Program();
  copy.token = program.token;
  const gone = await program.ask("POST", "/logout");
  assert.equal(gone.status, 204);
  assert.equal(gone.headers.get("session-token"), "", "an empty one takes it away");
  assert.equal(program.token, undefined);
  assert.equal((await copy.ask("GET", "/session")).text, '{"session":null}');
  const late = await copy.ask("PATCH", "/session/data", { late: 1 });
  assert.equal(late.status, 200);
  assert.deepEqual(late.json.session.data, { late: 1 }, "another session");
});

test("the same ticket is good as a cookie, and a cookie's as a bearer ticket", async () => {
  const program = new Program();
  await program.begin();
  const visitor = deployment.workers[0].visitor();
  visitor.ticket = program.token;
  assert.deepEqual((await visitor.look()).json.session.data, { cart: ["tea"] });
});

test("whatever a browser or a cookie jar sends makes it an ordinary request", async () => {
  const program = new Program();
  await program.begin();
  for (const headers of /** @type {Record<string, string>[]} */ ([
    { Origin: deployment.workers[0].url },
    { Origin: "null" },
    { "Sec-Fetch-Site": "same-origin" },
    { "Sec-Fetch-Site": "none" },
    { "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate" },
    { Cookie: "theme=dark" },
    { "Session-Transport": "cookie" },
    { "Session-Transport": "" },
  ])) {
    const read = await program.ask("GET", "/session", undefined, headers);
    assert.equal(read.text, '{"session":null}', JSON.stringify(headers));
    assert.equal(read.headers.get("session-token"), null);
    assert.equal(read.headers.get("vary"), "Cookie");
  }
  // Node's own fetch tells a mode, and is no browser.
  const answer = await fetch(`${deployment.workers[0].url}/auth/session`, {
    headers: { "Session-Transport": "Bearer", Authorization: `bearer ${program.token}` },
  });
  assert.deepEqual(/** @type {any} */ (await answer.json()).session.data, { cart: ["tea"] });
});

test("a page of another origin may not ask for it", async () => {
  const preflight = await deployment.workers[0].visitor().send("OPTIONS", "/auth/session", {
    headers: {
      Origin: "https://evil.example",
      "Access-Control-Request-Method": "GET",
      "Access-Control-Request-Headers": "session-transport, authorization",
    },
  });
  assert.equal(preflight.headers.get("access-control-allow-headers"), null);
});

test("a ticket in both places is refused, another credential is not", async () => {
  const program = new Program();
  await program.begin();
  const visitor = deployment.workers[0].visitor();
  await visitor.increment("/views");
  for (const transport of /** @type {Record<string, string>[]} */ ([{}, { "Session-Transport": "bearer" }])) {
    const both = await visitor.send("GET", "/auth/session", {
      headers: { ...transport, Authorization: `Bearer ${program.token}` },
    });
    assert.equal(both.status, 400);
    assert.equal(both.json.code, "bad_request");
    assert.deepEqual(both.headers.getSetCookie(), []);
  }
  const joined = await new Program().visitor.send("GET", "/auth/session", {
    headers: { Cookie: `a=1, __Host-session=${visitor.ticket}`, Authorization: `Bearer ${program.token}` },
  });
  assert.equal(joined.status, 400, "in a Cookie line that a proxy has joined, too");
  for (const credential of ["Bearer an-api-key", "Basic YTpi", "Bearer "]) {
    const read = await visitor.send("GET", "/auth/session", { headers: { Authorization: credential } });
    assert.deepEqual(read.json.session.data, { views: 1 }, credential);
  }
});

test("a forged, altered or cut ticket is none, and costs no call", async () => {
  const program = new Program();
  await program.begin();
  const good = String(program.token);
  const forged = [...good].flatMap((letter, at) =>
    at % 7 === 0 ? [good.slice(0, at) + (letter === "A" ? "B" : "A") + good.slice(at + 1)] : [],
  );
  const { calls } = await deployment.store.counters.during(async () => {
    for (const token of [...forged, good.slice(1), `${good}A`, ""]) {
      program.token = token;
      const read = await program.ask("GET", "/session");
      assert.equal(read.text, '{"session":null}', token);
      assert.equal(read.headers.get("session-token"), null, "a look takes nothing away");
    }
  });
  assert.equal(calls, 0);
});

test("the service API is opened by its own token, also beside a bearer transport", async () => {
  const program = new Program();
  program.token = ADMIN_TOKEN;
  const made = await program.ask("POST", "/admin/sessions", { user: { id: "7" } });
  assert.equal(made.status, 201, made.text);
  assert.equal(made.headers.get("session-token"), null);
  const ticket = new Program();
  await ticket.begin();
  assert.equal((await ticket.ask("GET", "/admin/stats")).status, 401);
});

test("limits count a ticket wherever it travels", async () => {
  const program = new Program(1);
  await program.begin();
  const statuses = [];
  for (let index = 0; index < 5; index += 1) statuses.push((await program.ask("GET", "/session")).status);
  assert.equal(statuses.filter((status) => status === 429).length, 2, statuses.join());
  const visitor = deployment.workers[1].visitor();
  visitor.ticket = program.token;
  assert.equal((await visitor.look()).status, 429);
});

test("a session that has ended elsewhere takes the ticket away with the next change", async () => {
  const [program, other] = [new Program(), new Program()];
  await program.begin();
  other.token = program.token;
  assert.equal((await other.ask("DELETE", "/session")).status, 204);
  const look = await program.ask("GET", "/session");
  assert.equal(look.headers.get("session-token"), null);
  const change = await program.ask("POST", "/session/rotate");
  assert.equal(change.status, 401);
  assert.equal(change.headers.get("session-token"), "");
});

test("a dead store takes no ticket away", async () => {
  const program = new Program();
  await program.begin();
  const { store } = deployment;
  store.faults.always("refuse");
  const answers = [
    await program.ask("GET", "/session"),
    await program.ask("POST", "/session/rotate"),
    await program.ask("DELETE", "/session"),
  ];
  store.faults.clear();
  for (const answer of answers) {
    assert.equal(answer.status, 503);
    assert.equal(answer.headers.get("session-token"), null);
  }
  assert.deepEqual((await program.ask("GET", "/session")).json.session.data, { cart: ["tea"] });
});

test("it is off by default", async () => {
  const program = new Program(2);
  const begun = await program.ask("PATCH", "/session/data", { cart: ["tea"] });
  assert.equal(begun.headers.get("session-token"), null);
  assert.equal(begun.setCookies.length, 1);
  program.token = /=([^;]*)/.exec(begun.setCookies[0])?.[1];
  program.visitor.cookies.clear();
  assert.equal((await program.ask("GET", "/session")).text, '{"session":null}');
});

test("no ticket is in a log", async () => {
  for (const { logs } of deployment.workers) assert.doesNotMatch(logs.join(""), /[A-Za-z0-9_-]{60,}/);
});
