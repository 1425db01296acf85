/** What Cloudflare's deploy button reads (https://developers.cloudflare.com/workers/platform/deploy-buttons/) is there, and safe. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { chmod, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parseEnv, promisify } from "node:util";
import { eventsIn } from "./support/log.mjs";
import { startBoth, until } from "./support/worker.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const read = (/** @type {string} */ name) => readFile(join(root, name), "utf8");
const NEEDED = ["SESSION_SECRET", "UPSTASH_REDIS_REST_TOKEN", "UPSTASH_REDIS_REST_URL"];

test("it asks for the secrets that are needed, for no other, and describes each", async () => {
  const asked = Object.keys(parseEnv(await read(".dev.vars.example"))).sort();
  assert.deepEqual(asked, NEEDED);
  const { cloudflare, scripts } = JSON.parse(await read("package.json"));
  assert.deepEqual(Object.keys(cloudflare.bindings).sort(), ["CLOAKROOM", ...NEEDED]);
  for (const [name, { description }] of Object.entries(cloudflare.bindings)) {
    assert.ok(description.length > 40, name);
  }
  // It takes them from there; without "deploy" it uses `npx wrangler deploy`.
  assert.ok(scripts.build && !("deploy" in scripts));
});

test("the file is in the repository, and no file with secrets is", async () => {
  const isIgnored = (/** @type {string} */ name) =>
    promisify(execFile)("git", ["check-ignore", "--quiet", "--no-index", name], { cwd: root }).then(
      () => true,
      () => false,
    );
  assert.equal(await isIgnored(".dev.vars.example"), false);
  assert.ok((await isIgnored(".dev.vars")) && (await isIgnored(".dev.vars.staging")));
});

test("who accepts the values that it proposes has a Worker that refuses to start, and says why", async () => {
  const { worker, stop } = await startBoth({ secrets: parseEnv(await read(".dev.vars.example")) });
  try {
    const answer = await worker.visitor().send("GET", "/auth/health");
    assert.deepEqual([answer.status, answer.json.code], [500, "misconfigured"]);
    for (const name of NEEDED) {
      await until(
        () => eventsIn(worker, "misconfigured").some(({ message }) => message.startsWith(`${name} `)),
        () => `${name} in ${worker.logs.join("")}`,
      );
    }
  } finally {
    await stop();
  }
});

test("the README has the button", async () => {
  const [, image, repository] =
    /\[!\[Deploy to Cloudflare\]\((.*?)\)\]\(https:\/\/deploy\.workers\.cloudflare\.com\/\?url=(.*?)\)/.exec(
      await read("README.md"),
    ) ?? [];
  assert.equal(image, "https://deploy.workers.cloudflare.com/button");
  assert.match(repository ?? "", /^https:\/\/(github|gitlab)\.com\/[\w.-]+\/[\w.-]+$/);
});

describe("a build machine without Rust", () => {
  /** @type {string} */
  let home;
  before(async () => {
    home = await mkdtemp(join(tmpdir(), "cloakroom-build-"));
    for (const tool of ["mkdir", "cat", "chmod"]) await symlink(`/bin/${tool}`, join(home, tool));
    await symlink("/bin/sh", join(home, "sh"));
    // In place of the network: what rustup's script would do.
    const script = `mkdir -p "$HOME/.cargo/bin"
cat > "$HOME/.cargo/bin/cargo" <<'END'
#!/bin/sh
case "$1" in --print) echo /;; *) echo "$0 1.999.0";; esac
END
chmod +x "$HOME/.cargo/bin/cargo"
cat "$HOME/.cargo/bin/cargo" > "$HOME/.cargo/bin/rustc"
chmod +x "$HOME/.cargo/bin/rustc"`;
    await writeFile(join(home, "curl"), `#!/bin/sh\ncat <<'SCRIPT'\n${script}\nSCRIPT\n`);
    await chmod(join(home, "curl"), 0o755);
  });
  after(() => rm(home, { recursive: true, force: true }));

  const code = `
    const { bringRust } = await import(${JSON.stringify(new URL("../tools/setup.mjs", import.meta.url).href)});
    const { capture } = await import(${JSON.stringify(new URL("../tools/say.mjs", import.meta.url).href)});
    await bringRust();
    process.stdout.write((await capture("cargo", ["--version"])).code + " ");`;
  const build = async (/** @type {Record<string, string>} */ env) => {
    const args = ["--input-type=module", "--eval", code];
    const { stdout } = await promisify(execFile)(process.execPath, args, {
      env: { HOME: home, PATH: home, ...env },
    });
    return stdout.trim().split("\n");
  };

  test("gets none anywhere but at Cloudflare", async () => {
    assert.deepEqual(await build({}), ["127"]);
  });

  test("gets it at Cloudflare, once", async () => {
    const cloudflare = { CI: "true", WORKERS_CI: "1" };
    assert.deepEqual(await build(cloudflare), ["Installing Rust, which this build machine lacks …", "0"]);
    assert.deepEqual(await build(cloudflare), ["0"]);
  });
});
