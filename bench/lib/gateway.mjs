/** What the gateway takes in front of an application, next to a Worker that only passes on. */
import { median, quartiles } from "./figures.mjs";
import { million } from "./prices.mjs";
import { BUSY, counted, dollars, figures, rows } from "./report.mjs";

/** @typedef {import("./report.mjs").Comparison} Comparison */
/** @typedef {import("./report.mjs").Result} Result */
/** @typedef {import("./measure.mjs").Job} Job */

/** The candidates that stand in front of an application. */
export const IN_FRONT = ["pass-through", "gateway", "gateway-public"];
/** At most so many times the pass-through and the session read together. */
export const GOAL = 1.5;

/** @param {Pick<Comparison, "candidates">} comparison @returns {string[]} */
export function throughGateway({ candidates }) {
  return [
    "## Through the gateway",
    "CPU time in milliseconds, as above; p50 / p99 of the latency in milliseconds, an application next door that answers " +
      "at once; the store's calls / billed commands / bytes, and what a million requests cost in US dollars, the " +
      "application not included. *Read the session* has no application behind it.",
    rows(
      ["", "CPU", "CPU, forged", "1 conn.", "32 conn.", "1 conn., store 5 ms", "store", "a million"],
      candidates.map((result) =>
        line(result, result.name === "cloakroom" ? "Read the session" : result.title),
      ),
    ),
    goal(candidates),
  ];
}

/** @param {Result} result @param {string} title */
function line(result, title) {
  const cpu = (/** @type {Job} */ job) => figures(result, { job, ...BUSY })?.cpu;
  const latency = (/** @type {number} */ connections, /** @type {number} */ milliseconds) => {
    const found = figures(result, { job: "read", connections, latency: milliseconds });
    return found ? `${found.p50.toFixed(1)} / ${found.p99.toFixed(1)}` : "";
  };
  const [read, store] = [cpu("read"), result.store?.read];
  return [
    title,
    read?.toFixed(3) ?? "",
    cpu("forged")?.toFixed(3) ?? "",
    latency(1, 0),
    latency(32, 0),
    latency(1, 5),
    counted(store),
    read === undefined || !store ? "" : `**${dollars(million(read, store).all)}**`,
  ];
}

/** Of each round by itself, as the machine is not equally fast in all of them. @param {Result[]} candidates */
function goal(candidates) {
  const rounds = (/** @type {string} */ name) =>
    figures(
      candidates.find((one) => one.name === name),
      { job: "read", ...BUSY },
    )?.rounds ?? [];
  const [passed, read] = [rounds("pass-through"), rounds("cloakroom")];
  const ratios = rounds("gateway").map(
    ({ cpu }, round) => cpu / ((passed[round]?.cpu ?? NaN) + (read[round]?.cpu ?? NaN)),
  );
  const [low, high] = quartiles(ratios);
  return (
    `The gateway's CPU time of the pass-through's and the session read's together, of each round by itself: ` +
    `**× ${median(ratios).toFixed(2)}**, the middle half ${low.toFixed(2)} to ${high.toFixed(2)}. The goal is at most ` +
    `${GOAL}.`
  );
}
