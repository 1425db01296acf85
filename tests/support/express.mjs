/**
 * What the tests of Express' sessions share: an application and the Worker beside it, in front of one Valkey, and visitors
 * of both.
 */
import assert from "node:assert/strict";
import { startLocalStore } from "../../tools/local-store/index.mjs";
import { startValkey } from "../../tools/valkey.mjs";
import { SECRET, startExpressApp } from "./express-app.mjs";
import { Visitor } from "./visitor.mjs";
import { FAST_HASH, NO_LIMITS, randomSecret, startWorker } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Answer} Answer */
/** @typedef {Omit<Parameters<typeof startExpressApp>[0], "socket">} AppOptions */
/** @typedef {Awaited<ReturnType<typeof startBeside>>} Beside */
/** @typedef {ReturnType<typeof someone>} Someone */

const ADMIN_TOKEN = randomSecret();
export const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
export const PASSWORD = "correct horse";
export const MINUTE = 60_000;
export const HOUR = 60 * MINUTE;
export const DAY = 24 * HOUR;

/**
 * A Worker's configuration beside an application.
 * @param {object} [options]
 * @param {AppOptions["user"] | ""} [options.user]  `cookie.user_pointer`
 * @param {object} [options.cookie]  more of `cookie`
 * @param {object} [options.settings]  other tables
 * @param {string[]} [options.secrets]  `FORMAT_SECRETS`
 * @param {Record<string, string | undefined>} [options.environment]  more of the environment, or other values
 */
export const beside = ({
  user = "/userId",
  cookie = {},
  settings = {},
  secrets: format = [SECRET],
  environment = {},
} = {}) => ({
  settings: {
    // The application answers without TLS here.
    cookie: defined({ format: "express", user_pointer: user, secure: false, ...cookie }),
    password: FAST_HASH,
    limits: NO_LIMITS,
    ...settings,
  },
  secrets: { ADMIN_TOKEN, FORMAT_SECRETS: JSON.stringify(format), ...environment },
});

/** Without members that are undefined. @param {object} members */
const defined = (members) => JSON.parse(JSON.stringify(members));

/**
 * An application and the Worker, with the same user pointer and the same secrets unless told otherwise.
 * @param {object} [options]
 * @param {AppOptions} [options.app]
 * @param {Parameters<typeof beside>[0]} [options.worker]
 */
export async function startBeside({ app: appOptions = {}, worker: workerOptions = {} } = {}) {
  const valkey = await startValkey();
  const store = await startLocalStore({ valkey });
  /** @type {{ stop(): Promise<unknown> }[]} */
  const running = [];
  /** @template {{ stop(): Promise<unknown> }} T @param {T} one */
  const keep = (one) => {
    running.push(one);
    return one;
  };
  const startApp = async (/** @type {AppOptions} */ options = appOptions) =>
    keep(await startExpressApp({ socket: valkey.socket, ...options }));
  const startIsolate = async (/** @type {Parameters<typeof beside>[0]} */ options = workerOptions) =>
    keep(await startWorker({ store, ...beside({ user: appOptions.user, ...options }) }));
  const stop = async () => {
    await Promise.all(running.map((one) => one.stop()));
    await store.stop();
    await valkey.stop();
  };
  try {
    const [app, worker] = await Promise.all([startApp(), startIsolate()]);
    return {
      store,
      app,
      worker,
      /** A visitor of both. */
      someone: (at = { app, worker }) => someone(at.app, at.worker),
      /** One more application. */
      startApp,
      /** One more isolate. */
      startWorker: startIsolate,
      stop,
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/**
 * A visitor of both, with one cookie jar, as a browser has for one site.
 * @param {{ url: string }} app
 * @param {{ url: string }} worker
 */
export function someone(app, worker) {
  const [atExpress, atWorker] = [new Visitor(app.url), new Visitor(worker.url)];
  atWorker.cookies = atExpress.cookies;
  return { atExpress, atWorker };
}

/** Another visitor with the same cookies, as they are now. @param {Someone} who */
export function copyOf({ atExpress, atWorker }) {
  const copy = { atExpress: atExpress.clone(), atWorker: atWorker.clone() };
  copy.atWorker.cookies = copy.atExpress.cookies;
  return copy;
}

/** The id in a cookie, of which the signature is not looked at. @param {Visitor} visitor */
export function sidOf(visitor, name = "connect.sid") {
  const value = decodeURIComponent(visitor.cookies.get(name) ?? "");
  assert.match(value, /^s:.*\.[A-Za-z0-9+/]{43}$/s, value);
  return value.slice(2, value.lastIndexOf("."));
}

/** @param {Beside} both @param {Visitor} visitor @param {{ prefix?: string, name?: string }} [options] */
export const keyOf = (both, visitor, { prefix = "sess:", name } = {}) => prefix + sidOf(visitor, name);

/** What stands in the store, as the application would read it. @param {Beside} both @param {string} key */
export async function recordAt({ store }, key) {
  const text = await store.redis.get(key);
  return text === null ? null : JSON.parse(text);
}

/** The time to live in milliseconds; -1 without one, -2 without a key. @param {Beside} both @param {string} key */
export const timeToLive = ({ store }, key) => store.redis.pTTL(key);

/** As many milliseconds, of which a few seconds may have passed since. @param {number} actual @param {number} expected */
export const near = (actual, expected) =>
  assert.ok(actual <= expected && actual > expected - 10_000, `${actual} ms, not ${expected}`);

/** An answer with this status; its session or its body. @param {Answer | Promise<Answer>} sent @param {number} [status] */
export async function ok(sent, status = 200) {
  const answer = await sent;
  assert.equal(answer.status, status, answer.text);
  return answer.json?.session === undefined ? answer.json : answer.json.session;
}

/** @param {Answer | Promise<Answer>} sent @param {number} status @param {string} code */
export async function refused(sent, status, code) {
  const answer = await sent;
  assert.deepEqual([answer.status, answer.json?.code], [status, code], answer.text);
  return answer;
}

/** A request with this body. @param {unknown} body */
export const json = (body) => ({
  headers: { "Content-Type": "application/json" },
  body: JSON.stringify(body),
});
