/** Logging out with a real OpenID provider: from here, and because of there. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { CLIENT, startProvider } from "./support/oidc-provider.mjs";
import { startReceiver } from "./support/receiver.mjs";
import { FAST_HASH, NO_LIMITS, startBoth, until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** One that tells which session has ended, and one that tells whose sessions have. */
const [acme, wide] = await Promise.all([startProvider(), startProvider()]);
const PROVIDERS = { acme, wide };
/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;

const receiver = await startReceiver();
before(async () => {
  const secrets = /** @type {Record<string, string>} */ ({
    ...receiver.secrets,
    PROVIDER_DOWN_SECRET: "a secret",
    PROVIDER_PLAIN_SECRET: "a secret",
  });
  const providers = Object.entries(PROVIDERS).map(([id, { issuer }]) => {
    secrets[`PROVIDER_${id.toUpperCase()}_SECRET`] = CLIENT.client_secret;
    return { id, issuer, client_id: CLIENT.client_id };
  });
  const down = { id: "down", issuer: "http://127.0.0.1:1", client_id: "client" };
  const { issuer } = acme;
  const [authorize_url, token_url, user_url] = ["auth", "token", "me"].map((path) => `${issuer}/${path}`);
  const addresses = { authorize_url, token_url, user_url };
  const plain = { id: "plain", type: "oauth2", client_id: "client", ...addresses, subject: "/id" };
  both = await startBoth({
    settings: {
      ...receiver.settings,
      accounts: { providers: [...providers, down, plain] },
      limits: NO_LIMITS,
      password: FAST_HASH,
    },
    secrets,
  });
  const { url } = both.worker;
  for (const [id, provider] of Object.entries(PROVIDERS)) {
    provider.open([`${url}/auth/callback/${id}`], {
      backChannel: `${url}/auth/backchannel/${id}`,
      hasSid: id === "acme",
      afterLogout: [`${url}/bye`],
    });
  }
});
after(async () => {
  await both?.stop();
  await receiver.stop();
  acme.stop();
  wide.stop();
});

/** @typedef {{ visitor: Visitor, browser: ReturnType<typeof acme.browser> }} Someone */

/** A browser that is logged in, there and here. @param {keyof typeof PROVIDERS} id @param {string} as @returns {Promise<Someone>} */
async function loggedIn(id, as) {
  const [visitor, browser] = [both.worker.visitor(), PROVIDERS[id].browser()];
  await logIn({ visitor, browser }, id, as);
  return { visitor, browser };
}

/** @param {Someone} someone @param {keyof typeof PROVIDERS} id @param {string} as */
async function logIn({ visitor, browser }, id, as) {
  const begun = await visitor.send("GET", `/auth/login/${id}`);
  const back = await browser.follow(String(begun.headers.get("location")), { as });
  assert.equal((await visitor.send("GET", back)).headers.get("location"), "/");
  assert.equal((await visitor.session()).user.id, `${id}:${as}`);
}

/** @param {Visitor} visitor */
const isLoggedIn = async (visitor) => (await visitor.session()) !== null;

/** @param {string} id @param {Visitor} visitor */
const leave = (id, visitor, query = "?return_to=/bye") => visitor.send("GET", `/auth/logout/${id}${query}`);

test("logout leads to the provider, which asks, ends its own session and sends the visitor back", async () => {
  const { visitor, browser } = await loggedIn("acme", "ada");
  const again = visitor.clone();
  const answer = await leave("acme", visitor);
  assert.equal(answer.status, 303);
  const to = new URL(String(answer.headers.get("location")));
  assert.equal(to.origin, acme.issuer);
  assert.deepEqual(Object.fromEntries(to.searchParams), {
    client_id: CLIENT.client_id,
    post_logout_redirect_uri: `${both.worker.url}/bye`,
  });
  assert.equal(await isLoggedIn(again), false, "it is over here before the visitor is there");
  assert.equal(await browser.logOut(to.href), `${both.worker.url}/bye`);
  const before = browser.asked;
  await logIn({ visitor, browser }, "acme", "ada");
  assert.equal(browser.asked, before + 1, "it is over there, too");
});

describe("a logout at the provider is told here", () => {
  for (const id of /** @type {const} */ (["acme", "wide"])) {
    test(
      id === "acme" ? "and ends the session of that browser alone" : "and ends all sessions of the user",
      async () => {
        const here = await loggedIn(id, "grace");
        const there = await loggedIn(id, "grace");
        const other = await loggedIn(id, "alan");
        assert.equal((await here.visitor.rotate()).status, 200);
        await here.browser.logOut(`${PROVIDERS[id].issuer}/session/end?client_id=${CLIENT.client_id}`);
        await until(async () => !(await isLoggedIn(here.visitor)));
        assert.equal(await isLoggedIn(there.visitor), id === "acme");
        assert.equal(await isLoggedIn(other.visitor), true);
        await logIn(here, id, "grace");
      },
    );
  }
});

describe("logout is the visitor's own", () => {
  test("and no page of another origin, nothing that looks ahead and no HEAD can make it", async () => {
    const { visitor } = await loggedIn("acme", "ada");
    const navigates = { "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document" };
    for (const [headers, status, code] of /** @type {const} */ ([
      [{ "Sec-Fetch-Site": "cross-site", ...navigates }, 403, "cross_site"],
      [{ "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors" }, 403, "cross_site"],
      [{ "Sec-Fetch-Site": "same-site", ...navigates }, 403, "cross_site"],
      [{ Origin: "https://evil.example" }, 403, "cross_site"],
      [{ "Sec-Fetch-Site": "same-origin", "Sec-Purpose": "prefetch;prerender" }, 400, "bad_request"],
      [{ "Sec-Fetch-Site": "none", Purpose: "prefetch" }, 400, "bad_request"],
    ])) {
      const answer = await visitor.send("GET", "/auth/logout/acme", { headers });
      assert.deepEqual([answer.status, answer.json.code], [status, code], JSON.stringify(headers));
      assert.deepEqual(answer.setCookies, []);
    }
    assert.equal((await visitor.send("HEAD", "/auth/logout/acme")).status, 400);
    for (const query of ["?return_to=//evil.example", "?return_to=https%3A%2F%2Fevil.example", "?to=/a"])
      assert.equal((await leave("acme", visitor, query)).status, 400, query);
    assert.equal((await leave("nobody", visitor)).status, 404);
    assert.equal((await visitor.send("POST", "/auth/logout/acme")).status, 405);
    assert.equal(await isLoggedIn(visitor), true);
    for (const site of ["same-origin", "none"]) {
      const other = (await loggedIn("acme", "ada")).visitor;
      const headers = { "Sec-Fetch-Site": site, ...navigates };
      assert.equal((await other.send("GET", "/auth/logout/acme", { headers })).status, 303);
      assert.equal(await isLoggedIn(other), false, site);
    }
  });

  test("and is one here whoever's session it is, whatever becomes of the way to the provider", async () => {
    const bare = (/** @type {string | null} */ location) => String(location).replace(/\?client_id=.*/, "");
    const there = `${acme.issuer}/session/end`;
    const withPassword = async () => {
      const visitor = both.worker.visitor();
      assert.equal((await visitor.register("grace", "correct horse battery")).status, 201);
      return visitor;
    };
    const withProvider = async () => (await loggedIn("wide", "ada")).visitor;
    const anonymous = async () => {
      const visitor = both.worker.visitor();
      await visitor.merge({ cart: 1 });
      return visitor;
    };
    for (const [who, id, location] of /** @type {const} */ ([
      [withPassword, "acme", there],
      [withProvider, "acme", there],
      [withProvider, "plain", "/bye"],
      [withProvider, "down", "/bye?login_error=provider_unavailable"],
      [anonymous, "acme", there],
      [async () => both.worker.visitor(), "acme", there],
    ])) {
      const visitor = await who();
      const before = visitor.clone();
      const answer = await leave(id, visitor);
      assert.deepEqual([answer.status, bare(answer.headers.get("location"))], [303, location], id);
      assert.equal(visitor.ticket, undefined);
      assert.equal(await isLoggedIn(before), false, id);
    }
  });

  test("and while the store fails it is none", async () => {
    const { visitor } = await loggedIn("acme", "ada");
    both.store.faults.always({ status: 500 });
    const answer = await leave("acme", visitor);
    both.store.faults.clear();
    assert.deepEqual([answer.status, answer.json.code], [503, "store_unavailable"]);
    assert.deepEqual(answer.setCookies, []);
    assert.equal(await isLoggedIn(visitor), true);
  });
});

test("a login from a device that the user has not logged in from is told, and others are not", async () => {
  await receiver.take(both.worker);
  const events = async () => (await receiver.take(both.worker)).map(({ type, user }) => `${type} ${user.id}`);
  const ada = await loggedIn("acme", "ada");
  assert.deepEqual(await events(), ["user.new_device acme:ada"]);
  await ada.visitor.logout();
  await logIn(ada, "acme", "ada");
  assert.deepEqual(await events(), [], "the device is known");
  await ada.visitor.logout();
  ada.browser = acme.browser();
  await logIn(ada, "acme", "grace");
  assert.deepEqual(await events(), ["user.new_device acme:grace"], "to whom it was");
  const bare = both.worker.visitor();
  bare.ticket = ada.visitor.ticket;
  await logIn({ ...ada, visitor: bare }, "acme", "grace");
  assert.deepEqual(await events(), [], "who is logged in is no stranger");
});
