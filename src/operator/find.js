/** Look-ups: of a user, a session, a cookie. The newest one counts, whichever is answered first. */

import * as api from "./api.js";
import * as cookie from "./cookie.js";
import { byId, tell } from "./dom.js";
import * as session from "./session.js";
import * as user from "./user.js";

/** @import { Answer } from "./api.js" */
/** @import { Words } from "./ask.js" */

/**
 * @typedef {{ kind: string, value: string }} Subject
 *
 * What was found: something to show, or that nothing is there, or else an answer that says why it is not known.
 * @typedef {{ answer?: Answer, heading?: Words, body?: Node[], missing?: Words }} Found
 *
 * The page, as those see it who show what was found. `is`: what was looked up is this, when it is looked up again.
 * @typedef {{ look: (subject: Subject) => void, refresh: () => Promise<void>, is: (subject: Subject) => void }} Page
 */

/** @type {Record<string, (page: Page, value: string, signal: AbortSignal) => Promise<Found>>} */
const LOOKS = {
  name: user.loadByName,
  id: user.loadById,
  handle: session.load,
  cookie: cookie.load,
};

const form = byId("find", HTMLFormElement);
const field = byId("value", HTMLInputElement);
const title = byId("found-title");

/** What is shown, or being looked up. A cookie is not kept. @type {Subject | null} */
let shown = null;
let looking = new AbortController();

/** Begins to serve. */
export function open() {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const kind = String(new FormData(form).get("kind"));
    const value = kind === "id" ? field.value : field.value.trim();
    if (!value) {
      tell("said", ["Type what is to be looked up."], "bad");
      return field.focus();
    }
    if (kind === "cookie") field.value = "";
    void look({ kind, value });
  });
  form.addEventListener("change", hint);
  hint();
}

/** Shows nothing any more. */
export function close() {
  looking.abort();
  shown = null;
  form.reset();
  hint();
  clear();
  tell("said", []);
}

function hint() {
  const kind = String(new FormData(form).get("kind"));
  for (const line of document.querySelectorAll("[data-kind-hint]")) {
    /** @type {HTMLElement} */ (line).hidden = line.getAttribute("data-kind-hint") !== kind;
  }
}

/** @param {Subject} subject */
async function look(subject) {
  tell("said", ["Looking…"]);
  if (await load(subject)) tell("said", []);
}

/** Looks again, after a change. What it was is told already. */
async function refresh() {
  if (shown) await load(shown);
}

/** @param {Subject} subject @returns {Promise<boolean>} whether it is shown, and nothing else has to be said */
async function load(subject) {
  looking.abort();
  looking = new AbortController();
  const { signal } = looking;
  shown = subject.kind === "cookie" ? null : subject;
  byId("found").ariaBusy = "true";
  /** @type {Page} */
  const page = {
    look: (next) => void look(next),
    refresh,
    is: (next) => {
      if (!signal.aborted) shown = next;
    },
  };
  const found = await LOOKS[subject.kind]?.(page, subject.value, signal);
  if (!found || signal.aborted || found.answer?.isOver) return false;
  byId("found").ariaBusy = "false";
  if (found.heading && found.body) {
    title.replaceChildren(...found.heading);
    byId("found-body").replaceChildren(...found.body);
    byId("found").hidden = false;
    title.focus();
    return true;
  }
  clear();
  field.focus();
  if (found.missing) tell("said", [...told(), ...found.missing], "good");
  else if (found.answer) tell("said", [...told(), api.reason(found.answer)], "bad");
  return false;
}

/** What was said of a change before what it was done to was looked up again. */
function told() {
  const said = byId("said");
  const isProgress = said.textContent === "Looking…" || said.textContent === "";
  return isProgress ? [] : [...said.childNodes, " "];
}

function clear() {
  byId("found").hidden = true;
  byId("found").ariaBusy = "false";
  title.replaceChildren();
  byId("found-body").replaceChildren();
}
