/**
 * `node tools/common-passwords.mjs`: writes the passwords that are refused as too common, and the licence they come under,
 * into src/account.
 *
 * The list is Django's, in the order of how often each was found in breaches (made by Royce Williams from the passwords of
 * Have I Been Pwned). Of those that are long enough here, the most common are taken: ASVS 5.0 (V6.2.4) asks for 3,000.
 */
import { cp, mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { installFromPyPI } from "./pip.mjs";
import { ROOT } from "./say.mjs";

const VERSION = "5.2";
/** How many are taken. */
export const COUNT = 3500;
const MIN_LENGTH = 8;

const LIST = "django/contrib/auth/common-passwords.txt.gz";
const LICENCE = `Django-${VERSION}.dist-info/LICENSE`;

/** The files that this program writes, with what is to stand in them. */
export async function commonPasswordFiles() {
  const home = join(ROOT, ".local", `django-passwords-${VERSION}`);
  const isThere = await stat(home).then(
    () => true,
    () => false,
  );
  if (!isThere) {
    await installFromPyPI(home, ["--no-deps", `Django==${VERSION}`], {
      missing: "Django is missing: install Python 3.10 or newer with pip, which then fetches it from PyPI",
      check: keepFiles,
    });
  }
  const text = gunzipSync(await readFile(join(home, "common-passwords.txt.gz"))).toString("utf8");
  // What is not ASCII in it was garbled on its way into some database.
  const candidates = text.split("\n").filter((it) => /^[!-~]+$/.test(it) && it.length >= MIN_LENGTH);
  const passwords = [...new Set(candidates.map((it) => it.toLowerCase()))].slice(0, COUNT);
  return {
    "src/account/common_passwords.txt": passwords.sort().join("\n") + "\n",
    "src/account/common_passwords.LICENSE": await readFile(join(home, "LICENSE"), "utf8"),
  };
}

/** Leaves of an installed Django what is needed here: 100 KB of 40 MB. @param {string} folder */
async function keepFiles(folder) {
  const kept = `${folder}.kept`;
  await mkdir(kept);
  await cp(join(folder, LIST), join(kept, "common-passwords.txt.gz"));
  await cp(join(folder, LICENCE), join(kept, "LICENSE"));
  await rm(folder, { recursive: true });
  await cp(kept, folder, { recursive: true });
  await rm(kept, { recursive: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [path, text] of Object.entries(await commonPasswordFiles())) {
    await writeFile(join(ROOT, path), text);
    console.log(path);
  }
}
