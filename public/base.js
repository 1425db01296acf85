/**
 * Where the Worker's routes live: `base_path` in wrangler.toml. `npm run build`, and with it `npm start` and
 * `npx wrangler deploy`, writes it here.
 */
export const BASE = "/auth";
