/** A user: the account, if there is one here, and the sessions; and what can be done with both. */

import * as api from "./api.js";
import { ask } from "./ask.js";
import { button, code, counted, facts, given, make, moment, tell } from "./dom.js";
import * as reset from "./reset.js";
import { endSession } from "./session.js";

/** @import { Found, Page } from "./find.js" */
/** @import { Words } from "./ask.js" */

/**
 * @typedef {{ id: string, name: string, roles: string[], disabled: boolean, created_at: string }} Account
 * @typedef {{ handle: string, created_at: string, last_seen_at: string, remember: boolean, user_agent: string | null,
 *   ip: string | null }} Listed
 *
 * `sessions`: null if they cannot be listed. `name`: the account's, else the id.
 * @typedef {{ id: string, name: string, account: Account | null, sessions: Listed[] | null }} User
 */

/** @param {Page} page @param {string} name @param {AbortSignal} signal @returns {Promise<Found>} */
export async function loadByName(page, name, signal) {
  const answer = await api.accountOf(name, signal);
  if (api.isMissing(answer)) {
    return { answer, missing: ["There is no account named ", given(name), "."] };
  }
  if (!api.succeeded(answer)) return { answer };
  // From now on it is this user, whoever has the name later.
  page.is({ kind: "id", value: answer.json.id });
  return view(page, answer.json.id, answer.json, await api.sessionsOf(answer.json.id, signal));
}

/** @param {Page} page @param {string} id @param {AbortSignal} signal @returns {Promise<Found>} */
export async function loadById(page, id, signal) {
  if (id === "." || id === "..") return { missing: ['No user has the id "." or "..".'] };
  const [account, list] = await Promise.all([api.account(id, signal), api.sessionsOf(id, signal)]);
  // 422: the sessions are another application's, and so are the users.
  const hasNone = api.isMissing(account) || account.status === 422;
  if (!api.succeeded(account) && !hasNone) return { answer: account };
  return view(page, id, hasNone ? null : account.json, list);
}

/**
 * @param {Page} page
 * @param {string} id
 * @param {Account | null} account
 * @param {import("./api.js").Answer} answer  the list of sessions
 * @returns {Found}
 */
function view(page, id, account, answer) {
  /** @type {Listed[] | null} */
  const sessions = answer.status === 200 ? answer.json.sessions : null;
  if (!sessions && !(account && answer.status === 422)) return { answer };
  if (!account && !sessions?.length) {
    return {
      answer,
      missing: ["There is no account with the id ", code(id), ", and no session of such a user."],
    };
  }
  const user = { id, name: account?.name ?? id, account, sessions };
  const state = !account
    ? "none here: users of this kind log in elsewhere"
    : account.disabled
      ? "disabled"
      : "enabled";
  const list = sessions?.length
    ? make("ul", "list", ...sessions.map((session) => row(page, user, session)))
    : make("p", "", sessions ? "None." : api.reason(answer));
  const body = [
    facts([
      ["Id", code(id)],
      ["Roles", account?.roles.length ? given(account.roles.join(", ")) : null],
      ["Account", make("strong", account?.disabled ? "bad" : "", state)],
      ["Made", account ? moment(account.created_at) : null],
    ]),
    make("div", "row", ...actions(page, user)),
    make("h3", "", sessions ? counted(sessions.length, "session") : "Sessions"),
    list,
  ];
  return { answer, heading: ["User ", given(user.name)], body };
}

/** @param {Page} page @param {User} user */
function actions(page, user) {
  const { account, sessions } = user;
  const made = [];
  if (sessions?.length) {
    made.push(button("", [`End all ${counted(sessions.length, "session")}…`], () => endAll(page, user)));
  }
  if (!account) return made;
  if (account.disabled) made.push(button("", ["Enable…"], () => enable(page, user)));
  else {
    made.push(
      button("", ["Reset password…"], () => beginReset(user)),
      button("", ["Disable…"], () => disable(page, user)),
    );
  }
  made.push(button("grave", ["Delete account…"], () => deleteAccount(page, user)));
  return made;
}

/** @param {Page} page @param {User} user @param {Listed} session */
function row(page, user, session) {
  const { handle, user_agent, ip, remember, created_at, last_seen_at } = session;
  const device = user_agent ?? "unknown device";
  const unseen = make("span", "unseen", ` ${visibleEnd(handle)}`);
  return make(
    "li",
    "",
    make(
      "div",
      "",
      make("p", "device", given(device)),
      make(
        "p",
        "hint",
        ...["last seen ", moment(last_seen_at), " · since ", moment(created_at)],
        ...(remember ? [" · remembered"] : []),
        ...(ip ? [" · ", code(ip)] : []),
      ),
      make("p", "hint", code(handle)),
    ),
    make(
      "div",
      "row",
      button("", ["Look", unseen], () => page.look({ kind: "handle", value: handle })),
      button("", ["End…", unseen.cloneNode(true)], () => endSession(page, handle, user.name, device)),
    ),
  );
}

/** By which a screen reader tells the buttons of sessions apart. @param {string} handle */
const visibleEnd = (handle) => `session ${handle.slice(0, 6)}`;

/** Whom a question is about: names can look alike, ids cannot. @param {User} user @returns {Words} */
const who = ({ name, id }) => [given(name), " (id ", code(id), ")"];

/** How many sessions end, as far as it is known. @param {User} user @returns {Words} */
const ends = ({ sessions }) =>
  sessions?.length
    ? [
        `${counted(sessions.length, "session")} ${sessions.length === 1 ? "was" : "were"} listed here. All there are at that moment end at once.`,
      ]
    : ["No session was listed here. If one has begun since, it ends."];

/** @param {Page} page @param {User} user */
function endAll(page, user) {
  ask({
    title: ["End all sessions of ", given(user.name), "?"],
    effects: [
      ["User: ", ...who(user), "."],
      ends(user),
      ["Each device has to log in again. What is stored in the sessions is gone; the account stays."],
    ],
    go: "End all sessions",
    send: () => api.endSessions(user.id),
    done: ({ status, json }) => {
      tell("said", [
        status === 404 ? "There was none left." : `${counted(json.ended, "session")} of `,
        given(user.name),
        " ended.",
      ]);
      void page.refresh();
    },
  });
}

/** @param {Page} page @param {User} user */
function disable(page, user) {
  ask({
    title: ["Disable ", given(user.name), "?"],
    effects: [
      ["Account: ", ...who(user), "."],
      ends(user),
      ["Nobody can log in to it any more: the answer is that of a wrong password. A reset under way ends."],
      ["Nothing is deleted. It can be enabled again; its sessions do not come back."],
    ],
    go: "Disable account",
    send: () => api.setDisabled(user.id, true),
    done: (answer) => changed(page, user, answer, " is disabled, and its sessions have ended."),
  });
}

/** @param {Page} page @param {User} user */
function enable(page, user) {
  ask({
    title: ["Enable ", given(user.name), "?"],
    effects: [
      ["Account: ", ...who(user), "."],
      ["Whoever knows its password can log in again. If that may be somebody else, reset it afterwards."],
      ["The sessions that were ended stay ended."],
    ],
    go: "Enable account",
    send: () => api.setDisabled(user.id, false),
    done: (answer) => changed(page, user, answer, " is enabled: its owner can log in again."),
  });
}

/** @param {Page} page @param {User} user */
function deleteAccount(page, user) {
  ask({
    title: ["Delete the account of ", given(user.name), "?"],
    effects: [
      ["Account: ", ...who(user), "."],
      ["The account, its password and its profile are deleted. ", ...ends(user)],
      ["The name is free afterwards: somebody else may register it."],
      [make("strong", "", "This cannot be undone.")],
    ],
    go: "Delete account",
    isGrave: true,
    send: () => api.deleteAccount(user.id),
    done: (answer) => changed(page, user, answer, " is deleted, with its sessions."),
  });
}

/** @param {User} user */
function beginReset(user) {
  ask({
    title: ["Reset the password of ", given(user.name), "?"],
    effects: [
      ["Account: ", ...who(user), "."],
      [
        "A token is made, and shown here once. Whoever has it can choose a new password, once, within 30 minutes; then all sessions end.",
      ],
      [
        "A token that was made before ends. Until the new one is used, password and sessions stay as they are.",
      ],
      ["If events are set up (events.url), your back end gets the token too, and may send it by mail."],
    ],
    go: "Make a token",
    send: () => api.beginReset(user.id),
    done: (answer) => {
      if (answer.status === 404) return tell("said", ["There is no such account any more."], "bad");
      tell("said", ["A reset token was made for ", given(user.name), "."]);
      reset.show(user.name, answer.json);
    },
  });
}

/** @param {Page} page @param {User} user @param {import("./api.js").Answer} answer @param {string} words */
function changed(page, user, answer, words) {
  const isGone = answer.status === 404;
  tell("said", [given(user.name), isGone ? ": there is no such account any more." : words]);
  void page.refresh();
}
