/**
 * The recipes in docs/forward-auth.md with TLS to the Worker: whoever answers in its place must not be believed. With nginx
 * and Caddy, who end it for visitors themselves, also with TLS to them.
 */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { missingProxy } from "../tools/proxies.mjs";
import { capture } from "../tools/say.mjs";
import { findHere, startApplication, startProxy, startWitness } from "./support/proxies.mjs";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startBoth } from "./support/worker.mjs";

/** What each answers when the Worker is not who it should be. */
const PROXIES = { nginx: 503, caddy: 502, traefik: 500, envoy: 503 };
const ADMIN_TOKEN = randomSecret();
/** Those whose recipe shows a certificate to visitors, or does with one more line. */
const SHOWN = ["nginx", "caddy"];
const hasOpenssl = (await capture("openssl", ["version"])).code === 0;

let folder = "";
/** @type {Awaited<ReturnType<typeof startBoth>>} */
let both;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), "cloakroom-tls-"));
  both = await startBoth({ secrets: { ADMIN_TOKEN } });
});
after(async () => {
  await both?.stop();
  await rm(folder, { recursive: true, force: true });
});

/** A self-signed certificate. @param {string} file @param {string} name of the host */
async function certificate(file, name) {
  const [key, cert] = ["key", "pem"].map((ending) => join(folder, `${file}.${ending}`));
  const made = await capture("openssl", [
    ..."req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split(" "),
    ...["-subj", `/CN=${name}`, "-addext", `subjectAltName=DNS:${name}`, "-keyout", key, "-out", cert],
  ]);
  assert.equal(made.code, 0, "openssl makes a certificate");
  return { key: await readFile(key), cert: await readFile(cert) };
}

for (const [name, refused] of Object.entries(PROXIES)) {
  const proxy = /** @type {keyof typeof PROXIES} */ (name);
  const binary = await findHere(proxy);
  const skip = !binary ? missingProxy(proxy) : !hasOpenssl && "No openssl found: install openssl.";

  test(`${name} believes the Worker, and nobody else who says yes`, { skip }, async () => {
    const own = await certificate(`${name}-own`, "localhost");
    const ofAnother = await certificate(`${name}-another`, "elsewhere.example");
    const selfMade = await certificate(`${name}-self`, "localhost");
    const trusted = join(folder, `${name}-trusted.pem`);
    await writeFile(trusted, Buffer.concat([own.cert, ofAnother.cert]));

    const application = await startApplication();
    const witness = await startWitness(both.worker.url, own);
    const cloakroom = `https://localhost:${witness.port}`;
    const [key, cert] = ["key", "pem"].map((ending) => join(folder, `${name}-own.${ending}`));
    const shown = SHOWN.includes(name) ? { key: String(key), cert: String(cert) } : undefined;
    const addresses = { application: application.port, cloakroom, trusted, shown };
    /** @type {Awaited<ReturnType<typeof startProxy>> | undefined} */
    let started;
    try {
      started = await startProxy(proxy, String(binary), addresses);
      const operator = { Authorization: `Bearer ${ADMIN_TOKEN}` };
      const made = await both.worker
        .visitor()
        .tell("POST", "/admin/sessions", { user: { id: "u1" } }, operator);
      const visitor = new Visitor(started.url, own.cert);
      visitor.accept(made.json.set_cookie);
      assert.equal((await visitor.look()).json.session.user.id, "u1", "the Worker's routes are the proxy's");
      assert.equal(started.url.startsWith("https:"), shown !== undefined);
      assert.equal((await visitor.send("GET", "/page")).text, "the application");
      assert.equal((await visitor.merge({ a: 1 })).status, 200);
      assert.equal((await new Visitor(started.url, own.cert).send("GET", "/page")).status, 401);

      witness.behaviour.answer = 200; // to everything, and with a name
      for (const impostor of [ofAnother, selfMade]) {
        witness.showCertificate(impostor);
        application.reached.length = witness.asked.length = 0;
        const answer = await visitor.send("GET", "/page");
        assert.deepEqual([answer.status, application.reached, witness.asked], [refused, [], []]);
        assert.ok((await visitor.send("GET", "/auth/session")).status >= 500, "nor does it get the cookie");
        assert.deepEqual(witness.asked, []);
      }
    } finally {
      await started?.stop();
      witness.stop();
      application.stop();
    }
  });
}
