"""`GET /dashboard.json`: what the page's dashboard draws, as of now."""

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from leadline.engine.errors import EngineDeadError
from leadline.engine.page_pool import PageState
from leadline.engine.survey import EngineSurvey
from leadline.server.health import Health
from leadline.server.state import ServerState
from leadline.server.version import version

MAX_CELLS = 4096
_LATENCIES = {
    "ttft": "time_to_first_token_seconds",
    "itl": "inter_token_latency_seconds",
    "e2e": "e2e_request_latency_seconds",
}
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
        "latency": {key: _histogram(state, name) for key, name in _LATENCIES.items()},
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


def _histogram(state: ServerState, name: str) -> dict[str, Any]:
    """Cumulative counts up to each bound, as /metrics has them; the last is for all."""
    buckets = state.metrics.buckets(name)
    return {"bounds_s": [bound for bound, _ in buckets[:-1]], "counts": [n for _, n in buckets]}
