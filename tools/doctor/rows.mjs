/** The rows of the report, and how they are checked one after the other. */
import { Finding, Unreachable } from "./finding.mjs";

/**
 * What is checked of a database.
 *
 * @typedef {object} Row
 * @property {string} id
 * @property {string} what holds
 * @property {string} otherwise what follows if it does not, and what to do
 * @property {boolean} [isOptional] the Worker does without: that it does not hold is a warning
 * @property {(tools: Tools) => Promise<string | void>} check resolves to a detail; throws a {@link Finding}
 *
 * @typedef {object} Tools
 * @property {import("./database.mjs").Database} database
 * @property {(name: string) => string} key a key of the row's own
 */

/**
 * @typedef {"passed" | "warned" | "failed" | "skipped"} Status
 *
 * @typedef {object} Result
 * @property {string} group
 * @property {string} id
 * @property {string} what
 * @property {Status} status
 * @property {string} [detail] what was found
 * @property {string} [otherwise] if it does not hold
 *
 * @typedef {(result: Result) => void} Tell is called with every result, as soon as it is there
 */

/**
 * Checks one thing. What is thrown and is no finding is a mistake of ours.
 *
 * @param {Omit<Result, "status" | "detail">} row
 * @param {() => Promise<string | void> | string | void} check
 * @param {{ isOptional?: boolean }} [options]
 * @returns {Promise<{ result: Result, isUnreachable: boolean }>}
 */
export async function checked({ group, id, what, otherwise }, check, { isOptional = false } = {}) {
  try {
    const detail = (await check()) || undefined;
    return { result: { group, id, what, status: "passed", detail }, isUnreachable: false };
  } catch (error) {
    if (!(error instanceof Finding)) throw error;
    const status = isOptional && error.status === "failed" ? "warned" : error.status;
    const result = { group, id, what, status, detail: error.message };
    return {
      result: status === "skipped" ? result : { ...result, otherwise },
      isUnreachable: error instanceof Unreachable,
    };
  }
}

/** @param {Omit<Result, "status" | "detail">} row @param {string} why @returns {Result} */
export function skipped({ group, id, what }, why) {
  return { group, id, what, status: "skipped", detail: why };
}

/**
 * Checks a database. Rows that it takes for the others come first: without them the rest is skipped.
 *
 * @param {import("./database.mjs").Database} database
 * @param {Tell} tell
 * @returns {Promise<boolean>} whether it could be reached at all
 */
export async function checkDatabase(database, tell) {
  const [{ reach, wire, speed }, { values, expiry, counting }, { together, replicas }] = await Promise.all([
    import("./wire.mjs"),
    import("./commands.mjs"),
    import("./together.mjs"),
  ]);
  let isReached = true;
  for (const row of [reach, wire, values, expiry, counting, together, replicas, speed].flat()) {
    const group = "database";
    const named = { group, ...row };
    if (!isReached) {
      tell(skipped(named, "the database cannot be used: see above"));
      continue;
    }
    const key = (/** @type {string} */ name) => database.key(`${row.id}:${name}`);
    const { result } = await checked(named, () => row.check({ database, key }), row);
    tell(result);
    if (result.status === "failed" && reach.includes(row)) isReached = false;
  }
  return isReached;
}
