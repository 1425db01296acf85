/** `npm start`: that it starts, keeps what it should, ends all of it, and what it says to a machine that lacks something. */
import assert from "node:assert/strict";
import { cp, mkdir, readdir, readFile, stat, symlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { before, describe, it } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { freePort } from "../tools/port.mjs";
import { endsAll, familyOf, gone, pathWith, READY, root, run, start, temp } from "./support/start.mjs";

/** @import { Start } from "./support/start.mjs" */

describe("npm start, again and again on the same data", () => {
  /** @type {Start} */
  let first;
  /** @type {Start} */
  let second;
  let port = 0;
  let state = "";
  let vars = "";
  let secrets = "";
  let cookie = "";

  before(async () => {
    port = await freePort();
    state = join(temp, "state");
    vars = join(temp, "vars");
  });

  it("prints the address once it answers", async () => {
    first = await start({ port, state, vars });
    await first.until(READY);
    assert.match(first.output(), new RegExp(`Cloakroom is at +http://localhost:${port}\n`));
    assert.ok(first.output().includes(`Sessions are in  ${join(state, "data")}`));
    assert.equal((await fetch(`http://localhost:${port}/auth/health`)).status, 200);
    assert.equal((await fetch(`http://127.0.0.1:${port}/auth/health`)).status, 200);
  });

  it("makes random secrets that only their owner reads", async () => {
    secrets = await readFile(vars, "utf8");
    assert.equal((await stat(vars)).mode & 0o777, 0o600);
    for (const name of ["SESSION_SECRET", "ADMIN_TOKEN"]) {
      assert.match(secrets, new RegExp(`^${name}=[\\w-]{43,}$`, "m"));
    }
  });

  it("shows no secret in the list of processes", async () => {
    const { stdout } = await run("ps", ["-eo", "args"], { maxBuffer: 1e8 });
    const values = secrets.match(/(?<==)[\w-]{32,}/g);
    assert.equal(values?.length, 2);
    for (const value of values) assert.ok(!stdout.includes(value));
  });

  it("ends everything at one Ctrl-C", async () => {
    const response = await change({ coat: "green" });
    cookie = (response.headers.get("set-cookie") ?? "").split(";")[0];
    await endsAll(first, "SIGINT", 0);
    assert.equal(await freePort(port), port);
    assert.match(first.output(), /Stopped\.\n$/);
    assert.deepEqual(
      (await readdir(state)).filter((name) => /lock/.test(name)),
      [],
    );
  });

  it("keeps the session and the secrets until the next start", async () => {
    second = await start({ port, state, vars });
    await second.until(READY);
    assert.equal(await readFile(vars, "utf8"), secrets);
    assert.deepEqual(await data(), { coat: "green" });
  });

  it("refuses a second start on the same data", async () => {
    const { code, output } = await (await start({ state })).ended;
    assert.equal(code, 1);
    assert.match(
      output,
      /^npm start is already running here \(process \d+, http:\/\/localhost:\d+\): stop it first/,
    );
    assert.equal(output.trim().split("\n").length, 1);
  });

  it("starts on a copy of its folder that was made while it runs, with what was in there", async () => {
    const copy = join(temp, "copied");
    await cp(state, copy, { recursive: true });
    const other = await freePort();
    const copied = await start({ port: other, state: copy, vars });
    await copied.until(READY);
    assert.deepEqual(await data(other), { coat: "green" });
    await endsAll(copied, "SIGINT", 0);
    assert.deepEqual(await data(), { coat: "green" });
  });

  it("refuses a port that is in use, before anything slow", async () => {
    const { code, output } = await (await start({ port })).ended;
    assert.equal(code, 1);
    assert.match(
      output,
      new RegExp(`^Port ${port} is in use.*\\. Stop what uses it, or choose another: PORT=`),
    );
    assert.equal(output.trim().split("\n").length, 1);
  });

  it("leaves nothing behind when it is killed", () => endsAll(second, "SIGKILL", null));

  it("starts again after a killed one, and ends at SIGTERM", async () => {
    const third = await start({ port, state, vars });
    await third.until(READY);
    assert.deepEqual(await data(), { coat: "green" });
    await endsAll(third, "SIGTERM", 0);
  });

  /** @param {object} patch */
  function change(patch) {
    const headers = { "content-type": "application/json" };
    const body = JSON.stringify(patch);
    return fetch(`http://localhost:${port}/auth/session/data`, { method: "PATCH", headers, body });
  }

  async function data(at = port) {
    const response = await fetch(`http://localhost:${at}/auth/session`, { headers: { cookie } });
    return /** @type {any} */ (await response.json()).session?.data;
  }
});

describe("npm start with a database of one's own", () => {
  it("uses it, starts no Valkey, and says so when the Worker ends by itself", async () => {
    const store = await startLocalStore();
    try {
      const mine = "SESSION_SECRET=a-secret-of-my-own-which-nobody-may-touch"; // and no newline
      const file = join(temp, "own-vars");
      await writeFile(file, mine);
      const env = { UPSTASH_REDIS_REST_URL: store.url, UPSTASH_REDIS_REST_TOKEN: store.token };
      const remote = await start({ env, vars: file });
      await remote.until(READY);
      assert.ok(remote.output().includes(`the database at ${new URL(store.url).host}`));
      assert.ok(!remote.output().includes(store.token));
      assert.ok(store.counters.calls > 0);
      assert.match(await readFile(file, "utf8"), new RegExp(`^${mine}\n\n#.*\nADMIN_TOKEN=[\\w-]{43,}\n$`));

      const family = await familyOf(remote.pid);
      assert.ok(!family.some(({ args }) => args.includes("valkey-server")));
      const workerd = family.find(({ args }) => args.includes("workerd serve"));
      process.kill(workerd?.pid ?? assert.fail("no workerd"), "SIGKILL");
      const { code, output } = await remote.ended;
      assert.equal(code, 1);
      assert.match(output, /The Worker's process ended by itself: what it said is above\.\n$/);
      await gone(family);
    } finally {
      await store.stop();
    }
  });

  for (const [there, missing] of [
    ["UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"],
    ["UPSTASH_REDIS_REST_TOKEN", "UPSTASH_REDIS_REST_URL"],
  ]) {
    it(`asks for ${missing} when only the other is set`, async () => {
      const { code, output } = await (await start({ env: { [there]: "https://name.upstash.io" } })).ended;
      assert.equal(code, 1);
      assert.match(output, new RegExp(`^${there} is set but ${missing} is not: .*\n$`));
    });
  }
});

describe("npm start on a machine that lacks something", () => {
  it("says how to get Rust", async () => {
    const { code, output } = await (
      await start({ env: { PATH: await pathWith("node", "npm", "python3") } })
    ).ended;
    assert.equal(code, 1);
    assert.match(output, /^Rust is missing .*https:\/\/rustup\.rs.*\n$/);
  });

  it("says how to get Python, for the local store's Valkey", async () => {
    const copy = join(temp, "copy"); // a project that has not fetched its Valkey yet
    await mkdir(copy);
    for (const name of ["tools", "package.json", "package-lock.json", "Cargo.toml", "wrangler.toml"]) {
      await cp(join(root, name), join(copy, name), { recursive: true });
    }
    await symlink(join(root, "node_modules"), join(copy, "node_modules"));
    const PATH = await pathWith("node", "npm", "cargo", "rustc");
    const { code, output } = await (await start({ env: { PATH }, project: copy })).ended;
    assert.equal(code, 1);
    assert.match(output, /Python 3/);
    assert.doesNotMatch(output, /^ +at /m);
  });

  it("knows its options", async () => {
    const { code, output } = await (await start({ port: 123456 })).ended;
    assert.equal(code, 1);
    assert.match(output, /^Options are .*a port is a number from 1 to 65535, not "123456"\.\n$/);
  });
});
