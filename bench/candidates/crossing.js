/** The floor same-call.js, and many times one call into the platform more. The binding `CROSSING` says which. */
import { CROSSINGS, TIMES } from "./crossings.js";
import sameCall from "./same-call.js";

export default {
  /** @param {Request} request @param {any} env @param {import("./crossings.js").Context} context */
  async fetch(request, env, context) {
    const { once, times = TIMES } = CROSSINGS[env.CROSSING];
    for (let at = 0; at < times; at += 1) {
      const made = once(request, context);
      if (made instanceof Promise) await made;
    }
    return sameCall.fetch(request, env);
  },
};
