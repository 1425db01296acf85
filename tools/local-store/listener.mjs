/** A port on 127.0.0.1 that can be closed, and opened again. */
import { once } from "node:events";
import { createServer } from "node:http";

export class Listener {
  #server;
  #port;

  /**
   * @param {import("node:http").RequestListener} handle
   * @param {number} port 0 for any that is free; it is the same one from then on
   */
  constructor(handle, port) {
    this.#server = createServer({ keepAliveTimeout: 65_000 }, handle);
    this.#port = port;
  }

  get url() {
    return `http://127.0.0.1:${this.#port}`;
  }

  async open() {
    this.#server.listen(this.#port, "127.0.0.1");
    await once(this.#server, "listening");
    this.#port = /** @type {import("node:net").AddressInfo} */ (this.#server.address()).port;
  }

  /** From here on connections are refused, and those there are end. */
  async close() {
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }
}
