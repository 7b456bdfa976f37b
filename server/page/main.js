// Starts the page: two views, a theme, and what is said about the server.
import { chatView } from "./chat.js";
import { dashboardView } from "./dashboard.js";
import { openSettings } from "./settings.js";

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
  close = VIEWS[name](main, () => openSettings(dialog));
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("leadline.theme", theme);
}

const preferred = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
document.documentElement.dataset.theme = localStorage.getItem("leadline.theme") ?? preferred;
document.getElementById("theme").addEventListener("click", () => {
  setTheme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
});
document.getElementById("open-settings").addEventListener("click", () => openSettings(dialog));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names the view
  main.focus();
});
addEventListener("hashchange", show);
show();
