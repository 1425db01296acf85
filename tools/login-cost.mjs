/**
 * What a login costs: the CPU time that workerd takes for one wrong password, of which nearly all is Argon2id, next to
 * a request that asks the store once. From /proc, so on Linux. `node tools/login-cost.mjs [KiB,iterations,parallelism …]`
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { startWorker } from "../tests/support/worker.mjs";
import { startLocalStore } from "./local-store/index.mjs";

const RUNS = 20;
const given = process.argv.slice(2);
const all = given.length ? given : ["19456,2,1", "12288,3,1", "9216,4,1", "7168,5,1", "47104,1,1"];
const tick = 1000 / Number(execFileSync("getconf", ["CLK_TCK"]).toString());

const store = await startLocalStore();
console.log("| memory, passes, lanes | CPU per login | memory of workerd |\n|---|---|---|");
for (const [index, parameters] of all.entries()) {
  const [memory_kib, iterations, parallelism] = parameters.split(",").map(Number);
  const worker = await startWorker({
    store,
    settings: { password: { memory_kib, iterations, parallelism } },
  });
  const processes = () => children(process.pid).filter((pid) => /workerd/.test(read(pid, "comm")));
  const logIn = (/** @type {number} */ run) =>
    worker.visitor().send("POST", "/auth/login", {
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ username: `nobody ${index} ${run}`, password: "wrong horse" }),
    });
  for (let run = 0; run < 5; run += 1) await logIn(run);
  const before = cpu(processes());
  for (let run = 0; run < RUNS; run += 1) await logIn(run);
  const spent = (cpu(processes()) - before) / RUNS;
  const resident = processes().map((pid) => Number(/VmRSS:\s+(\d+)/.exec(read(pid, "status"))?.[1] ?? 0));
  const memory = Math.round(resident.reduce((sum, part) => sum + part, 0) / 1024);
  console.log(`| ${memory_kib} KiB, ${iterations}, ${parallelism} | ${spent.toFixed(0)} ms | ${memory} MB |`);
  await worker.stop();
}
await store.stop();

/** @param {number} parent @returns {number[]} */
function children(parent) {
  const direct = read(parent, `task/${parent}/children`).split(" ").filter(Boolean).map(Number);
  return direct.flatMap((pid) => [pid, ...children(pid)]);
}

/** Milliseconds of CPU time. @param {number[]} pids */
function cpu(pids) {
  return pids.reduce((sum, pid) => {
    const fields = read(pid, "stat").split(") ")[1]?.split(" ") ?? [];
    return sum + (Number(fields[11]) + Number(fields[12])) * tick;
  }, 0);
}

/** @param {number} pid @param {string} file */
function read(pid, file) {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return "";
  }
}
