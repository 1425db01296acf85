/** What a checker has found, and how it is told. */

/**
 * What every theme's operations have, and some of them.
 *
 * @typedef {object} Told
 * @property {number} id
 * @property {number} client
 * @property {string} kind
 * @property {number} start in milliseconds on the tester's clock
 * @property {number} end
 * @property {number} status 0 without an answer
 * @property {string} [code] of a problem
 * @property {string} [user]
 * @property {string} [carried] the handle that belongs to the ticket it came with
 * @property {{ handle?: string, data: unknown } | null} [session] of the answer, when it has one
 * @property {unknown} [profile] of the answer, when it is one
 * @property {string} [ifMatch]
 * @property {string} [tag]
 * @property {number} [number]
 * @property {number} [value]
 * @property {boolean} [lagging]
 * @property {number} [after]
 * @property {number} [cookies]
 * @property {number} [faults] how many faults struck while it was under way
 * @property {number} [calls] to the store
 * @property {boolean} [last]
 * @property {boolean} [lost]
 */

/** @typedef {{ rule: string, what: string, operations: Told[] }} Violation */

/** @param {string} rule @param {string} what @param {Told[]} operations @returns {Violation} */
export function violation(rule, what, ...operations) {
  return { rule, what, operations };
}

/** An operation in a line. @param {Told} operation */
export function describe(operation) {
  const { id, client, kind, user, start, end, status, code, session, profile, carried, ...more } = operation;
  const short = (/** @type {string | undefined} */ handle) => handle?.slice(0, 6) ?? "no id";
  const told = [
    user && `of ${user}`,
    more.tag && `tag ${more.tag}`,
    more.number !== undefined && `c${client}=${more.number}`,
    more.value !== undefined && `flag=${more.value}`,
    more.ifMatch && `If-Match ${more.ifMatch}`,
    more.lagging && `lag${more.after === undefined ? "" : `, sync cookie of #${more.after}`}`,
    more.faults && `${more.faults} faults`,
    more.lost && "whose answer its holder does not get",
    more.cookies && `${more.cookies} Set-Cookie`,
    more.calls !== undefined && `${more.calls} calls`,
    more.last && "when all was over",
  ].filter(Boolean);
  const seen = session
    ? `${short(session.handle)} ${JSON.stringify(session.data)}`
    : session === null
      ? "null"
      : profile
        ? JSON.stringify(profile)
        : (code ?? "");
  const time = `${start.toFixed(1)}–${end.toFixed(1)} ms`;
  return `#${id} client ${client} ${time} ${kind} with ${short(carried)}${told.length ? ` (${told.join(", ")})` : ""} → ${status} ${seen}`;
}

/** The shortest history in which the violation can be seen. @param {Violation} violation */
export function explain({ rule, what, operations }) {
  const lines = [...new Set(operations)].sort((one, other) => one.start - other.start).map(describe);
  return [`${rule}: ${what}`, ...lines.map((line) => `  ${line}`)].join("\n");
}
