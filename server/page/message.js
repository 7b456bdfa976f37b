// A message as it is shown; an answer's nodes are kept while it grows.
import { copyButton, el } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { Marked } from "./marked.js";
import { MADE_UP } from "./tools.js";

export function messageNode(message) {
  if (message.role === "user") return el("article", { class: "message user", "aria-label": "You" }, message.content);
  if (message.role === "tool") return toolAnswer(message);
  const view = new AnswerView();
  view.update(message, false);
  return view.node;
}

function toolAnswer(message) {
  const title = el("div", { class: "card-title" }, el("code", {}, message.name), " answered");
  if (MADE_UP.has(message.name)) title.append(el("span", { class: "tag" }, "made-up data"));
  return el("article", { class: "message card tool", "aria-label": `Answer of ${message.name}` }, title, codeOf(message.content));
}

export class AnswerView {
  constructor() {
    this.isTouched = false; // the reader has opened or closed the thinking
    this.summary = el("summary", { onclick: () => (this.isTouched = true) });
    this.thought = el("div", { class: "text" });
    this.thinking = el("details", { hidden: true }, this.summary, this.thought);
    this.content = el("div", { class: "content" });
    this.rest = el("div");
    this.markdown = new MarkdownView(this.content);
    this.node = el("article", { class: "message answer", "aria-label": "Answer" }, this.thinking, this.content, this.rest);
    this.told = "";
  }

  update(message, isStreaming) {
    const tint = message.tint ?? {};
    const isThinking = isStreaming && !message.content && !message.calls.length;
    this.content.classList.toggle("streaming", isStreaming && !message.calls.length);
    if (message.reasoning) this.think(new Marked(message.reasoning, tint.reasoning), isThinking);
    this.markdown.update(new Marked(message.content, tint.content));
    // What follows the text changes rarely: buttons there must stay the ones that are pressed.
    const told = JSON.stringify([message.calls, message.error, message.stats, isStreaming]);
    if (told !== this.told) this.rest.replaceChildren(...after(message, isStreaming));
    this.told = told;
  }

  think(marked, isThinking) {
    this.thinking.hidden = false;
    if (!this.isTouched) this.thinking.open = isThinking;
    const words = marked.text.split(/\s+/).filter(Boolean).length;
    this.summary.textContent = `${isThinking ? "Thinking" : "Thought"}: ${words} ${words === 1 ? "word" : "words"}`;
    this.thought.replaceChildren(...marked.nodes());
  }
}

function* after(message, isStreaming) {
  for (const call of message.calls) yield callCard(call);
  if (message.error) {
    yield el("div", { class: "card error" }, el("strong", {}, message.error), " ", message.advice ?? "");
  }
  yield statsLine(message, isStreaming);
}

function callCard(call) {
  let text = call.function.arguments;
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // still on its way, or no JSON: shown as it is
  }
  return el("div", { class: "card tool" }, el("div", { class: "card-title" }, "Calls ", el("code", {}, call.function.name)), codeOf(text));
}

function codeOf(text) {
  return el("pre", { tabindex: "0", role: "region", "aria-label": "Data" }, el("code", {}, text));
}

export function statsText(message) {
  const { tokens, ttft_ms, rate, accepted } = message.stats;
  const parts = [];
  if (tokens) parts.push(`${tokens} ${tokens === 1 ? "token" : "tokens"}`);
  if (rate) parts.push(`${rate.toFixed(1)} tokens/s`);
  if (tokens) parts.push(`first after ${Math.round(ttft_ms)} ms`);
  if (accepted != null) parts.push(`${Math.round(accepted * 100)} % of drafts accepted`);
  if (message.finish === "length") parts.push("cut at the token limit");
  if (message.stopped) parts.push("stopped");
  return parts;
}

function statsLine(message, isStreaming) {
  const node = el("div", { class: "meta" }, ...statsText(message).map((part) => el("span", {}, part)));
  const isTinted = Object.values(message.tint ?? {}).some((tint) => tint.includes("d"));
  if (isTinted) node.append(el("span", {}, el("span", { class: "draft" }, "tinted"), ": accepted drafts"));
  if (!isStreaming && message.content) node.append(copyButton(message.content));
  return node;
}
