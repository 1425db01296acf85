/** What the store refuses for a reason that an operator can remove is named in the log, and nothing else of its text. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { assertNothingTold, assertProblem, guest, MARK, start, store, Watched } from "./support/errors.mjs";
import { until } from "./support/worker.mjs";

/** The error's text as the store sends it, and what the log says. @type {[string, RegExp][]} */
const ERRORS = [
  [
    `ERR max requests limit exceeded. Limit: 500000, Usage: 500000. ${MARK}`,
    /commands for this month.*upgrade/,
  ],
  [
    `ERR max daily request limit exceeded. Limit: 10000, Usage: 10001. See ${MARK}`,
    /commands for today.*upgrade/,
  ],
  [`ERR max bandwidth limit exceeded ${MARK}`, /bandwidth.*upgrade/],
  [`ERR max request size exceeded. Limit: 1048576 bytes, Actual: 1048577 ${MARK}`, /session\.max_bytes/],
  [`ERR max single record size exceeded. ${MARK}`, /session\.max_bytes/],
  [`ERR DB capacity quota exceeded. Threshold: 268435456 bytes ${MARK}`, /database is full.*upgrade/],
  [`ERR max concurrent connections exceeded ${MARK}`, /connections are in use/],
  [`WRONGPASS invalid or missing auth token ${MARK}`, /check UPSTASH_REDIS_REST_TOKEN/],
  [`NOAUTH Authentication required. ${MARK}`, /check UPSTASH_REDIS_REST_TOKEN/],
  [`NOPERM this user has no permissions to run the 'set' command ${MARK}`, /not the read-only one/],
  [`READONLY You can't write against a read only replica. ${MARK}`, /must lead to the primary/],
  [`OOM command not allowed when used memory > 'maxmemory'. ${MARK}`, /memory is full/],
  [`ERR unknown command 'DELEX', with args beginning with: 'sess:x' '${MARK}'`, /does not know a command/],
  [`ERR Command is not available: 'DELEX ${MARK}'. See https://store.example`, /does not know a command/],
  [`ERR syntax error ${MARK}`, /does not know a command/],
  [`EXECABORT Transaction discarded because of: ERR DB capacity quota exceeded ${MARK}`, /database is full/],
  [`EXECABORT Transaction discarded because of previous errors. ${MARK}`, /refused before it ran/],
  [`MISCONF Errors writing to the AOF file: ${MARK}`, /cannot save to its disk/],
];

/** @typedef {import("../tools/local-store/faults.mjs").Fault} Fault */
/** The ways in which such an error comes. @type {[string, (error: string) => Fault][]} */
const WAYS = [
  ["status 400 for the whole batch", (error) => ({ status: 400, body: { error } })],
  ["status 401 for the whole batch", (error) => ({ status: 401, body: { error } })],
  ["status 413 for the whole batch", (error) => ({ status: 413, body: { error } })],
  ["status 200 for the whole batch", (error) => ({ status: 200, body: { error } })],
  ["one command's reply", (error) => ({ entry: 0, error })],
];

for (const [error, expected] of ERRORS) {
  const name = error.split(MARK)[0].trim();
  test(`"${name}" is said in words to act upon, however it comes`, async () => {
    const worker = await start();
    const owner = await guest(worker.url);
    for (const [way, fault] of WAYS) {
      const told = worker.logs.join("").length;
      const visitor = new Watched(worker.url);
      visitor.ticket = owner.ticket;
      await visitor.forget();
      // The read goes through, the write that follows it does not.
      let seen = 0;
      store.faults.always(fault(error), { when: () => ++seen === 2 });
      const { value: answer, calls } = await store.counters.during(() => visitor.increment("/views"));
      store.faults.clear();
      assertProblem(answer, 503, "store_unavailable");
      assert.equal(calls, 2, `${way}: what was refused is not tried again`);
      const log = () => worker.logs.join("").slice(told);
      await until(
        () => expected.test(log()),
        () => `${way}: ${log()}`,
      );
      assert.doesNotMatch(log(), /\d{4}|'\w+'|Limit|https|sess:|maxmemory/, way);
      assert.equal((await owner.session()).data.views, 1);
    }
  });
}

test("a read that was refused because a quota is used up is not repeated", async () => {
  const worker = await start();
  const visitor = await guest(worker.url);
  for (const [status, error, expected] of /** @type {[number, string, number][]} */ ([
    [429, "ERR max requests limit exceeded. Limit: 1", 1],
    [503, "ERR DB capacity quota exceeded", 1],
    [503, "LOADING Redis is loading the dataset in memory", 3],
    [429, "slow down", 3],
  ])) {
    store.faults.always({ status, body: { error } });
    const { value: answer, calls } = await store.counters.during(() => visitor.look());
    store.faults.clear();
    assertProblem(answer, 503, "store_unavailable");
    assert.equal(calls, expected, error);
  }
});

test("nothing else of what the store says is in the log", async () => {
  await assertNothingTold({ leastProblems: 80, leastTickets: 15 });
});
