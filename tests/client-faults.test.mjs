/** The client and a network that loses, cuts and replaces answers: what is repeated, and what is said of the rest. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { cookieJar, failure, page, startBehindProxy } from "./support/client.mjs";

/** @import { Client } from "../client/index.d.ts" */
/** @import { Fault } from "./support/client.mjs" */

const { proxy } = await startBehindProxy();

const PASSWORD = "correct horse";
const NEW = "battery staple";
let number = 0;
const someone = () => ({ username: `Faulty ${(number += 1)}`, password: PASSWORD });

/** A page whose visitor is logged in, with `n` in the data; and a second device of theirs. */
async function ready() {
  const [client, other] = [page(proxy.url), page(proxy.url)];
  const credentials = someone();
  await client.register(credentials);
  await client.merge({ n: 0 });
  await other.login(credentials);
  proxy.clear();
  return { client, other, credentials };
}
/** @typedef {Awaited<ReturnType<typeof ready>>} Ready */

/** Whose repetition has the same effect. @type {[string, (all: Ready) => Promise<unknown>, RegExp][]} */
const REPEATED = [
  ["session", ({ client }) => client.session(), /GET .*session$/],
  ["devices", ({ client }) => client.devices(), /GET .*sessions$/],
  ["profile", ({ client }) => client.profile(), /GET .*profile$/],
  ["merge", ({ client }) => client.merge({ a: { b: 1 } }), /PATCH .*data$/],
  ["updateProfile", ({ client }) => client.updateProfile({ a: 1 }), /PATCH .*profile$/],
  ["rotate", ({ client }) => client.rotate(), /POST .*rotate$/],
  ["logout", ({ client }) => client.logout(), /DELETE .*session$/],
  ["endDevices of the others", ({ client }) => client.endDevices({ keepCurrent: true }), /DELETE/],
  ["update that sets", ({ client }) => client.update((data) => void (data.n = 7)), /PATCH/],
];

/** What is sent once, and is said to be unclear. @type {[string, (all: Ready) => Promise<unknown>, RegExp][]} */
const ONCE = [
  ["increment", ({ client }) => client.increment("/n"), /PATCH/],
  ["patch", ({ client }) => client.patch([{ op: "add", path: "/a", value: [1] }]), /PATCH/],
  ["register", () => page(proxy.url).register(someone()), /POST .*register$/],
  ["login", ({ credentials }) => page(proxy.url).login(credentials), /POST .*login$/],
  ["reauthenticate", ({ client }) => client.reauthenticate(PASSWORD), /POST/],
  ["changePassword", ({ client }) => client.changePassword({ current: PASSWORD, new: NEW }), /POST/],
  ["resetPassword", ({ client }) => client.resetPassword({ token: "x", new: NEW }), /POST .*reset$/],
  ["deleteAccount", ({ client }) => client.deleteAccount(PASSWORD), /DELETE/],
  ["endDevices", ({ client }) => client.endDevices(), /DELETE/],
  ["endDevice of another", async ({ client, other }) => client.endDevice(await handle(other)), /DELETE/],
  ["endDevice of its own", async ({ client }) => client.endDevice(await handle(client)), /DELETE/],
];

const handle = async (/** @type {Client<any>} */ client) => String((await client.session())?.handle);

for (const kind of /** @type {const} */ (["down", "lost"])) {
  describe(`a call whose ${kind === "lost" ? "answer is lost" : "request does not arrive"}`, () => {
    for (const [name, act, what] of REPEATED) {
      test(`is made again: ${name}`, async () => {
        const all = await ready();
        proxy.next(what, { kind }, 2);
        await act(all);
        assert.ok(proxy.took().filter((line) => what.test(line.replace(" ", " /auth/"))).length >= 2);
      });
    }

    for (const [name, act, what] of ONCE) {
      test(`is not made again, and may have been made: ${name}`, async () => {
        const all = await ready();
        proxy.next(what, { kind }, 9);
        const error = await failure(act(all));
        assert.deepEqual([error.code, error.status, error.maybeDone], ["network", undefined, true]);
        assert.equal(proxy.seen.filter(({ method, path }) => what.test(`${method} ${path}`)).length, 1);
      });
    }

    test("is given up after retries, which can be set", async () => {
      for (const [retries, requests] of [
        [undefined, 3],
        [0, 1],
      ]) {
        const client = page(proxy.url, { retries });
        proxy.always(() => ({ kind }));
        assert.equal((await failure(client.session())).maybeDone, false);
        const error = await failure(client.merge({ a: 1 }));
        assert.deepEqual([error.code, error.maybeDone], ["network", true]);
        assert.equal(proxy.took().length, 2 * Number(requests));
      }
    });
  });
}

describe("an update whose answer was lost", () => {
  const add = (/** @type {any} */ data) => void (data.n += 1);

  test("that did not arrive is made, once", async () => {
    const { client } = await ready();
    proxy.next(/PATCH/, { kind: "down" }, 2);
    assert.equal((await client.update(add))?.data.n, 1);
  });

  test("that was made, and made again would count twice, is said to be unclear", async () => {
    const { client } = await ready();
    proxy.next(/PATCH/, { kind: "lost" });
    const error = await failure(client.update(add));
    assert.deepEqual([error.code, error.maybeDone], ["network", true]);
    assert.equal((await client.session())?.data.n, 1);
  });

  test("that sees by itself that it was made is settled, whatever others have changed since", async () => {
    const { client } = await ready();
    const once = (/** @type {any} */ data) => {
      if (data.orders?.includes("o-1")) return;
      data.orders = [...(data.orders ?? []), "o-1"];
      data.n += 1;
    };
    proxy.next(/PATCH/, { kind: "lost" }, 3);
    await client.update(once);
    await client.increment("/n");
    assert.deepEqual((await client.update(once))?.data, { n: 2, orders: ["o-1"] });
  });

  test("that began the session leaves one session", async () => {
    for (const kind of /** @type {const} */ (["lost", "cut", "down"])) {
      const client = page(proxy.url);
      proxy.next(/PATCH/, { kind });
      assert.deepEqual((await client.update((data) => void (data.a = 1)))?.data, { a: 1 }, kind);
    }
  });
});

describe("an answer that is cut off", () => {
  test("is another try for what is safe to repeat, and keeps the cookie it has brought", async () => {
    const jar = cookieJar();
    const client = page(proxy.url, {}, jar);
    proxy.next(/PATCH/, { kind: "cut" });
    const { handle } = await client.merge({ a: 1 });
    proxy.next(/GET/, { kind: "cut" }, 2);
    assert.equal((await client.session())?.handle, handle);
  });

  test("is incomplete, and the rest may have been done", async () => {
    const { client } = await ready();
    proxy.next(/PATCH/, { kind: "cut" });
    const error = await failure(client.increment("/n"));
    assert.deepEqual([error.code, error.status, error.maybeDone], ["incomplete", 200, true]);
    assert.equal((await client.session())?.data.n, 1);
    proxy.next(/GET/, { kind: "cut" }, 3);
    assert.equal((await failure(client.session())).maybeDone, false);
  });

  test("that ends early without an error of the network is seen, too", async () => {
    const headers = { "content-type": "application/json" };
    for (const body of ["", '{"session":{"handle":"a","data"', '{"session']) {
      proxy.next(/GET/, { kind: "answer", headers, body }, 3);
      assert.equal((await failure(page(proxy.url).session())).code, "incomplete");
    }
  });
});

describe("an answer that is not Cloakroom's", () => {
  const json = { "content-type": "application/json" };
  const problem = { "content-type": "application/problem+json" };
  /** @type {[string, Fault & { kind: "answer" }, string, number][]} */
  const table = [
    ["a page", { kind: "answer", headers: { "content-type": "text/html" }, body: "<p>" }, "not_cloakroom", 1],
    ["nothing", { kind: "answer" }, "not_cloakroom", 1],
    ["other JSON", { kind: "answer", headers: json, body: '{"ok":true}' }, "not_cloakroom", 1],
    ["JSON that is no object", { kind: "answer", headers: json, body: '"session"' }, "not_cloakroom", 1],
    ["null", { kind: "answer", headers: json, body: "null" }, "not_cloakroom", 1],
    ["a redirect", { kind: "answer", status: 302, headers: { location: "/x" } }, "not_cloakroom", 0],
    ["no such file", { kind: "answer", status: 404, body: "no such file" }, "not_cloakroom", 0],
    ["JSON's 404", { kind: "answer", status: 404, headers: json, body: '{"code":7}' }, "not_cloakroom", 0],
    ["a proxy's 502", { kind: "answer", status: 502, body: "<h1>" }, "not_cloakroom", 1],
    ["an unknown code", { kind: "answer", status: 418, headers: problem, body: '{"code":"tea"}' }, "tea", 0],
  ];
  for (const [what, fault, code, maybeDone] of table) {
    test(`says so, and ends: ${what}`, async () => {
      proxy.always(() => fault);
      const client = page(proxy.url);
      for (const [call, isChange] of /** @type {[Promise<unknown>, boolean][]} */ ([
        [failure(client.session()), false],
        [failure(client.increment("/a")), true],
        [failure(client.update((data) => void (data.a = 1))), false],
      ])) {
        const error = /** @type {any} */ (await call);
        assert.deepEqual([error.code, error.status], [code, fault.status ?? 200]);
        assert.equal(error.maybeDone, isChange && Boolean(maybeDone));
      }
      assert.ok(proxy.seen.length <= 7, `${proxy.seen.length} requests`);
    });
  }

  test("says so also for an address without a server, and for none at all", async () => {
    assert.equal((await failure(page("http://127.0.0.1:9").session())).code, "network");
    const { createClient } = await import("../client/src/index.js");
    const error = await failure(createClient().session());
    assert.equal(error.code, "network");
    assert.match(error.message, /baseUrl/);
  });

  test("makes no endless loop of a 412 that should not be", async () => {
    const body = '{"code":"precondition_failed"}';
    proxy.always(({ method }) =>
      method === "PATCH" ? { kind: "answer", status: 412, headers: problem, body } : undefined,
    );
    assert.equal((await failure(page(proxy.url).merge({ a: 1 }))).code, "precondition_failed");
    assert.equal(proxy.seen.length, 1);
    proxy.clear();
    const { client } = await ready();
    proxy.always(({ method }) =>
      method === "PATCH" ? { kind: "answer", status: 412, headers: problem, body } : undefined,
    );
    assert.equal((await failure(client.merge({ a: 1 }))).code, "precondition_failed");
    assert.equal(proxy.seen.length, 2);
  });
});

test("a failure of the Worker says what is unclear, and what is safe is made again", async () => {
  const headers = { "content-type": "application/problem+json" };
  const body = '{"code":"store_unavailable","detail":"the store did not answer"}';
  const { client } = await ready();
  proxy.next(/PATCH/, { kind: "answer", status: 503, headers, body });
  const error = await failure(client.increment("/n"));
  assert.deepEqual(
    [error.code, error.status, error.maybeDone, error.message],
    ["store_unavailable", 503, true, "the store did not answer"],
  );
  for (const call of [() => client.session(), () => client.merge({ a: 1 }), () => client.rotate()]) {
    proxy.next(/./, { kind: "answer", status: 503, headers, body }, 2);
    await call();
  }
  proxy.next(/GET/, {
    kind: "answer",
    status: 503,
    headers: { ...headers, "retry-after": "3600" },
    body,
  });
  assert.equal((await failure(client.session())).retryAfter, 3600, "that is not waited for");
});

describe("what somebody else answers", () => {
  /** @param {() => Response} answer */
  const elsewhere = (answer) => {
    let requests = 0;
    const client = page(proxy.url, {
      async fetch() {
        requests += 1;
        return answer();
      },
    });
    return { client, requests: () => requests };
  };
  const json = (/** @type {unknown} */ value) => () => Response.json(value);

  for (const [what, answer] of /** @type {[string, () => Response][]} */ ([
    ["204", () => new Response(null, { status: 204 })],
    ["a session that is a text", json({ session: "abc" })],
    ["JSON without a session", json({ ok: true })],
  ])) {
    test(`${what} is not Cloakroom's, and a change is sent once`, async () => {
      const { client, requests } = elsewhere(answer);
      assert.equal((await failure(client.increment("/n"))).code, "not_cloakroom");
      assert.equal(requests(), 1);
    });
  }

  test("200 to a logout has ended nothing", async () => {
    const { client } = elsewhere(json({ ok: true }));
    assert.equal((await failure(client.logout())).code, "not_cloakroom");
    assert.equal(client.current, undefined);
  });
});

test("a call that was given up is not tried again, however many retries there are", async () => {
  const controller = new AbortController();
  const client = page(proxy.url, {
    retries: Infinity,
    async fetch() {
      throw new TypeError("no network");
    },
  });
  const call = failure(client.session({ signal: controller.signal }));
  setTimeout(() => controller.abort(), 20);
  assert.equal((await call).code, "aborted");
});
