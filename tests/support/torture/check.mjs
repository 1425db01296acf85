/**
 * Whether a recorded history keeps what docs/ promises of sessions. Knows nothing of how it was made.
 *
 * What becomes of changes is judged as documents.mjs says. An operation whose outcome is unknown (no answer, 5xx, 409)
 * may have been made, once; one that was refused may not; one that was acknowledged must.
 *
 * A revocation ends the sessions whose login was answered before it began, and none whose login began after its
 * answer; what happens to those in between may go either way, but not back.
 */
import { isDeepStrictEqual } from "node:util";
import { changes, order } from "./documents.mjs";
import { violation } from "./report.mjs";

/** @typedef {import("./schedule.mjs").Kind | "create" | "reuse"} AnyKind */
/** @typedef {import("./documents.mjs").Data} Data */
/** @typedef {{ handle: string, user?: { id: string } | null, data: Data }} Session */

/**
 * @typedef {object} Operation
 * @property {number} id
 * @property {number} client
 * @property {AnyKind} kind "reuse" looks with an old id after its grace
 * @property {number} start in milliseconds on the tester's clock
 * @property {number} end
 * @property {number} status 0 without an answer
 * @property {string} [birth] of the session that it begins, or is to act on; a revocation has none
 * @property {string} user whose that session is, or whose all are revoked; "" nobody's
 * @property {Session | null} [session] of the answer, when it has one
 * @property {string | null} [etag]
 * @property {string} [carried] the handle that belongs to the ticket it came with, or that it names
 * @property {string} [ifMatch]
 * @property {string} [tag] what it appends
 * @property {number} [number] what it sets under its client's key
 * @property {number} cookies how many its answer sets
 * @property {boolean} lagging whether the replica was behind
 * @property {number} [after] the operation whose sync cookie it came with, while that is young enough
 * @property {boolean} [last] when all was over
 */

/**
 * @typedef {object} History
 * @property {boolean} restless whether ids change by themselves
 * @property {boolean} faulty whether something went wrong in the store
 * @property {Operation[]} operations
 * @property {{ key: string, ttl: number, value: string }[]} stored in the end; `ttl` as PTTL says it
 */

/** @typedef {import("./report.mjs").Violation} Violation */

/** Where a history is asked about one of its sessions. */
class Case {
  /** @param {History} history @param {Operation} began what began the session */
  constructor(history, began) {
    this.history = history;
    this.began = began;
    /** Those that are to act on the session. */
    this.operations = history.operations.filter(({ birth }) => birth === began.birth);
    /** Those that may have ended all sessions of its user, or all others. */
    this.revocations = history.operations.filter(
      (operation) =>
        operation.user === began.user && !this.operations.includes(operation) && mayRevoke(operation),
    );
    this.byId = new Map(this.operations.map((operation) => [operation.id, operation]));
    /** Those that saw the session, in their answers. */
    this.sights = this.operations.flatMap((operation) => {
      const data = this.dataSeen(operation);
      return data ? [{ operation, data }] : [];
    });
  }

  /** The session's data in the answer; nothing if it holds another session or none. @param {Operation} operation */
  dataSeen({ session }) {
    return session?.data.birth === this.began.birth ? session?.data : undefined;
  }

  /** Whether it found the session alive. @param {Operation} operation */
  isAlive(operation) {
    return this.dataSeen(operation) !== undefined || (operation.kind === "keep" && operation.status === 204);
  }

  /** Whether it found no session. @param {Operation} operation */
  isGone(operation) {
    const { kind, status, session } = operation;
    if (status === 401 || status === 404) return true;
    if (status === 422) return kind === "append";
    return status === 200 && !this.dataSeen(operation) && session !== undefined;
  }

  /** Whether an old id had been used after its grace by then. @param {Operation} operation */
  isAfterReuse({ start }) {
    return this.operations.some((other) => other.kind === "reuse" && other.start <= start);
  }

  /** Whether it ended the session, or found it ended. @param {Operation} operation */
  isOver(operation) {
    const { kind, status } = operation;
    return this.isGone(operation) || (["logout", "end"].includes(kind) && status === 204);
  }

  /** Whether a revocation certainly ended it. @param {Operation} revocation */
  isRevokedBy({ status, start }) {
    return isAcknowledged(status) && this.began.end < start;
  }

  /** Whether a revocation may have ended it. One without an answer may still arrive, whenever. @param {Operation} revocation */
  mayBeRevokedBy({ status, end }) {
    return !isAcknowledged(status) || this.began.start < end;
  }

  /** Whether its reads were up to date: that the session is not there was then the truth. @param {Operation} operation */
  isCurrent(operation) {
    // What the service API has ended it has found, and it says so otherwise.
    if (!operation.lagging || (operation.kind === "end" && operation.status === 204)) return true;
    const before = this.covering(operation);
    return (
      before !== undefined && before.session?.handle === operation.carried && operation.carried !== undefined
    );
  }

  /** The operation up to whose answer the replica had to catch up. @param {Operation} operation */
  covering({ after }) {
    const before = after === undefined ? undefined : this.byId.get(after);
    return before && this.dataSeen(before) ? before : undefined;
  }

  /** Its data, as the answers show it. @returns {import("./documents.mjs").Document} */
  document() {
    const { birth } = this.began;
    const operations = this.operations.map((operation) => ({
      ...operation,
      change: CHANGES[operation.kind],
    }));
    const byId = new Map(operations.map((operation) => [operation.id, operation]));
    const covering = new Map(this.operations.map((one) => [one.id, this.covering(one)?.id]));
    return {
      changes: operations.filter(({ change }) => change !== undefined),
      sights: this.sights.flatMap(({ operation, data }) => {
        const one = byId.get(operation.id);
        return one ? [{ operation: one, data }] : [];
      }),
      isRefused,
      // An acknowledged change that began another session, which a dead ticket does, is none to this one.
      isElsewhere: ({ status, session }) =>
        status === 200 && /** @type {Data | undefined} */ (session?.data)?.birth !== birth,
      isCurrent: ({ lagging }) => !lagging,
      follows: (one, other) => (other.lagging ? covering.get(other.id) === one.id : one.end < other.start),
    };
  }
}

/** @param {{ status: number }} operation */
const isUnknown = ({ status }) => status === 0 || status === 409 || status >= 500;
/** Whether all of a user's sessions have ended: an operator is told how many. @param {number} status */
const isAcknowledged = (status) => status === 200 || status === 204;
/** @param {Operation} operation */
const mayRevoke = (operation) =>
  ["revoke", "keep"].includes(operation.kind) && (isAcknowledged(operation.status) || isUnknown(operation));
/** @param {Operation} operation */
/** Whether it cannot have been made. @param {{ status: number }} operation */
const isRefused = (operation) => !isUnknown(operation) && operation.status >= 400;
/** What a change does; nothing for one that is none. @type {Partial<Record<AnyKind, import("./documents.mjs").Change>>} */
const CHANGES = {
  increment: "increment",
  merge: "merge",
  append: "append",
  misfit: "append",
  condition: "append",
};
/** The whole of what a change makes of nothing. @param {Operation} operation @returns {Data | undefined} */
const alone = ({ kind, client, number }) => {
  if (kind === "increment") return { n: 1 };
  return kind === "merge" ? { own: { [`c${client}`]: number ?? 0 } } : undefined;
};

/** Of a session in a minute. */
const ROTATIONS = 8;

/** @type {Record<AnyKind, number[]>} beside 409 and 503, which any of them may get */
const ANSWERS = {
  create: [200],
  look: [200],
  reuse: [200],
  increment: [200, 401],
  merge: [200, 401],
  append: [200, 401, 422],
  misfit: [401, 422],
  condition: [200, 401, 412, 422],
  rotate: [200, 401, 429],
  logout: [204],
  keep: [204, 401],
  login: [201],
  revoke: [200],
  end: [204, 404],
};

/** What holds of a history as a whole. @type {((history: History) => Violation[])[]} */
const GENERAL_RULES = [
  function answers({ operations }) {
    const odd = operations.filter(({ kind, status }) => ![...ANSWERS[kind], 0, 409, 503].includes(status));
    return odd.map((operation) =>
      violation("unexpected answer", `${operation.kind}: ${operation.status}`, operation),
    );
  },

  function cookies({ operations }) {
    const touched = operations.filter(({ status, cookies }) => status >= 500 && cookies > 0);
    return touched.map((operation) =>
      violation("cookie changed on a failure", `Set-Cookie with a ${operation.status}`, operation),
    );
  },

  function lifetimes({ stored }) {
    const endless = stored.filter(({ ttl }) => ttl === -1);
    return endless.map(({ key }) => violation("no time to live", key));
  },
];

/** What holds of each of its sessions. @type {((asked: Case) => Violation[])[]} */
const RULES = [
  /** A session has one owner for ever; what a dead ticket begins is nobody's. */
  function owners(asked) {
    const odd = asked.operations.filter((operation) => {
      const owner = operation.session?.user?.id ?? "";
      return owner !== (asked.dataSeen(operation) ? asked.began.user : "");
    });
    return odd.map((operation) => violation("somebody else's", `${operation.session?.user?.id}`, operation));
  },

  (asked) => changes(asked.document()),
  (asked) => order(asked.document()),

  /** Of the changes on one condition, one is made. */
  function conditions({ operations }) {
    const made = operations.filter(({ kind, status }) => kind === "condition" && status === 200);
    return made.flatMap((one) =>
      made
        .filter((other) => one.id < other.id && one.ifMatch === other.ifMatch)
        .map((other) => violation("condition met twice", `If-Match: ${one.ifMatch}`, one, other)),
    );
  },

  function etags(asked) {
    // A login's answer has none: it goes to a back end.
    const sights = asked.sights.filter(({ operation }) => operation.kind !== "login");
    return sights.flatMap(({ operation: one, data: left }) =>
      sights
        .filter(({ operation: other }) => one.id < other.id)
        .filter(({ operation: other, data }) => (one.etag === other.etag) !== isDeepStrictEqual(left, data))
        .map(({ operation: other }) => {
          const what = one.etag === other.etag ? "one ETag for two states" : "two ETags for one state";
          return violation("ETag", what, one, other);
        }),
    );
  },

  /** Once it is over it stays over, and it is over only when someone ended it. */
  function endings(asked) {
    const { began, operations, revocations, sights, history } = asked;
    const over = [
      ...operations.filter((operation) => asked.isOver(operation) && asked.isCurrent(operation)),
      ...revocations.filter((revocation) => asked.isRevokedBy(revocation)),
    ];
    const ends = [
      ...operations.filter(({ kind, status }) => ["logout", "reuse", "end"].includes(kind) && status !== 404),
      ...revocations.filter((revocation) => asked.mayBeRevokedBy(revocation)),
    ];
    const handles = new Set(sights.map(({ operation }) => operation.session?.handle));
    /** @type {Violation[]} */
    const found = [];
    for (const gone of over) {
      if (asked.isGone(gone) && !ends.some((end) => end.start < gone.end)) {
        found.push(violation("ended without cause", `${gone.kind} found no session`, gone));
      }
      const isRead = (/** @type {Operation} */ { kind }) => kind === "look" || kind === "rotate";
      for (const sight of operations.filter((operation) => asked.isAlive(operation))) {
        const knows = !sight.lagging || !isRead(sight) || sight.after === gone.id;
        if (gone.end < sight.start && knows) {
          found.push(
            violation("resurrected", `${sight.kind} found what had ended before it began`, gone, sight),
          );
        }
      }
    }
    for (const operation of operations) {
      const { kind, session } = operation;
      if (kind === "reuse" && asked.dataSeen(operation)) {
        found.push(violation("resurrected", "an old id works after its grace", operation));
      }
      if (!session || asked.dataSeen(operation)) continue;
      if (handles.has(session.handle) || !isDeepStrictEqual(session.data, alone(operation))) {
        found.push(violation("resurrected", `in a new session for client ${operation.client}`, operation));
      }
    }
    // What failed may leave copies behind, to which no id leads; what went well may not. But a login under way
    // when its user's sessions are revoked writes a record that is dead.
    const records = history.stored.filter(({ value }) => value.includes(JSON.stringify(began.birth)));
    const most = operations.some((operation) => operation.last && asked.dataSeen(operation)) ? 1 : 0;
    const isOvertaken = revocations.some(({ start, end }) => start < began.end && began.start < end);
    if (!history.faulty && !isOvertaken && records.length > most) {
      found.push(violation("left behind", records.map(({ key }) => key).join(", "), ...over));
    }
    return found;
  },

  /** A rotated id has one successor, the same for all. */
  function successors(asked) {
    const { operations, sights, history } = asked;
    /** @type {Violation[]} */
    const found = [];
    const seen = sights.flatMap(({ operation }) => (operation.lagging ? [] : [operation]));
    const handleOf = (/** @type {Operation} */ { session }) => session?.handle;
    // 1. In the end all ids lead to one.
    const last = seen.filter((operation) => operation.last && !asked.isAfterReuse(operation));
    const other = last.find(
      (operation) => handleOf(operation) !== handleOf(/** @type {Operation} */ (last[0])),
    );
    if (other) found.push(violation("fork", "two ids in the end", /** @type {Operation} */ (last[0]), other));
    // 2. None comes back after another one.
    for (const middle of seen) {
      const before = new Map(
        seen.filter(({ end }) => end < middle.start).map((operation) => [handleOf(operation), operation]),
      );
      for (const late of seen.filter(({ start }) => middle.end < start)) {
        const early = before.get(handleOf(late));
        if (early && handleOf(late) !== handleOf(middle)) {
          found.push(violation("fork", "an id came back", early, middle, late));
        }
      }
    }
    // 3. As many as there were ids to rotate.
    const rotations = operations.filter(({ kind }) => kind === "rotate");
    for (const rotation of rotations) {
      if (rotation.session && rotation.session.handle === rotation.carried) {
        found.push(violation("not rotated", "the same id", rotation));
      }
    }
    const handles = new Set(sights.map(({ operation }) => handleOf(operation)));
    if (!history.restless && handles.size - 1 > ROTATIONS) {
      found.push(violation("too many rotations", `${handles.size - 1} at once`, ...rotations));
    }
    for (const refused of rotations.filter(({ status }) => status === 429)) {
      const before = rotations.filter((other) => other !== refused && other.start < refused.end);
      if (before.length < ROTATIONS) {
        found.push(violation("refused without cause", `after ${before.length} rotations`, refused));
      }
    }
    const rotated = new Set(rotations.map(({ carried }) => carried));
    if (!history.restless && handles.size - 1 > rotated.size) {
      const what = `${handles.size - 1} for ${rotated.size} ids`;
      found.push(violation("more than one successor", what, ...rotations));
    }
    return found;
  },
];

/** What in this history breaks the contract. @param {History} history @returns {Violation[]} */
export function check(history) {
  const beginnings = history.operations.filter(({ kind }) => kind === "create" || kind === "login");
  const cases = beginnings.map((began) => new Case(history, began));
  return [
    ...GENERAL_RULES.flatMap((rule) => rule(history)),
    ...cases.flatMap((asked) => RULES.flatMap((rule) => rule(asked))),
  ];
}
