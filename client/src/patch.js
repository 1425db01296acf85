/** @import { Operation } from "../index.d.ts" */

/** The Worker takes no more in one patch. */
const MOST_OPERATIONS = 1000;

/** A copy of JSON; what JSON does not have is gone. @param {any} value */
export const copy = (value) => JSON.parse(JSON.stringify(value));

/**
 * The JSON Patch that makes `after` of `before`. Only what differs is sent: numbers too large for JavaScript, which it
 * has read rounded, stay as they are.
 * @param {any} before @param {any} after
 * @returns {Operation[]}
 */
export function difference(before, after) {
  /** @type {any[]} */
  const operations = [];

  /**
   * JSON holds no `undefined`: that is a member that is not there.
   * @param {any} before @param {any} after @param {string} path
   */
  const compare = (before, after, path) => {
    if (before === after) return;
    // Both are objects, or both arrays. A member called "constructor" only makes the patch larger.
    if (after && typeof after === "object" && before?.constructor === after.constructor)
      // From behind, so that the indices of an array hold.
      for (const key of new Set([...Object.keys(before).reverse(), ...Object.keys(after)]))
        compare(own(before, key), own(after, key), `${path}/${key.replace(/~/g, "~0").replace(/\//g, "~1")}`);
    else
      operations.push({
        op: after === undefined ? "remove" : before === undefined ? "add" : "replace",
        path,
        value: after,
      });
  };

  compare(before, after, "");
  return operations.length > MOST_OPERATIONS ? [{ op: "replace", path: "", value: after }] : operations;
}

/** A member, also one that is called `__proto__`. @param {any} object @param {string} key */
const own = (object, key) => (Object.hasOwn(object, key) ? object[key] : undefined);
