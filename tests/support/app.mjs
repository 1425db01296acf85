/** The whole thing as a newcomer starts it: `npm start`, on a free port and with data of its own. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { freePort } from "../../tools/port.mjs";

const start = fileURLToPath(new URL("../../tools/start.mjs", import.meta.url));

/** `secrets` is the file that took the place of .dev.vars. @returns {Promise<{ url: string, secrets: string, stop(): Promise<void> }>} */
export async function startApp() {
  const dir = await mkdtemp(join(tmpdir(), "cloakroom-"));
  const port = await freePort();
  const secrets = join(dir, "dev.vars");
  const places = ["--port", String(port), "--state", join(dir, "state"), "--dev-vars", secrets];
  const child = spawn(process.execPath, [start, ...places], { stdio: ["ignore", "pipe", "pipe"] });
  const exited = once(child, "exit");
  /** @type {string[]} */
  const said = [];
  const url = `http://localhost:${port}`;
  await new Promise((resolve, reject) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on("line", (line) => {
        said.push(line);
        if (line.includes(`Cloakroom is at  ${url}`)) resolve(undefined);
      });
    }
    void exited.then(() => reject(new Error(`npm start ended:\n${said.join("\n")}`)));
  });
  return {
    url,
    secrets,
    async stop() {
      child.kill("SIGINT");
      await exited;
      await rm(dir, { recursive: true, force: true });
    },
  };
}
