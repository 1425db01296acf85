/** What the client's tests share: a proxy that loses and cuts answers, a `fetch` with a cookie jar, and the bundle. */
import { once } from "node:events";
import { createServer, request } from "node:http";
import { after, beforeEach } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { createClient } from "../../client/src/index.js";
import { FAST_HASH, startBoth } from "./worker.mjs";

/** @import { IncomingMessage, ServerResponse } from "node:http" */
/** @import { Client, ClientOptions } from "../../client/index.d.ts" */

/**
 * What happens to a request. `lost`: it is made, and its answer does not arrive; `cut`: half of its body does; `down`: it
 * is not made; `headers`: its answer gets these as well; `answer`: this one, and it is not made.
 * @typedef {{ kind: "lost" | "cut" | "down" }
 *   | { kind: "headers", headers: Record<string, string> }
 *   | { kind: "answer", status?: number, headers?: Record<string, string>, body?: string }
 *   | { kind: "held", until: Promise<unknown> }
 *   | { kind: "late", until: Promise<unknown> }} Fault
 * @typedef {{ method: string, path: string, headers: IncomingMessage["headers"], body: string }} Seen
 */

/**
 * A Worker behind such a proxy, for the tests of one file: each begins with a network that does nothing.
 * @param {Parameters<typeof startBoth>[0]} [options]
 */
export async function startBehindProxy(options = { settings: { password: FAST_HASH } }) {
  const both = await startBoth(options);
  const proxy = await startProxy(both.worker.url);
  after(async () => {
    proxy.stop();
    await both.stop();
  });
  beforeEach(() => proxy.clear());
  return { ...both, proxy };
}

/** Stands before a Worker, and does to its requests what a network does. @param {string} target */
export async function startProxy(target) {
  /** @type {Seen[]} */
  const seen = [];
  /** @type {((seen: Seen) => Fault | undefined)[]} */
  const rules = [];
  const server = createServer(async (incoming, outgoing) => {
    const chunks = [];
    for await (const chunk of incoming) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const { method = "", url: path = "", headers } = incoming;
    const one = { method, path, headers, body: String(body) };
    seen.push(one);
    /** @type {Fault | undefined} */
    let fault;
    for (const rule of rules) if ((fault = rule(one))) break;
    if (fault?.kind === "down") return outgoing.destroy();
    if (fault?.kind === "answer")
      return outgoing.writeHead(fault.status ?? 200, fault.headers).end(fault.body);
    if (fault?.kind === "held") await fault.until;
    const passed = request(target + path, { method, headers: { ...headers, host: new URL(target).host } });
    passed.on("error", () => outgoing.destroy());
    passed.on("response", (answer) => void passOn(answer, outgoing, fault));
    passed.end(body);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}`,
    seen,
    /** METHOD /path of all requests since the last look. */
    took: () => seen.splice(0).map(({ method, path }) => `${method} ${path.replace("/auth/", "")}`),
    /** Decides on each request from now on. @param {(seen: Seen) => Fault | undefined} rule */
    always: (rule) => void rules.unshift(rule),
    /** The next request that matches, so many times. @param {RegExp} what @param {Fault} fault */
    next(what, fault, times = 1) {
      let left = times;
      rules.unshift(({ method, path }) => {
        if (!left || !what.test(`${method} ${path}`)) return undefined;
        left -= 1;
        return fault;
      });
    },
    clear() {
      rules.length = 0;
      seen.length = 0;
    },
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** @param {IncomingMessage} answer @param {ServerResponse} outgoing @param {Fault | undefined} fault */
async function passOn(answer, outgoing, fault) {
  const chunks = [];
  for await (const chunk of answer) chunks.push(chunk);
  const body = Buffer.concat(chunks);
  if (fault?.kind === "late") await fault.until;
  if (fault?.kind === "lost") return outgoing.destroy();
  const { "content-length": _, "transfer-encoding": __, ...headers } = answer.headersDistinct;
  const more = fault?.kind === "headers" ? fault.headers : {};
  outgoing.writeHead(answer.statusCode ?? 500, /** @type {any} */ ({ ...headers, ...more }));
  if (fault?.kind !== "cut") return outgoing.end(body);
  outgoing.write(body.subarray(0, body.length / 2), () => outgoing.destroy());
}

/** A visitor's cookies, and a `fetch` that sends and keeps them as a browser does: when an answer's headers are there. */
export function cookieJar() {
  /** @type {Map<string, string>} */
  const cookies = new Map();
  return {
    cookies,
    /** @param {string} url @param {RequestInit} init */
    async fetch(url, init) {
      const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
      const headers = { .../** @type {Record<string, string>} */ (init.headers), ...(cookie && { cookie }) };
      const response = await fetch(url, { ...init, headers });
      for (const line of response.headers.getSetCookie()) {
        const [, name = "", value = ""] = line.match(/^([^=]*)=([^;]*)/) ?? [];
        if (/; Max-Age=0(;|$)/.test(line)) cookies.delete(name);
        else cookies.set(name, value);
      }
      return response;
    },
  };
}

/**
 * A client as a page has one, with a cookie jar of its own, or one that it shares.
 * @param {string} url @param {ClientOptions} [options] @param {ReturnType<typeof cookieJar>} [jar]
 * @returns {Client<any>}
 */
export const page = (url, options, jar = cookieJar()) =>
  createClient({ baseUrl: `${url}/auth`, fetch: jar.fetch, ...options });

/** The code and whether it may have been done, of a call that fails. @param {Promise<unknown>} call @returns {Promise<any>} */
export const failure = (call) =>
  call.then(
    (value) => {
      throw new Error(`it did not fail, but gave ${JSON.stringify(value)}`);
    },
    (error) => error,
  );

/** The client as one file. @param {import("esbuild").BuildOptions} [options] */
export async function bundle(options) {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("../../client/src/index.js", import.meta.url))],
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
    logLevel: "error",
    ...options,
  });
  return outputFiles?.[0]?.text ?? "";
}
