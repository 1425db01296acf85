/**
 * Bytes in and out: what a request says, as commands; what Valkey says, as Upstash's JSON.
 * Values stay bytes on the way through, so that none is damaged that need not be.
 */

/** @typedef {string | Buffer} Arg */
/** @typedef {Arg[]} Command its name and its arguments; never empty */

/**
 * A reply as the connection is set up to decode it: integers are strings of digits (JavaScript's numbers
 * would round them) and so are status replies, everything else is bytes.
 *
 * @typedef {null | string | Buffer | Error | Reply[]} Reply
 */

/** @typedef {{ result: Reply } | { error: string }} Outcome of one command */

/** A request that is refused before anything is executed. */
export class Refused extends Error {
  /**
   * @param {string} message
   * @param {number} [status]
   */
  constructor(message, status = 400) {
    super(message);
    this.status = status;
  }
}

/**
 * @param {Buffer} body
 * @returns {Command}
 */
export function readCommand(body) {
  return toCommand(parse(body));
}

/**
 * @param {Buffer} body
 * @returns {Command[]}
 */
export function readPipeline(body) {
  const rows = parse(body);
  if (!Array.isArray(rows)) throw new Refused("ERR failed to parse pipeline request: expected a JSON array");
  if (rows.length === 0) throw new Refused("ERR empty pipeline request");
  return rows.map(toCommand);
}

/**
 * `/set/key/value?EX=100`: each segment is an argument, then the body if there is one, then the query.
 *
 * @param {string} target the request's path and query, still percent-encoded
 * @param {Buffer} body
 * @returns {Command}
 */
export function readPath(target, body) {
  const [path, query] = split(target, "?");
  const command = path.slice(1).split("/").map(percentDecode);
  if (body.length > 0) command.push(body);
  for (const pair of query ? query.split("&") : []) {
    const [name, value] = split(pair.replaceAll("+", "%20"), "=");
    if (name === "_token") continue;
    command.push(percentDecode(name));
    if (value !== undefined) command.push(percentDecode(value));
  }
  if (command[0].length === 0) throw new Refused("ERR empty command");
  return command;
}

/**
 * @param {Outcome} outcome
 * @param {boolean} base64 whether the caller asked for `Upstash-Encoding: base64`
 * @returns {string} JSON
 */
export function writeOutcome(outcome, base64) {
  if ("error" in outcome) return JSON.stringify({ error: outcome.error });
  if (outcome.result === "OK") return '{"result":"OK"}'; // the one string that base64 leaves alone
  return `{"result":${writeReply(outcome.result, base64)}}`;
}

/**
 * @param {Reply} reply
 * @param {boolean} base64
 * @returns {string} JSON
 */
function writeReply(reply, base64) {
  if (reply === null) return "null";
  if (Array.isArray(reply)) return `[${reply.map((entry) => writeReply(entry, base64)).join(",")}]`;
  if (reply instanceof Error) return JSON.stringify(reply.message);
  if (typeof reply === "string" && /^-?\d+$/.test(reply)) return reply;
  const bytes = typeof reply === "string" ? Buffer.from(reply) : reply;
  return base64 ? `"${bytes.toString("base64")}"` : JSON.stringify(bytes.toString("utf8"));
}

/**
 * @param {Buffer} body
 * @returns {unknown}
 */
function parse(body) {
  const text = body.toString("utf8");
  try {
    return JSON.parse(/\d{16}/.test(text) ? text.replace(STRING_OR_LARGE_INTEGER, quoteInteger) : text);
  } catch {
    throw new Refused("ERR failed to parse request: not valid JSON"); // the parser's own text quotes the body
  }
}

// As a string argument an integer beyond 2^53 keeps its digits; as a JavaScript number it would not.
const STRING_OR_LARGE_INTEGER = /"(?:[^"\\]+|\\.)*"|-?\d{16,}(?![\d.eE])/g;
const quoteInteger = (/** @type {string} */ token) => (token.startsWith('"') ? token : `"${token}"`);

/**
 * @param {unknown} row
 * @returns {Command}
 */
function toCommand(row) {
  if (!Array.isArray(row)) throw new Refused("ERR failed to parse command: expected a JSON array");
  if (row.length === 0 || row[0] === "") throw new Refused("ERR empty command");
  return row.map((value) => {
    if (typeof value === "string") return value;
    if (typeof value === "number" || typeof value === "boolean") return String(value);
    throw new Refused("ERR failed to parse command: arguments are strings, numbers or booleans");
  });
}

/**
 * @param {string} text
 * @returns {Arg}
 */
function percentDecode(text) {
  if (!/[%\x80-\xff]/.test(text)) return text;
  const plain = text.replace(/%([0-9a-f]{2})|%/gi, (_, hex) => {
    if (!hex) throw new Refused("ERR failed to parse command: bad percent-encoding in the path");
    return String.fromCharCode(Number.parseInt(hex, 16));
  });
  return Buffer.from(plain, "latin1"); // any bytes, not only UTF-8
}

/**
 * @param {string} text
 * @param {string} separator
 * @returns {[string, string | undefined]}
 */
function split(text, separator) {
  const at = text.indexOf(separator);
  return at < 0 ? [text, undefined] : [text.slice(0, at), text.slice(at + 1)];
}
