/**
 * What the tests of errors share: a deployment, started with the import, visitors whose every answer is kept, and what
 * is the same for every refusal. At the end of each file all problems and the log are searched for secrets.
 */
import assert from "node:assert/strict";
import { after, beforeEach } from "node:test";
import { Visitor } from "./visitor.mjs";
import { randomSecret, startDeployment } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Answer} Answer */
/** @typedef {Parameters<Visitor["send"]>} Send */

export const MERGE = "application/merge-patch+json";
export const PATCH = "application/json-patch+json";
export const DATA = "/auth/session/data";
/** In the data of every session here; no problem and no log line may contain it. */
export const MARK = "kept-in-the-coat-and-shown-to-nobody";
export const FORGED = "A".repeat(148);

/** The phrases of RFC 9110, which RFC 9457 asks for as titles of about:blank problems. @type {Record<number, string>} */
const TITLES = {
  400: "Bad Request",
  401: "Unauthorized",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  412: "Precondition Failed",
  413: "Content Too Large",
  415: "Unsupported Media Type",
  422: "Unprocessable Content",
  500: "Internal Server Error",
  503: "Service Unavailable",
};

export const ROUTES = [
  { path: "/auth/session", methods: ["GET", "HEAD", "DELETE"] },
  { path: DATA, methods: ["PATCH"] },
  { path: "/auth/session/rotate", methods: ["POST"] },
  { path: "/auth/health", methods: ["GET", "HEAD"] },
];

export const signing = randomSecret();
const deployment = await startDeployment([{ secrets: { SESSION_SECRET: signing } }]);
export const { store, start } = deployment;
export const [worker] = deployment.workers;

/** Every problem that a visitor got. @type {Answer[]} */
const problems = [];
/** Every ticket that a visitor got. @type {Set<string>} */
const tickets = new Set();
/** What no answer and no log line may contain, beside tickets. */
export const secrets = new Set([signing, store.token]);

beforeEach(async () => {
  store.faults.clear();
  await store.redis.flushAll();
});
after(async () => {
  try {
    if (deployment.workers.length) await assertNothingTold();
  } finally {
    await deployment.stop();
  }
});

/** A visitor whose problems and tickets are kept for the search at the end. */
export class Watched extends Visitor {
  /** @param {Send} request */
  async send(...request) {
    const answer = await super.send(...request);
    if (answer.status >= 400) problems.push(answer);
    if (this.ticket) tickets.add(this.ticket);
    return answer;
  }
}

/** A visitor without a session. */
export const stranger = () => new Watched(worker.url);

/** A visitor whose session contains the mark. */
export async function guest(url = worker.url) {
  const visitor = new Watched(url);
  const answer = await visitor.merge({ mark: MARK, views: 1, list: [0], text: "x" });
  assert.equal(answer.status, 200);
  return visitor;
}

/** All that is in the store except counters, and whether it expires. */
export async function contents() {
  const keys = (await store.redis.keys("*")).filter((key) => !key.startsWith("stats:")).sort();
  return Promise.all(
    keys.map(async (key) => ({
      key,
      value: await store.redis.get(key),
      expires: (await store.redis.pTTL(key)) > 0,
    })),
  );
}

/**
 * What is the same for every problem.
 * @param {Answer} answer
 * @param {number} status
 * @param {string} code
 */
export function assertProblem(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.headers.get("content-type"), "application/problem+json");
  assert.deepEqual(Object.keys(answer.json).sort(), ["code", "detail", "status", "title", "type"]);
  const { detail, ...rest } = answer.json;
  assert.deepEqual(rest, { type: "about:blank", title: TITLES[status], status, code });
  assert.match(detail, /\w+ \w+/);
  assert.doesNotMatch(
    detail,
    /sess:|\b(MGET|GETDEL|SET|IFEQ|PEXPIRE|PING)\b|panicked|\.rs\b|\.js\b|https?:\/\//,
  );
  assertHeaders(answer);
}

/** @param {Answer} answer */
function assertHeaders(answer) {
  assert.equal(answer.headers.get("cache-control"), "no-store, no-transform");
  assert.equal(answer.headers.get("x-content-type-options"), "nosniff");
}

/**
 * Makes a request that is to be refused, and checks the refusal: the problem, no cookie, no change in the store, and
 * the number of calls to the store.
 * @param {() => Promise<Answer>} act
 * @param {{ status: number, code: string, calls?: number }} expected
 */
export async function assertRefused(act, { status, code, calls }) {
  const before = await contents();
  const { value: answer, calls: made } = await store.counters.during(act);
  assertProblem(answer, status, code);
  assert.deepEqual(answer.setCookies, []);
  assert.deepEqual(await contents(), before);
  if (calls !== undefined) assert.equal(made, calls, "calls to the store");
  return answer;
}

/** @param {Visitor} visitor @param {string} type @param {string | Buffer} body @param {boolean} [chunked] */
export const change = (visitor, type, body, chunked) =>
  visitor.send("PATCH", DATA, { headers: { "Content-Type": type }, body, chunked });

/** @param {Answer} answer to HEAD */
export function assertNoBody(answer) {
  assert.equal(answer.text, "");
  assertHeaders(answer);
  if (answer.status >= 400) assert.equal(answer.headers.get("content-type"), "application/problem+json");
}

/**
 * Stops the isolates, and searches all problems and all that was logged for what nobody may learn.
 * @param {{ leastProblems?: number, leastTickets?: number }} [least]  there have to be more
 * @returns the log
 */
export async function assertNothingTold({ leastProblems = 50, leastTickets = 5 } = {}) {
  const stopped = deployment.workers.splice(0);
  await Promise.all(stopped.map((each) => each.stop()));
  const log = stopped.map((each) => each.logs.join("")).join("\n");
  assert.ok(problems.length > leastProblems && tickets.size > leastTickets, "there is something to search");
  const answered = problems.map(({ headers, text }) => JSON.stringify([...headers]) + text);
  const told = [log, ...answered].join("\n");
  // The operator may know the name of the store's error; callers may not.
  assert.doesNotMatch(answered.join("\n"), /WRONGPASS/);

  const ids = [...tickets].filter((ticket) => ticket !== FORGED).map((ticket) => idOf(ticket));
  const unspeakable = [
    ...secrets,
    ...tickets,
    ...ids.flatMap((id) =>
      ["base64url", "base64", "hex"].map((form) => id.toString(/** @type {any} */ (form))),
    ),
    new URL(store.url).host,
    MARK,
    "sess:",
    "invalid or missing",
  ];
  for (const text of unspeakable) {
    const at = told.indexOf(text);
    assert.equal(at, -1, `${text} in …${told.slice(Math.max(0, at - 200), at + 200)}…`);
  }
  return log;
}

/** The session id in a ticket; see src/ticket/mod.rs. @param {string} ticket */
function idOf(ticket) {
  return Buffer.from(ticket, "base64url").subarray(5, 37);
}
