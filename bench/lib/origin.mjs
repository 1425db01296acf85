/**
 * An application behind a gateway, in a process of its own: the same answer to everything, on kept connections. Plain
 * sockets, so that it takes little of the machine that is measured.
 */
import { fork } from "node:child_process";
import { createServer } from "node:net";
import { fileURLToPath } from "node:url";

const self = fileURLToPath(import.meta.url);
const PAGE = "<!doctype html><title>A page</title>".padEnd(1024, " ");
const ANSWER = `HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: ${PAGE.length}\r\n\r\n${PAGE}`;

/** @returns {Promise<{ url: string, stop: () => Promise<void> }>} */
export async function startOrigin() {
  const child = fork(self, ["serve"]);
  const url = await new Promise((resolve) => child.once("message", resolve));
  return {
    url,
    async stop() {
      const gone = new Promise((resolve) => child.once("exit", resolve));
      child.disconnect();
      await gone;
    },
  };
}

function serve() {
  const server = createServer({ noDelay: true }, (socket) => {
    let waiting = "";
    socket.on("error", () => {});
    socket.setEncoding("latin1").on("data", (chunk) => {
      waiting += chunk;
      for (let end = endOf(waiting); end > 0; end = endOf(waiting)) {
        waiting = waiting.slice(end);
        socket.write(ANSWER);
      }
    });
  });
  server.listen(0, "127.0.0.1", () => {
    const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
    process.send?.(`http://127.0.0.1:${port}`);
  });
  process.on("SIGINT", () => {}); // the one who started us says when
  process.on("disconnect", () => process.exit());
}

/** Where the first request ends, or 0 while it is not there whole. @param {string} text */
function endOf(text) {
  const head = text.indexOf("\r\n\r\n");
  if (head < 0) return 0;
  const [, length = "0"] = /^content-length: *(\d+)/im.exec(text.slice(0, head)) ?? [];
  const end = head + 4 + Number(length);
  return text.length < end ? 0 : end;
}

if (process.argv[1] === self && process.argv[2] === "serve") serve();
