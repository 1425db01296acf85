/**
 * `npm run build`: src/ → build/index.js and build/cloakroom_bg.wasm, ready for `wrangler deploy`.
 * A step whose input has not changed is not repeated.
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { takeLock } from "./lock.mjs";
import { FEATURES } from "./rust-worker.mjs";
import { bringRust } from "./setup.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const out = join(root, "build");
const parts = join(root, "target/worker");
const compiled = join(root, "target/wasm32-unknown-unknown/release/cloakroom.wasm");
const RUSTFLAGS = [
  // With vectors it is smaller, and a password is hashed faster; every V8 of Cloudflare's has them.
  "-C target-feature=+simd128",
  // Two of LLVM's optimisations that pay off where registers are few and code is no download: they copy loads into other
  // branches and give loops counters of their own. Without them 6 KB of the bundle are saved, and no request is slower.
  "-C llvm-args=-enable-load-pre=false",
  "-C llvm-args=-disable-lsr",
  // Small functions become part of those that call them; at opt-level "z" hardly one would. For 7 KB a read takes 0.95.
  "-C llvm-args=-inline-threshold=25",
  // A path of the building machine is nobody's business.
  `--remap-path-prefix=${root}=.`,
  `--remap-path-prefix=${process.env.HOME}=~`,
];
const SIZE_BUDGET = 600 * 1024;

mkdirSync(out, { recursive: true });
mkdirSync(parts, { recursive: true });

// wrangler builds too: the second build waits, and then finds nothing to do.
let lock = takeLock(join(parts, "lock"));
while (lock.holder) {
  await sleep(100);
  lock = takeLock(join(parts, "lock"));
}
process.on("exit", lock.release);
process.on("SIGTERM", () => process.exit(143));

await bringRust().catch((error) => fail(error.message));

step("compiling Rust to wasm (the first time about a minute)", () => {
  // The crate type is given here and not in Cargo.toml: naming two types there turns link-time optimisation off.
  cargo(
    [
      "rustc",
      ...["--release", "--lib", "--crate-type", "cdylib", "--target", "wasm32-unknown-unknown"],
      ...["--features", "service"],
    ],
    { RUSTFLAGS: RUSTFLAGS.join(" ") },
  );
});

once(
  "border",
  [compiled, "Cargo.lock"],
  "writing the JavaScript border (the first time about a minute)",
  () => {
    cargo(["run", "--package", "bindgen", "--", compiled, parts]);
  },
);

const wasm = join(out, "cloakroom_bg.wasm");
const { default: binaryen } = await import("binaryen");
once(
  "optimised",
  [join(parts, "cloakroom_bg.wasm"), wasm, "tools/build.mjs", "tools/rust-worker.mjs"],
  "optimising wasm",
  () => {
    const lean = join(parts, "lean.wasm");
    writeFileSync(lean, withoutClasses(readFileSync(join(parts, "cloakroom_bg.wasm"))));
    const partial = `${wasm}.partial`;
    node("binaryen/bin/wasm-opt", [
      ...FEATURES,
      "--enable-simd",
      // What can reach where in the whole program, and until nothing becomes smaller: 0.5 KB of the bundle.
      "--gufa",
      "-O3",
      "--converge",
      // Nothing of ours is in the first KB of memory: that is the end of the stack.
      "--low-memory-unused",
      // Functions that were made from the same source have the same name up to its hash, and are much alike: next to each
      // other gzip finds that. 6 KB of the bundle.
      "--reorder-functions-by-name",
      "--strip-debug",
      "--strip-producers",
      "--strip-target-features",
      lean,
      "-o",
      partial,
    ]);
    renameSync(partial, wasm);
  },
);

const { build } = await import("esbuild");
const { outputFiles } = await build({
  entryPoints: [join(root, "src/entry.js")],
  outfile: join(out, "index.js"),
  write: false,
  bundle: true,
  format: "esm",
  target: "es2022",
  minify: true,
  banner: { js: "// @ts-nocheck" },
  // wasm-bindgen's own way without it: whoever makes a closure here frees it, so none has to be found by garbage collection.
  define: { FinalizationRegistry: "undefined" },
  inject: [join(root, "src/microtask.js")],
  logLevel: "warning",
  plugins: [
    {
      name: "parts",
      setup(bundler) {
        bundler.onResolve({ filter: /^\.\/cloakroom\.js$/ }, () => ({ path: join(parts, "cloakroom.js") }));
        bundler.onResolve({ filter: /\.wasm$/ }, ({ path }) => ({ path, external: true }));
        bundler.onLoad({ filter: /cloakroom\.js$/ }, () => ({ contents: withoutDisposal(border()) }));
      },
    },
  ],
});

for (const { path, contents } of outputFiles) {
  // Others may be reading it: never half a file, and none that is new without need.
  if (read(out, path).equals(contents)) continue;
  writeFileSync(`${path}.partial`, contents);
  renameSync(`${path}.partial`, path);
}

const sizes = ["index.js", "cloakroom_bg.wasm"].map(
  (name) => gzipSync(readFileSync(join(out, name)), { level: 9 }).length,
);
const size = sizes.reduce((sum, part) => sum + part);
console.log(`build/: ${size} bytes gzipped, of ${SIZE_BUDGET} in the budget`);
if (size > SIZE_BUDGET) fail("the bundle is over its budget");

/**
 * Runs a step, and says so: at once, as it may take long.
 * @param {string} what
 * @param {() => void} run
 */
function step(what, run) {
  console.log(`build: ${what}`);
  try {
    run();
  } catch (error) {
    const status = error && typeof error === "object" && "code" in error ? error.code : "an error above";
    fail(`${what}: stopped (${status})`);
  }
}

/**
 * Runs a step unless its inputs are those of the last time.
 * @param {string} name
 * @param {string[]} inputs
 * @param {string} what
 * @param {() => void} run
 */
function once(name, inputs, what, run) {
  const stamp = join(parts, `${name}.stamp`);
  const print = () => {
    const hash = createHash("sha256");
    for (const input of inputs) hash.update(read(join(root, "."), input));
    return hash.digest("hex");
  };
  if (read(parts, stamp).toString() === print()) return;
  rmSync(stamp, { force: true });
  step(what, run);
  writeFileSync(stamp, print());
}

/**
 * The module without what it exports for classes that JavaScript could make. `worker` has some, none of which is used
 * here: nothing wraps one, and entry.js makes none.
 * @param {Buffer} bytes
 */
function withoutClasses(bytes) {
  if (border().includes("__wrap(")) return bytes;
  const names = WebAssembly.Module.exports(new WebAssembly.Module(new Uint8Array(bytes))).map(
    ({ name }) => name,
  );
  const classes = names.flatMap((name) => /^__wbg_(.+)_free$/.exec(name)?.[1] ?? []);
  const isOfClass = (/** @type {string} */ name) =>
    classes.some(
      (one) => name.startsWith(`${one}_`) || (name.startsWith("__wbg_") && name.includes(`_${one}_`)),
    );
  binaryen.setDebugInfo(true); // the names, by which functions are put in order
  const module = binaryen.readBinary(bytes);
  const { BulkMemory, BulkMemoryOpt, SIMD128, NontrappingFPToInt, SignExt, MutableGlobals } =
    binaryen.Features;
  const { Multivalue, ReferenceTypes } = binaryen.Features;
  module.setFeatures(
    BulkMemory |
      BulkMemoryOpt |
      SIMD128 |
      NontrappingFPToInt |
      SignExt |
      MutableGlobals |
      Multivalue |
      ReferenceTypes,
  );
  names.filter(isOfClass).forEach((name) => module.removeExport(name));
  return module.emitBinary();
}

/** The JavaScript border. */
function border() {
  return readFileSync(join(parts, "cloakroom.js"), "utf8");
}

/**
 * The border without what keeps its unused classes in the bundle, for the same reason as above.
 * @param {string} script
 */
function withoutDisposal(script) {
  if (script.includes("__wrap(")) return script;
  return script
    .replaceAll(/^if \(Symbol\.dispose\) .*$/gm, "")
    .replaceAll("new FinalizationRegistry(", "/* @__PURE__ */ new FinalizationRegistry(");
}

/**
 * A file's content; empty when there is none.
 * @param {string} base
 * @param {string} path
 */
function read(base, path) {
  try {
    return readFileSync(path.startsWith("/") ? path : join(base, path));
  } catch {
    return Buffer.alloc(0);
  }
}

/**
 * @param {string[]} args
 * @param {Record<string, string>} [env]
 */
function cargo(args, env = {}) {
  const [command = "", ...rest] = args;
  execFileSync("cargo", [command, "--quiet", ...rest], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, ...env },
  });
}

/**
 * @param {string} script
 * @param {string[]} args
 */
function node(script, args) {
  execFileSync(process.execPath, [join(root, "node_modules", script), ...args], { stdio: "inherit" });
}

/** @param {string} why */
function fail(why) {
  console.error(`build: ${why}`);
  process.exit(1);
}
