"""Messages between the server and the engine process: msgspec over a private ZeroMQ socket."""

import enum
from typing import Literal

import msgspec

from leadline.engine.control import Done, Order
from leadline.engine.errors import (
    EngineAsleepError,
    InvalidRequestError,
    PromptTooLongError,
    QueueFullError,
    RequestError,
)
from leadline.engine.expert_balance.balance_counts import BalanceCounts
from leadline.engine.histogram import Histogram
from leadline.engine.parallel.dispatch_meter import DispatchCounts
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput
from leadline.engine.survey import EngineSurvey


class Launch(msgspec.Struct):
    """The first line on the engine process's standard input, as JSON.

    The input is a socket, on which the process tells of its start, and of its end where it can, as
    lines of JSON. When it closes, the parent is gone and the process ends.

    Attributes:
        address: ZeroMQ address to bind, in a directory that only this user can enter.
        builder: `module:function` that makes the engine (see `process.Builder`).
        config: what the builder is given, as JSON.
        trace_path: where the process leaves which requests it computes (`running_trace`).
    """

    address: str
    builder: str
    config: msgspec.Raw
    trace_path: str


class Hello(msgspec.Struct, tag="hello"):
    """Client -> engine: send me what concerns everybody. The first message of a client.

    Attributes:
        was_paused: the engine before this one was; so is this one, unless it is told otherwise.
        sleep_level: the same of its sleep.
    """

    was_paused: bool = False
    sleep_level: int = 0


class Submit(msgspec.Struct, tag="submit"):
    """Client -> engine: take a request."""

    request: EngineRequest


class Finish(msgspec.Struct, tag="finish"):
    """Client -> engine: these requests are over.

    `abort` when the user left, `stop` when a stop string was found in the text. The engine answers
    with each request's final output, unless that has been sent already.
    """

    request_ids: list[str]
    reason: FinishReason


class ResetPrefixCache(msgspec.Struct, tag="reset_prefix_cache"):
    """Client -> engine: forget all cached pages. Answered with `PrefixCacheReset`."""


class TakeSurvey(msgspec.Struct, tag="take_survey"):
    """Client -> engine: tell how pages, queue and experts stand. Answered with `EngineSurvey`."""


class Shutdown(msgspec.Struct, tag="shutdown"):
    """Client -> engine: end the process after failing what still runs with `abort`."""


class Loading(msgspec.Struct, tag="loading"):
    """Engine -> parent: start-up goes on; `stage` is a short phrase for people."""

    stage: str


class Ready(msgspec.Struct, tag="ready"):
    """Engine -> parent, and to each client: requests can be served.

    Attributes:
        max_model_len: most tokens (prompt + output) of one request.
        num_pages: pages in the pool.
        page_size: tokens a page.
        summary: lines for the start-up table: (name, value).
    """

    max_model_len: int
    num_pages: int
    page_size: int
    summary: list[tuple[str, str]]


class GrammarCounts(msgspec.Struct, kw_only=True):
    """Grammars asked for since start, and those of them that were compiled already.

    Attributes:
        times: seconds that the others took to compile.
    """

    num_queries: int = 0
    num_hits: int = 0
    times: Histogram = msgspec.field(default_factory=Histogram)


class EngineStats(msgspec.Struct, kw_only=True):
    """Gauges, and counters since start.

    Attributes:
        page_usage: share of pages in use by running requests, 0..1.
        is_paused: no steps are taken, and none is in flight.
        holds_requests: new requests wait, since the engine is paused or is about to be.
        sleep_level: memory that is given up: 1 for pages, 2 for the weights too; 0 for none.
        activity: what the engine is busy with that is no step and may take long, and how far it
            is, for people; empty for nothing.
        num_steps: steps that computed at least one token.
        num_cached_pages: pages that the prefix cache lists.
        num_corrupted_requests: requests that failed because their logits were not finite.
        num_corrupted_in_a_row: of them, those since a request last had a token.
        num_corrupted_pages: cached pages whose checksum was wrong, in the pool or in host memory.
        prefix_cache_queries: prompt tokens looked up in the cache; `prefix_cache_hits` were found.
        prefix_cache_evictions: cached pages given up for want of free ones.
        host_cache_usage: share of the pages in host memory that are in use, 0..1.
        host_cache_queries: prompt tokens looked up there; `host_cache_hits` were found.
        admission_rejections: requests refused because too much waited, by reason.
        predicted_step_s: seconds that the longest step in flight should take; 0 while unknown.
        num_drafts: rows that verified at least one draft.
        num_accepted_per_pos: accepted drafts at each position of a chain.
        num_deferred: of the requests that wait, those whose grammar is not compiled yet.
        cached_prompt_tokens: prompt tokens that need not be computed; `host_prompt_tokens` of them
            came from host memory.
        host_pages_stored: pages copied to host memory; `host_pages_loaded` came back, and
            `host_pages_lost` did not, for a wrong checksum.
        step_tokens: tokens that steps computed; the bounds of this and of the other histograms are
            in `histogram`.
        step_times: seconds that steps took.
        draft_depths: chosen for steps.
        dispatch: of tokens to experts on other ranks, by the ranks that report steps.
        balance: of those experts.
        page_lifetimes: see `page_times.PageTimes`, as for the next two.
    """

    is_paused: bool = False
    holds_requests: bool = False
    sleep_level: int = 0
    activity: str = ""
    num_running: int = 0
    num_waiting: int = 0
    num_deferred: int = 0
    page_usage: float = 0.0
    num_cached_pages: int = 0
    host_cache_usage: float = 0.0
    num_steps: int = 0
    predicted_step_s: float = 0.0
    num_preemptions: int = 0
    num_corrupted_requests: int = 0
    num_corrupted_in_a_row: int = 0
    num_corrupted_pages: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    prefix_cache_evictions: int = 0
    host_cache_queries: int = 0
    host_cache_hits: int = 0
    admission_rejections: dict[str, int] = msgspec.field(default_factory=dict)
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_per_pos: list[int] = msgspec.field(default_factory=list)
    cached_prompt_tokens: int = 0
    host_prompt_tokens: int = 0
    host_pages_stored: int = 0
    host_pages_loaded: int = 0
    host_pages_lost: int = 0
    grammars: GrammarCounts = msgspec.field(default_factory=GrammarCounts)
    step_tokens: Histogram = msgspec.field(default_factory=Histogram)
    step_times: Histogram = msgspec.field(default_factory=Histogram)
    draft_depths: Histogram = msgspec.field(default_factory=Histogram)
    dispatch: DispatchCounts = msgspec.field(default_factory=DispatchCounts)
    balance: BalanceCounts = msgspec.field(default_factory=BalanceCounts)
    page_lifetimes: Histogram = msgspec.field(default_factory=Histogram)
    page_idle_times: Histogram = msgspec.field(default_factory=Histogram)
    page_reuse_gaps: Histogram = msgspec.field(default_factory=Histogram)

    @property
    def num_accepted_tokens(self) -> int:
        """Accepted drafts at all positions together."""
        return sum(self.num_accepted_per_pos)

    @property
    def acceptance_length(self) -> float | None:
        """Mean tokens of a step that verified drafts, its own token included; None without any."""
        return 1 + self.num_accepted_tokens / self.num_drafts if self.num_drafts else None


class StepOutputs(msgspec.Struct, tag="outputs"):
    """Engine -> client: what a step produced for this client's requests."""

    outputs: list[RequestOutput]
    stats: EngineStats


class PrefixCacheReset(msgspec.Struct, tag="prefix_cache_reset"):
    """Engine -> client: all cached pages are forgotten; there were `num_pages` of them."""

    num_pages: int


RefusalKind = Literal["invalid_request", "prompt_too_long", "queue_full", "asleep"]
_REFUSALS: dict[RefusalKind, type[RequestError]] = {
    "invalid_request": InvalidRequestError,
    "prompt_too_long": PromptTooLongError,
    "queue_full": QueueFullError,
    "asleep": EngineAsleepError,
}


class Refused(msgspec.Struct, tag="refused"):
    """Engine -> client: a request was not accepted; it has no outputs."""

    request_id: str
    kind: RefusalKind
    message: str
    param: str | None
    retry_after_s: float = 0.0

    @classmethod
    def of(cls, request_id: str, error: RequestError) -> "Refused":
        """The message that carries an error."""
        kind = next(kind for kind, error_type in _REFUSALS.items() if type(error) is error_type)
        retry_after_s = error.retry_after_s if isinstance(error, QueueFullError) else 0.0
        return cls(request_id, kind, str(error), error.param, retry_after_s)

    def to_error(self) -> RequestError:
        """The error that the message carries."""
        if self.kind == "queue_full":
            return QueueFullError(self.message, retry_after_s=self.retry_after_s)
        return _REFUSALS[self.kind](self.message, param=self.param)


class Failed(msgspec.Struct, tag="failed"):
    """Engine -> parent: the engine ends; `message` is its last word for people."""

    message: str


class EngineState(enum.StrEnum):
    """How an engine process fares, as its parent tells its clients."""

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    ENDED = "ended"


class EngineStatus(msgspec.Struct):
    """Parent -> clients: how the engine fares; told at each change, and to whoever is new.

    Attributes:
        generation: counts the lives of the engine, from 1 on.
        address: ZeroMQ address where it takes requests, while it is ready.
        cause: why it died, where it is dead.
        suspect_ids: requests that it was computing when it died.
        is_shut_down: it was meant to end.
    """

    state: EngineState
    generation: int
    address: str
    cause: str = ""
    suspect_ids: list[str] = msgspec.field(default_factory=list)
    ready: Ready | None = None
    is_shut_down: bool = False


ToEngine = Hello | Submit | Finish | ResetPrefixCache | TakeSurvey | Order | Shutdown
FromEngine = Ready | StepOutputs | Refused | PrefixCacheReset | EngineSurvey | Done
FromChild = Loading | Ready | Failed
