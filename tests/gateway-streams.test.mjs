/** What the gateway passes on as it comes: streams, large bodies, WebSockets, to an origin by its address or by a service binding. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { WebSocket, WebSocketServer } from "ws";
import { startDeployment } from "./support/worker.mjs";

const MEGABYTE = 1024 * 1024;

/** @type {Awaited<ReturnType<typeof startDeployment>>} */
let both;
/** @type {import("node:http").Server} */
let server;
let origin = "";
/** Ends the answer that is being streamed. */
let finish = () => {};

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
      for (let sent = 0; sent < 20; sent += 1) {
        if (!response.write(Buffer.alloc(MEGABYTE, "x"))) await once(response, "drain");
      }
      return void response.end();
    }
    let bytes = 0;
    for await (const chunk of request) bytes += chunk.length;
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

test("20 MB pass in both directions, and none of them through the Worker's memory", async () => {
  await fetch(`${both.workers[0].url}/up`, { method: "POST", body: "x" });
  const before = await both.workers[0].memorySize();
  const up = await fetch(`${both.workers[0].url}/up`, { method: "POST", body: Buffer.alloc(20 * MEGABYTE) });
  const { bytes } = /** @type {any} */ (await up.json());
  assert.equal(bytes, 20 * MEGABYTE);
  const down = await fetch(`${both.workers[0].url}/down`);
  assert.equal((await down.arrayBuffer()).byteLength, 20 * MEGABYTE);
  assert.equal(await both.workers[0].memorySize(), before);
});

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
