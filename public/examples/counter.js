import { createClient } from "../client.js";
import { BASE } from "../base.js";
import { byId, each, show } from "./page.js";

const cloakroom = createClient({ baseUrl: BASE });

// The number is drawn when it is known, and again when another tab has counted.
show(cloakroom, (session) => {
  byId("visits").textContent = String(session?.data.visits ?? 0);
});

// The Worker adds, to whatever the number is by then: who reads it, adds one
// and writes it back loses the visits that others counted meanwhile. The first
// visit begins the session.
each("count", () => cloakroom.increment("/visits"));
