/** The client and logging in with others: where one can, the address that begins it, and what is tied to an account. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { createClient } from "../client/src/index.js";
import { cookieJar, failure, page, startBehindProxy } from "./support/client.mjs";
import { CLIENT, startProvider } from "./support/oidc-provider.mjs";
import { FAST_HASH, moveClocks } from "./support/worker.mjs";

const acme = await startProvider();
after(acme.stop);
const providers = [{ id: "acme", issuer: acme.issuer, client_id: CLIENT.client_id, label: "Acme" }];
const { proxy, store, worker } = await startBehindProxy({
  settings: { password: FAST_HASH, accounts: { providers } },
  secrets: { PROVIDER_ACME_SECRET: CLIENT.client_secret },
});
acme.open([`${worker.url}/auth/callback/acme`]);

test("the address begins a login, whose session the client finds when the page is there again", async () => {
  const jar = cookieJar();
  const client = page(proxy.url, {}, jar);
  await client.merge({ cart: ["tea"] });
  assert.deepEqual(await client.providers(), [{ id: "acme", name: "Acme", linked: false }]);
  const begun = await jar.fetch(client.loginUrl("acme", { returnTo: "/a?b=c&d" }), { redirect: "manual" });
  const back = await acme.browser().follow(String(begun.headers.get("location")));
  const ended = await jar.fetch(proxy.url + back, { redirect: "manual" });
  assert.deepEqual([ended.status, ended.headers.get("location")], [303, "/a?b=c&d"]);
  const session = await client.session();
  assert.deepEqual([session?.user?.id, session?.data], ["acme:ada", { cart: ["tea"] }]);
  assert.equal((await client.providers())[0]?.linked, true);
  assert.equal((await client.devices())[0]?.provider, "acme");
});

test("an address says all that is asked for, and nothing of it leaves its place", () => {
  const { loginUrl } = createClient({ baseUrl: "/api/session/", fetch });
  for (const [address, expected] of [
    [loginUrl("acme"), "/api/session/login/acme?return_to=%2F"],
    [
      loginUrl("acme", { returnTo: "/a?b=c&d#e", remember: true, fresh: true }),
      "/api/session/login/acme?return_to=%2Fa%3Fb%3Dc%26d%23e&remember=1&fresh=1",
    ],
    [loginUrl("acme", { remember: false, fresh: false }), "/api/session/login/acme?return_to=%2F"],
    [loginUrl("../x?y"), "/api/session/login/..%2Fx%3Fy?return_to=%2F"],
  ]) {
    assert.equal(address, expected);
  }
});

test("a provider is tied by going to an address, opens the account, and is untied by a call", async () => {
  const jar = cookieJar();
  const client = page(proxy.url, {}, jar);
  const { user } = await client.register({ username: "tess", password: "correct horse" });
  proxy.took();
  const location = await client.link("acme", { returnTo: "/a?b" });
  assert.ok(location.startsWith(`${acme.issuer}/auth?`), location);
  const browser = acme.browser();
  const back = await browser.follow(location, { as: "tess" });
  const ended = await jar.fetch(proxy.url + back, { redirect: "manual" });
  assert.deepEqual([ended.status, ended.headers.get("location")], [303, "/a?b"]);
  assert.equal((await client.providers())[0]?.linked, true);

  const other = cookieJar();
  const begun = await other.fetch(client.loginUrl("acme"), { redirect: "manual" });
  const way = await browser.follow(String(begun.headers.get("location")), { as: "tess" });
  await other.fetch(proxy.url + way, { redirect: "manual" });
  assert.deepEqual((await page(proxy.url, {}, other).session())?.user, user);

  await client.unlink("acme");
  assert.equal((await client.providers())[0]?.linked, false);
  const calls = proxy.took().filter((call) => call.includes("link"));
  assert.deepEqual(calls, ["POST link/acme?return_to=%2Fa%3Fb", "DELETE link/acme"]);
});

test("who logged in too long ago is told so by the code, and nothing is repeated", async () => {
  const client = page(proxy.url);
  await client.register({ username: "late", password: "correct horse" });
  await moveClocks(store, [worker], 16 * 60_000); // session.fresh_for is 15 minutes
  proxy.took();
  for (const call of [() => client.link("acme"), () => client.unlink("acme")]) {
    const { code, maybeDone } = await failure(call());
    assert.deepEqual([code, maybeDone, proxy.took().length], ["reauthenticate", false, 1]);
  }
});
