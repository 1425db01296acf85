/** examples/flask as a reader starts it: the shop, Cloakroom beside it, and a browser that uses both. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { freePort } from "../tools/port.mjs";
import { launch, skip } from "./support/browser.mjs";
import { runLines } from "./support/docs.mjs";
import { sharing } from "./support/flask-app.mjs";
import { endsAll, root, run, startScript, temp } from "./support/start.mjs";
import { Visitor } from "./support/visitor.mjs";

/** @import { Start } from "./support/start.mjs" */

describe("examples/flask", () => {
  /** @type {string} */
  let state;
  /** @type {{ shop: string, cloakroom: string }} */
  let urls;
  /** @type {() => Promise<Start>} */
  let start;
  /** @type {Start} */
  let running;

  before(async () => {
    const [shop, cloakroom] = [await freePort(), await freePort()];
    urls = { shop: `http://localhost:${shop}`, cloakroom: `http://localhost:${cloakroom}` };
    state = join(temp, "flask");
    const folder = join(root, "examples/flask");
    const config = join(temp, "wrangler.toml");
    const text = await readFile(join(folder, "wrangler.toml"), "utf8");
    const ours = text.replace("http://localhost:8000", urls.shop).replace("../../build", join(root, "build"));
    assert.notEqual(ours, text);
    await writeFile(config, ours);
    const places = [
      "--state",
      state,
      "--config",
      config,
      "--port",
      `${shop}`,
      "--worker-port",
      `${cloakroom}`,
    ];
    start = async () => {
      const started = startScript(join(folder, "start.mjs"), places);
      await started.until("Enter restarts the shop");
      await started.when(shopAnswers);
      return started;
    };
    running = await start();
  });
  after(() => running?.kill("SIGTERM"));

  const shopAnswers = () =>
    fetch(`${urls.shop}/dashboard`, { redirect: "manual" }).then(
      () => true,
      () => false,
    );

  /** A visitor of both. */
  function both() {
    const shop = new Visitor(urls.shop);
    return { shop, edge: sharing(shop, urls.cloakroom) };
  }
  /** @param {Visitor} visitor @param {string} path @param {Record<string, string>} [form] */
  const post = (visitor, path, form = {}) =>
    visitor.send("POST", path, {
      headers: { "Content-Type": "application/x-www-form-urlencoded" },
      body: String(new URLSearchParams(form)),
    });
  /** What the README's commands print. @param {...string} command */
  const redis = async (...command) => {
    const args = [join(root, "tools/redis-cli.mjs"), join(state, "redis.sock"), ...command];
    return (await run(process.execPath, args)).stdout.trim().split("\n");
  };

  test("counts visits, fills a cart, and logs in, at the shop and at Cloakroom in turn", async () => {
    const { shop, edge } = both();
    assert.match((await shop.send("GET", "/")).text, /Visits: 1</);
    assert.equal((await edge.increment("/views")).status, 200);
    assert.match((await shop.send("GET", "/")).text, /Visits: 3</);
    await post(shop, "/cart", { item: "coat" });
    assert.equal((await edge.increment("/cart/hat", 2)).status, 200);
    assert.deepEqual((await edge.session()).data.cart, { coat: 1, hat: 2 });
    assert.equal((await shop.send("GET", "/dashboard")).status, 302);

    const before = edge.clone();
    assert.equal((await post(shop, "/login", { name: "ada" })).status, 302);
    assert.equal((await shop.send("GET", "/dashboard")).text, "Hello, ada");
    assert.equal((await edge.send("GET", "/auth/verify")).headers.get("x-session-user"), "ada");
    assert.equal(await before.session(), null, "under a new id");
    assert.equal((await edge.merge({ user_id: "root" })).status, 422);

    assert.equal((await edge.logout()).status, 204);
    assert.equal((await shop.send("GET", "/dashboard")).status, 302);
    await post(shop, "/login", { name: "bob" });
    await post(shop, "/logout");
    assert.equal((await edge.send("GET", "/auth/verify")).status, 401);
  });

  test("shows in Redis what the tutorials show", async () => {
    const { shop } = both();
    await shop.send("GET", "/");
    const key = `session:${shop.cookies.get("session")}`;
    const keys = await redis("KEYS", "session:*");
    assert.ok(keys.includes(key) && keys.every((one) => one.startsWith("session:")));
    const [ttl] = await redis("TTL", key);
    assert.ok(Number(ttl) > 30 * 86_400 && Number(ttl) <= 31 * 86_400, ttl);
    assert.deepEqual(await redis("GET", "session:nobody"), ["(nil)"]);
  });

  test("does what docs/interop.md prints, as printed", () =>
    runLines("Five minutes with Flask", {
      hosts: { "localhost:8000": urls.shop, "localhost:8787": urls.cloakroom },
      socket: join(state, "redis.sock"),
    }));

  test("is one session to a browser, in which both pages' requests meet", { skip }, async () => {
    const browser = await launch();
    try {
      const page = await browser.newPage();
      await page.goto(urls.shop);
      await page.getByText("Visits: 1").waitFor();
      await page.locator("#cloakroom", { hasText: '"views": 1' }).waitFor();
      await page.getByRole("button", { name: "Count a visit there" }).click();
      await page.getByText("Visits: 3").waitFor();
      await page.getByRole("button", { name: "A coat" }).click();
      await page.getByRole("button", { name: "Put a scarf into the cart there" }).click();
      await page.getByText('In the cart: {"coat": 1, "scarf": 1}').waitFor();
      await page.getByLabel("Name").fill("ada");
      await page.getByRole("button", { name: "Log in" }).click();
      await page.getByText("Hello, ada").waitFor();
      await page.goto(urls.shop);
      await page.locator("#cloakroom", { hasText: '"id": "ada"' }).waitFor();
      await page.getByRole("button", { name: "Log out there" }).click();
      await page.getByText("Visits: 1").waitFor();
      await page.getByLabel("Name").waitFor();
    } finally {
      await browser.close();
    }
  });

  test("loses no session when the shop alone is started again", async () => {
    const { shop, edge } = both();
    await shop.send("GET", "/");
    const before = running.output().length;
    running.type("\n");
    await running.when(() => running.output().slice(before).includes("Running on"));
    await running.when(shopAnswers);
    assert.match((await shop.send("GET", "/")).text, /Visits: 2</);
    assert.equal((await edge.session()).data.views, 2);
  });

  test("loses no session when it is stopped and started again", async () => {
    const visitors = [both(), both()];
    await visitors[0].shop.send("GET", "/");
    await post(visitors[0].shop, "/login", { name: "ada" });
    assert.equal((await visitors[1].edge.merge({ views: 1 })).status, 200);
    await endsAll(running, "SIGINT", 0);
    running = await start();
    assert.equal((await visitors[0].shop.send("GET", "/dashboard")).text, "Hello, ada");
    assert.equal((await visitors[0].edge.send("GET", "/auth/verify")).status, 200);
    assert.match((await visitors[1].shop.send("GET", "/")).text, /Visits: 2</);
    assert.equal((await visitors[1].edge.session()).data.views, 2);
  });
});
