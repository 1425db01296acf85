/** What a request through the gateway costs: the table of docs/gateway.md is what is counted. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { after, before, test } from "node:test";
import { million } from "../bench/lib/prices.mjs";
import { startRawOrigin } from "./support/raw-origin.mjs";
import { FAST_HASH, moveToWindow, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const page = readFileSync(new URL("../docs/gateway.md", import.meta.url), "utf8");
const [, section = ""] = page.split("\n## What it costs\n");
/** @type {[what: string, calls: number, commands: number, dollars: string][]} */
const TABLE = [...section.matchAll(/^\| ([^|]+) \| (\d+) \| (\d+) \| \$([\d.]+) \|$/gm)].map(
  ([, what = "", calls, commands, dollars = ""]) => [what, Number(calls), Number(commands), dollars],
);

/** @type {Awaited<ReturnType<typeof startRawOrigin>>} */
let origin;
/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let both;
/** @type {Visitor} */
let user;
/** The same without a limit per session, at the isolate that has none. @type {Visitor} */
let unlimited;

before(async () => {
  origin = await startRawOrigin();
  const settings = {
    cookie: { name: "sid", secure: false },
    password: FAST_HASH,
    session: { touch_every: "20s" },
    gateway: {
      origin: origin.url,
      public: ["/assets/*"],
      rules: [{ path: "/app*", require: "user" }],
    },
  };
  const secrets = { SESSION_SECRET: "the same secret of both isolates of the test" };
  const routes = [
    { path: "/app/search", limit: "1000/1m" },
    { path: "/app/few", limit: "1/1m" },
  ];
  both = await startDeployment(
    [{ settings: { limits: { routes } } }, { settings: { limits: { session: "" } } }],
    {
      settings,
      secrets,
    },
  );
  await moveToWindow(both.store, both.workers);
  user = both.workers[0].visitor();
  assert.equal((await user.register("ada", "correct horse battery")).status, 201);
  user.cookies.delete("sid-sync");
  unlimited = user.clone(both.workers[1].url);
  // Each isolate has seen the session, the windows and the time.
  for (const path of ["/app", "/app/search", "/app/few", "/app/few"]) await user.send("GET", path);
  await unlimited.send("GET", "/app");
});
after(async () => {
  await both?.stop();
  origin?.stop();
});

/** How each row of the table is asked for, and what it is answered with. @type {[status: number, ask: () => Promise<import("./support/visitor.mjs").Answer>][]} */
const ROWS = [
  [200, () => user.send("GET", "/assets/x.js")],
  [200, () => forged().send("GET", "/other")],
  [401, () => forged().send("GET", "/app")],
  [200, () => user.send("GET", "/app")],
  [200, () => user.send("GET", "/app")],
  [200, () => user.send("GET", "/app/search")],
  [200, () => unlimited.send("GET", "/app")],
  [429, () => user.send("GET", "/app/few")],
];

function forged() {
  const visitor = user.clone();
  visitor.cookies.set("sid", `${user.cookies.get("sid")?.slice(0, -2)}xx`);
  return visitor;
}

for (const [at, [what, calls, commands, dollars]] of TABLE.entries()) {
  test(`a request ${what} costs ${calls} calls and ${commands} commands`, async () => {
    const [status, ask] = ROWS[at] ?? assert.fail(`no row for ${what}`);
    if (what.includes("touch due")) await both.workers[0].moveClock(21_000);
    const passed = origin.reached.length;
    const used = await both.store.counters.during(async () => {
      assert.equal((await ask()).status, status);
      await both.workers[0].idle();
    });
    assert.deepEqual([used.calls, used.commands], [calls, commands]);
    assert.equal(origin.reached.length - passed, status === 200 ? 1 : 0);
    assert.equal(million(0, { calls, commands, bytes: 0 }).all.toFixed(2), dollars);
  });
}

test("the table has a row for each kind of request", () => assert.equal(TABLE.length, ROWS.length));
