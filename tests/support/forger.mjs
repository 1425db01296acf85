/** A provider that says whatever a test wants: a forging one of OpenID Connect, and one of OAuth 2.0 that looks like GitHub's. */
import { createHmac, createPrivateKey, randomUUID, sign } from "node:crypto";
import { createServer } from "node:http";
import { makeKey, makeRsaKey } from "./jwt.mjs";

/** @typedef {import("node:http").ServerResponse} ServerResponse */
/** @typedef {Record<string, unknown>} Json */
/** @typedef {{ headers: import("node:http").IncomingHttpHeaders, form: URLSearchParams }} Asked */
/** @typedef {(response: ServerResponse, usual: () => void, asked: Asked) => void} Behaviour */

export const CLIENT_ID = "cloakroom";
export const CLIENT_SECRET = "a secret: of the forger's client";

const encode = (/** @type {string | Buffer} */ bytes) => Buffer.from(bytes).toString("base64url");

/** The public half of a JWK. @param {Json} key @returns {Json} */
export function publicHalf(key) {
  const secret = ["d", "p", "q", "dp", "dq", "qi"];
  return Object.fromEntries(Object.entries(key).filter(([name]) => !secret.includes(name)));
}

/**
 * A JWS in compact form, signed with a key by what its header says.
 * @param {Json} header
 * @param {Json} claims
 * @param {any} key  a private JWK, or the secret of HS256
 */
export function signed(header, claims, key) {
  const input = [header, claims].map((part) => encode(JSON.stringify(part))).join(".");
  if (header.alg === "none") return `${input}.`;
  if (header.alg === "HS256")
    return `${input}.${createHmac("sha256", key).update(input).digest("base64url")}`;
  const privateKey = createPrivateKey({ key, format: "jwk" });
  const hash = header.alg === "EdDSA" ? null : "sha256";
  return `${input}.${encode(sign(hash, Buffer.from(input), { key: privateKey, dsaEncoding: "ieee-p1363" }))}`;
}

/** Starts it. */
export async function startForger() {
  const keys = {
    RS256: makeRsaKey(randomUUID()),
    ES256: makeKey("ES256", randomUUID()),
    EdDSA: makeKey("EdDSA", randomUUID()),
  };
  /** The clock of the Worker, by which tokens are good. */
  let now = () => Math.floor(Date.now() / 1000);
  /** What it does at each of its places, if not the usual. @type {Record<string, Behaviour | undefined>} */
  const behaviours = {};
  /** @type {(nonce: string) => string} */
  let token = () => "";
  let nonce = "";
  /** @type {Json} */
  let user = {};
  /** How often each place was asked. @type {Record<string, number>} */
  const counts = {};
  /** What the token endpoint was asked last. @type {Asked | undefined} */
  let exchange;

  const server = createServer(async (request, response) => {
    const place = request.url?.split("?")[0] ?? "";
    let body = "";
    for await (const chunk of request) body += chunk;
    const asked = { headers: request.headers, form: new URLSearchParams(body) };
    counts[place] = (counts[place] ?? 0) + 1;
    const json = (/** @type {unknown} */ value) => {
      response.writeHead(200, { "Content-Type": "application/json", "Cache-Control": "max-age=3600" });
      response.end(JSON.stringify(value));
    };
    /** @type {Record<string, () => void>} */
    const usual = {
      "/.well-known/openid-configuration": () =>
        json({
          issuer,
          authorization_endpoint: `${issuer}/authorize`,
          token_endpoint: `${issuer}/token`,
          jwks_uri: `${issuer}/keys`,
        }),
      "/keys": () =>
        json({ keys: [...Object.values(keys).map(publicHalf), { kty: "oct", k: "AAAA", alg: "HS256" }] }),
      "/token": () => {
        exchange = asked;
        json({ access_token: "AT-7f3a9c", token_type: "bearer", id_token: token(nonce) || undefined });
      },
      "/user": () => json(user),
    };
    const answer = usual[place] ?? (() => void response.writeHead(404).end());
    const behaviour = behaviours[place];
    if (behaviour) behaviour(response, answer, asked);
    else answer();
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  const issuer = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;

  return {
    issuer,
    keys,
    counts,
    behaviours,
    /** What the token endpoint was asked last. */
    exchange: () => exchange,
    /** @param {() => number} clock  seconds */
    setClock: (clock) => void (now = clock),
    /** The user whom the document describes. @param {Json} document */
    setUser: (document) => void (user = document),
    /** What a good token says. @param {Json} [more] @returns {Json} */
    claims: (more = {}) => ({
      iss: issuer,
      sub: "248289761001",
      aud: CLIENT_ID,
      iat: now(),
      exp: now() + 300,
      nonce,
      name: "Jane Doe",
      ...more,
    }),
    /** Every login gets this token, which is made when the nonce is known. @param {() => string} make */
    setToken: (make) => void (token = make),
    /** A visitor was sent to it: it sends them back. @param {string} location @param {Json} [more] */
    back(location, more = {}) {
      const { searchParams } = new URL(location);
      nonce = searchParams.get("nonce") ?? "";
      const to = new URL(searchParams.get("redirect_uri") ?? "");
      to.search = String(
        new URLSearchParams({
          code: randomUUID(),
          state: searchParams.get("state") ?? "",
          .../** @type {any} */ (more),
        }),
      );
      return to.pathname + to.search;
    },
    /** As it was in the beginning. */
    reset() {
      for (const place of Object.keys(behaviours)) delete behaviours[place];
      for (const place of Object.keys(counts)) delete counts[place];
    },
    stop() {
      server.closeAllConnections();
      server.close();
    },
  };
}
