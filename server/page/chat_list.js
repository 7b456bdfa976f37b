// The chats to choose from: a column beside the talk, or a panel above it where there is no room.
import { title } from "./chats.js";
import { el } from "./dom.js";

// `change` is called with what is to be done to the chats.
export function chatList(chats, change) {
  const rows = el("ul");
  const panel = el("div", { class: "panel-of-chats", id: "chats" }, rows);
  const toggle = el("button", { type: "button", class: "toggle", "aria-expanded": "false", "aria-controls": "chats" }, "Chats");
  const open = (isOpen) => {
    toggle.setAttribute("aria-expanded", String(isOpen));
    panel.classList.toggle("open", isOpen);
  };
  toggle.addEventListener("click", () => open(!panel.classList.contains("open")));
  const act = (label, action) => el("button", { type: "button", onclick: action }, label);
  const bar = el("div", { class: "chat-bar" }, act("New chat", () => change(() => chats.add())), toggle,
    act("Export", () => save(chats.current)), act("Delete", () => change(() => chats.remove())));

  const row = (chat) => {
    const choose = () => {
      open(false);
      change(() => (chats.current = chat));
    };
    const isCurrent = chat === chats.current;
    return el("li", {}, el("button", { type: "button", class: "quiet", "aria-current": isCurrent ? "true" : null, onclick: choose }, title(chat)));
  };
  return {
    node: el("aside", { class: "chats", "aria-label": "Chats" }, bar, panel),
    paint: () => rows.replaceChildren(...chats.list.map(row)),
  };
}

function save(chat) {
  const data = new Blob([JSON.stringify(chat, null, 2)], { type: "application/json" });
  const link = el("a", { href: URL.createObjectURL(data), download: "chat.json" });
  link.click();
  URL.revokeObjectURL(link.href);
}
