/** Calls into the platform, each of which crossing.js makes besides: what it takes. */

/** @typedef {{ waitUntil(work: Promise<unknown>): void }} Context */
/**
 * @typedef {object} Crossing
 * @property {string} title
 * @property {(request: Request, context: Context) => unknown} once if it is a promise, it is waited for
 * @property {number} [times] in a request, if not `TIMES`
 * @property {string[]} [less] the names of others that it contains: what it takes more than they do
 */

/** So often in a request: a call takes some microseconds, and a request is measured to some ten. */
export const TIMES = 20;
/** A cheap one. */
const OFTEN = { times: 200 };

const COMMANDS = JSON.stringify([
  ["MGET", "bench:constant", "limit:session:Z7-eK6Aho_De:29920996", "limit:session:Z7-eK6Aho_De:29920998"],
  ["INCR", "limit:session:Z7-eK6Aho_De:29920997"],
]);
const HEADERS = {
  "Content-Type": "application/json",
  ETag: '"kjLrwqerMfiIShiO"',
  "RateLimit-Policy": '"session";q=300;w=60',
  RateLimit: '"session";r=299;t=42',
  Vary: "Cookie",
  "Cache-Control": "no-store",
  "X-Content-Type-Options": "nosniff",
};
const PAIRS = Object.entries(HEADERS);
const IN_JSON = JSON.stringify({ status: 200, headers: PAIRS });
const BODY = "a".repeat(400);
const URL_OF_CALL = "http://127.0.0.1/multi-exec";

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
const memory = new Uint8Array(65_536);
const [short, long] = [encoder.encode("a".repeat(40)), encoder.encode(BODY)];
const random = new Uint8Array(16);
/** @type {any} made when it is needed first */
let headers;

const nothing = () => {};
/** A call to the store that is not made. @param {RequestInit} init */
const call = (init) =>
  new Request(URL_OF_CALL, {
    method: "POST",
    headers: { Authorization: "Bearer of-some-length" },
    body: COMMANDS,
    ...init,
  });

/** @type {Record<string, Crossing>} */
export const CROSSINGS = {
  none: { title: "nothing", once: nothing },

  url: { ...OFTEN, title: "`request.url`", once: (request) => request.url },
  method: { ...OFTEN, title: "`request.method`", once: (request) => request.method },
  body: { ...OFTEN, title: "`request.body` of a GET", once: (request) => request.body },
  headers: { ...OFTEN, title: "`request.headers`", once: (request) => request.headers },
  header: {
    ...OFTEN,
    title: "`headers.get` of one that is there",
    once: (request) => request.headers.get("cookie"),
  },
  "no-header": {
    ...OFTEN,
    title: "`headers.get` of one that is not",
    once: (request) => request.headers.get("if-match"),
  },

  "wait-until": { title: "`context.waitUntil`", once: (_, context) => context.waitUntil(Promise.resolve()) },
  interval: {
    title: "`setInterval` and `clearInterval`",
    once: () => clearInterval(setInterval(nothing, 60_000)),
  },
  now: { ...OFTEN, title: "`Date.now()`", once: () => Date.now() },
  random: {
    ...OFTEN,
    title: "`crypto.getRandomValues` of 16 bytes",
    once: () => crypto.getRandomValues(random),
  },
  await: { ...OFTEN, title: "a promise that is waited for", once: () => Promise.resolve() },
  microtask: { title: "`queueMicrotask`", once: () => queueMicrotask(nothing) },
  closure: {
    ...OFTEN,
    title: "a promise with two closures of its own",
    once: (request) =>
      Promise.resolve().then(
        () => request,
        () => request,
      ),
  },

  call: { title: "`new Request`: a call to the store, not made", once: () => call({}) },
  signal: { title: "`AbortSignal.timeout`", once: () => AbortSignal.timeout(2000) },
  controller: { title: "`new AbortController`", once: () => new AbortController() },
  "call-signal": {
    title: "`signal` of the call",
    once: () => call({ signal: AbortSignal.timeout(2000) }),
    less: ["call", "signal"],
  },
  "call-redirect": {
    title: '`redirect: "manual"`',
    once: () => call({ redirect: "manual" }),
    less: ["call"],
  },
  "call-shared": {
    title: "a `Headers` for all calls, in place of an object",
    once: () => call({ headers: (headers ??= new Headers({ Authorization: "Bearer of-some-length" })) }),
    less: ["call"],
  },
  "call-bytes": {
    title: "a body in bytes",
    once: () => call({ body: encoder.encode(COMMANDS) }),
    less: ["call"],
  },

  response: {
    title: "`new Response` of a text and seven headers",
    once: () => new Response(BODY, { status: 200, headers: HEADERS }),
  },
  "response-pairs": {
    title: "headers as pairs, in place of an object",
    once: () => new Response(BODY, { status: 200, headers: PAIRS }),
    less: ["response"],
  },
  "response-parsed": {
    title: "status and headers out of JSON, as pairs",
    once: () => new Response(BODY, JSON.parse(IN_JSON)),
    less: ["response"],
  },
  "response-headers": {
    title: "headers as `new Headers`",
    once: () => new Response(BODY, { status: 200, headers: new Headers(HEADERS) }),
    less: ["response"],
  },
  "response-bare": {
    title: "one header",
    once: () => new Response(BODY, { headers: { Vary: "Cookie" } }),
    less: ["response"],
  },
  "response-bytes": {
    title: "a body in bytes",
    once: () => new Response(memory.slice(0, 400), { status: 200, headers: HEADERS }),
    less: ["response"],
  },
  text: { title: "`response.text()`, waited for", once: () => new Response(BODY).text() },
  buffer: { title: "`response.arrayBuffer()`, waited for", once: () => new Response(BODY).arrayBuffer() },

  "decode-short": { ...OFTEN, title: "`TextDecoder.decode` of 40 bytes", once: () => decoder.decode(short) },
  "decode-long": { ...OFTEN, title: "of 400 bytes", once: () => decoder.decode(long) },
  "decode-view": {
    ...OFTEN,
    title: "of 400 bytes of a memory",
    once: () => decoder.decode(memory.subarray(0, 400)),
  },
  "decode-codes": {
    ...OFTEN,
    title: "40 bytes by `String.fromCharCode`",
    once: () => String.fromCharCode.apply(undefined, /** @type {any} */ (memory.subarray(0, 40))),
  },
  encode: {
    ...OFTEN,
    title: "`TextEncoder.encodeInto` of 400 letters",
    once: () => encoder.encodeInto(BODY, memory),
  },
  "encode-codes": {
    ...OFTEN,
    title: "400 letters by `charCodeAt`",
    once: () => {
      for (let at = 0; at < BODY.length; at += 1) memory[at] = BODY.charCodeAt(at);
    },
  },
  parse: { ...OFTEN, title: "`JSON.parse` of status and headers", once: () => JSON.parse(IN_JSON) },
};
