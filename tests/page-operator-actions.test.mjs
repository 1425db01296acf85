/** What operators do on their page: look-ups and changes, each against the real Worker, with the question before it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { textOf } from "./support/browser.mjs";
import {
  ada,
  admin,
  arrive,
  ask,
  complaints,
  consider,
  describeInBrowser,
  device,
  enter,
  hears,
  isAlive,
  lookUp,
  makeAccount,
  MINUTE,
  opened,
  PASSWORD,
  push,
  unlocked,
  url,
  worker,
} from "./support/page-operator.mjs";

/** @import { Page } from "playwright-core" */

/** What a list of facts says of something. @param {Page} page @param {string} name */
const factOf = async (page, name) =>
  (
    await page.locator("#found-body dl > div").filter({ hasText: name }).locator("dd").first().innerText()
  ).trim();

/** What the deployment knows of an account. @param {string} id */
const account = async (id) => (await admin("GET", `users/${id}`)).json;

/** @param {string} id */
const sessionsOf = async (id) => (await admin("GET", `users/${id}/sessions`)).json.sessions;

describeInBrowser("the operators' actions", () => {
  test("a user is found by name in any spelling, and by id, with the sessions", async () => {
    const id = await makeAccount(ada, ["editor"]);
    await device(ada, "Phone");
    await device(ada, "Laptop");
    const page = await unlocked();
    for (const [kind, value] of [
      ["user name", ada.toUpperCase()],
      ["user id", id],
    ]) {
      await lookUp(page, kind, value);
      assert.equal(await textOf(page, "found-title"), `User ${ada}`);
      assert.deepEqual([await factOf(page, "Id"), await factOf(page, "Account")], [id, "enabled"]);
      assert.equal(await factOf(page, "Roles"), "editor");
      assert.deepEqual(await page.locator(".device").allInnerTexts(), ["Phone", "Laptop"]);
      await page.getByRole("heading", { name: "2 sessions" }).waitFor();
    }
  });

  test("a user of a back end has sessions and no account, and can be logged out everywhere", async () => {
    await admin("POST", "sessions", { user: { id: "back/end 1", name: ada } });
    const page = await unlocked();
    await lookUp(page, "user id", "back/end 1");
    assert.match(await factOf(page, "Account"), /^none here/);
    assert.equal(await page.getByRole("button", { name: /Disable|Delete|Reset/ }).count(), 0);
    await consider(page, "End all 1 session…");
    await push(page, "End all sessions");
    await hears(page, /1 session of back\/end 1 ended\./);
    assert.deepEqual(await sessionsOf("back%2Fend%201"), []);
  });

  test("a session is found by its handle, with its data to the digit, and leads to its user", async () => {
    await makeAccount();
    const visitor = await device();
    await visitor.send("PATCH", "/auth/session/data", {
      headers: { "Content-Type": "application/json" },
      body: '{"big": 9007199254740993, "price": 1.5}',
    });
    const { handle } = (await visitor.look()).json.session;
    const page = await unlocked();
    await lookUp(page, "session handle", handle);
    assert.equal(await textOf(page, "found-title"), `Session ${handle}`);
    assert.match(await page.locator("#found pre").innerText(), /"big": 9007199254740993,\s+"price": 1\.5/);
    await push(page, `Look at ${ada}`);
    await page
      .locator("#found-title")
      .filter({ hasText: `User ${ada}` })
      .waitFor();
    await push(page, /^Look session/);
    await page.locator("#found-title").filter({ hasText: handle }).waitFor();
  });

  test("a cookie is looked at without a trace, leads to its session, and is not kept", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 1 });
    const ticket = visitor.ticket ?? "";
    const page = await unlocked();
    for (const text of [ticket, `Cookie: __Host-session=${ticket}`]) {
      await lookUp(page, "cookie", text);
      assert.equal(await textOf(page, "found-title"), "The cookie is alive");
      assert.equal(await page.locator("#value").inputValue(), "");
      assert.ok(!(await page.content()).includes(ticket));
    }
    await push(page, "Look at its session");
    await page.locator("#found-title").filter({ hasText: "Session" }).waitFor();
    await visitor.logout();
    await lookUp(page, "cookie", ticket);
    assert.equal(await textOf(page, "found-title"), "The cookie is dead");
    assert.match(await textOf(page, "found-body"), /The session has ended: logged out/);
    await lookUp(page, "cookie", "A".repeat(148));
    assert.match(await textOf(page, "found-body"), /No secret of this deployment|not known here/);
  });

  for (const [kind, value, words] of /** @type {[string, string, RegExp][]} */ ([
    ["user name", "nobody", /There is no account named nobody\./],
    ["user id", "nobody", /no account with the id nobody, and no session/],
    ["user id", "..", /No user has the id/],
    ["session handle", "A".repeat(24), /no session with this handle/],
    ["session handle", "short", /400 bad_request|no session with this handle/],
    ["cookie", "other=1", /holds no cookie of a session here/],
    ["user name", "  ", /Type what is to be looked up/],
  ])) {
    test(`"${value}" as a ${kind} is not found, and the page says so`, async () => {
      const page = await unlocked();
      await ask(page, kind, value);
      await hears(page, words);
      assert.equal(await page.locator("#found").isVisible(), false);
    });
  }

  test("one session is ended: the question names it, and the others live", async () => {
    const id = await makeAccount();
    const [phone, laptop] = [await device(ada, "Phone"), await device(ada, "Laptop")];
    const { handle } = (await phone.look()).json.session;
    const page = await unlocked();
    await lookUp(page, "user id", id);
    const question = await consider(page, /^End… session/);
    assert.match(question, new RegExp(`End this session of ${ada}\\?`));
    assert.ok(question.includes(handle) && question.includes("Phone"));
    await push(page, "End session");
    await hears(page, "1 session ended.");
    await page.getByRole("heading", { name: "1 session" }).waitFor();
    assert.deepEqual([await isAlive(phone), await isAlive(laptop)], [false, true]);
  });

  test("an anonymous session is ended from its own view", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ a: 1 });
    const page = await unlocked();
    await lookUp(page, "session handle", (await visitor.look()).json.session.handle);
    assert.match(await consider(page, "End session…"), /an anonymous visitor[^]*begins anew/);
    await push(page, "End session");
    await hears(page, /1 session ended\. There is no session with this handle/);
    assert.equal(await isAlive(visitor), false);
  });

  test("all sessions are ended with their count, those begun since among them", async () => {
    const id = await makeAccount();
    const devices = [await device(), await device()];
    const page = await unlocked();
    await lookUp(page, "user id", id);
    const question = await consider(page, "End all 2 sessions…");
    assert.match(question, /2 sessions were listed here\. All there are at that moment end/);
    assert.ok(question.includes(id));
    devices.push(await device());
    await push(page, "End all sessions");
    await hears(page, `3 sessions of ${ada} ended.`);
    assert.deepEqual(await Promise.all(devices.map(isAlive)), [false, false, false]);
    await page.getByText("None.").waitFor();
  });

  test("an account is disabled and enabled again", async () => {
    const id = await makeAccount();
    const phone = await device();
    const page = await unlocked();
    await lookUp(page, "user id", id);
    assert.match(await consider(page, "Disable…"), /1 session was listed[^]*that of a wrong password/);
    await push(page, "Disable account");
    await hears(page, `${ada} is disabled, and its sessions have ended.`);
    await page.getByRole("button", { name: "Enable…" }).waitFor();
    assert.equal(await factOf(page, "Account"), "disabled");
    assert.deepEqual([await isAlive(phone), (await account(id)).disabled], [false, true]);
    assert.equal((await worker.visitor().login(ada, PASSWORD)).status, 401);

    assert.match(await consider(page, "Enable…"), /can log in again/);
    await push(page, "Enable account");
    await hears(page, `${ada} is enabled: its owner can log in again.`);
    await device();
  });

  test("an account is deleted, with a warning", async () => {
    const id = await makeAccount();
    const phone = await device();
    const page = await unlocked();
    await lookUp(page, "user name", ada);
    assert.match(await consider(page, "Delete account…"), /cannot be undone/);
    await push(page, "Delete account");
    await hears(page, new RegExp(`${ada} is deleted, with its sessions\\. There is no account with the id`));
    assert.equal((await admin("GET", `users/${id}`)).status, 404);
    assert.equal(await isAlive(phone), false);
    assert.equal(await page.locator("#found").isVisible(), false);
  });

  test("a reset's token is shown once, can be copied, and lets its owner in", async () => {
    const id = await makeAccount();
    const page = await unlocked();
    await page.context().grantPermissions(["clipboard-read", "clipboard-write"], { origin: url });
    await lookUp(page, "user id", id);
    assert.match(await consider(page, "Reset password…"), /once, within 30 minutes/);
    await push(page, "Make a token");
    await page.locator("#reset").waitFor();
    const token = await textOf(page, "reset-token");
    assert.match(await textOf(page, "reset-ends"), /works once, until \d+ \w+ \d{4}/);
    await push(page, "Copy");
    await hears(page, /^Copied/, "reset-said");
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), token);
    // It stays while others are looked up, and goes when it is put away.
    await lookUp(page, "user id", id);
    assert.ok(await page.locator("#reset").isVisible());
    await push(page, "Put away");
    assert.ok(!(await page.content()).includes(token));
    const { status } = await worker.visitor().tell("POST", "/reset", { token, new: "battery staple" });
    assert.equal(status, 200);
  });

  test("where the clipboard is closed, the token is selected", async () => {
    const id = await makeAccount();
    const page = await unlocked();
    await page.evaluate(() => {
      navigator.clipboard.writeText = () => Promise.reject(new Error("closed"));
    });
    await lookUp(page, "user id", id);
    await consider(page, "Reset password…");
    await push(page, "Make a token");
    await push(page, "Copy");
    await hears(page, /copy it by keyboard/, "reset-said");
    assert.equal(await page.evaluate(() => String(getSelection())), await textOf(page, "reset-token"));
  });

  test("a reset's token goes with the admin token", async () => {
    const id = await makeAccount();
    const page = await unlocked();
    await lookUp(page, "user id", id);
    await consider(page, "Reset password…");
    await push(page, "Make a token");
    await page.locator("#reset").waitFor();
    const token = await textOf(page, "reset-token");
    await push(page, "Forget the token");
    assert.ok(!(await page.content()).includes(token));
    await enter(page);
    await page.locator("#opened").waitFor();
    assert.equal(await page.locator("#reset").isVisible(), false);
  });

  test("a reset's token is not shown any longer than it works", async () => {
    const id = await makeAccount();
    const page = await opened();
    await page.clock.install();
    await arrive(page);
    await enter(page);
    const reset = { token: "T".repeat(64), expires_at: new Date(Date.now() + 5 * MINUTE).toISOString() };
    await page.route(/\/reset$/, (route) => route.fulfill({ status: 201, json: reset }));
    await lookUp(page, "user id", id);
    await consider(page, "Reset password…");
    await push(page, "Make a token");
    await page.locator("#reset").waitFor();
    await page.clock.runFor(4 * MINUTE);
    assert.equal(await textOf(page, "reset-token"), reset.token);
    await page.clock.runFor(2 * MINUTE);
    await hears(page, /has ended, and is not shown any more/);
    assert.ok(!(await page.content()).includes(reset.token));
  });

  for (const [how, back] of /** @type {[string, (page: Page) => Promise<void>][]} */ ([
    ["Cancel", (page) => push(page, "Cancel")],
    ["Escape", (page) => page.keyboard.press("Escape")],
  ])) {
    test(`${how} changes nothing, and the focus goes back`, async () => {
      const id = await makeAccount();
      await device();
      const page = await unlocked();
      await lookUp(page, "user id", id);
      await consider(page, "Delete account…");
      await back(page);
      await page.locator("#ask").waitFor({ state: "hidden" });
      assert.equal(await page.evaluate(() => document.activeElement?.textContent), "Delete account…");
      assert.equal((await sessionsOf(id)).length, 1);
    });
  }

  test("the counters and the keys are shown", async () => {
    const page = await unlocked();
    await hears(page, /^As of/, "counters-said");
    const [key] = (await admin("GET", "stats")).json.signing_keys;
    assert.match(await textOf(page, "keys"), new RegExp(`${key}[^]*Signs new tickets`));
    assert.equal(await page.locator("#charts figure").count(), 10);
  });

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
  });
});
