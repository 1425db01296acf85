/** Logging out with a real OpenID provider: from here, and because of there. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { CLIENT, startProvider } from "./support/oidc-provider.mjs";
import { NO_LIMITS, startBoth, until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

/** One that tells which session has ended, and one that tells whose sessions have. */
const [acme, wide] = await Promise.all([startProvider(), startProvider()]);
const PROVIDERS = { acme, wide };
/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;

before(async () => {
  const secrets = /** @type {Record<string, string>} */ ({});
  const providers = Object.entries(PROVIDERS).map(([id, { issuer }]) => {
    secrets[`PROVIDER_${id.toUpperCase()}_SECRET`] = CLIENT.client_secret;
    return { id, issuer, client_id: CLIENT.client_id };
  });
  both = await startBoth({ settings: { accounts: { providers }, limits: NO_LIMITS }, secrets });
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

/** @param {keyof typeof PROVIDERS} id @param {Visitor} visitor */
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
    test(id === "acme" ? "and ends the session of that browser alone" : "and ends all sessions of the user", async () => {
      const here = await loggedIn(id, "grace");
      const there = await loggedIn(id, "grace");
      const other = await loggedIn(id, "alan");
      assert.equal((await here.visitor.rotate()).status, 200);
      await here.browser.logOut(`${PROVIDERS[id].issuer}/session/end?client_id=${CLIENT.client_id}`);
      await until(async () => !(await isLoggedIn(here.visitor)));
      assert.equal(await isLoggedIn(there.visitor), id === "acme");
      assert.equal(await isLoggedIn(other.visitor), true);
      await logIn(here, id, "grace");
    });
  }
});
