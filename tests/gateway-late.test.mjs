/** What takes long behind the gateway: uploads, which have all the time they need, and answers that others have overtaken. */
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { createServer, request } from "node:http";
import { after, afterEach, before, describe, test } from "node:test";
import { moveClocks, startDeployment } from "./support/worker.mjs";

const PASSWORD = "correct horse battery";
const HOUR = 3_600_000;
const PIECE = Buffer.alloc(40_000, "x");

/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let both;
/** @type {(typeof both)["workers"][0]} */
let worker;
/** @type {import("node:http").Server} */
let server;
/** Tells what has reached the origin. */
const arrivals = new EventEmitter();
/** Lets the origin answer. */
let answer = () => {};

before(async () => {
  server = createServer(async (incoming, response) => {
    incoming.on("error", () => {}); // the gateway has given up
    if (incoming.url === "/early") return void response.writeHead(413).end("too much");
    if (incoming.url === "/slow" || incoming.url === "/slow/patch") {
      answer = () => response.end("done");
      if (incoming.url === "/slow/patch") response.setHeader("X-Session-Patch", '{"seen":1}');
      return void arrivals.emit("asked");
    }
    let bytes = 0;
    incoming.on("data", (chunk) => {
      if (bytes === 0) arrivals.emit("first");
      bytes += chunk.length;
    });
    incoming.on("end", () => {
      const { "content-length": length = null, "transfer-encoding": encoding = null } = incoming.headers;
      if (incoming.url !== "/hang") response.end(JSON.stringify({ bytes, length, encoding }));
    });
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  const origin = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  both = await startDeployment([{}], {
    settings: { cookie: { name: "sid", secure: false }, gateway: { origin, timeout: "1m" } },
  });
  [worker] = both.workers;
});
after(async () => {
  await both.stop();
  server.closeAllConnections();
  server.close();
});

describe("a large body", () => {
  afterEach(() => worker.letTimeFly(false));

  /** The status and text of an answer. @param {import("node:http").ClientRequest} upload */
  async function answerTo(upload) {
    const [response] = await once(upload, "response");
    let text = "";
    for await (const chunk of response.setEncoding("utf8")) text += chunk;
    return { status: response.statusCode, text };
  }

  const length = 2 * PIECE.length;
  for (const [how, headers, told] of /** @type {const} */ ([
    ["with a length", { "Content-Length": length }, { length: String(length), encoding: null }],
    ["in chunks", {}, { length: null, encoding: "chunked" }],
  ])) {
    test(`${how} may take longer than the origin's time, which begins when it is sent`, async () => {
      await worker.letTimeFly();
      const upload = request(`${worker.url}/up`, { method: "PUT", headers, agent: false });
      const answered = answerTo(upload);
      const arrived = once(arrivals, "first");
      upload.write(PIECE);
      await arrived;
      // The origin's time is over for whoever has asked since.
      assert.equal((await worker.visitor().send("GET", "/hang")).status, 504);
      await worker.letTimeFly(false);
      upload.end(PIECE);
      const { status, text } = await answered;
      assert.deepEqual([status, JSON.parse(text)], [200, { bytes: length, ...told }]);
    });
  }

  test("that is sent, and not answered in time, is 504", async () => {
    await worker.letTimeFly();
    const upload = request(`${worker.url}/hang`, { method: "PUT", agent: false });
    upload.end(Buffer.concat([PIECE, PIECE]));
    assert.equal((await answerTo(upload)).status, 504);
  });

  test("of which the origin wants nothing gets its answer before it is sent", async () => {
    const upload = request(`${worker.url}/early`, { method: "PUT", agent: false });
    upload.on("error", () => {}); // the rest is not taken
    upload.write(PIECE);
    const [response] = await once(upload, "response");
    const [text] = await once(response, "data");
    response.on("error", () => {});
    assert.deepEqual([response.statusCode, String(text)], [413, "too much"]);
    upload.destroy();
  });
});

describe("an answer that took long", () => {
  /** @type {import("./support/visitor.mjs").Visitor} */
  let ada;
  let names = 0;
  const credentials = () => ({
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ username: `ada${names}`, password: PASSWORD }),
  });

  /**
   * The answer to a request that is overtaken, and what the visitor's jar holds then.
   * @param {(ada: import("./support/visitor.mjs").Visitor) => Promise<unknown>} overtake
   * @param {string} [method] @param {string} [path]
   */
  async function overtaken(overtake, method = "GET", path = "/slow") {
    const asked = once(arrivals, "asked");
    const slow = ada.clone().send(method, path);
    await asked;
    await overtake(ada);
    await moveClocks(both.store, [worker], 2000);
    answer();
    return slow;
  }

  /** A visitor whose id is due for a new one. */
  async function begin() {
    names += 1;
    ada = worker.visitor();
    assert.equal((await ada.register(`ada${names}`, PASSWORD)).status, 201);
    await moveClocks(both.store, [worker], 1.1 * HOUR);
  }
  const logIn = async () => {
    assert.equal((await ada.send("DELETE", "/auth/session")).status, 204);
    assert.equal((await ada.send("POST", "/auth/login", credentials())).status, 200);
  };

  test("sets no cookie of a session that the visitor has left meanwhile", async () => {
    await begin();
    const { status, setCookies } = await overtaken(logIn);
    assert.deepEqual([status, setCookies], [200, []]);
  });

  test("sets that of the session's new id, if it is the newest", async () => {
    await begin();
    const { setCookies } = await overtaken(async () => {});
    assert.match(setCookies.join(), /^sid=/);
    ada.accept(setCookies);
    assert.equal((await ada.send("GET", "/auth/session")).json.session.user.name, `ada${names}`);
  });

  test("sets none of an id that has a newer one by now", async () => {
    await begin();
    const { setCookies } = await overtaken(async () => {
      assert.equal((await ada.send("GET", "/auth/session")).status, 200);
      assert.equal((await ada.send("POST", "/auth/session/rotate")).status, 200);
    });
    assert.deepEqual(setCookies, []);
  });

  test("removes none: the visitor may have logged in again", async () => {
    await begin();
    const other = ada.clone();
    assert.equal((await other.send("DELETE", "/auth/session")).status, 204);
    const login = async () =>
      assert.equal((await ada.send("POST", "/auth/login", credentials())).status, 200);
    assert.deepEqual((await overtaken(login, "POST")).setCookies, []);
    const { status, setCookies } = await overtaken(logIn, "POST", "/slow/patch");
    assert.deepEqual([status, setCookies], [401, []]);
  });

  test("whose session's store fails sets none, and the old one leads on", async () => {
    await begin();
    const { status, setCookies } = await overtaken(async () => both.store.faults.always("refuse"));
    both.store.faults.clear();
    assert.deepEqual([status, setCookies], [200, []]);
    assert.equal((await ada.send("GET", "/auth/session")).json.session.user.name, `ada${names}`);
  });
});
