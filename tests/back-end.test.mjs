/** A back end that calls for its visitors: it says whom it acts for, and passes all cookies on. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { Visitor } from "./support/visitor.mjs";
import { moveToWindow, NO_LIMITS, randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const ADMIN_TOKEN = randomSecret();
const FRONT = "https://front.example";
const bearer = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const settings = { cors: { origins: [FRONT] } };

const { store, workers, start, stop } = await startDeployment(
  [
    { settings: { ...settings, limits: { ...NO_LIMITS, ip: "2/1m" } } },
    { settings: { ...settings, limits: { ...NO_LIMITS, ip: "2/1m" } }, secrets: { ADMIN_TOKEN: undefined } },
    { settings },
  ],
  { secrets: { SESSION_SECRET: randomSecret(), ADMIN_TOKEN } },
);
after(stop);
const [limited, withoutToken, free] = workers;

let addresses = 0;
/** An address that nobody has used yet. */
const someAddress = () => `10.${(addresses += 1) >> 8}.${addresses & 255}.7`;
/** Limits begin anew. */
const nextWindow = () => moveToWindow(store, workers);

/** What the back end at this address says. @param {string} client @param {string} [own] */
const actingFor = (client, own = "192.0.2.1") => ({
  ...bearer,
  "Session-Client-Address": client,
  "CF-Connecting-IP": own,
});

/** Every kind of route, as a back end calls it. @type {[string, string, object?][]} */
const ROUTES = [
  ["GET", "/auth/session"],
  ["PATCH", "/auth/session/data", {}],
  ["POST", "/auth/login", { username: "nobody", password: "a wrong password" }],
  ["POST", "/auth/register", { username: "ab", password: "short" }],
  ["POST", "/auth/logout"],
  ["GET", "/auth/verify"],
  ["GET", "/auth/health"],
  ["GET", "/auth/admin/users/u1/sessions"],
  ["GET", "/auth/nothing-here"],
];

/**
 * @param {Visitor} visitor
 * @param {[string, string, object?]} route
 * @param {Record<string, string | string[]>} headers
 */
const call = (visitor, [method, path, body], headers) =>
  visitor.send(method, path, {
    headers: { ...headers, ...(body && { "Content-Type": "application/json" }) },
    body: body && JSON.stringify(body),
  });

const WRONG = [
  "",
  "x",
  "203.0.113.7:80",
  "[2001:db8::1]",
  "fe80::1%eth0",
  "203.0.113.7, 203.0.113.8",
  ["203.0.113.7", "203.0.113.8"],
];

for (const route of ROUTES) {
  test(`limits of ${route[0]} ${route[1]} go by the client's address, not by the back end's`, async () => {
    await nextWindow();
    const [one, other] = [someAddress(), someAddress()];
    const statuses = async (/** @type {string} */ client) =>
      (await call(limited.visitor(), route, actingFor(client))).status;
    for (let count = 0; count < 2; count += 1)
      for (const client of [one, other]) assert.notEqual(await statuses(client), 429);
    const refused = await call(limited.visitor(), route, actingFor(one));
    assert.equal(refused.status, 429);
    assert.match(refused.json.detail, /"ip"/);
    assert.equal(await statuses(other), 429);
    // Whoever comes from that address without a back end is the same client.
    const own = await call(limited.visitor(), route, { "CF-Connecting-IP": one });
    assert.equal(own.status, 429);
  });

  test(`an address that is none is 400 for ${route[0]} ${route[1]}, and counts for nobody`, async () => {
    await nextWindow();
    const own = someAddress();
    for (const wrong of WRONG) {
      const headers = { ...actingFor("", own), "Session-Client-Address": wrong };
      const answer = await call(limited.visitor(), route, headers);
      assert.deepEqual([answer.status, answer.json?.code], [400, "bad_request"], String(wrong));
      assert.match(answer.json.detail, /Session-Client-Address/);
      assert.deepEqual(answer.setCookies, []);
    }
    const statuses = [];
    for (let count = 0; count < 3; count += 1)
      statuses.push(
        (await limited.visitor().send("GET", "/auth/session", { headers: actingFor(own) })).status,
      );
    assert.deepEqual(statuses, [200, 200, 429]);
  });
}

test("clients of one IPv6 network are one client, and one written in two ways is, too", async () => {
  await nextWindow();
  const look = (/** @type {string} */ client) =>
    limited.visitor().send("GET", "/auth/session", { headers: actingFor(client) });
  const same = ["2001:db8:7:8::1", "2001:0DB8:7:8:ffff::2", "2001:db8:7:8::3"];
  const statuses = [];
  for (const client of [...same, "2001:db8:7:9::1"]) statuses.push((await look(client)).status);
  assert.deepEqual(statuses, [200, 200, 429, 200]);
  const mapped = ["198.51.100.7", "::ffff:198.51.100.7", "198.51.100.7"];
  assert.deepEqual(
    await Promise.all(mapped.map(async (client) => (await look(client)).status)).then((all) => all.sort()),
    [200, 200, 429],
  );
});

/** Whose requests are no back end's. @type {[string, object][]} */
const STRANGERS = [
  ["nothing", {}],
  ["a wrong token", { Authorization: `Bearer ${ADMIN_TOKEN}x` }],
  ["the start of the token", { Authorization: `Bearer ${ADMIN_TOKEN.slice(0, -1)}` }],
  ["another scheme", { Authorization: `Basic ${ADMIN_TOKEN}` }],
  ["the token alone", { Authorization: ADMIN_TOKEN }],
  ["two tokens", { Authorization: `Bearer ${ADMIN_TOKEN}, Bearer ${ADMIN_TOKEN}` }],
  ["the token in a cookie", { Cookie: `ADMIN_TOKEN=${ADMIN_TOKEN}` }],
];
for (const [proof, headers] of STRANGERS) {
  test(`with ${proof} the header means nothing, whatever it says`, async () => {
    await nextWindow();
    const own = someAddress();
    const statuses = [];
    for (const claimed of [someAddress(), "no address", someAddress()]) {
      const sent = { "Session-Client-Address": claimed, "CF-Connecting-IP": own, ...headers };
      statuses.push((await limited.visitor().send("GET", "/auth/session", { headers: sent })).status);
    }
    assert.deepEqual(statuses, [200, 200, 429]);
  });
}

test("without an ADMIN_TOKEN nobody is a back end", async () => {
  await nextWindow();
  const own = someAddress();
  const statuses = [];
  for (const Authorization of [bearer.Authorization, "Bearer ", "Bearer"]) {
    const headers = { ...actingFor(someAddress(), own), Authorization };
    statuses.push((await withoutToken.visitor().send("GET", "/auth/session", { headers })).status);
  }
  assert.deepEqual(statuses, [200, 200, 429]);
});

test("sessions, logins and the platform's own limit are counted by the client's address, too", async () => {
  const worker = await start({
    settings: { limits: { ...NO_LIMITS, mint: "11/1m", login: "1/1m" } },
    ratelimits: { RATE_LIMITER: { simple: { limit: 12, period: 60 } } },
  });
  await nextWindow();
  const [one, other, third] = [someAddress(), someAddress(), someAddress()];
  const begin = (/** @type {string} */ client) => worker.visitor().merge({ a: 1 }, actingFor(client));
  for (let index = 0; index < 11; index += 1) assert.equal((await begin(one)).status, 200);
  assert.match((await begin(one)).json.detail, /"mint"/);
  assert.equal((await begin(other)).status, 200);

  // Ten times as many wrong passwords per address as per account.
  const guess = async (/** @type {string} */ client, /** @type {number} */ index) =>
    (await worker.visitor().login(`nobody ${index}`, "a wrong password", { headers: actingFor(client) }))
      .json;
  for (let index = 0; index < 10; index += 1) assert.equal((await guess(third, index)).status, 401);
  assert.match((await guess(third, 10)).detail, /"login-address"/);
  assert.equal((await guess(other, 11)).status, 401);

  // Twelve requests: the next is over the platform's limit.
  assert.match((await begin(one)).json.detail, /too many requests from this address/);
  assert.equal((await begin(other)).status, 200);
});

test("the device list shows the client that the back end acted for", async () => {
  const name = `someone ${addresses}`;
  const password = "correct horse battery";
  const headers = { ...actingFor("203.0.113.77"), "User-Agent": "Phone/1.0" };
  const visitor = free.visitor();
  assert.equal((await visitor.register(name, password, headers)).status, 201);
  const second = free.visitor();
  const login = { headers: { ...actingFor("2001:db8:1:2::9"), "User-Agent": "Desk/2.0" } };
  assert.equal((await second.login(name, password, login)).status, 200);
  const { sessions } = (await visitor.send("GET", "/auth/sessions")).json;
  assert.deepEqual(
    sessions.map((/** @type {any} */ one) => [one.user_agent, one.ip]),
    [
      ["Phone/1.0", "203.0.113.0"],
      ["Desk/2.0", "2001:db8:1::"],
    ],
  );
});

test("a page cannot send the header: no preflight allows it, and none allows the token", async () => {
  const answer = await free.visitor().send("OPTIONS", "/auth/session", {
    headers: {
      Origin: FRONT,
      "Access-Control-Request-Method": "GET",
      "Access-Control-Request-Headers": "session-client-address, authorization",
    },
  });
  assert.equal(answer.status, 204);
  assert.match(String(answer.headers.get("access-control-allow-headers")), /Content-Type/);
  assert.doesNotMatch(
    String(answer.headers.get("access-control-allow-headers")),
    /session-client-address|authorization|\*/i,
  );
});

test("browser headers that a back end passes on are checked like the browser's own", async () => {
  const logout = (/** @type {object} */ headers) =>
    free.visitor().send("POST", "/auth/logout", { headers: { ...actingFor("203.0.113.9"), ...headers } });
  for (const [headers, status] of /** @type {[object, number][]} */ ([
    [{}, 204],
    [{ "Sec-Fetch-Mode": "cors" }, 204],
    [{ Origin: FRONT, "Sec-Fetch-Site": "cross-site" }, 204],
    [{ "Sec-Fetch-Site": "same-origin" }, 204],
    [{ Origin: "https://evil.example", "Sec-Fetch-Site": "cross-site" }, 403],
    [{ Origin: "https://evil.example" }, 403],
  ])) {
    assert.equal((await logout(headers)).status, status, JSON.stringify(headers));
  }
});

/** Logs a user in, from the back end's own address and user agent. @param {object} body @param {Record<string, string>} [more] */
function logIn(body, more = {}, worker = free) {
  const headers = { ...bearer, "CF-Connecting-IP": "192.0.2.1", "User-Agent": "back end", ...more };
  return worker.visitor().tell("POST", "/admin/sessions", body, headers);
}

/** What the device list shows of a user's only session. @param {string} id */
async function deviceOf(id, worker = free) {
  const path = `/auth/admin/users/${encodeURIComponent(id)}/sessions`;
  const { sessions } = (await worker.visitor().send("GET", path, { headers: bearer })).json;
  assert.equal(sessions.length, 1);
  return [sessions[0].ip, sessions[0].user_agent];
}

/** What `client` says, what the header says, and what is shown under each setting of `record_ip`. */
const CLIENTS = /** @type {[object | null | undefined, string, (string | null)[], string | null][]} */ ([
  [undefined, "", ["192.0.2.1", "192.0.2.0", null], "back end"],
  [null, "", ["192.0.2.1", "192.0.2.0", null], "back end"],
  [undefined, "203.0.113.77", ["203.0.113.77", "203.0.113.0", null], "back end"],
  [{}, "", [null, null, null], null],
  [{}, "203.0.113.77", ["203.0.113.77", "203.0.113.0", null], null],
  [{ address: "198.51.100.77" }, "203.0.113.77", ["198.51.100.77", "198.51.100.0", null], null],
  [{ address: "2001:db8:1:2:3::4" }, "", ["2001:db8:1:2:3::4", "2001:db8:1::", null], null],
  [{ address: null, user_agent: "Phone/1.0" }, "", [null, null, null], "Phone/1.0"],
  [{ user_agent: "" }, "", [null, null, null], null],
  [{ user_agent: "ä".repeat(300) }, "", [null, null, null], "ä".repeat(256)],
]);
for (const [index, record_ip] of ["full", "prefix", "none"].entries()) {
  test(`the device list shows what is said of the client, as record_ip = "${record_ip}" has it`, async () => {
    const worker = await start({ settings: { session: { record_ip } } });
    for (const [number, [client, claimed, ips, userAgent]] of CLIENTS.entries()) {
      const id = `${record_ip} ${number}`;
      const header = claimed ? { "Session-Client-Address": claimed } : {};
      const answer = await logIn({ user: { id }, client }, /** @type {any} */ (header), worker);
      assert.equal(answer.status, 201, answer.text);
      assert.deepEqual(
        await deviceOf(id, worker),
        [ips[index], userAgent],
        JSON.stringify([client, claimed]),
      );
    }
  });
}

test("a client that cannot be one is refused, by the name of its field", async () => {
  for (const [client, detail] of /** @type {[unknown, RegExp][]} */ ([
    [{ address: "x" }, /"client\.address" must be an IPv4 or IPv6 address/],
    [{ address: "" }, /"client\.address"/],
    [{ address: "203.0.113.7:80" }, /"client\.address"/],
    [{ address: 7 }, /"client\.address" must be a string/],
    [{ user_agent: 7 }, /"client\.user_agent" must be a string/],
    [{ ip: "203.0.113.7" }, /unknown field "client\.ip"; known fields: address, user_agent/],
    [["203.0.113.7"], /"client" must be an object/],
    ["203.0.113.7", /"client" must be an object/],
  ])) {
    const { value: answer, calls } = await store.counters.during(() => logIn({ user: { id: "u" }, client }));
    assert.deepEqual([answer.status, calls], [400, 0], JSON.stringify(client));
    assert.match(answer.json.detail, detail);
  }
});

test("set_cookie holds all lines for the visitor, and the back end's own cookies stay as they are", async () => {
  for (const [name, value] of [
    ["no cookie", undefined],
    ["a forged one", "A".repeat(148)],
  ]) {
    const backEnd = free.visitor();
    backEnd.ticket = value;
    const answer = await backEnd.tell("POST", "/admin/sessions", { user: { id: `lines ${name}` } }, bearer);
    assert.equal(answer.status, 201, answer.text);
    assert.deepEqual(answer.headers.getSetCookie(), [], name);
    const lines = answer.json.set_cookie;
    assert.equal(lines.length, 2);
    assert.match(lines[0], /^__Host-session=[\w-]+; Path=\/; HttpOnly; Secure; SameSite=Lax$/);
    assert.match(
      lines[1],
      /^__Host-session-sync=[\w-]+; Path=\/; HttpOnly; Secure; SameSite=Lax; Max-Age=10$/,
    );
  }
});

test("a visitor's first request reads what the back end has written, at a replica that lags, in one call", async () => {
  const near = await start({ region: 1 });
  store.faults.lag = 300;
  try {
    const answer = await logIn({ user: { id: "a newcomer" }, data: { a: 1 } });
    const visitor = near.visitor();
    visitor.accept(answer.json.set_cookie);
    const { value: first, calls } = await store.counters.during(() => visitor.look());
    assert.deepEqual([first.json.session.data, calls], [{ a: 1 }, 1]);
  } finally {
    store.faults.clear();
  }
});
