// The chat: what was said, a place to type, and the loop of answers and tool calls.
import { newAnswer, stream } from "./answer.js";
import { Chats, title } from "./chats.js";
import { announce, el } from "./dom.js";
import { messageNode } from "./message.js";
import { settings } from "./settings.js";
import { answerCall } from "./tools.js";

const MAX_ROUNDS = 8; // of tool calls after one message

export function chatView(main, openSettings) {
  const chats = new Chats();
  let abort = null;
  let painting = 0;

  const log = el("section", { class: "log", role: "log", "aria-label": "Conversation", "aria-live": "off" });
  const input = el("textarea", { rows: 2, "aria-label": "Message", placeholder: "Ask something (Enter sends, Shift+Enter breaks the line)" });
  const send = el("button", { class: "primary", type: "submit" }, "Send");
  const stop = el("button", { type: "button", hidden: true, onclick: () => abort?.abort() }, "Stop");
  const picker = el("select", { "aria-label": "Chat" });
  const button = (label, onclick) => el("button", { type: "button", onclick }, label);
  const bar = el("div", { class: "chats" }, picker, button("New chat", () => change(() => chats.add())),
    button("Delete", () => change(() => chats.remove())), button("Export", save));
  const form = el("form", { class: "composer" }, input, send, stop);
  main.append(bar, log, form);

  function change(action) {
    abort?.abort();
    action();
    paint();
    input.focus();
  }

  function paint() {
    const { messages } = chats.current;
    picker.replaceChildren(...chats.list.map((chat, index) => el("option", { value: index, selected: chat === chats.current }, title(chat))));
    log.replaceChildren(...messages.map((message) => messageNode(message, false)));
    if (!messages.length) log.append(el("p", { class: "empty" }, "Say something to the model. Chats stay in this browser."));
    else if (!abort) log.append(el("div", { class: "meta" }, button(messages.at(-1).error ? "Try again" : "Regenerate", regenerate), button("Edit last message", edit)));
  }

  function paintLast(chat) {
    if (painting || chat !== chats.current) return;
    painting = requestAnimationFrame(() => {
      painting = 0;
      if (!abort || chat !== chats.current) return;
      log.lastElementChild.replaceWith(messageNode(chat.messages.at(-1), true));
      if (innerHeight + scrollY > document.body.scrollHeight - 200) scrollTo(0, document.body.scrollHeight);
    });
  }

  async function answer() {
    const chat = chats.current;
    const values = settings();
    const own = (abort = new AbortController());
    send.hidden = true;
    stop.hidden = false;
    announce("The model answers.");
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const message = newAnswer();
      const before = [...chat.messages];
      chat.messages.push(message);
      paint();
      try {
        await stream(message, before, values, own.signal, () => paintLast(chat));
      } catch (error) {
        if (error.name === "AbortError") message.stopped = true;
        else [message.error, message.advice] = [error.message, error.advice ?? ""];
        if (error.status === 401) openSettings();
        message.calls = []; // they may be cut
      }
      chats.save();
      if (message.finish !== "tool_calls" || message.error || message.stopped) break;
      for (const call of message.calls) {
        const content = JSON.stringify(answerCall(call));
        chat.messages.push({ role: "tool", name: call.function.name, tool_call_id: call.id, content });
      }
    }
    if (abort === own) abort = null;
    send.hidden = false;
    stop.hidden = true;
    const last = chat.messages.at(-1);
    announce(last.error ?? (last.stopped ? "Stopped." : last.content));
    chats.save();
    paint();
  }

  function cutAtLastQuestion() {
    const { messages } = chats.current;
    const index = messages.findLastIndex((message) => message.role === "user");
    return messages.splice(index);
  }

  function regenerate() {
    chats.current.messages.push(cutAtLastQuestion()[0]);
    answer();
  }

  function edit() {
    input.value = cutAtLastQuestion()[0].content;
    chats.save();
    paint();
    input.focus();
  }

  function save() {
    const data = new Blob([JSON.stringify(chats.current, null, 2)], { type: "application/json" });
    const link = el("a", { href: URL.createObjectURL(data), download: "chat.json" });
    link.click();
    URL.revokeObjectURL(link.href);
  }

  picker.addEventListener("change", () => change(() => (chats.current = chats.list[picker.value])));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const content = input.value.trim();
    if (!content || abort) return;
    chats.current.messages.push({ role: "user", content });
    input.value = "";
    answer();
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  const onKey = (event) => event.key === "Escape" && !document.querySelector("dialog[open]") && abort?.abort();
  document.addEventListener("keydown", onKey);
  paint();
  input.focus();
  return () => {
    abort?.abort();
    document.removeEventListener("keydown", onKey);
  };
}
