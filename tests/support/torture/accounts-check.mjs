/**
 * Whether a recorded history of one account and its sessions keeps what docs/ promises. Knows nothing of how it
 * was made.
 *
 * The ids of a session form a family. A rotation leads to another id of the same family; a login, a re-authentication
 * and a password change begin a new one, and end the old one.
 */
import { changes, flags, order } from "./documents.mjs";
import { violation } from "./report.mjs";

/** @typedef {import("./report.mjs").Violation} Violation */
/** @typedef {import("./documents.mjs").Data} Data */
/** @typedef {import("./accounts-schedule.mjs").Kind | "register" | "create" | "profile-begin"} AnyKind */

/**
 * @typedef {object} Facts
 * @property {AnyKind} kind
 * @property {string} [birth] of the data that the ticket it came with leads to
 * @property {number} [family] of that ticket
 * @property {number} [begins] the family of the new ticket in its answer
 * @property {number} [target] the family of the session that it names
 * @property {import("./documents.mjs").Change} [change]
 * @property {string} [password] that it proves itself with
 * @property {string} [next] the password from then on
 * @property {{ handle?: string, user?: object | null, data: Data } | null} [session] of the answer, when it has one
 * @property {Data} [profile] of the answer, when it is one
 */
/** @typedef {import("./report.mjs").Told & Facts} Operation */

/**
 * @typedef {object} History
 * @property {Operation[]} operations
 * @property {{ key: string, ttl: number, value: string }[]} stored in the end; `ttl` as PTTL says it
 * @property {number} faults how many struck in the store
 * @property {boolean} left whether all sessions were ended when all was over
 */

/** So many lost answers leave nobody without a session, and nothing unknown for ever. */
const FEW = 2;
/** What leads nowhere any more is forgotten after that. */
const REDIRECT_TTL = 60_000;
/** Of a session in a minute. */
const ROTATIONS = 8;

/** @type {Record<AnyKind, number[]>} beside 409 and 503, which any of them may get */
const ANSWERS = {
  register: [201],
  create: [200],
  "profile-begin": [200],
  look: [200],
  increment: [200, 401],
  merge: [200, 401],
  append: [200, 401, 422],
  set: [200, 401],
  profile: [200, 401],
  "profile-increment": [200, 401],
  "profile-merge": [200, 401],
  "profile-append": [200, 401],
  "profile-set": [200, 401],
  verify: [200, 401],
  rotate: [200, 401, 429],
  login: [200, 401],
  reauthenticate: [200, 401],
  password: [200, 401],
  list: [200, 401],
  end: [204, 401, 404],
  keep: [204, 401],
  "end-all": [204, 401],
  logout: [204],
  delete: [204, 401],
};
/** What a replica may answer that has not heard of the session's end. */
const READS = ["look", "verify", "profile"];
/** What needs a session, and no user. */
const FOR_ALL = ["increment", "merge", "append", "set", "rotate"];
const SWAPS = ["login", "reauthenticate", "password"];

/** @param {{ status: number }} operation */
const isUnknown = ({ status }) => status === 0 || status === 409 || status >= 500;
/** Whether it cannot have been made. @param {{ status: number }} operation */
const isRefused = (operation) => !isUnknown(operation) && operation.status >= 400;
/** @param {Operation} operation */
const isDone = ({ status }) => status >= 200 && status < 300;
/** @param {Operation} operation */
const isWrongPassword = ({ status, code }) => status === 401 && code === "invalid_credentials";

/** Whether a replica that is behind cannot be the reason for its answer. @param {Operation} operation */
const isCurrent = ({ lagging, kind }) => !lagging || !READS.includes(kind);

/** Whether it found the session of its ticket alive. @param {Operation} operation */
function isAlive(operation) {
  const { kind, status, session, birth } = operation;
  if (kind === "logout" || isUnknown(operation)) return false;
  if (kind === "look") return Boolean(session);
  // A dead ticket is none: these begin another session then.
  if (kind === "login") return birth !== undefined && session?.data.birth === birth;
  if (operation.change && !kind.startsWith("profile")) {
    return birth === undefined ? Boolean(session?.user) : session?.data.birth === birth;
  }
  return status !== 401;
}

/** Whether it found that the session of its ticket has ended. @param {Operation} operation @param {boolean} isUsers */
function isGone(operation, isUsers) {
  const { kind, status, session, birth, code } = operation;
  if (kind === "login" || kind === "logout") return false;
  if (status === 401) return code !== "invalid_credentials" && (isUsers || FOR_ALL.includes(kind));
  return status === 200 && session !== undefined && birth !== undefined && session?.data.birth !== birth;
}

/** Where a history is asked about one family. */
class Case {
  /** @param {History} history @param {number} family @param {Operation} by what began it */
  constructor(history, family, by) {
    this.history = history;
    this.family = family;
    this.by = by;
    this.isUsers = Boolean(by.session?.user);
    this.operations = history.operations.filter((operation) => operation.family === family);
  }

  /**
   * Whether the operation ended the family, if it was made; nothing, if it concerns others.
   * @param {Operation} operation
   * @returns {"certainly" | "perhaps" | undefined} "perhaps": the family may have begun after it
   */
  isEndedBy(operation) {
    const { kind, family, target, start, end } = operation;
    if (family === this.family && [...SWAPS, "logout"].includes(kind)) return "certainly";
    if (kind === "end" && target === this.family) return "certainly";
    if (!this.isUsers || !["password", "keep", "end-all", "delete"].includes(kind)) return undefined;
    const isKept = operation.begins === this.family || (kind === "keep" && family === this.family);
    if (isKept) return undefined;
    if (this.by.end < start) return "certainly";
    return this.by.start < end || isUnknown(operation) ? "perhaps" : undefined;
  }

  /** What certainly ended the family, or found it ended. */
  endings() {
    const acknowledged = this.history.operations.filter(
      (operation) => isDone(operation) && this.isEndedBy(operation) === "certainly",
    );
    const seen = this.operations.filter(
      (operation) => isGone(operation, this.isUsers) && isCurrent(operation),
    );
    return [...acknowledged, ...seen];
  }

  /** What may have ended it. With few lost answers, what failed has not: only what succeeded. */
  causes() {
    return this.history.operations.filter((operation) => {
      if (!this.isEndedBy(operation) || isRefused(operation)) return false;
      const isOwnSwap = operation.family === this.family && SWAPS.includes(operation.kind);
      if (isOwnSwap && this.isOvertaken(operation)) return true;
      return !(isOwnSwap && isUnknown(operation) && this.history.faults <= FEW);
    });
  }

  /**
   * A login that began before a revocation counts as before it: it has ended the old session, and the revocation its own.
   * @param {Operation} operation
   */
  isOvertaken({ kind, status, start, end }) {
    if (kind !== "login" || status !== 409) return false;
    const revocations = ["password", "keep", "end-all", "delete"];
    return this.history.operations.some(
      (other) =>
        revocations.includes(other.kind) && !isRefused(other) && other.start < end && start < other.end,
    );
  }

  /** The families that this one continues, and itself. @param {Case[]} all @returns {Case[]} */
  lineage(all) {
    const { family } = this.by;
    const parent = all.find((other) => other.family === family && other.by.id < this.by.id);
    const continues = parent && this.by.session?.data.birth === this.by.birth;
    return continues && this.by.birth !== undefined ? [...parent.lineage(all), this] : [this];
  }
}

/** What holds of each family. @type {((asked: Case, all: Case[]) => Violation[])[]} */
const RULES = [
  /** Once it is over it stays over. */
  function resurrections(asked) {
    const alive = asked.operations.filter(isAlive);
    return asked
      .endings()
      .flatMap((over) =>
        alive
          .filter((sight) => over.end < sight.start && isCurrent(sight))
          .map((sight) => violation("resurrected", `${sight.kind} found what had ended`, over, sight)),
      );
  },

  /** It is over only when someone ended it; a failed login, re-authentication or password change is no such end. */
  function endsHaveCauses(asked) {
    const causes = asked.causes();
    const gone = asked.operations.filter(
      (operation) => isGone(operation, asked.isUsers) && isCurrent(operation),
    );
    const odd = gone.find((one) => !causes.some(({ start }) => start < one.end));
    if (!odd) return [];
    const swaps = asked.operations.filter((one) => SWAPS.includes(one.kind) && one.start < odd.end);
    return [violation("ended without cause", `${odd.kind} found no session`, ...swaps, odd)];
  },

  /** A login carries over what its ticket led to, unless that had ended. */
  function carriesOver(asked) {
    const causes = asked.causes();
    const logins = asked.operations.filter(({ kind, status }) => kind === "login" && status === 200);
    return logins
      .filter((login) => login.birth !== undefined && login.session?.data.birth !== login.birth)
      .filter((login) => !causes.some((other) => other !== login && other.start < login.end))
      .map((login) => violation("not carried over", "the data of a living session", login));
  },

  /** The old id is dead from then on, so whatever was acknowledged under it was made before, and is in the answer. */
  function swapsHoldAll(asked, all) {
    const { by } = asked;
    const data = by.session?.data;
    const before = asked.lineage(all).slice(0, -1);
    if (!data || before.length === 0) return [];
    const made = before
      .flatMap(({ operations }) => operations)
      .filter((one) => one.change && !one.kind.startsWith("profile") && one.status === 200)
      .filter(({ session }) => session?.data.birth === data.birth);
    const missing = made.filter(
      ({ change, tag, client, number = 0 }) =>
        (change === "append" && !data.log?.includes(tag ?? "")) ||
        (change === "merge" && !((data.own?.[`c${client}`] ?? 0) >= number)),
    );
    const increments = made.filter(({ change }) => change === "increment");
    if ((data.n ?? 0) < increments.length) missing.push(...increments);
    if (missing.length === 0) return [];
    return [violation("lost update", `acknowledged under the old id, and missing`, ...missing, by)];
  },

  /** At most so many, and refused only then. */
  function rotations(asked) {
    const rotations = asked.operations.filter(({ kind }) => kind === "rotate");
    const handles = new Set(rotations.flatMap(({ session }) => session?.handle ?? []));
    const found = rotations
      .filter(({ status }) => status === 429)
      .filter((one) => rotations.filter((other) => other.start < one.end).length <= ROTATIONS)
      .map((one) => violation("refused without cause", "few rotations", one));
    if (handles.size > ROTATIONS) found.push(violation("too many rotations", "at once", ...rotations));
    return found;
  },

  /** What proved itself with a password ends with it, unless it is what has changed it. */
  function passwordsEnd(asked) {
    const { by, history } = asked;
    if (by.password === undefined || by.kind === "password") return [];
    const change = history.operations.find(
      ({ kind, status, password }) => kind === "password" && status === 200 && password === by.password,
    );
    if (!change) return [];
    const since = Math.max(change.end, by.end);
    return asked.operations
      .filter((one) => isAlive(one) && since < one.start && isCurrent(one))
      .map((one) => violation("resurrected", "it began with an old password", by, change, one));
  },
];

/** What holds of a history as a whole. @type {((history: History, all: Case[]) => Violation[])[]} */
const GENERAL_RULES = [
  function answers({ operations }) {
    const odd = operations.filter(({ kind, status }) => ![...ANSWERS[kind], 0, 409, 503].includes(status));
    return odd.map((one) => violation("unexpected answer", `${one.kind}: ${one.status}`, one));
  },

  function cookies({ operations }) {
    const touched = operations.filter(({ status, cookies = 0 }) => status >= 500 && cookies > 0);
    return touched.map((one) => violation("cookie changed on a failure", `with a ${one.status}`, one));
  },

  /** The data of every session that there was, through all its ids. */
  function data({ operations }) {
    const births = new Set(operations.flatMap(({ kind, birth }) => (kind === "create" ? [birth] : [])));
    return [...births].flatMap((birth) => {
      /** @type {import("./documents.mjs").Document} */
      const document = {
        changes: operations.filter(
          (one) => one.birth === birth && one.change && !one.kind.startsWith("profile"),
        ),
        sights: operations.flatMap((operation) => {
          const { session } = operation;
          return session?.data.birth === birth ? [{ operation, data: session?.data ?? {} }] : [];
        }),
        isRefused,
        isElsewhere: ({ status, session }) =>
          status === 200 && /** @type {Data | undefined} */ (session?.data)?.birth !== birth,
        isCurrent: ({ lagging }) => !lagging,
        follows: (one, other) => !other.lagging && one.end < other.start,
      };
      return [changes, order, flags].flatMap((rule) => rule(document));
    });
  },

  /** The profile, which is the primary's for everybody. */
  function profile({ operations }) {
    const { changes: all, ...rest } = {
      changes: operations.filter((one) => one.change && one.kind.startsWith("profile")),
      sights: operations.flatMap((operation) => {
        const { profile } = operation;
        return profile ? [{ operation, data: profile }] : [];
      }),
      isRefused,
      isElsewhere: () => false,
      isCurrent: () => true,
      follows: (/** @type {{ end: number }} */ one, /** @type {{ start: number }} */ other) =>
        one.end < other.start,
    };
    return [changes, order, flags].flatMap((rule) => rule({ changes: all, ...rest }));
  },

  /** A password is right until it is changed, by one. */
  function passwords({ operations }) {
    const mayChange = operations.filter(
      (one) => ["password", "delete"].includes(one.kind) && !isRefused(one),
    );
    return operations.flatMap((one) => {
      if (one.password === undefined) return [];
      const its = mayChange.filter((other) => other !== one && other.password === one.password);
      const replaced = its.find((other) => isDone(other) && other.end < one.start);
      if (replaced && isDone(one)) return [violation("resurrected", "an old password", replaced, one)];
      const set = operations.find(({ next }) => next === one.password);
      const isRight = (set === undefined || isDone(set)) && !its.some(({ start }) => start < one.end);
      const isDeleted = mayChange.some(({ kind, start }) => kind === "delete" && start < one.end);
      if (isRight && !isDeleted && isWrongPassword(one)) {
        return [violation("refused without cause", "the right password", ...(set ? [set] : []), one)];
      }
      return [];
    });
  },

  function lifetimes({ stored }) {
    // An account has no end of its own.
    const isEndless = ({ key = "", ttl = 0 }) =>
      ttl === -1 && !/^account:/.test(key) && !/^user:[^:]*:account$/.test(key);
    return stored.filter(isEndless).map(({ key }) => violation("no time to live", key));
  },

  /** When all sessions have ended, nothing of one is stored; a deleted account leaves its revocation mark. */
  function leftovers({ operations, stored, faults, left }) {
    if (!left) return [];
    const isDeleted = operations.some(({ kind, status }) => kind === "delete" && status === 204);
    // What failed may leave copies behind, to which no id leads; and old ids are forgotten after a minute.
    const isOld = ({ key = "", ttl = 0 }) => /^sess:/.test(key) && ttl >= 0 && ttl <= REDIRECT_TTL;
    // A login that a revocation overtook leaves its visitor an anonymous session, whose handle no answer says.
    const overtaken = operations.filter(
      ({ kind, status, cookies = 0 }) => kind === "login" && status === 409 && cookies > 0,
    );
    const isAnonymous = ({ key = "", value = "" }) => {
      const user = /^sess:/.test(key) && value.startsWith("{") ? JSON.parse(value).user : undefined;
      return user === null && overtaken.some(({ birth }) => birth && value.includes(JSON.stringify(birth)));
    };
    const mayStay = isDeleted ? /^(stats:|limit:|user:[^:]*:standing$)/ : /^(?!sess:|family:)/;
    return stored
      .filter((one) => faults === 0 && !mayStay.test(one.key) && !isOld(one) && !isAnonymous(one))
      .map(({ key, value }) => violation("left behind", `${key} ${value.slice(0, 40)}`));
  },
];

/** What in this history breaks the contract. @param {History} history @returns {Violation[]} */
export function checkAccounts(history) {
  const all = history.operations.flatMap((operation) => {
    const { begins } = operation;
    return begins === undefined ? [] : [new Case(history, begins, operation)];
  });
  return [
    ...GENERAL_RULES.flatMap((rule) => rule(history, all)),
    ...all.flatMap((asked) => RULES.flatMap((rule) => rule(asked, all))),
  ];
}
