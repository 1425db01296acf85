/** examples/service-binding and Cloakroom, two Workers in one workerd, bound to each other. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, beforeEach, test } from "node:test";
import { startLocalStore } from "../tools/local-store/index.mjs";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startShop } from "./support/shop.mjs";

/** @type {Awaited<ReturnType<typeof startLocalStore>>} */
let store;
/** @type {Awaited<ReturnType<typeof startShop>>} */
let shop;
before(async () => {
  store = await startLocalStore();
  shop = await startShop(store, randomSecret());
});
after(async () => {
  await shop?.stop();
  await store?.stop();
});
beforeEach(() => store.faults.clear());

const FORM = { "Content-Type": "application/x-www-form-urlencoded" };
const visitor = () => new Visitor(shop.url);
/** @param {Visitor} who @param {string} [password] @param {Record<string, string>} [headers] */
const logIn = (who, password = "coat+check", headers = {}) =>
  who.send("POST", "/login", { headers: { ...FORM, ...headers }, body: `name=ada&password=${password}` });

test("its wrangler.toml binds what Cloakroom's is named", async () => {
  const [own, other] = await Promise.all(
    ["examples/service-binding/wrangler.toml", "wrangler.toml"].map((name) =>
      readFile(new URL(`../${name}`, import.meta.url), "utf8"),
    ),
  );
  const bound = own?.match(/binding = "CLOAKROOM", service = "(.*?)"/)?.[1];
  assert.equal(bound, other?.match(/^name = "(.*?)"/m)?.[1]);
});

test("a login makes a session, whose cookies reach the browser one by one, and verify knows the user", async () => {
  const ada = visitor();
  assert.equal((await ada.send("GET", "/dashboard")).status, 401);
  assert.equal((await logIn(ada, "wrong")).status, 401);
  const answer = await logIn(ada);
  assert.deepEqual([answer.status, answer.setCookies.length], [303, 1], answer.text);
  assert.match(answer.setCookies[0] ?? "", /^__Host-session=[^;]+; Path=\/; HttpOnly; Secure; SameSite=Lax$/);
  const page = await ada.send("GET", "/dashboard");
  assert.deepEqual([page.status, page.text, page.setCookies], [200, "Hello, Ada.\n", []]);
});

test("reads and changes meet in one session, also with those that the browser makes itself", async () => {
  const guest = visitor();
  assert.deepEqual([(await guest.send("GET", "/cart")).text, guest.ticket], ["{}\n", undefined]);
  assert.equal((await guest.send("POST", "/cart?item=hat")).text, "Added: hat.\n");
  assert.ok(guest.ticket, "a change begins a session");
  const all = ["coat", "scarf", "glove"].map((item) => guest.send("POST", `/cart?item=${item}`));
  for (const { status } of await Promise.all([...all, guest.merge({ cart: { boot: true } })]))
    assert.equal(status, 200);
  const cart = JSON.parse((await guest.send("GET", "/cart")).text);
  assert.deepEqual(Object.keys(cart).sort(), ["boot", "coat", "glove", "hat", "scarf"]);
});

test("an id that is renewed by a read reaches the browser, and the session goes on for two hours", async () => {
  const ada = visitor();
  await logIn(ada);
  await ada.send("POST", "/cart?item=hat");
  const first = ada.ticket;
  for (let minutes = 0; minutes < 120; minutes += 20) {
    await shop.moveClock(20 * 60_000);
    assert.equal((await ada.send("GET", "/dashboard")).status, 200, `after ${minutes} minutes`);
    assert.equal((await ada.send("GET", "/cart")).text, '{"hat":true}\n');
  }
  assert.notEqual(ada.ticket, first);
});

test("a logout ends it everywhere and takes the cookie along", async () => {
  const ada = visitor();
  await logIn(ada);
  const old = ada.clone();
  assert.equal((await ada.send("POST", "/logout")).status, 200);
  assert.equal(ada.ticket, undefined);
  assert.equal((await old.send("GET", "/dashboard")).status, 401);
});

test("the pages of other sites change nothing", async () => {
  const ada = visitor();
  await logIn(ada);
  for (const [name, value] of [
    ["Sec-Fetch-Site", "cross-site"],
    ["Origin", "https://evil.example"],
  ]) {
    const headers = { [String(name)]: String(value) };
    for (const path of ["/cart?item=bomb", "/logout"]) {
      assert.equal((await ada.send("POST", path, { headers })).status, 403, path);
    }
    assert.equal((await logIn(visitor(), undefined, headers)).status, 403);
  }
  assert.equal((await ada.send("POST", "/cart?item=hat", { headers: { Origin: shop.url } })).status, 200);
  assert.equal((await ada.send("GET", "/cart")).text, '{"hat":true}\n');
});

test("the service API is not passed on to visitors, not even with the token", async () => {
  const headers = { Authorization: `Bearer ${shop.token}` };
  for (const path of [
    "/auth/admin/stats",
    "/auth/x/../admin/stats",
    "/auth/%2e/admin/stats",
    "/auth/%61dmin/stats",
    "/auth//admin/stats",
  ]) {
    assert.equal((await visitor().send("GET", path, { headers })).status, 404, path);
  }
});

test("a store that fails is a 503, sets no cookie and logs nobody out", async () => {
  const ada = visitor();
  await logIn(ada);
  store.faults.always("refuse");
  for (const [method, path] of /** @type {const} */ ([
    ["GET", "/dashboard"],
    ["GET", "/cart"],
    ["POST", "/cart?item=hat"],
    ["POST", "/logout"],
  ])) {
    const answer = await ada.send(method, path);
    assert.deepEqual([answer.status, answer.setCookies], [503, []], path);
  }
  assert.deepEqual([(await logIn(ada)).status, Boolean(ada.ticket)], [503, true]);
  store.faults.clear();
  assert.equal((await ada.send("GET", "/dashboard")).status, 200);
});
