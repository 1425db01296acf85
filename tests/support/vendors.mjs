/**
 * One server that answers as Google, Microsoft, Auth0, Keycloak and GitHub document that theirs do (2026-11-28), each at a
 * path of its own, and insists on what they insist on.
 */
import { createHash, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { CLIENT_ID, CLIENT_SECRET, publicHalf, signed } from "./forger.mjs";
import { makeRsaKey } from "./jwt.mjs";

/** @typedef {Record<string, unknown>} Json */
/** @typedef {"google" | "microsoft" | "auth0" | "keycloak"} OpenId */

/** @typedef {object} Vendor
 * @property {string} path  of its issuer
 * @property {Json} document  what its description has beside the addresses
 * @property {Json} claims  what its ID tokens have beside what all have
 * @property {Json} key  what its keys have beside what all have
 * @property {Json} back  what it sends visitors back with beside `code` and `state`
 * @property {boolean} [basic]  whether it takes the secret in a header
 * @property {boolean} [renews]  whether it asks anew and says when, if it is told to
 */

/** @type {Record<OpenId, Vendor>} */
const VENDORS = {
  google: {
    path: "/google",
    document: { token_endpoint_auth_methods_supported: ["client_secret_post", "client_secret_basic"] },
    claims: { sub: "110169484474386276334", azp: CLIENT_ID, hd: "example.com", name: "Ada of Google" },
    key: { alg: "RS256", use: "sig" },
    back: { scope: "email profile openid", authuser: "0", prompt: "none" },
    basic: true,
  },
  microsoft: {
    path: "/11112222-bbbb-3333-cccc-4444dddd5555/v2.0",
    document: {
      token_endpoint_auth_methods_supported: ["client_secret_post", "private_key_jwt"],
      subject_types_supported: ["pairwise"],
    },
    claims: {
      sub: "AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ",
      tid: "11112222-bbbb-3333-cccc-4444dddd5555",
      ver: "2.0",
      name: "Ada of Contoso",
      preferred_username: "ada@contoso.example",
    },
    key: { use: "sig", x5t: "x", x5c: ["MIIC"], issuer: "https://login.microsoftonline.com/{tenantid}/v2.0" },
    back: { session_state: "0" },
  },
  auth0: {
    path: "/auth0/",
    document: { backchannel_logout_supported: true },
    claims: { sub: "auth0|65f1", sid: "S1", nickname: "ada", name: "Ada of Auth0" },
    key: { alg: "RS256", use: "sig", x5t: "x" },
    back: {},
    basic: true,
    renews: true,
  },
  keycloak: {
    path: "/realms/shop",
    document: {
      authorization_response_iss_parameter_supported: true,
      token_endpoint_auth_methods_supported: ["private_key_jwt", "client_secret_basic", "client_secret_post"],
    },
    claims: {
      sub: "f:9f4e:ada",
      typ: "ID",
      azp: CLIENT_ID,
      sid: "S1",
      acr: "1",
      preferred_username: "ada of Keycloak",
    },
    key: { alg: "RS256", use: "sig" },
    back: { session_state: "S1" },
    basic: true,
    renews: true,
  },
};

/** Starts it. */
export async function startVendors() {
  let key = makeRsaKey(randomUUID());
  /** How often keys were asked for. */
  let looks = 0;
  let now = () => Math.floor(Date.now() / 1000);
  /** What was begun, by the code that it was answered with. @type {Map<string, URLSearchParams>} */
  const begun = new Map();
  /** The documents that vendors publish, if not the usual. @type {Partial<Record<OpenId, Json>>} */
  const documents = {};
  /** What the next ID token says differently. @type {Json} */
  let claimed = {};
  /** What its token endpoint says differently next. @type {Json} */
  let answered = {};
  /** @type {Json} */
  let user = { sub: "somebody else" };

  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const form = new URLSearchParams(body);
    const { headers } = request;
    const place = request.url?.split("?")[0] ?? "";
    const json = (/** @type {unknown} */ value, status = 200) =>
      void response
        .writeHead(status, { "Content-Type": "application/json; charset=utf-8" })
        .end(JSON.stringify(value));
    if (place.startsWith("/github/")) return gitHub(place, headers, form, response, json);
    const [id, vendor] = vendorOf(place);
    if (!id || !vendor) return json({}, 404);
    switch (place.slice(vendor.path.replace(/\/$/, "").length)) {
      case "/.well-known/openid-configuration":
        return json({ ...describe(vendor), ...documents[id] });
      case "/keys":
        looks += 1;
        return json({
          keys: [
            { ...publicHalf(makeRsaKey("enc")), use: "enc", alg: "RSA-OAEP" },
            { ...publicHalf(key), ...vendor.key },
          ],
        });
      case "/token":
        return token(vendor, headers, form, json);
      case "/user":
        return json(user);
    }
    json({}, 404);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  const port = typeof address === "object" ? address?.port : "";
  const origin = `http://127.0.0.1:${port}`;

  /** @param {string} place @returns {[OpenId, Vendor] | []} */
  function vendorOf(place) {
    const found = Object.entries(VENDORS).find(([, { path }]) =>
      place.startsWith(`${path.replace(/\/$/, "")}/`),
    );
    return found ? [/** @type {OpenId} */ (found[0]), found[1]] : [];
  }

  /** @param {Vendor} vendor */
  function describe({ path, document }) {
    // Its endpoints are on another host, as Google's are.
    const at = (/** @type {string} */ place) => `http://localhost:${port}${path.replace(/\/$/, "")}${place}`;
    return {
      issuer: origin + path,
      authorization_endpoint: at("/authorize"),
      token_endpoint: at("/token"),
      jwks_uri: at("/keys"),
      userinfo_endpoint: at("/user"),
      ...document,
    };
  }

  /** Whether a code's request had the challenge of this verifier. @param {URLSearchParams} form */
  function isProved(form) {
    const asked = begun.get(form.get("code") ?? "");
    const challenge = createHash("sha256")
      .update(form.get("code_verifier") ?? "")
      .digest("base64url");
    return (
      asked?.get("code_challenge_method") === "S256" &&
      asked.get("code_challenge") === challenge &&
      asked.get("redirect_uri") === form.get("redirect_uri")
    );
  }

  /** @param {Vendor} vendor @param {import("node:http").IncomingHttpHeaders} headers @param {URLSearchParams} form @param {(value: unknown, status?: number) => void} json */
  function token({ path, claims, basic, renews }, headers, form, json) {
    const pair = [CLIENT_ID, CLIENT_SECRET].map((text) =>
      encodeURIComponent(text).replace(/['!*()]/g, (one) => `%${one.charCodeAt(0).toString(16)}`),
    );
    const header = `Basic ${Buffer.from(pair.join(":")).toString("base64")}`;
    const isKnown = basic
      ? headers.authorization === header && !form.has("client_secret")
      : !headers.authorization &&
        form.get("client_id") === CLIENT_ID &&
        form.get("client_secret") === CLIENT_SECRET;
    if (!isKnown) return json({ error: "invalid_client" }, 401);
    if (!isProved(form)) return json({ error: "invalid_grant" }, 400);
    const asked = begun.get(form.get("code") ?? "");
    begun.delete(form.get("code") ?? "");
    const isRenewed = renews && asked?.get("max_age") === "0";
    const id_token = signed(
      { alg: "RS256", kid: key.kid, typ: "JWT" },
      {
        iss: origin + path,
        aud: CLIENT_ID,
        iat: now(),
        exp: now() + 3600,
        nonce: asked?.get("nonce"),
        ...(isRenewed && { auth_time: now() }),
        ...claims,
        ...claimed,
      },
      key,
    );
    const usual = { access_token: "AT-7f3a9c", token_type: "Bearer", expires_in: 3599, scope: "openid" };
    json({ ...usual, id_token, ...answered });
    [claimed, answered] = [{}, {}];
  }

  /** @param {string} place @param {import("node:http").IncomingHttpHeaders} headers @param {URLSearchParams} form @param {import("node:http").ServerResponse} response @param {(value: unknown, status?: number) => void} json */
  function gitHub(place, headers, form, response, json) {
    if (place === "/github/login/oauth/access_token") {
      const error = !isProved(form)
        ? "bad_verification_code"
        : form.get("client_secret") === CLIENT_SECRET && form.get("client_id") === CLIENT_ID
          ? ""
          : "incorrect_client_credentials";
      const answer = error
        ? { error, error_description: "The code passed is incorrect or expired." }
        : { access_token: "gho_7f3a9c", scope: "", token_type: "bearer" };
      // Whatever happens is a 200, and a form unless JSON is asked for.
      if (headers.accept === "application/json") return json(answer);
      return void response.writeHead(200).end(String(new URLSearchParams(/** @type {any} */ (answer))));
    }
    if (place !== "/github/user") return json({ message: "Not Found" }, 404);
    if (!headers["user-agent"]) {
      return void response
        .writeHead(403, { "Content-Type": "text/html" })
        .end(
          "Request forbidden by administrative rules. Please make sure your request has a User-Agent header",
        );
    }
    if (headers.authorization !== "Bearer gho_7f3a9c") return json({ message: "Bad credentials" }, 401);
    // Without a public name and mail address.
    json({ login: "octocat", id: 583231, node_id: "MDQ6", name: null, email: null });
  }

  return {
    origin,
    documents,
    issuers: /** @type {Record<OpenId, string>} */ (
      Object.fromEntries(Object.entries(VENDORS).map(([id, { path }]) => [id, origin + path]))
    ),
    /** @param {() => number} clock  seconds */
    setClock: (clock) => void (now = clock),
    /** How often keys were asked for. */
    looks: () => looks,
    /** From now on another key signs, under the same name. */
    changeKey: () => void (key = makeRsaKey(key.kid)),
    /** What the next ID token says differently, and what comes with it. @param {Json} claims @param {Json} [answer] */
    sayNext(claims, answer = {}) {
      [claimed, answered] = [claims, answer];
    },
    /** What the document at `userinfo_endpoint` says. @param {Json} document */
    setUser: (document) => void (user = document),
    /**
     * A visitor was sent to it: it sends them back.
     * @param {string} location
     * @param {Json} [more]  parameters; one that is undefined is left out
     */
    back(location, more = {}) {
      const { pathname, searchParams } = new URL(location);
      const code = randomUUID();
      begun.set(code, searchParams);
      const [, vendor] = vendorOf(pathname);
      const to = new URL(searchParams.get("redirect_uri") ?? "");
      const sendsIssuer = vendor?.document.authorization_response_iss_parameter_supported;
      const params = {
        code,
        state: searchParams.get("state"),
        ...vendor?.back,
        ...(sendsIssuer ? { iss: origin + vendor?.path } : {}),
        ...more,
      };
      const given = Object.entries(params).filter(([, value]) => value !== undefined);
      to.search = String(new URLSearchParams(/** @type {any} */ (given)));
      return to.pathname + to.search;
    },
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}
