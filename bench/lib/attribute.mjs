/** What a sampled function works at, told by the source that it comes from and by its name. */

/** @typedef {{ functionName: string, url: string, lineNumber: number }} Frame */
/** @typedef {{ id: number, callFrame: Frame, children?: number[] }} Node */
/** @typedef {{ line: number, file: string }[]} Regions where in a bundle each source begins */
/** @typedef {keyof typeof PARTS} Part */

/** In the order of the table and the picture. */
export const PARTS = {
  wasm: "wasm",
  border: "strings across the border",
  request: "reading the request",
  store: "the store call",
  response: "building the response",
  garbage: "garbage collection",
  rest: "the rest of JavaScript",
  workerd: "workerd itself",
};

/** What wasm-bindgen writes. */
const BORDER = /(^|\/)target\/worker\/(?!snippets\/)/;
/** What we write ourselves: the Worker's entry, and snippets that Rust code brings along. */
const OWN = /(^|\/)src\/\w+\.js$|(^|\/)target\/worker\/snippets\//;

/** By the source that a function comes from, and there by its name; the first that fits counts, else `rest`. */
const SORTED = /** @type {{ file: RegExp, name?: RegExp, part: Part }[]} */ ([
  { file: OWN, name: /^(read|head)/i, part: "request" },
  { file: OWN, name: /^(wait|ask|post|send|store)/, part: "store" },
  { file: OWN, name: /^(respond|internal|response|answer|reply)/, part: "response" },
  { file: /node_modules\/hono\/.*(request|cookie|url|crypto)/, part: "request" },
  { file: /node_modules\/hono\/.*context/, part: "response" },
  { file: /node_modules\/(@upstash|uncrypto)\//, part: "store" },
]);

/** What workerd has built in; else it counts for the function that calls it. @type {Record<string, Part>} */
const BUILT_IN = {
  fetch: "store",
  text: "store",
  timeout: "store",
  Response: "response",
  Headers: "response",
};

/** An import that wasm-bindgen writes for a function of the platform: `__wbg_append_ab12cd34ef567890`. */
const IMPORT = /^__wbg_(?<name>\w+?)_[0-9a-f]{8,}$/;
/**
 * By its name, which is the platform's, in small letters and without underscores. Bodies count for the store, as only
 * changes have one of their own.
 */
const IMPORTS = /** @type {{ name: RegExp, part: Part }[]} */ ([
  { name: /^(get|has|method|url|headers|cf|body|read(head|body|request)\w*)$/, part: "request" },
  { name: /^(append|set|setstatus|response|newwithopt\w*|respond\w*)$/, part: "response" },
  { name: /^(fetch\w*|text|arraybuffer|json|status|ok|timeout|settimeout)$/, part: "store" },
  { name: /^(set(method|body|headers|signal|redirect)|newwithstrandinit)$/, part: "store" },
]);

/**
 * The part that a sample counts for: of the functions on the stack, innermost first, the first that tells.
 *
 * @param {Node} leaf
 * @param {Map<number, Node>} parents
 * @param {Regions} regions
 * @returns {Part}
 */
export function partOf(leaf, parents, regions) {
  if (leaf.callFrame.functionName === "(garbage collector)") return "garbage";
  let isInBorder = false;
  for (let node = /** @type {Node | undefined} */ (leaf); node; node = parents.get(node.id)) {
    const { functionName, url, lineNumber } = node.callFrame;
    const file = url && !url.startsWith("wasm") ? fileAt(lineNumber, regions) : "";
    if (BORDER.test(file)) {
      const part = partOfImport(functionName);
      if (part) return part;
      // A helper without a name of its own: what called it tells, as long as that is of the border too.
      isInBorder = true;
      continue;
    }
    if (isInBorder) return "border";
    if (url.startsWith("wasm")) return "wasm";
    if (url) {
      const rule = SORTED.find((rule) => rule.file.test(file) && (rule.name?.test(functionName) ?? true));
      return rule?.part ?? "rest";
    }
    const caller = parents.get(node.id)?.callFrame.url;
    if (Object.hasOwn(BUILT_IN, functionName) && caller) return BUILT_IN[functionName] ?? "rest";
  }
  return isInBorder ? "border" : "workerd";
}

/** @param {number} lineNumber @param {Regions} regions */
const fileAt = (lineNumber, regions) => regions.findLast(({ line }) => line <= lineNumber)?.file ?? "";

/** @param {string} functionName of the border @returns {Part | undefined} nothing when it does not tell */
function partOfImport(functionName) {
  if (
    /(String|Array|Memory|Text).*Wasm|Wasm(String|Array|Memory)|Text(En|De)coder|HeapObject|Externref/i.test(
      functionName,
    )
  ) {
    return "border";
  }
  const name = IMPORT.exec(functionName)?.groups?.name?.replaceAll("_", "").toLowerCase();
  if (name === undefined) return undefined;
  return IMPORTS.find((rule) => rule.name.test(name))?.part ?? "border";
}
