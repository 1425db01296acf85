/** The document of the routes, and whether an answer is one that it describes. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";

/** @typedef {import("./visitor.mjs").Answer} Answer */
/** @typedef {{ method: string, path: string, operation: any, pattern: RegExp }} Operation */

const file = new URL("../../src/openapi.json", import.meta.url);
/** As the repository holds it. */
export const document = JSON.parse(await readFile(file, "utf8"));

/** @type {Operation[]} */
export const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
  Object.entries(methods).map(([method, operation]) => ({
    method: method.toUpperCase(),
    path,
    operation,
    pattern: new RegExp(`^${path.replace("{path}", ".+").replace(/\{\w+\}/g, "[^/]+")}$`),
  })),
);

/** Of HTTP and of the browser's, not of a route. */
const OF_HTTP =
  /^(content-(type|length)|date|connection|keep-alive|transfer-encoding|access-control-.*|x-content-type-options)$/;

// Both are CommonJS whose types name a default that Node does not give.
const ajv = new Ajv2020({ strict: false, allErrors: true, coerceTypes: false });
/** @type {any} */ (formats)(ajv);
/** @type {Map<string, import("ajv").ValidateFunction>} */
const compiled = new Map();

/** @param {any} value @returns {any} what a reference leads to */
export function resolved(value) {
  if (!value?.$ref) return value;
  const { $ref, ...own } = value;
  const path = $ref.slice(2).split("/");
  const found = resolved(
    path.reduce((/** @type {any} */ inside, /** @type {string} */ name) => inside?.[name], document),
  );
  assert.ok(found, `${$ref} leads nowhere`);
  if (!found.properties) return { ...found, ...own };
  return {
    ...found,
    ...own,
    properties: { ...found.properties, ...own.properties },
    required: [...(found.required ?? []), ...(own.required ?? [])],
  };
}

/** A schema without references, to which a member that it does not name is one too many. @param {any} schema @returns {any} */
function closed(schema) {
  if (Array.isArray(schema)) return schema.map(closed);
  if (!schema || typeof schema !== "object") return schema;
  const { properties, ...rest } = resolved(schema);
  const inside = Object.fromEntries(Object.entries(rest).map(([name, value]) => [name, closed(value)]));
  if (!properties) return inside;
  const members = Object.entries(properties).map(([name, value]) => [name, closed(value)]);
  return { additionalProperties: false, ...inside, properties: Object.fromEntries(members) };
}

/** @param {any} schema @param {unknown} value @param {string} what */
function assertValid(schema, value, what) {
  const key = JSON.stringify(schema);
  const validate = compiled.get(key) ?? ajv.compile(closed(schema));
  compiled.set(key, validate);
  assert.ok(validate(value), `${what}: ${ajv.errorsText(validate.errors)} in ${JSON.stringify(value)}`);
}

/**
 * Fails unless the document describes this answer, to the last header and member.
 * @param {string} method
 * @param {string} path  below the base path
 * @param {Answer} answer
 * @returns {string} which of the described answers it is
 */
export function assertDescribed(method, path, answer) {
  const [bare = ""] = path.split("?");
  const found = operations
    .filter((one) => one.method === method && one.pattern.test(bare))
    .sort((a, b) => a.path.split("{").length - b.path.split("{").length)[0];
  assert.ok(found, `${method} ${path} is not described`);
  const which = `${method} ${found.path} ${answer.status}`;
  const described = resolved(found.operation.responses[answer.status]);
  assert.ok(described, `${which} is not described: ${answer.text}`);

  const [type = ""] = (answer.headers.get("content-type") ?? "").split(";");
  if (answer.text === "") assert.equal(described.content, undefined, `${which} has no body`);
  else {
    const content = described.content?.[type];
    assert.ok(content, `${which}: ${type} is not described`);
    assertValid(content.schema, answer.json, which);
  }

  /** @type {Record<string, any>} */
  const headers = Object.fromEntries(
    Object.entries(described.headers ?? {}).map(([name, header]) => [name.toLowerCase(), resolved(header)]),
  );
  for (const [name, value] of answer.headers) {
    if (OF_HTTP.test(name)) continue;
    const header = headers[name];
    assert.ok(header, `${which}: the header ${name} is not described`);
    assertValid(header.schema, header.schema.type === "integer" ? Number(value) : value, `${which}, ${name}`);
  }
  for (const [name, { required }] of Object.entries(headers)) {
    if (required) assert.ok(answer.headers.has(name), `${which}: the header ${name} is missing`);
  }
  return which;
}

/** A schema as TypeScript has it. @param {any} given @returns {string} */
export function typeOf(given) {
  const schema = resolved(given);
  const choices = schema.anyOf ?? schema.oneOf;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((/** @type {unknown} */ one) => JSON.stringify(one)).join(" | ");
  if (choices) return choices.map(typeOf).join(" | ");
  if (schema.properties) {
    const members = Object.entries(schema.properties).map(
      ([name, member]) => `${name}${schema.required?.includes(name) ? "" : "?"}: ${typeOf(member)}`,
    );
    return `{ ${members.join("; ")} }`;
  }
  if (schema.items) return `(${typeOf(schema.items)})[]`;
  /** @type {Record<string, string>} */
  const names = { integer: "number", object: "Record<string, unknown>" };
  return [schema.type ?? "unknown"]
    .flat()
    .map((type) => names[type] ?? type)
    .join(" | ");
}
