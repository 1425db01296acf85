/**
 * The JavaScript half of `edge.rs`: reads the request, calls the store, builds the response. What happens in
 * between is decided in Rust, which is called with strings and answers with a string.
 */
import {
  initSync,
  __wbg_reset_state,
  begin_background,
  configure,
  headers,
  start,
  resume,
  subject,
} from "./cloakroom.js";
import module from "./cloakroom_bg.wasm";

/** The largest request body that is read, in bytes; MAX_BODY in http/request.rs. */
const MAX_BODY = 256 * 1024;

/**
 * @typedef {object} Env The secrets and the table of CONTRACT.md section 1.
 * @property {string} UPSTASH_REDIS_REST_URL
 * @property {string} UPSTASH_REDIS_REST_TOKEN
 * @property {string} SESSION_SECRET
 * @property {string} [ADMIN_TOKEN]
 * @property {unknown} [CLOAKROOM]
 * @property {{ limit(of: { key: string }): Promise<{ success: boolean }> }} [RATE_LIMITER] Cloudflare's own, optional.
 */

/** @typedef {{ names: string[], url: string, authorization: string }} Instance */

initSync({ module });
/** @type {Instance | undefined} The running instance, once it has read its configuration. */
let current;

export default {
  /**
   * @param {Request} request
   * @param {Env} env
   * @param {{ waitUntil(work: Promise<unknown>): void }} context
   * @returns {Promise<Response>}
   */
  async fetch(request, env, context) {
    const body = request.body ? await readBody(request) : undefined;
    const instance = (current ??= begin(env));
    const isOver = env.RATE_LIMITER ? await isOverLimit(instance, request, env.RATE_LIMITER) : false;
    const step = await drive(instance, () =>
      start(Date.now(), readHead(request, instance.names), body ?? undefined, body === null, isOver),
    );
    if (step.startsWith("B")) context.waitUntil(drive(instance, () => begin_background(Date.now())));
    return step.startsWith("R") || step.startsWith("B") ? respond(step) : internal();
  },
};

/**
 * A fresh instance reads its configuration.
 * @param {Env} env
 * @returns {Instance}
 */
function begin(env) {
  const { CLOAKROOM, SESSION_SECRET, ADMIN_TOKEN, UPSTASH_REDIS_REST_URL, UPSTASH_REDIS_REST_TOKEN } = env;
  const settings = {
    CLOAKROOM,
    SESSION_SECRET,
    ADMIN_TOKEN,
    UPSTASH_REDIS_REST_URL,
    UPSTASH_REDIS_REST_TOKEN,
  };
  configure(JSON.stringify(settings));
  return {
    names: headers().split("\n"),
    url: String(UPSTASH_REDIS_REST_URL).replace(/\/+$/, ""),
    authorization: `Bearer ${UPSTASH_REDIS_REST_TOKEN}`,
  };
}

/**
 * Begins something in wasm and waits for whatever it waits for.
 * @param {Instance} instance
 * @param {() => string} run
 * @returns {Promise<string>} The last step: a response, or empty when it is lost.
 */
async function drive(instance, run) {
  let step = call(instance, run);
  while (step.startsWith("S") || step.startsWith("W")) step = await wait(instance, step);
  return step;
}

/**
 * Calls into wasm. A trap (a panic, memory used up) leaves an instance in an unknown state: it is thrown away
 * with all that is in it, and the next request begins with a fresh one.
 * @param {Instance} instance The one that the request belongs to.
 * @param {() => string} run
 * @returns {string} Empty when the request is lost.
 */
function call(instance, run) {
  if (instance !== current) return "";
  try {
    return run();
  } catch (error) {
    current = undefined;
    __wbg_reset_state();
    // An error's text could hold data, its name can't.
    console.error(
      `cloakroom: the instance was replaced after a trap (${error instanceof Error && error.name})`,
    );
    return "";
  }
}

/**
 * Asks Cloudflare's rate limit, which is free and counts per location, before anything else is done.
 * @param {Instance} instance
 * @param {Request} request
 * @param {NonNullable<Env["RATE_LIMITER"]>} limiter
 */
async function isOverLimit(instance, request, limiter) {
  try {
    const key = call(instance, () => subject(request.headers.get("cf-connecting-ip") ?? ""));
    return !(await limiter.limit({ key })).success;
  } catch (error) {
    console.error(`cloakroom: RATE_LIMITER failed (${error instanceof Error && error.name})`);
    return false;
  }
}

/**
 * @param {Request} request
 * @param {string[]} names
 */
function readHead(request, names) {
  let head = `${request.method}\n${request.url}`;
  for (const name of names) head += `\n${request.headers.get(name) ?? ""}`;
  return head;
}

/**
 * @param {Request} request
 * @returns {Promise<Uint8Array | null>} null when it is too large.
 */
async function readBody(request) {
  const length = request.headers.get("content-length");
  if (length !== null) return Number(length) <= MAX_BODY ? new Uint8Array(await request.arrayBuffer()) : null;
  // Of unknown length: read no more than is allowed.
  const chunks = [];
  let size = 0;
  for await (const chunk of /** @type {AsyncIterable<Uint8Array<ArrayBuffer>>} */ (
    /** @type {unknown} */ (request.body)
  )) {
    size += chunk.length;
    if (size > MAX_BODY) return null;
    chunks.push(chunk);
  }
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

/**
 * @param {Instance} instance
 * @param {string} step What a request waits for; see write_wish in edge.rs.
 * @returns {Promise<string>} The next step.
 */
async function wait(instance, step) {
  const end = step.indexOf("\n\n");
  const [kind, number, milliseconds, path, syncToken] = step.slice(0, end).split("\n");
  let status = 0;
  let newToken = "";
  let body = new Uint8Array();
  try {
    if (kind === "W") {
      await new Promise((done) => setTimeout(done, Number(milliseconds)));
    } else {
      const answer = await fetch(instance.url + path, {
        method: "POST",
        headers: { Authorization: instance.authorization, "Upstash-Sync-Token": syncToken ?? "" },
        body: step.slice(end + 2),
        signal: AbortSignal.timeout(Number(milliseconds)),
        redirect: "manual",
      });
      newToken = answer.headers.get("upstash-sync-token") ?? "";
      body = new Uint8Array(await answer.arrayBuffer());
      status = answer.status;
    }
  } catch {
    // Refused, cut off, or too late: status 0 says so.
  }
  return call(instance, () => resume(Number(number), Date.now(), status, newToken, body));
}

/** @param {string} step `R` or `B`, the status, names and values of headers in turn, an empty line, the body. */
function respond(step) {
  const end = step.indexOf("\n\n");
  const [, status, ...fields] = step.slice(0, end).split("\n");
  const headers = new Headers();
  for (let index = 0; index < fields.length; index += 2) {
    headers.append(String(fields[index]), String(fields[index + 1]));
  }
  return new Response(step.slice(end + 2) || null, { status: Number(status), headers });
}

/** The answer to a request whose instance is gone. */
function internal() {
  const problem = {
    type: "about:blank",
    title: "Internal Server Error",
    status: 500,
    detail: "something went wrong here; the request may or may not have been carried out",
    code: "internal",
  };
  const headers = {
    "Content-Type": "application/problem+json",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
  };
  return new Response(JSON.stringify(problem), { status: 500, headers });
}
