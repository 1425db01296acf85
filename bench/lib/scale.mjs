/**
 * A million sessions in the store: what they take of its memory, and whether the Worker is slower for it. Next to a store
 * of a thousand, in turn, under the same load; while many sessions expire; and which keys everybody writes.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { createClient } from "@redis/client";
import { CANDIDATES } from "../candidates.mjs";
import { median } from "./figures.mjs";
import { mixedLoad } from "./hot.mjs";
import { load, Visitor } from "./load.mjs";
import { once, progress } from "./measure.mjs";
import { ADMIN_TOKEN, begin, checkMemory, fill, kindOf, SHAPES, templateOf } from "./population.mjs";
import { prepare, start } from "./serve.mjs";
import { startStore } from "./store.mjs";

/** @typedef {import("./load.mjs").Ask} Ask */
/** @typedef {import("./measure.mjs").Server} Server */
/** @typedef {import("./population.mjs").Redis} Redis */
/** @typedef {import("./population.mjs").Shape} Shape */
/** @typedef {import("./population.mjs").Template} Template */
/** @typedef {import("./store.mjs").Store} Store */
/** @typedef {Awaited<ReturnType<typeof scale>>} Scale */
/** @typedef {"read" | "change" | "list"} Job */
/** @typedef {{ store: Store, redis: Redis, server: Server, cookies: string[], lists: string[] }} Site */
/** @typedef {{ command: string, microseconds: number }} Slow */
/** @typedef {{ cpu: number, p50: number, p99: number, commands: number }} Figures milliseconds, of each request */

const CLOAKROOM = /** @type {import("../candidates.mjs").Candidate} */ (
  CANDIDATES.find(({ name }) => name === "cloakroom")
);

const MILLION = 1e6;
/** Of them, those with a cookie: made by the Worker, and asked for at random. */
const REAL = { small: 1000, large: 4000 };
/** The part of the sessions that was in use within the last minutes. */
const IN_USE = 0.1;
const TEMPLATES_OF_A_SHAPE = 8;
/** Of the user who has as many as one can have. */
const SESSIONS_OF_A_USER = 100;
const CONNECTIONS = 32;
const EXPIRING = 100_000;
/** In which all of those expire. */
const EXPIRY_SECONDS = 10;
/** Microseconds. Valkey's own threshold is ten times that. */
const SLOW = 1000;

/** @type {Record<Job, { ask: Ask, expect: number }>} */
const JOBS = {
  read: { ask: CLOAKROOM.read, expect: 200 },
  change: { ask: CLOAKROOM.change, expect: 200 },
  list: { ask: { method: "GET", path: "/auth/sessions" }, expect: 200 },
};
/** @type {{ job: Job, connections: number }[]} */
const CELLS = [
  { job: "read", connections: 1 },
  { job: "read", connections: CONNECTIONS },
  { job: "change", connections: 1 },
  { job: "change", connections: CONNECTIONS },
  { job: "list", connections: 1 },
];

/** @param {{ folder: string, rounds: number, milliseconds: number, sessions?: number }} options */
export async function scale({ folder, rounds, milliseconds, sessions = MILLION }) {
  checkMemory();
  /** @type {Site[]} */
  const sites = [];
  try {
    progress("Making sessions …");
    const small = await open("small", folder, sites, REAL.small);
    const large = await open("large", folder, sites, REAL.large);
    const memory = await populate(large, sessions - REAL.large);
    await large.redis.sendCommand(["CONFIG", "SET", "slowlog-log-slower-than", String(SLOW)]);
    await large.redis.sendCommand(["SLOWLOG", "RESET"]);

    const cells = CELLS.map((cell) => ({
      ...cell,
      small: /** @type {Figures[]} */ ([]),
      large: /** @type {Figures[]} */ ([]),
    }));
    for (let round = 0; round <= rounds; round += 1) {
      for (const cell of cells) {
        progress(`Round ${round} of ${rounds}: ${cell.job}, ${cell.connections} connections`);
        for (const name of round % 2
          ? /** @type {const} */ (["small", "large"])
          : /** @type {const} */ (["large", "small"])) {
          const figures = await measure(name === "small" ? small : large, cell, milliseconds);
          if (round) cell[name].push(figures); // the first warms up
        }
      }
    }
    progress(`${EXPIRING} sessions expire …`);
    const slow = await slowlog(large.redis);
    const expiry = await expire(large, slow);
    progress("A mixed load, watched for a minute …");
    const hot = await mixedLoad(small, { begin: () => startWorker("mixed", folder, small.store) });
    const gone = (await info(large.redis, "stats", "expired_keys")) - expiry.before;
    progress("");
    return {
      rounds,
      sessions,
      real: REAL,
      memory,
      cells: cells.map(({ job, connections, small, large }) => ({
        job,
        connections,
        small: medians(small),
        large: medians(large),
      })),
      expiry: {
        sessions: EXPIRING,
        seconds: EXPIRY_SECONDS,
        calm: expiry.calm,
        busy: expiry.busy,
        removed: expiry.removed,
        /** Much later. */
        later: { seconds: (Date.now() - expiry.ended) / 1000, removed: gone },
      },
      slow: {
        over: SLOW,
        count: slow.length,
        worst: slow.sort((one, other) => other.microseconds - one.microseconds).slice(0, 3),
      },
      hot,
    };
  } finally {
    for (const { server, redis, store } of sites) {
      redis.destroy();
      await server.stop();
      await store.stop();
    }
  }
}

/**
 * A store and a Worker with so many sessions, of which each can be asked for.
 *
 * @param {string} name
 * @param {string} folder
 * @param {Site[]} sites to which it is added
 * @param {number} count
 */
async function open(name, folder, sites, count) {
  const store = await startStore();
  const redis = /** @type {Redis} */ (createClient({ socket: { path: store.valkey, tls: false } }));
  redis.on("error", () => {}); // the sender of a command gets the error
  await redis.connect();
  const server = await startWorker(name, folder, store);
  /** @type {Site} */
  const site = { store, redis, server, cookies: [], lists: [] };
  sites.push(site);
  let next = 0;
  await Promise.all(
    Array.from({ length: CONNECTIONS }, async () => {
      const visitor = visitorOf(server);
      while (next < count) {
        const at = next;
        next += 1;
        site.cookies[at] = await begin(visitor, shapeOf(at / count));
      }
      visitor.close();
    }),
  );
  const visitor = visitorOf(server);
  const user = { .../** @type {Shape} */ (SHAPES[1]), isRotated: false };
  for (let at = 0; at < SESSIONS_OF_A_USER; at += 1) site.lists = [await begin(visitor, user, "hot")];
  visitor.close();
  return site;
}

/** @param {string} name @param {string} folder @param {Store} store */
async function startWorker(name, folder, store) {
  const candidate = { ...CLOAKROOM, name, tables: { CLOAKROOM: SETTINGS }, secrets: { ADMIN_TOKEN } };
  return start(await prepare(candidate, folder, store), (port) => once(port, CLOAKROOM.read));
}

/** Those that are set by default, of which none is met; a login costs no time here. */
const ENDLESS = "1000000000";
const SETTINGS = {
  limits: { session: `${ENDLESS}/1m`, mint: `${ENDLESS}/1m`, login: "100000000/5m" },
  password: { memory_kib: 64, iterations: 1 },
};

/** @param {Server} server */
function visitorOf(server) {
  const visitor = new Visitor(server.port);
  visitor.keeps = false;
  return visitor;
}

/** @param {number} part of the sessions that come before this one */
function shapeOf(part) {
  let sum = 0;
  return /** @type {Shape} */ (SHAPES.find(({ share }) => (sum += share) > part + 1e-9) ?? SHAPES.at(-1));
}

/**
 * So many more sessions, without cookies.
 *
 * @param {Site} site
 * @param {number} count
 */
async function populate({ redis, server }, count) {
  const visitor = visitorOf(server);
  /** @type {{ shape: Shape, kept: Template[], counters: Template[] }[]} */
  const all = [];
  for (const shape of SHAPES) {
    /** @type {Template[]} */
    const kept = [];
    /** @type {Template[]} */
    const counters = [];
    for (let made = 0; made < TEMPLATES_OF_A_SHAPE; made += 1) {
      const template = await templateOf(redis, async () => {
        const Cookie = await begin(visitor, shape);
        await visitor.send({ ...CLOAKROOM.read, headers: { Cookie } });
        await sleep(50); // what is written after the answer
      });
      kept.push(template.kept);
      counters.push(template.counters);
    }
    all.push({ shape, kept, counters });
  }
  visitor.close();

  const began = performance.now();
  const start = await memoryOf(redis);
  let last = start;
  /** @type {{ title: string, sessions: number, keys: string[], own: number }[]} */
  const steps = [];
  const step = async (
    /** @type {string} */ title,
    /** @type {Template[]} */ templates,
    /** @type {number} */ sessions,
  ) => {
    progress(`Filling the store: ${title}`);
    await fill(redis, templates, sessions);
    const now = await memoryOf(redis);
    const keys = (templates[0] ?? []).map(({ key }) => kindOf(key));
    steps.push({ title, sessions, keys, own: (now.own - last.own) / sessions });
    last = now;
  };
  for (const { shape, kept } of all) await step(shape.title, kept, Math.round(count * shape.share));
  const counters = all.flatMap(({ counters }) => counters);
  await step(
    "in use within the last minutes: a counter of `limits.session`",
    counters,
    Math.round(count * IN_USE),
  );
  const tables = last.tables / last.keys;
  return {
    steps: steps.map(({ own, ...step }) => ({ ...step, bytes: own + step.keys.length * tables })),
    /** Of the tables of keys and of times to live, for each key. */
    tables,
    /** Of each session, all together. */
    bytes: (last.all - start.all) / count,
    all: last.all,
    resident: await info(redis, "memory", "used_memory_rss"),
    keys: last.keys,
    seconds: (performance.now() - began) / 1000,
  };
}

/** In bytes. `tables`: those of keys and of times to live, which grow by doubling. @param {Redis} redis */
async function memoryOf(redis) {
  const stats = /** @type {any} */ (await redis.sendCommand(["MEMORY", "STATS"]));
  const { "overhead.hashtable.main": main = 0, "overhead.hashtable.expires": expires = 0 } =
    stats["db.0"] ?? {};
  return {
    all: Number(stats["total.allocated"]),
    own: Number(stats["dataset.bytes"]),
    tables: main + expires,
    keys: Number(stats["keys.count"]),
  };
}

/** @param {Redis} redis @param {string} section @param {string} name */
async function info(redis, section, name) {
  const text = String(await redis.sendCommand(["INFO", section]));
  return Number(new RegExp(`^${name}:(\\d+)`, "m").exec(text)?.[1]);
}

/**
 * @param {Site} site
 * @param {{ job: Job, connections: number }} cell
 * @param {number} milliseconds
 * @returns {Promise<Figures>}
 */
async function measure({ server, store, cookies, lists }, { job, connections }, milliseconds) {
  const { ask, expect } = JOBS[job];
  const all = job === "list" ? lists : cookies;
  const asks = all.map((cookie) => ({ ...ask, headers: { ...ask.headers, Cookie: cookie } }));
  const visitors = Array.from({ length: connections }, () => visitorOf(server));
  // Each connection has sessions of its own, else changes meet.
  const random = (/** @type {number} */ visitor) => {
    const turn = Math.floor((Math.random() * asks.length) / connections);
    return /** @type {Ask} */ (asks[(turn * connections + visitor) % asks.length]);
  };
  await load(visitors, random, { requests: 2, expect }); // the connections are there
  const [before, counted] = [server.cpu(), (await store.count()).rest.commands];
  const { requests, p50, p99 } = await load(visitors, random, { milliseconds, expect });
  const [cpu, commands] = [server.cpu() - before, (await store.count()).rest.commands - counted];
  for (const visitor of visitors) visitor.close();
  return { cpu: cpu / requests, p50, p99, commands: commands / requests };
}

/** Many sessions that end in the same seconds, and reads meanwhile. @param {Site} site @param {Slow[]} slow is added to */
async function expire(site, slow) {
  const { redis, server } = site;
  const visitor = visitorOf(server);
  const shape = /** @type {Shape} */ (SHAPES[0]);
  const { kept } = await templateOf(redis, () => begin(visitor, shape));
  visitor.close();
  const cell = { job: /** @type {const} */ ("read"), connections: CONNECTIONS };
  const milliseconds = EXPIRY_SECONDS * 1000;
  const calm = await measure(site, cell, milliseconds / 2);
  const fillSeconds = 15; // before the first of them ends
  const first = Date.now() + fillSeconds * 1000;
  await fill(redis, [kept], EXPIRING, () => first - Date.now() + Math.random() * milliseconds);
  if (Date.now() > first) throw new Error("this machine fills the store too slowly to watch sessions expire");
  await redis.sendCommand(["SLOWLOG", "RESET"]); // the filling
  await sleep(first - Date.now());
  const before = await info(redis, "stats", "expired_keys");
  const busy = await measure(site, cell, milliseconds);
  const removed = (await info(redis, "stats", "expired_keys")) - before;
  slow.push(...(await slowlog(redis)));
  return { calm, busy, before, removed, ended: Date.now() };
}

/** What Valkey has taken long for, of the Worker's. @param {Redis} redis @returns {Promise<Slow[]>} */
async function slowlog(redis) {
  const entries = /** @type {any[]} */ (await redis.sendCommand(["SLOWLOG", "GET", "-1"]));
  const ours = /^(INFO|KEYS|SLOWLOG|CONFIG|DUMP|RESTORE|DBSIZE)$/i;
  return entries
    .map(([, , microseconds, [command]]) => ({
      command: String(command),
      microseconds: Number(microseconds),
    }))
    .filter(({ command }) => !ours.test(command));
}

/** @param {Figures[]} rounds @returns {Figures} */
function medians(rounds) {
  const of = (/** @type {keyof Figures} */ name) => median(rounds.map((figures) => figures[name]));
  return { cpu: of("cpu"), p50: of("p50"), p99: of("p99"), commands: of("commands") };
}
