/**
 * A deployed Worker, asked as a visitor's program would: is it well, are its cookie, its CORS and its clock as they should be. It
 * begins one session, and ends it.
 */
import { TRANSACTION, whyUnreachable } from "./database.mjs";
import { expect, Finding, shortened, Unreachable } from "./finding.mjs";
import { checked, skipped } from "./rows.mjs";

/** @typedef {import("./rows.mjs").Tell} Tell */
/** @typedef {import("./database.mjs").Database} Database */

/** Nobody has it (RFC 6761). */
const STRANGER = "https://doctor.invalid";
const LARGEST_SKEW_MS = 5000;
const PATIENCE_MS = 10_000;
const COOKIE_NAMES = /** @type {Record<string, string>} */ ({ express: "connect.sid", flask: "session" });

/**
 * @typedef {object} Asked
 * @property {number} status
 * @property {Headers} headers
 * @property {any} json nothing if it is none
 * @property {number} sent when, in milliseconds since 1970
 * @property {number} received
 */

export class Deployment {
  #origin;
  #base;
  /** Of the session that was begun, and has not been ended. */
  #cookie = "";
  /** @type {Promise<unknown>} */
  #beginning = Promise.resolve();

  /** @param {{ url: string, base: string }} where `base`: `base_path` */
  constructor({ url, base }) {
    this.#origin = new URL(url).origin;
    this.#base = base;
  }

  get origin() {
    return this.#origin;
  }

  /** The path of a route, for people. @param {string} route */
  path(route) {
    return this.#base + route;
  }

  /**
   * @param {string} method
   * @param {string} route
   * @param {{ headers?: Record<string, string>, body?: string, withCookie?: boolean }} [request]
   * @returns {Promise<Asked>} Throws {@link Unreachable}.
   */
  async ask(method, route, { headers = {}, body, withCookie = false } = {}) {
    const sent = Date.now();
    try {
      const response = await fetch(this.#origin + this.#base + route, {
        method,
        headers: {
          ...(body === undefined ? {} : { "content-type": "application/json" }),
          ...(withCookie && this.#cookie ? { cookie: this.#cookie } : {}),
          ...headers,
        },
        body,
        redirect: "manual",
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      const text = await response.text();
      let json;
      try {
        json = JSON.parse(text);
      } catch {} // not ours
      return { status: response.status, headers: response.headers, json, sent, received: Date.now() };
    } catch (error) {
      throw new Unreachable(whyUnreachable(error, PATIENCE_MS));
    }
  }

  /** Begins a session, whose cookie is sent from then on. @returns {Promise<Asked>} */
  async begin() {
    const begun = this.ask("PATCH", "/session/data", { body: "{}" }).then((answer) => {
      this.keep(answer.headers.getSetCookie());
      return answer;
    });
    this.#beginning = begun.catch(() => {});
    return begun;
  }

  /** Sends these cookies from now on. @param {string[]} lines of Set-Cookie */
  keep(lines) {
    this.#cookie = lines.map((line) => line.split(";", 1)[0]).join("; ");
  }

  /** Ends the session, if there is one. @returns {Promise<Asked | undefined>} */
  async end() {
    await this.#beginning;
    if (!this.#cookie) return undefined;
    const answer = await this.ask("DELETE", "/session", { withCookie: true });
    if (answer.status === 204) this.#cookie = "";
    return answer;
  }
}

/**
 * @param {object} what
 * @param {Deployment} what.deployment
 * @param {Record<string, any>} what.table the settings that it should have
 * @param {string} [what.adminToken]
 * @param {Database} [what.database] the one that it should use
 * @param {Tell} tell
 * @returns {Promise<boolean>} whether it could be reached at all
 */
export async function checkDeployment({ deployment, table, adminToken, database }, tell) {
  const [cookie, cors] = [table.cookie ?? {}, table.cors ?? {}];
  const keyPrefix = table.key_prefix ?? "";
  const group = "deployment";
  const isNative = (cookie.format ?? "cloakroom") === "cloakroom";
  const isSafe = isEncrypted(deployment.origin);
  let [isReached, isOurs, handle] = [true, true, ""];
  /** @type {string[]} */
  let lines = [];
  /** @type {Asked | undefined} */
  let begun;

  /**
   * @param {string} id
   * @param {string} what
   * @param {string} otherwise
   * @param {() => Promise<string | void> | string | void} check
   */
  const row = async (id, what, otherwise, check) => {
    const named = { group, id, what, otherwise };
    if (!isOurs) return void tell(skipped(named, "the Worker does not answer: see above"));
    const { result, isUnreachable } = await checked(named, check);
    tell(result);
    if (id === "health") {
      isReached = !isUnreachable;
      isOurs = result.status !== "failed";
    }
  };
  const needsSession = () => {
    if (!handle) throw new Finding("no session was begun: see above", "skipped");
  };

  await row("https", "it is called over HTTPS", "Cookies and passwords can be read on the way.", () => {
    expect(isSafe, "the URL begins with http://");
    if (deployment.origin.startsWith("http:")) return "no, but on this machine";
  });
  await row(
    "health",
    `${deployment.path("/health")} says that it is well`,
    "Visitors have no sessions.",
    async () => {
      const answer = await deployment.ask("GET", "/health");
      if (answer.status === 200 && answer.json?.status === "ok") return `${answer.received - answer.sent} ms`;
      throw new Finding(whatHealthSays(answer));
    },
  );
  await row("begin", "a first change begins a session", "Visitors get no session.", async () => {
    begun = await deployment.begin();
    lines = begun.headers.getSetCookie();
    if (begun.status === 429)
      throw new Finding("this address has begun too many sessions: try again in a minute", "skipped");
    expect(begun.status === 200, `status ${begun.status}, ${said(begun)}`);
    const begins = begun.json?.session?.handle;
    expect(typeof begins === "string" && lines.length > 0, "the answer has no session, or sets no cookie");
    handle = begins;
  });
  await row(
    "cookie",
    "its cookie has the attributes of the settings",
    "Another site or script can get at the cookie, or browsers drop it. Is the deployment older than wrangler.toml? Or does a proxy change it?",
    () => {
      needsSession();
      const wanted = attributes(cookie);
      const name = cookie.name ?? COOKIE_NAMES[cookie.format] ?? "__Host-session";
      const line = lines.find((one) => one.startsWith(`${name}=`));
      if (!line)
        throw new Finding(
          `no cookie named ${name}, but ${lines.map((one) => one.split("=", 1)[0]).join(", ")}`,
        );
      const [, ...parts] = line.split(";").map((part) => part.trim().toLowerCase());
      const wrong = wanted.filter((one) => !parts.includes(one.toLowerCase()));
      const surplus = parts.filter((part) => !wanted.some((one) => one.toLowerCase() === part));
      expect(
        !wrong.length && !surplus.length,
        `${named("missing", wrong)}${named("not expected", surplus)}`.trim(),
      );
      return [name, ...wanted].join("; ");
    },
  );
  await row(
    "headers",
    "its answers arrive unchanged (Cache-Control, X-Content-Type-Options, ETag)",
    "A cache in between could give one visitor's session to another, or break If-Match.",
    () => {
      needsSession();
      const { headers } = /** @type {Asked} */ (begun);
      const control = headers.get("cache-control") ?? "";
      expect(
        /\bno-store\b/.test(control) && /\bno-transform\b/.test(control),
        `Cache-Control: ${shortened(control)}`,
      );
      expect(headers.get("x-content-type-options") === "nosniff", "X-Content-Type-Options is missing");
      expect(/^"/.test(headers.get("etag") ?? ""), `ETag: ${shortened(headers.get("etag") ?? "missing")}`);
    },
  );
  await row("read", "the next request sees the session", "Visitors lose their session at once.", async () => {
    needsSession();
    const answer = await deployment.ask("GET", "/session", { withCookie: true });
    expect(answer.status === 200, `status ${answer.status}, ${said(answer)}`);
    expect(answer.json?.session?.handle === handle, "it is another session, or none");
  });
  await row(
    "same-database",
    "its sessions are in the database above",
    "Its UPSTASH_REDIS_REST_URL or key_prefix is another than here: what was found above says nothing about it.",
    async () => {
      needsSession();
      if (!database) throw new Finding("no database was looked at", "skipped");
      if (!isNative) throw new Finding('only with cookie.format = "cloakroom"', "skipped");
      const key = `${keyPrefix}sess:${handle}`;
      // With GETEX the primary answers.
      const [values] = await database.run(TRANSACTION, [
        ["MGET", key],
        ["GETEX", key],
      ]);
      const list = values && "result" in values && Array.isArray(values.result) ? values.result : [];
      expect(typeof list[0] === "string", "the session is not there");
    },
  );
  await row(
    "clock",
    "its clock is near this machine's",
    "Sessions end too early or too late. Is this machine's own clock right?",
    () => {
      needsSession();
      const { json, sent, received } = /** @type {Asked} */ (begun);
      const created = Date.parse(json.session.created_at); // the second in which it was
      const ahead = created > received ? created - received : Math.min(created + 1000 - sent, 0);
      expect(
        Math.abs(ahead) <= LARGEST_SKEW_MS,
        `${Math.round(Math.abs(ahead) / 1000)} s ${ahead < 0 ? "behind" : "ahead"}`,
      );
    },
  );
  await row(
    "cross-site",
    "a change that another site's page asks for is refused",
    "Other sites can act in a visitor's name. Does a proxy remove Origin and Sec-Fetch-Site? Is cors.origins too wide?",
    async () => {
      const headers = { origin: STRANGER, "sec-fetch-site": "cross-site" };
      needsSession();
      // With the cookie: where it is not refused it changes nothing, and begins nothing.
      const request = { body: "{}", headers, withCookie: true };
      const answer = await deployment.ask("PATCH", "/session/data", request);
      expect(answer.status === 403 && answer.json?.code === "cross_site", `status ${answer.status}`);
    },
  );
  /** @type {string[]} */
  const allowed = Array.isArray(cors.origins) ? cors.origins : [];
  const origins = allowed.filter((origin) => !String(origin).includes("*"));
  await row("cors", "pages of cors.origins may call", "Their calls fail in the browser.", async () => {
    if (!origins.length) throw new Finding("cors.origins names none", "skipped");
    for (const origin of origins) {
      const { headers } = await preflight(deployment, origin);
      const isAllowed =
        headers.get("access-control-allow-origin") === origin &&
        headers.get("access-control-allow-credentials") === "true";
      expect(isAllowed, `not ${origin}`);
    }
    return `${origins.length} of them`;
  });
  await row(
    "cors-others",
    "pages of other origins may not",
    "Any site can read visitors' sessions.",
    async () => {
      const { headers } = await preflight(deployment, STRANGER);
      const allowed = headers.get("access-control-allow-origin");
      expect(allowed === null, `Access-Control-Allow-Origin: ${shortened(allowed ?? "")}`);
    },
  );
  await row(
    "admin",
    "the service API knows ADMIN_TOKEN",
    "Back ends and `npm run inspect` cannot use it: set the same token with `npx wrangler secret put ADMIN_TOKEN`.",
    async () => {
      if (!adminToken) throw new Finding("ADMIN_TOKEN is not here", "skipped");
      if (!isSafe) throw new Finding("the token is not sent without HTTPS", "skipped");
      const headers = { authorization: `Bearer ${adminToken}` };
      const { status } = await deployment.ask("GET", "/admin/stats", { headers });
      expect(status !== 401, "the deployment has another token");
      expect(status !== 404, "the deployment has none: its service API is off");
      expect(status === 200, `status ${status}`);
    },
  );
  await row(
    "end",
    "a logout ends the session and removes the cookie",
    "Visitors stay logged in.",
    async () => {
      needsSession();
      const answer = await deployment.end();
      expect(answer?.status === 204, `status ${answer?.status}`);
      const isRemoved = answer?.headers
        .getSetCookie()
        .some((line) => /max-age=0|expires=thu, 01 jan 1970/i.test(line));
      expect(Boolean(isRemoved), "the cookie is not removed");
      deployment.keep(lines);
      const after = await deployment.ask("GET", "/session", { withCookie: true });
      expect(
        after.status === 200 && after.json?.session === null,
        `the session lives on: status ${after.status}`,
      );
      deployment.keep([]);
    },
  );
  return isReached;
}

/** @param {Deployment} deployment @param {string} origin */
function preflight(deployment, origin) {
  const headers = {
    origin,
    "access-control-request-method": "PATCH",
    "access-control-request-headers": "content-type",
  };
  return deployment.ask("OPTIONS", "/session/data", { headers });
}

/** What a cookie should have, in the Worker's order. @param {Record<string, any>} cookie the settings */
function attributes({
  path = "/",
  domain = "",
  secure = true,
  same_site: sameSite = "Lax",
  partitioned = false,
}) {
  return [
    `Path=${path}`,
    ...(domain ? [`Domain=${domain}`] : []),
    "HttpOnly",
    ...(secure ? ["Secure"] : []),
    `SameSite=${sameSite}`,
    ...(partitioned ? ["Partitioned"] : []),
  ];
}

/** @param {string} what @param {string[]} list */
function named(what, list) {
  return list.length ? `${what}: ${list.join(", ")}. ` : "";
}

/** @param {Asked} answer */
function said({ json }) {
  return typeof json?.code === "string" ? shortened(json.code) : "and no answer of Cloakroom's";
}

/** @param {Asked} answer */
function whatHealthSays({ status, json }) {
  if (json?.code === "misconfigured") return "500 misconfigured: `npx wrangler tail` shows what to change";
  if (json?.code === "store_unavailable")
    return "503, its database does not answer: are its secrets those of the database above? `npx wrangler tail` says more";
  if (status >= 300 && status < 400)
    return `status ${status}, a redirect: call it by the address that it leads to`;
  if (status === 404) return "404: is this the Worker's address, and base_path the deployed one?";
  return `status ${status}, and no answer of Cloakroom's`;
}

/** Whether nobody can listen. @param {string} origin */
export function isEncrypted(origin) {
  const { protocol, hostname } = new URL(origin);
  return protocol === "https:" || /^(localhost|127(\.\d+){3}|\[::1\])$/.test(hostname);
}
