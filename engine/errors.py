"""What can go wrong in the engine.

EngineError
|-- RequestError            the user's fault; fails one request
|   |-- InvalidRequestError a value out of range
|   |-- PromptTooLongError  longer than the model or the page pool can ever hold
|   |-- QueueFullError      admission refused, try later
|   `-- EngineAsleepError   admission refused until somebody wakes the engine
|-- OrderRefusedError       what an operator wants is not possible now
|-- ConfigError             a flag or field that cannot be honoured
|   `-- NotEnoughMemoryError  the model, or so large a cache, does not fit
`-- EngineDeadError         the engine process ended; every open request ends with it
    `-- EngineRestartingError   it is being started again
"""


class EngineError(Exception):
    """Base of every error that the engine raises on purpose."""


class RequestError(EngineError):
    """A request that cannot be served; names the value, the allowed range, what to do.

    Attributes:
        param: the request's field at fault, or None.
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class InvalidRequestError(RequestError):
    """A parameter is out of its allowed range."""


class PromptTooLongError(RequestError):
    """Prompt plus requested tokens exceed what the model or the page pool can ever hold."""


class QueueFullError(RequestError):
    """Too many requests wait already.

    Attributes:
        retry_after_s: after how many seconds there is likely to be room.
    """

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float = 5.0
    ) -> None:
        super().__init__(message, param=param)
        self.retry_after_s = retry_after_s


class EngineAsleepError(RequestError):
    """The engine has given up its memory."""


class OrderRefusedError(EngineError):
    """What an operator asks of the engine is not possible as it stands."""


class ConfigError(EngineError):
    """A configuration that cannot be honoured on this machine or with this model."""


class NotEnoughMemoryError(ConfigError):
    """What is asked for does not fit into the memory that is available."""


class EngineDeadError(EngineError):
    """The engine process has ended; its last words are in the message."""


class EngineRestartingError(EngineDeadError):
    """The engine process has ended and is being started again."""


def id_in_use(request_id: str) -> InvalidRequestError:
    """A request has the id of another that is still alive."""
    return InvalidRequestError(
        f"request id {request_id!r} is in use by a running request; "
        "give each request an id of its own",
        param="request_id",
    )
