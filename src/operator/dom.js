/** The document, typed and text-only: nothing here or above it parses HTML. */

/** Format characters that belong to a script or to emoji, and change the place of no other. */
const KEPT = "\\u200c\\u200d\\u0600-\\u0605\\u06dd\\u070f\\u0890\\u0891\\u08e2";
/** What cannot be seen, or shows others in another order. */
const UNSEEN = new RegExp(`[\\p{Cc}\\p{Cs}\\p{Zl}\\p{Zp}]|(?![${KEPT}])\\p{Cf}`, "gu");

const moments = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const numbers = new Intl.NumberFormat("en-GB");

/**
 * The element with this id, which must be there.
 * @template {HTMLElement} [E=HTMLElement]
 * @param {string} id
 * @param {new () => E} [kind]
 * @returns {E}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof (kind ?? HTMLElement))) throw new Error(`no #${id} of that kind in the page`);
  return /** @type {E} */ (element);
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} kind  its class, or ""
 * @param {...(Node | string)} children  strings become text
 */
export function make(tag, kind, ...children) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  element.append(...children);
  return element;
}

/** Text that others have chosen: what is unseen in it is written `\u{202e}`. @param {string} text */
export const visible = (text) =>
  text.replace(UNSEEN, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);

/** The same as an element, whose direction concerns nothing beside it. @param {string} text */
export const given = (text) => make("bdi", "given", visible(text));

/** @param {string} text */
export const code = (text) => make("code", "given", visible(text));

/** A moment in the operator's own time. @param {string | null | undefined} instant  RFC 3339 */
export function moment(instant) {
  if (!instant || Number.isNaN(Date.parse(instant))) return "–";
  const time = make("time", "", moments.format(new Date(instant)));
  time.dateTime = instant;
  return time;
}

/** @param {number} number */
export const written = (number) => numbers.format(number);

/** `1 session`, `3 sessions`. @param {number} count  @param {string} noun */
export const counted = (count, noun) => `${written(count)} ${noun}${count === 1 ? "" : "s"}`;

/** Names with what they are. @param {[name: string, value: Node | string | null][]} rows  null: left out */
export function facts(rows) {
  const shown = rows.filter((row) => row[1] !== null);
  return make(
    "dl",
    "",
    ...shown.map(([name, value]) => make("div", "", make("dt", "", name), make("dd", "", value ?? ""))),
  );
}

/**
 * A button.
 * @param {string} kind  its class, or ""
 * @param {(Node | string)[]} label
 * @param {() => void} action
 */
export function button(kind, label, action) {
  const made = make("button", kind, ...label);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

/**
 * @param {string} caption
 * @param {string[]} heads
 * @param {(Node | string)[][]} rows  the first cell of each is its head
 */
export function table(caption, heads, rows) {
  const head = (/** @type {Node | string} */ cell, /** @type {string} */ scope) => {
    const made = make("th", "", cell);
    made.scope = scope;
    return made;
  };
  return make(
    "table",
    "",
    make("caption", "", caption),
    make("thead", "", make("tr", "", ...heads.map((cell) => head(cell, "col")))),
    make(
      "tbody",
      "",
      ...rows.map(([first, ...rest]) =>
        make("tr", "", head(first ?? "", "row"), ...rest.map((cell) => make("td", "", cell))),
      ),
    ),
  );
}

/**
 * Says something in a live region.
 * @param {string} place  its id
 * @param {(Node | string)[]} words
 * @param {"good" | "bad"} [kind]
 */
export function tell(place, words, kind = "good") {
  byId(place).dataset.kind = kind;
  byId(place).replaceChildren(...words);
}
