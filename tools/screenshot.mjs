/**
 * Takes the README's picture of the page, docs/page.png.
 *
 *   node tools/screenshot.mjs                       starts the Worker for it
 *   CLOAKROOM_URL=http://localhost:8787 node tools/screenshot.mjs
 */

import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { launch } from "../tests/support/browser.mjs";

const PICTURE = fileURLToPath(new URL("../docs/page.png", import.meta.url));

const given = process.env.CLOAKROOM_URL;
const app = given ? null : await (await import("../tests/support/app.mjs")).startApp();
const browser = await launch();
/** @type {Buffer} */
let picture;
try {
  const page = await browser.newPage({
    viewport: { width: 1280, height: 800 },
    deviceScaleFactor: 1,
    colorScheme: "light",
    reducedMotion: "reduce",
    locale: "en-GB",
  });
  await page.goto(given ?? app?.url ?? "");
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
  await page.mouse.move(0, 0);
  picture = await page.screenshot();
} finally {
  await browser.close();
  await app?.stop();
}

await writeFile(PICTURE, picture);
console.log(`docs/page.png: ${Math.ceil(picture.length / 1000)} KB`);
