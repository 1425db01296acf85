/** What answers say of rate limits: how much is left, and after a refusal how long it takes. Asks nobody. */

import { header, succeeded } from "./api.js";
import { byId, tell } from "./dom.js";
import { duration } from "./ticket.js";

/** @import { Exchange } from "./api.js" */

/**
 * One limit, and how one stands with it.
 * @typedef {{ name: string, left: number, quota: number, seconds: number }} LimitState
 */

/** An item of a RateLimit field: `"name";r=1;t=2`. Of RFC 9651 this is as much as the draft needs. */
const ITEM = /"((?:[^"\\]|\\.)*)"((?: *; *[a-z]+=\d+)*)/g;

/** How a window of so many seconds is called. @type {Record<number, string>} */
const WINDOWS = { 1: "second", 60: "minute", 300: "5 minutes", 3600: "hour", 86_400: "day" };

const wait = byId("wait");

/** When it may be tried again, by our clock; 0 when nothing was refused. */
let until = 0;

/** Where the refusal was told. */
let told = "";

/** The limit that refused, when it counts only some requests: sessions that are begun, or passwords that are tried. */
let partial = "";

/** On show. @type {LimitState | undefined} */
let shown;

/**
 * Takes what some answers say.
 * @param {Exchange[]} exchanges
 * @param {string} place  the live region that tells of them: below it a countdown runs, which nobody hears, and in
 *   it the end of that is told
 */
export function heed(exchanges, place) {
  const limitState = tightest(exchanges.flatMap(limitStates));
  if (limitState || exchanges.some(succeeded)) draw(limitState);

  const refusals = exchanges.filter(refused);
  if (!refusals.length) return;
  const seconds = Math.max(...refusals.map((exchange) => Number(header(exchange, "Retry-After")) || 1));
  until = Date.now() + seconds * 1000;
  partial = /^(mint|login)\b/.exec(limitState?.name ?? "")?.[0] ?? "";
  move(place);
  tick();
}

/** Lets the countdown go on at another place. @param {string} place */
export function move(place) {
  told = place;
  byId(place).after(wait);
}

/** The session is gone, and what it had left of its limits. */
export function forget() {
  if (/^(session|user)\b/.test(shown?.name ?? "")) draw();
}

/** Whether an exchange was refused by a limit. @param {Exchange} exchange */
export const refused = (exchange) => exchange.status === 429;

/**
 * Whether something should not be asked now.
 * @param {string} spends  which of the limits that count only some requests count it: names with spaces between
 */
export const isWaiting = (spends) => until > 0 && (!partial || spends.split(" ").includes(partial));

/** Moves the countdown on. @returns {boolean}  whether it has come to its end just now */
export function tick() {
  const left = until - Date.now();
  const isOver = until > 0 && left <= 0;
  if (isOver) {
    until = 0;
    tell(told, "It may be tried again.");
    // Nobody has counted since, but one must be free.
    if (shown?.left === 0) draw({ ...shown, left: 1 }, "at least ");
  }
  wait.hidden = until === 0;
  byId("again").textContent = duration(Math.max(0, Math.ceil(left / 1000)));
  return isOver;
}

/** @param {LimitState} [limitState]  nothing, when there is no limit to show @param {string} [about] */
function draw(limitState, about = "") {
  shown = limitState;
  byId("quota").hidden = !limitState;
  if (!limitState) return;
  const { name, left, quota, seconds } = limitState;
  const text = `${about}${left} left of ${quota} per ${WINDOWS[seconds] ?? `${seconds} s`}`;
  const meter = byId("left", HTMLMeterElement);
  meter.max = meter.optimum = quota;
  meter.low = quota / 4;
  meter.high = quota / 2;
  meter.value = left;
  meter.setAttribute("aria-valuetext", text);
  byId("limit").textContent = name;
  byId("left-text").textContent = text;
}

/** The limits an answer tells of. @param {Exchange} exchange @returns {LimitState[]} */
function limitStates(exchange) {
  const policies = new Map(items(header(exchange, "RateLimit-Policy")));
  return items(header(exchange, "RateLimit")).flatMap(([name, { r: left = 0 }]) => {
    const { q: quota = 0, w: seconds = 0 } = policies.get(name) ?? {};
    return quota ? [{ name, left, quota, seconds }] : [];
  });
}

/** @param {LimitState[]} all */
const tightest = (all) => all.toSorted((one, other) => one.left - other.left)[0];

/** @param {string | null} field @returns {[name: string, parameters: Record<string, number>][]} */
const items = (field) =>
  [...(field ?? "").matchAll(ITEM)].map(([, name = "", parameters = ""]) => [
    name.replaceAll(/\\(.)/g, "$1"),
    Object.fromEntries(
      [...parameters.matchAll(/([a-z]+)=(\d+)/g)].map(([, key, value]) => [key, Number(value)]),
    ),
  ]);
