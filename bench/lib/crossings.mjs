/** What each call into the platform takes, beside the same Worker without it. */
import { CROSSINGS, TIMES } from "../candidates/crossings.js";
import { median, quartiles } from "./figures.mjs";
import { measure } from "./measure.mjs";
import { rows } from "./report.mjs";

/** @typedef {{ title: string, isMore: boolean, microseconds: number, middleHalf: [number, number] }} Crossed */
/** @typedef {{ rounds: number, crossed: Crossed[] }} Crossings */

const ask = { method: "GET", path: "/session" };

/** @param {{ folder: string, rounds: number, milliseconds: number }} options @returns {Promise<Crossings>} */
export async function cross(options) {
  const candidates = Object.entries(CROSSINGS).map(([name, { title }]) => ({
    name,
    title,
    worker: "candidates/crossing.js",
    tables: { CROSSING: name },
    floor: true,
    create: undefined,
    read: ask,
    change: ask,
    forged: 200,
  }));
  const measured = await measure(candidates, { ...options, starts: 0, all: false, jobs: ["read"] });
  const rounds = Object.fromEntries(
    measured.candidates.map(({ name, cells: [cell] }) => [name, cell?.rounds.map(({ cpu }) => cpu) ?? []]),
  );
  return { rounds: options.rounds, crossed: takenBy(rounds) };
}

/**
 * @param {Record<string, number[]>} rounds milliseconds of a request, of each round; `none` is the Worker without a call more
 * @returns {Crossed[]}
 */
export function takenBy(rounds) {
  /** @param {string} name @param {number} round @returns {number} microseconds of a call, in that round */
  const taken = (name, round) => {
    const { times = TIMES, less = [] } = CROSSINGS[name] ?? {};
    const own = (1000 * ((rounds[name]?.[round] ?? NaN) - (rounds.none?.[round] ?? NaN))) / times;
    return less.reduce((rest, other) => rest - taken(other, round), own);
  };
  return Object.entries(CROSSINGS)
    .filter(([name]) => name !== "none")
    .map(([name, { title, less }]) => {
      const all = (rounds[name] ?? []).map((_, round) => taken(name, round));
      return {
        title,
        isMore: less !== undefined,
        microseconds: median(all),
        middleHalf: quartiles(all),
      };
    });
}

/** @param {Crossings} crossings @returns {string[]} */
export function acrossBorder({ crossed }) {
  const signed = (/** @type {number} */ value) =>
    `${value < -0.005 ? "−" : value > 0.005 ? "+" : ""}${Math.abs(value).toFixed(2)}`;
  return [
    "## What a call into the platform takes",
    "Microseconds of CPU time: what the floor with our call and headers takes more for one such call, of each round by " +
      "itself; medians, with the middle half of the rounds. With a dash: what it takes more than the one above without. " +
      "From JavaScript; wasm comes here through JavaScript too.",
    rows(
      ["", "µs", "middle half"],
      crossed.map(({ title, isMore, microseconds, middleHalf: [low, high] }) => [
        `${isMore ? "– " : ""}${title}`,
        isMore ? signed(microseconds) : microseconds.toFixed(2),
        `${low.toFixed(2)} to ${high.toFixed(2)}`,
      ]),
    ),
  ];
}
