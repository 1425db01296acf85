/** A deployment with wrong secrets or settings refuses every request, and its log says why. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  assertNoBody,
  assertProblem,
  contents,
  guest,
  ROUTES,
  secrets,
  start,
  store,
  Watched,
} from "./support/errors.mjs";
import { messagesOf } from "./support/log.mjs";
import { randomSecret, until } from "./support/worker.mjs";

describe("500", () => {
  /** @type {[string, { settings?: object, secrets?: Record<string, unknown> }, RegExp[]][]} */
  const misconfigurations = [
    ["no secrets at all", withSecrets({ SESSION_SECRET: undefined }), [/SESSION_SECRET is missing/]],
    ["a short secret", withSecrets({ SESSION_SECRET: "Kq7-too-short-3" }), [/SESSION_SECRET has 15 char/]],
    [
      "a placeholder among the secrets",
      withSecrets({ SESSION_SECRET: `${randomSecret()},change-me-change-me-change-me-change-me` }),
      [/SESSION_SECRET looks like a placeholder/],
    ],
    ["a short admin token", withSecrets({ ADMIN_TOKEN: "Zr5-opensesame" }), [/ADMIN_TOKEN has 14 char/]],
    ["an empty admin token", withSecrets({ ADMIN_TOKEN: "" }), [/ADMIN_TOKEN is missing/]],
    [
      "no store",
      withSecrets({ UPSTASH_REDIS_REST_URL: undefined, UPSTASH_REDIS_REST_TOKEN: "" }),
      [/UPSTASH_REDIS_REST_URL is missing/, /UPSTASH_REDIS_REST_TOKEN is missing/],
    ],
    [
      "many wrong settings",
      {
        settings: {
          base_path: "auth/",
          sesion: {},
          cookie: { same_site: "None", secure: false, format: "php", colour: "red" },
          session: { idle: "soon", max_bytes: "many" },
          limits: { session: "300" },
          cors: { origins: ["*"] },
          store: { on_failure: "shrug" },
        },
      },
      [
        /CLOAKROOM\.base_path: /,
        /CLOAKROOM\.sesion is not known; known here: base_path, key_prefix, cookie, session, limits/,
        /CLOAKROOM\.cookie\.same_site: /,
        /CLOAKROOM\.cookie\.name: /,
        /CLOAKROOM\.cookie\.format: /,
        /CLOAKROOM\.cookie\.colour is not known/,
        /CLOAKROOM\.session\.idle: /,
        /CLOAKROOM\.session\.max_bytes: /,
        /CLOAKROOM\.limits\.session: /,
        /CLOAKROOM\.cors\.origins: /,
        /CLOAKROOM\.store\.on_failure: /,
      ],
    ],
    ["no table", { settings: /** @type {any} */ ("{") }, [/CLOAKROOM is a table/]],
  ];
  for (const [name, options, faults] of misconfigurations) {
    test(`${name}: every request is answered the same, and the log says what to change`, async () => {
      const broken = await start(options);
      if (typeof broken.secret === "string") for (const text of broken.secret.split(",")) secrets.add(text);
      const visitor = new Watched(broken.url);
      visitor.ticket = (await guest()).ticket;
      const before = await contents();
      const { calls } = await store.counters.during(async () => {
        for (const { path, methods } of [...ROUTES, { path: "/elsewhere", methods: ["GET"] }]) {
          for (const method of methods) {
            const answer = await visitor.send(method, path);
            assert.equal(answer.status, 500);
            assert.deepEqual(answer.setCookies, []);
            if (method === "HEAD") {
              assertNoBody(answer);
              continue;
            }
            assertProblem(answer, 500, "misconfigured");
            assert.doesNotMatch(
              answer.text,
              /CLOAKROOM|SECRET|TOKEN|UPSTASH|base_path|cookie|placeholder|short/i,
            );
          }
        }
      });
      assert.equal(calls, 0);
      assert.deepEqual(await contents(), before);
      await until(() => faults.every((fault) => fault.test(messagesOf(broken))));
    });
  }
});

/** @param {Record<string, unknown>} values */
function withSecrets(values) {
  return { secrets: values };
}
