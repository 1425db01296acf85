/** The recipes in docs/forward-auth.md, run by real proxies, which are all asked the same questions. */
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { request } from "node:http";
import { after, before, beforeEach, describe, test } from "node:test";
import { missingProxy } from "../tools/proxies.mjs";
import { findAllHere, startApplication, startProxy, startWitness } from "./support/proxies.mjs";
import { Visitor } from "./support/visitor.mjs";
import { FAST_HASH, moveClocks, randomSecret, startBoth } from "./support/worker.mjs";

/** What each does in its own way. @type {Record<import("./support/proxies.mjs").ProxyName, { inPlace?: boolean, down: number }>} */
const PROXIES = {
  nginx: { down: 503 },
  caddy: { down: 502 },
  traefik: { down: 500, inPlace: true }, // the login page stands in the place of the page, with a 401
  envoy: { down: 503 },
};

const ADMIN_TOKEN = randomSecret();
const binaries = await findAllHere();
const METHODS = ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"];
const NAMES = ["User", "Name", "Roles", "Handle", "Authenticated-At"].map((name) => `X-Session-${name}`);
/** Each name as visitors may write it, so that some server behind takes it for ours. */
const FORGED = Object.fromEntries(
  NAMES.flatMap((name) => [
    name,
    name.replaceAll("-", "_"),
    name.replace("-", "_"),
    name.replace(/-(?=[^-]*$)/, "_").toUpperCase(),
    name.replace("-", "_").toLowerCase(),
  ]).map((name) => [name, ["forged", "admin"]]),
);
const NAVIGATION = { "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document", "Sec-Fetch-Site": "none" };

/** What an application is told, by our names however they are written. @param {import("./support/proxies.mjs").Reached} reached */
const told = ({ fields }) =>
  fields
    .filter(([name]) => /^x[-_]session[-_]/i.test(name))
    .map(([name, value]) => [name.toLowerCase(), value]);

for (const [name, { down, inPlace = false }] of Object.entries(PROXIES)) {
  const proxy = /** @type {import("./support/proxies.mjs").ProxyName} */ (name);
  const binary = binaries[proxy];

  describe(`${name} in front of an application`, { skip: binary ? false : missingProxy(proxy) }, () => {
    /** @type {Awaited<ReturnType<typeof startBoth>>} */
    let both;
    /** @type {Awaited<ReturnType<typeof startApplication>>} */
    let application;
    /** @type {Awaited<ReturnType<typeof startWitness>>} */
    let witness;
    /** @type {Awaited<ReturnType<typeof startProxy>>} */
    let started;

    before(async () => {
      const limits = {
        session: "",
        mint: "",
        login: "",
        routes: [{ path: "/auth/verify", limit: "1000/1m" }],
      };
      both = await startBoth({ settings: { password: FAST_HASH, limits }, secrets: { ADMIN_TOKEN } });
      application = await startApplication();
      witness = await startWitness(both.worker.url);
      const cloakroom = `http://127.0.0.1:${witness.port}`;
      started = await startProxy(proxy, String(binary), { application: application.port, cloakroom });
    });
    after(async () => {
      await started?.stop();
      witness?.stop();
      application?.stop();
      await both?.stop();
    });
    beforeEach(() => {
      both.store.faults.clear();
      Object.assign(witness.behaviour, { down: false, answer: undefined });
      application.reached.length = 0;
      witness.asked.length = 0;
    });

    let count = 0;
    /** A visitor of the proxy who is logged in. @param {{ roles?: string[], name?: string }} [who] */
    async function user({ roles = [], name: called } = {}) {
      const body = { user: { id: `u${(count += 1)}`, name: called, roles } };
      const operator = { Authorization: `Bearer ${ADMIN_TOKEN}` };
      const made = await both.worker.visitor().tell("POST", "/admin/sessions", body, operator);
      assert.equal(made.status, 201, made.text);
      const visitor = new Visitor(started.url);
      visitor.accept(made.json.set_cookie);
      return visitor;
    }
    const stranger = () => new Visitor(started.url);
    /** Those requests of the application's that were for more than its login page. */
    const entered = () => application.reached.filter(({ path }) => !path.startsWith("/login"));

    test("lets nobody in who is not logged in, by any method and path", async () => {
      const anonymous = stranger();
      assert.equal((await anonymous.merge({ a: 1 })).status, 200, "the Worker's routes are the proxy's");
      for (const one of [stranger(), anonymous]) {
        for (const method of METHODS) {
          for (const path of [
            "/",
            "/page?role=x",
            "/admin/",
            "/%2e%2e/x",
            "/_user",
            "/_admin",
            "/x/../page",
            "//page",
          ]) {
            const { status } = await one.send(method, path, { headers: FORGED });
            assert.ok([400, 401, 404, 405].includes(status), `${method} ${path}: ${status}`);
          }
        }
      }
      assert.deepEqual(entered(), []);
    });

    test("tells who the user is, and nothing that a visitor claims", async () => {
      for (const [who, path] of /** @type {const} */ ([
        [{ name: "Ада, Ünal", roles: ["editor", "a b"] }, "/page?x=1&y=%2F"],
        [{}, "/page"],
        [{ roles: ["admin"] }, "/admin/x"],
      ])) {
        const visitor = await user({ ...who, roles: [...("roles" in who ? who.roles : [])] });
        const answer = await visitor.send("POST", path, {
          headers: { ...FORGED, Origin: "https://evil.example" },
        });
        assert.equal(answer.text, "the application", `${answer.status}`);
        const [reached = assert.fail("nothing has arrived")] = application.reached.splice(0);
        assert.deepEqual([reached.method, reached.path], ["POST", path]);
        const { handle, authenticated_at } = await visitor.session();
        const expected = {
          "x-session-user": `u${count}`,
          "x-session-name": encodeURIComponent("name" in who ? who.name : `u${count}`),
          "x-session-roles": ("roles" in who ? who.roles : []).map(encodeURIComponent).join(","),
          "x-session-handle": handle,
          "x-session-authenticated-at": authenticated_at,
        };
        const heard = told(reached).filter(([, value]) => value !== "");
        assert.deepEqual(
          heard.toSorted(),
          Object.entries(expected)
            .filter(([, value]) => value)
            .toSorted(),
        );
      }
    });

    test("tells nothing on a page for everybody", async () => {
      for (const visitor of [stranger(), await user()]) {
        const answer = await visitor.send("GET", "/login?return_to=/page", { headers: FORGED });
        assert.deepEqual([answer.status, answer.text], [200, "the login page"]);
      }
      assert.deepEqual(
        application.reached.flatMap(told).filter(([, value]) => value !== ""),
        [],
      );
      assert.deepEqual(witness.asked, [], "which costs no call");
    });

    test("sends a page's visitor to the login page with the path, and tells a script 401", async () => {
      for (const path of ["/page?x=1&y=%2F%3F", "/admin/"]) {
        const page = await stranger().send("GET", path, { headers: { ...NAVIGATION, ...FORGED } });
        if (inPlace) {
          assert.deepEqual([page.status, page.text], [401, "the login page"]);
          const asked = new URL(String(application.reached.at(-1)?.path), started.url).searchParams.get(
            "return_to",
          );
          const { pathname, search } = new URL(String(asked), started.url);
          assert.equal(pathname + search, path);
        } else {
          assert.deepEqual([page.status, page.headers.get("location")], [303, `/login?return_to=${path}`]);
        }
        const script = await stranger().send("GET", path, { headers: { "Sec-Fetch-Mode": "cors" } });
        assert.equal(script.status, 401);
        assert.deepEqual(
          [page.setCookies, script.setCookies],
          inPlace ? [["of-the-application=1"], ["of-the-application=1"]] : [[], []],
        );
      }
      assert.deepEqual(entered(), []);
      assert.deepEqual(
        application.reached.flatMap(told).filter(([, value]) => value !== ""),
        [],
      );
    });

    test("lets nobody near /admin/ without the role, however the path is written", async () => {
      const visitor = await user({ roles: ["editor", "xadmin", "admin2"] });
      for (const path of [
        "/admin/",
        "/admin/x?role=admin",
        "/x/../admin/y",
        "/x/%2e%2e/admin/",
        "/%61dmin/",
        "//admin/",
        "/admin%2Fx",
        "/./admin/",
        "/Admin/",
        "/ADMIN/x",
      ]) {
        const answer = await visitor.send("GET", path, { headers: FORGED });
        for (const reached of application.reached.splice(0)) {
          const normal = new URL(decodeURIComponent(reached.path).replaceAll(/\/+/g, "/"), started.url)
            .pathname;
          assert.ok(!/^\/admin\//i.test(normal) || path.includes("%2F"), `${path} reached ${reached.path}`);
        }
        if (/^\/admin\//i.test(path)) assert.equal(answer.status, 403, path);
      }
      const admin = await user({ roles: ["editor", "admin"] });
      assert.equal((await admin.send("GET", "/admin/")).text, "the application");
      assert.equal((await stranger().send("GET", "/admin/")).status, 401);
    });

    test("passes nothing on to the service API, however the path is written", async () => {
      const headers = { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": "application/json" };
      const body = JSON.stringify({ user: { id: "eve", roles: ["admin"] } });
      for (const path of [
        "/auth/admin/sessions",
        "/auth/%61dmin/sessions",
        "/auth//admin/sessions",
        "//auth/admin/sessions",
        "/auth/./admin/sessions",
        "/auth/x/../admin/sessions",
        "/auth/x/%2e%2e/admin/sessions",
        "/auth/verify/../admin/sessions",
        "/auth/x/..%2fadmin/sessions",
        "/auth/admin;x/sessions",
        "/auth/admin%2Fsessions",
      ]) {
        const { status, text } = await stranger().send("POST", path, { headers, body });
        assert.ok(status >= 400 && status < 500, `${path}: ${status}`);
        assert.ok(!text.includes("set_cookie"), path);
      }
      assert.deepEqual(entered(), []);
      const asked = witness.asked.filter(({ path }) => path.startsWith("/auth/admin/"));
      assert.deepEqual(asked, []);
    });

    test("asks anew for each request, by the Worker's own host and without the body, and sees no cookie set", async () => {
      const visitor = await user();
      for (const method of ["GET", "GET", "HEAD", "POST"]) {
        const answer = await visitor.send(
          method,
          "/page",
          method === "POST" ? { body: "x".repeat(300_000) } : {},
        );
        assert.deepEqual([answer.status, answer.setCookies], [200, ["of-the-application=1"]]);
      }
      assert.equal(witness.asked.length, 4);
      for (const { path, host, size, setCookies } of witness.asked) {
        assert.match(path, /^\/auth\/verify(\/page)?$/);
        assert.deepEqual([host, size, setCookies], [`127.0.0.1:${witness.port}`, 0, []]);
      }
      const cookie = application.reached[0]?.fields.find(([field]) => field.toLowerCase() === "cookie")?.[1];
      assert.ok(cookie?.includes(`__Host-session=${visitor.ticket}`), "the application gets the cookie");
      await visitor.clone().logout();
      assert.equal((await visitor.send("GET", "/page")).status, 401, "at once");
    });

    test("passes large bodies on whole, both with and without a length", async () => {
      const visitor = await user();
      const body = randomBytes(20_000_000);
      for (const chunked of [false, true]) {
        const answer = await visitor.send("PUT", "/upload", { body, chunked });
        assert.equal(answer.text, "the application");
        assert.equal(application.reached.pop()?.body, createHash("sha256").update(body).digest("hex"));
      }
      assert.equal((await stranger().send("PUT", "/upload", { body: body.subarray(0, 1000) })).status, 401);
      assert.deepEqual(entered(), []);
    });

    test("opens a WebSocket for a user, and none for a stranger", async () => {
      const headers = {
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": randomBytes(16).toString("base64"),
      };
      /** Which answer comes, and the socket if it opens. @param {Visitor} visitor */
      const open = (visitor) =>
        new Promise((resolve, reject) => {
          const all = { ...headers, ...FORGED, Cookie: visitor.cookieHeader() };
          const opening = request(`${started.url}/socket`, { headers: all, agent: false });
          opening.on("upgrade", ({ statusCode }, socket) => resolve({ statusCode, socket }));
          opening.on("response", (answer) => resolve({ statusCode: answer.resume().statusCode }));
          opening.on("error", reject).end();
        });
      const { statusCode, socket } = await open(await user());
      assert.equal(statusCode, 101);
      socket.write("hello");
      assert.equal(String((await once(socket, "data"))[0]), "hello");
      socket.destroy();
      assert.equal(
        Object.fromEntries(told(application.reached[0] ?? assert.fail()))["x-session-user"],
        `u${count}`,
      );
      application.reached.length = 0;
      assert.equal((await open(stranger())).statusCode, 401);
      assert.deepEqual(entered(), []);
    });

    test("takes no failure for a yes, and none for a logout", async () => {
      const visitor = await user({ roles: ["admin"] });
      /** @type {[string, () => void, number][]} */
      const failures = [
        ["a dead store", () => both.store.faults.always("refuse"), 503],
        ["a store that hangs", () => both.store.faults.always("hang"), 503],
        ["a limit", () => (witness.behaviour.answer = 429), 429],
        ["a Worker that fails", () => (witness.behaviour.answer = 503), 503],
        ["a Worker that is down", () => (witness.behaviour.down = true), down],
      ];
      for (const [what, fail, status] of failures) {
        fail();
        const asked = ["/page", "/admin/"].flatMap((path) =>
          [{}, NAVIGATION].map(async (headers) => {
            const answer = await visitor.clone().send("GET", path, { headers });
            assert.deepEqual([answer.status, answer.setCookies], [status, []], `${what}: ${path}`);
          }),
        );
        await Promise.all(asked);
        both.store.faults.clear();
        Object.assign(witness.behaviour, { down: false, answer: undefined });
      }
      assert.deepEqual(application.reached, []);
      assert.equal((await visitor.send("GET", "/page")).status, 200, "and then it is as before");
    });

    test("never logs an honest visitor out in two hours, in which the id is renewed each hour", async () => {
      const visitor = stranger();
      assert.equal((await visitor.register(`Ada${name}`, "correct horse")).status, 201);
      const pagesAlone = await user();
      const [first, kept] = [visitor.ticket, pagesAlone.ticket];
      /** @type {Set<string | undefined>} */
      const tickets = new Set();
      for (let minutes = 0; minutes < 120; minutes += 10) {
        await moveClocks(both.store, [both.worker], 10 * 60_000);
        // Three tabs at once: one whose script looks at the session, and two that were already under way.
        const tab = visitor.clone();
        const answers = await Promise.all([
          visitor.look(),
          tab.send("GET", "/page"),
          tab.send("POST", "/page"),
        ]);
        answers.push(
          await tab.send("GET", "/late"),
          await visitor.send("GET", "/page"),
          await pagesAlone.send("GET", "/page"),
        );
        assert.deepEqual(
          answers.map(({ status }) => status),
          Array(6).fill(200),
          `after ${minutes} minutes`,
        );
        tickets.add(visitor.ticket);
      }
      assert.ok(
        !tickets.has(undefined) && tickets.size >= 2 && visitor.ticket !== first,
        `${tickets.size} tickets`,
      );
      assert.equal(pagesAlone.ticket, kept, "who sees only pages gets no new one, and needs none");
      const answered = witness.asked.filter(({ path }) => path.startsWith("/auth/verify"));
      assert.ok(answered.length >= 60 && answered.every(({ setCookies }) => setCookies.length === 0));
    });
  });
}
