/** What the tests of tied accounts share: two isolates, two providers, and visitors who are whom a test wants there. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { after } from "node:test";
import { CLIENT_ID, CLIENT_SECRET, signed, startForger } from "./forger.mjs";
import { startReceiver } from "./receiver.mjs";
import { FAST_HASH, moveClocks, NO_LIMITS, randomSecret, startDeployment } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Visitor} Visitor */
/** @typedef {import("./visitor.mjs").Answer} Answer */

export const PASSWORD = "correct horse";
const ADMIN_TOKEN = randomSecret();

const forger = await startForger();
export const receiver = await startReceiver();
const providers = ["acme", "other"].map((id) => ({ id, issuer: forger.issuer, client_id: CLIENT_ID }));
export const settings = {
  ...receiver.settings,
  accounts: { providers },
  password: FAST_HASH,
  limits: NO_LIMITS,
  bearer: { enabled: true },
};
const secrets = {
  ...receiver.secrets,
  SESSION_SECRET: randomSecret(),
  ADMIN_TOKEN,
  PROVIDER_ACME_SECRET: CLIENT_SECRET,
  PROVIDER_OTHER_SECRET: CLIENT_SECRET,
};
const deployment = await startDeployment([{}, {}], { settings, secrets });
export const { store, workers, start } = deployment;
after(async () => {
  await deployment.stop();
  await receiver.stop();
  forger.stop();
});

/** Who has got a code, and the nonce of their login. @type {Map<string, { sub: string, nonce: string | null }>} */
const codes = new Map();
forger.setClock(() => Math.floor(store.now() / 1000));
forger.behaviours["/token"] = (response, _, { form }) => {
  const { RS256 } = forger.keys;
  const who = codes.get(form.get("code") ?? "");
  if (!who) return void response.writeHead(400).end(JSON.stringify({ error: "invalid_grant" }));
  const claims = forger.claims({ name: "Somebody There", ...who });
  response.writeHead(200, { "Content-Type": "application/json" });
  const id_token = signed({ alg: "RS256", kid: RS256.kid }, claims, RS256);
  response.end(JSON.stringify({ access_token: "AT", token_type: "bearer", id_token }));
};

/** As them at the provider: where it sends them back to. @param {string} location @param {string} sub */
export function goThere(location, sub) {
  const code = randomUUID();
  codes.set(code, { sub, nonce: new URL(location).searchParams.get("nonce") });
  return forger.back(location, { code });
}

let turn = 0;
/** At one of the isolates, each in turn. */
export const someone = () => workers[(turn += 1) % workers.length].visitor();

let names = 0;
/** Somebody with a new account, logged in to it. */
export async function owner(name = `Ada ${process.pid} ${(names += 1)}`) {
  const visitor = someone();
  const answer = await visitor.register(name, PASSWORD);
  assert.equal(answer.status, 201, answer.text);
  return { visitor, name, id: String(answer.json.session.user.id) };
}

/** A person at a provider whom no other test has. */
export const somebody = () => randomUUID();

/** Begins to tie: where to go. @param {Visitor} visitor */
export async function begin(visitor, { id = "acme", query = "?return_to=/account" } = {}) {
  const answer = await visitor.send("POST", `/auth/link/${id}${query}`);
  assert.equal(answer.status, 200, answer.text);
  return String(answer.json.location);
}

/** Ties the account of a visitor to somebody at a provider. @param {Visitor} visitor @param {string} sub */
export const tie = async (visitor, sub, id = "acme") =>
  visitor.send("GET", goThere(await begin(visitor, { id }), sub));

/** @param {Visitor} visitor */
export const untie = (visitor, id = "acme") => visitor.send("DELETE", `/auth/link/${id}`);

/** Logs in with a provider as somebody there. @param {string} sub @param {Visitor} [visitor] */
export async function logIn(sub, visitor = someone(), { id = "acme", query = "?return_to=/home" } = {}) {
  const begun = await visitor.send("GET", `/auth/login/${id}${query}`);
  const answer = await visitor.send("GET", goThere(String(begun.headers.get("location")), sub));
  return { visitor, answer, user: (await visitor.session())?.user };
}

/** Which providers a visitor is told that they can log in with. @param {Visitor} visitor @returns {Promise<string[]>} */
export async function linked(visitor) {
  const { json } = await visitor.send("GET", "/auth/providers");
  return json.providers
    .filter((/** @type {any} */ one) => one.linked)
    .map((/** @type {any} */ one) => one.id);
}

/** What an operator asks. @param {string} method @param {string} path @param {unknown} [body] */
export const operate = (method, path, body) =>
  someone().tell(method, `/admin${path}`, body, { Authorization: `Bearer ${ADMIN_TOKEN}` });

/** @param {Answer} answer @param {string} location */
export function assertSentTo(answer, location) {
  assert.deepEqual([answer.status, answer.headers.get("location")], [303, location], answer.text);
}

/** @param {Answer} answer @param {number} status @param {string} code */
export function assertRefused(answer, status, code) {
  assert.deepEqual([answer.status, answer.json?.code], [status, code], answer.text);
}

/** Time passes everywhere. @param {number} milliseconds */
export const wait = (milliseconds) => moveClocks(store, workers, milliseconds);
