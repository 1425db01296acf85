/** A replicated database: a visitor reads their own writes at every isolate, although replicas lag. */
import assert from "node:assert/strict";
import { after, before, beforeEach, describe, test } from "node:test";
import { Visitor } from "./support/visitor.mjs";
import { randomSecret, startDeployment } from "./support/worker.mjs";

const LAG = 500;
const SYNC = "__Host-session-sync";
const ADMIN_TOKEN = randomSecret();

/** Isolates of one deployment, each in a region of its own. */
const { store, workers, stop } = await startDeployment([{ region: 0 }, { region: 1 }, { region: 2 }], {
  secrets: { SESSION_SECRET: randomSecret(), ADMIN_TOKEN },
  settings: { store: { timeout: "10s" } }, // long enough for a lagging replica on a busy machine
});
after(stop);
let count = 0;

describe("a replica for all isolates", () => {
  /** @type {Visitor} */
  let visitor;
  beforeEach(() => {
    store.faults.clear();
    visitor = newcomer(0);
  });

  /** The visitor's next request goes to another isolate. @param {number} index */
  const goTo = (index) => void (visitor.url = urlOf(index));

  test("what was written is read back at once at another isolate, through a replica that lags by 500 ms", async () => {
    await visitor.merge({ a: 0 }); // what a replica has not heard of at all would be asked of the primary
    store.faults.lag = LAG;
    assert.equal((await visitor.merge({ a: 1 })).status, 200);
    goTo(1);
    assert.deepEqual((await visitor.session())?.data, { a: 1 });
    await visitor.merge({ a: 2 });
    goTo(2);
    assert.deepEqual((await visitor.session())?.data, { a: 2 });
    await visitor.rotate();
    goTo(0);
    assert.deepEqual((await visitor.session())?.data, { a: 2 });
  });

  test("without the companion cookie the replica's old state is read, which is what the cookie is for", async () => {
    await visitor.merge({ a: 1 });
    store.faults.lag = LAG;
    await visitor.merge({ a: 2 });
    visitor.cookies.delete(SYNC);
    assert.deepEqual((await visitor.session())?.data, { a: 1 });
  });

  test("a change through a replica that lags is applied to the newest state", async () => {
    await visitor.increment("/views");
    store.faults.lag = 200;
    const others = [1, 2].map((index) => visitor.clone(workers[index].url));
    for (const one of others) one.cookies.delete(SYNC);
    await visitor.increment("/views");
    await Promise.all(others.map((one) => one.increment("/views")));
    store.faults.lag = 0;
    assert.equal((await visitor.session()).data.views, 4);
  });

  test("the companion comes with writes alone, lives ten seconds, and has the ticket's attributes", async () => {
    const written = await visitor.merge({ a: 1 });
    const lines = written.headers.getSetCookie().filter((line) => line.startsWith(SYNC));
    assert.equal(lines.length, 1);
    assert.match(String(lines[0]), /; Path=\/; HttpOnly; Secure; SameSite=Lax; Max-Age=10$/);
    const read = await visitor.look();
    assert.deepEqual(read.headers.getSetCookie(), []);
    const leaving = await visitor.logout();
    assert.ok(leaving.headers.getSetCookie().some((line) => line.startsWith(`${SYNC}=;`)));
    assert.equal(visitor.cookies.size, 0);
  });

  test("a forged, old or foreign companion has no effect", async () => {
    await visitor.merge({ a: 1 });
    const good = String(visitor.cookies.get(SYNC));
    const forged = (good.startsWith("A") ? "B" : "A") + good.slice(1);
    for (const value of [forged, String(visitor.ticket), "", "x".repeat(5000), "%0d%0aX: y"]) {
      visitor.cookies.set(SYNC, value);
      const answer = await visitor.look();
      assert.equal(answer.status, 200);
      assert.deepEqual(answer.json.session.data, { a: 1 });
    }
    const ticket = visitor.ticket;
    visitor.ticket = good;
    assert.equal(await visitor.session(), null, "and it lets nobody in");
    visitor.ticket = ticket;
  });
});

/**
 * @typedef {object} Story what a visitor does, and who sees what of it right after that
 * @property {string} name
 * @property {(index: number, id: string) => Promise<Visitor>} begin at this isolate
 * @property {(visitor: Visitor, id: string) => Promise<unknown>} act
 * @property {(visitor: Visitor) => Promise<unknown>} view
 * @property {unknown} now what everybody sees who has heard of it
 * @property {unknown} [then] what everybody sees who has not; without one it is a new record, which a replica that has
 *   not heard of it lacks, and the primary is asked for
 * @property {boolean} [atPrimary] it is viewed at the primary anyway
 * @property {boolean} [leaves] the cookies are taken back
 */

/** @type {Story[]} */
const STORIES = [
  {
    name: "a first change",
    begin: async (index) => newcomer(index),
    act: (visitor) => visitor.merge({ n: 1 }),
    view: async (visitor) => (await visitor.session())?.data.n,
    now: 1,
  },
  {
    name: "a change",
    begin: (index) => anonymous(index),
    act: (visitor) => visitor.increment("/n"),
    view: async (visitor) => (await visitor.session()).data.n,
    now: 2,
    then: 1,
  },
  {
    name: "a rotation",
    begin: (index) => anonymous(index),
    act: (visitor) => visitor.rotate(),
    view: async (visitor) => (await visitor.session())?.data.n,
    now: 1,
  },
  {
    name: "a login",
    begin: (index) => anonymous(index),
    act: (visitor, id) => logIn(visitor, id),
    view: async (visitor) => (await visitor.session())?.user.name,
    now: "Ada",
  },
  {
    name: "a logout",
    begin: (index, id) => logIn(newcomer(index), id),
    act: (visitor) => visitor.logout(),
    view: async (visitor) => (await visitor.session())?.user.name,
    now: undefined,
    then: "Ada",
    leaves: true,
  },
  {
    name: "ending all sessions",
    begin: twoDevices,
    act: (visitor) => visitor.send("DELETE", "/auth/sessions"),
    view: async (visitor) => (await visitor.session())?.user.name,
    now: undefined,
    then: "Ada",
    leaves: true,
  },
  {
    name: "ending all other sessions",
    begin: twoDevices,
    act: (visitor) => visitor.send("DELETE", "/auth/sessions?keep=current"),
    view: async (visitor) => (await visitor.send("GET", "/auth/sessions")).json.sessions?.length,
    now: 1,
    atPrimary: true,
  },
];

describe("replicas that lag by 500, 1000 and 1500 ms, one for each isolate", { concurrency: true }, () => {
  const tell = stage(STORIES, [LAG, 2 * LAG, 3 * LAG]);
  for (const story of STORIES) {
    test(`${story.name} at any isolate is seen at every isolate at once`, async () => {
      const seen = await tell(story, ({ visitor }) => everywhere(visitor, story.view));
      assert.deepEqual(
        seen,
        seen.map(() => workers.map(() => story.now)),
      );
    });
  }

  test("a visitor who changes isolates sees each of their own writes", async () => {
    const visitor = newcomer(0);
    const at = (/** @type {number} */ index) => Object.assign(visitor, { url: urlOf(index) });
    await at(0).merge({ n: 1 });
    assert.equal((await at(2).increment("/n")).json.session.data.n, 2, "a change builds on the one before");
    assert.equal((await at(1).rotate()).json.session.data.n, 2);
    assert.equal((await at(0).session()).data.n, 2);

    const id = `hopper ${++count}`;
    const other = await logIn(newcomer(1), id);
    await logIn(at(0), id);
    assert.equal((await at(2).session()).user.id, id);
    assert.equal((await at(1).send("DELETE", "/auth/sessions?keep=current")).status, 204);
    assert.equal((await at(2).send("GET", "/auth/sessions")).json.sessions.length, 1);
    assert.equal((await other.rotate()).status, 401);
    const ticket = visitor.ticket;
    assert.equal((await at(2).logout()).status, 204);
    assert.equal(visitor.cookies.size, 0);
    visitor.ticket = ticket;
    assert.equal((await at(0).rotate()).status, 401, "and nothing brings it back");
  });
});

/** So far behind that no test sees a replica catch up. */
const LONG = 60_000;

describe("without the companion, while replicas lag", () => {
  const lags = [0, LONG, LONG];
  const stories = STORIES.filter((story) => !story.atPrimary);
  const tell = stage(stories, lags);
  for (const story of stories) {
    const isNew = story.then === undefined;
    const what = isNew
      ? "is asked of the primary by replicas"
      : "is seen where the primary is, and not by replicas";
    test(`${story.name} ${what}, which have not heard of it`, async () => {
      const seen = await tell(story, async ({ visitor, before }) => {
        const blind = (story.leaves ? before : visitor).clone();
        blind.cookies.delete(SYNC);
        const views = await everywhere(blind, story.view);
        if (isNew) assert.deepEqual(await whoHas(blind), [1, 0, 0]);
        return views;
      });
      const { now, then } = story;
      assert.deepEqual(
        seen,
        seen.map(() => (isNew ? [now, now, now] : [now, then, then])),
      );
    });
  }
});

describe("a replica that still has an ended session", () => {
  beforeEach(() => store.faults.clear());

  const changes = [
    (/** @type {Visitor} */ visitor) => visitor.increment("/n"),
    (/** @type {Visitor} */ visitor) => visitor.rotate(),
    (/** @type {Visitor} */ visitor) => visitor.send("DELETE", "/auth/sessions?keep=current"),
  ];
  /** @type {[string, (visitor: Visitor, id: string) => Promise<{ status: number }>][]} */
  const ends = [
    ["was logged out", (visitor) => visitor.clone().logout()],
    ["ended all sessions", (visitor) => visitor.clone().send("DELETE", "/auth/sessions")],
    ["was ended by an operator", (_, id) => operate("DELETE", `/users/${encodeURIComponent(id)}/sessions`)],
  ];
  for (const [end, act] of ends) {
    test(`shows it, and lets nobody change, rotate or keep it: it ${end}`, async () => {
      const id = `ended ${++count}`;
      const visitor = await logIn(newcomer(2), id);
      store.faults.lag = [0, 2 * LAG, 2 * LAG];
      assert.ok([200, 204].includes((await act(visitor, id)).status));
      visitor.cookies.delete(SYNC);
      const [shown, ...refused] = await Promise.all([
        visitor.clone().look(),
        ...changes.map((change) => change(visitor.clone())),
      ]);
      assert.equal(shown.json.session?.user.id, id);
      assert.deepEqual(
        refused.map(({ status }) => status),
        [401, 401, 401],
      );
      store.faults.clear();
      assert.equal(await visitor.session(), null);
    });
  }
});

/** @param {number} index */
function urlOf(index) {
  return String(workers[index]?.url);
}

/** A visitor without a session. @param {number} index of the isolate */
function newcomer(index) {
  return new Visitor(urlOf(index));
}

/** A visitor whose session has n = 1. @param {number} index */
async function anonymous(index) {
  const visitor = newcomer(index);
  await visitor.merge({ n: 1 });
  return visitor;
}

/** A visitor who has logged in twice. @param {number} index @param {string} id */
async function twoDevices(index, id) {
  await logIn(newcomer(index), id);
  return logIn(newcomer(index), id);
}

/** @param {string} method @param {string} path @param {unknown} [body] @param {Visitor} [backend] */
function operate(method, path, body, backend = newcomer(0)) {
  return backend.send(method, `/auth/admin${path}`, {
    headers: { Authorization: `Bearer ${ADMIN_TOKEN}`, "Content-Type": "application/json" },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  });
}

/** Logs in by a back end near the visitor, which passes on all cookies. @param {Visitor} visitor @param {string} id */
async function logIn(visitor, id) {
  const answer = await operate("POST", "/sessions", { user: { id, name: "Ada" } }, new Visitor(visitor.url));
  assert.equal(answer.status, 201, answer.text);
  visitor.accept(answer.json.set_cookie);
  return visitor;
}

/** What someone with these cookies sees at each isolate. @param {Visitor} visitor @param {Story["view"]} view */
function everywhere(visitor, view) {
  return Promise.all(workers.map((worker) => view(visitor.clone(worker.url))));
}

/** In which regions the store has the record of this visitor's session: 1 or 0. @param {Visitor} visitor */
async function whoHas(visitor) {
  const { handle } = await visitor.session();
  const ask = async (/** @type {number} */ region) => {
    const answer = await fetch(`${await store.urlOf(region)}/exists/sess:${handle}`, {
      headers: { authorization: `Bearer ${store.token}` },
    });
    return (await answer.json()).result;
  };
  return Promise.all(workers.map((_, region) => ask(region)));
}

/**
 * Before the tests of a group every story begins, at each isolate, and all is caught up with; then the replicas lag.
 * @param {Story[]} stories
 * @param {number[]} lags
 */
function stage(stories, lags) {
  /** @typedef {{ id: string, visitor: Visitor, before: Visitor }} Actor `before`: with the cookies of before the act */
  /** @type {Map<Story, Actor[]>} */
  const actors = new Map();
  before(async () => {
    store.faults.clear();
    for (const story of stories) {
      const cast = workers.map(async (_, index) => {
        const id = `user ${++count}`;
        const visitor = await story.begin(index, id);
        return { id, visitor, before: visitor.clone() };
      });
      actors.set(story, await Promise.all(cast));
    }
    store.faults.lag = lags;
  });
  after(() => store.faults.clear());

  /**
   * Lets a story happen at every isolate; what is seen of each right after.
   * @param {Story} story
   * @param {(actor: Actor) => Promise<unknown[]>} look
   */
  return (story, look) =>
    Promise.all(
      (actors.get(story) ?? []).map(async (actor) => {
        await story.act(actor.visitor, actor.id);
        return look(actor);
      }),
    );
}
