/**
 * A visitor of the Worker: `fetch` with a cookie jar, sending what a program sends, no browser.
 */
import { request } from "node:http";
import { request as requestSecurely } from "node:https";

/**
 * @typedef {object} Answer
 * @property {number} status
 * @property {Headers} headers
 * @property {string[]} setCookies Without the companion that comes with writes (`-sync`).
 * @property {string} text
 * @property {any} json The body, when it is JSON.
 */

export class Visitor {
  /** @type {Map<string, string>} */
  cookies = new Map();

  /** @param {string} url @param {Buffer} [trusted]  with TLS: the certificate that is good */
  constructor(url, trusted) {
    this.url = url;
    this.trusted = trusted;
  }

  /** The ticket, if there is one. */
  get ticket() {
    return this.cookies.get("__Host-session");
  }

  set ticket(value) {
    if (value === undefined) this.cookies.delete("__Host-session");
    else this.cookies.set("__Host-session", value);
  }

  /** Another visitor with the same cookies. @param {string} [url] at another isolate */
  clone(url = this.url) {
    const other = new Visitor(url, this.trusted);
    other.cookies = new Map(this.cookies);
    return other;
  }

  /** The `Cookie` header. */
  cookieHeader() {
    return [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
  }

  /**
   * Node's plain HTTP client: `fetch` would not send every header and byte that an attacker can.
   * @param {string} method
   * @param {string} path
   * @param {{ headers?: Record<string, string | string[]>, body?: string | Buffer, chunked?: boolean }} [options]
   * @returns {Promise<Answer>}
   */
  send(method, path, { headers = {}, body, chunked = false } = {}) {
    const all = { ...(this.cookies.size ? { Cookie: this.cookieHeader() } : {}), ...headers };
    return new Promise((resolve, reject) => {
      const options = { method, headers: all, agent: false, ca: this.trusted };
      const ask = this.url.startsWith("https:") ? requestSecurely : request;
      const outgoing = ask(this.url + path, options, (incoming) => {
        /** @type {Buffer[]} */
        const chunks = [];
        incoming.on("data", (chunk) => chunks.push(chunk));
        incoming.on("error", reject);
        incoming.on("end", () => {
          const fields = new Headers();
          for (const [name, values] of Object.entries(incoming.headersDistinct)) {
            for (const value of values ?? []) fields.append(name, value);
          }
          const lines = fields.getSetCookie();
          this.accept(lines);
          const status = incoming.statusCode ?? 0;
          const isSync = (/** @type {string} */ line) => /^[^=]*-sync=/.test(line);
          // A write brings the companion along; a failure must bring nothing at all.
          const setCookies = lines.filter((line) => status >= 500 || !isSync(line));
          const text = Buffer.concat(chunks).toString();
          const isJson = fields.get("content-type")?.includes("json") && text !== "";
          resolve({
            status,
            headers: fields,
            setCookies,
            text,
            json: isJson ? JSON.parse(text) : undefined,
          });
        });
      });
      outgoing.on("error", reject);
      if (body !== undefined && !chunked) outgoing.setHeader("Content-Length", Buffer.byteLength(body));
      if (body !== undefined) outgoing.write(body);
      outgoing.end();
    });
  }

  /** Keeps cookies that came in another way than with an answer. @param {string[]} setCookies */
  accept(setCookies) {
    for (const line of setCookies) {
      const [, name = "", value = ""] = line.match(/^([^=]*)=([^;]*)/) ?? [];
      if (/; (Max-Age=0|Expires=Thu, 01 Jan 1970 00:00:00 GMT)(;|$)/.test(line)) this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
  }

  /** The session or null. */
  async session() {
    return (await this.look()).json.session;
  }

  look() {
    return this.send("GET", "/auth/session");
  }

  /**
   * A merge patch.
   * @param {unknown} patch
   * @param {Record<string, string>} [headers]
   */
  merge(patch, headers = {}) {
    return this.#change("application/merge-patch+json", patch, headers);
  }

  /**
   * A JSON patch.
   * @param {unknown} operations
   * @param {Record<string, string>} [headers]
   */
  patch(operations, headers = {}) {
    return this.#change("application/json-patch+json", operations, headers);
  }

  /** @param {string} path */
  increment(path, value = 1) {
    return this.patch([{ op: "increment", path, value }]);
  }

  /** Lets the isolate forget the session, so that the next change reads it before it writes. */
  async forget() {
    const { status } = await this.merge({}, { "If-Match": '"another"' });
    if (status !== 412) throw new Error(`not forgotten: status ${status}`);
  }

  rotate() {
    return this.send("POST", "/auth/session/rotate");
  }

  logout() {
    return this.send("DELETE", "/auth/session");
  }

  /**
   * JSON, as it stands.
   * @param {string} method
   * @param {string} path
   * @param {unknown} body
   * @param {Record<string, string>} [headers]
   */
  tell(method, path, body, headers = {}) {
    const type = { "Content-Type": "application/json", ...headers };
    return this.send(method, `/auth${path}`, { headers: type, body: JSON.stringify(body) });
  }

  /** @param {string} username @param {string} password @param {Record<string, string>} [headers] */
  register(username, password, headers) {
    return this.tell("POST", "/register", { username, password }, headers);
  }

  /**
   * @param {string} username
   * @param {string} password
   * @param {{ remember?: boolean, headers?: Record<string, string> }} [options]
   */
  login(username, password, { headers, ...more } = {}) {
    return this.tell("POST", "/login", { username, password, ...more }, headers);
  }

  /**
   * @param {string} type
   * @param {unknown} body
   * @param {Record<string, string>} headers
   */
  #change(type, body, headers) {
    return this.send("PATCH", "/auth/session/data", {
      headers: { "Content-Type": type, ...headers },
      body: JSON.stringify(body),
    });
  }
}
