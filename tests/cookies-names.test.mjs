/**
 * Which cookies are ours. A browser lets another host of the domain set a cookie whose name begins with some blank, and does
 * not hold it to the rules of `__Host-`: it must not count as ours, whatever it looks like to a library that trims.
 */
import assert from "node:assert/strict";
import { after, beforeEach, describe, test } from "node:test";
import { requestRaw, utf8 } from "./support/raw.mjs";
import {
  FAST_HASH,
  NO_LIMITS,
  randomSecret,
  startDeployment,
  startWorker,
  until,
} from "./support/worker.mjs";

/** @typedef {import("./support/visitor.mjs").Visitor} Visitor */

const NAME = "__Host-session";
const [SYNC, DEVICE] = [`${NAME}-sync`, `${NAME}-device`];
const PASSWORD = "correct horse";

/** An isolate without limits, and one that limits logins. */
const { store, workers, stop } = await startDeployment(
  [{ region: 0 }, { settings: { limits: { session: "", mint: "", login: "3/5m" } } }],
  {
    settings: { limits: NO_LIMITS, password: FAST_HASH, store: { timeout: "10s" } },
    secrets: { SESSION_SECRET: randomSecret() },
  },
);
after(stop);
const [plain, limited] = workers;
beforeEach(() => store.faults.clear());

/** Blanks that are no space and no tab. The platform may refuse those that are control characters. @type {[string, string][]} */
const BLANKS = [
  ["U+2000", utf8("\u2000")],
  ["U+0085", utf8("\u0085")],
  ["U+00A0", utf8("\u00a0")],
  ["U+1680", utf8("\u1680")],
  ["U+2028", utf8("\u2028")],
  ["U+2029", utf8("\u2029")],
  ["U+202F", utf8("\u202f")],
  ["U+205F", utf8("\u205f")],
  ["U+3000", utf8("\u3000")],
  ["U+FEFF", utf8("\ufeff")],
  ["U+0085 as one byte", "\x85"],
  ["U+00A0 as one byte", "\xa0"],
  ["a vertical tab", "\v"],
  ["a form feed", "\f"],
];

/** Where such a blank may stand. @type {[string, (blank: string, name: string, value: string) => string][]} */
const PLACES = [
  ["before the name", (blank, name, value) => `${blank}${name}=${value}`],
  ["before the name of a second cookie", (blank, name, value) => `a=1; ${blank}${name}=${value}`],
  ["right behind a semicolon", (blank, name, value) => `a=1;${blank}${name}=${value}; b=2`],
  ["before the name on a joined line", (blank, name, value) => `a=1, ${blank}${name}=${value}`],
  ["behind the name", (blank, name, value) => `${name}${blank}=${value}`],
];

/** A visitor with a session. @param {number} [views] */
async function guest(views = 1) {
  const visitor = plain.visitor();
  assert.equal((await visitor.merge({ views })).status, 200);
  return visitor;
}

/** Cookies as a `Cookie` line. @param {Visitor} visitor @param {string[]} names */
const cookiesOf = (visitor, ...names) =>
  names.map((name) => `${name}=${visitor.cookies.get(name)}`).join("; ");

describe("a ticket", () => {
  for (const [blank, bytes] of BLANKS) {
    test(`is none with ${blank} at its name, and costs no call`, async () => {
      const ticket = String((await guest()).ticket);
      for (const [place, write] of PLACES) {
        const cookie = write(bytes, NAME, ticket);
        const { value, calls } = await store.counters.during(() =>
          requestRaw(plain.url, "GET", "/auth/session", [`Cookie: ${cookie}`]),
        );
        assert.ok(value.text === '{"session":null}' || value.status === 400, `${place}: ${value.text}`);
        assert.equal(calls, 0, place);
      }
    });
  }

  test("counts with spaces and tabs around it, as browsers and proxies write them", async () => {
    const ticket = String((await guest()).ticket);
    for (const blank of [" ", "\t", " \t ", "    "]) {
      for (const cookie of [
        `a=1;${blank}${NAME}=${ticket}`,
        `a=1;${blank}${NAME}=${ticket}${blank};b=2`,
        `${blank}${NAME}=${ticket}${blank}`,
      ]) {
        const answer = await requestRaw(plain.url, "GET", "/auth/session", [`Cookie: ${cookie}`]);
        assert.equal(answer.json.session?.data.views, 1, JSON.stringify(cookie));
      }
    }
  });

  test("counts in quotes", async () => {
    const ticket = String((await guest()).ticket);
    for (const cookie of [`${NAME}="${ticket}"`, `a="1"; ${NAME}="${ticket}"; b="2"`]) {
      const answer = await requestRaw(plain.url, "GET", "/auth/session", [`Cookie: ${cookie}`]);
      assert.equal(answer.json.session?.data.views, 1, cookie);
    }
    for (const cookie of [
      `${NAME}="${ticket}`,
      `${NAME}=${ticket}"`,
      `${NAME}=""${ticket}""`,
      `"${NAME}=${ticket}"`,
    ]) {
      const answer = await requestRaw(plain.url, "GET", "/auth/session", [`Cookie: ${cookie}`]);
      assert.equal(answer.json.session, null, cookie);
    }
  });

  test("counts on any of several Cookie lines, also when a proxy has joined them", async () => {
    const ticket = `${NAME}=${(await guest()).ticket}`;
    const junk = `${NAME}=junk`;
    for (const lines of [
      [`Cookie: a=1`, `Cookie: ${ticket}`],
      [`Cookie: ${ticket}`, `Cookie: a=1; b=2`],
      [`Cookie: a=1`, `Cookie: ${ticket}`, `Cookie: b=2`],
      [`cookie: ${junk}`, `COOKIE: ${ticket}`],
      [`Cookie: a=1, ${ticket}`],
      [`Cookie: ${ticket}, a=1; b=2`],
      [`Cookie: a=1; b=2, ${ticket}, c=3`],
      [`Cookie: a=1, ${ticket}; ${junk}`],
    ]) {
      const answer = await requestRaw(plain.url, "GET", "/auth/session", lines);
      assert.equal(answer.json.session?.data.views, 1, lines.join(" | "));
    }
  });

  test("in the value of another cookie never counts before one that stands by itself", async () => {
    const owner = `${NAME}=${(await guest(1)).ticket}`;
    await plain.moveClock(1000);
    const planted = `${NAME}=${(await guest(2)).ticket}`;
    await plain.moveClock(-1000);
    for (const cookie of [
      `x=1, ${planted}; ${owner}`,
      `${owner}; x=1, ${planted}`,
      `x=1, ${planted}, y; ${owner}`,
    ]) {
      const answer = await requestRaw(plain.url, "GET", "/auth/session", [`Cookie: ${cookie}`]);
      assert.equal(answer.json.session?.data.views, 1, cookie);
    }
    for (const cookie of [`x=1,${planted}`, `x="1; ${planted.replace("=", "%3D")}"`, `x=${planted}`]) {
      const answer = await requestRaw(plain.url, "GET", "/auth/session", [`Cookie: ${cookie}`]);
      assert.equal(answer.json.session, null, cookie);
    }
  });
});

describe("the companion for read-your-writes", () => {
  /** What is read by someone with this `Cookie` line, while no replica catches up. @param {string} cookie */
  const read = async (cookie) => {
    const answer = await requestRaw(plain.url, "GET", "/auth/session", [`Cookie: ${cookie}`]);
    return answer.status === 400 ? "refused" : answer.json.session?.data.views;
  };

  test("counts under its own name, and under that with a blank before it not", async () => {
    const visitor = await guest(1);
    store.faults.lag = 3000;
    await visitor.merge({ views: 2 });
    const ticket = cookiesOf(visitor, NAME);
    const sync = String(visitor.cookies.get(SYNC));
    const seen = await Promise.all(
      BLANKS.flatMap(([, bytes]) =>
        PLACES.map(([, write]) => read(`${ticket}; ${write(bytes, SYNC, sync)}`)),
      ),
    );
    assert.deepEqual(
      seen.filter((views) => views !== "refused" && views !== 1),
      [],
      "all of these read what the replica has",
    );
    const good = [`${ticket}; ${SYNC}=${sync}`, `${ticket}; ${SYNC}="${sync}"`];
    assert.deepEqual(await Promise.all(good.map(read)), [2, 2]);
  });
});

describe("the cookie of a known device", () => {
  let count = 0;
  /** An account under attack, and its owner's device. */
  async function underAttack() {
    const owner = limited.visitor();
    const username = `Owner ${(count += 1)}`;
    assert.equal((await owner.register(username, PASSWORD)).status, 201);
    for (let guess = 0; guess < 4; guess += 1) await limited.visitor().login(username, "wrong horse!");
    const device = String(owner.cookies.get(DEVICE));
    const logIn = (/** @type {string} */ cookie) =>
      requestRaw(limited.url, "POST", "/auth/login", [`Cookie: ${cookie}`], { username, password: PASSWORD });
    return { device, logIn };
  }

  for (const [place, write] of PLACES) {
    test(`is unknown with a blank ${place}`, async () => {
      const { device, logIn } = await underAttack();
      for (const [blank, bytes] of BLANKS) {
        const answer = await logIn(write(bytes, DEVICE, device));
        assert.ok([400, 429].includes(answer.status), `${blank}: ${answer.status} ${answer.text}`);
      }
      assert.equal((await logIn(`a=1; ${DEVICE}=${device}`)).status, 200);
    });
  }

  test("is known in quotes", async () => {
    const { device, logIn } = await underAttack();
    assert.equal((await logIn(`${DEVICE}="${device}"`)).status, 200);
  });
});

describe("a prefix of the name that browsers hold to attributes", () => {
  /** @type {[string, object, RegExp][]} */
  const wrong = [
    ["__Host-", { secure: false }, /__Host- cookie without secure/],
    ["__Host-", { domain: "example.com" }, /__Host- cookie with a domain/],
    ["__Host-", { path: "/app" }, /__Host- cookie whose path/],
    ["__Secure-", { secure: false }, /__Secure- or __Http- cookie without secure/],
    ["__Http-", { secure: false }, /__Secure- or __Http- cookie without secure/],
    ["__Host-Http-", { secure: false }, /__Host- cookie without secure/],
    ["__Host-Http-", { domain: "example.com" }, /__Host- cookie with a domain/],
    ["__Host-Http-", { path: "/app" }, /__Host- cookie whose path/],
  ];
  /** @param {object} cookie @param {(worker: import("./support/worker.mjs").Worker) => Promise<unknown>} act */
  async function withIsolate(cookie, act) {
    const worker = await startWorker({ store, settings: { cookie } });
    await act(worker).finally(() => worker.stop());
  }
  const spellings = (/** @type {string} */ prefix) => [
    prefix,
    prefix.toLowerCase(),
    prefix.toUpperCase(),
    [...prefix].map((letter, index) => (index % 2 ? letter.toUpperCase() : letter.toLowerCase())).join(""),
  ];
  for (const [prefix, attributes, fault] of wrong) {
    test(`${prefix} with ${JSON.stringify(attributes)} is refused at start, in any case of letters`, async () => {
      for (const written of spellings(prefix)) {
        await withIsolate({ name: `${written}sid`, ...attributes }, async ({ visitor, logs }) => {
          assert.equal((await visitor().look()).json.code, "misconfigured", written);
          await until(
            () => fault.test(logs.join("")),
            () => `${written}: ${logs.join("")}`,
          );
        });
      }
    });
  }

  test("is fine with the attributes it asks for, and is no part of another name", async () => {
    for (const [name, attributes] of /** @type {[string, object][]} */ ([
      ["__Http-sid", { domain: "example.com", path: "/auth" }],
      ["__Host-Http-sid", {}],
      ["__Secure-sid", { path: "/auth" }],
      ["x__Host-sid", { secure: false }],
      ["__Hostsid", { secure: false }],
    ])) {
      await withIsolate({ name, ...attributes }, async ({ visitor }) => {
        const answer = await visitor().merge({ a: 1 });
        assert.equal(answer.status, 200, answer.text);
        assert.ok(answer.setCookies[0].startsWith(`${name}=`));
      });
    }
  });
});
