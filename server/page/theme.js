// Light or dark: as the system has it, also when that changes, unless one is chosen here.
import { el } from "./dom.js";

const KEY = "leadline.theme";
const NEXT = { system: "light", light: "dark", dark: "system" };

export function startTheme(button) {
  let theme = "system";
  try {
    theme = localStorage.getItem(KEY) ?? theme;
  } catch {
    // storage is forbidden: as the system has it
  }
  const show = () => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.replaceChildren(el("span", { class: "roomy" }, "Theme: "), theme);
    button.setAttribute("aria-label", `Theme: ${theme}`);
  };
  button.addEventListener("click", () => {
    theme = NEXT[theme] ?? "system";
    try {
      localStorage.setItem(KEY, theme);
    } catch {
      // it lasts as long as the page
    }
    show();
  });
  show();
}
