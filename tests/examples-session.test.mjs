/** The examples that need no login: visit counter, shopping cart, preferences, flash message. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { tabTo } from "./support/browser.mjs";
import {
  addressOf,
  dataOf,
  drawn,
  hold,
  holds,
  newExample,
  openExample,
  refuse,
  requestsOf,
  said,
} from "./support/examples.mjs";
import { describeInBrowser, device } from "./support/page-accounts.mjs";

/** @import { Page } from "playwright-core" */

/** @param {Page} page @param {string} name @param {number} [times] */
async function press(page, name, times = 1) {
  for (let i = 0; i < times; i++) await page.getByRole("button", { name, exact: true }).click();
}

/** Ends the session of a visitor, elsewhere. @param {Page} page */
const endElsewhere = (page) => page.evaluate(() => fetch("/auth/session", { method: "DELETE" }));

describeInBrowser("the examples without a login:", () => {
  describe("the visit counter", () => {
    test("counts each press with one request, a double click twice, and begins nothing by itself", async () => {
      const context = await device();
      const page = await openExample(context, "counter");
      assert.deepEqual(await context.cookies(), []);
      const requests = requestsOf(page);
      const button = page.getByRole("button", { name: "Count a visit" });
      await button.click();
      await holds(page, "visits", "1");
      await button.dblclick();
      await holds(page, "visits", "3");
      assert.deepEqual(requests, Array(3).fill("PATCH /auth/session/data"));
      await page.reload();
      await holds(page, "visits", "3");
    });

    test("two tabs at once lose no visit, also when the first begin the session", async () => {
      const context = await device();
      const tabs = await Promise.all(["counter", "counter"].map((name) => openExample(context, name)));
      await Promise.all(tabs.map((page) => press(page, "Count a visit", 5)));
      for (const page of tabs) await holds(page, "visits", "10");
    });

    test("a session that has ended elsewhere is shown, and the next visit begins another", async () => {
      const page = await newExample("counter");
      await press(page, "Count a visit", 2);
      await holds(page, "visits", "2");
      await endElsewhere(page);
      await press(page, "Count a visit");
      await holds(page, "visits", "1");
    });

    test("after a failure the presses that waited are not done, and the number is the true one", async () => {
      const page = await newExample("counter");
      await press(page, "Count a visit");
      await holds(page, "visits", "1");
      await refuse(page, 429, "rate_limited", { "Retry-After": "7" });
      await press(page, "Count a visit", 3);
      await said(page, "Too many requests. Try again in 7 seconds. (429)");
      await drawn(page);
      await page.unroute("**/auth/**");
      await press(page, "Count a visit");
      await holds(page, "visits", "2");
    });

    test("works by keyboard", async () => {
      const page = await newExample("counter");
      await tabTo(page, "#count");
      await page.keyboard.press("Enter");
      await page.keyboard.press("Space");
      await holds(page, "visits", "2");
    });
  });

  describe("the shopping cart", () => {
    test("adds, changes the quantity and removes; what each takes is counted", async () => {
      const page = await newExample("cart");
      const requests = requestsOf(page);
      await press(page, "One tea more");
      await holds(page, "tea-quantity", "1");
      assert.deepEqual(requests, ["GET /auth/session", "PATCH /auth/session/data"]);
      await press(page, "One tea more");
      await press(page, "One candle more");
      await holds(page, "total", "€21.90");
      await press(page, "One tea less");
      await holds(page, "tea-quantity", "1");
      await press(page, "Remove candle");
      await holds(page, "total", "€4.50");
      assert.deepEqual((await dataOf(page)).cart, { tea: 1 });
      await press(page, "One tea less");
      await holds(page, "total", "€0.00");
      assert.deepEqual((await dataOf(page)).cart, {});
      await page.locator("#tea-less").click({ force: true }); // dimmed
      await page.reload();
      await holds(page, "total", "€0.00");
    });

    test("two tabs at once lose nothing, and both show it", async () => {
      const context = await device();
      const tabs = await Promise.all(["cart", "cart"].map((name) => openExample(context, name)));
      const [one, other] = /** @type {[Page, Page]} */ (tabs);
      await Promise.all([press(one, "One tea more", 4), press(other, "One cake more", 3)]);
      await Promise.all([press(one, "One tea more", 2), press(other, "One tea more", 3)]);
      for (const page of tabs) {
        await holds(page, "tea-quantity", "9");
        await holds(page, "cake-quantity", "3");
      }
      await Promise.all([press(one, "Remove tea"), press(other, "One cake less", 2)]);
      for (const page of tabs) {
        await holds(page, "total", "€3.80");
      }
      assert.deepEqual((await dataOf(one)).cart, { cake: 1 });
    });

    test("every press counts on a slow network", async () => {
      const page = await newExample("cart");
      const release = await hold(page);
      await press(page, "One tea more", 3);
      assert.equal(await page.locator("#tea-quantity").textContent(), "0");
      release();
      await holds(page, "tea-quantity", "3");
    });

    test("a store that fails changes nothing, and says so", async () => {
      const page = await newExample("cart");
      await press(page, "One tea more");
      await holds(page, "tea-quantity", "1");
      await refuse(page, 503, "store_unavailable", { "Retry-After": "20" });
      await press(page, "One tea more");
      await said(page, /^The store does not answer/);
      await page.unroute("**/auth/**");
      assert.deepEqual((await dataOf(page)).cart, { tea: 1 });
      assert.equal(await page.locator("#tea-quantity").textContent(), "1");
    });

    test("a session that has ended elsewhere is an empty cart, and the next press fills a new one", async () => {
      const page = await newExample("cart");
      await press(page, "One tea more", 2);
      await holds(page, "tea-quantity", "2");
      await endElsewhere(page);
      await press(page, "One cake more");
      await holds(page, "cake-quantity", "1");
      await holds(page, "tea-quantity", "0");
    });

    test("works by keyboard, and the focus stays where it is", async () => {
      const page = await newExample("cart");
      await tabTo(page, "#cake-more");
      await page.keyboard.press("Space");
      await holds(page, "cake-quantity", "1");
      await page.keyboard.press("Tab");
      await page.keyboard.press("Enter");
      await holds(page, "cake-quantity", "0");
      assert.equal(await page.evaluate(() => document.activeElement?.id), "cake-none");
    });
  });

  describe("the preferences", () => {
    /** The theme that is on. @param {Page} page */
    const themeOf = (page) => page.evaluate(() => document.documentElement.dataset.theme ?? "system");
    /** The page's background as it is painted. @param {Page} page */
    const backgroundOf = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

    test("the theme is there before the first paint, before any answer", async () => {
      const context = await device({ colorScheme: "light" });
      const page = await openExample(context, "preferences");
      const light = await backgroundOf(page);
      const requests = requestsOf(page);
      await page.getByLabel("Dark").check();
      await said(page, /^Kept\./);
      const dark = await backgroundOf(page);
      assert.notEqual(dark, light);
      assert.deepEqual(requests, ["PATCH /auth/session/data"]);

      // When the theme was set, and when the browser first painted.
      await page.addInitScript(() => {
        /** @type {any} */ (window).themes = [];
        const seen = new MutationObserver(() =>
          /** @type {any} */ (window).themes.push([
            performance.now(),
            document.documentElement.dataset.theme,
          ]),
        );
        seen.observe(document, { subtree: true, attributes: true, attributeFilter: ["data-theme"] });
      });
      for (const name of ["preferences", "counter"]) {
        const release = await hold(page);
        await page.goto(addressOf(name));
        await page.waitForFunction(() => performance.getEntriesByName("first-paint").length > 0);
        assert.equal(await backgroundOf(page), dark, name);
        const [themes, painted] = await page.evaluate(() => [
          /** @type {any} */ (window).themes,
          performance.getEntriesByName("first-paint")[0]?.startTime ?? 0,
        ]);
        assert.equal(themes.length, 1, JSON.stringify(themes));
        assert.equal(themes[0][1], "dark");
        assert.ok(themes[0][0] <= painted, `${themes[0][0]} is before ${painted}`);
        release();
        await drawn(page);
        assert.equal(await themeOf(page), "dark");
        await page.unroute("**/auth/**");
      }
    });

    test("other tabs follow, and the choice ends with the session", async () => {
      const context = await device();
      const page = await openExample(context, "preferences");
      const other = await openExample(context, "cart");
      await page.getByLabel("Dark").check();
      await other.locator("html[data-theme=dark]").waitFor({ state: "attached" });
      await endElsewhere(page);
      const later = await openExample(context, "preferences");
      assert.equal(await themeOf(later), "system");
      assert.equal(await later.getByLabel("As the system").isChecked(), true);
      assert.equal(await later.evaluate(() => localStorage.length), 0);
    });

    test("of several choices in a row the last one holds", async () => {
      const page = await newExample("preferences");
      await tabTo(page, "#system");
      for (const key of ["ArrowDown", "ArrowDown", "ArrowUp"]) await page.keyboard.press(key);
      await drawn(page);
      await page.waitForFunction(() => !document.querySelector("#said:empty"));
      await said(page, /^Kept\./);
      await page.reload();
      await drawn(page);
      assert.equal(await page.getByLabel("Light").isChecked(), true);
      assert.deepEqual(await dataOf(page), { theme: "light" });
    });

    test("a choice that could not be stored is taken back", async () => {
      const page = await newExample("preferences");
      await page.getByLabel("Light").check();
      await said(page, /^Kept\./);
      await refuse(page, 503, "store_unavailable", { "Retry-After": "20" });
      await page.getByLabel("Dark").click(); // `check` would find it taken back already
      await said(page, /^The store does not answer/);
      assert.equal(await themeOf(page), "light");
      assert.equal(await page.getByLabel("Light").isChecked(), true);
    });

    test("where storage is blocked or holds nonsense, the theme comes with the session", async () => {
      const page = await newExample("preferences");
      await page.evaluate(() => localStorage.setItem("theme", "<b>"));
      await page.reload();
      await drawn(page);
      assert.equal(await themeOf(page), "system");
      await page.addInitScript(() => {
        Object.defineProperty(window, "localStorage", {
          get() {
            throw new Error("blocked");
          },
        });
      });
      await page.getByLabel("Dark").check();
      await said(page, /^Kept\./);
      await page.reload();
      await page.locator("html[data-theme=dark]").waitFor({ state: "attached" });
    });
  });

  describe("the flash message", () => {
    /** @param {Page} page @param {string} title */
    async function rename(page, title) {
      await page.getByLabel("Title of a document").fill(title);
      await Promise.all([page.waitForEvent("load"), press(page, "Rename")]);
    }
    const text = "Renamed to “Coats”.";

    test("is read once, on the next page", async () => {
      const page = await newExample("flash");
      const requests = requestsOf(page);
      await rename(page, "Coats");
      await said(page, text);
      assert.deepEqual(requests, [
        "PATCH /auth/session/data",
        "GET /auth/session",
        "PATCH /auth/session/data",
      ]);
      assert.deepEqual(await dataOf(page), { title: "Coats" });
      await page.reload();
      await drawn(page);
      assert.equal(await page.locator("#said").textContent(), "");
      assert.equal(await page.getByLabel("Title of a document").inputValue(), "Coats");
    });

    test("is read by one of two tabs that load at once", async () => {
      const context = await device();
      const tabs = await Promise.all(["flash", "flash", "flash"].map((name) => openExample(context, name)));
      for (let i = 0; i < 3; i++) {
        await tabs[0]?.evaluate((flash) => {
          const headers = { "Content-Type": "application/json" };
          return fetch("/auth/session/data", { method: "PATCH", headers, body: JSON.stringify({ flash }) });
        }, text);
        await Promise.all(tabs.map((page) => page.reload()));
        await Promise.all(tabs.map(drawn));
        const read = await Promise.all(tabs.map((page) => page.locator("#said").textContent()));
        assert.deepEqual(read.filter(Boolean), [text], `round ${i}`);
      }
    });

    test("is not read again with the browser's back button", async () => {
      const page = await newExample("flash");
      await rename(page, "Coats");
      await said(page, text);
      await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
      assert.equal(await page.locator("#said").textContent(), "");
    });

    test("a double click renames once, and works by keyboard", async () => {
      const page = await newExample("flash");
      await rename(page, "Hats");
      await said(page, "Renamed to “Hats”.");
      const requests = requestsOf(page);
      const release = await hold(page);
      await tabTo(page, "#title");
      await page.keyboard.press("Control+A");
      await page.keyboard.type("Coats");
      await page.keyboard.press("Enter");
      await page.keyboard.press("Enter");
      await page.getByRole("button", { name: "Rename" }).dblclick();
      release();
      await said(page, text);
      // The change; and on the next page, the message.
      const change = "PATCH /auth/session/data";
      assert.deepEqual(requests, [change, "GET /auth/session", change]);
    });
  });
});
