/**
 * One HTTP request, from its first byte to the answer's last: read, struck by a fault if one is due,
 * authorised, executed, answered.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { readCommand, readPath, readPipeline, Refused, writeOutcome } from "./encoding.mjs";

/** @typedef {import("node:http").IncomingMessage} Request */
/** @typedef {import("node:http").ServerResponse} Response */
/** @typedef {import("./commands.mjs").Plan} Plan */
/** @typedef {import("./counters.mjs").Counters} Counters */
/** @typedef {import("./database.mjs").Answer} Answer */
/** @typedef {import("./database.mjs").Database} Database */
/** @typedef {import("./encoding.mjs").Command} Command */
/** @typedef {import("./encoding.mjs").Outcome} Outcome */
/** @typedef {import("./faults.mjs").Fault} Fault */
/** @typedef {import("./faults.mjs").Faults} Faults */

const LARGEST_REQUEST = 10 * 1024 * 1024;
const METHODS = new Set(["HEAD", "GET", "POST", "PUT"]);
const BATCHES = new Set(["/pipeline", "/multi-exec"]);

/**
 * What a request asks for, or why it cannot have it.
 *
 * @typedef {object} Asked
 * @property {string} path
 * @property {Command[]} commands
 * @property {Refused} [refused]
 */

/**
 * @param {{ token: string, database: Database, counters: Counters, faults: Faults, region?: number }} store
 *   `region`: the callers', if they are of one
 * @returns {(request: Request, response: Response) => void}
 */
export function handler({ token, database, counters, faults, region }) {
  const isToken = equals(token);

  /**
   * @param {Request} request
   * @param {Response} response
   */
  async function handle(request, response) {
    // 1. Read. Everything is counted, also what is refused.
    counters.calls += 1;
    const body = await read(request);
    if (!body) return; // the caller went away
    counters.bytesIn += body.length;
    const asked = ask(request, body);
    const plans = asked.commands.map((command) => database.plan(command));
    counters.remember(plans.map((plan) => plan.name));

    // 2. Faults that do without the store.
    const see = () => ({ path: asked.path, commands: asked.commands.map((command) => command.map(String)) });
    const fault = faults.strike(see);
    if (fault.delay) await sleep(fault.delay);
    if (fault.refuse) return request.socket.destroy();
    if ((fault.hang || fault.status) && !fault.execute) return instead(response, fault);

    // 3. Refuse what is not for the store.
    const refused = authorise(request, isToken) ?? asked.refused ?? quota(fault);
    const base64 = request.headers["upstash-encoding"] === "base64";
    const reply = (
      /** @type {number} */ status,
      /** @type {string} */ json,
      /** @type {string} */ syncToken,
    ) => {
      const written = fault.rewrite?.({ status, json, syncToken, base64 }) ?? { status, json, syncToken };
      answer(response, fault, { ...written, counters });
    };
    if (refused)
      return reply(refused.status, writeOutcome({ error: refused.message }, base64), database.token);

    // 4. Execute.
    await faults.gate(see);
    const atomic = asked.path === "/multi-exec";
    const syncToken = /** @type {string | undefined} */ (request.headers["upstash-sync-token"]);
    const options = { atomic, token: syncToken, region };
    /** @type {import("./faults.mjs").Run} */
    const run = (commands, options) =>
      database.run(
        commands.map((command) => database.plan(command)),
        options,
      );
    const ran = fault.semantics
      ? await fault.semantics({ commands: asked.commands, ...options }, run)
      : await execute(database, plans, fault, options);
    if (fault.hang || fault.status) return instead(response, fault);
    if (fault.lostAnswer) return request.socket.destroy();

    // 5. Answer.
    if (ran.discarded) return reply(400, writeOutcome({ error: ran.discarded }, base64), ran.token);
    if (!BATCHES.has(asked.path)) {
      const [outcome] = ran.outcomes;
      return reply("error" in outcome ? 400 : 200, writeOutcome(outcome, base64), ran.token);
    }
    const entries = ran.outcomes.map((outcome) => writeOutcome(outcome, base64));
    if (fault.short) entries.pop();
    return reply(200, `[${entries.join(",")}]`, ran.token);
  }

  return (request, response) => {
    handle(request, response).catch((error) => {
      console.error("local store:", error);
      request.socket.destroy();
    });
  };
}

/**
 * @param {Request} request
 * @returns {Promise<Buffer | undefined>} at most one chunk more than is allowed; nothing if the caller went away
 */
function read(request) {
  /** @type {Buffer[]} */
  const chunks = [];
  let length = 0;
  return new Promise((resolve) => {
    request.on("data", (/** @type {Buffer} */ chunk) => {
      // What is too much is read all the same, so that the caller gets to see the refusal.
      if (length <= LARGEST_REQUEST) chunks.push(chunk);
      length += chunk.length;
    });
    request.once("end", () => resolve(chunks.length === 1 ? chunks[0] : Buffer.concat(chunks)));
    request.once("close", () => resolve(undefined));
  });
}

/**
 * @param {Request} request
 * @param {Buffer} body
 * @returns {Asked}
 */
function ask(request, body) {
  const target = request.url ?? "/";
  const path = target.split("?", 1)[0];
  try {
    return { path, commands: commandsOf(request.method ?? "", path, target, body) };
  } catch (error) {
    if (error instanceof Refused) return { path, commands: [], refused: error };
    throw error;
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {string} target
 * @param {Buffer} body
 * @returns {Command[]}
 */
function commandsOf(method, path, target, body) {
  const writes = method === "POST" || method === "PUT";
  if (!METHODS.has(method) || (BATCHES.has(path) && !writes))
    throw new Refused("ERR method not allowed", 405);
  if (body.length > LARGEST_REQUEST) {
    throw new Refused(`ERR max request size exceeded. Limit: ${LARGEST_REQUEST} bytes`);
  }
  if (BATCHES.has(path)) return readPipeline(body);
  return [path === "/" && writes ? readCommand(body) : readPath(target, body)];
}

/**
 * @param {Request} request
 * @param {(candidate: string) => boolean} isToken
 * @returns {Refused | undefined}
 */
function authorise(request, isToken) {
  const header = request.headers.authorization;
  const given = header?.startsWith("Bearer ")
    ? header.slice("Bearer ".length)
    : tokenInQuery(request.url ?? "");
  if (given && isToken(given)) return undefined;
  return new Refused("WRONGPASS invalid or missing auth token", 401);
}

/**
 * @param {string} target
 * @returns {string | null}
 */
function tokenInQuery(target) {
  const at = target.indexOf("?");
  return at < 0 ? null : new URLSearchParams(target.slice(at)).get("_token");
}

/**
 * @param {string} token
 * @returns {(candidate: string) => boolean} in a time that does not depend on how much of it is right
 */
function equals(token) {
  const digest = (/** @type {string} */ text) => createHash("sha256").update(text).digest();
  const expected = digest(token);
  return (candidate) => timingSafeEqual(digest(candidate), expected);
}

/**
 * @param {Fault} fault
 * @returns {Refused | undefined}
 */
function quota(fault) {
  return fault.quota
    ? new Refused("ERR max requests limit exceeded. Limit: 500000, Usage: 500000.")
    : undefined;
}

/**
 * @param {Database} database
 * @param {Plan[]} plans
 * @param {Fault} fault
 * @param {import("./database.mjs").Options} options
 * @returns {Promise<Answer>}
 */
async function execute(database, plans, fault, options) {
  const failed = { error: fault.error ?? "ERR internal error" };
  const { entry } = fault;
  if (fault.capacity) {
    const full = "ERR DB capacity quota exceeded";
    plans = plans.map((plan) => (plan.kind === "write" ? { ...plan, refusal: full } : plan));
  }
  if (entry === undefined || entry >= plans.length) return database.run(plans, options);
  if (fault.execute) {
    const ran = await database.run(plans, options);
    return ran.discarded ? ran : { ...ran, outcomes: ran.outcomes.with(entry, failed) };
  }
  const ran = await database.run(plans.toSpliced(entry, 1), options);
  return ran.discarded ? ran : { ...ran, outcomes: ran.outcomes.toSpliced(entry, 0, failed) };
}

/**
 * Another answer than the store's, or none.
 *
 * @param {Response} response
 * @param {Fault} fault
 */
function instead(response, { status, body = "", headers }) {
  if (status === undefined) return; // the caller waits
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const type = text.startsWith("<") ? "text/html" : "application/json";
  response.writeHead(status, { "content-type": type, ...headers }).end(text);
}

/**
 * @param {Response} response
 * @param {Fault} fault
 * @param {{ status: number, json: string, syncToken: string, counters: Counters }} answer
 */
function answer(response, fault, { status, json, syncToken, counters }) {
  const length = Buffer.byteLength(json);
  counters.bytesOut += length;
  response.writeHead(status, {
    "content-type": "application/json",
    "content-length": length,
    "upstash-sync-token": syncToken,
  });
  if (!fault.cut) return void response.end(json);
  response.write(json.slice(0, Math.ceil(json.length / 2)), () => response.destroy());
}
