/**
 * The local store: a server that speaks Upstash's REST wire format in front of a real Valkey. `npm start`
 * uses it with data on disk; tests use it with faults and counters.
 */
import { randomBytes } from "node:crypto";
import { createClient } from "@redis/client";
import { startValkey } from "../valkey.mjs";
import { Counters } from "./counters.mjs";
import { Database } from "./database.mjs";
import { Faults } from "./faults.mjs";
import { handler } from "./handler.mjs";
import { Listener } from "./listener.mjs";

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
  const faults = new Faults(database.replication);
  const redis = createClient({ socket: { path: server.socket, tls: false, reconnectStrategy: false } });
  redis.on("error", () => {}); // the sender of a command gets the error
  await redis.connect();

  const listen = (/** @type {number | undefined} */ region, /** @type {number} */ port) =>
    new Listener(handler({ token, database, counters, faults, region }), port);
  const listeners = [listen(undefined, port)];
  const stopListening = () => Promise.all(listeners.map((listener) => listener.close()));
  const resumeListening = () => Promise.all(listeners.map((listener) => listener.open()));
  /** @type {Map<number, Promise<string>>} */
  const regions = new Map();
  const openRegion = async (/** @type {number} */ region) => {
    const listener = listen(region, 0);
    listeners.push(listener);
    await listener.open();
    return listener.url;
  };

  const stop = async () => {
    await stopListening();
    faults.clear();
    redis.destroy();
    database.close();
    if (!valkey) await server.stop();
  };
  try {
    await resumeListening();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    /** For callers anywhere: each read is served by the next replica in turn. */
    url: listeners[0].url,
    /**
     * The same for callers of one region, which is always served by the same replica: region 1 by the one whose lag is
     * `faults.lags[1]`; when there are fewer, regions share them.
     * @param {number} region
     * @returns {Promise<string>}
     */
    urlOf(region) {
      const url = regions.get(region) ?? openRegion(region);
      regions.set(region, url);
      return url;
    },
    token,
    /** The unix socket of the server itself, for an application that uses the same database without the wire. */
    socket: server.socket,
    /** What goes wrong. */
    faults,
    /** What was asked for. */
    counters,
    /** A plain client for looking into the store, past the wire, faults and counters. Lag does not see its writes. */
    redis,
    /** What `TIME` says, in milliseconds since 1970. */
    now: () => Date.now() + database.clockAhead,
    /** Moves what `TIME` says; times to live stay real. @param {number} milliseconds */
    moveClock: (milliseconds) => void (database.clockAhead += milliseconds),
    /** From here on connections are refused, and those there are end. */
    stopListening,
    /** Listens again, on the same ports. */
    resumeListening,
    /** Ends everything; what is in `dir` stays. */
    stop,
  };
}
