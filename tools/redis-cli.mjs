/** One command to a Redis behind a unix socket, for machines without `redis-cli -s SOCKET COMMAND…`: see USAGE. */
import { join, resolve } from "node:path";
import { createClient } from "@redis/client";
import { ROOT, sentence } from "./say.mjs";
import { printable } from "./table.mjs";
import { socketOf } from "./valkey.mjs";

const USAGE = `npm run -s redis -- COMMAND…                       to the local store of npm start
npm run -s redis -- --state DIR COMMAND…           if that was started with --state DIR
node tools/redis-cli.mjs SOCKET COMMAND…           to another, such as that of an example

A command is such as KEYS 'sess:*', GET sess:…, TTL sess:…`;

try {
  const { path, command } = await options();
  await send(path, command);
} catch (error) {
  console.error(sentence(error));
  process.exitCode = 1;
}

/** Where to send what. */
async function options() {
  let [first, ...rest] = process.argv.slice(2);
  let state;
  // The last one counts: the first is package.json's.
  while (first === "--state") [state, first, ...rest] = rest;
  const command = state === undefined ? rest : [first, ...rest].filter((word) => word !== undefined);
  if (!first || !command.length) throw new Error(`Usage: ${USAGE}`);
  if (state === undefined) return { path: first, command };
  const path = await socketOf(join(resolve(ROOT, state), "data"));
  if (path) return { path, command };
  throw new Error(
    `No local store runs in ${state}: npm start starts it, unless it uses a database of your own, which has its own console.`,
  );
}

/** @param {string} path @param {string[]} command */
async function send(path, command) {
  const redis = createClient({ socket: { path, tls: false, reconnectStrategy: false } });
  redis.on("error", () => {}); // the command gets it
  try {
    await redis.connect();
    const reply = await redis.sendCommand(command);
    const shown = process.stdout.isTTY ? printable : String;
    for (const line of [reply].flat(Infinity)) console.log(line === null ? "(nil)" : shown(line));
  } finally {
    if (redis.isOpen) redis.destroy();
  }
}
