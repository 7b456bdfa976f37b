"""`GET /dashboard.json`: what the page's dashboard draws, as of now."""

import asyncio
from typing import Any

import msgspec
from prometheus_client import Histogram
from starlette.requests import Request
from starlette.responses import Response

from leadline.engine.errors import EngineDeadError
from leadline.engine.page_pool import PageState
from leadline.engine.survey import EngineSurvey
from leadline.server.health import Health
from leadline.server.state import ServerState
from leadline.server.version import version

MAX_CELLS = 4096
_SURVEY_S = 1.0  # an engine deep in a step answers after it
_LETTERS = bytes.maketrans(
    bytes([0, PageState.CACHED, PageState.REFERENCED, PageState.CACHED | PageState.REFERENCED]),
    b".cus",
)


async def dashboard(request: Request) -> Response:
    """Counters since start and gauges of now; rates and percentiles are the reader's to make."""
    state: ServerState = request.app.state.server
    health: Health = request.app.state.health
    condition, stats = health.condition(), state.engine.stats
    body = {
        "version": version(),
        "model": state.model_names[0],
        "max_model_len": state.max_model_len,
        "health": {"status": condition.status, "reason": condition.reason},
        "stats": stats,
        "latency": {
            "ttft": _histogram(state.metrics.time_to_first_token),
            "itl": _histogram(state.metrics.inter_token_latency),
            "e2e": _histogram(state.metrics.e2e_request_latency),
        },
        "engine": _engine(await _survey(state)),
    }
    headers = {"cache-control": "no-store"}
    return Response(msgspec.json.encode(body), headers=headers, media_type="application/json")


async def _survey(state: ServerState) -> EngineSurvey | None:
    try:
        return await asyncio.wait_for(state.engine.survey(), _SURVEY_S)
    except (EngineDeadError, TimeoutError):
        return None


def _engine(survey: EngineSurvey | None) -> dict[str, Any] | None:
    """What the engine tells beside its stats; None if it does not answer."""
    if survey is None:
        return None
    cells, pages_per_cell = page_map(survey.pages)
    return {
        "page_size": survey.page_size,
        "num_pages": len(survey.pages),
        "pages": cells,
        "pages_per_cell": pages_per_cell,
        "num_waiting_tokens": survey.num_waiting_tokens,
        "oldest_waiting_s": survey.oldest_waiting_s,
        "draft_depth": survey.draft_depth,
        "experts": [
            {"layer": load.layer, "is_mtp": load.is_mtp, "counts": load.counts}
            for load in survey.expert_load
        ],
    }


def page_map(states: bytes) -> tuple[str, int]:
    """A letter for so many pages: free (.), cached (c), used (u), used and cached (s).

    Where pages share a cell, it shows the state that most of them have.
    """
    letters = states.translate(_LETTERS).decode()
    pages_per_cell = max(1, -(-len(letters) // MAX_CELLS))
    groups = (letters[i : i + pages_per_cell] for i in range(0, len(letters), pages_per_cell))
    return "".join(max(group, key=group.count) for group in groups), pages_per_cell


def _histogram(histogram: Histogram) -> dict[str, Any]:
    """Cumulative counts up to each bound, as /metrics has them; the last is for all."""
    [metric] = histogram.collect()
    buckets = [sample for sample in metric.samples if sample.name.endswith("_bucket")]
    return {
        "bounds_s": [float(sample.labels["le"]) for sample in buckets[:-1]],
        "counts": [int(sample.value) for sample in buckets],
    }
