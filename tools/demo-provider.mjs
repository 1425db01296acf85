/**
 * `npm start -- --demo-provider`: an OpenID provider of this machine, so that logging in with others can be tried without an
 * account anywhere. Whoever types a name is its user. It is npm's `oidc-provider`, with a login page of its own, and keeps
 * nothing: it has new keys, and nobody logged in, at each start.
 */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { createServer } from "node:http";
import { text } from "node:stream/consumers";
// @ts-expect-error It comes without types. It is the default, and says at each start that it is not meant for production.
import { createMemoryAdapter } from "oidc-provider/lib/adapters/memory_adapter.js";

/** @import { IncomingMessage, ServerResponse } from "node:http" */
/** @typedef {Awaited<ReturnType<typeof startDemoProvider>>} DemoProvider */

/** The provider's name in paths and user ids, and for people. */
export const ID = "demo";
const LABEL = "the demo provider";
const CLIENT_ID = "cloakroom-demo";
const HOST = "127.0.0.1";
const LONGEST_NAME = 40;
/** A name in percent-encoding, and the button. */
const LONGEST_BODY = 2000;

/**
 * Listens on a port of this machine, and answers once it is told where the Worker is: {@link serve}.
 *
 * @param {{ port: number }} where  the Worker's port: whom it sends its users back to
 */
export async function startDemoProvider({ port }) {
  const Provider = await loadProvider();
  const secret = random();
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const key = { ...privateKey.export({ format: "jwk" }), use: "sig", alg: "ES256", kid: random() };
  const cookieKeys = [random()];
  const adapter = createMemoryAdapter();
  /** What users call themselves, by their ids. @type {Map<string, string>} */
  const names = new Map();
  const origins = ["localhost", HOST].map((host) => `http://${host}:${port}`);
  let [host, issuer, base] = ["", "", ""];
  /** @type {any} */
  let provider;

  const server = createServer((request, response) => {
    // Its addresses follow from Host: a page of another name that leads to this machine has none.
    if (request.headers.host !== host) return void response.writeHead(421).end();
    if (!provider) return void response.writeHead(503, { "Retry-After": "1" }).end();
    const { pathname } = new URL(request.url ?? "/", issuer);
    if (pathname === "/") return showPage(response, 200, "Demo provider", ABOUT);
    if (!pathname.startsWith("/interaction/")) return void provider.callback()(request, response);
    interact(provider, names, request, response).catch(() =>
      showPage(
        response,
        400,
        "This login is over",
        "<p>Go back to the page that you came from, and try again.</p>",
      ),
    );
  });
  await new Promise((done, failed) => {
    server.once("error", failed).listen(0, HOST, () => done(undefined));
  });
  const address = server.address();
  host = `${HOST}:${typeof address === "object" ? address?.port : ""}`;
  issuer = `http://${host}`;

  return {
    issuer,
    /** For `accounts.providers`. */
    settings: { id: ID, issuer, client_id: CLIENT_ID, label: LABEL },
    /** For the environment. */
    secrets: { [`PROVIDER_${ID.toUpperCase()}_SECRET`]: secret },
    /** From now on the Worker's routes are there. Who is logged in stays so. @param {string} path "/auth" */
    serve(path) {
      if (provider && path === base) return;
      base = path;
      // Its types know neither all of its settings nor JWKs as Node has them.
      const configuration = /** @type {any} */ ({
        adapter,
        clients: [
          {
            client_id: CLIENT_ID,
            client_secret: secret,
            client_name: "Cloakroom",
            redirect_uris: origins.map((origin) => `${origin}${path}/callback/${ID}`),
            response_types: ["code"],
            id_token_signed_response_alg: "ES256",
            backchannel_logout_uri: `${origins[0]}${path}/backchannel/${ID}`,
            backchannel_logout_session_required: true,
          },
        ],
        jwks: { keys: [key] },
        cookies: { keys: cookieKeys },
        claims: { openid: ["sub"], profile: ["name"], email: [] },
        conformIdTokenClaims: false,
        features: {
          devInteractions: { enabled: false },
          backchannelLogout: { enabled: true },
          rpInitiatedLogout: { enabled: true, logoutSource: askLogout, postLogoutSuccessSource: showLogout },
        },
        interactions: {
          url: (/** @type {unknown} */ _, /** @type {{ uid: string }} */ { uid }) => `/interaction/${uid}`,
        },
        findAccount: (/** @type {unknown} */ _, /** @type {string} */ id) => ({
          accountId: id,
          claims: () => ({ sub: id, name: names.get(id) ?? id }),
        }),
        /** Nobody is asked what the Worker may know: there is nothing but the name. @param {any} context */
        async loadExistingGrant({ oidc }) {
          const grant = new oidc.provider.Grant({
            clientId: oidc.client.clientId,
            accountId: oidc.session.accountId,
          });
          grant.addOIDCScope("openid email profile");
          await grant.save();
          return grant;
        },
        renderError(
          /** @type {any} */ context,
          /** @type {Record<string, string>} */ { error, error_description },
        ) {
          const why = error_description ?? error ?? "";
          answer(context, "This cannot be done", `<p>The request was wrong: ${escape(why)}.</p>`);
        },
        ttl: {
          AccessToken: 60,
          AuthorizationCode: 60,
          Grant: 86_400,
          IdToken: 60,
          Interaction: 600,
          Session: 86_400,
        },
        // Without its guard against addresses of the own network: the Worker has no other.
        fetch: (/** @type {string} */ url, /** @type {any} */ { dispatcher: _, ...options }) =>
          fetch(url, options),
      });
      provider = new Provider(issuer, configuration);
      // After a logout any page of the Worker's may be the next.
      provider.Client.prototype.postLogoutRedirectUriAllowed = (/** @type {string} */ url) =>
        URL.canParse(url) && origins.includes(new URL(url).origin);
    },
    async stop() {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    },
  };
}

const ABOUT = `<p>It belongs to <code>npm start -- --demo-provider</code>, and does what Google or GitHub do for a real site.
  Log in with it from the demo page.</p>
  <p><a href="/session/end">Log out here</a>: your session in Cloakroom ends with it.</p>`;

/**
 * The page where a user says who they are, and what they answer.
 *
 * @param {any} provider
 * @param {Map<string, string>} names
 * @param {IncomingMessage} request
 * @param {ServerResponse} response
 */
async function interact(provider, names, request, response) {
  const { session, prompt } = await provider.interactionDetails(request, response);
  if (request.method === "GET") {
    const known = names.get(session?.accountId) ?? "";
    return askName(response, known, known && prompt.name === "login" ? "Is it still you?" : "");
  }
  const form = new URLSearchParams(await body(request));
  const finish = (/** @type {object} */ result) =>
    provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
  if (form.get("do") !== "login")
    return finish({ error: "access_denied", error_description: "the user has cancelled" });
  const name = (form.get("name") ?? "")
    .normalize("NFC")
    .replace(/[\s\p{Cc}]+/gu, " ")
    .trim();
  if (!name) return askName(response, "", "A name is missing: any will do.");
  if ([...name].length > LONGEST_NAME)
    return askName(response, "", `A name has at most ${LONGEST_NAME} characters here.`);
  const accountId = name.toLowerCase().replaceAll(" ", "-");
  names.set(accountId, name);
  return finish({ login: { accountId, remember: false } });
}

/** The package. It warns of a Node that is older than those its makers test on; ours test it on that, too. */
async function loadProvider() {
  const { warn } = console;
  console.warn = () => {};
  try {
    // @ts-expect-error It comes without types.
    return (await import("oidc-provider")).default;
  } finally {
    console.warn = warn;
  }
}

/** @param {IncomingMessage} request */
async function body(request) {
  if (Number(request.headers["content-length"] ?? Infinity) > LONGEST_BODY) throw new Error("too long");
  return text(request);
}

/** @param {ServerResponse} response  @param {string} name  that is suggested  @param {string} said */
function askName(response, name, said) {
  const form = `
    <p>A demo, on this machine alone: whoever you say you are, you are. There is no password.</p>
    ${said ? `<p role="alert">${escape(said)}</p>` : ""}
    <form method="post">
      <label for="name">Your name</label>
      <input id="name" name="name" value="${escape(name)}" maxlength="${LONGEST_NAME}" autocomplete="off" autofocus />
      <p><button name="do" value="login">Log in</button> <button name="do" value="cancel">Cancel</button></p>
    </form>`;
  showPage(response, 200, "Demo provider", form);
}

/** @param {any} context  @param {string} form  that has to be on the page */
function askLogout(context, form) {
  const buttons = `
    <p>The demo provider knows you still: without a logout here, the next login asks for nothing. With one, your session
      in Cloakroom ends, too, if it has not already.</p>
    ${form}
    <p><button form="op.logoutForm" name="logout" value="yes" autofocus>Log out here too</button>
      <button form="op.logoutForm">Stay logged in</button></p>`;
  answer(context, "Log out of the demo provider?", buttons);
}

/** @param {any} context */
function showLogout(context) {
  answer(context, "Logged out", "<p>The demo provider does not know you any more.</p>");
}

/** @param {any} context of Koa  @param {string} title  @param {string} main  HTML */
function answer(context, title, main) {
  context.set(HEADERS);
  context.body = page(title, main);
}

/** @param {ServerResponse} response  @param {number} status  @param {string} title  @param {string} main  HTML */
function showPage(response, status, title, main) {
  response.writeHead(status, HEADERS).end(page(title, main));
}

const HEADERS = {
  "Content-Type": "text/html; charset=utf-8",
  "Cache-Control": "no-store",
  "Content-Security-Policy":
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
};

const STYLE = `
  :root { color-scheme: light dark; font: 1.1rem/1.5 system-ui, sans-serif; }
  body { max-width: 26rem; margin: 12vh auto; padding: 0 1rem; }
  label { display: block; }
  input, button { font: inherit; padding: 0.4rem 0.8rem; }
  input { box-sizing: border-box; width: 100%; }`;

/** @param {string} title  @param {string} main  HTML */
const page = (title, main) => `<!doctype html>
<html lang="en">
  <meta charset="utf-8" />
  <meta name="viewport" content="width=device-width, initial-scale=1" />
  <title>${title}</title>
  <style>${STYLE}</style>
  <main>
    <h1>${title}</h1>
    ${main}
  </main>
</html>
`;

/** @param {string} text */
const escape = (text) => text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

const random = () => randomBytes(32).toString("base64url");
