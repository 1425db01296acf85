/** `npm start -- --demo-provider`: logging in with others, without an account anywhere. */
import assert from "node:assert/strict";
import { cp, readFile, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { freePort } from "../tools/port.mjs";
import { Browser } from "./support/oidc-provider.mjs";
import { endsAll, READY, root, start, temp } from "./support/start.mjs";
import { Visitor } from "./support/visitor.mjs";

const SAYS = /Log in with +the demo provider at (http:\/\/127\.0\.0\.1:\d+): any name, no password\n/;

describe("npm start with its demo provider", () => {
  /** @type {import("./support/start.mjs").Start} */
  let demo;
  let [url, config, issuer] = ["", "", ""];
  const written = readFile(join(root, "wrangler.toml"), "utf8");

  before(async () => {
    const port = await freePort();
    config = join(temp, "wrangler.toml");
    // The program is the project's; the page, which is told where the routes are, a copy.
    await cp(join(root, "public"), join(temp, "public"), { recursive: true });
    const text = (await written).replace('main = "', `main = "${root}`);
    await writeFile(config, text);
    demo = await start({ port, config, more: ["--demo-provider"] });
    await demo.until(READY);
    url = `http://localhost:${port}`;
    issuer = SAYS.exec(demo.output())?.[1] ?? "";
  });

  /** @param {Visitor} visitor @param {Record<string, string>} form */
  async function logIn(visitor, form, { browser = new Browser(), base = "/auth" } = {}) {
    const { headers } = await visitor.send("GET", `${base}/login/demo?return_to=/home`);
    const back = await browser.follow(String(headers.get("location")), { form });
    return (await visitor.send("GET", back)).headers.get("location");
  }

  it("says where it is, and that it is among the providers; wrangler.toml stays as it is", async () => {
    assert.notEqual(issuer, "", demo.output());
    assert.doesNotMatch(demo.output(), /WARNING|NOTICE/);
    const { json } = await new Visitor(url).send("GET", "/auth/providers");
    assert.deepEqual(json.providers, [{ id: "demo", name: "the demo provider", linked: false }]);
    assert.equal(await readFile(join(root, "wrangler.toml"), "utf8"), await written);
    assert.match(await (await fetch(issuer)).text(), /<h1>Demo provider<\/h1>/);
  });

  it("lets in whoever types a name, in any script, as the same user each time", async () => {
    for (const [name, id, shown] of [
      [" Ada  Lovelace ", "demo:ada-lovelace", "Ada Lovelace"],
      ["李小龍", "demo:李小龍", "李小龍"],
      ["<b>&'\"", "demo:<b>&'\"", "<b>&'\""],
    ]) {
      const visitor = new Visitor(url);
      assert.equal(await logIn(visitor, { do: "login", name }), "/home");
      assert.deepEqual((await visitor.session()).user, { id, name: shown, roles: [] });
    }
  });

  it("lets nobody in who cancels, or has no name", async () => {
    const visitor = new Visitor(url);
    assert.equal(await logIn(visitor, { do: "cancel", name: "Ada" }), "/home?login_error=access_denied");
    for (const [name, says] of /** @type {const} */ ([
      [" ", /A name is missing/],
      ["x".repeat(41), /at most 40 characters/],
    ])) {
      await assert.rejects(logIn(visitor, { do: "login", name }), says);
    }
    assert.equal(await visitor.session(), null);
  });

  it("logs out here and there, from either side", async () => {
    const form = { do: "login", name: "Ada" };
    const [visitor, browser] = [new Visitor(url), new Browser()];
    await logIn(visitor, form, { browser });
    const { headers } = await visitor.send("GET", "/auth/logout/demo?return_to=/bye");
    assert.equal(await visitor.session(), null);
    assert.equal(await browser.logOut(String(headers.get("location"))), `${url}/bye`);
    await logIn(visitor, form, { browser });
    assert.equal(browser.asked, 2, "it had forgotten who that is");
    const [, end] = /href="([^"]*)">Log out here/.exec(await (await fetch(issuer)).text()) ?? [];
    await browser.logOut(issuer + end);
    assert.equal(await visitor.session(), null, "the Worker was told");
  });

  it("answers to its own address alone", async () => {
    const status = await new Promise((done) =>
      get(issuer, { headers: { host: "evil.example" } }, (response) => done(response.resume().statusCode)),
    );
    assert.equal(status, 421);
  });

  it("follows the Worker to another base_path, and knows its users still", async () => {
    const browser = new Browser();
    await logIn(new Visitor(url), { do: "login", name: "Ada" }, { browser });
    const text = await readFile(config, "utf8");
    const line = 'base_path = "/api/session"';
    const changed = /^# ?base_path = .*$|^base_path = .*$/m.test(text)
      ? text.replace(/^#? ?base_path = .*$/m, line)
      : text.replace("[vars.CLOAKROOM]", `[vars.CLOAKROOM]\n${line}`);
    await writeFile(config, changed);
    await demo.until("Taken up");
    const visitor = new Visitor(url);
    const form = { do: "login", name: "never asked" };
    assert.equal(await logIn(visitor, form, { browser, base: "/api/session" }), "/home");
    assert.equal((await visitor.send("GET", "/api/session/session")).json.session.user.id, "demo:ada");
  });

  it("ends with all the rest", async () => {
    await endsAll(demo, "SIGINT", 0);
    await assert.rejects(fetch(issuer));
  });
});
