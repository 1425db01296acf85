/** What a sample of `perf` counts for, told by the program or library that it was taken in, and by the function's name. */

/** @typedef {keyof typeof PARTS} Part */

/** In the order of the table and the picture. */
export const PARTS = {
  wasm: "wasm",
  script: "JavaScript",
  engine: "V8's own functions",
  garbage: "garbage collection",
  api: "the platform's API",
  network: "HTTP and event loop",
  memory: "allocating, copying",
  kernel: "the kernel",
  rest: "the rest",
};

/** By the function's name, within workerd; the first that fits counts, else `rest`. */
const NAMES = /** @type {[RegExp, Part][]} */ ([
  [
    /^(tcmalloc|TCMalloc|operator (new|delete)|std::__.*(alloc|string)|mem(cpy|move|set)|malloc|free)/,
    "memory",
  ],
  [
    /Scaveng|MarkCompact|Marking|Sweep|[Hh]eap(Visitor|Tracer)|cppgc|GlobalHandles|GarbageColl|Evacuat/,
    "garbage",
  ],
  [/^Builtins_.*Wasm|wasm::/, "wasm"],
  [/^(Builtins_|v8::|node::|icu|simdutf)/, "engine"],
  [/^workerd::|workerd::(api|jsg|server)|jsg::/, "api"],
  [
    /^<?(kj|hyper|tokio|http|h2|httparse|mio|bytes|futures|kj_hyper|workerd_server|ring|capnp)\b|kj::|hyper|tokio/,
    "network",
  ],
]);

/**
 * @param {string} file the program, library or kind of code, as perf names it: "workerd", "[JIT] tid 42", "[kernel.kallsyms]"
 * @param {string} name of the function
 * @returns {Part}
 */
export function partOf(file, name) {
  if (file.startsWith("[kernel") || file === "[vdso]") return "kernel";
  if (file.startsWith("[JIT]") || /^(JS|Builtin|Script|Function|RegExp|LazyCompile|Eval):/.test(name)) {
    return /wasm/i.test(name) ? "wasm" : "script";
  }
  if (/^lib(c|pthread)\b/.test(file)) return /mem|alloc|free|str/.test(name) ? "memory" : "network";
  return NAMES.find(([pattern]) => pattern.test(name))?.[1] ?? "rest";
}
