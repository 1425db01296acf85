/**
 * Random histories of one account: logins, resets and changed passwords beside disabling and enabling, at two isolates, while
 * the store loses answers. A seed that fails is named; `SEED=n` plays it alone.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  name,
  number,
  operate,
  registered,
  RIGHT,
  setDisabled,
  someone,
  store,
  useName,
  userPath,
  useToken,
} from "./support/accounts.mjs";
import { dice } from "./support/torture/dice.mjs";

/** @typedef {import("./support/accounts.mjs").Visitor} Visitor */
/** @typedef {import("./support/accounts.mjs").Answer} Answer */
/** @typedef {"login" | "use" | "password" | "token" | "disable" | "enable" | "look"} Kind */
/**
 * What was done: when, with what password or token, and the ticket in its answer.
 * @typedef {{ kind: Kind, start: number, end: number, status: number, code?: string, password?: string, next?: string,
 *   token?: string, visitor?: Visitor }} Operation
 */

const SEEDS = process.env.SEED ? [Number(process.env.SEED)] : Array.from({ length: 24 }, (_, seed) => seed);

/** Plays a history. @param {number} seed */
async function play(seed) {
  const { between, chance, draw, times } = dice(seed);
  useName(`History ${number}.${seed}`);
  const owner = await registered();
  const { id } = (await owner.session()).user;
  let [clock, words] = [0, 0];
  let password = RIGHT;
  /** @type {string[]} */
  const tokens = [];
  /** @type {Operation[]} */
  const operations = [{ kind: "login", start: ++clock, end: ++clock, status: 200, password, visitor: owner }];
  /** @type {Record<Exclude<Kind, "look">, (told: Partial<Operation>) => Promise<Answer>>} */
  const acts = {
    login(told) {
      told.visitor = someone();
      told.password = password;
      return told.visitor.login(name, password);
    },
    use(told) {
      told.visitor = someone();
      told.token = tokens[between(Math.max(0, tokens.length - 3), tokens.length - 1)] ?? "A".repeat(64);
      told.next = `chosen word ${++words}`;
      return useToken(told.token, told.next, told.visitor);
    },
    password(told) {
      const known = operations.filter(({ visitor }) => visitor?.ticket);
      told.visitor = known[between(0, known.length - 1)]?.visitor?.clone() ?? someone();
      told.password = password;
      told.next = `chosen word ${++words}`;
      return told.visitor.tell("POST", "/password", { current: password, new: told.next });
    },
    token: () => operate("POST", `${userPath(id)}/reset`),
    disable: () => setDisabled(id, true),
    enable: () => setDisabled(id, false),
  };
  const perform = async (/** @type {keyof typeof acts} */ kind) => {
    /** @type {Operation} */
    const told = { kind, start: ++clock, end: Infinity, status: 0 };
    operations.push(told);
    const answer = await acts[kind](told);
    Object.assign(told, { end: ++clock, status: answer.status, code: answer.json?.code });
    if (kind === "token" && answer.status === 201) {
      told.token = answer.json.token;
      tokens.push(answer.json.token);
    }
    if (answer.status === 200 && told.next) password = told.next;
  };
  await perform("token");
  const troubled = chance(0.6) ? between(10, 40) : Infinity;
  let calls = 0;
  store.faults.next("lostAnswer", { times: 2, when: () => ++calls > troubled });
  await Promise.all(
    times(between(3, 6), async () => {
      for (const kind of times(between(3, 6), () =>
        draw(
          /** @type {[number, keyof typeof acts][]} */ ([
            [4, "login"],
            [3, "use"],
            [1, "password"],
            [2, "token"],
            [2, "disable"],
            [3, "enable"],
          ]),
        ),
      ))
        await perform(kind);
    }),
  );
  store.faults.clear();
  // Everything is over: what each session is now, and which password opens the account.
  const sights = await Promise.all(
    operations.map(async ({ visitor }) =>
      Boolean(visitor?.ticket && (await visitor.clone().session())?.user),
    ),
  );
  const found = await operate("GET", userPath(id));
  const all = [RIGHT, ...Array.from({ length: words }, (_, index) => `chosen word ${index + 1}`)];
  const wasDisabled = found.json.disabled;
  if (wasDisabled) assert.equal((await someone().login(name, password)).status, 401);
  await setDisabled(id, false);
  const opening = [];
  for (const word of all) if ((await someone().login(name, word)).status === 200) opening.push(word);
  return { operations, sights, wasDisabled, opening };
}

const isDone = (/** @type {Operation} */ { status }) => status === 200 || status === 201;
/** Whether it may have been made although it was not acknowledged. */
const isDoubtful = (/** @type {Operation} */ { status }) => status === 409 || status >= 500;

for (const seed of SEEDS) {
  test(`in the history ${seed} no session outlives a disabling, no token opens twice, no acknowledged change is undone`, async () => {
    const { operations, sights, wasDisabled, opening } = await play(seed);
    const story = operations
      .map(
        ({ kind, start, end, status, code, next }) =>
          `${start}-${end} ${kind} ${status} ${code ?? ""} ${next ?? ""}`,
      )
      .join("\n");
    for (const { kind, status } of operations)
      assert.ok([200, 201, 401, 403, 409, 503].includes(status), `${kind} ${status}\n${story}`);
    const made = (/** @type {Kind} */ kind) => operations.filter((one) => one.kind === kind && isDone(one));
    // 1. What ends all sessions has ended those from before it.
    const ends = [...made("disable"), ...made("use"), ...made("password")];
    for (const [index, began] of operations.entries()) {
      if (!sights[index]) continue;
      const end = ends.find(
        (one) => one !== began && began.end < one.start && one.visitor?.ticket !== began.visitor?.ticket,
      );
      assert.equal(end, undefined, `the session of ${began.start}-${began.end} lives\n${story}`);
    }
    if (wasDisabled) assert.ok(!sights.includes(true), `a session of a disabled account\n${story}`);
    // 2. One use per token.
    const used = made("use").map(({ token }) => token);
    assert.equal(new Set(used).size, used.length, story);
    // 3. The password is that of the last change; of those that overlap, and those in doubt, of any.
    assert.equal(opening.length, 1, `${opening}\n${story}`);
    const changes = operations.filter(({ next }) => next);
    const its = changes.find(({ next }) => next === opening[0]);
    const later = changes.find((one) => isDone(one) && (!its || its.end < one.start));
    assert.ok(!its || isDone(its) || isDoubtful(its), `${opening}\n${story}`);
    assert.equal(later, undefined, `${opening} after ${later?.next}\n${story}`);
    // 4. So is whether it is disabled.
    const switches = operations.filter(({ kind }) => kind === "disable" || kind === "enable");
    const set = wasDisabled ? "disable" : "enable";
    const last = switches.filter((one) => isDone(one) && one.kind !== set).at(-1);
    const isUndone =
      last &&
      !switches.some((one) => one.kind === set && one.end > last.start && (isDone(one) || isDoubtful(one)));
    assert.ok(!isUndone, `it is ${set}d\n${story}`);
    // 5. A token that was ended, or used up, opens nothing: not even in doubt.
    for (const use of made("use")) {
      const making = operations.find((one) => one.kind === "token" && one.token === use.token);
      const ended = made("disable").find((one) => Number(making?.end) < one.start && one.end < use.start);
      assert.equal(ended, undefined, `a token from before a disabling\n${story}`);
    }
  });
}
