"""Where spans are sent, and by which of OpenTelemetry's protocols."""

import os
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from leadline.engine.errors import ConfigError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_PATH = "/v1/traces"
_PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HTTP, _GRPC = "http/protobuf", "grpc"
_ALLOWED = (
    f"a URL, as http://localhost:4318{_PATH} for HTTP, or grpc://localhost:4317, or "
    f"http://localhost:4317 with {_PROTOCOL_VARIABLES[0]}={_GRPC}, for gRPC"
)


def make_exporter(endpoint: str) -> "SpanExporter":
    """What sends spans to an OTLP receiver.

    Args:
        endpoint: its URL. Over HTTP, the usual path is meant where there is none.

    Raises:
        ConfigError: it is no such URL, a protocol is asked for that there is not, or what speaks
            it is not installed.
    """
    parts = urlsplit(endpoint)
    protocol = _protocol(parts)
    schemes = ("http", "https", "grpc") if protocol == _GRPC else ("http", "https")
    if parts.scheme not in schemes or not parts.netloc:
        raise ConfigError(f"otlp_traces_endpoint is {endpoint[:200]!r}; allowed: {_ALLOWED}")
    has_path = bool(parts.path.strip("/"))
    if protocol == _GRPC:
        if has_path:
            raise ConfigError(
                f"otlp_traces_endpoint is {endpoint[:200]!r}, but over {_GRPC} it has no path: "
                f"leave out {parts.path[:100]!r}"
            )
        return _grpc_exporter(endpoint)
    return _http_exporter(endpoint if has_path else endpoint.rstrip("/") + _PATH)


def _protocol(parts: SplitResult) -> str:
    for name in _PROTOCOL_VARIABLES:
        if protocol := os.environ.get(name):
            if protocol not in (_HTTP, _GRPC):
                raise ConfigError(f"{name} is {protocol[:40]!r}; allowed: {_HTTP} and {_GRPC}")
            return protocol
    return _GRPC if parts.scheme == "grpc" else _HTTP


def _http_exporter(url: str) -> "SpanExporter":
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise _missing(error, "traces") from error
    return OTLPSpanExporter(endpoint=url)


def _grpc_exporter(url: str) -> "SpanExporter":
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise _missing(error, "traces-grpc") from error
    return OTLPSpanExporter(endpoint=url)


def _missing(error: ImportError, extra: str) -> ConfigError:
    return ConfigError(
        f"--otlp-traces-endpoint needs OpenTelemetry ({error}); install it with "
        f"pip install 'leadline[{extra}]'"
    )
