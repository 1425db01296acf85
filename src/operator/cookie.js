/** A visitor's cookie: what it is and, if it is dead, why. */

import * as api from "./api.js";
import { button, code, facts, make, moment } from "./dom.js";

/** @import { Found, Page } from "./find.js" */

/** @type {Record<string, string>} */
const REASONS = {
  ended: "The session has ended: logged out, replaced by a login, or unused for too long.",
  expired: "It is past its absolute end.",
  rotated:
    "The session has another id by now, and the time in which this one was good is over. Its use is a sign of a copy.",
  revoked: "All sessions of its user were ended after it was issued.",
  forged: "No secret of this deployment has signed it, or it is no ticket.",
  unknown_key:
    "It is signed with a secret that is not known here: dropped, not rolled out yet, or another deployment's.",
};

/** What stands before a cookie where it is copied from. */
const PREFIX = /^((set-)?cookie:|(authorization: *)?bearer )\s*/i;

/** @param {Page} page @param {string} text @param {AbortSignal} signal @returns {Promise<Found>} */
export async function load(page, text, signal) {
  const answer = await api.inspect(text.replace(PREFIX, ""), signal);
  if (!api.succeeded(answer)) return { answer };
  const { alive, reason, handle, issued_at, key } = answer.json;
  const why = REASONS[reason] ?? `${reason}`;
  const body = [
    make("p", "", alive ? "Its session lives. Looking has left no trace: no touch, no rotation." : why),
    facts([
      [alive ? "Session" : "Handle", handle ? code(handle) : null],
      ["Issued", issued_at ? moment(issued_at) : null],
      ["Signed by key", key ? code(key) : null],
    ]),
  ];
  if (alive) {
    const look = button("", ["Look at its session"], () => page.look({ kind: "handle", value: handle }));
    body.push(make("div", "row", look));
  }
  return { answer, heading: [alive ? "The cookie is alive" : "The cookie is dead"], body };
}
