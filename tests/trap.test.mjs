/** A trap in wasm costs one request, never the isolate. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { startBoth } from "./support/worker.mjs";

/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;
before(async () => void (both = await startBoth()));
after(() => both.stop());

/** A request that needs more memory than is free: it traps. */
const tooMuch = () =>
  both.worker.visitor().send("PATCH", "/auth/session/data", {
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ text: "x".repeat(200_000) }),
  });

test("an instance that ran out of memory is replaced: one request is lost, the next is served", async () => {
  const { worker } = both;
  const visitor = worker.visitor();
  await visitor.increment("/views");

  await worker.fillMemory();
  const lost = await tooMuch();
  assert.equal(lost.status, 500);
  assert.equal(lost.json.code, "internal");
  assert.equal(lost.headers.get("content-type"), "application/problem+json");
  assert.deepEqual(lost.setCookies, []);

  const next = await visitor.increment("/views");
  assert.equal(next.status, 200);
  assert.equal(next.json.session.data.views, 2);
  assert.match(worker.logs.join(""), /the instance was replaced after a trap \(RuntimeError\)/);
});

test("a request that waits for the store while another one traps is answered, not left hanging", async () => {
  const { worker, store } = both;
  const visitor = worker.visitor();
  await visitor.increment("/views");

  const held = store.faults.hold(({ commands }) => commands[0]?.[0] === "MGET");
  const waiting = visitor.look();
  await held.arrived;
  await worker.fillMemory();
  assert.equal((await tooMuch()).status, 500);
  held.release();

  const answer = await waiting;
  assert.equal(answer.status, 500);
  assert.equal(answer.json.code, "internal");
  assert.deepEqual(answer.setCookies, []);
  assert.equal((await visitor.session()).data.views, 1);
});
