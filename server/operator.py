"""`/abort_requests`, `/pause`, `/sleep` and what undoes them: an operator's hold on the engine."""

from collections.abc import Awaitable
from typing import TypeVar

import msgspec
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leadline.engine.control import PauseMode
from leadline.engine.errors import EngineError
from leadline.server.errors import from_engine_error, invalid, unsupported
from leadline.server.requests import PlainFields, read_fields
from leadline.server.response_types import (
    Aborted,
    PauseAnswer,
    PauseState,
    SleepAnswer,
    SleepState,
)
from leadline.server.state import ServerState

MAX_IDS = 10_000
PAUSE_QUERY = {
    "mode": "of the requests that are there: abort (default) ends them, wait lets them finish, "
    "keep goes on with them after POST /resume",
    "wait_for_inflight_requests": "true: as mode=wait",
    "clear_cache": "true: forget all cached pages (default: false)",
}

SLEEP_QUERY = {
    "level": "1 (default): give up the cache's memory; 2: the weights' too, to be loaded again",
    "mode": "of the requests that are there: abort (default) ends them, wait lets them finish",
}

T = TypeVar("T")


class AbortFields(PlainFields):
    """Which requests: by the ids of their answers, or by their `X-Request-Id`; all by default."""

    request_ids: list[str] | None = Field(None, max_length=MAX_IDS)


def operator_routes() -> list[Route]:
    """The routes; all need the key for administration, where there is one."""
    return [
        Route("/abort_requests", abort_requests, methods=["POST"]),
        Route("/pause", pause, methods=["POST"]),
        Route("/resume", resume, methods=["POST"]),
        Route("/is_paused", is_paused),
        Route("/sleep", sleep, methods=["POST"]),
        Route("/wake_up", wake_up, methods=["POST"]),
        Route("/is_sleeping", is_sleeping),
    ]


async def abort_requests(request: Request) -> Response:
    """End requests at once, all of them if none is named."""
    state: ServerState = request.app.state.server
    fields, headers = await read_fields(request, AbortFields)
    aborted = await _done(state.engine.control.abort(fields.request_ids or None))
    return _json(Aborted(request_ids=aborted), headers)


async def pause(request: Request) -> Response:
    """Let the engine take no more steps; new requests wait until it is resumed."""
    state: ServerState = request.app.state.server
    mode, clears_cache = _mode(request), _flag(request, "clear_cache")
    has_paused = await _done(state.engine.control.pause(mode))
    if clears_cache:
        await _done(state.engine.reset_prefix_cache())
    return _json(PauseAnswer(status="paused" if has_paused else "resumed"))


async def resume(request: Request) -> Response:
    """Let the engine go on after a pause."""
    state: ServerState = request.app.state.server
    await _done(state.engine.control.resume())
    return _json(PauseAnswer(status="resumed"))


async def is_paused(request: Request) -> Response:
    """Whether the engine is paused."""
    state: ServerState = request.app.state.server
    return _json(PauseState(is_paused=state.engine.stats.is_paused))


async def sleep(request: Request) -> Response:
    """Pause the engine and give up its memory; requests get 503 until it is woken."""
    state: ServerState = request.app.state.server
    level, mode = request.query_params.get("level", "1"), _mode(request)
    if level not in ("1", "2"):
        raise invalid("level", f"'level' is {level[:40]!r}; allowed: 1, 2")
    if mode is PauseMode.KEEP:
        raise invalid("mode", "'mode' is 'keep'; allowed: abort, wait (pages are given up)")
    freed_bytes = await _done(state.engine.control.sleep(int(level), mode))
    if freed_bytes is None:
        return _json(SleepAnswer(status="awake"))
    return _json(SleepAnswer(status="asleep", freed_bytes=freed_bytes))


async def wake_up(request: Request) -> Response:
    """Take the memory back and go on."""
    state: ServerState = request.app.state.server
    if "tags" in request.query_params:
        raise unsupported("tags", "leave it out; everything wakes up together")
    await _done(state.engine.control.wake_up())
    return _json(SleepAnswer(status="awake"))


async def is_sleeping(request: Request) -> Response:
    """Whether the engine sleeps, and how deeply."""
    state: ServerState = request.app.state.server
    level = state.engine.stats.sleep_level
    return _json(SleepState(is_sleeping=level > 0, level=level))


def _mode(request: Request) -> PauseMode:
    waits = _flag(request, "wait_for_inflight_requests")
    text = request.query_params.get("mode", "wait" if waits else "abort")
    if text not in list(PauseMode):
        modes = ", ".join(PauseMode)
        raise invalid("mode", f"'mode' is {text[:40]!r}; allowed: {modes}")
    if waits and text != PauseMode.WAIT:
        raise invalid("mode", f"'mode' is {text!r}; leave 'wait_for_inflight_requests' out then")
    return PauseMode(text)


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "false").lower()
    if text not in ("true", "false", "1", "0"):
        raise invalid(name, f"{name!r} is {text[:40]!r}; allowed: true, false")
    return text in ("true", "1")


async def _done(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except EngineError as error:
        raise from_engine_error(error) from error


def _json(content: msgspec.Struct, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), headers=headers, media_type="application/json")
