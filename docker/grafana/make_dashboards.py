"""Write Grafana's dashboards beside this file; its tables are what they show."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "dashboards"
COLUMNS = 24  # of Grafana's grid
PANEL_WIDTH, PANEL_HEIGHT = 12, 8
SCOPE = 'model_name=~"$model",instance=~"$instance"'
RATE = "$__rate_interval"
SOURCE = {"type": "prometheus", "uid": "${source}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        unit: as Grafana names units.
        queries: legend -> PromQL; `{{...}}` in a legend is a label.
        help: what to read off it.
    """

    title: str
    unit: str
    queries: dict[str, str]
    help: str


def rate(name: str, by: str = "") -> str:
    """A counter's increase a second, over all that is in scope."""
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (rate(leadline:{name}{{{SCOPE}}}[{RATE}]))"


def gauge(name: str, by: str = "") -> str:
    """A gauge, added up over all that is in scope."""
    total = f"sum by ({by})" if by else "sum"
    return f"{total} (leadline:{name}{{{SCOPE}}})"


def worst(name: str) -> str:
    """The highest value of a gauge in scope."""
    return f"max (leadline:{name}{{{SCOPE}}})"


def quantiles(name: str) -> dict[str, str]:
    """p50, p90 and p99 of a histogram."""
    buckets = f"sum by (le) (rate(leadline:{name}_bucket{{{SCOPE}}}[{RATE}]))"
    return {f"p{q}": f"histogram_quantile(0.{q}, {buckets})" for q in (50, 90, 99)}


def share(part: str, whole: str) -> str:
    """One counter over another."""
    return f"{rate(part)} / {rate(whole)}"


SERVICE = [
    Panel(
        "Requests",
        "reqps",
        {"{{finished_reason}}": rate("request_success_total", "finished_reason")},
        "Choices that ended, by finish reason; error and abort should be rare.",
    ),
    Panel(
        "HTTP answers",
        "reqps",
        {"{{status}}": rate("http_requests_total", "status")},
        "5xx is ours, 4xx the clients'.",
    ),
    Panel(
        "Tokens",
        "short",
        {
            "prompt": rate("prompt_tokens_total"),
            "prompt, cached": rate("prompt_tokens_cached_total"),
            "generated": rate("generation_tokens_total"),
        },
        "Tokens a second.",
    ),
    Panel(
        "In the engine",
        "short",
        {"running": gauge("num_requests_running"), "waiting": gauge("num_requests_waiting")},
        "A queue that does not empty means that the server is too small.",
    ),
    Panel(
        "Time to first token",
        "s",
        quantiles("time_to_first_token_seconds"),
        "From arrival; the queue and the prompt are in it.",
    ),
    Panel(
        "Time between tokens",
        "s",
        quantiles("inter_token_latency_seconds"),
        "What a reader sees.",
    ),
    Panel(
        "Queue time",
        "s",
        quantiles("request_queue_time_seconds"),
        "Rises before anything else does when the server is too small.",
    ),
    Panel("Whole request", "s", quantiles("e2e_request_latency_seconds"), "From arrival to end."),
    Panel(
        "Prompt length",
        "short",
        quantiles("request_prompt_tokens"),
        "Tokens of a prompt.",
    ),
    Panel(
        "Answer length",
        "short",
        quantiles("request_generation_tokens"),
        "Tokens of a choice.",
    ),
    Panel(
        "Refused",
        "reqps",
        {"{{reason}}": rate("admission_rejections_total", "reason")},
        "Answered 429 because too much waited already.",
    ),
]
ENGINE = [
    Panel("Step time", "s", quantiles("step_time_seconds"), "What the executor took for a step."),
    Panel(
        "Tokens a step",
        "short",
        quantiles("iteration_tokens_total"),
        "Verified drafts are in it.",
    ),
    Panel(
        "Cache usage",
        "percentunit",
        {"pages in use": worst("kv_cache_usage_perc")},
        "Pages of running requests; at 1, requests wait or are preempted.",
    ),
    Panel(
        "Cached pages",
        "short",
        {"listed": gauge("num_cached_pages"), "evicted/s": rate("prefix_cache_evictions_total")},
        "What the prefix cache could find, and what it had to give up.",
    ),
    Panel(
        "Prefix cache hit rate",
        "percentunit",
        {
            "pages": share("prefix_cache_hits_total", "prefix_cache_queries_total"),
            "host memory": share(
                "external_prefix_cache_hits_total", "external_prefix_cache_queries_total"
            ),
        },
        "Falls when prompts stop to share their beginnings.",
    ),
    Panel(
        "Preemptions",
        "short",
        {"a second": rate("num_preemptions_total")},
        "Requests put back for want of pages: the cache is too small.",
    ),
    Panel(
        "Idle time of a page before it is given away",
        "s",
        quantiles("kv_block_idle_before_evict_seconds"),
        "Where it is below the pause between a chat's turns, hits are lost.",
    ),
    Panel(
        "Grammar compilation",
        "s",
        quantiles("grammar_compilation_time_seconds"),
        "For structured output; compiled ones are kept.",
    ),
    Panel(
        "Faults",
        "short",
        {
            "corrupted requests": rate("corrupted_requests_total"),
            "corrupted pages": rate("corrupted_pages_total"),
            "lost host pages": rate("host_pages_lost_total"),
        },
        "Anything but zero is a reason to look at the machine.",
    ),
]
SPECULATION = [
    Panel(
        "Acceptance",
        "percentunit",
        {
            "of drafted tokens": share(
                "spec_decode_num_accepted_tokens_total", "spec_decode_num_draft_tokens_total"
            )
        },
        "Share of drafted tokens that were accepted.",
    ),
    Panel(
        "Acceptance length",
        "short",
        {
            "tokens": f"1 + {rate('spec_decode_num_accepted_tokens_total')}"
            f" / {rate('spec_decode_num_drafts_total')}"
        },
        "Tokens a verified step yields a request, the target's own one included.",
    ),
    Panel(
        "Acceptance by position",
        "percentunit",
        {
            "position {{position}}": rate(
                "spec_decode_num_accepted_tokens_per_pos_total", "position"
            )
            + f" / on () group_left () {rate('spec_decode_num_drafts_total')}"
        },
        "Accepted at a position, of all drafts; later positions are reached less often.",
    ),
    Panel(
        "Drafts",
        "short",
        {
            "drafts": rate("spec_decode_num_drafts_total"),
            "drafted tokens": rate("spec_decode_num_draft_tokens_total"),
            "accepted tokens": rate("spec_decode_num_accepted_tokens_total"),
        },
        "A second.",
    ),
    Panel("Draft depth", "short", quantiles("draft_depth"), "Chosen for a step by what it gains."),
]
DASHBOARDS = {"service": SERVICE, "engine": ENGINE, "speculation": SPECULATION}


def variable(name: str, label: str) -> dict[str, Any]:
    """A choice above the graphs, with the values of a label."""
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values(leadline:num_requests_running, {label})", "refId": name},
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def panel_json(panel: Panel, index: int) -> dict[str, Any]:
    """A panel at its place in the grid."""
    per_row = COLUMNS // PANEL_WIDTH
    targets = [
        {"refId": chr(ord("A") + i), "expr": query, "legendFormat": legend, "datasource": SOURCE}
        for i, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": index + 1,
        "title": panel.title,
        "description": panel.help,
        "type": "timeseries",
        "datasource": SOURCE,
        "targets": targets,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list"}, "tooltip": {"mode": "multi"}},
        "gridPos": {
            "x": index % per_row * PANEL_WIDTH,
            "y": index // per_row * PANEL_HEIGHT,
            "w": PANEL_WIDTH,
            "h": PANEL_HEIGHT,
        },
    }


def dashboard(name: str, panels: list[Panel]) -> dict[str, Any]:
    """What Grafana reads."""
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": f"leadline-{name}",
        "title": f"Leadline: {name}",
        "tags": ["leadline"],
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [source, variable("model", "model_name"), variable("instance", "instance")]
        },
        "links": [
            {"type": "dashboards", "tags": ["leadline"], "title": "Leadline", "keepTime": True}
        ],
        "panels": [panel_json(panel, index) for index, panel in enumerate(panels)],
    }


def written(name: str) -> str:
    """The text of a dashboard's file."""
    return json.dumps(dashboard(name, DASHBOARDS[name]), indent=1) + "\n"


if __name__ == "__main__":
    for title in DASHBOARDS:
        (FOLDER / f"{title}.json").write_text(written(title))
