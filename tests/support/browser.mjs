/** One Chromium for a test file: started once, a fresh profile, nothing fetched behind our backs. */

import { chromium } from "playwright-core";
import { findChromium, NO_CHROMIUM } from "../../tools/chromium.mjs";

const FLAGS = [
  "--headless",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/**
 * Starts the machine's Chromium, with a profile of its own that goes when it is closed.
 * @param {{ log?: (line: string) => void }} [options]
 * @returns {Promise<import("playwright-core").Browser>}
 * @throws when there is no Chromium; the message is one sentence for the person at the terminal
 */
export async function launch({ log = console.error } = {}) {
  const executablePath = await findChromium({ log });
  if (!executablePath) throw new Error(NO_CHROMIUM);
  const asRoot = process.getuid?.() === 0;
  return chromium.launch({ executablePath, args: asRoot ? [...FLAGS, "--no-sandbox"] : FLAGS });
}
