/**
 * SESSION_ENCRYPTION_KEY is switched on, replaced and switched off again, while isolates with the old and the new setting
 * answer the same visitors; and what a key has to be.
 */
import assert from "node:assert/strict";
import { after, describe, test } from "node:test";
import { encryptionKey, isSealed, keyId } from "./support/encryption.mjs";
import { FAST_HASH, randomSecret, startDeployment, until } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/worker.mjs").Worker} Worker */

const [OLD, NEW] = [encryptionKey(), encryptionKey()];
const ADMIN_TOKEN = randomSecret();
/** An isolate with each setting that there is during a change. */
const SETTINGS = {
  without: undefined,
  prepared: `none,${OLD}`,
  old: OLD,
  both: `${OLD},${NEW}`,
  turned: `${NEW},${OLD}`,
  turnedOnly: NEW,
  ending: `none,${NEW}`,
};
const { store, workers, stop, start } = await startDeployment(
  Object.values(SETTINGS).map((SESSION_ENCRYPTION_KEY) => ({ secrets: { SESSION_ENCRYPTION_KEY } })),
  { settings: { password: FAST_HASH }, secrets: { SESSION_SECRET: randomSecret(), ADMIN_TOKEN } },
);
after(stop);
const [without, prepared, old, both, turned, turnedOnly, ending] = workers;

let count = 0;
/** A user, with data and a profile, who has registered at this isolate. @param {Worker} worker */
async function registered(worker) {
  const name = `Ada ${(count += 1)}`;
  const visitor = worker.visitor();
  assert.equal((await visitor.register(name, "correct horse")).status, 201);
  assert.equal((await visitor.merge({ mark: name })).status, 200);
  assert.equal((await visitor.tell("PATCH", "/profile", { mark: name })).status, 200);
  await worker.idle();
  return { name, visitor, account: `account:${name.toLowerCase()}` };
}

/** @param {string} key */
const stored = (key) => store.redis.get(key);
/** @param {Visitor} visitor */
const recordKey = async (visitor) => `sess:${(await visitor.session()).handle}`;

/** Whether all of it can be read at this isolate. @param {{ visitor: Visitor, name: string }} who @param {Worker} worker */
async function isReadAt({ visitor, name }, worker) {
  const here = visitor.clone(worker.url);
  const session = await here.look();
  const profile = await here.send("GET", "/auth/profile");
  if (session.status === 200 && profile.status === 200) {
    assert.equal(session.json.session.data.mark, name);
    assert.equal(profile.json.mark, name);
    return true;
  }
  assert.equal(session.status, 500, session.text);
  return false;
}

describe("a key is switched on and replaced, and nobody is logged out", () => {
  // At each step isolates with the setting before are still there.
  for (const [step, before, now] of /** @type {[string, Worker, Worker][]} */ ([
    ["from none to one that opens", without, prepared],
    ["from one that opens to one that seals", prepared, old],
    ["to a second one that opens", old, both],
    ["to a second one that seals", both, turned],
    ["to the second one alone, once nothing is under the first", turned, turnedOnly],
    ["to the second one that opens alone", turnedOnly, ending],
  ])) {
    test(step, async () => {
      for (const [from, to] of [
        [before, now],
        [now, before],
      ]) {
        const who = await registered(from);
        assert.ok(await isReadAt(who, to));
        const there = who.visitor.clone(to.url);
        assert.equal((await there.increment("/n")).status, 200);
        assert.equal((await who.visitor.increment("/n")).status, 200);
        assert.equal((await there.rotate()).status, 200);
        assert.equal((await there.session()).data.n, 2);
        assert.equal((await from.visitor().login(who.name, "correct horse")).status, 200);
      }
    });
  }
});

describe("what was stored under an older setting", () => {
  /** @type {[string, Worker, Worker, boolean][]} */
  const changes = [
    ["unsealed", without, old, true],
    ["under an older key", old, turned, true],
    ["sealed, when nothing is to be sealed any more", old, prepared, false],
  ];
  for (const [what, before, now, seals] of changes) {
    test(`${what} is read, and sealed anew when it is next written`, async () => {
      const who = await registered(before);
      const key = await recordKey(who.visitor);
      const [session, account] = [await stored(key), await stored(who.account)];
      const there = who.visitor.clone(now.url);
      assert.equal((await there.look()).status, 200);
      await now.idle();
      assert.equal(await stored(key), session, "a read writes nothing");
      assert.equal((await there.merge({ b: 2 })).status, 200);
      const text = await stored(key);
      assert.equal(isSealed(text), seals);
      assert.notEqual(keyId(text), keyId(session));
      assert.equal(await stored(who.account), account);
    });

    test(`${what}: an account, which has no end, is sealed anew after its next use, although nothing of it has changed`, async () => {
      const who = await registered(before);
      const account = await stored(who.account);
      assert.equal((await now.visitor().login(who.name, "correct horse")).status, 200);
      await now.idle();
      await until(async () => (await stored(who.account)) !== account);
      const text = await stored(who.account);
      assert.equal(isSealed(text), seals);
      assert.notEqual(keyId(text), keyId(account));
      assert.ok(await isReadAt(who, now));
      assert.equal((await now.visitor().login(who.name, "correct horse")).status, 200);
      await now.idle();
      assert.equal(await stored(who.account), text, "once is enough");
    });
  }
});

test("an account under an older key can be sealed anew by looking at it, while a change of it is under way", async () => {
  const who = await registered(old);
  const there = who.visitor.clone(turned.url);
  const change = store.faults.hold(({ commands }) =>
    commands.some(([word, key, , how]) => word === "SET" && key === who.account && how === "IFEQ"),
  );
  const changing = there.tell("PATCH", "/profile", { b: 2 });
  await change.arrived;
  const looked = await turned
    .visitor()
    .send("GET", `/auth/admin/users?name=${encodeURIComponent(who.name)}`, {
      headers: { Authorization: `Bearer ${ADMIN_TOKEN}` },
    });
  assert.equal(looked.status, 200, looked.text);
  await until(
    async () =>
      keyId(await stored(who.account)) === keyId(await stored(await recordKey(await someoneAt(turned)))),
  );
  change.release();
  assert.equal((await changing).status, 200);
  assert.deepEqual((await there.send("GET", "/auth/profile")).json, { mark: who.name, b: 2 });
});

/** A session that was begun at an isolate. @param {Worker} worker */
async function someoneAt(worker) {
  const visitor = worker.visitor();
  await visitor.merge({ a: 1 });
  return visitor;
}

describe("under a key that is not known", () => {
  test("a session is 500, is never overwritten, and a logout removes it", async () => {
    for (const worker of [without, turnedOnly]) {
      const who = await registered(old);
      const key = await recordKey(who.visitor);
      const before = await stored(key);
      const there = who.visitor.clone(worker.url);
      for (const answer of [
        await there.look(),
        await there.merge({ b: 2 }),
        await there.rotate(),
        await there.send("GET", "/auth/verify"),
        await there.tell("POST", "/reauthenticate", { password: "correct horse" }),
      ]) {
        assert.equal(answer.status, 500, answer.text);
        assert.equal(answer.json.code, "internal");
        assert.deepEqual(answer.setCookies, []);
      }
      assert.equal(await stored(key), before);
      assert.ok(await isReadAt(who, old), "nothing is lost as long as the key is not");
      assert.equal((await there.logout()).status, 204);
      assert.equal(await stored(key), null);
    }
  });

  test("an account is 500 for its owner and for operators, and its name stays taken", async () => {
    const { name, account } = await registered(old);
    const before = await stored(account);
    assert.equal((await turnedOnly.visitor().login(name, "correct horse")).status, 500);
    const taken = await turnedOnly.visitor().register(name, "another horse");
    assert.ok([409, 500].includes(taken.status), taken.text);
    assert.equal(await stored(account), before);
    assert.equal((await old.visitor().login(name, "correct horse")).status, 200);
  });
});

test("sessions of Express that are taken over are sealed from then on, and their own records stay as the application reads them", async () => {
  const secret = randomSecret();
  const worker = await start({
    settings: { cookie: { accept: [{ format: "express", name: "connect.sid" }] } },
    secrets: { SESSION_ENCRYPTION_KEY: OLD, FORMAT_SECRETS: JSON.stringify([secret]) },
  });
  const { createHmac } = await import("node:crypto");
  const sid = "an-old-session-id";
  const record = JSON.stringify({ cookie: { originalMaxAge: null, path: "/" }, cart: "Kuckucksuhr" });
  await store.redis.set(`sess:${sid}`, record, { expiration: { type: "EX", value: 600 } });
  const visitor = worker.visitor();
  const mac = createHmac("sha256", secret).update(sid).digest("base64").replace(/=+$/, "");
  visitor.cookies.set("connect.sid", encodeURIComponent(`s:${sid}.${mac}`));
  assert.equal((await visitor.merge({ n: 1 })).status, 200);
  const session = await visitor.session();
  assert.deepEqual(session.data, { cart: "Kuckucksuhr", n: 1 });
  assert.ok(isSealed(await stored(`sess:${session.handle}`)));
  assert.equal(await stored(`sess:${sid}`), record);
});

describe("refused at start, without a word of the value", () => {
  const short = Buffer.alloc(16, "Qz5").toString("base64");
  /** @type {[string, object, Record<string, unknown>, RegExp][]} */
  const cases = [
    [
      "a key of another length",
      {},
      { SESSION_ENCRYPTION_KEY: short },
      /entry 1 of its list: has 16 bytes as base64; exactly 32/,
    ],
    [
      "what is not base64",
      {},
      { SESSION_ENCRYPTION_KEY: `${OLD},Lore Ipsum!` },
      /entry 2 of its list: is not base64/,
    ],
    [
      "a placeholder",
      {},
      { SESSION_ENCRYPTION_KEY: "A".repeat(43) },
      /entry 1 of its list: looks like a placeholder/,
    ],
    [
      "the same key twice",
      {},
      { SESSION_ENCRYPTION_KEY: `${OLD},${OLD}` },
      /entry 2 of its list: is there twice/,
    ],
    ["an empty value", {}, { SESSION_ENCRYPTION_KEY: "" }, /entry 1 of its list: is empty/],
    [
      "a secret that is used already",
      {},
      { SESSION_ENCRYPTION_KEY: OLD, SESSION_SECRET: OLD },
      /entry 1 of its list: is used in another secret/,
    ],
    ['"none" without keys', {}, { SESSION_ENCRYPTION_KEY: "none" }, /is \\"none\\" alone: remove the secret/],
    [
      "an application's format",
      { cookie: { format: "express" } },
      { SESSION_ENCRYPTION_KEY: OLD },
      /does not go with cookie\.format/,
    ],
    [
      "an application's format, with keys that only open",
      { cookie: { format: "flask" } },
      { SESSION_ENCRYPTION_KEY: `none,${OLD}` },
      /does not go with cookie\.format/,
    ],
  ];
  for (const [what, settings, secrets, expected] of cases) {
    test(what, async () => {
      const worker = await start({ settings, secrets });
      const answer = await worker.visitor().look();
      assert.equal(answer.status, 500, answer.text);
      assert.equal(answer.json.code, "misconfigured");
      await until(
        () => expected.test(worker.logs.join("")),
        () => worker.logs.join(""),
      );
      for (const value of Object.values(secrets).flatMap((text) => String(text).split(","))) {
        if (value.length > 10) assert.ok(!(worker.logs.join("") + answer.text).includes(value));
      }
    });
  }
});

test("the log says when nothing is sealed although there are keys, and when the name may be misspelt", async () => {
  await prepared.visitor().look();
  await until(() => /SESSION_ENCRYPTION_KEY begins with \\"none\\"/.test(prepared.logs.join("")));
  const misspelt = await start({ secrets: { SESSION_ENCRYPTON_KEY: OLD } });
  assert.equal((await misspelt.visitor().look()).status, 200);
  await until(() =>
    /SESSION_ENCRYPTION_KEY is not bound: .*did you mean SESSION_ENCRYPTION_KEY\?/.test(
      misspelt.logs.join(""),
    ),
  );
  assert.ok(![...prepared.logs, ...misspelt.logs].join("").includes(OLD));
});
