/** What was measured, as Markdown for people and as a picture for the README. */

/** @typedef {import("./measure.mjs").Measurements} Measurements */
/** @typedef {Measurements["candidates"][number]} Result */
/** @typedef {import("./measure.mjs").Cell} Cell */
/** @typedef {import("./measure.mjs").Job} Job */
/**
 * @typedef {Measurements & {
 *   date: string, command: string, seconds: number, versions: Record<string, string>,
 *   machine: { cpu: string, cores: number, kernel: string, node: string, loadBefore: number },
 * }} Results
 */

const BUSY = { connections: 32, latency: 0 };
const JOBS = /** @type {Record<Job, string>} */ ({
  read: "read the session, rate-limited",
  change: "increment a counter in it, rate-limited",
  forged: "a forged cookie",
});
/** The one that the goals of issue 6 speak of. */
const PEER = "hono-upstash";

/** @param {Results} results */
export function table(results) {
  const { candidates, machine, versions } = results;
  const paragraphs = [
    "# Benchmark",
    `${results.date.slice(0, 10)}, \`${results.command}\`: ${results.rounds} rounds in ${results.seconds} s on ` +
      `${machine.cores} × ${machine.cpu}, ${machine.kernel}, Node ${machine.node}; the load average was ` +
      `${machine.loadBefore.toFixed(1)} before it. Store, load generator and candidate share these cores, so requests ` +
      "per second and latencies compare; they don't predict. Medians over the rounds.",
    Object.entries(versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(", "),
    "## CPU time per request, in milliseconds",
    "User and system time of the serving process, of all its threads; 32 connections, store next door. In brackets: " +
      "times the floor of its kind, one store call for read and change, a constant answer for a forged cookie.",
    cpuTable(candidates),
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
  for (const job of /** @type {Job[]} */ (Object.keys(JOBS))) {
    const cells = (candidates[0]?.cells ?? []).filter((cell) => cell.job === job);
    if (cells.length < 2) continue;
    paragraphs.push(`## Speed: ${JOBS[job]}`, "Requests per second, and p50 / p99 in milliseconds.");
    paragraphs.push(speedTable(candidates, cells));
  }
  return `${paragraphs.join("\n\n")}\n`;
}

/** @param {Result[]} candidates */
function cpuTable(candidates) {
  const floors = { read: "one-call", change: "one-call", forged: "constant" };
  const cpu = (/** @type {Result | undefined} */ result, /** @type {Job} */ job) =>
    figures(result, { job, ...BUSY })?.cpu ?? NaN;
  const shown = (/** @type {Result} */ result, /** @type {Job} */ job) => {
    const floor = candidates.find(({ name }) => name === floors[job]);
    return `${cpu(result, job).toFixed(3)} (${(cpu(result, job) / cpu(floor, job)).toFixed(2)})`;
  };
  const peer = cpu(
    candidates.find(({ name }) => name === PEER),
    "read",
  );
  return rows(
    ["", "read", "change", "forged", `read, of ${PEER}'s`],
    candidates.map((result) => [
      result.title,
      shown(result, "read"),
      shown(result, "change"),
      shown(result, "forged"),
      peer ? `${((100 * cpu(result, "read")) / peer).toFixed(0)} %` : "",
    ]),
  );
}

/** @param {Result[]} candidates */
function storeTable(candidates) {
  const number = (/** @type {number} */ value) => value.toFixed(1).replace(/\.0$/, "");
  const shown = (/** @type {import("./store.mjs").Counted | undefined} */ used) =>
    used ? `${number(used.calls)} / ${number(used.commands)} / ${used.bytes.toFixed(0)}` : "";
  return rows(
    ["", "read", "change", "forged"],
    candidates.map(({ title, store }) => [
      title,
      shown(store?.read),
      shown(store?.change),
      shown(store?.forged),
    ]),
  );
}

/** @param {Result[]} candidates */
function otherTable(candidates) {
  const kilobytes = (/** @type {number} */ bytes) => `${(bytes / 1024).toFixed(1)} KB`;
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
function figures(result, { job, connections, latency }) {
  return result?.cells.find(
    (cell) => cell.job === job && cell.connections === connections && cell.latency === latency,
  );
}

/** @param {string[]} head @param {string[][]} lines */
function rows(head, lines) {
  const rule = head.map((_, at) => (at ? "---:" : "---"));
  return [head, rule, ...lines].map((line) => `| ${line.join(" | ")} |`).join("\n");
}

/**
 * Bars: CPU time per rate-limited read. Readable on light and dark pages.
 *
 * @param {Results} results
 */
export function chart({ candidates, date }) {
  const bars = candidates.map((result) => ({
    ...result,
    cpu: (figures(result, { job: "read", ...BUSY })?.cpu ?? 0) * 1000,
  }));
  const [width, left, line, top] = [760, 280, 30, 62];
  const height = top + bars.length * line + 16;
  const scale = (width - left - 80) / Math.max(...bars.map(({ cpu }) => cpu));
  const drawn = bars.map(({ name, title, cpu, floor }, at) => {
    const y = top + at * line;
    const kind = name === "cloakroom" ? "ours" : floor ? "floor" : "peer";
    return [
      `<text x="${left - 10}" y="${y + 15}" text-anchor="end"${kind === "ours" ? ' class="bold"' : ""}>${title}</text>`,
      `<rect x="${left}" y="${y}" width="${(cpu * scale).toFixed(1)}" height="21" rx="2" class="${kind}"/>`,
      `<text x="${(left + cpu * scale + 8).toFixed(1)}" y="${y + 15}"${kind === "ours" ? ' class="bold"' : ""}>${cpu.toFixed(0)} µs</text>`,
    ].join("\n");
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title">
<title id="title">CPU time per rate-limited session read: ${bars.map(({ title, cpu }) => `${title} ${cpu.toFixed(0)} µs`).join(", ")}</title>
<style>
text { font: 14px system-ui, sans-serif; fill: #1f2328 }
.bold { font-weight: 600 } .head { font-size: 16px; font-weight: 600 } .note { font-size: 12px; fill: #59636e }
.ours { fill: #b3402e } .peer { fill: #8c959f } .floor { fill: #d0d7de }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .note { fill: #9198a1 }
.ours { fill: #e5705c } .peer { fill: #6e7681 } .floor { fill: #3d444d }
}
</style>
<text x="10" y="24" class="head">CPU time per rate-limited session read</text>
<text x="10" y="44" class="note">of the serving process, microseconds; less is better · ${date.slice(0, 10)}, npm run bench</text>
${drawn.join("\n")}
</svg>
`;
}
