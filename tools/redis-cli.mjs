/**
 * `node tools/redis-cli.mjs SOCKET COMMAND…`: one command to a Redis behind a unix socket, for machines without
 * `redis-cli -s SOCKET COMMAND…`.
 */
import { createClient } from "@redis/client";
import { sentence } from "./say.mjs";

const [path, ...command] = process.argv.slice(2);
if (!path || !command.length) {
  console.error("Usage: node tools/redis-cli.mjs SOCKET COMMAND…, such as KEYS 'session:*'");
  process.exit(1);
}
const redis = createClient({ socket: { path, tls: false, reconnectStrategy: false } });
redis.on("error", () => {}); // the command gets it
try {
  await redis.connect();
  const reply = await redis.sendCommand(command);
  for (const line of [reply].flat()) console.log(line === null ? "(nil)" : String(line));
} catch (error) {
  console.error(sentence(error));
  process.exitCode = 1;
} finally {
  if (redis.isOpen) redis.destroy();
}
