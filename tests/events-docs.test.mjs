/** The receivers of events that docs/api.md prints, run as printed. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { freePort } from "../tools/port.mjs";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { FAST_HASH, randomSecret, startWorker, until } from "./support/worker.mjs";

const page = readFileSync(new URL("../docs/api.md", import.meta.url), "utf8");
const EVENTS_SECRET = randomSecret();
const store = await startLocalStore();
after(() => store.stop());

for (const [language, file, command] of /** @type {[string, string, string][]} */ ([
  ["js", "receiver.mjs", process.execPath],
  ["python", "receiver.py", "python3"],
])) {
  test(`the receiver in ${language} takes our events, and none that is forged, old or changed`, async () => {
    const section = page.split("\n## Events\n")[1] ?? "";
    const program = section.match(new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, "s"))?.[1];
    assert.ok(program);
    const folder = await mkdtemp(join(tmpdir(), "cloakroom-"));
    await writeFile(join(folder, file), program);
    const PORT = String(await freePort());
    const env = { ...process.env, EVENTS_SECRET, PORT };
    const child = spawn(command, [file], { cwd: folder, env, stdio: ["ignore", "pipe", "ignore"] });
    const exited = once(child, "exit");
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (chunk) => (output += chunk));
    const url = `http://127.0.0.1:${PORT}/`;
    const settings = { password: FAST_HASH, events: { url } };
    const worker = await startWorker({ store, settings, secrets: { EVENTS_SECRET } });
    try {
      /** @param {string} body @param {number} at @param {string} secret @param {(signature: string) => string} [change] */
      const send = (body, at, secret, change = (signature) => signature) => {
        const seconds = Math.floor(at / 1000);
        const mac = createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex");
        const headers = { "Session-Signature": change(`t=${seconds},v1=${mac}`) };
        return fetch(url, { method: "POST", body, headers }).then(({ status }) => status);
      };
      const good = '{"id":"a","type":"session.reuse_detected","user":null}';
      await until(
        async () =>
          (await send(good, Date.now(), EVENTS_SECRET).catch(() => 0)) === 204 || child.exitCode !== null,
        () => "it does not start",
        1000,
      );
      // What it says arrives on a way of its own, behind its answer perhaps.
      await until(() => /^a session\.reuse_detected.*\n$/.test(output) || child.exitCode !== null);
      const seen = output.length;
      assert.match(output, /^a session\.reuse_detected/);
      assert.equal(await send(good, Date.now(), randomSecret()), 400);
      assert.equal(await send(good, Date.now() - 301_000, EVENTS_SECRET), 400);
      const wrong = ["", "t=1", "v1=00", `t=${Date.now()},v1=zz`];
      for (const text of wrong)
        assert.equal(await send(good, Date.now(), EVENTS_SECRET, () => text), 400, text);
      const later = (/** @type {string} */ signature) => signature.replace(/t=(\d+)\d/, "t=$10");
      const at = Math.floor(Date.now() / 10_000) * 10_000 + 1000;
      assert.equal(await send(good, at, EVENTS_SECRET, later), 400, "the time is signed");
      assert.equal(output.length, seen);

      const answer = await worker.visitor().register("Ada", `${language} correct horse`);
      assert.equal(answer.status, 201, answer.text);
      await until(() => /[\w-]{16} user\.registered Ada\n$/.test(output));
      await worker.idle();
      assert.doesNotMatch(worker.logs.join(""), /was not delivered/);
    } finally {
      child.kill();
      await exited;
      await worker.stop();
      await store.redis.flushDb();
      await rm(folder, { recursive: true });
    }
  });
}
