/** HTTP/1.1 as bytes: what no client library would send. */
import { connect } from "node:net";

/**
 * Sends exactly these bytes, and reads an answer to the end of its Content-Length.
 * @param {string} url  where
 * @param {string} text  a byte for each character
 * @returns {Promise<string>}
 */
export function sendRaw(url, text) {
  const { hostname, port } = new URL(url);
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname, () => socket.write(Buffer.from(text, "latin1")));
    let answer = "";
    socket.setEncoding("latin1").on("data", (chunk) => {
      answer += chunk;
      const [, head, body = ""] = answer.match(/^([^]*?)\r\n\r\n([^]*)$/) ?? [];
      const length = Number(head?.match(/^Content-Length: (\d+)\r?$/im)?.[1] ?? Infinity);
      // After a refusal of its own the platform keeps the connection open for seconds.
      if (body.length >= length) socket.destroy();
    });
    socket.on("close", () => resolve(answer)).on("error", reject);
  });
}

/**
 * A request with these header lines; with a body, JSON.
 * @param {string} url
 * @param {string} method
 * @param {string} path
 * @param {string[]} lines  a byte for each character
 * @param {unknown} [body]
 */
export async function requestRaw(url, method, path, lines, body) {
  const content = body === undefined ? "" : JSON.stringify(body);
  const about = content ? ["Content-Type: application/json", `Content-Length: ${content.length}`] : [];
  const head = [
    `${method} ${path} HTTP/1.1`,
    `Host: ${new URL(url).host}`,
    "Connection: close",
    ...about,
    ...lines,
  ];
  const answer = await sendRaw(url, `${head.join("\r\n")}\r\n\r\n${content}`);
  const [, status, text = ""] = answer.match(/^HTTP\/1\.1 (\d{3}) [^]*?\r\n\r\n([^]*)$/) ?? [];
  const isJson = /^Content-Type: [^\r]*json/im.test(answer);
  return { status: Number(status), text, json: isJson ? JSON.parse(text) : undefined };
}

/** The bytes of a text in UTF-8, each as a character. @param {string} text */
export const utf8 = (text) => Buffer.from(text, "utf8").toString("latin1");
