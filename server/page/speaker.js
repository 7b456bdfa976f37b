// Tells a screen reader what comes: whole sentences, or what there is when the text pauses.

const PAUSE_MS = 1500;
const MAX_KEPT = 30;

export class Speaker {
  constructor(region) {
    this.region = region;
    this.timer = 0;
    this.begin();
  }

  begin() {
    clearTimeout(this.timer);
    this.said = 0;
    this.text = "";
  }

  // `text`: all of the answer so far.
  hear(text) {
    this.text = text;
    const ends = [...text.slice(this.said).matchAll(/[.!?:](?=\s)|\n/g)];
    if (ends.length) this.say(this.said + ends.at(-1).index + 1);
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.finish(), PAUSE_MS);
  }

  finish() {
    clearTimeout(this.timer);
    this.say(this.text.length);
  }

  say(end) {
    const words = this.text.slice(this.said, end).replace(/[`*#|]+/g, "").trim();
    this.said = end;
    if (!words) return;
    const line = document.createElement("p");
    line.textContent = words;
    this.region.append(line);
    while (this.region.children.length > MAX_KEPT) this.region.firstChild.remove();
  }
}
