/** The operators' page for everybody: by keyboard, on narrow screens, light and dark, without motion, and what axe-core finds. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { tabTo, textOf } from "./support/browser.mjs";
import { contrasts } from "./support/contrasts.mjs";
import {
  ada,
  admin,
  assertAccessible,
  complaints,
  consider,
  describeInBrowser,
  device,
  enter,
  hears,
  isAlive,
  lookUp,
  makeAccount,
  opened,
  push,
  refuse,
  TOKEN,
  unlocked,
} from "./support/page-operator.mjs";

/** @import { Page } from "playwright-core" */

/** @param {Page} page */
const focused = (page) => page.evaluate(() => document.activeElement?.id);

/** Counters as they are after a while. @param {Page} page */
async function withCounters(page) {
  const report = (await admin("GET", "stats")).json;
  const days = Array.from({ length: 30 }, (_, back) => ({
    day: new Date(Date.now() - back * 86_400_000).toISOString().slice(0, 10),
    tickets_by_key: { [report.signing_keys[0]]: 100, "0badcafe": back > 20 ? 7 : 0 },
    sessions_created: 40 + ((back * 37) % 50),
    logins: 20 + ((back * 13) % 30),
    failed_logins: back === 3 ? 1_234_567 : back,
    distinct_users: 15,
    logouts: 3,
    revocations: 0,
    rate_limited: back % 4,
    passed_uncounted: 0,
    gateway_refused: 0,
    events_lost: 0,
  }));
  const told = { ...report, signing_keys: [...report.signing_keys, "0badcafe"], days };
  await page.route(/stats$/, (route) => route.fulfill({ json: told }));
}

describeInBrowser("access to the operators' page", () => {
  test("everything can be done from the keyboard", async () => {
    await makeAccount();
    const phone = await device();
    const page = await opened();
    const keys = page.keyboard;
    assert.equal(await focused(page), "token");
    await keys.type(TOKEN);
    await keys.press("Enter");
    await page.locator("#opened").waitFor();
    assert.equal(await focused(page), "value");
    await keys.type(ada);
    await keys.press("Enter");
    await page.locator("#found").waitFor();
    assert.equal(await focused(page), "found-title");

    await tabTo(page, "#found-body button", 1);
    await keys.press("Enter");
    await page.locator("#ask[open]").waitFor();
    // What changes nothing has the focus, which the dialog holds.
    assert.equal(await focused(page), "cancel");
    await keys.press("Tab");
    assert.equal(await focused(page), "go");
    await keys.press("Enter");
    await hears(page, `1 session of ${ada} ended.`);
    assert.equal(await isAlive(phone), false);
    await page.waitForFunction(() => document.activeElement?.id === "found-title");

    await tabTo(page, "#found-body button", 1);
    await keys.press("Space");
    await keys.press("Tab");
    await keys.press("Space");
    await page.locator("#reset").waitFor();
    assert.equal(await focused(page), "reset-title");
    await tabTo(page, "#reset-done", 3);
    await keys.press("Enter");
    assert.equal(await focused(page), "found-title");
    await tabTo(page, "#again");
    await keys.press("Enter");
    await tabTo(page, "summary");
    await keys.press("Enter");
    await page.getByRole("cell").first().waitFor();
    await tabTo(page, "#lock");
    await keys.press("Enter");
    assert.equal(await focused(page), "token");
  });

  for (const width of [320, 360, 768, 1280]) {
    test(`nothing scrolls sideways at ${width} pixels, and what is pressed is large enough`, async () => {
      const name = `${ada}${"W".repeat(100)}`;
      const id = await makeAccount(name, ["r".repeat(64)]);
      await device(name, "U".repeat(300));
      const page = await opened({ viewport: { width, height: 700 } });
      await withCounters(page);
      const isWide = async (/** @type {string} */ state) => {
        const content = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(content <= width, `${state}: ${content} px of content`);
      };
      await isWide("locked");
      await enter(page);
      await page.locator("#opened").waitFor();
      await page.locator("summary").click();
      await lookUp(page, "user id", id);
      await isWide("a user");
      await consider(page, "Reset password…");
      const box = await page.locator("#ask").boundingBox();
      assert.ok(box && box.x >= 0 && box.x + box.width <= width, JSON.stringify(box));
      await push(page, "Make a token");
      await page.locator("#reset").waitFor();
      await isWide("a token");
      const small = await page.evaluate(() =>
        [...document.querySelectorAll("button, fieldset label, summary")]
          .filter((element) => element.checkVisibility())
          .filter((element) => element.getBoundingClientRect().height < 36)
          .map((element) => element.textContent),
      );
      assert.deepEqual(small, []);
    });
  }

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    test(`axe finds nothing in any state of the ${colorScheme} page, and its text has AA contrast`, async () => {
      const id = await makeAccount();
      await device();
      const page = await opened({ colorScheme });
      await withCounters(page);
      const check = async (/** @type {string} */ state) => {
        await assertAccessible(page, state);
        const { faint, room } = await page.evaluate(contrasts);
        assert.deepEqual(faint, [], state);
        assert.ok(colorScheme === "light" ? room > 0.8 : room < 0.02, `luminance ${room}`);
      };
      await check("locked");
      await enter(page, "");
      await check("an error");
      await enter(page);
      await hears(page, /^As of/, "counters-said");
      await page.locator("summary").click();
      await check("counters");
      await lookUp(page, "user id", id);
      await check("a user");
      await consider(page, "Delete account…");
      await refuse(page, /users/, 503, { code: "store_unavailable" });
      await push(page, "Delete account");
      await hears(page, /The store did not answer/, "ask-said");
      await check("a question with an error");
      await push(page, "Cancel");
      await page.unroute(/users/);
      await consider(page, "Reset password…");
      await push(page, "Make a token");
      await page.locator("#reset").waitFor();
      await check("a token");
      await consider(page, "Disable…");
      await push(page, "Disable account");
      await hears(page, "is disabled");
      await check("a disabled account");
      await lookUp(page, "cookie", "A".repeat(148));
      await check("a dead cookie");
    });
  }

  test("nothing moves", async () => {
    const id = await makeAccount();
    const page = await unlocked({ reducedMotion: "no-preference" });
    await lookUp(page, "user id", id);
    await consider(page, "Disable…");
    assert.equal(await page.evaluate(() => document.getAnimations().length), 0);
  });

  test("each chart says in words what it shows, and a table has every day", async () => {
    const page = await opened();
    await withCounters(page);
    await enter(page);
    await hears(page, /^As of/, "counters-said");
    const names = await page
      .getByRole("img")
      .evaluateAll((all) => all.map((one) => one.getAttribute("aria-label")));
    assert.equal(names.length, 10);
    assert.match(names[2] ?? "", /^Failed logins: 1,234,999 in 35 days; most on \d+ \w+: 1,234,567$/);
    assert.match(names[3] ?? "", /^Users: at most 15 a day/);
    assert.match(names[5] ?? "", /^Revocations: 0 in 35 days$/);
    assert.equal(await page.locator("#charts figure").first().locator("rect").count(), 35);
    await page.locator("summary").click();
    const rows = page.locator("#days tbody tr");
    assert.equal(await rows.count(), 35);
    assert.match(await rows.nth(3).innerText(), /1,234,567/);
    assert.equal(await page.locator("#days thead th").count(), 11);
    assert.match(await textOf(page, "keys"), /0badcafe[^]*Can be dropped/);
  });

  test("results are announced, and every field has a name", async () => {
    const page = await unlocked();
    for (const id of ["unlock-said", "said", "reset-said", "counters-said", "ask-said"]) {
      assert.equal(await page.locator(`#${id}`).getAttribute("role"), "status");
    }
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("input")]
        .filter((input) => !input.hidden && !input.labels?.length)
        .map((input) => input.id),
    );
    assert.deepEqual(nameless, []);
  });

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
  });
});
