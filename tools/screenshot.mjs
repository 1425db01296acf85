/**
 * Takes the README's picture of the page, docs/page.png.
 *
 *   node tools/screenshot.mjs                       starts the Worker for it
 *   CLOAKROOM_URL=http://localhost:8787 node tools/screenshot.mjs
 */

import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { crc32, deflateSync, inflateSync } from "node:zlib";
import { launch } from "../tests/support/browser.mjs";

const PICTURE = fileURLToPath(new URL("../docs/page.png", import.meta.url));
const AT_MOST = 150_000;

const given = process.env.CLOAKROOM_URL;
const app = given ? null : await (await import("../tests/support/app.mjs")).startApp();
const browser = await launch();
/** @type {Buffer} */
let picture;
try {
  const page = await browser.newPage({
    viewport: { width: 1280, height: 800 },
    deviceScaleFactor: 1,
    colorScheme: "light",
    reducedMotion: "reduce",
    locale: "en-GB",
  });
  await page.goto(given ?? app?.url ?? "");
  for (const visits of ["1", "2", "3"]) {
    await page.getByRole("button", { name: "Count a visit" }).click();
    await page.locator("#visits", { hasText: visits }).waitFor();
  }
  await page.getByLabel("Name").fill("Ada Lovelace");
  await page.getByLabel("straw").check();
  await page.getByRole("button", { name: "Store" }).click();
  await page.getByText("Stored.").waitFor();
  await page.getByRole("button", { name: "20 clicks at once" }).click();
  await page.getByText("All 20 counted").waitFor();
  // In the log the burst says more than the look that came after it.
  await page.locator("#log summary").nth(0).click();
  await page.locator("#log summary").nth(1).click();
  await page.mouse.move(0, 0);
  picture = withPalette(await page.screenshot());
} finally {
  await browser.close();
  await app?.stop();
}

await writeFile(PICTURE, picture);
console.log(`docs/page.png: ${Math.ceil(picture.length / 1000)} KB`);
if (picture.length > AT_MOST) {
  console.error(`That is more than ${AT_MOST / 1000} KB: make the picture smaller.`);
  process.exitCode = 1;
}

/**
 * The same picture with a palette of its 256 commonest colours, at less than half the size. A colour beyond
 * them (of letters' soft edges, mostly) becomes the nearest.
 * @param {Buffer} png  as Chromium writes it: 8-bit RGB, not interlaced
 */
function withPalette(png) {
  const [width, height] = [png.readUInt32BE(16), png.readUInt32BE(20)];
  const colours = pixels(png, width, height);

  /** @type {Map<number, number>} */
  const uses = new Map();
  for (const colour of colours) uses.set(colour, (uses.get(colour) ?? 0) + 1);
  const palette = [...uses.keys()].sort((a, b) => (uses.get(b) ?? 0) - (uses.get(a) ?? 0)).slice(0, 256);

  /** @param {number} a  @param {number} b  two colours */
  const distance = (a, b) =>
    [16, 8, 0].reduce((sum, bits) => sum + (((a >> bits) & 255) - ((b >> bits) & 255)) ** 2, 0);
  const indexOf = new Map(palette.map((colour, i) => [colour, i]));
  for (const colour of uses.keys()) {
    if (indexOf.has(colour)) continue;
    const distances = palette.map((known) => distance(colour, known));
    indexOf.set(colour, distances.indexOf(Math.min(...distances)));
  }

  const rows = Buffer.alloc((width + 1) * height);
  colours.forEach((colour, i) => {
    rows[i + Math.floor(i / width) + 1] = indexOf.get(colour) ?? 0;
  });
  const head = Buffer.from(png.subarray(16, 29));
  head[9] = 3; // colour type: indexed
  const table = Buffer.from(palette.flatMap((colour) => [colour >> 16, (colour >> 8) & 255, colour & 255]));
  return Buffer.concat([
    png.subarray(0, 8),
    chunk("IHDR", head),
    chunk("PLTE", table),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
    chunk("IEND", Buffer.alloc(0)),
  ]);
}

/**
 * The colours of a PNG, as 0xRRGGBB, row by row.
 * @param {Buffer} png
 * @param {number} width
 * @param {number} height
 */
function pixels(png, width, height) {
  if (png[24] !== 8 || png[25] !== 2 || png[28] !== 0) throw new Error("the screenshot is not plain RGB");
  const parts = [];
  for (let at = 8; at < png.length; at += 12 + png.readUInt32BE(at)) {
    const isData = png.toString("latin1", at + 4, at + 8) === "IDAT";
    if (isData) parts.push(png.subarray(at + 8, at + 8 + png.readUInt32BE(at)));
  }
  const packed = inflateSync(Buffer.concat(parts));
  const stride = width * 3;
  const plain = Buffer.alloc(stride * height);
  for (let i = 0; i < plain.length; i++) {
    const [row, column] = [Math.floor(i / stride), i % stride];
    const left = column < 3 ? 0 : (plain[i - 3] ?? 0);
    const up = row === 0 ? 0 : (plain[i - stride] ?? 0);
    const corner = row === 0 || column < 3 ? 0 : (plain[i - stride - 3] ?? 0);
    const guesses = [0, left, up, (left + up) >> 1, paeth(left, up, corner)];
    plain[i] = (packed[i + row + 1] ?? 0) + (guesses[packed[row * (stride + 1)] ?? 0] ?? 0);
  }
  return Array.from({ length: width * height }, (_, i) => plain.readUIntBE(i * 3, 3));
}

/** @param {number} left  @param {number} up  @param {number} corner  PNG's fourth filter */
function paeth(left, up, corner) {
  const [toLeft, toUp, toCorner] = [left, up, corner].map((near) => Math.abs(left + up - corner - near));
  if (toLeft <= toUp && toLeft <= toCorner) return left;
  return toUp <= toCorner ? up : corner;
}

/** @param {string} name  @param {Buffer} content */
function chunk(name, content) {
  const body = Buffer.concat([Buffer.from(name, "latin1"), content]);
  const frame = Buffer.alloc(8);
  frame.writeUInt32BE(content.length, 0);
  frame.writeUInt32BE(crc32(body), 4);
  return Buffer.concat([frame.subarray(0, 4), body, frame.subarray(4)]);
}
