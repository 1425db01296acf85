/** The page: buttons to calls, answers to the ticket, the log and a sentence beside what was pressed. */

import * as account from "./account.js";
import * as api from "./api.js";
import { byId, make, onPress, onSubmit, tell } from "./dom.js";
import { record } from "./log.js";
import { outcome, welcome } from "./providers.js";
import * as quota from "./quota.js";
import { draw, drawUnknown, tick } from "./ticket.js";

/** @import { Exchange, Session } from "./api.js" */

const BURST = 20;

/** Who comes back to the page sees how it stands now, unless that was told in the last so many milliseconds. */
const FRESH = 5000;

const form = byId("form", HTMLFormElement);
const pips = byId("pips");

/** What the Worker last said. @type {Session | null} */
let session = null;

/** The ETag of the state that whoever is at the form has seen. @type {string | null} */
let etag = null;

/** Whether the last answer told that the session before it is gone: ended, or replaced by one of nobody. */
let isGone = false;

/** Whether an answer contradicted what is shown: it may be somebody else's doing. */
let isStale = false;

/** Whether the form holds something that was typed and not stored. */
let dirty = false;

let busy = false;

/** Where the present action speaks, or the last one did. */
let where = "ticket-said";

/** Counts the actions: an answer that one of them has overtaken tells nothing any more. */
let turn = 0;

/** Whether the page is looking by itself, and when the last answer came. */
let isPeeking = false;
let answered = -Infinity;

/** The end of a session at which the Worker was last asked whether it has ended. @type {string | undefined} */
let asked;

on("look", "ticket-said", async (say) => {
  const before = session;
  if (adopt(await one(api.look()), say)) say(isGone ? ended(before) : "This is how it stands now.");
});

on("rotate", "ticket-said", async (say) => {
  const before = session?.handle;
  if (!adopt(await one(api.rotate()), say)) return;
  const changed = session?.handle !== before;
  say(changed ? "New handle, new ticket, same coat." : "The handle is still the same.");
});

on("logout", "ticket-said", async (say) => {
  dirty = false;
  if (adopt(await one(api.logOut()), say)) say("Logged out. The ticket is gone, and so is the coat.");
});

on("visit", "visits-said", async (say) => {
  pips.replaceChildren();
  const before = session;
  if (!adopt(await one(api.increment("/visits", 1)), say)) return;
  say(isGone ? `${ended(before)} Counted, in a new session.` : "Counted.");
});

on("burst", "visits-said", async (say) => {
  // Without a ticket each of the twenty would be handed its own, so one goes ahead to fetch it.
  if (!session && !adopt(await one(api.increment("/visits", 0)), say)) return;
  const [before, sessionBefore] = [visits(), session];
  const dots = Array.from({ length: BURST }, () => make("li", ""));
  pips.replaceChildren(...dots);
  say(`${BURST} requests on their way…`);

  const exchanges = await Promise.all(
    dots.map(async (dot) => {
      const exchange = await api.increment("/visits", 1);
      dot.className = api.succeeded(exchange) ? "good" : "bad";
      return exchange;
    }),
  );
  note(exchanges);
  // Who was refused does not ask on: the newest state that an answer told has to do.
  const newest = exchanges.some(quota.refused) ? newestOf(exchanges) : await one(api.look());
  if (newest && !adopt(newest, say)) return;
  if (!isGone) return tally(exchanges, before, say);
  say(
    `${ended(sessionBefore)} Without one, each of the requests at once began its own, and one is kept.`,
    "bad",
  );
});

onSubmit(form, () => {
  act("form-said", async (say) => {
    const entered = Object.fromEntries(["name", "colour"].map((key) => [key, entry(key) || null]));
    const careful = byId("careful", HTMLInputElement).checked;
    const before = session;
    const exchange = await one(api.merge(entered, careful ? etag : null));
    const changed = exchange.status === 412;
    byId("relook").hidden = !changed;
    if (changed) {
      return say(
        "Not stored: the session has changed since this page looked, in another tab perhaps. (412)",
        "bad",
      );
    }
    if (!adopt(exchange, say)) return;
    dirty = false;
    fill();
    const done = isGone ? `${ended(before)} Stored, in a new session.` : "Stored.";
    say(`${done} Reload the page: it will still be there.`);
  });
});

form.addEventListener("input", () => (dirty = true));

on("relook", "form-said", async (say) => {
  const before = session;
  if (!adopt(await one(api.look()), say)) return;
  byId("store").focus();
  byId("relook").hidden = true;
  say(
    isGone
      ? `${ended(before)} What you entered is kept.`
      : "Looked. What you entered is kept: store it now, or change it first.",
  );
});

setInterval(() => {
  if (quota.tick()) enable();
  if (tick() || busy || quota.isWaiting("") || session?.idle_expires_at === asked) return;
  asked = session?.idle_expires_at;
  act("ticket-said", async (say) => {
    const exchange = await one(api.look());
    if (quota.refused(exchange)) asked = undefined;
    if (adopt(exchange, say) && !session) say("The session has come to its end.");
  });
}, 1000);

account.open({ act, one, adopt });

const { isBack, failure } = outcome();

act("ticket-said", async (say) => {
  const exchange = await one(api.look());
  if (adopt(exchange, say)) {
    if (isBack) welcome(failure);
    return;
  }
  drawUnknown();
  if (exchange.status === 404) {
    say(
      `No routes at ${exchange.path}: after a change of base_path, "npm run build" tells this page.`,
      "bad",
    );
  }
});

document.addEventListener("visibilitychange", peek);
window.addEventListener("focus", peek);

/** @typedef {(text: string, kind?: "good" | "bad") => void} Say */

/**
 * @param {string} id  of a button
 * @param {string} place  of what is said about it
 * @param {(say: Say) => Promise<void>} action
 */
function on(id, place, action) {
  onPress(byId(id), () => act(place, action));
}

/**
 * Runs one action at a time, and lets it speak in the live region beside it.
 * @param {string} place
 * @param {(say: Say) => Promise<void>} action
 */
async function act(place, action) {
  if (busy) return;
  busy = true;
  turn += 1;
  where = place;
  enable();
  /** @type {Say} */
  const say = (text, kind) => tell(place, text, kind);
  say("");
  try {
    await action(say);
    await account.refresh();
    if (isStale) await correct(say);
  } finally {
    busy = false;
    enable();
  }
}

/** Shows how it stands, after an answer that what is shown does not hold. @param {Say} say */
async function correct(say) {
  isStale = false;
  const before = session;
  if (adopt(await one(api.look()), say) && isGone) say(ended(before), "bad");
}

/**
 * Looks by itself when someone comes back to the page: the session may have changed or ended elsewhere. Nothing
 * waits for it, and an action that begins meanwhile knows better.
 */
async function peek() {
  const isFresh = performance.now() - answered < FRESH;
  if (document.visibilityState !== "visible" || busy || isPeeking || isFresh || quota.isWaiting("")) return;
  isPeeking = true;
  const [before, then] = [session, turn];
  try {
    const exchange = await api.look();
    note([exchange]);
    if (turn !== then || !api.succeeded(exchange)) return;
    const seen = etag;
    if (before?.handle === api.sessionOf(exchange)?.handle) adopt(exchange, () => {});
    else {
      await act("ticket-said", async (say) => {
        if (adopt(exchange, say) && isGone) say(ended(before), "bad");
      });
    }
    if (dirty) etag = seen; // who is at the form has not seen another state
  } finally {
    isPeeking = false;
  }
}

/** What became of a session that is not there any more. @param {Session | null} before */
function ended(before) {
  const who = before?.user ? "You have been logged out" : "The session has ended";
  return `${who}, perhaps in another tab or from another device.`;
}

/** Buttons are dimmed by ARIA and not by `disabled`, which would throw the keyboard's focus away. */
function enable() {
  for (const button of document.querySelectorAll("button:not([data-free])")) {
    const needsSession = button.id === "rotate" || button.id === "logout";
    const begins = !session && button.id !== "look";
    const spends = button.getAttribute("data-spends") ?? (begins ? "mint" : "");
    const waits = quota.isWaiting(spends);
    button.ariaDisabled = String(busy || waits || (needsSession && !session));
  }
}

/** @param {Promise<Exchange>} pending */
async function one(pending) {
  const exchange = await pending;
  note([exchange]);
  return exchange;
}

/** Puts exchanges into the log, and heeds what they say of limits. @param {Exchange[]} exchanges */
function note(exchanges) {
  answered = performance.now();
  isStale ||= session !== null && exchanges.some((exchange) => api.code(exchange) === "unauthenticated");
  record(exchanges);
  quota.heed(exchanges, where);
}

/**
 * Takes an answer as the new state of things, or says why not.
 * @param {Exchange} exchange
 * @param {Say} say
 */
function adopt(exchange, say) {
  if (!api.succeeded(exchange)) {
    say(api.reason(exchange), "bad");
    return false;
  }
  const before = session;
  session = api.sessionOf(exchange);
  etag = session && api.header(exchange, "ETag");
  isStale = false;
  isGone = before !== null && !isSame(before, session);
  if (isGone) forget();
  draw(session, etag, exchange.clock);
  account.show(session);
  byId("visits").textContent = String(session?.data.visits ?? 0);
  fill();
  return true;
}

/**
 * Whether a session lives on in another: the same one, rotated perhaps, or the one that a login made of it.
 * @param {Session} before
 * @param {Session | null} after
 */
function isSame(before, after) {
  if (!after) return false;
  if (!before.user) return after.user !== null || after.created_at === before.created_at;
  return after.user?.id === before.user.id;
}

/** What was said of a session that is gone does not hold any more. */
function forget() {
  for (const said of document.querySelectorAll("[role=status]")) if (said.id !== where) said.textContent = "";
  if (where !== "visits-said") pips.replaceChildren();
  byId("relook").hidden = true;
  quota.forget();
}

/** Shows in the form what is stored, unless someone is typing there. */
function fill() {
  if (dirty) return;
  for (const field of form.elements) {
    if (!(field instanceof HTMLInputElement) || !field.name) continue;
    const stored = String(session?.data[field.name] ?? "");
    if (field.type === "radio") field.checked = field.value === stored;
    else field.value = stored;
  }
}

/** @param {string} name  of a field; its text, trimmed */
function entry(name) {
  return String(new FormData(form).get(name) ?? "").trim();
}

function visits() {
  return Number(session?.data.visits) || 0;
}

/** The one whose answer counted furthest. @param {Exchange[]} exchanges */
function newestOf(exchanges) {
  const counted = (/** @type {Exchange} */ exchange) => Number(api.sessionOf(exchange)?.data.visits);
  return exchanges.filter(api.succeeded).sort((one, other) => counted(other) - counted(one))[0];
}

/**
 * Compares what was acknowledged with what the counter says.
 * @param {Exchange[]} exchanges
 * @param {number} before  the counter, when they were sent
 * @param {Say} say
 */
function tally(exchanges, before, say) {
  const failures = exchanges.filter((exchange) => !api.succeeded(exchange));
  const acknowledged = exchanges.length - failures.length;
  const counted = visits() - before;
  const sum = `${before} + ${counted} = ${visits()}`;
  if (counted < acknowledged) return say(`${acknowledged} acknowledged, but ${sum}: some were lost.`, "bad");
  if (failures[0]) {
    const refused = exchanges.filter(quota.refused).length;
    const others = refused ? `, ${refused} refused` : "";
    const why = api.reason(exchanges.find(quota.refused) ?? failures[0]);
    return say(`${acknowledged} of ${BURST} acknowledged${others}: ${sum}. ${why}`, "bad");
  }
  const others = counted > acknowledged ? ", and others at the same time" : "";
  say(`All ${BURST} counted${others}: ${sum}.`);
}
