/**
 * Takes the README's pictures: of the demo page, docs/page.png, and of the operators' page, docs/operators.png.
 *
 *   node tools/screenshot.mjs                       starts the Worker for it
 *   CLOAKROOM_URL=http://localhost:8787 ADMIN_TOKEN=… node tools/screenshot.mjs
 */

import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { launch } from "../tests/support/browser.mjs";

/** @import { Page } from "playwright-core" */

const given = process.env.CLOAKROOM_URL;
const app = given ? null : await (await import("../tests/support/app.mjs")).startApp();
const url = given ?? app?.url ?? "";
const secrets = app ? await readFile(app.secrets, "utf8") : "";
const token = process.env.ADMIN_TOKEN ?? /^ADMIN_TOKEN="?([^"\n]+)/m.exec(secrets)?.[1] ?? "";
const browser = await launch();
try {
  await take("page.png", visit);
  await take("operators.png", operate);
} finally {
  await browser.close();
  await app?.stop();
}

/** @param {string} name  in docs/ @param {(page: Page) => Promise<void>} show */
async function take(name, show) {
  const page = await browser.newPage({
    viewport: { width: 1280, height: 800 },
    deviceScaleFactor: 1,
    colorScheme: "light",
    reducedMotion: "reduce",
    locale: "en-GB",
  });
  await show(page);
  await page.mouse.move(0, 0);
  const picture = await page.screenshot();
  await page.close();
  await writeFile(fileURLToPath(new URL(`../docs/${name}`, import.meta.url)), picture);
  console.log(`docs/${name}: ${Math.ceil(picture.length / 1000)} KB`);
}

/** @param {Page} page */
async function visit(page) {
  await page.goto(url);
  for (const visits of ["1", "2", "3"]) {
    await page.getByRole("button", { name: "Count a visit" }).click();
    await page.locator("#visits", { hasText: visits }).waitFor();
  }
  await page.getByLabel("Name", { exact: true }).fill("Ada Lovelace");
  await page.getByLabel("straw").check();
  await page.getByRole("button", { name: "Store" }).click();
  await page.getByText("Stored.").waitFor();
  await page.getByRole("button", { name: "20 clicks at once" }).click();
  await page.getByText("All 20 counted").waitFor();
  // In the log the burst says more than the look that came after it.
  await page.locator("#log summary").nth(0).click();
  await page.locator("#log summary").nth(1).click();
}

/** @param {Page} page */
async function operate(page) {
  const { id, name } = await account("Ada Lovelace");
  for (const [user_agent, address] of [
    ["Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "203.0.113.7"],
    ["Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/605.1.15", "198.51.100.23"],
  ]) {
    await call("POST", "sessions", { user: { id, name }, client: { user_agent, address } });
  }
  const report = await (await call("GET", "stats")).json();
  // A database that has just begun has no past: this one is made up.
  await page.route(/admin\/stats$/, (route) => route.fulfill({ json: { ...report, ...past(report) } }));
  await page.goto(`${url}/auth/admin/`);
  await page.getByLabel("Admin token").fill(token);
  await page.getByRole("button", { name: "Open" }).click();
  await page.locator("#value").fill(name);
  await page.getByRole("button", { name: "Look up", exact: true }).click();
  await page.locator("#found[aria-busy=false] .list").waitFor();
  await page.locator("#charts figure").first().waitFor();
  await page.evaluate(() => /** @type {HTMLElement} */ (document.activeElement).blur());
  const height = await page.locator("#charts").evaluate((charts) => charts.getBoundingClientRect().bottom);
  await page.setViewportSize({ width: 1280, height: Math.ceil(height + 16) });
}

/** Five weeks of a site with weekends. @param {{ signing_keys: string[] }} report */
function past({ signing_keys: [key = ""] }) {
  const days = Array.from({ length: 35 }, (_, back) => {
    const date = new Date(Date.now() - back * 86_400_000);
    const part =
      ([0, 6].includes(date.getUTCDay()) ? 0.45 : 1) * (1 + ((back * 7) % 11) / 20) * (back ? 1 : 0.4);
    const count = (/** @type {number} */ most) => Math.round(most * part);
    return {
      ...{ day: date.toISOString().slice(0, 10), tickets_by_key: { [key]: count(9000) } },
      ...{
        sessions_created: count(1400),
        logins: count(420),
        logouts: count(160),
        distinct_users: count(380),
      },
      ...{ failed_logins: back === 9 ? 940 : count(35), rate_limited: back === 9 ? 610 : count(4) },
      ...{ revocations: back % 6 ? 0 : 2, passed_uncounted: 0, gateway_refused: 0, events_lost: 0 },
    };
  });
  return { days };
}

/** The account of this name, which is made if it is not there. @param {string} username */
async function account(username) {
  const found = await call("GET", `users?name=${encodeURIComponent(username)}`).catch(() => null);
  return (found ?? (await call("POST", "users", { username, roles: ["editor"] }))).json();
}

/** The service API. @param {string} method @param {string} path @param {unknown} [body] */
async function call(method, path, body) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const answer = await fetch(`${url}/auth/admin/${path}`, { method, headers, body: JSON.stringify(body) });
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status}`);
  return answer;
}
