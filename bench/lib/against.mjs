/** The present build next to an earlier one, both measured in the same rounds. */
import { median, quartiles } from "./figures.mjs";
import { BUSY, figures, kilobytes, rows } from "./report.mjs";

/** @typedef {import("./report.mjs").Comparison} Comparison */
/** @typedef {import("./report.mjs").Result} Result */
/** @typedef {import("./measure.mjs").Job} Job */

/** Nothing, unless the run had an earlier build. @param {Pick<Comparison, "candidates">} comparison @returns {string[]} */
export function againstBefore({ candidates }) {
  const [before, now] = ["before", "cloakroom"].map((name) => candidates.find((one) => one.name === name));
  if (!before || !now) return [];
  const jobs = /** @type {Job[]} */ (["read", "change", "forged"]);
  return [
    "## New against before",
    `${now.title} next to ${before.title}: CPU time per request in milliseconds, 32 connections, store next door; the ` +
      "start, from spawn to the first answer to a read; the bundle. *By medians* compares the medians over all rounds; " +
      "*by rounds* is the median of what each round says by itself, with the middle half of the rounds: the two are " +
      "measured one right after the other, in turns, so that what drifts is not taken for a difference. A middle half on " +
      "both sides of × 1 or 0 says that there is none to be seen.",
    rows(
      ["", "before", "now", "by medians", "by rounds", "middle half"],
      [...jobs.map((job) => cpuLine(before, now, job)), startLine(before, now), ...bundleLines(before, now)],
    ),
  ];
}

/** @param {Result} before @param {Result} now @param {Job} job */
function cpuLine(before, now, job) {
  const [then, here] = [before, now].map((result) => figures(result, { job, ...BUSY }));
  if (!then || !here) return [job, "", "", "", "", ""];
  const ratios = here.rounds.map(({ cpu }, round) => cpu / (then.rounds[round]?.cpu ?? NaN));
  const [low, high] = quartiles(ratios);
  const times = (/** @type {number} */ ratio) => `× ${ratio.toFixed(3)}`;
  const both = [then.cpu, here.cpu].map((cpu) => cpu.toFixed(3));
  return [
    job,
    ...both,
    times(here.cpu / then.cpu),
    times(median(ratios)),
    `${times(low)} to ${high.toFixed(3)}`,
  ];
}

/** @param {Result} before @param {Result} now */
function startLine(before, now) {
  const later = (now.startups ?? []).map((startup, round) => startup - (before.startups?.[round] ?? NaN));
  const [low, high] = quartiles(later);
  return [
    "start",
    `${before.startup.toFixed(1)} ms`,
    `${now.startup.toFixed(1)} ms`,
    `${signed(now.startup - before.startup)} ms`,
    `${signed(median(later))} ms`,
    `${signed(low)} to ${signed(high)} ms`,
  ];
}

/** @param {Result} before @param {Result} now */
function bundleLines({ bundle: before }, { bundle: now }) {
  if (!before || !now) return [];
  return /** @type {const} */ (["raw", "gzip"]).map((kind) => [
    kind === "raw" ? "bundle" : "bundle, gzip -9",
    kilobytes(before[kind]),
    kilobytes(now[kind]),
    `${signed((now[kind] - before[kind]) / 1024)} KB`,
    "",
    "",
  ]);
}

/** @param {number} value */
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(1)}`;
