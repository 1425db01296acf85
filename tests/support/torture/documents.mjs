/**
 * What holds of a document that many change at once, be it a session's data or a profile.
 *
 * Every change leaves a trace that can be found again: an append its own tag in `log`, a merge the next number under
 * the client's own key, an increment one more in `n`; and a flag is set to 0 or 1. A change whose outcome is unknown
 * may have been made, once; one that was refused may not; one that was acknowledged must.
 */
import { violation } from "./report.mjs";

/** @typedef {import("./report.mjs").Violation} Violation */
/** @typedef {import("./report.mjs").Told & { change?: Change }} Operation */
/** @typedef {"increment" | "merge" | "append" | "set"} Change */
/** @typedef {{ birth?: string, n?: number, log?: string[], own?: Record<string, number>, flag?: number }} Data `birth`: from its beginning, its alone */
/** @typedef {{ operation: Operation, data: Data }} Sight an answer that shows it */

/**
 * One document, as a history shows it.
 *
 * @typedef {object} Document
 * @property {Operation[]} changes that were sent to it
 * @property {Sight[]} sights
 * @property {(change: Operation) => boolean} isRefused whether it cannot have been made
 * @property {(change: Operation) => boolean} isElsewhere whether it was made to another document
 * @property {(sight: Operation) => boolean} isCurrent whether it shows all that was acknowledged before
 * @property {(earlier: Operation, later: Operation) => boolean} follows whether the later one shows all that the earlier shows
 */

/** What one answer holds of the changes: those acknowledged before, none refused, none twice, no others. @param {Document} document */
export function changes({ changes, sights, isRefused, isElsewhere, isCurrent }) {
  return sights.flatMap(({ operation: sight, data }) => {
    /** @type {Violation[]} */
    const found = [];
    const say = (
      /** @type {string} */ rule,
      /** @type {string} */ what,
      /** @type {Operation[]} */ ...more
    ) => void found.push(violation(rule, what, ...more, sight));
    const { log = [], own = {}, n = 0 } = data;
    let [least, most] = [0, 0];
    for (const one of changes) {
      const { change, client, tag, number = 0 } = one;
      const itself = one === sight;
      const acknowledged = one.status === 200 && (itself || (one.end < sight.start && isCurrent(sight)));
      const lost = itself ? "acknowledged but not made" : "lost update";
      const could = one.start < sight.end && !isRefused(one);
      const elsewhere = isElsewhere(one);
      if (change === "increment") {
        if (acknowledged && !elsewhere) least += 1;
        if (could && !elsewhere) most += 1;
      }
      if (change === "merge" && acknowledged && !elsewhere && !((own[`c${client}`] ?? 0) >= number)) {
        say(lost, `c${client} is ${own[`c${client}`]}, though ${number} was acknowledged`, one);
      }
      if (change === "merge" && own[`c${client}`] === number && (!could || elsewhere)) {
        const rule = isRefused(one) ? "made although refused" : "out of nowhere";
        say(rule, `c${client} is ${number}`, one);
      }
      if (tag === undefined) continue;
      const count = log.filter((other) => other === tag).length;
      if (count > 1) say("made twice", `${tag} is there ${count} times`, one);
      if (acknowledged && !elsewhere && count === 0) say(lost, `${tag} is not there`, one);
      if (count > 0 && isRefused(one)) say("made although refused", tag, one);
      else if (count > 0 && (!could || elsewhere)) say("out of nowhere", tag, one);
    }
    const increments = changes.filter(({ change }) => change === "increment");
    if (n < least) say("lost update", `n is ${n} after ${least} acknowledged increments`, ...increments);
    if (n > most) say("made twice", `n is ${n} after ${most} increments at the most`, ...increments);
    const tags = new Set(changes.map(({ tag }) => tag));
    for (const tag of log) if (!tags.has(tag)) say("out of nowhere", tag);
    return found;
  });
}

/** @param {string[]} one @param {string[]} other */
const isPrefix = (one, other) =>
  one.length <= other.length && one.every((tag, index) => tag === other[index]);

/** Time goes one way: who starts after another's answer sees at least as much. All see one past. @param {Document} document */
export function order({ sights, follows }) {
  /** @type {Violation[]} */
  const found = [];
  for (const { operation: one, data: early } of sights) {
    for (const { operation: other, data: late } of sights) {
      const [a, b] = [early.log ?? [], late.log ?? []];
      if (one.id < other.id && !isPrefix(a, b) && !isPrefix(b, a)) {
        found.push(violation("fork", "two pasts", one, other));
      }
      if (!follows(one, other)) continue;
      const least = Object.entries(early.own ?? {});
      const keeps = least.every(([key, number]) => (late.own?.[key] ?? 0) >= number);
      if (b.length < a.length || (late.n ?? 0) < (early.n ?? 0) || !keeps) {
        found.push(violation("lost update", "a later answer shows an older state", one, other));
      }
    }
  }
  return found;
}

/**
 * A flag is what it was set to last: an answer does not show a value that an acknowledged change has replaced before it
 * began, unless another one that could be later has set it again.
 * @param {Document} document
 */
export function flags({ changes, sights, isRefused, isElsewhere, isCurrent }) {
  const writes = changes.filter((one) => one.change === "set" && !isElsewhere(one) && !isRefused(one));
  return sights.flatMap(({ operation: sight, data }) => {
    if (!isCurrent(sight)) return [];
    const acknowledged = writes.filter(
      (one) => one.status === 200 && (one.end < sight.start || one === sight),
    );
    /** Whether a write that began then can have been the last. @param {number} end of it */
    const isReplaced = (end) => acknowledged.find((other) => end < other.start);
    const value = data.flag ?? 0;
    const sources = writes.filter((one) => one.value === value && one.start < sight.end);
    const isPossible = sources.some((one) => !isReplaced(one.status === 200 ? one.end : Infinity));
    if (isPossible || (value === 0 && !isReplaced(-Infinity))) return [];
    const last = acknowledged.filter((one) => !isReplaced(one.end));
    return [violation("lost update", `flag is ${value}`, ...sources, ...last, sight)];
  });
}
