"""Who is told of requests that have ended, as the user wants it."""

import contextlib
from collections.abc import Callable, Iterator

from leadline.server.config import ServerConfig
from leadline.server.logs import log_request
from leadline.server.request_record import RequestRecord
from leadline.server.traces import Traces

Reporter = Callable[[RequestRecord], None]


@contextlib.contextmanager
def reporters_of(config: ServerConfig) -> Iterator[list[Reporter]]:
    """The reporters, until they are closed with what they still have to say.

    Raises:
        ConfigError: traces cannot be exported as they are asked for.
    """
    reporters: list[Reporter] = [log_request] if config.log_requests else []
    if config.otlp_traces_endpoint is None:
        yield reporters
        return
    traces = Traces(config.otlp_traces_endpoint)
    try:
        yield [*reporters, traces.report]
    finally:
        traces.close()
