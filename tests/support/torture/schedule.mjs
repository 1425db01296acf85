/**
 * What is going to happen to a few sessions, drawn from a seed: whose they are, who does what, in which order and
 * with what pauses, what goes wrong in the store and when the clocks move. The same seed gives the same schedule;
 * how its operations interleave is up to the machines.
 */
import { dice } from "./dice.mjs";
import { STORE_TIMEOUT } from "./stage.mjs";

/**
 * What is done with a session. "login" begins another one of its user, "keep" ends all others of its user,
 * "revoke" all of them, "end" one by its handle; the last three are the service API's, as are logins.
 *
 * @typedef {"look" | "increment" | "merge" | "append" | "misfit" | "condition" | "rotate" | "logout" |
 *   "keep" | "login" | "revoke" | "end"} Kind
 */

/**
 * @typedef {object} Step
 * @property {Kind} kind
 * @property {number} pause milliseconds before it
 * @property {number} [replay] with one of the user's tickets known by then instead of the jar's: from 0, the first, to 1
 */

/**
 * @typedef {object} Client one after the other, its steps; beside the other clients
 * @property {number} jar whose cookies it has: clients share jars, as the tabs of a browser do
 * @property {number} worker
 * @property {Step[]} steps
 */

/** @typedef {import("./troubles.mjs").Trouble} Trouble */

/**
 * @typedef {object} Schedule
 * @property {number} seed
 * @property {"calm" | "restless"} stage
 * @property {number} lag of the store's replica, in milliseconds
 * @property {boolean} lagsFirst from before the sessions begin
 * @property {boolean} troubledBirth whether things go wrong from before the sessions begin
 * @property {string[]} sessions whose each is: a user's id, or nobody's: ""
 * @property {number[]} jars which session each begins with
 * @property {Client[]} clients
 * @property {Trouble[]} troubles
 * @property {number[]} moves of the Workers' clocks: pauses before each, in milliseconds
 * @property {boolean} reuse whether the first id is used again after its time, when all is over
 */

/** @param {number} seed @returns {Schedule} */
export function drawSchedule(seed) {
  const { next, chance, between, draw, times } = dice(seed);

  const restless = chance(0.5);
  const lag = chance(0.2) ? between(15, 120) : 0;
  const [rotates, ends, revokes] = [chance(0.6), chance(0.45), chance(0.7)];
  const sessions = draw(
    /** @type {[number, string[]][]} */ ([
      [4, [""]],
      [2, ["ann"]],
      [3, ["ann", "ann"]],
      [1, ["ann", "ann", ""]],
      [1, ["ann", "ann", "bob"]],
    ]),
  );
  const jars = Array.from(
    { length: Math.max(sessions.length, between(1, 3)) },
    (_, jar) => jar % sessions.length,
  );
  const hurried = chance(0.5);

  /** @param {boolean} isUsers whether there is a user to revoke the sessions of @returns {Step} */
  const step = (isUsers) => {
    const forUsers = isUsers && revokes ? 1 : 0;
    const kind = draw(
      /** @type {[number, Kind][]} */ ([
        [5, "look"],
        [4, "increment"],
        [3, "merge"],
        [5, "append"],
        [1, "misfit"],
        [2, "condition"],
        [rotates ? 3 : 0, "rotate"],
        [ends ? 0.5 : 0, "logout"],
        [0.6 * forUsers, "revoke"],
        [0.6 * forUsers, "keep"],
        [0.3 * forUsers, "end"],
        [1.5 * forUsers, "login"],
      ]),
    );
    const pause = hurried || chance(0.4) ? 0 : between(1, 25);
    return { kind, pause, ...(chance(0.15) ? { replay: chance(0.3) ? 0 : next() } : {}) };
  };
  const clients = times(between(2, 8), () => {
    const jar = between(0, jars.length - 1);
    const isUsers = sessions[jars[jar] ?? 0] !== "";
    return { jar, worker: between(0, 1), steps: times(between(3, 7), () => step(isUsers)) };
  });

  /** @type {() => Trouble} */
  const trouble = () => {
    const command = draw([
      [3, "SET"],
      [1, "DELEX"],
      [0.5, "GETEX"],
      [2, "MGET"],
      [2, ""],
    ]);
    const status = draw([
      [2, 500],
      [2, 429],
      [1, 503],
    ]);
    const fault = draw(
      /** @type {[number, Trouble["fault"]][]} */ ([
        [3, { delay: between(5, 60) }],
        [4, { lostAnswer: true }],
        [2, { lostAnswer: true, delay: between(5, 40) }],
        [2, { refuse: true }],
        [2, { cut: true }],
        [2, { short: true }],
        [2, { status, body: "busy" }],
        [2, { status: 500, body: "busy", execute: true }],
        [1, { entry: between(0, 1) }],
        [0.3, { quota: true }],
        [0.3, { capacity: true }],
        [0.15, { hang: true }],
        [0.15, { hang: true, execute: true }],
        [0.25, { delay: STORE_TIMEOUT + between(30, 400) }],
      ]),
    );
    const rare = fault.hang || (fault.delay ?? 0) >= STORE_TIMEOUT;
    const often = draw([
      [6, 1],
      [2, 2],
      [1, 4],
    ]);
    return { fault, command, skip: between(0, 25), times: rare ? 1 : often };
  };

  return {
    seed,
    stage: restless ? "restless" : "calm",
    lag,
    lagsFirst: chance(0.5),
    troubledBirth: chance(0.2),
    sessions,
    jars,
    clients,
    troubles: chance(0.55) ? times(between(1, 7), trouble) : [],
    moves: chance(restless ? 0.8 : 0.4) ? times(between(1, 3), () => between(0, 60)) : [],
    reuse: chance(0.15),
  };
}
