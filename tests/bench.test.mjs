/** What `npm run bench` makes of its measurements. The measurements themselves are no tests. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { againstBefore } from "../bench/lib/against.mjs";
import { partOf } from "../bench/lib/attribute.mjs";

/** @typedef {import("../bench/lib/attribute.mjs").Node} Node */

const SOURCES = ["target/worker/cloakroom.js", "src/entry.js", "node_modules/hono/dist/context.js"];
const regions = SOURCES.map((file, at) => ({ line: at * 100, file }));
const [BORDER, ENTRY, HONO] = regions.map(({ line }) => line + 1);
const BUILT_IN = -1;
const WASM = -2;

/**
 * What a stack of functions, innermost first, counts for.
 * @param {[name: string, where: number][]} stack
 */
function partOfStack(stack) {
  /** @type {Map<number, Node>} */
  const parents = new Map();
  const url = (/** @type {number} */ where) =>
    where === BUILT_IN ? "" : where === WASM ? "wasm://wasm/1" : "index.js";
  const nodes = stack.map(([functionName, where], id) => ({
    id,
    callFrame: { functionName, url: url(where), lineNumber: Math.max(where, 0) },
  }));
  nodes.slice(1).forEach((parent, id) => parents.set(id, parent));
  return partOf(/** @type {Node} */ (nodes[0]), parents, regions);
}

test("a sample of the profiler counts for the platform's function that was called", () => {
  const hash = "4c88d8bf264fd984";
  const entry = /** @type {[string, number]} */ (["fetch", ENTRY]);
  const wasm = /** @type {[string, number]} */ (["wasm-function[7]", WASM]);
  for (const [part, stack] of /** @type {[string, [string, number][]][]} */ ([
    ["wasm", [wasm, entry]],
    ["request", [[`__wbg_get_${hash}`, BORDER], wasm, entry]],
    ["request", [["get", BUILT_IN], [`__wbg_get_${hash}`, BORDER], wasm, entry]],
    [
      "request",
      [["get", BUILT_IN], ["", BORDER], ["handleError", BORDER], [`__wbg_get_${hash}`, BORDER], wasm],
    ],
    ["border", [["passStringToWasm0", BORDER], [`__wbg_get_${hash}`, BORDER], wasm, entry]],
    [
      "border",
      [["encodeInto", BUILT_IN], ["passStringToWasm0", BORDER], [`__wbg_get_${hash}`, BORDER], wasm],
    ],
    ["border", [["getStringFromWasm0", BORDER], [`__wbg_append_${hash}`, BORDER], wasm]],
    ["border", [[`__wbg_then_${hash}`, BORDER], wasm]],
    ["border", [["handle", BORDER], entry]],
    ["store", [["fetch", BUILT_IN], [`__wbg_fetch_${hash}`, BORDER], wasm]],
    ["store", [[`__wbg_arrayBuffer_${hash}`, BORDER], wasm]],
    ["store", [[`__wbg_set_body_${hash}`, BORDER], wasm]],
    ["response", [["append", BUILT_IN], [`__wbg_append_${hash}`, BORDER], wasm]],
    ["response", [["Response", BUILT_IN], ["", BORDER], [`__wbg_new_${hash}`, BORDER], wasm]],
    ["response", [[`__wbg_new_with_opt_str_and_init_${hash}`, BORDER], wasm]],
    ["request", [["readBody", ENTRY]]],
    ["rest", [entry]],
    ["response", [["header", HONO], entry]],
    [
      "garbage",
      [
        ["(garbage collector)", BUILT_IN],
        [`__wbg_get_${hash}`, BORDER],
      ],
    ],
    ["workerd", [["(program)", BUILT_IN]]],
  ])) {
    assert.equal(partOfStack(stack), part, JSON.stringify(stack));
  }
});

test("the new build is compared with the one before round by round, so that drift is no difference", () => {
  /** @param {string} name @param {number[]} cpus @param {number[]} startups @param {number} gzip */
  const result = (name, cpus, startups, gzip) => ({
    name,
    title: name,
    cells: ["read", "change", "forged"].map((job) => ({
      job,
      connections: 32,
      latency: 0,
      cpu: [...cpus].sort()[1],
      rounds: cpus.map((cpu) => ({ cpu })),
    })),
    startup: startups[1],
    startups,
    bundle: { raw: 2 * gzip, gzip },
  });
  const now = result("cloakroom", [0.9, 1.8, 2.7], [20, 30, 40], 102_400);
  const before = result("before", [1, 2, 3], [25, 35, 46], 101_376);
  const comparison = (/** @type {any[]} */ ...candidates) => againstBefore({ candidates });
  assert.deepEqual(comparison(now), []);
  const table = comparison(before, now).at(-1) ?? "";
  assert.ok(table.includes("| read | 2.000 | 1.800 | × 0.900 | × 0.900 | × 0.900 to 0.900 |"), table);
  assert.ok(table.includes("| start | 35.0 ms | 30.0 ms | −5.0 ms | −5.0 ms | −6.0 to −5.0 ms |"), table);
  assert.ok(table.includes("| bundle, gzip -9 | 99.0 KB | 100.0 KB | +1.0 KB |"), table);
});
