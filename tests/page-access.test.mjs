/** The accounts of the page at `/` for everybody: by keyboard, on narrow screens, and what axe-core finds. */
import assert from "node:assert/strict";
import { test } from "node:test";
import axe from "axe-core";
import { settled, tabTo, textOf } from "./support/browser.mjs";
import {
  ada,
  assertLoggedOut,
  describeInBrowser,
  devicesOf,
  FIREFOX,
  focused,
  logIn,
  opened,
  OTHER_PASSWORD,
  PASSWORD,
  press,
  push,
  register,
  send,
} from "./support/page-accounts.mjs";

describeInBrowser("access to the accounts of the page", () => {
  test("everything can be done from the keyboard", async () => {
    const page = await opened();
    const keys = page.keyboard;

    await tabTo(page, "#register-username");
    await keys.type(ada);
    await keys.press("Tab");
    await keys.type(PASSWORD);
    await keys.press("Enter");
    await settled(page);
    assert.equal(await textOf(page, "account-title"), `Logged in as ${ada}`);

    await logIn(await opened({ userAgent: FIREFOX }));
    await tabTo(page, "#list");
    await keys.press("Enter");
    await settled(page);
    await tabTo(page, "#devices button");
    await keys.press("Enter");
    await settled(page);
    assert.deepEqual(await devicesOf(page), ["Chrome on Linux"]);

    await tabTo(page, "#password-current");
    await keys.type(PASSWORD);
    await keys.press("Tab");
    await keys.type(OTHER_PASSWORD);
    await keys.press("Tab");
    await keys.press("Space");
    await settled(page);
    assert.match(await textOf(page, "password-said"), /^Changed\./);

    await tabTo(page, "#profile-motto");
    await keys.type("Festina lente");
    await keys.press("Enter");
    await settled(page);
    assert.equal(await textOf(page, "motto"), "Festina lente");

    await tabTo(page, "#leave");
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
    await assertLoggedOut(page);
    assert.equal(await focused(page), "account-title");

    await tabTo(page, "#login-username");
    await keys.type("nobody");
    await tabTo(page, "#login [name=remember]");
    await keys.press("Space");
    await keys.press("Enter");
    await settled(page);
    assert.equal(await textOf(page, "login-said"), "Password is missing.");
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
});
