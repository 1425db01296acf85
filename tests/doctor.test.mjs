/** `npm run doctor` from the command line: settings and secrets, exit codes, and what is printed. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { CONFIG, doctor, doctorJson, troublesOf } from "./support/doctor.mjs";
import { store } from "./support/local-store.mjs";
import { randomSecret } from "./support/worker.mjs";

const database = () => ({ UPSTASH_REDIS_REST_URL: store.url, UPSTASH_REDIS_REST_TOKEN: store.token });

describe("exit codes", () => {
  test("0: nothing failed, and nothing is left", async () => {
    const { code, output } = await doctor([], { env: database() });
    assert.equal(code, 0, output);
    assert.match(output, /✔ SET … NX PX writes only what is not there\n/);
    assert.match(output, /\n\d\d passed, 0 warned, 0 failed, \d+ skipped\n$/);
    assert.deepEqual(await store.redis.keys("*"), []);
  });

  test("0: a warning is no failure", async () => {
    store.faults.always({ rewrite: (answer) => ({ ...answer, syncToken: "" }) });
    const { code, output } = await doctor([], { env: database() });
    assert.equal(code, 0);
    assert.match(
      output,
      /! every answer has a sync token\n {6}found: there is none\n {6}so: With read regions/,
    );
  });

  test("0: a database on this machine can be tried", async () => {
    const { code, report } = await doctorJson(["--local"]);
    assert.deepEqual([code, report.ok], [0, true]);
  });

  test("1: something failed, and it says what follows", async () => {
    const error = "ERR syntax error";
    store.faults.always(
      { entry: 2, error },
      { when: ({ commands }) => commands.some(([name, , , word]) => name === "SET" && word === "IFEQ") },
    );
    const { code, output } = await doctor([], { env: database() });
    assert.equal(code, 1);
    assert.match(
      output,
      /✘ SET … IFEQ … PX replaces .*\n {6}found: SET .* replied the error "ERR syntax error"/,
    );
    assert.match(output, /so: Changes to sessions and accounts get lost/);
  });

  /** @type {[string, string[], Record<string, string>, RegExp][]} */
  const usages = [
    ["an option that there is not", ["--colour"], {}, /--colour/],
    ["nothing to check", [], {}, /There is nothing to check: set UPSTASH_REDIS_REST_URL/],
    ["one of two secrets", [], { UPSTASH_REDIS_REST_TOKEN: "x" }, /UPSTASH_REDIS_REST_URL is missing/],
    [
      "no URL",
      [],
      { UPSTASH_REDIS_REST_URL: "redis", UPSTASH_REDIS_REST_TOKEN: "x" },
      /is the REST URL of the data/,
    ],
    ["no URL of a deployment", ["--url", "cloakroom"], {}, /a deployment's URL is like https:/],
  ];
  for (const [name, options, env, message] of usages) {
    test(`2: ${name}`, async () => {
      const { code, output, errors } = await doctor(options, { env });
      assert.deepEqual([code, output], [2, ""]);
      assert.match(errors, message);
      assert.match(errors, /npm run doctor -- \[OPTION…\]/);
    });
  }

  test("3: a wrong token, and nothing else is tried", async () => {
    const { code, report, troubles } = await doctorJson([], {
      env: { ...database(), UPSTASH_REDIS_REST_TOKEN: "wrong-1" },
    });
    assert.equal(code, 3);
    assert.deepEqual(
      troubles.map(({ id }) => id),
      ["reach"],
    );
    assert.match(troubles[0]?.detail ?? "", /^status 401, "WRONGPASS/);
    assert.equal(store.counters.calls, 1);
    assert.equal(report.rows.find(({ id }) => id === "set-px")?.status, "skipped");
  });

  test("3: nothing answers", async () => {
    await store.stopListening();
    const { code, troubles } = await doctorJson([], { env: database() });
    await store.resumeListening();
    assert.deepEqual([code, troubles[0]?.detail], [3, "the connection was refused"]);
  });

  test("3: the deployment does not answer", async () => {
    const { code, troubles } = await doctorJson(["--url", store.url.replace(/\d+$/, "9")], {});
    assert.deepEqual([code, troubles[0]?.id], [3, "health"]);
  });

  test("0: help", async () => {
    const { code, output } = await doctor(["--help"]);
    assert.equal(code, 0);
    for (const word of ["--url", "--local", "--config", "--env", "--dev-vars", "--json", "Exit codes"]) {
      assert.ok(output.includes(word), word);
    }
  });
});

describe("settings and secrets", () => {
  const good = () =>
    Object.entries({
      ...database(),
      SESSION_SECRET: `${randomSecret()},${randomSecret()}`,
      ADMIN_TOKEN: randomSecret(),
    })
      .map(([name, value]) => `${name}=${value}\n`)
      .join("");

  test("are read from wrangler.toml and .dev.vars; of a secret only the length is shown", async () => {
    const vars = good();
    const { code, output, row } = await doctorJson([], {
      vars,
      config: `${CONFIG}[vars.CLOAKROOM]\nkey_prefix = "shop:"\n`,
    });
    assert.equal(code, 0, output);
    assert.equal(row("SESSION_SECRET")?.detail, "2 of 43, 43 characters, from .dev.vars");
    assert.equal(row("ADMIN_TOKEN")?.detail, "43 characters, from .dev.vars");
    assert.equal(row("UPSTASH_REDIS_REST_TOKEN")?.detail, "48 characters, from .dev.vars");
    assert.equal(row("settings")?.status, "passed");
    assert.match(output, /keys under shop:doctor:/);
    for (const secret of vars.split(/[=,\n]/).filter((text) => text.length > 40)) {
      assert.ok(!output.includes(secret) && !output.includes(secret.slice(0, 12)), "a secret is shown");
    }
  });

  test("a secret is not shown either when the database repeats it", async () => {
    store.faults.always({ status: 403, body: { error: `NOPERM ${store.token} may not` } });
    const { code, output } = await doctor([], { vars: good() });
    assert.equal(code, 3);
    assert.match(output, /NOPERM … may not/);
    assert.ok(!output.includes(store.token));
  });

  /** @type {[string, object, string, "failed" | "warned", RegExp][]} */
  const faults = [
    [
      "a setting that there is not",
      { config: `${CONFIG}[vars.CLOAKROOM.session]\nidel = "30m"\n` },
      ...row("settings", "failed", /^CLOAKROOM\.session\.idel is not known/),
    ],
    [
      "several of them",
      { config: `${CONFIG}[vars.CLOAKROOM]\nbase_path = "auth/"\n[vars.CLOAKROOM.cookie]\nsecure = false\n` },
      ...row("settings", "failed", /CLOAKROOM\.base_path: [^\n]+\n(.*\n)*CLOAKROOM\.cookie\.name: /),
    ],
    [
      "a table under another name",
      { config: `${CONFIG}[vars.CLOAKROM.session]\nidle = "30m"\n` },
      ...row("settings", "warned", /did you mean CLOAKROOM\?/),
    ],
    ["a file that is no TOML", { config: `${CONFIG}[vars` }, ...row("config", "failed", /./)],
    [
      "a secret in wrangler.toml",
      { config: `${CONFIG}[vars]\nADMIN_TOKEN = "${randomSecret()}"\n[vars.CLOAKROOM]\n` },
      ...row("secrets-in-config", "failed", /^ADMIN_TOKEN$/),
    ],
    [
      "a short secret",
      { append: "SESSION_SECRET=short\n" },
      ...row("SESSION_SECRET", "failed", /has 5 characters; at/),
    ],
    [
      "a placeholder",
      { append: `ADMIN_TOKEN=${"change-me".repeat(5)}\n` },
      ...row("ADMIN_TOKEN", "failed", /placeholder/),
    ],
    ["secrets that all can read", { mode: 0o644 }, ...row("dev-vars", "warned", /^others can read it$/)],
  ];
  for (const [name, where, id, status, detail] of faults) {
    test(`it notices ${name}`, async () => {
      const { append = "", ...rest } = /** @type {{ append?: string }} */ (where);
      const troubles = await troublesOf({ vars: good() + append, ...rest });
      assert.deepEqual(
        troubles.map((trouble) => [trouble.id, trouble.status]),
        [[id, status]],
        JSON.stringify(troubles),
      );
      assert.match(troubles[0]?.detail ?? "", detail);
    });
  }

  /** @param {string} id @param {"failed" | "warned"} status @param {RegExp} detail @returns {[string, "failed" | "warned", RegExp]} */
  function row(id, status, detail) {
    return [id, status, detail];
  }
});
