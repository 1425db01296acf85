/** Static files beside the gateway, and behind it: the recipes of docs/gateway.md. */
import assert from "node:assert/strict";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startDeployment } from "./support/worker.mjs";

const PASSWORD = "correct horse battery";

/** @type {import("node:http").Server} */
let server;
let origin = "";
let directory = "";

before(async () => {
  server = createServer((request, response) => response.end(`origin ${request.method} ${request.url}`));
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  origin = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  directory = await mkdtemp(join(tmpdir(), "cloakroom-assets-"));
  await mkdir(join(directory, "members"));
  for (const name of ["index", "login", "members/index", "members/paper"]) {
    await writeFile(join(directory, `${name}.html`), `the file ${name}`);
  }
});
after(async () => {
  server.closeAllConnections();
  server.close();
  await rm(directory, { recursive: true });
});

/** @param {object} gateway @param {object} assets */
const start = (gateway, assets) =>
  startDeployment([{ others: { assets: { directory, ...assets } } }], {
    settings: { cookie: { name: "sid", secure: false }, gateway },
  });

/** @param {import("./support/visitor.mjs").Visitor} visitor @param {string} path @param {Record<string, string>} [headers] */
const ask = async (visitor, path, headers = {}) => {
  const { status, text, headers: answered } = await visitor.send("GET", path, { headers });
  return [status, answered.get("location") ?? (status < 400 ? text : JSON.parse(text).code)];
};

/** The TOML blocks of a section of docs/gateway.md. @param {string} heading */
async function recipe(heading) {
  const text = await readFile(new URL("../docs/gateway.md", import.meta.url), "utf8");
  const section = text.split(/^##+ /m).find((part) => part.startsWith(heading)) ?? "";
  return section.match(/```toml\n([^]*?)```/)?.[1] ?? "";
}

test("files beside a gateway are served first, the rest is the origin's, under its rules", async () => {
  assert.match(await recipe("Files beside the origin"), /\[assets\]\ndirectory = "public"\n/);
  const both = await start(
    { origin, rules: [{ path: "/app*", require: "user", on_refused: "redirect:/login" }] },
    { routerConfig: { has_user_worker: true } },
  );
  try {
    const visitor = both.workers[0].visitor();
    const page = { "Sec-Fetch-Mode": "navigate" };
    assert.deepEqual(await ask(visitor, "/"), [200, "the file index"]);
    assert.deepEqual(await ask(visitor, "/login"), [200, "the file login"]);
    assert.deepEqual(await ask(visitor, "/app/x", page), [303, "/login?return_to=%2Fapp%2Fx"]);
    assert.deepEqual(await ask(visitor, "/app/x"), [401, "unauthenticated"]);
    assert.equal((await visitor.register("ada", PASSWORD)).status, 201);
    assert.deepEqual(await ask(visitor, "/app/x"), [200, "origin GET /app/x"]);
    assert.equal((await visitor.session()).user.name, "ada");
    // A file is served before any rule is looked at.
    assert.deepEqual(await ask(both.workers[0].visitor(), "/members/paper"), [200, "the file members/paper"]);
  } finally {
    await both.stop();
  }
});

test("static pages alone may stand behind rules, without any server", async () => {
  const toml = await recipe("Static pages behind rules");
  for (const line of ['binding = "ORIGIN"', "run_worker_first = true", 'origin = "binding"']) {
    assert.ok(toml.includes(line), line);
  }
  const rules = [{ path: "/members*", require: "user", on_refused: "redirect:/login" }];
  const both = await start(
    { origin: "binding", public: ["/login"], rules },
    {
      binding: "ORIGIN",
      routerConfig: { has_user_worker: true, invoke_user_worker_ahead_of_assets: true },
    },
  );
  try {
    const visitor = both.workers[0].visitor();
    assert.deepEqual(await ask(visitor, "/"), [200, "the file index"]);
    assert.deepEqual(await ask(visitor, "/login"), [200, "the file login"]);
    // However a page can be asked for.
    for (const path of [
      "/members",
      "/members/",
      "/members/index.html",
      "/members/paper",
      "/members/paper.html",
    ]) {
      assert.deepEqual(await ask(visitor, path), [401, "unauthenticated"], path);
    }
    for (const path of ["/%6dembers/paper", "//members/paper", "/x/..%2fmembers/paper"]) {
      assert.deepEqual(await ask(visitor, path), [400, "bad_request"], path);
    }
    const page = await ask(visitor, "/members/paper", { Accept: "text/html" });
    assert.deepEqual(page, [303, "/login?return_to=%2Fmembers%2Fpaper"]);
    assert.equal((await visitor.register("ada", PASSWORD)).status, 201);
    assert.deepEqual(await ask(visitor, "/members/"), [200, "the file members/index"]);
    assert.deepEqual(await ask(visitor, "/members/paper.html"), [307, "/members/paper"]);
    const paper = await visitor.send("GET", "/members/paper");
    assert.equal(paper.text, "the file members/paper");
    assert.doesNotMatch(String(paper.headers.get("cache-control")), /public(?!.*(private|must-revalidate))/);
    assert.equal((await visitor.send("GET", "/nothing")).status, 404);
    // What the browser has is asked for again, and refused once the visitor has left.
    const etag = { "If-None-Match": String(paper.headers.get("etag")) };
    assert.equal((await visitor.send("GET", "/members/paper", { headers: etag })).status, 304);
    await visitor.logout();
    assert.equal((await visitor.send("GET", "/members/paper", { headers: etag })).status, 401);
  } finally {
    await both.stop();
  }
});
