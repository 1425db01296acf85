/** What the tests of accounts share: a deployment, started with the import, and users who register and log in. */
import assert from "node:assert/strict";
import { after, beforeEach } from "node:test";
import { FAST_HASH, NO_LIMITS, randomSecret, startDeployment } from "./worker.mjs";

/** @typedef {import("./visitor.mjs").Visitor} Visitor */
/** @typedef {import("./visitor.mjs").Answer} Answer */
/** @typedef {import("./worker.mjs").Worker} Worker */
/** @typedef {import("../../tools/local-store/faults.mjs").When} When */
/** @typedef {import("../../tools/local-store/faults.mjs").Fault} Fault */

export const MINUTE = 60_000;
export const RIGHT = "correct horse";
export const WRONG = "wrong horse!";
/** The cookie that makes a device known to an account. */
export const DEVICE = "__Host-session-device";
const ADMIN_TOKEN = randomSecret();
export const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
export const secrets = { SESSION_SECRET: randomSecret(), ADMIN_TOKEN };

const settings = { password: FAST_HASH, session: { max_per_user: 4 }, limits: NO_LIMITS };
const deployment = await startDeployment([{}, {}], { settings, secrets });
after(deployment.stop);

export const { store, start } = deployment;
/** Two isolates of one deployment, without limits. */
export const two = [...deployment.workers];

/** Two more isolates, with limits. */
export const startLimited = () => {
  const limits = { session: "", mint: "1000/1m", login: "10/5m" };
  return Promise.all([0, 1].map(() => start({ settings: { limits } })));
};

/** A number that no other test has. */
export let number = 0;
/** A name that no other test has. */
export let name = "";
/** An address in a network (/24) that no other test has. */
export let address = "";

/** The name that is registered and logged in from now on. @param {string} newName */
export const useName = (newName) => void (name = newName);

/** For a test that needs more than one. */
export const nextNumber = () => (number += 1);

beforeEach(() => {
  store.faults.clear();
  nextNumber();
  useName(`Ada ${number}`);
  address = `198.${51 + (number >> 8)}.${number & 255}.1`;
});

let turn = 0;
/** One of two isolates, each in turn. @param {Worker[]} [workers] */
export const inTurn = (workers = two) => workers[(turn += 1) % 2];

/** A new visitor. @param {Worker[]} [workers] */
export const someone = (workers = two) => inTurn(workers).visitor();

/** A new visitor who registers. @param {Worker[]} [workers] */
export async function registered(workers = two) {
  const visitor = someone(workers);
  const answer = await visitor.register(name, RIGHT, { "CF-Connecting-IP": "192.0.2.1" });
  assert.equal(answer.status, 201, answer.text);
  return visitor;
}

/** A new visitor who logs in. @param {string} [password] */
export async function loggedIn(password = RIGHT) {
  const visitor = someone();
  const answer = await visitor.login(name, password);
  assert.equal(answer.status, 200, answer.text);
  return visitor;
}

/** @param {Visitor} visitor @param {unknown} patch @param {Record<string, string>} [headers] */
export const mergeProfile = (visitor, patch, headers = {}) =>
  visitor.tell("PATCH", "/profile", patch, { "Content-Type": "application/merge-patch+json", ...headers });

/** What an operator asks of the service API. @param {string} method @param {string} path @param {unknown} [body] */
export const operate = (method, path, body) => someone().tell(method, `/admin${path}`, body, admin);

/** The path of a user's account in the service API. @param {string} id */
export const userPath = (id) => `/users/${encodeURIComponent(id)}`;

/** @param {string} id @param {boolean} disabled */
export const setDisabled = (id, disabled) => operate("PATCH", userPath(id), { disabled });

/** A token that resets the password of a user. @param {string} id @returns {Promise<string>} */
export async function resetToken(id) {
  const answer = await operate("POST", `${userPath(id)}/reset`);
  assert.equal(answer.status, 201, answer.text);
  return answer.json.token;
}

/** @param {string} token @param {string} password @param {Visitor} [visitor] */
export const useToken = (token, password, visitor = someone()) =>
  visitor.tell("POST", "/reset", { token, new: password });

/** @param {string} id @param {unknown} body */
export const setRoles = (id, body) =>
  someone().tell("PUT", `/admin/users/${encodeURIComponent(id)}/roles`, body, admin);

/** @param {Answer} answer @param {number} status @param {string} code */
export function assertRefused(answer, status, code) {
  assert.equal(answer.status, status, answer.text);
  assert.equal(answer.json.code, code);
  assert.equal(answer.headers.get("content-type"), "application/problem+json");
}

/** Matches the first call to the store with this command. @param {string} command @returns {When} */
export const firstCall = (command) => {
  let isFirst = true;
  return ({ commands }) => {
    const matches = isFirst && commands.some(([word]) => word === command);
    if (matches) isFirst = false;
    return matches;
  };
};

/** Matches the call that creates a session. */
export const sessionCreation = () => firstCall("HSET");

/** Somebody who has registered, and their id. */
export async function owner() {
  const visitor = await registered();
  return { visitor, id: String((await visitor.session()).user.id) };
}
