/** Passwords that are guessed first, and words that no password may hold, are refused wherever one is chosen. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { commonPasswordFiles, COUNT } from "../tools/common-passwords.mjs";
import { ROOT } from "../tools/say.mjs";
import { admin, assertRefused, name, registered, RIGHT, someone, start, store } from "./support/accounts.mjs";

const LIST = "src/account/common_passwords.txt";
const COMMON = '"password": this password is too common; choose another';
const FORBIDDEN = "this password holds a word that is easy to guess on this site; choose another";

test("the common passwords, and their licence, are as Django ships them", async () => {
  const files = await commonPasswordFiles();
  for (const [path, text] of Object.entries(files)) {
    assert.equal(
      await readFile(join(ROOT, path), "utf8"),
      text,
      `run: node tools/common-passwords.mjs (${path})`,
    );
  }
  assert.match(files["src/account/common_passwords.LICENSE"], /Django Software Foundation/);
});

test("a common password is refused without a call to the store, in whatever case it is written", async () => {
  const common = (await readFile(join(ROOT, LIST), "utf8")).trim().split("\n");
  assert.ok(common.length === COUNT && COUNT >= 3000);
  const wide = (/** @type {string} */ text) =>
    text.replaceAll(/[!-~]/g, (it) => String.fromCharCode(it.charCodeAt(0) + 0xfee0));
  const spellings = [
    (/** @type {string} */ it) => it,
    (/** @type {string} */ it) => it.toUpperCase(),
    (/** @type {string} */ it) => (it[0] ?? "").toUpperCase() + it.slice(1),
    wide,
  ];
  const { calls } = await store.counters.during(async () => {
    // Every eleventh, each in one of the spellings; a unit test looks at all.
    for (const [index, password] of common.filter((_, index) => index % 11 === 0).entries()) {
      const written = spellings[index % spellings.length]?.(password) ?? "";
      const answer = await someone().register(name, written);
      assertRefused(answer, 422, "unprocessable");
      assert.equal(answer.json.detail, COMMON, written);
    }
  });
  assert.equal(calls, 0);
});

test("a password that only begins or ends with a common one is accepted", async () => {
  for (const [index, password] of ["password1 and more", "no password1"].entries()) {
    const answer = await someone().register(`${name} ${index}`, password);
    assert.equal(answer.status, 201, answer.text);
  }
});

test("a forbidden word is in no new password, on every route that takes one", async () => {
  const strict = await start({ settings: { accounts: { forbidden_words: ["Acme", " Ｗerk 7 "] } } });
  // An account from before the setting keeps its password.
  const visitor = (await registered()).clone(strict.url);
  const { user } = await visitor.session();
  const begun = await visitor.tell("POST", `/admin/users/${user.id}/reset`, {}, admin);
  assert.equal(begun.status, 201, begun.text);
  const { token } = begun.json;
  for (const password of ["acme2026!", "correct ACME horse", "ａｃｍｅ horse battery", "im WERK 7 zuhause"]) {
    for (const [path, body, field, headers] of /** @type {[string, object, string, object?][]} */ ([
      ["/register", { username: `${name} b`, password }, "password"],
      ["/password", { current: RIGHT, new: password }, "new"],
      ["/reset", { token, new: password }, "new"],
      ["/admin/users", { username: `${name} c`, password }, "password", admin],
    ])) {
      const answer = await visitor.tell("POST", path, body, /** @type {Record<string, string>} */ (headers));
      assertRefused(answer, 422, "unprocessable");
      assert.equal(answer.json.detail, `"${field}": ${FORBIDDEN}`, `${path} ${password}`);
    }
  }
  // Nothing was done, and the token was not used up.
  for (const [path, body, status] of /** @type {[string, object, number][]} */ ([
    ["/login", { username: name, password: RIGHT }, 200],
    ["/register", { username: `${name} b`, password: "a c m e horse" }, 201],
  ])) {
    const answer = await strict.visitor().tell("POST", path, body);
    assert.equal(answer.status, status, answer.text);
  }
});
