/** What an operator has at hand beside `npm start`: `npm run inspect` for the Worker, `npm run redis` for its store. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { freePort } from "../tools/port.mjs";
import { READY, root, start, temp } from "./support/start.mjs";
import { Visitor } from "./support/visitor.mjs";

describe("beside npm start", () => {
  /** @type {import("./support/start.mjs").Start} */
  let demo;
  /** @type {Visitor} */
  let visitor;
  let state = "";
  let vars = "";
  before(async () => {
    [state, vars] = [join(temp, "state"), join(temp, "vars")];
    const port = await freePort();
    demo = await start({ port, state, vars });
    await demo.until(READY);
    visitor = new Visitor(`http://localhost:${port}`);
    assert.equal((await visitor.register("Ada", "correct horse")).status, 201);
  });
  after(() => demo.kill("SIGINT"));

  /**
   * Runs it in a shell without a deployment of its own.
   * @param {string} name
   * @param {string[]} args
   */
  async function npmRun(name, args, input = "") {
    const { CLOAKROOM_URL: _url, ADMIN_TOKEN: _token, ...env } = process.env;
    const child = spawn("npm", ["run", "-s", name, "--", ...args], { cwd: root, env });
    const said = { out: "", err: "" };
    child.stdout.setEncoding("utf8").on("data", (text) => (said.out += text));
    child.stderr.setEncoding("utf8").on("data", (text) => (said.err += text));
    child.stdin.on("error", () => {}); // it ended without reading
    child.stdin.end(input);
    const [code] = await once(child, "close");
    return { code: Number(code), ...said };
  }

  test("npm run inspect finds the Worker that runs, and its token", async () => {
    const places = ["--state", state, "--dev-vars", vars];
    const { handle } = await visitor.session();
    const found = await npmRun("inspect", ["name:ada", ...places]);
    assert.deepEqual([found.code, found.out.includes(handle)], [0, true], found.out + found.err);
    const cookie = await npmRun("inspect", ["cookie:-", "--json", ...places], visitor.ticket);
    assert.deepEqual([cookie.code, JSON.parse(cookie.out).handle], [0, handle], cookie.err);
  });

  test("npm run redis speaks to the store of the Worker that runs", async () => {
    const redis = async (/** @type {string[]} */ ...command) => {
      const { code, out, err } = await npmRun("redis", ["--state", state, ...command]);
      assert.equal(code, 0, err);
      return out.trimEnd().split("\n");
    };
    const { handle } = await visitor.session();
    const key = `sess:${handle}`;
    assert.ok((await redis("KEYS", "sess:*")).includes(key));
    assert.equal(JSON.parse((await redis("GET", key))[0]).user.name, "Ada");
    assert.ok(Number((await redis("TTL", key))[0]) > 0);
    assert.deepEqual(await redis("GET", "no such key"), ["(nil)"]);
    assert.deepEqual(await redis("SET", "a key", "--state * $HOME"), ["OK"]);
    assert.deepEqual(await redis("MGET", "a key", "b"), ["--state * $HOME", "(nil)"]);
  });

  test("npm run redis says what is wrong", async () => {
    for (const [args, says] of /** @type {[string[], RegExp][]} */ ([
      [[], /^Usage: /],
      [["--state", state], /^Usage: /],
      [["--state"], /^Usage: /],
      [["--state", join(temp, "nowhere"), "PING"], /^No local store runs in .*: npm start starts it/],
      [["--state", state, "NONSENSE"], /unknown command/],
      [["--state", state, "HGETALL", "a key"], /WRONGTYPE/],
    ])) {
      const { code, out, err } = await npmRun("redis", args);
      assert.deepEqual([code, out, says.test(err)], [1, "", true], err);
    }
  });

  test("when it has stopped, npm run redis says so", async () => {
    demo.kill("SIGINT");
    await demo.ended;
    const redis = await npmRun("redis", ["--state", state, "PING"]);
    assert.deepEqual([redis.code, /^No local store runs/.test(redis.err)], [1, true], redis.err);
  });
});
