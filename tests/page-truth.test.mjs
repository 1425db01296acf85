/** That what the page at `/` says, what it shows and what is so agree, also when a session ends elsewhere. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { dataOf, settled, textOf } from "./support/browser.mjs";
import {
  ada,
  assertLoggedOut,
  describeInBrowser,
  device,
  logIn,
  open,
  opened,
  PASSWORD,
  press,
  register,
  serve,
  worker,
} from "./support/page-accounts.mjs";

/** @import { Page } from "playwright-core" */

/** Above what the page takes for old, and below what ends anything. */
const A_WHILE = 6_000;

/** What is said at each place, as far as anything is. @param {Page} page */
const allSaid = (page) =>
  page.evaluate(() =>
    Object.fromEntries(
      [...document.querySelectorAll("[role=status]")]
        .map((said) => [said.id, said.textContent?.trim()])
        .filter(([, text]) => text),
    ),
  );

/** Ends all sessions of a user, from elsewhere. @param {string} username */
async function endElsewhere(username) {
  const visitor = worker.visitor();
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ username, password: PASSWORD });
  assert.equal((await visitor.send("POST", "/auth/login", { headers, body })).status, 200);
  assert.equal((await visitor.send("DELETE", "/auth/sessions")).status, 204);
}

/** Someone comes back to the page. @param {Page} page @param {string} [event] */
const comeBack = (page, event = "visibilitychange") =>
  page.evaluate((event) => {
    (event === "focus" ? window : document).dispatchEvent(new Event(event));
  }, event);

/** A page whose clock stands still but for `clock.runFor`. */
async function openedWithClock() {
  const context = await device();
  const page = await context.newPage();
  await page.clock.install();
  await page.goto(worker.url.replace("127.0.0.1", "localhost"));
  await settled(page);
  return page;
}

/** Counts the looks that a page makes from now on. @param {Page} page */
function countLooks(page) {
  const looks = { count: 0 };
  page.on("request", (request) => (looks.count += Number(request.url().endsWith("/auth/session"))));
  return looks;
}

describeInBrowser("what the page says and shows", () => {
  for (const width of [360, 768, 1280]) {
    test(`no button moves from under the pointer at ${width} pixels`, async () => {
      await serve({ limits: {} }); // as they are by default, so that what is left of them is shown
      const page = await opened({ viewport: { width, height: 900 } });
      const placeOf = (/** @type {string} */ id) =>
        page.locator(`#${id}`).evaluate((element) => {
          const { x, y, width, height } = element.getBoundingClientRect();
          return { x, y: y + window.scrollY, width, height };
        });
      for (const id of ["visit", "visit", "burst", "look", "rotate", "store", "visit", "logout", "look"]) {
        const before = await placeOf(id);
        await page.locator(`#${id}`).click();
        await settled(page);
        assert.deepEqual(await placeOf(id), before, id);
      }
      await serve({});
    });
  }

  test("after a logout nothing is said of the session that is gone", async () => {
    const page = await opened();
    await register(page);
    await press(page, "20 clicks at once");
    await page.getByLabel("Name", { exact: true }).fill("Ada");
    await press(page, "Store");
    await page.getByLabel("Name", { exact: true }).fill("typed, and not stored");
    await press(page, "Log out");
    assert.deepEqual(await allSaid(page), {
      "ticket-said": "Logged out. The ticket is gone, and so is the coat.",
    });
    assert.equal(await page.locator("#pips li").count(), 0);
    assert.equal(await page.locator("#quota").isVisible(), false);
    assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), "");
  });

  const LOGGED_OUT = "You have been logged out, perhaps in another tab or from another device.";
  for (const [button, place, said] of /** @type {const} */ ([
    ["Count a visit", "visits-said", `${LOGGED_OUT} Counted, in a new session.`],
    [
      "20 clicks at once",
      "visits-said",
      `${LOGGED_OUT} Without one, each of the requests at once began its own, and one is kept.`,
    ],
    [
      "Store",
      "form-said",
      `${LOGGED_OUT} Stored, in a new session. Reload the page: it will still be there.`,
    ],
    ["Rotate", "ticket-said", LOGGED_OUT],
    ["Look again", "ticket-said", LOGGED_OUT],
    [
      "Refresh the list",
      "account-said",
      "You are logged out: the session has ended, perhaps from another device.",
    ],
  ])) {
    test(`"${button}" after the session was ended from elsewhere says that one is logged out`, async () => {
      const page = await opened();
      await register(page);
      await press(page, "Count a visit");
      await endElsewhere(ada);
      await press(page, button);
      await assertLoggedOut(page);
      assert.deepEqual(await allSaid(page), { [place]: said });
      if (button === "Count a visit") assert.deepEqual(await dataOf(page), { visits: 1 });
    });
  }

  test("a visit after the session was ended in another tab is counted in a new one, and it says so", async () => {
    const context = await device();
    const page = await open(context);
    await press(page, "Count a visit");
    await press(page, "Count a visit");
    await press(await open(context), "Log out");
    await worker.moveClock(2000); // two sessions of one second are told apart by nothing but that
    await press(page, "Count a visit");
    assert.equal(await textOf(page, "visits"), "1");
    assert.match(
      await textOf(page, "visits-said"),
      /^The session has ended, .* Counted, in a new session\.$/,
    );
  });

  test("after a login it says for how long", async () => {
    const page = await opened();
    await register(page);
    assert.match(
      await textOf(page, "account-said"),
      /until you close the browser, or a countdown .* runs out/,
    );
    await press(page, "Log out");
    await page.getByLabel("Remember me").check();
    await logIn(page);
    assert.match(await textOf(page, "account-said"), /also when the browser is closed, until a countdown/);
  });

  test("who comes back sees how it stands, asked for once and not again within seconds", async () => {
    const page = await openedWithClock();
    await register(page);
    await endElsewhere(ada);
    const looks = countLooks(page);
    await comeBack(page);
    assert.equal(looks.count, 0);
    await page.clock.runFor(A_WHILE);
    for (const event of ["visibilitychange", "focus", "visibilitychange"]) await comeBack(page, event);
    await page.getByText(LOGGED_OUT).waitFor();
    await settled(page);
    await assertLoggedOut(page);
    await comeBack(page, "focus");
    assert.equal(looks.count, 1);
  });

  test("an answer that an action has overtaken is ignored", async () => {
    const page = await openedWithClock();
    await press(page, "Count a visit");
    await page.clock.runFor(A_WHILE);
    let release = () => {};
    const held = new Promise((resolve) => (release = () => resolve(undefined)));
    await page.route("**/auth/session", async (route) => {
      const response = await route.fetch();
      await held;
      await route.fulfill({ response });
    });
    const asked = page.waitForRequest("**/auth/session");
    const answered = page.waitForResponse("**/auth/session");
    await comeBack(page);
    await asked;
    await press(page, "Count a visit"); // which it does not keep waiting
    assert.equal(await textOf(page, "visits"), "2");
    release();
    await (await answered).finished();
    await page.locator("#log > li").nth(3).waitFor();
    assert.equal(await textOf(page, "visits"), "2");
    assert.deepEqual(await dataOf(page), { visits: 2 });
  });

  test("what was looked at by itself is not what a careful store means by unchanged", async () => {
    const page = await openedWithClock();
    await press(page, "Count a visit");
    await page.getByLabel("Name", { exact: true }).fill("Ada");
    await page.getByLabel("Only if unchanged since I looked").check();
    const other = await open(page.context());
    await press(other, "Count a visit");
    await page.clock.runFor(A_WHILE);
    await comeBack(page);
    await page.locator("#visits", { hasText: "2" }).waitFor();
    await press(page, "Store");
    assert.match(await textOf(page, "form-said"), /^Not stored: .*changed.*412/);
  });

  test("without JavaScript it says what it would show, and how to do without it", async () => {
    const context = await device({ javaScriptEnabled: false });
    const page = await context.newPage();
    await page.goto(worker.url.replace("127.0.0.1", "localhost"));
    assert.match(await page.locator("noscript").innerText(), /would show your session as a cloakroom ticket/);
    assert.match(await page.locator("#use").innerText(), /curl -b jar -c jar -X PATCH/);
    assert.equal(await page.locator("#visit").isVisible(), false);
  });

  test("says what it is, and its two calls with curl work as printed", async () => {
    const page = await opened();
    await page.getByRole("link", { name: "use it without this page" }).click();
    assert.ok(page.url().endsWith("#use"));
    const commands = (await page.locator("#use pre").textContent()) ?? "";
    const cwd = await mkdtemp(join(tmpdir(), "cloakroom-"));
    try {
      const here = commands.replaceAll("http://localhost:8787", worker.url.replace("127.0.0.1", "localhost"));
      const { stdout } = await promisify(execFile)("/bin/sh", ["-c", here], { cwd });
      assert.equal(stdout.match(/"data":\{"name":"Ada"\}/g)?.length, 2, stdout);
    } finally {
      await rm(cwd, { recursive: true });
    }
  });
});
