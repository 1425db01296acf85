/** A Worker that leaves sessions to Cloakroom, which it calls through a service binding: no network is in between. */

/**
 * @typedef {object} Env
 * @property {{ fetch: typeof fetch }} CLOAKROOM
 * @property {string} ADMIN_TOKEN
 */

/** @type {Record<string, (request: Request, env: Env) => Promise<Response>>} */
const PAGES = {
  "GET /dashboard": dashboard,
  "GET /cart": cart,
  "POST /cart": addToCart,
  "POST /login": login,
  "POST /logout": async (request, env) =>
    passOn(await call(request, env, "/auth/session", { method: "DELETE" }), "Bye.\n"),
};

export default {
  /** @param {Request} request @param {Env} env */
  async fetch(request, env) {
    const { pathname } = new URL(request.url);
    // Cloakroom's own routes, on this origin: the request as it came, with body, origin and address. Those for
    // back ends stay inside.
    if (pathname.startsWith("/auth/") && !pathname.startsWith("/auth/admin/"))
      return env.CLOAKROOM.fetch(request);
    const page = PAGES[`${request.method} ${pathname}`];
    return page ? page(request, env) : new Response("There is no such page.\n", { status: 404 });
  },
};

/**
 * Calls Cloakroom for a visitor: with the cookie, and with what tells it where the request comes from (`Origin` and
 * `Sec-Fetch-Site`, by which it refuses the pages of other sites).
 *
 * @param {Request} request
 * @param {Env} env
 * @param {string} path
 * @param {{ method?: string, type?: string, body?: unknown, admin?: boolean }} [options]
 */
function call(request, env, path, { method = "GET", type = "application/json", body, admin = false } = {}) {
  const headers = new Headers();
  for (const name of [
    "Cookie",
    "Origin",
    "Sec-Fetch-Site",
    "Sec-Fetch-Mode",
    "User-Agent",
    "CF-Connecting-IP",
  ]) {
    const value = request.headers.get(name);
    if (value !== null) headers.set(name, value);
  }
  if (body !== undefined) headers.set("Content-Type", type);
  if (admin) headers.set("Authorization", `Bearer ${env.ADMIN_TOKEN}`);
  // The visitor's own host: `Origin` is compared with it.
  const text = body === undefined ? undefined : JSON.stringify(body);
  return env.CLOAKROOM.fetch(new URL(path, request.url), { method, headers, body: text });
}

/**
 * An answer of our own with all cookies that Cloakroom has set: each is a line by itself. Its refusals are passed on as
 * they are: 429 over a limit, 503 when the store fails, and neither means "logged out".
 *
 * @param {Response} answer
 * @param {string} text
 */
function passOn(answer, text) {
  if (!answer.ok) return answer;
  const headers = new Headers({ "Cache-Control": "private, no-store" });
  for (const line of answer.headers.getSetCookie()) headers.append("Set-Cookie", line);
  return new Response(text, { headers });
}

/** Who is there: the cheapest question, whose answer never sets a cookie. @param {Request} request @param {Env} env */
async function dashboard(request, env) {
  const answer = await call(request, env, "/auth/verify");
  if (answer.status === 401) return new Response("Log in first.\n", { status: 401 });
  return passOn(answer, `Hello, ${decodeURIComponent(answer.headers.get("X-Session-Name") ?? "")}.\n`);
}

/** The session's data. The id may be renewed by the way: its cookie goes on to the browser. @param {Request} request @param {Env} env */
async function cart(request, env) {
  const answer = await call(request, env, "/auth/session");
  const { session } = answer.ok ? await answer.clone().json() : { session: null };
  return passOn(answer, `${JSON.stringify(session?.data.cart ?? {})}\n`);
}

/** A change, of an anonymous session if there is none. No two changes overwrite each other. @param {Request} request @param {Env} env */
async function addToCart(request, env) {
  const item = new URL(request.url).searchParams.get("item") ?? "";
  if (!/^[a-z]{1,20}$/.test(item)) return new Response("Which item?\n", { status: 400 });
  const merge = { method: "PATCH", type: "application/merge-patch+json", body: { cart: { [item]: true } } };
  return passOn(await call(request, env, "/auth/session/data", merge), `Added: ${item}.\n`);
}

/** A session for a user whom this Worker has checked itself. @param {Request} request @param {Env} env */
async function login(request, env) {
  if (isFromAnotherSite(request)) return new Response("Log in on our own page.\n", { status: 403 });
  const form = await request.formData().catch(() => new FormData());
  const user = userOf(form.get("name"), form.get("password"));
  if (!user) return new Response("No such user, or another password.\n", { status: 401 });
  const made = await call(request, env, "/auth/admin/sessions", {
    method: "POST",
    body: { user },
    admin: true,
  });
  if (!made.ok) return new Response("Try again.\n", { status: 503 });
  const { set_cookie: lines } = await made.json();
  const headers = new Headers({ Location: "/dashboard", "Cache-Control": "no-store" });
  for (const line of lines) headers.append("Set-Cookie", line);
  return new Response(null, { status: 303, headers });
}

/** Your own: from your database, by your own rules. @param {unknown} name @param {unknown} password */
function userOf(name, password) {
  return name === "ada" && password === "coat check" ? { id: "42", name: "Ada", roles: ["editor"] } : null;
}

/** As Cloakroom sees it, which cannot see this form. @param {Request} request */
function isFromAnotherSite({ headers, url }) {
  const [site, origin] = [headers.get("Sec-Fetch-Site"), headers.get("Origin")];
  return site === null
    ? origin !== null && origin !== new URL(url).origin
    : !["same-origin", "none"].includes(site);
}
