// A small part of markdown as elements; whatever is not known stays text.
import { copyButton, el } from "./dom.js";

const INLINE = /(`+)([^]*?[^`])\1(?!`)|\[([^\]\n]+)\]\(([^)\s]+)\)|\*\*([^]+?)\*\*|\*([^*\s](?:[^*\n]*[^*\s])?)\*/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)+\|?\s*$/;

export function inline(text) {
  const nodes = [];
  for (let match; (match = INLINE.exec(text)); text = text.slice(match.index + match[0].length)) {
    if (match.index) nodes.push(text.slice(0, match.index));
    if (match[2] !== undefined) nodes.push(el("code", {}, match[2].trim()));
    else if (match[3] !== undefined) nodes.push(link(match[3], match[4]));
    else if (match[5] !== undefined) nodes.push(el("strong", {}, ...inline(match[5])));
    else nodes.push(el("em", {}, ...inline(match[6])));
  }
  if (text) nodes.push(text);
  return nodes;
}

function link(text, target) {
  if (!/^https?:\/\//i.test(target)) return `[${text}](${target})`;
  return el("a", { href: target, rel: "noopener noreferrer", target: "_blank" }, text);
}

export function markdown(source) {
  const lines = source.split("\n");
  const nodes = [];
  for (let i = 0; i < lines.length; ) {
    const begin = i;
    const fence = /^\s*(`{3,}|~{3,})\s*([\w+-]*)/.exec(lines[i]);
    if (fence) {
      while (++i < lines.length && !lines[i].trim().startsWith(fence[1]));
      nodes.push(codeBlock(lines.slice(begin + 1, i).join("\n"), fence[2]));
      i += 1;
    } else if (/^#{1,6}\s/.test(lines[i])) {
      const level = Math.min(3, /^#+/.exec(lines[i])[0].length);
      nodes.push(el(`h${level + 1}`, {}, ...inline(lines[i++].replace(/^#+\s+/, ""))));
    } else if (lines[i].includes("|") && RULE.test(lines[i + 1] ?? "")) {
      i += 2;
      while (i < lines.length && lines[i].includes("|")) i += 1;
      nodes.push(table(lines.slice(begin, i)));
    } else if (ITEM.test(lines[i])) {
      while (i < lines.length && (ITEM.test(lines[i]) || /^\s+\S/.test(lines[i]))) i += 1;
      nodes.push(list(lines.slice(begin, i)));
    } else if (/^>\s?/.test(lines[i])) {
      while (i < lines.length && /^>\s?/.test(lines[i])) i += 1;
      const quoted = lines.slice(begin, i).map((line) => line.replace(/^>\s?/, ""));
      nodes.push(el("blockquote", {}, el("p", {}, ...inline(quoted.join("\n")))));
    } else if (!lines[i].trim()) {
      i += 1;
    } else {
      do i += 1;
      while (i < lines.length && lines[i].trim() && !/^(\s*(`{3}|~{3})|#{1,6}\s|>)/.test(lines[i]) && !ITEM.test(lines[i]));
      nodes.push(el("p", {}, ...inline(lines.slice(begin, i).join("\n"))));
    }
  }
  return nodes;
}

function codeBlock(code, language) {
  const bar = el("div", { class: "code-bar" }, language || "code", copyButton(code));
  return el("div", {}, bar, el("pre", { tabindex: "0" }, el("code", {}, code)));
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const row = (line, tag) => el("tr", {}, ...cells(line).map((cell) => el(tag, {}, ...inline(cell))));
  const body = lines.slice(2).map((line) => row(line, "td"));
  return el("table", {}, el("thead", {}, row(lines[0], "th")), el("tbody", {}, ...body));
}

function list(lines) {
  const [, indent, mark] = ITEM.exec(lines[0]);
  const node = el(/\d/.test(mark) ? "ol" : "ul", /\d/.test(mark) ? { start: parseInt(mark, 10) } : {});
  for (let i = 0; i < lines.length; ) {
    const item = ITEM.exec(lines[i++]);
    const inner = [];
    while (i < lines.length && !(ITEM.test(lines[i]) && ITEM.exec(lines[i])[1].length <= indent.length)) inner.push(lines[i++]);
    const rest = ITEM.test(inner[0] ?? "") ? [list(inner)] : inner.length ? inline(` ${inner.map((line) => line.trim()).join(" ")}`) : [];
    node.append(el("li", {}, ...inline(item[3]), ...rest));
  }
  return node;
}
