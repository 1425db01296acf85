/** Cookies that a client sends: which of them count, and what an invalid one costs (no call to the store). */
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  assertIssued,
  assertRemoved,
  assertUseless,
  guest,
  logOutWith,
  lookWith,
  NAME,
  open,
  ROUTES,
  sendWith,
  store,
  ticket,
  withCalls,
  worker,
} from "./support/cookies.mjs";
import { sendRaw } from "./support/raw.mjs";
import { Visitor } from "./support/visitor.mjs";

/** @param {string} fields */
const rawLook = (fields) =>
  sendRaw(
    worker.url,
    `GET /auth/session HTTP/1.1\r\nHost: ${new URL(worker.url).host}\r\nConnection: close\r\n${fields}\r\n\r\n`,
  );

describe("a cookie that is not a valid ticket", () => {
  const flip = (/** @type {string} */ text) =>
    text.slice(0, 50) + (text[50] === "A" ? "B" : "A") + text.slice(51);
  /** @type {[string, (good: string) => string][]} */
  const invalid = [
    ["empty", () => ""],
    ["invented", () => "A".repeat(148)],
    ["a word", () => "session"],
    ["an id like others use", () => "s%3AabcdefABCDEF.mAcMaCmAcMaC"],
    ["a JSON web token", () => "eyJhbGciOiJub25lIn0.eyJzdWIiOiJyb290In0."],
    ["cut by a character", (good) => good.slice(0, -1)],
    ["cut by a group", (good) => good.slice(0, -4)],
    ["cut to its first half", (good) => good.slice(0, 66)],
    ["without its first character", (good) => good.slice(1)],
    ["longer by a character", (good) => `${good}A`],
    ["padded", (good) => `${good}=`],
    ["doubled", (good) => good + good],
    ["with a letter changed", flip],
    ["backwards", (good) => [...good].reverse().join("")],
    ["in another base64", (good) => `+/${good.slice(2)}`],
    ["in single quotes", (good) => `'${good}'`],
    ["percent-encoded", (good) => `%${good.charCodeAt(0).toString(16)}${good.slice(1)}`],
    ["behind an equals sign", (good) => `=${good}`],
    ["behind a space", (good) => ` ${good}`],
    ["with a space in it", (good) => `${good.slice(0, 60)} ${good.slice(60)}`],
    ["with a tab in it", (good) => `${good.slice(0, 60)}\t${good.slice(60)}`],
    ["with a comma and more", (good) => `${good},x`],
    ["100 KB long", () => "A".repeat(100_000)],
    ["100 KB that begin well", (good) => good.padEnd(100_000, "A")],
    ["bytes that are not ASCII", () => "\xff\xfe\x80\xe9".repeat(33)],
    ["UTF-8", () => Buffer.from("😀".repeat(33)).toString("latin1")],
    ["148 bytes of UTF-8 that are 74 characters", () => Buffer.from("é".repeat(74)).toString("latin1")],
    ["a path that leads upwards", () => "../../sess:x"],
    ["a command", () => "x\\r\\nFLUSHALL"],
    ["a line break, percent-encoded", () => "x%0d%0aSet-Cookie:%20evil=1"],
    ["an object", () => '{"id":1}'],
    ["__proto__", () => "__proto__"],
  ];
  for (const [name, change] of invalid) {
    test(`${name}: is no session, is removed by what changes something, and costs no call to the store`, async () => {
      const cookie = `${NAME}=${change(await ticket())}`;
      for (const [method, path, status] of ROUTES) {
        const answer = await withCalls(() => sendWith(method, path, cookie), 0);
        assert.equal(answer.status, status, answer.text);
        if (method === "GET") assert.deepEqual(answer.json, { session: null });
        assertUseless(answer, method);
      }
      // A change creates a new session, with one call.
      const merge = () =>
        new Visitor(worker.url).send("PATCH", "/auth/session/data", {
          headers: { Cookie: cookie, "Content-Type": "application/json" },
          body: '{"mine":1}',
        });
      const answer = await withCalls(merge, 1);
      assert.deepEqual(answer.json.session.data, { mine: 1 });
      assertIssued(answer);
    });
  }

  test("in capitals: is no session, and costs no call to the store, whatever key it seems to name", async () => {
    const cookie = `${NAME}=${(await ticket()).toUpperCase()}`;
    for (const [method, path, status] of ROUTES) {
      const answer = await withCalls(() => sendWith(method, path, cookie), 0);
      assert.equal(answer.status, status, answer.text);
    }
  });

  test("changing any one character of a ticket makes it invalid", async () => {
    const good = await ticket();
    const { calls } = await store.counters.during(async () => {
      for (let index = 0; index < good.length; index++) {
        const other = good[index] === "A" ? "B" : "A";
        const answer = await lookWith(`${NAME}=${good.slice(0, index)}${other}${good.slice(index + 1)}`);
        assert.equal(answer.json.session, null, `character ${index}`);
        assert.deepEqual(answer.setCookies, []);
      }
    });
    assert.equal(calls, 0);
    assert.equal((await lookWith(`${NAME}=${good}`)).json.session.data.views, 1);
  });

  for (const control of ["\x01", "\x07", "\x08", "\x1b", "\x7f"]) {
    test(`with the control character ${control.charCodeAt(0)} in it is refused by the Worker or by the platform`, async () => {
      const good = await ticket();
      for (const value of [control, good + control, control + good]) {
        const { value: answer, calls } = await store.counters.during(() =>
          rawLook(`Cookie: ${NAME}=${value}`),
        );
        assert.match(answer, /^HTTP\/1\.1 (200 OK\r\n[^]*\{"session":null\}$|400 )/);
        assert.equal(calls, 0);
      }
    });
  }

  test("costs no call on an unknown path or with a method that is not allowed either", async () => {
    const headers = { Cookie: `${NAME}=${"A".repeat(148)}` };
    for (const [method, path] of [
      ["GET", "/auth/nowhere"],
      ["PUT", "/auth/session"],
    ]) {
      await withCalls(() => new Visitor(worker.url).send(method, path, { headers }), 0);
    }
  });
});

describe("no cookie", () => {
  test("is no session: no cookie is set or removed, and the store is not called", async () => {
    for (const [method, path, status] of ROUTES) {
      const answer = await withCalls(() => new Visitor(worker.url).send(method, path), 0);
      assert.equal(answer.status, status);
      assert.deepEqual(answer.setCookies, []);
    }
  });

  test("is counted when all cookies have other names, however similar", async () => {
    const good = await ticket();
    for (const cookie of [
      `__host-session=${good}`,
      `__Host-Session=${good}`,
      `Host-session=${good}`,
      `x__Host-session=${good}`,
      `__Host-session2=${good}`,
      `__Host-session =${good}`,
      `__Host-sessio=${good}`,
      `__Host%2Dsession=${good}`,
      `"__Host-session"=${good}`,
      `other=${NAME}=${good}`,
      `a=1; b="${NAME}=${good}"`,
      `=${NAME}=${good}`,
      `${NAME}`,
      `$Version=1, ${NAME}2=${good}`,
      ";;; ;=;",
    ]) {
      const answer = await withCalls(() => lookWith(cookie), 0);
      assert.equal(answer.json.session, null, cookie);
      assert.deepEqual(answer.setCookies, [], cookie);
    }
  });
});

describe("several cookies with our name", () => {
  const junk = `${NAME}=junk`;
  /** @type {[string, (good: string) => string][]} */
  const mixtures = [
    ["first", (good) => `${NAME}=${good}; ${junk}; ${NAME}=`],
    ["last", (good) => `${NAME}=; ${junk}; ${NAME}=${"A".repeat(148)}; ${NAME}=${good}`],
    ["in the middle", (good) => `a=1; ${junk}; ${NAME}=${good}; ${junk}; b=2`],
    ["without spaces", (good) => `a=1;${junk};${NAME}=${good};${junk}`],
    ["among many spaces", (good) => `  a=1  ;   ${junk} ;\t${NAME}=${good}  ; `],
    ["behind 15 others", (good) => `${`${junk}; `.repeat(15)}${NAME}=${good}`],
    ["behind 100 short others", (good) => `${`${junk}; `.repeat(100)}${NAME}=${good}`],
    ["behind a hundred of other names", (good) => `${"x=1; ".repeat(100)}${NAME}=${good}`],
    ["twice", (good) => `${NAME}=${good}; ${NAME}=${good}`],
  ];
  for (const [name, mix] of mixtures) {
    test(`the valid one counts when it stands ${name}`, async () => {
      const cookie = mix(await ticket());
      const answer = await withCalls(() => lookWith(cookie), 1);
      assert.equal(answer.json.session?.data.views, 1);
      assert.deepEqual(answer.setCookies, []);
    });
  }

  test("of two valid ones the latest issued counts, whichever stands first", async () => {
    const [earlier, later] = [await guest(), worker.visitor()];
    await worker.moveClock(1000);
    await later.merge({ views: 2 });
    await worker.moveClock(-1000);
    for (const pair of [
      [earlier, later],
      [later, earlier],
    ]) {
      const cookie = pair.map((visitor) => visitor.cookieHeader()).join("; ");
      const answer = await withCalls(() => lookWith(cookie), 1);
      assert.equal(answer.json.session.data.views, 2);
    }
  });

  test("a logout ends the sessions of all, however many", async () => {
    const guests = await Promise.all(Array.from({ length: 12 }, () => guest()));
    assertRemoved(await logOutWith(guests.map((visitor) => visitor.cookieHeader()).join("; ")));
    for (const visitor of guests) assert.equal(await visitor.session(), null);
  });

  test("a live one behind many dead ones keeps its cookie, and counts once those are known", async () => {
    const [alive, other] = [await guest(), await open()];
    await worker.moveClock(1000);
    const dead = await Promise.all(Array.from({ length: 9 }, () => guest()));
    await worker.moveClock(-1000);
    const cookie = [alive, ...dead].map((visitor) => visitor.cookieHeader()).join("; ");
    await Promise.all(dead.map((visitor) => visitor.logout()));
    const answer = await sendWith("POST", "/auth/session/rotate", cookie, other.url);
    assert.equal(answer.status, 401);
    assert.deepEqual(answer.setCookies, []);
    assert.equal((await lookWith(cookie, other.url)).json.session?.data.views, 1);
  });

  test("if all are invalid, one removal is the answer to what changes something", async () => {
    const cookie = `${junk}; ${junk}; ${NAME}=${"A".repeat(148)}`;
    const answer = await withCalls(() => lookWith(cookie), 0);
    assert.equal(answer.json.session, null);
    assert.deepEqual(answer.setCookies, []);
    assertRemoved(await withCalls(() => logOutWith(cookie), 0));
  });

  test("400 invalid ones cost no call", async () => {
    const good = await ticket();
    const wrong = `${NAME}=${good.slice(0, -1)}${good.endsWith("A") ? "B" : "A"}; `;
    const answer = await withCalls(() => lookWith(wrong.repeat(400)), 0);
    assert.equal(answer.json.session, null);
    assertRemoved(await withCalls(() => logOutWith(wrong.repeat(400)), 0));
  });
});

describe("no value of a request becomes a header of the answer", () => {
  const EVIL = "evil-header-of-mine";
  const encoded = `x%0d%0aSet-Cookie:%20${EVIL}=1`;

  test("encoded line breaks stay encoded", async () => {
    for (const headers of [
      { Cookie: `${NAME}=${encoded}` },
      { Cookie: `${encoded}=1; ${NAME}=\\r\\nX-${EVIL}: 1` },
      { Origin: `https://${encoded}` },
      { Origin: `https://\xe5\x98\x8a\xe5\x98\x8dSet-Cookie:${EVIL}` },
      { "If-Match": `"${encoded}"` },
      { "Content-Type": `application/json; ${encoded}` },
      { "Content-Type": encoded },
      { "Sec-Fetch-Site": encoded },
      { "Access-Control-Request-Method": encoded, Origin: `https://${EVIL}.example` },
    ]) {
      for (const [method, path] of [
        ["GET", "/auth/session"],
        ["PATCH", "/auth/session/data"],
        ["OPTIONS", "/auth/session"],
        ["GET", `/auth/${encoded}`],
        ["GET", `/auth/session?${encoded}`],
      ]) {
        const answer = await new Visitor(worker.url).send(method, path, {
          headers: /** @type {any} */ (headers),
        });
        assert.doesNotMatch(JSON.stringify([...answer.headers]) + answer.text, new RegExp(EVIL));
      }
    }
  });

  test("raw line breaks end a header or the connection, and are never echoed", async () => {
    for (const name of ["Cookie", "Origin", "If-Match", "Content-Type", "Access-Control-Request-Method"]) {
      for (const end of ["\r\n", "\n", "\r", "\r\n ", "\n\t", "\0"]) {
        const answer = await rawLook(`${name}: ${NAME}=x${end}Set-Cookie: ${EVIL}=1`);
        assert.match(answer, /^HTTP\/1\.1 \d{3} /);
        assert.ok(!answer.includes(EVIL), JSON.stringify(answer));
      }
    }
  });
});
