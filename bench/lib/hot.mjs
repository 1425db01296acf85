/** Which keys of the store all requests share: a mixed load, and what Valkey's MONITOR shows of it. */
import { randomBytes } from "node:crypto";
import { MIX } from "../../tools/scale/model.mjs";
import { SESSION } from "../candidates/session.js";
import { load, Visitor } from "./load.mjs";
import { begin, kindOf, SHAPES } from "./population.mjs";

/** @typedef {import("./load.mjs").Ask} Ask */
/** @typedef {import("./measure.mjs").Server} Server */
/** @typedef {import("./population.mjs").Redis} Redis */
/**
 * @typedef {object} Hot what commands do to keys of a kind, per 1,000 requests; one that names three keys counts three times
 * @property {string} kind
 * @property {number} keys
 * @property {number} reads
 * @property {number} writes
 * @property {number} most of the one key that has most, reads and writes
 */

/** The counters of the day are written once a minute. */
const MILLISECONDS = 65_000;
const CONNECTIONS = 8;
const ACCOUNTS = 100;
/** One of them is a network's, which so large a part of the visitors shares. */
const ADDRESSES = 1000;
const SHARED = 0.2;
const PASSWORD = "correct horse battery";

/**
 * @param {{ redis: Redis, cookies: string[] }} site with its sessions
 * @param {{ begin: () => Promise<Server> }} options starts the Worker that is asked
 */
export async function mixedLoad({ redis, cookies }, options) {
  const server = await options.begin();
  const watcher = redis.duplicate();
  watcher.on("error", () => {});
  try {
    const names = Array.from({ length: ACCOUNTS }, (_, at) => `account-${at}`);
    const visitor = new Visitor(server.port);
    visitor.keeps = false;
    for (const username of names)
      await visitor.send(withBody("POST", "/auth/register", { username, password: PASSWORD }));
    visitor.close();

    await watcher.connect();
    /** @type {Map<string, { reads: number, writes: number }>} */
    const byKey = new Map();
    await watcher.monitor((line) => {
      const { keys, reads } = keysIn(String(line));
      for (const key of keys) {
        const used = byKey.get(key) ?? { reads: 0, writes: 0 };
        used[reads ? "reads" : "writes"] += 1;
        byKey.set(key, used);
      }
    });
    const kinds = Object.entries(MIX);
    const one = () => {
      let left = Math.random();
      const [kind] = kinds.find(([, share]) => (left -= share) < 0) ?? ["read"];
      return asked(kind, any(cookies), any(names));
    };
    const visitors = Array.from({ length: CONNECTIONS }, () => {
      const visitor = new Visitor(server.port);
      visitor.keeps = false;
      return visitor;
    });
    const { requests } = await load(visitors, one, { milliseconds: MILLISECONDS, expect: 200 });
    for (const visitor of visitors) visitor.close();
    const per = (/** @type {number} */ count) => (1000 * count) / requests;
    /** @type {Map<string, Hot>} */
    const byKind = new Map();
    for (const [key, { reads, writes }] of byKey) {
      const kind = kindOf(key);
      const hot = byKind.get(kind) ?? { kind, keys: 0, reads: 0, writes: 0, most: 0 };
      byKind.set(kind, {
        kind,
        keys: hot.keys + 1,
        reads: hot.reads + per(reads),
        writes: hot.writes + per(writes),
        most: Math.max(hot.most, per(reads + writes)),
      });
    }
    return {
      requests,
      addresses: ADDRESSES,
      shared: SHARED,
      kinds: [...byKind.values()].sort((one, other) => other.reads + other.writes - one.reads - one.writes),
    };
  } finally {
    watcher.destroy();
    await server.stop();
  }
}

/** @template T @param {T[]} all @returns {T} */
const any = (all) => /** @type {T} */ (all[Math.floor(Math.random() * all.length)]);

/** @param {string} kind of MIX @param {string} cookie @param {string} username @returns {Ask} */
function asked(kind, cookie, username) {
  const number = Math.random() < SHARED ? 0 : 1 + Math.floor(Math.random() * (ADDRESSES - 1));
  const address = { "CF-Connecting-IP": `198.18.${number >> 8}.${number & 255}` };
  const own = { ...address, Cookie: cookie };
  switch (kind) {
    case "change":
      return withBody("PATCH", "/auth/session/data", { theme: randomBytes(3).toString("hex") }, own);
    case "forged":
      return {
        method: "GET",
        path: "/auth/session",
        headers: { ...address, Cookie: `${cookie.slice(0, -3)}xxx` },
      };
    case "first":
      return withBody("PATCH", "/auth/session/data", SESSION, address);
    case "login":
      return withBody("POST", "/auth/login", { username, password: PASSWORD }, address);
    default:
      return { method: "GET", path: "/auth/session", headers: own };
  }
}

/** @param {string} method @param {string} path @param {object} body @param {Record<string, string>} [headers] @returns {Ask} */
const withBody = (method, path, body, headers) => ({
  method,
  path,
  headers: { ...headers, "Content-Type": "application/json" },
  body: JSON.stringify(body),
});

const READS = /^(?:MGET|GET|HLEN|HGETALL|HKEYS|PTTL|EXISTS|TTL|TYPE)$/i;
/** Those with several. */
const MANY = /^(?:MGET|DEL)$/i;
const KEY = /^(?:sess|family|user|limit|stats|account|profile):/;

/**
 * The keys that a command names, from a line of MONITOR: `1700000000.000000 [0 …] "SET" "key" …`. Of a script those that its
 * commands name: they have lines of their own.
 *
 * @param {string} line
 */
export function keysIn(line) {
  const [command = "", ...words] = [...line.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, word]) => word ?? "");
  const keys = (MANY.test(command) ? words : words.slice(0, 1)).filter((word) => KEY.test(word));
  return { keys, reads: READS.test(command) };
}
