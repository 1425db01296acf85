/** The client's types are those of /auth/openapi.json. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { document, resolved, typeOf } from "./support/openapi.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const client = join(root, "client/index.d.ts");
const skip = existsSync(client) ? false : "there is no client/index.d.ts";

/** The client's type, beside the schema that it is of. @type {Record<string, string>} */
const TYPES = {
  User: "User",
  "Omit<Session, 'etag'>": "Session",
  Device: "ListedSession",
  "Operation[]": "JsonPatch",
};

/** @param {string} more  lines behind the types */
async function compiles(more) {
  const folder = await mkdtemp(join(root, "target/client-types-"));
  const lines = [
    `import type { Device, ErrorCode, Operation, Session, User } from ${JSON.stringify(client.replace(/\.d\.ts$/, ".js"))};`,
    "type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;",
    "const same = <A, B>(_: Same<A, B>) => {};",
    more,
  ];
  await writeFile(join(folder, "types.ts"), lines.join("\n"));
  const args = [
    "node_modules/typescript/bin/tsc",
    "--noEmit",
    "--strict",
    "--skipLibCheck",
    "--ignoreConfig",
  ];
  args.push("--module", "nodenext", "--target", "es2023", join(folder, "types.ts"));
  const failure = await promisify(execFile)(process.execPath, args, { cwd: root }).then(
    () => "",
    ({ stdout, stderr }) => `${stdout}${stderr}`,
  );
  await rm(folder, { recursive: true });
  return failure;
}

test("each type is that of its schema, no member more or less", { skip }, async () => {
  const lines = Object.entries(TYPES).map(
    ([type, name]) => `same<${type}, ${typeOf(document.components.schemas[name])}>(true);`,
  );
  assert.equal(await compiles(lines.join("\n")), "");
  assert.match(await compiles("same<User, { id: string; name: string }>(true);"), /is not assignable/);
});

test("every code of an answer is one that the client knows", { skip }, async () => {
  const codes = Object.values(document.components.responses).flatMap(
    (answer) => resolved(answer).content?.["application/problem+json"]?.schema.properties.code.enum ?? [],
  );
  assert.ok(codes.length > 10);
  // An unknown one is let through by a last member that is any string: without it.
  const known =
    "type Known = ErrorCode extends infer C ? (C extends string ? (string extends C ? never : C) : never) : never;";
  const lines = codes.map((code) => `(${JSON.stringify(code)}) satisfies Known;`);
  assert.equal(await compiles([known, ...lines].join("\n")), "");
});
