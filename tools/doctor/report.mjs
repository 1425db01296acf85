/** What was found: a table for people, line by line, or JSON in one piece. */
import { say } from "../say.mjs";

/** @typedef {import("./rows.mjs").Result} Result */
/** @typedef {import("./rows.mjs").Status} Status */

/** @type {Record<Status, string>} */
const MARKS = { passed: "✔", warned: "!", failed: "✘", skipped: "–" };

export class Report {
  /** @type {Result[]} */
  #results = [];
  #group = "";
  #isJson;
  /** What each group is about: `database` → its host. @type {Record<string, string>} */
  #about;

  /** @param {{ isJson: boolean, about: Record<string, string> }} options */
  constructor({ isJson, about }) {
    this.#isJson = isJson;
    this.#about = about;
  }

  /** @param {Result} result */
  add(result) {
    this.#results.push(result);
    if (this.#isJson) return;
    const { group, what, status, detail, otherwise } = result;
    if (group !== this.#group) say(`\n${title(group)}${this.#about[group] ? `: ${this.#about[group]}` : ""}`);
    this.#group = group;
    const isTrouble = status === "warned" || status === "failed";
    say(`  ${MARKS[status]} ${what}${detail && !isTrouble ? ` (${detail})` : ""}`);
    if (!isTrouble) return;
    for (const line of (detail ?? "").split("\n")) say(`      found: ${line}`);
    say(`      so: ${otherwise}`);
  }

  /** @param {Status} status */
  count(status) {
    return this.#results.filter((result) => result.status === status).length;
  }

  /** @param {{ interrupted: boolean }} how it has ended */
  end({ interrupted }) {
    const counts = {
      passed: this.count("passed"),
      warned: this.count("warned"),
      failed: this.count("failed"),
      skipped: this.count("skipped"),
    };
    if (this.#isJson) {
      const ok = !counts.failed && !interrupted;
      say(JSON.stringify({ ok, interrupted, ...counts, about: this.#about, rows: this.#results }, null, 2));
      return;
    }
    const list = Object.entries(counts).map(([status, count]) => `${count} ${status}`);
    say(`\n${interrupted ? "Interrupted. " : ""}${list.join(", ")}`);
  }
}

/** @param {string} group */
function title(group) {
  return group.charAt(0).toUpperCase() + group.slice(1);
}
