/** A trap in wasm costs the requests that are in the instance, never the isolate. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */

/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;
before(async () => void (both = await startBoth()));
after(() => both.stop());
beforeEach(() => void both.worker.logs.splice(0));
afterEach(() => both.store.faults.clear());

/** A request that needs more memory than is free: it traps. */
const tooMuch = () =>
  both.worker.visitor().send("PATCH", "/auth/session/data", {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text: "x".repeat(200_000) }),
  });

/** Traps by using up the memory. */
async function trap() {
  await both.worker.fillMemory();
  assertLost(await tooMuch());
}

/** @param {Answer} answer */
function assertLost(answer) {
  assert.equal(answer.status, 500, answer.text);
  assert.equal(answer.json.code, "internal");
  assert.equal(answer.headers.get("content-type"), "application/problem+json");
  assert.deepEqual(answer.setCookies, []);
}

/** The log, without what any trap says. */
function assertLogged({ traps = 1, panics = 0 } = {}) {
  const log = both.worker.logs.join("");
  assert.equal(log.split("the instance was replaced after a trap (RuntimeError)").length - 1, traps, log);
  assert.equal(
    log.match(/"panicked","level":"error","message":"a panic at \S+\.rs:\d+"/g)?.length ?? 0,
    panics,
    log,
  );
  // A text, a stack, or what workerd says of what nobody has caught, or of what never ends.
  assert.doesNotMatch(log, /wasm-function|unreachable|Uncaught|hang|could hold data|Critical|previous/i);
  for (const secret of [both.worker.secret, both.store.token]) assert.ok(!log.includes(secret), log);
}

/** Reads that wait for the store. @param {import("./support/visitor.mjs").Visitor[]} visitors */
async function startReads(visitors) {
  const holds = visitors.map(() => both.store.faults.hold(({ commands }) => commands[0]?.[0] === "MGET"));
  const answers = visitors.map((visitor) => visitor.look());
  await Promise.all(holds.map(({ arrived }) => arrived));
  return { answers, release: () => holds.forEach((hold) => hold.release()) };
}

test("an instance that ran out of memory is replaced: one request is lost, the next is served", async () => {
  const visitor = both.worker.visitor();
  await visitor.increment("/views");

  await trap();

  const next = await visitor.increment("/views");
  assert.equal(next.status, 200);
  assert.equal(next.json.session.data.views, 2);
  assertLogged();
});

test("an instance that panicked is replaced; the log says where, and not what the panic says", async () => {
  const visitor = both.worker.visitor();
  await both.worker.breakRandomness();
  assertLost(await visitor.increment("/views"));

  const next = await visitor.increment("/views");
  assert.equal(next.status, 200);
  assert.equal(next.json.session.data.views, 1);
  assertLogged({ panics: 1 });
});

test("every request that waits for the store while another one traps is answered at once", async () => {
  const { worker } = both;
  const visitors = [worker.visitor(), worker.visitor(), worker.visitor()];
  for (const visitor of visitors) await visitor.increment("/views");

  const { answers, release } = await startReads(visitors);
  await trap();
  // The store has not answered them.
  for (const answer of await Promise.all(answers)) assertLost(answer);

  // What the store answers now is for an instance that is gone, and in nobody's way.
  const { answers: later, release: releaseLater } = await startReads(visitors);
  release();
  await new Promise((done) => setTimeout(done, 50));
  releaseLater();
  for (const answer of await Promise.all(later))
    assert.equal(answer.json.session?.data.views, 1, answer.text);
  assertLogged();
});

test("a request that traps before it waits for anything takes those that wait with it, and no other", async () => {
  const { worker } = both;
  const visitor = worker.visitor();
  await visitor.increment("/views");
  const { answers, release } = await startReads([visitor]);
  await worker.fillMemory();
  // Its URL alone needs more than is free.
  assertLost(await worker.visitor().send("GET", `/auth/session?${"x".repeat(100_000)}`));
  for (const answer of await Promise.all(answers)) assertLost(answer);
  release();
  assert.equal((await visitor.look()).json.session.data.views, 1);
  assertLogged();
});

/** A change whose body comes in two parts. @param {string} url */
function startUpload(url) {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let received = "";
  socket.on("data", (chunk) => void (received += chunk));
  // A server that has answered before the body came may close by a reset: what was received until then counts.
  socket.on("error", () => {});
  /** @type {Promise<string>} */
  const answer = new Promise((resolve) => socket.once("close", () => resolve(received)));
  socket.write(
    `PATCH /auth/session/data HTTP/1.1\r\nHost: ${hostname}\r\nConnection: close\r\n` +
      'Content-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":',
  );
  return { finish: () => socket.write("1}"), answer };
}

test("a request that has waited for minutes is answered, and with 500 when its instance is lost", async () => {
  const { worker } = both;
  await worker.letTimeFly();
  try {
    const uploads = [1, 2, 3].map(() => startUpload(worker.url));
    await new Promise((done) => setTimeout(done, 50));
    uploads[0].finish();
    assert.match(await uploads[0].answer, /^HTTP\/1.1 200 [^]*"data":\{"a":1\}/);
    await trap();
    uploads[1].finish();
    for (const { answer } of uploads.slice(1))
      assert.match(await answer, /^HTTP\/1.1 500 [^]*"code":"internal"/);
    assertLogged();
  } finally {
    await worker.letTimeFly(false);
  }
});

test("an answer of the store that comes after the trap harms nobody who came after it", async () => {
  const visitor = both.worker.visitor();
  await visitor.increment("/views");
  const { answers, release } = await startReads([visitor]);
  await trap();
  release();
  for (const answer of await Promise.all(answers)) assertLost(answer);
  for (let count = 2; count <= 4; count += 1) {
    assert.equal((await visitor.increment("/views")).json.session.data.views, count);
  }
  assertLogged();
});

test("a trap after another: each instance is replaced", async () => {
  const visitor = both.worker.visitor();
  for (let count = 1; count <= 3; count += 1) {
    await trap();
    assert.equal((await visitor.increment("/views")).json.session.data.views, count);
  }
  assertLogged({ traps: 3 });
});

test("requests that arrive together when the memory is used up are all answered", async () => {
  const visitor = both.worker.visitor();
  await visitor.increment("/views");
  await both.worker.fillMemory();
  const answers = await Promise.all(Array.from({ length: 5 }, tooMuch));
  // The first one traps; those that come after it are served by its successor.
  assert.ok(answers.some(({ status }) => status === 500));
  for (const { status, text } of answers) assert.ok(status === 500 || status === 413, text);
  assert.equal((await visitor.look()).json.session.data.views, 1);
});

test("a storm of requests, in which instances trap again and again, leaves none without a problem or an answer", async () => {
  const { worker } = both;
  const visitor = worker.visitor();
  await visitor.increment("/views");
  for (let round = 0; round < 3; round += 1) {
    const answers = Array.from({ length: 24 }, async (_, index) => {
      if (index % 10 === 5) await worker.breakRandomness();
      const one = index % 2 ? visitor.clone() : worker.visitor();
      return index % 3 ? one.merge({ index }) : one.look();
    });
    for (const { status, headers, text } of await Promise.all(answers)) {
      if (status === 200) continue;
      assert.equal(status, 500, text);
      assert.equal(headers.get("content-type"), "application/problem+json", text);
      assert.equal(JSON.parse(text).code, "internal");
    }
  }
  assert.equal((await visitor.session()).data.views, 1);
  assert.match(worker.logs.splice(0).join(""), /a panic at/);
});

test("work in the background ends with its instance: nothing waits for it", async () => {
  const { worker, store } = both;
  const visitor = worker.visitor();
  await visitor.increment("/views");
  const isTally = (/** @type {import("../tools/local-store/faults.mjs").Seen} */ { commands }) =>
    commands.some(([name]) => name === "HINCRBY");
  await worker.moveClock(2 * 60_000, { settle: false });
  const held = store.faults.hold(isTally);
  assert.equal((await visitor.look()).status, 200);
  await held.arrived;

  await worker.breakRandomness();
  assertLost(await worker.visitor().increment("/views"));
  // It answers when no work in the background is left.
  await worker.crossings();
  held.release();
  assert.equal((await visitor.look()).json.session.data.views, 1);
  assertLogged({ panics: 1 });
});

test("a request whose visitor goes away is carried out to its end: nothing is left in the instance", async () => {
  const { worker, store } = both;
  const visitor = worker.visitor();
  await visitor.increment("/views");

  const held = store.faults.hold(({ commands }) => commands[0]?.[0] === "EVALSHA");
  const { hostname, port } = new URL(worker.url);
  const body = '{"gone":true}';
  const socket = connect(Number(port), hostname, () =>
    socket.write(
      `PATCH /auth/session/data HTTP/1.1\r\nHost: ${hostname}\r\nCookie: __Host-session=${visitor.ticket}\r\n` +
        `Content-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    ),
  );
  await held.arrived;
  socket.resetAndDestroy();
  await new Promise((done) => setTimeout(done, 50));
  held.release();

  const deadline = Date.now() + 5000;
  while (!(await visitor.session()).data.gone) assert.ok(Date.now() < deadline, "it was cut off");
});
