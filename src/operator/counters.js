/** The counters of the day, and what they say of the signing keys. */

import * as api from "./api.js";
import { chart, dateText } from "./chart.js";
import { byId, code, counted, make, moment, table, tell, written } from "./dom.js";
import { DAYS, daysOf, keysOf, lastDays } from "./keys.js";

/** @import { Answer } from "./api.js" */
/** @import { Key, Report } from "./keys.js" */

const USERS = "distinct_users";

/** What is counted, in the order of the charts. @type {Record<string, string>} */
const NAMES = {
  sessions_created: "Sessions begun",
  logins: "Logins",
  failed_logins: "Failed logins",
  distinct_users: "Users",
  logouts: "Logouts",
  revocations: "Revocations",
  rate_limited: "Refused by limits",
  passed_uncounted: "Passed uncounted",
  gateway_refused: "Refused by the gateway",
  events_lost: "Events lost",
};

/** Counts the readings, of which the newest is shown. */
let latest = 0;

/** Begins to serve. */
export function open() {
  byId("again").addEventListener("click", () => void read());
}

/** Reads the counters and shows them. */
export async function read() {
  const own = ++latest;
  byId("counters").ariaBusy = "true";
  const answer = await api.stats();
  if (own === latest && !answer.isOver) show(answer);
}

/** Shows an answer. @param {Answer} answer */
export function show(answer) {
  latest++;
  byId("counters").ariaBusy = "false";
  if (!api.succeeded(answer)) return tell("counters-said", [api.reason(answer)], "bad");
  draw(answer.json, api.now());
  tell("counters-said", ["As of ", moment(new Date(api.now()).toISOString()), "."]);
}

/** Shows none. */
export function close() {
  latest++;
  for (const id of ["totals", "charts", "days", "keys"]) byId(id).replaceChildren();
  tell("counters-said", []);
}

/** @param {Report} report @param {number} now */
function draw(report, now) {
  const byDay = new Map(report.days.map((day) => [day.day, day]));
  const days = lastDays(now);
  const numberOf = (/** @type {string} */ day, /** @type {string} */ name) =>
    Number(/** @type {Record<string, unknown> | undefined} */ (byDay.get(day))?.[name] ?? 0);
  const series = Object.entries(NAMES).map(([name, title]) => ({
    title,
    counts: days.map((day) => numberOf(day, name)),
    // A user of two days would be counted twice.
    overall: (/** @type {number[]} */ counts) =>
      name === USERS
        ? `at most ${written(Math.max(...counts))} a day`
        : written(counts.reduce((sum, count) => sum + count, 0)),
  }));

  const rows = series.map(({ title, counts, overall }) => [
    title,
    written(counts.at(-1) ?? 0),
    ...[7, DAYS].map((count) => overall(counts.slice(-count))),
  ]);
  byId("totals").replaceChildren(table("Totals", ["Counter", "Today", "7 days", `${DAYS} days`], rows));
  byId("charts").replaceChildren(
    ...series.map(({ title, counts, overall }) =>
      chart(title, overall(counts), title === NAMES[USERS] ? "" : ` in ${DAYS} days`, days, counts),
    ),
  );
  const daily = days.map((day, at) => [
    dateText(day),
    ...series.map(({ counts }) => written(counts[at] ?? 0)),
  ]);
  byId("days").replaceChildren(
    table("Counters by day (UTC), the newest first", ["Day", ...Object.values(NAMES)], daily.reverse()),
  );
  drawKeys(report, now);
}

/** @param {Report} report @param {number} now */
function drawKeys(report, now) {
  const longest = daysOf(report.longest_session_seconds);
  const rows = keysOf(report, now).map((key) => [
    code(key.key),
    key.lastSeen ? dateText(key.lastSeen) : `none in ${DAYS} days`,
    written(key.tickets),
    words(key, longest),
  ]);
  byId("keys").replaceChildren(
    table(
      "Signing keys, by the fingerprints of their secrets",
      ["Key", "Last ticket", `Tickets, ${DAYS} days`, "What to do"],
      rows,
    ),
    make(
      "p",
      "hint",
      `The longest session lasts ${counted(longest, "day")}: a ticket of an older secret can come back for so long. ` +
        "An isolate that ends takes its last minute of counts with it, so leave a day more where it matters.",
    ),
  );
}

/** @param {Key} key @param {number} longest  in days */
function words({ state, drop, lastSeen, daysWithout }, longest) {
  const without = `${counted(daysWithout, "day")} without a ticket`;
  const unless = lastSeen ? "" : " Unless you have just added it, to put it first.";
  switch (state) {
    case "signs":
      return "Signs new tickets. Keep it.";
    case "now":
      return `Can be dropped now: ${without}.${unless}`;
    case "wait":
      return `Can be dropped on ${drop}, if no more are seen: ${without}, of ${longest}.${unless}`;
    case "unbound":
      return "Not bound here any more, or another application's.";
    case "unseen":
      return `Sessions outlast these ${DAYS} days: it can be dropped ${counted(longest, "day")} after another secret was put first.`;
  }
}
