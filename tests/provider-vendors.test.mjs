/** Logging in with servers that have the habits of Google, Microsoft, Auth0, Keycloak and GitHub: docs/login.md's recipes. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { CLIENT_ID, CLIENT_SECRET } from "./support/forger.mjs";
import { startVendors } from "./support/vendors.mjs";
import { moveClocks, NO_LIMITS, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {import("./support/vendors.mjs").OpenId} OpenId */

const vendors = await startVendors();
/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;

before(async () => {
  const openid = Object.entries(vendors.issuers).map(([id, issuer]) => ({
    id,
    issuer,
    client_id: CLIENT_ID,
    ...(id === "auth0" ? { prompt: "select_account" } : {}),
  }));
  const github = {
    id: "github",
    type: "oauth2",
    client_id: CLIENT_ID,
    authorize_url: `${vendors.origin}/github/login/oauth/authorize`,
    token_url: `${vendors.origin}/github/login/oauth/access_token`,
    user_url: `${vendors.origin}/github/user`,
    subject: "/id",
    name: "/login",
  };
  const ids = [...Object.keys(vendors.issuers), "github"];
  both = await startBoth({
    settings: { accounts: { providers: [...openid, github] }, limits: NO_LIMITS },
    secrets: Object.fromEntries(ids.map((id) => [`PROVIDER_${id.toUpperCase()}_SECRET`, CLIENT_SECRET])),
  });
  vendors.setClock(() => Math.floor(both.store.now() / 1000));
});
after(async () => {
  await both?.stop();
  vendors.stop();
});
beforeEach(() => {
  for (const id of /** @type {OpenId[]} */ (Object.keys(vendors.documents))) delete vendors.documents[id];
});

/** @param {Visitor} visitor @param {string} id */
async function begin(visitor, id, query = "?return_to=/home") {
  const begun = await visitor.send("GET", `/auth/login/${id}${query}`);
  assert.equal(begun.status, 303, begun.text);
  return String(begun.headers.get("location"));
}

/** @param {Visitor} visitor @param {string} id @param {Record<string, unknown>} [more] @param {string} [query] */
async function logIn(visitor, id, more, query) {
  const location = await begin(visitor, id, query);
  if (!location.startsWith("http")) return location;
  const answer = await visitor.send("GET", vendors.back(location, more));
  assert.equal(answer.status, 303, answer.text);
  return answer.headers.get("location");
}

/** Time enough for documents to be fetched again. */
const forget = () => moveClocks(both.store, [both.worker], 3_700_000);

describe("a user of each logs in, under the id and the name that the recipe says:", () => {
  for (const [id, user, name] of /** @type {const} */ ([
    ["google", "google:110169484474386276334", "Ada of Google"],
    ["microsoft", "microsoft:AAAAAAAAAAAAAAAAAAAAAIkzqFVrSaSaFHy782bbtaQ", "Ada of Contoso"],
    ["auth0", "auth0:auth0|65f1", "Ada of Auth0"],
    ["keycloak", "keycloak:f:9f4e:ada", "ada of Keycloak"],
    ["github", "github:583231", "octocat"],
  ])) {
    test(id, async () => {
      const visitor = both.worker.visitor();
      assert.equal(await logIn(visitor, id), "/home");
      assert.deepEqual((await visitor.session()).user, { id: user, name, roles: [] });
    });
  }
});

test("fresh=1 works where the provider says when the user has logged in, and fails where it does not", async () => {
  for (const [id, location] of /** @type {const} */ ([
    ["auth0", "/home"],
    ["keycloak", "/home"],
    ["google", "/home?login_error=invalid_response"],
    ["microsoft", "/home?login_error=invalid_response"],
  ])) {
    const visitor = both.worker.visitor();
    assert.equal(await logIn(visitor, id, {}, "?fresh=1&return_to=/home"), location, id);
  }
  assert.match(both.worker.logs.join(""), /it did not let the visitor log in anew \(auth_time\)/);
});

test("a prompt of the settings gives way where the user is to prove anew who they are", async () => {
  for (const [query, prompt] of /** @type {const} */ ([
    ["", "select_account"],
    ["?fresh=1", "login"],
  ])) {
    const { searchParams } = new URL(await begin(both.worker.visitor(), "auth0", query));
    assert.deepEqual(searchParams.getAll("prompt"), [prompt]);
  }
});

test("GitHub is asked for no scope and without a nonce, which it does not know", async () => {
  const { searchParams } = new URL(await begin(both.worker.visitor(), "github"));
  assert.deepEqual([...searchParams.keys()].toSorted(), [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "redirect_uri",
    "response_type",
    "state",
  ]);
});

test("GitHub's refusal of a code is a 200, and logs nobody in", async () => {
  const visitor = both.worker.visitor();
  assert.equal(await logIn(visitor, "github", { code: "used" }), "/home?login_error=invalid_response");
  assert.equal(await visitor.session(), null);
});

test("who sends iss always is not believed without it", async () => {
  const visitor = both.worker.visitor();
  for (const iss of [undefined, "", vendors.issuers.google]) {
    assert.equal(await logIn(visitor, "keycloak", { iss }), "/home?login_error=invalid_response", iss);
  }
  assert.equal(await visitor.session(), null);
  // Who does not may leave it out.
  assert.equal(await logIn(visitor, "google", { iss: undefined }), "/home");
});

test("Microsoft's common is no issuer: its description names another, and the log says what to write", async () => {
  await forget();
  vendors.documents.microsoft = { issuer: "https://login.microsoftonline.com/{tenantid}/v2.0" };
  const visitor = both.worker.visitor();
  assert.equal(await logIn(visitor, "microsoft"), "/home?login_error=provider_unavailable");
  assert.match(both.worker.logs.join(""), /names another issuer: write that into accounts\.providers/);
});

test("a provider of other ways to prove the client's identity than its secret is of no use, and the log says so", async () => {
  await forget();
  vendors.documents.auth0 = { token_endpoint_auth_methods_supported: ["private_key_jwt"] };
  assert.equal(await logIn(both.worker.visitor(), "auth0"), "/home?login_error=provider_unavailable");
  assert.match(both.worker.logs.join(""), /takes neither client_secret_basic nor client_secret_post/);
});

test("a name that the ID token has not is asked for, and is nobody else's", async () => {
  for (const [document, location, name] of /** @type {const} */ ([
    [{ sub: "1", name: "Ada" }, "/home", "Ada"],
    [{ sub: "1", name: " ", preferred_username: "ada" }, "/home", "ada"],
    [{ sub: "1" }, "/home", "1"],
    [{ name: "Ada" }, "/home", "1"],
    [{ sub: "2", name: "Mallory" }, "/home?login_error=invalid_response", undefined],
  ])) {
    const visitor = both.worker.visitor();
    vendors.sayNext({ sub: "1", name: undefined });
    vendors.setUser(document);
    assert.equal(await logIn(visitor, "google"), location, JSON.stringify(document));
    assert.equal((await visitor.session())?.user.name, name);
  }
  // Where the ID token has a name nobody is asked.
  assert.equal(await logIn(both.worker.visitor(), "google"), "/home");
});

test("an answer of the token endpoint without what it must have logs nobody in", async () => {
  for (const answer of [
    { token_type: "DPoP" },
    { token_type: undefined },
    { access_token: undefined },
    { access_token: 7 },
    { id_token: undefined },
    { id_token: "" },
  ]) {
    const visitor = both.worker.visitor();
    vendors.sayNext({}, answer);
    assert.equal(
      await logIn(visitor, "google"),
      "/home?login_error=invalid_response",
      JSON.stringify(answer),
    );
    assert.equal(await visitor.session(), null);
  }
});

test("a key that another takes the place of, under the same name, refuses nobody; and keys are not looked for often", async () => {
  await forget();
  assert.equal(await logIn(both.worker.visitor(), "google"), "/home");
  vendors.changeKey();
  await moveClocks(both.store, [both.worker], 31_000);
  const looks = vendors.looks();
  assert.equal(await logIn(both.worker.visitor(), "google"), "/home");
  vendors.changeKey();
  for (let times = 0; times < 3; times += 1) {
    assert.equal(await logIn(both.worker.visitor(), "google"), "/home?login_error=invalid_response");
  }
  assert.equal(vendors.looks(), looks + 1);
  await moveClocks(both.store, [both.worker], 31_000);
  assert.equal(await logIn(both.worker.visitor(), "google"), "/home");
});
