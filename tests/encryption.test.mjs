/** With SESSION_ENCRYPTION_KEY a dump of the store tells nothing that was stored, and everything works as without. */
import assert from "node:assert/strict";
import { after, beforeEach, describe, test } from "node:test";
import { assertAlike, dump, encryptionKey } from "./support/encryption.mjs";
import { FAST_HASH, randomSecret, startDeployment } from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */
/** @typedef {import("./support/visitor.mjs").Answer} Answer */

const ADMIN_TOKEN = randomSecret();
const common = {
  // Patient with a busy machine: what is counted here is not time.
  settings: { password: FAST_HASH, session: { max_bytes: 262_144 }, store: { timeout: "20s" } },
  secrets: { ADMIN_TOKEN, SESSION_SECRET: randomSecret(), SESSION_ENCRYPTION_KEY: encryptionKey() },
};
const { store, workers, stop } = await startDeployment([{}, {}], common);
const [one, two] = workers;
/** The same without a key, in front of a store of its own. */
const plain = await startDeployment([{ secrets: { SESSION_ENCRYPTION_KEY: undefined } }], common);
after(async () => {
  await stop();
  await plain.stop();
});

const PASSWORD = "correct horse";
const AGENT = "Zaubergeige/7.1 (Feldstecher)";
const ADDRESS = "203.0.113.77";
let count = 0;
let name = "";
beforeEach(() => {
  store.faults.clear();
  name = `Ada ${(count += 1)}`;
});

/** @param {string} method @param {string} path @param {unknown} [body] */
const operate = (method, path, body) =>
  one.visitor().send(method, `/auth/admin${path}`, {
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });

/** Somebody who has registered. @param {string} [url] */
async function registered(url = one.url) {
  const visitor = one.visitor().clone(url);
  const answer = await visitor.register(name, PASSWORD, { "User-Agent": AGENT, "CF-Connecting-IP": ADDRESS });
  assert.equal(answer.status, 201, answer.text);
  return visitor;
}

/** @param {Visitor} visitor @param {unknown} patch */
const changeProfile = (visitor, patch) => visitor.tell("PATCH", "/profile", patch);

test("a dump of the store holds nothing of data, profile, device, roles or password in plain, only the account's name in keys that find it", async () => {
  await store.redis.flushDb();
  const visitor = await registered();
  const { id } = (await visitor.session()).user;
  await operate("PUT", `/users/${id}/roles`, { roles: ["Tresorwart"] });
  assert.equal((await visitor.merge({ karte: "4111-Schwarzwald" })).status, 200);
  assert.equal((await changeProfile(visitor, { anschrift: "Lindenhof" })).status, 200);
  assert.equal((await visitor.rotate()).status, 200);
  assert.equal((await operate("POST", `/users/${id}/reset`)).status, 201);
  const guest = one.visitor();
  await guest.merge({ wunsch: "Kuckucksuhr" });
  await one.idle();

  const entries = await dump(store.redis);
  const records = entries.filter(({ key }) => /^(sess:|account:)/.test(key));
  // The session, the one before its rotation, the guest's, the account.
  assert.equal(records.length, 4);
  assert.equal(records.filter(({ text }) => text.startsWith('{"v":1,"sealed":"')).length, 3);
  const all = JSON.stringify(entries);
  for (const word of [
    "karte",
    "4111",
    "anschrift",
    "Lindenhof",
    "wunsch",
    "Kuckucksuhr",
    "Zaubergeige",
    "argon2",
    "203.0.113",
  ]) {
    assert.ok(!all.includes(word), word);
  }
  // The roles that hold for all sessions of a user, and what finds an account, stay readable.
  const withRoles = entries.filter((entry) => JSON.stringify(entry).includes("Tresorwart"));
  assert.deepEqual(
    withRoles.map(({ key }) => key.replace(/^user:[\w-]+/, "user:…")),
    ["user:…:standing"],
  );
  const withName = entries.filter((entry) =>
    JSON.stringify(entry).toLowerCase().includes(name.toLowerCase()),
  );
  assert.deepEqual(withName.map(({ key }) => key.replace(/^user:[\w-]+/, "user:…")).toSorted(), [
    `account:${name.toLowerCase()}`,
    "user:…:account",
  ]);
});

test("nothing that is stored twice is the same: each writing is under another nonce", async () => {
  const visitor = one.visitor();
  await visitor.merge({ a: 1 });
  const key = `sess:${(await visitor.session()).handle}`;
  const texts = new Set();
  for (const a of [1, 2, 1, 2]) {
    await visitor.merge({ a });
    texts.add(await store.redis.get(key));
  }
  // The first change of these changed nothing, and was not written.
  assert.equal(texts.size, 4);
});

describe("everything is as it is without a key", () => {
  /** What somebody does, and may ask of an operator. @type {[string, (visitor: Visitor) => Promise<Answer>][]} */
  const STEPS = [
    ["the first change", (visitor) => visitor.merge({ a: { b: [1, "é", 1.5, null] } })],
    ["a read", (visitor) => visitor.look()],
    ["a change", (visitor) => visitor.increment("/n", 3)],
    ["a patch that does not fit", (visitor) => visitor.patch([{ op: "test", path: "/n", value: 4 }])],
    ["too much data", (visitor) => visitor.merge({ large: "x".repeat(262_140) })],
    ["a rotation", (visitor) => visitor.rotate()],
    ["a registration", (visitor) => visitor.register("Ada", PASSWORD)],
    ["a wrong login", (visitor) => visitor.login("Ada", "wrong horse")],
    ["a login", (visitor) => visitor.login("ADA", PASSWORD)],
    ["a user's change", (visitor) => visitor.merge({ a: null })],
    ["a change of the profile", (visitor) => changeProfile(visitor, { theme: "dark" })],
    ["one that changes nothing", (visitor) => changeProfile(visitor, { theme: "dark" })],
    ["the profile", (visitor) => visitor.send("GET", "/auth/profile")],
    ["the device list", (visitor) => visitor.send("GET", "/auth/sessions")],
    ["verify", (visitor) => visitor.send("GET", "/auth/verify")],
    ["reauthentication", (visitor) => visitor.tell("POST", "/reauthenticate", { password: PASSWORD })],
    [
      "another password",
      (visitor) => visitor.tell("POST", "/password", { current: PASSWORD, new: "another horse" }),
    ],
    ["the end of all others", (visitor) => visitor.send("DELETE", "/auth/sessions?keep=current")],
    ["a logout", (visitor) => visitor.logout()],
    ["a login with the new password", (visitor) => visitor.login("ada", "another horse", { remember: true })],
    [
      "the end of the account",
      (visitor) => visitor.tell("DELETE", "/account", { password: "another horse" }),
    ],
    ["a name that is free again", (visitor) => visitor.register("Ada", PASSWORD)],
  ];

  test("answers, calls to the store and commands", async () => {
    await store.redis.flushDb();
    for (const one of [store, plain.store]) await one.redis.scriptFlush();
    const both = [
      { visitor: two.visitor(), store, worker: two },
      { visitor: plain.workers[0].visitor(), store: plain.store, worker: plain.workers[0] },
    ];
    for (const [what, act] of STEPS) {
      const [sealed, unsealed] = await Promise.all(
        both.map(async ({ visitor, store, worker }) => {
          const counted = await store.counters.during(async () => {
            const answer = await act(visitor);
            await worker.idle();
            return answer;
          });
          return counted;
        }),
      );
      assertAlike(sealed.value, unsealed.value, what);
      assert.deepEqual(sealed.byName, unsealed.byName, what);
      assert.equal(sealed.calls, unsealed.calls, what);
    }
  });

  test("as much data as is allowed can be stored, listed and changed", async () => {
    const visitor = await registered();
    // Characters that JSON would write in two, as they would be in a command.
    const large = '"'.repeat((262_144 - 20) / 2);
    assert.equal((await visitor.merge({ large })).status, 200);
    assert.equal((await visitor.increment("/n")).status, 200);
    assert.equal((await visitor.session()).data.large, large);
    assert.equal((await visitor.rotate()).status, 200);
    const { sessions } = (await visitor.send("GET", "/auth/sessions")).json;
    assert.equal(sessions.length, 1);
    assert.equal(sessions[0].user_agent, AGENT);
  });

  test("an operator sees a session's data and how large it is as stored, and ends all sessions of a user with their number", async () => {
    const visitor = await registered();
    await visitor.merge({ cart: [1] });
    const { handle, user } = await visitor.session();
    const found = await operate("GET", `/sessions/${handle}`);
    assert.equal(found.status, 200, found.text);
    assert.deepEqual(found.json.session.data, { cart: [1] });
    assert.equal(found.json.session.stored_bytes, String(await store.redis.get(`sess:${handle}`)).length);
    const cookie = `__Host-session=${visitor.ticket}`;
    assert.equal((await operate("POST", "/inspect", { cookie })).json.alive, true);
    await one.visitor().login(name, PASSWORD);
    assert.deepEqual((await operate("DELETE", `/users/${user.id}/sessions`)).json, { ended: 2 });
    assert.equal(await visitor.session(), null);
  });

  test("of sixty changes at once at two isolates none is lost that was acknowledged, of data and of a profile", async () => {
    const visitor = await registered();
    const increment = { op: "increment", path: "/n", value: 1 };
    const type = { "Content-Type": "application/json-patch+json" };
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, index) => {
        const other = visitor.clone(workers[index % 2].url);
        return index % 3 ? other.patch([increment]) : other.tell("PATCH", "/profile", [increment], type);
      }),
    );
    // On a busy machine some may reach the deadline: those are 409, and were not made.
    assert.ok(answers.every(({ status }) => status === 200 || status === 409));
    const made = (/** @type {boolean} */ isData) =>
      answers.filter(({ status }, index) => status === 200 && Boolean(index % 3) === isData).length;
    assert.ok(made(true) > 0 && made(false) > 0);
    assert.equal((await visitor.session()).data.n, made(true));
    assert.equal((await visitor.send("GET", "/auth/profile")).json.n, made(false));
  });

  for (const [what, prefix] of [
    ["the session's data", "sess:"],
    ["the profile", "account:"],
  ]) {
    test(`a change of ${what} whose answer is lost is made once: states are told apart by their names, not by what is stored`, async () => {
      const visitor = await registered();
      for (const times of [1, 2, 5]) {
        store.faults.next("lostAnswer", {
          times,
          when: ({ commands }) =>
            commands.some(([word, key, , how]) => word === "SET" && key.startsWith(prefix) && how === "IFEQ"),
        });
        const operations = [{ op: "increment", path: "/n", value: 1 }];
        const answer =
          prefix === "sess:"
            ? await visitor.patch(operations)
            : await visitor.tell("PATCH", "/profile", operations, {
                "Content-Type": "application/json-patch+json",
              });
        store.faults.clear();
        assert.equal(answer.status, 200, answer.text);
      }
      const data =
        prefix === "sess:"
          ? (await visitor.session()).data
          : (await visitor.send("GET", "/auth/profile")).json;
      assert.equal(data.n, 3);
    });
  }
});

describe("who can write to the store", () => {
  /** Something that was stored, otherwise. @type {[string, (text: string, other: string) => string][]} */
  const FORGERIES = [
    ["another session's", (_, other) => other],
    [
      "with a byte of it changed",
      (text) => text.replace(/(.)"}$/, (_, last) => `${last === "A" ? "E" : "A"}"}`),
    ],
    [
      "with a byte in its middle changed",
      (text) => text.slice(0, 90) + (text[90] === "A" ? "B" : "A") + text.slice(91),
    ],
    ["cut off", (text) => `${text.slice(0, -10)}"}`],
    ["cut off, and no JSON", (text) => text.slice(0, -10)],
    ["under another key's id", (text) => text.replace(/"sealed":"[\w-]{8}/, '"sealed":"AAAAAAAA')],
  ];

  for (const [what, forge] of FORGERIES) {
    test(`cannot put ${what} in the place of a session's record: 500, left as it is, and a logout removes it`, async () => {
      const [visitor, other] = [one.visitor(), one.visitor()];
      await visitor.merge({ whose: "mine" });
      await other.merge({ whose: "another's" });
      const [key, otherKey] = await Promise.all(
        [visitor, other].map(async (each) => `sess:${(await each.session()).handle}`),
      );
      const [stored, others] = await Promise.all(
        [key, otherKey].map(async (each) => String(await store.redis.get(each))),
      );
      const forged = forge(stored, others);
      assert.notEqual(forged, stored);
      await store.redis.set(key, forged, { expiration: "KEEPTTL" });
      for (const answer of [
        await visitor.clone().look(),
        await visitor.clone().merge({ b: 2 }),
        await visitor.clone().rotate(),
        await operate("GET", `/sessions/${key.slice(5)}`),
      ]) {
        assert.equal(answer.status, 500, answer.text);
        assert.equal(answer.json.code, "internal");
        assert.deepEqual(answer.setCookies, []);
      }
      assert.equal(await store.redis.get(key), forged);
      assert.equal((await visitor.logout()).status, 204);
      assert.equal(await store.redis.exists(key), 0);
      assert.equal((await other.session()).data.whose, "another's");
    });
  }

  test("cannot put an account in another's place, to log in there with its password", async () => {
    await registered();
    const victim = `account:${name.toLowerCase()}`;
    const own = name;
    name = "Mallory";
    await registered();
    const stored = String(await store.redis.get(victim));
    await store.redis.set(victim, String(await store.redis.get("account:mallory")));
    const answer = await one.visitor().login(own, PASSWORD);
    assert.equal(answer.status, 500, answer.text);
    assert.deepEqual(answer.setCookies, []);
    await store.redis.set(victim, stored);
    assert.equal((await one.visitor().login(own, PASSWORD)).status, 200);
  });
});

test("the log and the answers hold neither a key nor anything that was sealed", () => {
  const logs = workers.flatMap((worker) => worker.logs).join("");
  assert.match(logs, /it is sealed under a key that is not in SESSION_ENCRYPTION_KEY/);
  assert.match(logs, /it is sealed, and was changed or moved from another key of the store/);
  for (const secret of [common.secrets.SESSION_ENCRYPTION_KEY, "another's", "argon2"]) {
    assert.ok(!logs.includes(secret), secret);
  }
});
