/** The pages in public/examples: what holds for each of them, for everybody and whatever fails. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import axe from "axe-core";
import { clientInOneFile } from "../tools/page.mjs";
import { contrasts } from "./support/contrasts.mjs";
import {
  addressOf,
  comeBack,
  drawn,
  EXAMPLES,
  hold,
  holds,
  newExample,
  openExample,
  refuse,
  requestsOf,
  said,
} from "./support/examples.mjs";
import { complaints, describeInBrowser, device } from "./support/page-accounts.mjs";

/** @import { Page } from "playwright-core" */

const folder = new URL("../public/", import.meta.url);
const PHONE = { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true };

/** @param {string} name */
const fileOf = async (name) => (await readFile(new URL(name, folder), "utf8")).trim();

/** What axe-core finds. @param {Page} page */
async function violationsOf(page) {
  await page.evaluate(axe.source);
  const { violations, passes } = await page.evaluate(() =>
    /** @type {{ axe: typeof axe }} */ (/** @type {unknown} */ (window)).axe.run(document, {
      resultTypes: ["violations"],
    }),
  );
  assert.ok(passes.length > 10, "axe looked");
  return violations.map(({ id, nodes }) => `${id} at ${nodes.map(({ html }) => html).join("\n")}`);
}

test("the client of the pages is the one in client/", async () => {
  assert.equal(await fileOf("client.js"), (await clientInOneFile()).trim(), "npm run build, then commit it");
});

describeInBrowser("the examples", () => {
  test("the index links each of them, and the page under the hood links the index", async () => {
    const page = await (await device()).newPage();
    await page.goto(addressOf("").replace("examples/", ""));
    await page.getByRole("link", { name: "examples", exact: true }).click();
    await page.getByRole("heading", { name: "Examples", level: 1 }).waitFor();
    const links = await page
      .locator("main a")
      .evaluateAll((all) => all.map((link) => link.getAttribute("href")));
    assert.deepEqual(links.sort(), EXAMPLES.map((name) => `${name}.html`).sort());
    for (const link of links) {
      await page.locator(`main a[href="${link}"]`).click();
      await drawn(page);
      await page.getByRole("link", { name: "All examples" }).click();
      await page.getByRole("heading", { name: "Examples", level: 1 }).waitFor();
    }
  });

  for (const name of EXAMPLES) {
    test(`${name}: the source shown is the one that runs, all from one origin, after one look`, async () => {
      const page = await (await device()).newPage();
      const requests = requestsOf(page);
      /** @type {string[]} */
      const origins = [];
      page.on("request", (request) => origins.push(new URL(request.url()).origin));
      await page.goto(addressOf(name));
      await drawn(page);
      await page.waitForFunction(() =>
        [...document.querySelectorAll("#source pre")].every(({ textContent }) => textContent !== "…"),
      );
      const shown = await page.locator("#source pre").evaluateAll((all) => all.map((pre) => pre.textContent));
      const more = { preferences: ["theme.js"], form: ["steps.js"] }[name] ?? [];
      const own = [`${name}.js`, ...more];
      const scripts = await Promise.all(own.map((script) => fileOf(`examples/${script}`)));
      assert.deepEqual(shown.slice(0, -1), scripts);
      const markup = (/** @type {string | null | undefined} */ text) => (text ?? "").replaceAll(/\s+/g, " ");
      assert.ok(markup(await fileOf(`examples/${name}.html`)).includes(markup(shown.at(-1))));
      assert.match(shown.at(-1) ?? "", /^<section [^]*<\/section>$/);
      assert.deepEqual(new Set(origins), new Set([new URL(addressOf(name)).origin]));
      // Where one can log in is no part of the session, and is asked for beside it.
      const others = name === "login" ? ["GET /auth/providers"] : [];
      assert.deepEqual(requests.sort(), [...others, "GET /auth/session"]);
      const lines = (scripts[0] ?? "").split("\n");
      const code = lines.filter((line) => line.trim() && !line.trim().startsWith("//"));
      assert.ok(code.length <= 80, `${code.length} lines are too many for an example`);
      assert.deepEqual(
        lines.filter((line) => line.length > 85),
        [],
        "lines that would be wrapped beside the example",
      );
    });

    for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
      test(`${name}: axe-core finds nothing on a ${colorScheme} phone, and nothing scrolls sideways`, async () => {
        const page = await newExample(name, { ...PHONE, colorScheme });
        for (const width of [320, 360, 768, 1280]) {
          await page.setViewportSize({ width, height: 740 });
          const content = await page.evaluate(() => document.documentElement.scrollWidth);
          assert.ok(content <= width, `${content} of ${width} pixels`);
        }
        assert.deepEqual(await violationsOf(page), []);
        await page.evaluate(() => document.querySelector("#said")?.append("Something went wrong."));
        await page.evaluate(() => document.querySelector("#said")?.setAttribute("data-kind", "bad"));
        const { room, faint } = await page.evaluate(contrasts);
        assert.deepEqual(faint, []);
        assert.ok(colorScheme === "light" ? room > 0.8 : room < 0.02, `luminance ${room}`);
      });
    }

    test(`${name}: who cannot look says so, and looks again when asked`, async () => {
      const page = await (await device()).newPage();
      await refuse(page, 429, "rate_limited", { "Retry-After": "42" });
      // The second look is the client's own, for whom it tells of changes.
      let looks = 0;
      const refused = page.waitForEvent("response", (response) => response.status() === 429 && ++looks === 2);
      await page.goto(addressOf(name));
      await said(page, "Too many requests. Try again in 42 seconds. (429)");
      await refused;
      await page.unroute("**/auth/**");
      await page.getByRole("button", { name: "Look again" }).click();
      await page.locator("#who:not(:empty)").waitFor();
      await drawn(page);
      assert.equal(await page.locator("#again").isVisible(), false);
      assert.equal(await page.locator("#said").textContent(), "");
    });
  }

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    test(`the index: axe-core finds nothing on a ${colorScheme} phone`, async () => {
      const page = await (await device({ ...PHONE, colorScheme })).newPage();
      await page.goto(addressOf(""));
      assert.deepEqual(await violationsOf(page), []);
      assert.deepEqual((await page.evaluate(contrasts)).faint, []);
    });
  }

  for (const [status, code, headers, sentence] of /** @type {const} */ ([
    [
      503,
      "store_unavailable",
      { "Retry-After": "20" },
      /^The store does not answer at the moment\. .*\(503\)$/,
    ],
    [429, "rate_limited", { "Retry-After": "1" }, /^Too many requests\. Try again in 1 second\. \(429\)$/],
    [
      429,
      "rate_limited",
      { "Retry-After": "600" },
      /^Too many requests\. Try again in 10 minutes\. \(429\)$/,
    ],
    [500, "internal", {}, /^Refused\. .*\(500\)$/],
  ])) {
    test(`${status} is told with "${sentence.source}", and what was typed is kept`, async () => {
      const page = await newExample("profile");
      await refuse(page, status, code, headers);
      await page.getByLabel("Note").fill("Half a no");
      await page.getByRole("button", { name: "Keep the note" }).click();
      await said(page, sentence);
      assert.equal(await page.getByLabel("Note").inputValue(), "Half a no");
      assert.equal(await page.locator("#said").getAttribute("data-kind"), "bad");
      await page.unroute("**/auth/**");
      await page.getByRole("button", { name: "Keep the note" }).click();
      await said(page, "Kept in this session.");
    });
  }

  test("without a connection it is said, and what was typed is kept", async () => {
    const page = await newExample("profile");
    await page.route("**/auth/**", (route) => route.abort());
    await page.getByLabel("Note").fill("Half a no");
    await page.getByRole("button", { name: "Keep the note" }).click();
    await said(page, /^There is no connection\./);
    assert.equal(await page.getByLabel("Note").inputValue(), "Half a no");
    await page.unroute("**/auth/**");
    await page.getByRole("button", { name: "Keep the note" }).click();
    await said(page, "Kept in this session.");
  });

  test("on a slow network the button shows that it is under way, and typing goes on", async () => {
    const page = await newExample("profile");
    const requests = requestsOf(page);
    const release = await hold(page);
    await page.getByLabel("Note").fill("A note");
    const button = page.getByRole("button", { name: "Keep the note" });
    await button.dblclick();
    await said(page, "One moment …");
    assert.equal(await button.getAttribute("aria-busy"), "true");
    await page.getByLabel("Note").fill("A note, and more");
    await button.click();
    release();
    await said(page, "Kept in this session.");
    assert.equal(await button.getAttribute("aria-busy"), null);
    assert.equal(await page.getByLabel("Note").inputValue(), "A note, and more");
    assert.deepEqual(requests, ["PATCH /auth/session/data"]);
  });

  test("a page that the browser brings back shows how it stands now", async () => {
    const context = await device();
    const page = await openExample(context, "counter");
    // As if it had been put away, where it hears nothing.
    await page.evaluate(() => (BroadcastChannel.prototype.postMessage = () => {}));
    const other = await openExample(context, "counter");
    await other.evaluate(() => (BroadcastChannel.prototype.postMessage = () => {}));
    await other.getByRole("button", { name: "Count a visit" }).click();
    await holds(other, "visits", "1");
    assert.equal(await page.locator("#visits").textContent(), "0");
    await comeBack(page);
    await holds(page, "visits", "1");
  });

  test("a fault of the page itself is told, and goes to the console", async () => {
    const page = await newExample("counter");
    const before = complaints.length;
    await page.evaluate(() => {
      setTimeout(() => {
        throw new Error("a fault");
      });
    });
    await said(page, "Something is wrong with this page itself. Reload it, and try again.");
    assert.match(complaints.splice(before).join(), /a fault/);
  });
});
