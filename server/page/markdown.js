// A small part of markdown as elements; whatever is not known stays text.
import { copyButton, el } from "./dom.js";
import { join } from "./marked.js";

const INLINE = /(`+)([^]*?[^`])\1(?!`)|\[([^\]\n]+)\]\(([^)\s]+)\)|\*\*([^]+?)\*\*|\*([^*\s](?:[^*\n]*[^*\s])?)\*/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/;
const FENCE = /^\s*(`{3,}|~{3,})\s*([\w+-]*)/;
const HEADING = /^#{1,6}\s/;
const QUOTE = /^>\s?/;

// Shows a growing text in `parent`; blocks that have not changed keep their nodes.
export class MarkdownView {
  constructor(parent) {
    this.parent = parent;
    this.shown = [];
  }

  update(marked) {
    const next = blocks(marked.lines());
    let same = 0;
    while (same < next.length && same < this.shown.length && next[same].equals(this.shown[same])) same += 1;
    while (this.parent.childNodes.length > same) this.parent.lastChild.remove();
    this.parent.append(...next.slice(same).map(blockNode));
    this.shown = next;
  }
}

// Where each block ends is told by its lines; a block becomes one node.
function blocks(lines) {
  const found = [];
  const texts = lines.map((line) => line.text);
  for (let i = 0; i < lines.length; ) {
    const begin = i;
    i = endOfBlock(texts, i);
    const block = join(lines.slice(begin, i));
    if (block.text.trim()) found.push(block);
  }
  return found;
}

function endOfBlock(lines, begin) {
  let i = begin + 1;
  const fence = FENCE.exec(lines[begin]);
  const while_ = (test) => {
    while (i < lines.length && test(lines[i])) i += 1;
    return i;
  };
  if (fence) return while_((line) => !line.trim().startsWith(fence[1])) + 1;
  if (HEADING.test(lines[begin]) || !lines[begin].trim()) return i;
  if (lines[begin].includes("|") && RULE.test(lines[i] ?? "")) return while_((line) => line.includes("|"));
  if (ITEM.test(lines[begin])) return while_((line) => ITEM.test(line) || /^\s+\S/.test(line));
  if (QUOTE.test(lines[begin])) return while_((line) => QUOTE.test(line));
  return while_((line) => line.trim() && ![FENCE, HEADING, QUOTE, ITEM].some((kind) => kind.test(line)));
}

function blockNode(block) {
  const lines = block.lines();
  const [{ text: first }] = lines;
  const fence = FENCE.exec(first);
  if (fence) return codeBlock(lines, fence);
  if (HEADING.test(first)) {
    const mark = /^(#+)\s+/.exec(first);
    return el(`h${Math.min(4, mark[1].length + 1)}`, {}, ...inline(lines[0].slice(mark[0].length)));
  }
  if (first.includes("|") && RULE.test(lines[1]?.text ?? "")) return table(lines);
  if (ITEM.test(first)) return list(lines);
  if (QUOTE.test(first)) {
    const quoted = lines.map((line) => line.slice(QUOTE.exec(line.text)[0].length));
    return el("blockquote", {}, el("p", {}, ...inline(join(quoted))));
  }
  return el("p", {}, ...inline(block));
}

function inline(marked) {
  const nodes = [];
  let rest = marked;
  for (let match; (match = INLINE.exec(rest.text)); rest = rest.slice(match.index + match[0].length)) {
    nodes.push(...rest.slice(0, match.index).nodes());
    const inner = (group, before) => rest.slice(match.index + before, match.index + before + match[group].length);
    if (match[2] !== undefined) nodes.push(el("code", {}, ...inner(2, match[1].length).trim().nodes()));
    else if (match[3] !== undefined) nodes.push(...link(rest.slice(match.index, match.index + match[0].length), inner(3, 1), match[4]));
    else if (match[5] !== undefined) nodes.push(el("strong", {}, ...inline(inner(5, 2))));
    else nodes.push(el("em", {}, ...inline(inner(6, 1))));
  }
  return nodes.concat(rest.nodes());
}

function link(whole, label, target) {
  if (!/^https?:\/\//i.test(target)) return whole.nodes();
  return [el("a", { href: target, rel: "noopener noreferrer", target: "_blank" }, ...label.nodes())];
}

function codeBlock(lines, fence) {
  const isClosed = lines.length > 1 && lines.at(-1).text.trim().startsWith(fence[1]);
  const code = join(lines.slice(1, isClosed ? -1 : undefined));
  const language = fence[2] || "code";
  return el("div", { class: "code" }, el("div", { class: "code-bar" }, el("span", {}, language), copyButton(code.text)),
    el("pre", { tabindex: "0", role: "region", "aria-label": `${language} block` }, el("code", {}, ...code.nodes())));
}

function table(lines) {
  const [head, , ...body] = lines.map(cells);
  const row = (cells, tag) => el("tr", {}, ...cells.map((cell) => el(tag, {}, ...inline(cell))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table" },
    el("table", {}, el("thead", {}, row(head, "th")), el("tbody", {}, ...body.map((cells) => row(cells, "td")))));
}

function cells(line) {
  const bare = line.trim();
  const begin = bare.text.startsWith("|") ? 1 : 0;
  const inner = bare.slice(begin, bare.text.endsWith("|") ? -1 : undefined);
  let at = 0;
  return inner.text.split("|").map((cell) => inner.slice(at, (at += cell.length + 1) - 1).trim());
}

function list(lines) {
  const [, indent, mark] = ITEM.exec(lines[0].text);
  const node = el(/\d/.test(mark) ? "ol" : "ul", /\d/.test(mark) ? { start: parseInt(mark, 10) } : {});
  for (let i = 0; i < lines.length; ) {
    const item = ITEM.exec(lines[i].text);
    const own = lines[i].slice(item[0].length - item[3].length);
    const inner = [];
    const isNext = (line) => ITEM.test(line.text) && ITEM.exec(line.text)[1].length <= indent.length;
    for (i += 1; i < lines.length && !isNext(lines[i]); i += 1) inner.push(lines[i]);
    const isList = inner.length && ITEM.test(inner[0].text);
    const text = isList ? own : join([own, ...inner.map((line) => line.trim())], " ");
    node.append(el("li", {}, ...inline(text), ...(isList ? [list(inner)] : [])));
  }
  return node;
}
