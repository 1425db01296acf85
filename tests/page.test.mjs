/**
 * The page at `/`, used as a person uses it, in a real browser against the real Worker.
 *
 * CLOAKROOM_URL names a Worker that is already running (at localhost, so that the browser takes Secure
 * cookies); otherwise one is started.
 */

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import {
  closeAll,
  dataOf,
  launch,
  newVisitor,
  openPage,
  press,
  settled,
  skip,
  tabTo,
  textOf,
} from "./support/browser.mjs";
import { contrasts } from "./support/contrasts.mjs";

/** @import { Browser, BrowserContext, BrowserContextOptions } from "playwright-core" */

const COOKIE = "__Host-session";
const HTML = "<img src=x onerror=alert(1)>";

describe("the page", { skip }, () => {
  /** @type {string} */
  let url;
  /** @type {() => unknown} */
  let stop = () => {};
  /** @type {Browser} */
  let browser;

  /** What a console showed that it should not: exceptions, CSP violations, warnings. @type {string[]} */
  const complaints = [];

  before(async () => {
    const given = process.env.CLOAKROOM_URL;
    const app = given ? { url: given, stop } : await (await import("./support/app.mjs")).startApp();
    ({ url, stop } = app);
    browser = await launch();
  });

  after(async () => {
    await browser?.close();
    await stop();
  });

  afterEach(() => closeAll(browser));

  /** A visitor with an empty cookie jar. @param {BrowserContextOptions} [options] */
  const visitor = (options) => newVisitor(browser, complaints, options);

  /** Another tab of this visitor. @param {BrowserContext} context  @param {string} [at] */
  const open = (context, at = url) => openPage(context, at);

  /** @param {BrowserContextOptions} [options] */
  const opened = async (options) => open(await visitor(options));

  test("a first visit shows no session and creates none", async () => {
    const context = await visitor();
    const page = await context.newPage();
    const answer = page.waitForResponse((response) => response.url().endsWith("/auth/session"));
    await page.goto(url);
    const headers = await (await answer).allHeaders();
    await settled(page);

    assert.equal(headers["set-cookie"], undefined);
    assert.deepEqual(await context.cookies(), []);
    assert.equal(await textOf(page, "ticket-title"), "No session yet");
    assert.equal(await page.locator("#details").isVisible(), false);
    assert.equal(await page.locator("#rotate").getAttribute("aria-disabled"), "true");
    assert.equal(await page.locator("#logout").getAttribute("aria-disabled"), "true");
  });

  test("visits are counted, and only when asked", async () => {
    const page = await opened();
    assert.equal(await textOf(page, "visits"), "0");
    for (const visits of ["1", "2", "3"]) {
      await press(page, "Count a visit");
      assert.equal(await textOf(page, "visits"), visits);
      assert.equal(await textOf(page, "visits-said"), "Counted.");
    }
    await page.reload();
    await settled(page);
    assert.equal(await textOf(page, "visits"), "3");
    assert.deepEqual(await dataOf(page), { visits: 3 });
  });

  test("twenty clicks at once are twenty visits", async () => {
    const page = await opened();
    await press(page, "Count a visit");
    await press(page, "20 clicks at once");
    assert.equal(await textOf(page, "visits-said"), "All 20 counted: 1 + 20 = 21.");
    assert.equal(await textOf(page, "visits"), "21");
    assert.equal(await page.locator("#pips .good").count(), 20);
    await page.reload();
    await settled(page);
    assert.deepEqual(await dataOf(page), { visits: 21 });
  });

  test("twenty clicks without a ticket are twenty visits of one session", async () => {
    const page = await opened();
    await press(page, "20 clicks at once");
    assert.equal(await textOf(page, "visits-said"), "All 20 counted: 0 + 20 = 20.");
    assert.deepEqual(await dataOf(page), { visits: 20 });
  });

  test("the form stores what was entered, and it survives a reload", async () => {
    const page = await opened();
    await page.getByLabel("Name", { exact: true }).fill("Ada Lovelace");
    await page.getByLabel("mint").check();
    await press(page, "Store");
    assert.match(await textOf(page, "form-said"), /^Stored\./);
    await page.reload();
    await settled(page);
    assert.deepEqual(await dataOf(page), { name: "Ada Lovelace", colour: "mint" });
    assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), "Ada Lovelace");
    assert.equal(await page.getByLabel("mint").isChecked(), true);
    assert.equal(await page.locator("#ticket").getAttribute("data-paper"), "mint");
  });

  test("an emptied field is taken out of the session", async () => {
    const page = await opened();
    await page.getByLabel("Name", { exact: true }).fill("Ada");
    await press(page, "Store");
    await page.getByLabel("Name", { exact: true }).fill("");
    await press(page, "Store");
    assert.deepEqual(await dataOf(page), {});
  });

  test("what is being typed is not overwritten by another action", async () => {
    const page = await opened();
    await page.getByLabel("Name", { exact: true }).fill("Half a na");
    await press(page, "Count a visit");
    assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), "Half a na");
  });

  test("a careful store after a change in another tab is refused, and says so", async () => {
    const context = await visitor();
    const first = await open(context);
    await press(first, "Count a visit");
    const second = await open(context);
    await press(second, "Count a visit");

    await first.bringToFront();
    await first.getByLabel("Name", { exact: true }).fill("Ada");
    await first.getByLabel("Only if unchanged since I looked").check();
    await press(first, "Store");
    assert.match(await textOf(first, "form-said"), /^Not stored: .*changed.*412/);

    await first.locator("#relook").click();
    await settled(first);
    assert.deepEqual(await dataOf(first), { visits: 2 });
    assert.equal(await first.getByLabel("Name", { exact: true }).inputValue(), "Ada");
    await press(first, "Store");
    assert.match(await textOf(first, "form-said"), /^Stored\./);
    assert.deepEqual(await dataOf(first), { visits: 2, name: "Ada" });
  });

  test("rotating changes the handle and keeps the data", async () => {
    const page = await opened();
    await press(page, "Count a visit");
    const [handle, data] = [await textOf(page, "handle"), await dataOf(page)];
    await press(page, "Rotate");
    assert.notEqual(await textOf(page, "handle"), handle);
    assert.deepEqual(await dataOf(page), data);
    assert.match(await textOf(page, "ticket-said"), /^New handle/);
    await press(page, "Count a visit");
    assert.equal(await textOf(page, "visits"), "2");
  });

  test("logging out leaves nothing behind", async () => {
    const context = await visitor();
    const page = await open(context);
    await page.getByLabel("Name", { exact: true }).fill("Ada");
    await press(page, "Store");
    await press(page, "Log out");
    assert.equal(await textOf(page, "ticket-title"), "No session yet");
    assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), "");
    assert.deepEqual(await context.cookies(), []);
    await page.reload();
    await settled(page);
    assert.equal(await textOf(page, "ticket-title"), "No session yet");
  });

  test("an account is registered, logged out of and logged in to", async () => {
    const page = await opened();
    const name = `Ada ${Date.now()}`;
    const fields = { username: name, password: "correct horse" };
    for (const form of ["register", "login"]) {
      await press(page, "Count a visit");
      for (const [field, value] of Object.entries(fields)) {
        await page.locator(`#${form} input[name=${field}]`).fill(value);
      }
      await page.locator(`#${form} [type=submit]`).click();
      await page.getByRole("heading", { name: `Logged in as ${name}` }).waitFor();
      await settled(page);
      assert.equal(await textOf(page, "user"), name);
      assert.deepEqual(await dataOf(page), { visits: 1 });
      await press(page, "Log out");
    }
  });

  test("the ticket is a cookie no script can read", async () => {
    const context = await visitor();
    const page = await open(context);
    await press(page, "Count a visit");
    // Beside it only the companion of a write, for ten seconds.
    const cookies = (await context.cookies()).filter(({ name }) => name !== `${COOKIE}-sync`);
    assert.equal(cookies.length, 1);
    const [{ name, httpOnly, secure, sameSite, path, expires }] = cookies;
    assert.deepEqual(
      { name, httpOnly, secure, sameSite, path, expires },
      { name: COOKIE, httpOnly: true, secure: true, sameSite: "Lax", path: "/", expires: -1 },
    );
    assert.equal(await page.evaluate(() => document.cookie), "");
    assert.equal(await textOf(page, "cookie"), '""');
  });

  test("the session's idle and absolute ends are counted down", async () => {
    const page = await opened();
    await press(page, "Count a visit");
    const then = await textOf(page, "idle");
    assert.match(then, /^(\d+ d )?(\d\d:)?\d\d:\d\d$/);
    await page.waitForFunction((then) => document.querySelector("#idle")?.textContent !== then, then);
    assert.notEqual(await textOf(page, "expires"), "00:00");
  });

  test("when the countdown has run out, the page reads the session again, once", async () => {
    const context = await visitor();
    const page = await context.newPage();
    await page.clock.install();
    await page.goto(url);
    await settled(page);
    await press(page, "Count a visit");
    let looks = 0;
    await page.route("**/auth/session", (route) => {
      looks++;
      return route.fulfill({ json: { session: null } });
    });
    await page.clock.fastForward("25:00:00");
    await page.getByText("The session has come to its end.").waitFor();
    await page.clock.runFor(5_000);
    assert.equal(await textOf(page, "ticket-title"), "No session yet");
    assert.equal(looks, 1);
  });

  test("each action shows its request and its answer, newest first", async () => {
    const page = await opened();
    await press(page, "Count a visit");
    const entries = page.locator("#log > li");
    const [newest, oldest] = [entries.first(), entries.last()];
    assert.match(await newest.locator("summary").innerText(), /PATCH\s+\/auth\/session\/data\s+200\s+\d+ ms/);
    const shown = await newest.innerText();
    assert.match(shown, /Content-Type: application\/json-patch\+json/);
    assert.match(shown, /"op": "increment"/);
    assert.match(shown, /ETag: "[^"]+"/);
    assert.match(shown, /Cache-Control: no-store, no-transform/);
    assert.match(shown, /"visits": 1/);
    assert.match(await oldest.locator("summary").innerText(), /GET\s+\/auth\/session\s+200/);
    assert.equal(await oldest.locator("details").getAttribute("open"), null);

    await press(page, "20 clicks at once");
    const burst = await entries.nth(1).textContent();
    assert.match(burst ?? "", /×20/);
    assert.equal(burst?.match(/\b200 {2}visits \d+/g)?.length, 20);
  });

  test("the log keeps the newest twenty", async () => {
    const page = await opened();
    for (let i = 0; i < 21; i++) await press(page, "Look again");
    assert.equal(await page.locator("#log > li").count(), 20);
  });

  test("stored HTML is shown as text", async () => {
    const page = await opened();
    await page.getByLabel("Name", { exact: true }).fill(HTML);
    await press(page, "Store");
    assert.deepEqual(await dataOf(page), { name: HTML });
    assert.match(await page.locator("#log").innerText(), /<img src=x onerror=alert\(1\)>/);
    assert.equal(await page.locator("img").count(), 0);
    await page.reload();
    await settled(page);
    assert.equal(await page.getByLabel("Name", { exact: true }).inputValue(), HTML);
    assert.equal(await page.locator("img").count(), 0);
  });

  test("a lost connection is reported beside the button, and the page works on", async () => {
    const page = await opened();
    await press(page, "Count a visit");
    await page.route("**/auth/**", (route) => route.abort());
    await press(page, "Count a visit");
    assert.match(await textOf(page, "visits-said"), /could not be reached/);
    assert.equal(await page.locator("#visits-said").getAttribute("data-kind"), "bad");
    assert.match(await page.locator("#log > li").first().innerText(), /PATCH[^]*failed/);
    assert.equal(await textOf(page, "visits"), "1");
    await press(page, "20 clicks at once");
    assert.match(await textOf(page, "visits-said"), /could not be reached/);
    await page.unroute("**/auth/**");
    await press(page, "Count a visit");
    assert.equal(await textOf(page, "visits"), "2");
    assert.equal(await textOf(page, "visits-said"), "Counted.");
  });

  test("a problem+json answer is shown with its detail, status and code", async () => {
    const page = await opened();
    await press(page, "Count a visit");
    const problem = { title: "Service Unavailable", status: 503, detail: "The store did not answer." };
    await page.route("**/auth/session/rotate", (route) =>
      route.fulfill({
        status: 503,
        contentType: "application/problem+json",
        headers: { "Retry-After": "1" },
        body: JSON.stringify({ type: "about:blank", ...problem, code: "store_unavailable" }),
      }),
    );
    await press(page, "Rotate");
    assert.equal(await textOf(page, "ticket-said"), "The store did not answer. (503 store_unavailable)");
    assert.equal(await textOf(page, "visits"), "1");
    assert.match(await page.locator("#log > li").first().innerText(), /Retry-After: 1/);
  });

  test("buttons are disabled while a request is under way", async () => {
    const page = await opened();
    /** @type {() => void} */
    let release = () => {};
    const held = new Promise((resolve) => (release = () => resolve(undefined)));
    let asked = 0;
    await page.route("**/auth/session/data", async (route) => {
      asked++;
      await held;
      await route.continue();
    });
    const button = page.locator("#visit");
    await button.click();
    await page.locator("#visit[aria-disabled=true]").waitFor();
    assert.equal(await page.locator("button:not([aria-disabled=true]):visible").count(), 0);
    await button.click({ force: true });
    release();
    await settled(page);
    assert.equal(asked, 1);
    assert.equal(await page.evaluate(() => document.activeElement?.id), "visit");
  });

  test("everything can be done from the keyboard", async () => {
    const page = await opened();
    const keys = page.keyboard;

    const tab = (/** @type {string} */ selector) => tabTo(page, selector, 30);
    await tab("#visit");
    await keys.press("Enter");
    await settled(page);
    await tab("#burst");
    await keys.press("Space");
    await settled(page);
    assert.equal(await textOf(page, "visits"), "21");

    await tab("#name");
    await keys.type("Ada");
    await keys.press("Tab");
    await keys.press("Space");
    await keys.press("ArrowRight");
    await tab("#careful");
    await keys.press("Space");
    await keys.press("Enter");
    await settled(page);
    assert.deepEqual(await dataOf(page), { visits: 21, name: "Ada", colour: "rose" });

    const handle = await textOf(page, "handle");
    await page.evaluate(() => /** @type {HTMLElement} */ (document.activeElement).blur());
    await page.reload();
    await settled(page);
    await tab("#rotate");
    await keys.press("Enter");
    await settled(page);
    assert.notEqual(await textOf(page, "handle"), handle);
    await tab("#logout");
    await keys.press("Enter");
    await settled(page);
    assert.equal(await textOf(page, "ticket-title"), "No session yet");
    assert.equal(await page.evaluate(() => document.activeElement?.id), "logout");
  });

  test("results are announced, and every field has a name", async () => {
    const page = await opened();
    for (const id of ["ticket-said", "visits-said", "form-said"]) {
      assert.equal(await page.locator(`#${id}`).getAttribute("role"), "status");
    }
    const nameless = await page.evaluate(() =>
      [...document.querySelectorAll("input")]
        .filter((input) => !input.hidden && !input.labels?.length)
        .map((input) => input.id),
    );
    assert.deepEqual(nameless, []);
  });

  for (const width of [320, 390, 768, 1280, 1920]) {
    test(`nothing scrolls sideways at ${width} pixels`, async () => {
      const page = await opened({ viewport: { width, height: 700 } });
      await page.getByLabel("Name", { exact: true }).fill("W".repeat(80));
      await press(page, "Store");
      await press(page, "20 clicks at once");
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= width, `${wide} px of content`);
    });
  }

  for (const [colorScheme, isRight] of /** @type {const} */ ([
    ["light", (/** @type {number} */ l) => l > 0.8],
    ["dark", (/** @type {number} */ l) => l < 0.02],
  ])) {
    test(`the ${colorScheme} theme is ${colorScheme}, and its text has AA contrast`, async () => {
      const page = await opened({ colorScheme });
      await press(page, "Count a visit");
      for (const colour of ["straw", "rose", "mint", "sky", "lilac"]) {
        await page.getByLabel(colour).check();
        await press(page, "Store");
        const { room, faint } = await page.evaluate(contrasts);
        assert.ok(isRight(room), `luminance ${room}`);
        assert.deepEqual(faint, [], `with ${colour} paper`);
      }
      await page.route("**/auth/**", (route) => route.abort());
      await press(page, "Store");
      assert.deepEqual((await page.evaluate(contrasts)).faint, []);
    });
  }

  test("the page is served under a strict policy, with nothing from elsewhere", async () => {
    const page = await (await visitor()).newPage();
    /** @type {string[]} */
    const requested = [];
    page.on("request", (request) => requested.push(new URL(request.url()).origin));
    const response = await page.goto(url);
    await settled(page);
    const headers = (await response?.allHeaders()) ?? {};
    for (const directive of [
      "default-src 'none'",
      "script-src 'self'",
      "style-src 'self'",
      "connect-src 'self'",
      "form-action 'none'",
      "frame-ancestors 'none'",
      "require-trusted-types-for 'script'",
    ]) {
      assert.ok(headers["content-security-policy"]?.includes(directive), directive);
    }
    assert.doesNotMatch(headers["content-security-policy"] ?? "", /unsafe|\*/);
    assert.equal(headers["x-content-type-options"], "nosniff");
    assert.equal(headers["referrer-policy"], "no-referrer");
    assert.equal(headers["cross-origin-opener-policy"], "same-origin");
    assert.deepEqual([...new Set(requested)], [new URL(url).origin]);
  });

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
  });
});
