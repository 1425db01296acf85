/** `npm run doctor` on a database: the local store passes every row, and each thing that a store does otherwise fails its own. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { Database } from "../tools/doctor/database.mjs";
import { checkDatabase } from "../tools/doctor/rows.mjs";
import { BROKEN } from "./support/broken-stores.mjs";
import { store } from "./support/local-store.mjs";

/** @typedef {import("../tools/doctor/rows.mjs").Result} Result */

/** Without them nothing else is looked at. */
const GATES = ["reach", "write"];
/** What is noticed, but keeps nobody from using the store. */
const WARNINGS = /^(error-(?!request$x)|path$|set-ifeq-get$|hexpire$|sync-token$|latency-)|^eval-kept$/;

async function check() {
  const database = new Database({ url: store.url, token: store.token, timeout: 2000, keyPrefix: "shop:" });
  /** @type {Result[]} */
  const results = [];
  await checkDatabase(database, (result) => results.push(result));
  return { results, left: await database.close() };
}

/** @param {Result[]} results */
const troubles = (results) => results.filter(({ status }) => status === "failed" || status === "warned");

test("the local store passes every row, and nothing is left in it", async () => {
  await store.redis.set("shop:sess:somebody", "stays");
  const { results, left } = await check();
  assert.deepEqual(troubles(results), []);
  assert.ok(results.every(({ status }) => status === "passed"));
  assert.equal(left, undefined);
  assert.deepEqual(await store.redis.keys("*"), ["shop:sess:somebody"]);
});

test("so does a store whose replicas are behind", async () => {
  store.faults.lag = [0, 40, 60];
  const { results, left } = await check();
  assert.deepEqual(troubles(results), []);
  assert.equal(left, undefined);
});

test("every key is below the operator's prefix and a random one, and all that are left would expire", async () => {
  /** @type {Set<string>} */
  const keys = new Set();
  store.faults.always(
    {},
    {
      when: ({ commands }) => {
        for (const [name = "", ...rest] of commands) {
          if (name === "SET") keys.add(rest[0] ?? "");
          assert.ok(name !== "FLUSHDB" && name !== "KEYS" && name !== "SCAN", name);
        }
        return false;
      },
    },
  );
  await check();
  await check();
  const prefixes = new Set([...keys].map((key) => /^shop:doctor:[0-9a-f]{16}:/.exec(key)?.[0]));
  assert.equal(prefixes.size, 2);
  assert.ok(!prefixes.has(undefined));
});

describe("a store that does one thing otherwise fails just the row of that", () => {
  test("there is such a store for every row", async () => {
    const { results } = await check();
    assert.deepEqual(Object.keys(BROKEN).sort(), results.map(({ id }) => id).sort());
  });

  for (const [row, { fault, when, lag = 0 }] of Object.entries(BROKEN)) {
    test(row, async () => {
      store.faults.lag = lag;
      if (fault) store.faults.always(fault, { when });
      const { results } = await check();
      const expected = WARNINGS.test(row) ? "warned" : "failed";
      const found = troubles(results).map(({ id, status, detail }) => ({ id, status, detail }));
      assert.deepEqual(
        found.map(({ id, status }) => ({ id, status })),
        [{ id: row, status: expected }],
        JSON.stringify(found, null, 1),
      );
      const [trouble] = troubles(results);
      assert.ok(trouble?.detail && trouble.otherwise, "what was found, and what follows");
      const others = results.filter(({ status }) => status === "skipped");
      assert.equal(others.length > 0, GATES.includes(row));
    });
  }
});

describe("nothing is missing", () => {
  /** A command by its name and its words in capitals. @param {string[]} words */
  const form = (words) => words.filter((word) => /^[A-Z]{2,}$/.test(word)).join(" ");

  /** What was sent while everything was checked. */
  async function sent() {
    /** @type {Set<string>} */
    const forms = new Set();
    /** @type {Set<string>} */
    const inScripts = new Set();
    store.faults.always(
      {},
      {
        when: ({ commands }) => {
          for (const command of commands) {
            forms.add(form(command));
            if (command[0] === "EVAL") callsIn(command[1] ?? "").forEach((call) => inScripts.add(call));
          }
          return false;
        },
      },
    );
    await check();
    return { forms, inScripts };
  }

  /** What a script calls. @param {string} script */
  function callsIn(script) {
    const calls = [...script.matchAll(/redis\.call\((.*?)\)(?=$|[\s)])/gm)];
    return calls.map(([, args = ""]) => form([...args.matchAll(/'([A-Z]+)'/g)].map(([, word = ""]) => word)));
  }

  /** @param {string} path */
  const source = (path) =>
    readFileSync(new URL(`../${path}`, import.meta.url), "utf8").split("#[cfg(test)]")[0] ?? "";

  test("every command that the store client can send is sent by a row", async () => {
    const commands = source("src/store/batch.rs").matchAll(/\[\s*"([A-Z]+)"[^\]]*\]/g);
    const needed = [...commands].map(([text]) =>
      form([...text.matchAll(/"(\w+)"/g)].map(([, word = ""]) => word)),
    );
    assert.ok(needed.length >= 28, `${needed.length} found`);
    const { forms } = await sent();
    assert.deepEqual(
      needed.filter((one) => !forms.has(one)),
      [],
    );
  });

  test("every command that a script of ours calls is called by a row's", async () => {
    const files = [
      "src/account/links.rs",
      "src/limit/script.rs",
      "src/session/exchange.rs",
      "src/session/foreign/scripts.rs",
      "src/session/take_over.rs",
    ];
    const needed = files.flatMap((path) => callsIn(source(path)));
    assert.ok(needed.length > 20, `${needed.length} found`);
    const { inScripts } = await sent();
    assert.deepEqual(
      needed.filter((one) => !inScripts.has(one)),
      [],
    );
  });

  test("no other part of the crate makes commands or scripts", async () => {
    const { readdirSync } = await import("node:fs");
    const root = new URL("../src/", import.meta.url);
    const others = readdirSync(root, { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".rs") && !/^store\/|tests\.rs$/.test(path))
      .filter((path) => /redis\.call\(|\["(SET|MGET|EVAL|GETEX|DEL)"/.test(source(`src/${path}`)));
    assert.deepEqual(others.sort(), [
      "account/links.rs",
      "limit/script.rs",
      "session/exchange.rs",
      "session/foreign/scripts.rs",
      "session/take_over.rs",
    ]);
  });
});
