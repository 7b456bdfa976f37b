// The chats, kept in this browser.

const KEY = "leadline.chats";
const MAX_CHATS = 50;

export class Chats {
  constructor() {
    try {
      this.list = JSON.parse(localStorage.getItem(KEY)) ?? [];
    } catch {
      this.list = [];
    }
    if (!this.list.length) this.list.push({ messages: [] });
    this.current = this.list[0];
  }

  add() {
    if (this.current.messages.length) this.list.unshift((this.current = { messages: [] }));
    this.list.length = Math.min(this.list.length, MAX_CHATS);
    this.save();
  }

  remove() {
    this.list = this.list.filter((chat) => chat !== this.current);
    if (!this.list.length) this.list.push({ messages: [] });
    this.current = this.list[0];
    this.save();
  }

  save() {
    try {
      localStorage.setItem(KEY, JSON.stringify(this.list));
    } catch {
      // full or forbidden: the chats last as long as the page
    }
  }
}

export function title(chat) {
  const text = chat.messages.find((message) => message.role === "user")?.content ?? "New chat";
  return text.length > 50 ? `${text.slice(0, 50)}...` : text;
}
