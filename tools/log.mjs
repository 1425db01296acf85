/**
 * The Worker's log, for a terminal: its lines of JSON as sentences, and what is said again and again counted and not
 * repeated. Needs Node alone.
 */

/** After so long without it, a line is news again. */
const QUIET_MS = 30_000;
/** So many different lines are remembered. */
const KEPT = 200;

/**
 * A log that prints a line at its first time and says at the tenth, the hundredth … how often it came. Lines that
 * differ in numbers alone are the same.
 *
 * @param {(line: string) => void} print
 * @param {() => number} [now] the time in milliseconds
 * @returns {(line: string) => void}
 */
export function collapsed(print, now = Date.now) {
  /** @type {Map<string, { count: number, last: number }>} */
  const known = new Map();
  return (line) => {
    const key = line.replaceAll(/\d+/g, "0");
    const before = known.get(key);
    const count = before && now() - before.last < QUIET_MS ? before.count + 1 : 1;
    known.delete(key);
    known.set(key, { count, last: now() });
    const [oldest] = known.keys();
    if (known.size > KEPT && oldest !== undefined) known.delete(oldest);
    if (count === 1) print(line);
    else if (/^10+$/.test(String(count))) print(`${line} (${count} times by now)`);
  };
}

/**
 * A line of the Worker's log: JSON, in the form that docs/operations.md describes.
 *
 * @typedef {{ event: string, level: "error" | "warn" | "info", message: string, [field: string]: unknown }} Line
 */

/** Nothing if it is none, such as what the platform says. @param {string} text @returns {Line | undefined} */
export function lineOf(text) {
  try {
    const line = JSON.parse(text);
    const isOne = ["event", "level", "message"].every((field) => typeof line?.[field] === "string");
    return isOne ? line : undefined;
  } catch {
    return undefined;
  }
}

/** A line as a sentence, whatever is none as it is. @param {string} text */
export function told(text) {
  const line = lineOf(text);
  return line ? `cloakroom: ${line.message}` : text;
}
