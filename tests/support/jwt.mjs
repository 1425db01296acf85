/** Keys for `JWT_KEYS`, and what stands in tokens. */
import { generateKeyPairSync } from "node:crypto";

/**
 * A private key as a JWK.
 * @param {"EdDSA" | "ES256"} algorithm
 * @param {string} kid
 */
export function makeKey(algorithm, kid) {
  const { privateKey } =
    algorithm === "EdDSA"
      ? generateKeyPairSync("ed25519")
      : generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { ...privateKey.export({ format: "jwk" }), kid };
}

/** The same of RSA. @param {string} kid */
export function makeRsaKey(kid) {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid };
}

/** Header and claims, unverified. @param {string} token */
export function partsOf(token) {
  const [header = "", claims = ""] = token.split(".");
  const read = (/** @type {string} */ part) => JSON.parse(Buffer.from(part, "base64url").toString());
  return { header: read(header), claims: read(claims) };
}
