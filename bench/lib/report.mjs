/** What was measured, as Markdown for people. */
import { againstBefore } from "./against.mjs";
import { median, TOLERANCE } from "./figures.mjs";
import { acrossBorder } from "./crossings.mjs";
import { throughGateway } from "./gateway.mjs";
import { CLOUDFLARE, LOOKED_UP, million, UPSTASH } from "./prices.mjs";
import { PARTS } from "./attribute.mjs";
import { filled } from "./scale-report.mjs";
import { contended, waited } from "./waits.mjs";

/** @typedef {import("./measure.mjs").Measurements} Measurements */
/** @typedef {Measurements["candidates"][number]} Result */
/** @typedef {import("./measure.mjs").Cell} Cell */
/** @typedef {import("./measure.mjs").Job} Job */
/** @typedef {import("./growth.mjs").Growth} Growth */
/** @typedef {import("./growth.mjs").Grown} Grown */
/** @typedef {import("./profile.mjs").Profile} Profile */
/** @typedef {import("./store.mjs").Counted} Counted */
/** @typedef {import("./latency.mjs").Waiting} Waiting */
/** @typedef {import("./contention.mjs").Contention} Contention */
/**
 * @typedef {object} Run how a part was measured
 * @property {string} date
 * @property {string} command
 * @property {number} seconds
 * @property {Record<string, string>} versions
 * @property {{ cpu: string, cores: number, kernel: string, node: string, loadBefore: number }} machine
 *
 * @typedef {Measurements & Run} Comparison
 * @typedef {{ comparison?: Comparison, growth?: Growth & Run, profile?: Profile & Run, gateway?: Comparison }
 *   & { latency?: Waiting & Run, contention?: Contention & Run, crossings?: import("./crossings.mjs").Crossings & Run, scale?: import("./scale.mjs").Scale & Run }} Results each of its own run
 */

export const BUSY = { connections: 32, latency: 0 };
const JOBS = /** @type {Record<Job, string>} */ ({
  read: "read the session, rate-limited",
  change: "increment a counter in it, rate-limited",
  forged: "a forged cookie",
});
/** The one that the goals of issue 6 speak of. */
const PEER = "hono-upstash";

/** @param {Results} results */
export function report({ comparison, growth, profile, gateway, latency, contention, scale, crossings }) {
  /** @type {string[]} */
  const paragraphs = [];
  if (comparison) paragraphs.push(...againstBefore(comparison), ...compared(comparison));
  if (profile) paragraphs.push(...profiled(profile));
  if (crossings) paragraphs.push(...acrossBorder(crossings));
  if (gateway) paragraphs.push(...throughGateway(gateway));
  if (latency) paragraphs.push(...waited(latency));
  if (contention) paragraphs.push(...contended(contention));
  if (growth) paragraphs.push(...grown(growth));
  if (scale) paragraphs.push(...filled(scale));
  if (comparison) paragraphs.push(...details(comparison));
  paragraphs.push("## The runs");
  for (const run of [comparison, profile, crossings, gateway, latency, contention, growth, scale]) {
    if (run) paragraphs.push(told(run));
  }
  return paragraphs.join("\n\n");
}

/** @param {Run & { rounds: number }} run */
function told({ date, command, rounds, seconds, machine, versions }) {
  return (
    `${date.slice(0, 10)}, \`${command}\`: ${rounds} rounds in ${seconds} s on ${machine.cores} × ${machine.cpu}, ` +
    `${machine.kernel}, Node ${machine.node}; the load average was ${machine.loadBefore.toFixed(1)} before it. ` +
    Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", ")
  );
}

/** What most want to know. @param {Comparison} comparison */
function compared({ candidates }) {
  return [
    "## CPU time per request",
    "In milliseconds: user and system time of the serving process, of all its threads; medians " +
      "over the rounds, 32 connections, store next door. In brackets: times the floor of its kind in the same round, the " +
      "median: one store call for read and change, a constant answer for a forged cookie.",
    cpuTable(candidates),
    "## What a million requests cost",
    `In US dollars, beyond what is included, by the prices of [${CLOUDFLARE.plan}](${CLOUDFLARE.source}) ` +
      `($${(1e6 * CLOUDFLARE.request).toFixed(2)} for a million requests, $${(1e6 * CLOUDFLARE.cpuMillisecond).toFixed(2)} ` +
      `for a million milliseconds of CPU time) and [${UPSTASH.plan}](${UPSTASH.source}) ` +
      `($${(1e6 * UPSTASH.command).toFixed(2)} for a million commands, $${(1e9 * UPSTASH.byte).toFixed(2)} for a GB), looked ` +
      `up ${LOOKED_UP}. **The CPU time is that of this machine**, with all that workerd does; Cloudflare's machines ` +
      "and meter are others. Traffic: bodies only. A Global database bills each write once more per read region.",
    costTable(candidates),
  ];
}

/** @param {Profile} profile */
function profiled({ profiled }) {
  return [
    "## Where the time goes",
    "![CPU time per request, by what it goes into](../bench/profile.svg)",
    "Microseconds per request, from samples of `perf` of all threads; means over the rounds, 32 connections, store next " +
      "door. A function counts for what it is and not for what calls it. *V8's own functions*: what is built into it, " +
      "strings and promises among them. *The platform's API*: workerd's side of requests, responses, headers, timers.",
    rows(
      ["", ...Object.values(PARTS), "all"],
      profiled.map(({ title, job, parts, cpu }) => [
        `${title}: ${job}`,
        ...Object.values(parts).map((part) => part.toFixed(0)),
        cpu.toFixed(0),
      ]),
    ),
  ];
}

/** @param {Growth} growth */
function grown({ lines }) {
  const axes = [...new Set(lines.map(({ axis }) => axis))];
  const microseconds = (/** @type {number} */ cpu) => (1000 * cpu).toPrecision(2).replace(/e.*/, "");
  return [
    "## How Cloakroom's cost grows",
    "CPU time per request, with each thing that there can be more of while the rest stays as it is; 32 connections, " +
      "store next door. The slope is that of the line of least squares through the medians. The growth is " +
      `**not linear** when a median is off that line by more than ${100 * TOLERANCE} %, and by more than the ` +
      "noise: the width of the middle half of a point's rounds, the median of all points'. A slope that makes less " +
      "of a difference than that is lost in it. Commands and bytes: the store's, of one request.",
    rows(
      ["", "job", "from", "to", "slope", "linear", "commands", "bytes"],
      lines.map((line) => {
        const { axis, unit, job, points, slope, bend } = line;
        const [first, last] = [points[0], points.at(-1)];
        const shown = (/** @type {import("./growth.mjs").Point | undefined} */ point) =>
          point ? `${point.cpu.toFixed(3)} ms at ${point.x.toLocaleString("en")}` : "";
        const off = bend && `${bend.by > 0 ? "+" : "−"}${Math.abs(100 * bend.by).toFixed(0)} %`;
        return [
          axis,
          job,
          shown(first),
          shown(last),
          isLost(line) ? "lost in the noise" : `${microseconds(slope)} µs per ${unit}`,
          bend ? `**no**: ${off} at ${bend.x.toLocaleString("en")}` : "yes",
          span(line, ({ commands }) => short(commands)),
          span(line, ({ bytes }) => bytes.toFixed(0)),
        ];
      }),
    ),
    "Each point: CPU time in milliseconds, and the store's calls / billed commands / bytes.",
    ...axes.map((axis) => growthTable(lines.filter((line) => line.axis === axis))),
  ];
}

/** Whether the slope makes less of a difference than the rounds. @param {Grown} line */
function isLost({ slope, noise, points }) {
  return Math.abs(slope) * ((points.at(-1)?.x ?? 0) - (points[0]?.x ?? 0)) < noise;
}

/** From the first point to the last. @param {Grown} line @param {(store: Counted) => string} shown */
function span({ points }, shown) {
  const [first, last] = [points[0], points.at(-1)].map((point) => (point ? shown(point.store) : ""));
  return first === last ? String(first) : `${first} → ${last}`;
}

/** @param {Grown[]} lines of one axis */
function growthTable(lines) {
  const [{ axis = "", unit = "" } = {}] = lines;
  const all = [...new Set(lines.flatMap(({ points }) => points.map(({ x }) => x)))];
  return rows(
    [axis === "session data" ? `${axis}, ${unit}` : axis, ...lines.map(({ job }) => job)],
    all.map((x) => [
      x.toLocaleString("en"),
      ...lines.map(({ points }) => {
        const point = points.find((point) => point.x === x);
        return point ? `${point.cpu.toFixed(3)} · ${counted(point.store)}` : "";
      }),
    ]),
  );
}

/** @param {Comparison} comparison */
function details({ candidates }) {
  const paragraphs = [
    "## The store, per request",
    "Calls / billed commands / bytes of request and answer bodies. A script is billed with each command it runs. " +
      "Express speaks Redis' own protocol: round trips / commands that Valkey ran / bytes.",
    storeTable(candidates),
    "## A hundred increments at once, size, start, memory",
    "Increments of one session on 100 connections, 5 ms from the store: how many were answered with success, and how " +
      "many of them are in the session afterwards. Bundle: minified. Start: from spawn to the first answer to a " +
      "read. Memory: resident, after all measurements.",
    otherTable(candidates),
  ];
  const note =
    "Requests per second, and p50 / p99 in milliseconds. Store, load generator and candidate share the machine's " +
    "cores, so these compare; they don't predict.";
  for (const job of /** @type {Job[]} */ (Object.keys(JOBS))) {
    const cells = (candidates[0]?.cells ?? []).filter((cell) => cell.job === job);
    if (cells.length < 2) continue;
    paragraphs.push(`## Speed: ${JOBS[job]}`, note, speedTable(candidates, cells));
  }
  return paragraphs;
}

/** @param {Result[]} candidates */
function cpuTable(candidates) {
  const floors = { read: "one-call", change: "one-call", forged: "constant" };
  const busy = (/** @type {Result | undefined} */ result, /** @type {Job} */ job) =>
    figures(result, { job, ...BUSY });
  // Of each round by itself: the machine is not equally fast in all of them.
  const times = (/** @type {Result} */ result, /** @type {Job} */ job, /** @type {string} */ other) => {
    const others = busy(
      candidates.find(({ name }) => name === other),
      job,
    )?.rounds;
    const own = busy(result, job)?.rounds ?? [];
    return others && median(own.map(({ cpu }, round) => cpu / (others[round]?.cpu ?? NaN)));
  };
  const shown = (/** @type {Result} */ result, /** @type {Job} */ job) => {
    const factor = times(result, job, floors[job]);
    return `${busy(result, job)?.cpu.toFixed(3)}${factor === undefined ? "" : ` (${factor.toFixed(2)})`}`;
  };
  return rows(
    ["", "read", "change", "forged", `read, of ${PEER}'s`],
    candidates.map((result) => [
      result.title,
      shown(result, "read"),
      shown(result, "change"),
      shown(result, "forged"),
      percent(times(result, "read", PEER)),
    ]),
  );
}

/** @param {number | undefined} part */
const percent = (part) => (part === undefined ? "" : `${(100 * part).toFixed(0)} %`);

/** Those at the edge; Express has other costs. @param {Result[]} candidates */
function costTable(candidates) {
  const cells = (/** @type {Result} */ result, /** @type {"read" | "change"} */ job) => {
    const cpu = figures(result, { job, ...BUSY })?.cpu;
    const store = result.store?.[job];
    if (cpu === undefined || !store) return ["", "", "", ""];
    const costs = million(cpu, store);
    return [`**${dollars(costs.all)}**`, ...[costs.cpu, costs.commands, costs.traffic].map(dollars)];
  };
  const parts = ["CPU", "commands", "traffic"];
  return rows(
    ["", "read", ...parts, "change", ...parts],
    candidates
      .filter(({ bundle }) => bundle)
      .map((result) => [result.title, ...cells(result, "read"), ...cells(result, "change")]),
  );
}

export const dollars = (/** @type {number} */ amount) => amount.toFixed(amount > 0 && amount < 0.1 ? 3 : 2);

/** @param {Result[]} candidates */
function storeTable(candidates) {
  return rows(
    ["", "read", "change", "forged"],
    candidates.map(({ title, store }) => [
      title,
      counted(store?.read),
      counted(store?.change),
      counted(store?.forged),
    ]),
  );
}

/** @param {Counted | undefined} used */
export function counted(used) {
  return used ? `${short(used.calls)} / ${short(used.commands)} / ${used.bytes.toFixed(0)}` : "";
}

/** @param {number} value */
export const short = (value) => value.toFixed(1).replace(/\.0$/, "");

/** @param {number} bytes */
export const kilobytes = (bytes) => `${(bytes / 1024).toFixed(1)} KB`;

/** @param {Result[]} candidates */
function otherTable(candidates) {
  return rows(
    ["", "answered", "survived", "bundle", "gzip -9", "start", "memory"],
    candidates.map(({ title, increments, bundle, startup, memory }) => [
      title,
      increments ? String(increments.acknowledged) : "",
      increments ? `**${increments.survived}**` : "",
      bundle ? kilobytes(bundle.raw) : "",
      bundle ? kilobytes(bundle.gzip) : "",
      `${startup.toFixed(0)} ms`,
      `${((memory ?? NaN) / 1024 / 1024).toFixed(0)} MB`,
    ]),
  );
}

/** @param {Result[]} candidates @param {Cell[]} cells */
function speedTable(candidates, cells) {
  return rows(
    ["", ...cells.map(({ connections, latency }) => `${connections} conn., store ${latency} ms`)],
    candidates.map((result) => [
      result.title,
      ...cells.map((cell) => {
        const found = figures(result, cell);
        if (!found) return "";
        return `${found.perSecond.toFixed(0)} · ${found.p50.toFixed(1)} / ${found.p99.toFixed(1)}`;
      }),
    ]),
  );
}

/** @param {Result | undefined} result @param {Cell} cell */
export function figures(result, { job, connections, latency }) {
  return result?.cells.find(
    (cell) => cell.job === job && cell.connections === connections && cell.latency === latency,
  );
}

/** @param {string[]} head @param {string[][]} lines */
export function rows(head, lines) {
  const rule = head.map((_, at) => (at ? "---:" : "---"));
  return [head, rule, ...lines].map((line) => `| ${line.join(" | ")} |`).join("\n");
}
