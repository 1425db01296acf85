/** The device list: a user's sessions, each with a button that ends it. */

import * as api from "./api.js";
import { byId, make, onPress, tell } from "./dom.js";

/** @import { Counter, Question } from "./account.js" */
/** @import { Device, Exchange } from "./api.js" */

/** @typedef {{ ask: (question: Question) => void, lost: (exchange: Exchange) => Promise<boolean> }} Account */

/** What user agents call themselves, the more particular first, and what people call them. */
const BROWSERS = {
  Edg: "Edge",
  OPR: "Opera",
  Firefox: "Firefox",
  Chrome: "Chrome",
  Safari: "Safari",
  curl: "curl",
};
const SYSTEMS = {
  ...{ Android: "Android", iPhone: "iPhone", iPad: "iPad", Windows: "Windows" },
  ...{ "Mac OS X": "macOS", CrOS: "ChromeOS", Linux: "Linux" },
};

const PLACE = "devices-said";
const list = byId("devices");
const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** @type {Counter & Account} */
let counter;

/** Begins to serve. @param {Counter & Account} lent */
export function open(lent) {
  counter = lent;
  onPress(byId("list"), () =>
    counter.act(PLACE, async (say) => {
      if (await load()) say("This is how it stands now.");
    }),
  );
  onPress(byId("end-others"), () => end(api.endOthers, "All others are ended."));
}

/** Fetches the list and shows it. @returns {Promise<boolean>}  whether that worked; if not, it is told */
export async function load() {
  const exchange = await counter.one(api.devices());
  const isGood = api.succeeded(exchange);
  if (isGood) draw(/** @type {{ sessions: Device[] }} */ (exchange.json).sessions);
  else if (!(await counter.lost(exchange))) tell(PLACE, api.reason(exchange), "bad");
  return isGood;
}

/** Shows the sessions, this one first. The focus stays in its row, or near it. @param {Device[]} sessions */
export function draw(sessions) {
  const at = [...list.querySelectorAll("button")].findIndex((button) => button === document.activeElement);
  const wasOthers = document.activeElement === byId("end-others");
  const sorted = sessions.toSorted((one, other) => Number(other.current) - Number(one.current));
  list.replaceChildren(...sorted.map(row));
  byId("end-others").hidden = sessions.length < 2;
  const buttons = list.querySelectorAll("button");
  if (at >= 0) (buttons[Math.min(at, buttons.length - 1)] ?? byId("devices-title")).focus();
  if (wasOthers && sessions.length < 2) byId("devices-title").focus();
}

/** @param {Device} device */
function row(device) {
  const name = nameOf(device.user_agent);
  const facts = [
    ...(device.current ? [] : ["last seen ", moment(device.last_seen_at), " · "]),
    "since ",
    moment(device.created_at),
    ...(device.remember ? [" · remembered"] : []),
    ...(device.provider ? [` · by ${device.provider}`] : []),
    ...(device.ip ? [" · ", make("code", "", device.ip)] : []),
  ];
  const about = make("div", "", make("p", "device", name), make("p", "hint", ...facts));
  if (device.current) return make("li", "", about, make("span", "badge", "this one"));

  // Heard alone, "End" would not tell what.
  const seen = `last seen ${dateTime.format(new Date(device.last_seen_at))}`;
  const button = make("button", "", "End", make("span", "unseen", ` ${name}, ${seen}`));
  button.type = "button";
  onPress(button, () => end(() => api.endDevice(device.handle), `${name} is ended.`));
  return make("li", "", about, button);
}

/**
 * Ends sessions; when that takes the password again, asks for it and then ends them.
 * @param {() => Promise<Exchange>} send
 * @param {string} words  when it is done
 */
function end(send, words) {
  void counter.act(PLACE, async (say) => {
    const exchange = await counter.one(send());
    if (api.code(exchange) === "reauthenticate") return counter.ask(again(send, words));
    const isGone = exchange.status === 404;
    if (api.succeeded(exchange) || isGone) {
      if (await load()) say(isGone ? "That one had ended already." : words);
    } else if (!(await counter.lost(exchange))) say(api.reason(exchange), "bad");
  });
}

/** @param {() => Promise<Exchange>} send  @param {string} words  @returns {Question} */
function again(send, words) {
  return {
    title: "Is it still you?",
    why: "You gave your password a good while ago. To end other devices, give it once more.",
    go: "Go on",
    place: PLACE,
    send: (password) => counter.one(api.reauthenticate(password)),
    then: () => end(send, words),
  };
}

/** @param {string} instant  RFC 3339 */
function moment(instant) {
  const time = make("time", "", dateTime.format(new Date(instant)));
  time.dateTime = instant;
  return time;
}

/** "Chrome on Linux", as far as a user agent tells. @param {string | null} userAgent */
function nameOf(userAgent) {
  const [browser, system] = [BROWSERS, SYSTEMS].map(
    (names) => Object.entries(names).find(([part]) => userAgent?.includes(part))?.[1],
  );
  return [browser ?? "Unknown browser", system].filter(Boolean).join(" on ");
}
