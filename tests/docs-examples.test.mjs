/** The programs that docs/ prints, run as printed but for addresses. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { Log, LogLevel, Miniflare } from "miniflare";
import { freePort } from "../tools/port.mjs";
import { launch, skip } from "./support/browser.mjs";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startBoth } from "./support/worker.mjs";

/** @import { Page } from "playwright-core" */

/** The blocks of a language in a file of docs/. @param {string} name @param {string} language */
function blocks(name, language) {
  const text = readFileSync(new URL(`../docs/${name}`, import.meta.url), "utf8");
  const found = [...text.matchAll(new RegExp(`^ *\`\`\`${language}\\n(.*?)^ *\`\`\``, "gms"))];
  return found.map(([, block]) => block ?? "");
}

/** The one of them that holds some words. @param {string} name @param {string} words */
function example(name, words) {
  const found = blocks(name, "js").filter((block) => block.includes(words));
  assert.equal(found.length, 1, `${name}: ${words}`);
  return found[0] ?? "";
}

test("a back end logs in its own users, says who is there, and logs them out", async () => {
  const ADMIN_TOKEN = randomSecret();
  const { worker, stop } = await startBoth({ secrets: { ADMIN_TOKEN } });
  const folder = await mkdtemp(join(tmpdir(), "cloakroom-"));
  const port = await freePort();
  await writeFile(join(folder, "back-end.mjs"), example("back-ends.md", "createServer"));
  const env = { ...process.env, ADMIN_TOKEN, CLOAKROOM: worker.url, PORT: String(port) };
  const child = spawn(process.execPath, ["back-end.mjs"], { cwd: folder, env, stdio: "inherit" });
  const exited = once(child, "exit");
  try {
    const visitor = new Visitor(`http://127.0.0.1:${port}`);
    while (
      await visitor.send("GET", "/").then(
        () => false,
        () => child.exitCode === null,
      )
    )
      await sleep(20);
    assert.equal((await visitor.send("GET", "/")).text, "Hello, whoever you are.\n");
    const logIn = (/** @type {string} */ password) =>
      visitor.send("POST", "/login", { body: `name=ada&password=${encodeURIComponent(password)}` });
    assert.equal((await logIn("wrong horse")).status, 401);

    const headers = { "User-Agent": "Phone" };
    const body = "name=ada&password=correct+horse&remember=on";
    const { status, setCookies } = await visitor.send("POST", "/login", { headers, body });
    assert.equal(status, 303);
    assert.match(setCookies.join("\n"), /^__Host-session=.*; Max-Age=/);
    assert.equal((await visitor.send("GET", "/")).text, "Hello, Ada.\n");
    const listed = await worker
      .visitor()
      .send("GET", "/auth/admin/users/42/sessions", { headers: { Authorization: `Bearer ${ADMIN_TOKEN}` } });
    assert.deepEqual(
      listed.json.sessions.map((/** @type {any} */ { user_agent, ip }) => [user_agent, ip]),
      [["Phone", "127.0.0.0"]],
    );

    assert.equal((await visitor.send("POST", "/logout")).status, 303);
    assert.equal(visitor.ticket, undefined);
    assert.equal((await visitor.send("GET", "/")).text, "Hello, whoever you are.\n");
  } finally {
    child.kill();
    await exited;
    await stop();
    await rm(folder, { recursive: true });
  }
});

test("another Worker hands the routes on to a bound one, and asks it who is there", async () => {
  const { store, stop } = await startBoth();
  const [services = ""] = blocks("back-ends.md", "toml");
  assert.match(services, /binding = "CLOAKROOM", service = "cloakroom"/);
  const build = new URL("../build/", import.meta.url);
  const miniflare = new Miniflare({
    cf: false,
    log: new Log(LogLevel.NONE),
    workers: [
      {
        name: "site",
        compatibilityDate: "2026-04-01",
        modules: true,
        script: example("back-ends.md", "export default"),
        serviceBindings: { CLOAKROOM: "cloakroom" },
      },
      {
        name: "cloakroom",
        compatibilityDate: "2026-04-01",
        modules: [
          { type: "ESModule", path: "index.js", contents: await readFile(new URL("index.js", build)) },
          {
            type: "CompiledWasm",
            path: "cloakroom_bg.wasm",
            contents: await readFile(new URL("cloakroom_bg.wasm", build)),
          },
        ],
        bindings: {
          CLOAKROOM: { password: { memory_kib: 64, iterations: 1 } },
          SESSION_SECRET: randomSecret(),
          UPSTASH_REDIS_REST_URL: store.url,
          UPSTASH_REDIS_REST_TOKEN: store.token,
        },
      },
    ],
  });
  try {
    const visitor = new Visitor((await miniflare.ready).origin);
    assert.equal((await visitor.send("GET", "/")).text, "Log in first.\n");
    const headers = { "Content-Type": "application/json" };
    const body = JSON.stringify({ username: "Zoë", password: "correct horse" });
    assert.equal((await visitor.send("POST", "/auth/register", { headers, body })).status, 201);
    assert.equal((await visitor.send("GET", "/")).text, "Hello, Zoë.\n");
  } finally {
    await miniflare.dispose();
    await stop();
  }
});

describe("in a browser", { skip }, () => {
  /**
   * Runs something on a page of an origin of its own, in front of a Worker with these settings.
   * @param {(origin: string) => object} settings for that origin
   * @param {(page: Page, url: string, origin: string) => Promise<void>} work
   */
  async function onPage(settings, work) {
    const server = createServer((_, response) =>
      response.setHeader("Content-Type", "text/html").end("<p>a page"),
    );
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
    const origin = `http://localhost:${port}`; // to a browser another site than 127.0.0.1
    const { worker, stop } = await startBoth({ settings: settings(origin) });
    const browser = await launch();
    try {
      await work(await browser.newPage(), worker.url, origin);
    } finally {
      await browser.close();
      await stop();
      server.close();
    }
  }

  /**
   * What the session holds after the example for a page of another site has run twice, at the second time with another
   * member.
   * @param {Page} page @param {string} url
   */
  async function afterTwo(page, url) {
    const call = example("browsers.md", 'credentials: "include"').replace("https://session.example.net", url);
    for (const body of ['{ cart: ["tea"] }', "{ views: 1 }"]) {
      await page
        .evaluate(`(async () => { ${call.replace('{ cart: ["tea"] }', body)} })()`)
        .catch((error) => assert.match(String(error), /Failed to fetch/));
    }
    return page.evaluate(async (url) => {
      const answer = await fetch(`${url}/auth/session`, { credentials: "include" }).catch(() => null);
      return /** @type {any} */ (await answer?.json())?.session?.data ?? null;
    }, url);
  }

  const allowed = (/** @type {string} */ origin) => ({ origins: [origin] });
  const printed = Object.fromEntries(
    blocks("browsers.md", "toml")
      .flatMap((block) => [...block.matchAll(/^ *(same_site|partitioned) = (.*)$/gm)])
      .map(([, name, value = ""]) => [name, JSON.parse(value)]),
  );

  for (const [title, settings, expected] of /** @type {[string, (origin: string) => object, boolean][]} */ ([
    [
      "with the three settings it has a session",
      (origin) => ({ cors: allowed(origin), cookie: printed }),
      true,
    ],
    ["with a Lax cookie it has none", (origin) => ({ cors: allowed(origin) }), false],
    ["which is not allowed changes and reads nothing", () => ({ cookie: printed }), false],
  ])) {
    test(`a page of another site: ${title}`, () =>
      onPage(settings, async (page, url, origin) => {
        assert.deepEqual(printed, { same_site: "None", partitioned: true });
        await page.goto(origin);
        assert.deepEqual(await afterTwo(page, url), expected ? { cart: ["tea"], views: 1 } : null);
      }));
  }

  test("of changes at once the first goes alone, and none is lost; else there are two sessions", () =>
    onPage(
      () => ({}),
      async (page, url) => {
        const code = example("browsers.md", "const change = ");
        const run = async (/** @type {string} */ name) => {
          await page.context().clearCookies();
          await page.goto(`${url}/auth/health`);
          await page.evaluate(
            `(async () => { ${code}; await Promise.all([{ a: 1 }, { b: 2 }, { c: 3 }].map((it) => ${name}(it))) })()`,
          );
          return page.evaluate(
            async () => /** @type {any} */ (await (await fetch("/auth/session")).json()).session.data,
          );
        };
        assert.deepEqual(await run("change"), { a: 1, b: 2, c: 3 });
        assert.equal(Object.keys(await run("send")).length, 1);
      },
    ));
});
