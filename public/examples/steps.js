/**
 * The steps of the form, one of which is on show. They are in the address: the
 * browser's own buttons lead through them.
 */

import { byId } from "./page.js";

export const form = byId("form", HTMLFormElement);
export const steps = [...form.querySelectorAll("fieldset")];
export const fields = [...form.querySelectorAll("input")];
/** Counts from 1. */
export let step = 1;

/** @param {HTMLInputElement} field */
export const isOnShow = (field) =>
  field.closest("fieldset") === steps[step - 1];

/** Shows the step that is asked for, or the first that is not complete. */
export function drawSteps() {
  const complete =
    steps.findIndex((part) => part.querySelector("input:invalid")) + 1 ||
    steps.length;
  const asked = Number.parseInt(location.hash.slice(1));
  step = asked >= 1 ? Math.min(asked, complete) : complete;
  history.replaceState(null, "", `#${step}`);
  steps.forEach((part, index) => (part.hidden = index + 1 !== step));
  for (const { id, value } of fields) byId(`${id}-review`).textContent = value;
  byId("next").textContent = step < steps.length ? "Next" : "Send";
  byId("back").hidden = step === 1;
  byId("back").setAttribute("href", `#${step - 1}`);
}

addEventListener("hashchange", () => {
  drawSteps();
  steps[step - 1]?.focus();
});
