"""What the document has to know of a route beside its handler."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from leadline.server.errors import ErrorEnvelope

JSON = "application/json"
EVENT_STREAM = "text/event-stream"
HTML = "text/html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path.

    Attributes:
        tag: the group that it is shown in.
        answer: type of the answer with status 200: anything that msgspec can encode; None for text.
        media_type: of that answer.
        request: type of the body; None if there is none.
        example: a body that is answered; the model's name is filled in.
        streams: the answer may be a stream of events instead.
        errors: statuses that the handler itself can answer.
        error: type of answers that are not a success.
        unavailable: type of the answer with status 503, if it is another one.
        query: parameters in the URL: name to what it says.
    """

    tag: str
    answer: Any = None
    media_type: str = JSON
    request: type[BaseModel] | None = None
    example: Mapping[str, Any] = field(default_factory=dict)
    streams: bool = False
    errors: tuple[int, ...] = ()
    error: Any = ErrorEnvelope
    unavailable: Any = None
    query: Mapping[str, str] = field(default_factory=dict)


def reads(tag: str, answer: Any, **more: Any) -> Operation:
    """An operation without a body."""
    return Operation(tag=tag, answer=answer, **more)


def shows(tag: str, media_type: str, **more: Any) -> Operation:
    """An operation that answers text."""
    return Operation(tag=tag, media_type=media_type, **more)


def takes(tag: str, request: type[BaseModel], answer: Any, **more: Any) -> Operation:
    """An operation with a JSON body."""
    return Operation(tag=tag, request=request, answer=answer, **more)


def acts(answer: Any, **more: Any) -> Operation:
    """An operation that does something to the server, and needs the key for that."""
    errors = more.pop("errors", (503,))
    return Operation(tag="administration", answer=answer, errors=errors, **more)


def generates(tag: str, request: type[BaseModel], answer: Any, **more: Any) -> Operation:
    """An operation whose answer the model writes, at once or as a stream."""
    streams, errors = more.pop("streams", True), more.pop("errors", (429, 504))
    return Operation(
        tag=tag, request=request, answer=answer, streams=streams, errors=errors, **more
    )
