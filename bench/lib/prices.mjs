/** What the parts of a request cost, in US dollars, beyond what a plan includes; and where that is written. */

/** When the pages were looked up. */
export const LOOKED_UP = "2026-11-21";

export const CLOUDFLARE = {
  plan: "Cloudflare Workers Paid",
  source: "https://developers.cloudflare.com/workers/platform/pricing/",
  /** "10 million included per month + $0.30 per additional million". */
  request: 0.3 / 1e6,
  /** "30 million CPU milliseconds included per month + $0.02 per additional million CPU milliseconds". */
  cpuMillisecond: 0.02 / 1e6,
};

export const UPSTASH = {
  plan: "Upstash Redis Pay as You Go",
  source: "https://upstash.com/pricing/redis",
  /** "$0.2 per 100K commands"; in a Global database a write counts once more for each read region. */
  command: 0.2 / 1e5,
  /** "Free up to 200 GB/month, then $0.03/GB". */
  byte: 0.03 / 1e9,
};

/**
 * What a million requests cost.
 *
 * @param {number} cpu milliseconds of each
 * @param {import("./store.mjs").Counted} store of each
 */
export function million(cpu, { commands, bytes }) {
  const request = 1e6 * CLOUDFLARE.request;
  const parts = {
    cpu: 1e6 * cpu * CLOUDFLARE.cpuMillisecond,
    commands: 1e6 * commands * UPSTASH.command,
    traffic: 1e6 * bytes * UPSTASH.byte,
  };
  return { ...parts, request, all: request + parts.cpu + parts.commands + parts.traffic };
}
