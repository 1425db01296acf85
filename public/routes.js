/** Draws openapi.json: each route with its parameters, body and answers. */

import { BASE } from "./base.js";
import { byId, make, tell } from "./dom.js";

/** @typedef {any} Json  a part of the document */

const METHODS = ["get", "head", "post", "put", "patch", "delete", "options", "trace"];

/** What a status means without a code to say it. @type {Record<string, string>} */
const MEANING = { 200: "done", 201: "made", 204: "done, no body", 304: "not changed, no body" };

/** Who may call, by the name of the security scheme. @type {Record<string, string>} */
const WHO = {
  cookie: "a session",
  ticket: "a session, as a bearer ticket",
  admin: "a back end, with the admin token",
};

/** @type {HTMLAnchorElement} */ (byId("document")).href = `${BASE}/openapi.json`;
void draw();

async function draw() {
  try {
    const response = await fetch(`${BASE}/openapi.json`, { signal: AbortSignal.timeout(15_000) });
    if (!response.ok) throw new Error(`it answered ${response.status}`);
    const found = await response.json();
    const routes = Object.keys(found.paths)
      .sort()
      .flatMap((path) => routesOf(found, path));
    tell("said", `${routes.length} routes`);
    byId("routes").append(...routes);
  } catch (error) {
    tell("said", `The Worker's document could not be read: ${/** @type {Error} */ (error).message}.`, "bad");
  }
  byId("routes").ariaBusy = "false";
}

/** @param {Json} found  @param {string} path */
function routesOf(found, path) {
  const base = found.servers[0].url.replace(/\/$/, "");
  const item = found.paths[path];
  return METHODS.filter((method) => method in item).map((method) => {
    const { summary, operationId, ...operation } = item[method];
    const words =
      summary ??
      (operationId ?? "").replace(/[A-Z]/g, (/** @type {string} */ one) => ` ${one.toLowerCase()}`);
    const name = make(
      "h2",
      "",
      make("span", "method", method.toUpperCase()),
      " ",
      make("code", "", base + path),
    );
    const head = make("summary", "", name, " ", make("span", "words", words));
    const route = make("details", "route", head);
    // Most are never opened.
    route.addEventListener("toggle", () => route.append(inside(found, operation)), { once: true });
    return route;
  });
}

/** @param {Json} found  @param {Json} operation */
function inside(found, operation) {
  const place = make("div", "inside");
  place.append(make("h3", "", "Who"), make("p", "", whoOf(operation.security ?? found.security)));
  const parameters = (operation.parameters ?? []).map((/** @type {Json} */ one) => resolved(found, one));
  if (parameters.length) {
    const rows = parameters.map((/** @type {Json} */ one) => [one.name, one.in, text(found, one.schema)]);
    place.append(make("h3", "", "Parameters"), table(["Name", "Where", "What"], rows));
  }
  for (const [type, { schema }] of Object.entries(
    /** @type {Json} */ (operation.requestBody?.content ?? {}),
  )) {
    place.append(make("h3", "", `Body, ${type}`), pre(text(found, schema)));
  }
  const answers = Object.entries(operation.responses).map(([status, answer]) => {
    const { headers = {}, content = {} } = resolved(found, answer);
    const [first] = Object.values(content);
    const codes = first?.schema.properties?.code?.enum?.join(", ");
    return [status, codes ?? MEANING[status] ?? "", Object.keys(headers).join(", ")];
  });
  place.append(make("h3", "", "Answers"), table(["Status", "What", "Headers"], answers));
  for (const [status, answer] of Object.entries(operation.responses)) {
    const json = resolved(found, answer).content?.["application/json"];
    if (json) place.append(make("h3", "", `Body of ${status}`), pre(text(found, json.schema)));
  }
  return place;
}

/** @param {Json[]} security */
function whoOf(security) {
  if (!security.length) return "anybody";
  const names = security.map(
    (one) =>
      Object.keys(one)
        .map((name) => WHO[name])
        .join(" and ") || "anybody",
  );
  return names.join(", or ");
}

/** @param {Json} found  @param {Json} value @returns {Json} */
function resolved(found, value) {
  if (!value?.$ref) return value;
  const { $ref, ...own } = value;
  const target = $ref
    .slice(2)
    .split("/")
    .reduce((/** @type {Json} */ at, /** @type {string} */ name) => at[name], found);
  const { properties, ...rest } = resolved(found, target);
  return { ...rest, ...own, ...(properties ? { properties: { ...properties, ...own.properties } } : {}) };
}

/** A schema in the manner of an example: members with what they hold. @param {Json} found  @param {Json} schema */
const text = (found, schema) => kind(found, schema, "");

/** @param {Json} found  @param {Json} given  @param {string} indent @returns {string} */
function kind(found, given, indent) {
  const schema = resolved(found, given);
  const choices = schema.anyOf ?? schema.oneOf;
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((/** @type {Json} */ one) => JSON.stringify(one)).join(" | ");
  if (choices) return choices.map((/** @type {Json} */ one) => kind(found, one, indent)).join(" | ");
  if (schema.properties) {
    const deeper = `${indent}  `;
    const required = new Set(schema.required ?? []);
    const members = Object.entries(schema.properties).map(
      ([name, member]) => `${deeper}${name}${required.has(name) ? "" : "?"}: ${kind(found, member, deeper)}`,
    );
    return `{\n${members.join("\n")}\n${indent}}`;
  }
  if (schema.items) return `[ ${kind(found, schema.items, indent)} … ]${limits(schema)}`;
  const types = [schema.format ?? schema.type ?? "anything"].flat();
  return types.join(" | ") + limits(schema);
}

/** @param {Json} schema */
function limits({ minLength, maxLength, maxItems, pattern, description }) {
  const said = [
    minLength && `at least ${minLength}`,
    maxLength && `at most ${maxLength}`,
    maxItems && `at most ${maxItems}`,
    pattern && `like ${pattern}`,
    description,
  ].filter(Boolean);
  return said.length ? ` (${said.join(", ")})` : "";
}

/** @param {string[]} heads  @param {string[][]} rows */
function table(heads, rows) {
  const place = make("table", "");
  const row = (/** @type {string[]} */ cells, /** @type {"th" | "td"} */ tag) =>
    make("tr", "", ...cells.map((cell) => make(tag, "", cell)));
  place.append(
    make("thead", "", row(heads, "th")),
    make("tbody", "", ...rows.map((cells) => row(cells, "td"))),
  );
  return place;
}

/** @param {string} content */
const pre = (content) => make("pre", "", content);
