/**
 * The page at `/`, used as a person uses it, in a real browser against the real Worker.
 *
 * CLOAKROOM_URL names a Worker that is already running (at localhost, so that the browser takes Secure
 * cookies); otherwise one is started.
 */

import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { findChromium, NO_CHROMIUM } from "../tools/chromium.mjs";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { closeAll, launch, newVisitor, openPage, putPage, settled } from "./support/browser.mjs";
import { moveClocks, moveToWindow, startWorker } from "./support/worker.mjs";

/** @import { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core" */

const COOKIE = "__Host-session";
const HTML = "<img src=x onerror=alert(1)>";

const hasChromium = (await findChromium({ log: console.error })) !== null;

describe("the page", { skip: hasChromium ? false : NO_CHROMIUM }, () => {
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

  /** @param {Page} page  @param {string} name */
  async function press(page, name) {
    await page.getByRole("button", { name, exact: true }).first().click();
    await settled(page);
  }

  /** @param {Page} page  @param {string} id */
  const textOf = async (page, id) => (await page.locator(`#${id}`).innerText()).trim();

  /** @param {Page} page */
  const dataOf = async (page) => JSON.parse(await textOf(page, "data"));

  test("a first look shows no session and makes none", async () => {
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

  test("an account is registered, left and logged in to", async () => {
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

  test("the session's ends are counted down", async () => {
    const page = await opened();
    await press(page, "Count a visit");
    const then = await textOf(page, "idle");
    assert.match(then, /^(\d+ d )?(\d\d:)?\d\d:\d\d$/);
    await page.waitForFunction((then) => document.querySelector("#idle")?.textContent !== then, then);
    assert.notEqual(await textOf(page, "expires"), "00:00");
  });

  test("when the countdown has run out, the page looks again, once", async () => {
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
    assert.match(shown, /Cache-Control: no-store/);
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

  test("a lost connection is reported where one looks, and the page goes on", async () => {
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

  test("buttons rest while a request is under way", async () => {
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

    /** Tabs on to an element, and sees that its focus is visible. @param {string} id */
    async function tabTo(id) {
      for (let i = 0; i < 30; i++) {
        await keys.press("Tab");
        const at = await page.evaluate(() => {
          const element = document.activeElement ?? document.body;
          return { id: element.id, outline: getComputedStyle(element).outlineStyle };
        });
        if (at.id !== id) continue;
        assert.equal(at.outline, "solid", `focus on #${id} is visible`);
        return;
      }
      assert.fail(`#${id} cannot be reached with Tab`);
    }

    await tabTo("visit");
    await keys.press("Enter");
    await settled(page);
    await tabTo("burst");
    await keys.press("Space");
    await settled(page);
    assert.equal(await textOf(page, "visits"), "21");

    await tabTo("name");
    await keys.type("Ada");
    await keys.press("Tab");
    await keys.press("Space");
    await keys.press("ArrowRight");
    await tabTo("careful");
    await keys.press("Space");
    await keys.press("Enter");
    await settled(page);
    assert.deepEqual(await dataOf(page), { visits: 21, name: "Ada", colour: "rose" });

    const handle = await textOf(page, "handle");
    await page.evaluate(() => /** @type {HTMLElement} */ (document.activeElement).blur());
    await page.reload();
    await settled(page);
    await tabTo("rotate");
    await keys.press("Enter");
    await settled(page);
    assert.notEqual(await textOf(page, "handle"), handle);
    await tabTo("logout");
    await keys.press("Enter");
    await settled(page);
    assert.equal(await textOf(page, "ticket-title"), "No session yet");
    assert.equal(await page.evaluate(() => document.activeElement?.id), "logout");
  });

  test("what happened is announced, and every field has a name", async () => {
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

  describe("with limits", () => {
    /** @type {Awaited<ReturnType<typeof startLocalStore>>} */
    let store;
    /** @type {Awaited<ReturnType<typeof startWorker>>} */
    let worker;

    before(async () => {
      store = await startLocalStore();
    });

    after(() => store?.stop());

    afterEach(() => worker.stop());

    /** A Worker with these limits, at the begin of a window. @param {object} limits  @returns {Promise<string>}  its address */
    async function limited(limits) {
      await store.redis.flushAll();
      worker = await startWorker({ store, settings: { limits: { mint: "", ...limits } } });
      await moveToWindow(store, [worker]);
      return worker.url.replace("127.0.0.1", "localhost");
    }

    /** A visitor of that Worker, in front of which the page is put. @param {string} at */
    async function guest(at) {
      const context = await visitor();
      await putPage(context, at);
      return context;
    }

    /** The clock of the page stands still but for `pass`. @param {string} at */
    async function openedAt(at) {
      const page = await (await guest(at)).newPage();
      await page.clock.install();
      await page.goto(at);
      await settled(page);
      await page.clock.pauseAt(await page.evaluate(() => Date.now() + 1000));
      return page;
    }

    /** Time passes for all: page, Worker and store. @param {Page} page  @param {number} seconds */
    async function pass(page, seconds) {
      await moveClocks(store, [worker], seconds * 1000);
      await page.clock.runFor(seconds * 1000);
    }

    /** Presses what is going to be refused. @param {Page} page  @param {string} id */
    async function pressInVain(page, id) {
      await page.locator(`#${id}`).click();
      await page.locator("#wait").waitFor();
      await page.locator("#visit[aria-disabled=true]").waitFor();
    }

    /** What the meter shows. @param {Page} page */
    async function meterOf(page) {
      const meter = page.getByRole("meter");
      if (!(await meter.count())) return null;
      const [value, max, text, label] = await meter.evaluate((/** @type {HTMLMeterElement} */ it) => [
        ...[it.value, it.max, it.getAttribute("aria-valuetext"), it.labels[0]?.innerText],
      ]);
      assert.equal(text, await textOf(page, "left-text"));
      return { label, value, max, text };
    }

    /** The seconds still to wait. @param {Page} page */
    async function secondsOf(page) {
      const [, minutes, seconds] = /^Again in (\d\d):(\d\d)$/.exec(await textOf(page, "wait")) ?? [];
      return Number(minutes) * 60 + Number(seconds);
    }

    /** The paths asked from now on. @param {Page} page */
    function asked(page) {
      /** @type {string[]} */
      const calls = [];
      page.on("request", (request) => calls.push(new URL(request.url()).pathname));
      return calls;
    }

    test("a meter shows what is left, goes down with each press, and is gone without a session", async () => {
      const at = await limited({ session: "30/1m" });
      const page = await open(await guest(at), at);
      assert.equal(await meterOf(page), null);
      await press(page, "Count a visit");
      for (const value of [29, 28, 27]) {
        await press(page, "Count a visit");
        const text = `${value} left of 30 per minute`;
        assert.deepEqual(await meterOf(page), { label: "Limit session", value, max: 30, text });
      }
      await press(page, "20 clicks at once");
      assert.equal((await meterOf(page))?.value, 6);
      await press(page, "Log out");
      await press(page, "Look again");
      assert.equal(await meterOf(page), null);
    });

    test("of several limits it shows the tightest", async () => {
      const routes = [{ path: "/auth/session/data", limit: "5/10s" }];
      const at = await limited({ session: "30/1m", routes });
      const page = await open(await guest(at), at);
      await press(page, "Count a visit");
      await press(page, "Count a visit");
      const text = "4 left of 5 per 10 s";
      assert.deepEqual(await meterOf(page), { label: "Limit /auth/session/data", value: 4, max: 5, text });
      await press(page, "Look again");
      assert.equal((await meterOf(page))?.label, "Limit session");

      await page.route("**/auth/session", (route) =>
        route.fulfill({
          json: { session: null },
          headers: {
            "RateLimit-Policy": String.raw`"a";q=9;w=60, "b, \"c\"";q=7;w=3600, "d";q=8;w=1`,
            RateLimit: String.raw`"a";r=5;t=1, "b, \"c\"";r=3;t=42, "d";r=4;t=1`,
          },
        }),
      );
      await press(page, "Look again");
      const odd = { label: 'Limit b, "c"', value: 3, max: 7, text: "3 left of 7 per hour" };
      assert.deepEqual(await meterOf(page), odd);
    });

    test("twenty clicks over a limit tell how many were refused, and ask no more", async () => {
      const at = await limited({ session: "12/1m" });
      const page = await open(await guest(at), at);
      const calls = asked(page);
      await pressInVain(page, "burst");
      assert.match(
        await textOf(page, "visits-said"),
        /^12 of 20 acknowledged, 8 refused: 0 \+ 12 = 12\. The limit "session" .*\(429 rate_limited\)$/,
      );
      assert.equal(await textOf(page, "visits"), "12");
      assert.deepEqual(await dataOf(page), { visits: 12 });
      assert.equal(await page.locator("#pips .good").count(), 12);
      assert.equal(await page.locator("#pips .bad").count(), 8);
      assert.equal((await meterOf(page))?.text, "0 left of 12 per minute");
      assert.equal(calls.length, 21);
    });

    test("a refusal is counted down in silence, its end is told once, and then it works", async () => {
      const at = await limited({ session: "2/1m" });
      const page = await openedAt(at);
      for (let i = 0; i < 3; i++) await press(page, "Count a visit");
      await pressInVain(page, "visit");
      assert.match(await textOf(page, "visits-said"), /^The limit "session" of 2 .*429 rate_limited/);
      assert.equal(await page.locator("#visits-said + #wait").getAttribute("role"), "timer");
      assert.equal(await page.locator("button:not([aria-disabled=true]):visible").count(), 0);
      assert.equal(await page.evaluate(() => document.activeElement?.id), "visit");
      assert.deepEqual((await page.evaluate(contrasts)).faint, []);

      const calls = asked(page);
      await page.evaluate(() => {
        const heard = /** @type {string[]} */ (/** @type {any} */ (window).heard = []);
        for (const region of document.querySelectorAll("[role=status]")) {
          const hear = () => void heard.push(region.textContent ?? "");
          new MutationObserver(hear).observe(region, { childList: true, characterData: true, subtree: true });
        }
      });
      const heard = () => page.evaluate(() => /** @type {any} */ (window).heard);

      const seconds = await secondsOf(page);
      assert.ok(seconds > 10 && seconds <= 120, `${seconds} seconds`);
      await pass(page, 5);
      assert.equal(await secondsOf(page), seconds - 5);
      await page.locator("#visit").click({ force: true });
      await page.getByLabel("Name", { exact: true }).press("Enter");
      await pass(page, seconds - 6);
      assert.equal(await secondsOf(page), 1);
      assert.deepEqual([calls, await heard()], [[], []]);

      await pass(page, 2);
      await settled(page);
      assert.equal(await page.locator("#wait").isVisible(), false);
      assert.equal(await textOf(page, "visits-said"), "It may be tried again.");
      assert.equal((await meterOf(page))?.text, "at least 1 left of 2 per minute");
      await pass(page, 5);
      assert.deepEqual([calls, await heard()], [[], ["It may be tried again."]]);

      await press(page, "Count a visit");
      assert.equal(await textOf(page, "visits-said"), "Counted.");
      assert.equal(await textOf(page, "visits"), "4");
    });

    test("who may begin no session may still look, and the countdown goes on", async () => {
      const at = await limited({ mint: "1/1m" });
      await press(await open(await guest(at), at), "Count a visit");
      const page = await openedAt(at);
      await pressInVain(page, "visit");
      assert.equal((await meterOf(page))?.text, "0 left of 1 per minute");
      for (const id of ["visit", "burst", "store"]) {
        assert.equal(await page.locator(`#${id}`).getAttribute("aria-disabled"), "true", id);
      }
      await press(page, "Look again");
      assert.equal(await textOf(page, "ticket-said"), "This is how it stands now.");
      const seconds = await secondsOf(page);
      await pass(page, seconds + 1);
      assert.equal(await textOf(page, "visits-said"), "It may be tried again.");
      await press(page, "Count a visit");
      assert.equal(await textOf(page, "visits"), "1");
    });

    test("refused, the page does not look by itself until it may", async () => {
      const at = await limited({ session: "30/1m" });
      const page = await openedAt(at);
      await press(page, "Count a visit");
      let looks = 0;
      let isOver = false;
      const refusal = { status: 429, headers: { "Retry-After": "300" }, json: { detail: "not so fast" } };
      await page.route("**/auth/**", (route) => {
        looks++;
        return route.fulfill(isOver ? { json: { session: null } } : refusal);
      });
      // 1. The session's end comes while a press is being waited for: it is not asked about.
      await page.clock.fastForward("29:00");
      await pressInVain(page, "visit");
      await page.clock.runFor(299_000);
      assert.deepEqual([looks, await secondsOf(page)], [1, 1]);
      // 2. Then it is, and that is refused, too.
      await page.clock.runFor(2_000);
      await page.locator("#ticket-said + #wait").waitFor();
      assert.equal(await textOf(page, "ticket-said"), "Not so fast. (429)");
      await page.clock.runFor(200_000);
      assert.equal(looks, 2);
      // 3. So it asks again after that.
      isOver = true;
      await page.clock.runFor(101_000);
      await page.getByText("The session has come to its end.").waitFor();
      assert.equal(looks, 3);
    });
  });

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
  });
});

/**
 * Runs in the page. The luminance of its background, and every visible text with less contrast to what is
 * behind it than WCAG 2.2 AA asks: 4.5, or 3 for large text. What is dimmed because it is disabled is exempt.
 */
function contrasts() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  if (!canvas) throw new Error("no canvas");

  /** @param {string} colour  any CSS colour @returns {number[]}  red, green, blue, alpha of 0 to 1 */
  const parse = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((channel) => channel / 255);
  };
  /** @param {number[]} top @param {number[]} below @param {number} [opacity] */
  const over = (top, below, opacity = 1) => {
    const alpha = (top[3] ?? 1) * opacity;
    return [0, 1, 2].map((i) => (top[i] ?? 0) * alpha + (below[i] ?? 0) * (1 - alpha));
  };
  /** @param {number[]} rgb */
  const luminance = (rgb) => {
    const [r = 0, g = 0, b = 0] = rgb.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  /** @param {Element | null} element @returns {number[]} */
  const behind = (element) => {
    if (!element) return [1, 1, 1];
    return over(parse(getComputedStyle(element).backgroundColor), behind(element.parentElement));
  };

  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!element || !texts.currentNode.nodeValue?.trim()) continue;
    if (!element.checkVisibility() || element.closest("[aria-disabled=true]")) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const front = over(parse(style.color), back, Number(style.opacity));
    const [low = 0, high = 0] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${texts.currentNode.nodeValue.trim()}: ${ratio.toFixed(2)}`);
  }
  return { room: luminance(behind(document.body)), faint };
}
