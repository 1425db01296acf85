/** What the README says, done as printed. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { promisify } from "node:util";
import { startApp } from "./support/app.mjs";
import { startBoth } from "./support/worker.mjs";

const root = new URL("../", import.meta.url);
const readme = readFileSync(new URL("README.md", root), "utf8");

/** What differs from run to run. @param {string} output */
const settled = (output) =>
  output
    .replaceAll(/"handle":"[\w-]{24}"/g, '"handle":"…"')
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "…")
    .trim();

test("the curl lines work as printed", async () => {
  const blocks = [...readme.matchAll(/```console\n(.*?)```/gs)].map(([, block]) => block ?? "");
  const steps = blocks.flatMap((block) => block.split(/^\$ /m).slice(1));
  assert.ok(steps.length >= 6, `${steps.length} commands found`);
  const app = await startApp();
  const cwd = await mkdtemp(join(tmpdir(), "cloakroom-"));
  try {
    for (const step of steps) {
      const [command = "", ...expected] = step.split("\n");
      const here = command.replace("localhost:8787", app.url.replace("http://", ""));
      const { stdout } = await promisify(execFile)("/bin/sh", ["-c", here], { cwd });
      assert.equal(settled(stdout), settled(expected.join("\n")), command);
    }
  } finally {
    await app.stop();
    await rm(cwd, { recursive: true });
  }
});

test("every setting of the table exists, and its default is accepted", async () => {
  /** @type {Record<string, any>} */
  const settings = {};
  const rows = [...readme.matchAll(/^\| `([\w.]+)` \| `(.+?)` \|/gm)];
  for (const [, name = "", value = ""] of rows) {
    const [inner = "", outer] = name.split(".").reverse();
    (outer ? (settings[outer] ??= {}) : settings)[inner] = JSON.parse(value);
  }
  assert.ok(rows.length > 30);
  const { worker, stop } = await startBoth({ settings });
  try {
    assert.equal((await worker.visitor().send("GET", "/auth/health")).status, 200, worker.logs.join(""));
  } finally {
    await stop();
  }
});

test("the map names existing files, and all of src", () => {
  const map = readme.match(/### The map of the house\n\n```\n(.*?)```/s)?.[1] ?? "";
  const rooms = map.split("\n").filter(Boolean);
  let top = "";
  /** @type {string[]} */
  const inSource = [];
  for (const room of rooms) {
    const indented = room.startsWith("  ");
    for (const name of (room.trim().split(/ {2,}/)[0] ?? "").split(", ")) {
      if (!indented) top = name;
      const path = indented ? top + name : name;
      assert.ok(existsSync(new URL(path, root)), path);
      if (indented) inSource.push(name.replace("/", ""));
    }
  }
  const sources = readdirSync(new URL("src/", root)).filter((name) => !name.endsWith(".d.ts"));
  assert.deepEqual(inSource.sort(), sources.sort());
});
