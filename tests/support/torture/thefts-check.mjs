/**
 * Whether a recorded history of one session keeps what docs/ promises of rotations. Knows nothing of how it was
 * made.
 *
 * An old id stays good until its successor has been presented once, and 30 seconds more. Only later use of it is a
 * theft, which ends the session for all. That an id was presented may be noted after the answer, and the note may fail
 * with the store: so there is a time in which an old id may be taken for a stolen one, and a later one in which it must.
 */
import { violation } from "./report.mjs";

/** @typedef {import("./report.mjs").Violation} Violation */

/**
 * @typedef {object} Facts
 * @property {Exclude<import("./thefts-schedule.mjs").Kind, "copy">} kind
 * @property {string} carried the handle that belongs to the ticket it came with
 * @property {string} birth of the session
 * @property {{ handle: string, data: { birth?: string, n?: number } } | null} [session] of the answer, when it has one
 * @property {number} [settled] when all that it left for the background was over; nothing, if that is not known
 * @property {number} [took] in real milliseconds
 * @property {boolean} [again] the second of two reads
 */
/** @typedef {import("./report.mjs").Told & Facts} Operation whose times are on the Workers' clock */

/**
 * @typedef {object} History
 * @property {Operation[]} operations
 * @property {{ key: string, ttl: number }[]} stored in the end, after the owner has left; `ttl` as PTTL says it
 * @property {number} faults how many struck in the store
 */

const GRACE = 30_000;
/** Explicit ones, in a minute. */
const ROTATIONS = 8;
const AT_ONCE = 5000;
/** A window of a limit counts for the next one, too. */
const WINDOWS = 120_000;
/** To the store, for one read; the first one may rotate the id, and note something in the background. */
const CALLS = { first: 8, again: 2 };
/** What leads nowhere any more is forgotten after that. */
const REDIRECT_TTL = 60_000;
/** The store is given up after that. */
const TIMEOUT = 900;

/** @type {Record<Operation["kind"], number[]>} */
const ANSWERS = {
  look: [200],
  increment: [200, 401],
  rotate: [200, 401, 429],
  verify: [200, 401],
  logout: [204],
};

/** @param {Operation} operation */
const isUnknown = ({ status }) => status === 0 || status >= 500;

/** Whether it found the session. @param {Operation} operation */
const isAlive = ({ kind, status, session, birth }) =>
  kind === "verify" ? status === 200 : session?.data.birth === birth;

/** Whether it found that the session has ended. @param {Operation} operation */
const isGone = (operation) => {
  const { status, session, kind, user } = operation;
  // Nobody's session is none to `verify`.
  if (kind === "verify") return status === 401 && Boolean(user);
  return status === 401 || (status === 200 && session !== undefined && !isAlive(operation));
};

/** Which ids came after which, as far as the answers tell. */
class Ids {
  /** @type {Map<string, Set<string>>} by handle, those known to be newer */
  #newer = new Map();
  /** @type {Set<string>} */
  #all = new Set();

  /** @param {Operation[]} operations */
  constructor(operations) {
    for (const { carried, session } of operations.filter(isAlive)) {
      this.#all.add(carried);
      if (!session) continue;
      this.#all.add(session.handle);
      if (session.handle !== carried) this.#of(carried).add(session.handle);
    }
    for (let grows = true; grows;) {
      grows = false;
      for (const newer of this.#newer.values()) {
        const before = newer.size;
        for (const one of [...newer]) for (const next of this.#of(one)) newer.add(next);
        grows ||= newer.size > before;
      }
    }
  }

  /** @param {string} handle */
  #of(handle) {
    const newer = this.#newer.get(handle) ?? new Set();
    this.#newer.set(handle, newer);
    return newer;
  }

  /** @param {string} one @param {string} other */
  isNewer = (one, other) => this.#newer.get(other)?.has(one) ?? false;

  /** @param {string} one @param {string} other */
  mayBeNewer = (one, other) => one !== other && !this.isNewer(other, one);
}

class Case {
  /** @param {History} history */
  constructor({ operations, stored, faults }) {
    this.operations = operations;
    this.stored = stored;
    this.faults = faults;
    this.ids = new Ids(operations);
  }

  /** Whether the id that it came with may count as stolen. @param {Operation} operation */
  mayBeTheft(operation) {
    return this.operations.find(
      (other) =>
        this.ids.mayBeNewer(other.carried, operation.carried) && other.start + GRACE <= operation.end,
    );
  }

  /** What makes that certain. @param {Operation} operation */
  theft(operation) {
    return this.operations.find(
      (other) =>
        this.ids.isNewer(other.carried, operation.carried) &&
        isAlive(other) &&
        !other.faults &&
        other.settled !== undefined &&
        other.settled + GRACE < operation.start,
    );
  }
}

/** @type {((asked: Case) => Violation[])[]} */
const RULES = [
  function answers({ operations }) {
    const odd = operations.filter((one) => {
      const { kind, status, faults, settled, took = 0 } = one;
      const isExcused = Boolean(faults) || settled === undefined || took > TIMEOUT;
      return !ANSWERS[kind].includes(status) && !(isUnknown(one) && status !== 500 && isExcused);
    });
    return odd.map((one) => violation("unexpected answer", `${one.kind}: ${one.status}`, one));
  },

  function cookies({ operations }) {
    const touched = operations.filter(
      ({ kind, status, cookies = 0 }) => cookies > 0 && (status >= 500 || kind === "verify"),
    );
    return touched.map((one) => violation("cookie changed", `${one.kind}: ${one.status}`, one));
  },

  /** Whoever uses an old id after its time is found out. */
  function thefts(asked) {
    return asked.operations.filter(isAlive).flatMap((one) => {
      const seen = asked.theft(one);
      return seen ? [violation("theft not found", "an old id works after its time", seen, one)] : [];
    });
  },

  /** Nobody else ends it. */
  function endsHaveCauses(asked) {
    const { operations } = asked;
    const gone = operations.find(isGone);
    if (!gone) return [];
    const cause = operations.find(
      (one) =>
        one.start < gone.end &&
        !isAlive(one) &&
        ((one.kind === "logout" && (one.status === 204 || isUnknown(one))) || asked.mayBeTheft(one)),
    );
    if (cause) return [];
    const rotations = operations.filter(
      (one) => one.id < gone.id && isAlive(one) && one.session && one.session.handle !== one.carried,
    );
    return [violation("ended without cause", `${gone.kind} found no session`, ...rotations, gone)];
  },

  /** Once it has ended, it has ended for all. */
  function endings({ operations }) {
    const over = operations.filter((one) => isGone(one) || (one.kind === "logout" && one.status === 204));
    return over.flatMap((end) =>
      operations
        .filter((one) => isAlive(one) && end.end < one.start)
        .map((one) => violation("resurrected", `${one.kind} found what had ended`, end, one)),
    );
  },

  /** All ids lead to one, and none comes back. */
  function forks({ operations, ids }) {
    const sights = operations.filter((one) => isAlive(one) && one.session);
    const handleOf = (/** @type {Operation} */ { session }) => session?.handle ?? "";
    return sights.flatMap((one) =>
      sights
        .filter((other) => one.end < other.start && ids.isNewer(handleOf(one), handleOf(other)))
        .map((other) => violation("fork", "an id came back", one, other)),
    );
  },

  /** In the end one id has come after the other. */
  function lastForks({ operations, ids }) {
    const [one, ...others] = operations.filter((one) => one.last && one.kind === "look" && isAlive(one));
    const handle = one?.session?.handle ?? "";
    const isNext = ({ session = /** @type {Operation["session"]} */ (null) }) => {
      const next = session?.handle ?? "";
      return next === handle || ids.isNewer(next, handle) || ids.isNewer(handle, next);
    };
    const other = others.find((other) => !isNext(other));
    return one && other ? [violation("fork", "two ids in the end", one, other)] : [];
  },

  function limits({ operations, ids }) {
    const rotations = operations.filter(({ kind }) => kind === "rotate");
    return rotations.flatMap((one) => {
      const { status, start, carried, session } = one;
      if (session && session.handle === carried) return [violation("not rotated", "the same id", one)];
      if (status === 429) {
        const before = rotations.filter((other) => other.start < one.end && start - other.start < WINDOWS);
        if (before.length <= ROTATIONS) return [violation("refused without cause", "few rotations", one)];
        const known = operations.find(
          (other) => other.end < start && isAlive(other) && ids.isNewer(other.session?.handle ?? "", carried),
        );
        return known ? [violation("refused without cause", "there was a successor", known, one)] : [];
      }
      const burst = rotations.filter((other) => other.start >= start && other.start - start < AT_ONCE);
      const made = new Set(burst.flatMap(({ session }) => session?.handle ?? []));
      const first = rotations.find(({ session }) => session?.handle === one.session?.handle) === one;
      if (!first || made.size !== ROTATIONS + 1) return [];
      return [violation("too many rotations", `more than ${ROTATIONS} at once`, ...burst)];
    });
  },

  /** What a read costs, whatever was rotated before. */
  function costs({ operations }) {
    return operations
      .filter(isAlive)
      .filter(({ calls = 0, again }) => calls > (again ? CALLS.again : CALLS.first))
      .map((one) => violation("too many calls", `${one.calls}`, one));
  },

  function increments({ operations }) {
    const all = operations.filter(({ kind }) => kind === "increment");
    return operations.flatMap((sight) => {
      const { session } = sight;
      if (!session || !isAlive(sight)) return [];
      const n = session.data.n ?? 0;
      const made = all.filter((one) => isAlive(one) && (one.end < sight.start || one === sight));
      const could = all.filter((one) => one.start < sight.end && (isAlive(one) || isUnknown(one)));
      if (n < made.length) return [violation("lost update", `n is ${n}`, ...made, sight)];
      return n > could.length ? [violation("made twice", `n is ${n}`, ...could, sight)] : [];
    });
  },

  function lifetimes({ stored }) {
    const endless = stored.filter(({ ttl }) => ttl === -1);
    return endless.map(({ key }) => violation("no time to live", key));
  },

  /** After a logout nothing of the session stays but old ids, for a minute; of what failed there may be copies, to which no id leads. */
  function leftovers({ operations, stored, faults }) {
    if (faults > 0 || operations.at(-1)?.status !== 204) return [];
    return stored
      .filter(({ key, ttl }) => /^family:/.test(key) || (/^sess:/.test(key) && ttl > REDIRECT_TTL))
      .map(({ key, ttl }) => violation("left behind", `${key} for ${ttl} ms`, ...operations.slice(-1)));
  },
];

/** What in this history breaks the contract. @param {History} history @returns {Violation[]} */
export function checkThefts(history) {
  const asked = new Case(history);
  return RULES.flatMap((rule) => rule(asked));
}
