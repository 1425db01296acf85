/**
 * `npm start`: a Valkey, the application on it, and Cloakroom beside it. Enter restarts the application alone.
 *
 *   --port N, --worker-port N    of the application (3000) and of Cloakroom (8787)
 *   --state DIR                  where data and secrets are kept, instead of .local/express of the project
 *   --config FILE                the Worker's configuration, instead of wrangler.toml
 *
 * Where both are deployed there is no such script: the application has its REDIS_URL, the Worker the same database's
 * UPSTASH_REDIS_REST_URL.
 */
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs, parseEnv } from "node:util";
import { launch, ROOT, say, sentence, stopPrograms } from "../../tools/say.mjs";
import { ensureSetup } from "../../tools/setup.mjs";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const { values: options } = parseArgs({
  options: {
    port: { type: "string", default: "3000" },
    "worker-port": { type: "string", default: "8787" },
    state: { type: "string", default: join(ROOT, ".local/express") },
    config: { type: "string", default: here("wrangler.toml") },
  },
});
const state = resolve(options.state);
const secrets = join(state, "secrets");

/** What has to be undone in the end, in the order it was done. */
const undo = [];
let ending;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => void end(0));

try {
  await main();
} catch (error) {
  say(sentence(error));
  await end(1);
}

async function main() {
  // 1. What the machine lacks.
  await ensureSetup();
  const { startLocalStore } = await import("../../tools/local-store/index.mjs");
  const { startValkey } = await import("../../tools/valkey.mjs");

  // 2. One database: the application speaks to it in Redis' own protocol, the Worker over HTTP.
  await mkdir(state, { recursive: true, mode: 0o700 });
  const valkey = await startValkey({ dir: join(state, "data") });
  undo.push(() => valkey.stop());
  await writeFile(join(state, "socket"), valkey.socket);
  const store = await startLocalStore({ valkey });
  undo.push(() => store.stop());

  // 3. The Worker, which makes the secrets if there are none.
  const places = [
    "--config",
    resolve(options.config),
    "--dev-vars",
    secrets,
    "--state",
    join(state, "worker"),
  ];
  const worker = launch(process.execPath, ["tools/start.mjs", "--port", options["worker-port"], ...places], {
    env: { UPSTASH_REDIS_REST_URL: store.url, UPSTASH_REDIS_REST_TOKEN: store.token },
    capture: true,
  });
  await new Promise((ready, failed) => {
    for (const stream of [worker.stdout, worker.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        say(line);
        if (line.includes("Cloakroom is at")) ready();
      });
    }
    worker.exited.then(() => failed(new Error("Cloakroom could not be started: see above.")));
  });

  // 4. The application, again after each Enter.
  const { SESSION_SECRET } = parseEnv(await readFile(secrets, "utf8"));
  const startApp = () =>
    launch(process.execPath, [here("app.mjs")], {
      env: {
        PORT: options.port,
        REDIS_SOCKET: valkey.socket,
        SESSION_SECRET,
        CLOAKROOM: `http://localhost:${options["worker-port"]}`,
      },
    });
  let app = startApp();
  say("  The database:    npm run redis-cli -- KEYS 'sess:*'");
  say(`                   (or redis-cli -s ${valkey.socket})`);
  say("  Enter restarts the application alone, Ctrl-C stops all.\n");
  for await (const _ of createInterface({ input: process.stdin })) {
    say("Restarting the application …");
    await app.stop();
    app = startApp();
  }
  await worker.exited;
}

/** Ends everything once. */
function end(code) {
  ending ??= (async () => {
    await stopPrograms();
    for (const step of undo.reverse()) await step();
    process.exit(code);
  })();
  return ending;
}
