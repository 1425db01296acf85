/** The examples with a login: login and dashboard, form in steps, profile and session. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { tabTo } from "./support/browser.mjs";
import {
  comeBack,
  dataOf,
  drawn,
  enter,
  hold,
  newExample,
  openExample,
  refuse,
  requestsOf,
  said,
} from "./support/examples.mjs";
import { ada, describeInBrowser, device, FIREFOX, PASSWORD } from "./support/page-accounts.mjs";

/** @import { BrowserContext, Page } from "playwright-core" */

/** @param {Page} page @param {string} name */
const press = (page, name) => page.getByRole("button", { name, exact: true }).click();

/** The profile of who is logged in. @param {Page} page @returns {Promise<Record<string, any>>} */
const profileOf = (page) => page.evaluate(async () => (await fetch("/auth/profile")).json());

/** Another device, on which somebody is logged in. @param {string} example @param {"Log in" | "Register"} [how] */
async function loggedIn(example, how = "Log in") {
  const context = await device({ userAgent: FIREFOX });
  await enter(await openExample(context, "login"), ada, how);
  return openExample(context, example);
}

describeInBrowser("the examples with a login:", () => {
  describe("login and dashboard", () => {
    test("the dashboard is 401 before the login, 200 after it, and 401 after the logout", async () => {
      const page = await newExample("login");
      await press(page, "Open the dashboard");
      await said(page, /^You are not logged in.*\(401\)$/);
      const requests = requestsOf(page);
      await enter(page, ada);
      assert.deepEqual(requests, ["POST /auth/register"]);
      assert.equal(await page.locator("#login").isVisible(), false);
      assert.equal(await page.getByLabel("Password").inputValue(), "");
      await press(page, "Open the dashboard");
      await said(page, /\(200\)$/);
      assert.match((await page.locator("#devices li").allInnerTexts()).join(), /Chrome.*\(this one\)/);
      await press(page, "Log out");
      await said(page, /^Logged out\./);
      assert.equal(await page.locator("#devices li").count(), 0);
      await press(page, "Open the dashboard");
      await said(page, /\(401\)$/);
      await enter(page, ada, "Log in");
      await press(page, "Open the dashboard");
      await said(page, /\(200\)$/);
    });

    test("a wrong password, a name that is taken, and too many tries are told, and what was typed is kept", async () => {
      await enter(await newExample("login"), ada);
      const page = await newExample("login");
      await page.getByLabel("Username").fill(ada);
      await page.getByLabel("Password").fill("wrong horse");
      await press(page, "Log in");
      await said(page, "This username and this password do not match. (401)");
      assert.equal(await page.getByLabel("Password").inputValue(), "wrong horse");
      await press(page, "Register");
      await said(page, /taken.*\(409\)$/);
      await refuse(page, 429, "rate_limited", { "Retry-After": "200" });
      await press(page, "Log in");
      await said(page, "Too many requests. Try again in 4 minutes. (429)");
      assert.equal(await page.getByLabel("Username").inputValue(), ada);
    });

    test("a double click logs in once", async () => {
      const page = await newExample("login");
      const requests = requestsOf(page);
      const release = await hold(page);
      await page.getByLabel("Username").fill(ada);
      await page.getByLabel("Password").fill(PASSWORD);
      await page.getByRole("button", { name: "Register" }).dblclick();
      await page.getByLabel("Password").press("Enter");
      release();
      await said(page, `Welcome, ${ada}.`);
      assert.deepEqual(requests, ["POST /auth/register"]);
    });

    test("a logout in another tab closes the dashboard here", async () => {
      const context = await device();
      const page = await openExample(context, "login");
      await enter(page, ada);
      await press(page, "Open the dashboard");
      await page.locator("#devices li").waitFor();
      const other = await openExample(context, "login");
      await press(other, "Log out");
      await page.locator("#devices li").waitFor({ state: "detached" });
      await page.getByLabel("Username").waitFor();
      await page.locator("#who", { hasText: "Nobody is logged in." }).waitFor();
    });

    test("works by keyboard", async () => {
      const page = await newExample("login");
      await tabTo(page, "#username");
      await page.keyboard.type(ada);
      await page.keyboard.press("Tab");
      await page.keyboard.type(PASSWORD);
      await tabTo(page, "#register", 4);
      await page.keyboard.press("Enter");
      await said(page, `Welcome, ${ada}.`);
      await tabTo(page, "#open");
      await page.keyboard.press("Space");
      await said(page, /\(200\)$/);
    });
  });

  describe("profile and session", () => {
    test("the note ends with the logout, the motto stays and is on every device", async () => {
      const page = await loggedIn("profile", "Register");
      const requests = requestsOf(page);
      await page.getByLabel("Note").fill("for now");
      await press(page, "Keep the note");
      await said(page, "Kept in this session.");
      await page.getByLabel("Motto").fill("for ever");
      await press(page, "Keep the motto");
      await said(page, /^Kept in the profile/);
      assert.deepEqual(
        requests.filter((request) => request.startsWith("PATCH")),
        ["PATCH /auth/session/data", "PATCH /auth/profile"],
      );
      const other = await loggedIn("profile");
      await other.waitForFunction(() => /** @type {any} */ (document.querySelector("#motto"))?.value);
      assert.equal(await other.getByLabel("Motto").inputValue(), "for ever");
      assert.equal(await other.getByLabel("Note").inputValue(), "");

      await press(page, "Log out");
      await said(page, /^Logged out/);
      assert.equal(await page.getByLabel("Note").inputValue(), "");
      assert.equal(await page.getByLabel("Motto").isVisible(), false);
      assert.equal(await page.locator("#motto").inputValue(), "");
      await page.locator("#nobody").waitFor();
    });

    test("what others have saved is shown when one comes back, and what is being typed stays", async () => {
      const page = await loggedIn("profile", "Register");
      const other = await loggedIn("profile");
      await other.getByLabel("Motto").fill("from elsewhere");
      await press(other, "Keep the motto");
      await said(other, /^Kept/);
      await page.getByLabel("Note").fill("half a no");
      await comeBack(page);
      await page.waitForFunction(
        () => /** @type {any} */ (document.querySelector("#motto"))?.value === "from elsewhere",
      );
      assert.equal(await page.getByLabel("Note").inputValue(), "half a no");
    });

    test("logged out elsewhere, saving says so, and what was typed is kept for this user only", async () => {
      const context = await device();
      await enter(await openExample(context, "login"), ada);
      const page = await openExample(context, "profile");
      await page.getByLabel("Motto").fill("half a mot");
      await page.evaluate(() => fetch("/auth/session", { method: "DELETE" }));
      await press(page, "Keep the motto");
      await said(page, /^You are not logged in.*is kept: log in.*\(401\)$/);
      const login = await openExample(context, "login");
      await enter(login, ada, "Log in");
      await page.getByLabel("Motto").waitFor();
      assert.equal(await page.getByLabel("Motto").inputValue(), "half a mot");
      await press(login, "Log out");
      await enter(login, `${ada} II`);
      await page.locator("#who", { hasText: `${ada} II` }).waitFor();
      await page.waitForFunction(() => /** @type {any} */ (document.querySelector("#motto"))?.value === "");
    });
  });

  describe("the form in steps", () => {
    const ANSWERS = { name: "Ada", mail: "ada@example.org", coat: "blue parka" };
    const FIELDS = { name: "Name", mail: "Mail address", coat: "What it is, such as “blue parka”" };

    /** @param {Page} page @param {keyof typeof FIELDS} name */
    const field = (page, name) => page.getByLabel(FIELDS[name], { exact: true });
    /** @param {Page} page @param {number} number */
    const atStep = (page, number) =>
      page
        .locator("fieldset:visible legend", { hasText: `Step ${number} of 3` })
        .waitFor()
        .then(() => drawn(page));

    /** Fills in the steps up to the last. @param {Page} page */
    async function fillIn(page) {
      await field(page, "name").fill(ANSWERS.name);
      await field(page, "mail").fill(ANSWERS.mail);
      await press(page, "Next");
      await atStep(page, 2);
      await field(page, "coat").fill(ANSWERS.coat);
      await press(page, "Next");
      await atStep(page, 3);
    }

    /** Reads a form's stored state until it holds. @param {() => Promise<boolean>} condition */
    async function eventually(condition) {
      for (let tries = 0; !(await condition()); tries++) assert.ok(tries < 200, "it did not happen");
    }

    test("what was typed survives a reload, also in the middle of a step", async () => {
      const page = await newExample("form");
      await field(page, "name").fill("Ada");
      await eventually(async () => (await dataOf(page))?.application?.draft?.name === "Ada");
      await page.reload();
      await drawn(page);
      assert.equal(await field(page, "name").inputValue(), "Ada");
      await field(page, "mail").fill("ada@example.org");
      await press(page, "Next");
      await atStep(page, 2);
      await page.reload();
      await atStep(page, 2);
      await page.goBack();
      await atStep(page, 1);
      assert.equal(await field(page, "mail").inputValue(), "ada@example.org");
      await page.goForward();
      await atStep(page, 2);
    });

    test("a step is not left before it is complete, nor skipped by its address", async () => {
      const page = await newExample("form");
      const requests = requestsOf(page);
      await press(page, "Next");
      assert.equal(await page.evaluate(() => document.activeElement?.id), "name");
      await field(page, "name").fill("Ada");
      await field(page, "mail").fill("no address");
      await press(page, "Next");
      assert.equal(await page.evaluate(() => document.activeElement?.id), "mail");
      for (const hash of ["3", "-1", "1.5", "coat"]) {
        await page.evaluate((hash) => (location.hash = hash), hash);
        await page.waitForFunction(() => location.hash === "#1");
        await atStep(page, 1);
      }
      assert.ok(requests.length <= 1);
    });

    test("the draft comes along into the login, and is there on another device", async () => {
      const context = await device();
      const page = await openExample(context, "form");
      await field(page, "name").fill(ANSWERS.name);
      await field(page, "mail").fill(ANSWERS.mail);
      await press(page, "Next");
      await atStep(page, 2);
      const login = await openExample(context, "login");
      await enter(login, ada);
      await eventually(async () => (await profileOf(login)).application?.draft?.mail === ANSWERS.mail);
      await eventually(async () => !("application" in (await dataOf(login))));

      const other = await loggedIn("form");
      await atStep(other, 2);
      await field(other, "coat").fill(ANSWERS.coat);
      await press(other, "Next");
      await atStep(other, 3);
      await comeBack(page);
      await page.waitForFunction(() => /** @type {any} */ (document.querySelector("#coat"))?.value);
      assert.equal(await field(page, "coat").inputValue(), ANSWERS.coat);

      await press(other, "Send");
      await said(other, "Sent.");
      await comeBack(page);
      await page.getByText(/^Sent: Ada with “blue parka”/).waitFor();
      const { draft, sent } = (await profileOf(page)).application;
      assert.deepEqual([draft, { ...sent, at: "" }], [undefined, { ...ANSWERS, at: "" }]);
    });

    test("a double click sends once, with two requests for one change", async () => {
      const page = await newExample("form");
      await fillIn(page);
      const requests = requestsOf(page);
      await page.getByRole("button", { name: "Send" }).dblclick();
      await said(page, "Sent.");
      assert.deepEqual(requests, ["GET /auth/session", "PATCH /auth/session/data"]);
      await press(page, "Begin another");
      await atStep(page, 1);
      assert.equal(await field(page, "name").inputValue(), "");
      assert.deepEqual((await dataOf(page)).application, {});
    });

    for (const who of ["a visitor", "a user"]) {
      test(`two tabs of ${who} that send at once have sent one`, async () => {
        const context = await device();
        if (who === "a user") await enter(await openExample(context, "login"), ada);
        const page = await openExample(context, "form");
        await fillIn(page);
        const other = await openExample(context, "form");
        await atStep(other, 3);
        await Promise.all([press(page, "Send"), press(other, "Send")]);
        for (const tab of [page, other]) await said(tab, /^(Sent\.|It had been sent already\.)$/);
        const where = who === "a user" ? await profileOf(page) : await dataOf(page);
        const { sent, draft } = where.application;
        assert.deepEqual([draft, { ...sent, at: "" }], [undefined, { ...ANSWERS, at: "" }]);
        await page.reload();
        await page.getByText(/^Sent: Ada with “blue parka”/).waitFor();
      });
    }

    test("a store that fails keeps the step and what was typed", async () => {
      const page = await newExample("form");
      await field(page, "name").fill("Ada");
      await field(page, "mail").fill("ada@example.org");
      await refuse(page, 503, "store_unavailable", { "Retry-After": "20" });
      await press(page, "Next");
      await said(page, /^The store does not answer/);
      await atStep(page, 1);
      assert.equal(await field(page, "mail").inputValue(), "ada@example.org");
      await page.unroute("**/auth/**");
      await press(page, "Next");
      await atStep(page, 2);
    });

    test("logged out elsewhere, the next save says so, and after the login it goes on", async () => {
      const context = await device();
      const login = await openExample(context, "login");
      await enter(login, ada);
      const page = await openExample(context, "form");
      await field(page, "name").fill("Ada");
      await eventually(async () => (await profileOf(page)).application?.draft?.name === "Ada");
      await page.evaluate(() => fetch("/auth/session", { method: "DELETE" }));
      await field(page, "mail").fill("ada@example.org");
      await press(page, "Next");
      await said(page, /^You are not logged in/);
      await login.reload();
      await enter(login, ada, "Log in");
      await page.locator("#who", { hasText: ada }).waitFor();
      await drawn(page);
      assert.equal(await field(page, "mail").inputValue(), "ada@example.org");
      await page.waitForFunction(() => /** @type {any} */ (document.querySelector("#name"))?.value);
      await press(page, "Next");
      await atStep(page, 2);
    });

    test("works by keyboard, and the focus goes to the next step", async () => {
      const page = await newExample("form");
      await tabTo(page, "#name");
      await page.keyboard.type("Ada");
      await page.keyboard.press("Tab");
      await page.keyboard.type("ada@example.org");
      await page.keyboard.press("Enter");
      await atStep(page, 2);
      assert.equal(await page.evaluate(() => document.activeElement?.tagName), "FIELDSET");
      await tabTo(page, "#coat", 2);
      await page.keyboard.type("blue parka");
      await page.keyboard.press("Enter");
      await atStep(page, 3);
      await tabTo(page, "#next", 3);
      await page.keyboard.press("Enter");
      await said(page, "Sent.");
    });
  });
});
