/**
 * What is going to happen to one account and a few sessions, drawn from a seed: who logs in, changes what, ends whom,
 * and what goes wrong in the store. Everybody has read a password that was right at some time.
 */
import { dice } from "./dice.mjs";

/**
 * What is done with a session: to its data, to the profile ("profile-…"), and to the account's other sessions.
 * "login", "reauthenticate" and "password" give the session another id.
 *
 * @typedef {"look" | "increment" | "merge" | "append" | "set" | "profile" | "profile-increment" | "profile-merge" |
 *   "profile-append" | "profile-set" | "verify" | "rotate" | "login" | "reauthenticate" | "password" | "list" | "end" |
 *   "keep" | "end-all" | "logout" | "delete"} Kind
 */

/** @typedef {import("./troubles.mjs").Trouble} Trouble */

/**
 * @typedef {object} Step
 * @property {Kind} kind
 * @property {number} pause milliseconds before it
 * @property {number} value what a flag is set to, 0 or 1
 * @property {number} [replay] with one of the tickets known by then instead of the jar's: from 0, the first, to 1
 */

/**
 * @typedef {object} Client one after the other, its steps; beside the other clients
 * @property {number} jar whose cookies it has: clients share jars, as the tabs of a browser do
 * @property {number} worker
 * @property {Step[]} steps
 */

/**
 * @typedef {object} Schedule
 * @property {number} seed
 * @property {"calm"} stage
 * @property {Flavour} flavour
 * @property {("guest" | "user")[]} jars what session each begins with: nobody's, or the account's
 * @property {Client[]} clients
 * @property {Trouble[]} troubles
 * @property {number} lag of the store's replica, in milliseconds
 * @property {"" | "logout" | "delete"} leave how all sessions end when all is over
 */

/**
 * "swaps": one session gets another id while four write to it, and at most two calls to the store fail.
 * "stale": sessions end, and are used where it has not been heard of yet.
 * "profiles": many change the profile, and much fails.
 * "farewells": sessions are rotated and ended, or the account is deleted; nothing fails, and nothing stays.
 *
 * @typedef {"swaps" | "stale" | "profiles" | "farewells"} Flavour
 */

/** @typedef {[number, Kind][]} Kinds by weight */

/** @type {Kinds} */
const WRITES = [
  [3, "increment"],
  [3, "append"],
  [2, "merge"],
  [1, "set"],
  [1, "look"],
];
/** @type {Kinds} what needs a living session */
const AUTHORITY = [
  [1, "profile"],
  [2, "profile-append"],
  [1, "profile-increment"],
  [2, "profile-set"],
  [1, "list"],
  [1, "rotate"],
  [0.5, "verify"],
];
/** @type {Kinds} */
const ENDS = [
  [1, "logout"],
  [1, "end"],
  [1, "keep"],
  [0.5, "end-all"],
  [0.7, "password"],
  [0.5, "reauthenticate"],
];
/** @type {Kinds} */
const PROFILES = [
  [4, "profile-increment"],
  [3, "profile-append"],
  [2, "profile-merge"],
  [1, "profile-set"],
  [2, "profile"],
];

/** @param {number} seed @returns {Schedule} */
export function drawAccounts(seed) {
  const { next, chance, between, draw, times } = dice(seed);

  /** @param {Kinds} kinds @param {number} longest pause @returns {Step} */
  const step = (kinds, longest) => ({
    kind: draw(kinds),
    pause: chance(0.4) ? 0 : between(1, longest),
    value: between(0, 1),
    ...(chance(0.12) ? { replay: next() } : {}),
  });
  /** @param {number} jar @param {number} steps @param {Kinds} kinds @param {number} [longest] @returns {Client} */
  const client = (jar, steps, kinds, longest = 8) => ({
    jar,
    worker: between(0, 1),
    steps: times(steps, () => step(kinds, longest)),
  });
  const trouble = () => ({
    fault: draw(
      /** @type {[number, Trouble["fault"]][]} */ ([
        [4, { lostAnswer: true }],
        [4, { lostAnswer: true, delay: between(4, 25) }],
        [3, { refuse: true }],
        [1, { cut: true }],
        [1, { status: 500, body: "busy", execute: true }],
        [1, { status: 503, body: "busy" }],
      ]),
    ),
  });

  const flavour = draw(
    /** @type {[number, Flavour][]} */ ([
      [4, "swaps"],
      [3, "stale"],
      [2, "profiles"],
      [2, "farewells"],
    ]),
  );
  const common = { seed, stage: /** @type {const} */ ("calm"), flavour, troubles: [], lag: 0 };
  switch (flavour) {
    case "swaps": {
      const isGuest = chance(0.5);
      /** @type {Kinds} */
      const swaps = isGuest
        ? [[1, "login"]]
        : [
            [1, "login"],
            [1, "reauthenticate"],
            [1, "password"],
          ];
      // Their pause lets the writers begin.
      const swapper = client(0, between(1, 2), swaps, 6);
      const writers = times(4, () => client(0, between(3, 7), WRITES, 4));
      /** @type {Kinds} */
      const meddling = [...swaps, [2, "rotate"], [1, "logout"], [1, "profile-increment"]];
      const meddlers = chance(0.4) ? [client(0, between(1, 2), meddling, 10)] : [];
      return {
        ...common,
        jars: [isGuest ? "guest" : "user", ...(chance(0.3) ? [/** @type {const} */ ("user")] : [])],
        clients: [swapper, ...writers, ...meddlers],
        troubles: times(2, () => ({
          ...trouble(),
          command: draw([
            [5, "/multi-exec"],
            [2, "SET"],
            [2, "MGET"],
            [1, ""],
          ]),
          skip: chance(0.5) ? 0 : between(0, 6),
          times: 1,
        })),
        leave: "",
      };
    }
    case "stale": {
      const jars = /** @type {("user")[]} */ (times(between(2, 3), () => "user"));
      const ends = chance(0.8);
      const kinds = /** @type {Kinds} */ ([...WRITES, ...AUTHORITY, ...AUTHORITY, ...(ends ? ENDS : [])]);
      return {
        ...common,
        jars,
        clients: times(between(3, 7), () => client(between(0, jars.length - 1), between(3, 7), kinds)),
        lag: between(30, 150),
        leave: "",
      };
    }
    case "profiles": {
      const jars = /** @type {("user")[]} */ (times(between(1, 2), () => "user"));
      const kinds = /** @type {Kinds} */ ([...PROFILES, [0.4, "reauthenticate"], [0.2, "password"]]);
      return {
        ...common,
        jars,
        clients: times(between(4, 8), () => client(between(0, jars.length - 1), between(3, 7), kinds)),
        troubles: times(between(1, 6), () => ({
          ...trouble(),
          command: draw([
            [4, "SET"],
            [2, "MGET"],
            [2, ""],
          ]),
          skip: between(0, 30),
          times: draw([
            [4, 1],
            [3, 2],
            [1, 4],
          ]),
        })),
        leave: "",
      };
    }
    default: {
      const jars = /** @type {("user" | "guest")[]} */ (
        times(between(1, 3), () => (chance(0.6) ? "user" : "guest"))
      );
      const kinds = /** @type {Kinds} */ ([
        ...WRITES,
        [5, "rotate"],
        [1.5, "logout"],
        [0.7, "login"],
        [0.5, "end"],
        [0.3, "keep"],
      ]);
      const isLast = chance(0.3);
      return {
        ...common,
        jars,
        clients: [
          ...times(between(2, 6), () => client(between(0, jars.length - 1), between(2, 5), kinds)),
          ...(isLast ? [client(0, 1, [[1, "delete"]], 20)] : []),
        ],
        leave: chance(0.4) ? "delete" : "logout",
      };
    }
  }
}
