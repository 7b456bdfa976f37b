"""Prometheus metrics, under Leadline's names and under those that vLLM's dashboards know."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from leadline.engine.messages import EngineStats
from leadline.engine.request import FinishReason
from leadline.server.engine_metrics import LABELS, PREFIX, EngineCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ALIAS_PREFIX = "vllm:"

_TTFT_BUCKETS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0),
)
_ITL_BUCKETS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    *(0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0),
)
_LATENCY_BUCKETS_S = (
    *(0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0),
    *(30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)


class _AliasCollector(Collector):
    """Everything in a registry once more, under vLLM's prefix."""

    def __init__(self, source: CollectorRegistry) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        for metric in self._source.collect():
            # Creation times are of use to nobody and double the number of families.
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
            alias = Metric(
                metric.name.replace(PREFIX, _ALIAS_PREFIX, 1), metric.documentation, metric.type
            )
            alias.samples = [
                sample._replace(name=sample.name.replace(PREFIX, _ALIAS_PREFIX, 1))
                for sample in metric.samples
            ]
            yield alias


class Metrics:
    """What this server counts, and what its engine says."""

    def __init__(self, model_name: str, stats: Callable[[], EngineStats]) -> None:
        """`stats`: the engine's, asked for at each scrape."""
        own = CollectorRegistry()
        own.register(EngineCollector(model_name, stats))

        def histogram(name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
            metric = Histogram(PREFIX + name, help_text, LABELS, registry=own, buckets=buckets)
            return metric.labels(model_name)

        success = Counter(
            f"{PREFIX}request_success",
            "Choices that ended, by finish reason.",
            (*LABELS, "finished_reason"),
            registry=own,
        )
        self._ended = {reason: success.labels(model_name, reason.value) for reason in FinishReason}
        self._ignored_fields = Counter(
            f"{PREFIX}ignored_fields",
            "Request fields that nobody knows.",
            LABELS,
            registry=own,
        ).labels(model_name)
        self.time_to_first_token = histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", _TTFT_BUCKETS_S
        )
        self.inter_token_latency = histogram(
            "inter_token_latency_seconds", "Between a choice's tokens.", _ITL_BUCKETS_S
        )
        self.e2e_request_latency = histogram(
            "e2e_request_latency_seconds", "From arrival to the last token.", _LATENCY_BUCKETS_S
        )
        self._registry = CollectorRegistry()
        self._registry.register(_AliasCollector(own))

    def timer(self, started_s: float) -> "ChoiceTimer":
        """Takes the times of one choice; `started_s`: its arrival, by `time.monotonic`."""
        return ChoiceTimer(self, started_s)

    def count_ended(self, reason: FinishReason) -> None:
        """A choice has ended."""
        self._ended[reason].inc()

    def count_ignored_fields(self, num_fields: int) -> None:
        """A request had fields that nobody knows."""
        self._ignored_fields.inc(num_fields)

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        return generate_latest(self._registry)


class ChoiceTimer:
    """Takes the times of one choice."""

    __slots__ = ("_last_s", "_metrics", "_started_s")

    def __init__(self, metrics: Metrics, started_s: float) -> None:
        self._metrics = metrics
        self._started_s = started_s
        self._last_s: float | None = None

    def on_tokens(self, num_tokens: int) -> None:
        """Tokens have come; several at once share the time since the last ones."""
        if num_tokens == 0:
            return
        now_s = time.monotonic()
        if self._last_s is None:
            self._metrics.time_to_first_token.observe(now_s - self._started_s)
        else:
            latency_s = (now_s - self._last_s) / num_tokens
            for _ in range(num_tokens):
                self._metrics.inter_token_latency.observe(latency_s)
        self._last_s = now_s

    def on_end(self, reason: FinishReason) -> None:
        """The choice has ended."""
        self._metrics.count_ended(reason)
        self._metrics.e2e_request_latency.observe(time.monotonic() - self._started_s)
