/** The session as a coat-check ticket. Draws what it is given and counts down; asks nobody. */

import { byId } from "./dom.js";

/** @import { Session } from "./api.js" */

const ticket = byId("ticket");
const still = matchMedia("(prefers-reduced-motion: reduce)");
const dateTime = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

/** The one on show. @type {Session | null} */
let shown = null;

/** Milliseconds the Worker's clock is ahead of ours. */
let ahead = 0;

/**
 * @param {Session | null} session
 * @param {string | null} etag
 * @param {number} clock  what the Worker's clock is ahead of ours, in milliseconds
 */
export function draw(session, etag, clock) {
  const reissued = session && session.handle !== shown?.handle;
  shown = session;
  ahead = clock;
  ticket.dataset.state = session ? "open" : "none";
  ticket.dataset.paper = String(session?.data.colour ?? "");
  byId("nothing").hidden = session !== null;
  byId("details").hidden = session === null;
  byId("number").textContent = session ? number(session.handle) : "----";
  byId("ticket-title").textContent = session ? "Your session" : "No session yet";
  byId("cookie").textContent = JSON.stringify(document.cookie);
  if (!session) return;

  byId("handle").textContent = session.handle;
  byId("etag").textContent = etag ?? "none";
  byId("remember").textContent = session.remember ? "yes" : "no";
  byId("user").textContent = session.user?.name ?? "anonymous";
  byId("data").textContent = JSON.stringify(session.data, null, 2);
  const created = byId("created", HTMLTimeElement);
  created.dateTime = session.created_at;
  created.textContent = dateTime.format(new Date(session.created_at));
  tick();
  if (reissued && !still.matches) {
    ticket.animate(
      { translate: ["0 -0.75rem", "0"], opacity: [0.3, 1] },
      { duration: 300, easing: "ease-out" },
    );
  }
}

/** The first look failed, so that nothing is known. */
export function drawUnknown() {
  byId("ticket-title").textContent = "Session not known";
}

/** Moves the countdowns on. @returns {boolean}  whether the session is still open by the Worker's clock */
export function tick() {
  if (!shown) return true;
  const idle = countDown("idle", shown.idle_expires_at);
  const absolute = countDown("expires", shown.expires_at);
  return idle > 0 && absolute > 0;
}

/** @param {string} id  @param {string} end  an instant, RFC 3339 */
function countDown(id, end) {
  const time = byId(id, HTMLTimeElement);
  const left = Date.parse(end) - Date.now() - ahead;
  time.dateTime = end;
  time.title = dateTime.format(new Date(end));
  time.textContent = duration(Math.max(0, Math.round(left / 1000)));
  return left;
}

/** @param {number} seconds */
export function duration(seconds) {
  const [days, hours, minutes] = [seconds / 86_400, (seconds / 3600) % 24, (seconds / 60) % 60].map(
    Math.floor,
  );
  const two = (/** @type {number} */ n) => String(n).padStart(2, "0");
  const clock = [...(days || hours ? [hours] : []), minutes, seconds % 60].map(two).join(":");
  return days ? `${days} d ${clock}` : clock;
}

/** Four digits for the eye (FNV-1a of the handle). Two sessions may share them. @param {string} handle */
function number(handle) {
  let hash = 0x811c9dc5;
  for (const char of handle) hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193);
  return String((hash >>> 0) % 10_000).padStart(4, "0");
}
