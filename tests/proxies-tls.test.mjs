/**
 * The recipes in docs/forward-auth.md with TLS to the Worker: whoever answers in its place must not be believed. With nginx
 * and Caddy, who end it for visitors themselves, also with TLS to them.
 */
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import selfsigned from "selfsigned";
import { missingProxy } from "../tools/proxies.mjs";
import { findAllHere, startApplication, startProxy, startWitness } from "./support/proxies.mjs";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startBoth } from "./support/worker.mjs";

/** What each answers when the Worker is not who it should be. */
const PROXIES = { nginx: 503, caddy: 502, traefik: 500, envoy: 503 };
const ADMIN_TOKEN = randomSecret();
const binaries = await findAllHere();
/** Those whose recipe shows a certificate to visitors, or does with one more line. */
const SHOWN = ["nginx", "caddy"];

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

/** A self-signed certificate, by a library: not every machine's openssl has the settings it needs. @param {string} name of the host */
async function certificate(name) {
  const made = await selfsigned.generate([{ name: "commonName", value: name }], {
    keyType: "ec",
    algorithm: "sha256",
    extensions: [
      { name: "basicConstraints", cA: true },
      { name: "subjectAltName", altNames: [{ type: 2, value: name }] },
    ],
  });
  return { key: Buffer.from(`${made.private}\n`), cert: Buffer.from(`${made.cert}\n`) };
}

for (const [name, refused] of Object.entries(PROXIES)) {
  const proxy = /** @type {keyof typeof PROXIES} */ (name);
  const binary = binaries[proxy];
  const skip = !binary && missingProxy(proxy);

  test(`${name} believes the Worker, and nobody else who says yes`, { skip }, async () => {
    const own = await certificate("localhost");
    const ofAnother = await certificate("elsewhere.example");
    const selfMade = await certificate("localhost");
    const trusted = join(folder, `${name}-trusted.pem`);
    await writeFile(trusted, Buffer.concat([own.cert, ofAnother.cert]));
    const [key, cert] = ["key", "pem"].map((ending) => join(folder, `${name}-own.${ending}`));
    await writeFile(String(key), own.key);
    await writeFile(String(cert), own.cert);

    const application = await startApplication();
    const witness = await startWitness(both.worker.url, own);
    const cloakroom = `https://localhost:${witness.port}`;
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
