/** If-Match and If-None-Match (RFC 9110 section 13): on reads, on changes, and both at once. */
import assert from "node:assert/strict";
import { after, beforeEach, test } from "node:test";
import { FAST_HASH, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Answer} Answer */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const { store, worker, stop } = await startBoth({
  settings: { password: FAST_HASH, limits: { session: "1000/1m", mint: "", login: "" } },
});
after(stop);

let count = 0;
/** @type {Visitor} */
let visitor;
beforeEach(async () => {
  visitor = worker.visitor();
  assert.equal((await visitor.register(`Ada ${(count += 1)}`, "correct horse")).status, 201);
  await visitor.merge({ a: 1 });
});

/** Both documents that have an ETag. */
const DOCUMENTS = [
  { path: "/auth/session", changed: "/auth/session/data" },
  { path: "/auth/profile", changed: "/auth/profile" },
];

/** @param {string} path @param {Record<string, string>} headers */
const read = (path, headers, method = "GET") => visitor.send(method, path, { headers });

/** @param {string} path @param {Record<string, string>} headers */
const change = (path, headers, one = visitor) =>
  one.send("PATCH", path, {
    headers: { "Content-Type": "application/merge-patch+json", ...headers },
    body: `{"n":${(count += 1)}}`,
  });

/** @param {Answer} answer @param {RegExp} [detail] */
function assertFailed(answer, detail = /\w/) {
  assert.equal(answer.status, 412, answer.text);
  assert.equal(answer.json.code, "precondition_failed");
  assert.match(answer.json.detail, detail);
  assert.deepEqual(answer.setCookies, []);
}

for (const { path, changed } of DOCUMENTS) {
  test(`GET ${path} answers 304 to an If-None-Match that names its ETag, also a weak one`, async () => {
    const full = await visitor.send("GET", path);
    const etag = String(full.headers.get("etag"));
    for (const value of [etag, `W/${etag}`, `"x", ${etag}`, `"x",W/${etag}`, "*", "*, *"]) {
      for (const method of ["GET", "HEAD"]) {
        const { value: answer, calls } = await store.counters.during(() =>
          read(path, { "If-None-Match": value }, method),
        );
        assert.equal(answer.status, 304, value);
        assert.equal(answer.text, "");
        assert.equal(answer.headers.get("etag"), etag);
        assert.equal(answer.headers.get("content-type"), null);
        assert.equal(calls, path === "/auth/session" ? 1 : 2, "what a read costs");
        for (const name of ["cache-control", "vary", "x-content-type-options", "ratelimit-policy"]) {
          assert.equal(answer.headers.get(name), full.headers.get(name), name);
        }
        assert.match(String(answer.headers.get("ratelimit")), /^"session";r=\d+;t=\d+$/);
      }
    }
  });

  test(`GET ${path} answers in full when it has changed, or the tag is another's or has a suffix`, async () => {
    const etag = String((await visitor.send("GET", path)).headers.get("etag"));
    const others = ['"x"', etag.slice(1, -1), `${etag.slice(0, -1)}-gzip"`, `w/${etag}`, '"*"', "", ","];
    for (const value of others) {
      assert.equal((await read(path, { "If-None-Match": value })).status, 200, value);
    }
    assert.equal((await change(changed, {})).status, 200);
    const answer = await read(path, { "If-None-Match": etag });
    assert.equal(answer.status, 200);
    assert.notEqual(answer.headers.get("etag"), etag);
    assert.notEqual(answer.text, "");
  });

  test(`of both conditions on ${path} If-Match is asked first`, async () => {
    const etag = String((await visitor.send("GET", path)).headers.get("etag"));
    for (const [ifMatch, ifNoneMatch, status] of /** @type {[string, string, number][]} */ ([
      [etag, etag, 304],
      [etag, '"x"', 200],
      ["*", "*", 304],
      ['"x"', etag, 412],
      [`W/${etag}`, etag, 412],
    ])) {
      const headers = { "If-Match": ifMatch, "If-None-Match": ifNoneMatch };
      assert.equal((await read(path, headers)).status, status, `${ifMatch} ${ifNoneMatch}`);
      // A change that must not be made is 412 in either case.
      if (status !== 200) assertFailed(await change(changed, headers));
    }
    const made = await change(changed, { "If-Match": etag, "If-None-Match": '"x"' });
    assert.equal(made.status, 200);
  });

  test(`PATCH ${changed} with If-None-Match: * is for what is not there yet`, async () => {
    const before = (await visitor.send("GET", path)).text;
    assertFailed(await change(changed, { "If-None-Match": "*" }), /If-None-Match: \*/);
    const etag = String((await visitor.send("GET", path)).headers.get("etag"));
    for (const tag of [etag, `W/${etag}`]) {
      assertFailed(await change(changed, { "If-None-Match": tag }), /names the current ETag/);
    }
    assert.equal((await visitor.send("GET", path)).text, before);
    assert.equal((await change(changed, { "If-None-Match": '"x"' })).status, 200);
  });

  test(`a tag that a proxy has changed never lets a change of ${changed} pass, and the answer says so`, async () => {
    const etag = String((await visitor.send("GET", path)).headers.get("etag"));
    assertFailed(await change(changed, { "If-Match": `W/${etag}` }), /weak .* a proxy/);
    for (const suffix of ["-gzip", "-br", ";gzip", "--gzip"]) {
      assertFailed(await change(changed, { "If-Match": `${etag.slice(0, -1)}${suffix}"` }), /does not match/);
    }
  });
}

test("without a session If-None-Match: * begins one, and If-Match: * does not", async () => {
  const nobody = worker.visitor();
  for (const value of ["*", '"x"']) {
    const look = await nobody.send("GET", "/auth/session", { headers: { "If-None-Match": value } });
    assert.deepEqual([look.status, look.text], [200, '{"session":null}']);
  }
  assertFailed(await nobody.send("GET", "/auth/session", { headers: { "If-Match": "*" } }), /leave it out/);
  const { value: refused, calls } = await store.counters.during(() =>
    change("/auth/session/data", { "If-Match": "*" }, nobody),
  );
  assertFailed(refused, /nothing yet .* leave it out/);
  assert.equal(calls, 0);
  const begun = await change("/auth/session/data", { "If-None-Match": "*" }, nobody);
  assert.equal(begun.status, 200);
  assert.equal(begun.setCookies.length, 1);
  assertFailed(await change("/auth/session/data", { "If-None-Match": "*" }, nobody));
  await nobody.clone().logout();
  assert.equal(
    (await change("/auth/session/data", { "If-None-Match": "*" }, nobody)).status,
    200,
    "after its end",
  );
});

test("a change that asks for the newest state is made once, however many ask at a time", async () => {
  const etag = String((await visitor.look()).headers.get("etag"));
  const answers = await Promise.all(
    Array.from({ length: 8 }, () => change("/auth/session/data", { "If-Match": etag })),
  );
  assert.deepEqual(answers.map(({ status }) => status).toSorted(), [200, ...Array(7).fill(412)]);
});

test("a read that rotates the id sets its cookie with a 304, too", async () => {
  const etag = String((await visitor.look()).headers.get("etag"));
  for (let step = 0; step < 3; step += 1) {
    await worker.moveClock(21 * 60_000);
    if (step < 2) await visitor.look();
  }
  const { ticket } = visitor;
  const answer = await read("/auth/session", { "If-None-Match": etag });
  assert.equal(answer.status, 304);
  assert.notEqual(visitor.ticket, ticket);
  assert.equal((await visitor.session()).data.a, 1);
});
