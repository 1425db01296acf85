/** /auth/openapi.json is OpenAPI, is exact about every answer of every route, and Schemathesis finds nothing. */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { runPython } from "../tools/schemathesis.mjs";
import { makeKey } from "./support/jwt.mjs";
import { assertDescribed, document, operations } from "./support/openapi.mjs";
import { FAST_HASH, randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {{ path?: string, body?: unknown, type?: string, headers?: Record<string, string> }} Request */

const ADMIN_TOKEN = randomSecret();
const ADMIN = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const PASSWORD = "correct horse";
// Nobody answers there, and nobody is asked to begin a login.
const provider = {
  id: "x",
  type: "oauth2",
  client_id: "client",
  authorize_url: "https://x.example/authorize",
  token_url: "https://x.example/token",
  user_url: "https://x.example/user",
  subject: "/id",
};
const settings = {
  password: FAST_HASH,
  bearer: { enabled: true },
  accounts: { providers: [provider] },
};
const JWT_KEYS = JSON.stringify([makeKey("EdDSA", "one"), makeKey("ES256", "two")]);
const secrets = { SESSION_SECRET: randomSecret(), ADMIN_TOKEN, JWT_KEYS, PROVIDER_X_SECRET: "secret" };

/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let deployment;
before(async () => {
  // In the second one every request of a session is counted.
  deployment = await startDeployment([{}, { settings: { ...settings, limits: { mint: "", login: "" } } }], {
    settings,
    secrets,
  });
});
after(() => deployment.stop());

test("it is OpenAPI 3.1, says where the routes are, and costs the store nothing", async () => {
  const [worker] = deployment.workers;
  const look = () => worker.visitor().send("GET", "/auth/openapi.json");
  const { value: answer, calls } = await deployment.store.counters.during(look);
  assert.equal(calls, 0);
  assert.deepEqual(answer.json, document);
  assert.equal(answer.headers.get("content-type"), "application/json");

  const folder = await mkdtemp(join(tmpdir(), "cloakroom-openapi-"));
  const file = join(folder, "openapi.json");
  await writeFile(file, answer.text);
  const { ok, output } = await runPython("openapi_spec_validator", ["--schema", "3.1", file]);
  await rm(folder, { recursive: true });
  assert.ok(ok, output);

  const other = await deployment.start({
    settings: { base_path: "/a/b", cookie: { name: "__Secure-id" } },
  });
  const { servers, components } = (await other.visitor().send("GET", "/a/b/openapi.json")).json;
  assert.deepEqual(servers, [{ url: "/a/b" }]);
  assert.equal(components.securitySchemes.cookie.name, "__Secure-id");
  const bare = await deployment.start({ settings: { base_path: "" } });
  assert.deepEqual((await bare.visitor().send("GET", "/openapi.json")).json.servers, [{ url: "/" }]);
});

describe("answers", () => {
  /** What was answered so far. @type {Set<string>} */
  const seen = new Set();
  let number = 0;

  /** A request to each route that it grants. @type {Record<string, (visitor: Visitor) => Request | Promise<Request>>} */
  const GOOD = {
    "PATCH /session/data": () => ({ body: { a: 1 } }),
    "POST /register": () => ({ body: { username: `ben ${(number += 1)}`, password: PASSWORD } }),
    "POST /login": async (visitor) => ({ body: { username: await nameOf(visitor), password: PASSWORD } }),
    "POST /reauthenticate": () => ({ body: { password: PASSWORD } }),
    "POST /password": () => ({ body: { current: PASSWORD, new: PASSWORD } }),
    "POST /reset": async () => {
      const forgetful = deployment.workers[0].visitor();
      await forgetful.register(`forgetful ${(number += 1)}`, PASSWORD);
      return { body: { token: await tokenOf(forgetful), new: PASSWORD } };
    },
    "DELETE /account": () => ({ body: { password: PASSWORD } }),
    "PATCH /profile": () => ({
      type: "application/json-patch+json",
      body: [{ op: "increment", path: "/views", value: 1 }],
    }),
    "GET /verify/{path}": () => ({ path: "/verify/some/page" }),
    "DELETE /sessions/{handle}": async (visitor) => ({ path: `/sessions/${await handleOf(visitor)}` }),
    "POST /admin/sessions": () => ({
      body: { user: { id: "u/1", roles: ["a b"] }, data: { a: null }, client: { address: "2001:db8::1" } },
    }),
    "GET /admin/sessions/{handle}": async (visitor) => ({
      path: `/admin/sessions/${await handleOf(visitor)}`,
    }),
    "DELETE /admin/sessions/{handle}": async (visitor) => ({
      path: `/admin/sessions/${await handleOf(visitor)}`,
    }),
    "GET /admin/users/{id}/sessions": async (visitor) => ({
      path: `/admin/users/${await idOf(visitor)}/sessions`,
    }),
    "DELETE /admin/users/{id}/sessions": async (visitor) => ({
      path: `/admin/users/${await idOf(visitor)}/sessions`,
    }),
    "GET /admin/users": async (visitor) => ({
      path: `/admin/users?name=${encodeURIComponent(await nameOf(visitor))}`,
    }),
    "POST /admin/inspect": () => ({ body: { cookie: "x" } }),
    "POST /admin/users": () => ({
      body: { username: `made ${(number += 1)}`, password: PASSWORD, roles: ["editor"] },
    }),
    "GET /admin/users/{id}": async (visitor) => ({ path: `/admin/users/${await idOf(visitor)}` }),
    "PATCH /admin/users/{id}": async (visitor) => ({
      path: `/admin/users/${await idOf(visitor)}`,
      body: { disabled: true },
    }),
    "DELETE /admin/users/{id}": async (visitor) => ({ path: `/admin/users/${await idOf(visitor)}` }),
    "POST /admin/users/{id}/reset": async (visitor) => ({
      path: `/admin/users/${await idOf(visitor)}/reset`,
    }),
    "PUT /admin/users/{id}/roles": async (visitor) => ({
      path: `/admin/users/${await idOf(visitor)}/roles`,
      body: { roles: ["editor", "ä"] },
    }),
  };
  const user = async (/** @type {Visitor} */ visitor) =>
    (await visitor.clone().session())?.user ?? { id: "u", name: "nobody" };
  const idOf = async (/** @type {Visitor} */ visitor) => (await user(visitor)).id;
  const nameOf = async (/** @type {Visitor} */ visitor) => (await user(visitor)).name;
  /** One that leads to nobody while the store fails. */
  const tokenOf = async (/** @type {Visitor} */ visitor) => {
    const path = `/admin/users/${await idOf(visitor)}/reset`;
    return (await visitor.tell("POST", path, undefined, ADMIN)).json.token ?? "A".repeat(64);
  };
  const handleOf = async (/** @type {Visitor} */ visitor) =>
    (await visitor.clone().session())?.handle ?? "A".repeat(24);

  /** Somebody who is logged in. */
  async function loggedIn(worker = deployment.workers[0]) {
    const visitor = worker.visitor();
    const { status } = await visitor.register(`ada ${(number += 1)}`, PASSWORD);
    assert.equal(status, 201);
    return visitor;
  }

  /**
   * Sends a good request to a route, changed by `more`, and looks the answer up.
   * @param {import("./support/openapi.mjs").Operation} operation
   * @param {Visitor} visitor
   * @param {Request & { raw?: string }} [more]
   * @returns {Promise<Answer>}
   */
  async function ask({ method, path }, visitor, more = {}) {
    const good = { path, ...(await GOOD[`${method} ${path}`]?.(visitor)), ...more };
    const body = more.raw ?? (good.body === undefined ? undefined : JSON.stringify(good.body));
    /** @type {Record<string, string>} */
    const headers = path.startsWith("/admin/") ? { ...ADMIN } : {};
    if (body !== undefined) headers["Content-Type"] = good.type ?? "application/json";
    const at = (good.path ?? path).replace(/\{\w+\}/, "x");
    const answer = await visitor.send(method, `/auth${at}`, {
      headers: { ...headers, ...more.headers },
      body,
    });
    seen.add(assertDescribed(method, at, answer));
    return answer;
  }

  const has = (
    /** @type {import("./support/openapi.mjs").Operation} */ { operation },
    /** @type {number} */ status,
  ) => status in operation.responses;

  /** Whether everybody gets the same, uncounted and without the store. @param {string} path */
  const isPublic = (path) => path === "/jwks.json";

  for (const operation of operations) {
    const { method, path } = operation;
    test(`${method} ${path}`, async () => {
      const { store, workers } = deployment;
      const limited = workers[1];
      const good = await ask(operation, await loggedIn());
      assert.ok(good.status < 400, good.text);
      await ask(operation, deployment.workers[0].visitor());
      await ask(operation, deployment.workers[0].visitor(), { headers: { Authorization: "Bearer wrong" } });
      const bearer = { "Session-Transport": "bearer" };
      if (!path.startsWith("/admin/")) {
        const visitor = await loggedIn();
        const headers = { ...bearer, Authorization: `Bearer ${visitor.ticket}` };
        // The way to a provider and back takes a cookie jar.
        if (!/login|\{handle\}/.test(path) && `${method} ${path}` !== "POST /link/{provider}") {
          visitor.cookies.clear();
          assert.ok((await ask(operation, visitor, { headers })).status < 400);
        }
      }

      // What the request as a whole may have wrong with it.
      const visitor = await loggedIn();
      await ask(operation, visitor, { headers: { ...ADMIN, "Session-Client-Address": "x" } });
      await ask(operation, visitor, { headers: { "Sec-Fetch-Site": "cross-site" } });
      await ask(operation, visitor, { headers: { "If-Match": '"x"' } });
      const again = await loggedIn();
      await ask(operation, again, { headers: { "If-None-Match": "*" } });
      await ask(operation, again, { raw: "x", headers: { "Content-Encoding": "gzip" } });
      await ask(operation, again, { raw: "x".repeat(300_000) });
      await ask(operation, again, { raw: "x", type: "text/plain" });
      await ask(operation, again, { raw: "{" });
      if (has(operation, 422)) await ask(operation, again, { raw: `{"a":[${"0,".repeat(10_000)}0]}` });

      // Whom it does not concern.
      const guest = deployment.workers[0].visitor();
      const { json } = await guest.tell("POST", "/admin/sessions", { user: { id: "elsewhere" } }, ADMIN);
      guest.accept(json.set_cookie);
      const nowhere = path.includes("{") ? { path: path.replace(/\{\w+\}/, "A".repeat(24)) } : {};
      const of = path.startsWith("/admin/") ? nowhere : {};
      await ask(operation, guest, of);

      // What is not there, and what fails.
      const counted = await loggedIn(limited);
      if (has(operation, 404)) await ask(operation, await loggedIn(), nowhere);
      store.faults.next({ status: 500, body: "busy" }, { times: 40 });
      const failed = await ask(operation, counted, nowhere);
      store.faults.clear();
      assert.equal(failed.status, isPublic(path) ? 200 : 503);
    });
  }

  test("a login that was long ago, a role that is missing, a name that is taken, a token that is unknown", async () => {
    const [worker] = deployment.workers;
    const visitor = await loggedIn();
    const role = await visitor.send("GET", "/auth/verify?role=admin");
    assert.equal(role.json.code, "forbidden");
    seen.add(assertDescribed("GET", "/verify", role));
    seen.add(assertDescribed("GET", "/verify/x", await visitor.send("GET", "/auth/verify/?role=admin")));
    const name = await nameOf(visitor);
    const taken = await worker.visitor().register(name, PASSWORD);
    assert.equal(taken.json.code, "conflict");
    seen.add(assertDescribed("POST", "/register", taken));
    const unknown = await worker.visitor().tell("POST", "/reset", { token: "x", new: PASSWORD });
    assert.equal(unknown.json.code, "invalid_credentials");
    seen.add(assertDescribed("POST", "/reset", unknown));

    await worker.moveClock(20 * 60_000);
    deployment.store.moveClock(20 * 60_000);
    for (const operation of operations.filter((one) =>
      ["POST /password", "DELETE /account", "DELETE /sessions"].includes(`${one.method} ${one.path}`),
    )) {
      assert.equal((await ask(operation, visitor)).json.code, "reauthenticate");
    }
  });

  test("over a limit, and with a wrong configuration", async () => {
    const limited = await deployment.start({
      settings: { limits: { ip: "1/1h", session: "", mint: "", login: "" } },
    });
    await limited.visitor().look();
    const wrong = await deployment.start({ settings: { nonsense: true } });
    const off = await deployment.start({ secrets: { ADMIN_TOKEN: undefined, JWT_KEYS: undefined } });
    const without = await deployment.start({ settings: { ...settings, accounts: { login: false } } });
    const others = await deployment.start({
      settings: { ...settings, bearer: {}, cookie: { format: "express", name: "connect.sid" } },
    });
    for (const operation of operations) {
      const path = operation.path.replace(/\{\w+\}/, "A".repeat(24));
      const status = isPublic(path) ? 200 : 429;
      assert.equal((await ask(operation, limited.visitor(), { path })).status, status);
      assert.equal((await ask(operation, wrong.visitor(), { path })).status, 500);
      if (/^\/(register|login|reauthenticate|password|reset|account|profile)$/.test(path))
        assert.equal((await ask(operation, without.visitor())).status, 404);
      // What cannot be done with another application's sessions.
      if (path !== operation.path && operation.path.includes("{provider}"))
        assert.equal((await ask(operation, others.visitor())).status, 422);
      if (/^\/admin\/users\/[^/]*(\/reset)?$/.test(path) && has(operation, 422))
        assert.equal((await ask(operation, others.visitor(), { path })).status, 422);
      if (path.startsWith("/admin/") || isPublic(path))
        assert.equal((await ask(operation, off.visitor(), { path })).status, 404);
    }
  });

  test("every answer that is described was seen, but for those that take a race", () => {
    const described = operations.flatMap(({ method, path, operation }) =>
      Object.keys(operation.responses).map((status) => `${method} ${path} ${status}`),
    );
    const isRace = (/** @type {string} */ one) => / 409$|^PATCH \/session\/data 401$/.test(one);
    const missing = described.filter((one) => !seen.has(one) && !isRace(one));
    assert.deepEqual(missing, []);
  });
});

describe("Schemathesis finds nothing", () => {
  /** Those that end the session which the run is about. */
  const ENDING = "^/(session|logout|sessions|account|password|reauthenticate|session/rotate)$";
  /** @type {[string, (ticket: string) => string, string[]][]} */
  const runs = [
    ["with the admin token, and without a session", () => "", []],
    [
      "with a session",
      (ticket) => `[auth.openapi.cookie]\napi_key = "${ticket}"\n`,
      ["--exclude-path-regex", `${ENDING}|^/admin/`],
    ],
    [
      "with a bearer ticket",
      (ticket) =>
        `headers = { "Session-Transport" = "bearer" }\n[auth.openapi.ticket]\nbearer = "${ticket}"\n`,
      ["--exclude-path-regex", `${ENDING}|^/admin/`],
    ],
  ];
  for (const [how, auth, more] of runs) {
    test(how, async () => {
      const [worker] = deployment.workers;
      const visitor = worker.visitor();
      assert.equal((await visitor.register(`eve ${how}`, PASSWORD)).status, 201);
      const folder = await mkdtemp(join(tmpdir(), "cloakroom-schemathesis-"));
      // What is right in itself may still not fit the state: a condition, a patch, a name.
      const config = `${auth(visitor.ticket ?? "")}
[auth.openapi.admin]
bearer = "${ADMIN_TOKEN}"
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "3xx", "401", "403", "404", "409", "412", "422"]
[checks.negative_data_rejection]
expected-statuses = ["400", "401", "403", "404", "409", "412", "413", "415", "422"]
[[operations]]
# It is asked by any method, for which OpenAPI has no word.
include-path-regex = "^/verify"
phases.coverage.unexpected-methods = []
`;
      await writeFile(join(folder, "schemathesis.toml"), config);
      const { ok, output } = await runPython(
        "schemathesis.cli",
        [
          ...["run", `${worker.url}/auth/openapi.json`, "--seed", "20261128", "--max-examples", "10"],
          ...[
            "--phases",
            "coverage,fuzzing",
            "--checks",
            "all",
            "--continue-on-failure",
            "--no-shrink",
            "--generation-database",
            "none",
          ],
          ...["--no-color", "--warnings", "off", "--request-timeout", "10", ...more],
        ],
        { cwd: folder },
      );
      await rm(folder, { recursive: true });
      assert.ok(ok, output.slice(0, 20_000));
      assert.match(output, /No issues found/);
    });
  }
});
