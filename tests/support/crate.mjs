/**
 * The Worker of tests/fixtures/crate-worker, which uses the crate, in several isolates before one store; and a server
 * that it asks and waits for.
 */
import { once } from "node:events";
import { createServer } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { startLocalStore } from "../../tools/local-store/index.mjs";
import { buildFixture, buildRustWorker, startRustWorker } from "./rust-worker.mjs";
import { NO_LIMITS, randomSecret } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Visitor} Visitor */
/** @typedef {Awaited<ReturnType<typeof startRustWorker>>} Isolate */
/** @typedef {Awaited<ReturnType<typeof startUpstream>>} Upstream */
/** @typedef {Awaited<ReturnType<typeof startCrateWorkers>>} CrateWorkers */
/** What the fixture's `/operations` does; see operations.rs. @typedef {{ do: string, [more: string]: unknown }} Operation */

export const CRATE_WORKER = fileURLToPath(new URL("../fixtures/crate-worker", import.meta.url));
export const EXAMPLE = fileURLToPath(new URL("../../examples/worker", import.meta.url));

function signal() {
  let give = () => {};
  const given = new Promise((/** @type {(nothing: void) => void} */ resolve) => void (give = resolve));
  return { give, given };
}

/** A server whose answers a test makes, and can hold back. */
export async function startUpstream() {
  /** @type {import("node:http").RequestListener} */
  const plain = (_, response) => void response.end("upstream");
  let answer = plain;
  /** @type {{ arrive(): void, opened: Promise<void> } | undefined} */
  let gate;
  let calls = 0;
  const server = createServer(async (request, response) => {
    calls += 1;
    const held = gate;
    held?.arrive();
    await held?.opened;
    answer(request, response);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}`,
    /** How many requests there were. */
    get calls() {
      return calls;
    },
    /** Answers differently from here on. @param {import("node:http").RequestListener} listener */
    answerWith: (listener) => void (answer = listener),
    /** Lets requests wait from here on. `arrived`: the first one does. */
    hold() {
      const [arrived, opened] = [signal(), signal()];
      const mine = { arrive: arrived.give, opened: opened.given };
      gate = mine;
      const release = () => {
        if (gate === mine) gate = undefined;
        opened.give();
      };
      return { arrived: arrived.given, release };
    },
    reset() {
      [answer, calls, gate] = [plain, 0, undefined];
    },
    async stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/**
 * @param {object} options
 * @param {string} options.name  of the test: what is built for it is its own
 * @param {string} [options.folder]  of the Worker
 * @param {number} [options.isolates]
 * @param {object} [options.settings]  the CLOAKROOM table; without limits, unless it has some
 * @param {(upstream: string) => Record<string, unknown>} [options.bindings]  more of the environment
 */
export async function startCrateWorkers({
  name,
  folder = CRATE_WORKER,
  isolates = 2,
  settings,
  bindings = (upstream) => ({ UPSTREAM: upstream }),
}) {
  const built = await (folder === EXAMPLE
    ? buildRustWorker({ folder, name, args: ["--locked"] })
    : buildFixture({ folder, name }));
  const [store, upstream] = await Promise.all([startLocalStore(), startUpstream()]);
  const shared = { SESSION_SECRET: randomSecret(), ...bindings(upstream.url) };
  /**
   * One more isolate.
   * @param {{ settings?: object, secrets?: Record<string, unknown> }} [own]
   */
  const start = async (own = {}) => {
    const isolate = await startRustWorker(built, {
      store,
      settings: { limits: NO_LIMITS, ...settings, ...own.settings },
      secrets: { ...shared, ...own.secrets },
    });
    workers.push(isolate);
    return isolate;
  };
  /** @type {Isolate[]} */
  const workers = [];
  for (let index = 0; index < isolates; index += 1) await start();
  return {
    store,
    upstream,
    workers,
    start,
    /** All lines of all logs. */
    logs: () => workers.flatMap(({ logs }) => logs).join(""),
    async stop() {
      await Promise.all(workers.map((worker) => worker.stop()));
      await Promise.all([store.stop(), upstream.stop()]);
    },
  };
}

/**
 * Lets the fixture do these operations, all in one request.
 * @param {Visitor} visitor
 * @param {Operation[]} operations
 * @param {{ method?: "POST" | "GET", headers?: Record<string, string> }} [options]
 */
export function operate(visitor, operations, { method = "POST", headers } = {}) {
  const text = JSON.stringify(operations);
  if (method === "POST") return visitor.send("POST", "/operations", { headers, body: text });
  return visitor.send("GET", `/operations?run=${encodeURIComponent(text)}`, { headers });
}

/** The session's data, as any isolate sees it. @param {Visitor} visitor */
export async function dataOf(visitor) {
  return (await operate(visitor, [{ do: "data" }])).json[0];
}
