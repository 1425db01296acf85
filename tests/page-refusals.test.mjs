/** Refusals of the forms on the page at `/`: they are told beside the form, and entries are kept. */
import assert from "node:assert/strict";
import { afterEach, describe, test } from "node:test";
import { settled, textOf } from "./support/browser.mjs";
import {
  ada,
  describeInBrowser,
  devicesOf,
  fieldOf,
  focused,
  logIn,
  MINUTE,
  opened,
  OTHER_PASSWORD,
  PASSWORD,
  press,
  push,
  register,
  send,
  serve,
  store,
  worker,
} from "./support/page-accounts.mjs";
import { moveToWindow } from "./support/worker.mjs";

describeInBrowser("refusals of the page's forms", () => {
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
      ["password1", /^This password is too common; choose another\. .*\| At least 8/],
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

    test("an invalid name", async () => {
      const page = await opened();
      await register(page, "Aда");
      assert.match((await fieldOf(page, "register-username")).about, /^A username does not mix Latin/);
      assert.equal(await focused(page), "register-username");
    });

    test("registration or login that the operator has switched off, in words of the page", async () => {
      try {
        await serve({ accounts: { register: "closed" } });
        const page = await opened();
        await register(page);
        assert.equal(
          await textOf(page, "register-said"),
          "Registration is closed here: the operator makes the accounts. If you have one, log in with it.",
        );
        assert.equal((await fieldOf(page, "register-username")).invalid, null);
        await logIn(page);
        assert.match(await textOf(page, "login-said"), /do not match/);
        await serve({ accounts: { login: false } });
        const other = await opened();
        for (const [form, act] of /** @type {const} */ ([
          ["login", logIn],
          ["register", register],
        ])) {
          await act(other);
          assert.equal(
            await textOf(other, `${form}-said`),
            "Nobody logs in with a password here: that is switched off.",
          );
        }
      } finally {
        await serve({});
      }
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

    test("over the limit on new sessions logging in waits too", async () => {
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
});
