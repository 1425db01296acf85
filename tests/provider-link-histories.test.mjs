/**
 * Random histories of accounts that want the same identities: tied, untied, entered, at two isolates, while the store loses
 * answers. A seed that fails is named; `SEED=n` plays it alone.
 */
import assert from "node:assert/strict";
import { test } from "node:test";
import { linked, logIn, owner, somebody, store, tie, untie } from "./support/links.mjs";
import { dice } from "./support/torture/dice.mjs";

/**
 * What was done: when, by which account, with which identity, and what came of it.
 * @typedef {{ kind: "tie" | "untie" | "login", start: number, end: number, account?: number, identity?: number, outcome: string,
 *   user?: string }} Operation
 */

const SEEDS = process.env.SEED ? [Number(process.env.SEED)] : Array.from({ length: 20 }, (_, seed) => seed);

/** Plays a history. @param {number} seed */
async function play(seed) {
  const { between, chance, draw, times } = dice(seed);
  const owners = await Promise.all(times(3, () => owner()));
  const identities = times(2, somebody);
  /** @type {Operation[]} */
  const operations = [];
  let clock = 0;
  const acts = {
    async tie(/** @type {Operation} */ told) {
      told.account = between(0, 2);
      told.identity = between(0, 1);
      const answer = await tie(owners[told.account].visitor.clone(), identities[told.identity]);
      told.outcome = answer.headers.get("location") ?? String(answer.status);
    },
    async untie(/** @type {Operation} */ told) {
      told.account = between(0, 2);
      told.outcome = String((await untie(owners[told.account].visitor.clone())).status);
    },
    async login(/** @type {Operation} */ told) {
      told.identity = between(0, 1);
      const { answer, visitor } = await logIn(identities[told.identity]);
      told.outcome = answer.headers.get("location") ?? String(answer.status);
      if (told.outcome === "/home") told.user = (await visitor.session())?.user?.id;
    },
  };
  const troubled = chance(0.6) ? between(10, 60) : Infinity;
  let calls = 0;
  // The first calls of these are reads of the session: what cannot be answered there is a 503, and nothing has begun.
  store.faults.next("lostAnswer", {
    times: 3,
    when: ({ commands }) =>
      commands.some(([word]) => word === "EVAL" || word === "GETEX") && ++calls > troubled,
  });
  await Promise.all(
    times(4, async () => {
      for (const kind of times(between(3, 6), () =>
        draw(
          /** @type {[number, keyof typeof acts][]} */ ([
            [5, "tie"],
            [3, "untie"],
            [3, "login"],
          ]),
        ),
      )) {
        /** @type {Operation} */
        const told = { kind, start: ++clock, end: Infinity, outcome: "" };
        operations.push(told);
        await acts[kind](told);
        told.end = ++clock;
      }
    }),
  );
  store.faults.clear();
  // Everything is over: what each account says, and where each identity leads.
  const says = [];
  for (const { visitor } of owners) says.push((await linked(visitor)).includes("acme"));
  const leads = [];
  for (const identity of identities) leads.push((await logIn(identity)).user.id);
  return { operations, says, leads, owners, identities };
}

/** Whether it may have been made although it was not acknowledged. */
const isDoubtful = (/** @type {Operation} */ { outcome }) => outcome === "503" || outcome === "409";
const isTied = (/** @type {Operation} */ { kind, outcome }) => kind === "tie" && outcome === "/account";
const isUntied = (/** @type {Operation} */ { kind, outcome }) => kind === "untie" && outcome === "204";

for (const seed of SEEDS) {
  test(`in the history ${seed} no identity has two accounts, no account two identities, and what was acknowledged holds`, async () => {
    const { operations, says, leads, owners, identities } = await play(seed);
    const story = operations
      .map(({ kind, start, end, account, identity, outcome, user }) =>
        [`${start}-${end}`, kind, `account ${account}`, `identity ${identity}`, outcome, user].join(" "),
      )
      .concat(`${says} ${leads}`, owners.map(({ id }) => id).join(" "))
      .join("\n");
    const allowed = {
      tie: /^(\/account(\?login_error=already_linked)?|503|409)$/,
      untie: /^(204|503|409)$/,
      login: /^(\/home|503)$/,
    };
    for (const { kind, outcome } of operations) assert.match(outcome, allowed[kind], `${kind}\n${story}`);
    // 1. Both sides agree in the end: nothing is tied by half.
    const tied = leads.map((user) => owners.findIndex(({ id }) => id === user));
    for (const [identity, user] of leads.entries())
      if (tied[identity] < 0) assert.equal(user, `acme:${identities[identity]}`, story);
    assert.deepEqual(
      says,
      owners.map((_, account) => tied.includes(account)),
      story,
    );
    assert.equal(
      new Set(tied.filter((account) => account >= 0)).size,
      tied.filter((account) => account >= 0).length,
      story,
    );
    // 2. Between two ties that exclude each other the first was untied.
    const ties = operations.filter(isTied);
    const isUntiedBetween = (/** @type {Operation} */ tie, /** @type {number} */ until) =>
      operations.some(
        (one) =>
          one.account === tie.account &&
          one.end > tie.start &&
          one.start < until &&
          (isUntied(one) || (one.kind === "untie" && isDoubtful(one))),
      );
    for (const first of ties)
      for (const second of ties) {
        const excludes = (first.account === second.account) !== (first.identity === second.identity);
        if (excludes && first.end < second.start) assert.ok(isUntiedBetween(first, second.end), story);
      }
    // 3. A login leads where somebody has tied it, and leads there once that is acknowledged.
    for (const login of operations.filter(({ kind, user }) => kind === "login" && user)) {
      const account = owners.findIndex(({ id }) => id === login.user);
      const isTheirs = (/** @type {Operation} */ one) =>
        one.kind === "tie" && one.identity === login.identity && one.start < login.end;
      if (account >= 0) {
        const by = operations.find(
          (one) => isTheirs(one) && one.account === account && (isTied(one) || isDoubtful(one)),
        );
        assert.ok(by, `${login.start} leads to ${account}\n${story}`);
      }
      for (const tie of ties.filter(
        (one) => isTheirs(one) && one.end < login.start && one.account !== account,
      ))
        assert.ok(isUntiedBetween(tie, login.end), `${login.start} has lost ${tie.start}\n${story}`);
    }
  });
}
