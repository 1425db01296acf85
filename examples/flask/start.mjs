/**
 * `node examples/flask/start.mjs`: a Valkey, the shop of app.py on it, and Cloakroom beside it. What they need is installed
 * first; sessions are kept when it stops. Enter restarts the shop alone.
 *
 *   --port N, --worker-port N    of the shop (8000) and of Cloakroom (8787)
 *   --state DIR                  where data and secrets are kept, instead of .local/flask of the project
 *   --config FILE                Cloakroom's configuration, instead of the wrangler.toml beside this file
 *
 * Where both are deployed there is no such script: the shop has its REDIS_URL, Cloakroom the same database's
 * UPSTASH_REDIS_REST_URL.
 */
import { mkdir, rm, symlink } from "node:fs/promises";
import { join, relative, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { launchFlask } from "../../tools/flask.mjs";
import { launch, ROOT, say, sentence, stopPrograms } from "../../tools/say.mjs";
import { ensureSetup } from "../../tools/setup.mjs";

const here = (/** @type {string} */ name) => fileURLToPath(new URL(name, import.meta.url));

/** What has to be undone in the end, in the order it was done. @type {(() => Promise<unknown>)[]} */
const undo = [];
/** @type {Promise<void> | undefined} */
let ending;
for (const signal of /** @type {const} */ (["SIGINT", "SIGTERM", "SIGHUP"]))
  process.on(signal, () => void end(0));

try {
  await main();
} catch (error) {
  console.error(sentence(error));
  await end(1);
}

async function main() {
  const { values: options } = parseArgs({
    options: {
      port: { type: "string", default: "8000" },
      "worker-port": { type: "string", default: "8787" },
      state: { type: "string", default: join(ROOT, ".local/flask") },
      config: { type: "string", default: here("wrangler.toml") },
    },
  });
  const state = resolve(options.state);

  // 1. What the machine lacks.
  await ensureSetup();
  const { startLocalStore } = await import("../../tools/local-store/index.mjs");
  const { startValkey } = await import("../../tools/valkey.mjs");

  // 2. One database: the shop speaks to it in Redis' own protocol, Cloakroom over HTTP.
  await mkdir(state, { recursive: true, mode: 0o700 });
  const valkey = await startValkey({ dir: join(state, "data"), log: say });
  undo.push(valkey.stop);
  const store = await startLocalStore({ valkey });
  undo.push(store.stop);
  const socket = join(state, "redis.sock");
  await rm(socket, { force: true });
  await symlink(valkey.socket, socket);
  undo.push(() => rm(socket, { force: true }));

  // 3. Cloakroom, as `npm start` runs it.
  const places = ["--config", resolve(options.config), "--dev-vars", join(state, "secrets")];
  places.push("--state", join(state, "cloakroom"), "--port", options["worker-port"]);
  const cloakroom = launch(process.execPath, [join(ROOT, "tools/start.mjs"), ...places], {
    env: { UPSTASH_REDIS_REST_URL: store.url, UPSTASH_REDIS_REST_TOKEN: store.token },
    capture: true,
  });
  await new Promise((ready, failed) => {
    for (const stream of [cloakroom.stdout, cloakroom.stderr]) {
      createInterface({ input: /** @type {import("node:stream").Readable} */ (stream) }).on(
        "line",
        (line) => {
          say(line);
          if (line.includes("Cloakroom is at")) ready(undefined);
        },
      );
    }
    void cloakroom.exited.then(() => failed(new Error("Cloakroom could not be started: see above.")));
  });
  void cloakroom.exited.then(end);

  // 4. The shop, again after each Enter.
  const startShop = () =>
    launchFlask(here("app.py"), {
      env: {
        REDIS_URL: `unix://${valkey.socket}`,
        PORT: options.port,
        CLOAKROOM_URL: `http://localhost:${options["worker-port"]}`,
      },
      log: say,
    });
  let shop = await startShop();
  const redis = `node tools/redis-cli.mjs ${relative(process.cwd(), socket)}`;
  say(`\n  The shop is at   http://localhost:${options.port}`);
  say(`  Its sessions:    ${redis} KEYS 'session:*'`);
  say(`  How long yet:    ${redis} TTL session:…`);
  say("  Enter restarts the shop alone, Ctrl-C stops all.\n");
  for await (const _ of createInterface({ input: process.stdin })) {
    say("Restarting the shop …");
    await shop.stop();
    shop = await startShop();
  }
  await cloakroom.exited; // there is no terminal
}

/** Ends everything once. @param {number} code */
function end(code) {
  ending ??= (async () => {
    await stopPrograms();
    for (const step of undo.reverse()) await step().catch((error) => console.error(sentence(error)));
    process.exit(code);
  })();
  return ending;
}
