/** `npm start` as a person meets it: started for real, on a free port, with data and secrets in a temporary folder. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  realpath,
  rm,
  stat,
  symlink,
  writeFile,
} from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before, describe, it } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { freePort } from "../tools/port.mjs";

const run = promisify(execFile);
const root = fileURLToPath(new URL("..", import.meta.url));

/** The end of the last line that it says when it is ready. */
const READY = "rebuilds it.";
/** A first build of everything is among it. */
const PATIENCE_MS = 300_000;

/** @type {string} */
let temp;
/** @type {Set<import("node:child_process").ChildProcess>} */
const started = new Set();

before(async () => {
  temp = await mkdtemp(join(tmpdir(), "cloakroom-start-"));
});

after(async () => {
  for (const child of started) child.kill("SIGKILL");
  await rm(temp, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

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
    assert.equal((await stat(join(state, "store.vars"))).mode & 0o777, 0o600);
    for (const name of ["SESSION_SECRET", "ADMIN_TOKEN"]) {
      assert.match(secrets, new RegExp(`^${name}=[\\w-]{43,}$`, "m"));
    }
  });

  it("shows no secret in the list of processes", async () => {
    const { stdout } = await run("ps", ["-eo", "args"], { maxBuffer: 1e8 });
    const values = `${secrets}\n${await readFile(join(state, "store.vars"), "utf8")}`.match(
      /(?<==)'?[\w-]{32,}/g,
    );
    assert.equal(values?.length, 3);
    for (const value of values) assert.ok(!stdout.includes(value.replace("'", "")));
  });

  it("ends everything at one Ctrl-C", async () => {
    const response = await change({ coat: "green" });
    cookie = (response.headers.get("set-cookie") ?? "").split(";")[0];
    await endsAll(first, "SIGINT", 0);
    assert.equal(await freePort(port), port);
    assert.match(first.output(), /Stopped\.\n$/);
    assert.deepEqual(
      (await readdir(state)).filter((name) => /lock|store/.test(name)),
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

  async function data() {
    const response = await fetch(`http://localhost:${port}/auth/session`, { headers: { cookie } });
    return /** @type {any} */ (await response.json()).session?.data;
  }
});

describe("npm start with a database of one's own", () => {
  it("uses it, starts no Valkey, and says so when wrangler ends by itself", async () => {
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
      const wrangler = family.find(({ args }) => args.includes("cli.js"));
      process.kill(wrangler?.pid ?? assert.fail("no wrangler"), "SIGKILL");
      const { code, output } = await remote.ended;
      assert.equal(code, 1);
      assert.match(output, /wrangler dev ended by itself: what it said is above\.\n$/);
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

/** @typedef {Awaited<ReturnType<typeof start>>} Start */

/**
 * Starts it with data, secrets and a port of its own, except for those that are given.
 *
 * @param {{ env?: Record<string, string>, port?: number, state?: string, vars?: string, project?: string }} settings
 */
async function start({ env = {}, port, state, vars, project = root }) {
  const { UPSTASH_REDIS_REST_URL: _url, UPSTASH_REDIS_REST_TOKEN: _token, ...others } = process.env;
  const own = await mkdtemp(join(temp, "own-"));
  const options = ["--state", state ?? join(own, "state"), "--dev-vars", vars ?? join(own, "vars")];
  const child = spawn(process.execPath, [join(project, "tools/start.mjs"), ...options], {
    cwd: project,
    env: { ...others, PORT: String(port ?? (await freePort())), ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  started.add(child);
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text) => (said += text));
  /** @type {Promise<{ code: number | null, output: string }>} */
  const ended = new Promise((done) => {
    child.once("exit", (code) => {
      started.delete(child);
      // What it left behind may hold the pipes open: that is for `gone` to find.
      setTimeout(() => done({ code, output: said }), 50);
    });
  });
  return {
    pid: /** @type {number} */ (child.pid),
    output: () => said,
    ended,
    /** @param {NodeJS.Signals} signal */
    kill: (signal) => child.kill(signal),
    /** @param {string} text */
    async until(text) {
      const deadline = Date.now() + PATIENCE_MS;
      while (!said.includes(text)) {
        assert.equal(child.exitCode, null, said);
        assert.ok(Date.now() < deadline, said);
        await sleep(50);
      }
    },
  };
}

/**
 * @param {Start} what
 * @param {NodeJS.Signals} signal
 * @param {number | null} expected exit code
 */
async function endsAll(what, signal, expected) {
  const family = await familyOf(what.pid);
  for (const name of ["workerd", "valkey-server"])
    assert.ok(
      family.some(({ args }) => args.includes(name)),
      name,
    );
  what.kill(signal);
  assert.equal((await what.ended).code, expected, what.output());
  await gone(family);
}

/**
 * A process and all that it started, directly or not.
 *
 * @param {number} pid
 */
async function familyOf(pid) {
  const { stdout } = await run("ps", ["-eo", "pid=,ppid=,args="], { maxBuffer: 1e8 });
  const all = stdout.split("\n").map((line) => {
    const [, own, parent, args] = /^ *(\d+) +(\d+) (.*)$/.exec(line) ?? [];
    return { pid: Number(own), parent: Number(parent), args };
  });
  const family = all.filter((process) => process.pid === pid);
  for (const { pid } of family) family.push(...all.filter(({ parent }) => parent === pid));
  return family;
}

/** @param {{ pid: number, args: string }[]} family of which nobody may be left */
async function gone(family) {
  const deadline = Date.now() + 10_000;
  for (const { pid, args } of family) {
    while (await isAlive(pid)) {
      assert.ok(Date.now() < deadline, `still running: ${args}`);
      await sleep(20);
    }
  }
}

/**
 * Whether it runs. One that has ended and that nobody has waited for, as in a container without an init, does not.
 *
 * @param {number} pid
 */
async function isAlive(pid) {
  const { stdout } = await run("ps", ["-o", "stat=", "-p", String(pid)]).catch(() => ({ stdout: "" }));
  return /^[^Z]/.test(stdout.trim());
}

/**
 * A PATH on which there are these programs alone.
 *
 * @param {string[]} programs
 */
async function pathWith(...programs) {
  const folder = await mkdtemp(join(temp, "path-"));
  for (const program of programs) {
    for (const candidate of (process.env.PATH ?? "").split(delimiter)) {
      const found = await realpath(candidate)
        .then((real) => join(real, program))
        .catch(() => "");
      if (found && (await stat(found).catch(() => null))) {
        await symlink(found, join(folder, program)).catch(() => {}); // an earlier folder had it
      }
    }
  }
  return folder;
}
