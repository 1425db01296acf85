/**
 * What is going to happen to one session whose id changes, drawn from a seed: in rounds, between which time passes.
 * Its holders are its owner and, perhaps, a thief who has copied the owner's ticket.
 */
import { dice } from "./dice.mjs";

/** @typedef {import("./troubles.mjs").Trouble} Trouble */

/** "verify" asks as a proxy does, which drops cookies; "copy" steals the owner's ticket. @typedef {"look" | "increment" | "rotate" | "verify" | "logout" | "copy"} Kind */

/**
 * @typedef {object} Step
 * @property {Kind} kind
 * @property {number} holder 0 the owner, 1 the thief, who does nothing before there is a copy
 * @property {number} worker
 * @property {boolean} lost whether the answer, with its cookies, does not reach the holder
 */

/**
 * @typedef {object} Round
 * @property {Step[]} steps
 * @property {boolean} together all at once, or one after the other
 * @property {Trouble[]} troubles from its beginning on
 * @property {"" | "all" | "after"} outage of the store: from its beginning on, or from the last answer on
 * @property {boolean} hasty the next begins while something may be under way in the background
 * @property {number} pass how much time passes after it, in milliseconds
 */

/**
 * @typedef {object} Schedule
 * @property {number} seed
 * @property {"patient"} stage
 * @property {string} user whose the session is; "" nobody's
 * @property {Round[]} rounds
 * @property {number} [copy] which of all tickets is used when all is over, from 0, the first, to 1
 */

const SECOND = 1000;
const HOUR = 3_600_000;

/** @param {number} seed @returns {Schedule} */
export function drawThefts(seed) {
  const { next, chance, between, draw, times } = dice(seed);
  const common = {
    seed,
    stage: /** @type {const} */ ("patient"),
    user: chance(0.5) ? "ann" : "",
    ...(chance(0.5) ? { copy: chance(0.6) ? 0 : next() } : {}),
  };
  const quiet = { together: false, troubles: [], outage: /** @type {const} */ (""), hasty: false };
  /** @param {Kind} kind @param {number} [holder] @param {boolean} [lost] @returns {Step} */
  const step = (kind, holder = 0, lost = false) => ({ kind, holder, worker: between(0, 1), lost });

  /** @type {() => Trouble} */
  const trouble = () => ({
    fault: draw(
      /** @type {[number, Trouble["fault"]][]} */ ([
        [4, { refuse: true }],
        [4, { lostAnswer: true }],
        [3, { lostAnswer: true, delay: between(5, 60) }],
        [3, { delay: between(10, 120) }],
        [1, { status: 500, body: "busy" }],
        [1, { capacity: true }],
        // Given up by the Worker, and carried out after all.
        [0.3, { delay: between(1050, 1300) }],
      ]),
    ),
    command: draw([
      [5, "SET"],
      [1, "MGET"],
      [3, ""],
    ]),
    skip: between(0, 5),
    times: draw([
      [3, 1],
      [2, 3],
      [1, 8],
    ]),
  });
  const pass = () =>
    draw([
      [3, 0],
      [2, between(1, 29) * SECOND],
      [4, between(31, 90) * SECOND],
      [2, between(2, 40) * 60 * SECOND],
      [2, between(61, 200) * 60 * SECOND],
      [0.3, between(4, 12) * HOUR],
    ]);

  // 1. Many rotations: at once, or as often as it is allowed.
  const flavour = draw([
    [6, "phone"],
    [6, "thief"],
    [1.5, "burst"],
    [0.3, "marathon"],
  ]);
  if (flavour === "burst" || flavour === "marathon") {
    const isSlow = flavour === "marathon";
    const count = isSlow ? between(20, 70) : between(9, 70);
    const rotation = () => ({ ...quiet, steps: [step("rotate")], pass: isSlow ? 8 * SECOND : 0 });
    const last = { ...quiet, steps: [step("look")], pass: between(31, 60) * SECOND };
    return {
      ...common,
      rounds: [{ ...quiet, steps: [step("copy")], pass: 0 }, ...times(count, rotation), last],
      copy: 0,
    };
  }

  // 2. An owner, on a bad line and with a bad store; and perhaps a thief.
  const losses = draw([
    [1, 0],
    [2, 0.3],
    [1, 0.7],
  ]);
  const isTroubled = chance(0.5);
  const kinds = /** @type {[number, Kind][]} */ ([
    [4, "look"],
    [2, "increment"],
    [4, "rotate"],
    [1.5, "verify"],
    [chance(0.15) ? 0.3 : 0, "logout"],
  ]);
  const isThief = flavour === "thief";
  const round = () => ({
    steps: times(between(1, 4), () => step(draw(kinds), isThief && chance(0.35) ? 1 : 0, chance(losses))),
    together: chance(0.4),
    troubles: isTroubled && chance(0.6) ? times(between(1, 2), trouble) : [],
    outage: /** @type {"" | "all" | "after"} */ (
      draw([
        [10, ""],
        [1, "all"],
        [1, "after"],
      ])
    ),
    hasty: chance(0.15),
    pass: pass(),
  });
  const rounds = times(between(2, 8), round);
  if (isThief) rounds.splice(between(0, 2), 0, { ...quiet, steps: [step("copy", 1)], pass: 0 });
  return { ...common, rounds };
}
