/** What docs/ names is there, and the import of accounts works as printed. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { pbkdf2Sync } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { startBoth } from "./support/worker.mjs";

const folder = new URL("../docs/", import.meta.url);
const root = new URL("../", import.meta.url);
const docs = readdirSync(folder)
  .filter((name) => name.endsWith(".md"))
  .map((name) => ({ name, text: readFileSync(new URL(name, folder), "utf8") }));

/** What tests are called in a file, of JavaScript or Rust. @param {string} path */
function titlesIn(path) {
  const source = readFileSync(new URL(path, root), "utf8");
  const titles = path.endsWith(".rs")
    ? source.matchAll(/#\[test\]\s+(fn) (\w+)\(/g)
    : source.matchAll(/\b(?:test|it|describe)\(\s*(["`])(.*?)\1,/gs);
  return [...titles].map(([, , title]) => title);
}

test("every test that is named exists", () => {
  let count = 0;
  for (const { name, text } of docs) {
    for (const [, path = "", title = ""] of text.matchAll(/`((?:tests|src)\/[\w./-]+) › (.+?)`/g)) {
      assert.ok(titlesIn(path).includes(title), `${name}: ${path} › ${title}`);
      count += 1;
    }
  }
  assert.ok(count > 50, `${count} found`);
});

test("every file that is named exists", () => {
  for (const { name, text } of docs) {
    const paths = text.matchAll(/`((?:src|tests|docs|tools|public)\/[\w./-]*)/g);
    for (const [, path = ""] of paths) assert.ok(existsSync(new URL(path, root)), `${name}: ${path}`);
    const links = text.matchAll(/\]\((?!https?:|#)([^)#]+)/g);
    for (const [, path = ""] of links) assert.ok(existsSync(new URL(path, folder)), `${name}: ${path}`);
  }
});

test("accounts of a Django site are imported, and log in", async () => {
  const script = docs.find(({ name }) => name === "security.md")?.text.match(/```python\n(.*?)```/s)?.[1];
  assert.ok(script);
  const hash = pbkdf2Sync("ключ от дома", "saltsalt", 1000, 32, "sha256").toString("base64");
  const fields = { password: `pbkdf2_sha256$1000$saltsalt$${hash}`, is_active: true };
  const users = ["Émile O'Neil", "ÉMILE O'NEIL", "Ada", "gone"].map((username, pk) => ({
    pk,
    fields: { ...fields, username, date_joined: "2024-01-02T03:04:05.678Z", groups: [["editors"], ['"\\']] },
  }));
  users.forEach(({ fields }) => (fields.is_active = fields.username !== "gone"));
  const input = JSON.stringify(users);
  const commands = execFileSync("python3", ["-c", script], { input, stdio: ["pipe", "pipe", "ignore"] });

  const { store, worker, stop } = await startBoth({
    secrets: { ADMIN_TOKEN: "pP3cVQ8m1dRk7ZtYw5sXbN2hJf6gLa9e" },
  });
  try {
    // As redis-cli reads them.
    const lines = commands.toString("utf8").trim().split("\n");
    assert.equal(lines.length, 2);
    for (const line of lines) {
      const words = [...line.matchAll(/"(.*?)"|(\S+)/g)].map(([, quoted, plain]) =>
        quoted === undefined
          ? Buffer.from(plain ?? "")
          : Buffer.from(
              quoted.replaceAll(/\\x(..)/g, (_, hex) => String.fromCharCode(parseInt(hex, 16))),
              "latin1",
            ),
      );
      assert.equal(String(await store.redis.sendCommand(words)), "1", line);
    }
    const json = { "Content-Type": "application/json" };
    const login = async (/** @type {string} */ username, password = "ключ от дома") => {
      const visitor = worker.visitor();
      const body = JSON.stringify({ username, password });
      return { visitor, answer: await visitor.send("POST", "/auth/login", { headers: json, body }) };
    };
    for (const round of ["imported", "upgraded"]) {
      assert.equal((await login("ada", "ключ от Дома")).answer.status, 401, round);
      const { visitor, answer } = await login("émile o'neil");
      assert.equal(answer.status, 200, answer.text);
      const user = { id: "django-0", name: "Émile O'Neil", roles: ["editors", '"\\'] };
      if (round === "imported") assert.deepEqual(answer.json.session.user, user);
      const headers = { ...json, Authorization: "Bearer pP3cVQ8m1dRk7ZtYw5sXbN2hJf6gLa9e" };
      const options = { headers, body: JSON.stringify({ roles: ["chief"] }) };
      assert.equal(
        (await worker.visitor().send("PUT", "/auth/admin/users/django-0/roles", options)).status,
        204,
      );
      assert.equal((await visitor.send("GET", "/auth/verify?role=chief")).status, 200);
    }
    assert.match(String(await store.redis.get("account:émile o'neil")), /"hash":"\$argon2id\$/);
    assert.equal((await login("gone")).answer.status, 401);
  } finally {
    await stop();
  }
});
