/**
 * A store as full as that of a large site: some sessions are made by the real Worker, and what stands in the store
 * because of each is copied under fresh names, with a time to live.
 */
import { readFileSync } from "node:fs";
import { SESSION } from "../candidates/session.js";

/** @typedef {import("./load.mjs").Visitor} Visitor */
/** @typedef {import("./load.mjs").Answer} Answer */
/** @typedef {ReturnType<typeof import("@redis/client").createClient>} Redis */
/** @typedef {{ key: string, ttl: number, value: string | undefined, dump: Buffer | undefined }} Entry `dump` of what is no string */
/** @typedef {Entry[]} Template what stands in the store because of one session */

export const ADMIN_TOKEN = "the-admin-token-of-the-benchmark-of-more-than-32-characters";

/** Of free memory, in GB: Valkey takes less than two, and something is to be left. */
const NEEDED = 4;

const json = { "Content-Type": "application/json" };
/** 2 KB as JSON, of many small things. */
const MUCH = {
  ...SESSION,
  notes: Array.from({ length: 30 }, (_, at) => ({ id: 10_000 + at, text: "a note of sixty bytes, as JSON" })),
};

/**
 * @typedef {object} Shape
 * @property {string} title
 * @property {number} share of all sessions
 * @property {boolean} isUser
 * @property {boolean} [isRotated]
 * @property {boolean} remember
 * @property {object} data
 */

/** @type {Shape[]} */
export const SHAPES = [
  { title: "anonymous, 0.2 KB of data", share: 0.6, isUser: false, remember: false, data: SESSION },
  {
    title: "a user's, 2 KB, rotated",
    share: 0.3,
    isUser: true,
    isRotated: true,
    remember: false,
    data: MUCH,
  },
  {
    title: "a user's with *remember me*, 0.2 KB, rotated",
    share: 0.1,
    isUser: true,
    isRotated: true,
    remember: true,
    data: SESSION,
  },
];

/** Throws, and says what to do, if this machine has not enough free memory. */
export function checkMemory(text = readFileSync("/proc/meminfo", "utf8")) {
  const [, kilobytes] = /^MemAvailable:\s+(\d+) kB/m.exec(text) ?? [];
  const free = Number(kilobytes) / 2 ** 20;
  if (!(free >= NEEDED)) {
    throw new Error(
      `--scale fills a Valkey with a million sessions and needs ${NEEDED} GB of free memory; ` +
        `there are ${free.toFixed(1)}. Stop what takes it, or use a larger machine.`,
    );
  }
}

let users = 0;

/**
 * A session of this shape, made by the Worker. Of one that has been rotated the new id was presented, too.
 *
 * @param {Visitor} visitor
 * @param {Shape} shape
 * @param {string} [id] of the user; another one each time, if none is given
 * @returns {Promise<string>} its cookie
 */
export async function begin(visitor, { isUser, isRotated, remember, data }, id = `user-${(users += 1)}`) {
  if (!isUser) {
    const headers = { "Content-Type": "application/merge-patch+json" };
    const body = JSON.stringify(data);
    return cookieOf(await visitor.send({ method: "PATCH", path: "/auth/session/data", headers, body }));
  }
  const answer = await visitor.send({
    method: "POST",
    path: "/auth/admin/sessions",
    headers: { ...json, Authorization: `Bearer ${ADMIN_TOKEN}` },
    body: JSON.stringify({ user: { id, name: SESSION.name, roles: ["customer"] }, data, remember }),
  });
  if (answer.status !== 201) throw new Error(`not logged in: ${answer.status} ${answer.body.slice(0, 300)}`);
  const cookie = JSON.parse(answer.body).set_cookie[0].split(";")[0];
  if (!isRotated) return cookie;
  const headers = { Cookie: cookie };
  const rotated = cookieOf(await visitor.send({ method: "POST", path: "/auth/session/rotate", headers }));
  await visitor.send({ method: "GET", path: "/auth/session", headers: { Cookie: rotated } });
  return rotated;
}

/** @param {Answer} answer */
function cookieOf({ status, head, body }) {
  const [, cookie] = /^set-cookie: *([^;\r\n]*session=[^;\r\n]*)/im.exec(head) ?? [];
  if (status !== 200 || !cookie) throw new Error(`no session: ${status} ${body.slice(0, 300)}`);
  return cookie;
}

/**
 * What stands in the store because of one session, whose own it is: what it brings, and the counters of its limits, which
 * are there while it is in use.
 *
 * @param {Redis} redis
 * @param {() => Promise<unknown>} act begins it, on an otherwise calm store
 * @returns {Promise<{ kept: Template, counters: Template }>}
 */
export async function templateOf(redis, act) {
  const before = new Set(await redis.keys("*"));
  await act();
  /** @type {Template} */
  const entries = [];
  for (const key of (await redis.keys("*")).filter((key) => !before.has(key))) {
    if (fresh(key, 0) === key) continue; // an address', say
    const [type, ttl] = [await redis.type(key), await redis.pTTL(key)];
    const value = type === "string" ? String(await redis.get(key)) : undefined;
    // What leads on from an old id is gone a minute after the rotation.
    if (value?.includes('"moved"')) continue;
    const dump = type === "string" ? undefined : await dumped(redis, key);
    if (ttl <= 0) throw new Error(`${key} has no time to live`);
    entries.push({ key, ttl, value, dump });
  }
  const isCounter = (/** @type {Entry} */ { key }) => key.startsWith("limit:");
  return { kept: entries.filter((entry) => !isCounter(entry)), counters: entries.filter(isCounter) };
}

/** @param {Redis} redis @param {string} key */
async function dumped(redis, key) {
  const { RESP_TYPES } = await import("@redis/client");
  const reply = redis.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).sendCommand(["DUMP", key]);
  return /** @type {Buffer} */ (/** @type {unknown} */ (await reply));
}

/** How many sessions one pipeline writes. */
const AT_ONCE = 500;
let copies = 0;

/**
 * Copies templates in turn, under fresh names.
 *
 * @param {Redis} redis
 * @param {Template[]} templates
 * @param {number} count of sessions
 * @param {(ttl: number) => number} [lifetime] in milliseconds, from the template's; by default up to half of it is over
 */
export async function fill(redis, templates, count, lifetime = (ttl) => ttl * (0.5 + Math.random() / 2)) {
  for (let done = 0; done < count; done += AT_ONCE) {
    const batch = redis.multi();
    for (let at = 0; at < Math.min(AT_ONCE, count - done); at += 1) {
      const template = templates[(done + at) % templates.length] ?? [];
      copies += 1;
      for (const { key, ttl, value, dump } of template) {
        const [name, left] = [fresh(key, copies), String(Math.ceil(lifetime(ttl)))];
        if (value !== undefined) batch.addCommand(["SET", name, value, "PX", left]);
        else batch.addCommand(["RESTORE", name, left, dump ?? ""]);
      }
    }
    await batch.execAsPipeline();
  }
}

/** The key with another id of the same length; the same key if it is no session's. @param {string} key @param {number} number */
const fresh = (key, number) =>
  key.replace(/(?<=^(?:sess|family|user|limit:session):)[\w-]+/, (id) =>
    number.toString(36).padStart(id.length, "0"),
  );

/** A key's kind: without ids, addresses, names and windows. @param {string} key */
export const kindOf = (key) =>
  key
    .replace(/^((?:limit:[\w-]+|account|profile|sess|family|user):)[^:]*/, "$1…")
    .replace(/\b\d{4}-\d\d-\d\d\b/, "DAY")
    .replace(/:\d{5,}$/, ":WINDOW");
