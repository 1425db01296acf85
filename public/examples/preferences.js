import { createClient } from "../client.js";
import { BASE } from "../base.js";
import { byId, each, show, showTheme } from "./page.js";

const cloakroom = createClient({ baseUrl: BASE });

// All pages call showTheme (theme.js) with the session's theme, and with the
// last one seen before they are painted.
show(cloakroom, (session) => {
  const theme = String(session?.data.theme);
  const chosen = ["light", "dark"].includes(theme) ? theme : "system";
  byId(chosen, HTMLInputElement).checked = true;
});

each("preferences", async ({ theme }) => {
  // At once. Should the merge fail, what the session has is shown again.
  showTheme(theme);
  await cloakroom.merge({ theme: theme === "system" ? null : theme });
  return "Kept. Reload the page: it is painted so from the start.";
});
