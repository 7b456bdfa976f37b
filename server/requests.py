"""A request's body: read within its limit, validated, and meant for a model that is here."""

import asyncio
import re
from typing import TypeVar

from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect, Request

from leadline.server.body import parse_body
from leadline.server.errors import ApiError, ClientDisconnectedError
from leadline.server.limits import FLAG, Limits
from leadline.server.sampling_types import SamplingFields
from leadline.server.state import ServerState
from leadline.server.unknown_fields import refuse_unknown, unknown_fields

_MAX_LENGTH_DIGITS = 20
_MAX_NAMED_FIELDS = 32
_FIELD_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # others do not belong in a header


class PlainFields(BaseModel):
    """The body of a request that does not sample."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: str | None = None  # None: whatever is served

    def check(self) -> list[str]:
        """Look at fields that belong together.

        Returns:
            Names of fields that nobody knows.
        """
        return unknown_fields(self)


Fields = TypeVar("Fields", bound=SamplingFields | PlainFields)


async def read_fields(request: Request, fields_type: type[Fields]) -> tuple[Fields, dict[str, str]]:
    """The validated body, and the response headers that it calls for.

    Raises:
        ApiError: it is not JSON, too large, out of range, or names another model.
        ClientDisconnectedError: the client left before it had sent everything.
    """
    state: ServerState = request.app.state.server
    body = await _read_body(request, state.limits)
    fields = parse_body(body, fields_type, max_depth=state.limits.json_depth)
    if fields.model is not None and fields.model not in state.model_names:
        raise model_not_found(state, fields.model)
    unknown = fields.check()
    if not unknown:
        return fields, {}
    if state.is_strict:
        refuse_unknown(fields, unknown)
    state.metrics.requests.count_ignored_fields(len(unknown))
    names = [name for name in unknown if _FIELD_NAME.fullmatch(name)][:_MAX_NAMED_FIELDS]
    return fields, {"x-ignored-fields": ", ".join(names)} if names else {}


def model_not_found(state: ServerState, name: str) -> ApiError:
    """What is answered for a model that is not served."""
    served = ", ".join(state.model_names)
    return ApiError(
        404,
        f"the model {name[:200]!r} does not exist; served here: {served}",
        param="model",
        code="model_not_found",
    )


async def _read_body(request: Request, limits: Limits) -> bytes:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise ApiError(
            415,
            f"the content type is {content_type[:100]!r}; send JSON with the header "
            "'Content-Type: application/json'",
            code="unsupported_content_type",
        )
    if "content-encoding" in request.headers:
        raise ApiError(
            415, "send the body without 'Content-Encoding'", code="unsupported_content_encoding"
        )
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:_MAX_LENGTH_DIGITS]) > limits.body_bytes:
        raise _too_large(limits.body_bytes)
    body = bytearray()
    chunks = request.stream()
    try:
        while (
            chunk := await asyncio.wait_for(anext(chunks, None), limits.body_pause_s)
        ) is not None:
            body += chunk
            if len(body) > limits.body_bytes:
                raise _too_large(limits.body_bytes)
    except ClientDisconnect as error:
        raise ClientDisconnectedError from error
    except TimeoutError as error:
        raise ApiError(
            408,
            f"nothing of the body has come for {limits.body_pause_s:g} s; send it at once",
            code="request_timeout",
            headers={"Connection": "close"},
        ) from error
    return bytes(body)


def _too_large(max_bytes: int) -> ApiError:
    return ApiError(
        413,
        f"the body is larger than {max_bytes} bytes; send less ({FLAG} body_bytes)",
        code="request_too_large",
    )
