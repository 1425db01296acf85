/** The secrets that Express and the Worker share: several, changed on either side first, and wrong ones. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { json, keyOf, ok, recordAt, sidOf, startBeside } from "./support/express.mjs";
import { randomSecret, until } from "./support/worker.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */

const [OLD, NEW, OTHER] = ["keyboard cat", "a secret, with a comma and ü", randomSecret()];

/** @type {Beside} */
let both;
before(async () => {
  both = await startBeside({ app: { session: { secret: OLD } }, worker: { secrets: [OLD] } });
});
after(() => both?.stop());

describe("the steps of a change of secrets, on either side first", () => {
  for (const { app: appSecrets, worker: workerSecrets } of [
    { app: [OLD], worker: [OLD] },
    { app: [OLD, NEW], worker: [OLD] },
    { app: [OLD], worker: [OLD, NEW] },
    { app: [OLD, NEW], worker: [OLD, NEW] },
    { app: [NEW, OLD], worker: [OLD, NEW] },
    { app: [OLD, NEW], worker: [NEW, OLD] },
    { app: [NEW, OLD], worker: [NEW, OLD] },
    { app: [NEW], worker: [NEW, OLD] },
    { app: [NEW, OLD], worker: [NEW] },
    { app: [NEW], worker: [NEW] },
  ]) {
    const names = (/** @type {string[]} */ list) =>
      list.map((one) => (one === OLD ? "old" : "new")).join(", ");
    test(`Express: ${names(appSecrets)}; the Worker: ${names(workerSecrets)}: sessions of both are taken by both`, async () => {
      const [app, worker] = await Promise.all([
        both.startApp({ session: { secret: appSecrets } }),
        both.startWorker({ secrets: workerSecrets }),
      ]);
      const one = both.someone({ app, worker });
      await ok(one.atExpress.send("GET", "/"));
      assert.deepEqual((await ok(one.atWorker.increment("/views"))).data, { views: 2 });
      const other = both.someone({ app, worker });
      await ok(other.atWorker.merge({ views: 5 }));
      assert.equal((await ok(other.atExpress.send("GET", "/"))).views, 6);
      assert.deepEqual((await ok(other.atWorker.rotate())).data, { views: 6 });
      assert.equal((await ok(other.atExpress.send("GET", "/"))).views, 7);
    });
  }

  test("a visitor goes through all of them with one session", async () => {
    /** @type {{ app: string[], worker: string[] }[]} */
    const steps = [
      { app: [OLD], worker: [OLD] },
      { app: [OLD, NEW], worker: [OLD, NEW] },
      { app: [NEW, OLD], worker: [OLD, NEW] },
      { app: [NEW, OLD], worker: [NEW, OLD] },
    ];
    const { atExpress, atWorker } = both.someone();
    let views = 0;
    for (const { app, worker } of steps) {
      const [express, isolate] = await Promise.all([
        both.startApp({ session: { secret: app } }),
        both.startWorker({ secrets: worker }),
      ]);
      [atExpress.url, atWorker.url] = [express.url, isolate.url];
      views += 1;
      assert.equal((await ok(atExpress.send("GET", "/"))).views, views);
      assert.deepEqual((await ok(atWorker.look())).data, { views });
    }
  });
});

describe("a cookie under a secret that the Worker does not know yet", () => {
  /** Express signs with a secret that the Worker has not got. */
  async function ahead() {
    const app = await both.startApp({ session: { secret: [NEW, OLD] } });
    const who = both.someone({ app, worker: both.worker });
    await ok(who.atExpress.send("POST", "/login", json({ name: "ann" })));
    return who;
  }

  test("is no session, costs no call, and is removed by nothing", async () => {
    const { atExpress, atWorker } = await ahead();
    const key = keyOf(both, atExpress);
    for (const [method, path, status] of /** @type {[string, string, number][]} */ ([
      ["GET", "/auth/session", 200],
      ["GET", "/auth/verify", 401],
      ["POST", "/auth/session/rotate", 401],
      ["DELETE", "/auth/session", 204],
      ["POST", "/auth/logout", 204],
    ])) {
      const { value, calls } = await both.store.counters.during(() => atWorker.send(method, path));
      assert.deepEqual([value.status, value.setCookies, calls], [status, [], 0], `${method} ${path}`);
    }
    assert.equal((await ok(atExpress.send("GET", "/dashboard"))).user, "ann");
    assert.ok(await recordAt(both, key));
  });

  test("is a session as soon as the Worker knows the secret", async () => {
    const { atWorker } = await ahead();
    assert.equal(await atWorker.session(), null);
    atWorker.url = (await both.startWorker({ secrets: [OLD, NEW] })).url;
    assert.equal((await ok(atWorker.look())).user.id, "ann");
  });

  test("is replaced when a change begins a session of the Worker's, and its record stays", async () => {
    const { atExpress, atWorker } = await ahead();
    const key = keyOf(both, atExpress);
    const begun = await atWorker.merge({ a: 1 });
    assert.deepEqual((await ok(begun)).data, { a: 1 });
    assert.equal(begun.setCookies.length, 1);
    assert.notEqual(keyOf(both, atWorker), key);
    assert.equal((await recordAt(both, key)).userId, "ann");
    await ok(atExpress.send("GET", "/dashboard"), 401);
  });
});

test("a cookie of the Worker's under a secret that Express does not know is no session there, and Express begins one", async () => {
  const { atExpress, atWorker } = both.someone({
    app: both.app,
    worker: await both.startWorker({ secrets: [OTHER, OLD] }),
  });
  await ok(atWorker.merge({ views: 5 }));
  const sid = sidOf(atWorker);
  assert.equal((await ok(atExpress.send("GET", "/"))).views, 1);
  assert.notEqual(sidOf(atExpress), sid);
});

test("without FORMAT_SECRETS the secrets are those of SESSION_SECRET", async () => {
  const SESSION_SECRET = [OTHER, randomSecret()].join(",");
  const worker = await both.startWorker({ environment: { FORMAT_SECRETS: undefined, SESSION_SECRET } });
  for (const secret of SESSION_SECRET.split(",")) {
    const who = both.someone({ app: await both.startApp({ session: { secret } }), worker });
    await ok(who.atExpress.send("GET", "/"));
    assert.deepEqual((await ok(who.atWorker.look())).data, { views: 1 });
  }
  const who = both.someone({ app: await both.startApp({ session: { secret: OTHER } }), worker });
  await ok(who.atWorker.merge({ views: 5 }));
  assert.equal((await ok(who.atExpress.send("GET", "/"))).views, 6);
});

test("with FORMAT_SECRETS, SESSION_SECRET signs nothing of this format", async () => {
  const worker = await both.startWorker({ environment: { SESSION_SECRET: OTHER } });
  const who = both.someone({ app: await both.startApp({ session: { secret: OTHER } }), worker });
  await ok(who.atExpress.send("GET", "/"));
  assert.equal(await who.atWorker.session(), null);
});

test("short secrets are worth a word in the log, once, and never stand there", async () => {
  const worker = await both.startWorker({ secrets: ["short one", OTHER, "tiny"] });
  await worker.visitor().look();
  await worker.visitor().look();
  const log = () => worker.logs.join("");
  await until(() => /FORMAT_SECRETS/.test(log()), log);
  assert.equal(log().match(/FORMAT_SECRETS/g)?.length, 1, log());
  assert.doesNotMatch(log(), /short one|tiny/);
  assert.ok(!log().includes(OTHER));
});

for (const text of ["keyboard cat", "[", "{}", "[]", '[""]', "[5]", '["a", null]', '"keyboard cat"', ""]) {
  test(`FORMAT_SECRETS = ${text || "nothing"} is refused at start, and not told to anybody`, async () => {
    const worker = await both.startWorker({ environment: { FORMAT_SECRETS: text } });
    const { status, json: problem } = await worker.visitor().look();
    assert.deepEqual([status, problem.code], [500, "misconfigured"]);
    const log = () => worker.logs.join("");
    await until(() => /FORMAT_SECRETS/.test(log()), log);
    assert.doesNotMatch(log() + JSON.stringify(problem), /keyboard cat/);
  });
}
