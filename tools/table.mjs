/**
 * Text for a terminal. What visitors have chosen, such as the names of their browsers, is among it: no character of theirs may
 * move the cursor, or change the order of others. Needs Node alone.
 */

const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu;

/** As it stands, but for what a terminal would act upon: that is written `\u{1b}`. @param {unknown} text */
export const printable = (text) =>
  String(text).replace(UNPRINTABLE, (character) => `\\u{${character.codePointAt(0)?.toString(16)}}`);

/** JSON for people and programs, in which nothing is left that a terminal would act upon. @param {unknown} value */
export const printableJson = (value, indent = 2) =>
  JSON.stringify(value, null, indent).replace(/[^\n\P{C}]|[\u2028\u2029]/gu, (character) =>
    [...Array(character.length).keys()]
      .map((at) => `\\u${character.charCodeAt(at).toString(16).padStart(4, "0")}`)
      .join(""),
  );

/**
 * Names and values, below each other.
 * @param {[name: string, value: unknown][]} rows those without a value are left out
 */
export function pairs(rows) {
  const shown = rows.filter(([, value]) => value !== null && value !== undefined && value !== "");
  const width = Math.max(...shown.map(([name]) => name.length));
  return shown.map(([name, value]) => `${name.padEnd(width)}  ${printable(value)}`).join("\n");
}

/**
 * Columns below their names; numbers to the right.
 * @param {string[]} names
 * @param {unknown[][]} rows
 */
export function columns(names, rows) {
  const cells = [names, ...rows].map((row) => row.map((cell) => printable(cell ?? "–")));
  const widths = names.map((_, at) => Math.max(...cells.map((row) => [...row[at]].length)));
  const pad = (/** @type {string} */ cell, /** @type {number} */ at) => {
    const blanks = " ".repeat(widths[at] - [...cell].length);
    return rows.every((row) => typeof row[at] === "number") && rows.length ? blanks + cell : cell + blanks;
  };
  return cells.map((row) => row.map(pad).join("  ").trimEnd()).join("\n");
}
