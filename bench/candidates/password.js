/**
 * Passwords by WebCrypto, which workerd and Node both have, and as cheap as can be: it is the waiting for the store
 * that is measured. Nobody's password is safe like this.
 */

const ITERATIONS = 1;

/** What is known of a user, as JSON under `account:` and the name. @param {string} id @param {string} password */
export async function createAccount(id, password) {
  const salt = crypto.randomUUID();
  return { id, salt, hash: await hash(password, salt) };
}

/** @param {string} password @param {{ salt: string, hash: string } | null} account */
export async function isRight(password, account) {
  return account !== null && (await hash(password, account.salt)) === account.hash;
}

/** @param {string} password @param {string} salt */
async function hash(password, salt) {
  const bytes = (/** @type {string} */ text) => new TextEncoder().encode(text);
  const key = await crypto.subtle.importKey("raw", bytes(password), "PBKDF2", false, ["deriveBits"]);
  const how = { name: "PBKDF2", hash: "SHA-256", salt: bytes(salt), iterations: ITERATIONS };
  const bits = await crypto.subtle.deriveBits(how, key, 256);
  return Array.from(new Uint8Array(bits), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
