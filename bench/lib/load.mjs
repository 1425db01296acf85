/**
 * A load generator: visitors with cookie jars on kept connections, one request after the other. Plain sockets, so that
 * it takes little of the machine that it measures.
 */
import { connect } from "node:net";
import { quantile } from "./figures.mjs";

/**
 * @typedef {object} Ask
 * @property {string} method
 * @property {string} path
 * @property {Record<string, string>} [headers]
 * @property {string} [body]
 *
 * @typedef {{ status: number, head: string, body: string }} Answer
 */

const SET_COOKIE = /^set-cookie: *([^=\r\n]+)=([^;\r\n]*)/gim;
const PATIENCE_MS = 20_000;
/** The visitor's, unless the request's headers say another. */
const ADDRESS = "192.0.2.7";

export class Visitor {
  /** @type {Map<string, string>} */
  cookies = new Map();
  /** Whether cookies that come are kept, as a browser would. */
  keeps = true;
  #socket;
  /** @type {Buffer[]} */
  #chunks = [];
  /** @type {{ resolve: (answer: Answer) => void, reject: (error: Error) => void } | undefined} */
  #waiting;
  /** What was last asked, as bytes; the same is asked again and again. @type {{ ask: Ask, bytes: Buffer } | undefined} */
  #written;

  /** @param {number} port */
  constructor(port) {
    this.port = port;
    this.#socket = connect({ port, host: "127.0.0.1", noDelay: true });
    this.#socket.setTimeout(PATIENCE_MS, () => this.#socket.destroy(new Error("no answer came")));
    this.#socket.on("data", (chunk) => this.#read(chunk));
    this.#socket.on("error", (error) => this.#fail(error));
    this.#socket.on("close", () => this.#fail(new Error("the connection was closed")));
  }

  /** @param {Ask} ask @returns {Promise<Answer>} */
  send(ask) {
    if (this.#written?.ask !== ask) this.#written = { ask, bytes: this.#write(ask) };
    const { bytes } = this.#written;
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#socket.write(bytes);
    });
  }

  close() {
    this.#waiting = undefined;
    this.#socket.destroy();
  }

  /** @param {Ask} ask */
  #write({ method, path, headers = {}, body }) {
    const lines = [`${method} ${path} HTTP/1.1`, "Host: localhost"];
    for (const [name, value] of Object.entries({ "CF-Connecting-IP": ADDRESS, ...headers })) {
      lines.push(`${name}: ${value}`);
    }
    if (body !== undefined) lines.push(`Content-Length: ${Buffer.byteLength(body)}`);
    if (this.cookies.size) {
      lines.push(`Cookie: ${[...this.cookies].map((cookie) => cookie.join("=")).join("; ")}`);
    }
    return Buffer.from(`${lines.join("\r\n")}\r\n\r\n${body ?? ""}`);
  }

  /** @param {Buffer} chunk */
  #read(chunk) {
    this.#chunks.push(chunk);
    const bytes = this.#chunks.length === 1 ? chunk : Buffer.concat(this.#chunks);
    this.#chunks = [bytes];
    const end = bytes.indexOf("\r\n\r\n");
    if (end < 0) return;
    const head = bytes.toString("latin1", 0, end + 2);
    const body = bytes.subarray(end + 4);
    const length = /^content-length: *(\d+)/im.exec(head);
    const status = Number(head.slice(9, 12));
    if (length ? body.length < Number(length[1]) : /^transfer-encoding:/im.test(head) && !isWhole(body))
      return;
    this.#chunks = [];
    if (this.keeps && /^set-cookie:/im.test(head)) {
      for (const [, name, value] of head.matchAll(SET_COOKIE)) this.cookies.set(name, value);
      this.#written = undefined;
    }
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.resolve({ status, head, body: length ? body.toString() : unchunked(body) });
  }

  /** @param {Error} error */
  #fail(error) {
    this.#waiting?.reject(error);
    this.#waiting = undefined;
  }
}

/** @param {Buffer} body chunked */
const isWhole = (body) => body.subarray(-5).equals(Buffer.from("0\r\n\r\n"));

/** @param {Buffer} body */
function unchunked(body) {
  let text = "";
  for (let at = 0; at < body.length;) {
    const end = body.indexOf("\r\n", at);
    const size = parseInt(body.toString("latin1", at, end), 16);
    if (!size) break;
    text += body.toString("utf8", end + 2, end + 2 + size);
    at = end + 4 + size;
  }
  return text;
}

/**
 * All visitors ask over and over.
 *
 * @param {Visitor[]} visitors
 * @param {Ask | ((visitor: number) => Ask)} ask the same, or what this visitor asks next
 * @param {{ milliseconds?: number, requests?: number, expect: number }} until `requests`: of each visitor
 */
export async function load(visitors, ask, { milliseconds = Infinity, requests = Infinity, expect }) {
  const next = typeof ask === "function" ? ask : () => ask;
  /** @type {number[]} */
  const latencies = [];
  const began = performance.now();
  await Promise.all(
    visitors.map(async (visitor, at) => {
      for (let count = 0; count < requests; count += 1) {
        const asked = performance.now();
        if (asked - began > milliseconds) break;
        const asks = next(at);
        const { status, body } = await visitor.send(asks);
        if (status !== expect)
          throw new Error(`${asks.method} ${asks.path}: ${status} ${body.slice(0, 300)}`);
        latencies.push(performance.now() - asked);
      }
    }),
  );
  const seconds = (performance.now() - began) / 1000;
  return {
    requests: latencies.length,
    perSecond: latencies.length / seconds,
    p50: quantile(latencies, 0.5),
    p99: quantile(latencies, 0.99),
    latencies,
  };
}
