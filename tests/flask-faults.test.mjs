/** Records at the keys of a Flask application that are none: nobody is logged in by them, and none is written over. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { startBeside } from "./support/flask-app.mjs";
import { until } from "./support/worker.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */

const MAX_BYTES = 20_000;

/** @param {...(number | string | Buffer)} parts  bytes, text */
const bytes = (...parts) =>
  Buffer.concat(
    parts.map((part) =>
      typeof part === "number" ? Buffer.from([part]) : Buffer.from(/** @type {any} */ (part)),
    ),
  );
/** Of one member, `a`, in msgpack. @param {...(number | string | Buffer)} value */
const member = (...value) => bytes(0x81, 0xa1, "a", ...value);
/** @param {number} byte @param {number} times */
const many = (byte, times) => Buffer.alloc(times, byte);

/** What is wrong, and the record. @type {Record<"msgpack" | "json", Record<string, Buffer>>} */
const RECORDS = {
  msgpack: {
    "a list": bytes(0x91, 0x01),
    "a number": bytes(0x07),
    "a text": bytes(0xa1, "a"),
    nothing: bytes(0xc0),
    "a truth": bytes(0xc3),
    bytes: bytes(0xc4, 1, 0),
    "a date": bytes(0xd6, 0xff, 0, 0, 0, 1),
    "no msgpack": bytes(0xc1),
    "cut off in the middle of a name": bytes(0x81, 0xa5, "view"),
    "cut off before a value": bytes(0x81, 0xa1, "a"),
    "cut off in a number": member(0xcf, 1, 2, 3),
    "cut off in a list": member(0x93, 1, 2),
    "followed by something else": bytes(0x80, 0x80),
    "with a name that is no UTF-8": bytes(0x81, 0xa1, 0xff, 0x01),
    "with bytes of 2 GB, as it says": member(0xc6, 0x7f, 0xff, 0xff, 0xff),
    "with bytes of 4 GB, as it says": member(0xc6, 0xff, 0xff, 0xff, 0xff, "abc"),
    "with text of 2 GB, as it says": member(0xdb, 0x7f, 0xff, 0xff, 0xff, "abc"),
    "with a list of four thousand millions, as it says": member(0xdd, 0xff, 0xff, 0xff, 0xff, 1),
    "with an object of four thousand millions, as it says": bytes(0xdf, 0xff, 0xff, 0xff, 0xff, 0xa1, "a", 1),
    "with an extension of 2 GB, as it says": member(0xc9, 0x7f, 0xff, 0xff, 0xff, 5, "abc"),
    "with lists in lists without an end": member(many(0x91, 15_000)),
    "with lists in lists, a great many": member(many(0x91, 15_000), 0x90),
    "with objects in objects, a great many": bytes(Buffer.from("81a161".repeat(5000), "hex"), 1),
    "with objects as names, a great many": bytes(many(0x81, 15_000), 1),
    "text that is no JSON": Buffer.from("<html>"),
    "cut-off JSON": Buffer.from('{"views":1'),
  },
  json: {
    "a list": Buffer.from("[1]"),
    "a number": Buffer.from("7"),
    "a text": Buffer.from('"a"'),
    nothing: Buffer.from("null"),
    "a truth": Buffer.from("true"),
    "cut off": Buffer.from('{"views":1'),
    "followed by something else": Buffer.from('{"views":1}{}'),
    "with a number that there is not": Buffer.from('{"a":NaN}'),
    "with text that is no UTF-8": bytes('{"a":"', 0xff, '"}'),
    "with lists in lists without an end": Buffer.from(`{"a":${"[".repeat(15_000)}`),
    "no JSON": Buffer.from("<html>"),
    "cut-off msgpack": bytes(0x81, 0xa5, "view"),
  },
};

for (const serializer of /** @type {const} */ (["msgpack", "json"])) {
  describe(`with ${serializer}, a record that is`, () => {
    /** @type {Beside} */
    let both;
    /** @type {Record<string, Buffer>} */
    let pickles;
    before(async () => {
      both = await startBeside({
        flask: { SESSION_SERIALIZATION_FORMAT: serializer },
        cookie: { user_pointer: "/user_id" },
        settings: { session: { max_bytes: MAX_BYTES } },
      });
      const { json } = await both.flask.visitor().send("GET", "/test/pickles");
      pickles = Object.fromEntries(
        json.map((/** @type {string} */ text, /** @type {number} */ protocol) => [
          `a pickle of protocol ${protocol}`,
          Buffer.from(text, "base64"),
        ]),
      );
      assert.equal(json.length, 6);
    });
    after(() => both?.stop());

    let ids = 0;
    /** A visitor whose record is this. @param {Buffer | string} record */
    async function visitorWith(record) {
      const visitor = both.visitor();
      const sid = `${serializer}-record-number-${(ids += 1)}`.padEnd(43, "x");
      visitor.edge.cookies.set(both.name, sid);
      await both.write(both.prefix + sid, record);
      return { ...visitor, sid, key: both.prefix + sid };
    }

    /** @param {string} what @param {Buffer} record */
    async function assertUnreadable(what, record) {
      const { edge, sid, key } = await visitorWith(record);
      const logged = both.worker.logs.length;
      for (const act of [
        () => edge.look(),
        () => edge.merge({ a: 1 }),
        () => edge.increment("/views"),
        () => edge.merge({ a: 1 }, { "If-Match": "*" }),
        () => edge.rotate(),
        () => edge.send("GET", "/auth/verify"),
      ]) {
        const { status, json, text, setCookies } = await act();
        assert.deepEqual([status, json?.code, setCookies], [500, "internal", []], `${what}: ${text}`);
        assert.doesNotMatch(text, new RegExp(sid), what);
        assert.deepEqual(await both.bytesOf(key), record, `${what}: as it was`);
      }
      const log = () => both.worker.logs.slice(logged).join("");
      await until(() => /record/i.test(log()), log);
      assert.doesNotMatch(log(), new RegExp(sid), `${what}: the id in the log`);
      const ended = await edge.logout();
      assert.equal(ended.status, 204, `${what}: ${ended.text}`);
      assert.equal(await both.bytesOf(key), null, what);
      return log();
    }

    for (const [what, record] of Object.entries(RECORDS[serializer])) {
      test(`${what} is an error, stays as it is, and can be ended`, async () => {
        await assertUnreadable(what, record);
      });
    }

    test("nested deeper than anything reads is never written over, and can be ended", async () => {
      const record =
        serializer === "json"
          ? Buffer.from(`{"a":${"[".repeat(8000)}${"]".repeat(8000)}}`)
          : member(many(0x91, 8000), 0x90);
      const { edge, key } = await visitorWith(record);
      for (const act of [() => edge.look(), () => edge.merge({ b: 1 }), () => edge.increment("/views")]) {
        const { status, setCookies } = await act();
        assert.ok([200, 422, 500].includes(status), String(status));
        assert.deepEqual(setCookies, []);
        if (status !== 200) assert.deepEqual(await both.bytesOf(key), record);
        else assert.ok((await both.bytesOf(key))?.includes(record.subarray(0, 8000)), "kept");
      }
      assert.equal((await edge.logout()).status, 204);
      assert.equal(await both.bytesOf(key), null);
    });

    test("a pickle is an error, stays as it is, can be ended, and the log says what to set", async () => {
      for (const [what, record] of Object.entries(pickles)) {
        const log = await assertUnreadable(what, record);
        assert.match(log, /pickle/, what);
        assert.match(log, /SESSION_SERIALIZATION_FORMAT/, what);
      }
    });

    test("larger than is allowed is refused, not written over, and can be ended", async () => {
      const large = { text: "x".repeat(MAX_BYTES), views: 1 };
      const record =
        serializer === "json"
          ? Buffer.from(JSON.stringify(large))
          : bytes(0x82, 0xa4, "text", 0xda, MAX_BYTES >> 8, MAX_BYTES & 255, large.text, 0xa5, "views", 1);
      const { edge, app, key } = await visitorWith(record);
      for (const act of [() => edge.merge({ a: 1 }), () => edge.increment("/views")]) {
        const { status, json, setCookies } = await act();
        assert.deepEqual([status, json.code, setCookies], [422, "unprocessable", []]);
        assert.deepEqual(await both.bytesOf(key), record);
      }
      assert.equal((await app.send("GET", "/")).text, "Views: 2", "Flask goes on");
      assert.equal((await edge.logout()).status, 204);
      assert.equal(await both.bytesOf(key), null);
    });

    test("made too large by a change is 413, and stays as it is", async () => {
      const visitor = both.visitor();
      await visitor.app.send("GET", "/");
      const record = await both.bytesOf(visitor.key());
      const { status, json } = await visitor.edge.merge({ text: "x".repeat(MAX_BYTES) });
      assert.deepEqual([status, json.code], [413, "too_large"]);
      assert.deepEqual(await both.bytesOf(visitor.key()), record);
    });

    test("of the application's other serializer is read, as Flask reads it", async () => {
      const record = serializer === "json" ? bytes(0x81, 0xa5, "views", 0x01) : Buffer.from('{"views":1}');
      const { edge, app } = await visitorWith(record);
      assert.deepEqual((await edge.session()).data, { views: 1 });
      assert.equal((await edge.increment("/views")).json.session.data.views, 2);
      assert.equal((await app.send("GET", "/")).text, "Views: 3");
      assert.equal((await edge.increment("/views")).json.session.data.views, 4);
    });

    test("no text at all, but a list of Redis', is no session, and stays", async () => {
      const { edge, key } = await visitorWith("x");
      await both.store.redis.del(key);
      await both.store.redis.lPush(key, "1");
      assert.equal(await edge.session(), null);
      assert.equal((await edge.merge({ a: 1 }, { "If-Match": "*" })).status, 412);
      assert.equal((await edge.merge({ a: 1 })).status, 200);
      assert.notEqual(both.prefix + edge.cookies.get(both.name), key);
      assert.equal(await both.store.redis.lLen(key), 1);
    });

    test("good is read as well as ever after all of these", async () => {
      const visitor = both.visitor();
      await visitor.app.send("GET", "/");
      assert.equal((await visitor.edge.increment("/views")).json.session.data.views, 2);
    });
  });
}

describe("records of another writer than msgspec", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside();
  });
  after(() => both?.stop());

  /** Legal, and not as msgspec would write it. @type {Record<string, Buffer>} */
  const ODD = {
    "a small number in eight bytes": bytes(0xcf, many(0, 7), 5),
    "a negative number in eight bytes": bytes(0xd3, many(0xff, 8)),
    "a short text with a long length": bytes(0xdb, 0, 0, 0, 1, "x"),
    "a short list with a long length": bytes(0xdd, 0, 0, 0, 1, 7),
    "an object with a long length": bytes(0xdf, 0, 0, 0, 1, 0xa1, "x", 7),
    "short bytes with a long length": bytes(0xc6, 0, 0, 0, 1, 7),
    "a date in twelve bytes": bytes(0xc7, 12, 0xff, many(0, 11), 1),
    "an extension with a long length": bytes(0xc8, 0, 3, 0x2a, "abc"),
  };
  /** What is also kept to the byte. @type {Record<string, Buffer>} */
  const KEPT = {
    "a float in four bytes": bytes(0xca, 0x3f, 0x80, 0, 0),
    "a date that there is not": bytes(0xd7, 0xff, many(0xff, 8)),
    "not a number, with a payload": bytes(0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1),
    "an extension of another type": bytes(0xc7, 3, 0x2a, "abc"),
  };

  /** @param {string} what @param {Buffer} value */
  async function changeBeside(what, value) {
    const visitor = both.worker.visitor();
    const sid = what.replaceAll(/\W/g, "-").padEnd(43, "x");
    visitor.cookies.set("session", sid);
    await both.write(`session:${sid}`, bytes(0x82, 0xa3, "odd", value, 0xa5, "views", 1));
    // Flask itself cannot read it.
    const isReadable = !/that there is not/.test(what);
    const looks = async () => (isReadable ? both.flask.decodeRecords([sid]) : []);
    const before = await looks();
    const { status, text } = await visitor.increment("/views");
    assert.equal(status, 200, text);
    const after = await looks();
    assert.deepEqual(
      after.map(({ others }) => others),
      before.map(({ others }) => others),
    );
    return both.bytesOf(`session:${sid}`);
  }

  for (const [what, value] of Object.entries(ODD)) {
    test(`keep their values: ${what}`, async () => {
      await changeBeside(what, value);
    });
  }
  for (const [what, value] of Object.entries(KEPT)) {
    test(`keep their bytes: ${what}`, async () => {
      const record = await changeBeside(what, value);
      assert.deepEqual(record, bytes(0x82, 0xa3, "odd", value, 0xa5, "views", 2));
    });
  }
});
