/** What a million sessions in the store mean, as Markdown for people. */
import { rows } from "./report.mjs";

/** @typedef {import("./scale.mjs").Scale} Scale */
/** @typedef {import("./scale.mjs").Figures} Figures */

const JOBS = { read: "read", change: "change", list: "the list of a user's 100 sessions" };

/** @param {Scale} scale @returns {string[]} */
export function filled({ sessions, real, memory, cells, expiry, slow, hot }) {
  const number = (/** @type {number} */ value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
  const small = (/** @type {number} */ value) => (value < 10 ? value.toFixed(2) : value.toFixed(0));
  const gigabytes = (/** @type {number} */ bytes) => `${(bytes / 1e9).toFixed(2)} GB`;
  const times = (/** @type {{ p50: number, p99: number }} */ { p50, p99 }) =>
    `${p50.toFixed(1)} / ${p99.toFixed(1)}`;
  return [
    "## A million sessions in the store",
    `Some sessions were made by the Worker, and what stands in the store because of each was copied under fresh names until ` +
      `there were ${number(sessions)} sessions: ${number(memory.keys)} keys in ${memory.seconds.toFixed(0)} s, ` +
      `**${gigabytes(memory.all)}** of Valkey's memory (resident: ${gigabytes(memory.resident)}), ` +
      `**${number(memory.bytes)} bytes** a session. By what they are, with ${number(memory.tables)} bytes for each key's place ` +
      "in Valkey's tables, which grow by doubling:",
    rows(
      ["", "of", "keys of each", "bytes of each"],
      memory.steps.map(({ title, sessions, keys, bytes }) => [
        title,
        number(sessions),
        keys.map((key) => `\`${key}\``).join(", "),
        number(bytes),
      ]),
    ),
    `The Worker in front of it, asked for ${number(real.large)} of these sessions at random, next to one with ` +
      `${number(real.small)} sessions in its store, in turn: p50 / p99 of the latency and CPU time of workerd in milliseconds, ` +
      "commands of the store per request. Sessions that were not asked for in that minute yet cost one command more.",
    rows(
      [
        "",
        "connections",
        `${number(real.small)}`,
        "CPU",
        "commands",
        `${number(sessions)}`,
        "CPU",
        "commands",
      ],
      cells.map(({ job, connections, small: few, large: many }) => [
        JOBS[job],
        String(connections),
        ...[few, many].flatMap((one) => [times(one), one.cpu.toFixed(3), one.commands.toFixed(2)]),
      ]),
    ),
    `**Expiry.** ${number(expiry.sessions)} more sessions ended within ${expiry.seconds} s, while 32 connections read others: ` +
      `p50 / p99 ${times(expiry.busy)} ms, before it ${times(expiry.calm)}. An ended session is gone for whoever asks at once; ` +
      `its memory Valkey takes back in the background, by sampling, and leaves it be while fewer than a tenth of the keys have ` +
      `ended: ${number(expiry.removed)} in these seconds, ` +
      `${number(expiry.later.removed)} within ${number(expiry.seconds + expiry.later.seconds)} s.`,
    `**Slow commands**, by \`SLOWLOG\`, of the Worker's: ${slow.count} took over ${slow.over / 1000} ms` +
      (slow.worst.length
        ? `, the longest ${(Math.max(...slow.worst.map(({ microseconds }) => microseconds)) / 1000).toFixed(1)} ms ` +
          `(${[...new Set(slow.worst.map(({ command }) => `\`${command}\``))].join(", ")}); what else the machine did is in that.`
        : "."),
    `**Keys that requests share.** ${number(hot.requests)} requests of the mix of [scale.md](scale.md), over a minute, from ` +
      `${number(hot.addresses)} addresses, of which one has ${100 * hot.shared} % of the visitors; watched by \`MONITOR\`. How ` +
      "often a key of each kind is read or written, per 1,000 requests; a command that names three counts for each. " +
      "*Hottest*: the one key that has most.",
    rows(
      ["", "keys", "reads", "writes", "hottest", "one key for all"],
      hot.kinds.map(({ kind, keys, reads, writes, most }) => [
        `\`${kind}\``,
        number(keys),
        small(reads),
        small(writes),
        small(most),
        kind.startsWith("stats:") ? "**yes**" : "no",
      ]),
    ),
  ];
}
