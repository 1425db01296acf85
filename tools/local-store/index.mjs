/**
 * The local store: a server that speaks Upstash's REST wire format in front of a real Valkey. `npm start`
 * uses it with data on disk; tests use it with faults and counters.
 */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { createClient } from "@redis/client";
import { startValkey } from "../valkey.mjs";
import { Counters } from "./counters.mjs";
import { Database } from "./database.mjs";
import { Faults } from "./faults.mjs";
import { handler } from "./handler.mjs";

/** @typedef {Awaited<ReturnType<typeof startLocalStore>>} LocalStore */

/**
 * @param {object} [options]
 * @param {number} [options.port] on 127.0.0.1; 0 for any that is free
 * @param {string} [options.token] random if not given
 * @param {import("../valkey.mjs").Valkey} [options.valkey] a server to use, which is not stopped with the store
 * @param {string} [options.dir] where the data is kept; without it nothing is
 * @param {(line: string) => void} [options.log] says what a slow step does
 */
export async function startLocalStore({
  port = 0,
  token = randomBytes(24).toString("hex"),
  valkey,
  dir,
  log,
} = {}) {
  const server = valkey ?? (await startValkey({ dir, log }));
  const counters = new Counters();
  const database = await Database.open(server.socket, counters);
  const faults = new Faults(database.replica);
  const redis = createClient({ socket: { path: server.socket, tls: false, reconnectStrategy: false } });
  redis.on("error", () => {}); // whoever sent a command hears of it
  await redis.connect();

  const http = createServer({ keepAliveTimeout: 65_000 }, handler({ token, database, counters, faults }));
  const listen = async () => {
    http.listen(port, "127.0.0.1");
    await once(http, "listening");
    port = /** @type {import("node:net").AddressInfo} */ (http.address()).port;
  };
  const stopListening = async () => {
    if (!http.listening) return;
    const closed = once(http, "close");
    http.close();
    http.closeAllConnections();
    await closed;
  };

  const stop = async () => {
    await stopListening();
    faults.clear();
    redis.destroy();
    database.close();
    if (!valkey) await server.stop();
  };
  try {
    await listen();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    url: `http://127.0.0.1:${port}`,
    token,
    /** What goes wrong. */
    faults,
    /** What was asked for. */
    counters,
    /** A plain client for looking into the store, past the wire, faults and counters. Lag does not see its writes. */
    redis,
    /** From here on connections are refused, and those there are end. */
    stopListening,
    /** Listens again, on the same port. */
    resumeListening: listen,
    /** Ends everything; what is in `dir` stays. */
    stop,
  };
}
