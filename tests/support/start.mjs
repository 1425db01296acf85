/** `npm start` as a person meets it: started for real, on a free port, with data and secrets in a temporary folder. */
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdtemp, realpath, rm, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { after, before } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { freePort } from "../../tools/port.mjs";

export const run = promisify(execFile);
export const root = fileURLToPath(new URL("../..", import.meta.url));

/** The end of the last line that it says when it is ready. */
export const READY = "is taken up at once.";
/** A first build of everything is among it. */
const PATIENCE_MS = 300_000;

/** A folder for the tests of a file. @type {string} */
export let temp;
/** @type {Set<import("node:child_process").ChildProcess>} */
const started = new Set();

before(async () => {
  temp = await mkdtemp(join(tmpdir(), "cloakroom-start-"));
});

after(async () => {
  for (const child of started) child.kill("SIGKILL");
  await rm(temp, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
});

/** @typedef {ReturnType<typeof startScript>} Start */

/**
 * Starts it with data, secrets and a port of its own, except for those that are given.
 *
 * @param {{ env?: Record<string, string>, port?: number, state?: string, vars?: string, config?: string, project?: string, more?: string[] }} settings
 */
export async function start({ env = {}, port, state, vars, config, project = root, more = [] }) {
  const own = await mkdtemp(join(temp, "own-"));
  const options = ["--state", state ?? join(own, "state"), "--dev-vars", vars ?? join(own, "vars")];
  if (config) options.push("--config", config);
  options.push(...more);
  const PORT = String(port ?? (await freePort()));
  return startScript(join(project, "tools/start.mjs"), options, { cwd: project, env: { PORT, ...env } });
}

/**
 * Starts a script as a person does.
 *
 * @param {string} script
 * @param {string[]} options
 * @param {{ cwd?: string, env?: Record<string, string> }} [where]
 */
export function startScript(script, options, { cwd = root, env = {} } = {}) {
  const { UPSTASH_REDIS_REST_URL: _url, UPSTASH_REDIS_REST_TOKEN: _token, ...others } = process.env;
  const child = spawn(process.execPath, [script, ...options], {
    cwd,
    env: { ...others, ...env },
    stdio: ["pipe", "pipe", "pipe"],
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
    /** What is typed at its terminal. @param {string} text */
    type: (text) => child.stdin.write(text),
    /** @param {string | RegExp} text */
    async until(text) {
      await this.when(() => (typeof text === "string" ? said.includes(text) : text.test(said)));
    },
    /** Waits until something is so. @param {() => unknown} isSo */
    async when(isSo) {
      const deadline = Date.now() + PATIENCE_MS;
      while (!(await isSo())) {
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
export async function endsAll(what, signal, expected) {
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
export async function familyOf(pid) {
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
export async function gone(family) {
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
export async function pathWith(...programs) {
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
