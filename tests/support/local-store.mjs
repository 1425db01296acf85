/** What the tests of the local store share: a store, started with the import and emptied before each test, and calls. */
import { after, beforeEach } from "node:test";
import { startLocalStore } from "../../tools/local-store/index.mjs";

/** @typedef {import("../../tools/local-store/faults.mjs").Fault} Fault */

export const store = await startLocalStore();
after(() => store.stop());
beforeEach(async () => {
  store.faults.clear();
  await store.redis.flushDb();
  store.counters.reset();
});

/**
 * @typedef {object} CallOptions
 * @property {string} [method]
 * @property {string} [url] of another endpoint of the store
 * @property {string | null} [token]
 * @property {Record<string, string>} [headers]
 * @property {AbortSignal} [signal]
 */

/**
 * One request to the store.
 * @param {string} target path and query
 * @param {unknown} [body] sent as it is if text or bytes, else as JSON
 * @param {CallOptions} [options]
 */
export async function call(
  target,
  body,
  { method = "POST", url = store.url, token = store.token, headers, signal } = {},
) {
  const response = await fetch(url + target, {
    method,
    body: body === undefined ? undefined : raw(body) ? /** @type {any} */ (body) : JSON.stringify(body),
    headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...headers },
    signal,
  });
  const text = await response.text();
  const syncToken = response.headers.get("upstash-sync-token");
  return {
    status: response.status,
    text,
    json: () => JSON.parse(text),
    syncToken,
    headers: response.headers,
  };
}

/** @param {unknown} body */
const raw = (body) => typeof body === "string" || body instanceof Uint8Array;

/** What a command answers. @param {...(string | number)} command */
export const result = async (...command) => (await call("/", command)).json().result;

export const BASE64 = { headers: { "upstash-encoding": "base64" } };
export const b64 = (/** @type {string} */ text) => Buffer.from(text).toString("base64");
