/**
 * The client of Cloakroom: sessions, login and devices, from a page, an app or a program.
 *
 * What a call rejects with is a {@link CloakroomError}; or what your own code has thrown: an `update`'s function, a
 * storage of tickets.
 */

/** Somebody who is logged in. `id` is stable; `name` is for showing. */
export interface User {
  id: string;
  name: string;
  roles: string[];
}

/** A visitor's session. Moments are RFC 3339. */
export interface Session<T = Record<string, unknown>> {
  /** A public name; it lets nobody log in. It changes with each rotation. */
  handle: string;
  /** Null: nobody is logged in. */
  user: User | null;
  data: T;
  created_at: string;
  authenticated_at: string | null;
  /** It ends then, however busy it is. */
  expires_at: string;
  /** It ends then if it is not used. */
  idle_expires_at: string;
  remember: boolean;
  /** Changes exactly when the stored session does; for `ifMatch`. */
  etag: string;
}

/** An entry of the device list. */
export interface Device {
  handle: string;
  /** Whether it is the session that asks. */
  current: boolean;
  created_at: string;
  last_seen_at: string;
  remember: boolean;
  user_agent: string | null;
  ip: string | null;
  /** The provider that has said who the user is, if one has. */
  provider?: string;
}

/** Where one can log in beside a password: a provider of `accounts.providers`. */
export interface Provider {
  id: string;
  /** For showing. */
  name: string;
  /** Whether who is logged in can log in with it. */
  linked: boolean;
}

/** RFC 6902, and `increment`. */
export type Operation =
  | { op: "add" | "replace" | "test"; path: string; value: unknown }
  | { op: "remove"; path: string }
  | { op: "move" | "copy"; from: string; path: string }
  | { op: "increment"; path: string; value: number };

/** RFC 7396: members to set; null takes one out. Arrays are replaced as a whole. */
export type MergePatch<T> = T extends readonly unknown[]
  ? T
  : T extends object
    ? { [K in keyof T]?: MergePatch<T[K]> | null }
    : T;

/** The Worker's codes, and the client's own; an unknown one is passed on as it is. */
export type ErrorCode =
  | "bad_request"
  | "unauthenticated"
  | "invalid_credentials"
  | "cross_site"
  | "reauthenticate"
  | "forbidden"
  | "not_found"
  | "method_not_allowed"
  | "conflict"
  | "precondition_failed"
  | "too_large"
  | "unsupported_media_type"
  | "unprocessable"
  | "rate_limited"
  | "internal"
  | "misconfigured"
  | "store_unavailable"
  | "provider_unavailable"
  /** No answer: offline, the server is down, the origin is not allowed, or `baseUrl` is no URL. */
  | "network"
  /** No answer within `timeout`. */
  | "timeout"
  /** By the call's `signal`. */
  | "aborted"
  /** The answer is not one of Cloakroom's: a wrong `baseUrl`, or something in front of it. */
  | "not_cloakroom"
  /** The answer was cut off. */
  | "incomplete"
  /** Bearer tickets in a browser. */
  | "unsupported"
  | (string & {});

export interface CloakroomErrorDetails {
  status?: number;
  detail?: string;
  retryAfter?: number;
  maybeDone?: boolean;
  cause?: unknown;
}

export class CloakroomError extends Error {
  constructor(code: ErrorCode, message: string, details?: CloakroomErrorDetails);
  code: ErrorCode;
  /** The answer's; undefined when there was none. */
  status?: number;
  /** What the Worker says of it, for people. */
  detail?: string;
  /** Seconds, of `Retry-After`. */
  retryAfter?: number;
  /** Nobody knows whether it was done: look before you do it again. */
  maybeDone: boolean;
}

export interface CallOptions {
  /** Ends the call, also while it waits. */
  signal?: AbortSignal;
  /** As in {@link ClientOptions}, for this call. */
  waitForLimits?: boolean | number;
}

export interface ChangeOptions extends CallOptions {
  /**
   * An ETag: only if the session is still in that state. `"*"`: only if there is a session. `null`: only if there is
   * none. Else `precondition_failed`.
   */
  ifMatch?: string | null;
}

export interface TicketStorage {
  get(): string | null | undefined | Promise<string | null | undefined>;
  set(ticket: string): unknown;
  remove(): unknown;
}

export interface ClientOptions {
  /** Where the Worker's routes are; default `"/auth"`. Outside of pages: with the origin. */
  baseUrl?: string;
  /** Must honour `signal`. Default: the global one. */
  fetch?: (url: string, init: RequestInit) => Promise<Response>;
  /** Milliseconds for a request and its answer; default 15,000. */
  timeout?: number;
  /** How often a request is made again that is safe to repeat; default 2. */
  retries?: number;
  /** Waits out a 429 for as many seconds in all; `true`: 60. Default: it does not. A day at most. */
  waitForLimits?: boolean | number;
  /** `"bearer"`: without cookies, for programs and apps; see `bearer.enabled` of the Worker. */
  transport?: "cookie" | "bearer";
  /** Where a bearer ticket is kept; default: in memory. */
  storage?: TicketStorage;
}

export interface Client<T = Record<string, unknown>> {
  /** The session as it was last seen; null: there is none; undefined: not known yet. */
  readonly current: Session<T> | null | undefined;
  /**
   * Calls `listener` with the newest session whenever it is another one: by a call of this page or of another tab, or
   * found when the page comes back. Looks at once if nothing is known yet.
   * @returns a function that ends it
   */
  onChange(listener: (session: Session<T> | null) => void): () => void;

  session(options?: CallOptions): Promise<Session<T> | null>;
  /** A JSON Patch: all of it or nothing. Begins a session if there is none, as every change does. */
  patch(operations: Operation[], options?: ChangeOptions): Promise<Session<T>>;
  merge(partial: MergePatch<T>, options?: ChangeOptions): Promise<Session<T>>;
  /** Adds `by` (1) to the number at a JSON Pointer such as `"/views"`. */
  increment(pointer: string, by?: number, options?: ChangeOptions): Promise<Session<T>>;
  /**
   * Reads, lets `edit` change a copy of the data or give new data, and stores what differs if nobody has changed the
   * session meanwhile; else it begins anew. `edit` may so run several times. Null: there was no session and no change.
   */
  update(
    edit: (data: T, session: Session<T> | null) => T | void | Promise<T | void>,
    options?: CallOptions,
  ): Promise<Session<T> | null>;
  /** A new id for the same session. */
  rotate(options?: CallOptions): Promise<Session<T>>;

  register(credentials: { username: string; password: string }, options?: CallOptions): Promise<Session<T>>;
  login(
    credentials: { username: string; password: string; remember?: boolean },
    options?: CallOptions,
  ): Promise<Session<T>>;
  logout(options?: CallOptions): Promise<void>;

  /** Where one can log in beside a password, in the order of the Worker's settings. */
  providers(options?: CallOptions): Promise<Provider[]>;
  /**
   * The address that begins a login with a provider: a link, or for `location.assign`. It leads back to `returnTo`, a path
   * of the Worker's origin (`"/"`), with `login_error` in the query if the login has failed. `fresh`: the user has to prove
   * anew who they are, which sensitive calls ask a provider's user for with the code `reauthenticate`.
   */
  loginUrl(provider: string, options?: { returnTo?: string; remember?: boolean; fresh?: boolean }): string;
  /** Begins to tie a provider to the account: resolves to its address, for `location.assign`, which leads back as a login does. */
  link(provider: string, options?: CallOptions & { returnTo?: string }): Promise<string>;
  /** The provider does not open the account any more. */
  unlink(provider: string, options?: CallOptions): Promise<void>;

  /** Gives the password again, which sensitive calls ask for with the code `reauthenticate`. */
  reauthenticate(password: string, options?: CallOptions): Promise<Session<T>>;
  /** Ends every other session of the user. */
  changePassword(passwords: { current: string; new: string }, options?: CallOptions): Promise<Session<T>>;
  /** Another password by the token of a reset, which your service has sent: it is used up, and every other session of the user ends. */
  resetPassword(reset: { token: string; new: string }, options?: CallOptions): Promise<Session<T>>;
  deleteAccount(password: string, options?: CallOptions): Promise<void>;

  devices(options?: CallOptions): Promise<Device[]>;
  endDevice(handle: string, options?: CallOptions): Promise<void>;
  endDevices(options?: CallOptions & { keepCurrent?: boolean }): Promise<void>;

  /** The user's own document, which outlives sessions. */
  profile<P = Record<string, unknown>>(options?: CallOptions): Promise<P>;
  updateProfile<P = Record<string, unknown>>(partial: MergePatch<P>, options?: CallOptions): Promise<P>;
}

/** `T` is the type of the session's data. */
export function createClient<T = Record<string, unknown>>(options?: ClientOptions): Client<T>;
