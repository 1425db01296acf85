/** What the tests of cookies share: a deployment, started with the import, and what is read from Set-Cookie lines. */
import assert from "node:assert/strict";
import { after, afterEach } from "node:test";
import { Visitor } from "./visitor.mjs";
import { randomSecret, startDeployment } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Answer} Answer */

export const NAME = "__Host-session";
export const MINUTE = 60_000;
export const OLD = randomSecret();

const deployment = await startDeployment([{}], { secrets: { SESSION_SECRET: OLD } });
export const { store } = deployment;
export const [worker] = deployment.workers;
after(deployment.stop);
afterEach(() => store.faults.clear());

/** One more isolate. @param {object} [settings] */
export const open = (settings = {}, secret = OLD) =>
  deployment.start({ settings, secrets: { SESSION_SECRET: secret } });

/** A visitor with a session. */
export async function guest(url = worker.url) {
  const visitor = new Visitor(url);
  assert.equal((await visitor.merge({ views: 1 })).status, 200);
  return visitor;
}

/** The ticket of a new session. */
export async function ticket(url = worker.url) {
  const visitor = await guest(url);
  assert.ok(visitor.ticket);
  return visitor.ticket;
}

/** A request with this `Cookie` header. @param {string} method @param {string} path @param {string} cookie @param {string} [url] */
export const sendWith = (method, path, cookie, url = worker.url) =>
  new Visitor(url).send(method, path, { headers: { Cookie: cookie } });

/** A read with this `Cookie` header. @param {string} cookie @param {string} [url] */
export const lookWith = (cookie, url = worker.url) => sendWith("GET", "/auth/session", cookie, url);

/** A logout with this `Cookie` header. @param {string} cookie @param {string} [url] */
export const logOutWith = (cookie, url = worker.url) => sendWith("DELETE", "/auth/session", cookie, url);

/**
 * A `Set-Cookie` line, taken apart.
 * @param {string} line
 */
function parse(line) {
  const [pair, ...attributes] = line.split(";").map((part) => part.trim());
  const [name, value] = pair.split(/=(.*)/s);
  return {
    name,
    value,
    attributes: Object.fromEntries(
      attributes.map((text) => text.split("=")).map(([key, of = true]) => [key, of]),
    ),
  };
}

export const ATTRIBUTES = { Path: "/", HttpOnly: true, Secure: true, SameSite: "Lax" };

/** @param {Answer} answer @param {{ name?: string, attributes?: object }} [expected] */
export function assertRemoved(answer, { name = NAME, attributes = ATTRIBUTES } = {}) {
  assert.equal(answer.setCookies.length, 1, "one Set-Cookie");
  assert.deepEqual(parse(answer.setCookies[0]), {
    name,
    value: "",
    attributes: { ...attributes, "Max-Age": "0" },
  });
}

/**
 * The answer to a request with a cookie that leads nowhere: it is removed, unless the request was a safe one, whose answer
 * may arrive after one that has set a newer cookie.
 * @param {Answer} answer
 * @param {string} method
 * @param {Parameters<typeof assertRemoved>[1]} [expected]
 */
export function assertUseless(answer, method, expected) {
  if (["GET", "HEAD"].includes(method)) assert.deepEqual(answer.setCookies, [], `removed by ${method}`);
  else assertRemoved(answer, expected);
}

/** @param {Answer} answer @param {{ name?: string, attributes?: object }} [expected] */
export function assertIssued(answer, { name = NAME, attributes = ATTRIBUTES } = {}) {
  assert.equal(answer.setCookies.length, 1, "one Set-Cookie");
  const { value, ...rest } = parse(answer.setCookies[0]);
  assert.deepEqual(rest, { name, attributes });
  assert.match(value, /^[\w-]{148}$/);
  return value;
}

/** Makes a request that takes this many calls to the store. @param {() => Promise<Answer>} act @param {number} calls */
export async function withCalls(act, calls) {
  const { value, calls: made } = await store.counters.during(act);
  assert.equal(made, calls, "calls to the store");
  return value;
}

export const ROUTES = /** @type {[string, string, number][]} */ ([
  ["GET", "/auth/session", 200],
  ["HEAD", "/auth/session", 200],
  ["POST", "/auth/session/rotate", 401],
  ["DELETE", "/auth/session", 204],
]);
