/**
 * What the scripts in tools/ have in common: saying what a slow step does, and running other programs
 * so that none of them outlives the script. Needs Node alone.
 */
import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

/** The project's folder, with a slash at its end. */
export const ROOT = fileURLToPath(new URL("..", import.meta.url));

const SLOW_MS = 2000;
const PATIENCE_MS = 5000;

for (const stream of [process.stdout, process.stderr]) {
  stream.on("error", () => {}); // the terminal is gone: that must not keep us from ending in order
}

/** @param {string} line */
export function say(line) {
  process.stdout.write(`${line}\n`);
}

/** @param {number} since of `Date.now()` */
export function took(since) {
  const seconds = (Date.now() - since) / 1000;
  return seconds < 60
    ? `${seconds.toFixed(1)} s`
    : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

/**
 * Says what happens, does it, and says how long it took when that was long.
 *
 * @template T
 * @param {string} what
 * @param {() => Promise<T>} work
 * @returns {Promise<T>}
 */
export async function step(what, work) {
  const since = Date.now();
  say(`${what} …`);
  const result = await work();
  if (Date.now() - since > SLOW_MS) say(`  done in ${took(since)}`);
  return result;
}

/**
 * An expected mistake is an `Error` whose message is the sentence to read. Anything else is a mistake of
 * ours, and keeps its stack.
 *
 * @param {unknown} error
 */
export function sentence(error) {
  if (!(error instanceof Error)) return String(error);
  return error.constructor === Error ? error.message : (error.stack ?? error.message);
}

// A program runs in a process group of its own, under a shell that holds the other end of a pipe from us. So
// Ctrl-C reaches us alone, and when the pipe closes, because we want it to or because we are gone, the shell
// asks the program to end.
const GUARD = [
  'exec 3<&0; "$@" 3<&- </dev/null & program=$!',
  "{ read -r _ <&3; kill $program; } 2>/dev/null & watch=$!",
  "wait $program; code=$?; kill $watch 2>/dev/null; exit $code",
].join("\n");

/** @type {Set<Program>} */
const running = new Set();

/**
 * @typedef {object} Program
 * @property {number} pid of its process group
 * @property {import("node:stream").Readable | null} stdout with `capture`
 * @property {import("node:stream").Readable | null} stderr with `capture`
 * @property {Promise<number>} exited resolves to its exit code
 * @property {() => Promise<void>} stop asks it to end, and after some seconds makes it
 * @property {() => void} kill
 */

/**
 * Starts a program in the project's folder, without a standard input.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{ env?: Record<string, string>, capture?: boolean }} [options] `env` is added to ours; `capture`: its
 *   output comes through `stdout` and `stderr`, else it goes where ours goes
 * @returns {Program}
 */
export function launch(command, args, { env = {}, capture = false } = {}) {
  const output = capture ? "pipe" : "inherit";
  const child = spawn("/bin/sh", ["-c", GUARD, "sh", command, ...args], {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ["pipe", output, output],
    detached: true,
  });
  child.stdin?.on("error", () => {}); // it ended first; `exited` tells
  return supervise(child, () => child.stdin?.end());
}

/**
 * Starts a script of ours, which is to end when the channel to it closes: because we want it to or because we are
 * gone. Each message that is sent is answered by one.
 *
 * @param {string} script in the project's folder
 * @param {{ env?: Record<string, string> }} [options] `env` is added to ours
 * @returns {Program & { ask: (message: object) => Promise<any> }} `ask` has no answer of a script that has ended
 */
export function launchScript(script, { env = {} } = {}) {
  const child = fork(script, {
    cwd: ROOT,
    env: { ...process.env, ...env },
    stdio: ["ignore", "inherit", "inherit", "ipc"],
    detached: true,
  });
  const program = supervise(child, () => child.connected && child.disconnect());
  return Object.assign(program, {
    ask: async (/** @type {object} */ message) => {
      child.send(message, () => {}); // it ended first; `exited` tells
      const [answer] = await once(child, "message");
      return answer;
    },
  });
}

/**
 * @param {import("node:child_process").ChildProcess} child the first of a process group of its own
 * @param {() => void} ask it to end
 * @returns {Program}
 */
function supervise(child, ask) {
  const kill = () => {
    try {
      process.kill(-(/** @type {number} */ (child.pid)), "SIGKILL");
    } catch {} // all gone already
  };
  const exited = once(child, "exit").then(([code]) => {
    kill(); // what it may have left behind
    running.delete(program);
    return code ?? 1;
  });
  const stop = async () => {
    ask();
    const impatient = setTimeout(kill, PATIENCE_MS);
    await exited;
    clearTimeout(impatient);
  };
  const pid = /** @type {number} */ (child.pid);
  const program = { pid, stdout: child.stdout, stderr: child.stderr, exited, stop, kill };
  running.add(program);
  return program;
}

/** Ends every program that was launched and still runs. */
export async function stopPrograms() {
  await Promise.all([...running].map((program) => program.stop()));
}

/** The same at once, for the impatient. */
export function killPrograms() {
  for (const program of running) program.kill();
}

/**
 * Runs a program to its end and returns what it said. Never throws: without such a program the code is 127.
 *
 * @param {string} command
 * @param {string[]} args
 * @param {{ env?: Record<string, string> }} [options]
 * @returns {Promise<{ code: number, output: string }>}
 */
export async function capture(command, args, options = {}) {
  const program = launch(command, args, { ...options, capture: true });
  let output = "";
  const ends = [program.stdout, program.stderr].map(async (stream) => {
    for await (const text of stream?.setEncoding("utf8") ?? []) output += text;
  });
  const code = await program.exited;
  await Promise.all(ends);
  return { code, output };
}
