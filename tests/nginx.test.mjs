/** The recipe for nginx in docs/forward-auth.md, run by a real one. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { findNginx, NO_NGINX } from "../tools/nginx.mjs";
import { freePort } from "../tools/port.mjs";
import { launch } from "../tools/say.mjs";
import { Visitor } from "./support/visitor.mjs";
import { FAST_HASH, randomSecret, startBoth, until } from "./support/worker.mjs";

const nginx = await findNginx(console.error);

describe("nginx with auth_request", { skip: nginx ? false : NO_NGINX }, () => {
  const ADMIN_TOKEN = randomSecret();
  /** What has reached the application. @type {{ path: string | undefined, method: string | undefined, headers: import("node:http").IncomingHttpHeaders, body: string }[]} */
  const reached = [];
  const application = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    reached.push({ path: request.url, method: request.method, headers: request.headers, body });
    response.end("the application");
  });
  /** @type {Awaited<ReturnType<typeof startBoth>>} */
  let both;
  /** @type {ReturnType<typeof launch>} */
  let program;
  /** @type {string} */
  let folder;
  /** @type {string} */
  let url;

  before(async () => {
    both = await startBoth({ settings: { password: FAST_HASH }, secrets: { ADMIN_TOKEN } });
    application.listen(0, "127.0.0.1");
    await once(application, "listening");
    const { port } = /** @type {import("node:net").AddressInfo} */ (application.address());
    folder = await mkdtemp(join(tmpdir(), "cloakroom-nginx-"));
    const own = await freePort();
    url = `http://127.0.0.1:${own}`;
    const docs = await readFile(new URL("../docs/forward-auth.md", import.meta.url), "utf8");
    const recipe = docs
      .match(/```nginx\n(.*?)```/s)?.[1]
      ?.replaceAll("https://cloakroom.example.com", both.worker.url);
    assert.ok(recipe);
    await writeFile(
      join(folder, "nginx.conf"),
      `${process.getuid?.() === 0 ? "user root;" : ""} daemon off; pid nginx.pid; error_log stderr crit; worker_processes 1;
       events {}
       http {
         access_log off; client_body_temp_path body; proxy_temp_path proxy;
         fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
         server {
           listen 127.0.0.1:${own};
           ${recipe.replaceAll("127.0.0.1:3000", `127.0.0.1:${port}`)}
         }
       }`,
    );
    program = launch(String(nginx), ["-p", folder, "-c", "nginx.conf", "-e", "stderr"]);
    await until(() =>
      fetch(url).then(
        () => true,
        () => false,
      ),
    );
  });
  after(async () => {
    await program?.stop();
    application.close();
    await both?.stop();
    if (folder) await rm(folder, { recursive: true });
  });

  const SPOOFED = {
    "X-Session-User": "root",
    "X-Session-Name": "root",
    "X-Session-Roles": "admin",
    "X-Session-Handle": "x",
    "X-Session-Authenticated-At": "x",
  };

  /** A visitor of the proxy, registered through it. @param {string} name */
  async function user(name) {
    const visitor = new Visitor(url);
    const answer = await visitor.register(name, "correct horse");
    assert.equal(answer.status, 201, answer.text);
    return { visitor, id: answer.json.session.user.id };
  }

  test("lets nobody in who is not logged in, by any method and path", async () => {
    const anonymous = new Visitor(url);
    assert.equal((await anonymous.merge({ a: 1 })).status, 200, "the Worker's routes are the proxy's");
    reached.length = 0;
    for (const one of [new Visitor(url), anonymous]) {
      for (const method of ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"]) {
        for (const path of [
          "/page",
          "/page?role=x",
          "/admin/",
          "/%2e%2e/x",
          "/_user",
          "/_admin",
          "/x/../page",
        ]) {
          const { status } = await one.send(method, path, { headers: SPOOFED });
          assert.ok([401, 404].includes(status), `${method} ${path}: ${status}`);
        }
      }
    }
    assert.deepEqual(reached, []);
  });

  test("passes on who the user is, and nothing of what a visitor claims to be", async () => {
    const { visitor, id } = await user("Ada");
    reached.length = 0;
    const answer = await visitor.send("POST", "/page?x=1", {
      headers: { ...SPOOFED, Origin: "https://evil.example", "Sec-Fetch-Site": "cross-site" },
      body: "x".repeat(300_000),
    });
    assert.equal(answer.text, "the application");
    const [{ path, method, headers, body } = assert.fail("nothing has arrived")] = reached;
    assert.deepEqual([path, method, body.length], ["/page?x=1", "POST", 300_000]);
    const told = Object.entries(headers).filter(([name]) => name.startsWith("x-session-"));
    assert.deepEqual(told, [["x-session-user", id]]);
  });

  test("lets nobody near /admin/ without the role", async () => {
    const { visitor, id } = await user("Grace");
    for (const path of ["/admin/", "/admin/x?role=admin", "/x/../admin/y"]) {
      assert.equal((await visitor.send("GET", path, { headers: SPOOFED })).status, 403, path);
    }
    const operator = { Authorization: `Bearer ${ADMIN_TOKEN}` };
    const body = { roles: ["editor", "admin"] };
    const set = await both.worker.visitor().tell("PUT", `/admin/users/${id}/roles`, body, operator);
    assert.equal(set.status, 204, set.text);
    reached.length = 0;
    assert.equal((await visitor.send("GET", "/admin/")).text, "the application");
    assert.equal(reached[0]?.headers["x-session-roles"], "editor,admin");
    await visitor.logout();
    assert.equal((await visitor.send("GET", "/admin/")).status, 401);
  });

  test("does not take a failure of the store for a yes", async () => {
    const { visitor } = await user("Joan");
    reached.length = 0;
    both.store.faults.always("refuse");
    assert.equal((await visitor.send("GET", "/page")).status, 500);
    both.store.faults.clear();
    assert.deepEqual(reached, []);
  });
});
