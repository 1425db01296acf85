/** A setting under another name than its own is seen: the log names both. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { messagesOf } from "./support/log.mjs";
import { startWorker, until } from "./support/worker.mjs";

const store = await startLocalStore();
/** @type {import("./support/worker.mjs").Worker[]} */
const workers = [];
after(async () => {
  await Promise.all(workers.map((worker) => worker.stop()));
  await store.stop();
});

/** An isolate, and what it logs at its first requests. @param {Omit<Parameters<typeof startWorker>[0], "store">} options */
async function firstLog(options) {
  const worker = await startWorker({ store, ...options });
  workers.push(worker);
  const answers = [await worker.visitor().look(), await worker.visitor().look()];
  await until(
    () => /is not bound|is missing/.test(messagesOf(worker)),
    () => messagesOf(worker),
  );
  return { worker, answers, log: messagesOf(worker) };
}

const NO_TABLE = /CLOAKROOM is not bound: every setting has its default.*\[vars\.CLOAKROOM\]/;

test("a Worker without a table runs on the defaults, and says so once per isolate", async () => {
  const { answers, log } = await firstLog({ secrets: { CLOAKROOM: undefined } });
  for (const answer of answers) assert.deepEqual([answer.status, answer.json], [200, { session: null }]);
  assert.match(log, NO_TABLE);
  assert.equal(log.match(/not bound/g)?.length, 1);
  assert.doesNotMatch(log, /did you mean|misconfigured/);
});

/** @type {[string, string, unknown, RegExp][]} */
const MEANT = [
  [
    "a misspelt name",
    "CLOAKROM",
    { limits: { ip: "1/1m" } },
    /"CLOAKROM" is bound.*did you mean CLOAKROOM\?/,
  ],
  ["another case", "Cloakroom", '{"limits":{}}', /"Cloakroom" is bound.*did you mean CLOAKROOM\?/],
  ["another name", "SESSIONS", { session: { idle: "1h" } }, /"SESSIONS" is bound, which holds such settings/],
  ["no table at all", "cookie", { name: "sid" }, /"cookie" is bound by itself: move it/],
];
for (const [name, binding, value, expected] of MEANT) {
  test(`settings under ${name} are pointed at, without a word of what they hold`, async () => {
    const { answers, log } = await firstLog({ secrets: { CLOAKROOM: undefined, [binding]: value } });
    assert.equal(answers[0].status, 200);
    assert.match(log, NO_TABLE);
    assert.match(log, expected);
    assert.doesNotMatch(log, /1\/1m|idle|1h|sid/);
  });
}

test("bindings of any kind stand beside the settings, and only their names are looked at", async () => {
  const { answers, log } = await firstLog({
    secrets: {
      CLOAKROOM: undefined,
      LIST: [1],
      NOTHING: null,
      NUMBER: 7,
      NESTED: { a: { b: "told-nobody" } },
    },
    ratelimits: { RATE_LIMITER: { simple: { limit: 1000, period: 60 } } },
    others: { kvNamespaces: ["CLOAKROOM_KV"], serviceBindings: { CLOAKROOMS: async () => new Response("") } },
  });
  assert.equal(answers[1].status, 200);
  assert.match(log, /"CLOAKROOMS" is bound, which is no setting: did you mean CLOAKROOM\?/);
  assert.doesNotMatch(log, /told-nobody/);
});

/** @type {[string, string, RegExp][]} */
const SECRETS = [
  [
    "SESSION_SECRET",
    "SESSION_SECRETS",
    /SESSION_SECRET is missing: .*"SESSION_SECRETS" is bound.*did you mean SESSION_SECRET\?/,
  ],
  [
    "UPSTASH_REDIS_REST_URL",
    "UPSTASH_REDIS_URL",
    /UPSTASH_REDIS_REST_URL is missing: .*"UPSTASH_REDIS_URL" is bound/,
  ],
  [
    "UPSTASH_REDIS_REST_TOKEN",
    "UPSTASH_REST_TOKEN",
    /UPSTASH_REDIS_REST_TOKEN is missing: .*"UPSTASH_REST_TOKEN" is bound/,
  ],
];
for (const [right, wrong, expected] of SECRETS) {
  test(`${wrong} instead of ${right} is named with the fault, and its value is not`, async () => {
    const { answers, log } = await firstLog({
      secrets: { [right]: undefined, [wrong]: "kept-to-ourselves" },
    });
    assert.deepEqual([answers[0].status, answers[0].json.code], [500, "misconfigured"]);
    assert.match(log, expected);
    assert.doesNotMatch(log + answers[0].text, /kept-to-ourselves/);
  });
}

test("a misspelt ADMIN_TOKEN, without which there is no service API, is named", async () => {
  const { answers, log } = await firstLog({ secrets: { ADMIN_TOKENS: "kept-to-ourselves" } });
  assert.equal(answers[0].status, 200);
  assert.match(log, /ADMIN_TOKEN is not bound: there is no service API; "ADMIN_TOKENS" is bound/);
  assert.doesNotMatch(log, /kept-to-ourselves|CLOAKROOM/);
});

test("an unknown setting is named with the one that is like it", async () => {
  const { log } = await firstLog({
    secrets: { SESSION_SECRET: undefined },
    settings: { session: { idel: "1m" } },
  });
  assert.match(log, /CLOAKROOM\.session\.idel is not known; known here: idle, .*; did you mean idle\?/);
});
