/** Accounts while the store fails: nothing is left half done, and no secret is told. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  assertRefused,
  firstCall,
  loggedIn,
  mergeProfile,
  name,
  nextNumber,
  registered,
  RIGHT,
  secrets,
  sessionCreation,
  setRoles,
  someone,
  store,
  useName,
  WRONG,
} from "./support/accounts.mjs";
import { FAST_HASH, startBoth, startWorker } from "./support/worker.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */
/** @typedef {import("./support/accounts.mjs").Fault} Fault */

/** @type {[string, Fault][]} */
const FAULTS = [
  ["refuses", { refuse: true }],
  ["is cut off", { cut: true }],
  ["loses its answer", { lostAnswer: true }],
  ["says 401", { status: 401, body: { error: "WRONGPASS" } }],
  ["says 500", { status: 500, body: "<h1>no</h1>" }],
  ["says 500 and does it", { status: 500, body: "<h1>no</h1>", execute: true }],
  ["answers HTML", { status: 200, body: "<html>" }],
  ["answers an empty list", { status: 200, body: [] }],
  ["answers numbers", { status: 200, body: [{ result: 7 }, { result: 7 }, { result: 7 }] }],
  ["leaves a reply out", { short: true }],
  ["fails a command", { entry: 0, error: "ERR made up" }],
  ["is full", { capacity: true }],
];

/** What a visitor sends while the store fails, and again when it works: name, request, status of a success. */
const ACTS = [
  ["register", (/** @type {Visitor} */ one) => one.register(`${name} new`, RIGHT), 201],
  ["login", (/** @type {Visitor} */ one) => one.login(name, RIGHT), 200],
  [
    "reauthenticate",
    (/** @type {Visitor} */ one) => one.tell("POST", "/reauthenticate", { password: RIGHT }),
    200,
  ],
  [
    "password",
    (/** @type {Visitor} */ one) => one.tell("POST", "/password", { current: RIGHT, new: "another horse" }),
    200,
  ],
  ["profile", (/** @type {Visitor} */ one) => mergeProfile(one, { a: 1 }), 200],
  ["delete", (/** @type {Visitor} */ one) => one.tell("DELETE", "/account", { password: RIGHT }), 204],
];

for (const always of [false, true]) {
  test(`a store that fails ${always ? "from some call on" : "once"}: 503 or done, no cookie is lost, nothing is half done`, async () => {
    for (const [act, run, status] of /** @type {[string, (one: Visitor) => Promise<Answer>, number][]} */ (
      ACTS
    )) {
      for (const [what, fault] of FAULTS) {
        for (let call = 1; call < 16; call += 1) {
          useName(`faulty ${nextNumber()}`);
          const owner = await registered();
          const other = act === "password" ? await loggedIn() : undefined;
          const isEntry = act === "register" || act === "login";
          const visitor = isEntry ? someone() : owner;
          if (isEntry) await visitor.merge({ n: 1 });
          const { ticket } = visitor;
          let seen = 0;
          store.faults.next(fault, { times: always ? Infinity : 1, when: () => ++seen >= call });
          const answer = await run(visitor);
          store.faults.clear();
          const where = `${act}, call ${call}: the store ${what}: ${answer.status} ${answer.text}`;
          if (seen < call) {
            assert.equal(answer.status, status, where);
            break;
          }
          assert.ok([status, 409, 503].includes(answer.status), where);
          if (answer.status === 503) {
            assert.deepEqual(answer.setCookies, [], where);
            assert.equal(answer.headers.get("retry-after"), "1");
          }
          if (answer.status >= 400) assert.equal(visitor.ticket, ticket);
          // The request can be repeated: with the same body, or with what the first one made.
          const after = visitor.ticket ? await visitor.session() : null;
          if (isEntry) {
            if (answer.status === status) assert.deepEqual(after.data, { n: 1 }, where);
            const again = await run(visitor);
            assert.ok([status, act === "register" ? 409 : status].includes(again.status), where);
            const word = await someone().login(act === "register" ? `${name} new` : name, RIGHT);
            assert.equal(word.status, 200, where);
            const { id } = word.json.session.user;
            assert.equal((await setRoles(id, { roles: ["staff"] })).status, 204, where);
          } else if (act === "delete") {
            const left = await store.redis.exists(`account:${name}`);
            if (answer.status === 204) assert.equal(left, 0, where);
            const again = someone();
            const entered = left ? await again.login(name, RIGHT) : await again.register(name, RIGHT);
            assert.ok(entered.status < 300, where);
            assert.equal((await again.tell("DELETE", "/account", { password: RIGHT })).status, 204, where);
          } else {
            const words = [RIGHT, "another horse"];
            const statuses = await Promise.all(
              words.map(async (word) => (await someone().login(name, word)).status),
            );
            assert.equal(statuses.filter((one) => one === 200).length, 1, where);
            if (answer.status === status) assert.notEqual(after, null, where);
            if (answer.status === status && act === "password") assert.equal(statuses[1], 200, where);
            if (other && statuses[1] === 200) assert.equal(await other.session(), null, where);
          }
        }
      }
    }
  });
}

test("a store that hangs is answered 503, and its late writes do no harm", async () => {
  const slow = await startWorker({
    store,
    secrets,
    settings: { password: FAST_HASH, store: { timeout: "400ms" } },
  });
  try {
    for (const execute of [false, true]) {
      useName(`${name}x`);
      const visitor = slow.visitor();
      store.faults.always({ hang: true, execute });
      const answer = await visitor.register(name, RIGHT);
      store.faults.clear();
      assertRefused(answer, 503, "store_unavailable");
      assert.deepEqual(answer.setCookies, []);
      store.faults.next({ hang: true, execute }, { when: firstCall("MSETNX") });
      assert.equal((await visitor.register(name, RIGHT)).status, 201, "a lost answer is settled");
      store.faults.next({ hang: true, execute }, { when: sessionCreation() });
      assert.equal((await visitor.login(name, RIGHT)).status, 200);
      assert.notEqual(await visitor.session(), null);
    }
  } finally {
    store.faults.clear();
    await slow.stop();
  }
});

test("a login whose answer from the store is lost keeps the session's data, also after a revocation", async () => {
  const owner = await registered();
  await owner.send("DELETE", "/auth/sessions?keep=current");
  for (const command of ["HSET", "XX"]) {
    const visitor = someone();
    await visitor.merge({ n: 1 });
    let is = true;
    store.faults.next("lostAnswer", {
      when: ({ commands }) => {
        const hit = is && commands.some((words) => words.includes(command));
        if (hit) is = false;
        return hit;
      },
    });
    const answer = await visitor.login(name, RIGHT);
    assert.equal(is, false);
    assert.equal(answer.status, 200, answer.text);
    assert.deepEqual((await visitor.session()).data, { n: 1 });
  }
});

test("no log line and no answer contains a password, a hash, an id or a ticket", async () => {
  const { store, worker, stop } = await startBoth({
    settings: { password: FAST_HASH },
  });
  try {
    const visitor = worker.visitor();
    const texts = [(await visitor.register("Ada", RIGHT)).text];
    const tickets = [visitor.ticket];
    const kept = JSON.parse(String(await store.redis.get("account:ada")));
    for (const fault of FAULTS) {
      for (const run of [
        () => visitor.login("Ada", RIGHT),
        () => visitor.login("Ada", WRONG),
        () => visitor.tell("POST", "/reauthenticate", { password: WRONG }),
        () => visitor.tell("POST", "/password", { current: WRONG, new: RIGHT }),
        () => visitor.register("Ada", RIGHT),
      ]) {
        store.faults.next(fault[1]);
        texts.push((await run()).text);
        store.faults.clear();
        tickets.push(visitor.ticket);
      }
    }
    const dump = [];
    for (const key of await store.redis.keys("sess:*")) dump.push(await store.redis.get(key));
    const said = worker.logs.join("");
    assert.match(said, /the store failed/);
    for (const [what, text] of [
      ["log", said],
      ["answer", texts.join("\n")],
      ["store", dump.join("\n")],
    ]) {
      for (const secret of [RIGHT, WRONG, kept.hash, kept.hash.split("$").at(-1), ...tickets])
        assert.ok(!secret || !text?.includes(secret), `${what}: ${secret}`);
    }
    assert.ok(!said.includes(kept.id));
  } finally {
    await stop();
  }
});
