/**
 * What a change in one call, or one that another request has written, could get wrong beside the data: the idle end that the
 * answer tells, the cookie of read-your-writes, and several limits at once.
 */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import {
  FAST_HASH,
  moveClocks,
  moveToWindow,
  NO_LIMITS,
  randomSecret,
  startDeployment,
  until,
} from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {Awaited<ReturnType<typeof startDeployment>>} Deployment */
/** @typedef {import("../tools/local-store/faults.mjs").Seen} Seen */

const SYNC = "__Host-session-sync";
const SESSION_SECRET = randomSecret();
const PASSWORD = "correct horse battery";
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** @param {Seen} seen */
const isScript = ({ commands }) => commands.some(([word]) => /^EVAL/.test(word ?? ""));
/** A change of a session or an account. @param {Seen} seen */
const isWrite = ({ commands }) =>
  commands.some(([word, , , how]) => /^EVAL/.test(word ?? "") || how === "IFEQ");

/** @param {Answer} answer */
const syncCookies = ({ headers }) => headers.getSetCookie().filter((line) => line.startsWith(`${SYNC}=`));

describe("without limits", () => {
  /** @type {Deployment} */
  let deployment;
  /** @type {Visitor} */
  let here;
  /** The same visitor at another isolate. @type {Visitor} */
  let there;
  before(async () => {
    const settings = { limits: NO_LIMITS, password: FAST_HASH };
    deployment = await startDeployment([{}, {}], { settings, secrets: { SESSION_SECRET } });
    // The store keeps the script from its first use.
    const visitor = deployment.workers[0].visitor();
    for (const n of [1, 2]) await visitor.merge({ n });
  });
  after(() => deployment.stop());
  beforeEach(async () => {
    deployment.store.faults.clear();
    const [first, second] = deployment.workers;
    here = first.visitor();
    assert.equal((await here.merge({ n: 1 })).status, 200);
    there = here.clone(second?.url);
  });

  test("the idle end in the answer is that of the last touch, however the change came about", async () => {
    await moveClocks(deployment.store, deployment.workers, 10 * MINUTE);
    const touched = (await here.session()).idle_expires_at;
    const idleEnd = async () => (await here.increment("/n")).json.session.idle_expires_at;
    assert.equal(await idleEnd(), touched, "known");
    await there.merge({ other: 1 });
    assert.equal(await idleEnd(), touched, "after a change elsewhere");
    for (const fault of /** @type {const} */ (["lostAnswer", "refuse"])) {
      deployment.store.faults.next(fault, { when: isScript });
      assert.equal(await idleEnd(), touched, fault);
    }
  });

  test("a change that was refused, and so wrote nothing, brings no cookie", async () => {
    const patch = [
      { op: "test", path: "/n", value: 1 },
      { op: "add", path: "/made", value: true },
    ];
    await there.merge({ n: 2 });
    const answer = await here.patch(patch);
    assert.equal(answer.status, 422);
    assert.deepEqual(answer.headers.getSetCookie(), []);
  });

  describe("a change whose answer was lost, and which is acknowledged, is visible to the next request, although replicas lag", () => {
    /** What is changed, and where it is read. @type {[string, (one: Visitor) => Promise<unknown>, () => Promise<Answer>, () => Promise<unknown>][]} */
    const CHANGES = [
      [
        "of a known session",
        async () => {},
        () => here.merge({ n: 2 }),
        async () => (await here.session()).data,
      ],
      [
        "of one that is read first",
        (one) => one.forget(),
        () => here.merge({ n: 2 }),
        async () => (await here.session()).data,
      ],
      [
        "of a profile",
        (one) => one.register("Ada", PASSWORD),
        () => here.tell("PATCH", "/profile", { n: 2 }, { "Content-Type": "application/merge-patch+json" }),
        async () => (await here.send("GET", "/auth/profile")).json,
      ],
    ];
    for (const [what, prepare, change, read] of CHANGES) {
      test(what, async () => {
        await prepare(here);
        here.cookies.delete(SYNC);
        deployment.store.faults.lag = 500;
        deployment.store.faults.next("lostAnswer", { when: isWrite });
        const answer = await change();
        assert.equal(answer.status, 200, answer.text);
        assert.equal(syncCookies(answer).length, 1);
        assert.deepEqual(await read(), { n: 2 });
      });
    }
  });

  test("who waits for another's write sees their own change in the next request, although replicas lag", async () => {
    const { counters, faults } = deployment.store;
    const visitors = Array.from({ length: 5 }, () => here.clone());
    for (const visitor of visitors) visitor.cookies.delete(SYNC);
    faults.lag = 500;
    const held = faults.hold(isWrite);
    const first = visitors[0]?.increment("/n");
    await held.arrived;
    const before = counters.calls;
    const others = visitors.slice(1).map((visitor) => visitor.increment("/n"));
    await until(() => counters.calls >= before + others.length);
    held.release();
    for (const [index, answer] of (await Promise.all([first, ...others])).entries()) {
      assert.equal(answer?.status, 200);
      const { n } = (await visitors[index]?.session()).data;
      assert.ok(n >= answer.json.session.data.n, `${n} is older than the answer`);
    }
  });
});

describe("several limits at once", () => {
  const PATH = "/auth/session/data";
  const LIMITS = {
    ...NO_LIMITS,
    session: "12/1h",
    user: "18/2h",
    ip: "30/3h",
    routes: [{ path: PATH, method: "PATCH", limit: "9/30m", by: "session" }],
  };
  /** Their names, how many, and in how long. */
  const ALL = /** @type {const} */ ([
    ["session", 12, HOUR],
    ["user", 18, 2 * HOUR],
    ["ip", 30, 3 * HOUR],
    [`PATCH ${PATH}`, 9, HOUR / 2],
  ]);

  /** @type {Deployment} */
  let deployment;
  before(async () => {
    const settings = { limits: LIMITS, password: FAST_HASH };
    deployment = await startDeployment([{}, {}], { settings, secrets: { SESSION_SECRET } });
  });
  after(() => deployment.stop());

  /** All counters. */
  async function counters() {
    const { redis } = deployment.store;
    await Promise.all(deployment.workers.map((worker) => worker.idle()));
    const keys = await redis.keys("limit:*");
    return new Map(
      await Promise.all(keys.map(async (key) => /** @type {const} */ ([key, Number(await redis.get(key))]))),
    );
  }

  test("each counts a change once, or none does; what is left is told as ever, in one call or in two", async () => {
    const { store, workers } = deployment;
    const [first] = workers;
    await moveToWindow(store, workers, { length: 6 * HOUR, part: 0.1 });
    const one = first.visitor();
    assert.equal((await one.register("Ada", PASSWORD)).status, 201);
    const two = first.visitor();
    assert.equal((await two.login("Ada", PASSWORD)).status, 200);
    const costs = { 1: 0, 2: 0 };
    /** Which have refused. @type {Set<string>} */
    const refusing = new Set();
    for (let step = 0; step < 150; step += 1) {
      // Windows pass, and parts of them: some of each previous one still counts.
      if (step % 6 === 5)
        await moveClocks(store, workers, [7, 11, 23, 61, 125][((step / 6) % 5) | 0] * MINUTE);
      if (step % 6 === 5) await one.look();
      const visitor = step % 5 === 4 ? two : one;
      visitor.url = workers[step % 4 === 3 ? 1 : 0]?.url ?? "";
      const old = await counters();
      const now = store.now();
      const { value: answer, calls } = await store.counters.during(() => visitor.increment("/n"));
      const counted = [...(await counters())].filter(([key, count]) => count !== (old.get(key) ?? 0));
      const where = `step ${step}, ${calls} calls`;
      if (answer.status !== 200) {
        assert.equal(answer.status, 429, answer.text);
        assert.deepEqual(counted, [], where);
        refusing.add(answer.json.detail.match(/"(.*)"/)?.[1]);
        continue;
      }
      assert.equal(counted.length, ALL.length, where);
      costs[calls === 1 ? 1 : 2] += 1;
      for (const [name, limit, length] of ALL) {
        const [key = "", count = 0] = counted.find(([key]) => key.startsWith(`limit:${name}:`)) ?? [];
        const [, base, index] = key.match(/^(.*):(\d+)$/) ?? [];
        const at = (/** @type {number} */ number) => old.get(`${base}:${number}`) ?? 0;
        assert.equal(Number(index), Math.floor(now / length), where);
        assert.equal(count, at(Number(index)) + 1, where);
        const covered = Math.min(at(Number(index) - 1), limit) * (length - (now % length));
        const left = limit - Math.floor(covered / length) - count;
        assert.match(answer.headers.get("ratelimit") ?? "", new RegExp(`"${name}";r=${left};`), where);
        assert.match(
          answer.headers.get("ratelimit-policy") ?? "",
          new RegExp(`"${name}";q=${limit};w=${length / 1000}`),
        );
      }
    }
    assert.ok(costs[1] > 10 && costs[2] > 10, JSON.stringify(costs));
    assert.ok(refusing.size >= 3, [...refusing].join());
    for (const key of (await counters()).keys()) {
      assert.ok((await store.redis.pTTL(key)) > 0, `${key} has a time to live`);
    }
  });
});
