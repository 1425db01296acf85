/** The proxies of docs/forward-auth.md, started as printed there: between a visitor, an application and the Worker. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, request as requestOf } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { freePort } from "../../tools/port.mjs";
import { findProxy } from "../../tools/proxies.mjs";
import { launch } from "../../tools/say.mjs";
import { Visitor } from "./visitor.mjs";
import { until } from "./worker.mjs";

/** @typedef {import("../../tools/proxies.mjs").ProxyName} ProxyName */
/**
 * @typedef {object} Addresses Ports, and the Worker's URL.
 * @property {number} listen
 * @property {number} application
 * @property {string} cloakroom
 * @property {string} [trusted]  with TLS to the Worker: the file of the certificates that are good
 * @property {{ key: string, cert: string }} [shown]  with TLS to visitors, where the recipe knows how: its files
 */

const TRUSTED = "/etc/ssl/certs/ca-certificates.crt";

const docs = await readFile(new URL("../../docs/forward-auth.md", import.meta.url), "utf8");

/** The blocks of a language below a heading. @param {string} heading @param {string} language */
function blocks(heading, language) {
  const section = docs.split(`\n## ${heading}\n`)[1]?.split("\n## ")[0] ?? "";
  return [...section.matchAll(new RegExp(`\`\`\`${language}\n(.*?)\`\`\``, "gs"))].map(([, block]) =>
    String(block),
  );
}

/** A text with each of these in the place of what stands before it, which must be there. @param {string} text @param {[string | RegExp, string][]} changes */
function changed(text, changes) {
  return changes.reduce((before, [printed, here]) => {
    const after = before.replaceAll(printed, here);
    assert.notEqual(after, before, `the recipe has no ${printed}`);
    return after;
  }, text);
}

/** The files of each recipe with these addresses, and the arguments to start with, in their folder. @type {Record<ProxyName, { files: (at: Addresses) => Record<string, string>, start: (folder: string) => string[] }>} */
export const RECIPES = {
  nginx: {
    files: ({ listen, application, cloakroom, trusted, shown }) => ({
      "nginx.conf": `${process.getuid?.() === 0 ? "user root;" : ""} daemon off; pid nginx.pid; worker_processes 1;
        events {}
        http {
          access_log off; client_body_temp_path body; proxy_temp_path proxy;
          fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
          ${changed(blocks("nginx", "nginx").join(""), [
            [
              "listen 80;",
              shown
                ? `listen 127.0.0.1:${listen} ssl; ssl_certificate ${shown.cert}; ssl_certificate_key ${shown.key};`
                : `listen 127.0.0.1:${listen};`,
            ],
            ["127.0.0.1:3000", `127.0.0.1:${application}`],
            ["https://cloakroom.example.com", cloakroom],
            ...(trusted ? [/** @type {[string, string]} */ ([TRUSTED, trusted])] : []),
          ])}
        }`,
    }),
    start: (folder) => ["-p", folder, "-c", "nginx.conf", "-e", "/dev/null"],
  },
  caddy: {
    files: ({ listen, application, cloakroom, shown }) => ({
      Caddyfile: `{
          admin off
          auto_https off
          log {
            level ERROR
            output discard
          }
        }
        ${changed(blocks("Caddy", "caddy").join(""), [
          shown
            ? ["app.example.com {", `https://localhost:${listen} {\ntls ${shown.cert} ${shown.key}\n`]
            : ["app.example.com", `http://127.0.0.1:${listen}`],
          ["127.0.0.1:3000", `127.0.0.1:${application}`],
          ["https://cloakroom.example.com", cloakroom],
        ])}`,
    }),
    start: (folder) => ["run", "--config", join(folder, "Caddyfile"), "--adapter", "caddyfile"],
  },
  traefik: {
    files({ listen, application, cloakroom }) {
      const [entry = "", routes = ""] = blocks("Traefik", "yaml");
      return {
        "traefik.yaml": changed(entry, [
          [":80", `127.0.0.1:${listen}`],
          ["filename: routes.yaml", "directory: ROUTES"],
        ]),
        "routes.yaml": changed(routes, [
          ["127.0.0.1:3000", `127.0.0.1:${application}`],
          ["https://cloakroom.example.com", cloakroom],
        ]),
      };
    },
    start: (folder) => [`--configFile=${join(folder, "traefik.yaml")}`],
  },
  envoy: {
    files({ listen, application, cloakroom, trusted }) {
      const { hostname, port, host } = new URL(cloakroom);
      /** @type {[string | RegExp, string][]} */
      const tls = trusted
        ? [
            [TRUSTED, trusted],
            [/(?<=sni: |exact: )cloakroom\.example\.com/g, hostname],
            [/(?<=uri: https:\/\/)cloakroom\.example\.com/g, host],
          ]
        : [[/ {6}transport_socket:\n( {8}.*\n)+/g, ""]];
      return {
        "envoy.yaml": changed(blocks("Envoy", "yaml").join(""), [
          ["address: 0.0.0.0, port_value: 80 ", `address: 127.0.0.1, port_value: ${listen} `],
          ["port_value: 3000", `port_value: ${application}`],
          ["@cloakroom", `@cloakroom-${listen}`],
          ...tls,
          [
            "address: cloakroom.example.com, port_value: 443",
            `address: ${hostname.replace("localhost", "127.0.0.1")}, port_value: ${port}`,
          ],
          [/(?<=: (https:\/\/)?)cloakroom\.example\.com/g, host],
        ]),
      };
    },
    start: (folder) => [
      "-c",
      join(folder, "envoy.yaml"),
      ..."--disable-hot-restart --concurrency 1 -l off".split(" "),
    ],
  },
};

/**
 * Starts a proxy with its recipe.
 * @param {ProxyName} name
 * @param {string} binary
 * @param {Omit<Addresses, "listen">} addresses
 */
export async function startProxy(name, binary, addresses) {
  const folder = await mkdtemp(join(tmpdir(), `cloakroom-${name}-`));
  const listen = await freePort();
  const { files, start } = RECIPES[name];
  for (const [file, text] of Object.entries(files({ listen, ...addresses }))) {
    await writeFile(
      join(folder, file),
      text.replace("directory: ROUTES", `filename: ${join(folder, "routes.yaml")}`),
    );
  }
  // Programs in Go take the trusted certificates from there.
  const env = { HOME: folder, ...(addresses.trusted ? { SSL_CERT_FILE: addresses.trusted } : {}) };
  const program = launch(binary, start(folder), { capture: true, env });
  let said = "";
  for (const stream of [program.stdout, program.stderr]) {
    stream?.setEncoding("utf8").on("data", (text) => (said = (said + text).slice(-2000)));
  }
  const { shown } = addresses;
  const url = shown ? `https://localhost:${listen}` : `http://127.0.0.1:${listen}`;
  const anybody = new Visitor(url, shown && (await readFile(shown.cert)));
  const stop = async () => {
    await program.stop();
    await rm(folder, { recursive: true, force: true });
  };
  const isUp = () =>
    anybody.send("GET", "/").then(
      ({ status }) => status === 401,
      () => false,
    );
  await until(isUp, () => `${name} did not start: ${said}`, 1000).catch(async (error) => {
    await stop();
    throw error;
  });
  return { url, stop };
}

/** The path of a proxy, or null. @param {ProxyName} name */
const findHere = (name) => findProxy(name, console.error);

/**
 * The same of all of them. To be awaited before the first test: once that has ended, hooks for the end of the file run, although
 * tests are added after a pause.
 */
export async function findAllHere() {
  return {
    nginx: await findHere("nginx"),
    caddy: await findHere("caddy"),
    traefik: await findHere("traefik"),
    envoy: await findHere("envoy"),
  };
}

/**
 * @typedef {object} Reached What has reached the application.
 * @property {string} method
 * @property {string} path
 * @property {[string, string][]} fields  the header fields as they came
 * @property {string} body  the hash of it
 */

/** The application: answers, takes WebSockets (as an echo of bytes), and remembers what has reached it. */
export async function startApplication() {
  /** @type {Reached[]} */
  const reached = [];
  const server = createServer(async (request, response) => {
    const hash = createHash("sha256");
    for await (const chunk of request) hash.update(chunk);
    note(request, hash.digest("hex"));
    const isLogin = request.url?.startsWith("/login");
    response
      .setHeader("Set-Cookie", "of-the-application=1")
      .end(isLogin ? "the login page" : "the application");
  });
  const note = (
    /** @type {import("node:http").IncomingMessage} */ { method, url, rawHeaders },
    body = "",
  ) => {
    /** @type {[string, string][]} */
    const fields = rawHeaders.flatMap((name, at) => (at % 2 ? [] : [[name, rawHeaders[at + 1] ?? ""]]));
    reached.push({ method: String(method), path: String(url), fields, body });
  };
  server.on("upgrade", (request, socket) => {
    if (request.url !== "/socket") {
      return void socket.end("HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    }
    note(request);
    socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    socket.on("error", () => {}).pipe(socket);
  });
  return { reached, ...(await listening(server)) };
}

/**
 * @typedef {object} Asked What a proxy has asked the Worker.
 * @property {string} method
 * @property {string} path
 * @property {string | undefined} host
 * @property {number} size  of its body
 * @property {string[]} setCookies  of the answer
 */

/**
 * A witness between the proxy and the Worker, who remembers what it asks, and can be `down`, or answer what it is told.
 * @param {string} target
 * @param {import("node:tls").SecureContextOptions} [certificate]  with TLS to the proxy
 */
export async function startWitness(target, certificate) {
  /** @type {Asked[]} */
  const asked = [];
  /** @type {{ down: boolean, answer: number | undefined }} */
  const behaviour = { down: false, answer: undefined };
  /** @type {import("node:http").RequestListener} */
  const witness = async (request, response) => {
    if (behaviour.down) return request.socket.destroy();
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const { method = "", url: path = "", headers } = request;
    const one = {
      method,
      path,
      host: headers.host,
      size: body.length,
      setCookies: /** @type {string[]} */ ([]),
    };
    asked.push(one);
    if (behaviour.answer) return response.writeHead(behaviour.answer, { "X-Session-User": "eve" }).end();
    const onward = requestOf(target + path, { method, headers, agent: false }, (answer) => {
      one.setCookies = answer.headers["set-cookie"] ?? [];
      response.writeHead(answer.statusCode ?? 0, answer.rawHeaders);
      answer.pipe(response);
    });
    onward.on("error", () => response.destroy()).end(body);
  };
  const secure = certificate && createSecureServer(certificate, witness);
  const server = secure ?? createServer(witness);
  return {
    asked,
    behaviour,
    ...(await listening(server)),
    /** Shows another certificate from now on. @param {import("node:tls").SecureContextOptions} other */
    showCertificate(other) {
      secure?.setSecureContext(other);
      server.closeAllConnections();
    },
  };
}

/** @param {import("node:http").Server | import("node:https").Server} server */
async function listening(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = /** @type {import("node:net").AddressInfo} */ (server.address());
  const stop = () => {
    server.close();
    server.closeAllConnections();
  };
  return { port, stop };
}
