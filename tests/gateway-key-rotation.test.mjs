/** `JWT_KEYS` are changed in three steps, under running requests, and none of them is refused by who verifies it. */
import assert from "node:assert/strict";
import { createServer, get } from "node:http";
import { after, afterEach, before, mock, test } from "node:test";
import { createRemoteJWKSet, customFetch, jwtVerify } from "jose";
import { makeKey, partsOf } from "./support/jwt.mjs";
import { moveClocks, randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/worker.mjs").Worker} Worker */

const HOUR = 3_600_000;
/** Until a token has ended, and a verifier whose clock is late knows it. */
const TOKENS_END = 65_000;
/** All isolates are one site. */
const SITE = "http://app.example";
const [OLD, NEW] = [makeKey("EdDSA", "old"), makeKey("ES256", "new")];

/** @type {import("node:http").Server} */
let server;
/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let deployment;
let cookie = "";
before(async () => {
  // The origin answers with the token that it was given.
  server = createServer((request, response) => response.end(request.headers["x-session-jwt"]));
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const settings = {
    cookie: { name: "sid", secure: false },
    session: { idle: "10d", absolute: "10d", rotate_every: "" },
    gateway: { origin: `http://127.0.0.1:${port}`, audience: "app", identity: "jwt" },
  };
  const keys = [[OLD], [OLD, NEW], [NEW, OLD], [NEW]];
  deployment = await startDeployment(
    keys.map((keys) => ({ secrets: { JWT_KEYS: JSON.stringify(keys) } })),
    { settings, secrets: { SESSION_SECRET: randomSecret() } },
  );
  const visitor = deployment.workers[0].visitor();
  assert.equal((await visitor.register("ada", "correct horse battery")).status, 201);
  cookie = visitor.cookieHeader();
});
after(async () => {
  await deployment?.stop();
  server?.close();
});
afterEach(() => mock.timers.reset());

/** The body of an answer of the site, by this isolate. @param {Worker} worker @param {string} path @returns {Promise<string>} */
const ask = ({ url }, path) =>
  new Promise((done, fail) => {
    get(url + path, { headers: { host: new URL(SITE).host, cookie }, agent: false }, (answer) => {
      let text = "";
      answer.setEncoding("utf8").on("data", (chunk) => (text += chunk));
      answer.on("end", () => done(text));
    }).on("error", fail);
  });

/**
 * A verifier that asks for the keys once an hour, whatever it sees, and gets them of one of the isolates that are there.
 * @param {() => Worker[]} present
 */
function strict(present) {
  const options = { cacheMaxAge: HOUR, cooldownDuration: HOUR };
  const keys = createRemoteJWKSet(new URL("/auth/jwks.json", SITE), {
    ...options,
    [customFetch]: async (/** @type {string} */ url) =>
      new Response(await ask(/** @type {Worker} */ (present()[0]), new URL(url).pathname)),
  });
  return (/** @type {string} */ token) => jwtVerify(token, keys, { issuer: SITE, audience: "app" });
}

/** @param {number} milliseconds for everybody */
async function pass(milliseconds) {
  await moveClocks(deployment.store, deployment.workers, milliseconds);
  mock.timers.tick(milliseconds);
}

/** Which keys have signed what the isolates that are present answered at once. @param {Worker[]} present */
async function tokens(present) {
  return Promise.all(
    Array.from({ length: 12 }, (_, index) => ask(present[index % present.length] ?? present[0], "/")),
  );
}

test("the new key second, an hour, first, a minute, the old one dropped: no request is refused", async () => {
  const [old, both, turned, fresh] = deployment.workers;
  mock.timers.enable({ apis: ["Date"], now: Date.now() });
  /** The isolates that answer now. @type {Worker[]} */
  let present = [];
  /** Each gets the keys at another time: the first in the step, and the last possible. @type {ReturnType<typeof strict>[]} */
  const verifiers = [];
  /** @type {string[][]} */
  const signers = [];
  /** @type {[Worker[], number][]} which isolates answer, and for how long after that nothing is changed */
  const steps = [
    [[old], 0],
    [[old, both], 0], // while it is rolled out, either may answer
    [[both], HOUR],
    [[both, turned], 0],
    [[turned], TOKENS_END],
    [[turned, fresh], 0],
    [[fresh], HOUR],
    [[fresh], 0],
  ];
  for (const [step, wait] of steps) {
    present = step;
    verifiers.push(strict(() => present));
    const all = await tokens(present);
    for (const verify of verifiers) {
      for (const token of all) assert.equal((await verify(token)).payload.name, "ada");
    }
    signers.push([...new Set(all.map((token) => partsOf(token).header.kid))].sort());
    await pass(wait);
  }
  const [first, mixed, last] = [["old"], ["new", "old"], ["new"]];
  assert.deepEqual(signers, [first, first, first, mixed, last, last, last, last]);
});

test("without the hour such a verifier refuses, which is what the hour is for", async () => {
  const [old, , turned] = deployment.workers;
  // The clocks of the isolates were moved.
  mock.timers.enable({ apis: ["Date"], now: partsOf(await ask(old, "/")).claims.iat * 1000 });
  let present = [old];
  const verify = strict(() => present);
  await verify(await ask(old, "/"));
  present = [turned];
  await assert.rejects(verify(await ask(turned, "/")), { code: "ERR_JWKS_NO_MATCHING_KEY" });
});
