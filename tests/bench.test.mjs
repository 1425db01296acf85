/** What `npm run bench` makes of its measurements. The measurements themselves are no tests. */
import assert from "node:assert/strict";
import { connect } from "node:net";
import { test } from "node:test";
import { againstBefore } from "../bench/lib/against.mjs";
import { partOf } from "../bench/lib/attribute.mjs";
import { CANDIDATES } from "../bench/candidates.mjs";
import { CROSSINGS } from "../bench/candidates/crossings.js";
import { acrossBorder, takenBy } from "../bench/lib/crossings.mjs";
import { IN_FRONT, throughGateway } from "../bench/lib/gateway.mjs";
import { startOrigin } from "../bench/lib/origin.mjs";
import { contended, waited } from "../bench/lib/waits.mjs";
import { until } from "./support/worker.mjs";

test("a sample of perf counts for what its function is", () => {
  for (const [part, file, name] of [
    ["wasm", "[JIT] tid 42", "JS:wasm-function[2631]-2631-turbofan"],
    ["wasm", "workerd", "Builtins_WasmLiftoffFrameSetup"],
    ["wasm", "workerd", "v8::internal::wasm::memory_copy_wrapper"],
    ["script", "[JIT] tid 42", "JS:*'h index.js:3:1036"],
    ["engine", "workerd", "Builtins_RunMicrotasks"],
    ["engine", "workerd", "v8::Value::IsObject"],
    ["garbage", "workerd", "v8::internal::Scavenger::ScavengePage"],
    ["garbage", "workerd", "v8::internal::GlobalHandles::Create"],
    ["api", "workerd", "workerd::api::Headers::~Headers"],
    ["api", "workerd", "kj::_::HeapDisposer<workerd::api::Headers::Header>::disposeImpl"],
    ["network", "workerd", "kj::_::Event::armDepthFirst"],
    ["network", "workerd", "<tokio::runtime::io::registration::Registration>::poll_ready"],
    ["memory", "workerd", "tcmalloc::tcmalloc_internal::FreeSmallSlow"],
    ["memory", "workerd", "TCMallocInternalDeleteArrayNothrow"],
    ["memory", "libc.so.6", "__memmove_avx512_unaligned_erms"],
    ["kernel", "[kernel.kallsyms]", "finish_task_switch.isra.0"],
    ["kernel", "[vdso]", "__vdso_clock_gettime"],
    ["rest", "workerd", "sqlite3_step"],
  ]) {
    assert.equal(partOf(String(file), String(name)), part, name);
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

test("a call into the platform takes what a request takes more with many of it, without the calls that it contains", () => {
  /** @type {Record<string, number[]>} */
  const rounds = Object.fromEntries(Object.keys(CROSSINGS).map((name) => [name, [0.2, 0.3, 0.4]]));
  rounds.call = [0.3, 0.4, 0.48]; // 20 times: 5, 5 and 4 µs
  rounds.signal = [0.22, 0.32, 0.42]; // 1 µs
  rounds["call-signal"] = [0.36, 0.46, 0.54]; // 8, 8 and 7 µs
  rounds.url = [0.22, 0.34, 0.5]; // 200 times: 0.1, 0.2 and 0.5 µs
  const crossed = takenBy(rounds);
  assert.equal(crossed.length, Object.keys(CROSSINGS).length - 1);
  const table = acrossBorder({ rounds: 1, crossed }).at(-1) ?? "";
  assert.ok(table.includes("| `request.url` | 0.20 | 0.10 to 0.50 |"), table);
  assert.ok(table.includes("| `new Request`: a call to the store, not made | 5.00 | 4.00 to 5.00 |"), table);
  assert.ok(table.includes("| – `signal` of the call | +2.00 | 2.00 to 2.00 |"), table);
  const less = Object.values(CROSSINGS).flatMap((crossing) => crossing.less ?? []);
  assert.deepEqual(
    less.filter((name) => !(name in CROSSINGS)),
    [],
  );
});

test("the gateway is compared with a bare pass-through and the session read, round by round", () => {
  const known = CANDIDATES.filter(({ inFront }) => inFront);
  assert.deepEqual(
    known.map(({ name }) => name),
    IN_FRONT,
  );
  assert.ok(known.every(({ byNameOnly }) => byNameOnly));
  /** @param {string} name @param {number[]} cpus */
  const result = (name, cpus) => ({
    name,
    title: name,
    cells: ["read", "forged"].map((job) => ({
      job,
      connections: 32,
      latency: 0,
      cpu: [...cpus].sort()[1],
      p50: 1.23,
      p99: 4.56,
      rounds: cpus.map((cpu) => ({ cpu })),
    })),
    store: { read: { calls: 1, commands: 2, bytes: 700 } },
  });
  const candidates = /** @type {any[]} */ ([
    result("cloakroom", [0.3, 0.4, 0.5]),
    result("pass-through", [0.1, 0.1, 0.3]),
    result("gateway", [0.44, 0.6, 0.8]),
  ]);
  const [, , table = "", goal = ""] = throughGateway({ candidates });
  assert.ok(
    table.includes("| Read the session | 0.400 | 0.400 |  | 1.2 / 4.6 |  | 1 / 2 / 700 | **4.33** |"),
    table,
  );
  assert.ok(goal.includes("**× 1.10**, the middle half 1.00 to 1.20"), goal);
});

test("what a visitor waits is told with the calls that they wait for, one after the other", () => {
  const cells = [
    { job: "login", latency: 5, connections: 1, requests: 60, p50: 13.14, p99: 42.6 },
    { job: "login", latency: 50, connections: 1, requests: 30, p50: 107.2, p99: 114.4 },
  ];
  const store = { login: { calls: 4, commands: 17.05 } };
  const [, , job, table = ""] = waited({
    candidates: /** @type {any[]} */ ([{ name: "cloakroom", title: "Cloakroom", store, cells }]),
  });
  assert.equal(job, "**login**");
  assert.ok(table.includes("| store 5 ms, 1 conn., of 60 | store 50 ms, 1 conn., of 30 |"), table);
  assert.ok(table.includes("| Cloakroom | 4 / 17.1 | 2 | 13.1 / 42.6 | 107 / 114 |"), table);
});

test("changes at once are told with whoever was not answered by success, and the longest wait of all rounds", () => {
  /** @param {number} p50 @param {number[]} refused @param {object} [counted] */
  const round = (p50, refused, counted = { tries: 9.04, calls: 18 }) => ({
    acknowledged: 100 - refused.length,
    refused,
    survived: 100 - refused.length,
    p50,
    p99: 2 * p50,
    longest: 3 * p50,
    ...counted,
  });
  const [, , table = ""] = contended(
    /** @type {any} */ ({
      rounds: 3,
      increments: 100,
      isolates: 4,
      latency: 50,
      candidates: [
        { title: "Cloakroom", rounds: [round(100, [409, 503]), round(300, [409]), round(200, [])] },
        { title: "Express", rounds: [round(100, [], {})] },
      ],
    }),
  );
  assert.ok(
    table.includes("| Cloakroom | 297 | 2 × 409, 1 × 503 | **297** | 9.04 | 18.00 | 200 | 400 | 900 |"),
    table,
  );
  assert.ok(table.includes("| Express | 100 |  | **100** |  |  | 100 | 200 | 300 |"), table);
});

test("the application behind the gateway answers each request once, whole or in pieces", async () => {
  const { url, stop } = await startOrigin();
  try {
    const { hostname, port } = new URL(url);
    const socket = connect(Number(port), hostname);
    let answers = "";
    socket.setEncoding("latin1").on("data", (text) => (answers += text));
    const count = () => answers.split("HTTP/1.1 200 OK").length - 1;
    const post = "POST /page HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    socket.write(`GET /page HTTP/1.1\r\nHost: a\r\n\r\n${post}hel`);
    await until(() => count() === 1);
    socket.write("loGET /page HTTP/1.1\r\n");
    await until(() => count() === 2);
    socket.write("Host: a\r\n\r\n");
    await until(() => count() === 3);
    socket.destroy();
  } finally {
    await stop();
  }
});
