/** What the tests of the pages in public/examples share. */
import { readdirSync } from "node:fs";
import { device, PASSWORD, worker } from "./page-accounts.mjs";

/** @import { BrowserContext, BrowserContextOptions, Page } from "playwright-core" */

const folder = new URL("../../public/examples/", import.meta.url);

/** The names of all examples. */
export const EXAMPLES = readdirSync(folder)
  .filter((name) => name.endsWith(".html") && name !== "index.html")
  .map((name) => name.slice(0, -".html".length));

/** Where a page of the examples is. @param {string} name */
export const addressOf = (name) => `${worker.url.replace("127.0.0.1", "localhost")}/examples/${name}`;

/** Opens an example in another tab of this visitor, and waits until it is drawn. @param {BrowserContext} context @param {string} name */
export async function openExample(context, name) {
  const page = await context.newPage();
  await page.goto(addressOf(name));
  await drawn(page);
  return page;
}

/** The same for a visitor with an empty cookie jar. @param {string} name @param {BrowserContextOptions} [options] */
export const newExample = async (name, options) => openExample(await device(options), name);

/** Waits until the session is on show, and nothing is under way. @param {Page} page */
export const drawn = (page) =>
  page.waitForFunction(
    () => document.querySelector("#who:not(:empty)") && !document.querySelector("[aria-busy=true]"),
  );

/** Waits until this is said. @param {Page} page @param {string | RegExp} text */
export const said = (page, text) => page.locator("#said", { hasText: text }).waitFor();

/** Waits until an element holds this text. @param {Page} page @param {string} id @param {string} text */
export const holds = (page, id, text) =>
  page.waitForFunction(([id, text]) => document.querySelector(`#${id}`)?.textContent === text, [id, text]);

/** What is stored in a visitor's session. @param {Page} page @returns {Promise<Record<string, any>>} */
export const dataOf = (page) =>
  page.evaluate(async () => (await (await fetch("/auth/session")).json()).session?.data ?? null);

/** Counts the requests to the Worker from now on, as "GET /auth/session". @param {Page} page */
export function requestsOf(page) {
  /** @type {string[]} */
  const requests = [];
  page.on("request", (request) => {
    const { pathname } = new URL(request.url());
    if (pathname.startsWith("/auth/")) requests.push(`${request.method()} ${pathname}`);
  });
  return requests;
}

/** Answers the next requests of a page with a problem. @param {Page} page @param {number} status @param {string} code @param {Record<string, string>} [headers] */
export const refuse = (page, status, code, headers = {}) =>
  page.route("**/auth/**", (route) =>
    route.fulfill({
      status,
      headers,
      contentType: "application/problem+json",
      body: JSON.stringify({ type: "about:blank", title: "Refused", status, detail: "Refused.", code }),
    }),
  );

/** Holds a page's requests back until the function it returns is called. @param {Page} page @param {string} [glob] */
export async function hold(page, glob = "**/auth/**") {
  /** @type {() => void} */
  let release = () => {};
  const held = new Promise((resolve) => (release = () => resolve(undefined)));
  await page.route(glob, async (route) => {
    await held;
    await route.continue();
  });
  return release;
}

/** Logs in or registers on the login page. @param {Page} page @param {string} username @param {"Log in" | "Register"} how */
export async function enter(page, username, how = "Register") {
  await page.getByLabel("Username").fill(username);
  await page.getByLabel("Password").fill(PASSWORD);
  await page.getByRole("button", { name: how }).click();
  await said(page, `Welcome, ${username}.`);
}

/** Someone comes back to a page, from another one that they went on to. @param {Page} page */
export const comeBack = (page) =>
  page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true })));
