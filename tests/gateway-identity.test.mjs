/** Who asks, signed: an origin verifies it with the libraries that people use, from the keys that the Worker publishes. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHmac } from "node:crypto";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { promisify } from "node:util";
import { makeKey, partsOf } from "./support/jwt.mjs";
import { startVerifiers } from "./support/verifiers.mjs";
import { randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/worker.mjs").Worker} Worker */
/** @typedef {Record<string, string>} Fields */

const PASSWORD = "correct horse battery";
const ADMIN = randomSecret();
const ED = makeKey("EdDSA", "2026-11 edwards");
const EC = makeKey("ES256", "2026-11 nist");
const MINUTE = 60_000;

/** @type {import("node:http").Server} */
let server;
let origin = "";
/** The headers of what has reached the origin. @type {import("node:http").IncomingHttpHeaders[]} */
let seen = [];
before(async () => {
  server = createServer((request, response) => {
    seen.push(request.headers);
    response.end("from the origin");
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  origin = `http://127.0.0.1:${/** @type {import("node:net").AddressInfo} */ (server.address()).port}`;
});
beforeEach(() => void (seen = []));
after(() => {
  server.closeAllConnections();
  server.close();
});

/** A deployment whose isolates differ in these. @param {import("./support/worker.mjs").Isolate[]} isolates */
const start = (isolates) => startDeployment(isolates, { secrets: { ADMIN_TOKEN: ADMIN, SESSION_SECRET } });
const SESSION_SECRET = randomSecret();

/** An isolate with this gateway and these keys. @param {object} gateway @param {unknown} keys @param {object} [more] */
const isolate = (gateway, keys, more = {}) => ({
  settings: {
    cookie: { name: "sid", secure: false },
    gateway: { origin, identity: "jwt", ...gateway },
    ...more,
  },
  secrets: { JWT_KEYS: typeof keys === "string" || keys === undefined ? keys : JSON.stringify(keys) },
});

/** Asks the origin through an isolate. @param {Worker} worker @param {string} [path] @param {Fields} [headers] */
async function ask({ url }, path = "/", headers = {}) {
  seen = [];
  const response = await fetch(url + path, { headers, redirect: "manual" });
  const text = await response.text();
  return {
    status: response.status,
    headers: response.headers,
    text,
    token: String(seen[0]?.["x-session-jwt"]),
  };
}

/** The cookie of a user that a back end has logged in. @param {Worker} worker @param {object} user @returns {Promise<Fields>} */
async function cookieOf(worker, user) {
  const visitor = worker.visitor();
  const headers = { Authorization: `Bearer ${ADMIN}` };
  const { status, json } = await visitor.tell("POST", "/admin/sessions", { user }, headers);
  assert.equal(status, 201);
  visitor.accept(json.set_cookie);
  return { cookie: visitor.cookieHeader() };
}

const NAMES = ["ada", "Zoë Ω", "李小龍", "محمد", "👩‍🚀", 'a"b\\c', "a\nb, c=d; e%20"];
const ROLES = ["editor", "Ärzte", 'a "b"'];

describe("an application that verifies who asks", () => {
  /** @type {Awaited<ReturnType<typeof startVerifiers>>} */
  let verifiers;
  /** @type {Awaited<ReturnType<typeof start>>} */
  let deployment;
  before(async () => {
    verifiers = await startVerifiers();
    deployment = await start([isolate({}, [ED, EC]), isolate({}, [EC, ED]), isolate({}, [ED, EC])]);
  });
  after(async () => {
    await deployment?.stop();
    await verifiers?.stop();
  });
  const LIBRARIES = ["jose", "PyJWT", "jsonwebtoken"];
  /** @param {string} library @param {{ token: string, issuer: string, audience: string }} question */
  const verify = (library, question) =>
    /** @type {import("./support/verifiers.mjs").WhoAsks} */ (verifiers.libraries[library])(question);

  for (const [index, [alg, { kid }]] of /** @type {const} */ ([
    ["EdDSA", ED],
    ["ES256", EC],
  ]).entries()) {
    for (const library of LIBRARIES) {
      test(`${library} believes what is signed with ${alg}, and nothing else`, async () => {
        const worker = deployment.workers[index];
        const visitor = worker.visitor();
        assert.equal((await visitor.register(`${library} ${alg}`, PASSWORD)).status, 201);
        const { user, handle, authenticated_at } = await visitor.session();
        const { token } = await ask(worker, "/", { cookie: visitor.cookieHeader() });
        const good = { token, issuer: worker.url, audience: origin };
        const { sub, name, roles, sid, auth_time } = await verify(library, good);
        assert.deepEqual(
          { sub, name, roles, sid, auth_time },
          {
            sub: user.id,
            name: user.name,
            roles: [],
            sid: handle,
            auth_time: Date.parse(authenticated_at) / 1000,
          },
        );
        assert.deepEqual(partsOf(token).header, { alg, kid, typ: "JWT" });

        const [header = "", claims = "", signature = ""] = token.split(".");
        const encoded = (/** @type {object} */ part) =>
          Buffer.from(JSON.stringify(part)).toString("base64url");
        const forged = encoded({ ...partsOf(token).claims, sub: "root" });
        const secret = JSON.stringify((await (await fetch(`${worker.url}/auth/jwks.json`)).json()).keys[0]);
        const hmac = `${encoded({ alg: "HS256", kid, typ: "JWT" })}.${forged}`;
        /** @type {Record<string, object>} */
        const bad = {
          "another application's": { audience: "https://other.example" },
          "another Worker's": { issuer: worker.url.replace("127.0.0.1", "localhost") },
          "one whose claims were changed": { token: `${header}.${forged}.${signature}` },
          "one without a signature": { token: `${encoded({ alg: "none", kid })}.${claims}.` },
          "one that is signed with what is published": {
            token: `${hmac}.${createHmac("sha256", secret).update(hmac).digest("base64url")}`,
          },
          "one under a key that is not published": {
            token: `${encoded({ alg, kid: "other", typ: "JWT" })}.${claims}.${signature}`,
          },
        };
        for (const [what, change] of Object.entries(bad)) {
          await assert.rejects(verify(library, { ...good, ...change }), what);
        }
      });
    }
  }

  test("a token is good for a minute, and nobody believes it ten minutes later", async () => {
    const worker = deployment.workers[2];
    await worker.moveClock(-10 * MINUTE);
    const { token } = await ask(worker, "/", await cookieOf(worker, { id: "early" }));
    const { iat, exp } = partsOf(token).claims;
    assert.equal(exp - iat, 60);
    for (const library of LIBRARIES) {
      const question = { token, issuer: worker.url, audience: origin };
      await assert.rejects(verify(library, question), /exp/i, library);
    }
  });

  test("names in any script, roles and the longest id arrive as they are", async () => {
    const worker = deployment.workers[0];
    for (const [index, name] of NAMES.entries()) {
      const user = { id: index ? `u/${index}` : "ü".repeat(127) + "x", name, roles: ROLES.slice(0, index) };
      const { token } = await ask(worker, "/", await cookieOf(worker, user));
      for (const library of LIBRARIES) {
        const { sub, name, roles } = await verify(library, { token, issuer: worker.url, audience: origin });
        assert.deepEqual({ id: sub, name, roles }, user, library);
      }
    }
  });
});

describe("what the origin is told", () => {
  const PUBLIC = { public: ["/assets/*"] };
  const GATEWAYS = [
    PUBLIC,
    { ...PUBLIC, identity: "both", audience: "my application" },
    { ...PUBLIC, identity: "headers" },
    { ...PUBLIC, identity: "none", rules: [{ path: "/in", require: "user" }] },
  ];
  const OTHERS = ["x-session-user", "x-session-name", "x-session-roles", "x-session-handle"];
  /** @type {Awaited<ReturnType<typeof start>>} */
  let deployment;
  /** @type {Fields} */
  let ada;
  before(async () => {
    deployment = await start(GATEWAYS.map((gateway) => isolate(gateway, [ED])));
    ada = await cookieOf(deployment.workers[0], { id: "ada", roles: ["editor"] });
  });
  after(() => deployment?.stop());
  /** Whether what arrived has the token, and whether it has the other headers. */
  const told = () => [
    "x-session-jwt" in (seen[0] ?? {}),
    ...new Set(OTHERS.map((name) => name in (seen[0] ?? {}))),
  ];

  test("is the token, the other headers, both or nothing, as the settings say", async () => {
    for (const [index, expected] of [
      [true, false],
      [true, true],
      [false, true],
      [false, false],
    ].entries()) {
      assert.equal((await ask(deployment.workers[index], "/in", ada)).status, 200);
      assert.deepEqual(told(), expected, JSON.stringify(GATEWAYS[index]));
    }
  });

  test("is for the origin, or for whom the settings name, and says where it is from", async () => {
    for (const [index, aud] of [origin, "my application"].entries()) {
      const { token } = await ask(deployment.workers[index], "/", ada);
      const { iss, ...claims } = partsOf(token).claims;
      assert.deepEqual([claims.aud, iss], [aud, deployment.workers[index].url]);
    }
  });

  test("is never what a visitor says, in whatever spelling", async () => {
    const forged = {
      "x-session-jwt": "forged",
      X_Session_Jwt: "forged",
      "X-Session_JWT": "forged",
      x_session_user: "root",
    };
    for (const [index, worker] of deployment.workers.entries()) {
      for (const path of ["/", "/assets/x"]) {
        await ask(worker, path, forged);
        assert.deepEqual(
          Object.keys(seen[0] ?? {}).filter((name) => /session/i.test(name)),
          [],
          `${index} ${path}`,
        );
      }
      await ask(worker, "/", { ...forged, ...ada });
      assert.doesNotMatch(JSON.stringify(seen[0]), /forged|root/);
    }
  });

  test("is nothing where there is no user: then nothing is signed either", async () => {
    const [worker] = deployment.workers;
    const anonymous = worker.visitor();
    await anonymous.merge({ a: 1 });
    await worker.breakSigning();
    /** @type {[string, Fields][]} */
    const requests = [
      ["/", {}],
      ["/", { cookie: anonymous.cookieHeader() }],
      ["/assets/x", ada],
      ["/", { ...ada, "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors" }],
    ];
    for (const [path, headers] of requests) {
      assert.equal((await ask(worker, path, headers)).status, 200);
      assert.deepEqual(told(), [false, false], path);
    }
    // The signature that was to fail was not made yet.
    const failed = await ask(worker, "/", ada);
    assert.deepEqual([failed.status, JSON.parse(failed.text).code, seen.length], [500, "internal", 0]);
    assert.match(worker.logs.join(""), /a key of JWT_KEYS that was good has not signed/);
    assert.doesNotMatch(worker.logs.join(""), /could hold data/);
    assert.equal((await ask(worker, "/", ada)).status, 200);
  });

  test("never reaches a log", async () => {
    for (const worker of deployment.workers) {
      const { token } = await ask(worker, "/", ada);
      const logged = worker.logs.join("");
      for (const secret of [token, ED.d, ED.kid]) assert.ok(!logged.includes(String(secret)));
    }
  });
});

test("behind a binding it is for the Worker's own origin; a user of an Express application's session is told as well", async () => {
  const secret = "the application's own secret, quite long";
  const handler = (/** @type {any} */ request) => {
    seen.push(Object.fromEntries(request.headers));
    return /** @type {any} */ (new Response("bound"));
  };
  const { Response } = await import("miniflare");
  const bound = isolate({ origin: "binding" }, [EC]);
  const express = isolate({}, [EC], { cookie: { format: "express", secure: false, user_pointer: "/user" } });
  const deployment = await start([
    { ...bound, others: /** @type {any} */ ({ serviceBindings: { ORIGIN: handler } }) },
    { ...express, secrets: { ...express.secrets, FORMAT_SECRETS: JSON.stringify([secret]) } },
  ]);
  const { store, workers } = deployment;
  try {
    const { token } = await ask(workers[0], "/", await cookieOf(workers[0], { id: "ada" }));
    assert.equal(partsOf(token).claims.aud, workers[0].url);

    const user = { id: "7", name: "Grace ☕", roles: ["a b"] };
    await store.redis.set("sess:a-session-of-express", JSON.stringify({ cookie: { path: "/" }, user }), {
      EX: 600,
    });
    const signature = createHmac("sha256", secret)
      .update("a-session-of-express")
      .digest("base64")
      .replace(/=+$/, "");
    const cookie = `connect.sid=${encodeURIComponent(`s:a-session-of-express.${signature}`)}`;
    const { claims } = partsOf((await ask(workers[1], "/", { cookie })).token);
    const { sub, name, roles, sid } = claims;
    assert.deepEqual({ id: sub, name, roles }, user);
    assert.match(sid, /^[\w-]{24}$/);
    assert.ok(!("auth_time" in claims), "such a record does not say when the login was");
  } finally {
    await deployment.stop();
  }
});

describe("the published keys", () => {
  /** @type {Awaited<ReturnType<typeof start>>} */
  let deployment;
  before(async () => {
    const limits = { ip: "1/1h", session: "", mint: "", login: "" };
    deployment = await start([
      isolate({}, [ED, EC], { limits }),
      isolate({ identity: "headers" }, undefined),
      // No gateway: another Worker of the same people signs with them.
      { settings: { base_path: "/a" }, secrets: { JWT_KEYS: JSON.stringify([EC]) } },
    ]);
  });
  after(() => deployment?.stop());

  test("are the public halves alone, for everybody, to be kept for an hour", async () => {
    const [worker, , bare] = deployment.workers;
    const visitor = worker.visitor();
    visitor.cookies.set("sid", "forged");
    const look = (headers = {}) => visitor.send("GET", "/auth/jwks.json", { headers });
    const { value: answer, calls } = await deployment.store.counters.during(() => look());
    const half = ({ kty = "", crv = "", x = "", y = "", kid = "" }, alg = "") =>
      y ? { kty, crv, x, y, kid, alg, use: "sig" } : { kty, crv, x, kid, alg, use: "sig" };
    assert.deepEqual(answer.json, { keys: [half(ED, "EdDSA"), half(EC, "ES256")] });
    assert.equal(calls, 0);
    assert.equal(answer.headers.get("cache-control"), "public, max-age=3600");
    assert.match(String(answer.headers.get("content-type")), /^application\/jwk-set\+json/);
    for (const name of ["set-cookie", "vary", "ratelimit", "ratelimit-policy"]) {
      assert.equal(answer.headers.get(name), null, name);
    }
    // One request an hour is allowed, and this is none.
    const address = {
      "Session-Client-Address": "x",
      "Sec-Fetch-Site": "cross-site",
      "Sec-Fetch-Mode": "no-cors",
    };
    for (const headers of [{}, {}, address]) assert.equal((await look(headers)).status, 200);
    assert.equal((await visitor.send("HEAD", "/auth/jwks.json")).status, 200);
    assert.deepEqual((await bare.visitor().send("GET", "/a/jwks.json")).json, { keys: [half(EC, "ES256")] });
    const posted = await bare.visitor().send("POST", "/a/jwks.json");
    assert.deepEqual([posted.status, posted.headers.get("allow")], [405, "GET, HEAD"]);
  });

  test("are not there without JWT_KEYS", async () => {
    const visitor = deployment.workers[1].visitor();
    for (const method of ["GET", "POST", "OPTIONS"]) {
      assert.equal((await visitor.send(method, "/auth/jwks.json")).status, 404, method);
    }
  });
});

describe("keys that are of no use", () => {
  const halves = (
    /** @type {ReturnType<typeof makeKey>} */ one,
    /** @type {ReturnType<typeof makeKey>} */ other,
  ) => ({
    ...one,
    x: other.x,
    ...(other.y ? { y: other.y } : {}),
  });
  for (const [what, keys, entry] of /** @type {[string, unknown[], number][]} */ ([
    ["an Ed25519 key with another's public half", [halves(ED, makeKey("EdDSA", "x"))], 0],
    ["a P-256 key with another's public half", [halves(EC, makeKey("ES256", "x"))], 0],
    ["a key that is to sign later", [ED, halves(EC, makeKey("ES256", "x"))], 1],
    ["no point of the curve", [{ ...EC, y: "A".repeat(43) }], 0],
  ])) {
    test(`${what}: who asks is 500, the log names the entry once, the rest goes on`, async () => {
      const deployment = await start([isolate({ public: ["/assets/*"] }, keys)]);
      const [worker] = deployment.workers;
      try {
        const ada = await cookieOf(worker, { id: "ada" });
        for (const path of ["/", "/auth/jwks.json", "/"]) {
          const { status, text, headers } = await ask(worker, path, ada);
          assert.deepEqual([status, JSON.parse(text).code, seen.length], [500, "misconfigured", 0], path);
          assert.match(String(headers.get("cache-control")), /no-store/);
        }
        assert.equal((await ask(worker, "/assets/x", ada)).status, 200);
        assert.equal((await ask(worker, "/")).status, 200, "nobody");
        assert.equal((await ask(worker, "/auth/session", ada)).status, 200);
        const logged = worker.logs.join("");
        assert.equal(logged.split(`JWT_KEYS[${entry}] cannot be used`).length, 2, logged);
        assert.equal(logged.split("cannot be used").length, 2, logged);
        for (const secret of [ED.d, EC.d, ED.x, EC.x]) assert.ok(!logged.includes(String(secret)));
      } finally {
        await deployment.stop();
      }
    });
  }

  test("what can be seen without cryptography is told at the start", async () => {
    const { d, ...half } = ED;
    const deployment = await start([isolate({}, undefined), isolate({}, [half]), isolate({}, "[{")]);
    try {
      for (const [index, fault] of [
        /JWT_KEYS is missing: set it with/,
        /JWT_KEYS\[0\]\.d is missing: this is the public half alone/,
        /JWT_KEYS must be a JSON array of private keys/,
      ].entries()) {
        const { status, text } = await ask(deployment.workers[index], "/");
        assert.deepEqual([status, JSON.parse(text).code], [500, "misconfigured"]);
        assert.match(deployment.workers[index].logs.join(""), fault);
      }
      assert.ok(d);
    } finally {
      await deployment.stop();
    }
  });
});

describe("docs/gateway.md", () => {
  const page = readFile(new URL("../docs/gateway.md", import.meta.url), "utf8");
  /** The only block of a language in the section on signed identity. @param {string} language */
  const block = async (language) => {
    const [, section = ""] = /^## Signed identity\n(.*?)^## /ms.exec(await page) ?? [];
    const found = [...section.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, "gms"))];
    assert.equal(found.length, 1, language);
    return found[0]?.[1] ?? "";
  };

  test("shows what the verifiers of these tests are made of", async () => {
    for (const [language, file] of Object.entries({
      js: "who-asks.mjs",
      python: "who_asks.py",
      rust: "src/lib.rs",
    })) {
      const source = new URL(`fixtures/verify-jwt/${file}`, import.meta.url);
      assert.equal(await block(language), await readFile(source, "utf8"), file);
    }
  });

  test("makes keys of both kinds that sign", async () => {
    const [make = ""] = (await block("shell")).split("npx wrangler");
    const other = /generateKeyPairSync\("ec", \{ namedCurve: "P-256" \}\)/.exec(make)?.[0];
    assert.ok(other, "the other kind is in its comment");
    const cwd = await mkdtemp(join(tmpdir(), "cloakroom-"));
    const deployment = await start([]);
    try {
      for (const [lines, alg] of [
        [make, "EdDSA"],
        [make.replace('generateKeyPairSync("ed25519")', other), "ES256"],
      ]) {
        await promisify(execFile)("/bin/sh", ["-c", lines], { cwd });
        const keys = await readFile(join(cwd, "jwt-keys.json"), "utf8");
        const worker = await deployment.start(isolate({}, keys));
        const { token } = await ask(worker, "/", await cookieOf(worker, { id: "ada" }));
        assert.equal(partsOf(token).header.alg, alg);
      }
    } finally {
      await deployment.stop();
      await rm(cwd, { recursive: true });
    }
  });
});
