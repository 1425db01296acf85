/** The accounts of the page at `/`, used as people and password managers use them, in a real browser. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { dataOf, settled, textOf } from "./support/browser.mjs";
import {
  ada,
  assertLoggedOut,
  complaints,
  describeInBrowser,
  device,
  devicesOf,
  fieldOf,
  FIREFOX,
  focused,
  logIn,
  MINUTE,
  open,
  opened,
  OTHER_PASSWORD,
  PASSWORD,
  press,
  push,
  register,
  send,
  store,
  worker,
} from "./support/page-accounts.mjs";
import { moveClocks } from "./support/worker.mjs";

const COOKIE = "__Host-session";

describeInBrowser("the accounts of the page", () => {
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
    await assertLoggedOut(page);
    assert.equal(await textOf(page, "ticket-title"), "No session yet");
    await press(page, "Count a visit");
    await page.getByLabel("Remember me").check();
    await logIn(page);
    assert.match(
      await textOf(page, "account-said"),
      /^Welcome back, .*remembered here, also when the browser is closed/,
    );
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
    await assertLoggedOut(other);
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
    await assertLoggedOut(other);

    // 7. Another password, which puts out who has the old one.
    await logIn(other);
    await send(page, "password", { current: PASSWORD, new: OTHER_PASSWORD });
    assert.match(await textOf(page, "password-said"), /^Changed\./);
    assert.equal(await page.locator("#password-new").inputValue(), "");
    await press(other, "Look again");
    await assertLoggedOut(other);
    await logIn(other, ada, PASSWORD);
    assert.match(await textOf(other, "login-said"), /do not match/);
    await logIn(other, ada, OTHER_PASSWORD);
    assert.equal(await textOf(other, "account-title"), `Logged in as ${ada}`);

    // 8. And the end of it.
    await push(page, "Delete account…");
    assert.equal(await focused(page), "prove-password");
    await send(page, "prove", { password: OTHER_PASSWORD });
    assert.equal(await page.locator("#asking").isVisible(), false);
    await assertLoggedOut(page);
    assert.match(await textOf(page, "account-said"), /^The account is deleted/);
    assert.equal(await focused(page), "account-title");
    assert.equal(
      (await home.cookies()).find(({ name }) => name === COOKIE),
      undefined,
    );
    await press(other, "Look again");
    await assertLoggedOut(other);
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

  test("the next user of a browser sees nothing of the one before", async () => {
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

    test("is not asked for twice where the form has it already", async () => {
      const page = await later();
      await send(page, "password", { current: "wrong horse", new: OTHER_PASSWORD });
      assert.equal((await fieldOf(page, "password-current")).about, "This is not your password.");
      await send(page, "password", { current: PASSWORD, new: OTHER_PASSWORD });
      assert.match(await textOf(page, "password-said"), /^Changed\./);
      await moveClocks(store, [worker], 16 * MINUTE);
      await push(page, "Delete account…");
      await send(page, "prove", { password: OTHER_PASSWORD });
      await assertLoggedOut(page);
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

  test("a password that is pasted is sent as it is", async () => {
    const page = await opened();
    const pasted = "  of any kind: 🔑 and spaces at its ends  ";
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"]);
    await page.locator("#register-username").fill(ada);
    await page.evaluate((text) => navigator.clipboard.writeText(text), pasted);
    await page.locator("#register-password").focus();
    await page.keyboard.press("Control+V");
    await page.keyboard.press("Enter");
    await page.getByText(`Logged in as ${ada}`).waitFor();
    const answer = await worker.visitor().login(ada, pasted);
    assert.equal(answer.status, 200, answer.text);
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

  test("buttons are disabled while a password is checked, and nothing is sent twice", async () => {
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

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
  });
});
