/**
 * Carries out a schedule of one account and its sessions, and records what happened: see accounts-schedule.mjs for
 * what can, and accounts-check.mjs for what must hold.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { Visitor } from "../visitor.mjs";
import { Troubles } from "./troubles.mjs";

/** @typedef {import("./accounts-check.mjs").Operation} Operation */
/** @typedef {import("./accounts-check.mjs").History} History */
/** @typedef {import("./accounts-check.mjs").AnyKind} AnyKind */
/** @typedef {import("./accounts-schedule.mjs").Schedule} Schedule */
/** @typedef {import("./accounts-schedule.mjs").Step} Step */
/** @typedef {import("./documents.mjs").Change} Change */
/** @typedef {import("./stage.mjs").Stage} Stage */
/** @typedef {import("../visitor.mjs").Answer} Answer */

/** @typedef {{ handle: string, birth?: string, family: number, born: number }} Known what is known of a ticket; `born`: the operation that issued it */

const MERGE_PATCH = { "Content-Type": "application/merge-patch+json" };
const JSON_PATCH = { "Content-Type": "application/json-patch+json" };

/** Those whose answer is another session, with an id that is no successor of the old one. */
const SWAPS = new Set(["register", "login", "reauthenticate", "password"]);

/** @param {Stage} stage @param {Schedule} schedule @returns {Promise<History>} */
export async function play(stage, schedule) {
  const { store } = stage;
  store.faults.clear();
  const recorder = new Recorder(stage, schedule);

  // 1. The account and its sessions.
  await recorder.begin();
  recorder.arm();

  // 2. Everybody at once.
  const working = schedule.clients.map(async ({ steps }, client) => {
    for (const step of steps) await recorder.perform(step, client);
  });
  await Promise.all(working);

  // 3. When all that was on its way has arrived, every ticket is shown, and every password tried.
  await recorder.settle();
  await recorder.lookAround();
  await recorder.tryPasswords();

  // 4. Everybody leaves, and what stays is looked at.
  if (schedule.leave) await recorder.leave();
  return recorder.finish();
}

class Recorder {
  /** @type {Operation[]} */
  operations = [];
  /** Every ticket there was, in order. @type {Map<string, Known>} */
  #tickets = new Map();
  /** The tickets of sessions that nobody uses. @type {Set<string>} */
  #strays = new Set();
  #families = 0;
  #births = 0;
  #passwords = 0;
  /** The latest that is known to be right. */
  #password = "password-0";
  /** @type {Map<string, number>} by client and document */
  #numbers = new Map();
  #began = performance.now();
  #troubles;
  #isOver = false;

  /** @param {Stage} stage @param {Schedule} schedule */
  constructor(stage, schedule) {
    this.stage = stage;
    this.schedule = schedule;
    this.name = `ann-${schedule.seed}-${Math.random().toString(36).slice(2, 10)}`;
    this.jars = schedule.jars.map(() => new Visitor(""));
    this.#troubles = new Troubles(stage.store);
  }

  async begin() {
    const owner = new Visitor("");
    await this.#send("register", -1, owner, 0, (one) => one.register(this.name, this.#password));
    const profile = { n: 0, log: [], own: {}, flag: 0 };
    await this.#send("profile-begin", -1, owner, 0, (one) =>
      one.tell("PATCH", "/profile", profile, MERGE_PATCH),
    );
    await this.#send("logout", -1, owner, 0, (one) => one.logout());
    for (const [jar, visitor] of this.jars.entries()) {
      const birth = `birth-${this.name}-${++this.#births}`;
      const data = { birth, n: 0, log: [], own: {}, flag: 0 };
      await this.#send("create", -1, visitor, jar % 2, (one) => one.merge(data), { birth });
      if (this.schedule.jars[jar] === "user") await this.#login(-1, visitor, jar % 2);
    }
    await this.stage.idle();
  }

  /** From now on things go wrong. */
  arm() {
    const { lag, troubles } = this.schedule;
    this.stage.store.faults.lag = lag;
    this.#troubles.arm(troubles);
  }

  /** No more faults; what is delayed arrives. */
  async settle() {
    await this.#troubles.settle();
    await this.stage.idle();
    this.#isOver = true;
  }

  /** @param {Step} step @param {number} client */
  async perform({ kind, pause, value, replay }, client) {
    if (pause) await sleep(pause);
    const plan = /** @type {import("./accounts-schedule.mjs").Client} */ (this.schedule.clients[client]);
    const jar = /** @type {Visitor} */ (this.jars[plan.jar]);
    const carrier = jar.clone();
    if (replay !== undefined) {
      const tickets = [...this.#tickets.keys()];
      carrier.ticket = tickets[Math.floor(replay * tickets.length)];
    }
    const before = carrier.ticket;
    await this.#act(kind, client, carrier, plan.worker, value);
    // As a browser: what was set is kept. But a ticket that is taken back is presented all the same.
    const after = carrier.ticket;
    if (replay === undefined && after && after !== before && this.#tickets.has(after)) jar.ticket = after;
  }

  /**
   * @param {import("./accounts-schedule.mjs").Kind} kind
   * @param {number} client
   * @param {Visitor} carrier
   * @param {number} worker
   * @param {number} [value]
   */
  #act(kind, client, carrier, worker, value = 0) {
    /** @param {(one: Visitor) => Promise<Answer>} send @param {Partial<Operation>} [more] */
    const go = (send, more) => this.#send(kind, client, carrier, worker, send, more);
    const [document, change] = kind.startsWith("profile-")
      ? ["/profile", kind.slice(8)]
      : ["/session/data", kind];
    /** @param {object} patch @param {Partial<Operation>} more */
    const merge = (patch, more) => go((one) => one.tell("PATCH", document, patch, MERGE_PATCH), more);
    /** @param {object} operation @param {Partial<Operation>} more */
    const patch = (operation, more) =>
      go((one) => one.tell("PATCH", document, [operation], JSON_PATCH), more);
    switch (change) {
      case "increment":
        return patch({ op: "increment", path: "/n", value: 1 }, { change });
      case "append": {
        const tag = `${client}.${this.operations.length}`;
        return patch({ op: "add", path: "/log/-", value: tag }, { change, tag });
      }
      case "merge": {
        const key = `${client} ${document}`;
        const number = (this.#numbers.get(key) ?? 0) + 1;
        this.#numbers.set(key, number);
        return merge({ own: { [`c${client}`]: number } }, { change, number });
      }
      case "set":
        return merge({ flag: value }, { change, value });
    }
    const password = this.#password;
    switch (kind) {
      case "profile":
        return go((one) => one.send("GET", "/auth/profile"));
      case "verify":
        return go((one) => one.send("GET", "/auth/verify"));
      case "rotate":
        return go((one) => one.rotate());
      case "login":
        return this.#login(client, carrier, worker);
      case "reauthenticate":
        return go((one) => one.tell("POST", "/reauthenticate", { password }), { password });
      case "password": {
        const next = `password-${++this.#passwords}`;
        const body = { current: password, new: next };
        return go((one) => one.tell("POST", "/password", body), { password, next });
      }
      case "list":
        return go((one) => one.send("GET", "/auth/sessions"));
      case "end": {
        // Somebody else's, if there is one.
        const [, own] = [...this.#tickets].find(([ticket]) => ticket === carrier.ticket) ?? [];
        const other = [...this.#tickets.values()].findLast(({ family }) => family !== own?.family);
        const { handle = "A".repeat(24), family } = other ?? {};
        return go((one) => one.send("DELETE", `/auth/sessions/${handle}`), { target: family });
      }
      case "keep":
        return go((one) => one.send("DELETE", "/auth/sessions?keep=current"));
      case "end-all":
        return go((one) => one.send("DELETE", "/auth/sessions"));
      case "logout":
        return go((one) => one.logout());
      case "delete":
        return go((one) => one.tell("DELETE", "/account", { password }), { password });
      default:
        return go((one) => one.look());
    }
  }

  /** @param {number} client @param {Visitor} carrier @param {number} worker @param {string} [password] */
  #login(client, carrier, worker, password = this.#password) {
    return this.#send("login", client, carrier, worker, (one) => one.login(this.name, password), {
      password,
    });
  }

  /**
   * @param {AnyKind} kind
   * @param {number} client
   * @param {Visitor} carrier who keeps the cookies of the answer
   * @param {number} worker
   * @param {(one: Visitor) => Promise<Answer>} send
   * @param {Partial<Operation>} [more]
   */
  async #send(kind, client, carrier, worker, send, more = {}) {
    const { store, workers } = this.stage;
    // Read-your-writes is the sessions' theme; here a replica may know as little as it likes.
    for (const name of carrier.cookies.keys()) if (name.endsWith("-sync")) carrier.cookies.delete(name);
    carrier.url = workers[worker % workers.length]?.url ?? "";
    const known = this.#tickets.get(carrier.ticket ?? "");
    const [start, id] = [performance.now(), this.operations.length];
    /** @type {Operation} */
    const operation = {
      id,
      client,
      kind,
      start: start - this.#began,
      end: Infinity,
      status: 0,
      cookies: 0,
      lagging: store.faults.lag > 0,
      last: this.#isOver,
      birth: known?.birth,
      family: known?.family,
      carried: known?.handle,
      ...more,
    };
    this.operations.push(operation);
    const answer = await send(carrier).catch(() => undefined);
    const end = performance.now();
    operation.end = end - this.#began;
    operation.faults = this.#troubles.during(start, end);
    if (!answer) return operation;
    const { status, json } = answer;
    operation.status = status;
    operation.code = json?.code;
    operation.cookies = answer.setCookies.length;
    if (status < 300) {
      if (json && "session" in json) operation.session = json.session;
      else if (json && kind.startsWith("profile")) operation.profile = json;
    }
    this.#learn(operation, carrier.ticket);
    if (kind === "password" && status === 200) this.#password = operation.next ?? this.#password;
    return operation;
  }

  /** What an answer says of the ticket that its caller has now. @param {Operation} operation @param {string} [ticket] */
  #learn(operation, ticket) {
    const { id, kind, session, birth } = operation;
    if (!ticket || !session) return;
    const data = /** @type {{ birth?: string }} */ (session.data);
    const handle = session.handle ?? "";
    const known = this.#tickets.get(ticket);
    // What a dead ticket begins is nobody's, and nobody uses it.
    if (data.birth === undefined && !session.user) return void this.#strays.add(ticket);
    if (known) {
      // It led to a session, perhaps under another id.
      if (data.birth === birth) known.handle = handle;
      return;
    }
    const isNew = SWAPS.has(kind) || operation.family === undefined || (birth && data.birth !== birth);
    const family = isNew ? ++this.#families : /** @type {number} */ (operation.family);
    if (isNew) operation.begins = family;
    this.#tickets.set(ticket, { handle, birth: data.birth, family, born: id });
  }

  /** Looks with every ticket there was, at every isolate, and at the profile. */
  async lookAround() {
    const looks = [...this.#tickets.keys()].flatMap((ticket) =>
      this.stage.workers.map(async (_, worker) => {
        const one = new Visitor("");
        one.ticket = ticket;
        return { ticket, ...(await this.#act("look", -1, one, worker).then(({ session }) => ({ session }))) };
      }),
    );
    const seen = await Promise.all(looks);
    const owner = new Visitor("");
    owner.ticket = seen.find(({ session }) => session?.user)?.ticket;
    if (owner.ticket) await this.#act("profile", -1, owner, 0);
  }

  /** Somebody without a session tries every password there was. */
  async tryPasswords() {
    for (let number = 0; number <= this.#passwords; number += 1) {
      const password = `password-${number}`;
      const { status } = await this.#login(-1, new Visitor(""), number % 2, password);
      if (status === 200) this.#password = password;
    }
  }

  /** All sessions end, and the account if it is to. */
  async leave() {
    if (this.schedule.leave === "delete") {
      const owner = new Visitor("");
      await this.#login(-1, owner, 0);
      await this.#act("delete", -1, owner, 1);
    }
    for (const ticket of [...this.#tickets.keys(), ...this.#strays]) {
      const one = new Visitor("");
      one.ticket = ticket;
      await this.#act("logout", -1, one, 0);
    }
  }

  /** @returns {Promise<History>} */
  async finish() {
    await this.stage.idle();
    const { redis } = this.stage.store;
    const stored = (await redis.keys("*")).map(async (key) => {
      const value = await redis.get(key).catch(() => null); // not every key holds a string
      return { key, ttl: await redis.pTTL(key), value: value ?? "" };
    });
    const { operations, schedule } = this;
    const history = {
      operations,
      stored: await Promise.all(stored),
      faults: this.#troubles.strikes.length,
      left: schedule.leave !== "",
    };
    await redis.flushDb();
    return history;
  }
}
