/** One Chromium for a test file, with a fresh profile and without requests of its own; and what tests read on the page. */

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { findChromium, NO_CHROMIUM } from "../../tools/chromium.mjs";

/** @import { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core" */

/** Why tests with a browser are skipped here, or false. */
export const skip = (await findChromium({ log: console.error })) ? false : NO_CHROMIUM;

const FLAGS = [
  "--headless",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * Starts the machine's Chromium, with a profile of its own that goes when it is closed.
 * @param {{ log?: (line: string) => void }} [options]
 * @returns {Promise<import("playwright-core").Browser>}
 * @throws when there is no Chromium; the message is one sentence for the person at the terminal
 */
export async function launch({ log = console.error } = {}) {
  return chromium.launch(await options(log));
}

/**
 * The same with a profile in this folder: the contexts of {@link launch} are Incognito windows, in which cookies of other
 * sites are blocked.
 * @param {string} folder
 */
export const launchProfile = async (folder) =>
  chromium.launchPersistentContext(folder, await options(console.error));

/** @param {(line: string) => void} log */
async function options(log) {
  const executablePath = await findChromium({ log });
  if (!executablePath) throw new Error(NO_CHROMIUM);
  const asRoot = process.getuid?.() === 0;
  return { executablePath, args: asRoot ? [...FLAGS, "--no-sandbox"] : FLAGS };
}

/**
 * A visitor with an empty cookie jar, whose console is recorded.
 * @param {Browser} browser
 * @param {string[]} complaints
 * @param {BrowserContextOptions} [options]
 */
export async function newVisitor(browser, complaints, options = {}) {
  const context = await browser.newContext({ locale: "en-GB", reducedMotion: "reduce", ...options });
  // On a busy machine a page takes its time.
  context.setDefaultTimeout(30_000);
  listen(context, complaints);
  return context;
}

/** Opens the page, and waits for its first answer. @param {BrowserContext} context @param {string} at */
export async function openPage(context, at) {
  const page = await context.newPage();
  await page.goto(at);
  await settled(page);
  return page;
}

/** Waits until no request is under way. @param {Page} page */
export const settled = (page) => page.locator("#look[aria-disabled=false]").waitFor();

/** Closes the windows of all visitors. @param {Browser} browser */
export const closeAll = (browser) => Promise.all(browser.contexts().map((context) => context.close()));

/** Presses a button, and waits for the answers. @param {Page} page  @param {string} name */
export async function press(page, name) {
  await page.getByRole("button", { name, exact: true }).first().click();
  await settled(page);
}

/** @param {Page} page  @param {string} id */
export const textOf = async (page, id) => (await page.locator(`#${id}`).innerText()).trim();

/** The session's data. @param {Page} page */
export const dataOf = async (page) => JSON.parse(await textOf(page, "data"));

/**
 * Presses Tab until an element has the focus, and checks that this is visible.
 * @param {Page} page
 * @param {string} selector
 * @param {number} [presses]  at most
 */
export async function tabTo(page, selector, presses = 60) {
  for (let i = 0; i < presses; i++) {
    await page.keyboard.press("Tab");
    const [is, outline] = await page.evaluate((selector) => {
      const element = document.activeElement ?? document.body;
      return [element.matches(selector), getComputedStyle(element).outlineStyle];
    }, selector);
    if (!is) continue;
    assert.equal(outline, "solid", `focus on ${selector} is visible`);
    return;
  }
  assert.fail(`${selector} cannot be reached with Tab`);
}

/**
 * Collects what a visitor's console shows that it should not: exceptions, CSP violations, warnings, dialogs.
 * @param {BrowserContext} context
 * @param {string[]} complaints
 */
function listen(context, complaints) {
  context.on("weberror", (error) => complaints.push(String(error.error())));
  context.on("dialog", (dialog) => complaints.push(`dialog: ${dialog.message()}`));
  context.on("console", (message) => {
    // The browser's own note of a 4xx or an aborted request, which some tests cause on purpose.
    const expected = message.text().startsWith("Failed to load resource:");
    if (!expected && ["error", "warning"].includes(message.type())) complaints.push(message.text());
  });
}

/**
 * Puts the page in front of a Worker that has none.
 * @param {BrowserContext} context
 * @param {string} at  the Worker's address
 */
export async function putPage(context, at) {
  const folder = new URL("../../public/", import.meta.url);
  const headers = Object.fromEntries(
    (await readFile(new URL("_headers", folder), "utf8"))
      .split("\n")
      .filter((line) => line.startsWith("  "))
      .map((line) => line.trim().split(/: (.*)/, 2)),
  );
  await context.route(
    ({ href, pathname }) => href.startsWith(at) && !pathname.startsWith("/auth/"),
    (route) => {
      const { pathname } = new URL(route.request().url());
      // A page is also at its name without the ending, to which Cloudflare redirects.
      const name = `${pathname.slice(1)}${pathname.endsWith("/") ? "index" : ""}`;
      const path = fileURLToPath(new URL(/\.\w+$/.test(name) ? name : `${name}.html`, folder));
      return route.fulfill({ path, headers });
    },
  );
}
