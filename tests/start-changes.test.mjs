/** What `npm start` makes of faults in its files, and of changes to them while it runs. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { cp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { freePort } from "../tools/port.mjs";
import { collapsed } from "../tools/log.mjs";
import { launch, newVisitor, openPage, press, skip, textOf } from "./support/browser.mjs";
import { READY, root, start, temp } from "./support/start.mjs";

/** @import { Start } from "./support/start.mjs" */

/** @typedef {(file: string, text: string) => Promise<void>} Save */

/** How editors save. @type {Record<string, Save>} */
const SAVES = {
  "written in place": (file, text) => writeFile(file, text),
  "renamed over the old one": async (file, text) => {
    await writeFile(`${file}~`, text);
    await rename(`${file}~`, file);
  },
  "deleted and made anew": async (file, text) => {
    await rm(file);
    await writeFile(file, text);
  },
};
const TIMES = 10;

describe("npm start while its files change", () => {
  /** @type {Start} */
  let app;
  let url = "";
  let config = "";
  let vars = "";
  let page = "";
  let original = "";
  let secrets = "";

  before(async () => {
    const port = await freePort();
    url = `http://localhost:${port}`;
    [config, vars, page] = ["wrangler.toml", "vars", "public"].map((name) => join(temp, name));
    await cp(join(root, "public"), page, { recursive: true });
    original = (await readFile(join(root, "wrangler.toml"), "utf8"))
      .replace('main = "', `main = "${root}`)
      .replace('directory = "public"', `directory = "${page}"`);
    await writeFile(config, withBase("auth"));
    app = await start({ port, config, vars });
  });

  /** @param {string} base */
  const withBase = (base) => original.replace('base_path = "/auth"', `base_path = "${base}"`);

  /** What the Worker answers at a path, 0 while it is loaded. @param {string} path @param {string} [token] */
  const status = (path, token = "") =>
    fetch(url + path, { headers: token ? { Authorization: `Bearer ${token}` } : {} }).then(
      (response) => response.status,
      () => 0,
    );

  /** Waits until the Worker has its routes there. @param {string} base */
  const servedAt = (base) => app.when(async () => (await status(`${base}/health`)) === 200);

  it("says what is wrong with a setting and what it should be, and goes on when that is put right", async () => {
    await app.until("Save the file, and it is tried again at once.");
    assert.match(app.output(), /CLOAKROOM\.base_path: a path like "\/auth", without a slash at its end/);
    assert.doesNotMatch(app.output(), /Cloakroom is at/);
    assert.equal(await status("/auth/health"), 500);

    await writeFile(config, original);
    await app.until(READY);
    assert.equal(await status("/auth/health"), 200);
    secrets = await readFile(vars, "utf8");
  });

  for (const [how, save] of Object.entries(SAVES)) {
    it(`takes up wrangler.toml each time, ${TIMES} times in a row, when it is ${how}`, async () => {
      for (let time = 1; time <= TIMES; time++) {
        await save(config, withBase(`/${how.replaceAll(" ", "-")}-${time}`));
        await servedAt(`/${how.replaceAll(" ", "-")}-${time}`);
      }
    });

    it(`takes up the last of ${TIMES} states of wrangler.toml in quick succession, each ${how}`, async () => {
      for (let time = 1; time <= TIMES; time++) await save(config, withBase(`/quick-${time}`));
      await save(config, withBase("/last"));
      await servedAt("/last");
      await save(config, original);
      await servedAt("/auth");
    });

    it(`takes up the secrets each time when they are ${how}`, async () => {
      for (let time = 1; time <= 3; time++) {
        const token = randomBytes(32).toString("hex");
        await save(vars, secrets.replace(/^ADMIN_TOKEN=.*$/m, `ADMIN_TOKEN=${token}`));
        await app.when(async () => (await status("/auth/admin/stats", token)) === 200);
      }
    });
  }

  it("runs on as it was while wrangler.toml is broken or half written, and says so", async () => {
    for (const [text, complaint] of /** @type {const} */ ([
      ["", /"main" is missing in wrangler\.toml/],
      ["a = = 3", /wrangler\.toml, line 1: Invalid TOML document/],
      [
        original.slice(0, original.indexOf("[assets]") + 4),
        /wrangler\.toml, line \d+: Invalid TOML document/,
      ],
    ])) {
      const before = app.output().length;
      await writeFile(config, text);
      await app.when(() => complaint.test(app.output().slice(before)));
      assert.match(app.output().slice(before), /Until then the Worker runs as it was\.\n$/);
      assert.equal(await status("/auth/health"), 200);
    }
    await rm(config);
    await app.until(/Could not read file: .*wrangler\.toml/);
    await writeFile(config, withBase("/mended"));
    await servedAt("/mended");
  });

  for (const base of ["/account/auth", "", "/auth"]) {
    it(`tells the page that the routes are under "${base}"`, { skip }, async () => {
      await writeFile(config, withBase(base));
      await servedAt(base);
      const browser = await launch();
      try {
        /** @type {string[]} */
        const complaints = [];
        const opened = await openPage(await newVisitor(browser, complaints), url);
        await press(opened, "Count a visit");
        assert.equal(await textOf(opened, "visits"), "1");
        assert.deepEqual(complaints, []);
      } finally {
        await browser.close();
      }
    });
  }

  it("serves the page as it is when the Worker is loaded again", async () => {
    await writeFile(join(page, "more.txt"), "more");
    assert.equal(await status("/more.txt"), 404);
    await writeFile(config, `${original}\n`);
    await app.when(async () => (await status("/more.txt")) === 200);
  });
});

describe("npm start with a database that does not answer", () => {
  it("says so once, and counts what the log repeats", async () => {
    const env = { UPSTASH_REDIS_REST_URL: "https://nowhere.invalid", UPSTASH_REDIS_REST_TOKEN: "token" };
    const app = await start({ env });
    await app.until("the database at nowhere.invalid does not answer as it should. Waiting for it …");
    await app.until("times by now)");
    const lines = app.output().split("\n");
    assert.ok(lines.length < 15, app.output());
    assert.equal(lines.filter((line) => line.includes("nowhere.invalid does not answer")).length, 1);
    assert.doesNotMatch(app.output(), /stack:|workerd@/);
  });

  it("uses another one as soon as it is named in the secrets", async () => {
    const vars = join(temp, "named-vars");
    await writeFile(vars, "UPSTASH_REDIS_REST_URL=https://nowhere.invalid\nUPSTASH_REDIS_REST_TOKEN=token\n");
    const app = await start({ vars });
    await app.until("nowhere.invalid does not answer");
    const text = await readFile(vars, "utf8");
    await writeFile(vars, text.replaceAll(/^UPSTASH.*\n/gm, ""));
    await app.until(READY);
    assert.match(app.output(), /Sessions are in {2}.*data \(kept when you stop\)/);
  });
});

describe("a log that repeats itself", () => {
  it("is printed at the first time, and then at the tenth, the hundredth …", () => {
    /** @type {string[]} */
    const printed = [];
    let time = 0;
    const log = collapsed(
      (line) => printed.push(line),
      () => time,
    );
    for (let i = 0; i < 150; i++) {
      log(`failed after ${i} ms`);
      log("another");
      time += 1000;
    }
    assert.deepEqual(printed, [
      "failed after 0 ms",
      "another",
      "failed after 9 ms (10 times by now)",
      "another (10 times by now)",
      "failed after 99 ms (100 times by now)",
      "another (100 times by now)",
    ]);
    time += 60_000;
    log("another");
    assert.equal(printed.at(-1), "another");
  });
});
