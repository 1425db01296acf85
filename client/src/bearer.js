/** @import { TicketStorage } from "../index.d.ts" */

/**
 * A `fetch` that sends the ticket which is stored, and stores the one that comes. The ticket is kept before the body is
 * read, which may be cut off.
 * @param {(url: string, init: RequestInit) => Promise<Response>} fetch
 * @param {TicketStorage} storage
 * @returns {(url: string, init: RequestInit) => Promise<Response>}
 */
export const withTickets = (fetch, storage) => async (url, init) => {
  const ticket = await storage.get();
  const response = await fetch(url, {
    ...init,
    credentials: "omit",
    headers: {
      .../** @type {Record<string, string>} */ (init.headers),
      "Session-Transport": "bearer",
      ...(ticket && { Authorization: `Bearer ${ticket}` }),
    },
  });
  const next = response.headers.get("session-token");
  if (next) await storage.set(next);
  else if (next === "") await storage.remove();
  return response;
};

/** Tickets are forgotten with the program. @returns {TicketStorage} */
export function inMemory() {
  let ticket = "";
  return {
    get: () => ticket,
    set: (value) => void (ticket = value),
    remove: () => void (ticket = ""),
  };
}
