/** Every kind of answer that can hold an empty value. (An empty header value once ended the head of an answer.) */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { randomSecret, startBoth } from "./support/worker.mjs";

const ADMIN_TOKEN = randomSecret();
const PASSWORD = "correct horse";

/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;
before(async () => {
  const settings = { password: { memory_kib: 8, iterations: 1, parallelism: 1 } };
  both = await startBoth({ secrets: { ADMIN_TOKEN }, settings });
});
after(() => both.stop());

/** A visitor with a session made by the service API. @param {object} user @param {object} [data] */
async function loggedIn(user, data = {}) {
  const visitor = both.worker.visitor();
  const headers = { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": "application/json" };
  const body = JSON.stringify({ user, data });
  const answer = await both.worker.visitor().send("POST", "/auth/admin/sessions", { headers, body });
  assert.equal(answer.status, 201, answer.text);
  const cookies = [answer.json.set_cookie].flat();
  visitor.ticket = /=([^;]+)/.exec(cookies[0])?.[1];
  return { visitor, answer };
}

const verify = (/** @type {import("./support/visitor.mjs").Visitor} */ visitor, query = "") =>
  visitor.send("GET", `/auth/verify${query}`);

test("verify leaves out the headers that have no value, and has all others", async () => {
  for (const [user, name, roles] of /** @type {[object, string | null, string | null][]} */ ([
    [{ id: "u1" }, "u1", null],
    [{ id: "u2", roles: [] }, "u2", null],
    [{ id: "u3", name: "Ada Lovelace", roles: ["admin"] }, "Ada%20Lovelace", "admin"],
    [{ id: "u4", name: "Ädä", roles: ["a b", "c"] }, "%C3%84d%C3%A4", "a%20b,c"],
  ])) {
    const { visitor } = await loggedIn(user);
    const answer = await verify(visitor);
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.text, "");
    assert.equal(answer.headers.get("X-Session-Name"), name);
    assert.equal(answer.headers.get("X-Session-Roles"), roles);
    assert.match(answer.headers.get("X-Session-User") ?? "", /^u\d$/);
    assert.match(answer.headers.get("X-Session-Handle") ?? "", /^[\w-]{24}$/);
    assert.match(answer.headers.get("X-Session-Authenticated-At") ?? "", /^\d{4}-\d\d-\d\dT[\d:]{8}Z$/);
    assert.equal(answer.headers.get("X-Content-Type-Options"), "nosniff");
    assert.deepEqual(answer.setCookies, []);
  }
});

test("verify of a registered user without roles is 200, and 403 for a role", async () => {
  const visitor = both.worker.visitor();
  assert.equal((await visitor.register("Ada", PASSWORD)).status, 201);
  const answer = await verify(visitor);
  assert.equal(answer.status, 200, answer.text);
  assert.equal(answer.headers.get("X-Session-Name"), "Ada");
  assert.equal(answer.headers.get("X-Session-Roles"), null);
  assert.equal((await verify(visitor, "?role=admin")).status, 403);
  const head = await visitor.send("HEAD", "/auth/verify");
  assert.equal(head.status, 200);
  assert.equal(head.headers.get("X-Session-Name"), "Ada");
});

test("verify never sets a cookie, also when the session is due for rotation or has ended", async () => {
  const { visitor } = await loggedIn({ id: "u5" });
  const { handle } = await visitor.session();
  await both.worker.moveClock(25 * 60_000);
  await visitor.look();
  await both.worker.moveClock(25 * 60_000);
  await visitor.look();
  await both.worker.moveClock(15 * 60_000);
  const due = await verify(visitor);
  assert.equal(due.status, 200, due.text);
  assert.deepEqual(due.setCookies, []);
  assert.equal(due.headers.get("X-Session-Handle"), handle);
  const late = visitor.clone();
  assert.equal((await visitor.logout()).status, 204);
  const ended = await verify(late);
  assert.equal(ended.status, 401);
  assert.equal(ended.headers.get("WWW-Authenticate"), "Bearer");
  assert.deepEqual(ended.setCookies, []);
});

test("verify answers a cookie that is no ticket without removing it, whatever is wrong with the request", async () => {
  for (const [path, status] of /** @type {[string, number][]} */ ([
    ["/auth/verify", 401],
    ["/auth/verify?role=", 400],
  ])) {
    const visitor = both.worker.visitor();
    visitor.ticket = "garbage";
    const answer = await visitor.send("GET", path);
    assert.equal(answer.status, status, answer.text);
    assert.deepEqual(answer.setCookies, []);
  }
});

test("sessions, profiles and device lists hold empty values", async () => {
  const data = { "": "", list: [], object: {}, text: "", nothing: null, zero: 0, no: false };
  const { visitor, answer } = await loggedIn({ id: "u6" }, data);
  assert.deepEqual(answer.json.session.data, data);
  assert.deepEqual((await visitor.session()).data, data);
  const { sessions } = (await visitor.send("GET", "/auth/sessions")).json;
  assert.equal(sessions.length, 1);

  const anonymous = both.worker.visitor();
  const begun = await anonymous.merge({});
  assert.equal(begun.status, 200);
  assert.deepEqual(begun.json.session.data, {});

  const owner = both.worker.visitor();
  assert.equal((await owner.register("Grace", PASSWORD)).status, 201);
  assert.equal((await owner.send("GET", "/auth/profile")).text, "{}");
  const headers = { "Content-Type": "application/merge-patch+json" };
  const changed = await owner.send("PATCH", "/auth/profile", { headers, body: '{"":"","bio":""}' });
  assert.equal(changed.text, '{"":"","bio":""}');
});
