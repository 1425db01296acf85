/** Keys for what is stored, and what a dump of the store shows. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";

/** As `openssl rand -base64 32` makes it. */
export const encryptionKey = () => randomBytes(32).toString("base64");

/**
 * Everything that a store holds, as text.
 * @param {import("./worker.mjs").LocalStore["redis"]} redis
 */
export async function dump(redis) {
  const keys = await redis.keys("*");
  return Promise.all(
    keys.toSorted().map(async (key) => {
      const type = await redis.type(key);
      const value = type === "hash" ? await redis.hGetAll(key) : await redis.get(key);
      return { key, text: typeof value === "string" ? value : JSON.stringify(value) };
    }),
  );
}

/** Whether a stored text is sealed. @param {string | null} text */
export const isSealed = (text) => text !== null && /^\{"v":1,"sealed":"[\w-]{8}\.[\w-]+"\}$/.test(text);

/** The id of the key that a stored text is sealed under; empty if it is not sealed. @param {string | null} text */
export const keyId = (text) => /^\{"v":1,"sealed":"([\w-]{8})\./.exec(text ?? "")?.[1] ?? "";

/**
 * Two answers that differ in nothing but names, dates and whatever is random.
 * @param {import("./visitor.mjs").Answer} one
 * @param {import("./visitor.mjs").Answer} other
 * @param {string} what
 */
export function assertAlike(one, other, what) {
  const masked = (/** @type {string} */ text) =>
    text
      .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ/g, "DATE")
      .replaceAll(/"(handle|id)":"[\w-]+"/g, '"$1":"RANDOM"');
  assert.equal(one.status, other.status, what);
  assert.equal(masked(one.text), masked(other.text), what);
  const names = (/** @type {string[]} */ lines) => lines.map((line) => line.split("=")[0]);
  assert.deepEqual(names(one.setCookies), names(other.setCookies), what);
}
