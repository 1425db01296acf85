/** What was measured, as pictures, readable on light and dark pages. */
import { PARTS } from "./attribute.mjs";
import { BUSY, figures } from "./report.mjs";

/** @typedef {import("./report.mjs").Comparison} Comparison */
/** @typedef {import("./report.mjs").Run} Run */
/** @typedef {import("./attribute.mjs").Part} Part */
/** @typedef {import("./profile.mjs").Profile} Profile */

/** White on them can be read; the second is for dark pages. @type {Record<Part, [string, string]>} */
const COLOURS = {
  wasm: ["#b3402e", "#c4503c"],
  script: ["#8a5a00", "#9a6700"],
  engine: ["#1a7f37", "#238636"],
  garbage: ["#a62d72", "#bf4b8a"],
  api: ["#7a3fd0", "#8957e5"],
  network: ["#0757ba", "#1f6feb"],
  memory: ["#0b7285", "#1b7c83"],
  kernel: ["#424a53", "#586069"],
  rest: ["#6e7781", "#6e7681"],
};

/**
 * Bars: CPU time per rate-limited read.
 *
 * @param {Comparison} comparison
 */
export function cpuChart({ candidates, date }) {
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

/**
 * Stacked bars: what the CPU time of a request goes into.
 *
 * @param {Profile & Run} profile
 */
export function profileChart({ profiled, date }) {
  const names = /** @type {Part[]} */ (Object.keys(PARTS));
  const [width, left, line] = [860, 230, 44];
  const legend = names.map((name, at) => {
    const [x, y] = [10 + (at % 5) * 170, 64 + Math.floor(at / 5) * 22];
    return `<rect x="${x}" y="${y - 11}" width="13" height="13" rx="2" class="${name}"/><text x="${x + 20}" y="${y}">${PARTS[name]}</text>`;
  });
  const top = 106;
  const height = top + profiled.length * line + 8;
  const sums = profiled.map(({ parts }) => names.reduce((sum, name) => sum + parts[name], 0));
  const scale = (width - left - 70) / Math.max(...sums);
  const bars = profiled.map(({ title, job, parts }, row) => {
    const y = top + row * line;
    let x = left;
    const drawn = names.map((name) => {
      const [from, long] = [x, parts[name] * scale];
      x += long;
      const rect = `<rect x="${from.toFixed(1)}" y="${y}" width="${long.toFixed(1)}" height="28" class="${name}"/>`;
      const number = parts[name].toFixed(0);
      if (long < 9 * number.length + 6) return rect;
      return `${rect}<text x="${(from + long / 2).toFixed(1)}" y="${y + 19}" text-anchor="middle" class="in">${number}</text>`;
    });
    return [
      `<text x="${left - 10}" y="${y + 12}" text-anchor="end">${shortened(title)}</text>`,
      `<text x="${left - 10}" y="${y + 27}" text-anchor="end" class="note">${job}</text>`,
      ...drawn,
      `<text x="${(x + 8).toFixed(1)}" y="${y + 19}" class="bold">${sums[row]?.toFixed(0)} µs</text>`,
    ].join("\n");
  });
  const described = profiled.map(
    ({ title, job, parts }) =>
      `${title}, ${job}: ${names.map((name) => `${PARTS[name]} ${parts[name].toFixed(0)}`).join(", ")}`,
  );
  const fills = (/** @type {0 | 1} */ at) =>
    names.map((name) => `.${name} { fill: ${COLOURS[name][at]} }`).join(" ");
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-labelledby="title desc">
<title id="title">What the CPU time of a request goes into</title>
<desc id="desc">Microseconds per request. ${described.join(". ")}.</desc>
<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.bold { font-weight: 600 } .head { font-size: 16px; font-weight: 600 } .note { font-size: 12px; fill: #59636e }
${fills(0)}
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .note { fill: #9198a1 }
${fills(1)}
}
.in { font-size: 12px; fill: #ffffff }
</style>
<text x="10" y="24" class="head">What the CPU time of a request goes into</text>
<text x="10" y="42" class="note">of the serving process, microseconds per request; less is better · ${date.slice(0, 10)}, npm run bench</text>
${legend.join("\n")}
${bars.join("\n")}
</svg>
`;
}

/** Without what is in brackets. @param {string} title */
const shortened = (title) =>
  title.replace(/ \(.*\)/, "").replace("Hono + Upstash Redis and Ratelimit", "Hono + Upstash");
