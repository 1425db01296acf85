/**
 * A change of a session that the isolate knows is one call, which also counts the request. Whatever has happened to the session
 * meanwhile, the answer is the same as if it had been read first.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, beforeEach, describe, test } from "node:test";
import {
  FAST_HASH,
  moveClocks,
  moveToWindow,
  NO_LIMITS,
  randomSecret,
  startDeployment,
} from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {Awaited<ReturnType<typeof startDeployment>>} Deployment */

const ADMIN_TOKEN = randomSecret();
const SESSION_SECRET = randomSecret();
const KEY = randomBytes(32).toString("base64");

/** @param {{ commands: string[][] }} seen */
const isScript = ({ commands }) => commands.some(([word]) => /^EVAL/.test(word ?? ""));

/** @type {Deployment} */
let deployment;
/** @type {Visitor} */
let here;
/** The same visitor at another isolate. @type {Visitor} */
let there;
before(async () => {
  const settings = { limits: NO_LIMITS, password: FAST_HASH, store: { timeout: "300ms" } };
  deployment = await startDeployment([{}, {}], { settings, secrets: { ADMIN_TOKEN, SESSION_SECRET } });
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

/** @template T @param {() => Promise<T>} act */
const counted = (act) => deployment.store.counters.during(act);

/** What is asked for beside the known session, and what it costs in calls. */
test("what another isolate has changed is found in the same call, and the change is made to that", async () => {
  await there.merge({ other: "é" });
  const { value, calls } = await counted(() => here.increment("/n"));
  assert.deepEqual(value.json.session.data, { n: 2, other: "é" });
  assert.equal(calls, 2);
  const again = await counted(() => here.increment("/n"));
  assert.deepEqual([again.value.json.session.data.n, again.calls], [3, 1]);
});

describe("what has ended elsewhere stays ended", () => {
  /** @type {[string, () => Promise<unknown>][]} */
  const ENDS = [
    ["by a logout", () => there.logout()],
    ["by a logout of all", () => there.send("DELETE", "/auth/sessions")],
    ["by its handle", async () => admin("DELETE", `/auth/admin/sessions/${(await there.session()).handle}`)],
    [
      "by the operator",
      async () => admin("DELETE", `/auth/admin/users/${(await there.session()).user.id}/sessions`),
    ],
    ["as the account was disabled", async () => disable((await there.session()).user.id)],
  ];
  ENDS.forEach(([how, end], index) =>
    test(how, async () => {
      const name = `user ${index} ${how}`;
      assert.equal((await here.register(name, "correct horse battery")).status, 201);
      assert.equal((await here.merge({ mine: 1 })).status, 200);
      there.cookies = new Map(here.cookies);
      await end();
      const old = here.clone();
      const answer = await here.merge({ later: 1 });
      assert.equal(answer.status, 200, answer.text);
      assert.deepEqual(answer.json.session.data, { later: 1 }, "a new anonymous session");
      assert.equal(answer.json.session.user, null);
      assert.equal(await old.session(), null);
      assert.equal((await old.clone().merge({ a: 1 }, { "If-Match": "*" })).status, 412);
    }),
  );

  test("with the time: its absolute end, and the idle one", async () => {
    for (const milliseconds of [31 * 60_000, 25 * 3_600_000]) {
      const [worker] = deployment.workers;
      const visitor = worker.visitor();
      await visitor.merge({ n: 1 });
      await moveClocks(deployment.store, deployment.workers, milliseconds);
      await deployment.store.redis.del(`sess:${(await here.session())?.handle}`);
      const { value } = await counted(() => visitor.merge({ later: 1 }));
      assert.equal(value.status, 200);
      if (milliseconds > 24 * 3_600_000) assert.deepEqual(value.json.session.data, { later: 1 });
    }
  });
});

test("a role given or taken elsewhere holds in the answer to the next change", async () => {
  const { json } = await here.register("Rosa", "correct horse battery");
  await here.merge({ n: 1 });
  for (const roles of [["admin"], []]) {
    assert.equal(
      (await admin("PUT", `/auth/admin/users/${json.session.user.id}/roles`, { roles })).status,
      204,
    );
    const { value, calls } = await counted(() => here.increment("/n"));
    assert.deepEqual(value.json.session.user.roles, roles);
    assert.equal(calls, 2);
    assert.equal((await counted(() => here.increment("/n"))).calls, 1);
  }
});

test("a rotation elsewhere leads on, and one that is due is made", async () => {
  await there.rotate();
  const led = await here.increment("/n");
  assert.deepEqual(led.json.session.data, { n: 2 });
  assert.equal(led.json.session.handle, (await there.session()).handle);
  await moveClocks(deployment.store, deployment.workers, 61 * 60_000);
  const [worker] = deployment.workers;
  const visitor = worker.visitor();
  await visitor.merge({ n: 1 });
  await moveClocks(deployment.store, deployment.workers, 20 * 60_000);
  await visitor.look();
  await moveClocks(deployment.store, deployment.workers, 20 * 60_000);
  await visitor.look();
  await moveClocks(deployment.store, deployment.workers, 21 * 60_000);
  const ticket = visitor.ticket;
  assert.equal((await visitor.increment("/n")).status, 200);
  assert.notEqual(visitor.ticket, ticket);
});

test("conditions and changes that fail are judged by what is stored, not by what is known", async () => {
  const known = (await here.look()).headers.get("etag") ?? "";
  const { headers } = await there.merge({ n: 7, gone: null });
  const newest = headers.get("etag") ?? "";
  assert.equal((await here.increment("/n", 1)).json.session.data.n, 8);
  assert.equal((await here.merge({ n: 0 }, { "If-Match": known })).status, 412);
  assert.equal((await here.merge({ n: 0 }, { "If-Match": newest })).status, 412);
  const current = (await here.look()).headers.get("etag") ?? "";
  await there.merge({ n: 9 });
  assert.equal((await here.merge({ n: 0 }, { "If-Match": current })).status, 412);
  const test9 = [
    { op: "test", path: "/n", value: 9 },
    { op: "add", path: "/ok", value: true },
  ];
  assert.equal((await here.patch(test9)).status, 200);
  await there.merge({ n: 10 });
  assert.equal((await here.patch(test9)).status, 422);
  assert.equal((await here.merge({ a: "x".repeat(70_000) })).status, 413);
  assert.deepEqual(await here.session().then(({ data }) => data), { n: 10, ok: true });
});

describe("failures", () => {
  test("an answer that was lost is found out: made once", async () => {
    deployment.store.faults.next("lostAnswer", { when: isScript });
    const answer = await here.increment("/n");
    assert.equal(answer.status, 200);
    assert.equal(answer.json.session.data.n, 2);
    assert.equal((await there.session()).data.n, 2);
  });

  test("what did not arrive is 503 or made once, with no cookie, and the next change works", async () => {
    for (const fault of /** @type {const} */ (["refuse", "hang", "cut", "short"])) {
      const before = (await there.session()).data.n;
      await here.look();
      deployment.store.faults.next(fault, { when: isScript });
      const answer = await here.increment("/n");
      const { n } = (await there.session()).data;
      assert.ok(
        answer.status === 503 ? answer.setCookies.length === 0 && n - before <= 1 : n === before + 1,
        fault,
      );
      assert.equal((await here.increment("/n")).json.session.data.n, n + 1);
    }
  });

  test("a store that has forgotten its scripts is sent them again", async () => {
    await here.increment("/n");
    await deployment.store.redis.scriptFlush();
    const { value, calls, byName } = await counted(() => here.increment("/n"));
    assert.equal(value.json.session.data.n, 3);
    assert.deepEqual([calls, byName.EVALSHA, byName.EVAL], [2, 1, 1]);
    assert.equal((await counted(() => here.increment("/n"))).calls, 1);
  });

  test("a store that refuses scripts is asked without them, and again after a minute", async () => {
    deployment.store.faults.always(
      { entry: 0, error: "NOPERM this user has no permissions" },
      { when: isScript },
    );
    const { value } = await counted(() => here.increment("/n"));
    assert.equal(value.json.session.data.n, 2);
    const { calls, byName } = await counted(() => here.increment("/n"));
    assert.deepEqual([calls, byName.EVALSHA], [2, undefined]);
    deployment.store.faults.clear();
    await moveClocks(deployment.store, deployment.workers, 61_000);
    await here.look();
    assert.equal((await counted(() => here.increment("/n"))).byName.EVALSHA, 1);
  });
});

describe("limits", () => {
  test("of changes at once over two isolates exactly the limit's number is made, and the others are not", async () => {
    const limits = { ...NO_LIMITS, session: "10/1h" };
    const limited = await startDeployment([{}, {}], { settings: { limits }, secrets: { SESSION_SECRET } });
    try {
      await moveToWindow(limited.store, limited.workers, { length: 3_600_000, part: 0.2 });
      const [first, second] = limited.workers;
      const visitor = first.visitor();
      await visitor.merge({ n: 0 });
      const others = [visitor, visitor.clone(second?.url)];
      assert.equal((await visitor.increment("/n")).status, 200); // counts 1
      const answers = await Promise.all(
        Array.from({ length: 40 }, (_, index) => others[index % 2]?.clone().increment("/n")),
      );
      const statuses = answers.map((answer) => answer?.status);
      assert.equal(statuses.filter((status) => status === 200).length, 9, String(statuses));
      assert.equal(statuses.filter((status) => status === 429).length, 31);
      const stored = await limited.store.redis.get(String((await limited.store.redis.keys("sess:*"))[0]));
      assert.equal(JSON.parse(String(stored)).data.n, 10);
      // One by one, known and in one call, to the end of the window and behind it.
      await moveClocks(limited.store, limited.workers, 2 * 3_600_000);
      const late = first.visitor();
      await late.merge({ n: 0 });
      const seen = [];
      for (let count = 0; count < 12; count += 1) {
        const { status, headers } = await late.increment("/n");
        seen.push(status === 200 ? headers.get("ratelimit")?.match(/r=(\d+)/)?.[1] : status);
      }
      assert.deepEqual(seen, ["9", "8", "7", "6", "5", "4", "3", "2", "1", "0", 429, 429]);
      assert.ok((await limited.store.redis.keys("limit:*")).length > 0);
      for (const key of await limited.store.redis.keys("limit:*")) {
        assert.ok((await limited.store.redis.pTTL(key)) > 0, `${key} has a time to live`);
      }
    } finally {
      await limited.stop();
    }
  });
});

/** Repeatable chance. @param {number} seed */
function dice(seed) {
  let state = seed;
  return (/** @type {number} */ sides) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % sides;
  };
}

describe("random histories over two isolates end as a plain object would", () => {
  const TEXTS = [
    "",
    "é",
    "😀",
    "a".repeat(300),
    "\\",
    '"data":',
    "\u0000",
    "日本語".repeat(50),
    '{"rev":"x"}',
  ];
  for (const encrypted of [false, true]) {
    test(encrypted ? "sealed" : "not sealed", async () => {
      const secrets = { SESSION_SECRET, ...(encrypted ? { SESSION_ENCRYPTION_KEY: KEY } : {}) };
      const both = await startDeployment([{}, {}], { settings: { limits: NO_LIMITS }, secrets });
      try {
        const [first, second] = both.workers;
        const seed = Math.floor(Math.random() * 1e9);
        const roll = dice(seed);
        const visitor = first.visitor();
        await visitor.merge({ [TEXTS[roll(TEXTS.length)] ?? ""]: 0 });
        const places = [visitor, visitor.clone(second?.url)];
        /** @type {Record<string, unknown>} */
        let model = (await visitor.session()).data;
        let calls = 0;
        for (let step = 0; step < 120; step += 1) {
          const at = places[roll(4) === 0 ? 1 : 0];
          const name = `${roll(3)}${TEXTS[roll(TEXTS.length)]}`;
          const value =
            roll(4) === 0
              ? null
              : roll(3) === 0
                ? { [name]: TEXTS[roll(TEXTS.length)] }
                : TEXTS[roll(TEXTS.length)];
          model = merged(model, { [name]: value });
          const cost = await both.store.counters.during(async () => at?.merge({ [name]: value }));
          calls += cost.calls;
          assert.equal(cost.value?.status, 200, `seed ${seed}, step ${step}: ${cost.value?.text}`);
          assert.deepEqual(cost.value.json.session.data, model, `seed ${seed}, step ${step}`);
        }
        assert.ok(calls < 120 * 1.7, `${calls} calls`);
        assert.deepEqual((await places[1]?.session())?.data, model);
        const [key = ""] = await both.store.redis.keys("sess:*");
        assert.equal(String(await both.store.redis.get(key)).includes('"sealed"'), encrypted);
      } finally {
        await both.stop();
      }
    });
  }
});

/** RFC 7396. @param {any} target @param {any} patch @returns {any} */
function merged(target, patch) {
  if (typeof patch !== "object" || patch === null || Array.isArray(patch)) return patch;
  const result = typeof target === "object" && target !== null && !Array.isArray(target) ? { ...target } : {};
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) delete result[name];
    else result[name] = merged(result[name], value);
  }
  return result;
}

/** @param {string} method @param {string} path @param {unknown} [body] */
function admin(method, path, body) {
  const headers = { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": "application/json" };
  const operator = deployment.workers[1]?.visitor();
  return /** @type {Visitor} */ (operator).send(method, path, {
    headers,
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

/** @param {string} id */
const disable = (id) => admin("PATCH", `/auth/admin/users/${id}`, { disabled: true });
