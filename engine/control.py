"""What operators ask of a running engine: messages, each answered with `Done`."""

import enum

import msgspec


class PauseMode(enum.StrEnum):
    """What becomes of the requests that have been accepted when a pause begins.

    They are aborted; or they finish first; or they are kept, get no more steps, and go on where
    they were afterwards. Requests that come later wait in the queue, whatever the mode.
    """

    ABORT = "abort"
    WAIT = "wait"
    KEEP = "keep"


class Pause(msgspec.Struct, tag="pause"):
    """Client -> engine: take no more steps. Answered when none is in flight or called for."""

    ticket: int
    mode: PauseMode


class Resume(msgspec.Struct, tag="resume"):
    """Client -> engine: take steps again."""

    ticket: int


class Sleep(msgspec.Struct, tag="sleep"):
    """Client -> engine: pause, then give up memory. Answered when that is done.

    Attributes:
        level: 1 for pages, 2 for the weights too.
        mode: `abort` or `wait`: pages are gone, so that no request can be kept.
    """

    ticket: int
    level: int
    mode: PauseMode


class WakeUp(msgspec.Struct, tag="wake_up"):
    """Client -> engine: take the memory back, and steps again. Answered when it can serve."""

    ticket: int


class AbortRequests(msgspec.Struct, tag="abort_requests"):
    """Client -> engine: end requests with `abort`, whichever client has sent them.

    Attributes:
        names: as in `EngineRequest.names`; None for all requests.
    """

    ticket: int
    names: list[str] | None


class Done(msgspec.Struct, tag="done"):
    """Engine -> client: what the message with this ticket asked for has been done.

    Attributes:
        is_paused: no steps are taken; after a `Pause` it may be false, if a `Resume` came first.
        names: the first name of each API request that was aborted.
        num_bytes: memory that was given up.
        refusal: why the order was not carried out; empty if it was.
    """

    ticket: int
    is_paused: bool
    names: list[str] = msgspec.field(default_factory=list)
    num_bytes: int = 0
    refusal: str = ""


Order = Pause | Resume | Sleep | WakeUp | AbortRequests
