/**
 * Carries out a schedule of one session whose id changes, and records what happened: see thefts-schedule.mjs for what
 * can, and thefts-check.mjs for what must hold.
 */
import { Visitor } from "../visitor.mjs";
import { Troubles } from "./troubles.mjs";

/** @typedef {import("./stage.mjs").Stage} Stage */
/** @typedef {import("./thefts-check.mjs").Operation} Operation */
/** @typedef {import("./thefts-check.mjs").History} History */
/** @typedef {import("./thefts-schedule.mjs").Schedule} Schedule */
/** @typedef {import("./thefts-schedule.mjs").Round} Round */
/** @typedef {import("./thefts-schedule.mjs").Step} Step */
/** @typedef {import("../visitor.mjs").Answer} Answer */

/** A bit more than an old id is followed after its successor was presented. */
const AFTER_GRACE = 31_000;

/** @param {Stage} stage @param {Schedule} schedule @returns {Promise<History>} */
export async function play(stage, schedule) {
  stage.store.faults.clear();
  const recorder = new Recorder(stage, schedule);
  await recorder.begin();

  // 1. What happens.
  for (const round of schedule.rounds) await recorder.perform(round);

  // 2. When all is over: what everybody sees, and what it costs; then what a copy of an old cookie does.
  await recorder.endRounds();
  await recorder.lookAround();
  if (schedule.copy !== undefined) {
    await stage.passTime(AFTER_GRACE);
    await recorder.useCopy(schedule.copy);
    await recorder.lookAround();
  }

  // 3. The owner leaves.
  await recorder.leave();
  return recorder.finish();
}

class Recorder {
  #isOver = false;
  /** @type {Operation[]} */
  #operations = [];
  /** Every ticket there was, in order, and the handle it leads to. @type {Map<string, string>} */
  #tickets = new Map();
  /** Who has begun another session with a dead ticket. @type {Visitor[]} */
  #strays = [];
  #troubles;
  #began;
  /** Those that are not known to be all over, background included. @type {{ operation: Operation, start: number }[]} */
  #open = [];

  /** @param {Stage} stage @param {Schedule} schedule */
  constructor(stage, schedule) {
    this.stage = stage;
    this.schedule = schedule;
    this.birth = `birth-${schedule.seed}-${Math.random().toString(36).slice(2)}`;
    this.holders = [new Visitor(""), new Visitor("")];
    this.#troubles = new Troubles(stage.store);
    this.#began = stage.now();
  }

  get owner() {
    return /** @type {Visitor} */ (this.holders[0]);
  }

  async begin() {
    const { user } = this.schedule;
    const data = { birth: this.birth, n: 0 };
    this.owner.url = this.stage.workers[0]?.url ?? "";
    const answer = user
      ? await this.stage.office.login(this.owner, user, data)
      : await this.owner.merge(data);
    this.#tickets.set(this.owner.ticket ?? "", answer.json.session.handle);
    await this.stage.idle();
  }

  /** @param {Round} round */
  async perform({ steps, together, troubles, outage, hasty, pass }) {
    const { faults } = this.stage.store;
    const strike = { fault: { refuse: true }, command: "", skip: 0, times: Infinity };
    this.#troubles.arm(outage === "all" ? [strike] : troubles);
    const all = steps.map((step) => () => this.#act(step));
    if (together) await Promise.all(all.map((act) => act()));
    else for (const act of all) await act();
    if (outage === "after") this.#troubles.arm([strike]);
    if (!hasty || pass) await this.#settle();
    faults.clear();
    if (pass) await this.stage.passTime(pass);
  }

  /** When nothing is under way any more. What was delayed, and given up by the Worker, may still arrive. */
  async #settle() {
    await this.stage.idle();
    const now = performance.now();
    for (const { operation, start } of this.#open) {
      operation.faults = this.#troubles.during(start, now);
      operation.settled = this.stage.now() - this.#began;
    }
    this.#open = [];
  }

  /** No more faults; what is delayed arrives. */
  async endRounds() {
    await this.#troubles.settle();
    await this.#settle();
    this.#isOver = true;
  }

  /** @param {Step} step */
  async #act({ kind, holder, worker, lost }) {
    const jar = /** @type {Visitor} */ (this.holders[holder]);
    if (kind === "copy") {
      const thief = /** @type {Visitor} */ (this.holders[1]);
      thief.ticket = this.owner.ticket;
    } else if (jar.ticket) {
      await this.#send(kind, holder, jar, worker, lost);
    }
  }

  /**
   * @param {Exclude<import("./thefts-schedule.mjs").Kind, "copy">} kind
   * @param {number} client
   * @param {Visitor} jar
   * @param {number} worker
   * @param {boolean} lost
   * @param {Partial<Operation>} [more]
   */
  async #send(kind, client, jar, worker, lost, more = {}) {
    const { stage } = this;
    const one = new Visitor(stage.workers[worker]?.url ?? "");
    one.ticket = jar.ticket;
    const carried = this.#tickets.get(one.ticket ?? "") ?? "";
    const start = performance.now();
    /** @type {Operation} */
    const operation = {
      id: this.#operations.length,
      client,
      kind,
      user: this.schedule.user,
      carried,
      start: stage.now() - this.#began,
      end: Infinity,
      status: 0,
      lost,
      last: this.#isOver,
      birth: this.birth,
      ...more,
    };
    this.#operations.push(operation);
    this.#open.push({ operation, start });
    /** @returns {Promise<Answer>} */
    const send = () => {
      if (kind === "increment") return one.increment("/n");
      if (kind === "rotate") return one.rotate();
      if (kind === "logout") return one.logout();
      return kind === "verify" ? one.send("GET", "/auth/verify") : one.look();
    };
    const answer = await send().catch(() => undefined);
    operation.end = stage.now() - this.#began;
    operation.took = performance.now() - start;
    if (!answer) return operation;
    operation.status = answer.status;
    operation.cookies = answer.setCookies.length;
    if (answer.status !== 200 || kind === "verify") return operation;
    const { session } = answer.json;
    operation.session = session;
    if (session && session.data.birth !== this.birth && one.ticket) this.#strays.push(one.clone());
    // As a browser: what was set is kept. But a ticket that is taken back is presented all the same.
    if (session?.data.birth === this.birth && one.ticket && one.ticket !== jar.ticket) {
      this.#tickets.set(one.ticket, session.handle);
      if (!lost && kind !== "logout") jar.ticket = one.ticket;
    }
    return operation;
  }

  /** All holders look, twice: the second time nothing is left to do in the background. */
  async lookAround() {
    for (const [client, jar] of this.holders.entries()) {
      if (!jar.ticket) continue;
      for (const again of [false, true]) {
        const { counters } = this.stage.store;
        const { value, calls } = await counters.during(() =>
          this.#send("look", client, jar, client, true, { again }),
        );
        value.calls = calls;
        await this.#settle();
      }
      await this.#send("look", client, jar, client, false);
      await this.#settle();
    }
  }

  /** Somebody has kept one of the cookies. @param {number} which */
  async useCopy(which) {
    const tickets = [...this.#tickets.keys()];
    const thief = new Visitor("");
    thief.ticket = tickets[Math.floor(which * tickets.length)];
    await this.#send("look", 2, thief, 1, false);
    await this.#settle();
  }

  async leave() {
    for (const stray of this.#strays) await stray.logout();
    await this.#send("logout", 0, this.owner, 0, false);
    await this.#settle();
  }

  /** @returns {Promise<History>} */
  async finish() {
    const { redis } = this.stage.store;
    const stored = (await redis.keys("*")).map(async (key) => ({ key, ttl: await redis.pTTL(key) }));
    const history = {
      operations: this.#operations,
      stored: await Promise.all(stored),
      faults: this.#troubles.strikes.length,
    };
    await redis.flushDb();
    return history;
  }
}
