"""Messages between the server and the engine process: msgspec over a private ZeroMQ socket."""

from typing import Literal

import msgspec

from leadline.engine.errors import (
    InvalidRequestError,
    PromptTooLongError,
    QueueFullError,
    RequestError,
)
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput


class Launch(msgspec.Struct):
    """The first line on the engine process's standard input, as JSON.

    The pipe stays open afterwards; when it closes, the parent is gone and the process ends.

    Attributes:
        address: ZeroMQ address to bind, in a directory that only this user can enter.
        builder: `module:function` that makes the engine (see `process.Builder`).
        config: what the builder is given, as JSON.
    """

    address: str
    builder: str
    config: msgspec.Raw


class Hello(msgspec.Struct, tag="hello"):
    """Client -> engine: send me what concerns everybody. The first message of a client."""


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


class Shutdown(msgspec.Struct, tag="shutdown"):
    """Client -> engine: end the process after failing what still runs with `abort`."""


class Loading(msgspec.Struct, tag="loading"):
    """Engine -> client: start-up goes on; `stage` is a short phrase for people."""

    stage: str


class Ready(msgspec.Struct, tag="ready"):
    """Engine -> client: requests can be served.

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


class EngineStats(msgspec.Struct, kw_only=True):
    """Gauges, and counters since start.

    Attributes:
        page_usage: share of pages in use by running requests, 0..1.
        num_drafts: rows that verified at least one draft.
        num_accepted_per_pos: accepted drafts at each position of a chain.
    """

    num_running: int = 0
    num_waiting: int = 0
    page_usage: float = 0.0
    num_steps: int = 0
    num_preemptions: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    prefix_cache_queries: int = 0
    prefix_cache_hits: int = 0
    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_per_pos: list[int] = msgspec.field(default_factory=list)

    @property
    def num_accepted_tokens(self) -> int:
        """Accepted drafts at all positions together."""
        return sum(self.num_accepted_per_pos)


class StepOutputs(msgspec.Struct, tag="outputs"):
    """Engine -> client: what a step produced for this client's requests."""

    outputs: list[RequestOutput]
    stats: EngineStats


RefusalKind = Literal["invalid_request", "prompt_too_long", "queue_full"]
_REFUSALS: dict[RefusalKind, type[RequestError]] = {
    "invalid_request": InvalidRequestError,
    "prompt_too_long": PromptTooLongError,
    "queue_full": QueueFullError,
}


class Refused(msgspec.Struct, tag="refused"):
    """Engine -> client: a request was not accepted; it has no outputs."""

    request_id: str
    kind: RefusalKind
    message: str
    param: str | None

    @classmethod
    def of(cls, request_id: str, error: RequestError) -> "Refused":
        """The message that carries an error."""
        kind = next(kind for kind, error_type in _REFUSALS.items() if type(error) is error_type)
        return cls(request_id, kind, str(error), error.param)

    def to_error(self) -> RequestError:
        """The error that the message carries."""
        return _REFUSALS[self.kind](self.message, param=self.param)


class Failed(msgspec.Struct, tag="failed"):
    """Engine -> client: the engine ends; `message` is its last word for people."""

    message: str


ToEngine = Hello | Submit | Finish | Shutdown
FromEngine = Loading | Ready | StepOutputs | Refused | Failed
