/**
 * Runs in the page. The luminance of its background, and every visible text with less contrast to what is
 * behind it than WCAG 2.2 AA asks: 4.5, or 3 for large text. What is dimmed because it is disabled is exempt.
 */
export function contrasts() {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  if (!canvas) throw new Error("no canvas");

  /** @param {string} colour  any CSS colour @returns {number[]}  red, green, blue, alpha of 0 to 1 */
  const parse = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data].map((channel) => channel / 255);
  };
  /** @param {number[]} top @param {number[]} below @param {number} [opacity] */
  const over = (top, below, opacity = 1) => {
    const alpha = (top[3] ?? 1) * opacity;
    return [0, 1, 2].map((i) => (top[i] ?? 0) * alpha + (below[i] ?? 0) * (1 - alpha));
  };
  /** @param {number[]} rgb */
  const luminance = (rgb) => {
    const [r = 0, g = 0, b = 0] = rgb.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  /** @param {Element | null} element @returns {number[]} */
  const behind = (element) => {
    if (!element) return [1, 1, 1];
    return over(parse(getComputedStyle(element).backgroundColor), behind(element.parentElement));
  };

  const faint = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (!element || !texts.currentNode.nodeValue?.trim()) continue;
    if (!element.checkVisibility() || element.closest("[aria-disabled=true]")) continue;
    const style = getComputedStyle(element);
    const back = behind(element);
    const front = over(parse(style.color), back, Number(style.opacity));
    const [low = 0, high = 0] = [luminance(front), luminance(back)].sort((a, b) => a - b);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    if (ratio < (large ? 3 : 4.5)) faint.push(`${texts.currentNode.nodeValue.trim()}: ${ratio.toFixed(2)}`);
  }
  return { room: luminance(behind(document.body)), faint };
}
