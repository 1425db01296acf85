/** The dialog before a change: it names what will happen, and stays open until that is known to have happened. */

import * as api from "./api.js";
import { byId, make, tell } from "./dom.js";

/** @import { Answer } from "./api.js" */

/**
 * @typedef {(Node | string)[]} Words
 *
 * @typedef {object} Question
 * @property {Words} title
 * @property {Words[]} effects           what will happen, each a sentence or two
 * @property {string} go                 on the button that does it
 * @property {boolean} [isGrave]
 * @property {() => Promise<Answer>} send
 * @property {(answer: Answer) => void} done  it was done; or, with 404, there was nothing left to do it to
 */

const dialog = byId("ask", HTMLDialogElement);
const go = byId("go", HTMLButtonElement);
const cancel = byId("cancel", HTMLButtonElement);

/** What is asked. @type {Question | null} */
let question = null;
let isBusy = false;

/** Begins to serve. */
export function open() {
  byId("ask-form").addEventListener("submit", (event) => event.preventDefault());
  go.addEventListener("click", (event) => {
    // The second click of a double click was meant for whatever was there at the first.
    if (event.detail < 2) void act();
  });
  cancel.addEventListener("click", () => isBusy || dialog.close());
  dialog.addEventListener("cancel", (event) => isBusy && event.preventDefault());
  dialog.addEventListener("close", () => (question = null));
}

/** @param {Question} asked */
export function ask(asked) {
  if (dialog.open) return;
  question = asked;
  byId("ask-title").replaceChildren(...asked.title);
  byId("ask-effects").replaceChildren(...asked.effects.map((words) => make("li", "", ...words)));
  go.textContent = asked.go;
  go.className = asked.isGrave ? "main grave" : "main";
  tell("ask-said", []);
  setBusy(false);
  dialog.showModal();
  // What does no harm has the focus.
  cancel.focus();
}

/** Closes the dialog, whatever comes of it. */
export function close() {
  setBusy(false);
  dialog.close();
}

async function act() {
  const asked = question;
  if (!asked || isBusy) return;
  setBusy(true);
  tell("ask-said", ["Under way…"]);
  const answer = await asked.send();
  // The token was forgotten meanwhile.
  if (answer.isOver) return;
  const isOpen = question === asked;
  if (isOpen) setBusy(false);
  if (api.succeeded(answer) || api.isMissing(answer)) {
    if (isOpen) dialog.close();
    asked.done(answer);
  } else if (isOpen) {
    tell("ask-said", [api.reason(answer, true)], "bad");
  } else {
    tell("said", [api.reason(answer, true)], "bad");
  }
}

/** @param {boolean} busy */
function setBusy(busy) {
  isBusy = busy;
  for (const one of [go, cancel]) one.ariaDisabled = String(busy);
}
