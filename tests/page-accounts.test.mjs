/**
 * The accounts of the page at `/`, used as people, password managers and screen readers use them, in a real browser.
 * What can be told of accessibility without a person, axe-core tells (Deque's rules for WCAG, which Lighthouse runs,
 * too), in each state of the page.
 */

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, describe, test } from "node:test";
import axe from "axe-core";
import { findChromium, NO_CHROMIUM } from "../tools/chromium.mjs";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { closeAll, launch, newVisitor, openPage, putPage, settled } from "./support/browser.mjs";
import { moveClocks, moveToWindow, startWorker } from "./support/worker.mjs";

/** @import { Browser, BrowserContext, BrowserContextOptions, Page } from "playwright-core" */

const COOKIE = "__Host-session";
const PASSWORD = "correct horse";
const OTHER_PASSWORD = "battery staple";
const FIREFOX = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0";
const MINUTE = 60_000;

/** The quickest there is. */
const QUICK = { memory_kib: 64, iterations: 1 };

const hasChromium = (await findChromium({ log: console.error })) !== null;

describe("the accounts of the page", { skip: hasChromium ? false : NO_CHROMIUM }, () => {
  /** @type {Awaited<ReturnType<typeof startLocalStore>>} */
  let store;
  /** @type {Awaited<ReturnType<typeof startWorker>>} */
  let worker;
  /** @type {Browser} */
  let browser;
  /** @type {string[]} */
  const complaints = [];
  let url = "";
  let count = 0;
  /** A name nobody else has. */
  let ada = "";

  before(async () => {
    store = await startLocalStore();
    browser = await launch();
    await serve({});
  });

  after(async () => {
    await browser?.close();
    await worker?.stop();
    await store?.stop();
  });

  beforeEach(() => {
    ada = `Ada ${++count}`;
  });

  afterEach(() => closeAll(browser));

  /** Starts a Worker with these settings instead of the one there is. @param {object} settings */
  async function serve(settings) {
    await worker?.stop();
    worker = await startWorker({ store, settings: { password: QUICK, ...settings } });
    url = worker.url.replace("127.0.0.1", "localhost");
  }

  /** A device with an empty cookie jar. @param {BrowserContextOptions} [options] */
  async function device(options) {
    const context = await newVisitor(browser, complaints, options);
    await putPage(context, url);
    return context;
  }

  /** @param {BrowserContext} context */
  const open = (context) => openPage(context, url);

  /** @param {BrowserContextOptions} [options] */
  const opened = async (options) => open(await device(options));

  /** Presses a button that does no more than open something. @param {Page} page @param {string} name */
  const push = (page, name) => page.getByRole("button", { name, exact: true }).last().click();

  /** @param {Page} page @param {string} name */
  async function press(page, name) {
    await push(page, name);
    await settled(page);
  }

  /** What is filled in, and sent with its button. @param {Page} page @param {string} form @param {Record<string, string>} fields */
  async function send(page, form, fields) {
    for (const [name, value] of Object.entries(fields)) {
      await page.locator(`#${form} input[name=${name}]`).fill(value);
    }
    await page.locator(`#${form} [type=submit]`).click();
    await settled(page);
  }

  /** @param {Page} page @param {string} [username] @param {string} [password] */
  const register = (page, username = ada, password = PASSWORD) =>
    send(page, "register", { username, password });

  /** @param {Page} page @param {string} [username] @param {string} [password] */
  const logIn = (page, username = ada, password = PASSWORD) => send(page, "login", { username, password });

  /** @param {Page} page @param {string} id */
  const textOf = async (page, id) => (await page.locator(`#${id}`).innerText()).trim();

  /** @param {Page} page */
  const dataOf = async (page) => JSON.parse(await textOf(page, "data"));

  /** @param {Page} page */
  const focused = (page) => page.evaluate(() => document.activeElement?.id);

  /** @param {Page} page */
  const devicesOf = async (page) => page.locator("#devices .device").allInnerTexts();

  /** @param {Page} page */
  const isOut = async (page) => {
    assert.equal(await textOf(page, "account-title"), "Log in or register");
    assert.deepEqual(
      [await page.locator("#outside").isVisible(), await page.locator("#inside").isVisible()],
      [true, false],
    );
  };

  /**
   * What a field is to a screen reader: whether it is at fault, and what it is described by.
   * @param {Page} page  @param {string} id
   */
  const fieldOf = (page, id) =>
    page.locator(`#${id}`).evaluate((/** @type {HTMLInputElement} */ field) => ({
      invalid: field.ariaInvalid,
      about: (field.getAttribute("aria-describedby") ?? "")
        .split(" ")
        .map((id) => document.getElementById(id)?.textContent?.trim() ?? "")
        .join(" | "),
      value: field.value,
    }));

  test("the whole story, from the first visit to the last", async () => {
    // 1. A visit as nobody, and a name for it.
    const home = await device({ userAgent: undefined });
    const page = await open(home);
    await press(page, "Count a visit");
    await register(page);
    assert.equal(await textOf(page, "account-title"), `Logged in as ${ada}`);
    assert.match(await textOf(page, "account-said"), new RegExp(`^Welcome, ${ada}\\.`));
    assert.equal(await focused(page), "account-title");
    assert.equal(await textOf(page, "user"), ada);
    assert.deepEqual(await dataOf(page), { visits: 1 });

    // 2. Out, and in again to stay.
    await press(page, "Log out");
    await isOut(page);
    assert.equal(await textOf(page, "ticket-title"), "No session yet");
    await press(page, "Count a visit");
    await page.getByLabel("Remember me").check();
    await logIn(page);
    assert.match(await textOf(page, "account-said"), /^Welcome back, .*remembered here\.$/);
    assert.equal(await textOf(page, "remember"), "yes");
    assert.deepEqual(await dataOf(page), { visits: 1 });
    const cookie = (await home.cookies()).find(({ name }) => name === COOKIE);
    const days = ((cookie?.expires ?? 0) - Date.now() / 1000) / 86_400;
    assert.ok(days > 29 && days <= 30.1, `a cookie for ${days} days`);

    // 3. A motto, which is not in the session.
    await send(page, "profile", { motto: "<b>Festina lente</b>" });
    assert.match(await textOf(page, "profile-said"), /^Saved/);
    assert.deepEqual(await dataOf(page), { visits: 1 });

    // 4. Another device, for as long as its browser is open.
    const work = await device({ userAgent: FIREFOX });
    const other = await open(work);
    await logIn(other);
    assert.equal(await textOf(other, "motto"), "<b>Festina lente</b>");
    assert.equal(await other.locator("#profile-motto").inputValue(), "<b>Festina lente</b>");
    assert.equal((await work.cookies()).find(({ name }) => name === COOKIE)?.expires, -1);
    assert.equal((await devicesOf(other)).length, 2);
    await press(page, "Refresh the list");
    assert.deepEqual(await devicesOf(page), ["Chrome on Linux", "Firefox on Windows"]);
    assert.match(await page.locator("#devices li").first().innerText(), /since .* · remembered[^]*this one/);
    assert.match(await page.locator("#devices li").last().innerText(), /last seen .* since .*[^]*End/);

    // 5. Which is ended from here, and out at its next request.
    await page.locator("#devices button").click();
    await settled(page);
    assert.equal(await textOf(page, "devices-said"), "Firefox on Windows is ended.");
    assert.deepEqual(await devicesOf(page), ["Chrome on Linux"]);
    assert.equal(await focused(page), "devices-title");
    assert.equal(await page.locator("#end-others").isVisible(), false);
    await send(other, "profile", { motto: "x" });
    await isOut(other);
    assert.match(await textOf(other, "account-said"), /^You are logged out/);
    assert.equal(await focused(other), "account-title");

    // 6. All others at once.
    for (const user of [other, await opened()]) await logIn(user);
    await press(page, "Refresh the list");
    assert.equal((await devicesOf(page)).length, 3);
    await press(page, "End all others");
    assert.equal(await textOf(page, "devices-said"), "All others are ended.");
    assert.deepEqual(await devicesOf(page), ["Chrome on Linux"]);
    await press(other, "Look again");
    await isOut(other);

    // 7. Another password, which puts out who has the old one.
    await logIn(other);
    await send(page, "password", { current: PASSWORD, new: OTHER_PASSWORD });
    assert.match(await textOf(page, "password-said"), /^Changed\./);
    assert.equal(await page.locator("#password-new").inputValue(), "");
    await press(other, "Look again");
    await isOut(other);
    await logIn(other, ada, PASSWORD);
    assert.match(await textOf(other, "login-said"), /do not match/);
    await logIn(other, ada, OTHER_PASSWORD);
    assert.equal(await textOf(other, "account-title"), `Logged in as ${ada}`);

    // 8. And the end of it.
    await push(page, "Delete account…");
    assert.equal(await focused(page), "prove-password");
    await send(page, "prove", { password: OTHER_PASSWORD });
    assert.equal(await page.locator("#asking").isVisible(), false);
    await isOut(page);
    assert.match(await textOf(page, "account-said"), /^The account is deleted/);
    assert.equal(await focused(page), "account-title");
    assert.equal(
      (await home.cookies()).find(({ name }) => name === COOKIE),
      undefined,
    );
    await press(other, "Look again");
    await isOut(other);
    await logIn(other, ada, OTHER_PASSWORD);
    assert.match(await textOf(other, "login-said"), /do not match/);
  });

  test("an account is still there after a reload, with its motto and its devices", async () => {
    const page = await opened();
    await register(page);
    await send(page, "profile", { motto: "Festina lente" });
    await page.reload();
    await settled(page);
    assert.equal(await textOf(page, "account-title"), `Logged in as ${ada}`);
    assert.equal(await textOf(page, "motto"), "Festina lente");
    assert.equal((await devicesOf(page)).length, 1);
    await send(page, "profile", { motto: " " });
    assert.equal(await page.locator("#motto").isVisible(), false);
  });

  test("the next one at this browser sees nothing of the one before", async () => {
    const page = await opened();
    await register(page);
    await send(page, "profile", { motto: "Festina lente" });
    await page.locator("#password-current").fill(PASSWORD);
    await press(page, "Log out");
    await register(page, `${ada} the second`);
    assert.equal(await page.locator("#motto").isVisible(), false);
    assert.equal(await page.locator("#profile-motto").inputValue(), "");
    assert.equal(await page.locator("#password-current").inputValue(), "");
    assert.equal(await page.locator("#password input[name=username]").inputValue(), `${ada} the second`);
    assert.equal((await devicesOf(page)).length, 1);
  });

  describe("refusals are told beside the form, and entries are kept:", () => {
    test("a wrong password, without saying which of the two is wrong", async () => {
      const page = await opened();
      for (const name of [ada, "nobody at all"]) {
        await logIn(page, name, "wrong horse");
        assert.equal(await textOf(page, "login-said"), "This username and this password do not match.");
        assert.equal(await focused(page), "login-password");
        const [username, password] = [
          await fieldOf(page, "login-username"),
          await fieldOf(page, "login-password"),
        ];
        assert.deepEqual([username.invalid, password.invalid], [null, null]);
        assert.deepEqual([username.value, password.value], [name, "wrong horse"]);
      }
    });

    test("a name that is taken, in whatever spelling", async () => {
      await register(await opened());
      const page = await opened();
      await register(page, ada.toUpperCase());
      const field = await fieldOf(page, "register-username");
      assert.equal(field.invalid, "true");
      assert.match(field.about, /^This username is taken; choose another\. \(409 conflict\)$/);
      assert.equal(await focused(page), "register-username");
      assert.deepEqual(
        [field.value, await page.locator("#register-password").inputValue()],
        [ada.toUpperCase(), PASSWORD],
      );
      await register(page, `${ada} the second`);
      assert.equal(await textOf(page, "account-title"), `Logged in as ${ada} the second`);
    });

    for (const [password, why] of [
      ["short", /^A password has at least 8 characters\. .*\| At least 8 characters; anything goes\.$/],
      ["password1", /^This password is one that is tried first; choose another\. .*\| At least 8/],
    ]) {
      test(`a weak password, "${password}"`, async () => {
        const page = await opened();
        await register(page, ada, /** @type {string} */ (password));
        const field = await fieldOf(page, "register-password");
        assert.match(field.about, /** @type {RegExp} */ (why));
        assert.deepEqual([field.invalid, field.value], ["true", password]);
        assert.equal(await focused(page), "register-password");
        // Who goes on typing is not accused any more.
        await page.keyboard.press("End");
        await page.keyboard.type("!");
        const after = await fieldOf(page, "register-password");
        assert.deepEqual([after.invalid, after.about], [null, "At least 8 characters; anything goes."]);

        await page.locator("#register-password").fill(PASSWORD);
        await page.keyboard.press("Enter");
        await settled(page);
        await send(page, "password", { current: PASSWORD, new: /** @type {string} */ (password) });
        assert.match((await fieldOf(page, "password-new")).about, /^(A|This) password .*\| At least 8/);
        assert.equal((await fieldOf(page, "password-current")).invalid, null);
        assert.equal(await focused(page), "password-new");
      });
    }

    test("a name that cannot be", async () => {
      const page = await opened();
      await register(page, "Aда");
      assert.match((await fieldOf(page, "register-username")).about, /^A username does not mix Latin/);
      assert.equal(await focused(page), "register-username");
    });

    test("an empty field, without asking the Worker", async () => {
      const page = await opened();
      let asked = 0;
      page.on("request", () => asked++);
      await logIn(page, "", "");
      assert.deepEqual(await fieldOf(page, "login-username"), {
        ...{ invalid: "true", about: "Username is missing.", value: "" },
      });
      await logIn(page, ada, "");
      assert.equal((await fieldOf(page, "login-password")).about, "Password is missing.");
      assert.equal((await fieldOf(page, "login-username")).invalid, null);
      assert.deepEqual([asked, await focused(page)], [0, "login-password"]);
    });

    test("a wrong current password, at the change and in the dialog", async () => {
      const page = await opened();
      await register(page);
      await send(page, "password", { current: "wrong horse", new: OTHER_PASSWORD });
      const current = await fieldOf(page, "password-current");
      assert.deepEqual(current, {
        ...{ invalid: "true", about: "This is not your password.", value: "wrong horse" },
      });
      assert.equal(await page.locator("#password-new").inputValue(), OTHER_PASSWORD);
      await push(page, "Delete account…");
      await send(page, "prove", { password: "wrong horse" });
      assert.equal((await fieldOf(page, "prove-password")).about, "This is not your password.");
      assert.equal(await focused(page), "prove-password");
      assert.equal(await page.locator("#asking").isVisible(), true);
      await page.keyboard.press("Escape");
      await page.locator("#leave-said", { hasText: "Not done: the password was not given." }).waitFor();
      assert.equal(await focused(page), "leave");
      await push(page, "Delete account…");
      assert.deepEqual(await fieldOf(page, "prove-password"), { invalid: null, about: "", value: "" });
      await push(page, "Cancel");
      await press(page, "Look again");
      assert.equal(await textOf(page, "account-title"), `Logged in as ${ada}`);
    });

    test("a store that does not answer logs nobody out", async () => {
      const page = await opened();
      await register(page);
      await page.route("**/auth/**", (route) => route.abort());
      await press(page, "Refresh the list");
      assert.match(await textOf(page, "devices-said"), /could not be reached/);
      await send(page, "profile", { motto: "Half a mot" });
      assert.match(await textOf(page, "profile-said"), /could not be reached/);
      await page.unroute("**/auth/**");
      await press(page, "Refresh the list");
      assert.equal((await devicesOf(page)).length, 1);
      assert.equal(await page.locator("#profile-motto").inputValue(), "Half a mot");
      assert.equal(await textOf(page, "account-title"), `Logged in as ${ada}`);
    });
  });

  describe("a password given long ago", () => {
    /** Two devices of one account, of which the second has not given its password for 16 minutes. */
    async function later() {
      const page = await opened({ userAgent: FIREFOX });
      await register(page);
      await logIn(await opened());
      await moveClocks(store, [worker], 16 * MINUTE);
      await press(page, "Refresh the list");
      return page;
    }

    test("is asked for again before another device is ended, and then that is done", async () => {
      const page = await later();
      const before = await textOf(page, "handle");
      await page.locator("#devices button").click();
      await page.getByRole("dialog", { name: "Is it still you?" }).waitFor();
      await settled(page);
      assert.equal(await focused(page), "prove-password");
      await send(page, "prove", { password: "wrong horse" });
      assert.equal((await fieldOf(page, "prove-password")).about, "This is not your password.");
      await page.locator("#prove-password").fill(PASSWORD);
      await page.keyboard.press("Enter");
      await page.getByText("Chrome on Linux is ended.").waitFor();
      await settled(page);
      assert.deepEqual(await devicesOf(page), ["Firefox on Windows"]);
      assert.notEqual(await textOf(page, "handle"), before);
      assert.equal(await page.locator("#asking").isVisible(), false);
      assert.equal(await focused(page), "devices-title");
      assert.equal(await page.locator("#prove-password").inputValue(), "");
    });

    test("is asked for again, and without it nothing is done", async () => {
      const page = await later();
      await press(page, "End all others");
      await page.getByRole("dialog").waitFor();
      await push(page, "Cancel");
      await page.locator("#devices-said", { hasText: "Not done: the password was not given." }).waitFor();
      assert.equal(await focused(page), "end-others");
      await press(page, "Refresh the list");
      assert.equal((await devicesOf(page)).length, 2);
      // With it, it is.
      await press(page, "End all others");
      await send(page, "prove", { password: PASSWORD });
      await page.getByText("All others are ended.").waitFor();
      assert.equal((await devicesOf(page)).length, 1);
    });

    test("need not be given twice where it is given anyway", async () => {
      const page = await later();
      await send(page, "password", { current: "wrong horse", new: OTHER_PASSWORD });
      assert.equal((await fieldOf(page, "password-current")).about, "This is not your password.");
      await send(page, "password", { current: PASSWORD, new: OTHER_PASSWORD });
      assert.match(await textOf(page, "password-said"), /^Changed\./);
      await moveClocks(store, [worker], 16 * MINUTE);
      await push(page, "Delete account…");
      await send(page, "prove", { password: OTHER_PASSWORD });
      await isOut(page);
      assert.match(await textOf(page, "account-said"), /^The account is deleted/);
    });
  });

  test("a password manager finds in each form what it looks for", async () => {
    const page = await opened();
    await register(page);
    const forms = await page.evaluate(() =>
      Object.fromEntries(
        ["login", "register", "password", "prove"].map((id) => {
          const form = /** @type {HTMLFormElement} */ (document.getElementById(id));
          const fields = [...form.querySelectorAll("input:not([type=checkbox])")].map((it) => {
            const { type, name, autocomplete } = /** @type {HTMLInputElement} */ (it);
            return `${type} ${name} ${autocomplete}`;
          });
          const button = form.querySelectorAll("[type=submit]").length;
          return [id, { fields, button, method: form.method }];
        }),
      ),
    );
    const [username, button, method] = ["text username username", 1, "post"];
    const current = "password password current-password";
    assert.deepEqual(forms, {
      login: { fields: [username, current], button, method },
      register: { fields: [username, "password password new-password"], button, method },
      password: {
        fields: [username, "password current current-password", "password new new-password"],
        ...{ button, method },
      },
      prove: { fields: [username, current], button, method },
    });
    for (const form of ["password", "prove"]) {
      const field = page.locator(`#${form} input[name=username]`);
      assert.equal(await field.inputValue(), ada);
      assert.equal(await field.isVisible(), false);
    }
  });

  test("what a password manager fills in without typing is sent", async () => {
    const page = await opened();
    await register(page);
    await press(page, "Log out");
    await page.evaluate(
      ([username = "", password = ""]) => {
        const fields = /** @type {HTMLFormElement} */ (document.getElementById("login")).elements;
        /** @type {HTMLInputElement} */ (fields.namedItem("username")).value = username;
        /** @type {HTMLInputElement} */ (fields.namedItem("password")).value = password;
        /** @type {HTMLFormElement} */ (document.getElementById("login")).requestSubmit();
      },
      [ada, PASSWORD],
    );
    await page.getByText(`Logged in as ${ada}`).waitFor();
  });

  test("the log never shows a password, and still shows the rest", async () => {
    const page = await opened();
    await register(page);
    await send(page, "password", { current: "wrong horse", new: OTHER_PASSWORD });
    await send(page, "password", { current: PASSWORD, new: OTHER_PASSWORD });
    await press(page, "Log out");
    await logIn(page, ada, PASSWORD);
    await logIn(page, ada, OTHER_PASSWORD);
    await moveClocks(store, [worker], 16 * MINUTE);
    await push(page, "Delete account…");
    await send(page, "prove", { password: "wrong horse" });
    await send(page, "prove", { password: OTHER_PASSWORD });
    const log = (await page.locator("#log").textContent()) ?? "";
    for (const path of ["register", "password", "login", "reauthenticate", "account"]) {
      assert.ok(log.includes(`/auth/${path}`), path);
    }
    assert.match(log, /"password": "••••••••"/);
    assert.match(log, /"current": "••••••••",\s*"new": "••••••••"/);
    assert.ok(log.includes(`"username": "${ada}"`));
    const document = await page.content();
    for (const secret of [PASSWORD, OTHER_PASSWORD, "wrong horse"]) {
      assert.ok(!log.includes(secret) && !document.includes(secret), secret);
    }
  });

  test("everything can be done from the keyboard", async () => {
    const page = await opened();
    const keys = page.keyboard;

    /** Tabs on to an element, and sees that its focus is visible. @param {string} selector */
    async function tabTo(selector) {
      for (let i = 0; i < 60; i++) {
        await keys.press("Tab");
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

    await tabTo("#register-username");
    await keys.type(ada);
    await keys.press("Tab");
    await keys.type(PASSWORD);
    await keys.press("Enter");
    await settled(page);
    assert.equal(await textOf(page, "account-title"), `Logged in as ${ada}`);

    await logIn(await opened({ userAgent: FIREFOX }));
    await tabTo("#list");
    await keys.press("Enter");
    await settled(page);
    await tabTo("#devices button");
    await keys.press("Enter");
    await settled(page);
    assert.deepEqual(await devicesOf(page), ["Chrome on Linux"]);

    await tabTo("#password-current");
    await keys.type(PASSWORD);
    await keys.press("Tab");
    await keys.type(OTHER_PASSWORD);
    await keys.press("Tab");
    await keys.press("Space");
    await settled(page);
    assert.match(await textOf(page, "password-said"), /^Changed\./);

    await tabTo("#profile-motto");
    await keys.type("Festina lente");
    await keys.press("Enter");
    await settled(page);
    assert.equal(await textOf(page, "motto"), "Festina lente");

    await tabTo("#leave");
    await keys.press("Enter");
    // The dialog holds the focus, except for the browser's own buttons.
    for (const id of ["prove-password", "go", "cancel"]) {
      assert.equal(await focused(page), id);
      await keys.press("Tab");
    }
    await keys.press("Escape");
    assert.equal(await focused(page), "leave");
    await keys.press("Enter");
    await keys.type(OTHER_PASSWORD);
    await keys.press("Enter");
    await settled(page);
    await isOut(page);
    assert.equal(await focused(page), "account-title");

    await tabTo("#login-username");
    await keys.type("nobody");
    await tabTo("#login [name=remember]");
    await keys.press("Space");
    await keys.press("Enter");
    await settled(page);
    assert.equal(await textOf(page, "login-said"), "Password is missing.");
  });

  test("buttons rest while a password is being looked at, and nothing is sent twice", async () => {
    const page = await opened();
    await register(page);
    let asked = 0;
    let release = () => {};
    const held = new Promise((resolve) => (release = () => resolve(undefined)));
    await page.route("**/auth/account", async (route) => {
      asked++;
      await held;
      await route.continue();
    });
    await push(page, "Delete account…");
    await page.locator("#prove-password").fill("wrong horse");
    await page.keyboard.press("Enter");
    await page.locator("#go[aria-disabled=true]").waitFor();
    await page.keyboard.press("Enter");
    await page.locator("#go").click({ force: true });
    release();
    await settled(page);
    assert.equal(asked, 1);
  });

  for (const width of [320, 360, 768, 1280]) {
    test(`nothing scrolls sideways at ${width} pixels`, async () => {
      const page = await opened({ viewport: { width, height: 700 } });
      const isWide = async () => {
        const content = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(content <= width, `${content} px of content`);
      };
      await isWide();
      const name = `${ada}${"W".repeat(100)}`;
      await register(page, name, "short");
      await isWide();
      await register(page, name);
      await logIn(await opened({ userAgent: FIREFOX }), name);
      await press(page, "Refresh the list");
      await send(page, "profile", { motto: "W".repeat(120) });
      await isWide();
      await push(page, "Delete account…");
      const box = await page.locator("#asking").boundingBox();
      assert.ok(box && box.x >= 0 && box.x + box.width <= width, JSON.stringify(box));
    });
  }

  describe("with limits", () => {
    afterEach(() => serve({}));

    test("too many wrong passwords: what takes a password waits, the rest does not", async () => {
      await serve({ limits: { session: "", mint: "", login: "2/5m" } });
      await moveToWindow(store, [worker], { length: 5 * MINUTE });
      const page = await opened();
      await press(page, "Count a visit");
      for (let i = 0; i < 3; i++) await logIn(page, ada, `wrong horse ${i}`);
      assert.match(
        await textOf(page, "login-said"),
        /^Too many tries\. The limit "login" .*429 rate_limited/,
      );
      assert.match(await textOf(page, "wait"), /^Again in \d\d:\d\d$/);
      assert.equal(await page.locator("#login-said + #wait").count(), 1);
      assert.equal(await page.locator("#login-password").inputValue(), "wrong horse 2");
      const dimmed = await page.locator("button[aria-disabled=true]:visible").allInnerTexts();
      assert.deepEqual(dimmed, ["Log in", "Register"]);
      await press(page, "Count a visit");
      assert.equal(await textOf(page, "visits"), "2");
    });

    test("no more sessions: logging in waits too", async () => {
      await serve({ limits: { session: "", mint: "1/1m", login: "" } });
      await moveToWindow(store, [worker]);
      await register(await opened());
      const page = await opened();
      await logIn(page);
      assert.match(await textOf(page, "login-said"), /"mint".*429/);
      assert.equal(await page.locator("#login [type=submit]").getAttribute("aria-disabled"), "true");
      assert.equal(await page.locator("#look").getAttribute("aria-disabled"), "false");
    });

    test("refused in the dialog, one can still leave it, and the countdown comes along", async () => {
      await serve({ limits: { session: "", mint: "", login: "2/5m" } });
      await moveToWindow(store, [worker], { length: 5 * MINUTE });
      const page = await opened();
      await register(page);
      await push(page, "Delete account…");
      for (let i = 0; i < 3; i++) await send(page, "prove", { password: "wrong horse" });
      assert.match(await textOf(page, "prove-said"), /^Too many tries\./);
      assert.equal(await page.locator("#prove-said + #wait").isVisible(), true);
      await push(page, "Cancel");
      await page.locator("#leave-said + #wait").waitFor();
      await press(page, "Refresh the list");
      assert.equal(await textOf(page, "devices-said"), "This is how it stands now.");
      // And on, to where one logs in.
      await press(page, "Log out");
      assert.equal(await page.locator("#account-said + #wait").isVisible(), true);
    });
  });

  for (const colorScheme of /** @type {const} */ (["light", "dark"])) {
    test(`axe finds nothing serious in any state of the ${colorScheme} page`, async () => {
      const page = await opened({ colorScheme });
      /** @param {string} state */
      const check = async (state) => {
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
      };
      await check("anonymous");
      await register(page, ada, "short");
      await logIn(page, ada, "wrong horse");
      await logIn(page, "", "");
      await check("form errors");
      await register(page);
      await send(page, "profile", { motto: "Festina lente" });
      await check("logged in");
      await logIn(await opened({ userAgent: FIREFOX }));
      await press(page, "Refresh the list");
      await send(page, "password", { current: "wrong horse", new: OTHER_PASSWORD });
      await check("device list");
      await push(page, "Delete account…");
      await check("dialog open");
      await send(page, "prove", { password: "wrong horse" });
      await check("dialog with an error");
      await push(page, "Cancel");
      const headers = {
        "Retry-After": "30",
        "RateLimit-Policy": '"session";q=2;w=60',
        RateLimit: '"session";r=0;t=30',
      };
      const refusal = { status: 429, headers, json: { detail: "not so fast", code: "rate_limited" } };
      await page.route("**/auth/**", (route) => route.fulfill(refusal));
      await push(page, "Refresh the list");
      await page.locator("#devices-said + #wait").waitFor();
      await check("refused by a limit");
    });
  }

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
  });
});
