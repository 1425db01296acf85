/** @import { Session } from "../index.d.ts" */
/** @typedef {(session: Session<any> | null) => void} Listener */

/**
 * What is known of the session, and who is told.
 * @param {string} name  the same in every tab
 * @param {() => Promise<unknown>} look  reads the session, and shows it here
 */
export function watch(name, look) {
  /** @type {Set<Listener>} */
  const listeners = new Set();
  /** What was shown last; `undefined`: nothing yet. @type {Session<any> | null | undefined} */
  let current;
  /** @type {string | false} */
  let currentKey = false;
  /** Counts requests, answers, and reasons to look again; and the last of each. */
  let clock = 1;
  let sentLast = 0;
  let shownLast = 0;
  let staleLast = 1;
  let isLooking = false;
  /** @type {BroadcastChannel | undefined} */
  let channel;

  /** Looks again: once, however many ask for it meanwhile. A page that nobody sees looks when it comes back. */
  const refresh = async () => {
    staleLast = ++clock;
    if (isLooking || !listeners.size || globalThis.document?.hidden) return;
    isLooking = true;
    let reason;
    do {
      reason = staleLast;
      await look().catch(() => {});
    } while (reason !== staleLast);
    isLooking = false;
  };

  // Outside of pages, a channel would keep a program running, and tell visitors of each other.
  if (globalThis.location) {
    for (const type of ["visibilitychange", "pageshow", "online"])
      addEventListener(type, (event) => {
        // A page that was just loaded looks by itself.
        if (/** @type {any} */ (event).persisted !== false) refresh();
      });
    try {
      channel = new BroadcastChannel(name);
      channel.onmessage = refresh;
    } catch {
      // There are none, or storage is blocked here.
    }
  }

  /**
   * Shows an answer, unless it may be older than the one that was shown: then it is looked again.
   * @param {Session<any> | null} session
   * @param {string | false} key  another one when anything in the session is another
   * @param {number} sentAt
   */
  const show = (session, key, sentAt) => {
    const isNew = key !== currentKey || current === undefined;
    if (sentAt < shownLast) {
      if (isNew) refresh();
      return;
    }
    sentLast = sentAt;
    shownLast = ++clock;
    if (!isNew) return;
    current = session;
    currentKey = key;
    for (const listener of listeners) queueMicrotask(() => listener(session));
  };

  /** Tells the other tabs that something has changed, and not what. */
  const announce = () => channel?.postMessage(0);

  /** @param {Listener} listener */
  const onChange = (listener) => {
    listeners.add(listener);
    if (staleLast > sentLast) refresh();
    return () => void listeners.delete(listener);
  };

  return /** @type {const} */ ([onChange, refresh, show, announce, () => ++clock, () => current]);
}
