/** The inspector: each action's requests and answers, newest first, at most `KEPT` of them. */

import { byId, make } from "./dom.js";
import { succeeded } from "./api.js";

/** @import { Exchange, Headers } from "./api.js" */

const KEPT = 20;

/** The newest entry, open until the next one comes. @type {HTMLDetailsElement | undefined} */
let latest;

/**
 * Adds one entry.
 * @param {Exchange[]} exchanges  one, or several of the same kind that were made at once
 */
export function record(exchanges) {
  const [first] = exchanges;
  if (!first) return;
  const log = byId("log");
  const entry = make("details", "", summary(first, exchanges), request(first));
  entry.append(...(exchanges.length > 1 ? [answers(exchanges)] : response(first)));
  if (latest) latest.open = false;
  entry.open = true;
  latest = entry;
  log.prepend(make("li", "", entry));
  while (log.children.length > KEPT) log.lastElementChild?.remove();
}

/** @param {Exchange} first  @param {Exchange[]} all */
function summary(first, all) {
  const times = all.length > 1 ? ` ×${all.length}` : "";
  const ms = Math.max(...all.map((exchange) => exchange.ms));
  const statuses = [...new Set(all.map(statusOf))].join(", ");
  const status = make("span", "status", statuses);
  status.dataset.kind = all.every(succeeded) ? "good" : "bad";
  return make(
    "summary",
    "",
    make("span", "method", first.method),
    make("span", "path", first.path + times),
    status,
    make("span", "ms", `${Math.round(ms)} ms`),
  );
}

/** @param {Exchange} exchange */
function request(exchange) {
  return part("Request", exchange.sent, exchange.body);
}

/** @param {Exchange} exchange  @returns {HTMLElement[]} */
function response(exchange) {
  if (exchange.failure) return [make("p", "failure", exchange.failure)];
  return [part("Response", exchange.received, exchange.text)];
}

/** Answers of one burst, a line each, in the order they were sent. @param {Exchange[]} exchanges */
function answers(exchanges) {
  const lines = exchanges.map((exchange, i) => {
    const { code, session } = /** @type {any} */ (exchange.json) ?? {};
    const held = session ? `visits ${session.data.visits}` : (code ?? "");
    return `${String(i + 1).padStart(2)}  ${statusOf(exchange)}  ${held}`;
  });
  return make("div", "part", make("h3", "", "Responses"), make("pre", "", lines.join("\n")));
}

/** @param {string} title  @param {Headers} headers  @param {string} [body] */
function part(title, headers, body) {
  const block = make("div", "part", make("h3", "", title));
  for (const [name, value] of headers) {
    block.append(make("p", "header", make("span", "", `${name}: `), value));
  }
  if (body) block.append(make("pre", "", pretty(body)));
  else block.append(make("p", "none", headers.length ? "no body" : "no body, no headers of its own"));
  return block;
}

/** @param {Exchange} exchange */
const statusOf = (exchange) => (exchange.failure ? "failed" : String(exchange.status));

/** @param {string} text  JSON, or anything else, which stays as it is */
function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}
