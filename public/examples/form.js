import { createClient } from "../client.js";
import { BASE } from "../base.js";
import { attempt, byId, fill, once, show } from "./page.js";
import { drawSteps, fields, form, isOnShow, step, steps } from "./steps.js";

/** @import { Client } from "../client.js" */
/** @type {Client<{ application?: any }>} */
const cloakroom = createClient({ baseUrl: BASE });
let isUser = false;
let saved = Promise.resolve();

// A visitor's draft is in the session. Who is logged in has it in the profile,
// which every device of theirs sees.
const read = async (session = cloakroom.current) =>
  (isUser ? await cloakroom.profile() : session?.data)?.application;

const write = async (/** @type {object} */ application) => {
  if (isUser)
    draw((await cloakroom.updateProfile({ application })).application);
  else draw((await cloakroom.merge({ application })).data.application);
};

show(cloakroom, async (session) => {
  const wasUser = isUser;
  isUser = Boolean(session?.user);
  // What a user has just typed is not saved for whoever comes next here.
  if (wasUser && !isUser) clearTimeout(timer);
  const begun = session?.data.application;
  if (isUser && begun) {
    // Begun before the login; what was sent stays as it is. In this order
    // nothing is lost when the last request fails: all are made again.
    /** @type {{ application?: any }} */
    const { application } = await cloakroom.profile();
    if (!application?.sent)
      await cloakroom.updateProfile({ application: begun });
    await cloakroom.merge({ application: null });
  }
  draw(await read(session));
});

/** @param {any} application */
function draw({ draft, sent } = {}) {
  for (const { id } of fields) fill(id, draft?.[id]);
  form.hidden = Boolean(sent);
  byId("sent").hidden = !sent;
  byId("summary").textContent = sent
    ? `${sent.name} with “${sent.coat}”, at ${sent.at}`
    : "";
  drawSteps();
}

// What was typed is saved a moment later, field by field: what another tab has
// saved in the others stays.
const saveNow = async () => {
  const typed = fields.filter((field) => field.value !== field.defaultValue);
  const draft = Object.fromEntries(typed.map(({ id, value }) => [id, value]));
  if (typed.length) await write({ draft });
};
const save = () => (saved = saved.catch(() => {}).then(saveNow));
let timer = setTimeout(() => {});
form.addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(() => attempt(save), 400);
});

once("form", async () => {
  const wrong = fields.find(
    (field) => isOnShow(field) && !field.validity.valid,
  );
  if (wrong) return void wrong.reportValidity();
  clearTimeout(timer);
  await save();
  if (step < steps.length) return void (location.hash = String(step + 1));
  // What is sent has one place. Who comes second, from another tab or device,
  // finds it taken, or puts the same there.
  const { draft, sent } = (await read(await cloakroom.session())) ?? {};
  const at = new Date().toISOString();
  if (!sent) await write({ draft: null, sent: { ...draft, at } });
  return sent ? "It had been sent already." : "Sent.";
});

once("anew", async () => {
  await write({ draft: null, sent: null });
  location.hash = "1";
});
