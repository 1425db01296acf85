/** Values in sessions of a Flask application that JSON lacks: shown as well as it can, and kept to the byte. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startBeside } from "./support/flask-app.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */

/** What the application puts at /special, as JSON shows it. */
const SHOWN = {
  bytes: "AP/+",
  "no bytes": "",
  bytearray: "YWJj",
  "before 1970": "1901-02-03T04:05:06.000007Z",
  naive: "2026-01-02T03:04:05",
  date: "2026-01-02",
  time: "03:04:05",
  duration: "PT90S",
  uuid: "12345678-1234-5678-1234-567812345678",
  decimal: "1.50",
  "huge float": 1e300,
  tuple: [1, 2],
  unicode: "ünï\u0000cödé 🧥 \u2028",
  nested: { list: [null, true, { deep: ["eA==", { deeper: 1.5 }] }] },
  "": "a name that is empty",
  "a/b~c": "a name that a pointer must escape",
};
/** Dates have their own spelling in each. */
const DATES = {
  aware: "2026-01-02T03:04:05.678901Z",
  "aware elsewhere": "2026-01-01T21:34:05Z",
};

/** Makes the numbers of a JSON text into text, so that none is rounded. @param {string} text */
const exactly = (text) =>
  JSON.parse(
    text.replace(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g, (token) => (token[0] === '"' ? token : `"${token}"`)),
  );

for (const serializer of /** @type {const} */ (["msgpack", "json"])) {
  describe(`with ${serializer}`, () => {
    /** @type {Beside} */
    let both;
    before(async () => {
      both = await startBeside({ flask: { SESSION_SERIALIZATION_FORMAT: serializer } });
    });
    after(() => both?.stop());

    async function special() {
      const visitor = both.visitor();
      assert.equal((await visitor.app.send("POST", "/test/special")).status, 204);
      return visitor;
    }

    test("what the application wrote is shown as JSON can", async () => {
      const visitor = await special();
      const { json, text } = await visitor.edge.look();
      const { special: values, floats } = json.session.data;
      for (const [name, value] of Object.entries(SHOWN)) assert.deepEqual(values[name], value, name);
      for (const [name, value] of Object.entries(DATES)) {
        const shown = values[name];
        assert.equal(Date.parse(shown), Date.parse(value), name);
        assert.match(shown, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/, name);
      }
      const numbers = exactly(text).session.data.special;
      assert.deepEqual(
        [numbers.large, numbers.largest, numbers.smallest],
        ["9007199254740993", "18446744073709551615", "-9223372036854775808"],
      );
      // The last day that Python has is one too many, and shown as its bytes.
      assert.match(values.far, serializer === "json" ? /^9999-12-31T23:59:59.999999Z$/ : /^[\w+/]{16}$/);
      if (serializer === "json") assert.deepEqual(Object.values(floats), [null, null, null]);
      assert.deepEqual(Object.keys(floats), ["infinity", "minus infinity", "not a number"]);
    });

    test("a change of something else keeps all of it, to the byte", async () => {
      const visitor = await special();
      const before = await visitor.python();
      const record = await both.bytesOf(visitor.key());
      for (const change of [
        () => visitor.edge.merge({ note: 1 }),
        () => visitor.edge.patch([{ op: "add", path: "/list", value: [{ a: 1.0 }] }]),
        () => visitor.edge.increment("/views"),
        () => visitor.edge.rotate(),
        () => visitor.edge.merge({ note: null, list: null, views: null }),
      ]) {
        assert.equal((await change()).status, 200);
      }
      assert.equal((await visitor.python()).data, before.data);
      const after = await both.bytesOf(visitor.key());
      if (serializer === "msgpack") assert.deepEqual(after, record, "to the byte");
    });

    test("what is beside it in the same object can be changed", async () => {
      const visitor = await special();
      const before = (await visitor.python()).data;
      assert.equal((await visitor.edge.merge({ special: { note: { a: [1] } } })).status, 200);
      assert.equal(
        (await visitor.edge.patch([{ op: "add", path: "/special/nested/list/2/deep/-", value: "y" }])).status,
        200,
      );
      const undo = [
        { op: "remove", path: "/special/nested/list/2/deep/2" },
        { op: "remove", path: "/special/note" },
      ];
      const { data } = await visitor.python();
      assert.match(data, /'note': {'a': \[1\]}/);
      assert.match(data, serializer === "msgpack" ? /\[b'x', {'deeper': 1.5}, 'y'\]/ : /'y'\]/);
      assert.equal((await visitor.edge.patch(undo)).status, 200);
      assert.equal((await visitor.python()).data, before);
    });

    test("what JSON can show as it is can be changed as well", async () => {
      const visitor = await special();
      const patch = { special: { "": "now", decimal: "2.50", "whole float": 2.5, large: 5, tuple: [3] } };
      assert.equal((await visitor.edge.merge(patch)).status, 200);
      const { data } = await visitor.python();
      for (const part of [
        "'': 'now'",
        "'decimal': '2.50'",
        "'whole float': 2.5",
        "'large': 5,",
        "'tuple': [3]",
      ]) {
        assert.ok(data.includes(part), part);
      }
    });

    test("numbers that a visitor writes are Python's to the digit", async () => {
      const visitor = await special();
      const text = '{"n":[9007199254740993,18446744073709551615,-9223372036854775808,1.5,-0.0,1e300,0,-1]}';
      const { status } = await visitor.edge.send("PATCH", "/auth/session/data", {
        headers: { "Content-Type": "application/merge-patch+json" },
        body: text,
      });
      assert.equal(status, 200);
      assert.match(
        (await visitor.python()).data,
        /'n': \[9007199254740993, 18446744073709551615, -9223372036854775808, 1.5, -0.0, 1e\+300, 0, -1\]/,
      );
    });

    test("what is odd can be removed", async () => {
      const visitor = await special();
      const names = ["special", "floats", ...(serializer === "msgpack" ? ["keys", "extension"] : [])];
      assert.equal(
        (await visitor.edge.merge(Object.fromEntries(names.map((name) => [name, null])))).status,
        200,
      );
      assert.match((await visitor.python()).data, /^{'_permanent': True}$/);
    });
  });
}

describe("what msgpack has and JSON lacks", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside();
  });
  after(() => both?.stop());

  /** @param {string} path @param {unknown} value */
  const replace = (path, value) => [{ op: "replace", path, value }];

  for (const [what, patch] of /** @type {[string, unknown[]][]} */ ([
    ["bytes replaced", replace("/special/bytes", "AAAA")],
    ["a date replaced", replace("/special/aware", "2026-01-02T03:04:05Z")],
    ["a float that is no number replaced", replace("/floats/not a number", 1)],
    ["an extension replaced", replace("/extension", 1)],
    ["bytes in a list replaced", replace("/special/nested/list/2/deep/0", "x")],
    ["a list with bytes replaced", replace("/special/nested/list", [1])],
    ["a name put beside names that are no text", [{ op: "add", path: "/keys/whole/new", value: "x" }]],
  ])) {
    test(`is not changed into something else: ${what}`, async () => {
      const visitor = both.visitor();
      await visitor.app.send("POST", "/test/special");
      const [record, { data }] = [await both.bytesOf(visitor.key()), await visitor.python()];
      const { status, json } = await visitor.edge.patch(patch);
      assert.deepEqual([status, json.code], [422, "unprocessable"], what);
      assert.deepEqual(await both.bytesOf(visitor.key()), record);
      assert.equal((await visitor.python()).data, data);
    });
  }

  test("is copied and moved by a JSON Patch as the text that it is shown as", async () => {
    const visitor = both.visitor();
    await visitor.app.send("POST", "/test/special");
    const { status } = await visitor.edge.patch([
      { op: "copy", from: "/special/bytes", path: "/copy" },
      { op: "move", from: "/special/aware", path: "/moved" },
    ]);
    assert.equal(status, 200);
    const { data } = await visitor.python();
    for (const part of [
      "'bytes': b'\\x00\\xff\\xfe'",
      "'copy': 'AP/+'",
      "'moved': '2026-01-02T03:04:05.678901Z'",
    ]) {
      assert.ok(data.includes(part), part);
    }
    assert.ok(!data.includes("'aware':"));
  });

  test("may be replaced by what it is shown as, which changes nothing", async () => {
    const visitor = both.visitor();
    await visitor.app.send("POST", "/test/special");
    const record = await both.bytesOf(visitor.key());
    const { special } = (await visitor.edge.session()).data;
    for (const name of ["bytes", "aware", "nested"]) {
      assert.equal((await visitor.edge.patch(replace(`/special/${name}`, special[name]))).status, 200);
      assert.deepEqual(await both.bytesOf(visitor.key()), record, name);
    }
  });

  test("a merge over it is refused as well", async () => {
    const visitor = both.visitor();
    await visitor.app.send("POST", "/test/special");
    const record = await both.bytesOf(visitor.key());
    for (const merge of [
      { special: { bytes: "x" } },
      { special: { aware: "now" } },
      { extension: { a: 1 } },
      { special: "gone" },
      { floats: { infinity: 1 } },
    ]) {
      const { status, json } = await visitor.edge.merge(merge);
      assert.deepEqual([status, json.code], [422, "unprocessable"], JSON.stringify(merge));
    }
    assert.deepEqual(await both.bytesOf(visitor.key()), record);
  });
});

describe("records at random", () => {
  const SEED = 15;
  const COUNT = 150;
  const EDGE = { text: "ü", list: [1, 2.5, null, { a: [] }] };

  for (const serializer of /** @type {const} */ (["msgpack", "json"])) {
    test(`that ${serializer} wrote are shown, changed, and the same to msgspec afterwards`, async () => {
      const both = await startBeside({ flask: { SESSION_SERIALIZATION_FORMAT: serializer } });
      try {
        const made = await both.flask.makeRecords(SEED, COUNT);
        let compared = 0;
        for (const [index, { cookie, sid, shown }] of made.entries()) {
          const visitor = both.worker.visitor();
          visitor.cookies.set(both.name, cookie);
          const what = `number ${index} of seed ${SEED}`;
          const { status, json, text } = await visitor.look();
          assert.equal(status, 200, `${what}: ${text}`);
          if (shown) {
            assert.deepEqual(json.session.data, shown, what);
            compared += 1;
          }
          const changes = [await visitor.increment("/views", 100), await visitor.merge({ edge: EDGE })];
          assert.deepEqual(
            changes.map(({ status }) => status),
            [200, 200],
            what,
          );
          assert.ok(await both.bytesOf(`session:${sid}`));
        }
        assert.ok(compared > COUNT / 2, `${compared} compared`);
        const after = await both.flask.decodeRecords(made.map(({ sid }) => sid));
        for (const [index, { views, others }] of made.entries()) {
          const expected = { views: views + 100, edge: EDGE, others };
          assert.deepEqual(after[index], expected, `number ${index} of seed ${SEED}`);
        }
      } finally {
        await both.stop();
      }
    });
  }
});
