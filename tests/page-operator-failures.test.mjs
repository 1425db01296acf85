/** What the operators' page says and does when something fails, comes twice, or comes in another order. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { textOf } from "./support/browser.mjs";
import {
  ada,
  admin,
  ask,
  complaints,
  consider,
  describeInBrowser,
  device,
  enter,
  hears,
  hold,
  isAlive,
  lookUp,
  makeAccount,
  opened,
  push,
  refuse,
  serve,
  roundTrip,
  store,
  unlocked,
} from "./support/page-operator.mjs";
import { until } from "./support/worker.mjs";

/** @import { Page } from "playwright-core" */

/** How the calls to a path fail, and what a person is told. @type {[string, (page: Page, path: RegExp) => Promise<unknown>, RegExp][]} */
const FAILURES = [
  [
    "no network",
    (page, path) => page.route(path, (route) => route.abort()),
    /could not be reached\. Check the connection/,
  ],
  [
    "a limit",
    (page, path) =>
      refuse(page, path, 429, { code: "rate_limited", detail: "over limits.ip" }, { "Retry-After": "37" }),
    /Nothing was done; try again in 37 s\. \(Over limits\.ip\.\)/,
  ],
  [
    "a store that fails",
    (page, path) => refuse(page, path, 503, { code: "store_unavailable" }, { "Retry-After": "1" }),
    /The store did not answer as it should\. Try again in 1 s\./,
  ],
  [
    "wrong settings",
    (page, path) => refuse(page, path, 500, { code: "misconfigured" }),
    /settings are wrong: its log says what to change/,
  ],
  [
    "an internal error",
    (page, path) => refuse(page, path, 500, { code: "internal", detail: "the record cannot be read" }),
    /The record cannot be read\. \(500 internal\)/,
  ],
  [
    "a proxy's page instead of an answer",
    (page, path) => page.route(path, (route) => route.fulfill({ status: 502, body: "<h1>Bad</h1>" })),
    /Something between here and the Worker answered 502/,
  ],
  [
    "a token that is not set any more",
    async (page, path) => {
      const nothing = { code: "not_found", detail: "there is nothing at this path" };
      await refuse(page, /admin\/page\/icon/, 404, nothing);
      await refuse(page, path, 404, nothing);
    },
    /The service API is not there any more: ADMIN_TOKEN is not set/,
  ],
  [
    "another site's page",
    (page, path) =>
      refuse(page, path, 403, { code: "cross_site", detail: "made by a page of another origin" }),
    /Made by a page of another origin\. \(403 cross_site\)/,
  ],
];

describeInBrowser("the operators' page, when something fails", () => {
  for (const [what, fail, words] of FAILURES) {
    test(`${what}: the token, a look-up, a change and the counters say so, and work afterwards`, async () => {
      const id = await makeAccount();
      const phone = await device();
      const page = await opened();
      // 1. The token: a store that fails has nothing to do with it.
      await fail(page, /admin\/stats$/);
      await enter(page);
      const place = what === "a store that fails" ? "counters-said" : "unlock-said";
      await hears(page, words, place);
      assert.equal(await page.locator("#opened").isVisible(), place === "counters-said");
      await page.unroute(/admin\/stats$/);
      if (place === "unlock-said") await enter(page);
      await push(page, "Read again");
      await hears(page, /^As of/, "counters-said");
      // 2. A look-up, which shows nothing of the one before.
      await lookUp(page, "user id", id);
      await fail(page, /admin\/users/);
      await ask(page, "user id", id);
      await hears(page, words);
      assert.equal(await page.locator("#found").isVisible(), false);
      await page.unroute(/admin\/users/);
      await lookUp(page, "user id", id);
      assert.equal(await textOf(page, "said"), "");
      // 3. A change: the question stays, and can be answered again.
      await consider(page, "End all 1 session…");
      await fail(page, /sessions$/);
      await push(page, "End all sessions");
      await hears(page, words, "ask-said");
      await page.unroute(/sessions$/);
      assert.equal(await isAlive(phone), true);
      await push(page, "End all sessions");
      await hears(page, `1 session of ${ada} ended.`);
      assert.equal(await isAlive(phone), false);
    });
  }

  test("a change that may have been made says that this is not known, and can be made again", async () => {
    const id = await makeAccount();
    await device();
    const page = await unlocked();
    await lookUp(page, "user id", id);
    await consider(page, "Disable…");
    // The change is made, and its answer lost.
    await page.route(/users\/[^/]+$/, async (route) => {
      await route.fetch();
      await route.abort();
    });
    await push(page, "Disable account");
    await hears(page, /Whether it was done is not known; to do it again does no harm/, "ask-said");
    await page.unroute(/users\/[^/]+$/);
    await push(page, "Disable account");
    await hears(page, `${ada} is disabled, and its sessions have ended.`);
    assert.equal((await admin("GET", `users/${id}`)).json.disabled, true);
  });

  test("a store that really fails is told as one, and the page works on", async () => {
    const id = await makeAccount();
    const page = await unlocked();
    await serveFailing(async () => {
      await ask(page, "user id", id);
      await hears(page, /The store did not answer as it should/);
    });
    await lookUp(page, "user id", id);
  });

  test("beside another application's sessions it says what there is not, and still looks at sessions", async () => {
    await serve({
      settings: { cookie: { format: "express", name: "connect.sid", user_pointer: "/userId" } },
    });
    const page = await unlocked();
    await ask(page, "user id", "1");
    await hears(page, /no list of a user's sessions\. \(422 unprocessable\)/);
    await ask(page, "user name", "1");
    await hears(page, "There is no account named 1.");
    await ask(page, "cookie", "s:abc.def");
    await page.locator("#found-title").filter({ hasText: "The cookie is dead" }).waitFor();
    await serve();
  });

  test("a limit that is really reached says when to try again", async () => {
    await serve({ settings: { limits: { ip: "3/1m" } } });
    const page = await unlocked();
    for (let times = 0; times < 3; times += 1) await push(page, "Read again");
    await hears(page, /Too many requests\. Nothing was done; try again in \d+ s\./, "counters-said");
    await serve();
  });

  test("an answer that does not come is given up", async () => {
    const id = await makeAccount();
    const page = await opened();
    await page.clock.install();
    await page.goto(page.url());
    await page.evaluate(() => {
      // The browser's own timer is not the test's to move.
      AbortSignal.timeout = () => AbortSignal.abort(new DOMException("late", "TimeoutError"));
    });
    await enter(page);
    await hears(page, /^No answer within 20 seconds\. Try again\.$/, "unlock-said");
    assert.ok(id);
  });

  test("a double click asks once, confirms nothing, and acts once", async () => {
    const id = await makeAccount();
    await device();
    const page = await unlocked();
    await lookUp(page, "user id", id);
    let sent = 0;
    await page.route(/sessions$/, (route) => {
      if (route.request().method() === "DELETE") sent += 1;
      return route.continue();
    });
    await page.getByRole("button", { name: "End all 1 session…" }).dblclick();
    await page.locator("#ask[open]").waitFor();
    assert.equal(sent, 0);
    // Wherever the question's button stands: the second click of a double click is not for it.
    await page.locator("#go").evaluate((go) => go.dispatchEvent(new MouseEvent("click", { detail: 2 })));
    assert.equal(sent, 0);
    await page.locator("#go").dblclick();
    await hears(page, `1 session of ${ada} ended.`);
    assert.equal(sent, 1);
  });

  test("while a change is under way it cannot be made again, cancelled or left by Escape", async () => {
    const id = await makeAccount();
    await device();
    const page = await unlocked();
    await lookUp(page, "user id", id);
    await consider(page, "End all 1 session…");
    const held = await hold(page, /sessions$/);
    await push(page, "End all sessions");
    await hears(page, "Under way…", "ask-said");
    await page.locator("#go").click({ force: true });
    await page.locator("#cancel").click({ force: true });
    await page.keyboard.press("Escape");
    assert.ok(await page.locator("#ask").isVisible());
    assert.equal(held.asked(), 1);
    held.release();
    await hears(page, `1 session of ${ada} ended.`);
  });

  test("two presses while the token is looked at ask once", async () => {
    const page = await opened();
    const held = await hold(page, /stats$/);
    await enter(page);
    await page.getByLabel("Admin token").press("Enter");
    held.release();
    await page.locator("#opened").waitFor();
    assert.equal(held.asked(), 1);
  });

  for (const [first, second] of [
    ["user name", "user id"],
    ["user id", "user name"],
  ]) {
    test(`of two look-ups the newer is shown, whichever is answered first: by ${first}, by ${second}`, async () => {
      const other = `${ada} the other`;
      /** @type {Record<string, Record<string, string>>} */
      const values = {
        "user name": { [ada]: ada, [other]: other },
        "user id": { [ada]: await makeAccount(ada), [other]: await makeAccount(other) },
      };
      const page = await unlocked();
      // The first is held until the second is shown.
      const slow = first === "user name" ? /users\?name/ : /users\/[^/]+$/;
      const held = await hold(page, slow);
      await ask(page, first, values[first][ada]);
      await page.unroute(slow);
      await ask(page, second, values[second][other]);
      await page.locator("#found-title").filter({ hasText: other }).waitFor();
      held.release();
      await roundTrip(page);
      assert.equal(await textOf(page, "found-title"), `User ${other}`);
      assert.equal(await textOf(page, "said"), "");
    });
  }

  test("of two readings of the counters the newer is shown", async () => {
    const page = await unlocked();
    await hears(page, /^As of/, "counters-said");
    const report = (await admin("GET", "stats")).json;
    const day = { day: new Date().toISOString().slice(0, 10), tickets_by_key: {} };
    /** @type {(() => void)[]} */
    const releases = [];
    await page.route(/stats$/, async (route) => {
      const logins = releases.length + 1;
      await new Promise((resolve) => releases.push(() => resolve(undefined)));
      await route.fulfill({ json: { ...report, days: [{ ...day, logins: logins * 1000 }] } });
    });
    await push(page, "Read again");
    await push(page, "Read again");
    await until(() => releases.length === 2);
    releases[1]();
    await page.locator("#totals").filter({ hasText: "2,000" }).waitFor();
    releases[0]();
    await roundTrip(page);
    assert.match(await textOf(page, "totals"), /2,000/);
  });

  test("on a page left open, what has changed elsewhere is told, and nothing else is changed", async () => {
    const id = await makeAccount();
    const phone = await device();
    const { handle } = (await phone.look()).json.session;
    const page = await unlocked();
    await lookUp(page, "user id", id);
    await phone.logout();
    await consider(page, /^End… session/);
    await push(page, "End session");
    await hears(page, /had ended already|1 session ended/);
    await page.getByText("None.").waitFor();
    assert.equal((await admin("GET", `sessions/${handle}`)).status, 404);

    await admin("DELETE", `users/${id}`);
    await consider(page, "Disable…");
    await push(page, "Disable account");
    await hears(page, /there is no such account any more/);
  });

  test("a name that somebody else has by now does not lead a change to them", async () => {
    const id = await makeAccount();
    const page = await unlocked();
    await lookUp(page, "user name", ada);
    await admin("DELETE", `users/${id}`);
    const other = await makeAccount(ada);
    await consider(page, "Disable…");
    await push(page, "Disable account");
    await hears(page, /there is no such account any more/);
    assert.notEqual(other, id);
    assert.equal((await admin("GET", `users/${other}`)).json.disabled, false);
    assert.equal(await page.locator("#found").isVisible(), false);
  });

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
  });
});

/** The store fails while this runs. @param {() => Promise<void>} run */
async function serveFailing(run) {
  store.faults.next({ status: 503, body: "busy" }, { times: 100 });
  await run();
  store.faults.clear();
}
