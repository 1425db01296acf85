/** What operators do while the store fails: done or 503, nothing half done, and it can be repeated. */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  loggedIn,
  name,
  nextNumber,
  number,
  operate,
  registered,
  resetToken,
  RIGHT,
  setDisabled,
  someone,
  store,
  useName,
  userPath,
  useToken,
} from "./support/accounts.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */
/** @typedef {import("./support/accounts.mjs").Fault} Fault */

const NEW = "another horse";

/** @type {[string, Fault][]} */
const FAULTS = [
  ["loses its answer", { lostAnswer: true }],
  ["says 500 and does it", { status: 500, body: "<h1>no</h1>", execute: true }],
  ["answers numbers", { status: 200, body: [{ result: 7 }, { result: 7 }, { result: 7 }] }],
  ["leaves a reply out", { short: true }],
  ["fails a command", { entry: 0, error: "ERR made up" }],
];

/** Somebody with two sessions, and who they are. */
async function owner() {
  const visitor = await registered();
  return { visitors: [visitor, await loggedIn()], id: String((await visitor.session()).user.id) };
}
/** @typedef {Awaited<ReturnType<typeof owner>> & { token: string, holder: Visitor }} Scene */

const statusOf = async (/** @type {Promise<Answer>} */ answer) => (await answer).status;
const login = (/** @type {string} */ password) => statusOf(someone().login(name, password));
const userOf = async (/** @type {Visitor} */ visitor) => (await visitor.clone().session())?.user ?? null;
const areGone = async (/** @type {Visitor[]} */ visitors) =>
  (await Promise.all(visitors.map(userOf))).every((user) => user === null);

/**
 * What is asked, the status of a success and of what repeats one, what must hold before, and what once it is done. `holds`: also
 * after a failure.
 * @type {Record<string, { run: (scene: Scene) => Promise<Answer>, status: number, again: number[],
 *   before?: (scene: Scene) => Promise<unknown>, done: (scene: Scene, answer: Answer) => Promise<unknown>,
 *   holds?: (scene: Scene, where: string) => Promise<unknown> }>}
 */
const ACTS = {
  "making an account": {
    run: () => operate("POST", "/users", { username: `${name} made`, password: RIGHT }),
    status: 201,
    again: [201, 409],
    async done() {
      const found = await operate("GET", `/users?name=${encodeURIComponent(`${name} made`)}`);
      assert.equal(found.status, 200);
      assert.equal(await statusOf(operate("GET", userPath(found.json.id))), 200);
      assert.equal(await statusOf(someone().login(`${name} made`, RIGHT)), 200);
    },
  },
  "disabling one": {
    run: ({ id }) => setDisabled(id, true),
    status: 200,
    again: [200],
    async done({ visitors }) {
      assert.ok(await areGone(visitors));
      assert.equal(await login(RIGHT), 401);
    },
  },
  "enabling one": {
    before: ({ id }) => setDisabled(id, true),
    run: ({ id }) => setDisabled(id, false),
    status: 200,
    again: [200],
    async done({ visitors }) {
      assert.equal(await login(RIGHT), 200);
      assert.ok(await areGone(visitors));
    },
    holds: async ({ visitors }) => assert.ok(await areGone(visitors)),
  },
  "deleting one": {
    run: ({ id }) => operate("DELETE", userPath(id)),
    status: 204,
    again: [204, 404],
    async done({ visitors, id }) {
      assert.ok(await areGone(visitors));
      assert.equal(await statusOf(operate("GET", userPath(id))), 404);
      const keys = await store.redis.keys("*");
      assert.deepEqual(
        keys.filter((key) => key.includes(name.toLowerCase())),
        [],
      );
      const named = await Promise.all(
        keys.filter((key) => key.endsWith(":account")).map((key) => store.redis.get(key)),
      );
      assert.ok(!named.includes(name.toLowerCase()));
      assert.equal(await statusOf(someone().register(name, RIGHT)), 201);
    },
    // As long as it can be logged in to, it can be found.
    async holds({ id }, where) {
      if ((await login(RIGHT)) === 200)
        assert.equal(await statusOf(operate("GET", userPath(id))), 200, where);
    },
  },
  "making a token": {
    run: ({ id }) => operate("POST", `${userPath(id)}/reset`),
    status: 201,
    again: [201],
    async done({ visitors }, answer) {
      assert.ok(!(await areGone(visitors)));
      assert.equal(await statusOf(useToken(answer.json.token, NEW)), 200);
    },
  },
  "using a token": {
    before: async (scene) => void (scene.token = await resetToken(scene.id)),
    run: ({ token, holder }) => useToken(token, NEW, holder),
    status: 200,
    again: [200, 401],
    async done({ visitors, holder, id }) {
      assert.deepEqual([await login(RIGHT), await login(NEW)], [401, 200]);
      assert.ok(await areGone(visitors));
      if (holder.ticket) assert.ok([id, undefined].includes((await userOf(holder))?.id));
    },
    async holds({ visitors, token }, where) {
      const [old, chosen] = [await login("neither of them"), await login(NEW)];
      assert.equal(old, 401);
      if (chosen === 200) assert.ok(await areGone(visitors), where);
      else
        assert.notEqual(await statusOf(useToken(token, "short")), 401, `${where}: the token is still good`);
    },
  },
  "ending a token by a login": {
    before: async (scene) => void (scene.token = await resetToken(scene.id)),
    run: ({ holder }) => holder.login(name, RIGHT),
    status: 200,
    again: [200],
    async done({ token, holder, id }) {
      assert.equal(await statusOf(useToken(token, NEW)), 401);
      assert.equal((await userOf(holder))?.id, id);
    },
  },
};

for (const [what, { run, status, again, before, done, holds }] of Object.entries(ACTS)) {
  for (const always of [false, true]) {
    test(`${what} on a store that fails ${always ? "from some call on" : "once"} is done, or is 503 and can be repeated`, async () => {
      for (const [how, fault] of always ? FAULTS.slice(0, 2) : FAULTS) {
        for (let call = 1; call < 20; call += 1) {
          useName(`Faulty ${number}.${nextNumber()}`);
          /** @type {Scene} */
          const scene = { ...(await owner()), token: "", holder: someone() };
          await before?.(scene);
          let seen = 0;
          store.faults.next(fault, { times: always ? Infinity : 1, when: () => ++seen >= call });
          const answer = await run(scene);
          store.faults.clear();
          const where = `call ${call}: the store ${how}: ${answer.status} ${answer.text}`;
          assert.ok([status, 503].includes(answer.status), where);
          if (answer.status === 503) {
            assert.deepEqual([answer.setCookies, answer.headers.get("retry-after")], [[], "1"], where);
            await holds?.(scene, where);
            const repeated = await run(scene);
            assert.ok(
              again.includes(repeated.status),
              `${where}, again: ${repeated.status} ${repeated.text}`,
            );
            await done(scene, repeated);
          } else await done(scene, answer);
          if (seen < call) break;
        }
      }
    });
  }
}
