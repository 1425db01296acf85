/** An application behind the gateway as bytes: what has reached it, and answers that no server would give. */
import { once } from "node:events";
import { createServer } from "node:net";

/** @param {Record<string, string>} answers to paths; to the others it is 200 */
export async function startRawOrigin(answers = {}) {
  /** @type {string[]} heads of requests, as they came */
  const reached = [];
  /** @type {Set<import("node:net").Socket>} */
  const sockets = new Set();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    let text = "";
    socket.setEncoding("latin1").on("data", (chunk) => {
      text += chunk;
      for (let end = text.indexOf("\r\n\r\n"); end >= 0; end = text.indexOf("\r\n\r\n")) {
        const [head] = /[A-Z]+ \S+ HTTP\/1\.1\r\n[^]*/.exec(text.slice(0, end)) ?? []; // behind a body, perhaps
        text = text.slice(end + 4);
        if (head === undefined) continue; // the end of a body in chunks
        reached.push(head);
        const path = head.split(" ")[1]?.split("?")[0] ?? "";
        const answer = answers[path];
        socket.write(answer ?? "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        if (answer?.startsWith("nonsense")) socket.end();
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  return {
    url: `http://127.0.0.1:${port}`,
    reached,
    stop() {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** The fields of a head, by names in lower case; of a name that comes twice both, joined. @param {string} head */
export function fieldsOf(head) {
  /** @type {Record<string, string>} */
  const fields = {};
  for (const line of head.split("\r\n").slice(1)) {
    const [, name = "", value = ""] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
    const key = name.toLowerCase();
    fields[key] = key in fields ? `${fields[key]} | ${value}` : value;
  }
  return fields;
}
