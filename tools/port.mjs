import { once } from "node:events";
import { createServer } from "node:net";

/**
 * A port of this machine that nobody listens on.
 * @param {number} [wanted] the one that is to be free; fails when it is taken
 * @returns {Promise<number>}
 */
export async function freePort(wanted = 0) {
  const server = createServer().listen(wanted, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  server.close();
  await once(server, "close");
  return port;
}
