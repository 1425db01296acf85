/** The client's requests in their order: who goes alone, who waits for whom, for how long, and who stops it. */
import assert from "node:assert/strict";
import { describe, mock, test } from "node:test";
import { createClient } from "../client/src/index.js";
import { cookieJar, failure, page, startBehindProxy } from "./support/client.mjs";

const { store, worker, proxy } = await startBehindProxy();

const PASSWORD = "correct horse";
let number = 0;
const someone = () => ({ username: `Orderly ${(number += 1)}`, password: PASSWORD });

/** A promise, and what fulfils it. */
function gate() {
  let open = () => {};
  const until = new Promise((resolve) => (open = () => resolve(undefined)));
  return { until, open };
}

/** Until so many requests have arrived; and whether no more come by themselves. @param {number} count */
async function arrived(count) {
  while (proxy.seen.length < count) await new Promise(setImmediate);
  for (let turns = 0; turns < 50; turns += 1) await new Promise(setImmediate);
  assert.equal(proxy.seen.length, count);
}

describe("the first change", () => {
  test("of a page goes alone: of any number at once none is lost, in one session", async () => {
    const client = page(proxy.url);
    const { until, open } = gate();
    proxy.next(/PATCH/, { kind: "late", until });
    const changes = Array.from({ length: 20 }, (_, i) => client.merge({ [`m${i}`]: i }));
    await arrived(1);
    open();
    const handles = new Set((await Promise.all(changes)).map(({ handle }) => handle));
    assert.equal(handles.size, 1);
    assert.equal(Object.keys((await client.session())?.data ?? {}).length, 20);
  });

  test("that fails lets the next one be the first", async () => {
    const client = page(proxy.url);
    const bad = client.patch([{ op: "remove", path: "/nothing" }]);
    const good = ["a", "b"].map((name) => client.merge({ [name]: 1 }));
    assert.equal((await failure(bad)).code, "unprocessable");
    await Promise.all(good);
    assert.deepEqual((await client.session())?.data, { a: 1, b: 1 });
  });

  test("after the session has ended elsewhere goes alone again", async () => {
    const jar = cookieJar();
    const client = page(proxy.url, {}, jar);
    const { handle } = await client.merge({ old: 1 });
    await store.redis.del(`sess:${handle}`);
    proxy.clear();
    const changes = ["a", "b", "c"].map((name) => client.merge({ [name]: 1 }));
    const counted = client.increment("/n");
    const handles = new Set((await Promise.all([...changes, counted])).map((session) => session.handle));
    assert.equal(handles.size, 1);
    assert.deepEqual((await client.session())?.data, { a: 1, b: 1, c: 1, n: 1 });
    assert.equal(proxy.took().length, 4 + 4 + 1, "each is refused once, and made once");
  });

  test("with a session, changes go at once", async () => {
    const client = page(proxy.url);
    await client.merge({ a: 1 });
    proxy.clear();
    const { until, open } = gate();
    proxy.always(() => ({ kind: "held", until }));
    const changes = [1, 2, 3].map(() => client.increment("/n"));
    await arrived(3);
    open();
    await Promise.all(changes);
    assert.equal((await client.session())?.data.n, 3);
  });
});

describe("what brings a new ticket", () => {
  test("waits for those under way, and those behind it wait for it", async () => {
    const client = page(proxy.url);
    const credentials = someone();
    await client.register(credentials);
    for (const act of [
      () => client.login(credentials),
      () => client.rotate(),
      () => client.reauthenticate(PASSWORD),
      () => client.endDevices({ keepCurrent: true }),
      () => client.logout(),
      () => client.register(someone()),
    ]) {
      proxy.clear();
      const [reading, entering] = [gate(), gate()];
      proxy.next(/GET/, { kind: "late", until: reading.until });
      const before = client.session();
      await arrived(1);
      proxy.next(/POST|DELETE/, { kind: "late", until: entering.until });
      const call = act();
      const behind = [client.session(), client.session()];
      await arrived(1);
      reading.open();
      await before;
      await arrived(2);
      entering.open();
      await call;
      const sessions = await Promise.all(behind);
      assert.deepEqual(sessions, [client.current, client.current]);
    }
  });

  test("that fails holds nobody up", async () => {
    const client = page(proxy.url, { retries: 0 });
    await client.merge({ a: 1 });
    proxy.next(/rotate/, { kind: "down" });
    const [error, session] = await Promise.all([failure(client.rotate()), client.session()]);
    assert.equal(error.code, "network");
    assert.deepEqual(session?.data, { a: 1 });
  });

  test("is waited for by a read that would bring the older one back", async () => {
    // The read rotates by itself, as its time has come; the login is sent at the same moment.
    const jar = cookieJar();
    const client = page(proxy.url, {}, jar);
    const credentials = someone();
    await client.register(credentials);
    await worker.moveClock(2 * 3_600_000);
    const { until, open } = gate();
    proxy.next(/GET/, { kind: "late", until });
    const read = client.session();
    const login = client.login(credentials);
    setImmediate(open);
    await Promise.all([read, login]);
    assert.equal((await client.session())?.handle, (await login).handle);
    await worker.moveClock(-2 * 3_600_000);
  });
});

describe("a signal", () => {
  test("stops a call before it is sent, while it waits, while it is under way", async () => {
    const client = page(proxy.url);
    await client.merge({ a: 1 });
    proxy.clear();
    const gone = await failure(client.merge({ a: 2 }, { signal: AbortSignal.abort("enough") }));
    assert.deepEqual([gone.code, gone.maybeDone, gone.cause], ["aborted", false, "enough"]);
    assert.equal(proxy.seen.length, 0);

    const { until, open } = gate();
    proxy.next(/rotate/, { kind: "held", until });
    const rotating = client.rotate();
    const stopped = new AbortController();
    const waiting = failure(client.increment("/n", 1, { signal: stopped.signal }));
    await arrived(1);
    stopped.abort();
    assert.deepEqual([(await waiting).code, (await waiting).maybeDone], ["aborted", false]);
    open();
    await rotating;
    await arrived(1);

    const flying = new AbortController();
    proxy.next(/PATCH/, { kind: "late", until: new Promise(() => {}) });
    const call = failure(client.increment("/n", 1, { signal: flying.signal }));
    await arrived(2);
    flying.abort();
    assert.deepEqual([(await call).code, (await call).maybeDone], ["aborted", true]);
    assert.ok(await client.rotate(), "nobody waits for it any more");
  });

  test("stops an update between its tries, and nothing is left listening", async () => {
    const client = page(proxy.url);
    const { signal } = new AbortController();
    let listening = 0;
    signal.addEventListener = () => void (listening += 1);
    signal.removeEventListener = () => void (listening -= 1);
    await client.update((data) => void (data.n = 1), { signal });
    await client.session({ signal });
    assert.equal(listening, 0);
    const stopped = new AbortController();
    const error = await failure(
      client.update((data) => void ((data.n += 1), stopped.abort()), { signal: stopped.signal }),
    );
    assert.deepEqual([error.code, error.maybeDone], ["aborted", false]);
  });
});

describe("an answer that does not come", () => {
  test("is a timeout, of which a change may have been made; and the next call is not held up", async () => {
    const client = page(proxy.url, { timeout: 50, retries: 0 });
    proxy.next(/./, { kind: "held", until: new Promise(() => {}) }, 2);
    const error = await failure(client.session());
    assert.deepEqual([error.code, error.maybeDone], ["timeout", false]);
    assert.equal((await failure(client.increment("/n"))).maybeDone, true);
    await page(proxy.url, { timeout: Infinity }).session();
  });
});

describe("a 429", () => {
  /** A client of a server that answers so, each in turn. @param {(() => Response)[]} answers @param {object} [options] */
  function limited(answers, options) {
    let sent = 0;
    const fetch = async () => (answers[sent++] ?? answers[answers.length - 1])();
    return { client: createClient({ baseUrl: "https://x.example", fetch, ...options }), sent: () => sent };
  }
  const refusal = (/** @type {Record<string, string>} */ headers) => () =>
    new Response('{"code":"rate_limited","detail":"the limit"}', {
      status: 429,
      headers: { "content-type": "application/problem+json", ...headers },
    });
  const good = () => Response.json({ session: null });

  test("is an error with the seconds to wait, unless asked otherwise", async () => {
    for (const [headers, seconds] of /** @type {[Record<string, string>, number | undefined][]} */ ([
      [{ "retry-after": "17" }, 17],
      // Both are the server's: what the clock here says does not matter.
      [{ date: "Sat, 01 Jan 2000 00:00:00 GMT", "retry-after": "Sat, 01 Jan 2000 00:00:09 GMT" }, 9],
      [{ date: "Sat, 01 Jan 2000 00:00:00 GMT", "retry-after": "Fri, 31 Dec 1999 00:00:00 GMT" }, undefined],
      [{ "retry-after": "Sat, 01 Jan 2050 00:00:09 GMT" }, undefined],
      [{ "retry-after": "soon" }, undefined],
      [{ "retry-after": "-5" }, undefined],
      [{}, undefined],
    ])) {
      const { client, sent } = limited([refusal(headers)]);
      const error = await failure(client.login({ username: "a", password: "b" }));
      assert.deepEqual([error.code, error.retryAfter, error.maybeDone], ["rate_limited", seconds, false]);
      assert.equal(sent(), 1);
    }
  });

  /** Lets a call wait: each pause is over at once, and counted. @param {Promise<unknown>} call */
  async function pauses(call) {
    /** @type {number[]} */
    const waits = [];
    const settled = call.then(
      () => true,
      () => true,
    );
    const own = mock.method(globalThis, "setTimeout", (/** @type {() => void} */ act, milliseconds = 0) => {
      // Of the call's timeout the end is not waited for.
      if (milliseconds === 15_000) return undefined;
      waits.push(milliseconds / 1000);
      queueMicrotask(act);
      return undefined;
    });
    await settled;
    own.mock.restore();
    return waits;
  }

  test("is waited out, of whatever call, for as long as it says and as was allowed", async () => {
    const wait = (/** @type {string} */ seconds) => refusal({ "retry-after": seconds });
    for (const [waitForLimits, answers, waits, ends] of /** @type {[any, any[], number[], string][]} */ ([
      [true, [wait("3"), wait("0"), refusal({}), good], [3, 1, 1], "good"],
      [true, [wait("61")], [], "rate_limited"],
      [true, [wait("25")], [25, 25], "rate_limited"],
      [10, [wait("9"), wait("2"), good], [9], "rate_limited"],
      [Infinity, [wait("86400")], [86_400], "rate_limited"],
      [Infinity, [wait("2678400")], [], "rate_limited"],
      [false, [wait("1")], [], "rate_limited"],
    ])) {
      const { client } = limited(answers, { waitForLimits });
      const call = client.login({ username: "a", password: "b" });
      const done = call.then(
        () => "good",
        ({ code }) => code,
      );
      assert.deepEqual(await pauses(call), waits);
      assert.equal(await done, ends);
    }
    const { client } = limited([wait("3"), good]);
    assert.deepEqual(await pauses(client.session({ waitForLimits: 3 })), [3], "also for one call");
  });

  test("does not hold up others while it is waited for, and a signal ends the wait", async () => {
    const { client } = limited([refusal({ "retry-after": "30" }), good], { waitForLimits: true });
    const stopped = new AbortController();
    const waiting = failure(client.login({ username: "a", password: "b" }, { signal: stopped.signal }));
    await new Promise(setImmediate);
    assert.equal(await client.session(), null);
    stopped.abort();
    assert.deepEqual([(await waiting).code, (await waiting).maybeDone], ["aborted", false]);
  });
});
