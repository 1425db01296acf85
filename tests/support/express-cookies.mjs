/** Cookies of express-session, right ones and wrong ones, generated from a seed: each part changed in each way. */
import { createHmac } from "node:crypto";

/** @typedef {{ name: string, header: string }} Case  a `Cookie` header, a byte for each character */

export const NAME = "connect.sid";
/** Those that the application and the Worker have: the first signs. */
export const SECRETS = ["the first secret", "keyboard cat", "ключ, 🔑"];
const STRANGER = "another application's";

/** As cookie-signature does it. @param {string} sid @param {string} secret */
export const sign = (sid, secret) =>
  `${sid}.${createHmac("sha256", secret).update(sid).digest("base64").replace(/=+$/, "")}`;

/** Ids as express-session makes them, and as a `genid` may. */
export const IDS = [
  "KkusLeJ2UgGsa4Zlt5OAVxbOrqPwYVMW",
  "_9-AAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
  "7b1c5a52-6f3e-4a39-8a59-0b1f3c1b4c11",
  "user.42.device.7",
  "..",
  "a/b/c",
  "tenant:5:ann",
  "s:nested",
  "with space",
  "Zoë 🧥",
  "%41 is no A",
  "quo\"te'd",
  "a;b,c=d&e",
  "back\\slash",
  "!'()*~",
  "x",
  "z".repeat(150),
];

/** Mulberry32. @param {number} seed */
export function randomness(seed) {
  const next = () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  return {
    below: (/** @type {number} */ limit) => Math.floor(next() * limit),
    /** @template T @param {readonly T[]} list @returns {T} */
    pick: (list) => /** @type {T} */ (list[Math.floor(next() * list.length)]),
  };
}

/** @typedef {ReturnType<typeof randomness>} Random */

/** The value without its percent-encoding. @type {Record<string, (sid: string, random: Random) => string>} */
const VALUES = {
  "signed by the first secret": (sid) => `s:${sign(sid, SECRETS[0])}`,
  "signed by a later secret": (sid, { pick }) => `s:${sign(sid, pick(SECRETS.slice(1)))}`,
  "signed by a stranger": (sid) => `s:${sign(sid, STRANGER)}`,
  "without s:": (sid) => sign(sid, SECRETS[0]),
  "with S:": (sid) => `S:${sign(sid, SECRETS[0])}`,
  "with s: twice": (sid) => `s:s:${sign(sid, SECRETS[0])}`,
  "s: under the signature": (sid) => sign(`s:${sid}`, SECRETS[0]),
  "with j:": (sid) => `j:${JSON.stringify(sid)}`,
  "without a signature": (sid) => `s:${sid}`,
  "with an empty signature": (sid) => `s:${sid}.`,
  "with nothing but s:": () => "s:",
  "with a signed empty id": () => `s:${sign("", SECRETS[0])}`,
  "with nothing": () => "",
  "with a character of the id changed": (sid, random) =>
    `s:${changed(sid, random)}.${signatureOf(sid, SECRETS[0])}`,
  "with a character of the signature changed": (sid, random) =>
    `s:${sid}.${changed(signatureOf(sid, SECRETS[0]), random)}`,
  // The last of 43 characters holds two bits that a lenient decoder does not look at.
  "with the signature's unused bits changed": (sid) => {
    const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const signature = signatureOf(sid, SECRETS[0]);
    return `s:${sid}.${signature.slice(0, -1)}${alphabet[alphabet.indexOf(signature.slice(-1)) ^ 1]}`;
  },
  "with the signature padded": (sid) => `s:${sign(sid, SECRETS[0])}=`,
  "with the signature cut short": (sid, { below }) => `s:${sign(sid, SECRETS[0]).slice(0, -1 - below(10))}`,
  "with more behind the signature": (sid, { pick }) =>
    `s:${sign(sid, SECRETS[0])}${pick(["A", ".", " x", "%"])}`,
  "with the signature as base64url": (sid) =>
    `s:${sid}.${signatureOf(sid, SECRETS[0]).replaceAll("+", "-").replaceAll("/", "_")}`,
  "with the signature in hexadecimal": (sid) =>
    `s:${sid}.${Buffer.from(signatureOf(sid, SECRETS[0]), "base64").toString("hex")}`,
  "with the signature in lower case": (sid) => `s:${sid}.${signatureOf(sid, SECRETS[0]).toLowerCase()}`,
  "with another session's signature": (sid, { pick }) =>
    `s:${sid}.${signatureOf(pick(IDS.filter((other) => other !== sid)), SECRETS[0])}`,
  "with the signature of the whole value": (sid) => `s:${sid}.${signatureOf(`s:${sid}`, SECRETS[0])}`,
  "with a comma for the dot": (sid) => `s:${sign(sid, SECRETS[0]).replace(/\.(?=[^.]*$)/, ",")}`,
  "signed twice": (sid) => `s:${sign(sign(sid, SECRETS[0]), SECRETS[0])}`,
  "an id that was never given out": (sid) => `s:${sign(`${sid}-unknown`, SECRETS[0])}`,
  "Object's own": (_, { pick }) => pick(["__proto__", "constructor", "toString"]),
};

/** How it stands in the header. @type {Record<string, (value: string, random: Random) => string>} */
const ENCODINGS = {
  "as Express encodes it": encodeURIComponent,
  "with small letters in its percent-encoding": (value) =>
    encodeURIComponent(value).replace(/%../g, (escape) => escape.toLowerCase()),
  "all of it percent-encoded": (value) =>
    [...Buffer.from(value)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join(""),
  "encoded twice": (value) => encodeURIComponent(encodeURIComponent(value)),
  "not encoded": (value) => ascii(value),
  "with a broken escape behind it": (value, { pick }) =>
    encodeURIComponent(value) + pick(["%", "%4", "%zz", "%C3", "%ED%A0%80", "%FF"]),
  "with plus for a space": (value) => encodeURIComponent(value).replaceAll("%20", "+"),
  "in quotes": (value) => `"${encodeURIComponent(value)}"`,
  "not encoded, in quotes": (value) => `"${ascii(value)}"`,
  "with a quote before it": (value) => `"${encodeURIComponent(value)}`,
  "with a quote behind it": (value) => `${encodeURIComponent(value)}"`,
  "in quotes twice": (value) => `""${encodeURIComponent(value)}""`,
  "with spaces in quotes": (value) => `" ${encodeURIComponent(value)} "`,
};

/** What else the header holds. @type {Record<string, (value: string) => string>} */
const HEADERS = {
  alone: (value) => `${NAME}=${value}`,
  "behind another": (value) => `theme=dark; ${NAME}=${value}`,
  "before another": (value) => `${NAME}=${value}; theme=dark`,
  "without a space between": (value) => `a=1;${NAME}=${value};b=2`,
  "with spaces before the name": (value) => `a=1;  \t${NAME}=${value}`,
  "among broken ones": (value) => `; =; x; =y; ${NAME}=${value}; ;`,
  "behind one whose name ends like it": (value) => `x${NAME}=nothing; ${NAME}=${value}`,
  "behind one whose name begins like it": (value) => `${NAME}x=nothing; ${NAME}=${value}`,
  "behind one whose value looks like it": (value) => `a="${NAME}=nothing"; ${NAME}=${value}`,
  "with its name in capitals": (value) => `${NAME.toUpperCase()}=${value}`,
  "with its name encoded": (value) => `connect%2Esid=${value}`,
  "with its name quoted": (value) => `"${NAME}"=${value}`,
  "with another sign for =": (value) => `${NAME}:${value}`,
  "with two signs for =": (value) => `${NAME}==${value}`,
};

/** Each way of each part, with the other parts as they should be and as they come. @returns {Case[]} */
export function cases(seed = 15, count = 400) {
  const random = randomness(seed);
  const [values, encodings, headers] = [VALUES, ENCODINGS, HEADERS].map((part) => Object.keys(part));
  const [value = "", encoding = "", header = ""] = [values[0], encodings[0], headers[0]];
  const chosen = [
    ...IDS.flatMap((sid) => encodings.map((encoding) => ({ sid, value, encoding, header }))),
    ...values.flatMap((value) => IDS.slice(0, 3).map((sid) => ({ sid, value, encoding, header }))),
    ...headers.map((header) => ({ sid: random.pick(IDS), value, encoding, header })),
  ];
  while (chosen.length < count) {
    chosen.push({
      sid: random.pick(IDS),
      value: random.pick(values),
      encoding: random.pick(encodings),
      header: random.pick(headers),
    });
  }
  return chosen.map(({ sid, value, encoding, header }) => ({
    name: `${JSON.stringify(sid.slice(0, 32))} ${value}, ${encoding}, ${header}`,
    header: HEADERS[header]?.(ENCODINGS[encoding]?.(VALUES[value]?.(sid, random) ?? "", random) ?? "") ?? "",
  }));
}

/** @param {string} sid @param {string} secret */
function signatureOf(sid, secret) {
  return sign(sid, secret).slice(sid.length + 1);
}

/** With another character somewhere. @param {string} text @param {Random} random */
function changed(text, { below }) {
  const characters = [...text];
  const index = below(characters.length);
  characters[index] = characters[index] === "A" ? "B" : "A";
  return characters.join("");
}

/** Only what may stand in a header; the rest is encoded all the same. @param {string} value */
function ascii(value) {
  return value.replace(/[^\x20-\x7e]+/g, (part) => encodeURIComponent(part));
}
