// The dashboard: asks every second while it is seen.
import { request } from "./api.js";
import { el } from "./dom.js";
import { percentile } from "./percentile.js";

const EVERY_MS = 1000;
const NUM_POINTS = 120;
const PAGES = { ".": "#9aa3ad", c: "#d9a441", u: "#3b6fd4", s: "#2e9e5b" };

export function dashboardView(main) {
  const grid = el("div", { class: "grid" });
  const status = el("p", { id: "status" }, "Asking the server.");
  main.append(el("h1", { class: "hidden" }, "Dashboard"), status, grid);
  const panels = new Map();
  const samples = [];
  let timer = 0;

  function panel(name, number, value = null) {
    if (!panels.has(name)) {
      const line = document.createElementNS("http://www.w3.org/2000/svg", "polyline");
      const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      svg.setAttribute("viewBox", `0 0 ${NUM_POINTS} 50`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true"); // the number says it
      svg.append(line);
      const text = el("div", { class: "number" });
      grid.append(el("section", { class: "panel", "aria-label": name }, el("h2", {}, name), text, value === null ? null : svg));
      panels.set(name, { text, line, values: [] });
    }
    const { text, line, values } = panels.get(name);
    text.textContent = number;
    if (value === null) return;
    values.push(value);
    if (values.length > NUM_POINTS) values.shift();
    const top = Math.max(...values, 1e-9);
    line.setAttribute("points", values.map((v, i) => `${i},${48 - (46 * v) / top}`).join(" "));
  }

  function picture(name, rows, color, text) {
    if (!panels.has(name)) {
      const canvas = el("canvas", { role: "img" });
      const caption = el("div", { class: "meta" });
      grid.append(el("section", { class: "panel wide", "aria-label": name }, el("h2", {}, name), canvas, caption));
      panels.set(name, { canvas, caption });
    }
    const { canvas, caption } = panels.get(name);
    canvas.width = Math.max(...rows.map((row) => row.length));
    canvas.height = rows.length;
    canvas.setAttribute("aria-label", text);
    caption.textContent = text;
    const context = canvas.getContext("2d");
    rows.forEach((row, y) => [...row].forEach((cell, x) => {
      context.fillStyle = color(cell, row);
      context.fillRect(x, y, 1, 1);
    }));
  }

  function draw(now) {
    samples.push({ at: performance.now(), ...now });
    if (samples.length > 60) samples.shift();
    const last = samples.at(-2) ?? samples[0];
    const seconds = (samples.at(-1).at - last.at) / 1000;
    const rate = (name) => (seconds ? (now.stats[name] - last.stats[name]) / seconds : 0);
    const { stats } = now;
    panel("Output tokens/s", rate("generation_tokens").toFixed(1), rate("generation_tokens"));
    panel("Prompt tokens/s", rate("prompt_tokens").toFixed(1), rate("prompt_tokens"));
    panel("Running", stats.num_running, stats.num_running);
    panel("Waiting", stats.num_waiting, stats.num_waiting);
    for (const [key, name] of [["ttft", "First token"], ["itl", "Between tokens"], ["e2e", "Whole answer"]]) {
      const before = samples.length > 1 ? samples[0].latency[key] : null;
      const recent = before && now.latency[key].counts.at(-1) > before.counts.at(-1) ? before : null;
      const [p50, p90, p99] = [0.5, 0.9, 0.99].map((share) => ms(percentile(now.latency[key], share, recent)));
      panel(`${name}, p50 / p90 / p99`, `${p50} / ${p90} / ${p99}`);
    }
    panel("Pages in use", `${(stats.page_usage * 100).toFixed(1)} %`, stats.page_usage);
    panel("Prefix cache hits", share(stats.prefix_cache_hits, stats.prefix_cache_queries));
    const accepted = stats.num_accepted_per_pos.reduce((sum, count) => sum + count, 0);
    panel("Acceptance length", stats.num_drafts ? (1 + accepted / stats.num_drafts).toFixed(2) : "no drafts");
    panel("Accepted by position", stats.num_accepted_per_pos.map((count) => share(count, stats.num_drafts)).join(", ") || "no drafts");
    const steps = stats.num_steps - last.stats.num_steps;
    const step = steps ? (stats.step_times[1] - last.stats.step_times[1]) / steps : null;
    panel("Step time", ms(step), step ?? 0);
    panel("Preemptions", stats.num_preemptions);
    if (now.engine) drawEngine(now.engine);
  }

  function drawEngine(engine) {
    panel("Draft depth", engine.draft_depth ?? "off");
    panel("Waiting tokens, oldest", `${engine.num_waiting_tokens}, ${engine.oldest_waiting_s.toFixed(1)} s`);
    const width = Math.max(16, Math.ceil(Math.sqrt(engine.pages.length * 6)));
    const rows = engine.pages.match(new RegExp(`.{1,${width}}`, "g"));
    const count = (letter) => engine.pages.split(letter).length - 1;
    picture("Page map", rows, (letter) => PAGES[letter], `${count("u")} used (blue), ${count("s")} used and cached (green), ` +
      `${count("c")} cached (amber), ${count(".")} free (grey); ${engine.pages_per_cell} pages a cell, ${engine.num_pages} in all`);
    if (!engine.experts.length) return;
    const hottest = (counts) => Math.max(...counts, 1);
    const worst = Math.max(...engine.experts.map(({ counts }) => (hottest(counts) * counts.length) / Math.max(1, counts.reduce((a, b) => a + b))));
    picture("Expert load: a row a layer, a column an expert", engine.experts.map(({ counts }) => counts),
      (value, row) => `hsl(217 65% ${92 - (67 * value) / hottest(row)}%)`,
      `${engine.experts.length} layers of ${engine.experts[0].counts.length} experts since start; the busiest expert has ${worst.toFixed(1)} times its even share`);
  }

  async function ask() {
    try {
      if (!document.hidden) {
        const now = await (await request("dashboard.json")).json();
        status.className = now.health.status === "ok" ? "ok" : "bad";
        status.textContent = `${now.model}: ${now.health.status} ${now.health.reason}`;
        draw(now);
      }
    } catch (error) {
      status.className = "bad";
      status.textContent = `${error.message} ${error.advice ?? ""}`;
    }
    if (timer !== null) timer = setTimeout(ask, EVERY_MS);
  }

  ask();
  return () => {
    clearTimeout(timer);
    timer = null;
  };
}

function ms(seconds) {
  return seconds === null ? "-" : `${(seconds * 1000).toFixed(seconds < 0.1 ? 1 : 0)} ms`;
}

function share(part, whole) {
  return whole ? `${Math.round((100 * part) / whole)} %` : "-";
}
