/** Records under Express' keys that are none of Express', or too large: said so, kept as they are, ended on request. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { createHmac } from "node:crypto";
import { json, ok, PASSWORD, refused, startBeside } from "./support/express.mjs";
import { SECRET } from "./support/express-app.mjs";
import { NAME, sign } from "./support/express-cookies.mjs";
import { until } from "./support/worker.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */
/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const MAX_BYTES = 2000;
const MARK = "do not tell anybody";

/** @type {Beside} */
let both;
before(async () => {
  both = await startBeside({ worker: { settings: { session: { max_bytes: MAX_BYTES } } } });
});
after(() => both?.stop());

let number = 0;
/** An id that no other test has. */
let sid = "";
let key = "";
/** A visitor of the Worker with a good cookie of that id. @type {Visitor} */
let visitor;
beforeEach(() => {
  number += 1;
  sid = `a-rather-secret-id-${number}`;
  key = `sess:${sid}`;
  visitor = both.worker.visitor();
  visitor.cookies.set(NAME, encodeURIComponent(`s:${sign(sid, SECRET)}`));
});

/** @param {string | Buffer} bytes */
const put = (bytes) => both.store.redis.sendCommand(["SET", key, /** @type {any} */ (bytes), "EX", "1000"]);

/** The record as it stands in the store, byte by byte. */
const stored = async () => {
  const hex = await both.store.redis.eval(
    "local v = redis.call('GET', KEYS[1]); return v and (v:gsub('.', function(c) return string.format('%02x', c:byte()) end))",
    { keys: [key], arguments: [] },
  );
  return hex === null ? null : Buffer.from(String(hex), "hex");
};

/** What a visitor can do, but end the session. @type {Record<string, () => Promise<import("./support/visitor.mjs").Answer>>} */
const REQUESTS = {
  "GET /auth/session": () => visitor.look(),
  "GET /auth/verify": () => visitor.send("GET", "/auth/verify"),
  "a merge patch": () => visitor.merge({ a: 1 }),
  "a JSON patch of the whole": () => visitor.patch([{ op: "add", path: "", value: {} }]),
  "POST /auth/session/rotate": () => visitor.rotate(),
};

const UNREADABLE = /** @type {Record<string, string | Buffer>} */ ({
  "text that is no JSON": `${MARK}, this is no JSON`,
  "an empty text": "",
  "JSON that ends in the middle": `{"cookie":{"originalMaxAge":null},"userId":"${MARK}`,
  "JSON with more behind it": `{"cookie":{}} ${MARK}`,
  "a list": `[{"cookie":{}},"${MARK}"]`,
  "a text": `"${MARK}"`,
  "a number": "5",
  null: "null",
  "an object without a cookie": `{"userId":"${MARK}"}`,
  "an object whose cookie is null": `{"cookie":null,"userId":"${MARK}"}`,
  "an object whose cookie is a number": `{"cookie":5,"userId":"${MARK}"}`,
  "Flask's msgpack": Buffer.from([0x82, 0xaa, ...Buffer.from("_permanent"), 0xc3, 0xa1, 0x61, 0x01]),
  "a pickle": Buffer.from("80049511000000000000007d948c0a5f7065726d616e656e749488732e", "hex"),
  "what is encrypted by an application's own serializer": Buffer.from(
    createHmac("sha512", "x").update("y").digest(),
  ),
});

for (const [what, bytes] of Object.entries(UNREADABLE)) {
  describe(`a record of ${what}`, () => {
    for (const [name, send] of Object.entries(REQUESTS)) {
      test(`${name}: an error that says nothing of it, and it stays as it is`, async () => {
        await put(bytes);
        const logged = both.worker.logs.length;
        const answer = await refused(send(), 500, "internal");
        assert.deepEqual(answer.setCookies, []);
        assert.doesNotMatch(answer.text, new RegExp(`${sid}|${MARK}`));
        assert.deepEqual(await stored(), Buffer.from(bytes));
        assert.ok((await both.store.redis.pTTL(key)) > 900_000);
        const log = () => both.worker.logs.slice(logged).join("");
        await until(() => log() !== "", log);
        assert.doesNotMatch(log(), new RegExp(`${sid}|${MARK}`));
      });
    }

    test("a login goes through, under another id, and leaves it; a logout removes it", async () => {
      await put(bytes);
      const cookie = String(visitor.cookies.get(NAME));
      assert.deepEqual(
        (await ok(visitor.register(`Ada ${number}`, PASSWORD), 201)).user.name,
        `Ada ${number}`,
      );
      assert.notEqual(visitor.cookies.get(NAME), cookie);
      assert.deepEqual(await stored(), Buffer.from(bytes));
      visitor.cookies.set(NAME, cookie);
      await ok(visitor.logout(), 204);
      assert.equal(await stored(), null);
      assert.equal(visitor.cookies.has(NAME), false);
    });
  });
}

test("the log names an unreadable record by its public name, and says what can be done", async () => {
  await put(`{"cookie":{},"userId":"${MARK}"}`);
  const { handle } = await ok(visitor.look());
  await put("not JSON");
  const logged = both.worker.logs.length;
  await refused(visitor.look(), 500, "internal");
  const log = () => both.worker.logs.slice(logged).join("");
  await until(() => log().includes(handle), log);
});

test("bytes in it that are no text are shown as replaced, as Express sees them, and never overwritten", async () => {
  const bytes = Buffer.concat([
    Buffer.from('{"cookie":{},"x":"'),
    Buffer.from([0xff, 0xc3]),
    Buffer.from('"}'),
  ]);
  await put(bytes);
  const atExpress = both.app.visitor();
  atExpress.cookies = visitor.cookies;
  const { data } = await ok(visitor.look());
  assert.deepEqual((await ok(atExpress.send("GET", "/session"))).data.x, data.x);
  const answer = await visitor.merge({ a: 1 });
  assert.ok(answer.status >= 400, answer.text);
  assert.deepEqual(await stored(), bytes);
});

describe("what JavaScript's JSON holds and others' hardly", () => {
  const [open, close] = ["[".repeat(200), "]".repeat(200)];
  for (const { what, text } of [
    { what: "a text that is cut in the middle of an emoji", text: '{"cookie":{},"x":"cut \\ud83e"}' },
    { what: "200 levels of nesting", text: `{"cookie":{},"x":${open}${close}}` },
  ]) {
    test(`${what}: it is read, no change is made to it, and a login goes through without it`, async () => {
      await put(text);
      await ok(visitor.look());
      const { status, json } = await visitor.merge({ added: 1 });
      assert.deepEqual([status, json.code], [500, "internal"]);
      assert.equal(String(await stored()), text);
      const { data } = await ok(visitor.register(`Bob ${number}`, PASSWORD), 201);
      assert.deepEqual(Object.keys(data), ["userId"]);
    });
  }

  for (const { what, text } of [
    { what: "half an emoji among the cookie's attributes", text: '{"cookie":{"x":"\\udc00"},"x":1}' },
    { what: "a name twice", text: '{"cookie":{},"x":1,"x":2}' },
  ]) {
    test(`${what}: it is read, a change of something else leaves it, and a login goes through`, async () => {
      await put(text);
      await ok(visitor.look());
      await ok(visitor.merge({ added: 1 }));
      const { x, cookie, added } = JSON.parse(String(await stored()));
      assert.deepEqual([x, cookie, added], [JSON.parse(text).x, JSON.parse(text).cookie, 1]);
      await ok(visitor.register(`Bob ${number}`, PASSWORD), 201);
    });
  }

  for (const depth of [200, 20_000]) {
    test(`${depth} levels of nesting trap nothing`, async () => {
      await put(`{"cookie":{},"x":${"[".repeat(depth)}${"]".repeat(depth)}}`);
      for (const send of Object.values(REQUESTS)) assert.ok((await send()).status <= 500);
      await ok(both.worker.visitor().look());
      assert.doesNotMatch(both.worker.logs.join(""), /unreachable|RuntimeError|overflow/);
    });
  }
});

test("a key of another kind under the id is never overwritten", async () => {
  await both.store.redis.hSet(key, "field", MARK);
  for (const send of Object.values(REQUESTS)) {
    const { status, text } = await send();
    assert.ok(status === 500 || status === 200 || status === 401 || status === 503, text);
    assert.equal(await both.store.redis.hGet(key, "field"), MARK);
    // A change may have begun a session under another id.
    visitor.cookies.set(NAME, encodeURIComponent(`s:${sign(sid, SECRET)}`));
  }
});

describe("a record larger than session.max_bytes", () => {
  const large = () => JSON.stringify({ cookie: {}, text: "x".repeat(MAX_BYTES), userId: "ann" });

  test("is changed by nobody but Express, and ended on request", async () => {
    await put(large());
    for (const [name, send] of Object.entries(REQUESTS)) {
      const answer = await send();
      assert.equal(answer.status, 422, `${name}: ${answer.text}`);
      assert.equal(answer.json.code, "unprocessable");
      assert.deepEqual(answer.setCookies, []);
      assert.deepEqual(await stored(), Buffer.from(large()));
    }
    await ok(visitor.logout(), 204);
    assert.equal(await stored(), null);
  });

  test("is read again as soon as Express has made it smaller", async () => {
    await put(large());
    const atExpress = both.app.visitor();
    atExpress.cookies = visitor.cookies;
    assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");
    await refused(visitor.look(), 422, "unprocessable");
    await ok(atExpress.send("PUT", "/session", json({ text: "" })));
    assert.equal((await ok(visitor.look())).user.id, "ann");
  });

  test("is not made by a change either", async () => {
    await put(JSON.stringify({ cookie: {}, text: "x".repeat(MAX_BYTES - 200) }));
    const before = await stored();
    await refused(visitor.merge({ more: "x".repeat(400) }), 413, "too_large");
    assert.deepEqual(await stored(), before);
  });
});

test("an isolate with the wrong record_prefix finds nothing, and overwrites nothing", async () => {
  await put(JSON.stringify({ cookie: {}, userId: "ann" }));
  const before = await stored();
  const wrong = await both.startWorker({ cookie: { record_prefix: "other:" } });
  visitor.url = wrong.url;
  assert.equal(await visitor.session(), null);
  await ok(visitor.merge({ a: 1 }));
  assert.deepEqual(await stored(), before);
});
