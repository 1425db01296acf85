/** Origins that verify who asks, with the libraries that docs/gateway.md names: jose, PyJWT and jsonwebtoken. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { packagesFromPyPI, pythonWith } from "../../tools/pip.mjs";
import { verifier } from "../fixtures/verify-jwt/who-asks.mjs";

/**
 * Who asks, as a library says; it throws if it refuses.
 * @typedef {(question: { token: string, issuer: string, audience: string }) => Promise<any>} WhoAsks
 */

const root = fileURLToPath(new URL("../..", import.meta.url));
const script = fileURLToPath(new URL("../fixtures/verify-jwt/main.py", import.meta.url));
const PACKAGES = ["PyJWT==2.15.1", "cryptography==50.0.2"];

/** @returns {Promise<{ libraries: Record<string, WhoAsks>, stop: () => Promise<void> }>} by their names */
export async function startVerifiers() {
  const home = await packagesFromPyPI(PACKAGES, {
    missing: "PyJWT is missing: install Python 3.10 or newer with pip, which then fetches it from PyPI",
  });
  const python = asking("python3", ["-u", script], { ...process.env, ...pythonWith(home) });
  const rust = asking("cargo", ["run", "--quiet", "--package", "verify-jwt"], process.env);
  /** @type {Map<string, ReturnType<typeof verifier>>} */
  const known = new Map();
  return {
    libraries: {
      jose: ({ token, issuer, audience }) => {
        const key = `${issuer} ${audience}`;
        const verify = known.get(key) ?? verifier(issuer, audience);
        known.set(key, verify);
        return verify(token);
      },
      PyJWT: python.ask,
      jsonwebtoken: async (question) => {
        const keys = await (await fetch(`${question.issuer}/auth/jwks.json`)).json();
        return rust.ask({ ...question, keys });
      },
    },
    stop: async () => void (await Promise.all([python.stop(), rust.stop()])),
  };
}

/**
 * A program that answers each line by a line.
 * @param {string} command
 * @param {string[]} args
 * @param {NodeJS.ProcessEnv} env
 */
function asking(command, args, env) {
  const child = spawn(command, args, { cwd: root, env, stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  /** One question at a time. @type {Promise<unknown>} */
  let last = Promise.resolve();
  return {
    /** @param {object} question */
    ask(question) {
      const answer = last.then(async () => {
        child.stdin.write(`${JSON.stringify(question)}\n`);
        const { value, done } = await lines.next();
        if (done) throw new Error(`${command} has ended`);
        const { user, error } = JSON.parse(value);
        if (error) throw new Error(error);
        return user;
      });
      last = answer.catch(() => {});
      return answer;
    },
    async stop() {
      child.stdin.end();
      await ended;
    },
  };
}
