/** So many KB besides, of things in a cart: `npm run bench -- --data`. Node's alone: a Worker is sent it. */
const KILOBYTES = Number(globalThis.process?.env?.BENCH_KILOBYTES ?? 0);
const THING = { sku: "tea-0001", title: "A tin of Darjeeling, first flush", price: 12.5, count: 1 };
const things = Array.from(
  { length: Math.floor((KILOBYTES * 1000) / JSON.stringify(THING).length) },
  () => THING,
);

/** What every session holds: about 200 bytes as JSON. */
export const SESSION = {
  user: "ada",
  name: "Ada Lovelace",
  roles: ["customer", "editor"],
  cart: ["tea", "cake", "a very small spoon"],
  theme: "dark",
  locale: "en-GB",
  seen: "2026-11-21T06:00:00Z",
  address: { city: "London", zip: "W1" },
  views: 0,
  ...(things.length ? { things } : {}),
};
