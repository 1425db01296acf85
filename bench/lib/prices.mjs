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

/** When the limits below were looked up, in stored copies of these pages. */
export const LIMITS_LOOKED_UP = "2026-11-29";

/** What is included in a month of Workers Paid, and what that costs. */
export const CLOUDFLARE_INCLUDED = { price: 5, requests: 10e6, cpuMilliseconds: 30e6 };

/** Plans of Upstash Redis; `gigabytes` of data, `traffic` in GB a month, `perSecond`: commands at most. */
export const UPSTASH_PLANS = {
  source: "https://upstash.com/docs/redis/overall/billing",
  payAsYouGo: {
    perSecond: 10_000,
    gigabytes: 100,
    /** Of a month: "Free up to 200 GB", "first 1 GB free". */
    free: { traffic: 200, gigabytes: 1 },
    /** A GB of data for a month. */
    gigabyte: 0.25,
  },
  /** The price of each is a month's; each read region costs half as much more. */
  fixed: [
    { name: "250 MB", price: 10, gigabytes: 0.25, traffic: 50, perSecond: 10_000 },
    { name: "1 GB", price: 20, gigabytes: 1, traffic: 100, perSecond: 10_000 },
    { name: "5 GB", price: 100, gigabytes: 5, traffic: 500, perSecond: 10_000 },
    { name: "10 GB", price: 200, gigabytes: 10, traffic: 1000, perSecond: 10_000 },
    { name: "50 GB", price: 400, gigabytes: 50, traffic: 5000, perSecond: 10_000 },
    { name: "100 GB", price: 800, gigabytes: 100, traffic: 10_000, perSecond: 16_000 },
    { name: "500 GB", price: 1500, gigabytes: 500, traffic: 20_000, perSecond: 16_000 },
  ],
  /** Of a fixed plan's price, for each read region. */
  readRegion: 0.5,
};
