import { createClient } from "../client.js";
import { BASE } from "../base.js";
import { byId, each, show } from "./page.js";

/** @import { Client } from "../client.js" */
/** @type {Client<{ cart?: Record<string, number> }>} */
const cloakroom = createClient({ baseUrl: BASE });

/** In cents. */
const prices = { tea: 450, cake: 380, candle: 1290 };

show(cloakroom, (session) => {
  const cart = session?.data.cart ?? {};
  let total = 0;
  for (const [item, cents] of Object.entries(prices)) {
    const quantity = cart[item] ?? 0;
    total += quantity * cents;
    byId(`${item}-quantity`).textContent = String(quantity);
    for (const button of [`${item}-less`, `${item}-none`])
      byId(button).ariaDisabled = String(!quantity);
  }
  byId("total").textContent = `€${(total / 100).toFixed(2)}`;
});

// `update` reads the cart, changes it, and stores it only if it is still the
// one that was read; else it begins anew. So two tabs at once lose nothing, and
// none writes an old cart over a newer one.
/** @param {string} item @param {(quantity: number) => number} edit */
const change = (item, edit) =>
  cloakroom.update((data) => {
    data.cart ??= {};
    const quantity = edit(data.cart[item] ?? 0);
    if (quantity > 0) data.cart[item] = quantity;
    else delete data.cart[item];
  });

for (const item of Object.keys(prices)) {
  each(`${item}-more`, () => change(item, (quantity) => quantity + 1));
  each(`${item}-less`, () => change(item, (quantity) => quantity - 1));
  each(`${item}-none`, () => change(item, () => 0));
}
