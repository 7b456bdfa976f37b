"""A span for each request that has ended, sent to an OpenTelemetry collector in the background."""

import os
import threading
import time
from typing import Any

from leadline.server.request_record import RequestRecord
from leadline.server.trace_exporter import make_exporter
from leadline.server.version import version

_SPAN_NAME = "llm_request"
CLOSE_S = 2.0


class Traces:
    """Makes spans with the attributes that vLLM's have; needs an extra, as `make_exporter` does."""

    def __init__(self, endpoint: str) -> None:
        """Export to an OTLP receiver.

        Args:
            endpoint: as `make_exporter` takes it.

        Raises:
            ConfigError: as `make_exporter`.
        """
        self._exporter = make_exporter(endpoint)
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        is_named = "OTEL_SERVICE_NAME" in os.environ
        resource = Resource.create({} if is_named else {SERVICE_NAME: "leadline"})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter))
        self._tracer = self._provider.get_tracer("leadline", version())
        self._propagator = TraceContextTextMapPropagator()

    def report(self, record: RequestRecord) -> None:
        """Send a span for a request that has ended; returns at once."""
        from opentelemetry.trace import SpanKind, Status, StatusCode

        now_ns, now_s = time.time_ns(), time.monotonic()
        end_s = now_s if record.end_s is None else record.end_s
        span = self._tracer.start_span(
            _SPAN_NAME,
            context=self._propagator.extract(record.trace_headers),
            kind=SpanKind.SERVER,
            attributes=attributes_of(record),
            start_time=now_ns - _nanoseconds(now_s - record.arrived_s),
        )
        if "error" in record.reasons:
            span.set_status(Status(StatusCode.ERROR))
        span.end(now_ns - _nanoseconds(now_s - end_s))

    def close(self) -> None:
        """Send what is left, as far as that goes quickly."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)
        if closing.is_alive():  # the receiver is away; it would be tried again and again
            self._exporter.shutdown()


def attributes_of(record: RequestRecord) -> dict[str, Any]:
    """What a span says of a request; times are seconds."""
    params, first = record.first.params, record.choices[0]
    found: dict[str, Any] = {
        "gen_ai.response.model": record.model,
        "gen_ai.request.id": record.request_id or record.response_id,
        "gen_ai.response.id": record.response_id,
        "gen_ai.request.n": record.num_choices,
        "gen_ai.request.max_tokens": params.max_tokens,
        "gen_ai.request.temperature": params.temperature,
        "gen_ai.request.top_p": params.top_p,
        "gen_ai.usage.num_sequences": len(record.choices),
        "gen_ai.usage.prompt_tokens": record.num_prompt_tokens,
        "gen_ai.usage.cached_tokens": record.num_cached_tokens,
        "gen_ai.usage.completion_tokens": record.num_tokens,
        "gen_ai.response.finish_reasons": record.reasons,
    }
    if record.end_s is not None:
        found["gen_ai.latency.e2e"] = record.end_s - record.arrived_s
    if record.first_token_s is not None:
        found["gen_ai.latency.time_to_first_token"] = record.first_token_s - record.arrived_s
    if first.timing is not None:
        found["gen_ai.latency.time_in_queue"] = first.timing.queue_s
        if first.decode_s is not None:
            prefill_s, decode_s = first.timing.prefill_s, first.decode_s
            found["gen_ai.latency.time_in_model_prefill"] = prefill_s
            found["gen_ai.latency.time_in_model_decode"] = decode_s
            found["gen_ai.latency.time_in_model_inference"] = prefill_s + decode_s
    return found


def _nanoseconds(duration_s: float) -> int:
    return int(duration_s * 1e9)
