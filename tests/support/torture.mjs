/**
 * Random schedules of requests and failures against the built Worker, each judged by what docs/ promises.
 * A seed determines a theme and its schedule; how its operations interleave is up to the machines.
 */
import * as thefts from "./torture/thefts.mjs";
import { checkThefts } from "./torture/thefts-check.mjs";
import { drawThefts } from "./torture/thefts-schedule.mjs";
import * as accounts from "./torture/accounts.mjs";
import { checkAccounts } from "./torture/accounts-check.mjs";
import { drawAccounts } from "./torture/accounts-schedule.mjs";
import { check } from "./torture/check.mjs";
import { dice } from "./torture/dice.mjs";
import { drawSchedule } from "./torture/schedule.mjs";
import { play } from "./torture/sessions.mjs";

export { startStages } from "./torture/stage.mjs";

/** @typedef {import("./torture/stage.mjs").Stage} Stage */
/** @typedef {import("./torture/stage.mjs").StageKind} StageKind */
/** @typedef {import("./torture/report.mjs").Violation} Violation */
/** @typedef {{ seed: number, theme: string, stage: StageKind }} AnySchedule and what its theme knows of it */

/**
 * A kind of schedules.
 *
 * @typedef {object} Theme
 * @property {number} share of the seeds
 * @property {(seed: number) => any} draw its schedule
 * @property {(stage: Stage, schedule: any) => Promise<{ operations: unknown[] } | undefined>} play its history; nothing,
 *   when it took too long to be judged
 * @property {(history: any) => Violation[]} check
 */

/** @type {Record<string, Theme>} */
export const THEMES = {
  /** Sessions that are changed, rotated and ended by many, with every kind of fault. */
  sessions: { share: 4, draw: drawSchedule, play, check },
  /** Accounts: logins, passwords, profiles, and what an ended session must not do. */
  accounts: { share: 4, draw: drawAccounts, play: accounts.play, check: checkAccounts },
  /** Ids that were rotated: who may still use them, and who is found out. */
  thefts: { share: 3, draw: drawThefts, play: thefts.play, check: checkThefts },
};

/**
 * What is going to happen.
 * @param {number} seed
 * @param {string} [only] this theme
 * @returns {AnySchedule}
 */
export function draw(seed, only) {
  const names = Object.entries(THEMES).map(
    ([name, { share }]) => /** @type {[number, string]} */ ([share, name]),
  );
  const theme = only ?? dice(~seed).draw(names);
  return { theme, ...themeOf(theme).draw(seed) };
}

/** @param {string} name */
function themeOf(name) {
  const theme = THEMES[name];
  if (!theme) throw new Error(`there is no theme ${name}, but ${Object.keys(THEMES).join(", ")}`);
  return theme;
}

/** @typedef {{ schedule: AnySchedule, history: { operations: unknown[] }, violations: Violation[] }} Failure */
/** @typedef {{ schedules: number, slow: number, operations: number, failures: Failure[] }} Tally `slow`: not judged */

/**
 * Carries out the schedules of so many seeds, from `seed` on, each on the stage of its kind, until one fails.
 * @param {Stage[]} stages
 * @param {object} options
 * @param {number} options.seed
 * @param {number} options.schedules
 * @param {string} [options.only] this theme
 * @param {boolean} [options.goOn] also when one failed
 * @param {number} [options.until] on `Date.now()`'s clock: none begins after that
 * @param {(done: Tally) => void} [options.progress]
 */
export async function torture(
  stages,
  { seed, schedules, only, goOn, until = Infinity, progress = () => {} },
) {
  /** @type {Tally} */
  const done = { schedules: 0, slow: 0, operations: 0, failures: [] };
  const isOver = () => (done.failures.length > 0 && !goOn) || Date.now() >= until;
  const onStage = async (/** @type {Stage} */ stage) => {
    for (let each = seed; each < seed + schedules && !isOver(); each += 1) {
      const schedule = draw(each, only);
      if (schedule.stage !== stage.kind) continue;
      const history = await themeOf(schedule.theme).play(stage, schedule);
      done.schedules += 1;
      if (history) {
        done.operations += history.operations.length;
        const violations = themeOf(schedule.theme).check(history);
        if (violations.length) done.failures.push({ schedule, history, violations });
      } else {
        done.slow += 1;
      }
      progress(done);
    }
  };
  await Promise.all(stages.map(onStage));
  return done;
}
