/**
 * The call to the store, of which wasm is told once: each step of it that wasm took itself would be a call across the
 * border, and each promise that it waited for two closures.
 */

const SYNC_TOKEN = "upstash-sync-token";

/** @typedef {{ status: number, body: string, syncToken: string }} Answer `syncToken`: empty if there is none */

export class Store {
  #url;
  #authorization;

  /**
   * @param {string} url
   * @param {string} token
   * @throws If the token cannot be sent in a header.
   */
  constructor(url, token) {
    this.#url = url;
    this.#authorization = `Bearer ${token}`;
    new Headers({ Authorization: this.#authorization });
  }

  /**
   * @param {string} path
   * @param {string} body
   * @param {boolean} isBase64 whether strings are to come in base64
   * @param {string | undefined} syncToken
   * @param {number} timeout milliseconds, for the whole answer
   * @returns {Promise<Answer>}
   */
  ask(path, body, isBase64, syncToken, timeout) {
    // Objects, as `fetch` takes them apart faster than a `Headers` that is kept.
    /** @type {Record<string, string>} */
    const headers = { Authorization: this.#authorization };
    if (syncToken) headers[SYNC_TOKEN] = syncToken;
    if (isBase64) headers["upstash-encoding"] = "base64";
    const signal = AbortSignal.timeout(timeout);
    const answer = fetch(this.#url + path, { method: "POST", redirect: "manual", headers, body, signal });
    // A function of its own, which does not keep the body, however large, until the answer has come.
    return answer.then(readWhole);
  }
}

/** @param {Response} answer @returns {Promise<Answer>} */
async function readWhole(answer) {
  const body = await answer.text();
  return { status: answer.status, body, syncToken: answer.headers.get(SYNC_TOKEN) ?? "" };
}
