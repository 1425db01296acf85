/** The document, typed and text-only: nothing here or above it parses HTML. */

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

/**
 * Says something in a live region.
 * @param {string} place  its id
 * @param {string} text
 * @param {"good" | "bad"} [kind]
 */
export function tell(place, text, kind = "good") {
  byId(place).dataset.kind = kind;
  byId(place).textContent = text;
}

/**
 * Runs an action at each press of a button that is not dimmed.
 * @param {HTMLElement} button
 * @param {() => void} action
 */
export function onPress(button, action) {
  button.addEventListener("click", () => button.ariaDisabled === "true" || action());
}

/**
 * Runs an action when a form is sent, unless its button is dimmed. The browser itself sends nothing.
 * @param {HTMLFormElement} form
 * @param {() => void} action
 */
export function onSubmit(form, action) {
  const button = form.querySelector("[type=submit]");
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (button?.ariaDisabled !== "true") action();
  });
}
