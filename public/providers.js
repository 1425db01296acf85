/**
 * Logging in with others: a button for each provider, how a login there has ended, and what is tied to the account.
 *
 * The way to a provider leads away from this page and back to it, to `#account`.
 */

import * as api from "./api.js";
import { byId, make, onPress, tell } from "./dom.js";

/** @import { Counter, Question } from "./account.js" */
/** @import { Exchange, Provider, User } from "./api.js" */

/** @typedef {{ ask: (question: Question) => void, lost: (exchange: Exchange) => Promise<boolean> }} Account */

const PLACE = "ties-said";
const BACK = "#account";

/** What `login_error` says, for people. */
const OUTCOMES = {
  access_denied: "That login did not work: you have cancelled, or the provider does not let you.",
  login_required: "That login did not work: the provider would have had to ask you something, and may not.",
  invalid_state:
    "That login was over already, took more than ten minutes, or was begun in another browser. Try again.",
  // This is said after a logout, too.
  provider_unavailable:
    "That did not work there: the provider does not answer as it should. Try again later.",
  invalid_response:
    "That login did not work: what the provider said about you could not be trusted. Try again.",
  already_linked: "Not tied: it is tied to another account, or this account to somebody else there.",
  reauthentication_required: "Not tied: your login is too long ago by now. Try again.",
};

/** @type {Counter & Account} */
let counter;

/** Where one can log in, as far as is known, and for whom that was asked. @type {Provider[]} */
let known = [];
/** @type {User | null | undefined} */
let knownFor;

/** Begins to serve. @param {Counter & Account} lent */
export function open(lent) {
  counter = lent;
}

/** Fetches the list for this user, if it is not on show yet. @param {User | null} user */
export async function refresh(user) {
  const isKnown = knownFor !== undefined && (!known.length || knownFor?.id === user?.id);
  if (!isKnown) await load(user);
}

/** @param {User | null} user  @returns {Promise<boolean>}  whether that worked */
async function load(user) {
  knownFor = user;
  const exchange = await counter.one(api.providers());
  if (!api.succeeded(exchange)) return false;
  known = /** @type {{ providers: Provider[] }} */ (exchange.json).providers;
  draw(user);
  return true;
}

/** The provider that has said who the user is, if one has. @param {User | null} user */
export const ofUser = (user) =>
  known.find(({ id }) => user?.id.startsWith(`${id}:`) || user?.id.startsWith(`${id}~`));

/**
 * Sends a provider's user there to prove who they are: what a password is for others. One that cannot be told to ask
 * anew, as OAuth 2.0 cannot, lets them log in.
 * @param {Provider} provider
 */
export async function proveAnew({ id }) {
  const fresh = api.loginAddress(id, back(), { fresh: true });
  const { status } = await fetch(fresh, { redirect: "manual" }).catch(() => ({ status: 0 }));
  location.assign(status === 422 ? api.loginAddress(id, back()) : fresh);
}

/**
 * Takes out of the address what a login elsewhere has put there.
 * @returns {{ isBack: boolean, failure: string | undefined }}  whether one has come back from it; why it has failed
 */
export function outcome() {
  const address = new URL(location.href);
  const code = address.searchParams.get("login_error");
  const isBack = address.hash === BACK || code !== null;
  if (!isBack) return { isBack, failure: undefined };
  address.searchParams.delete("login_error");
  address.hash = "";
  history.replaceState(history.state, "", address.pathname + address.search);
  const sentence = Object.entries(OUTCOMES).find(([known]) => known === code)?.[1];
  return { isBack, failure: code === null ? undefined : (sentence ?? "That login did not work. Try again.") };
}

/** Where a provider sends the visitor back to: this page, as it is. */
const back = () => location.pathname + location.search + BACK;

/** @param {User | null} user */
function draw(user) {
  const own = ofUser(user);
  byId("others").hidden = !known.length;
  byId("providers").replaceChildren(...known.map(loginButton));
  byId("ties").hidden = !known.length;
  byId("tied").replaceChildren(
    ...(own
      ? [make("li", "", make("p", "", `You log in with ${own.name}.`), logoutLink(own))]
      : known.map(tieRow)),
  );
  // They have no account here: no password, no profile, and nothing to delete.
  byId("password").hidden = byId("own").hidden = own !== undefined;
}

/** @param {Provider} provider */
function loginButton({ id, name }) {
  const button = make("button", "", `Log in with ${name}`);
  button.type = "button";
  button.dataset.spends = "login mint";
  onPress(button, () => {
    const remember = byId("others-remember", HTMLInputElement).checked;
    location.assign(api.loginAddress(id, back(), { remember }));
  });
  return button;
}

/** @param {Provider} provider */
function tieRow(provider) {
  const { id, name, linked } = provider;
  const about = make("p", "device", name);
  const button = make("button", "", linked ? "Untie" : "Tie", make("span", "unseen", ` ${name}`));
  button.type = "button";
  onPress(button, () => (linked ? untie(provider) : tie(provider)));
  const more = linked ? [make("span", "badge", "tied"), logoutLink(provider)] : [];
  const row = make("li", "", about, ...more, button);
  row.dataset.provider = id;
  return row;
}

/** The provider asks whether one wants to log out there, and leads back to this page. @param {Provider} provider */
function logoutLink({ id, name }) {
  const link = make("a", "", `Log out here and at ${name}`);
  link.href = api.logoutAddress(id, location.pathname);
  return link;
}

/** @param {Provider} provider */
function tie(provider) {
  void counter.act(PLACE, async (say) => {
    const exchange = await counter.one(api.link(provider.id, back()));
    if (api.code(exchange) === "reauthenticate")
      return ask(`To tie ${provider.name} to it`, () => tie(provider));
    if (api.succeeded(exchange)) {
      // A fetch cannot follow to another origin: the page goes there.
      location.assign(/** @type {{ location: string }} */ (exchange.json).location);
    } else if (!(await counter.lost(exchange))) say(api.reason(exchange), "bad");
  });
}

/** @param {Provider} provider */
function untie(provider) {
  void counter.act(PLACE, async (say) => {
    const exchange = await counter.one(api.unlink(provider.id));
    if (api.code(exchange) === "reauthenticate")
      return ask(`To untie ${provider.name}`, () => untie(provider));
    if (!api.succeeded(exchange)) {
      if (!(await counter.lost(exchange))) say(api.reason(exchange), "bad");
    } else if (await load(knownFor ?? null)) {
      byId("ties-title").focus();
      say(`${provider.name} is untied: it does not open this account any more.`);
    }
  });
}

/** @param {string} what  @param {() => void} then */
function ask(what, then) {
  counter.ask({
    title: "Is it still you?",
    why: `You gave your password a good while ago. ${what}, give it once more.`,
    go: "Go on",
    place: PLACE,
    send: (password) => counter.one(api.reauthenticate(password)),
    then,
  });
}

/** Says how the login has ended from which the visitor comes back. @param {string | undefined} failure */
export function welcome(failure) {
  if (failure) tell("account-said", failure, "bad");
  byId("account-title").focus();
}
