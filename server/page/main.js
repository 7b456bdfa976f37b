// Starts the page: two views, and a theme.
import { chatView } from "./chat.js";
import { dashboardView } from "./dashboard.js";
import { openSettings } from "./settings.js";
import { startTheme } from "./theme.js";

const VIEWS = { chat: chatView, dashboard: dashboardView };
const main = document.getElementById("main");
const dialog = document.getElementById("settings");
let close = () => {};

function show() {
  const name = location.hash === "#dashboard" ? "dashboard" : "chat";
  close();
  for (const view of Object.keys(VIEWS)) {
    const link = document.getElementById(`nav-${view}`);
    if (view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.replaceChildren();
  main.className = name;
  document.title = name === "chat" ? "Leadline" : "Dashboard - Leadline";
  close = VIEWS[name](main, (field) => openSettings(dialog, field));
}

startTheme(document.getElementById("theme"));
document.getElementById("open-settings").addEventListener("click", () => openSettings(dialog));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  main.focus();
});
addEventListener("hashchange", show);
show();
