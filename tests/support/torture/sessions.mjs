/**
 * Carries out a schedule of sessions, and records what happened: see schedule.mjs for what can, and check.mjs for
 * what must hold.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Visitor } from "../visitor.mjs";
import { Troubles } from "./troubles.mjs";

/** @typedef {import("./check.mjs").History} History */
/** @typedef {import("./check.mjs").Operation} Operation */
/** @typedef {import("./check.mjs").AnyKind} AnyKind */
/** @typedef {import("./schedule.mjs").Schedule} Schedule */
/** @typedef {import("./schedule.mjs").Step} Step */
/** @typedef {import("./stage.mjs").Stage} Stage */

const SYNC = "__Host-session-sync";
/** An old id is followed for 30 seconds after its successor was presented. */
const GRACE = 30_000;
/** A move makes a touch due, and with `restless` a rotation. */
const MOVE = 3500;
/** A schedule that takes longer may see ids used after their grace, and is not judged. */
const SLOW = GRACE - 3 * MOVE - 2000;
/** A sync cookie counts for 10 seconds. */
const SYNC_LIFETIME = 9500;

/**
 * Carries out a schedule. Nothing, when it took too long to be judged.
 * @param {Stage} stage
 * @param {Schedule} schedule
 * @returns {Promise<History | undefined>}
 */
export async function play(stage, schedule) {
  const { store } = stage;
  store.faults.clear();
  const begun = performance.now();
  const recorder = new Recorder(stage, schedule);

  // 1. The sessions, which everybody has a ticket of one of.
  if (schedule.troubledBirth) recorder.arm();
  if (schedule.lagsFirst) store.faults.lag = schedule.lag;
  await recorder.begin();
  if (!schedule.troubledBirth) recorder.arm();
  store.faults.lag = schedule.lag;

  // 2. Everybody at once.
  await Promise.all([
    ...schedule.clients.map(async ({ steps }, client) => {
      for (const step of steps) await recorder.perform(step, client);
    }),
    (async () => {
      for (const pause of schedule.moves) {
        await sleep(pause);
        await stage.moveClocks(MOVE);
      }
    })(),
  ]);

  // 3. When all that was on its way has arrived, every id is asked for what there is.
  await recorder.settle();
  await recorder.lookAround();
  if (performance.now() - begun > SLOW) {
    await store.redis.flushDb();
    return undefined;
  }
  const rotated = schedule.reuse ? recorder.rotated() : undefined;
  if (rotated) {
    // That it was presented is noted in the background.
    await stage.idle();
    await stage.moveClocks(GRACE + 1000);
    await recorder.reuse(rotated);
  }
  return recorder.finish();
}

/** @typedef {Required<Pick<Operation, "birth" | "user" | "carried">>} Known what is known of a ticket */

class Recorder {
  /** @type {Operation[]} */
  operations = [];
  /** Every ticket there was, in order, and what it leads to. @type {Map<string, Known>} */
  #tickets = new Map();
  #births = 0;
  /** Whose answers set which sync cookie, and when. @type {Map<string, { id: number, at: number }>} */
  #syncs = new Map();
  /** The newest ETag that each client saw. @type {Map<number, string>} */
  #etags = new Map();
  /** @type {Map<number, number>} by client */
  #numbers = new Map();
  #began = performance.now();
  #armed = false;
  #troubles;

  /** @param {Stage} stage @param {Schedule} schedule */
  constructor(stage, schedule) {
    this.stage = stage;
    this.schedule = schedule;
    this.name = `${schedule.seed}-${Math.random().toString(36).slice(2)}`;
    this.jars = schedule.jars.map(() => new Visitor(""));
    this.#troubles = new Troubles(stage.store);
  }

  /** From now on things go wrong. */
  arm() {
    this.#armed = this.schedule.troubles.length > 0;
    this.#troubles.arm(this.schedule.troubles);
  }

  async begin() {
    const { sessions, jars } = this.schedule;
    const begun = sessions.map(async (user, session) => {
      for (;;) {
        const { one, operation } = await this.#begin(user, 0, 0);
        if (!operation.session) continue; // the failed one is nobody's
        for (const [jar, visitor] of this.jars.entries()) {
          if (jars[jar] === session) visitor.cookies = new Map(one.cookies);
        }
        return;
      }
    });
    await Promise.all(begun);
  }

  /** A new session, of nobody or of a user. @param {string} user @param {number} client @param {number} worker */
  #begin(user, client, worker) {
    const birth = `birth-${this.name}-${++this.#births}`;
    const data = { birth, n: 0, log: [], own: {} };
    const of = { birth, user };
    if (user === "")
      return this.#send("create", client, new Visitor(""), worker, (one) => one.merge(data), of);
    const login = (/** @type {Visitor} */ one) => this.stage.office.login(one, user, data);
    return this.#send("login", client, new Visitor(""), worker, login, of);
  }

  /** @param {Step} step @param {number} client */
  async perform({ kind, pause, replay }, client) {
    if (pause) await sleep(pause);
    const plan = /** @type {import("./schedule.mjs").Client} */ (this.schedule.clients[client]);
    const jar = /** @type {Visitor} */ (this.jars[plan.jar]);
    const carrier = jar.clone();
    if (replay !== undefined) {
      const user = this.schedule.sessions[this.schedule.jars[plan.jar] ?? 0];
      const tickets = [...this.#tickets].filter(([, known]) => known.user === user);
      carrier.ticket = tickets[Math.floor(replay * tickets.length)]?.[0];
    }
    const before = new Map(carrier.cookies);
    const { one, operation } = await this.#act(kind, client, carrier, plan.worker);
    // As a browser: what was set is kept. But a ticket that is taken back is presented all the same.
    if (!operation.session || operation.session.data.birth !== operation.birth) return;
    if (operation.etag) this.#etags.set(client, operation.etag);
    if (replay !== undefined) return;
    for (const [name, value] of one.cookies) if (before.get(name) !== value) jar.cookies.set(name, value);
  }

  /** @param {AnyKind} kind @param {number} client @param {Visitor} carrier @param {number} worker */
  #act(kind, client, carrier, worker) {
    const tag = `${client}.${this.operations.length}`;
    const append = { op: "add", path: "/log/-", value: tag };
    const { office } = this.stage;
    const known = this.#tickets.get(carrier.ticket ?? "");
    const { user = "", carried = "" } = known ?? {};
    switch (kind) {
      case "increment":
        return this.#send(kind, client, carrier, worker, (one) => one.increment("/n"));
      case "merge": {
        const number = (this.#numbers.get(client) ?? 0) + 1;
        this.#numbers.set(client, number);
        const change = { own: { [`c${client}`]: number } };
        return this.#send(kind, client, carrier, worker, (one) => one.merge(change), { number });
      }
      case "append":
        return this.#send(kind, client, carrier, worker, (one) => one.patch([append]), { tag });
      case "misfit": {
        const change = [append, { op: "test", path: "/birth", value: "another" }];
        return this.#send(kind, client, carrier, worker, (one) => one.patch(change), { tag });
      }
      case "condition": {
        const ifMatch = this.#etags.get(client) ?? this.#etags.get(0) ?? '"none"';
        const condition = { "If-Match": ifMatch };
        return this.#send(kind, client, carrier, worker, (one) => one.patch([append], condition), {
          tag,
          ifMatch,
        });
      }
      case "rotate":
        return this.#send(kind, client, carrier, worker, (one) => one.rotate());
      case "logout":
        return this.#send(kind, client, carrier, worker, (one) => one.logout());
      case "keep":
        return this.#send(kind, client, carrier, worker, (one) =>
          one.send("DELETE", "/auth/sessions?keep=current"),
        );
      case "login":
        return this.#begin(user, client, worker);
      case "revoke":
        return this.#send(kind, client, new Visitor(""), worker, (one) => office.revoke(one, user), { user });
      case "end":
        return this.#send(kind, client, new Visitor(""), worker, (one) => office.end(one, carried), known);
      default:
        return this.#send(kind, client, carrier, worker, (one) => one.look());
    }
  }

  /**
   * @param {AnyKind} kind
   * @param {number} client
   * @param {Visitor} carrier
   * @param {number} worker
   * @param {(one: Visitor) => Promise<import("../visitor.mjs").Answer>} send
   * @param {Partial<Operation>} [more]
   */
  async #send(kind, client, carrier, worker, send, more = {}) {
    const { store, workers, now } = this.stage;
    const one = carrier.clone(workers[worker % workers.length]?.url);
    const sync = this.#syncs.get(one.cookies.get(SYNC) ?? "");
    const lagging = store.faults.lag > 0;
    const [start, id] = [performance.now(), this.operations.length];
    /** @type {Operation} */
    const operation = {
      id,
      client,
      kind,
      start,
      end: Infinity,
      status: 0,
      cookies: 0,
      lagging,
      user: "",
      ...this.#tickets.get(one.ticket ?? ""),
      ...more,
    };
    this.operations.push(operation);
    operation.start -= this.#began;
    const asked = now();
    const answer = await send(one).catch(() => undefined);
    operation.end = performance.now() - this.#began;
    if (sync && now() - sync.at < SYNC_LIFETIME) operation.after = sync.id;
    if (answer) {
      operation.status = answer.status;
      const lines = answer.headers.getSetCookie();
      operation.cookies = lines.length;
      operation.etag = answer.headers.get("etag");
      if (answer.status === 200 || answer.status === 201) operation.session = answer.json.session;
      for (const line of lines) {
        const [, value] = line.match(`^${SYNC}=([^;]+);`) ?? [];
        if (value && operation.session) this.#syncs.set(value, { id, at: asked });
      }
      const { session, birth, user } = operation;
      if (birth && session?.data.birth === birth && one.ticket) {
        this.#tickets.set(one.ticket, { birth, user, carried: session.handle });
      }
      if (kind === "create" && operation.etag) this.#etags.set(client, operation.etag);
    }
    return { one, operation };
  }

  /** No more faults; what is delayed arrives. */
  settle() {
    return this.#troubles.settle();
  }

  /**
   * Looks with every ticket there was, at every isolate. First with one of each session until no rotation is due.
   * @param {string} [birth] at this session only
   */
  async lookAround(birth) {
    const known = () => [...this.#tickets].filter(([, of]) => birth === undefined || of.birth === birth);
    const newest = new Map(known().map(([ticket, of]) => [of.birth, ticket]));
    const settled = [...newest.values()].map(async (ticket) => {
      const first = new Visitor("");
      first.ticket = ticket;
      for (let times = 0; times < 2; times += 1) {
        const { one } = await this.#send("look", -1, first, 0, (one) => one.look());
        first.ticket = one.ticket ?? first.ticket;
      }
    });
    await Promise.all(settled);
    const looks = known().flatMap(([ticket]) =>
      this.stage.workers.map((_, worker) => {
        const one = new Visitor("");
        one.ticket = ticket;
        return this.#send("look", -1, one, worker, (one) => one.look(), { last: true });
      }),
    );
    await Promise.all(looks);
  }

  /** A ticket to an id whose session has another one now. */
  rotated() {
    const known = [...this.#tickets];
    const found = known.find(([, one]) =>
      known.some(([, other]) => one.birth === other.birth && one.carried !== other.carried),
    );
    return found?.[0];
  }

  /** Uses an id whose time is over, and looks what became of its session. @param {string} ticket */
  async reuse(ticket) {
    const thief = new Visitor("");
    thief.ticket = ticket;
    const { operation } = await this.#send("reuse", -1, thief, 0, (one) => one.look());
    await this.lookAround(operation.birth);
  }

  /** @returns {Promise<History>} */
  async finish() {
    const { redis } = this.stage.store;
    const stored = await Promise.all(
      (await redis.keys("*")).map(async (key) => {
        const value = await redis.get(key).catch(() => null); // not every key holds a string
        return { key, ttl: await redis.pTTL(key), value: value ?? "" };
      }),
    );
    await redis.flushDb();
    const { operations, schedule } = this;
    return { restless: schedule.stage === "restless", faulty: this.#armed, operations, stored };
  }
}
