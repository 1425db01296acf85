/** When an older signing secret can be dropped. Pure: knows neither the document nor the clock. */

const DAY = 86_400_000;

/** How many days are reported, this one included. */
export const DAYS = 35;

/**
 * @typedef {{ day: string, tickets_by_key: Record<string, number> }} Day
 * @typedef {{ signing_keys: string[], longest_session_seconds: number, days: Day[] }} Report
 *
 * What is known of a key. `lastSeen`: the newest day with a ticket of it. `drop`: from which day on its secret can be
 * dropped if no more are seen; null: these days do not tell, see `state`.
 * @typedef {object} Key
 * @property {string} key
 * @property {"signs" | "unseen" | "wait" | "now" | "unbound"} state
 * @property {number} tickets  in all days reported
 * @property {string | null} lastSeen
 * @property {number} daysWithout  whole days that were counted without a ticket of it
 * @property {string | null} drop
 */

/**
 * The keys in their order, and after them those that are not bound any more but were in these days.
 * @param {Report} report
 * @param {number} now
 * @returns {Key[]}
 */
export function keysOf({ signing_keys, longest_session_seconds, days }, now) {
  const today = Math.floor(now / DAY);
  const longest = daysOf(longest_session_seconds);
  const seen = days.flatMap((day) => Object.keys(day.tickets_by_key));
  // Before the oldest day nothing may have been counted. With none at all, counting begins today.
  const first = Math.min(today, ...days.map(({ day }) => Date.parse(day) / DAY));
  return [...new Set([...signing_keys, ...seen])].map((key) => {
    const with_ = days.filter((day) => day.tickets_by_key[key]);
    const tickets = with_.reduce((sum, day) => sum + (day.tickets_by_key[key] ?? 0), 0);
    const lastSeen =
      with_
        .map(({ day }) => day)
        .sort()
        .at(-1) ?? null;
    const known = { key, tickets, lastSeen };
    const last = lastSeen === null ? null : Date.parse(lastSeen) / DAY;
    const daysWithout = Math.max(0, today - (last === null ? first : last + 1));
    if (!signing_keys.includes(key)) return { ...known, daysWithout, state: "unbound", drop: null };
    if (key === signing_keys[0]) return { ...known, daysWithout, state: "signs", drop: null };
    // What these days do not reach back to would be put off from day to day.
    if (last === null && longest >= DAYS) return { ...known, daysWithout, state: "unseen", drop: null };
    // A ticket of it may have been made at the very end of the day that it was last seen on.
    const from = (last === null ? first : last + 1) + longest;
    return { ...known, daysWithout, state: from <= today ? "now" : "wait", drop: dayText(from) };
  });
}

/** Whole days, rounded up. @param {number} seconds */
export const daysOf = (seconds) => Math.ceil((seconds * 1000) / DAY);

/** The days reported, the oldest first. @param {number} now */
export const lastDays = (now) =>
  Array.from({ length: DAYS }, (_, at) => dayText(Math.floor(now / DAY) - (DAYS - 1) + at));

/** @param {number} day  since 1970 */
const dayText = (day) => new Date(day * DAY).toISOString().slice(0, 10);
