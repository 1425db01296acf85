/** A real OpenID provider, npm's `oidc-provider`, on a port of this machine; and what its users do there. */
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
// @ts-expect-error It comes without types.
import Provider from "oidc-provider";
import { makeKey, makeRsaKey } from "./jwt.mjs";

/** @typedef {Awaited<ReturnType<typeof startProvider>>} RealProvider */
/** @typedef {"RS256" | "ES256" | "EdDSA"} Algorithm */

export const CLIENT = {
  client_id: "cloakroom",
  client_secret: "a secret of this client, 100% + more: &=",
};

/** Listens, so that the Worker's settings can name it; it is a provider once its clients are known ({@link RealProvider.open}). */
export async function startProvider() {
  /** @type {any} */
  let provider;
  const server = createServer((request, response) => {
    const [, uid] = request.url?.match(/^\/interaction\/([^/?]+)/) ?? [];
    if (!provider) return void response.writeHead(503).end();
    if (!uid) return void provider.callback()(request, response);
    // Of a login that is over, or that this provider does not know any more.
    interact(provider, request, response).catch(() => response.writeHead(400).end("This login is over."));
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  const issuer = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;

  return {
    issuer,
    /**
     * With these clients and a new key; again: with another key.
     * @param {string[]} redirects
     * @param {{ algorithm?: Algorithm, claims?: boolean, consent?: boolean, backChannel?: string, hasSid?: boolean, afterLogout?: string[] }} [options]
     *   claims: a name is in the ID token; consent: users are asked what the Worker may know; backChannel: where logouts are
     *   told, of one session if `hasSid`; afterLogout: where users may come back to
     */
    open(
      redirects,
      {
        algorithm = "RS256",
        claims = false,
        consent = false,
        backChannel,
        hasSid = false,
        afterLogout = [],
      } = {},
    ) {
      const key = algorithm === "RS256" ? makeRsaKey(randomUUID()) : makeKey(algorithm, randomUUID());
      // Its types know neither all of its settings nor JWKs as Node has them.
      const configuration = /** @type {any} */ ({
        clients: [
          {
            ...CLIENT,
            redirect_uris: redirects,
            response_types: ["code"],
            id_token_signed_response_alg: algorithm,
            post_logout_redirect_uris: afterLogout,
            ...(backChannel && {
              backchannel_logout_uri: backChannel,
              backchannel_logout_session_required: hasSid,
            }),
          },
        ],
        jwks: { keys: [{ ...key, use: "sig", alg: algorithm }] },
        enabledJWA: { idTokenSigningAlgValues: ["RS256", "ES256", "EdDSA"] },
        conformIdTokenClaims: !claims,
        claims: { openid: ["sub"], profile: ["name"], email: ["email"] },
        cookies: { keys: [randomUUID()] },
        features: { devInteractions: { enabled: false }, backchannelLogout: { enabled: true } },
        // Its own refuses addresses of this machine.
        fetch: (/** @type {string} */ url, /** @type {any} */ { dispatcher: _, ...init }) => fetch(url, init),
        interactions: {
          url: (/** @type {unknown} */ _, /** @type {{ uid: string }} */ { uid }) => `/interaction/${uid}`,
        },
        findAccount: (/** @type {unknown} */ _, /** @type {string} */ id) => ({
          accountId: id,
          claims: () => ({ sub: id, name: `${id} of Acme`, email: `${id}@acme.example` }),
        }),
        async loadExistingGrant(/** @type {any} */ { oidc }) {
          const { consent: given } = oidc.result ?? {};
          if (given) return oidc.provider.Grant.find(given.grantId);
          if (consent) return undefined;
          const grant = new oidc.provider.Grant({
            clientId: oidc.client.clientId,
            accountId: oidc.session.accountId,
          });
          grant.addOIDCScope("openid email profile");
          await grant.save();
          return grant;
        },
      });
      provider = new Provider(issuer, configuration);
      provider.on("server_error", (/** @type {unknown} */ _, /** @type {Error} */ error) =>
        console.error(error),
      );
    },
    /** A browser's cookies there. */
    browser: () => new Browser(),
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A page with a form; what is sent with it is what the user does.
 * @param {any} provider
 * @param {import("node:http").IncomingMessage} request
 * @param {import("node:http").ServerResponse} response
 */
async function interact(provider, request, response) {
  const { prompt, params, session } = await provider.interactionDetails(request, response);
  const isConsent = prompt.name === "consent";
  if (request.method === "GET") {
    const form = (/** @type {string} */ as, /** @type {string} */ label) =>
      `<form method="post" action="?as=${as}"><button>${label}</button></form>`;
    const users = ["ada", "bob"].map((name) => form(name, `Log in as ${name}`));
    const forms = isConsent
      ? form("allow", "Allow") + form("", "Refuse")
      : users.join("") + form("", "Cancel");
    response.writeHead(200, { "Content-Type": "text/html" });
    response.end(`<!doctype html><title>Acme</title>${forms}`);
    return;
  }
  const as = new URL(request.url ?? "", "http://a").searchParams.get("as");
  const grant = async () => {
    const grant = new provider.Grant({ clientId: params.client_id, accountId: session.accountId });
    grant.addOIDCScope(params.scope);
    return { consent: { grantId: await grant.save() } };
  };
  const agreed = async () => (isConsent ? grant() : { login: { accountId: as } });
  const result = as ? await agreed() : { error: "access_denied" };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: isConsent });
}

/** As much of a browser as a provider needs. */
export class Browser {
  /** @type {Map<string, string>} */
  cookies = new Map();
  /** How many times it was asked who the user is. */
  asked = 0;

  /**
   * Goes to the provider and does there what the user wants, until the provider sends them back.
   * @param {string} location
   * @param {{ as?: string, cancel?: boolean, form?: Record<string, string> }} [what]  form: what is sent, at another page
   * @returns {Promise<string>}  where it sends them: path and query
   */
  async follow(location, { as = "ada", cancel = false, form } = {}) {
    let [url, method] = [location, "GET"];
    const { origin } = new URL(location);
    for (let steps = 0; steps < 10; steps += 1) {
      const body = form && method === "POST" ? new URLSearchParams(form) : undefined;
      const answer = await this.#ask(url, { method, body });
      const next = answer.headers.get("location");
      if (answer.status === 200) {
        // The page of {@link interact}.
        this.asked += 1;
        if (method === "POST") throw new Error(await answer.text());
        [url, method] = [form ? url : `${url}?as=${cancel ? "" : encodeURIComponent(as)}`, "POST"];
        continue;
      }
      if (!next) throw new Error(`${answer.status}: ${await answer.text()}`);
      const to = new URL(next, url);
      if (to.origin !== origin) return to.pathname + to.search;
      [url, method] = [to.href, "GET"];
    }
    throw new Error("the provider never sends the user back");
  }

  /**
   * Logs out there, and says yes to the question. @param {string} location
   * @returns {Promise<string>}  where it sends them
   */
  async logOut(location) {
    const page = await (await this.#ask(location)).text();
    const [, action = ""] = page.match(/action="([^"]*)"/) ?? [];
    const [, xsrf = ""] = page.match(/name="xsrf" value="([^"]*)"/) ?? [];
    const answer = await this.#ask(action, {
      method: "POST",
      body: new URLSearchParams({ xsrf, logout: "yes" }),
    });
    return answer.headers.get("location") ?? "";
  }

  /** @param {string} url @param {RequestInit} [init] */
  async #ask(url, init) {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(url, { ...init, redirect: "manual", headers: { cookie } });
    for (const line of answer.headers.getSetCookie()) {
      const [, name = "", value = ""] = line.match(/^([^=]*)=([^;]*)/) ?? [];
      if (value === "") this.cookies.delete(name);
      else this.cookies.set(name, value);
    }
    return answer;
  }
}
