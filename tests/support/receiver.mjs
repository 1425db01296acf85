/** A back end that is told of events: it checks every signature, and answers as a test wants. */
import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { randomSecret, until } from "./worker.mjs";

/** @import { IncomingMessage, ServerResponse } from "node:http" */
/** @typedef {{ id: string, type: string, at: string, user: any, [member: string]: any }} Event */
/** @typedef {{ event: Event, body: string, seconds: number, path: string }} Delivery */
/** @typedef {(response: ServerResponse, request: IncomingMessage) => void} Answer */

/** An answer of this status. @param {number} status @param {Record<string, string>} [headers] @returns {Answer} */
export const status = (status, headers) => (response) => void response.writeHead(status, headers).end();
/** The connection breaks. @type {Answer} */
export const broken = (_, request) => void request.socket.destroy();
/** No answer. @type {Answer} */
export const silence = () => {};

/** Starts one, with what the Worker has to be set to. */
export async function startReceiver() {
  const secret = randomSecret();
  /** @type {Delivery[]} */
  const deliveries = [];
  /** @type {Answer[]} */
  let answers = [];
  /** @type {unknown[]} What was wrong with a delivery. */
  const faults = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request.setEncoding("utf8")) body += chunk;
    try {
      deliveries.push(checked(request, body, secret));
    } catch (fault) {
      faults.push(fault);
    }
    (answers.length > 1 ? answers.shift() : (answers[0] ?? status(204)))?.(response, request);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const url = `http://127.0.0.1:${port}/hook`;
  return {
    url,
    secret,
    settings: { events: { url } },
    secrets: { EVENTS_SECRET: secret },
    deliveries,
    /** Answers the next requests with these, in turn, and with the last of them from then on. @param {Answer[]} next */
    answer: (...next) => void (answers = next),
    /** When there were so many deliveries. @param {number} count */
    async waitFor(count) {
      await until(
        () => deliveries.length >= count,
        () => `${deliveries.length} deliveries, not ${count}`,
        1000,
      );
      return deliveries;
    },
    /** Takes the events there were, oldest first, once nothing is done in the background. @param {{ idle(): unknown }} worker */
    async take(worker) {
      await worker.idle();
      assert.deepEqual(faults, []);
      return deliveries.splice(0).map(({ event }) => event);
    },
    async stop() {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}

/** @param {IncomingMessage} request @param {string} body @param {string} secret @returns {Delivery} */
function checked({ method, url = "", headers }, body, secret) {
  assert.deepEqual([method, headers["content-type"]], ["POST", "application/json"]);
  assert.equal(headers.cookie ?? headers.authorization, undefined);
  const signature = String(headers["session-signature"]);
  const [, seconds = "", mac] = /^t=(\d+),v1=([0-9a-f]{64})$/.exec(signature) ?? [];
  assert.equal(mac, createHmac("sha256", secret).update(`${seconds}.${body}`).digest("hex"), signature);
  const event = JSON.parse(body);
  assert.deepEqual(Object.keys(event).slice(0, 4), ["id", "type", "at", "user"]);
  assert.match(event.id, /^[\w-]{16}$/);
  assert.match(event.at, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/);
  return { event, body, seconds: Number(seconds), path: url };
}
