// One answer of the model, put together from the events of its stream.
import { events } from "./api.js";
import { modelName, sampling } from "./settings.js";
import { TOOLS } from "./tools.js";

// `tint` has a letter for each character: d for one of an accepted draft; empty if that is not asked for.
export function newAnswer() {
  return { role: "assistant", content: "", reasoning: "", calls: [], tint: { content: "", reasoning: "" }, stats: {} };
}

export function forApi(messages, system) {
  const head = system ? [{ role: "system", content: system }] : [];
  return head.concat(messages.filter((message) => !message.error || message.content).map((message) => {
    if (message.role === "tool") return { role: "tool", tool_call_id: message.tool_call_id, content: message.content };
    if (message.role !== "assistant" || !message.calls.length) return { role: message.role, content: message.content };
    return { role: "assistant", content: message.content || null, tool_calls: message.calls };
  }));
}

// Fills `answer` and calls `changed` after every event.
export async function stream(answer, messages, values, signal, changed) {
  const body = {
    ...sampling(values),
    model: await modelName(values),
    messages: forApi(messages, values.system),
    stream: true,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  };
  if (values.tools) body.tools = TOOLS;
  if (values.drafts) body.return_draft_flags = true;
  const begun = performance.now();
  let first = 0;
  for await (const event of events("v1/chat/completions", body, signal)) {
    const now = performance.now();
    const tokens = event.usage?.completion_tokens ?? 0;
    if (!first && tokens) first = now;
    const seconds = (now - first) / 1000;
    if (first) answer.stats = { ...answer.stats, tokens, ttft_ms: first - begun, rate: seconds > 0 ? (tokens - 1) / seconds : 0 };
    const drafts = event.metrics?.speculative_decoding;
    if (drafts) answer.stats.accepted = drafts.draft_acceptance_rate;
    const choice = event.choices?.[0];
    if (choice) take(answer, choice);
    changed();
  }
}

function take(answer, choice) {
  const delta = choice.delta ?? {};
  if (choice.finish_reason) answer.finish = choice.finish_reason;
  for (const [name, text] of [["reasoning", delta.reasoning_content], ["content", delta.content]]) {
    if (!text) continue;
    answer[name] += text;
    if (choice.is_draft !== undefined) answer.tint[name] += (choice.is_draft ? "d" : ".").repeat(text.length);
  }
  for (const part of delta.tool_calls ?? []) {
    if (part.id) answer.calls[part.index] = { id: part.id, type: "function", function: { name: part.function.name, arguments: "" } };
    answer.calls[part.index].function.arguments += part.function.arguments ?? "";
  }
}
