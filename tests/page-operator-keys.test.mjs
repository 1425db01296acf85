/** When an older signing secret can be dropped, as the operators' page tells it from the counters. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { daysOf, keysOf, lastDays } from "../src/operator/keys.js";

const DAY = 86_400;
const NOW = Date.parse("2026-11-28T12:00:00Z");

/** A report of days that saw tickets of these keys. @param {string[]} signing_keys @param {number} longest in days @param {Record<string, Record<string, number>>} days */
const report = (signing_keys, longest, days) => ({
  signing_keys,
  longest_session_seconds: longest * DAY,
  days: Object.entries(days).map(([day, tickets_by_key]) => ({ day, tickets_by_key })),
});

/** @param {ReturnType<typeof report>} given @param {number} [now] */
const told = (given, now = NOW) =>
  Object.fromEntries(
    keysOf(given, now).map(({ key, state, drop, daysWithout }) => [key, [state, drop, daysWithout]]),
  );

/** That something was counted on the oldest of the days. */
const OLDEST = { "2026-10-25": { new: 1 } };

for (const [title, given, expected] of /** @type {[string, ReturnType<typeof report>, object][]} */ ([
  ["the first key signs, however long it was not seen", report(["new"], 30, {}), { new: ["signs", null, 0] }],
  [
    "a key that was seen today waits for as long as the longest session lasts, from the end of the day",
    report(["new", "old"], 30, { ...OLDEST, "2026-11-28": { old: 1 } }),
    { new: ["signs", null, 33], old: ["wait", "2026-12-29", 0] },
  ],
  [
    "of several days with a ticket the last counts, in whatever order they are",
    report(["new", "old"], 30, { "2026-11-20": { old: 1 }, ...OLDEST, "2026-11-10": { old: 5 } }),
    { new: ["signs", null, 33], old: ["wait", "2026-12-21", 7] },
  ],
  [
    "the last day of waiting is one",
    report(["new", "old"], 7, { ...OLDEST, "2026-11-21": { old: 1 } }),
    { new: ["signs", null, 33], old: ["wait", "2026-11-29", 6] },
  ],
  [
    "the day after that it can be dropped",
    report(["new", "old"], 7, { ...OLDEST, "2026-11-20": { old: 1 } }),
    { new: ["signs", null, 33], old: ["now", "2026-11-28", 7] },
  ],
  [
    "a key that was not seen in all these days can be dropped, if no session lasts longer",
    report(["new", "old"], 30, OLDEST),
    { new: ["signs", null, 33], old: ["now", "2026-11-24", 34] },
  ],
  [
    "a key that was not seen since counting began waits from then on",
    report(["new", "old"], 30, { "2026-11-26": { new: 3 } }),
    { new: ["signs", null, 1], old: ["wait", "2026-12-26", 2] },
  ],
  [
    "where nothing was ever counted, waiting begins today",
    report(["new", "old"], 30, {}),
    { new: ["signs", null, 0], old: ["wait", "2026-12-28", 0] },
  ],
  [
    "where sessions outlast the days counted, a key that was not seen has no date that is put off every day",
    report(["new", "old"], 90, OLDEST),
    { new: ["signs", null, 33], old: ["unseen", null, 34] },
  ],
  [
    "a key that is not bound any more is told as such, after those that are",
    report(["new"], 30, { "2026-11-20": { gone: 4, new: 1 } }),
    { new: ["signs", null, 7], gone: ["unbound", null, 7] },
  ],
  [
    "a count of zero is no ticket",
    report(["new", "old"], 7, { ...OLDEST, "2026-11-27": { old: 0 } }),
    { new: ["signs", null, 33], old: ["now", "2026-11-01", 34] },
  ],
])) {
  test(title, () => assert.deepEqual(told(given), expected));
}

test("a key is dropped at the turn of the day in UTC, as days are counted", () => {
  const given = report(["new", "old"], 7, { ...OLDEST, "2026-11-21": { old: 1 } });
  const stateAt = (/** @type {string} */ time) => told(given, Date.parse(time)).old[0];
  assert.equal(stateAt("2026-11-28T23:59:59Z"), "wait");
  assert.equal(stateAt("2026-11-29T00:00:00Z"), "now");
});

test("no key is dropped while a session under it can live", () => {
  for (const longest of [1, 7, 30, 34, 35, 90]) {
    for (let seen = 0; seen < 35; seen += 1) {
      const last = new Date(NOW - seen * DAY * 1000).toISOString().slice(0, 10);
      const [, old] = keysOf(report(["new", "old"], longest, { [last]: { old: 1 } }), NOW);
      const lives = Date.parse(last) + DAY * 1000 + longest * DAY * 1000 > NOW;
      assert.equal(old?.state, lives ? "wait" : "now", `${longest} days, seen ${seen} days ago`);
    }
  }
});

test("the days are the last 35, this one among them, also over the end of a year", () => {
  const days = lastDays(Date.parse("2026-01-03T00:00:00Z"));
  assert.deepEqual([days.length, days[0], days.at(-1)], [35, "2025-11-30", "2026-01-03"]);
  assert.equal(new Set(days).size, 35);
});

test("part of a day is a whole one", () => {
  assert.deepEqual([1, DAY, DAY + 1, 30 * DAY].map(daysOf), [1, 1, 2, 30]);
});
