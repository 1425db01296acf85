/** Refused bodies: malformed, too large, of the wrong type, or a patch that cannot be applied. */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import {
  assertRefused,
  change,
  DATA,
  guest,
  MARK,
  MERGE,
  PATCH,
  stranger,
  worker,
} from "./support/errors.mjs";

const LARGEST_BODY = 256 * 1024;
const LARGEST_DATA = 65_536;

/** @param {number} size */
const paddedTo = (size) => '{"a":1}'.padEnd(size, " ");

describe("400", () => {
  const where = /at line \d+ column \d+/;
  const nested = (/** @type {string} */ before, /** @type {string} */ after) =>
    `{"a":${before.repeat(5000)}1${after.repeat(5000)}}`;
  /** @type {[string, string | Buffer][]} */
  const malformed = [
    ["an empty body", ""],
    ["white space", " \r\n\t "],
    ["an open object", '{"a":1'],
    ["a closing brace too many", '{"a":1}}'],
    ["text after the object", '{"a":1} x'],
    ["two objects", '{"a":1}{"b":2}'],
    ["a trailing comma", '{"a":1,}'],
    ["a comment", '{"a":1/**/}'],
    ["single quotes", "{'a':1}"],
    ["a name without quotes", "{a:1}"],
    ["a byte order mark in the middle", '{"a":\u{feff}1}'],
    ["UTF-16", Buffer.from('{"a":1}', "utf16le")],
    ["bytes that are not UTF-8", Buffer.from('{"a":"\xff\xfe"}', "latin1")],
    ["an overlong encoding", Buffer.from('{"a":"\xc0\xaf"}', "latin1")],
    ["a surrogate in UTF-8", Buffer.from('{"a":"\xed\xa0\x80"}', "latin1")],
    ["half of a surrogate pair", '{"a":"\\ud800"}'],
    ["a line break in a string", '{"a":"\n"}'],
    ["a NUL in a string", '{"a":"\0"}'],
    ["a NUL after the object", '{"a":1}\0'],
    ["NaN", '{"a":NaN}'],
    ["Infinity", '{"a":-Infinity}'],
    ["a number that is too large", '{"a":1e999}'],
    ["a number with a leading zero", '{"a":01}'],
    ["a hexadecimal number", '{"a":0x10}'],
    ["a form", "a=1&b=2"],
    ["5,000 objects inside one another", nested('{"b":', "}")],
    ["5,000 arrays inside one another", nested("[", "]")],
    ["5,000 arrays that are never closed", '{"a":' + "[".repeat(5000)],
  ];
  for (const [name, body] of malformed) {
    test(`${name} is not JSON, and the answer says where`, async () => {
      const visitor = await guest();
      const expected = { status: 400, code: "bad_request", calls: 0 };
      for (const type of ["application/json", MERGE, PATCH]) {
        const { json } = await assertRefused(() => change(visitor, type, body), expected);
        assert.match(json.detail, where);
      }
    });
  }

  test("the parser's own words are not the answer's", async () => {
    const texts = /** @type {[string | Buffer, RegExp][]} */ ([
      ['{"a":"\\ud800"}', /half of a surrogate pair .* line 1 column/],
      ['{"a":"\\ud800\\u0041"}', /half of a surrogate pair .* line 1 column/],
      ['{"a":"\\udc00"}', /half of a surrogate pair .* line 1 column/],
      [nested("[", "]"), /nests too deeply \(at most 127 levels\) at line 1 column/],
      [Buffer.from('{"a":"\xff"}', "latin1"), /is not UTF-8 at line 1 column/],
    ]);
    for (const [body, detail] of texts) {
      const { json } = await change(stranger(), MERGE, body);
      assert.match(json.detail, detail);
      assert.doesNotMatch(json.detail, /recursion|hex escape|code point/);
    }
  });

  test("a byte order mark in front is skipped", async () => {
    for (const type of ["application/json", MERGE]) {
      assert.deepEqual((await change(stranger(), type, '\ufeff{"a":1}')).json.session.data, { a: 1 });
    }
  });

  test("a request without any body is malformed too", async () => {
    const visitor = await guest();
    const act = () => visitor.send("PATCH", DATA, { headers: { "Content-Type": MERGE } });
    await assertRefused(act, { status: 400, code: "bad_request", calls: 0 });
  });

  /** @type {[string, unknown][]} */
  const wrong = [
    [MERGE, [1]],
    [MERGE, "text"],
    [MERGE, 1],
    [MERGE, null],
    [MERGE, true],
    ["application/json", [{ op: "add", path: "/a", value: 1 }]],
    [PATCH, {}],
    [PATCH, { op: "add", path: "/a", value: 1 }],
    [PATCH, null],
    [PATCH, "text"],
    [PATCH, [1]],
    [PATCH, [null]],
    [PATCH, [[]]],
    [PATCH, [{}]],
    [PATCH, [{ path: "/a", value: 1 }]],
    [PATCH, [{ op: "frobnicate", path: "/a" }]],
    [PATCH, [{ op: "ADD", path: "/a", value: 1 }]],
    [PATCH, [{ op: 1, path: "/a", value: 1 }]],
    [PATCH, [{ op: null, path: "/a", value: 1 }]],
    [PATCH, [{ op: "add", value: 1 }]],
    [PATCH, [{ op: "add", path: "/a" }]],
    [PATCH, [{ op: "replace", path: "/a" }]],
    [PATCH, [{ op: "test", path: "/a" }]],
    [PATCH, [{ op: "add", path: 1, value: 1 }]],
    [PATCH, [{ op: "add", path: ["a"], value: 1 }]],
    [PATCH, [{ op: "add", path: "a", value: 1 }]],
    [PATCH, [{ op: "add", path: "#/a", value: 1 }]],
    [PATCH, [{ op: "add", path: "/~", value: 1 }]],
    [PATCH, [{ op: "add", path: "/~2", value: 1 }]],
    [PATCH, [{ op: "remove", path: "views" }]],
    [PATCH, [{ op: "move", path: "/a" }]],
    [PATCH, [{ op: "copy", path: "/a", from: "text" }]],
    [PATCH, [{ op: "move", path: "/a", from: null }]],
    [PATCH, [{ op: "increment", path: "/views" }]],
    [PATCH, [{ op: "increment", path: "/views", value: "1" }]],
    [PATCH, [{ op: "increment", path: "/views", value: null }]],
    [PATCH, [{ op: "increment", path: "/views", value: [1] }]],
    [PATCH, [{ op: "increment", path: "views", value: 1 }]],
    // The first operation is right, the second makes the whole wrong.
    [PATCH, [{ op: "increment", path: "/views", value: 1 }, { op: "frobnicate" }]],
  ];
  for (const [type, body] of wrong) {
    test(`${JSON.stringify(body)} is not a valid ${type}`, async () => {
      const expected = { status: 400, code: "bad_request", calls: 0 };
      await assertRefused(() => change(stranger(), type, JSON.stringify(body)), expected);
      const visitor = await guest();
      await assertRefused(() => change(visitor, type, JSON.stringify(body)), expected);
    });
  }
});

describe("413", () => {
  const tooLarge = /** @type {const} */ ({ status: 413, code: "too_large" });

  test("a body of 256 KiB is accepted, in one piece and in chunks", async () => {
    for (const chunked of [false, true]) {
      const answer = await change(stranger(), MERGE, paddedTo(LARGEST_BODY), chunked);
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.json.session.data, { a: 1 });
    }
  });

  for (const [name, size, chunked] of /** @type {[string, number, boolean][]} */ ([
    ["a byte more, announced", LARGEST_BODY + 1, false],
    ["a byte more, in chunks", LARGEST_BODY + 1, true],
    ["a megabyte, announced", 1 << 20, false],
  ])) {
    test(`${name}, is too large`, async () => {
      const visitor = await guest();
      for (const type of [MERGE, PATCH]) {
        await assertRefused(() => change(visitor, type, paddedTo(size), chunked), { ...tooLarge, calls: 0 });
      }
    });
  }

  for (const [method, path] of [
    ["POST", "/auth/session/rotate"],
    ["DELETE", "/auth/session"],
  ]) {
    test(`${method} ${path} refuses a request over 256 KiB, though it needs no body at all`, async () => {
      const visitor = await guest();
      const act = () => visitor.send(method, path, { body: paddedTo(LARGEST_BODY + 1) });
      await assertRefused(act, { ...tooLarge, calls: 0 });
    });
  }

  /** @param {number} size */
  const dataOf = (size) => ({ a: "x".repeat(size - '{"a":""}'.length) });

  test("data of max_bytes is stored, a byte more is refused and creates no session", async () => {
    assert.equal((await stranger().merge(dataOf(LARGEST_DATA))).status, 200);
    await assertRefused(() => stranger().merge(dataOf(LARGEST_DATA + 1)), { ...tooLarge, calls: 0 });
  });

  test("an existing session stays as it is when a change would make it too large", async () => {
    const visitor = await guest();
    await assertRefused(() => visitor.merge(dataOf(LARGEST_DATA)), { ...tooLarge, calls: 1 });
    const value = "é".repeat(LARGEST_DATA / 2);
    await assertRefused(() => visitor.patch([{ op: "add", path: "/e", value }]), { ...tooLarge, calls: 1 });
    assert.equal((await visitor.increment("/views")).status, 200);
  });

  test("copies of copies are stopped before they fill the memory", async () => {
    const visitor = await guest();
    for (const copy of [
      (/** @type {number} */ n) => ({ op: "copy", from: "", path: `/c${n}` }),
      (/** @type {number} */ n) => ({ op: "copy", from: "/list", path: "/list/0", n }),
    ]) {
      const bomb = Array.from({ length: 200 }, (_, n) => copy(n));
      await assertRefused(() => visitor.patch(bomb), { ...tooLarge, calls: 1 });
      await assertRefused(() => visitor.patch(bomb.concat(bomb)), { ...tooLarge, calls: 1 });
    }
    assert.equal((await visitor.increment("/views")).status, 200);
    assert.doesNotMatch(worker.logs.join(""), /trap/);
  });

  test("1,000 operations are accepted, one more is refused", async () => {
    const visitor = await guest();
    const steps = (/** @type {number} */ length) =>
      Array.from({ length }, () => ({ op: "increment", path: "/views", value: 1 }));
    assert.equal((await visitor.patch(steps(1000))).json.session.data.views, 1001);
    await assertRefused(() => visitor.patch(steps(1001)), { ...tooLarge, calls: 0 });
  });
});

describe("415", () => {
  const types = [
    undefined,
    "",
    "text/plain",
    "text/plain; application/json",
    "text/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/jsonx",
    "application/json, text/plain",
    "application/vnd.api+json",
    "application/json-patch",
    "*/*",
    "application/*",
    "application /json",
    "x".repeat(10_000),
  ];
  for (const type of types) {
    test(`${type === undefined ? "no type at all" : `"${type.slice(0, 40)}"`} is not a media type of a change`, async () => {
      const visitor = await guest();
      /** @type {Record<string, string>} */
      const headers = type === undefined ? {} : { "Content-Type": type };
      for (const someone of [visitor, stranger()]) {
        const act = () => someone.send("PATCH", DATA, { headers, body: '{"a":1}' });
        const expected = { status: 415, code: "unsupported_media_type", calls: 0 };
        const answer = await assertRefused(act, expected);
        assert.equal(
          answer.headers.get("accept-patch"),
          "application/json, application/merge-patch+json, application/json-patch+json",
        );
      }
    });
  }

  test("a body is read uncompressed only, whatever the route, and the answer says so", async () => {
    const body = gzipSync('{"a":1}');
    const encodings = [
      "gzip",
      "GZIP",
      "x-gzip",
      "br",
      "deflate",
      "zstd",
      "identity, gzip",
      "gzip, gzip",
      "gzip,",
      "aes128gcm",
    ];
    for (const encoding of encodings) {
      const visitor = await guest();
      const headers = { "Content-Type": MERGE, "Content-Encoding": encoding };
      for (const [method, path] of [
        ["PATCH", DATA],
        ["PATCH", "/auth/profile"],
        ["POST", "/auth/login"],
        ["POST", "/auth/session/rotate"],
        ["DELETE", "/auth/session"],
      ]) {
        const act = () => visitor.send(method, path, { headers, body });
        const answer = await assertRefused(act, { status: 415, code: "unsupported_media_type", calls: 0 });
        assert.equal(answer.headers.get("accept-encoding"), "identity");
        assert.match(answer.json.detail, /Content-Encoding/);
      }
    }
  });

  test("identity is no encoding, and without a body none matters", async () => {
    for (const encoding of ["identity", "Identity", "identity, identity", ""]) {
      const headers = { "Content-Type": MERGE, "Content-Encoding": encoding };
      const answer = await stranger().send("PATCH", DATA, { headers, body: '{"a":1}' });
      assert.equal(answer.status, 200, encoding);
    }
    const visitor = await guest();
    const headers = { "Content-Encoding": "gzip" };
    assert.equal((await visitor.send("GET", "/auth/session", { headers })).status, 200);
    assert.equal((await visitor.send("DELETE", "/auth/session", { headers })).status, 204);
  });

  test("media types are compared without case and parameters", async () => {
    for (const type of [
      "Application/JSON",
      "application/merge-patch+json;charset=latin1",
      "application/json ; a=b",
    ]) {
      assert.equal((await change(stranger(), type, '{"a":1}')).status, 200);
    }
  });
});

describe("422", () => {
  const inapplicable = [
    { op: "test", path: "/views", value: 2 },
    { op: "test", path: "/views", value: "1" },
    { op: "test", path: "/missing", value: null },
    { op: "remove", path: "/missing" },
    { op: "remove", path: "" },
    { op: "remove", path: "/list/-" },
    { op: "replace", path: "/missing", value: 1 },
    { op: "replace", path: "", value: [1] },
    { op: "replace", path: "", value: null },
    { op: "add", path: "/missing/a", value: 1 },
    { op: "add", path: "/text/a", value: 1 },
    { op: "add", path: "/list/2", value: 1 },
    { op: "add", path: "/list/01", value: 1 },
    { op: "add", path: "/list/-1", value: 1 },
    { op: "add", path: "/list/x", value: 1 },
    { op: "add", path: "/list/99999999999999999999", value: 1 },
    { op: "add", path: "", value: "text" },
    { op: "move", from: "/missing", path: "/a" },
    { op: "move", from: "/list", path: "/list/0" },
    { op: "move", from: "", path: "/a" },
    { op: "copy", from: "/missing", path: "/a" },
    { op: "copy", from: "/list/1", path: "/a" },
    { op: "increment", path: "/text", value: 1 },
    { op: "increment", path: "/list", value: 1 },
    { op: "increment", path: "", value: 1 },
    { op: "increment", path: "/missing/views", value: 1 },
    { op: "increment", path: "/list/1", value: 1 },
    { op: "increment", path: "/list/-", value: 1 },
    { op: "increment", path: "/views/x", value: 1 },
  ];
  for (const operation of inapplicable) {
    test(`${JSON.stringify(operation)} cannot be applied, and nor is the rest of its patch`, async () => {
      const visitor = await guest();
      const etag = (await visitor.look()).headers.get("etag");
      const first = { op: "add", path: "/new", value: true };
      const last = { op: "increment", path: "/views", value: 100 };
      const expected = { status: 422, code: "unprocessable", calls: 1 };
      for (const patch of [[operation], [first, operation], [first, last, operation, last]]) {
        await assertRefused(() => visitor.patch(patch), expected);
      }
      assert.equal((await visitor.look()).headers.get("etag"), etag);
    });
  }

  test("what is missing is named, with what to do", async () => {
    const visitor = await guest();
    for (const [operation, detail] of /** @type {[object, string][]} */ ([
      [
        { op: "add", path: "/cart/-", value: 1 },
        "there is nothing at /cart; add an object or an array there first",
      ],
      [{ op: "replace", path: "/cart", value: 1 }, "there is nothing at /cart"],
      [{ op: "remove", path: "/cart/0" }, "there is nothing at /cart/0"],
      [{ op: "test", path: "/cart", value: 1 }, "there is nothing at /cart"],
      [{ op: "add", path: "/text/a", value: 1 }, "the value at /text is not an object or an array"],
      [
        { op: "increment", path: "/cart/tea", value: 1 },
        "there is nothing at /cart; add an object there first",
      ],
      [{ op: "increment", path: "/text", value: 1 }, "the value at /text is not a number"],
    ])) {
      const { status, json } = await visitor.patch([operation]);
      assert.equal(status, 422);
      assert.equal(json.detail.replace(/^operation 0 \("\w+"\): /, ""), detail);
    }
  });

  test("sums that no number can hold are refused, not rounded", async () => {
    const visitor = await guest();
    await change(visitor, MERGE, '{"big":18446744073709551615,"small":-9223372036854775808,"huge":1e308}');
    for (const [path, value] of [
      ["/big", "1"],
      ["/small", "-1"],
      ["/huge", "1e308"],
    ]) {
      const patch = `[{"op":"increment","path":"${path}","value":${value}}]`;
      await assertRefused(() => change(visitor, PATCH, patch), {
        status: 422,
        code: "unprocessable",
        calls: 1,
      });
    }
  });

  test("a patch that cannot be applied to empty data creates no session", async () => {
    const act = () => stranger().patch([{ op: "test", path: "/views", value: 1 }]);
    await assertRefused(act, { status: 422, code: "unprocessable", calls: 0 });
  });

  test("a patch may not nest deeper than the data can be read again", async () => {
    const visitor = await guest();
    const deep = '{"a":'.repeat(120) + "1" + "}".repeat(120);
    await assertRefused(() => change(visitor, MERGE, deep), { status: 422, code: "unprocessable" });
    assert.equal((await visitor.session()).data.mark, MARK);
  });

  test("equal numbers pass a test operation, however they are written (RFC 6902 section 4.6)", async () => {
    const visitor = await guest();
    for (const one of ["1", "1.0", "1e0", "10e-1"]) {
      const answer = await change(visitor, PATCH, `[{"op":"test","path":"/views","value":${one}}]`);
      assert.equal(answer.status, 200, `${one}: ${answer.text}`);
    }
  });
});
