// A message as it is shown.
import { copyButton, el } from "./dom.js";
import { markdown } from "./markdown.js";
import { MADE_UP } from "./tools.js";

export function messageNode(message, isStreaming) {
  if (message.role === "user") return el("article", { class: "message user", "aria-label": "You" }, message.content);
  if (message.role === "tool") {
    const label = MADE_UP.has(message.name) ? `${message.name} answered (made-up data)` : `${message.name} answered`;
    return el("article", { class: "message card", "aria-label": label }, label, el("pre", { tabindex: "0" }, el("code", {}, message.content)));
  }
  const node = el("article", { class: "message", "aria-label": "Answer" });
  if (message.reasoning) {
    const summary = `${isStreaming && !message.content ? "Thinking" : "Thought"}: ${message.reasoning.length} characters`;
    node.append(el("details", { open: isStreaming && !message.content }, el("summary", {}, summary), el("div", { class: "text" }, message.reasoning)));
  }
  if (message.content) {
    const content = message.drafts.length ? [tinted(message)] : markdown(message.content);
    node.append(el("div", { class: isStreaming ? "streaming" : "" }, ...content));
  }
  for (const call of message.calls) node.append(callCard(call));
  if (message.error) node.append(el("div", { class: "card error", role: "alert" }, `${message.error} ${message.advice ?? ""}`));
  node.append(statsLine(message, isStreaming));
  return node;
}

function tinted(message) {
  const node = el("p");
  let end = 0;
  for (const [from, to] of message.drafts) {
    node.append(message.content.slice(end, from), el("span", { class: "draft" }, message.content.slice(from, to)));
    end = to;
  }
  node.append(message.content.slice(end));
  return node;
}

function callCard(call) {
  let text = call.function.arguments;
  try {
    text = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // still on its way, or no JSON: shown as it is
  }
  return el("div", { class: "card" }, el("strong", {}, `Tool call: ${call.function.name}`), el("pre", { tabindex: "0" }, el("code", {}, text)));
}

function statsLine(message, isStreaming) {
  const { tokens, ttft_ms, rate, accepted } = message.stats;
  const node = el("div", { class: "meta" });
  if (tokens) node.append(`${tokens} tokens`, ` ${rate.toFixed(1)} tokens/s`, ` first after ${Math.round(ttft_ms)} ms`);
  if (accepted != null) node.append(` ${Math.round(accepted * 100)} % of drafts accepted`);
  if (message.finish === "length") node.append(" cut at the token limit");
  if (message.stopped) node.append(" stopped");
  if (!isStreaming && message.content) node.append(copyButton(message.content));
  return node;
}
