/** `npm run redis-cli -- GET sess:…`: one command to the example's Valkey, for machines without redis-cli. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createClient } from "redis";

const state = process.env.STATE ?? fileURLToPath(new URL("../../.local/express", import.meta.url));
const path = await readFile(join(state, "socket"), "utf8").catch(() => {
  throw new Error("The example does not run: start it with npm start.");
});
const client = createClient({ socket: { path, reconnectStrategy: false } });
client.on("error", (error) => console.error(error.message));
await client.connect();
const reply = await client.sendCommand(process.argv.slice(2));
console.log([reply].flat().join("\n"));
client.destroy();
