/**
 * Accounts at the counter: log in, register, the profile, the password, and the end of it all. Each form speaks in
 * the live region below it, and a refusal that one field is to blame for is tied to that field.
 */

import * as api from "./api.js";
import * as devices from "./devices.js";
import { byId, onPress, onSubmit, tell } from "./dom.js";
import * as providers from "./providers.js";
import * as quota from "./quota.js";

/** @import { Exchange, Session, User } from "./api.js" */

/**
 * What the page lends to its parts: `act` runs one action at a time, `one` puts its exchange into the log, and
 * `adopt` takes an answer as the new state of things.
 * @typedef {(text: string, kind?: "good" | "bad") => void} Say
 * @typedef {{ act: (place: string, action: (say: Say) => Promise<void>) => Promise<void>,
 *   one: (pending: Promise<Exchange>) => Promise<Exchange>,
 *   adopt: (exchange: Exchange, say: Say) => boolean }} Counter
 *
 * What the password is asked for in the dialog: `send` with it, and after that `then`, which speaks at `place`.
 * @typedef {{ title: string, why: string, go: string, place: string,
 *   send: (password: string) => Promise<Exchange>, then: () => void }} Question
 *
 * A form: what it sends, what comes after, and whom to blame by the problem's code. Without words the Worker's are
 * taken; a field alone is at fault unless it is only where to go on.
 * @typedef {{ field?: string, words?: string, isOnlyNext?: boolean }} Fault
 * @typedef {{ send: (entered: Record<string, string>) => Promise<Exchange>,
 *   done: (exchange: Exchange, say: Say) => void | (() => void),
 *   fault?: (exchange: Exchange) => Fault | undefined }} Service
 */

const WRONG = "This is not your password.";
const CLOSED =
  "Registration is closed here: the operator makes the accounts. If you have one, log in with it.";
const NO_PASSWORDS = "Nobody logs in with a password here: that is switched off.";

const dialog = byId("asking", HTMLDialogElement);
const profile = byId("profile", HTMLFormElement);

/** @type {Counter} */
let counter;

/** Who is logged in. @type {User | null} */
let user = null;

/** The session on show, and those whose device list and profile were fetched. */
let handle = "";
let listed = "";
let profiled = "";

/** Whether the profile's form holds something that was typed and not saved. */
let dirty = false;

/** What the dialog is open for. @type {Question | undefined} */
let question;

/** Begins to serve. @param {Counter} lent */
export function open(lent) {
  counter = lent;
  devices.open({ ...lent, ask, lost });
  providers.open({ ...lent, ask, lost });

  serve("login", {
    send: ({ username = "", password = "", remember }) =>
      counter.one(api.logIn(username, password, remember !== undefined)),
    done: enter("Welcome back"),
    fault: (exchange) => {
      if (api.code(exchange) === "not_found") return { words: NO_PASSWORDS };
      return api.code(exchange) === "invalid_credentials"
        ? { field: "password", words: "This username and this password do not match.", isOnlyNext: true }
        : undefined;
    },
  });

  serve("register", {
    send: ({ username = "", password = "" }) => counter.one(api.register(username, password)),
    done: enter("Welcome"),
    fault: (exchange) => {
      if (exchange.status === 409) return { field: "username" };
      if (api.code(exchange) === "not_found")
        return { words: /accounts\.login/.test(api.reason(exchange)) ? NO_PASSWORDS : CLOSED };
      const named = /username/.test(api.reason(exchange)) ? "username" : "password";
      return exchange.status === 422 ? { field: api.member(exchange) ?? named } : undefined;
    },
  });

  serve("password", {
    send: ({ current = "", new: next = "" }) =>
      freshly(current, () => counter.one(api.changePassword(current, next))),
    done: (exchange, say) => {
      counter.adopt(exchange, say);
      byId("password", HTMLFormElement).reset();
      say("Changed. Every other device is logged out.");
    },
    fault: (exchange) => {
      if (api.code(exchange) === "invalid_credentials") return { field: "current", words: WRONG };
      return exchange.status === 422 ? { field: "new" } : undefined;
    },
  });

  serve("profile", {
    send: ({ motto = "" }) => counter.one(api.changeProfile({ motto: motto.trim() || null })),
    done: (exchange, say) => {
      dirty = false;
      drawProfile(exchange);
      say("Saved, for every session to come.");
    },
  });
  profile.addEventListener("input", () => (dirty = true));

  serve("prove", {
    send: async ({ password = "" }) => {
      const provider = providers.ofUser(user);
      if (!provider) return /** @type {Question} */ (question).send(password);
      await providers.proveAnew(provider);
      return new Promise(() => {}); // the page is left
    },
    done: (exchange, say) => {
      // Closed meanwhile: what it was for is not wanted any more.
      const then = question?.then;
      question = undefined;
      dialog.close();
      counter.adopt(exchange, say);
      return then;
    },
    fault: (exchange) =>
      api.code(exchange) === "invalid_credentials" ? { field: "password", words: WRONG } : undefined,
  });
  onPress(byId("cancel"), () => dialog.close());
  // That comes late: a question asked meanwhile has done it already.
  dialog.addEventListener("close", () => dialog.open || leave());

  onPress(byId("leave"), () =>
    ask({
      title: "Delete this account?",
      why: "The account, its profile and all its sessions are gone at once, on every device. Nothing brings them back.",
      go: "Delete for good",
      place: "leave-said",
      send: (password) => freshly(password, () => counter.one(api.deleteAccount(password))),
      then: () => tell("account-said", "The account is deleted, and nothing of it is left."),
    }),
  );
}

/** Shows who is logged in. The focus does not get lost with what is put away. @param {Session | null} session */
export function show(session) {
  const before = user?.id;
  user = session?.user ?? null;
  handle = session?.handle ?? "";
  const [inside, outside] = [byId("inside"), byId("outside")];
  const isAway = (user ? outside : inside).contains(document.activeElement);
  byId("account").hidden = false;
  inside.hidden = !user;
  outside.hidden = user !== null;
  byId("account-title").textContent = user ? `Logged in as ${user.name}` : "Log in or register";
  if (isAway) byId("account-title").focus();
  if (before === user?.id) return;

  if (!user && question) dialog.close();
  quota.move("account-said");
  for (const said of document.querySelectorAll("#account [role=status]")) said.textContent = "";
  for (const form of inside.querySelectorAll("form")) form.reset();
  for (const field of document.querySelectorAll("input[data-user]")) {
    /** @type {HTMLInputElement} */ (field).defaultValue = user?.name ?? "";
  }
  byId("motto").hidden = true;
  dirty = false;
  listed = profiled = "";
  devices.draw([]);
}

/** Fetches what is to be seen of an account, if that is not on show yet. */
export async function refresh() {
  await providers.refresh(user);
  if (user && profiled !== user.id && !providers.ofUser(user)) {
    profiled = user.id;
    const exchange = await counter.one(api.profile());
    if (api.succeeded(exchange)) drawProfile(exchange);
    else tell("profile-said", api.reason(exchange), "bad");
  }
  if (user && listed !== handle) {
    listed = handle;
    await devices.load();
  }
}

/**
 * A form's service: fields left empty are asked for, refusals are told beside it, entries are kept.
 * @param {string} id  of the form; its live region is called after it
 * @param {Service} service
 */
function serve(id, { send, done, fault }) {
  const form = byId(id, HTMLFormElement);
  const place = `${id}-said`;
  form.addEventListener("input", () => absolve(form));
  onSubmit(form, async () => {
    let then = /** @type {void | (() => void)} */ (undefined);
    await counter.act(place, async (say) => {
      absolve(form);
      const empty = [...form.querySelectorAll("input")].find((field) => field.required && !field.value);
      if (empty) return blame(place, empty.name, `${empty.labels?.[0]?.textContent} is missing.`);
      const entered = [...new FormData(form)].map(([name, value]) => [name, String(value)]);
      const exchange = await send(Object.fromEntries(entered));
      if (api.succeeded(exchange)) return void (then = done(exchange, say));
      if (await lost(exchange)) return;
      const { field, words, isOnlyNext } = fault?.(exchange) ?? {};
      const tries = quota.refused(exchange) && quota.isWaiting("login") ? "Too many tries. " : "";
      const why = words ?? tries + api.reason(exchange);
      if (field) blame(place, field, why, isOnlyNext);
      else say(why, "bad");
    });
    then?.();
  });
}

/** Welcomes who has just logged in. @param {string} welcome  @returns {Service["done"]} */
function enter(welcome) {
  return (exchange, say) => {
    counter.adopt(exchange, say);
    for (const form of byId("outside").querySelectorAll("form")) form.reset();
    const isLong = api.sessionOf(exchange)?.remember;
    const how = isLong
      ? "You are remembered here, also when the browser is closed, until a countdown on the ticket runs out."
      : "You are logged in until you close the browser, or a countdown on the ticket runs out.";
    tell("account-said", `${welcome}, ${user?.name}. ${how}`);
  };
}

/**
 * Does what takes a password that was given not long ago. Was it too long ago, then the one that comes with it is
 * given first.
 * @param {string} password
 * @param {() => Promise<Exchange>} send
 */
async function freshly(password, send) {
  const exchange = await send();
  if (api.code(exchange) !== "reauthenticate") return exchange;
  const renewed = await counter.one(api.reauthenticate(password));
  if (!api.succeeded(renewed)) return renewed;
  counter.adopt(renewed, () => {});
  return send();
}

/** Asks for the password in the dialog; a provider's user, to go there. @param {Question} asked */
function ask(asked) {
  leave();
  question = asked;
  const provider = providers.ofUser(user);
  const why =
    provider && `Your login is too long ago for this. Log in anew with ${provider.name}, and do it then.`;
  byId("asking-title").textContent = asked.title;
  byId("asking-why").textContent = why ?? asked.why;
  byId("go").textContent = provider ? `Log in with ${provider.name}` : asked.go;
  byId("prove-field").hidden = provider !== undefined;
  byId("prove-password", HTMLInputElement).required = !provider;
  dialog.showModal();
}

/** The dialog is closed; without an answer, what it was for is not done. */
function leave() {
  const form = byId("prove", HTMLFormElement);
  form.reset();
  absolve(form);
  tell("prove-said", "");
  if (!question) return;
  tell(
    question.place,
    providers.ofUser(user)
      ? "Not done: you have not logged in anew."
      : "Not done: the password was not given.",
  );
  quota.move(question.place);
  question = undefined;
}

/**
 * Whether an exchange failed because nobody is logged in any more; then the page shows that.
 * @param {Exchange} exchange
 */
async function lost(exchange) {
  if (api.code(exchange) !== "unauthenticated") return false;
  const isShown = counter.adopt(await counter.one(api.look()), () => {});
  if (!isShown || user) return false;
  tell("account-said", "You are logged out: the session has ended, perhaps from another device.", "bad");
  return true;
}

/** @param {Exchange} exchange  that holds the profile */
function drawProfile(exchange) {
  const { motto } = /** @type {{ motto?: unknown }} */ (exchange.json ?? {});
  const text = typeof motto === "string" ? motto : "";
  byId("motto").textContent = text;
  byId("motto").hidden = !text;
  if (!dirty) byId("profile-motto", HTMLInputElement).value = text;
}

/**
 * Says what is wrong, and takes the focus to where it is put right.
 * @param {string} place
 * @param {string} name  of the field
 * @param {string} why
 * @param {boolean} [isOnlyNext]  the field is not at fault, or not alone
 */
function blame(place, name, why, isOnlyNext = false) {
  const field = byId(place).closest("form")?.elements.namedItem(name);
  tell(place, why, "bad");
  if (!(field instanceof HTMLInputElement)) return;
  if (!isOnlyNext) {
    field.ariaInvalid = "true";
    describe(field, place, true);
  }
  field.focus();
  field.select();
}

/** No field of a form is at fault any more. @param {HTMLFormElement} form */
function absolve(form) {
  for (const field of form.querySelectorAll("input[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    describe(field, `${form.id}-said`, false);
  }
}

/** @param {Element} field  @param {string} place  @param {boolean} isOn  whether it is described there */
function describe(field, place, isOn) {
  const others = (field.getAttribute("aria-describedby") ?? "").split(" ").filter((id) => id && id !== place);
  const all = isOn ? [place, ...others] : others;
  if (all.length) field.setAttribute("aria-describedby", all.join(" "));
  else field.removeAttribute("aria-describedby");
}
