/** `npm run encryption`: the real program against a real store and Worker; what it counts, and when a key can be dropped. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, test } from "node:test";
import { fileURLToPath } from "node:url";
import { encryptionKey } from "./support/encryption.mjs";
import { FAST_HASH, randomSecret, startDeployment } from "./support/worker.mjs";

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const ADMIN_TOKEN = randomSecret();
const [OLD, NEW] = [encryptionKey(), encryptionKey()];
const { store, workers, stop } = await startDeployment(
  [undefined, OLD, `${NEW},${OLD}`].map((SESSION_ENCRYPTION_KEY) => ({
    secrets: { SESSION_ENCRYPTION_KEY },
  })),
  { settings: { password: FAST_HASH }, secrets: { ADMIN_TOKEN, SESSION_SECRET: randomSecret() } },
);
after(stop);
const [without, old, turned] = workers;

/** @param {string[]} args @param {Record<string, string>} [env] */
async function run(args, env = {}) {
  const child = spawn(process.execPath, ["tools/encryption.mjs", "--dev-vars", "/dev/null", ...args], {
    cwd: ROOT,
    env: {
      ...process.env,
      CLOAKROOM_URL: turned.url,
      ADMIN_TOKEN,
      UPSTASH_REDIS_REST_URL: store.url,
      UPSTASH_REDIS_REST_TOKEN: store.token,
      SESSION_ENCRYPTION_KEY: `${NEW},${OLD}`,
      ...env,
    },
  });
  let said = "";
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text) => (said += text));
  const [code] = await once(child, "close");
  for (const secret of [OLD, NEW, ADMIN_TOKEN, store.token]) assert.ok(!said.includes(secret));
  return { code, said };
}

/** How many of a kind are under each key. @param {string} said @param {string} kind */
const countsOf = (said, kind) => JSON.parse(said).map((/** @type {any} */ row) => row.counts[kind] ?? 0);

test("it counts what is sealed under each key, has accounts sealed anew, and says when the old key can be dropped", async () => {
  const visitors = [];
  for (const [index, worker] of [without, old, old, turned].entries()) {
    const visitor = worker.visitor();
    assert.equal((await visitor.register(`Ada ${index}`, "correct horse")).status, 201);
    visitors.push(visitor);
  }
  // A redirect holds nothing to seal, and is none that is unsealed.
  assert.equal((await visitors[3].rotate()).status, 200);

  const first = await run(["--json"]);
  assert.equal(first.code, 1, first.said);
  assert.deepEqual(countsOf(first.said, "accounts"), [1, 2, 1]);
  assert.deepEqual(countsOf(first.said, "sessions"), [1, 2, 1]);
  const shown = await run([]);
  assert.match(shown.said, /^entry 1 \(.{8}\) seals\.$/m);
  assert.match(
    shown.said,
    /^entry 2 \(.{8}\) is still needed: .*accounts when they are next used, or with --reseal\.$/m,
  );
  assert.match(shown.said, /^What is unsealed is sealed anew/m);

  const resealed = await run(["--reseal", "--json"]);
  assert.deepEqual(countsOf(resealed.said, "accounts"), [4, 0, 0], resealed.said);
  assert.equal(resealed.code, 1, "sessions are left");
  for (const visitor of visitors) {
    const there = visitor.clone(turned.url);
    assert.equal((await there.increment("/n")).status, 200);
  }
  const last = await run([]);
  assert.equal(last.code, 0, last.said);
  assert.match(last.said, /^entry 2 \(.{8}\) can be dropped: nothing is sealed under it\.$/m);
  for (const [index, visitor] of visitors.entries()) {
    assert.equal((await visitor.clone(turned.url).session()).data.n, 1);
    assert.equal((await turned.visitor().login(`ADA ${index}`, "correct horse")).status, 200);
  }
});

test("it says what is sealed under a key that is not there, and how many are left when sealing is switched off", async () => {
  const dropped = await run([], { SESSION_ENCRYPTION_KEY: OLD });
  assert.equal(dropped.code, 1);
  assert.match(dropped.said, /^.{8} is no key of SESSION_ENCRYPTION_KEY here/m);
  const off = await run([], { SESSION_ENCRYPTION_KEY: `none,${NEW}` });
  assert.equal(off.code, 1);
  assert.match(off.said, /^entry 2 \(.{8}\) is still needed/m);
});

test("what cannot be done is said in a sentence, with an exit code", async () => {
  /** @type {[string[], Record<string, string>, number, RegExp][]} */
  const cases = [
    [["--help"], {}, 0, /Exit codes/],
    [["--colour"], {}, 2, /--colour/],
    [[], { SESSION_ENCRYPTION_KEY: "none,abc" }, 2, /holds what is no key/],
    [[], { UPSTASH_REDIS_REST_URL: "nowhere" }, 2, /is no URL/],
    [[], { UPSTASH_REDIS_REST_TOKEN: "another" }, 3, /The database answered 401/],
    [[], { UPSTASH_REDIS_REST_URL: "http://127.0.0.1:9" }, 3, /The database cannot be reached/],
  ];
  for (const [args, env, code, expected] of cases) {
    const ended = await run(args, env);
    assert.equal(ended.code, code, ended.said);
    assert.match(ended.said, expected);
    assert.ok(!/^ +at /m.test(ended.said), ended.said);
  }
});
