/** examples/service-binding as one Worker and Cloakroom as another, in one workerd. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { Log, LogLevel, Miniflare } from "miniflare";
import { ROOT } from "../../tools/say.mjs";
import { NO_LIMITS, randomSecret } from "./worker.mjs";

export { randomSecret };

/**
 * @param {import("./worker.mjs").LocalStore} store
 * @param {string} token  the admin token
 */
export async function startShop(store, token) {
  const file = (/** @type {string} */ path) => readFile(join(ROOT, path));
  const compatibilityDate = "2026-04-01";
  const miniflare = new Miniflare({
    log: new Log(LogLevel.NONE),
    handleRuntimeStdio: () => {},
    cf: false,
    workers: [
      {
        name: "shop",
        modules: [
          { type: "ESModule", path: "index.mjs", contents: await file("examples/service-binding/index.mjs") },
        ],
        compatibilityDate,
        bindings: { ADMIN_TOKEN: token },
        serviceBindings: { CLOAKROOM: "cloakroom" },
      },
      {
        name: "cloakroom",
        rootPath: ROOT,
        modulesRoot: ROOT,
        modules: [
          { type: "ESModule", path: "tests/support/entry.mjs" },
          { type: "ESModule", path: "tests/support/rigging.mjs" },
          { type: "ESModule", path: "build/index.js" },
          { type: "CompiledWasm", path: "build/cloakroom_bg.wasm" },
        ],
        compatibilityDate,
        bindings: {
          CLOAKROOM: { limits: NO_LIMITS },
          SESSION_SECRET: randomSecret(),
          UPSTASH_REDIS_REST_URL: store.url,
          UPSTASH_REDIS_REST_TOKEN: store.token,
          ADMIN_TOKEN: token,
        },
      },
    ],
  });
  const url = new URL(await miniflare.ready).origin;
  const cloakroom = /** @type {any} */ (await miniflare.getWorker("cloakroom")); // its types do not name `fetch` here
  return {
    url,
    token,
    /** Moves the clocks of Cloakroom and of its store. @param {number} milliseconds */
    async moveClock(milliseconds) {
      store.moveClock(milliseconds);
      await cloakroom.fetch(`${url}/test/clock?by=${milliseconds}`);
    },
    stop: () => miniflare.dispose(),
  };
}
