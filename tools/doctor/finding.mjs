/** What a check finds: that a row does not hold, and how replies are compared and shown. Never a secret. */
import { isDeepStrictEqual } from "node:util";

/** @typedef {null | number | string | Reply[]} Reply */
/** @typedef {{ result: Reply } | { error: string }} Outcome of one command */
/** @typedef {Reply | Expected} Wanted a reply, or a description of it */

/** Longer than this is not read. */
const LONGEST = 90;

/** A row does not hold. The message says what there was instead. */
export class Finding extends Error {
  /**
   * @param {string} message
   * @param {"failed" | "warned" | "skipped"} [status]
   */
  constructor(message, status = "failed") {
    super(message);
    this.status = status;
  }
}

/** No answer came, so that nothing is known. */
export class Unreachable extends Finding {}

/** A reply that is not the same every time. */
export class Expected {
  /**
   * @param {string} what
   * @param {(outcome: Outcome) => boolean} holds
   */
  constructor(what, holds) {
    this.what = what;
    this.holds = holds;
  }
}

/** @param {number} least @param {number} most */
export function between(least, most) {
  return new Expected(`a number from ${least} to ${most}`, (outcome) => {
    const number = "result" in outcome ? outcome.result : null;
    return typeof number === "number" && number >= least && number <= most;
  });
}

/** What is left of a time to live that was set a moment ago. @param {number} milliseconds */
export const about = (milliseconds) => between(Math.ceil(milliseconds / 2), milliseconds);

/** An error whose text begins with one of these words, in any case of letters. @param {...string} words */
export function errorLike(...words) {
  return new Expected(
    words.length ? `an error that begins with ${words.join(" or ")}` : "an error",
    (outcome) => {
      if (!("error" in outcome)) return false;
      const text = outcome.error.toLowerCase();
      return !words.length || words.some((word) => text.startsWith(word.toLowerCase()));
    },
  );
}

/** One of several. @param {...Wanted} wanted */
export function oneOf(...wanted) {
  return new Expected(wanted.map(shown).join(" or "), (outcome) => wanted.some((one) => isAs(outcome, one)));
}

/**
 * @param {Outcome} outcome
 * @param {Wanted} wanted
 */
function isAs(outcome, wanted) {
  if (wanted instanceof Expected) return wanted.holds(outcome);
  return "result" in outcome && isDeepStrictEqual(outcome.result, wanted);
}

/**
 * @param {string} command for people
 * @param {Outcome} outcome
 * @param {Wanted} wanted
 */
export function expectReply(command, outcome, wanted) {
  if (isAs(outcome, wanted)) return;
  const got = "error" in outcome ? `the error "${shortened(outcome.error)}"` : shown(outcome.result);
  throw new Finding(`${command} replied ${got}, not ${shown(wanted)}`);
}

/** @param {boolean} holds @param {string} otherwise what there is instead */
export function expect(holds, otherwise) {
  if (!holds) throw new Finding(otherwise);
}

/** @param {Wanted} wanted */
function shown(wanted) {
  return wanted instanceof Expected ? wanted.what : shortened(JSON.stringify(wanted));
}

/** A text in one line that can be read. @param {string} text */
export function shortened(text) {
  const line = text.replaceAll(/[\s\p{Cc}]+/gu, " ").trim();
  return line.length > LONGEST ? `${line.slice(0, LONGEST)}…` : line;
}
