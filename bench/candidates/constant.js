/** The floor of any Worker: the answer is always the same. */
import { SESSION } from "./session.js";

const body = JSON.stringify({ session: SESSION });

export default {
  fetch: () => new Response(body, { headers: { "Content-Type": "application/json" } }),
};
