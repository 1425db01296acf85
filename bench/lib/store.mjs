/**
 * The store in a process of its own: the project's local store (Upstash's REST format on a real Valkey) for Workers,
 * and a door to the same Valkey in its own protocol, which delays and counts as well, for Node.
 */
import { fork } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** @typedef {Awaited<ReturnType<typeof startStore>>} Store */
/** @typedef {{ calls: number, commands: number, bytes: number }} Counted */

const self = fileURLToPath(import.meta.url);
const SESSION_KEY = /^sess(ion)?:/;

/** Whether a call would write a session. @param {{ commands: string[][] }} seen */
const isWrite = ({ commands }) =>
  commands.some(
    ([name = "", ...rest]) => /^(SET|EVAL)/i.test(name) && rest.some((text) => SESSION_KEY.test(text)),
  );

export async function startStore() {
  const child = fork(self, ["serve"]);
  /** @type {((answer: any) => void)[]} */
  const waiting = [];
  child.on("message", (answer) => waiting.shift()?.(answer));
  const next = () => new Promise((resolve) => waiting.push(resolve));
  const ask = (/** @type {object} */ question) => (child.send(question), next());
  const { url, token, socket, valkey } = await next();
  return {
    url,
    token,
    /** For a client that speaks Redis' own protocol. */
    socket,
    /** Valkey's own, past the door: nothing is delayed or counted. */
    valkey,
    /** @param {number} milliseconds before each call is served */
    setLatency: (milliseconds) => ask({ latency: milliseconds }),
    /** @param {string} key @param {string} value */
    set: (key, value) => ask({ set: [key, value] }),
    /**
     * So far; billed are also the commands that scripts run. `writes`: calls that would write a session, by a script or
     * not, while there is latency.
     * @returns {Promise<Record<"rest" | "own", Counted> & { writes: number }>}
     */
    count: () => ask({ count: true }),
    async stop() {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.disconnect();
      await gone;
    },
  };
}

async function serve() {
  const { startLocalStore } = await import("../../tools/local-store/index.mjs");
  const { startValkey } = await import("../../tools/valkey.mjs");
  const valkey = await startValkey({ log: console.error });
  const store = await startLocalStore({ valkey });
  const folder = await mkdtemp(join(tmpdir(), "bench-store-"));
  const door = join(folder, "socket");
  const own = { calls: 0, bytes: 0 };
  let latency = 0;
  let writes = 0;
  const when = (/** @type {{ commands: string[][] }} */ seen) => {
    writes += Number(isWrite(seen));
    return true;
  };

  const server = createServer((client) => {
    const redis = connect(valkey.socket);
    client.on("data", (chunk) => {
      own.calls += 1;
      own.bytes += chunk.length;
      if (latency) setTimeout(() => redis.write(chunk), latency);
      else redis.write(chunk);
    });
    redis.on("data", (chunk) => {
      own.bytes += chunk.length;
      client.write(chunk);
    });
    for (const [one, other] of [
      [client, redis],
      [redis, client],
    ]) {
      one.on("error", () => {});
      one.on("close", () => other.destroy());
    }
  }).listen(door);

  /** Commands that Valkey has run, for whomever; those of scripts too. */
  const executed = async () => {
    const stats = String(await store.redis.sendCommand(["INFO", "commandstats"]));
    let sum = 0;
    for (const [, name, calls] of stats.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)) {
      if (!/^(info|client|hello|command)/.test(name)) sum += Number(calls);
    }
    return sum;
  };

  process.on("message", async (/** @type {{ latency?: number, set?: [string, string] }} */ question) => {
    if (question.set) {
      await store.redis.set(...question.set);
      process.send?.({});
      return;
    }
    if (question.latency !== undefined) {
      latency = question.latency;
      store.faults.clear();
      if (latency) store.faults.always({ delay: latency }, { when });
      process.send?.({});
      return;
    }
    const { calls, commands, bytesIn, bytesOut } = store.counters;
    const rest = { calls, commands, bytes: bytesIn + bytesOut };
    process.send?.({ rest, own: { ...own, commands: await executed() }, writes });
  });
  process.on("SIGINT", () => {}); // the one who started us says when
  process.on("disconnect", async () => {
    server.close();
    await store.stop();
    await valkey.stop();
    await rm(folder, { recursive: true, force: true });
    process.exit();
  });
  process.send?.({ url: store.url, token: store.token, socket: door, valkey: valkey.socket });
}

if (process.argv[1] === self && process.argv[2] === "serve") await serve();
