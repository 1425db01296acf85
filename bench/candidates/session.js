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
};
