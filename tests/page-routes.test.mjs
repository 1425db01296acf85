/** The page of the routes: drawn from the document, by keyboard, on narrow screens, and what axe-core finds. */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import axe from "axe-core";
import { closeAll, launch, newVisitor, putPage, skip, tabTo, textOf } from "./support/browser.mjs";
import { operations } from "./support/openapi.mjs";
import { startBoth } from "./support/worker.mjs";

/** @import { Browser, BrowserContextOptions } from "playwright-core" */

describe("the page of the routes", { skip }, () => {
  /** @type {Awaited<ReturnType<typeof startBoth>>} */
  let both;
  /** @type {Browser} */
  let browser;
  /** @type {string[]} */
  const complaints = [];
  before(async () => {
    both = await startBoth();
    browser = await launch();
  });
  afterEach(() => closeAll(browser));
  after(async () => {
    await browser?.close();
    await both?.stop();
    assert.deepEqual(complaints, []);
  });

  /** @param {BrowserContextOptions} [options] */
  async function opened(options) {
    const context = await newVisitor(browser, complaints, options);
    await putPage(context, both.worker.url);
    const page = await context.newPage();
    await page.goto(`${both.worker.url}/routes.html`);
    await page.locator("#routes[aria-busy=false]").waitFor();
    return page;
  }

  test("every route is there, with its parameters, bodies and answers", async () => {
    const page = await opened();
    assert.equal(await textOf(page, "said"), `${operations.length} routes`);
    const heads = await page.locator("summary").allInnerTexts();
    for (const { method, path } of operations) {
      assert.ok(
        heads.some((head) => head.split(/\s+/, 2).join(" ") === `${method} /auth${path}`),
        `${method} ${path}`,
      );
    }
    const register = page.locator("details", { hasText: "/auth/register" });
    await register.locator("summary").click();
    // It is filled in when it is opened.
    await register.getByText("409").first().waitFor();
    const shown = await register.innerText();
    for (const part of [
      /password: string \(at least 8, at most 1024/,
      /409\s+conflict/,
      /Set-Cookie/,
      /user: \{/,
    ]) {
      assert.match(shown, part);
    }
  });

  test("a route is opened and closed from the keyboard", async () => {
    const page = await opened();
    await tabTo(page, "details:nth-of-type(2) summary");
    await page.keyboard.press("Enter");
    const second = page.locator("details").nth(1);
    await second.getByRole("heading", { name: "Answers" }).waitFor();
    await page.keyboard.press("Space");
    assert.equal(await second.getAttribute("open"), null);
    await page.keyboard.press("Space");
    assert.equal(await second.getByRole("heading", { name: "Answers" }).count(), 1);
  });

  test("without the Worker it says so", async () => {
    const context = await newVisitor(browser, complaints);
    await putPage(context, both.worker.url);
    await context.route("**/auth/openapi.json", (route) => route.fulfill({ status: 503 }));
    const page = await context.newPage();
    await page.goto(`${both.worker.url}/routes.html`);
    await page.locator("#said[data-kind=bad]").waitFor();
    assert.equal(await textOf(page, "said"), "The Worker's document could not be read: it answered 503.");
  });

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    test(`opened wholly, the ${colorScheme} page fits a narrow screen, and axe finds nothing`, async () => {
      const page = await opened({ colorScheme, viewport: { width: 320, height: 700 } });
      await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
      await page.getByRole("heading", { name: "Answers" }).last().waitFor();
      assert.ok((await page.evaluate(() => document.documentElement.scrollWidth)) <= 320);
      await page.evaluate(axe.source);
      const { violations, passes } = await page.evaluate(() =>
        /** @type {{ axe: typeof axe }} */ (/** @type {unknown} */ (window)).axe.run(document, {
          resultTypes: ["violations"],
        }),
      );
      assert.ok(passes.length > 10, "axe looked at it");
      assert.deepEqual(
        violations.map(({ id, nodes }) => `${id} at ${nodes[0]?.html}`),
        [],
      );
    });
  }
});
