// The dashboard: asks every second while it is seen.
import { request } from "./api.js";
import { el } from "./dom.js";
import { bars, heatMap, pageMap } from "./pictures.js";
import { percentile } from "./percentile.js";
import { Panels } from "./panels.js";

const EVERY_MS = 1000;
const MAX_SAMPLES = 60;
const LATENCIES = [["ttft", "Time to first token"], ["itl", "Between tokens"], ["e2e", "Whole answer"]];

export function dashboardView(main, openSettings) {
  const status = el("p", { id: "status", role: "status" }, "Asking the server");
  const grid = el("div", { class: "grid" });
  const panels = new Panels(grid);
  main.append(el("div", { class: "title" }, el("h1", {}, "Dashboard"), status), grid);
  const enter = el("button", { type: "button", hidden: true, onclick: () => openSettings("key") }, "Enter the key");
  status.after(enter);
  const samples = [];
  let timer = 0;

  function tell(text, isWell) {
    status.className = isWell ? "pill ok" : "pill bad";
    if (status.textContent !== text) status.textContent = text;
  }

  function draw(now) {
    samples.push({ at: performance.now(), ...now });
    if (samples.length > MAX_SAMPLES) samples.shift();
    const last = samples.at(-2) ?? samples[0];
    const seconds = (samples.at(-1).at - last.at) / 1000;
    const rate = (name) => (seconds ? Math.max(0, (now.stats[name] - last.stats[name]) / seconds) : 0);
    drawLines(now.stats, last.stats, rate);
    for (const [key, name] of LATENCIES) panels.facts(name, latency(now, key));
    drawTotals(now.stats);
    if (now.engine) drawEngine(now.engine);
  }

  function drawLines(stats, last, rate) {
    for (const [name, label] of [["generation_tokens", "Output tokens/s"], ["prompt_tokens", "Prompt tokens/s"]]) {
      panels.line(label, rate(name), rate(name).toFixed(1), `${count(stats[name])} in all`);
    }
    panels.line("Running", stats.num_running, stats.num_running, "requests");
    panels.line("Waiting", stats.num_waiting, stats.num_waiting, "requests");
    const steps = stats.num_steps - last.num_steps;
    const step = steps > 0 ? (stats.step_times[1] - last.step_times[1]) / steps : null;
    panels.line("Step time", step ?? 0, ms(step), `${count(stats.num_steps)} steps in all`);
    panels.line("Cache pages in use", stats.page_usage, percent(stats.page_usage), `${count(stats.num_preemptions)} preemptions`);
  }

  // Of the last minute, if anything was measured in it; else since the start.
  function latency(now, key) {
    const before = samples[0].latency[key];
    const isRecent = now.latency[key].counts.at(-1) > before.counts.at(-1);
    const facts = [0.5, 0.9, 0.99].map((share) => [`p${share * 100}`, ms(percentile(now.latency[key], share, isRecent ? before : null))]);
    const total = now.latency[key].counts.at(-1);
    return { facts, note: total ? (isRecent ? "last minute" : "since start") : "nothing measured yet" };
  }

  function drawTotals(stats) {
    panels.facts("Prefix cache", { facts: [["hits", share(stats.prefix_cache_hits, stats.prefix_cache_queries)]], note: `${count(stats.prefix_cache_hits)} of ${count(stats.prefix_cache_queries)} prompt tokens` });
    const accepted = stats.num_accepted_per_pos.reduce((sum, n) => sum + n, 0);
    const length = stats.num_drafts ? (1 + accepted / stats.num_drafts).toFixed(2) : "-";
    panels.facts("Acceptance length", { facts: [["tokens a step", length]], note: stats.num_drafts ? `${count(stats.num_drafts)} draft chains since start` : "nothing drafted yet" });
    panels.facts("Queue", { facts: [["tokens", "-"], ["draft depth", "-"]], note: "the engine does not answer" });
    const shares = stats.num_accepted_per_pos.map((n, i) => [`Draft ${i + 1}`, stats.num_drafts ? n / stats.num_drafts : 0]);
    panels.picture("Accepted by position", shares.length ? bars(shares) : ["Nothing drafted yet."], "half");
  }

  function drawEngine(engine) {
    const waits = engine.num_waiting_tokens ? `oldest waits ${engine.oldest_waiting_s.toFixed(1)} s` : "nothing waits";
    panels.facts("Queue", { facts: [["tokens", count(engine.num_waiting_tokens)], ["draft depth", engine.draft_depth ?? "off"]], note: waits });
    if (engine.experts.length) panels.picture("Expert load", heatMap(engine.experts), "half");
    panels.picture("Page map", pageMap(engine), "wide");
  }

  async function ask() {
    try {
      if (!document.hidden) {
        const now = await (await request("dashboard.json")).json();
        tell(`${now.model}: ${now.health.status} ${now.health.reason}`.trim(), now.health.status === "ok");
        enter.hidden = true;
        draw(now);
      }
    } catch (error) {
      tell(`${error.message} ${error.advice ?? ""}`, false);
      enter.hidden = error.status !== 401;
    }
    if (timer !== null) timer = setTimeout(ask, EVERY_MS);
  }

  ask();
  return () => {
    clearTimeout(timer);
    timer = null;
  };
}

function count(number) {
  return number.toLocaleString("en-US");
}

function percent(share) {
  return `${(share * 100).toFixed(share && share < 0.1 ? 1 : 0)} %`;
}

function ms(seconds) {
  if (seconds === null) return "-";
  return seconds < 1 ? `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

function share(part, whole) {
  return whole ? percent(part / whole) : "-";
}
