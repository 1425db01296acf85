/**
 * The theme before the first paint. The session is the truth, but its cookie is
 * HttpOnly and its content one request away: who waited for that would paint
 * the wrong colours first. So the theme last seen is kept in localStorage as a
 * hint, and this script reads it. It is no module and stands in <head>: the
 * browser paints nothing before it has run. A module corrects the hint as soon
 * as the session is known. Only the first page on another device can be late.
 *
 * @param {unknown} theme  "light" or "dark"; else it is as the system has it
 */
function showTheme(theme) {
  const chosen = theme === "light" || theme === "dark" ? theme : undefined;
  if (chosen) document.documentElement.dataset.theme = chosen;
  else delete document.documentElement.dataset.theme;
  try {
    if (chosen) localStorage.setItem("theme", chosen);
    else localStorage.removeItem("theme");
  } catch {
    // Storage is blocked: then there is no hint.
  }
}

try {
  showTheme(localStorage.getItem("theme"));
} catch {
  // As above.
}
