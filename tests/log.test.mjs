/** Every line of the Worker's log is JSON of the form that docs/operations.md describes, and tells nothing it must not. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, test } from "node:test";
import { Log, LogLevel, Miniflare } from "miniflare";
import { collapsed, lineOf, told } from "../tools/log.mjs";
import { freePort } from "../tools/port.mjs";
import { makeKey } from "./support/jwt.mjs";
import { eventsIn } from "./support/log.mjs";
import { silence, startReceiver } from "./support/receiver.mjs";
import { FAST_HASH, NO_LIMITS, randomSecret, startDeployment, until } from "./support/worker.mjs";

/** @import { Isolate, LocalStore, Worker } from "./support/worker.mjs" */
/** @typedef {{ worker: Worker, store: LocalStore, start: (isolate?: Isolate) => Promise<Worker> }} Stage */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const PASSWORD = "correct horse battery";
/** In all that visitors send and that is stored, so that no line may have it. */
const MARK = "told-nobody";

/** The table of events: level and fields of each. */
const EVENTS = new Map(
  [
    ...readFileSync(new URL("../docs/operations.md", import.meta.url), "utf8").matchAll(
      /^\| `(\w+)` \| (error|warn|info) \|(.*?)\|/gm,
    ),
  ].map(([, event, level, fields = ""]) => [
    event ?? "",
    { level, fields: [...fields.matchAll(/`(\w+)`/g)].map(([, field]) => field) },
  ]),
);

/** What the gateway's origin answers with. @type {Record<string, string>} */
let answered = {};
let beforeAnswer = () => {};
const origin = createServer((_, response) => {
  beforeAnswer();
  response.writeHead(200, answered).end("done");
});
origin.listen(0, "127.0.0.1");
await once(origin, "listening");
const { port } = /** @type {import("node:net").AddressInfo} */ (origin.address());
const receiver = await startReceiver();
after(async () => {
  origin.closeAllConnections();
  origin.close();
  await receiver.stop();
});

/** A visitor with a session. @param {Worker} worker */
async function guest(worker) {
  const visitor = worker.visitor();
  const { json } = await visitor.merge({ secret: MARK });
  return { visitor, handle: String(json.session.handle) };
}

/** Asks the origin behind the gateway, which answers with these headers. @param {Worker} worker @param {Record<string, string>} headers */
async function passOn(worker, headers, path = "/page") {
  answered = headers;
  const { visitor } = await guest(worker);
  return visitor.send("GET", `${path}?${MARK}`);
}

const gateway = {
  cookie: { name: "sid", secure: false },
  gateway: { origin: `http://127.0.0.1:${port}`, rules: [{ path: "/members*", require: "user" }] },
};

/** @type {{ title: string, events: string[], options?: Isolate, drive: (stage: Stage) => Promise<unknown> }[]} */
const SCENES = [
  {
    title: "settings and secrets that are refused, a line each",
    events: ["misconfigured", "misconfigured", "misconfigured"],
    options: { settings: { session: { idel: "1m" }, colour: "red" }, secrets: { SESSION_SECRET: "short" } },
    drive: ({ worker }) => worker.visitor().look(),
  },
  {
    title: "a missing table, and a limit of Cloudflare's that is none",
    events: ["setting_noticed", "platform_limit_ignored"],
    options: { secrets: { CLOAKROOM: undefined, RATE_LIMITER: MARK } },
    drive: ({ worker }) => worker.visitor().look(),
  },
  {
    title: "a ticket under an unknown secret",
    events: ["unknown_secret"],
    async drive({ worker, start }) {
      const { visitor } = await guest(await start({ secrets: { SESSION_SECRET: randomSecret() } }));
      await visitor.clone(worker.url).look();
    },
  },
  {
    title: "a store that fails",
    events: ["store_failed", "request_uncounted", "stats_not_written"],
    options: { settings: { store: { on_failure: "open" }, limits: { ...NO_LIMITS, session: "300/1m" } } },
    async drive({ worker, store }) {
      const { visitor } = await guest(worker);
      const failing = { entry: 2, error: `ERR value is not an integer ${MARK}` };
      store.faults.next(failing, { when: ({ commands }) => commands.some(([name]) => name === "INCR") });
      assert.equal((await visitor.look()).status, 200);
      store.faults.always("refuse");
      const { status } = await visitor.send("PATCH", `/auth/session/data?${MARK}`, {
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ secret: MARK }),
      });
      assert.equal(status, 503);
      await worker.moveClock(MINUTE);
      store.faults.clear();
    },
  },
  {
    title: "an old id that is used after its grace",
    events: ["reuse_detected"],
    async drive({ worker }) {
      const { visitor } = await guest(worker);
      const thief = visitor.clone();
      await visitor.rotate();
      await visitor.look();
      await worker.idle();
      await worker.moveClock(30 * SECOND);
      assert.equal((await thief.look()).json.session, null);
    },
  },
  {
    title: "a record that cannot be read",
    events: ["record_unreadable"],
    async drive({ worker, store }) {
      const { visitor, handle } = await guest(worker);
      await store.redis.set(`sess:${handle}`, `not JSON: ${MARK}`, { expiration: "KEEPTTL" });
      assert.equal((await visitor.rotate()).status, 500);
      await until(() => eventsIn(worker, "record_unreadable").length > 0);
      const [line] = eventsIn(worker, "record_unreadable");
      assert.deepEqual(
        [line?.handle, line?.status, line?.code, line?.method, line?.route],
        [handle, 500, "internal", "POST", "/session/rotate"],
      );
    },
  },
  {
    title: "a page of another origin",
    events: ["origin_refused"],
    drive: ({ worker }) =>
      worker.visitor().send("OPTIONS", "/auth/session", {
        headers: { Origin: "https://shop.example", "Access-Control-Request-Method": "PATCH" },
      }),
  },
  {
    title: "a breach check that does not answer",
    events: ["breach_check_failed"],
    options: { settings: { password: { ...FAST_HASH, breach_check: "http://127.0.0.1:9/range/" } } },
    drive: ({ worker }) => worker.visitor().register(MARK, PASSWORD),
  },
  {
    title: "a provider that does not answer",
    events: ["provider_failed"],
    options: {
      settings: { accounts: { providers: [{ id: "acme", issuer: "http://127.0.0.1:9", client_id: MARK }] } },
      secrets: { PROVIDER_ACME_SECRET: MARK },
    },
    drive: ({ worker }) => worker.visitor().send("GET", `/auth/login/acme?return_to=/${MARK}`),
  },
  {
    title: "a back end that is down",
    events: ["event_not_delivered"],
    options: {
      settings: { password: FAST_HASH, events: { url: `http://127.0.0.1:${await freePort()}/${MARK}` } },
      secrets: receiver.secrets,
    },
    async drive({ worker }) {
      await worker.hurry(2000, 8000);
      await worker.visitor().register(MARK, PASSWORD);
      await until(() => eventsIn(worker, "event_not_delivered").length > 0);
      assert.equal(eventsIn(worker, "event_not_delivered")[0]?.type, "user.registered");
    },
  },
  {
    title: "a back end that hangs",
    events: ["event_dropped"],
    options: { settings: { password: FAST_HASH, ...receiver.settings }, secrets: receiver.secrets },
    async drive({ worker }) {
      receiver.answer(silence);
      const make = (/** @type {number} */ index) =>
        worker.visitor().tell("POST", "/admin/users", { username: `${MARK} ${index}` }, admin);
      await Promise.all(Array.from({ length: 101 }, (_, index) => make(index)));
    },
  },
  {
    title: "what the gateway refuses, and what its origin may not ask",
    events: [
      "gateway_refused",
      "gateway_answer_bad",
      "session_change_failed",
      "session_change_ignored",
      "store_failed",
    ],
    options: { settings: { ...gateway, gateway: { ...gateway.gateway, public: ["/assets/*"] } } },
    async drive({ worker, store }) {
      assert.equal((await passOn(worker, {}, "/members/list")).status, 401);
      assert.equal((await passOn(worker, { "X-Session-Patch": `"${MARK}"` })).status, 502);
      const patch = { "X-Session-Patch": JSON.stringify({ other: MARK }) };
      beforeAnswer = () => store.faults.always("refuse");
      assert.equal((await passOn(worker, patch)).status, 503);
      beforeAnswer = () => {};
      store.faults.clear();
      assert.equal((await passOn(worker, patch, "/assets/x")).status, 200);
    },
  },
  {
    title: "an identity that is not signed",
    events: ["signing_failed"],
    options: {
      settings: { ...gateway, gateway: { ...gateway.gateway, identity: "jwt" } },
      secrets: { JWT_KEYS: JSON.stringify([makeKey("EdDSA", MARK)]) },
    },
    async drive({ worker }) {
      const { json } = await worker.visitor().tell("POST", "/admin/sessions", { user: { id: MARK } }, admin);
      const visitor = worker.visitor();
      visitor.accept(json.set_cookie);
      assert.equal((await visitor.send("GET", "/page")).status, 200);
      await worker.breakSigning();
      // A signature is kept for some time.
      await worker.moveClock(MINUTE);
      assert.equal((await visitor.send("GET", "/page")).status, 500);
    },
  },
  {
    title: "a key whose halves do not belong together",
    events: ["jwt_key_unusable"],
    options: {
      settings: { ...gateway, gateway: { ...gateway.gateway, identity: "jwt" } },
      secrets: { JWT_KEYS: JSON.stringify([{ ...makeKey("EdDSA", MARK), x: makeKey("EdDSA", "b").x }]) },
    },
    drive: ({ worker }) => worker.visitor().send("GET", "/auth/jwks.json"),
  },
  {
    title: "a panic",
    events: ["panicked", "instance_replaced"],
    async drive({ worker }) {
      await worker.breakRandomness();
      assert.equal((await worker.visitor().merge({ secret: MARK })).status, 500);
    },
  },
];

/** Whose lines no scene here provokes; other files look at what they say. */
const ELSEWHERE = [
  "cache_failed",
  "data_left_behind",
  "family_not_written",
  "handler_mistaken",
  "limit_correction_failed",
  "script_refused",
  "limit_corrections_dropped",
  "platform_limit_failed",
  "record_too_large",
  "response_refused",
  "session_dropped",
];

for (const { title, events, options = {}, drive } of SCENES) {
  test(`${title}: ${[...new Set(events)].join(", ")}`, async () => {
    const { store, workers, start, stop } = await startDeployment([
      { ...options, secrets: { ADMIN_TOKEN, ...options.secrets } },
    ]);
    const [worker] = workers;
    try {
      await drive({ worker, store, start });
      await until(
        () =>
          events.every(
            (event) => eventsIn(worker, event).length >= events.filter((it) => it === event).length,
          ),
        () => `${events} in ${worker.logs.join("")}`,
      );
      const lines = worker.logs.join("").split("\n").filter(Boolean);
      for (const text of lines) assertLine(text);
      const secrets = [
        MARK,
        worker.secret,
        store.token,
        ADMIN_TOKEN,
        receiver.secret,
        new URL(store.url).host,
      ];
      for (const secret of secrets) assert.ok(!lines.join("\n").includes(secret), `${secret} in ${lines}`);
    } finally {
      await stop();
    }
  });
}

/** It is one object, of a documented event, with that one's level and fields. @param {string} text */
function assertLine(text) {
  const line = lineOf(text);
  assert.ok(line, `no line: ${text}`);
  const { event, level, message, ...fields } = line;
  const known = EVENTS.get(event);
  assert.ok(known, `${event} is not documented`);
  assert.equal(level, known.level, text);
  assert.match(message, /^\S.*[^.\s]$/, "a sentence on one line, without a full stop");
  for (const [name, value] of Object.entries(fields)) {
    assert.ok(known.fields.includes(name), `${name} is not documented: ${text}`);
    assert.ok(value !== null && value !== "", text);
  }
}

test("every documented event has a scene here, or is known to have none", () => {
  const all = new Set([...SCENES.flatMap(({ events }) => events), ...ELSEWHERE]);
  assert.deepEqual([...EVENTS.keys()].sort(), [...all].sort());
});

test("the level is the console's, too", async () => {
  /** @type {string[]} */
  const logs = [];
  const file = (/** @type {string} */ name) => readFileSync(new URL(`../build/${name}`, import.meta.url));
  const miniflare = new Miniflare({
    modules: [
      { type: "ESModule", path: "index.js", contents: file("index.js") },
      { type: "CompiledWasm", path: "cloakroom_bg.wasm", contents: file("cloakroom_bg.wasm") },
    ],
    compatibilityDate: "2026-04-01",
    bindings: {
      SESSION_SECRET: randomSecret(),
      UPSTASH_REDIS_REST_URL: "http://127.0.0.1:9",
      UPSTASH_REDIS_REST_TOKEN: "token",
    },
    structuredWorkerdLogs: true,
    log: new Log(LogLevel.NONE),
    handleRuntimeStdio: (
      /** @type {import("node:stream").Readable} */ out,
      /** @type {import("node:stream").Readable} */ error,
    ) => {
      for (const stream of [out, error]) stream.on("data", (chunk) => logs.push(String(chunk)));
    },
    cf: false,
  });
  try {
    const url = new URL(await miniflare.ready).origin;
    const headers = { Origin: "https://shop.example", "Access-Control-Request-Method": "PATCH" };
    await miniflare.dispatchFetch(`${url}/auth/session`, { method: "OPTIONS", headers });
    await miniflare.dispatchFetch(`${url}/auth/health`);
    const levels = () =>
      logs
        .join("")
        .split("\n")
        .filter(Boolean)
        .map((text) => JSON.parse(text))
        .map(({ level, message }) => [lineOf(message)?.event, level]);
    await until(
      () => levels().length >= 3,
      () => logs.join(""),
    );
    assert.deepEqual(levels(), [
      ["setting_noticed", "warn"],
      ["origin_refused", "log"],
      ["store_failed", "error"],
    ]);
  } finally {
    await miniflare.dispose();
  }
});

test("npm start tells people the sentences alone, and what is no line of ours as it is", () => {
  const text =
    '{"event":"store_failed","level":"error","message":"the store failed: it is down","status":503}';
  /** @type {string[]} */
  const said = [];
  const log = collapsed((line) => void said.push(line));
  for (const line of [text, text, "{}", "null", "workerd: something"]) log(told(line));
  assert.deepEqual(said, ["cloakroom: the store failed: it is down", "{}", "null", "workerd: something"]);
});
