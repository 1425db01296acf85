/** What visitors have chosen (names, data, roles, browsers) is text on the operators' page, in any script, and nothing else. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { textOf } from "./support/browser.mjs";
import {
  admin,
  ask,
  complaints,
  consider,
  describeInBrowser,
  hears,
  lookUp,
  makeAccount,
  push,
  unlocked,
  worker,
} from "./support/page-operator.mjs";

/** @import { Page } from "playwright-core" */

const ATTACKS = [
  "<img src=x onerror=alert(1)>",
  "</bdi></h2><script>alert(1)</script>",
  '"><svg onload=alert(1)>',
  "javascript:alert(1)//",
  "{{constructor.constructor('alert(1)')()}}",
  "<iframe srcdoc='<script>alert(1)</script>'>",
  "<base href=https://evil.example/>",
  "<style>*{display:none}</style>",
  "%3Cscript%3Ealert(1)%3C/script%3E",
  "&lt;b&gt;bold&lt;/b&gt;",
  "__proto__",
  "constructor",
];

/** A session of a user of a back end, all of whose texts are this one. @param {string} text @param {string} id */
const begin = async (text, id = text) => {
  const { status, json } = await admin("POST", "sessions", {
    user: { id, name: text, roles: [text.replaceAll(",", "").slice(0, 60)] },
    data: { [text]: text, list: [text] },
    client: { user_agent: text, address: "203.0.113.7" },
  });
  assert.equal(status, 201, text);
  return json.session.handle;
};

/** What no text of others may make. @param {Page} page */
const made = (page) =>
  page.evaluate(() => ({
    elements: document.querySelectorAll(
      "img, iframe, object, embed, base, link:not([rel=icon], [rel=stylesheet]), a",
    ).length,
    scripts: document.scripts.length,
    styles: document.querySelectorAll("style, [style]").length,
    handlers: [...document.querySelectorAll("*")].filter((element) =>
      [...element.attributes].some(({ name }) => name.startsWith("on")),
    ).length,
  }));

const NOTHING = { elements: 0, scripts: 1, styles: 0, handlers: 0 };

describeInBrowser("texts of others on the operators' page", () => {
  for (const text of ATTACKS) {
    test(`${text} is shown as it stands, wherever it occurs`, async () => {
      const handle = await begin(text);
      const page = await unlocked();
      await lookUp(page, "user id", text);
      assert.equal(await textOf(page, "found-title"), `User ${text}`);
      assert.equal(await page.locator(".device").innerText(), text);
      assert.deepEqual(await made(page), NOTHING);
      assert.ok((await consider(page, "End all 1 session…")).includes(text));
      assert.deepEqual(await made(page), NOTHING);
      await push(page, "Cancel");
      await lookUp(page, "session handle", handle);
      const shown = JSON.parse(await page.locator("#found pre").innerText());
      assert.deepEqual(shown, JSON.parse(JSON.stringify({ [text]: text, list: [text] })));
      assert.ok((await textOf(page, "found-body")).includes(text));
      assert.deepEqual(await made(page), NOTHING);
      await ask(page, "user name", text);
      await hears(page, /There is no account named|400|422/);
      assert.deepEqual(await made(page), NOTHING);
    });
  }

  test("names in any script are found and shown", async () => {
    const page = await unlocked();
    for (const name of ["Ωμέγα", "नमस्ते", "محمد علي", "שלום", "李小龍", "👩‍🚀 Ada", "می‌خواهم"]) {
      const text = `${name}`;
      await begin(text, `id of ${text}`);
      await lookUp(page, "user id", `id of ${text}`);
      const { status } = await admin("POST", "users", { username: text });
      if (status !== 201) continue;
      await lookUp(page, "user name", text);
      assert.equal(await textOf(page, "found-title"), `User ${text}`);
    }
  });

  test("what is unseen, or would turn others round, is written out", async () => {
    const text = "Ada\u202eevil\u2066\u200b\u0000\u2028\u061c\ufeff\n";
    const id = "turned";
    await admin("POST", "sessions", {
      user: { id, name: text },
      data: { text },
      client: { user_agent: text },
    });
    const page = await unlocked();
    await lookUp(page, "user id", id);
    const device = (await page.locator(".device").textContent()) ?? "";
    assert.match(device, /Ada\\u\{202e\}evil\\u\{2066\}\\u\{200b\}/);
    assert.doesNotMatch(device, /[\u202a-\u202e\u2066-\u2069\u200b\u2028]/);
    await push(page, /^Look session/);
    await page.locator("#found pre").waitFor();
    assert.doesNotMatch(
      (await page.locator("#found").textContent()) ?? "",
      /[\u202a-\u202e\u2066-\u2069\u200b]/,
    );
  });

  test("a text from right to left moves nothing beside it", async () => {
    const id = await makeAccount("משה 1");
    const page = await unlocked();
    await lookUp(page, "user id", id);
    await consider(page, "Disable…");
    const isolated = await page
      .locator("#ask .given")
      .evaluateAll((all) => all.every((one) => getComputedStyle(one).unicodeBidi.startsWith("isolate")));
    assert.ok(isolated);
    const [title, name] = await page.locator("#ask-title").evaluate((heading) => {
      const range = document.createRange();
      range.selectNodeContents(/** @type {Node} */ (heading.firstChild));
      return [range, /** @type {Element} */ (heading.querySelector("bdi"))].map(
        (part) => part.getBoundingClientRect().left,
      );
    });
    assert.ok(title < name, "the question still begins at its beginning");
  });

  test("ids of any form reach the user they name, and no other", async () => {
    const page = await unlocked();
    for (const id of [
      "a/b",
      "a?b=c",
      "a#b",
      "../users",
      "a%2Fb",
      "a b",
      " a",
      "a+b",
      "ä",
      "…",
      "x".repeat(255),
    ]) {
      await begin(`name of ${id.slice(0, 20)}`, id);
      await lookUp(page, "user id", id);
      assert.equal(await page.locator("#found dd code").first().textContent(), id);
      await consider(page, "End all 1 session…");
      await push(page, "End all sessions");
      await hears(page, /^1 session of .* ended\./);
    }
  });

  test("a session of as much data as there may be is shown in part, and the page does not hang", async () => {
    const visitor = worker.visitor();
    await visitor.merge({ long: "y".repeat(60_000) });
    const page = await unlocked();
    await lookUp(page, "session handle", (await visitor.look()).json.session.handle);
    const shown = await page.locator("#found pre").innerText();
    assert.ok(shown.length < 25_000 && shown.endsWith("…"));
  });

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
  });
});
