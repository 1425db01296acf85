/** The operators' page: takes the admin token, holds it in memory while it is used, and forgets it. */

import * as api from "./api.js";
import * as ask from "./ask.js";
import * as counters from "./counters.js";
import { byId, tell } from "./dom.js";
import * as find from "./find.js";
import * as reset from "./reset.js";

/** Unused for this long, in milliseconds, the page forgets the token and what it shows. */
const IDLE = 15 * 60_000;
/** How often it is looked at. A machine that slept is seen when it wakes. */
const LOOK_EVERY = 10_000;

const field = byId("token", HTMLInputElement);
const enter = byId("enter", HTMLButtonElement);

let lastUse = Date.now();
let isEntering = false;

for (const part of [ask, counters, find, reset]) part.open();
byId("insecure").hidden = isSecureContext;
byId("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  void unlock();
});
byId("lock").addEventListener("click", () => lock(["The token is forgotten, and so is what was shown."]));
api.onRefused(() =>
  lock(["This deployment does not take the token (ADMIN_TOKEN): give the right one."], "bad"),
);

for (const type of ["pointerdown", "keydown"]) addEventListener(type, () => used(), { capture: true });
for (const type of ["visibilitychange", "focus"]) addEventListener(type, () => forgetIfUnused());
setInterval(forgetIfUnused, LOOK_EVERY);
// A page that is left may be kept, and shown again by the browser's button.
addEventListener("pagehide", () => lock([]));

enter.ariaDisabled = "false";
field.focus();

async function unlock() {
  if (isEntering) return;
  const given = field.value.trim();
  field.value = "";
  if (!given) return refuse("Give the ADMIN_TOKEN of this deployment.");
  if (!api.hold(given)) return refuse("This cannot be the token: it holds characters that no header can.");
  setEntering(true);
  tell("unlock-said", ["Looking…"]);
  const answer = await api.stats();
  setEntering(false);
  if (answer.isOver) return;
  // The store is asked for whoever has the token alone: if it fails, the token was right.
  if (!api.succeeded(answer) && answer.status !== 503) {
    api.forget();
    return refuse(api.reason(answer));
  }
  tell("unlock-said", []);
  setOpen(true);
  used();
  counters.show(answer);
  byId("value").focus();
}

/**
 * Forgets the token and all that was shown by it.
 * @param {string[]} words  why
 * @param {"good" | "bad"} [kind]
 */
function lock(words, kind = "good") {
  api.forget();
  setEntering(false);
  field.value = "";
  for (const part of [ask, counters, find, reset]) part.close();
  setOpen(false);
  tell("unlock-said", words, kind);
  if (words.length) field.focus();
}

/** @param {string} why */
function refuse(why) {
  tell("unlock-said", [why], "bad");
  field.focus();
}

function used() {
  forgetIfUnused();
  lastUse = Date.now();
}

function forgetIfUnused() {
  if (!api.isHeld() || Date.now() - lastUse < IDLE) return;
  lock(["Nobody has used this page for 15 minutes: it has forgotten the token, and what was shown."]);
}

/** @param {boolean} isOpen */
function setOpen(isOpen) {
  byId("locked").hidden = isOpen;
  byId("opened").hidden = !isOpen;
  byId("lock").hidden = !isOpen;
}

/** @param {boolean} entering */
function setEntering(entering) {
  isEntering = entering;
  enter.ariaDisabled = String(entering);
}
