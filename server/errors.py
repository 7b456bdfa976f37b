"""Errors as the API shows them: one envelope, `{"error": {message, type, param, code}}`.

ApiError                 any answer that is not a success
|-- BadRequestError      400, the caller's fault
|-- UnavailableError     503, try again later (with Retry-After)
|-- AbortedError         503, an operator has ended the request
`-- DeadlineError        504, the request's own deadline has passed

ClientDisconnectedError  nobody is left to answer
"""

import math
from collections.abc import Mapping
from typing import TypedDict

import msgspec
from starlette.responses import Response

from leadline.engine.errors import (
    EngineAsleepError,
    EngineDeadError,
    EngineError,
    EngineRestartingError,
    OrderRefusedError,
    PromptTooLongError,
    QueueFullError,
    RequestError,
)

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    408: "timeout_error",
    409: "conflict_error",
    413: "invalid_request_error",
    414: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "service_unavailable_error",
    504: "timeout_error",
}
RETRY_AFTER_S = 5


class ErrorFields(TypedDict):
    """What went wrong, and with which field of the request.

    Attributes:
        message: a sentence for people: the value, what is allowed, what to do.
        type: the kind of error, as OpenAI's clients know it.
        param: the request's field at fault, or null.
        code: a word for programs, or null.
    """

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(TypedDict):
    """Every answer that is not a success."""

    error: ErrorFields


class ApiError(Exception):
    """An answer that is not a success.

    Attributes:
        status: HTTP status.
        param: the request's field at fault, or None.
        code: a word for programs, or None.
        headers: extra response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    def fields(self) -> ErrorFields:
        """What is in the envelope."""
        return {
            "message": str(self),
            "type": _TYPES.get(self.status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }

    def body(self) -> bytes:
        """The envelope, as JSON."""
        return msgspec.json.encode({"error": self.fields()})

    def response(self) -> Response:
        """The envelope as a response."""
        return Response(self.body(), self.status, self.headers, "application/json")


class BadRequestError(ApiError):
    """The caller's fault; the message names the value, the allowed range and what to do."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(400, message, param=param, code=code)


class UnavailableError(ApiError):
    """The service cannot answer now."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(503, message, code=code, headers={"Retry-After": str(RETRY_AFTER_S)})


class AbortedError(ApiError):
    """An operator has ended the request. Clients are told not to send it again by themselves."""

    def __init__(self, message: str) -> None:
        super().__init__(503, message, code="aborted", headers={"x-should-retry": "false"})


class DeadlineError(ApiError):
    """The answer was not whole in time. Clients are told not to send it again by themselves."""

    def __init__(self, message: str) -> None:
        super().__init__(
            504, message, code="deadline_exceeded", headers={"x-should-retry": "false"}
        )


class ClientDisconnectedError(Exception):
    """The client has closed the connection; nobody is left to answer."""


def invalid(param: str, message: str) -> BadRequestError:
    """A field's value is out of range, or does not go with another's."""
    return BadRequestError(message, param=param, code="invalid_value")


def unsupported(param: str, advice: str) -> BadRequestError:
    """A field that the API knows and this server does not honour."""
    return BadRequestError(
        f"'{param}' is not supported by this server: {advice}",
        param=param,
        code="unsupported_parameter",
    )


def from_engine_error(error: EngineError) -> ApiError:
    """What a caller is told about an error of the engine."""
    match error:
        case PromptTooLongError():
            return BadRequestError(str(error), param=error.param, code="context_length_exceeded")
        case QueueFullError(retry_after_s=retry_after_s):
            return ApiError(
                429,
                str(error),
                code="rate_limit_exceeded",
                headers={"Retry-After": str(max(1, math.ceil(retry_after_s)))},
            )
        case EngineAsleepError():
            return UnavailableError(str(error), code="engine_asleep")
        case OrderRefusedError():
            return ApiError(409, str(error), code="not_possible_now")
        case RequestError():
            return BadRequestError(str(error), param=error.param, code="invalid_value")
        case EngineRestartingError():
            return UnavailableError(
                "the engine is being started again; try again soon", code="engine_restarting"
            )
        case EngineDeadError():
            return UnavailableError(
                "the engine is not running; try again later", code="engine_dead"
            )
    return ApiError(500, "the engine failed", code="internal_error")
