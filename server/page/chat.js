// The chat: what was said, a place to type, and the loop of answers and tool calls.
import { newAnswer, stream } from "./answer.js";
import { chatList } from "./chat_list.js";
import { Chats } from "./chats.js";
import { el } from "./dom.js";
import { AnswerView, messageNode, statsText } from "./message.js";
import { Follower } from "./scrolling.js";
import { settings } from "./settings.js";
import { Speaker } from "./speaker.js";
import { answerCall } from "./tools.js";

const MAX_ROUNDS = 8; // of tool calls after one message
const EXAMPLES = ["What does itertools.chain do?", "How do I read a file line by line?", "What is functools.lru_cache for?"];

export function chatView(main, openSettings) {
  const chats = new Chats();
  const speaker = new Speaker(document.getElementById("spoken"));
  let abort = null;

  const button = (label, onclick) => el("button", { type: "button", onclick }, label);
  const log = el("section", { class: "log", "aria-label": "Conversation" });
  const toEnd = el("button", { type: "button", class: "to-end", hidden: true }, "To the newest");
  const input = el("textarea", { rows: 1, "aria-label": "Message", "aria-describedby": "hint", placeholder: "Ask something" });
  const send = el("button", { class: "primary", type: "submit" }, "Send");
  const stop = el("button", { type: "button", class: "primary", hidden: true, onclick: () => abort?.abort() }, "Stop");
  const state = el("span", { role: "status" });
  const hint = el("span", { id: "hint" }, "Enter sends, Shift+Enter breaks the line, Escape stops");
  const form = el("form", { class: "composer" }, toEnd, el("div", { class: "box" }, input, send, stop),
    el("div", { class: "status" }, state, hint));
  const list = chatList(chats, change);
  const follower = new Follower(toEnd);
  main.append(list.node, el("div", { class: "talk" }, el("h1", { class: "hidden" }, "Chat"), log, form));

  function change(action) {
    abort?.abort();
    rest();
    action();
    tell("");
    paint();
    follower.go();
    input.focus();
  }

  function rest() {
    abort = null;
    send.hidden = false;
    stop.hidden = true;
  }

  function tell(text) {
    if (state.textContent !== text) state.textContent = text;
  }

  function paint() {
    const { messages } = chats.current;
    list.paint();
    log.replaceChildren(...messages.map(messageNode));
    if (!messages.length) log.append(welcome());
    else if (!abort) log.append(actions());
    follower.follow();
  }

  function welcome() {
    const examples = EXAMPLES.map((text) => button(text, () => ask(text)));
    return el("div", { class: "empty" }, el("h2", {}, "Ask the model"), el("p", {}, "Chats stay in this browser."), el("div", { class: "examples" }, ...examples));
  }

  // Shows an answer as it grows, once a frame at most.
  function grow(chat, message) {
    const view = new AnswerView();
    let frame = 0;
    const draw = () => {
      frame = 0;
      view.update(message, true);
      if (chat !== chats.current) return;
      tell(message.content || message.calls.length ? "Answering" : message.reasoning ? "Thinking" : "Waiting for the first token");
      speaker.hear(message.content);
      follower.follow();
    };
    log.append(view.node);
    draw();
    return {
      view,
      changed: () => (frame ||= requestAnimationFrame(draw)),
      end: () => {
        cancelAnimationFrame(frame);
        view.update(message, false);
      },
    };
  }

  async function round(chat, values, own) {
    const message = newAnswer();
    const before = [...chat.messages];
    chat.messages.push(message);
    speaker.begin();
    const growing = grow(chat, message);
    try {
      await stream(message, before, values, own.signal, growing.changed);
    } catch (error) {
      if (error.name === "AbortError") message.stopped = true;
      else [message.error, message.advice] = [error.message, error.advice ?? ""];
      if (error.status === 401) openSettings("key");
      message.calls = []; // they may be cut
    }
    growing.end();
    if (chat === chats.current) speaker.hear(message.content);
    chats.save();
    return message;
  }

  function toolsAnswer(chat, message) {
    for (const call of message.calls) {
      const content = JSON.stringify(answerCall(call));
      const answer = { role: "tool", name: call.function.name, tool_call_id: call.id, content };
      chat.messages.push(answer);
      if (chat === chats.current) log.append(messageNode(answer));
    }
  }

  async function answer() {
    const chat = chats.current;
    const values = settings();
    const own = (abort = new AbortController());
    send.hidden = true;
    stop.hidden = false;
    paint();
    follower.go();
    let message;
    for (let rounds = 0; rounds < MAX_ROUNDS; rounds += 1) {
      message = await round(chat, values, own);
      if (message.finish !== "tool_calls" || message.error || message.stopped) break;
      toolsAnswer(chat, message);
    }
    chats.save();
    if (abort !== own) return; // another answer has begun
    rest();
    speaker.finish();
    tell(message.error ? `Failed: ${message.error} ${message.advice}` : message.stopped ? "Stopped" : `Done: ${statsText(message)[0] ?? "no text"}`);
    list.paint();
    log.append(actions()); // the nodes before them stay, with what the reader has opened and marked
    follower.follow();
  }

  function actions() {
    const isFailed = chats.current.messages.at(-1).error;
    return el("div", { class: "actions" }, button(isFailed ? "Try again" : "Regenerate", regenerate), button("Edit last message", edit));
  }

  function ask(content) {
    if (!content || abort) return;
    chats.current.messages.push({ role: "user", content });
    answer();
  }

  function cutAtLastQuestion() {
    const { messages } = chats.current;
    return messages.splice(messages.findLastIndex((message) => message.role === "user"));
  }

  function regenerate() {
    ask(cutAtLastQuestion()[0].content);
    input.focus();
  }

  function edit() {
    input.value = cutAtLastQuestion()[0].content;
    chats.save();
    paint();
    input.focus();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const content = input.value.trim();
    if (abort || !content) return;
    input.value = "";
    ask(content);
  });
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  const onKey = (event) => event.key === "Escape" && !document.querySelector("dialog[open]") && abort?.abort();
  document.addEventListener("keydown", onKey);
  paint();
  follower.go();
  input.focus();
  return () => {
    abort?.abort();
    speaker.begin();
    follower.close();
    document.removeEventListener("keydown", onKey);
  };
}
