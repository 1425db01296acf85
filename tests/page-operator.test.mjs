/** The operators' page at `{base_path}/admin/`: how it is served, and where its token is and is not. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { textOf } from "./support/browser.mjs";
import {
  ada,
  arrive,
  complaints,
  describeInBrowser,
  device,
  enter,
  hears,
  lookUp,
  makeAccount,
  MINUTE,
  opened,
  push,
  refuse,
  serve,
  store,
  TOKEN,
  unlocked,
  url,
  worker,
} from "./support/page-operator.mjs";

/** @import { Page } from "playwright-core" */

/** @param {string} path @param {RequestInit} [init] */
const get = (path, init) => fetch(`${url}${path}`, { redirect: "manual", ...init });

/** Everywhere a text could be that outlives the page or can be read from outside of its script. @param {Page} page */
const places = async (page) => {
  const inside = await page.evaluate(async () => ({
    html: document.documentElement.outerHTML,
    values: [...document.querySelectorAll("input")].map((input) => input.value),
    storage: JSON.stringify([{ ...localStorage }, { ...sessionStorage }]),
    databases: JSON.stringify(await indexedDB.databases()),
    caches: JSON.stringify(await caches.keys()),
    cookie: document.cookie,
    name: window.name,
    history: JSON.stringify([history.state, location.href]),
    globals: Object.keys(window)
      .map((key) => {
        const value = /** @type {any} */ (window)[key];
        return typeof value === "string" ? value : "";
      })
      .join(),
  }));
  return JSON.stringify([inside, await page.context().storageState(), page.url()]);
};

describeInBrowser("the operators' page", () => {
  test("it is served under a strict policy, kept by nobody, framed by nobody, and without a cookie", async () => {
    for (const path of ["", "page/app.js", "page/style.css", "page/icon.svg"]) {
      const { status, headers } = await get(`/auth/admin/${path}`);
      assert.equal(status, 200, path);
      const policy = headers.get("content-security-policy") ?? "";
      for (const directive of [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
      ]) {
        assert.ok(policy.includes(directive), `${path}: ${directive}`);
      }
      assert.doesNotMatch(policy, /unsafe|\*|data:/);
      assert.equal(headers.get("cache-control"), "no-store, no-transform");
      assert.equal(headers.get("x-content-type-options"), "nosniff");
      assert.equal(headers.get("referrer-policy"), "no-referrer");
      assert.equal(headers.get("cross-origin-opener-policy"), "same-origin");
      assert.equal(headers.get("set-cookie"), null);
    }
  });

  test("every file that the page names is there, and no other", async () => {
    const page = await unlocked();
    /** @type {string[]} */
    const requested = [];
    page.on("response", (response) =>
      requested.push(`${response.status()} ${new URL(response.url()).origin}`),
    );
    await page.reload();
    await page.locator("#enter[aria-disabled=false]").waitFor();
    assert.ok(requested.length > 10);
    assert.deepEqual([...new Set(requested)], [`200 ${url}`]);
    for (const path of ["page/", "page/x.js", "page/..%2fapp.js", "page/index.html", "app.js"]) {
      assert.equal((await get(`/auth/admin/${path}`)).status, 404, path);
    }
  });

  test("without the slash it leads there, and other methods are none of the page's", async () => {
    const answer = await get("/auth/admin");
    assert.deepEqual([answer.status, answer.headers.get("location")], [308, "admin/"]);
    assert.equal((await get("/auth/admin/", { method: "HEAD" })).status, 200);
    assert.equal((await get("/auth/admin/", { method: "POST" })).status, 401);
  });

  test("its files are counted for nobody, cost no store call, and take no cookie away", async () => {
    await serve({ settings: { limits: { session: "1/1m", ip: "1/1m" } } });
    const headers = { Cookie: "__Host-session=forged", "CF-Connecting-IP": "203.0.113.7" };
    const calls = store.counters.calls;
    for (let times = 0; times < 3; times += 1) {
      const answer = await get("/auth/admin/", { headers });
      assert.deepEqual([answer.status, answer.headers.get("set-cookie")], [200, null]);
      assert.equal(answer.headers.get("ratelimit"), null);
    }
    assert.equal(store.counters.calls, calls);
    await serve();
  });

  test("the page's calls are not those of the visitor that the operator may be, too", async () => {
    await serve({ settings: { limits: { session: "1/1m" } } });
    await makeAccount();
    const page = await opened();
    const cookie = { name: "__Host-session", value: (await device()).ticket ?? "", secure: true };
    await page.context().addCookies([{ ...cookie, url: url.replace("http:", "https:") }]);
    await enter(page);
    for (let times = 0; times < 3; times += 1) {
      await lookUp(page, "user name", ada);
      assert.match(await textOf(page, "found-title"), /User/);
    }
    await serve();
  });

  for (const base of ["", "/a/b"]) {
    test(`it works wherever the routes are: below "${base}/"`, async () => {
      await serve({ settings: { base_path: base } });
      const page = await opened({}, base);
      await enter(page);
      await hears(page, /^As of/, "counters-said");
      await serve();
    });
  }

  test("without an admin token there is no page", async () => {
    await serve({ secrets: { ADMIN_TOKEN: undefined } });
    for (const path of ["", "/", "/page/app.js"]) {
      const answer = await get(`/auth/admin${path}`);
      assert.deepEqual([answer.status, (await answer.json()).detail], [404, "there is nothing at this path"]);
    }
    await serve();
  });

  test("the token is in memory alone, and nothing that the page does leaves it anywhere", async () => {
    await makeAccount();
    await device();
    const page = await unlocked();
    const history = await page.evaluate(() => window.history.length);
    await lookUp(page, "user name", ada);
    await push(page, "Read again");
    assert.ok(!(await places(page)).includes(TOKEN));
    assert.equal(await page.evaluate(() => window.history.length), history);
    assert.equal(page.url(), `${url}/auth/admin/`);
  });

  for (const [how, leave] of /** @type {[string, (page: Page) => Promise<unknown>][]} */ ([
    ["its button is pressed", (page) => push(page, "Forget the token")],
    ["the page is reloaded", (page) => page.reload()],
    [
      "another page was visited",
      async (page) => {
        await page.goto("about:blank");
        await page.goBack();
      },
    ],
  ])) {
    test(`the token and what it showed are forgotten when ${how}`, async () => {
      await makeAccount();
      const page = await unlocked();
      await lookUp(page, "user name", ada);
      await leave(page);
      await page.locator("#locked").waitFor();
      assert.equal(await page.locator("#opened").isVisible(), false);
      assert.equal(await page.getByLabel("Admin token").inputValue(), "");
      const all = await places(page);
      assert.ok(!all.includes(TOKEN) && !all.includes(ada));
    });
  }

  test("left open and unused for 15 minutes, it forgets the token; used, it does not", async () => {
    await makeAccount();
    const page = await opened();
    await page.clock.install();
    await arrive(page);
    await enter(page);
    await page.locator("#opened").waitFor();
    await page.clock.fastForward(14 * MINUTE);
    await lookUp(page, "user name", ada);
    await page.clock.fastForward(14 * MINUTE);
    assert.ok(await page.locator("#opened").isVisible());
    await page.clock.fastForward(1.5 * MINUTE);
    await hears(page, /has forgotten the token/, "unlock-said");
    assert.ok(!(await places(page)).includes(ada));
    await enter(page);
    await page.locator("#opened").waitFor();
  });

  test("an answer that comes after the token was forgotten shows nothing", async () => {
    await makeAccount();
    const page = await unlocked();
    /** @type {() => void} */
    let release = () => {};
    const held = new Promise((resolve) => (release = () => resolve(undefined)));
    await page.route(/users/, async (route) => {
      await held;
      await route.continue().catch(() => {});
    });
    await page.locator("#value").fill(ada);
    await push(page, "Look up");
    await push(page, "Forget the token");
    release();
    await enter(page);
    await page.locator("#opened").waitFor();
    assert.equal(await page.locator("#found").isVisible(), false);
    assert.equal(await textOf(page, "said"), "");
  });

  for (const [what, token, words] of /** @type {[string, string, RegExp][]} */ ([
    ["no token", "  ", /^Give the ADMIN_TOKEN/],
    ["a wrong one", "x".repeat(40), /does not take the token.*give the right one/],
    ["one that no header can hold", "schlüssel ☃", /^This cannot be the token/],
  ])) {
    test(`with ${what} it stays closed, says so, and can be tried again`, async () => {
      const page = await opened();
      await enter(page, token);
      await hears(page, words, "unlock-said");
      assert.equal(await page.locator("#opened").isVisible(), false);
      assert.equal(await page.getByLabel("Admin token").inputValue(), "");
      await enter(page, ` ${TOKEN} `);
      await page.locator("#opened").waitFor();
    });
  }

  test("a token that was changed meanwhile closes the page, whatever is asked", async () => {
    await makeAccount();
    const page = await unlocked();
    await lookUp(page, "user name", ada);
    await refuse(page, /users/, 401, { code: "unauthenticated" });
    await lookUp(page, "user name", ada).catch(() => {});
    await hears(page, /does not take the token/, "unlock-said");
    assert.ok(!(await textOf(page, "unlock-title")).includes(ada));
    assert.equal(await page.locator("#found").isVisible(), false);
  });

  test("a password manager can fill the token in", async () => {
    const page = await opened();
    const field = page.getByLabel("Admin token");
    assert.deepEqual(
      await field.evaluate((/** @type {HTMLInputElement} */ input) => [input.type, input.autocomplete]),
      ["password", "current-password"],
    );
    assert.equal(await page.locator("input[autocomplete=username]").inputValue(), "operator");
  });

  test("another page of the same site gets no hold of its window, and cannot frame it", async () => {
    const page = await opened();
    await page.goto(`${url}/auth/health`);
    const popup = page.context().waitForEvent("page");
    const isCut = page.evaluate(async (address) => {
      const other = window.open(address);
      for (let tries = 0; tries < 500 && !other?.closed; tries += 1) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      return other?.closed;
    }, `${url}/auth/admin/`);
    await (await popup).locator("#enter[aria-disabled=false]").waitFor();
    assert.equal(await isCut, true);
  });

  test("no console saw an error, an exception or a violation of the policy in all this", () => {
    assert.deepEqual(complaints, []);
    assert.ok(worker.logs.every((line) => !line.includes(TOKEN)));
  });
});
