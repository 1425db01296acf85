/** What becomes of single measurements. */

/** @param {number[]} values */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2
    ? (sorted[middle] ?? NaN)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

/** What this part of the values is at most. @param {number[]} values @param {number} part */
export function quantile(values, part) {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? NaN;
}

/** How far from the line a point has to be, as part of the line's value there, for the growth not to be linear. */
export const TOLERANCE = 0.1;

/**
 * The line of least squares; and the point that is furthest from it, when that is by more than TOLERANCE and by more
 * than the noise: the width of the middle half of a point's rounds, the median of all points'.
 *
 * @param {{ x: number, y: number, rounds: number[] }[]} points `y`: the median of `rounds`
 */
export function fit(points) {
  const mean = (/** @type {number[]} */ values) =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const [x0, y0] = [mean(points.map(({ x }) => x)), mean(points.map(({ y }) => y))];
  const slope =
    mean(points.map(({ x, y }) => (x - x0) * (y - y0))) / mean(points.map(({ x }) => (x - x0) ** 2));
  const line = (/** @type {number} */ x) => y0 + slope * (x - x0);
  const noise = median(points.map(({ rounds }) => middleHalf(rounds)));
  const bend = points
    .map(({ x, y }) => ({ x, by: y / line(x) - 1, off: Math.abs(y - line(x)) }))
    .filter(({ by, off }) => Math.abs(by) > TOLERANCE && off > noise)
    .toSorted((a, b) => b.off - a.off)[0];
  return { slope, noise, isLinear: !bend, bend: bend && { x: bend.x, by: bend.by } };
}

/** Where the middle half of the values begins and ends. @param {number[]} values @returns {[number, number]} */
export function quartiles(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const outside = sorted.length >> 2;
  return [sorted[outside] ?? NaN, sorted.at(-1 - outside) ?? NaN];
}

/** How wide it is. @param {number[]} values */
function middleHalf(values) {
  const [low, high] = quartiles(values);
  return high - low;
}
