/** `npm run inspect`: the real program against a real Worker; what it shows, what it refuses, how it ends. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, beforeEach, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { columns, printable, printableJson } from "../tools/table.mjs";
import { FAST_HASH, NO_LIMITS, randomSecret, startDeployment, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/worker.mjs").Worker} Worker */
/** @typedef {{ code: number, out: string, err: string }} Ended */

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const ADMIN_TOKEN = randomSecret();
const admin = { Authorization: `Bearer ${ADMIN_TOKEN}` };
const NAME = "__Host-session";
/** What a visitor may call their browser: it would clear an operator's terminal, and write the line anew. */
const EVIL = "Browser \u009b2J";

const settings = { password: FAST_HASH, limits: NO_LIMITS };
const deployment = await startDeployment([{}], { settings, secrets: { ADMIN_TOKEN } });
const { store } = deployment;
const [worker] = deployment.workers;
const folder = await mkdtemp(join(tmpdir(), "cloakroom-inspect-"));
after(async () => {
  await deployment.stop();
  await rm(folder, { recursive: true });
});
beforeEach(() => store.faults.clear());

/**
 * Runs it as `npm run inspect` does.
 * @param {string[]} args
 * @param {{ input?: string, env?: Record<string, string | undefined>, script?: string[] }} [options]
 * @returns {Promise<Ended>}
 */
async function run(args, { input = "", env = {}, script = [process.execPath, "tools/inspect.mjs"] } = {}) {
  const [program, ...first] = script;
  const child = spawn(program, [...first, ...args], {
    cwd: ROOT,
    env: { ...process.env, CLOAKROOM_URL: worker.url, ADMIN_TOKEN, ...env },
  });
  const said = { out: "", err: "" };
  child.stdout.setEncoding("utf8").on("data", (text) => (said.out += text));
  child.stderr.setEncoding("utf8").on("data", (text) => (said.err += text));
  child.stdin.on("error", () => {}); // it ended without reading
  child.stdin.end(input);
  const [code] = await once(child, "close");
  for (const text of [said.out, said.err])
    assert.ok(!text.includes(ADMIN_TOKEN) && !/^ +at /m.test(text), text);
  return { code, ...said };
}

/** The same with --json. @param {string[]} args @param {Parameters<typeof run>[1]} [options] */
async function runJson(args, options) {
  const ended = await run([...args, "--json"], options);
  return { ...ended, json: JSON.parse(ended.out) };
}

let count = 0;
/** A user with an account, who is logged in. */
async function owner() {
  const [visitor, name] = [worker.visitor(), `ada ${(count += 1)}`];
  const answer = await visitor.register(name, "correct horse", { "User-Agent": "Firefox/145" });
  assert.equal(answer.status, 201, answer.text);
  await visitor.merge({ cart: ["tea"] });
  return { visitor, name, session: answer.json.session };
}

/** Someone whom a back end has logged in. @param {object} user @param {object} [client] */
async function guestOf(user, client) {
  const answer = await worker.visitor().tell("POST", "/admin/sessions", { user, client }, admin);
  assert.equal(answer.status, 201, answer.text);
  const visitor = worker.visitor();
  visitor.accept(answer.json.set_cookie);
  return { visitor, session: answer.json.session };
}

describe("handle:", () => {
  test("shows a session, for people and as the service API answers", async () => {
    const { name, session } = await owner();
    const { code, out } = await run([`handle:${session.handle}`]);
    assert.equal(code, 0, out);
    assert.match(out, new RegExp(`^session +${session.handle}$`, "m"));
    assert.match(out, new RegExp(`^user +${session.user.id} \\(${name}\\)$`, "m"));
    assert.match(out, /^ends +\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \(in (23 h|1 d)\)$/m);
    assert.match(out, /^stored +\d+ bytes, for \d+ s more$/m);
    assert.match(out, /^data +\{"cart":\["tea"\]\}$/m);
    const { json } = await runJson([`handle:${session.handle}`]);
    assert.deepEqual(json.session.data, { cart: ["tea"] });
  });

  test("of a session that has ended is 1", async () => {
    const { visitor, session } = await owner();
    await visitor.logout();
    const { code, out } = await run([`handle:${session.handle}`]);
    assert.deepEqual([code, /There is no session with this handle/.test(out)], [1, true]);
    assert.deepEqual((await runJson([`handle:${session.handle}`])).json, null);
  });
});

describe("cookie:", () => {
  test("is read from standard input, in the form in which it was copied", async () => {
    const { visitor } = await owner();
    const { handle } = await visitor.session();
    const { ticket } = visitor;
    for (const input of [
      ticket,
      `"${ticket}"\n`,
      `${NAME}=${ticket}`,
      `Cookie: theme=dark; ${NAME}=${ticket}`,
      `set-cookie: ${NAME}=${ticket}; Path=/; HttpOnly`,
      `Authorization: Bearer ${ticket}`,
      // What `curl -i` prints, and what `curl -c` writes.
      `HTTP/1.1 200 OK\r\nVary: Cookie\r\nSet-Cookie: ${NAME}-sync=x; Path=/\r\nSet-Cookie: ${NAME}=${ticket}; Path=/\r\n\r\n{}`,
      `# Netscape HTTP Cookie File\n\n#HttpOnly_localhost\tFALSE\t/\tTRUE\t0\t${NAME}-device\tx\n#HttpOnly_localhost\tFALSE\t/\tTRUE\t0\t${NAME}\t${ticket}\n`,
    ]) {
      const { code, out } = await run(["cookie:-"], { input });
      assert.equal(code, 0, out);
      assert.match(out, /^cookie +alive$/m);
      assert.match(out, new RegExp(`^session +${handle}$`, "m"));
      assert.ok(!out.includes(String(ticket)));
    }
    const { json } = await runJson(["cookie:-"], { input: ticket });
    assert.deepEqual([json.alive, json.handle, json.reason], [true, handle, null]);
  });

  test("that is dead is 1, with the reason in words", async () => {
    const { visitor } = await owner();
    const { ticket } = visitor;
    await visitor.logout();
    const dead = await run(["cookie:-"], { input: ticket });
    assert.deepEqual(
      [dead.code, /^cookie +dead \(ended\)\nbecause +it has ended/m.test(dead.out)],
      [1, true],
    );
    const { code, json } = await runJson(["cookie:-"], { input: "x" });
    assert.deepEqual([code, json.alive, json.reason], [1, false, "forged"]);
  });

  test("on the command line is refused, without a word of it and without sending it", async () => {
    const { visitor } = await owner();
    for (const what of [
      `cookie:${visitor.ticket}`,
      `cookie:${NAME}=${visitor.ticket}`,
      `handle:${visitor.ticket}`,
    ]) {
      const { value, calls } = await store.counters.during(() => run([what]));
      assert.deepEqual([value.code, value.out, calls], [2, "", 0]);
      assert.match(value.err, /standard input/);
      assert.ok(!value.err.includes(String(visitor.ticket)));
    }
    assert.match((await run(["cookie:x"])).err, /list of processes/);
  });

  test("that is none, empty or far too long is wrong usage", async () => {
    for (const input of ["", " \n", "theme=dark; lang=en", "x".repeat(300_000)]) {
      const { code, err } = await run(["cookie:-"], { input });
      assert.deepEqual([code, /cookie/.test(err)], [2, true], err);
    }
  });
});

describe("user: and name:", () => {
  test("show an account, and its sessions in a table", async () => {
    const { name, session } = await owner();
    for (const what of [`user:${session.user.id}`, `name:${name.toUpperCase()}`]) {
      const { code, out } = await run([what]);
      assert.equal(code, 0, out);
      assert.match(out, new RegExp(`^name +${name}$`, "m"));
      assert.match(out, /^account +enabled$/m);
      assert.match(out, /^handle +began +last seen +remember +address +browser$/m);
      assert.match(out, new RegExp(`^${session.handle}  .* no +\\S+ +Firefox/145$`, "m"));
    }
    const { json } = await runJson([`name:${name}`]);
    assert.deepEqual([json.account.id, json.sessions.length], [session.user.id, 1]);
  });

  test("say that an account is disabled", async () => {
    const { name, session } = await owner();
    await worker.visitor().tell("PATCH", `/admin/users/${session.user.id}`, { disabled: true }, admin);
    const { code, out } = await run([`name:${name}`]);
    assert.deepEqual(
      [code, /^account +disabled$/m.test(out), /^sessions +0$/m.test(out)],
      [0, true, true],
      out,
    );
  });

  test("a user without an account is found by their sessions, whatever their id is", async () => {
    for (const id of ["42", "a/b?c#d%2F", "-", "--json", "山 \u202e", "stats"]) {
      const { session } = await guestOf({ id });
      const { code, out } = await run([`user:${id}`]);
      assert.deepEqual(
        [code, out.includes(session.handle), /^account +none/m.test(out)],
        [0, true, true],
        out,
      );
    }
  });

  test("nobody is 1", async () => {
    for (const what of ["user:nobody", "name:nobody"]) {
      const { code, out, err } = await run([what]);
      assert.deepEqual([code, /^There is no account/.test(out), err], [1, true, ""]);
    }
  });

  test("nothing that a visitor has chosen acts upon the terminal", async () => {
    const { session } = await guestOf({ id: "e", name: `\u001b[31m${EVIL}` }, { user_agent: EVIL });
    for (const args of [["user:e"], [`handle:${session.handle}`], ["user:e", "--json"]]) {
      const { code, out } = await run(args);
      assert.equal(code, 0, out);
      assert.match(out, /\\u\{?(00)?9b\}?2J/);
      assert.ok(!/[^\n\P{C}]/u.test(out), JSON.stringify(out));
    }
    assert.equal((await runJson(["user:e"])).json.sessions[0].user_agent, EVIL);
    assert.equal(printable("a\u001b]0;x\u0007\u202eb\nc"), "a\\u{1b}]0;x\\u{7}\\u{202e}b\\u{a}c");
    const odd = { "\u009b": "\u202e\u2028\ud800 👩‍🚀\n" };
    assert.deepEqual(JSON.parse(printableJson(odd)), odd);
    assert.equal(
      columns(
        ["a", "n"],
        [
          ["👩", 7],
          [null, 10],
        ],
      ),
      "a   n\n👩   7\n–  10",
    );
  });
});

test("stats shows the counters of the days, and tickets by the keys that signed them", async () => {
  const empty = await deployment.start();
  const { visitor } = await owner();
  visitor.url = empty.url;
  await visitor.session();
  await empty.moveClock(61_000);
  await worker.moveClock(61_000);
  await owner();
  await worker.idle();
  const { code, out } = await run(["stats"]);
  assert.equal(code, 0, out);
  assert.match(out, /^day +sessions created +logins +failed logins +logouts +revocations .*distinct users$/m);
  assert.match(out, /^\d{4}-\d\d-\d\d( +\d+){8,}$/m);
  const { json } = await runJson(["stats"]);
  assert.match(out, new RegExp(`^tickets by key +${json.signing_keys[0]}`, "m"));
  assert.ok(json.days.length > 0);
});

describe("the deployment", () => {
  const unset = { CLOAKROOM_URL: undefined, ADMIN_TOKEN: undefined };
  /** @param {Record<string, string>} vars */
  const devVars = async (vars) => {
    const file = join(folder, `vars-${(count += 1)}`);
    await writeFile(
      file,
      Object.entries(vars)
        .map(([name, value]) => `${name}=${value}\n`)
        .join(""),
    );
    return ["--dev-vars", file];
  };

  test("is that of .dev.vars when the environment names none", async () => {
    const options = await devVars({ CLOAKROOM_URL: `${worker.url}/auth/`, ADMIN_TOKEN });
    for (const env of [unset, { ...unset, ADMIN_TOKEN }]) {
      const { code, err } = await run(["stats", ...options], { env });
      assert.equal(code, 0, err);
    }
  });

  test("may have another base_path, which belongs to its address", async () => {
    const other = await deployment.start({ settings: { base_path: "/api/session" } });
    assert.equal((await run(["stats"], { env: { CLOAKROOM_URL: `${other.url}/api/session` } })).code, 0);
    const { code, err } = await run(["stats"], { env: { CLOAKROOM_URL: other.url } });
    assert.deepEqual([code, /There is no service API .*base_path/.test(err)], [3, true], err);
  });

  /** @type {[string, Record<string, string | undefined>, RegExp][]} */
  const WRONG = [
    [
      "an address and no token",
      { ADMIN_TOKEN: undefined },
      /ADMIN_TOKEN is missing: set it in the environment/,
    ],
    ["a token and no address", { CLOAKROOM_URL: undefined }, /CLOAKROOM_URL is not: set both/],
    ["no address", { CLOAKROOM_URL: "example.com" }, /must be the address/],
    ["an address of another kind", { CLOAKROOM_URL: "ftp://example.com" }, /must be the address/],
    ["an address with a password in it", { CLOAKROOM_URL: "https://a:b@example.com" }, /must be the address/],
    ["an address without TLS", { CLOAKROOM_URL: "http://example.com" }, /in the clear/],
    ["an address that only looks local", { CLOAKROOM_URL: "http://127.0.0.1.example.com" }, /in the clear/],
    ["a token with a line break", { ADMIN_TOKEN: `${ADMIN_TOKEN}\n` }, /line break/],
  ];
  for (const [what, env, says] of WRONG) {
    test(`${what} is wrong usage, and nothing is sent`, async () => {
      const options = await devVars({ ADMIN_TOKEN: randomSecret() });
      const { code, err } = await run(["stats", ...options], { env });
      assert.deepEqual([code, says.test(err)], [2, true], err);
    });
  }

  test("that is not reached, or refuses, is 3", async () => {
    const closed = await startWorker({ store, settings });
    const broken = await startWorker({ store, settings: { nonsense: 1 }, secrets: { ADMIN_TOKEN } });
    try {
      for (const [env, says] of /** @type {[Record<string, string>, RegExp][]} */ ([
        [{ CLOAKROOM_URL: "http://localhost:1" }, /cannot be reached: (ECONNREFUSED|bad port)/],
        [{ ADMIN_TOKEN: randomSecret() }, /refuses the ADMIN_TOKEN/],
        [{ CLOAKROOM_URL: closed.url }, /There is no service API/],
        [{ CLOAKROOM_URL: broken.url }, /answered 500/],
      ])) {
        const { code, out, err } = await run(["user:42"], { env });
        assert.deepEqual([code, out, says.test(err)], [3, "", true], err);
      }
    } finally {
      await Promise.all([closed, broken].map((one) => one.stop()));
    }
    store.faults.always("refuse");
    const { code, err } = await run(["user:42"]);
    assert.deepEqual([code, /answered 503/.test(err)], [3, true], err);
  });

  test("that is another server gets the token once, and leads nowhere else", async () => {
    /** @type {string[]} */
    const asked = [];
    const server = createServer((request, response) => {
      asked.push(String(request.url));
      if (request.url?.startsWith("/moved/"))
        response.writeHead(307, { Location: `${worker.url}/auth/admin/stats` });
      response.end("<h1>\u001b[31mHello</h1>");
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    const address = /** @type {import("node:net").AddressInfo} */ (server.address());
    const url = `http://127.0.0.1:${address.port}`;
    try {
      const page = await run(["stats"], { env: { CLOAKROOM_URL: url } });
      assert.deepEqual([page.code, /answered 200/.test(page.err)], [3, true], page.err);
      const { value, calls } = await store.counters.during(() =>
        run(["stats"], { env: { CLOAKROOM_URL: `${url}/moved` } }),
      );
      assert.deepEqual([value.code, /redirects to/.test(value.err), calls], [3, true, 0], value.err);
      assert.equal(asked.length, 2);
    } finally {
      server.close();
    }
  });
});

test("what it does not know is wrong usage, and says what there is", async () => {
  for (const args of [
    [],
    ["session:x"],
    ["handle"],
    ["handle:short"],
    ["user:"],
    ["user:.."],
    ["stats:"],
    ["stats", "x"],
    ["--x"],
  ]) {
    const { code, out, err } = await run(args);
    assert.deepEqual([code, out], [2, ""], args.join(" "));
    assert.match(err, /cookie:- +a visitor's cookie/);
  }
  const { code, out } = await run(["--help"]);
  assert.deepEqual([code, /^npm run inspect/.test(out)], [0, true]);
});

test("npm knows it, and passes on how it ended", async () => {
  const script = ["npm", "run", "-s", "inspect", "--"];
  assert.equal((await run(["user:nobody"], { script })).code, 1);
  const { visitor } = await owner();
  assert.equal((await runJson(["cookie:-"], { script, input: visitor.ticket })).json.alive, true);
  const { scripts } = JSON.parse(await readFile(join(ROOT, "package.json"), "utf8"));
  assert.equal(scripts.inspect, "node tools/inspect.mjs");
});
