/**
 * Answers arrive in another order than they were made: one that only looked takes no cookie away that another has set, and
 * brings no old one back.
 */
import assert from "node:assert/strict";
import { after, beforeEach, describe, test } from "node:test";
import { FAST_HASH, moveClocks, NO_LIMITS, randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const MINUTE = 60_000;
const PASSWORD = "correct horse";
const [OLD, NEW] = [randomSecret(), randomSecret()];
/** An isolate without limits, one with them, and one that knows another secret. */
const { store, workers, stop } = await startDeployment(
  [{}, { settings: { limits: {} } }, { secrets: { SESSION_SECRET: `${NEW},${OLD}` } }],
  { settings: { limits: NO_LIMITS, password: FAST_HASH }, secrets: { SESSION_SECRET: OLD } },
);
after(stop);
const [plain, limited, ahead] = workers;
beforeEach(() => store.faults.clear());
let count = 0;

/** A name with an account. */
async function someAccount() {
  const username = `Owner ${(count += 1)}`;
  assert.equal((await plain.visitor().register(username, PASSWORD)).status, 201);
  return username;
}

/** A browser takes these answers in this order; then the session is this user's. @param {Visitor} browser @param {Answer[]} answers @param {string | undefined} name */
async function assertKept(browser, answers, name) {
  for (const answer of answers) {
    for (const line of answer.headers.getSetCookie()) {
      const [, key = "", value = ""] = line.match(/^([^=]*)=([^;]*)/) ?? [];
      if (/; Max-Age=0(;|$)/.test(line)) browser.cookies.delete(key);
      else browser.cookies.set(key, value);
    }
  }
  const session = await browser.session();
  assert.equal(session?.user?.name, name, "the newer cookie is kept");
}

/** Everything that only looks. @type {[string, (visitor: Visitor) => Promise<Answer>][]} */
const SAFE = [
  ["GET session", (one) => one.look()],
  ["HEAD session", (one) => one.send("HEAD", "/auth/session")],
  ["GET sessions", (one) => one.send("GET", "/auth/sessions")],
  ["GET profile", (one) => one.send("GET", "/auth/profile")],
  ["GET verify", (one) => one.send("GET", "/auth/verify")],
  ["GET verify with a role", (one) => one.send("GET", "/auth/verify?role=admin")],
  ["GET health", (one) => one.send("GET", "/auth/health")],
  ["GET of an unknown path", (one) => one.send("GET", "/auth/nowhere")],
  ["GET of a route without it", (one) => one.send("GET", "/auth/login")],
  ["OPTIONS", (one) => one.send("OPTIONS", "/auth/session")],
];

/** What a browser may hold that is no session any more. @type {[string, (visitor: Visitor) => Promise<unknown>][]} */
const USELESS = [
  ["a word", async (one) => void (one.ticket = "garbage")],
  ["a forged ticket", async (one) => void (one.ticket = String(one.ticket).slice(0, -1) + "-")],
  ["the ticket of a session that was logged out", (one) => one.clone().logout()],
  [
    "the ticket of a session that has expired",
    async (one) => store.redis.del(`sess:${(await one.session()).handle}`),
  ],
  [
    "a ticket that the isolate knows to be dead",
    async (one) => {
      await one.clone().logout();
      assert.equal((await one.clone().rotate()).status, 401);
    },
  ],
  ["a ticket of another secret", async (one) => void (one.ticket = await foreign())],
];

/** A ticket that only one of the isolates knows. */
async function foreign() {
  const visitor = ahead.visitor();
  await visitor.merge({ a: 1 });
  return visitor.ticket;
}

for (const [where, worker] of /** @type {const} */ ([
  ["without limits", plain],
  ["with limits", limited],
])) {
  describe(`with a cookie that leads nowhere, ${where},`, () => {
    for (const [what, spoil] of USELESS) {
      test(`${what}: no safe request takes the cookie away that a login has set`, async () => {
        const username = await someAccount();
        for (const [job, act] of SAFE) {
          const browser = worker.visitor();
          await browser.merge({ a: 1 }, { "CF-Connecting-IP": `198.51.100.${count % 250}` });
          await spoil(browser);
          // Both at once, with the cookies of before; the read's answer comes last.
          const login = browser.clone().login(username, PASSWORD);
          const [read, loggedIn] = await Promise.all([act(browser.clone()), login]);
          assert.equal(loggedIn.status, 200, loggedIn.text);
          assert.deepEqual(read.headers.getSetCookie(), [], job);
          await assertKept(browser, [loggedIn, read], username);
        }
      });
    }
  });
}

describe("a session that ends while it is read", () => {
  for (const [job, act] of SAFE) {
    test(`${job}: an answer that comes after the login takes nothing away`, async () => {
      const username = await someAccount();
      const browser = plain.visitor();
      await browser.login(username, PASSWORD);
      const reading = store.faults.hold(
        ({ commands }) => commands[0]?.[0] === "MGET" || commands[0]?.[0] === "PING",
      );
      const answering = act(browser.clone());
      const isAsking = await Promise.race([reading.arrived.then(() => true), answering.then(() => false)]);
      if (!isAsking) reading.release();
      const loggedIn = await browser.clone().login(username, PASSWORD);
      assert.equal(loggedIn.status, 200, loggedIn.text);
      reading.release();
      const read = await answering;
      assert.deepEqual(read.headers.getSetCookie(), []);
      if (job.startsWith("GET session")) assert.ok(isAsking);
      await assertKept(browser, [loggedIn, read], username);
    });
  }
});

describe("a touch", () => {
  test("brings no old cookie back: not after a rotation, not after a login", async () => {
    const username = await someAccount();
    for (const change of [
      (/** @type {Visitor} */ one) => one.rotate(),
      (/** @type {Visitor} */ one) => one.login(username, PASSWORD),
      (/** @type {Visitor} */ one) => one.tell("POST", "/reauthenticate", { password: PASSWORD }),
    ]) {
      const browser = plain.visitor();
      await browser.login(username, PASSWORD);
      await plain.moveClock(6 * MINUTE);
      const { value: read, byName } = await store.counters.during(() => browser.clone().look());
      assert.equal(byName.PEXPIRE, 1, "it was touched");
      const changed = await change(browser.clone());
      assert.equal(changed.status, 200, changed.text);
      assert.deepEqual(read.headers.getSetCookie(), []);
      await assertKept(browser, [changed, read], username);
      await plain.moveClock(-6 * MINUTE);
    }
  });

  test("is made once in touch_every by each isolate, whichever ticket is sent", async () => {
    const browser = plain.visitor();
    await browser.merge({ a: 1 });
    await moveClocks(store, [plain, limited], 6 * MINUTE);
    let touches = 0;
    const isTouch = (/** @type {string[]} */ [word, key]) => word === "PEXPIRE" && key.startsWith("sess:");
    const look = ({ commands = /** @type {string[][]} */ ([]) }) => {
      touches += commands.filter(isTouch).length;
      return false;
    };
    store.faults.always({}, { when: look });
    for (const [index, worker] of [plain, limited].entries()) {
      for (let reads = 0; reads < 5; reads += 1) {
        assert.deepEqual((await browser.clone(worker.url).look()).setCookies, []);
      }
      assert.equal(touches, index + 1);
    }
    await moveClocks(store, [plain, limited], -6 * MINUTE);
  });
});

test("of a rotation and what followed the old id, every answer sets the same cookie, in whatever order they come", async () => {
  const browser = plain.visitor();
  const username = await someAccount();
  await browser.login(username, PASSWORD);
  const late = browser.clone();
  const rotated = await browser.clone().rotate();
  const answers = [
    await late.clone().look(),
    await late.clone().merge({ b: 2 }),
    await late.clone().rotate(),
  ];
  for (const answer of answers) assert.deepEqual(answer.setCookies, rotated.setCookies);
  await assertKept(browser, [answers[1], rotated, answers[2], answers[0]], username);
});

test("an answer that changes something does take a useless cookie away, and with it the companion", async () => {
  const browser = plain.visitor();
  await browser.merge({ a: 1 });
  await browser.clone().logout();
  const answer = await browser.send("POST", "/auth/session/rotate");
  assert.equal(answer.status, 401);
  const lines = answer.headers.getSetCookie();
  assert.ok(lines.some((line) => /^__Host-session=; .*Max-Age=0$/.test(line)));
  assert.ok(lines.some((line) => /^__Host-session-sync=; .*Max-Age=0$/.test(line)));
  assert.equal(browser.cookies.size, 0);
});
