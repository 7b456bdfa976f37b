// Pictures of the dashboard, each with its legend and the same in words.
import { el } from "./dom.js";

const PAGES = [["u", "used", "#3f74e0"], ["s", "used and cached", "#1f9d6b"], ["c", "cached", "#e0a83c"], [".", "free", "#8c96a333"]];
const HEAT = ["#eef3fd", "#bcd0f7", "#86a8ef", "#4d7ce2", "#2450b0", "#14306e"];
const MAX_CELL_PX = 28;

export function bars(shares) {
  const row = ([label, share]) => {
    const meter = el("div", { class: "bar", "aria-hidden": "true" }, el("div"));
    meter.firstChild.style.width = `${100 * share}%`;
    return el("div", { class: "bar-row" }, el("span", {}, label), meter, el("span", { class: "share" }, `${Math.round(100 * share)} %`));
  };
  return shares.map(row);
}

export function pageMap(engine) {
  const width = Math.max(32, Math.ceil(Math.sqrt(engine.pages.length * (innerWidth / 100))));
  const rows = engine.pages.match(new RegExp(`.{1,${width}}`, "g")) ?? [];
  const colors = Object.fromEntries(PAGES.map(([letter, , color]) => [letter, color]));
  const counts = PAGES.map(([letter, name, color]) => [engine.pages.split(letter).length - 1, name, color]);
  const words = counts.map(([n, name]) => `${n} ${name}`).join(", ");
  const legend = counts.map(([n, name, color]) => swatch(color, `${n} ${name}`));
  const each = engine.pages_per_cell === 1 ? "a cell a page" : `a cell is ${engine.pages_per_cell} pages and shows what most of them are`;
  return [canvas(rows, (letter) => colors[letter], `Page map: ${words}`),
    el("div", { class: "legend" }, ...legend, el("span", {}, `${engine.num_pages} pages of ${engine.page_size} tokens; ${each}`))];
}

export function heatMap(layers) {
  const evenShare = (counts) => Math.max(1, counts.reduce((a, b) => a + b, 0)) / counts.length;
  const color = (n, counts) => HEAT[Math.min(HEAT.length - 1, Math.floor((n / evenShare(counts)) * 2))];
  const worst = Math.max(...layers.map(({ counts }) => Math.max(...counts) / evenShare(counts)));
  const size = `${layers.length} layers (rows) of ${layers[0].counts.length} experts (columns) since start`;
  const words = `${size}; the busiest expert has ${worst.toFixed(1)} times its even share`;
  const scale = HEAT.map((color, i) => swatch(color, i === HEAT.length - 1 ? `${i / 2}x and more` : `${i / 2}x`));
  return [canvas(layers.map(({ counts }) => counts), color, `Expert load: ${words}`),
    el("div", { class: "legend" }, el("span", {}, "Of an even share:"), ...scale), el("div", { class: "note" }, words)];
}

function swatch(color, text) {
  const box = el("i");
  box.style.background = color;
  return el("span", { class: "swatch" }, box, text);
}

function canvas(rows, color, words) {
  const node = el("canvas", { role: "img", "aria-label": words });
  node.width = Math.max(1, ...rows.map((row) => row.length));
  node.height = rows.length;
  node.style.maxWidth = `${node.width * MAX_CELL_PX}px`;
  const context = node.getContext("2d");
  rows.forEach((row, y) => [...row].forEach((cell, x) => {
    context.fillStyle = color(cell, row);
    context.fillRect(x, y, 1, 1);
  }));
  return node;
}
