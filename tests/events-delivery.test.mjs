/** How events are delivered: after the response, in three tries, whatever the receiver does, in nobody's way. */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { freePort } from "../tools/port.mjs";
import { messagesOf } from "./support/log.mjs";
import { broken, silence, startReceiver, status } from "./support/receiver.mjs";
import { FAST_HASH, randomSecret, startDeployment, until } from "./support/worker.mjs";

/** @import { Answer } from "./support/receiver.mjs" */

const MINUTE = 60_000;
/** What passes between the tries, and how long one may take. */
const PAUSES = [2000, 8000];
const TIMEOUT = 5000;
const ADMIN_TOKEN = randomSecret();
const headers = { Authorization: `Bearer ${ADMIN_TOKEN}` };

const receiver = await startReceiver();
const { store, workers, start, stop } = await startDeployment([{}], {
  settings: { ...receiver.settings, password: FAST_HASH },
  secrets: { ...receiver.secrets, ADMIN_TOKEN },
});
const [worker] = workers;
after(async () => {
  await stop();
  await receiver.stop();
});
let number = 0;
beforeEach(async () => {
  await worker.hurry(...PAUSES, TIMEOUT);
  receiver.answer(status(204));
  await receiver.take(worker);
  worker.logs.length = 0;
  store.faults.clear();
});

/** Lets something be told: an account is made. */
async function tell(at = worker) {
  const username = `Ada ${++number}`;
  const answer = await at.visitor().tell("POST", "/admin/users", { username }, headers);
  assert.equal(answer.status, 201, answer.text);
  return username;
}

/** How many events were lost, by the counters of the day. */
async function lost(at = worker) {
  await at.idle();
  await at.moveClock(MINUTE);
  const { json } = await at.visitor().send("GET", "/auth/admin/stats", { headers });
  return json.days[0]?.events_lost ?? 0;
}

/** @type {[string, Answer[], number, boolean][]} The answers, how many tries that makes, whether it is delivered. */
const CASES = [
  ["200", [status(200)], 1, true],
  ["204", [status(204)], 1, true],
  ["500 and then 200", [status(500), status(200)], 2, true],
  ["a broken connection, 503, and then 200", [broken, status(503), status(200)], 3, true],
  ["500 three times", [status(500)], 3, false],
  ["404 three times", [status(404)], 3, false],
  ["broken connections", [broken], 3, false],
  ["silence, and then 200", [silence, status(200)], 2, true],
  ["nothing but silence", [silence], 3, false],
  ["a redirect to itself", [status(307, { Location: "/elsewhere" })], 3, false],
  ["304", [status(304)], 3, false],
];
for (const [name, answers, tries, isDelivered] of CASES) {
  test(`an event is ${isDelivered ? "delivered" : "given up, logged and counted"} after ${name}`, async () => {
    const before = await lost();
    worker.logs.length = 0;
    receiver.answer(...answers);
    // Pauses fly; a try is given its time unless it is silence that is waited for.
    await worker.hurry(...PAUSES, ...(answers.includes(silence) ? [TIMEOUT] : []));
    const username = await tell();
    await receiver.waitFor(tries);
    await worker.idle();
    const deliveries = [...receiver.deliveries];
    const events = await receiver.take(worker);
    assert.equal(events.length, tries);
    assert.ok(events.every((event) => event.user.name === username));
    assert.equal(
      new Set(deliveries.map(({ body }) => body)).size,
      1,
      "it is the same every time, id included",
    );
    assert.ok(deliveries.every(({ path }) => path === "/hook"));
    const line = `event user.registered ${events[0]?.id} was not delivered`;
    if (!isDelivered) await until(() => worker.logs.join("").includes(line));
    else assert.equal(worker.logs.join(""), "");
    assert.ok(!worker.logs.join("").includes(username));
    assert.equal(await lost(), before + (isDelivered ? 0 : 1));
  });
}

test("a receiver that is down is tried three times, and what it misses is logged and counted", async () => {
  const url = `http://127.0.0.1:${await freePort()}/hook`;
  const lonely = await start({ settings: { events: { url }, password: FAST_HASH } });
  await lonely.hurry(...PAUSES);
  const before = await lost(lonely);
  await tell(lonely);
  await until(() => /event user\.registered [\w-]{16} was not delivered: 3 tries/.test(lonely.logs.join("")));
  assert.ok(!lonely.logs.join("").includes(url), "an address may hold a secret");
  assert.equal(await lost(lonely), before + 1);
});

test("each try is signed anew, with its own time", async () => {
  receiver.answer(status(500), status(200));
  await worker.hurry();
  await tell();
  await receiver.waitFor(1);
  await worker.moveClock(MINUTE, { settle: false });
  await receiver.waitFor(2);
  const [first, second] = receiver.deliveries.map(({ seconds }) => seconds);
  assert.ok(Number(second) - Number(first) >= 60, `${first} and ${second}`);
});

test("a slow receiver delays neither answers nor other work in the background, and gets every event once", async () => {
  /** @type {(() => void)[]} */
  const held = [];
  receiver.answer((response) => void held.push(() => response.writeHead(204).end()));
  await worker.hurry();
  await tell();
  const visitor = worker.visitor();
  await visitor.register(`Ada ${++number}`, "correct horse 17");
  await receiver.waitFor(2);
  assert.equal(held.length, 2, "nobody was answered, and the visitors were");
  // The first use of a new id is noted in the background.
  await visitor.rotate();
  await visitor.look();
  const family = async () =>
    JSON.parse(String(await store.redis.get(String((await store.redis.keys("family:*"))[0]))));
  await until(async () => Boolean((await family()).successors?.at(-1)?.seen));
  // And so are counters written.
  await worker.moveClock(MINUTE, { settle: false });
  const written = store.counters.byName.HINCRBY ?? 0;
  await visitor.look();
  await until(() => (store.counters.byName.HINCRBY ?? 0) > written);
  for (const release of held) release();
  assert.equal((await receiver.take(worker)).length, 2);
});

test("what a receiver says is not read, however much it is", async () => {
  let isClosed = false;
  receiver.answer((response) => {
    response.writeHead(200);
    const more = () => response.write("x".repeat(65_536), () => !isClosed && setImmediate(more));
    response.on("close", () => (isClosed = true));
    more();
  });
  await worker.hurry();
  await tell();
  assert.equal((await receiver.take(worker)).length, 1);
  await until(() => isClosed);
});

test("of a burst that a hanging receiver does not take so much is held, and the rest is dropped, logged and counted", async () => {
  const before = await lost();
  worker.logs.length = 0;
  /** @type {(() => void)[]} */
  const held = [];
  receiver.answer((response) => void held.push(() => response.writeHead(204).end()));
  await worker.hurry();
  const names = await Promise.all(Array.from({ length: 120 }, () => tell()));
  await receiver.waitFor(100);
  const dropped = () =>
    worker.logs.join("").match(/event user\.registered [\w-]{16} was dropped: 100 are under way/g);
  await until(() => dropped()?.length === 20);
  assert.ok(!names.some((name) => worker.logs.join("").includes(name)));
  for (const release of held) release();
  receiver.answer(status(204));
  assert.equal((await receiver.take(worker)).length, 100);
  await tell();
  assert.equal((await receiver.take(worker)).length, 1, "there is room again");
  assert.equal(await lost(), before + 20);
});

test("without events.url nobody is told, and a secret without it is noticed", async () => {
  const quiet = await start({ settings: { events: { url: "" }, password: FAST_HASH } });
  await tell(quiet);
  assert.deepEqual(await receiver.take(quiet), []);
  assert.match(quiet.logs.join(""), /EVENTS_SECRET is bound, but no events are sent: set events\.url/);
  const silent = await start({ settings: { events: { url: "" } }, secrets: { EVENTS_SECRET: undefined } });
  await tell(silent);
  assert.doesNotMatch(silent.logs.join(""), /EVENTS_SECRET|events/);
});

test("a receiver without a good secret, or out of reach of TLS, is a fault of the configuration", async () => {
  for (const [url, secret, fault] of /** @type {[string, string | undefined, RegExp][]} */ ([
    [receiver.url, undefined, /EVENTS_SECRET is missing/],
    [receiver.url, "short", /EVENTS_SECRET has 5 characters; at least 32 are needed/],
    [receiver.url, "change-me-change-me-change-me-change-me", /EVENTS_SECRET looks like a placeholder/],
    ["http://app.example.com/hook", receiver.secret, /CLOAKROOM\.events\.url: a URL like "https:/],
  ])) {
    const wrong = await start({ settings: { events: { url } }, secrets: { EVENTS_SECRET: secret } });
    assert.equal((await wrong.visitor().look()).json.code, "misconfigured");
    await until(() => fault.test(messagesOf(wrong)));
    assert.ok(!secret || !wrong.logs.join("").includes(secret));
  }
});
