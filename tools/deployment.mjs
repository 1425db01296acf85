/** A deployment's service API, for the commands of operators: where it is, its token, and a question to it. Needs Node alone. */
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { parseEnv } from "node:util";
import { holderOf } from "./lock.mjs";
import { ROOT } from "./say.mjs";
import { printable } from "./table.mjs";

/** @typedef {{ base: string, token: string }} Deployment `base`: the address under which its routes are */
/** @typedef {{ status: number, json: any }} Answer */

/** How a command of operators ends. */
export const EXIT = { found: 0, notFound: 1, usage: 2, refused: 3 };

const [URL_NAME, TOKEN_NAME] = ["CLOAKROOM_URL", "ADMIN_TOKEN"];
const LOCAL = "http://localhost:8787";
const PATIENCE_MS = 15_000;

/** Why a command could not do its work: a sentence, and how it ends. */
export class Stop extends Error {
  /** @param {string} message @param {number} code */
  constructor(message, code) {
    super(message);
    this.code = code;
  }
}

/**
 * The deployment that is meant: that of the environment, else that of .dev.vars, else the one that `npm start` runs. Address
 * and token come from the same place, so that no token is sent to a deployment that it is not for.
 *
 * @param {{ devVars?: string, state?: string, env?: NodeJS.ProcessEnv }} [places] as of `npm start`
 * @returns {Promise<Deployment>}
 */
export async function findDeployment({ devVars = ".dev.vars", state = ".local", env = process.env } = {}) {
  const text = await readFile(resolve(ROOT, devVars), "utf8").catch(() => "");
  const vars = parseEnv(text);
  if (env[URL_NAME])
    return deployment(env[URL_NAME], env[TOKEN_NAME], "in the environment, as the address is");
  if (env[TOKEN_NAME] && env[TOKEN_NAME] !== vars[TOKEN_NAME]) {
    throw new Stop(
      `${TOKEN_NAME} is set in the environment but ${URL_NAME} is not: set both, or neither for what ${devVars} names.`,
      EXIT.usage,
    );
  }
  const running = holderOf(join(resolve(ROOT, state), "lock"))?.note;
  const url = vars[URL_NAME] || (running && URL.canParse(running) ? running : LOCAL);
  return deployment(
    url,
    vars[TOKEN_NAME],
    `in the environment with ${URL_NAME}, or in ${devVars}, which npm start makes`,
  );
}

/** @param {string} address @param {string | undefined} token @param {string} where it belongs @returns {Deployment} */
function deployment(address, token, where) {
  const url = URL.canParse(address) ? new URL(address) : null;
  if (!url || !/^https?:$/.test(url.protocol) || url.username || url.password) {
    throw new Stop(
      `${URL_NAME} must be the address of the deployment, such as https://example.com.`,
      EXIT.usage,
    );
  }
  const isHere = /^(localhost|127(\.\d+){3}|\[::1\])$/.test(url.hostname);
  if (url.protocol === "http:" && !isHere) {
    throw new Stop(
      `${URL_NAME} must begin with https://: ${TOKEN_NAME} would cross the network in the clear.`,
      EXIT.usage,
    );
  }
  if (!token) throw new Stop(`${TOKEN_NAME} is missing: set it ${where}.`, EXIT.usage);
  if (!/^[!-~]+$/.test(token)) {
    throw new Stop(`${TOKEN_NAME} holds a space or a line break: copy the token alone.`, EXIT.usage);
  }
  const path = url.pathname.replace(/\/+$/, "");
  return { base: url.origin + (path || "/auth"), token };
}

/**
 * Asks the service API. Not found is an answer; that there is no service API is none.
 *
 * @param {Deployment} deployment
 * @param {string} method
 * @param {string} path below /admin
 * @param {object} [body]
 * @returns {Promise<Answer>} with the status 200, 404 or 422
 */
export async function ask(deployment, method, path, body) {
  const answer = await send(deployment, method, path, body);
  // Without a token of its own it answers 404 to everything, and so does another server.
  const isThere = answer.status !== 404 || (await send(deployment, "GET", "/stats")).status === 200;
  if (isThere) return answer;
  throw new Stop(
    `There is no service API at ${deployment.base}: no ${TOKEN_NAME} is set there, or ${URL_NAME} lacks its base_path.`,
    EXIT.refused,
  );
}

/** @param {Deployment} deployment @param {string} method @param {string} path @param {object} [body] @returns {Promise<Answer>} */
async function send({ base, token }, method, path, body) {
  const refuse = (/** @type {string} */ why) => new Stop(`${base} ${why}`, EXIT.refused);
  const response = await fetch(`${base}/admin${path}`, {
    method,
    headers: { Authorization: `Bearer ${token}`, ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body),
    redirect: "manual", // the token is for nobody else
    signal: AbortSignal.timeout(PATIENCE_MS),
  }).catch((error) => {
    throw refuse(
      `cannot be reached: ${printable(error.cause?.code ?? error.cause?.message ?? error.message)}.`,
    );
  });
  const { status } = response;
  const json = await response.json().catch(() => undefined);
  const detail = printable(json?.detail ?? response.statusText);
  if (status >= 300 && status < 400) {
    const to = printable(response.headers.get("location") ?? "");
    throw refuse(`redirects to ${to}: ${URL_NAME} must be the address that answers.`);
  }
  if (status === 401) throw refuse(`refuses the ${TOKEN_NAME}: it is not the one that is set there.`);
  if (status === 400) throw new Stop(`${base} says: ${detail}`, EXIT.usage);
  const isAnswer = status === 404 || ((status === 200 || status === 422) && json !== undefined);
  if (!isAnswer) throw refuse(`answered ${status}: ${detail || "no word of Cloakroom's"}`);
  return { status, json };
}
