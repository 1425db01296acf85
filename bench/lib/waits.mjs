/** What a visitor waits, as Markdown for people. */
import { median } from "./figures.mjs";
import { rows, short } from "./report.mjs";

/** @typedef {import("./contention.mjs").Contention} Contention */
/** @typedef {import("./latency.mjs").Job} Job */
/** @typedef {import("./latency.mjs").Waiting} Waiting */

/** @param {Pick<Waiting, "candidates">} waiting @returns {string[]} */
export function waited({ candidates }) {
  const jobs = [...new Set(candidates[0]?.cells.map(({ job }) => job))];
  return [
    "## What a visitor waits, in milliseconds",
    "p50 / p99 of the requests of all rounds (of few, p99 is the slowest); the store's calls / billed " +
      "commands of one request, counted one at a time, those after the answer included; *in turn*: how many times the " +
      "way to the store the visitor waits, by the p50 of one connection and the farther store. All are limited: by session, " +
      "the first change by address. *First change*: by a visitor without a session, which begins it. *Login*: to an " +
      "account of their own, over a session without a user, whose data goes on under a new id; passwords are hashed as " +
      "cheaply as can be (Argon2id in 8 KiB, the others PBKDF2 of one iteration), so that it is the waiting that is " +
      "seen. Store, load generator and candidate share the machine's cores: with 32 connections that takes its time too.",
    ...jobs.flatMap((job) => [`**${job}**`, table(candidates, job)]),
  ];
}

/** @param {Waiting["candidates"]} candidates @param {Job} job */
function table(candidates, job) {
  const of = (/** @type {Waiting["candidates"][number] | undefined} */ candidate) =>
    candidate?.cells.filter((cell) => cell.job === job) ?? [];
  const ms = (/** @type {number} */ value) => value.toFixed(value < 100 ? 1 : 0);
  return rows(
    [
      "",
      "calls / commands",
      "in turn",
      ...of(candidates[0]).map(
        ({ latency, connections, requests }) => `store ${latency} ms, ${connections} conn., of ${requests}`,
      ),
    ],
    candidates.map((candidate) => [
      candidate.title,
      calls(candidate.store?.[job]),
      inTurn(of(candidate)),
      ...of(candidate).map(({ p50, p99 }) => `${ms(p50)} / ${ms(p99)}`),
    ]),
  );
}

/** @param {{ calls: number, commands: number } | undefined} used */
const calls = (used) => (used ? `${short(used.calls)} / ${short(used.commands)}` : "");

/** @param {Waiting["candidates"][number]["cells"]} cells */
function inTurn(cells) {
  const [cell] = cells.filter(({ connections }) => connections === 1).sort((a, b) => b.latency - a.latency);
  return cell ? String(Math.floor(cell.p50 / cell.latency)) : "";
}

/** @param {Contention} contention @returns {string[]} */
export function contended({ increments, isolates, latency, candidates, rounds }) {
  return [
    `## ${increments} changes of one session at once`,
    `Increments of one session over ${isolates} isolates, ${latency} ms from the store, by default settings: ` +
      `${rounds} times ${increments}. How many were answered with 200, and with what else; how many are in the session ` +
      "afterwards. For each change, *tries* are calls to the store that would write the session, *calls* are all of " +
      "them. The wait in milliseconds: p50 and p99 are medians of the rounds, the longest is of all.",
    rows(
      ["", "answered 200", "others", "survived", "tries", "calls", "p50", "p99", "longest"],
      candidates.map(({ title, rounds }) => {
        const of = (/** @type {"p50" | "p99" | "calls" | "tries"} */ name, digits = 0) =>
          rounds.every((one) => name in one)
            ? median(rounds.map((one) => one[name] ?? NaN)).toFixed(digits)
            : "";
        const sum = (/** @type {"acknowledged" | "survived"} */ name) =>
          rounds.reduce((sum, one) => sum + one[name], 0);
        return [
          title,
          String(sum("acknowledged")),
          others(rounds.flatMap(({ refused }) => refused)),
          `**${sum("survived")}**`,
          of("tries", 2),
          of("calls", 2),
          of("p50"),
          of("p99"),
          Math.max(...rounds.map(({ longest }) => longest)).toFixed(0),
        ];
      }),
    ),
  ];
}

/** @param {number[]} statuses */
function others(statuses) {
  const kinds = [...new Set(statuses)].sort((a, b) => a - b);
  return kinds.map((kind) => `${statuses.filter((one) => one === kind).length} × ${kind}`).join(", ");
}
