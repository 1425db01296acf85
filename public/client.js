// The client (client/) in one file, as `npm run build` writes it. Its types are in client.d.ts.

// client/src/bearer.js
var withTickets = (fetch2, storage) => async (url, init) => {
  const ticket = await storage.get();
  const response = await fetch2(url, {
    ...init,
    credentials: "omit",
    headers: {
      .../** @type {Record<string, string>} */
      init.headers,
      "Session-Transport": "bearer",
      ...ticket && { Authorization: `Bearer ${ticket}` }
    }
  });
  const next = response.headers.get("session-token");
  if (next) await storage.set(next);
  else if (next === "") await storage.remove();
  return response;
};
function inMemory() {
  let ticket = "";
  return {
    get: () => ticket,
    set: (value) => void (ticket = value),
    remove: () => void (ticket = "")
  };
}

// client/src/errors.js
var CloakroomError = class extends Error {
  /** @param {string} code @param {string} message @param {CloakroomErrorDetails} [more] */
  constructor(code, message, more) {
    super(message);
    Object.assign(this, { name: "CloakroomError", code, maybeDone: false, ...more });
  }
};

// client/src/exchange.js
async function exchange(send, member) {
  const more = {};
  const failed = (code, message, cause) => new CloakroomError(code, message, { ...more, cause });
  let response;
  try {
    response = await send();
  } catch (cause) {
    throw failed("network", "no answer; check baseUrl, network, cors.origins", cause);
  }
  const { status, headers, ok } = response;
  const type = (
    /** @type {string} */
    headers.get("content-type")
  );
  more.status = status;
  more.retryAfter = secondsUntil(headers);
  let text, json;
  try {
    text = await response.text();
    if (/[/+]json\b/i.test(type)) json = JSON.parse(text);
  } catch (cause) {
    throw failed("incomplete", "cut off; try again", cause);
  }
  if (ok && (member === null ? status === 204 : json && (!member || typeof json[member] === "object")))
    return [member ? json[member] : json, headers, text];
  more.detail = json?.detail;
  if (ok || typeof json?.code !== "string")
    throw failed("not_cloakroom", `not Cloakroom (${status} ${type}); check baseUrl`);
  throw failed(json.code, json.detail ?? json.code);
}
function secondsUntil(headers) {
  const value = (
    /** @type {string} */
    headers.get("retry-after")
  );
  const seconds = /\D/.test(value) ? Math.ceil((Date.parse(value) - Date.parse(
    /** @type {string} */
    headers.get("date")
  )) / 1e3) : +value;
  return seconds > 0 ? seconds : void 0;
}

// client/src/patch.js
var MOST_OPERATIONS = 1e3;
var copy = (value) => JSON.parse(JSON.stringify(value));
function difference(before, after) {
  const operations = [];
  const compare = (before2, after2, path) => {
    if (before2 === after2) return;
    if (after2 && typeof after2 === "object" && before2?.constructor === after2.constructor)
      for (const key of /* @__PURE__ */ new Set([...Object.keys(before2).reverse(), ...Object.keys(after2)]))
        compare(own(before2, key), own(after2, key), `${path}/${key.replace(/~/g, "~0").replace(/\//g, "~1")}`);
    else
      operations.push({
        op: after2 === void 0 ? "remove" : before2 === void 0 ? "add" : "replace",
        path,
        value: after2
      });
  };
  compare(before, after, "");
  return operations.length > MOST_OPERATIONS ? [{ op: "replace", path: "", value: after }] : operations;
}
var own = (object, key) => Object.hasOwn(object, key) ? object[key] : void 0;

// client/src/timing.js
function unless(signal, start) {
  let abort;
  let timer;
  return new Promise((resolve, reject) => {
    abort = () => reject(new CloakroomError("aborted", "aborted by its signal", { cause: signal?.reason }));
    if (signal?.aborted) return abort();
    signal?.addEventListener("abort", abort);
    timer = start(resolve, reject);
  }).finally(() => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  });
}
var pause = (milliseconds, signal) => unless(signal, (resolve) => setTimeout(resolve, milliseconds));

// client/src/turns.js
var PATIENCE = 15e3;
function takeTurns(name) {
  const queue = /* @__PURE__ */ new Map();
  const acrossTabs = async (alone, work) => {
    let began;
    try {
      if (globalThis.location)
        return await navigator.locks.request(
          name,
          { mode: alone ? "exclusive" : "shared", signal: AbortSignal.timeout(PATIENCE) },
          () => (began = 1, work())
        );
    } catch (error) {
      if (began) throw error;
    }
    return work();
  };
  return (alone, work) => {
    const before = [...queue].map(([over2, isAlone]) => (alone || isAlone) && over2);
    const done = Promise.all(before).then(() => acrossTabs(alone, work));
    const over = done.catch(() => {
    }).then(() => queue.delete(over));
    queue.set(over, alone);
    return done;
  };
}

// client/src/watch.js
function watch(name, look) {
  const listeners = /* @__PURE__ */ new Set();
  let current;
  let currentKey = false;
  let clock = 1;
  let sentLast = 0;
  let shownLast = 0;
  let staleLast = 1;
  let isLooking = false;
  let channel;
  const refresh = async () => {
    staleLast = ++clock;
    if (isLooking || !listeners.size || globalThis.document?.hidden) return;
    isLooking = true;
    let reason;
    do {
      reason = staleLast;
      await look().catch(() => {
      });
    } while (reason !== staleLast);
    isLooking = false;
  };
  if (globalThis.location) {
    for (const type of ["visibilitychange", "pageshow", "online"])
      addEventListener(type, (event) => {
        if (
          /** @type {any} */
          event.persisted !== false
        ) refresh();
      });
    try {
      channel = new BroadcastChannel(name);
      channel.onmessage = refresh;
    } catch {
    }
  }
  const show = (session, key, sentAt) => {
    const isNew = key !== currentKey || current === void 0;
    if (sentAt < shownLast) {
      if (isNew) refresh();
      return;
    }
    sentLast = sentAt;
    shownLast = ++clock;
    if (!isNew) return;
    current = session;
    currentKey = key;
    for (const listener of listeners) queueMicrotask(() => listener(session));
  };
  const announce = () => channel?.postMessage(0);
  const onChange = (listener) => {
    listeners.add(listener);
    if (staleLast > sentLast) refresh();
    return () => void listeners.delete(listener);
  };
  return (
    /** @type {const} */
    [onChange, refresh, show, announce, () => ++clock, () => current]
  );
}

// client/src/index.js
var ALONE = 1;
var BEGINS = 2;
var REPEATS = 4;
var ENDS = 8;
var USUAL_WAIT = 60;
var LONGEST_WAIT = 86400;
var LONGEST_FAILURE = 10;
var MOST_CONFLICTS = 20;
function createClient({
  baseUrl = "/auth",
  fetch: plainFetch = fetch,
  timeout = 15e3,
  retries = 2,
  waitForLimits: usualWait = 0,
  transport,
  storage = inMemory()
} = {}) {
  const isBearer = transport === "bearer";
  if (isBearer && globalThis.document && plainFetch === fetch)
    throw new CloakroomError("unsupported", "browsers add Origin: use cookies");
  const base = baseUrl.replace(/\/+$/, "");
  const name = `cloakroom ${base}`;
  const send = isBearer ? withTickets(plainFetch, storage) : plainFetch;
  const inTurn = takeTurns(name);
  const [onChange, refresh, show, announce, now, current] = watch(name, () => session());
  let hasSession = false;
  const call = async (method, path, is, { signal, waitForLimits = usualWait, ifMatch } = {}, member = "session", body, type = "json") => {
    body = body && JSON.stringify(body);
    if (ifMatch === null) is = ALONE | REPEATS;
    else if (ifMatch) is = ifMatch === "*" ? is & ~BEGINS : REPEATS;
    const changes = method !== "GET";
    let seconds = Math.min(
      waitForLimits === true ? USUAL_WAIT : (
        /** @type {number} */
        waitForLimits
      ),
      LONGEST_WAIT
    );
    let wait = 0;
    let failures = 0;
    let lost;
    for (; ; ) {
      const alone = is & ALONE || is & BEGINS && !hasSession;
      const controller = new AbortController();
      let isSent = false;
      const attempt = async (fail) => {
        if (controller.signal.aborted) return;
        const timer = setTimeout(
          () => fail(new CloakroomError("timeout", "too slow; try again")),
          Math.min(timeout, LONGEST_WAIT * 1e3)
        );
        const sentAt = now();
        isSent = true;
        const match = is & BEGINS && !alone ? "*" : ifMatch;
        const [result, headers, text] = await exchange(
          () => send(base + path, {
            method,
            signal: controller.signal,
            credentials: "include",
            redirect: "manual",
            body,
            headers: {
              ...body && { "Content-Type": `application/${type}` },
              ...match && { "If-Match": match },
              ...ifMatch === null && { "If-None-Match": "*" }
            }
          }),
          member
        ).finally(() => clearTimeout(timer));
        if (isBearer && !/auth/i.test(
          /** @type {string} */
          headers.get("vary")
        ))
          throw new CloakroomError("not_cloakroom", "set bearer.enabled");
        if (is & ENDS) await storage.remove();
        if (member === "session" || is & ENDS) {
          hasSession = !!result;
          const etag = headers.get("etag");
          if (hasSession) result.etag = etag;
          show(result ?? null, hasSession && etag + text, sentAt);
        }
        return result;
      };
      try {
        if (wait) await pause(wait * 1e3, signal);
        const result = await unless(signal, (resolve, reject) => {
          inTurn(alone, () => attempt(reject)).then(resolve, reject);
        }).finally(() => controller.abort());
        if (changes) announce();
        return result;
      } catch (thrown) {
        const error = (
          /** @type {Failure} */
          thrown
        );
        const { status = 0, retryAfter = 0 } = error;
        const isUnclear = status < 300 || status > 499;
        if (isUnclear && isSent && changes) {
          error.maybeDone = true;
          lost = error;
        }
        if (status === 401 || status === 412) hasSession = false;
        if (status === 412 && is & BEGINS && !alone) continue;
        if (status === 429 && (wait = Math.max(1, retryAfter)) <= seconds) seconds -= wait;
        else if (isUnclear && is & REPEATS && failures < retries && retryAfter <= LONGEST_FAILURE && !signal?.aborted)
          wait = retryAfter + ++failures * Math.random();
        else {
          if (lost || status === 401 && current()?.user) {
            announce();
            refresh();
          }
          throw lost ?? error;
        }
      }
    }
  };
  const session = (options) => call("GET", "/session", REPEATS, options);
  const patch = (operations, options) => call("PATCH", "/session/data", BEGINS, options, void 0, operations, "json-patch+json");
  const enter = (path) => (body, options) => call("POST", path, ALONE, options, void 0, body);
  const end = (path, is, options, body) => call("DELETE", path, ALONE | is, options, null, body);
  const way = (how, provider, returnTo) => `/${how}/${encodeURIComponent(provider)}?return_to=${encodeURIComponent(returnTo)}`;
  return {
    get current() {
      return current();
    },
    onChange,
    session,
    patch,
    merge: (partial, options) => call("PATCH", "/session/data", BEGINS | REPEATS, options, void 0, partial),
    increment: (path, value = 1, options) => patch([{ op: "increment", path, value }], options),
    async update(edit, options) {
      let lost;
      try {
        for (let conflicts = 0; ; conflicts++) {
          const before = await session(options);
          const data = before?.data ?? {};
          const edited = copy(data);
          const operations = difference(data, copy(await edit(edited, before) ?? edited));
          if (!operations.length) return before;
          if (lost) throw lost;
          const ifMatch = before ? before.etag : null;
          const changed = await patch(operations, { ...options, ifMatch }).catch((error) => {
            if (error.maybeDone) lost = error;
            else if (error.status !== 412 || conflicts === MOST_CONFLICTS) throw error;
          });
          if (changed) return changed;
          await pause(Math.random() * 50 * conflicts, options?.signal);
        }
      } catch (error) {
        throw lost ?? error;
      }
    },
    rotate: (options) => call("POST", "/session/rotate", ALONE | REPEATS, options),
    register: enter("/register"),
    login: enter("/login"),
    changePassword: enter("/password"),
    resetPassword: enter("/reset"),
    reauthenticate: (password, options) => enter("/reauthenticate")({ password }, options),
    deleteAccount: (password, options) => end("/account", ENDS, options, { password }),
    logout: (options) => end("/session", REPEATS | ENDS, options),
    providers: (options) => call("GET", "/providers", REPEATS, options, "providers"),
    loginUrl: (provider, { returnTo = "/", remember, fresh } = {}) => base + way("login", provider, returnTo) + (remember ? "&remember=1" : "") + (fresh ? "&fresh=1" : ""),
    link: async (provider, { returnTo = "/", ...options } = {}) => (await call("POST", way("link", provider, returnTo), REPEATS, options, "")).location,
    unlink: (provider, options) => call("DELETE", `/link/${encodeURIComponent(provider)}`, REPEATS, options, null),
    devices: (options) => call("GET", "/sessions", REPEATS, options, "sessions"),
    endDevice: (handle, options) => end(`/sessions/${encodeURIComponent(handle)}`, current()?.handle === handle ? ENDS : 0, options),
    endDevices: ({ keepCurrent, ...options } = {}) => keepCurrent ? end("/sessions?keep=current", REPEATS, options) : end("/sessions", ENDS, options),
    profile: (options) => call("GET", "/profile", REPEATS, options, ""),
    updateProfile: (partial, options) => call("PATCH", "/profile", REPEATS, options, "", partial)
  };
}
export {
  CloakroomError,
  createClient
};
