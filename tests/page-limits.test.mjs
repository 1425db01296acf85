/** The limits on the page at `/`, in a real browser: what is left is shown, a refusal is counted down. */
import assert from "node:assert/strict";
import { after, afterEach, before, describe, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import {
  closeAll,
  dataOf,
  launch,
  newVisitor,
  openPage,
  press,
  putPage,
  settled,
  skip,
  textOf,
} from "./support/browser.mjs";
import { contrasts } from "./support/contrasts.mjs";
import { moveClocks, moveToWindow, startWorker } from "./support/worker.mjs";

/** @import { Browser, Page } from "playwright-core" */

describe("the page, with limits", { skip }, () => {
  /** @type {Awaited<ReturnType<typeof startLocalStore>>} */
  let store;
  /** @type {Awaited<ReturnType<typeof startWorker>>} */
  let worker;

  /** @type {Browser} */
  let browser;
  /** What a console showed that it should not: exceptions, CSP violations, warnings. @type {string[]} */
  const complaints = [];

  before(async () => {
    store = await startLocalStore();
    browser = await launch();
  });

  after(async () => {
    await browser?.close();
    await store?.stop();
    assert.deepEqual(complaints, []);
  });

  afterEach(async () => {
    await closeAll(browser);
    await worker.stop();
  });

  /** A Worker with these limits, at the begin of a window. @param {object} limits  @returns {Promise<string>}  its address */
  async function limited(limits) {
    await store.redis.flushAll();
    worker = await startWorker({ store, settings: { limits: { mint: "", ...limits } } });
    await moveToWindow(store, [worker]);
    return worker.url.replace("127.0.0.1", "localhost");
  }

  /** A visitor of that Worker, in front of which the page is put. @param {string} at */
  async function guest(at) {
    const context = await newVisitor(browser, complaints);
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
    const page = await openPage(await guest(at), at);
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

  test("of several limits the meter shows the tightest", async () => {
    const routes = [{ path: "/auth/session/data", limit: "5/10s" }];
    const at = await limited({ session: "30/1m", routes });
    const page = await openPage(await guest(at), at);
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
    const page = await openPage(await guest(at), at);
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

  test("a refusal is counted down in silence, its end is announced once, and then the button works", async () => {
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

  test("a visitor who may not create a session may still read, and the countdown goes on", async () => {
    const at = await limited({ mint: "1/1m" });
    await press(await openPage(await guest(at), at), "Count a visit");
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

  test("after a refusal the page does not read the session by itself until it may", async () => {
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
