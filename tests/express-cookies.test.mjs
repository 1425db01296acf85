/** Which session a cookie leads to: the real express-session's verdict and the Worker's, over generated cookies. */
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { near, ok, recordAt, startBeside } from "./support/express.mjs";
import { cases, IDS, NAME, randomness, SECRETS, sign } from "./support/express-cookies.mjs";

/** @typedef {import("./support/express.mjs").Beside} Beside */

/** @type {Beside} */
let both;
before(async () => {
  both = await startBeside({ app: { session: { secret: SECRETS } }, worker: { secrets: SECRETS } });
  for (const sid of IDS) await keep(sid);
});
after(() => both?.stop());

/** A session of which the data says which one it is. @param {string} sid @param {object} [cookie] */
const keep = (sid, cookie = { originalMaxAge: null, expires: null, httpOnly: true, path: "/" }) =>
  both.store.redis.set(`sess:${sid}`, JSON.stringify({ cookie, who: sid }), {
    expiration: { type: "EX", value: 3600 },
  });

/** The session that each takes. @param {string} header */
async function verdicts(header) {
  const { atExpress, atWorker } = both.someone();
  const options = { headers: { Cookie: header } };
  const [express, worker] = await Promise.all([
    atExpress.send("GET", "/session", options),
    atWorker.send("GET", "/auth/session", options),
  ]);
  const [taken, seen] = [await ok(express), await ok(worker)];
  return {
    express: taken.data.who ?? null,
    worker: seen?.data.who ?? null,
    cookies: [...express.setCookies, ...worker.setCookies],
  };
}

describe("a cookie", () => {
  const all = cases();
  const counts = { taken: 0, refused: 0 };
  for (const { name, header } of all) {
    test(`${name}`, async () => {
      const { express, worker, cookies } = await verdicts(header);
      assert.equal(worker, express, header);
      assert.deepEqual(cookies, []);
      counts[express === null ? "refused" : "taken"] += 1;
    });
  }

  test("these were hundreds of each kind", () => {
    assert.ok(all.length >= 400 && counts.taken > 100 && counts.refused > 100, JSON.stringify(counts));
  });
});

/** @param {string} sid */
const cookie = (sid, secret = SECRETS[0]) => `${NAME}=${encodeURIComponent(`s:${sign(sid, secret)}`)}`;

describe("spaces that no browser sends", () => {
  for (const header of [
    `${cookie(IDS[0]).replace("=", "= ")}`,
    `${cookie(IDS[0]).replace("=", "=\t ")} \t; a=1`,
    `${cookie(IDS[0]).replace("=", " =")}`,
    `a=1;\t${cookie(IDS[0]).replace("=", "\t=")}`,
  ]) {
    test(`${JSON.stringify(header.slice(0, 24))}: Express takes the session, and the Worker no other`, async () => {
      const { express, worker } = await verdicts(header);
      assert.equal(express, IDS[0]);
      assert.ok([null, IDS[0]].includes(worker), worker);
    });
  }
});

describe("of several cookies of the name", () => {
  const [one, two] = IDS;
  for (const { name, header, taken } of [
    { name: "of which both live, the first counts", header: [cookie(one), cookie(two)], taken: one },
    { name: "the other way round", header: [cookie(two), cookie(one)], taken: two },
    { name: "under different secrets", header: [cookie(two, SECRETS[2]), cookie(one)], taken: two },
    { name: "of one value", header: [cookie(one), cookie(one)], taken: one },
    { name: "with others between", header: ["a=1", cookie(two), "b=2", cookie(one), "c=3"], taken: two },
  ]) {
    test(name, async () => {
      const { express, worker } = await verdicts(header.join("; "));
      assert.deepEqual([express, worker], [taken, taken]);
    });
  }

  // Express looks at the first only, and gives a new session. The Worker looks on for one that lives, as with its own.
  for (const { name, first } of [
    { name: "forged", first: `${NAME}=s%3Aforged.forged` },
    { name: "dead", first: cookie("dead") },
    { name: "a stranger's", first: cookie(IDS[2], "a stranger's") },
  ]) {
    test(`of which the first is ${name}, the Worker takes the one that lives, and Express none`, async () => {
      const { express, worker } = await verdicts(`${first}; ${cookie(two)}`);
      assert.deepEqual([express, worker], [null, two]);
    });
  }
});

describe("a cookie that the Worker writes", () => {
  test("is byte for byte the one that Express writes for that id", async () => {
    for (let count = 0; count < 10; count += 1) {
      const { atWorker } = both.someone();
      await ok(atWorker.merge({ count }));
      const value = String(atWorker.cookies.get(NAME));
      const sid = decodeURIComponent(value).slice(2).split(".")[0] ?? "";
      const app = await both.startApp({ session: { secret: SECRETS, genid: () => sid } });
      const atExpress = app.visitor();
      await both.store.redis.del(`sess:${sid}`);
      await ok(atExpress.send("GET", "/"));
      assert.equal(atExpress.cookies.get(NAME), value);
      await app.stop();
    }
  });
});

describe("the attributes in a record", () => {
  const random = randomness(16);
  const times = [null, false, 0, 1, 999, 60_000, 60_000.5, 31_536_000_000, -5, undefined];
  const dates = [
    null,
    false,
    undefined,
    "2020-01-01T00:00:00.000Z",
    "2099-01-01T00:00:00.000Z",
    "nonsense",
    "",
    0,
    5,
  ];
  for (let index = 0; index < 120; index += 1) {
    const cookie = {
      originalMaxAge: random.pick(times),
      expires: random.pick(dates),
      secure: random.pick([true, false, undefined]),
      httpOnly: random.pick([true, false]),
      path: random.pick(["/", "/app", undefined]),
      sameSite: random.pick([true, false, "lax", "strict", "none", undefined]),
      domain: random.pick(["example.com", undefined]),
    };
    test(`${JSON.stringify(cookie)}: neither of the two takes them for an end, or for one that is unreadable`, async () => {
      const sid = `attributes-${index}`;
      await keep(sid, cookie);
      const before = await recordAt(both, `sess:${sid}`);
      const header = `${NAME}=${encodeURIComponent(`s:${sign(sid, SECRETS[0])}`)}`;
      // The Worker first: with an originalMaxAge of nothing, Express' touch ends the session behind its answer.
      const { atExpress, atWorker } = both.someone();
      assert.deepEqual(
        (await ok(atWorker.send("GET", "/auth/session", { headers: { Cookie: header } }))).data,
        {
          who: sid,
        },
      );
      const changed = await atWorker.merge({ changed: true }, { Cookie: header });
      assert.deepEqual((await ok(changed)).data, { who: sid, changed: true });
      const after = await recordAt(both, `sess:${sid}`);
      // As a save of Express' would, a write begins originalMaxAge anew.
      if (Number(cookie.originalMaxAge) > 0 && typeof cookie.expires === "string") {
        near(Date.parse(after.cookie.expires) - Date.now(), Number(cookie.originalMaxAge));
        before.cookie.expires = after.cookie.expires;
      }
      assert.deepEqual(after, { ...before, changed: true });
      const taken = await ok(atExpress.send("GET", "/session", { headers: { Cookie: header } }));
      assert.deepEqual([taken.id, taken.data.changed], [sid, true]);
    });
  }
});
