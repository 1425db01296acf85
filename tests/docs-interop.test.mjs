/** The program of docs/interop.md that shares an application's sessions, run as printed but for addresses. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { setTimeout as sleep } from "node:timers/promises";
import { freePort } from "../tools/port.mjs";
import { json, ok, startBeside } from "./support/express.mjs";
import { Visitor } from "./support/visitor.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The block of this language that holds some words. @param {string} words */
async function example(words) {
  const page = await readFile(join(root, "docs/interop.md"), "utf8");
  const blocks = [...page.matchAll(/^```js\n(.*?)^```/gms)].map(([, block = ""]) => block);
  const found = blocks.filter((block) => block.includes(words));
  assert.equal(found.length, 1, words);
  return found[0] ?? "";
}

test("a service without the session library knows who is there, and reads the profile that stands apart", async () => {
  const both = await startBeside();
  await mkdir(join(root, ".local"), { recursive: true });
  const folder = await mkdtemp(join(root, ".local/docs-")); // inside, so that its packages are found
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
