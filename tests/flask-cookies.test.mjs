/** Cookies of Flask-Session: whose the Worker takes is compared with itsdangerous' and Werkzeug's own verdict. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { after, before, describe, test } from "node:test";
import { startBeside } from "./support/flask-app.mjs";
import { dice } from "./support/torture/dice.mjs";
import { NO_LIMITS, startBoth } from "./support/worker.mjs";

/** @typedef {import("./support/flask-app.mjs").Beside} Beside */

/** As in Flask's own quickstart: bytes that are no text. */
const BYTES = Buffer.from([
  0x5f, 0x35, 0x23, 0x79, 0x32, 0x4c, 0x22, 0x46, 0x34, 0x51, 0x38, 0x7a, 0x0a, 0xec, 0x5d, 0x2f,
]);
const OLD = "dev";
const NEW = "a newer secret, ünï";
const RECORD = JSON.stringify({ views: 1 });
const ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

const hmac = (/** @type {string} */ hash, /** @type {string | Buffer} */ key, /** @type {string} */ text) =>
  createHmac(hash, key).update(text);

/** A signature as itsdangerous makes it, with what can be different about it. @param {string} text @param {string | Buffer} secret */
function signature(
  text,
  secret,
  { salt = "flask-session", hash = "sha1", key = hmac("sha1", secret, salt).digest() } = {},
) {
  return hmac(hash, key, text).digest("base64url");
}

/** A whole number below this. @param {ReturnType<typeof dice>} chance @returns {(sides: number) => number} */
const sided = (chance) => (sides) => chance.between(0, sides - 1);

/** Ids: as Flask-Session makes them by now, did before 0.6, and may with SESSION_ID_LENGTH. @param {ReturnType<typeof dice>} chance */
const idForms = (chance) => {
  const draw = sided(chance);
  const letters = (/** @type {number} */ length) => Array.from({ length }, () => ALPHABET[draw(64)]).join("");
  return [
    letters(43),
    letters(86),
    letters(22),
    `${letters(8)}-${letters(4)}-${letters(4)}-${letters(4)}-${letters(12)}`,
  ];
};

/**
 * What is done to a cookie. @type {Record<string, (at: { sid: string, other: string, sig: string, draw: (sides: number) => number }) => string>}
 */
const FORGERIES = {
  "as it is": ({ sid, sig }) => `${sid}.${sig}`,
  "another letter in the id": ({ sid, sig, draw }) => `${changed(sid, draw)}.${sig}`,
  "another letter in the signature": ({ sid, sig, draw }) =>
    `${sid}.${changed(sig.slice(0, -1), draw)}${sig.at(-1)}`,
  "another case in the signature": ({ sid, sig }) => `${sid}.${sig.toLowerCase()}`,
  "another's id": ({ other, sig }) => `${other}.${sig}`,
  "no signature": ({ sid }) => sid,
  "an empty signature": ({ sid }) => `${sid}.`,
  "no id": ({ sig }) => `.${sig}`,
  "the signature alone": ({ sig }) => sig,
  "a separator more": ({ sid, sig }) => `${sid}..${sig}`,
  "another separator": ({ sid, sig }) => `${sid}:${sig}`,
  "a cut-off signature": ({ sid, sig, draw }) => `${sid}.${sig.slice(0, 1 + draw(25))}`,
  "a longer signature": ({ sid, sig }) => `${sid}.${sig}AAAA`,
  "two signatures": ({ sid, sig }) => `${sid}.${sig}.${sig}`,
  "an id in front": ({ sid, other, sig }) => `${other}.${sid}.${sig}`,
  "the order turned round": ({ sid, sig }) => `${sig}.${sid}`,
  "another application's secret": ({ sid }) => `${sid}.${signature(sid, "another's")}`,
  "an empty secret": ({ sid }) => `${sid}.${signature(sid, "")}`,
  "the secret of before": ({ sid }) => `${sid}.${signature(sid, OLD)}`,
  "the secret that is bytes": ({ sid }) => `${sid}.${signature(sid, BYTES)}`,
  "another salt": ({ sid }) => `${sid}.${signature(sid, NEW, { salt: "cookie-session" })}`,
  "itsdangerous' own salt": ({ sid }) => `${sid}.${signature(sid, NEW, { salt: "itsdangerous.Signer" })}`,
  "SHA-256": ({ sid }) => `${sid}.${signature(sid, NEW, { hash: "sha256" })}`,
  "the key not derived": ({ sid }) => `${sid}.${signature(sid, NEW, { key: Buffer.from(NEW) })}`,
  "Express' way": ({ sid }) =>
    `s%3A${sid}.${encodeURIComponent(hmac("sha256", NEW, sid).digest("base64").replace(/=+$/, ""))}`,
  "in quotes": ({ sid, sig }) => `"${sid}.${sig}"`,
  "half in quotes": ({ sid, sig }) => `"${sid}.${sig}`,
  "percent-encoded": ({ sid, sig }) => `${sid}%2E${sig}`,
  "with a letter that is no ASCII": ({ sid, sig }) => `${sid}\u00e9.${sig}`,
};

/** Where Flask takes more than it makes, and nobody needs it: the Worker need not. @type {typeof FORGERIES} */
const LENIENT = {
  padded: ({ sid, sig }) => `${sid}.${sig}=`,
  "with bits that don't count": ({ sid, sig }) =>
    `${sid}.${sig.slice(0, -1)}${ALPHABET[ALPHABET.indexOf(sig.at(-1) ?? "") ^ 1]}`,
  "with plus and slash": ({ sid, sig }) => `${sid}.${sig.replaceAll("-", "+").replaceAll("_", "/")}`,
  "with signs inside that are left out": ({ sid, sig }) => `${sid}.${sig.slice(0, 5)}!${sig.slice(5)}`,
  "with spaces around": ({ sid, sig }) => `  ${sid}.${sig} `,
  "in quotes with an escape": ({ sid, sig }) => `"${sid}\\056${sig}"`,
};

/** @param {string} text @param {(sides: number) => number} draw */
function changed(text, draw) {
  const at = draw(text.length);
  const letter = ALPHABET[(ALPHABET.indexOf(text[at]) + 1 + draw(63)) % 64];
  return text.slice(0, at) + letter + text.slice(at + 1);
}

describe("the signer", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside({
      flask: {
        SESSION_SERIALIZATION_FORMAT: "json",
        SESSION_USE_SIGNER: true,
        SECRET_KEY: [{ base64: BYTES.toString("base64") }, OLD, NEW],
      },
    });
  });
  after(() => both?.stop());

  /** Whether each of the two finds a session. @param {string} header of `Cookie` */
  async function verdicts(header) {
    const headers = { Cookie: header };
    const [flask, worker] = await Promise.all([
      both.flask.visitor().send("GET", "/test/session", { headers }),
      both.worker.visitor().send("GET", "/auth/session", { headers }),
    ]);
    assert.deepEqual([flask.status, worker.status, worker.setCookies], [200, 200, []], header);
    return { flask: flask.json.found, worker: worker.json.session !== null };
  }

  /** Two ids of the same form, with a record each. @param {ReturnType<typeof dice>} chance */
  async function ids(chance) {
    const form = sided(chance)(4);
    const pair = [idForms(chance)[form], idForms(chance)[form]];
    for (const sid of pair) await both.write(`session:${sid}`, RECORD);
    return pair;
  }

  for (const seed of [1, 2, 3, 4, 5, 6, 7, 8]) {
    test(`its verdict is the Worker's, whatever is done to a cookie (seed ${seed})`, async () => {
      const chance = dice(seed);
      let accepted = 0;
      for (const [what, forge] of Object.entries(FORGERIES)) {
        const [sid, other] = await ids(chance);
        const cookie = forge({ sid, other, sig: signature(sid, NEW), draw: sided(chance) });
        const { flask, worker } = await verdicts(`theme=dark; session=${cookie}; last=1`);
        assert.equal(worker, flask, `${what}: ${cookie}`);
        accepted += Number(flask);
      }
      assert.equal(accepted, 4, "as it is, in quotes, and by the two other secrets");
    });

    test(`the Worker takes nothing that Flask does not (seed ${seed})`, async () => {
      const chance = dice(100 + seed);
      for (const [what, forge] of Object.entries(LENIENT)) {
        const [sid, other] = await ids(chance);
        const cookie = forge({ sid, other, sig: signature(sid, NEW), draw: sided(chance) });
        const { flask, worker } = await verdicts(`session=${cookie}`);
        assert.ok(flask || !worker, `${what}: ${cookie}`);
      }
    });
  }

  test("what Flask has signed itself is known at the Worker, and the other way round", async () => {
    const chance = dice(9);
    const sids = [...(await ids(chance)), ...(await ids(chance)), ...(await ids(chance))];
    for (const [index, cookie] of (await both.flask.cookiesOf(sids)).entries()) {
      assert.equal(cookie, `${sids[index]}.${signature(sids[index], NEW)}`);
      assert.deepEqual(await verdicts(`session=${cookie}`), { flask: true, worker: true });
    }
    for (let session = 0; session < 20; session += 1) {
      const visitor = both.worker.visitor();
      await visitor.merge({ views: 1 });
      const cookie = String(visitor.cookies.get("session"));
      const [, sid, sig] = /^([\w-]{43})\.([\w-]{27})$/.exec(cookie) ?? [];
      assert.equal(sig, signature(sid, NEW), "signed by the first");
      assert.deepEqual(await verdicts(`session=${cookie}`), { flask: true, worker: true });
    }
  });

  test("a cookie signed by the secret of before stays, until there is a new one for another reason", async () => {
    const [sid] = await ids(dice(10));
    const visitor = both.worker.visitor();
    visitor.cookies.set("session", `${sid}.${signature(sid, OLD)}`);
    assert.equal((await visitor.increment("/views")).json.session.data.views, 2);
    assert.equal((await visitor.rotate()).status, 200);
    const [, next, sig] = /^([\w-]+)\.([\w-]+)$/.exec(String(visitor.cookies.get("session"))) ?? [];
    assert.equal(sig, signature(next, NEW));
  });

  test("a cookie of another application's secret costs nothing, is never removed, and a change begins another", async () => {
    const [sid] = await ids(dice(11));
    const cookie = `${sid}.${signature(sid, "another's")}`;
    const visitor = both.worker.visitor();
    visitor.cookies.set("session", cookie);
    const { value, calls } = await both.store.counters.during(async () => [
      await visitor.look(),
      await visitor.send("GET", "/auth/verify"),
      await visitor.rotate(),
    ]);
    assert.equal(calls, 0);
    for (const { setCookies } of value) assert.deepEqual(setCookies, []);
    assert.equal((await visitor.look()).json.session, null);
    const record = await both.bytesOf(`session:${sid}`);
    const { status, json } = await visitor.merge({ mine: 1 });
    assert.deepEqual([status, json.session.data.mine, json.session.data.views], [200, 1, undefined]);
    assert.notEqual(visitor.cookies.get("session"), cookie);
    assert.deepEqual(await both.bytesOf(`session:${sid}`), record);
  });

  test("of several cookies a good one counts, in whatever place", async () => {
    const chance = dice(12);
    const [sid, other] = await ids(chance);
    const good = `${sid}.${signature(sid, NEW)}`;
    const bad = `${other}.${signature(other, "another's")}`;
    const upper = await verdicts(`SESSION=${good}; session2=${good}; xsession=${good}`);
    assert.deepEqual(upper, { flask: false, worker: false }, "names are matched as they are");
    assert.deepEqual(await verdicts(`session=${good}; session=${bad}`), { flask: true, worker: true });
    assert.equal(
      (await verdicts(`session=${bad}; session=${good}`)).worker,
      true,
      "Flask looks at the first alone",
    );
  });
});

describe("an id without a signature", () => {
  /** @type {Beside} */
  let both;
  before(async () => {
    both = await startBeside({
      flask: { SESSION_SERIALIZATION_FORMAT: "json" },
      settings: { limits: { ...NO_LIMITS, session: "300/1m" } },
    });
  });
  after(() => both?.stop());

  test("is known in every form that Flask-Session gives it", async () => {
    const chance = dice(20);
    for (const sid of [...idForms(chance), ...idForms(chance)]) {
      await both.write(`session:${sid}`, RECORD);
      const visitor = both.worker.visitor();
      visitor.cookies.set("session", sid);
      await visitor.look();
      await both.worker.idle();
      const { value, calls } = await both.store.counters.during(() => visitor.look());
      assert.deepEqual([value.json.session?.data, calls], [{ views: 1 }, 1], sid);
      assert.ok(!value.text.includes(sid), "never shown");
    }
  });

  test("that nobody has is no session, and a change does not begin one under it", async () => {
    const visitor = both.worker.visitor();
    const sid = "C".repeat(43);
    visitor.cookies.set("session", sid);
    const { value, byName } = await both.store.counters.during(() => visitor.look());
    // What it counted for is given back after the answer.
    assert.deepEqual([value.json.session, byName.MGET], [null, 1]);
    assert.equal((await visitor.merge({ a: 1 })).status, 200);
    assert.notEqual(visitor.cookies.get("session"), sid, "fixation");
    assert.equal(await both.bytesOf(`session:${sid}`), null);
  });

  test("that nobody has leaves nothing in the store when it is logged out", async () => {
    const visitor = both.worker.visitor();
    visitor.cookies.set("session", "D".repeat(43));
    const notes = async () => (await both.store.redis.keys("foreign:*")).length;
    const before = await notes();
    assert.equal((await visitor.logout()).status, 204);
    assert.equal(await notes(), before);
  });

  test("of another form is none, and costs nothing", async () => {
    for (const sid of [
      "../account:root",
      "a:b",
      "a.b",
      "*",
      "a b",
      "a%00b",
      "a\u00e9b",
      "x".repeat(4000),
      '"',
      "{tag}",
      "",
    ]) {
      if (sid) await both.write(`session:${sid}`, RECORD);
      const headers = { Cookie: `session=${sid}` };
      const { value, calls } = await both.store.counters.during(() =>
        both.worker.visitor().send("GET", "/auth/session", { headers }),
      );
      assert.deepEqual([value.status, value.json.session, calls], [200, null, 0], sid);
    }
  });
});

describe("settings that would be dangerous are refused at start, with what to do:", () => {
  /** @type {[string, object, RegExp, Record<string, unknown>?][]} */
  const REFUSED = [
    ["unsigned ids without a prefix", { cookie: { record_prefix: "" } }, /record_prefix/],
    ["bearer tickets", { bearer: { enabled: true } }, /bearer/],
    ["a serializer there is not", { cookie: { serializer: "pickle" } }, /serializer/],
    ["a signer that is no truth", { cookie: { signer: "yes" } }, /signer/],
    ["a pointer that is none", { cookie: { user_pointer: "user_id" } }, /user_pointer/],
    ["secrets that are no JSON", { cookie: { signer: true } }, /FORMAT_SECRETS/, { FORMAT_SECRETS: "dev" }],
    ["no secret at all", { cookie: { signer: true } }, /FORMAT_SECRETS/, { FORMAT_SECRETS: "[]" }],
    ["an empty secret", { cookie: { signer: true } }, /FORMAT_SECRETS/, { FORMAT_SECRETS: '[""]' }],
    ["an older format beside it", { cookie: { accept: ["express"] } }, /accept/],
  ];
  for (const [what, { cookie, ...settings }, says, secrets] of /** @type {[string, any, RegExp, any][]} */ (
    REFUSED
  )) {
    test(what, async () => {
      const { worker, stop } = await startBoth({
        settings: { cookie: { format: "flask", ...cookie }, ...settings },
        secrets,
      });
      try {
        const { status, json } = await worker.visitor().look();
        assert.deepEqual([status, json.code], [500, "misconfigured"]);
        assert.match(worker.logs.join(""), says);
      } finally {
        await stop();
      }
    });
  }
});
