/** The lines of curl and redis-cli that docs/interop.md prints, done as printed. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { createClient, RESP_TYPES } from "@redis/client";

const page = readFileSync(new URL("../../docs/interop.md", import.meta.url), "utf8");

/**
 * Runs the lines of one section on an empty database.
 * @param {string} heading
 * @param {{ hosts: Record<string, string>, socket: string }} where  what is at the printed addresses, and the database
 */
export async function runLines(heading, { hosts, socket }) {
  const section = page.split(`\n## ${heading}\n`)[1]?.split("\n## ")[0] ?? "";
  const blocks = [...section.matchAll(/```shell\n(.*?)```/gs)].map(([, block]) => block ?? "");
  const steps = blocks.flatMap((block) => block.split(/^\$ /m).slice(1));
  assert.ok(steps.length > 5, `${heading}: ${steps.length} lines found`);
  const redis = createClient({ socket: { path: socket, tls: false, reconnectStrategy: false } });
  const raw = redis.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  const cwd = await mkdtemp(join(tmpdir(), "cloakroom-"));
  /** The key that was listed last, in the place of the printed one. */
  let listed = "";
  try {
    await redis.connect();
    await redis.flushDb();
    for (const step of steps) {
      const [command = "", ...expected] = step.trimEnd().split("\n");
      let output = "";
      if (command.startsWith("redis-cli ")) {
        const words = command.split(" ").slice(1);
        const here = words.map((word) => word.replaceAll("'", "").replace(/^sess(ion)?:[\w-]+$/, listed));
        const reply = await raw.sendCommand(here);
        if (words[0] === "KEYS") listed = String([reply].flat()[0]);
        output = asRedisCli(reply);
      } else {
        const addresses = Object.entries(hosts);
        const here = addresses.reduce(
          (text, [printed, url]) => text.replaceAll(printed, url.replace("http://", "")),
          command,
        );
        output = (await promisify(execFile)("/bin/sh", ["-c", here], { cwd })).stdout;
      }
      assert.equal(settled(output), settled(expected.join("\n")), command);
    }
  } finally {
    if (redis.isOpen) redis.destroy();
    await rm(cwd, { recursive: true });
  }
}

/** What differs from run to run. @param {string} output */
const settled = (output) =>
  output
    .replaceAll(/"handle":"[\w-]{24}"/g, '"handle":"…"')
    .replaceAll(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g, "…")
    .replaceAll(/\bsess(ion)?:[\w-]{30,}/g, "sess$1:…")
    .replaceAll(/\(integer\) (\d+)/g, (_, seconds) => `about ${Math.ceil(seconds / 1000)}`)
    .trim();

/** A reply as redis-cli shows it on a terminal. @param {unknown} reply @returns {string} */
function asRedisCli(reply) {
  if (Array.isArray(reply)) return reply.map((one, at) => `${at + 1}) ${asRedisCli(one)}`).join("\n");
  if (reply instanceof Buffer) return `"${[...reply].map(quoted).join("")}"`;
  return typeof reply === "number" ? `(integer) ${reply}` : "(nil)";
}

/** @param {number} byte */
function quoted(byte) {
  const letter = String.fromCharCode(byte);
  const named = {
    '"': '\\"',
    "\\": "\\\\",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\x07": "\\a",
    "\b": "\\b",
  };
  if (letter in named) return named[/** @type {keyof typeof named} */ (letter)];
  return byte >= 32 && byte < 127 ? letter : `\\x${byte.toString(16).padStart(2, "0")}`;
}
