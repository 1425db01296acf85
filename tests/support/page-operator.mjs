/** What the tests of the operators' page share: a browser, a Worker, users, and what an operator does on the page. */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe } from "node:test";
import axe from "axe-core";
import { startLocalStore } from "../../tools/local-store/index.mjs";
import { closeAll, launch, newVisitor, skip, textOf } from "./browser.mjs";
import { FAST_HASH, randomSecret, startWorker } from "./worker.mjs";

/** @import { Browser, BrowserContextOptions, Page } from "playwright-core" */
/** @typedef {{ settings?: object, secrets?: Record<string, unknown> }} Deployment */

export const TOKEN = randomSecret();
export const PASSWORD = "correct horse";
export const MINUTE = 60_000;

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
export let store;
/** @type {Awaited<ReturnType<typeof startWorker>>} */
export let worker;
/** @type {Browser} */
let browser;
/** What a console showed that it should not. @type {string[]} */
export const complaints = [];
export let url = "";
let count = 0;
/** A username that no other test has. */
export let ada = "";

/**
 * Tests in a browser, which are skipped where there is none.
 * @param {string} title
 * @param {() => void} tests
 */
export const describeInBrowser = (title, tests) =>
  describe(title, { skip }, () => {
    before(async () => {
      store = await startLocalStore();
      browser = await launch();
      await serve();
    });

    after(async () => {
      await browser?.close();
      await worker?.stop();
      await store?.stop();
      assert.deepEqual(complaints, []);
    });

    beforeEach(() => {
      ada = `Ada ${++count}`;
    });

    afterEach(async () => {
      store.faults.clear();
      await closeAll(browser);
    });

    tests();
  });

/** Starts a Worker like this instead of the one there is. @param {Deployment} [deployment] */
export async function serve({ settings, secrets } = {}) {
  await worker?.stop();
  worker = await startWorker({
    store,
    settings: { password: FAST_HASH, ...settings },
    secrets: { ADMIN_TOKEN: TOKEN, ...secrets },
  });
  url = worker.url.replace("127.0.0.1", "localhost");
}

/** The page in a window of its own, with an empty cookie jar. @param {BrowserContextOptions} [options] */
export async function opened(options, base = "/auth") {
  const context = await newVisitor(browser, complaints, options);
  const page = await context.newPage();
  await arrive(page, base);
  return page;
}

/** @param {Page} page */
export async function arrive(page, base = "/auth") {
  await page.goto(`${url}${base}/admin/`);
  await page.locator("#enter[aria-disabled=false]").waitFor();
}

/** The same with the token given. @param {BrowserContextOptions} [options] */
export async function unlocked(options) {
  const page = await opened(options);
  await enter(page);
  await page.locator("#opened").waitFor();
  return page;
}

/** @param {Page} page @param {string} [token] */
export async function enter(page, token = TOKEN) {
  await page.getByLabel("Admin token").fill(token);
  await push(page, "Open");
}

/** Presses a button. @param {Page} page @param {string | RegExp} name */
export const push = (page, name) => page.getByRole("button", { name, exact: true }).first().click();

/** Asks for something, without waiting for what comes. @param {Page} page @param {string} kind @param {string} value */
export async function ask(page, kind, value) {
  await page.getByLabel(kind, { exact: true }).check();
  await page.locator("#value").fill(value);
  await push(page, "Look up");
}

/** Looks something up, and waits until it is shown. @param {Page} page @param {string} kind @param {string} value */
export async function lookUp(page, kind, value) {
  await ask(page, kind, value);
  await page.locator("#found[aria-busy=false]").waitFor();
}

/** Waits until this is said. @param {Page} page @param {string | RegExp} words @param {string} [place] */
export const hears = (page, words, place = "said") =>
  page.locator(`#${place}`).filter({ hasText: words }).waitFor();

/** Presses a button that asks first; what it asks. @param {Page} page @param {string | RegExp} name */
export async function consider(page, name) {
  await push(page, name);
  await page.locator("#ask[open]").waitFor();
  return (await textOf(page, "ask-title")) + "\n" + (await textOf(page, "ask-effects"));
}

/** A call of the service API. @param {string} method @param {string} path @param {unknown} [body] */
export const admin = (method, path, body) =>
  worker.visitor().send(method, `/auth/admin/${path}`, {
    headers: {
      Authorization: `Bearer ${TOKEN}`,
      ...(body === undefined ? {} : { "Content-Type": "application/json" }),
    },
    body: body === undefined ? undefined : JSON.stringify(body),
  });

/** An account. @param {string} [username] @param {string[]} [roles] @returns {Promise<string>} its id */
export async function makeAccount(username = ada, roles = []) {
  const { status, json } = await admin("POST", "users", { username, password: PASSWORD, roles });
  assert.equal(status, 201);
  return json.id;
}

/** A device that is logged in. @param {string} [username] */
export async function device(username = ada, userAgent = "Phone") {
  const visitor = worker.visitor();
  const { status } = await visitor.login(username, PASSWORD, { headers: { "User-Agent": userAgent } });
  assert.equal(status, 200);
  return visitor;
}

/** Whether a device's session lives. @param {Awaited<ReturnType<typeof device>>} visitor */
export const isAlive = async (visitor) => (await visitor.look()).json.session !== null;

/** Holds the calls to a path back until `release` is called. @param {Page} page @param {RegExp} path */
export async function hold(page, path) {
  /** @type {() => void} */
  let release = () => {};
  const released = new Promise((resolve) => (release = () => resolve(undefined)));
  let asked = 0;
  await page.route(path, async (route) => {
    asked += 1;
    await released;
    // The page may have given it up.
    await route.continue().catch(() => {});
  });
  return { release: () => release(), asked: () => asked };
}

/** Until what the browser had got before is dealt with. @param {Page} page */
export const roundTrip = (page) => page.evaluate(async () => (await fetch("page/icon.svg")).text());

/** Answers the calls to a path with a problem. @param {Page} page @param {RegExp} path @param {number} status @param {object} [json] @param {Record<string, string>} [headers] */
export const refuse = (page, path, status, json = {}, headers = {}) =>
  page.route(path, (route) =>
    route.fulfill({
      status,
      headers,
      contentType: "application/problem+json",
      body: JSON.stringify({ type: "about:blank", status, ...json }),
    }),
  );

/** What axe-core finds. @param {Page} page @param {string} state */
export async function assertAccessible(page, state) {
  // Trusted Types let no script in that the page has not: this is the test's own.
  await page.evaluate(axe.source);
  const { violations, passes } = await page.evaluate(() =>
    /** @type {{ axe: typeof axe }} */ (/** @type {unknown} */ (window)).axe.run(document, {
      resultTypes: ["violations"],
    }),
  );
  assert.ok(passes.length > 10, `axe looked at ${state}`);
  const found = violations.map(
    ({ id, impact, nodes }) => `${impact}: ${id} at ${nodes.map(({ html }) => html).join("\n")}`,
  );
  assert.deepEqual(found, [], state);
}
