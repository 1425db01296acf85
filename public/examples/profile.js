import { createClient } from "../client.js";
import { BASE } from "../base.js";
import { byId, fill, once, show } from "./page.js";

const cloakroom = createClient({ baseUrl: BASE });

// The session ends with the logout, and each device has its own. The profile
// belongs to the account and stays.
show(cloakroom, async (session) => {
  fill("note", session?.data.note);
  byId("save-profile").hidden = byId("logout").hidden = !session?.user;
  byId("nobody").hidden = Boolean(session?.user);
  const { motto = "" } = session?.user ? await cloakroom.profile() : {};
  fill("motto", String(motto));
});

// Each of them sends the one member that it is about, and leaves the others as
// they are. `null` takes it out.
once("save-note", async ({ note }) => {
  await cloakroom.merge({ note: note || null });
  return "Kept in this session.";
});

once("save-profile", async ({ motto = "" }) => {
  await cloakroom.updateProfile({ motto: motto || null });
  fill("motto", motto);
  return "Kept in the profile, for every session to come.";
});

once("logout", async () => {
  await cloakroom.logout();
  return "Logged out: the note is gone. Log in again, and the motto is still there.";
});
