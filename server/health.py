"""`/livez`, `/readyz` and `/health`: what the server knows, without asking the engine."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from leadline.engine.progress import Progress
from leadline.server.errors import ErrorFields, UnavailableError
from leadline.server.state import ServerState

Status = Literal[
    "ok", "loading", "draining", "restarting", "paused", "asleep", "stuck", "corrupt", "dead"
]

MAX_CORRUPTED = 16
"""So many requests in a row whose logits are not finite speak of the weights or the device."""

_CODES: dict[Status, str] = {
    "loading": "server_loading",
    "draining": "server_draining",
    "restarting": "engine_restarting",
    "paused": "engine_paused",
    "asleep": "engine_asleep",
    "stuck": "engine_stuck",
    "corrupt": "engine_corrupt",
    "dead": "engine_dead",
}


class Probe(TypedDict):
    """All is well."""

    status: Status


class ProbeRefusal(Probe):
    """No request can be admitted."""

    error: ErrorFields


class HealthReport(Probe):
    """How the server fares.

    Attributes:
        progress_age_s: seconds since the engine completed a step; null before it is ready.
    """

    progress_age_s: float | None


class HealthRefusal(HealthReport):
    """The server is not well; as `HealthReport`."""

    error: ErrorFields


@dataclass(frozen=True, slots=True, kw_only=True)
class StallLimits:
    """From when on an engine with work counts as stuck.

    Attributes:
        min_s: seconds without a completed step that are always allowed.
        step_factor: so many times as long as predicted may a step take.
        activity_s: seconds without news of what it has said that it is busy with; 0 for any.
    """

    min_s: float = 10.0
    step_factor: float = 10.0
    activity_s: float = 900.0

    def why_stuck(self, progress: Progress) -> str:
        """Why the engine counts as stuck, for people; empty if it does not."""
        waiting_s = progress.waiting_s
        if progress.activity:
            if not 0 < self.activity_s < waiting_s:
                return ""
            return (
                f"the engine has told of nothing new for {waiting_s:.1f} s while it is busy with: "
                f"{progress.activity}"
            )
        if waiting_s <= max(self.min_s, self.step_factor * progress.predicted_step_s):
            return ""
        return f"the engine has work and has not completed a step for {waiting_s:.1f} s"


@dataclass(frozen=True, slots=True)
class Condition:
    """How the server fares.

    Attributes:
        reason: a sentence for people; empty if all is well.
        progress_age_s: seconds since the engine completed a step; None before it is ready.
    """

    status: Status
    reason: str = ""
    progress_age_s: float | None = None

    @property
    def is_healthy(self) -> bool:
        """Whether a restart would not help; a server that drains is busy with it already."""
        return self.status in ("ok", "draining", "paused", "asleep")

    def error(self) -> UnavailableError:
        """What a request that cannot be admitted is told."""
        return UnavailableError(self.reason, code=_CODES[self.status])


class Health(Protocol):
    """Judges how the server fares; asks nobody for it."""

    def condition(self) -> Condition:
        """How it fares now."""
        ...


class EngineHealth:
    """The health of a server whose engine is ready."""

    def __init__(self, state: ServerState, limits: StallLimits) -> None:
        self._state = state
        self._limits = limits

    def condition(self) -> Condition:
        """Dead, restarting, draining, stuck, corrupt, asleep, paused or well."""
        engine = self._state.engine
        age_s = engine.progress.age_s
        if engine.is_restarting:
            return Condition("restarting", "the engine is being started again", age_s)
        if not engine.alive:
            return Condition("dead", "the engine is not running", age_s)
        if self._state.draining:
            return Condition("draining", "the server is shutting down", age_s)
        if reason := self._limits.why_stuck(engine.progress):
            return Condition("stuck", reason, age_s)
        if (count := engine.stats.num_corrupted_in_a_row) >= MAX_CORRUPTED:
            reason = f"the last {count} requests had logits that are not finite; restart the server"
            return Condition("corrupt", reason, age_s)
        if engine.stats.sleep_level and (activity := engine.progress.activity):
            return Condition("asleep", f"the engine sleeps; it is busy with: {activity}", age_s)
        if engine.stats.sleep_level:
            return Condition("asleep", "the engine sleeps; POST /wake_up ends that", age_s)
        if engine.stats.holds_requests:
            return Condition("paused", "the engine is paused; POST /resume ends that", age_s)
        return Condition("ok", "", age_s)


class LoadingHealth:
    """The health of a server whose engine is not ready yet."""

    def condition(self) -> Condition:
        """Loading."""
        return Condition("loading", "the model is being loaded; try again later")


def probe_routes() -> list[Route]:
    """The routes of the three probes; they read `app.state.health`."""
    return [Route("/livez", livez), Route("/readyz", readyz), Route("/health", health)]


async def livez(request: Request) -> Response:
    """200: this process answers."""
    return _response(200, {"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 if requests can be admitted."""
    condition = _condition(request)
    if condition.status == "ok":
        return _response(200, {"status": "ok"})
    error = condition.error()
    refusal: ProbeRefusal = {"status": condition.status, "error": error.fields()}
    return _response(503, refusal, error.headers)


async def health(request: Request) -> Response:
    """200 unless the engine cannot serve; and how long ago it completed a step."""
    condition = _condition(request)
    age_s = condition.progress_age_s
    report: HealthReport = {
        "status": condition.status,
        "progress_age_s": None if age_s is None else round(age_s, 3),
    }
    if condition.is_healthy:
        return _response(200, report)
    error = condition.error()
    refusal: HealthRefusal = {**report, "error": error.fields()}
    return _response(503, refusal, error.headers)


def _condition(request: Request) -> Condition:
    judge: Health = request.app.state.health
    return judge.condition()


def _response(status: int, body: Probe, headers: dict[str, str] | None = None) -> Response:
    headers = {"Cache-Control": "no-store", **(headers or {})}
    return Response(msgspec.json.encode(body), status, headers, "application/json")
