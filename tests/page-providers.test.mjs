/** Logging in with others from the page at `/`, at real OpenID providers, in a real browser. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { dataOf, settled, textOf } from "./support/browser.mjs";
import { CLIENT, startProvider } from "./support/oidc-provider.mjs";
import {
  ada,
  describeInBrowser,
  device,
  focused,
  MINUTE,
  open,
  PASSWORD,
  press,
  push,
  register,
  send,
  serve,
  store,
  worker,
} from "./support/page-accounts.mjs";
import { openExample, said } from "./support/examples.mjs";
import { moveClocks } from "./support/worker.mjs";

/** @import { BrowserContext, Page } from "playwright-core" */
/** @import { RealProvider } from "./support/oidc-provider.mjs" */

/** The clock of the providers, which run in this process. */
const realNow = Date.now;
let ahead = 0;
Date.now = () => realNow() + ahead;

const OVER = /^That login was over already/;
const REFUSED = /^That login did not work: you have cancelled/;

describeInBrowser("logging in with others, from the page", () => {
  /** @type {RealProvider} */
  let acme;
  /** Asks its users what the Worker may know. @type {RealProvider} */
  let other;
  let url = "";
  /** @type {BrowserContext} */
  let context;

  before(async () => {
    [acme, other] = await Promise.all([startProvider(), startProvider()]);
    const named = (/** @type {string} */ id, /** @type {RealProvider} */ { issuer }) => ({
      id,
      issuer,
      client_id: CLIENT.client_id,
      label: id.toUpperCase(),
    });
    const providers = [named("acme", acme), named("other", other)];
    const secret = CLIENT.client_secret;
    await serve(
      { accounts: { providers }, session: { idle: "5m", fresh_for: "5m" } },
      {
        secrets: { PROVIDER_ACME_SECRET: secret, PROVIDER_OTHER_SECRET: secret },
        // The browser's own way for the page: what is redirected to passes by what tests put in front.
        others: { assets: { directory: "public", routerConfig: { has_user_worker: true } } },
      },
    );
    url = worker.url.replace("127.0.0.1", "localhost");
    openAcme();
    other.open([`${url}/auth/callback/other`], {
      algorithm: "ES256",
      consent: true,
      backChannel: `${worker.url}/auth/backchannel/other`,
      hasSid: true,
      afterLogout: [`${url}/`],
    });
  });
  after(() => {
    acme?.stop();
    other?.stop();
  });
  beforeEach(async () => {
    context = await device();
  });

  const openAcme = () => acme.open([url, worker.url].map((origin) => `${origin}/auth/callback/acme`));

  /** Goes to a provider, by its button. @param {Page} page */
  async function go(page, name = "ACME") {
    await push(page, `Log in with ${name}`);
    await page.waitForURL(/^http:\/\/127\.0\.0\.1:/);
  }
  /** Presses a button of the provider's that leads back here. @param {Page} page @param {string} name */
  async function choose(page, name) {
    await page.getByRole("button", { name }).click();
    await back(page);
  }
  /** Waits until the page has taken in that it is back. @param {Page} page */
  async function back(page) {
    await page.waitForURL((address) => address.href === `${url}/`, { timeout: 15_000 });
    await settled(page);
  }
  const logIn = async (/** @type {Page} */ page, as = "ada") => {
    await go(page);
    await choose(page, `Log in as ${as}`);
  };
  const logInAtOther = async (/** @type {Page} */ page) => {
    await go(page, "OTHER");
    await page.getByRole("button", { name: "Log in as ada" }).click();
    await choose(page, "Allow");
  };
  const titleOf = (/** @type {Page} */ page) => textOf(page, "account-title");
  /** Lets time pass, at the providers too. @param {number} milliseconds */
  const pass = (milliseconds) => {
    ahead += milliseconds;
    return moveClocks(store, [worker], milliseconds);
  };

  test("there and back: logged in, with what the visitor had", async () => {
    const page = await open(context);
    await press(page, "Count a visit");
    await logIn(page);
    assert.equal(await titleOf(page), "Logged in as ada of Acme");
    assert.equal(await focused(page), "account-title");
    assert.deepEqual(await dataOf(page), { visits: 1 });
    assert.equal(await textOf(page, "remember"), "no");
    assert.match(await textOf(page, "tied"), /^You log in with ACME\.\s+Log out here and at ACME$/);
    assert.match(await page.locator("#devices li").first().innerText(), / · by acme[^]*this one/);
    const shown = (/** @type {string} */ id) => page.locator(`#${id}`).isVisible();
    assert.deepEqual(await Promise.all(["devices", "profile", "password", "leave"].map(shown)), [
      true,
      false,
      false,
      false,
    ]);

    // And again, to stay: the provider knows the user still, and asks for nothing.
    await press(page, "Log out");
    assert.equal(await titleOf(page), "Log in or register");
    await page.locator("#others-remember").check();
    await push(page, "Log in with ACME");
    await page.locator("#inside").waitFor();
    await settled(page);
    assert.deepEqual(
      [await titleOf(page), await textOf(page, "remember")],
      ["Logged in as ada of Acme", "yes"],
    );
    // A reload finds an address that says nothing of it.
    await page.reload();
    await settled(page);
    assert.deepEqual([page.url(), await textOf(page, "account-said")], [`${url}/`, ""]);
  });

  test("who cancels, or refuses, is told so in place, and keeps what they had", async () => {
    const page = await open(context);
    await press(page, "Count a visit");
    const handle = await textOf(page, "handle");
    await go(page);
    await choose(page, "Cancel");
    assert.match(await textOf(page, "account-said"), REFUSED);
    await go(page, "OTHER");
    await page.getByRole("button", { name: "Log in as ada" }).click();
    await choose(page, "Refuse");
    assert.match(await textOf(page, "account-said"), REFUSED);
    assert.equal(await titleOf(page), "Log in or register");
    assert.deepEqual([await textOf(page, "handle"), await dataOf(page)], [handle, { visits: 1 }]);
  });

  test("five tabs: the four that began last log in, in any order, and the first is told that it is over", async () => {
    const tabs = [];
    for (let count = 0; count < 5; count += 1) {
      const page = await open(context);
      await go(page);
      tabs.push(page);
      await pass(1000);
    }
    const [first, ...others] = tabs;
    for (const page of others.toReversed()) {
      await choose(page, "Log in as ada");
      assert.equal(await titleOf(page), "Logged in as ada of Acme");
    }
    await choose(first, "Log in as bob");
    assert.match(await textOf(first, "account-said"), OVER);
    assert.equal(await titleOf(first), "Logged in as ada of Acme", "the session is the one of before");
  });

  test("the back button leads to pages that show how it stands, and to no second login", async () => {
    const page = await open(context);
    await press(page, "Count a visit");
    await logIn(page);
    const handle = await textOf(page, "handle");
    await page.goBack();
    assert.match(page.url(), /^http:\/\/127\.0\.0\.1:/);
    await page.goBack();
    await back(page);
    await page.locator("#inside").waitFor();
    await settled(page);
    assert.deepEqual(
      [await titleOf(page), await textOf(page, "handle")],
      ["Logged in as ada of Acme", handle],
    );
  });

  test("a login as somebody else takes the place of the first, whose data is not carried over", async () => {
    const page = await open(context);
    await press(page, "Count a visit");
    await logIn(page);
    await page.goto(`${url}/auth/login/other?return_to=/`);
    await page.getByRole("button", { name: "Log in as bob" }).click();
    await choose(page, "Allow");
    assert.equal(await titleOf(page), "Logged in as bob of Acme");
    assert.match(await textOf(page, "tied"), /^You log in with OTHER\./);
    assert.deepEqual(await dataOf(page), {});
  });

  test("a way back that another browser began changes nothing", async () => {
    const attacker = worker.visitor();
    const begun = await attacker.send("GET", "/auth/login/acme");
    const stolen = await acme.browser().follow(String(begun.headers.get("location")), { as: "bob" });
    const victim = await open(await device());
    await press(victim, "Count a visit");
    const handle = await textOf(victim, "handle");
    await victim.goto(url + stolen);
    await back(victim);
    assert.match(await textOf(victim, "account-said"), OVER);
    assert.deepEqual([await titleOf(victim), await textOf(victim, "handle")], ["Log in or register", handle]);
  });

  test("a session that ends on the way is not missed: the login begins one", async () => {
    const page = await open(context);
    await press(page, "Count a visit");
    await go(page);
    await store.redis.flushDb();
    await choose(page, "Log in as ada");
    assert.deepEqual([await titleOf(page), await dataOf(page)], ["Logged in as ada of Acme", {}]);
  });

  test("a provider that restarts with new keys costs a visitor one more try, and logs nobody out", async () => {
    const early = await open(await device());
    await logIn(early);
    const page = await open(context);
    await go(page);
    openAcme();
    await page.getByRole("button", { name: "Log in as bob" }).click();
    await page.getByText("This login is over.").waitFor();
    await pass(31_000); // keys are fetched again at most so often
    await page.goto(url);
    await settled(page);
    await logIn(page, "bob");
    assert.equal(await titleOf(page), "Logged in as bob of Acme");
    await press(early, "Look again");
    assert.equal(await titleOf(early), "Logged in as ada of Acme");
  });

  test("what needs a recent login leads to the provider, which asks anew", async () => {
    const elsewhere = await open(await device());
    await logIn(elsewhere, "bob");
    const page = await open(context);
    await logIn(page, "bob");
    await pass(3 * MINUTE);
    await press(page, "Look again");
    await press(elsewhere, "Look again");
    await pass(3 * MINUTE);
    await press(page, "End all others");
    assert.equal(await textOf(page, "go"), "Log in with ACME");
    assert.equal(await page.locator("#prove-password").isVisible(), false);
    await push(page, "Cancel");
    await page.locator("#devices-said", { hasText: "Not done: you have not logged in anew." }).waitFor();
    await press(page, "End all others");
    await page.locator("#go").click();
    await page.waitForURL(/^http:\/\/127\.0\.0\.1:/);
    await choose(page, "Log in as bob");
    await press(page, "End all others");
    assert.equal(await textOf(page, "devices-said"), "All others are ended.");
    await press(elsewhere, "Look again");
    assert.equal(await titleOf(elsewhere), "Log in or register");
  });

  test("register, tie, log out, log in with the provider: the same account and profile, until it is untied", async () => {
    const page = await open(context);
    await register(page);
    await send(page, "profile", { motto: "onward" });
    assert.match(await textOf(page, "tied"), /^ACME\s+Tie\s+ACME\s+OTHER\s+Tie\s+OTHER$/);
    // The password was given a good while ago: it is asked for first.
    await pass(3 * MINUTE);
    await press(page, "Look again");
    await pass(3 * MINUTE);
    await press(page, "Tie ACME");
    await page.locator("#prove-password").fill(PASSWORD);
    await page.locator("#go").click();
    await page.waitForURL(/^http:\/\/127\.0\.0\.1:/);
    await choose(page, "Log in as bob");
    assert.match(
      await textOf(page, "tied"),
      /^ACME\s+tied\s+Log out here and at ACME\s+Untie\s+ACME\s+OTHER\s+Tie\s+OTHER$/,
    );
    assert.equal(await titleOf(page), `Logged in as ${ada}`);

    await press(page, "Log out");
    await press(page, "Count a visit");
    await push(page, "Log in with ACME"); // which knows bob still
    await page.locator("#inside").waitFor();
    await settled(page);
    assert.equal(await titleOf(page), `Logged in as ${ada}`);
    assert.deepEqual([await dataOf(page), await textOf(page, "motto")], [{ visits: 1 }, "onward"]);
    assert.match(await page.locator("#devices li").first().innerText(), / · by acme[^]*this one/);

    // What another account has is not given to a second one.
    const second = await open(await device());
    await register(second, `${ada} too`);
    await push(second, "Tie ACME");
    await second.waitForURL(/^http:\/\/127\.0\.0\.1:/);
    await choose(second, "Log in as bob");
    assert.match(await textOf(second, "account-said"), /^Not tied: it is tied to another account/);
    assert.match(await textOf(second, "tied"), /^ACME\s+Tie\s+ACME/);

    await press(page, "Untie ACME");
    assert.equal(await textOf(page, "ties-said"), "ACME is untied: it does not open this account any more.");
    assert.match(await textOf(page, "tied"), /^ACME\s+Tie\s+ACME/);
    assert.equal(await focused(page), "ties-title");
    await press(page, "Log out");
    await push(page, "Log in with ACME");
    await page.locator("#inside").waitFor();
    await settled(page);
    assert.equal(await titleOf(page), "Logged in as bob of Acme");
  });

  test("a logout here and there: the provider asks, leads back, and does not know the user any more", async () => {
    const page = await open(context);
    await logInAtOther(page);
    await page.getByRole("link", { name: "Log out here and at OTHER" }).click();
    await page.waitForURL(/^http:\/\/127\.0\.0\.1:/);
    await choose(page, "Yes, sign me out");
    assert.equal(await titleOf(page), "Log in or register");
    await go(page, "OTHER");
    await page.getByRole("button", { name: "Log in as ada" }).waitFor();
  });

  test("a logout at the provider is one here, of that browser's session and no other", async () => {
    const [page, elsewhere] = [await open(context), await open(await device())];
    for (const one of [page, elsewhere]) await logInAtOther(one);
    await page.goto(`${other.issuer}/session/end`);
    await page.getByRole("button", { name: "Yes, sign me out" }).click();
    await page.getByText("Sign-out Success").first().waitFor();
    await page.goto(url);
    await settled(page);
    assert.equal(await titleOf(page), "Log in or register");
    await press(elsewhere, "Look again");
    assert.equal(await titleOf(elsewhere), "Logged in as ada of Acme");
  });

  test("the example of a login has the same ways in, and says what has become of one", async () => {
    const page = await openExample(context, "login");
    await page.getByRole("link", { name: "Log in with ACME" }).click();
    await page.getByRole("button", { name: "Cancel" }).click();
    await said(page, "You have cancelled.");
    assert.doesNotMatch(page.url(), /login_error/);
    await page.getByRole("link", { name: "Log in with ACME" }).click();
    await page.getByRole("button", { name: "Log in as ada" }).click();
    await page.locator("#who", { hasText: "Logged in as ada of Acme." }).waitFor();
    assert.equal(await page.getByRole("link", { name: "Log in with ACME" }).isVisible(), false);
  });
});
