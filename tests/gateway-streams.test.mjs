/** What the gateway passes on as it comes: streams, large bodies, WebSockets, to an origin by its address or by a service binding. */
import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { createServer, request } from "node:http";
import { after, afterEach, before, describe, test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { startDeployment } from "./support/worker.mjs";

const MEGABYTE = 1024 * 1024;
const PIECE = Buffer.alloc(MEGABYTE, "x");
const PIECES = 100;

/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let both;
/** @type {import("node:http").Server} */
let server;
let origin = "";
/** Ends the answer that is being streamed. */
let finish = () => {};
/** Lets the large answer go on, whose first piece is there. */
let acknowledge = () => {};
/** Tells when the first bytes of a body have come to the origin. */
const arrivals = new EventEmitter();

before(async () => {
  server = createServer(async (request, response) => {
    if (request.url === "/events") {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write("data: first\n\n");
      finish = () => response.end("data: last\n\n");
      return;
    }
    if (request.url === "/range") {
      const headers = { "Content-Range": "bytes 2-3/10", range: String(request.headers.range) };
      return void response.writeHead(206, headers).end("cd");
    }
    if (request.url === "/down") {
      response.write(PIECE);
      await new Promise((done) => (acknowledge = () => done(undefined)));
      for (let sent = 1; sent < PIECES; sent += 1) {
        if (!response.write(PIECE)) await once(response, "drain");
      }
      return void response.end();
    }
    let bytes = 0;
    for await (const chunk of request) {
      if (bytes === 0) arrivals.emit("first", chunk.length);
      bytes += chunk.length;
    }
    response.end(JSON.stringify({ bytes, length: request.headers["content-length"] ?? null }));
  });
  const sockets = new WebSocketServer({ server });
  sockets.on("connection", (socket, request) => {
    socket.on("message", (/** @type {Buffer} */ text) =>
      socket.send(`${request.headers["x-session-name"] ?? "nobody"}: ${text}`),
    );
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", () => done(undefined)));
  const address = server.address();
  origin = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`;
  both = await startDeployment([{}], {
    settings: { cookie: { name: "sid", secure: false }, gateway: { origin } },
  });
});
after(async () => {
  await both.stop();
  server.closeAllConnections();
  server.close();
});

test("an answer comes as the origin sends it, long before it ends", async () => {
  const response = await fetch(`${both.workers[0].url}/events`);
  assert.equal(response.headers.get("content-type"), "text/event-stream");
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  assert.equal(new TextDecoder().decode((await reader.read()).value), "data: first\n\n");
  finish();
  assert.equal(new TextDecoder().decode((await reader.read()).value), "data: last\n\n");
  assert.equal((await reader.read()).done, true);
});

describe("100 MB pass", () => {
  /** @type {number} */
  let workerMemory;
  before(async () => {
    await fetch(`${both.workers[0].url}/up`, { method: "POST", body: "x" });
    workerMemory = await both.workers[0].memorySize();
  });
  afterEach(async () =>
    assert.equal(await both.workers[0].memorySize(), workerMemory, "nothing came into wasm"),
  );

  test("to the visitor: the first bytes are there before the origin sends the rest, and nothing is kept", async () => {
    const memory = await processMemory();
    // Miniflare compresses else, and keeps what that comes to.
    const headers = { "Accept-Encoding": "identity" };
    const response = await fetch(`${both.workers[0].url}/down`, { headers });
    const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
    let bytes = (await reader.read()).value?.length ?? 0;
    assert.ok(bytes > 0 && bytes <= MEGABYTE, `${bytes} bytes, of the first piece`);
    acknowledge(); // the origin has waited for it
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      bytes += value.length;
    }
    assert.equal(bytes, PIECES * MEGABYTE);
    await memory.isFlat();
  });

  for (const announced of [true, false]) {
    const how = announced ? "with a length" : "in chunks";
    test(`to the origin, ${how}: the first bytes are there before the visitor sends the rest, and nothing is kept`, async () => {
      const memory = await processMemory();
      const headers = announced ? { "Content-Length": PIECES * MEGABYTE } : {};
      const upload = request(`${both.workers[0].url}/up`, { method: "PUT", headers, agent: false });
      const arrived = once(arrivals, "first");
      upload.write(PIECE);
      const [length] = await arrived;
      assert.ok(length > 0 && length <= MEGABYTE, `${length} bytes, of the first piece`);
      for (let sent = 1; sent < PIECES; sent += 1) {
        if (!upload.write(PIECE)) await once(upload, "drain");
      }
      upload.end();
      const [response] = await once(upload, "response");
      let text = "";
      for await (const chunk of response.setEncoding("utf8")) text += chunk;
      const told = { bytes: PIECES * MEGABYTE, length: announced ? String(PIECES * MEGABYTE) : null };
      assert.deepEqual(JSON.parse(text), told);
      await memory.isFlat();
    });
  }
});

/** Resident memory of workerd, all isolates of it; Linux tells it, and what was the most since we asked. */
async function processMemory() {
  const pids = process.platform === "linux" ? await workerdPids() : [];
  const kilobytes = async (/** @type {string} */ field) => {
    const all = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/status`, "utf8")));
    return all.reduce(
      (sum, status) => sum + Number(new RegExp(`^${field}:\\s+(\\d+)`, "m").exec(status)?.[1]),
      0,
    );
  };
  await Promise.all(pids.map((pid) => writeFile(`/proc/${pid}/clear_refs`, "5")));
  const before = await kilobytes("VmRSS");
  return {
    /** Asserts that a small part of the body was there at a time. */
    async isFlat() {
      const more = (await kilobytes("VmHWM")) - before;
      assert.ok(more < 32 * 1024, `workerd took ${more} KB more`);
    },
  };
}

/** Those that this test has started. */
async function workerdPids() {
  const tasks = await readdir(`/proc/${process.pid}/task`);
  const children = await Promise.all(
    tasks.map((task) => readFile(`/proc/${process.pid}/task/${task}/children`, "utf8")),
  );
  const pids = children.join(" ").split(/\s+/).filter(Boolean);
  const names = await Promise.all(pids.map((pid) => readFile(`/proc/${pid}/comm`, "utf8")));
  const found = pids.filter((_, at) => names[at]?.startsWith("workerd"));
  assert.ok(found.length > 0, "no workerd among this process' children");
  return found;
}

test("ranges pass", async () => {
  const response = await fetch(`${both.workers[0].url}/range`, { headers: { range: "bytes=2-3" } });
  assert.deepEqual(
    [
      response.status,
      response.headers.get("content-range"),
      response.headers.get("range"),
      await response.text(),
    ],
    [206, "bytes 2-3/10", "bytes=2-3", "cd"],
  );
});

test("WebSockets pass, and the origin knows whose they are", async () => {
  const visitor = both.workers[0].visitor();
  assert.equal((await visitor.register("ada", "correct horse battery")).status, 201);
  for (const [headers, name] of /** @type {[Record<string, string>, string][]} */ ([
    [{}, "nobody"],
    [{ Cookie: `sid=${visitor.cookies.get("sid")}`, "X-Session-Name": "root" }, "ada"],
  ])) {
    const socket = new WebSocket(both.workers[0].url.replace("http", "ws"), { headers });
    await once(socket, "open");
    socket.send("hello");
    const [message] = await once(socket, "message");
    assert.equal(String(message), `${name}: hello`);
    socket.close();
    await once(socket, "close");
  }
});

test("the origin may be a service binding", async () => {
  const ORIGIN = async (/** @type {Request} */ request) =>
    Response.json({
      url: request.url,
      user: request.headers.get("x-session-name"),
      body: await request.text(),
    });
  const bound = await startDeployment([{ others: /** @type {any} */ ({ serviceBindings: { ORIGIN } }) }], {
    settings: { cookie: { name: "sid", secure: false }, gateway: { origin: "binding" } },
  });
  try {
    const [{ url }] = bound.workers;
    const visitor = bound.workers[0].visitor();
    assert.equal((await visitor.register("ada", "correct horse battery")).status, 201);
    const headers = { cookie: `sid=${visitor.cookies.get("sid")}` };
    const response = await fetch(`${url}/x?y=1`, { method: "POST", body: "hello", headers });
    assert.deepEqual(await response.json(), { url: `${url}/x?y=1`, user: "ada", body: "hello" });
  } finally {
    await bound.stop();
  }
});
