/** The settings and the program of docs/interop.md, taken as printed but for addresses; its lines run with the examples. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { unstable_readConfig } from "wrangler";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../tools/port.mjs";
import { json, ok, startBeside } from "./support/express.mjs";
import { Visitor } from "./support/visitor.mjs";
import { startBoth } from "./support/worker.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The blocks of a language. @param {string} language */
async function blocks(language) {
  const page = await readFile(join(root, "docs/interop.md"), "utf8");
  const found = page.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"));
  return [...found].map(([, block = ""]) => block);
}

/** The program that holds some words. @param {string} words */
async function example(words) {
  const found = (await blocks("js")).filter((block) => block.includes(words));
  assert.equal(found.length, 1, words);
  return found[0] ?? "";
}

/** A new folder inside of the project, so that its packages are found. */
async function newFolder() {
  await mkdir(join(root, ".local"), { recursive: true });
  return mkdtemp(join(root, ".local/docs-"));
}

test("the settings that it prints are a configuration, for Express, Flask and moving over", async () => {
  const folder = await newFolder();
  /** @type {string[]} */
  const formats = [];
  try {
    for (const block of await blocks("toml")) {
      const config = join(folder, "wrangler.toml");
      await writeFile(config, `name = "x"\ncompatibility_date = "2026-04-01"\n${block}`);
      const settings = /** @type {any} */ (unstable_readConfig({ config }).vars.CLOAKROOM);
      const both = await startBoth({ settings, secrets: { FORMAT_SECRETS: '["keyboard cat"]' } });
      const { json: answer } = await both.worker.visitor().look();
      await both.stop();
      assert.deepEqual(answer, { session: null }, both.worker.logs.join(""));
      formats.push(settings.cookie.format ?? settings.cookie.accept[0].format);
    }
    assert.deepEqual(formats, ["express", "flask", "express"]);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("a service without the session library knows who is there, and reads the profile that stands apart", async () => {
  const both = await startBeside();
  const folder = await newFolder();
  const port = await freePort();
  // Where Valkey listens is no URL here.
  const program = (await example("createServer")).replace(
    "{ url: REDIS_URL }",
    "{ socket: { path: REDIS_URL } }",
  );
  await writeFile(join(folder, "service.mjs"), program);
  const env = {
    ...process.env,
    CLOAKROOM: both.worker.url,
    PORT: String(port),
    REDIS_URL: both.store.socket,
  };
  const child = spawn(process.execPath, ["service.mjs"], { cwd: folder, env, stdio: "inherit" });
  const exited = once(child, "exit");
  try {
    const { atExpress, atWorker } = both.someone();
    const service = new Visitor(`http://127.0.0.1:${port}`);
    service.cookies = atExpress.cookies;
    const isThere = () =>
      service.send("GET", "/").then(
        () => true,
        () => child.exitCode !== null,
      );
    while (!(await isThere())) await sleep(20);
    assert.equal((await service.send("GET", "/")).status, 401);

    await ok(atExpress.send("POST", "/login", json({ name: "ann" })));
    const atLogin = await example("hSet");
    const logIn = new Function("client", "user", "request", `return (async () => {${atLogin}})();`);
    const request = { session: { userId: "" } };
    const client = { hSet: both.store.redis.hSet.bind(both.store.redis) };
    await logIn(client, { id: "ann", name: "Ann", city: "Graz" }, request);
    assert.deepEqual(request.session, { userId: "ann" });
    assert.deepEqual((await service.send("GET", "/")).json, { id: "ann", name: "Ann", city: "Graz" });
    assert.deepEqual((await ok(atWorker.look())).data, { userId: "ann" }, "the session holds the id alone");

    await both.store.redis.hSet("profile:ann", "city", "Linz");
    assert.equal((await service.send("GET", "/")).json.city, "Linz");
    await ok(atExpress.send("POST", "/logout"), 204);
    assert.equal((await service.send("GET", "/")).status, 401);
  } finally {
    child.kill();
    await exited;
    await both.stop();
    await rm(folder, { recursive: true });
  }
});
