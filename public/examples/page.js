/**
 * What the example pages share: the session on show, a sentence for whatever comes of an action, progress on buttons,
 * and the page's own source beside it.
 */

import { CloakroomError } from "../client.js";
import { byId, make, tell } from "../dom.js";

export { byId };

/** The global function of theme.js, which is no module. */
export const { showTheme } = /** @type {{ showTheme(theme: unknown): void }} */ (
  /** @type {unknown} */ (globalThis)
);

/** @import { Client, Session } from "../client.js" */
/** @typedef {Session<Record<string, any>> | null} Shown */
/** @typedef {Record<string, string>} Entered  a form's fields by their names */

/** An action that takes this many milliseconds says that it is under way. */
const SLOW = 500;

/** Draws again what was drawn last. */
let redraw = () => {};

window.addEventListener("error", broken);
window.addEventListener("unhandledrejection", broken);
showSource();

/**
 * Draws the session as it stands, and again whenever it is another: changed here, in another tab, or while the page was
 * away. One drawing at a time; the last is of the newest session.
 * @param {Client<any>} cloakroom
 * @param {(session: Shown) => unknown} draw
 */
export async function show(cloakroom, draw) {
  let isDrawing = false;
  let isAgain = false;
  /** Who was logged in last. */
  let last = "";

  redraw = async () => {
    isAgain = true;
    if (isDrawing) return;
    isDrawing = true;
    while (isAgain) {
      isAgain = false;
      const session = /** @type {Shown} */ (cloakroom.current ?? null);
      const user = session?.user;
      // What one user has typed is not for the next.
      if (user && last && user.id !== last) for (const form of document.forms) form.reset();
      if (user) last = user.id;
      showTheme(session?.data.theme);
      showUser(user?.name);
      try {
        await draw(session);
      } catch (error) {
        say(explain(error), "bad");
      }
    }
    isDrawing = false;
  };

  once("again", async () => void (await cloakroom.session()));
  const isKnown = cloakroom.current !== undefined || (await attempt(() => cloakroom.session()));
  byId("again").hidden = isKnown;
  cloakroom.onChange(() => {
    byId("again").hidden = true;
    redraw();
  });
  if (isKnown) redraw();
  // The client looks whether the session has changed. What is drawn beside it, such as a profile, may have changed too.
  for (const event of ["visibilitychange", "pageshow"])
    addEventListener(event, (event) => {
      if (cloakroom.current === undefined || document.hidden) return;
      if (event.type !== "pageshow" || /** @type {PageTransitionEvent} */ (event).persisted) redraw();
    });
}

/**
 * Does something when a button is pressed or a form is sent. Until that is done, further presses count for nothing.
 * @param {string} id
 * @param {(entered: Entered, button: HTMLElement | null) => unknown} action  returns what to say, if anything
 */
export function once(id, action) {
  let isBusy = false;
  listen(id, async (entered, button) => {
    if (isBusy) return;
    isBusy = true;
    await attempt(() => action(entered, button), button);
    isBusy = false;
  });
}

/**
 * Does something at each press of a button, or each change in a form, one after the other: none is left out. After a
 * failure those that wait are not done.
 * @param {string} id
 * @param {(entered: Entered) => unknown} action  returns what to say, if anything
 */
export function each(id, action) {
  /** @type {(() => unknown)[]} */
  const waiting = [];
  listen(
    id,
    async (entered, button) => {
      if (waiting.push(() => action(entered)) > 1) return;
      for (let next; (next = waiting[0]); waiting.shift()) {
        if (!(await attempt(next, button))) waiting.length = 0;
      }
    },
    "change",
  );
}

/**
 * Does something, and says what comes of it.
 * @param {() => unknown} action  returns what to say, if anything
 * @param {HTMLElement | null} [button]  shows that it is under way
 */
export async function attempt(action, button) {
  say("");
  if (button) button.ariaBusy = "true";
  const slow = setTimeout(() => say("One moment …"), SLOW);
  try {
    const said = await action();
    say(typeof said === "string" ? said : "");
    return true;
  } catch (error) {
    say(explain(error), "bad");
    redraw();
    return false;
  } finally {
    clearTimeout(slow);
    button?.removeAttribute("aria-busy");
  }
}

/**
 * Shows in a field what is stored, unless someone has typed something else there.
 * @param {string} id
 * @param {string} [value]
 */
export function fill(id, value = "") {
  const field = byId(id, HTMLInputElement);
  if (field.value === field.defaultValue) field.value = value;
  field.defaultValue = value;
}

/** @param {string} text @param {"good" | "bad"} [kind] */
export const say = (text, kind) => tell("said", text, kind);

/** What went wrong, for people. @param {unknown} error */
function explain(error) {
  if (!(error instanceof CloakroomError)) return broken(error);
  const { code, status, retryAfter = 1, maybeDone, detail } = error;
  /** @type {Record<string, string>} */
  const sentences = {
    rate_limited: `Too many requests. Try again in ${duration(retryAfter)}.`,
    unauthenticated:
      "You are not logged in, or not any more. What you have typed is kept: log in, and try again.",
    invalid_credentials: "This username and this password do not match.",
    store_unavailable: "The store does not answer at the moment. Try again.",
    network: "There is no connection. What you have typed is kept: try again.",
    timeout: "There was no answer in time. What you have typed is kept: try again.",
  };
  const sentence = sentences[code] ?? detail ?? error.message;
  const doubt = maybeDone ? " It may have been done all the same: look first." : "";
  return `${sentence}${doubt}${status ? ` (${status})` : ""}`;
}

/** @param {number} seconds */
const duration = (seconds) =>
  seconds < 100 ? `${seconds} second${seconds === 1 ? "" : "s"}` : `${Math.ceil(seconds / 60)} minutes`;

/** A fault of the page itself. @param {unknown} fault */
function broken(fault) {
  if (!(fault instanceof Event)) console.error(fault);
  const text = "Something is wrong with this page itself. Reload it, and try again.";
  say(text, "bad");
  return text;
}

/**
 * Hears presses of a button; of a form, that it was sent, or each change.
 * @param {string} id
 * @param {(entered: Entered, button: HTMLElement | null) => void} heard
 * @param {string} [ofForm]
 */
function listen(id, heard, ofForm = "submit") {
  const element = byId(id);
  const isForm = element instanceof HTMLFormElement;
  // The browser itself sends nothing.
  element.addEventListener("submit", (event) => event.preventDefault());
  element.addEventListener(isForm ? ofForm : "click", (event) => {
    if (element.ariaDisabled === "true") return;
    const button = isForm ? /** @type {SubmitEvent} */ (event).submitter : element;
    const entered = isForm ? Object.fromEntries(new FormData(element)) : {};
    heard(/** @type {Entered} */ (entered), button ?? null);
  });
}

/** @param {string} [name] */
function showUser(name) {
  byId("who").textContent = name ? `Logged in as ${name}. ` : "Nobody is logged in. ";
  if (location.pathname.includes("/login")) return;
  const link = make("a", "", name ? "Log out" : "Log in");
  link.setAttribute("href", "login.html");
  byId("who").append(link);
}

/** Shows this page's scripts and its example as they were loaded. */
async function showSource() {
  const scripts = [...document.scripts].filter(
    ({ type, dataset }) => type === "module" || "shown" in dataset,
  );
  const sources = [location.href.split(/[?#]/)[0] ?? "", ...scripts.map(({ src }) => src)].reverse();
  for (const source of sources) {
    const name = new URL(source).pathname.split("/").at(-1) ?? "";
    const isScript = name.endsWith(".js");
    const title = make("h3", "", isScript ? name : "In the page");
    const code = make("pre", "", "…");
    title.id = `source-${name}`;
    code.tabIndex = 0;
    code.role = "region";
    code.setAttribute("aria-labelledby", title.id);
    byId("source").append(title, code);
    try {
      // Not a newer one: what runs here.
      const response = await fetch(source, { cache: "force-cache" });
      const text = await response.text();
      code.textContent = isScript ? text.trim() : exampleIn(text);
    } catch {
      code.textContent = "There is no connection to fetch it.";
    }
  }
}

/** The part of a page that is its own, without the indentation. @param {string} page */
function exampleIn(page) {
  const [text = "", indent = ""] = /^( *)<section[^>]* id="example"[^]*?^\1<\/section>/m.exec(page) ?? [];
  return text.replaceAll(`\n${indent}`, "\n").trim();
}
