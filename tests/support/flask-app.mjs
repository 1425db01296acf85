/** A real Flask application with Flask-Session, and the Worker beside it on the same Valkey, for the same visitors. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { RESP_TYPES } from "@redis/client";
import { launchFlask } from "../../tools/flask.mjs";
import { Visitor } from "./visitor.mjs";
import { startDeployment, randomSecret } from "./worker.mjs";

/** @typedef {Awaited<ReturnType<typeof startFlask>>} FlaskApp */
/** @typedef {Awaited<ReturnType<typeof startBeside>>} Beside */

/**
 * What Flask is configured with: `app.config`, as JSON.
 * @typedef {object} FlaskSettings
 * @property {unknown} [SECRET_KEY]  text, `{ base64 }` for bytes, or a list of these
 * @property {"msgpack" | "json"} [SESSION_SERIALIZATION_FORMAT]
 * @property {boolean} [SESSION_USE_SIGNER]
 * @property {boolean} [SESSION_PERMANENT]
 * @property {number} [PERMANENT_SESSION_LIFETIME]  in seconds
 * @property {string} [SESSION_KEY_PREFIX]
 * @property {boolean} [SESSION_REFRESH_EACH_REQUEST]
 * @property {string} [SESSION_COOKIE_NAME]
 * @property {number} [SESSION_ID_LENGTH]
 * @property {string} [SESSION_PROTECTION]  flask-login's
 */

const SCRIPT = fileURLToPath(new URL("flask-app.py", import.meta.url));

/** Flask's own default: 31 days, in seconds. */
export const LIFETIME = 31 * 86_400;

/**
 * Starts the application of flask-app.py.
 * @param {import("./worker.mjs").LocalStore} store
 * @param {FlaskSettings} [settings]
 */
export async function startFlask(store, settings = {}) {
  const program = await launchFlask(SCRIPT, {
    env: { REDIS_SOCKET: store.socket, FLASK_SETTINGS: JSON.stringify(settings) },
    capture: true,
  });
  let said = "";
  program.stderr?.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-10_000)));
  const lines = createInterface({ input: /** @type {import("node:stream").Readable} */ (program.stdout) });
  const [url] = await Promise.race([
    once(lines, "line"),
    program.exited.then(() => assert.fail(`the Flask application ended: ${said}`)),
  ]);
  const anyone = () => new Visitor(url);

  /** @param {string} path @param {unknown} [body] @returns {Promise<any>} */
  const ask = async (path, body) => {
    const headers = { "Content-Type": "application/json" };
    const answer = await anyone().send("POST", path, { headers, body: JSON.stringify(body ?? null) });
    assert.ok(answer.status < 300, `${path}: ${answer.status} ${said}`);
    return answer.json;
  };
  return {
    url,
    /** What it has logged. */
    log: () => said,
    /** A new visitor, with an empty cookie jar. */
    visitor: anyone,
    /** This visitor of the Worker's, with the same cookie jar, at Flask. @param {Visitor} visitor */
    at: (visitor) => sharing(visitor, url),
    /**
     * Begins a request with a visitor's cookies that has read the session when this is over, and goes on when it is
     * released.
     * @param {Visitor} visitor
     * @param {"GET" | "POST"} [method] GET only reads, POST counts a visit
     */
    async slow(visitor, method = "POST") {
      const name = randomSecret();
      const answer = sharing(visitor, url).send(method, `/slow/${name}`);
      await anyone().send("GET", `/test/arrived/${name}`);
      return async () => {
        await ask(`/test/release/${name}`);
        return answer;
      };
    },
    /** Writes sessions at random. @param {number} seed @param {number} count @returns {Promise<MadeRecord[]>} */
    makeRecords: (seed, count) => ask(`/test/records?seed=${seed}&count=${count}`),
    /** How these look by now. @param {string[]} sids @returns {Promise<Looks[]>} */
    decodeRecords: (sids) => ask("/test/decode", sids),
    /** The cookies of these ids. @param {string[]} sids @returns {Promise<string[]>} */
    cookiesOf: (sids) => ask("/test/cookies", sids),
    stop: () => program.stop(),
  };
}

/**
 * How a record looks to Python: `others`, member by member, as text.
 * @typedef {{ views: number, edge: unknown, others: Record<string, string> }} Looks
 * @typedef {Looks & { cookie: string, sid: string, shown: Record<string, unknown> | null }} MadeRecord
 */

/** Another visitor with the same cookie jar, at another place. @param {Visitor} visitor @param {string} url */
export function sharing(visitor, url) {
  const other = new Visitor(url);
  other.cookies = visitor.cookies;
  return other;
}

/** The settings of the Worker that say the same as Flask's. @param {FlaskSettings} flask */
export function cookieSettings(flask) {
  return {
    format: "flask",
    record_ttl: flask.PERMANENT_SESSION_LIFETIME ?? LIFETIME,
    ...(flask.SESSION_COOKIE_NAME && { name: flask.SESSION_COOKIE_NAME }),
    ...(flask.SESSION_KEY_PREFIX && { record_prefix: flask.SESSION_KEY_PREFIX }),
    ...(flask.SESSION_SERIALIZATION_FORMAT && { serializer: flask.SESSION_SERIALIZATION_FORMAT }),
    ...(flask.SESSION_USE_SIGNER && { signer: true }),
  };
}

/**
 * A Flask application and isolates of the Worker on one store, all stopped together.
 * @param {object} [options]
 * @param {FlaskSettings} [options.flask]
 * @param {number} [options.isolates]
 * @param {object} [options.cookie]  more settings of the cookie, or other ones
 * @param {object} [options.settings]  more settings
 * @param {Record<string, unknown>} [options.secrets]
 */
export async function startBeside({ flask = {}, isolates = 1, cookie, settings, secrets } = {}) {
  const { SECRET_KEY = [] } = flask;
  // itsdangerous signs with the last one, the Worker with the first.
  const keys = Array.isArray(SECRET_KEY) ? SECRET_KEY.toReversed() : [SECRET_KEY];
  const deployment = await startDeployment(
    Array.from({ length: isolates }, () => ({})),
    {
      settings: { cookie: { ...cookieSettings(flask), ...cookie }, ...settings },
      secrets: { ...(keys.length && { FORMAT_SECRETS: JSON.stringify(keys) }), ...secrets },
    },
  );
  const { store, workers } = deployment;
  let app = await startFlask(store, flask).catch(async (error) => {
    await deployment.stop();
    throw error;
  });
  const bytes = store.redis.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const prefix = flask.SESSION_KEY_PREFIX ?? "session:";
  const name = flask.SESSION_COOKIE_NAME ?? "session";
  return {
    ...deployment,
    worker: workers[0],
    get flask() {
      return app;
    },
    /** Ends the application, and starts it again. */
    async restartFlask() {
      await app.stop();
      app = await startFlask(store, flask);
    },
    /** The name of the cookie. */
    name,
    /** A visitor of both: `edge` at the Worker, `app` at Flask. */
    visitor() {
      const edge = workers[0].visitor();
      return { edge, app: app.at(edge), ...looks(edge) };
    },
    prefix,
    /** The stored bytes of a key. @param {string} key @returns {Promise<Buffer | null>} */
    bytesOf: (key) => bytes.get(key),
    /** Writes a record, with an hour to live. @param {string} key @param {Buffer | string} record */
    write: (key, record) => store.redis.set(key, record, { expiration: { type: "EX", value: 3600 } }),
    /** Seconds that a key has to live yet. @param {string} key */
    secondsOf: (key) => store.redis.ttl(key),
    /** All keys of records. */
    records: () => store.redis.keys(`${prefix}*`),
    async stop() {
      await app.stop();
      await deployment.stop();
    },
  };

  /** @param {Visitor} visitor */
  function sidOf(visitor) {
    const value = visitor.cookies.get(name);
    assert.ok(value, "there is a cookie");
    return flask.SESSION_USE_SIGNER ? value.slice(0, value.lastIndexOf(".")) : value;
  }

  /** @param {Visitor} visitor */
  function looks(visitor) {
    return {
      /** The id of the session. */
      sid: () => sidOf(visitor),
      /** The key of its record. */
      key: () => prefix + sidOf(visitor),
      /** What the Worker shows. */
      data: async () => (await visitor.session())?.data ?? null,
      /** What Flask sees: `found`, and `data` as Python writes it. */
      python: async () => (await app.at(visitor).send("GET", "/test/session")).json,
    };
  }
}
