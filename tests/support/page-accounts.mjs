/** What the tests of the page's accounts share: a browser, a Worker, and what a person does on the page. */
import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe } from "node:test";
import { startLocalStore } from "../../tools/local-store/index.mjs";
import { closeAll, launch, newVisitor, openPage, putPage, settled, skip, textOf } from "./browser.mjs";
import { FAST_HASH, startWorker } from "./worker.mjs";

/** @import { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core" */

export const PASSWORD = "correct horse";
export const OTHER_PASSWORD = "battery staple";
export const FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0";
export const MINUTE = 60_000;

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
export let store;
/** @type {Awaited<ReturnType<typeof startWorker>>} */
export let worker;
/** @type {Browser} */
let browser;
/** What a console showed that it should not. @type {string[]} */
export const complaints = [];
let url = "";
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
      await serve({});
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

    afterEach(() => closeAll(browser));

    tests();
  });

/**
 * Starts a Worker with these settings instead of the one there is.
 * @param {object} settings
 * @param {Pick<Parameters<typeof startWorker>[0], "secrets" | "others">} [environment]
 */
export async function serve(settings, environment) {
  await worker?.stop();
  worker = await startWorker({ store, settings: { password: FAST_HASH, ...settings }, ...environment });
  url = worker.url.replace("127.0.0.1", "localhost");
}

/** A device with an empty cookie jar. @param {BrowserContextOptions} [options] */
export async function device(options) {
  const context = await newVisitor(browser, complaints, options);
  await putPage(context, url);
  return context;
}

/** @param {BrowserContext} context */
export const open = (context) => openPage(context, url);

/** @param {BrowserContextOptions} [options] */
export const opened = async (options) => open(await device(options));

/** Presses a button that makes no request. @param {Page} page @param {string} name */
export const push = (page, name) => page.getByRole("button", { name, exact: true }).last().click();

/** @param {Page} page @param {string} name */
export async function press(page, name) {
  await push(page, name);
  await settled(page);
}

/** Fills in a form and sends it. @param {Page} page @param {string} form @param {Record<string, string>} fields */
export async function send(page, form, fields) {
  for (const [name, value] of Object.entries(fields)) {
    await page.locator(`#${form} input[name=${name}]`).fill(value);
  }
  await page.locator(`#${form} [type=submit]`).click();
  await settled(page);
}

/** @param {Page} page @param {string} [username] @param {string} [password] */
export const register = (page, username = ada, password = PASSWORD) =>
  send(page, "register", { username, password });

/** @param {Page} page @param {string} [username] @param {string} [password] */
export const logIn = (page, username = ada, password = PASSWORD) =>
  send(page, "login", { username, password });

/** @param {Page} page */
export const focused = (page) => page.evaluate(() => document.activeElement?.id);

/** @param {Page} page */
export const devicesOf = async (page) => page.locator("#devices .device").allInnerTexts();

/** Nobody is logged in. @param {Page} page */
export const assertLoggedOut = async (page) => {
  assert.equal(await textOf(page, "account-title"), "Log in or register");
  assert.deepEqual(
    [await page.locator("#outside").isVisible(), await page.locator("#inside").isVisible()],
    [true, false],
  );
};

/**
 * What a screen reader says of a field: whether it is invalid, and its description.
 * @param {Page} page  @param {string} id
 */
export const fieldOf = (page, id) =>
  page.locator(`#${id}`).evaluate((/** @type {HTMLInputElement} */ field) => ({
    invalid: field.ariaInvalid,
    about: (field.getAttribute("aria-describedby") ?? "")
      .split(" ")
      .map((id) => document.getElementById(id)?.textContent?.trim() ?? "")
      .join(" | "),
    value: field.value,
  }));
