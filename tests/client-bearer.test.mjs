/** The client without cookies, and on a server: bearer tickets, and the recipe of docs/frontend.md. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { after, beforeEach, describe, test } from "node:test";
import { createClient } from "../client/src/index.js";
import { failure, startProxy } from "./support/client.mjs";
import { Visitor } from "./support/visitor.mjs";
import { FAST_HASH, randomSecret, startDeployment } from "./support/worker.mjs";

/** @import { ClientOptions, TicketStorage } from "../client/index.d.ts" */

const ADMIN_TOKEN = randomSecret();
const { store, workers, stop } = await startDeployment([{ settings: { bearer: { enabled: true } } }, {}], {
  settings: { password: FAST_HASH },
  secrets: { ADMIN_TOKEN },
});
const [worker, withoutBearer] = workers;
const proxy = await startProxy(worker.url);
after(async () => {
  proxy.stop();
  await stop();
});

/** What was sent with each request. @type {{ headers: Record<string, string>, credentials?: string }[]} */
const sent = [];
beforeEach(() => {
  proxy.clear();
  sent.length = 0;
});

const PASSWORD = "correct horse";
let number = 0;
const someone = () => ({ username: `Bearer ${(number += 1)}`, password: PASSWORD });

/** Notes what is sent. @type {NonNullable<ClientOptions["fetch"]>} */
function notedFetch(url, init) {
  sent.push({ headers: lowerCase(init.headers), credentials: init.credentials });
  return fetch(url, init);
}

/** @param {HeadersInit | undefined} headers @returns {Record<string, string>} */
const lowerCase = (headers) => Object.fromEntries(new Headers(headers));

/** @param {ClientOptions} [options] */
const app = (options) =>
  createClient({ baseUrl: `${proxy.url}/auth`, transport: "bearer", fetch: notedFetch, ...options });

/** A storage that takes its time, as a keychain does. */
function keychain() {
  let kept = /** @type {string | null} */ (null);
  return {
    get: async () => kept,
    set: async (/** @type {string} */ ticket) => void (kept = ticket),
    remove: async () => void (kept = null),
  };
}

describe("bearer tickets", () => {
  for (const [where, storage] of /** @type {[string, () => TicketStorage | undefined][]} */ ([
    ["in memory", () => undefined],
    ["in a keychain", keychain],
  ])) {
    test(`kept ${where} are a session: from the first change to the logout`, async () => {
      const client = app({ storage: storage() });
      const credentials = someone();
      assert.equal(await client.session(), null);
      await client.merge({ a: 1 });
      await client.register(credentials);
      await client.rotate();
      await client.reauthenticate(PASSWORD);
      await client.update((data) => void (data.b = 2));
      assert.deepEqual((await client.session())?.data, { a: 1, b: 2 });
      await client.logout();
      assert.equal(await client.session(), null);
      assert.equal(sent.at(-1)?.headers.authorization, undefined, "it is forgotten");
      for (const { headers, credentials } of sent) {
        assert.equal(headers["session-transport"], "bearer");
        assert.equal(credentials, "omit");
        assert.equal(headers.cookie, undefined);
      }
    });
  }

  test("outlive the program where they are kept", async () => {
    const storage = keychain();
    await app({ storage }).merge({ a: 1 });
    assert.deepEqual((await app({ storage }).session())?.data, { a: 1 });
  });

  test("are kept also when the body of the answer that brought them was cut off", async () => {
    const client = app({ storage: keychain() });
    proxy.next(/PATCH/, { kind: "cut" });
    assert.equal((await failure(client.increment("/n"))).code, "incomplete");
    assert.deepEqual((await client.session())?.data, { n: 1 });
  });

  test("of many first changes at once are one, and of many later ones", async () => {
    const client = app({ storage: keychain() });
    await Promise.all(Array.from({ length: 10 }, () => client.increment("/n")));
    await Promise.all([client.rotate(), client.increment("/n"), client.rotate(), client.increment("/n")]);
    assert.equal((await client.session())?.data.n, 12);
  });

  test("that lead to no session any more are removed by the change that begins another", async () => {
    const storage = keychain();
    const client = app({ storage });
    const { handle } = await client.merge({ a: 1 });
    const before = await storage.get();
    await store.redis.del(`sess:${handle}`);
    assert.equal(await client.session(), null);
    assert.equal(await storage.get(), before, "a read removes none");
    assert.deepEqual((await client.merge({ b: 1 })).data, { b: 1 });
    assert.notEqual(await storage.get(), before);
  });

  test("that are ignored are no success, and stay where they are", async () => {
    const storage = keychain();
    await app({ storage }).merge({ a: 1 });
    const kept = await storage.get();
    const client = app({ storage, baseUrl: `${withoutBearer.url}/auth` });
    for (const call of [() => client.session(), () => client.merge({ a: 2 }), () => client.logout()])
      assert.equal((await failure(call())).code, "not_cloakroom");
    assert.equal(await storage.get(), kept);
    assert.deepEqual((await app({ storage }).session())?.data, { a: 1 });
  });

  test("are forgotten with a logout, also if what takes them away is lost on the way", async () => {
    const storage = keychain();
    const client = app({
      storage,
      async fetch(url, init) {
        const { status, headers, body } = await fetch(url, init);
        const others = [...headers].filter(([, value]) => value !== "");
        return new Response(body, { status, headers: others });
      },
    });
    await client.merge({ a: 1 });
    await client.logout();
    assert.equal(await storage.get(), null);
  });

  test("that the Worker does not give are missed, with the setting to change", async () => {
    const client = app({ baseUrl: `${withoutBearer.url}/auth` });
    const error = await failure(client.merge({ a: 1 }));
    assert.deepEqual([error.code, error.maybeDone], ["not_cloakroom", true]);
    assert.match(error.message, /bearer\.enabled/);
  });
});

test("a server that renders for its visitors passes on what docs/frontend.md says", async () => {
  const text = await readFile(new URL("../docs/frontend.md", import.meta.url), "utf8");
  const recipe = /```js\n(function clientFor.*?)```/s.exec(text)?.[1];
  assert.ok(recipe);
  const environment = { env: { CLOAKROOM: worker.url, ADMIN_TOKEN } };
  const clientFor = new Function("createClient", "process", `${recipe}; return clientFor;`)(
    createClient,
    environment,
  );
  const server = createServer(async (request, response) => {
    const client = clientFor(request, response);
    const views = request.url === "/count" ? (await client.increment("/views")).data.views : 0;
    const session = await client.session();
    response.end(JSON.stringify([views, session?.user?.name ?? null]));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  try {
    const visitor = new Visitor(`http://127.0.0.1:${port}`);
    assert.equal((await visitor.send("GET", "/")).text, "[0,null]");
    assert.equal((await visitor.send("GET", "/count")).text, "[1,null]");
    assert.equal((await visitor.send("GET", "/count")).text, "[2,null]");
    const browser = visitor.clone(worker.url);
    const credentials = someone();
    await browser.tell("POST", "/register", credentials);
    const here = browser.clone(visitor.url);
    assert.equal((await here.send("GET", "/")).text, `[0,"${credentials.username}"]`);
    assert.equal((await visitor.send("GET", "/")).text, "[0,null]", "one visitor is not another");
  } finally {
    server.close();
  }
});
