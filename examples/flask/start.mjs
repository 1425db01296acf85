/**
 * `node examples/flask/start.mjs`: the shop of app.py at http://localhost:8000, and Cloakroom at http://localhost:8787, on
 * one Redis. What they need is installed first; sessions are kept when it stops.
 *
 *   --state DIR      where data, secrets and the socket of Redis are kept, instead of .local/flask
 *   --config FILE    Cloakroom's configuration, instead of the wrangler.toml beside this file
 *   SHOP_PORT=8001 PORT=8788 node examples/flask/start.mjs      other ports; cors.origins must name the shop's
 */
import { mkdir, rm, symlink } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { launchFlask } from "../../tools/flask.mjs";
import { launch, ROOT, say, sentence, stopPrograms } from "../../tools/say.mjs";
import { installPackages, installValkey } from "../../tools/setup.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
const { SHOP_PORT = "8000", PORT = "8787" } = process.env;

/** @type {(() => Promise<unknown>)[]} What has to be undone in the end. */
const undo = [];
/** @type {Promise<void> | undefined} */
let ending;

/** @param {number} code */
function end(code) {
  ending ??= (async () => {
    await stopPrograms();
    for (const step of undo.reverse()) await step();
    process.exit(code);
  })();
  return ending;
}
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"]))
  process.on(signal, () => void end(0));

try {
  const { values } = parseArgs({ options: { state: { type: "string" }, config: { type: "string" } } });
  await main(
    resolve(values.state ?? join(ROOT, ".local/flask")),
    resolve(values.config ?? join(HERE, "wrangler.toml")),
  );
} catch (error) {
  console.error(sentence(error));
  await end(1);
}

/** @param {string} state @param {string} config */
async function main(state, config) {
  // 1. The database, and the local store, which speaks Upstash's REST to Cloakroom in front of it.
  await installPackages();
  await installValkey();
  const { startValkey } = await import("../../tools/valkey.mjs");
  const { startLocalStore } = await import("../../tools/local-store/index.mjs");
  await mkdir(state, { recursive: true });
  const valkey = await startValkey({ dir: join(state, "data"), log: say });
  undo.push(valkey.stop);
  const store = await startLocalStore({ valkey });
  undo.push(store.stop);
  const socket = join(state, "redis.sock");
  await rm(socket, { force: true });
  await symlink(valkey.socket, socket);
  undo.push(() => rm(socket, { force: true }));

  // 2. The shop, which talks to the database itself.
  const shop = await launchFlask(join(HERE, "app.py"), {
    env: { REDIS_URL: `unix://${valkey.socket}`, PORT: SHOP_PORT, CLOAKROOM_URL: `http://localhost:${PORT}` },
    log: say,
  });
  const redis = `node tools/redis-cli.mjs ${relative(process.cwd(), socket)}`;
  say(`\n  The shop is at   http://localhost:${SHOP_PORT}`);
  say(`  Its sessions:    ${redis} KEYS 'session:*'`);
  say(`  How long yet:    ${redis} TTL session:…\n`);

  // 3. Cloakroom, as `npm start` runs it, but on this database.
  const options = [
    "--config",
    config,
    "--state",
    join(state, "cloakroom"),
    "--dev-vars",
    join(state, "secrets"),
  ];
  const cloakroom = launch(process.execPath, [join(ROOT, "tools/start.mjs"), ...options], {
    env: { PORT, UPSTASH_REDIS_REST_URL: store.url, UPSTASH_REDIS_REST_TOKEN: store.token },
  });
  await end(await Promise.race([shop.exited, cloakroom.exited]));
}
