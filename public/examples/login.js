import { createClient } from "../client.js";
import { BASE } from "../base.js";
import { byId, once, say, show } from "./page.js";

const cloakroom = createClient({ baseUrl: BASE });
/** Who is logged in, if anybody is. @type {string | undefined} */
let user;

show(cloakroom, (session) => {
  byId("login").hidden = Boolean(session?.user);
  byId("logout").hidden = !session?.user;
  // Nothing stays on show of who is logged out, in another tab perhaps.
  if (session?.user?.id !== user) byId("devices").replaceChildren();
  user = session?.user?.id;
}).then(sayOutcome);

// Google, GitHub and others, if the Worker has some: an address to go to.
cloakroom.providers().then(
  (providers) => {
    const links = providers.map(({ id, name }) => {
      const link = document.createElement("a");
      link.href = cloakroom.loginUrl(id, { returnTo: location.pathname });
      link.textContent = `Log in with ${name}`;
      return link;
    });
    byId("others").replaceChildren(...links);
  },
  () => {}, // without them, the form is there
);

// A login elsewhere that has failed leads back here, and says why.
function sayOutcome() {
  const error = new URLSearchParams(location.search).get("login_error");
  if (!error) return;
  history.replaceState(null, "", location.pathname);
  const isRefused = error === "access_denied";
  say(
    isRefused ? "You have cancelled." : "That did not work. Try again.",
    "bad",
  );
}

once("login", async ({ username = "", password = "", remember }, button) => {
  if (button?.id === "register")
    await cloakroom.register({ username, password });
  else
    await cloakroom.login({ username, password, remember: remember === "on" });
  byId("login", HTMLFormElement).reset();
  return `Welcome, ${cloakroom.current?.user?.name}.`;
});

once("logout", async () => {
  await cloakroom.logout();
  return "Logged out. What the session held is gone.";
});

// The Worker protects it, not this page: without a login it answers 401, and
// there is nothing to show.
once("open", async () => {
  const asked = user;
  const devices = await cloakroom.devices();
  if (user !== asked)
    return "Somebody else is logged in by now: open it again.";
  const lines = devices.map(({ user_agent, current }) => {
    const line = document.createElement("li");
    line.textContent = `${user_agent}${current ? " (this one)" : ""}`;
    return line;
  });
  byId("devices").replaceChildren(...lines);
  return "Here is your dashboard: where you are logged in. (200)";
});
