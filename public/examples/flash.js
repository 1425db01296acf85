import { createClient } from "../client.js";
import { BASE } from "../base.js";
import { attempt, fill, once, say, show } from "./page.js";

const cloakroom = createClient({ baseUrl: BASE });

// Taken out of the session and shown, once: `update` stores the session without
// the message only if nobody else has changed it since, else it looks again. Of
// two tabs that load at once, one has the message.
await attempt(async () => {
  let message;
  await cloakroom.update((data) => {
    message = data.flash;
    delete data.flash;
  });
  return message;
});

show(cloakroom, (session) => fill("title", session?.data.title));

// The message is stored together with the change that it is about, for the page
// that is loaded next.
once("rename", async ({ title }) => {
  await cloakroom.merge({ title, flash: `Renamed to “${title}”.` });
  location.reload();
});

// Whoever comes back with the browser's button does not read it again.
addEventListener("pagehide", () => say(""));
