/**
 * A hundred changes of one session at once, over four isolates that are 50 ms from the store: none is refused for want
 * of luck, each is answered with its own state, and an isolate writes what waits in it together.
 */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, beforeEach, describe, test } from "node:test";
import { randomSecret, startDeployment, until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const ISOLATES = 4;
const LATENCY_MS = 50;
const CHANGES = 100;
/** Calls to the store that try to write the session, however many changes each of them carries. */
const MOST_WRITES = 12 * ISOLATES;

/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let deployment;
/** Whose session it is, and its handle. @type {Visitor} */
let owner;
/** @type {string} */
let handle;
/** What the store was asked about the session. */
let asked = { calls: 0, writes: 0 };

before(async () => {
  const isolates = Array.from({ length: ISOLATES }, () => ({}));
  deployment = await startDeployment(isolates, {
    // The limits by default; and patience, as this machine may be busy: what is asserted is counted.
    settings: { limits: {}, store: { timeout: "10s" } },
    secrets: { SESSION_SECRET: randomSecret() },
  });
  // V8 compiles what a change needs when it is first made.
  for (const { visitor } of deployment.workers) {
    const first = visitor();
    for (let times = 0; times < 3; times += 1) assert.equal((await first.increment("/n")).status, 200);
  }
});
after(() => deployment.stop());
beforeEach(async () => {
  deployment.store.faults.clear();
  ({ owner, handle } = await begin({ n: 0 }));
});

/** A new session. @param {object} data */
async function begin(data) {
  const owner = deployment.workers[0].visitor();
  const { json } = await owner.merge(data);
  return { owner, handle: json.session.handle };
}

/** Whether a call would write this session. @param {string[][]} commands @param {string} handle */
const isWrite = (commands, handle) => isAbout(commands, handle, /^(SET|EVAL)/i);

/** @param {string[][]} commands @param {string} handle @param {RegExp} [names] */
const isAbout = (commands, handle, names = /./) =>
  commands.some(([name = "", ...rest]) => names.test(name) && rest.includes(`sess:${handle}`));

/** Moves the store away, and counts from here on. */
function moveStoreAway() {
  const counting = { calls: 0, writes: 0 };
  asked = counting;
  const when = (/** @type {import("../tools/local-store/faults.mjs").Seen} */ { commands }) => {
    counting.calls += Number(isAbout(commands, handle));
    counting.writes += Number(isWrite(commands, handle));
    return true;
  };
  deployment.store.faults.always({ delay: LATENCY_MS }, { when });
}

/** As many tabs of the session's browser, at the isolates in turn. */
const tabs = (of = owner) =>
  Array.from({ length: CHANGES }, (_, at) => of.clone(deployment.workers[at % ISOLATES]?.url));

/** All at once. @param {(tab: Visitor, at: number) => Promise<Answer>} act */
async function together(act) {
  moveStoreAway();
  return Promise.all(tabs().map(act));
}

/**
 * The same; and the first writes wait until all have come to the store, however busy this machine is.
 * @param {(tab: Visitor, at: number) => Promise<Answer>} act
 */
async function gathered(act) {
  const holds = Array.from({ length: ISOLATES }, () =>
    deployment.store.faults.hold(({ commands }) => isWrite(commands, handle)),
  );
  const running = together(act);
  await until(
    () => asked.calls >= CHANGES,
    () => `${asked.calls} calls`,
  );
  for (const { release } of holds) release();
  return running;
}

/** @param {Answer[]} answers */
function count(answers) {
  /** @type {Record<number, number>} */
  const byStatus = {};
  for (const { status } of answers) byStatus[status] = (byStatus[status] ?? 0) + 1;
  return byStatus;
}

/** @param {Answer[]} answers */
const made = (answers) => answers.filter(({ status }) => status === 200);

/** Each of these was answered with a state of its own, which no other change has led to. @param {Answer[]} answers */
function areAllDifferent(answers) {
  for (const look of [
    (/** @type {Answer} */ { json }) => json.session.data.n,
    (/** @type {Answer} */ { headers }) => headers.get("etag"),
  ]) {
    assert.equal(new Set(answers.map(look)).size, answers.length);
  }
}

/** What every isolate sees now. */
async function dataNow() {
  deployment.store.faults.clear();
  const all = await Promise.all(
    deployment.workers.map(async ({ url }) => (await owner.clone(url).session()).data),
  );
  for (const data of all) assert.deepEqual(data, all[0]);
  return all[0];
}

const range = (/** @type {number} */ length) => Array.from({ length }, (_, at) => at + 1);
const counts = (/** @type {Answer[]} */ answers) =>
  answers.map(({ json }) => json.session.data.n).sort((a, b) => a - b);
const increment = { op: "increment", path: "/n", value: 1 };

describe(`${CHANGES} changes of one session at once, at ${ISOLATES} isolates`, () => {
  test("are all made, and each sees a count and an ETag of its own, the last of which is the session's", async () => {
    const answers = await together((tab) => tab.increment("/n"));
    assert.deepEqual(count(answers), { 200: CHANGES });
    assert.deepEqual(counts(answers), range(CHANGES));
    areAllDifferent(answers);
    assert.deepEqual(await dataNow(), { n: CHANGES });
    const last = answers.find(({ json }) => json.session.data.n === CHANGES);
    assert.equal((await owner.look()).headers.get("etag"), last?.headers.get("etag"));
  });

  test("take few writes, as an isolate writes together what waits in it", async () => {
    const answers = await gathered((tab) => tab.increment("/n"));
    assert.deepEqual(count(answers), { 200: CHANGES });
    assert.ok(asked.writes <= MOST_WRITES, `${asked.writes} tries to write`);
  });

  test("count for the session's limit each, once", async () => {
    const before = await counted();
    await together((tab) => tab.increment("/n"));
    assert.equal((await counted()) - before, CHANGES);
  });

  test("of which each sets a member of its own, are all there", async () => {
    const answers = await together((tab, at) => tab.merge({ [`of-${at}`]: at }));
    assert.deepEqual(count(answers), { 200: CHANGES });
    for (const [at, { json }] of answers.entries()) assert.equal(json.session.data[`of-${at}`], at);
    assert.equal(new Set(answers.map(({ headers }) => headers.get("etag"))).size, CHANGES);
    const all = Array.from({ length: CHANGES }, (_, at) => [`of-${at}`, at]);
    assert.deepEqual(await dataNow(), { n: 0, ...Object.fromEntries(all) });
  });

  test("of which every third fails its own test, fail in these alone, and nothing of those is made", async () => {
    const isWrong = (/** @type {number} */ at) => at % 3 === 0;
    const answers = await gathered((tab, at) =>
      tab.patch([increment, ...(isWrong(at) ? [{ op: "test", path: "/n", value: -1 }] : [])]),
    );
    const failed = answers.filter((_, at) => isWrong(at));
    assert.deepEqual(count(failed), { 422: failed.length });
    const others = answers.filter((_, at) => !isWrong(at));
    assert.deepEqual(count(others), { 200: others.length });
    assert.deepEqual(counts(others), range(others.length));
    areAllDifferent(others);
    assert.deepEqual(await dataNow(), { n: others.length });
    assert.ok(asked.writes <= MOST_WRITES, `${asked.writes} tries to write`);
  });

  test("of which some would make the session too large, are refused in these alone", async () => {
    const large = "x".repeat(30_000);
    const isLarge = (/** @type {number} */ at) => at % 10 === 0;
    const answers = await together((tab, at) =>
      isLarge(at)
        ? tab.patch([increment, { op: "add", path: `/of-${at}`, value: large }])
        : tab.increment("/n"),
    );
    assert.deepEqual(count(answers.filter((_, at) => isLarge(at))), { 200: 2, 413: CHANGES / 10 - 2 });
    assert.deepEqual(count(answers.filter((_, at) => !isLarge(at))), { 200: 0.9 * CHANGES });
    areAllDifferent(made(answers));
    const { n, ...others } = await dataNow();
    assert.equal(n, made(answers).length);
    assert.deepEqual(Object.values(others), [large, large]);
  });

  test("with If-Match: *, are all made", async () => {
    const answers = await together((tab) => tab.merge({ n: { of: tab.url } }, { "If-Match": "*" }));
    assert.deepEqual(count(answers), { 200: CHANGES });
    const patched = await together((tab) => tab.patch([{ op: "increment", path: "/m", value: 1 }]));
    assert.deepEqual(count(patched), { 200: CHANGES });
    assert.equal((await dataNow()).m, CHANGES);
  });

  test("with If-Match of the state before, are made once, and refused for all others", async () => {
    const etag = String((await owner.look()).headers.get("etag"));
    const answers = await together((tab, at) => tab.merge({ n: at + 1 }, { "If-Match": etag }));
    assert.deepEqual(count(answers), { 200: 1, 412: CHANGES - 1 });
    const [only] = made(answers);
    assert.deepEqual(await dataNow(), only?.json.session.data);
    assert.equal((await owner.look()).headers.get("etag"), only?.headers.get("etag"));
  });

  test("with If-Match of the state before or none in turn: at most one of the former is made, and all of the latter", async () => {
    const etag = String((await owner.look()).headers.get("etag"));
    const hasCondition = (/** @type {number} */ at) => (at >> 2) % 2 === 0; // half of those at each isolate
    const answers = await together((tab, at) =>
      hasCondition(at) ? tab.merge({ [`of-${at}`]: true }, { "If-Match": etag }) : tab.increment("/n"),
    );
    const [conditional, others] = [true, false].map((wanted) =>
      answers.filter((_, at) => hasCondition(at) === wanted),
    );
    assert.deepEqual(count(others ?? []), { 200: others?.length });
    const met = made(conditional ?? []);
    assert.ok(met.length <= 1, `${met.length} found the state that they asked for`);
    assert.deepEqual(count(conditional ?? [])[412], (conditional?.length ?? 0) - met.length);
    const { n, ...rest } = await dataNow();
    assert.equal(n, others?.length);
    assert.equal(Object.keys(rest).length, met.length);
  });

  test("of which half are only to begin a session, are refused in these", async () => {
    const answers = await together((tab, at) =>
      tab.merge({ [`of-${at}`]: true }, at % 2 ? { "If-None-Match": "*" } : {}),
    );
    assert.deepEqual(count(answers), { 200: CHANGES / 2, 412: CHANGES / 2 });
    assert.equal(Object.keys(await dataNow()).length, 1 + CHANGES / 2);
  });
});

describe("in the midst of them", () => {
  test("a logout ends the session for good: each is made or 401, and nothing brings it back", async () => {
    const { store, workers } = deployment;
    // The first writes pass, and the others wait for the logout.
    const first = new Set();
    const when = (/** @type {import("../tools/local-store/faults.mjs").Seen} */ seen) =>
      isWrite(seen.commands, handle) && !first.has(seen) && (first.size >= ISOLATES || !first.add(seen));
    const holds = tabs().map(() => store.faults.hold(when));
    moveStoreAway();
    const answers = tabs().map((tab) => tab.increment("/n"));
    await Promise.race(answers);
    assert.equal((await owner.clone().logout()).status, 204);
    for (const { release } of holds) release();
    const { 200: made = 0, 401: ended = 0, ...others } = count(await Promise.all(answers));
    assert.deepEqual(others, {});
    assert.ok(made > 0 && ended > 0, `${made} made, ${ended} ended`);
    store.faults.clear();
    assert.equal(await store.redis.exists(`sess:${handle}`), 0);
    for (const { url } of workers) assert.equal(await owner.clone(url).session(), null);
  });

  test("a rotation keeps them all, and none is made twice", async () => {
    moveStoreAway();
    const running = Promise.all(tabs().map((tab) => tab.increment("/n")));
    await until(() => asked.writes > 0);
    const rotator = owner.clone();
    assert.equal((await rotator.rotate()).status, 200);
    const answers = await running;
    assert.deepEqual(count(answers), { 200: CHANGES });
    deployment.store.faults.clear();
    owner = rotator;
    assert.deepEqual(await dataNow(), { n: CHANGES });
    areAllDifferent(answers);
  });

  test("one whose visitor goes away keeps nobody waiting", async () => {
    const { store, workers } = deployment;
    const held = store.faults.hold(({ commands }) => isWrite(commands, handle));
    const { hostname, port } = new URL(workers[1]?.url ?? "");
    const body = JSON.stringify([increment]);
    const gone = connect(Number(port), hostname);
    gone.write(
      `PATCH /auth/session/data HTTP/1.1\r\nHost: ${hostname}:${port}\r\nCookie: ${owner.cookieHeader()}\r\n` +
        `Content-Type: application/json-patch+json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    await held.arrived;
    const before = store.counters.calls;
    const running = Promise.all(range(20).map(() => owner.clone(workers[1]?.url).increment("/n")));
    await until(() => store.counters.calls >= before + 20); // they have read, and wait or write
    gone.destroy();
    held.release();
    const answers = await running;
    assert.deepEqual(count(answers), { 200: 20 });
    areAllDifferent(answers);
    await until(async () => [20, 21].includes((await dataNow()).n));
  });

  test("an instance that traps takes those that wait in it along, and no others", async () => {
    const { store, workers } = deployment;
    const [, worker] = workers;
    const held = store.faults.hold(({ commands }) => isWrite(commands, handle));
    const first = owner.clone(worker?.url).increment("/n");
    await held.arrived;
    const before = store.counters.calls;
    const others = range(20).map(() => owner.clone(worker?.url).increment("/n"));
    await until(() => store.counters.calls >= before + 20); // they have read, and wait or write
    await worker?.breakRandomness();
    await worker?.visitor().merge({ n: 0 }); // if none of them has needed any meanwhile
    const { 200: made = 0, 500: lost = 0 } = count(await Promise.all([first, ...others]));
    assert.equal(made + lost, 21);
    assert.ok(lost > 0);
    held.release();
    const later = await together((tab) => tab.increment("/n"));
    assert.deepEqual(count(later), { 200: CHANGES });
    areAllDifferent(later);
    const { n } = await dataNow();
    assert.ok(n >= made + CHANGES && n <= 21 + CHANGES, `${n}`);
  });
});

describe("a store that fails", () => {
  for (const [what, fault, doubtful] of /** @type {const} */ ([
    ["refuses the first writes", "refuse", false],
    ["loses the answers to the first writes", "lostAnswer", true],
    ["answers the first writes with 503", { status: 503, body: {} }, false],
    ["makes the first writes and answers with 503", { status: 503, body: {}, execute: true }, true],
  ])) {
    test(`and ${what}: what is acknowledged is made, once, and what is refused is not, unless that is in doubt`, async () => {
      const { faults } = deployment.store;
      const own = { delay: LATENCY_MS, ...(typeof fault === "string" ? { [fault]: true } : fault) };
      faults.next(own, { times: 6, when: ({ commands }) => isWrite(commands, handle) });
      const answers = await together((tab) => tab.increment("/n"));
      const { 200: made = 0, 503: failed = 0 } = count(answers);
      assert.equal(made + failed, CHANGES, JSON.stringify(count(answers)));
      assert.ok(made > 0);
      areAllDifferent(answers.filter(({ status }) => status === 200));
      const { n } = await dataNow();
      assert.ok(n >= made && n <= made + (doubtful ? failed : 0), `${made} of ${n} were acknowledged`);
    });
  }
});

test("changes of several sessions at once stay apart", async () => {
  const sessions = await Promise.all(range(5).map((number) => begin({ n: 1000 * number })));
  moveStoreAway();
  const own = (/** @type {number} */ at) => sessions[at % 5]?.owner ?? owner;
  const answers = await Promise.all(
    tabs().map(({ url }, at) =>
      own(at)
        .clone(url)
        .patch([increment, { op: "add", path: `/by-${at}`, value: at }]),
    ),
  );
  assert.deepEqual(count(answers), { 200: CHANGES });
  for (const [number, { owner, handle }] of sessions.entries()) {
    const theirs = answers.filter((_, at) => at % 5 === number);
    assert.ok(theirs.every(({ json }) => json.session.handle === handle));
    const { n, ...members } = await owner.session().then(({ data }) => data);
    assert.equal(n, 1000 * (number + 1) + CHANGES / 5);
    assert.ok(Object.values(members).every((at) => at % 5 === number));
    assert.equal(Object.keys(members).length, CHANGES / 5);
  }
});

/** What the store has counted for sessions' limits, in all windows. */
async function counted() {
  const { redis } = deployment.store;
  const values = await Promise.all((await redis.keys("limit:session:*")).map((key) => redis.get(key)));
  return values.reduce((sum, value) => sum + Number(value), 0);
}
