// The cards of the dashboard, made once and then kept up to date.
import { el } from "./dom.js";

const NUM_POINTS = 60;
const SVG = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

export class Panels {
  constructor(grid) {
    this.grid = grid;
    this.made = new Map();
  }

  get(name, kind, make) {
    if (!this.made.has(name)) {
      const parts = make();
      this.grid.append(el("section", { class: `panel ${kind}`, "aria-label": name }, el("h2", {}, name), ...parts.nodes));
      this.made.set(name, parts);
    }
    return this.made.get(name);
  }

  // A number, and a line of how it went.
  line(name, value, text, note) {
    const parts = this.get(name, "line", () => {
      const [number, under] = [el("div", { class: "number" }), el("div", { class: "note" })];
      const area = svg("polygon", { class: "area" });
      const line = svg("polyline", {});
      const graph = svg("svg", { viewBox: `0 0 ${NUM_POINTS - 1} 50`, preserveAspectRatio: "none", "aria-hidden": "true" }, area, line);
      return { nodes: [number, under, graph], number, under, area, line, values: [] };
    });
    parts.number.textContent = text;
    parts.under.textContent = note;
    parts.values.push(value);
    if (parts.values.length > NUM_POINTS) parts.values.shift();
    const top = Math.max(...parts.values, 1e-9);
    const first = NUM_POINTS - parts.values.length;
    const points = parts.values.map((v, i) => `${first + i},${(48 - (44 * v) / top).toFixed(1)}`).join(" ");
    parts.line.setAttribute("points", points);
    parts.area.setAttribute("points", `${first},50 ${points} ${NUM_POINTS - 1},50`);
  }

  // Some numbers with their names, on one line.
  facts(name, { facts, note }) {
    const parts = this.get(name, "facts", () => {
      const [list, under] = [el("dl"), el("div", { class: "note" })];
      return { nodes: [list, under], list, under };
    });
    parts.list.replaceChildren(...facts.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, String(value)))));
    parts.under.textContent = note;
  }

  picture(name, nodes, width) {
    const { body } = this.get(name, width, () => {
      const body = el("div");
      return { nodes: [body], body };
    });
    body.replaceChildren(...nodes);
  }
}
