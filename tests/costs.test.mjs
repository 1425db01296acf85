/** What docs/limits.md says requests cost is what they cost now. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { before, test } from "node:test";
import { promisify } from "node:util";

const root = fileURLToPath(new URL("..", import.meta.url));

let table = "";
before(async () => {
  const { stdout } = await promisify(execFile)(process.execPath, ["tools/costs.mjs"], { cwd: root });
  table = stdout.trim();
});

test("the table in docs/limits.md is the one that npm run costs makes now", async () => {
  const page = await readFile(`${root}docs/limits.md`, "utf8");
  const printed = page.match(/^<!-- costs -->\n(.*)\n<!-- \/costs -->$/ms)?.[1];
  assert.equal(printed, table, "npm run costs -- --write brings it up to date");
});

test("the official limiter costs as many commands as Upstash says", () => {
  // https://upstash.com/docs/redis/sdks/ratelimit-ts/costs: first, intermediate, rate-limited.
  const published = { fixedWindow: [3, 2, 2], slidingWindow: [5, 4, 3], tokenBucket: [4, 4, 2] };
  for (const [name, expected] of Object.entries(published)) {
    const rows = [...table.matchAll(/^\| `(\w+)`(?:, .*)? \| 1 \| (\d+): /gm)];
    const counted = rows
      .filter(([, algorithm]) => algorithm === name)
      .map(([, , commands]) => Number(commands));
    assert.deepEqual(counted, expected, name);
  }
});
