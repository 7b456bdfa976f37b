// What is asked with every message; kept in this browser, the API key for this tab only.
import { apiKey, request } from "./api.js";
import { el } from "./dom.js";

const KEY = "leadline.settings";
const FIELDS = [
  ["system", "System prompt", "textarea"],
  ["temperature", "Temperature (0 to 2)", "number", { min: 0, max: 2, step: "any" }],
  ["top_p", "Top p (above 0, at most 1)", "number", { min: 0, max: 1, step: "any" }],
  ["max_tokens", "Most tokens of an answer", "number", { min: 1, step: 1 }],
  ["seed", "Seed", "number", { step: 1 }],
  ["speculative_tokens", "Most drafts a step (0 for none)", "number", { min: 0, step: 1 }],
];
const EFFORTS = ["", "none", "minimal", "low", "medium", "high", "xhigh"];

let kept = {};

export function settings() {
  try {
    return JSON.parse(localStorage.getItem(KEY)) ?? kept;
  } catch {
    return kept;
  }
}

export function sampling(values) {
  const fields = {};
  for (const [name, , type] of FIELDS) if (type === "number" && values[name] !== undefined) fields[name] = values[name];
  if (values.effort) fields.reasoning_effort = values.effort;
  return fields;
}

export async function modelName(values) {
  if (values.model) return values.model;
  return (await (await request("v1/models")).json()).data[0].id;
}

// `focus`: the name of the field to begin with.
export function openSettings(dialog, focus = "model") {
  const values = settings();
  const inputs = {};
  const field = (name, label, input) => {
    input.name = name;
    inputs[name] = input;
    return el("label", {}, label, " ", input);
  };
  const rows = FIELDS.map(([name, label, type, attributes]) => {
    const input = type === "textarea" ? el("textarea", { rows: 3 }) : el("input", { type, placeholder: "the model's default", ...attributes });
    input.value = values[name] ?? "";
    return field(name, label, input);
  });
  const effort = el("select", {}, ...EFFORTS.map((value) => el("option", { value, selected: value === (values.effort ?? "") }, value || "the model's default")));
  const check = (name) => el("input", { type: "checkbox", checked: Boolean(values[name]) });
  const key = el("input", { type: "password", autocomplete: "off" });
  key.value = apiKey.get();
  const model = el("input", { placeholder: "the one that is served" });
  model.value = values.model ?? "";
  const close = () => dialog.close();
  const save = (event) => {
    event.preventDefault();
    const next = {};
    for (const [name, , type] of FIELDS) if (inputs[name].value !== "") next[name] = type === "number" ? Number(inputs[name].value) : inputs[name].value;
    next.model = model.value.trim();
    next.effort = effort.value;
    next.tools = inputs.tools.checked;
    next.drafts = inputs.drafts.checked;
    kept = next;
    try {
      localStorage.setItem(KEY, JSON.stringify(next));
    } catch {
      // storage is forbidden: they last as long as the page
    }
    apiKey.set(key.value.trim());
    close();
  };
  const [system, ...numbers] = rows;
  dialog.replaceChildren(el("form", { onsubmit: save }, el("h2", {}, "Settings"),
    field("key", "API key (kept until this tab is closed)", key), field("model", "Model", model), system,
    el("div", { class: "pairs" }, ...numbers, field("effort", "Thinking", effort)),
    field("tools", "Demo tools (weather is made up, time and sums are real)", check("tools")),
    field("drafts", "Tint text that came from accepted drafts", check("drafts")),
    el("div", { class: "row" }, el("button", { class: "primary" }, "Save"), el("button", { type: "button", onclick: close }, "Cancel"))));
  dialog.showModal();
  inputs[focus].focus();
}
