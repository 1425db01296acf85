/** How Cloakroom's cost grows: with each thing that there can be more of, while the rest stays as it is. */
import { CANDIDATES } from "../candidates.mjs";
import { SESSION } from "../candidates/session.js";
import { fit, median } from "./figures.mjs";
import { load, Visitor } from "./load.mjs";
import { once, progress } from "./measure.mjs";
import { prepare, start } from "./serve.mjs";
import { startStore } from "./store.mjs";

/** @typedef {import("./load.mjs").Ask} Ask */
/** @typedef {import("./measure.mjs").Server} Server */
/** @typedef {import("./store.mjs").Counted} Counted */
/** @typedef {import("./store.mjs").Store} Store */
/** @typedef {"read" | "change" | "list" | "revoke all"} Job */
/** @typedef {(name: string, limits?: object) => Promise<Server>} Open starts Cloakroom with these limits and no others */

/**
 * @typedef {object} Stage where one point is measured
 * @property {number} x
 * @property {Server} server
 * @property {string[]} cookies of the sessions, which are used in turn
 * @property {() => Promise<string[]>} [renew] makes those of the next round, each of which lasts for one request
 *
 * @typedef {object} Line
 * @property {string} axis
 * @property {string} unit
 * @property {Job} job
 * @property {Stage[]} stages
 *
 * @typedef {{ x: number, cpu: number, rounds: number[], store: Counted }} Point `cpu`: milliseconds per request
 * @typedef {{ axis: string, unit: string, job: Job, points: Point[] } & ReturnType<typeof fit>} Grown
 * @typedef {{ rounds: number, lines: Grown[] }} Growth
 */

const CLOAKROOM = /** @type {import("../candidates.mjs").Candidate} */ (
  CANDIDATES.find(({ name }) => name === "cloakroom")
);
const ADMIN_TOKEN = "the-admin-token-of-the-benchmark-of-more-than-32-characters";
const CONNECTIONS = 32;
const WARM_UP_MS = 300;
/** Requests of each visitor. */
const COUNTED = 6;

const KILOBYTES = [0.2, 2, 20, 60];
/** Of one request; the limits that can meet are these. */
const POLICIES = ["session", "user", "ip", "route"];
const ROUTES = [1, 2, 5, 10, 50];
const SESSIONS_OF_A_USER = [1, 10, 50, 100];
const SESSIONS_IN_USE = [1, 32, 1000, 4000, 10_000];

/** No limit is met, and no window ends. */
const ENDLESS = "100000000/1h"; // a script can judge it: below 2^53 with its milliseconds
/** Nothing comes due either. */
const SETTLED = { idle: "24h", touch_every: "12h", rotate_every: "" };

/** @type {Record<Job, { ask: Ask, expect: number }>} */
const JOBS = {
  read: { ask: CLOAKROOM.read, expect: 200 },
  change: { ask: CLOAKROOM.change, expect: 200 },
  list: { ask: { method: "GET", path: "/auth/sessions" }, expect: 200 },
  "revoke all": { ask: { method: "DELETE", path: "/auth/sessions" }, expect: 204 },
};

/**
 * @param {{ folder: string, rounds: number, milliseconds: number }} options
 * @returns {Promise<Growth>}
 */
export async function grow({ folder, rounds, milliseconds }) {
  const store = await startStore();
  /** @type {Server[]} */
  const servers = [];
  try {
    /** @type {Open} */
    const open = async (name, limits) => {
      const settings = { session: SETTLED, limits: { session: "", mint: "", ...limits } };
      const tables = { CLOAKROOM: settings };
      const ready = await prepare({ ...CLOAKROOM, name, tables, secrets: { ADMIN_TOKEN } }, folder, store);
      const server = await start(ready, (port) => once(port, CLOAKROOM.read));
      servers.push(server);
      return server;
    };
    /** @type {Line[]} */
    const lines = [];
    for (const axis of [data, policies, routes, sessionsOfAUser, sessionsInUse]) {
      progress(`Making sessions: ${axis.name}`);
      lines.push(...(await axis(open)));
    }

    /** @type {{ line: Line, stage: Stage, store: Counted, rounds: number[] }[]} */
    const measured = [];
    for (const line of lines) {
      progress(`Warming up and counting: ${line.axis}, ${line.job}`);
      for (const stage of line.stages) {
        await measureCpu(stage, line.job, WARM_UP_MS);
        const used = await count(stage, line.job, store);
        measured.push({ line, stage, store: used, rounds: [] });
      }
    }
    for (let round = 1; round <= rounds; round += 1) {
      for (const { line, stage, rounds: figures } of measured) {
        progress(`Round ${round} of ${rounds}: ${line.axis}, ${line.job}, ${stage.x}`);
        figures.push(await measureCpu(stage, line.job, milliseconds));
      }
    }
    progress("");
    return {
      rounds,
      lines: lines.map((line) => {
        const points = measured
          .filter((one) => one.line === line)
          .map(({ stage, rounds, store }) => ({ x: stage.x, cpu: median(rounds), rounds, store }));
        const fitted = fit(points.map(({ x, cpu, rounds }) => ({ x, y: cpu, rounds })));
        return { axis: line.axis, unit: line.unit, job: line.job, points, ...fitted };
      }),
    };
  } finally {
    for (const server of servers) await server.stop();
    await store.stop();
  }
}

/** @param {Open} open @returns {Promise<Line[]>} */
async function data(open) {
  const server = await open("data", { session: ENDLESS });
  const stages = [];
  for (const x of KILOBYTES) {
    const content = ofSize(x * 1024);
    const cookies = await inParallel(server, CONNECTIONS, (visitor) => create(visitor, content));
    stages.push({ x, server, cookies });
  }
  return lines("session data", "KB", ["read", "change"], stages);
}

/** @param {Open} open @returns {Promise<Line[]>} */
async function policies(open) {
  const stages = [];
  for (let x = 0; x <= POLICIES.length; x += 1) {
    const limits = Object.fromEntries(
      POLICIES.slice(0, x).map((name) => (name === "route" ? ["routes", someRoutes(1)] : [name, ENDLESS])),
    );
    const server = await open(`policies-${x}`, limits);
    const cookies = await inParallel(server, CONNECTIONS, (visitor, at) => logIn(visitor, `policies-${at}`));
    stages.push({ x, server, cookies });
  }
  return lines("limits that count a request", "limit", ["read", "change"], stages);
}

/** @param {Open} open @returns {Promise<Line[]>} */
async function routes(open) {
  const stages = [];
  for (const x of ROUTES) {
    const server = await open(`routes-${x}`, { routes: someRoutes(x) });
    const cookies = await inParallel(server, CONNECTIONS, (visitor) => create(visitor, SESSION));
    stages.push({ x, server, cookies });
  }
  return lines("route limits, of which one applies", "limit", ["read"], stages);
}

/** @param {Open} open @returns {Promise<Line[]>} */
async function sessionsOfAUser(open) {
  const server = await open("users", { session: ENDLESS });
  const stages = [];
  const revoked = [];
  let made = 0;
  for (const x of SESSIONS_OF_A_USER) {
    const users = () =>
      inParallel(server, CONNECTIONS, async (visitor) => {
        const user = `user-${(made += 1)}`;
        let cookie = "";
        for (let count = 0; count < x; count += 1) cookie = await logIn(visitor, user);
        return cookie;
      });
    stages.push({ x, server, cookies: await users() });
    revoked.push({ x, server, cookies: [], renew: users });
  }
  const axis = "sessions of the user";
  return [
    ...lines(axis, "session", ["read", "change", "list"], stages),
    ...lines(axis, "session", ["revoke all"], revoked),
  ];
}

/**
 * A Worker for each number, as it is what an isolate remembers of its visitors that could grow.
 *
 * @param {Open} open
 * @returns {Promise<Line[]>}
 */
async function sessionsInUse(open) {
  /** @type {string[]} */
  let all = [];
  const stages = [];
  for (const x of SESSIONS_IN_USE) {
    const server = await open(`in-use-${x}`, { session: ENDLESS });
    // One store, one secret: what one has made all of them know.
    all = [...all, ...(await inParallel(server, x - all.length, (visitor) => create(visitor, SESSION)))];
    const stage = { x, server, cookies: [...all] };
    await run(stage, "read", { requests: Math.ceil(x / CONNECTIONS) }, () => {});
    stages.push(stage);
  }
  const axis = "sessions in use";
  return [
    ...lines(axis, "session", ["read"], stages),
    // Each connection has to have one of its own, else changes meet.
    ...lines(
      axis,
      "session",
      ["change"],
      stages.filter(({ x }) => x >= CONNECTIONS),
    ),
  ];
}

/** @param {string} axis @param {string} unit @param {Job[]} jobs @param {Stage[]} stages @returns {Line[]} */
function lines(axis, unit, jobs, stages) {
  return jobs.map((job) => ({ axis, unit, job, stages }));
}

/** Of which the last and least specific is for what we ask. @param {number} count */
function someRoutes(count) {
  const others = Array.from({ length: count - 1 }, (_, at) => ({
    path: `/api/part-${at}/*`,
    limit: ENDLESS,
  }));
  return [...others, { path: "/auth/*", limit: ENDLESS }].map((route) => ({ ...route, by: "session" }));
}

/** Many small things rather than a large one. @param {number} bytes as JSON */
function ofSize(bytes) {
  const notes = [];
  for (let left = bytes - JSON.stringify(SESSION).length - 11; left >= 60; left -= 60) {
    notes.push({ id: 10_000 + notes.length, text: "a note of sixty bytes, as JSON" });
  }
  return notes.length ? { ...SESSION, notes } : SESSION;
}

/**
 * @param {Server} server
 * @param {number} count
 * @param {(visitor: Visitor, at: number) => Promise<string>} use
 */
async function inParallel(server, count, use) {
  /** @type {string[]} */
  const results = [];
  let next = 0;
  await Promise.all(
    Array.from({ length: Math.min(CONNECTIONS, count) }, async () => {
      const visitor = new Visitor(server.port);
      visitor.keeps = false;
      while (next < count) {
        const at = next;
        next += 1;
        results[at] = await use(visitor, at);
      }
      visitor.close();
    }),
  );
  return results;
}

/** An anonymous session. @param {Visitor} visitor @param {object} content @returns {Promise<string>} its cookie */
async function create(visitor, content) {
  const ask = /** @type {Ask} */ ({ ...CLOAKROOM.create, body: JSON.stringify(content) });
  const { status, head, body } = await visitor.send(ask);
  if (status !== 200) throw new Error(`no session: ${status} ${body.slice(0, 300)}`);
  return /^set-cookie: *([^;\r\n]*session=[^;\r\n]*)/im.exec(head)?.[1] ?? "";
}

/** A user's. @param {Visitor} visitor @param {string} id @returns {Promise<string>} its cookie */
async function logIn(visitor, id) {
  const headers = { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": "application/json" };
  const content = JSON.stringify({ user: { id, name: SESSION.name }, data: SESSION });
  const { status, body } = await visitor.send({
    method: "POST",
    path: "/auth/admin/sessions",
    headers,
    body: content,
  });
  if (status !== 201) throw new Error(`not logged in: ${status} ${body.slice(0, 300)}`);
  return JSON.parse(body).set_cookie[0].split(";")[0];
}

/** Where each stage's visitors have come to. @type {WeakMap<Stage, number[]>} */
const positions = new WeakMap();

/**
 * @template T
 * @param {Stage} stage
 * @param {Job} job
 * @param {{ milliseconds?: number, requests?: number }} until `requests`: of each visitor
 * @param {() => T | Promise<T>} look is called before and after
 * @returns {Promise<[before: T, after: T, requests: number]>}
 */
async function run(stage, job, until, look) {
  const { server, renew } = stage;
  const cookies = (await renew?.()) ?? stage.cookies;
  const { ask, expect } = JOBS[job];
  const asks = cookies.map((cookie) => ({ ...ask, headers: { ...ask.headers, Cookie: cookie } }));
  const visitors = Array.from({ length: CONNECTIONS }, () => new Visitor(server.port));
  for (const visitor of visitors) visitor.keeps = false;
  // Each takes its share of the sessions in turn, and the next time goes on from there.
  const position = positions.get(stage) ?? visitors.map((_, at) => at);
  positions.set(stage, position);
  const next = (/** @type {number} */ at) => {
    const now = position[at] ?? at;
    position[at] = now + CONNECTIONS < asks.length ? now + CONNECTIONS : at;
    return /** @type {Ask} */ (asks[now % asks.length]);
  };
  // The connections are there before it begins.
  await load(visitors, renew ? CLOAKROOM.read : next, { requests: 2, expect: renew ? 200 : expect });
  const before = await look();
  const { requests } = await load(visitors, next, { ...(renew ? { requests: 1 } : until), expect });
  const after = await look();
  for (const visitor of visitors) visitor.close();
  return [before, after, requests];
}

/** @param {Stage} stage @param {Job} job @param {number} milliseconds @returns {Promise<number>} of CPU time, each request */
async function measureCpu(stage, job, milliseconds) {
  const [before, after, requests] = await run(stage, job, { milliseconds }, () => stage.server.cpu());
  return (after - before) / requests;
}

/** @param {Stage} stage @param {Job} job @param {Store} store @returns {Promise<Counted>} of each request */
async function count(stage, job, store) {
  const until = { requests: COUNTED };
  const [before, after, requests] = await run(stage, job, until, async () => (await store.count()).rest);
  const each = (/** @type {keyof Counted} */ name) => (after[name] - before[name]) / requests;
  return { calls: each("calls"), commands: each("commands"), bytes: each("bytes") };
}
