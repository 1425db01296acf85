/** `password.breach_check`: new passwords are looked for at a service that has the form of Have I Been Pwned's range API. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { after, before, beforeEach, describe, test } from "node:test";
import { admin, assertRefused, name, RIGHT, start, store, WRONG } from "./support/accounts.mjs";
import { NO_LIMITS, until } from "./support/worker.mjs";

const BREACHED = "a breached door key";
const PADDING = "only padding has it";
const GOOD = "a quite new door key";
const FOUND = "this password was found in a data breach; choose another";

/** @param {string} password */
const hashOf = (password) => createHash("sha1").update(password).digest("hex").toUpperCase();

/** The lines of a range: neighbours, the breached password if it is of that range, and padding. @param {string} prefix */
function range(prefix) {
  const known = [
    [hashOf(BREACHED), 42],
    [hashOf(PADDING), 0],
  ].flatMap(([hash, count]) => (String(hash).startsWith(prefix) ? `${String(hash).slice(5)}:${count}` : []));
  const neighbours = Array.from(
    { length: 800 },
    (_, index) => `${hashOf(`${prefix} ${index}`).slice(5)}:${index + 1}`,
  );
  const padding = Array.from({ length: 40 }, (_, index) => `${hashOf(`padding ${index}`).slice(5)}:0`);
  return [...neighbours, ...known, ...padding].join("\r\n");
}

/** @typedef {(response: import("node:http").ServerResponse, prefix: string) => void} Behaviour */
/** @type {Behaviour} */
const works = (response, prefix) => void response.end(range(prefix));
let behaviour = works;
/** What the service was asked. @type {import("node:http").IncomingMessage[]} */
let asked = [];
let url = "";

const server = createServer((request, response) => {
  asked.push(request);
  behaviour(response, request.url?.slice(-5) ?? "");
});
/** @type {import("./support/worker.mjs").Worker} */
let worker;

before(async () => {
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  url = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}/range/`;
  worker = await startChecking();
});
after(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  asked = [];
  behaviour = works;
});

/** An isolate that checks. @param {object} [limits] */
const startChecking = (limits = NO_LIMITS) =>
  start({ settings: { password: { memory_kib: 64, iterations: 1, breach_check: url }, limits } });

/** The four ways to a password, as an account's owner or an operator goes them. @type {[string, string, () => Promise<Way>][]} */
const WAYS = [
  [
    "registering",
    "password",
    async () => {
      const visitor = worker.visitor();
      return { choose: (password) => visitor.register(`${name} b`, password), done: 201 };
    },
  ],
  [
    "changing it",
    "new",
    async () => {
      const { visitor } = await account();
      return {
        choose: (password) => visitor.tell("POST", "/password", { current: RIGHT, new: password }),
        done: 200,
      };
    },
  ],
  [
    "resetting it",
    "new",
    async () => {
      const { visitor, id } = await account();
      const { json, text } = await visitor.tell("POST", `/admin/users/${id}/reset`, {}, admin);
      assert.ok(json.token, text);
      const stranger = worker.visitor();
      return {
        choose: (password) => stranger.tell("POST", "/reset", { token: json.token, new: password }),
        done: 200,
      };
    },
  ],
  [
    "an account that an operator makes",
    "password",
    async () => {
      const visitor = worker.visitor();
      const choose = (/** @type {string} */ password) =>
        visitor.tell("POST", "/admin/users", { username: `${name} c`, password }, admin);
      return { choose, done: 201 };
    },
  ],
];

/** @typedef {{ choose: (password: string) => Promise<import("./support/visitor.mjs").Answer>, done: number }} Way */

/** Somebody who is registered and logged in. */
async function account() {
  const visitor = worker.visitor();
  const answer = await visitor.register(name, RIGHT);
  assert.equal(answer.status, 201, answer.text);
  asked = [];
  return { visitor, id: answer.json.session.user.id };
}

describe("a password from a breach", () => {
  for (const [title, field, begin] of WAYS) {
    test(`is refused when ${title}, and nothing is done; another one is accepted`, async () => {
      const { choose, done } = await begin();
      const refused = await choose(BREACHED);
      assertRefused(refused, 422, "unprocessable");
      assert.equal(refused.json.detail, `"${field}": ${FOUND}`);
      assert.equal(asked.length, 1);
      const accepted = await choose(GOOD);
      assert.equal(accepted.status, done, accepted.text);
      assert.equal(asked.length, 2);
    });
  }

  test("is asked for by the first five digits of its hash, with padding, and nothing of the visitor comes along", async () => {
    const headers = {
      "User-Agent": "Mozilla/5.0",
      Authorization: "Basic YTpi",
      "CF-Connecting-IP": "192.0.2.77",
    };
    await worker.visitor().register(name, BREACHED, headers);
    const [request] = asked;
    assert.equal(request?.method, "GET");
    assert.equal(request?.url, `/range/${hashOf(BREACHED).slice(0, 5)}`);
    assert.equal(request?.headers["add-padding"], "true");
    assert.equal(request?.headers["user-agent"], "cloakroom");
    for (const header of ["cookie", "authorization", "referer", "origin"]) {
      assert.equal(request?.headers[header], undefined, header);
    }
    const sent = JSON.stringify(request?.rawHeaders);
    for (const secret of [name, BREACHED, hashOf(BREACHED).slice(5), "192.0.2.77"]) {
      assert.ok(!sent.includes(secret), secret);
    }
  });

  test("opens the account that has it already: a login asks nobody", async () => {
    const { visitor } = await account();
    assert.equal((await visitor.tell("POST", "/login", { username: name, password: RIGHT })).status, 200);
    assertRefused(
      await visitor.tell("POST", "/login", { username: name, password: WRONG }),
      401,
      "invalid_credentials",
    );
    assert.equal((await visitor.tell("POST", "/reauthenticate", { password: RIGHT })).status, 200);
    assert.equal(asked.length, 0);
  });
});

test("a line of padding, whose count is 0, says nothing", async () => {
  const answer = await worker.visitor().register(name, PADDING);
  assert.equal(answer.status, 201, answer.text);
  assert.equal(asked.length, 1);
});

test("nobody is asked about what is refused anyway", async () => {
  const { visitor } = await account();
  for (const [path, body, status] of /** @type {[string, object, number][]} */ ([
    ["/register", { username: `${name} b`, password: "short" }, 422],
    ["/register", { username: `${name} b`, password: "Password1" }, 422],
    ["/register", { username: name, password: BREACHED }, 409],
    ["/password", { current: WRONG, new: BREACHED }, 401],
    ["/reset", { token: "x".repeat(64), new: BREACHED }, 401],
    ["/admin/users", { username: name, password: BREACHED }, 401],
  ])) {
    const answer = await visitor.tell("POST", path, body);
    assert.equal(answer.status, status, `${path} ${answer.text}`);
  }
  assert.equal(asked.length, 0);
});

test("breached passwords count as attempts, and so do not make the Worker ask for ever; no session is counted", async () => {
  const limited = await startChecking({ session: "", mint: "1/1m", login: "3/5m" });
  const answers = [];
  for (let index = 0; index < 5; index += 1) answers.push(await limited.visitor().register(name, BREACHED));
  assert.deepEqual(
    answers.map(({ status }) => status),
    [422, 422, 422, 429, 429],
  );
  assert.equal(asked.length, 3);
  const other = await limited.visitor().register(`${name} b`, GOOD);
  assert.equal(other.status, 201, other.text);
});

/** @type {[string, RegExp, Behaviour][]} */
const FAILURES = [
  ["does not answer", /did not answer within a second/, () => {}],
  [
    "stops in the middle of its answer",
    /did not answer within a second/,
    (response, prefix) => void response.write(range(prefix)),
  ],
  ["breaks the connection", /did not answer within a second/, (response) => void response.destroy()],
  [
    "answers 500",
    /another status than 200/,
    (response, prefix) => void response.writeHead(500).end(range(prefix)),
  ],
  ["answers 404", /another status than 200/, (response) => void response.writeHead(404).end()],
  [
    "redirects",
    /another status than 200/,
    (response, prefix) => void response.writeHead(302, { Location: `${url}elsewhere/${prefix}` }).end(),
  ],
  [
    "answers a page",
    /another form/,
    (response) => void response.end("<html><title>Please log in</title></html>"),
  ],
  [
    "answers a list with something else in it",
    /another form/,
    (response, prefix) => void response.end(`${range(prefix)}\r\n<!-- cached -->`),
  ],
  [
    "answers bytes",
    /another form/,
    (response) => void response.end(Buffer.from([0xff, 0xfe, 0x00, 0x3a, 0x31])),
  ],
  [
    "answers without end",
    /too long/,
    (response, prefix) => {
      const lines = `${range(prefix)}\r\n`;
      const more = () => {
        while (!response.destroyed && response.write(lines));
      };
      response.on("drain", more);
      more();
    },
  ],
];

describe("a service that fails", () => {
  for (const [title, fault, fails] of FAILURES) {
    test(`and ${title} refuses nobody, and is logged once, and again after it has worked`, async () => {
      const fresh = await startChecking();
      const lines = () => fresh.logs.join("").match(/^.*password\.breach_check: .*$/gm) ?? [];
      behaviour = fails;
      for (const index of [1, 2]) {
        const answer = await fresh.visitor().register(`${name} ${index}`, BREACHED);
        assert.equal(answer.status, 201, answer.text);
      }
      await until(() => lines().length > 0);
      behaviour = works;
      assertRefused(await fresh.visitor().register(`${name} 3`, BREACHED), 422, "unprocessable");
      behaviour = fails;
      assert.equal((await fresh.visitor().register(`${name} 4`, BREACHED)).status, 201);
      await until(() => lines().length > 1);
      assert.equal(lines().length, 2, lines().join("\n"));
      for (const line of lines()) {
        assert.match(line, fault);
        assert.ok(![url, name, hashOf(BREACHED).slice(0, 5)].some((secret) => line.includes(secret)), line);
      }
      assert.ok(asked.every((request) => !request.url?.includes("elsewhere")));
    });
  }

  test("costs no call to the store", async () => {
    behaviour = (response) => void response.writeHead(503).end();
    const failing = await store.counters.during(() => worker.visitor().register(`${name} 1`, GOOD));
    behaviour = works;
    const working = await store.counters.during(() => worker.visitor().register(`${name} 2`, GOOD));
    assert.deepEqual([failing.value.status, working.value.status], [201, 201]);
    assert.equal(failing.calls, working.calls);
  });
});
