// A text with a letter of tint for each character; both are cut and joined together.
import { el } from "./dom.js";

export class Marked {
  // `tint` is empty where nothing is tinted.
  constructor(text, tint = "") {
    this.text = text;
    this.tint = tint;
  }

  slice(begin, end) {
    return new Marked(this.text.slice(begin, end), this.tint.slice(begin, end));
  }

  trim() {
    const begin = this.text.length - this.text.trimStart().length;
    return this.slice(begin, Math.max(begin, this.text.trimEnd().length));
  }

  lines() {
    let at = 0;
    return this.text.split("\n").map((line) => this.slice(at, (at += line.length + 1) - 1));
  }

  equals(other) {
    return this.text === other.text && this.tint === other.tint;
  }

  // Text, and spans of accepted drafts.
  nodes() {
    if (!this.tint.includes("d")) return this.text ? [this.text] : [];
    return [...this.tint.matchAll(/d+|[^d]+/g)].map((run) => {
      const part = this.text.slice(run.index, run.index + run[0].length);
      return run[0][0] === "d" ? el("span", { class: "draft" }, part) : part;
    });
  }
}

export function join(parts, separator = "\n") {
  const isTinted = parts.some((part) => part.tint);
  const tints = parts.map((part) => part.tint.padEnd(part.text.length, "."));
  return new Marked(parts.map((part) => part.text).join(separator), isTinted ? tints.join(separator.replace(/[^]/g, ".")) : "");
}
