import { createClient } from "../client.js";
import { BASE } from "../base.js";
import { byId, once, show } from "./page.js";

const cloakroom = createClient({ baseUrl: BASE });
let handle = "";

show(cloakroom, (session) => {
  byId("login").hidden = Boolean(session?.user);
  byId("logout").hidden = !session?.user;
  // Nothing stays on show of a session that has ended, in another tab perhaps.
  if (session?.handle !== handle) byId("devices").replaceChildren();
  handle = session?.handle ?? "";
});

once("login", async ({ username = "", password = "", remember }, button) => {
  const session =
    button?.id === "register"
      ? await cloakroom.register({ username, password })
      : await cloakroom.login({ username, password, remember: remember === "on" });
  byId("login", HTMLFormElement).reset();
  return `Welcome, ${session?.user?.name}.`;
});

once("logout", async () => {
  await cloakroom.logout();
  return "Logged out. What the session held is gone.";
});

// The Worker protects it, not this page: without a login it answers 401, and there is nothing to show.
once("open", async () => {
  const devices = await cloakroom.devices();
  const lines = devices.map(
    ({ user_agent, current }) => `${user_agent ?? "unknown"}${current ? " (this one)" : ""}`,
  );
  byId("devices").replaceChildren(
    ...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })),
  );
  return "Here is your dashboard: where you are logged in. (200)";
});
