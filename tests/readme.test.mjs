/** What the README and docs/ print of curl, done as printed; and that what they name is there. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { cp, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parseEnv, promisify } from "node:util";
import { startApp } from "./support/app.mjs";
import { startBoth } from "./support/worker.mjs";

const root = new URL("../", import.meta.url);
const readme = readFileSync(new URL("README.md", root), "utf8");
const guides = ["README.md", ...readdirSync(new URL("docs/", root)).map((name) => `docs/${name}`)]
  .filter((name) => name.endsWith(".md"))
  .map((name) => ({ name, text: readFileSync(new URL(name, root), "utf8") }));

/** What differs from run to run. @param {string} output */
const settled = (output) =>
  output
    .replaceAll(/"handle":"[\w-]{24}"/g, '"handle":"…"')
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "…")
    .trim();

test("the curl lines of the README and of docs/ work as printed", async () => {
  const app = await startApp();
  const cwd = await mkdtemp(join(tmpdir(), "cloakroom-"));
  await cp(app.secrets, join(cwd, ".dev.vars"));
  const { ADMIN_TOKEN } = parseEnv(await readFile(app.secrets, "utf8"));
  try {
    let count = 0;
    for (const { name, text } of guides) {
      const blocks = [...text.matchAll(/```console\n(.*?)```/gs)].map(([, block]) => block ?? "");
      for (const step of blocks.flatMap((block) => block.split(/^\$ /m).slice(1))) {
        const [command = "", ...expected] = step.split("\n");
        const here = command.replace("localhost:8787", app.url.replace("http://", ""));
        // Each has a shell of its own, in which an exported variable would not last.
        const env = { ...process.env, ADMIN_TOKEN };
        const { stdout } = await promisify(execFile)("/bin/sh", ["-c", here], { cwd, env });
        assert.equal(settled(stdout), settled(expected.join("\n")), `${name}: ${command}`);
        count += 1;
      }
    }
    assert.ok(count > 20, `${count} commands found`);
  } finally {
    await app.stop();
    await rm(cwd, { recursive: true });
  }
});

test("every setting of the table exists, and its default is accepted", async () => {
  /** @type {Record<string, any>} */
  const settings = {};
  const table = readFileSync(new URL("docs/configuration.md", root), "utf8");
  const rows = [...table.matchAll(/^\| `([\w.]+)` \| `(.+?)` \|/gm)];
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

test("every link leads to a file, and to a heading of it", () => {
  const slug = (/** @type {string} */ heading) =>
    heading
      .toLowerCase()
      .replaceAll(/[^\w\s-]/g, "")
      .trim()
      .replaceAll(" ", "-");
  let count = 0;
  for (const { name, text } of guides) {
    for (const [, path = "", anchor] of text.matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)/g)) {
      const target = path ? new URL(path, new URL(name, root)) : new URL(name, root);
      assert.ok(existsSync(target), `${name}: ${path}`);
      if (!anchor) continue;
      const headings = [...readFileSync(target, "utf8").matchAll(/^#+ (.*)$/gm)].map(([, it = ""]) =>
        slug(it),
      );
      assert.ok(headings.includes(anchor), `${name}: ${path}#${anchor}`);
      count += 1;
    }
  }
  assert.ok(count > 3);
});
