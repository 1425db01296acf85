/** A session, looked at by its handle. */

import * as api from "./api.js";
import { ask } from "./ask.js";
import { button, code, counted, facts, given, make, moment, tell, visible, written } from "./dom.js";

/** @import { Found, Page } from "./find.js" */

const MAX_DATA = 20_000;

/** @param {Page} page @param {string} handle @param {AbortSignal} signal @returns {Promise<Found>} */
export async function load(page, handle, signal) {
  const answer = await api.session(handle, signal);
  if (api.isMissing(answer)) {
    return { answer, missing: ["There is no session with this handle: it has ended, or never was."] };
  }
  if (!api.succeeded(answer)) return { answer };
  const { session } = answer.json;
  const { user } = session;
  const who = user ? [given(user.name), " ", code(user.id)] : ["nobody: an anonymous session"];
  const actions = [button("", ["End session…"], () => endSession(page, session.handle, user?.name ?? null))];
  if (user) {
    actions.unshift(
      button("", ["Look at ", given(user.name)], () => page.look({ kind: "id", value: user.id })),
    );
  }
  const data = JSON.stringify(session.data, null, 2);
  const lines = data.slice(0, MAX_DATA).split("\n").map(visible).join("\n");
  const pre = make("pre", "", lines + (data.length > MAX_DATA ? "\n…" : ""));
  pre.tabIndex = 0;
  pre.role = "region";
  pre.ariaLabel = "Data";
  const body = [
    facts([
      ["Handle", code(session.handle)],
      ["User", make("span", "", ...who)],
      ["Roles", user?.roles.length ? given(user.roles.join(", ")) : null],
      ["Began", moment(session.created_at)],
      ["Password given", session.authenticated_at ? moment(session.authenticated_at) : null],
      ["Ends if unused", moment(session.idle_expires_at)],
      ["Ends at the latest", moment(session.expires_at)],
      ["Remember me", session.remember ? "yes" : "no"],
      ["Stored", session.stored_bytes === null ? null : `${written(session.stored_bytes)} bytes`],
    ]),
    make("div", "row", ...actions),
    make("h3", "", "Data"),
    pre,
  ];
  return { answer, heading: ["Session ", code(session.handle)], body };
}

/**
 * Asks, and ends one session.
 * @param {Page} page
 * @param {string} handle
 * @param {string | null} name  of its user; null: anonymous
 * @param {string} [device]
 */
export function endSession(page, handle, name, device) {
  const whose = name === null ? ["an anonymous visitor"] : [given(name)];
  ask({
    title: ["End this session of ", ...whose, "?"],
    effects: [
      [
        "Session ",
        code(handle),
        ...(device ? [", ", given(device)] : []),
        " ends at once, and what is stored in it is gone.",
      ],
      name === null
        ? ["The visitor begins anew, with an empty session."]
        : ["That device has to log in again. Other sessions and the account stay as they are."],
    ],
    go: "End session",
    send: () => api.endSession(handle),
    done: ({ status }) => {
      tell("said", [status === 404 ? "That session had ended already." : counted(1, "session") + " ended."]);
      void page.refresh();
    },
  });
}
