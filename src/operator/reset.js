/** The token of a reset: shown once, until it is put away, ends, or the page forgets the admin token. */

import * as api from "./api.js";
import { byId, given, moment, tell } from "./dom.js";

const place = byId("reset");
const shown = byId("reset-token");

/** @type {ReturnType<typeof setTimeout> | undefined} */
let timer;

/** Begins to serve. */
export function open() {
  byId("reset-copy").addEventListener("click", () => void copy());
  byId("reset-done").addEventListener("click", () => {
    close();
    byId("found-title").focus();
  });
}

/** @param {string} name @param {{ token: string, expires_at: string }} reset */
export function show(name, { token, expires_at }) {
  close();
  byId("reset-title").replaceChildren("Reset token for ", given(name));
  byId("reset-ends").replaceChildren(
    "It is shown this once. It works once, until ",
    moment(expires_at),
    ". Send it to the account's owner, for your page that calls POST /reset: whoever has it can take the account over.",
  );
  shown.textContent = token;
  place.hidden = false;
  byId("reset-title").focus();
  timer = setTimeout(
    () => {
      close();
      tell("said", ["The reset token of ", given(name), " has ended, and is not shown any more."]);
    },
    Math.max(0, Date.parse(expires_at) - api.now()),
  );
}

export function close() {
  clearTimeout(timer);
  place.hidden = true;
  shown.textContent = "";
  byId("reset-title").replaceChildren();
  byId("reset-ends").replaceChildren();
  tell("reset-said", []);
}

async function copy() {
  try {
    await navigator.clipboard.writeText(shown.textContent ?? "");
    tell("reset-said", [
      "Copied. Other programs can read the clipboard: paste it soon, then copy something else.",
    ]);
  } catch {
    getSelection()?.selectAllChildren(shown);
    tell(
      "reset-said",
      ["The browser does not let this page copy. The token is selected: copy it by keyboard."],
      "bad",
    );
  }
}
