/** What a request costs beside a Flask application: calls to the store and billed commands, as docs/interop.md says. */
import assert from "node:assert/strict";
import { costsOf, settings } from "./support/costs.mjs";
import { startBeside } from "./support/flask-app.mjs";
import { randomSecret } from "./support/worker.mjs";

const ADMIN_TOKEN = randomSecret();

for (const [serializer, form] of /** @type {const} */ ([
  ["msgpack", "MessagePack"],
  ["json", "JSON"],
])) {
  costsOf(`Flask, with ${serializer}`, form, async (isLimited) => {
    const both = await startBeside({
      flask: { SESSION_SERIALIZATION_FORMAT: serializer, SESSION_USE_SIGNER: true, SECRET_KEY: "dev" },
      cookie: { user_pointer: "/user_id" },
      settings: settings(isLimited),
      secrets: { ADMIN_TOKEN },
    });
    return {
      store: both.store,
      worker: both.worker,
      admin: { Authorization: `Bearer ${ADMIN_TOKEN}` },
      async user() {
        const { app, edge } = both.visitor();
        await app.send("GET", "/");
        const headers = { "Content-Type": "application/json" };
        const { status } = await app.send("POST", "/login", { headers, body: '{"user_id":"ann"}' });
        assert.ok(status < 400);
        return edge;
      },
      stop: both.stop,
    };
  });
}
