/** The client in pages: two tabs, a tab that comes back, pages of other origins, and the recipes of docs/frontend.md. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { launch, launchProfile, skip } from "./support/browser.mjs";
import { bundle } from "./support/client.mjs";
import { FAST_HASH, startBoth, startDeployment, until } from "./support/worker.mjs";

/** @import { Browser, BrowserContext, Page } from "playwright-core" */
/** @typedef {any} Client as pages have it, beyond what is typed here */

const PASSWORD = "correct horse";
let number = 0;
const someone = () => ({ username: `Tab ${(number += 1)}`, password: PASSWORD });

/** A block of docs/frontend.md. @param {string} language @param {string} words that it holds */
async function recipe(language, words) {
  const text = await readFile(new URL("../docs/frontend.md", import.meta.url), "utf8");
  const blocks = [...text.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))];
  const found = blocks.map(([, block]) => block ?? "").filter((block) => block.includes(words));
  assert.equal(found.length, 1, words);
  return found[0] ?? "";
}

/** A page with the client, which calls at this address. @param {string} baseUrl */
const pageFor = (baseUrl) => `<!doctype html><title>A page</title><script type="module">
  import * as it from "/client.js";
  Object.assign(window, it);
  window.heard = [];
  window.client = createClient({ baseUrl: ${JSON.stringify(baseUrl)} });
  window.isReady = true;
</script>`;

/** Puts that page in front of a Worker. @param {BrowserContext} context @param {string} at */
async function putPage(context, at) {
  const body = await bundle();
  await context.route(`${at}/client.js`, (route) => route.fulfill({ contentType: "text/javascript", body }));
  await context.route(`${at}/`, (route) =>
    route.fulfill({ contentType: "text/html", body: pageFor("/auth") }),
  );
}

/** A tab, and its requests to the Worker: METHOD path. @param {BrowserContext} context @param {string} at */
async function openTab(context, at) {
  const page = await context.newPage();
  /** @type {string[]} */
  const requests = [];
  page.on("request", (request) => {
    const { pathname } = new URL(request.url());
    if (pathname.startsWith("/auth/")) requests.push(`${request.method()} ${pathname.slice(6)}`);
  });
  await page.goto(`${at}/`);
  await page.waitForFunction("window.isReady");
  return {
    page,
    requests,
    /** Runs an expression with the page's `client`. @param {string} expression @returns {Promise<any>} */
    run: (expression) => page.evaluate(`(async () => ${expression})()`),
    listen: () =>
      page.evaluate(
        "void client.onChange((session) => heard.push(session && [session.user?.name ?? null, session.data]))",
      ),
    /** What listeners have heard last, once that is so. @param {unknown} expected */
    async hears(expected) {
      /** @type {unknown} */
      let last;
      await until(
        async () => {
          last = await page.evaluate("heard.at(-1)");
          return JSON.stringify(last) === JSON.stringify(expected);
        },
        () => `last heard: ${JSON.stringify(last)}, not ${JSON.stringify(expected)}`,
      );
    },
  };
}
/** @typedef {Awaited<ReturnType<typeof openTab>>} Tab */

describe("in a browser", { skip }, () => {
  /** @type {Awaited<ReturnType<typeof startBoth>>} */
  let both;
  /** @type {Browser} */
  let browser;
  before(async () => {
    both = await startBoth({ settings: { password: FAST_HASH } });
    browser = await launch();
  });
  after(async () => {
    await browser?.close();
    await both?.stop();
  });

  /** @type {BrowserContext} */
  let context;
  beforeEach(async () => {
    await Promise.all(browser.contexts().map((old) => old.close()));
    context = await browser.newContext();
    await putPage(context, both.worker.url);
  });
  const tab = () => openTab(context, both.worker.url);

  test("a page changes its session, with nothing but an address", async () => {
    const { run, requests } = await tab();
    assert.equal(await run("client.session()"), null);
    await run("client.increment('/views')");
    await run("client.update((data) => void (data.cart = ['tea']))");
    assert.deepEqual(await run("(await client.session()).data"), { cart: ["tea"], views: 1 });
    assert.deepEqual(requests, [
      "GET session",
      "PATCH session/data",
      "GET session",
      "PATCH session/data",
      "GET session",
    ]);
  });

  test("first changes of two tabs at once are in one session", async () => {
    for (let round = 0; round < 3; round += 1) {
      await context.clearCookies();
      const tabs = await Promise.all([tab(), tab(), tab()]);
      const handles = await Promise.all(
        tabs.map(({ run }, i) =>
          run(`Promise.all(["x", "y"].map(async (m) => (await client.merge({ [m + ${i}]: 1 })).handle))`),
        ),
      );
      assert.equal(new Set(handles.flat()).size, 1);
      assert.equal(Object.keys(await tabs[0].run("(await client.session()).data")).length, 6);
    }
  });

  test("a tab hears of changes, logins and logouts in another, and nothing is said but that", async () => {
    const [one, two] = [await tab(), await tab()];
    await two.listen();
    await two.hears(null);
    await one.page.evaluate(
      "window.said = []; new BroadcastChannel('cloakroom /auth').onmessage = ({ data }) => said.push(data)",
    );
    const credentials = someone();
    await one.run("client.merge({ a: 1 })");
    await two.hears([null, { a: 1 }]);
    await one.run(`client.register(${JSON.stringify(credentials)})`);
    await two.hears([credentials.username, { a: 1 }]);
    await one.run("client.logout()");
    await two.hears(null);
    await one.run(`client.login(${JSON.stringify(credentials)})`);
    await two.hears([credentials.username, {}]);
    const wrong = JSON.stringify({ ...credentials, password: "wrong horse" });
    await assert.rejects(one.run(`client.login(${wrong})`), /CloakroomError|wrong/);
    // The last: a 401 may mean that the login has ended, so all look.
    assert.deepEqual(await one.run("said"), [0, 0, 0, 0, 0]);
    assert.ok(two.requests.every((line) => line === "GET session"));
    assert.ok(two.requests.length <= 6, two.requests.join());
  });

  test("a tab that comes back looks again: once, however often it is told", async () => {
    const [one, two] = [await tab(), await tab()];
    await one.run("client.merge({ a: 1 })");
    await two.listen();
    await two.hears([null, { a: 1 }]);
    const setHidden = (/** @type {boolean} */ isHidden) =>
      two.page.evaluate((isHidden) => {
        Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
      }, isHidden);
    await setHidden(true);
    two.requests.length = 0;
    for (let n = 2; n < 6; n += 1) await one.run(`client.merge({ a: ${n} })`);
    await two.page.evaluate("new Promise(requestAnimationFrame)");
    assert.deepEqual(two.requests, [], "as long as nobody sees it, it does not ask");
    await setHidden(false);
    await two.hears([null, { a: 5 }]);
    assert.deepEqual(two.requests, ["GET session"]);

    // Its session ends at another device, which no other tab knows.
    const { handle } = await one.run("client.session()");
    await both.store.redis.del(`sess:${handle}`);
    two.requests.length = 0;
    await two.page.evaluate(() => {
      for (let i = 0; i < 5; i += 1) {
        dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }));
        dispatchEvent(new Event("online"));
        document.dispatchEvent(new Event("visibilitychange", { bubbles: true }));
      }
    });
    await two.hears(null);
    await two.run("client.session()");
    assert.ok(two.requests.length <= 3, `${two.requests.length} requests`);
  });

  test("a tab that was offline looks again by itself", async () => {
    const one = await tab();
    await one.listen();
    await one.hears(null);
    await context.setOffline(true);
    const error = await one.run("client.session().catch(({ code }) => code)");
    assert.equal(error, "network");
    const other = await browser.newContext();
    await other.close();
    one.requests.length = 0;
    await context.setOffline(false);
    await until(() => one.requests.includes("GET session"));
  });

  test("a tab that hangs in the middle of a call does not stop the others for long", async () => {
    const [one, two] = [await tab(), await tab()];
    await one.run("client.merge({ a: 1 })");
    // As if another tab held the lock and had stopped running.
    await one.page.evaluate(
      "void navigator.locks.request('cloakroom /auth', { mode: 'exclusive' }, () => new Promise(() => {}))",
    );
    await two.page.evaluate("AbortSignal.timeout = () => AbortSignal.abort()");
    assert.deepEqual(await two.run("(await client.session()).data"), { a: 1 });
  });

  test("bearer tickets are refused in a page, with the reason", async () => {
    const { page } = await tab();
    const said = await page.evaluate(() => {
      try {
        /** @type {any} */ (window).createClient({ transport: "bearer" });
      } catch (error) {
        return `${/** @type {any} */ (error).code}: ${/** @type {Error} */ (error).message}`;
      }
    });
    assert.match(String(said), /^unsupported: .*Origin/);
  });

  test("the React hook shows who is there, in every tab", async () => {
    const jsx = `${await recipe("jsx", "useSyncExternalStore")}
      import { createElement, StrictMode } from "react";
      import { createRoot } from "react-dom/client";
      function Who() {
        const session = useSession();
        return createElement("p", null, session === undefined ? "…" : (session?.user?.name ?? "nobody") + JSON.stringify(session?.data ?? null));
      }
      createRoot(document.getElementById("root")).render(createElement(StrictMode, null, createElement(Who), createElement(Who)));
      Object.assign(window, { client });`;
    await context.route(`${both.worker.url}/hook`, (route) =>
      route.fulfill({
        contentType: "text/html",
        body: `<div id="root"></div><script src="/hook.js"></script>`,
      }),
    );
    const body = await bundleText(jsx);
    await context.route(`${both.worker.url}/hook.js`, (route) =>
      route.fulfill({ contentType: "text/javascript", body }),
    );
    const page = await context.newPage();
    await page.goto(`${both.worker.url}/hook`);
    const shows = (/** @type {string} */ text) =>
      page.waitForFunction(
        (text) => [...document.querySelectorAll("p")].map((p) => p.textContent).join() === `${text},${text}`,
        text,
      );
    await shows("nobodynull");
    await page.evaluate("client.increment('/views')");
    await shows('nobody{"views":1}');
    const other = await tab();
    const credentials = someone();
    await other.run(`client.register(${JSON.stringify(credentials)})`);
    await shows(`${credentials.username}{"views":1}`);
    await other.run("client.logout()");
    await shows("nobodynull");
  });

  test("the Svelte store tells each subscriber at once, and whatever comes", async () => {
    const body = await bundleText(`${await recipe("js", "subscribe(run)")}
      Object.assign(window, { client, session, values: [] });
      window.stop = session.subscribe((value) => values.push(value && value.data));`);
    const page = await context.newPage();
    await page.goto(`${both.worker.url}/`);
    await page.evaluate(body);
    const values = () => page.evaluate("JSON.stringify(values)");
    await until(async () => (await values()) === "[null,null]" || (await values()) === "[null]");
    await page.evaluate("client.merge({ a: 1 })");
    await until(async () => String(await values()).endsWith('{"a":1}]'));
    await page.evaluate("stop()");
    await page.evaluate("client.merge({ a: 2 })");
    assert.ok(String(await values()).endsWith('{"a":1}]'));
    const late = await page.evaluate(
      "(() => { let now; session.subscribe((v) => (now = v))(); return now.data })()",
    );
    assert.deepEqual(late, { a: 2 }, "what is there is told at once");
  });
});

/** A script with its imports, as a page loads it. @param {string} contents */
const bundleText = (contents) =>
  bundle({
    entryPoints: undefined,
    stdin: { contents, resolveDir: new URL("..", import.meta.url).pathname, loader: "js" },
    alias: { "cloakroom-client": new URL("../client/src/index.js", import.meta.url).pathname },
    format: "iife",
    define: { "process.env.NODE_ENV": '"development"' },
  });

describe("a page of another origin", { skip }, () => {
  /** @type {[string, (origin: string) => object, string, string][]} */
  const table = [
    [
      "of another site, with SameSite=None, keeps its session",
      (origin) => ({ cors: { origins: [origin] }, cookie: { same_site: "None" } }),
      "localhost",
      "kept",
    ],
    [
      "of another site, with SameSite=None, in an Incognito window, sees that it is not kept",
      (origin) => ({ cors: { origins: [origin] }, cookie: { same_site: "None" } }),
      "localhost",
      "blocked",
    ],
    [
      "of another site, with a partitioned cookie, keeps its session",
      (origin) => ({ cors: { origins: [origin] }, cookie: { same_site: "None", partitioned: true } }),
      "localhost",
      "kept",
    ],
    [
      "of the same site, with a Lax cookie, keeps its session",
      (origin) => ({ cors: { origins: [origin] } }),
      "127.0.0.1",
      "kept",
    ],
    [
      "of another site, with a Lax cookie, sees that it is not kept",
      (origin) => ({ cors: { origins: [origin] } }),
      "localhost",
      "blocked",
    ],
    ["that is not allowed gets an error, which names the setting", () => ({}), "localhost", "network"],
  ];
  for (const [title, settings, host, outcome] of table) {
    test(title, async () => {
      // A real one: Chromium does not let a page without an address call a local one.
      const client = await bundle();
      let html = "";
      const server = createServer(({ url }, response) => {
        const isScript = url === "/client.js";
        response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
        response.end(isScript ? client : html);
      });
      server.listen(0, host === "localhost" ? "127.0.0.1" : host);
      await once(server, "listening");
      const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
      const origin = `http://${host}:${port}`;
      const { workers, stop } = await startDeployment([
        { settings: { password: FAST_HASH, ...settings(origin) } },
      ]);
      const folder = await mkdtemp(join(tmpdir(), "cloakroom-"));
      // The visitor's setting that allows cookies of other sites, which an Incognito window does not ask.
      await mkdir(join(folder, "Default"));
      await writeFile(join(folder, "Default", "Preferences"), '{"profile":{"cookie_controls_mode":0}}');
      const browser = title.includes("Incognito") ? await launch() : await launchProfile(folder);
      try {
        const context = "newContext" in browser ? await browser.newContext() : browser;
        html = pageFor(`${workers[0].url}/auth`);
        const { run, listen, hears } = await openTab(context, origin);
        if (outcome === "network") {
          const error =
            "client.merge({ a: 1 }).catch((error) => [error.code, error.message, error.maybeDone])";
          const [code, message, maybeDone] = await run(error);
          assert.deepEqual([code, maybeDone], ["network", true]);
          assert.match(message, /cors\.origins/);
          return;
        }
        await listen();
        await run("client.merge({ a: 1 })");
        if (outcome === "blocked") return assert.equal(await run("client.session()"), null);
        await run("client.update((data) => void (data.b = 2))");
        await run(`client.register(${JSON.stringify(someone())})`);
        await run("client.increment('/views')");
        assert.deepEqual(await run("(await client.session()).data"), { a: 1, b: 2, views: 1 });
        const other = await openTab(context, origin);
        await other.run("client.logout()");
        await hears(null);
      } finally {
        await browser.close();
        await stop();
        server.close();
        await rm(folder, { recursive: true, force: true });
      }
    });
  }
});
