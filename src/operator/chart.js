/** A chart of one counter: a bar for each day. */

import { make, written } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
const [HEIGHT, STEP, BAR] = [48, 10, 7];

const dates = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

/** @param {string} day  such as 2026-11-28 */
export const dateText = (day) => dates.format(new Date(day));

/**
 * @param {string} title
 * @param {string} total  what all days are together, in words
 * @param {string} span  more words, for whoever does not see how many days there are
 * @param {string[]} days  the oldest first
 * @param {number[]} counts
 */
export function chart(title, total, span, days, counts) {
  const most = Math.max(0, ...counts);
  const peak = days[counts.indexOf(most)] ?? "";
  const drawing = element("svg", {
    viewBox: `0 0 ${days.length * STEP} ${HEIGHT + 1}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `${title}: ${total}${span}${most ? `; most on ${dateText(peak)}: ${written(most)}` : ""}`,
  });
  drawing.append(
    ...counts.map((count, at) => {
      // One is seen also beside a million.
      const height = count ? Math.max(1.5, (count / most) * HEIGHT) : 0;
      const place = { x: at * STEP + (STEP - BAR) / 2, y: HEIGHT - height, width: BAR, height };
      const bar = element("rect", place);
      const words = element("title", {});
      words.textContent = `${dateText(days[at] ?? "")}: ${written(count)}`;
      bar.append(words);
      return bar;
    }),
    element("line", { x1: 0, x2: days.length * STEP, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5 }),
  );
  const [first = "", last = ""] = [days[0], days.at(-1)];
  const scale = make("p", "scale", make("span", "", dateText(first)), make("span", "", dateText(last)));
  const name = make("figcaption", "", make("strong", "", title), " ", make("span", "", total));
  scale.ariaHidden = "true";
  return make("figure", "", name, drawing, scale);
}

/** @param {string} tag @param {Record<string, string | number>} attributes */
function element(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  return made;
}
