/**
 * Random histories: clients of a visitor change a session through a network that loses answers and requests. Nothing that
 * was acknowledged is lost, nothing is counted twice, and what may have been done is said to be unclear.
 */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { cookieJar, page, startProxy } from "./support/client.mjs";
import { dice } from "./support/torture/dice.mjs";
import { FAST_HASH, startBoth } from "./support/worker.mjs";

const { worker, stop } = await startBoth({
  settings: { password: FAST_HASH, session: { max_bytes: 65536 } },
});
const proxy = await startProxy(worker.url);
after(async () => {
  proxy.stop();
  await stop();
});

const SEED = Number(process.env.SEED ?? Math.floor(Math.random() * 1e9));
const HISTORIES = 3;
const CLIENTS = 3;
const STEPS = 12;

/** What was acknowledged, and of how much nobody knows whether it was made. */
class Ledger {
  sure = 0;
  unclear = 0;
  /** @type {string[]} that are surely there */
  marks = [];
}

for (let history = 0; history < HISTORIES; history += 1) {
  const seed = SEED + history;
  test(`history of seed ${seed}`, async () => {
    proxy.clear();
    const { draw, chance } = dice(seed);
    const jar = cookieJar();
    const clients = Array.from({ length: CLIENTS }, () => page(proxy.url, { retries: 1 }, jar));
    await clients[0].merge({ marks: {} });
    const counted = new Ledger();
    const updated = new Ledger();
    proxy.always(({ path }) => {
      const kind = draw([
        [8, "none"],
        [1, "lost"],
        [1, "down"],
        [1, "cut"],
      ]);
      return kind === "none" || path.endsWith("/rotate") ? undefined : { kind: /** @type {"lost"} */ (kind) };
    });

    let number = 0;
    /** @param {Ledger} ledger @param {Promise<unknown>} call @param {string} [mark] */
    const note = (ledger, call, mark) =>
      call.then(
        () => {
          if (mark) ledger.marks.push(mark);
          else ledger.sure += 1;
        },
        (error) => {
          const isKnown = error.maybeDone === false || ["network", "incomplete"].includes(error.code);
          assert.ok(isKnown, `${error.code}: ${error.message}`);
          if (error.maybeDone && !mark) ledger.unclear += 1;
        },
      );
    const steps = async (/** @type {import("../client/index.d.ts").Client<any>} */ client) => {
      for (let step = 0; step < STEPS; step += 1) {
        const mark = `m${(number += 1)}`;
        const act = draw([
          [3, () => note(counted, client.increment("/n"))],
          [
            3,
            () =>
              note(
                updated,
                client.update((data) => void (data.u = (data.u ?? 0) + 1)),
              ),
          ],
          [2, () => note(counted, client.merge({ marks: { [mark]: 1 } }), mark)],
          [
            2,
            () =>
              note(
                updated,
                client.update((data) => void (data.marks[mark] = 1)),
                mark,
              ),
          ],
          [1, () => client.rotate().catch(() => {})],
          [1, () => client.session().catch(() => {})],
        ]);
        const another = chance(0.3) && note(counted, client.increment("/n"));
        await Promise.all([act(), another]);
      }
    };
    await Promise.all(clients.map(steps));
    proxy.clear();
    const data = /** @type {any} */ ((await clients[0].session())?.data);
    for (const [name, { sure, unclear }] of /** @type {[string, Ledger][]} */ ([
      ["n", counted],
      ["u", updated],
    ])) {
      const value = data[name] ?? 0;
      assert.ok(
        value >= sure && value <= sure + unclear,
        `${name}: ${sure} to ${sure + unclear}, not ${value}`,
      );
    }
    for (const { marks } of [counted, updated]) {
      for (const mark of marks) assert.equal(data.marks[mark], 1, mark);
    }
  });
}
