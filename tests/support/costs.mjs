/** What requests cost beside an application, in each format of records: what docs/interop.md says is what is counted. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, describe, test } from "node:test";
import { FAST_HASH, moveToWindow, NO_LIMITS } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Answer} Answer */
/** @typedef {import("./visitor.mjs").Visitor} Visitor */
/** @typedef {import("./worker.mjs").LocalStore} LocalStore */
/** @typedef {import("./worker.mjs").Worker} Worker */

/**
 * The Worker beside an application.
 * @typedef {object} Stage
 * @property {LocalStore} store
 * @property {Worker} worker
 * @property {Record<string, string>} admin  the header of an operator's requests
 * @property {() => Promise<Visitor>} user  a visitor of the Worker's who is logged in at the application, not seen here yet
 * @property {() => Promise<unknown>} stop
 */

/** How records are written. @typedef {"JSON" | "MessagePack"} Form */

const PASSWORD = "correct horse";
/** Longer than a test takes, and shorter than a window. */
const TOUCH_EVERY_SECONDS = 20;

/** The settings that these figures are of. @param {boolean} isLimited  with the default limits, or none */
export const settings = (isLimited) => ({
  limits: isLimited ? {} : NO_LIMITS,
  password: FAST_HASH,
  session: { touch_every: `${TOUCH_EVERY_SECONDS}s` },
});

/** A user whom this isolate has just seen. @param {Stage} stage */
async function seen({ worker, user }) {
  const visitor = await user();
  await visitor.look();
  await worker.idle();
  return visitor;
}

/** @param {Stage} stage */
const stranger = ({ worker }) => worker.visitor();

/**
 * Each row of the table, and what is done: first what comes before, then what is counted.
 * @type {[what: string, prepare: (stage: Stage) => Promise<() => Promise<Answer>>][]}
 */
const ROWS = [
  ["no cookie", async (stage) => () => stranger(stage).look()],
  [
    "a cookie that no secret has signed",
    async (stage) => {
      const visitor = await seen(stage);
      const [[name, value] = ["", ""]] = visitor.cookies;
      visitor.cookies.set(name, `${value.slice(0, -2)}xx`);
      return () => visitor.look();
    },
  ],
  [
    "read",
    async (stage) => {
      const visitor = await seen(stage);
      return () => visitor.look();
    },
  ],
  [
    "`verify`",
    async (stage) => {
      const visitor = await seen(stage);
      return () => visitor.send("GET", "/auth/verify");
    },
  ],
  [
    "the first read of a session, and of its window",
    async (stage) => {
      const visitor = await stage.user();
      return () => visitor.look();
    },
  ],
  [
    "change",
    async (stage) => {
      const visitor = await seen(stage);
      return () => visitor.increment("/views");
    },
  ],
  [
    "change that changes nothing",
    async (stage) => {
      const visitor = await seen(stage);
      return () => visitor.merge({});
    },
  ],
  ["first change, which begins a session", async (stage) => () => stranger(stage).merge({ a: 1 })],
  [
    "rotation",
    async (stage) => {
      const visitor = await seen(stage);
      return () => visitor.rotate();
    },
  ],
  [
    "logout",
    async (stage) => {
      const visitor = await seen(stage);
      return () => visitor.logout();
    },
  ],
  [
    "a cookie whose session has ended",
    async (stage) => {
      const visitor = await seen(stage);
      const late = visitor.clone();
      await visitor.logout();
      await late.clone().look();
      return () => late.look();
    },
  ],
  [
    "login over a session of the application's",
    async (stage) => {
      const visitor = await seen(stage);
      return () => visitor.login("Ada", PASSWORD);
    },
  ],
  ["login without a session", async (stage) => () => stranger(stage).login("Ada", PASSWORD)],
  [
    "a session by the service API",
    async (stage) => () =>
      stranger(stage).send("POST", "/auth/admin/sessions", {
        headers: { ...stage.admin, "Content-Type": "application/json" },
        body: '{"user":{"id":"42"}}',
      }),
  ],
  ["an operator's look at a session", async (stage) => byOperator(stage, "GET")],
  ["an operator ends it", async (stage) => byOperator(stage, "DELETE")],
  // The last one: it moves the clock.
  [
    "read, with a touch due",
    async (stage) => {
      const visitor = await seen(stage);
      stage.store.moveClock(TOUCH_EVERY_SECONDS * 1000);
      await stage.worker.moveClock(TOUCH_EVERY_SECONDS * 1000, { settle: false });
      return () => visitor.look();
    },
  ],
];

/** @param {Stage} stage @param {string} method */
async function byOperator(stage, method) {
  const { handle } = (await (await seen(stage)).look()).json.session;
  return () => stranger(stage).send(method, `/auth/admin/sessions/${handle}`, { headers: stage.admin });
}

/**
 * The tests of one form of records.
 * @param {string} name
 * @param {Form} form
 * @param {(isLimited: boolean) => Promise<Stage>} start  with `settings`
 */
export function costsOf(name, form, start) {
  for (const isLimited of [true, false]) {
    const column = isLimited ? form : `${form}, no limits`;
    const table = documented();
    describe(`${name}, ${isLimited ? "with the default limits" : "without limits"}`, () => {
      /** @type {Stage} */
      let stage;
      before(async () => {
        stage = await start(isLimited);
        // Nothing is to end or to begin on the way, neither a window nor what is done once a minute.
        await moveToWindow(stage.store, [stage.worker]);
        await stranger(stage).register("Ada", PASSWORD);
        await stranger(stage).login("Ada", PASSWORD);
        await stage.worker.idle();
      });
      after(() => stage?.stop());

      test("every kind of request in the table is tried", () => {
        assert.deepEqual([...table.keys()].sort(), ROWS.map(([what]) => what).sort());
      });

      for (const [what, prepare] of ROWS) {
        test(`${what}: as docs/interop.md says`, async () => {
          const act = await prepare(stage);
          const { value, calls, commands, byName } = await stage.store.counters.during(async () => {
            const answer = await act();
            await stage.worker.idle();
            return answer;
          });
          assert.ok(value.status < 300, value.text);
          assert.equal(`${calls} / ${commands}`, table.get(what)?.[column], JSON.stringify(byName));
        });
      }
    });
  }
}

/** The table of docs/interop.md: of each kind of request its figures, by their columns. */
function documented() {
  const page = readFileSync(new URL("../../docs/interop.md", import.meta.url), "utf8");
  const [, text = ""] = page.match(/<!-- costs -->\n+(.*?)\n\n/s) ?? [];
  const [head = [], , ...rows] = text.split("\n").map((row) =>
    row
      .split("|")
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
  /** @type {Map<string, Record<string, string>>} */
  const table = new Map();
  for (const [what = "", ...figures] of rows) {
    table.set(what, Object.fromEntries(figures.map((figure, at) => [head[at + 1], figure])));
  }
  return table;
}
