/** docs/operations.md: its commands do what it says, as printed, and a restored database is as it warns. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { FAST_HASH, NO_LIMITS, randomSecret, startDeployment, until } from "./support/worker.mjs";

/** @import { LocalStore, Worker } from "./support/worker.mjs" */

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const page = readFileSync(new URL("../docs/operations.md", import.meta.url), "utf8");
const PASSWORD = "correct horse battery";
const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };

const { store, workers, start, stop } = await startDeployment([{}], {
  settings: { password: FAST_HASH, limits: NO_LIMITS },
  secrets: { ADMIN_TOKEN, SESSION_SECRET: randomSecret() },
});
const [worker] = workers;
const folder = await mkdtemp(join(tmpdir(), "cloakroom-operations-"));
after(async () => {
  await stop();
  await rm(folder, { recursive: true });
});

/** The text under a heading, as far as the next of any level; empty: above the first. @param {string} title */
function section(title) {
  const [head = "", ...others] = page.split(/^#{2,} /m);
  const found = title ? others.find((text) => text.startsWith(`${title}\n`)) : head;
  assert.ok(found, title);
  return found;
}

/** The blocks of a language under a heading. @param {string} title @param {string} language */
const blocks = (title, language) =>
  [...section(title).matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))].map(
    ([, block]) => block ?? "",
  );

/** The function `admin`, which the document's commands use. */
const [, define = ""] = blocks("", "sh");

/**
 * Runs commands in one shell, from the project's folder; `cookie.txt` stands in a folder of this test's.
 * @param {string} commands
 */
async function run(commands) {
  const text = `set -e\n${define}\n${commands}`.replaceAll("cookie.txt", join(folder, "cookie.txt"));
  const child = spawn("/bin/sh", ["-c", text], {
    cwd: ROOT,
    env: { ...process.env, CLOAKROOM_URL: worker.url, ADMIN_TOKEN },
  });
  const said = { out: "", err: "" };
  child.stdout.setEncoding("utf8").on("data", (chunk) => (said.out += chunk));
  child.stderr.setEncoding("utf8").on("data", (chunk) => (said.err += chunk));
  const [code] = await once(child, "close");
  return { code, ...said };
}

/** Somebody with an account, who is logged in. @param {string} name */
async function owner(name, at = worker) {
  const visitor = at.visitor();
  const { status, json, text } = await visitor.register(name, PASSWORD);
  assert.equal(status, 201, text);
  return { visitor, id: String(json.session.user.id) };
}

/** @param {string} name */
const logIn = async (name, password = PASSWORD, at = worker) =>
  (await at.visitor().login(name, password)).status;

test("of one user all sessions are ended and the account is closed; its owner gets back in by a reset", async () => {
  const [close = "", reopen = ""] = blocks("One user", "sh");
  const { visitor } = await owner("ada");
  assert.equal(await logIn("ada"), 200);
  const closed = await run(close);
  assert.equal(closed.code, 0, closed.err);
  assert.match(closed.out, /\{"ended":2\}/);
  assert.match(closed.out, /"disabled":true/);
  assert.equal(await visitor.session(), null);
  assert.equal(await logIn("ada"), 401);

  const opened = await run(reopen);
  assert.equal(opened.code, 0, opened.err);
  const [, token] = /"token":"([^"]+)"/.exec(opened.out) ?? [];
  const answer = await worker.visitor().tell("POST", "/reset", { token, new: `${PASSWORD} 2` });
  assert.equal(answer.status, 200, answer.text);
});

test("the function for the service API passes on errors, and its token stands in no list of processes", async () => {
  const { code, out } = await run('admin GET "users?name=nobody"');
  assert.notEqual(code, 0);
  assert.match(out, /"code":"not_found"/);
  // Whatever a command is given stands in that list; what the shell writes into a pipe does not.
  assert.match(define, /printf 'Authorization: Bearer %s\\n' "\$ADMIN_TOKEN" \|/);
  assert.doesNotMatch(define.split("|")[1] ?? "", /ADMIN_TOKEN/);
});

test("of a stolen cookie the session is found and ended, and no other", async () => {
  const { visitor } = await owner("bea");
  const other = worker.visitor();
  await other.login("bea", PASSWORD);
  await writeFile(join(folder, "cookie.txt"), `${other.cookieHeader()}\n`);
  const { code, out, err } = await run(blocks("A stolen cookie", "sh").join(""));
  assert.equal(code, 0, err);
  assert.match(out, /alive/);
  assert.equal(await other.session(), null);
  assert.notEqual(await visitor.session(), null);
});

test("a new signing secret in one step ends every session, and keeps accounts and profiles", async () => {
  const { visitor } = await owner("cleo");
  await visitor.tell("PATCH", "/profile", { city: "Alexandria" });
  const next = await start({ secrets: { SESSION_SECRET: randomSecret() } });
  assert.equal(await visitor.clone(next.url).session(), null);
  const again = next.visitor();
  assert.equal((await again.login("cleo", PASSWORD)).status, 200);
  assert.deepEqual((await again.send("GET", "/auth/profile")).json, { city: "Alexandria" });
});

test("while ADMIN_TOKEN is replaced, a back end with both tokens is served by every isolate", async () => {
  const [code = ""] = blocks("ADMIN_TOKEN", "js");
  const NEW = randomSecret();
  const next = await start({ secrets: { ADMIN_TOKEN: NEW } });
  await writeFile(join(folder, "admin.mjs"), code);
  const { admin: ask } = await import(join(folder, "admin.mjs"));
  for (const { url } of [worker, next]) {
    Object.assign(process.env, { CLOAKROOM_URL: url, ADMIN_TOKENS: `${NEW},${ADMIN_TOKEN}` });
    assert.equal((await ask("stats")).status, 200);
    process.env.ADMIN_TOKENS = randomSecret();
    assert.equal((await ask("stats")).status, 401);
  }
  for (const name of ["CLOAKROOM_URL", "ADMIN_TOKENS"]) delete process.env[name];
});

test("health and counters are looked at as printed; the table's counters exist", async () => {
  const commands = blocks("Watching", "sh").join("");
  const { code, out, err } = await run(commands.replace(/^npx .*$/m, ""));
  assert.equal(code, 0, err);
  assert.match(out, /^\{"status":"ok"\}/);
  const { json } = await worker.visitor().send("GET", "/auth/admin/stats", { headers: admin });
  await worker.moveClock(60_000);
  await until(async () => {
    const { days } = (await worker.visitor().send("GET", "/auth/admin/stats", { headers: admin })).json;
    return days.length > 0;
  });
  const [day] = (await worker.visitor().send("GET", "/auth/admin/stats", { headers: admin })).json.days;
  assert.ok(json.signing_keys.length > 0);
  const named = [
    "failed_logins",
    "logins",
    "sessions_created",
    "rate_limited",
    "passed_uncounted",
    "events_lost",
  ];
  for (const name of named) {
    assert.ok(section("Watching").includes(`\`${name}\``), name);
    assert.equal(typeof day[name], "number", name);
  }
});

test("wrangler knows every command and option that the document names", async () => {
  const named = [
    ...page.matchAll(/npx wrangler ([a-z ]+?)((?: --[a-z-]+)*)(?= [A-Z'"]|[`\n]| new-| {2}|$)/gm),
  ];
  assert.ok(named.length > 6, `${named.length}`);
  /** @type {Map<string, string>} */
  const helps = new Map();
  for (const [, command = "", options = ""] of named) {
    const words = command.trim().split(" ");
    if (!helps.has(command)) {
      const { stdout } = await promisify(execFile)("npx", ["wrangler", ...words, "--help"], { cwd: ROOT });
      helps.set(command, stdout);
    }
    const help = helps.get(command) ?? "";
    assert.match(help, new RegExp(`^wrangler ${command.trim()}\\b`, "m"), command);
    for (const option of options.trim().split(" ").filter(Boolean)) assert.ok(help.includes(option), option);
  }
});

test("the files that SECURITY.md names exist, and the heading", () => {
  const text = readFileSync(new URL("../SECURITY.md", import.meta.url), "utf8");
  const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, path = ""]) => path);
  assert.ok(links.includes("docs/operations.md"));
  for (const path of links) assert.ok(existsSync(join(ROOT, path)), path);
  assert.ok(section("An incident"));
});

/** Everything that is in the database, with what is left of its life. */
async function backUp() {
  const keys = await store.redis.keys("*");
  return Promise.all(
    keys.map(async (key) => ({ key, ttl: await store.redis.pTTL(key), dump: await dumpOf(key) })),
  );
}

/** @param {string} key */
const dumpOf = (key) => store.redis.withTypeMapping({ 36: Buffer }).sendCommand(["DUMP", key]);

/** What Upstash does: the database's own content is deleted first. @param {Awaited<ReturnType<typeof backUp>>} backup */
async function restore(backup) {
  await store.redis.flushAll();
  for (const { key, ttl, dump } of backup) {
    const args = ["RESTORE", key, String(Math.max(ttl, 0)), /** @type {any} */ (dump)];
    assert.equal(String(await store.redis.sendCommand(args)), "OK", key);
  }
}

test("a restore brings back ended sessions, old passwords and disabled accounts; a new secret ends the sessions", async () => {
  // 1. At the time of the backup.
  const gone = await owner("dora");
  const changed = await owner("emma");
  const disabled = await owner("fay");
  const stolen = changed.visitor.clone();
  const left = gone.visitor.clone();
  const backup = await backUp();

  // 2. What happens after it.
  assert.equal((await gone.visitor.logout()).status, 204);
  const change = { current: PASSWORD, new: `${PASSWORD} 2` };
  assert.equal((await changed.visitor.tell("POST", "/password", change)).status, 200);
  const path = `/admin/users/${disabled.id}`;
  assert.equal((await worker.visitor().tell("PATCH", path, { disabled: true }, admin)).status, 200);
  const isolate = await start();
  for (const visitor of [left, stolen]) assert.equal(await visitor.clone(isolate.url).session(), null);
  assert.deepEqual([await logIn("emma"), await logIn("fay")], [401, 401]);

  // 3. All of that is undone.
  await restore(backup);
  const restored = await start();
  for (const visitor of [left, stolen]) assert.notEqual(await visitor.clone(restored.url).session(), null);
  assert.equal(await logIn("emma", PASSWORD, restored), 200);
  assert.equal(await logIn("emma", `${PASSWORD} 2`, restored), 401);
  assert.equal(await logIn("fay", PASSWORD, restored), 200);

  // 4. With a new secret no cookie of before counts; what was done to accounts has to be done again.
  const fresh = await start({ secrets: { SESSION_SECRET: randomSecret() } });
  for (const visitor of [left, stolen, changed.visitor]) {
    assert.equal(await visitor.clone(fresh.url).session(), null);
  }
  assert.equal((await fresh.visitor().tell("PATCH", path, { disabled: true }, admin)).status, 200);
  assert.equal(await logIn("fay", PASSWORD, fresh), 401);
});
