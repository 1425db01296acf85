/** One Chromium for a test file: started once, a fresh profile, nothing fetched behind our backs. */

import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { findChromium, NO_CHROMIUM } from "../../tools/chromium.mjs";

/** @import { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core" */

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
  const executablePath = await findChromium({ log });
  if (!executablePath) throw new Error(NO_CHROMIUM);
  const asRoot = process.getuid?.() === 0;
  return chromium.launch({ executablePath, args: asRoot ? [...FLAGS, "--no-sandbox"] : FLAGS });
}

/**
 * Somebody with an empty cookie jar, whose console is listened to.
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

/** Opens the page, and waits until it has had its first answer. @param {BrowserContext} context @param {string} at */
export async function openPage(context, at) {
  const page = await context.newPage();
  await page.goto(at);
  await settled(page);
  return page;
}

/** Nothing is under way any more. @param {Page} page */
export const settled = (page) => page.locator("#look[aria-disabled=false]").waitFor();

/** All have gone. @param {Browser} browser */
export const closeAll = (browser) => Promise.all(browser.contexts().map((context) => context.close()));

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
      const name = new URL(route.request().url()).pathname.slice(1) || "index.html";
      return route.fulfill({ path: fileURLToPath(new URL(name, folder)), headers });
    },
  );
}
