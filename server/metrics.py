"""Prometheus metrics, under Leadline's names and under those that vLLM's dashboards know."""

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from leadline.engine.messages import EngineStats
from leadline.engine.request import FinishReason

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PREFIX = "leadline:"
_ALIAS_PREFIX = "vllm:"

_Reading = tuple[str, Callable[[EngineStats], float], str]
_GAUGES: tuple[_Reading, ...] = (
    ("num_requests_running", lambda s: s.num_running, "Requests in the running batch."),
    ("num_requests_waiting", lambda s: s.num_waiting, "Requests that wait for room in the batch."),
    ("kv_cache_usage_perc", lambda s: s.page_usage, "Share of cache pages in use, 0 to 1."),
    ("num_cached_pages", lambda s: s.num_cached_pages, "Pages that the prefix cache lists."),
    (
        "kv_offload_cpu_cache_usage_perc",
        lambda s: s.host_cache_usage,
        "Share of the pages in host memory that are in use, 0 to 1.",
    ),
)
_COUNTERS: tuple[_Reading, ...] = (
    ("prompt_tokens", lambda s: s.prompt_tokens, "Prompt tokens of accepted requests."),
    ("generation_tokens", lambda s: s.generation_tokens, "Tokens generated."),
    ("num_preemptions", lambda s: s.num_preemptions, "Requests put back for want of cache pages."),
    (
        "corrupted_requests",
        lambda s: s.num_corrupted_requests,
        "Requests that failed because their logits were not finite.",
    ),
    (
        "prefix_cache_queries",
        lambda s: s.prefix_cache_queries,
        "Prompt tokens looked up in the cache.",
    ),
    ("prefix_cache_hits", lambda s: s.prefix_cache_hits, "Prompt tokens found in the cache."),
    (
        "prefix_cache_evictions",
        lambda s: s.prefix_cache_evictions,
        "Cached pages given up for want of free ones.",
    ),
    (
        "external_prefix_cache_queries",
        lambda s: s.host_cache_queries,
        "Prompt tokens looked up in host memory.",
    ),
    (
        "external_prefix_cache_hits",
        lambda s: s.host_cache_hits,
        "Prompt tokens found in host memory.",
    ),
    (
        "spec_decode_num_drafts",
        lambda s: s.num_drafts,
        "Drafts that were verified, of a token or more.",
    ),
    (
        "spec_decode_num_draft_tokens",
        lambda s: s.num_draft_tokens,
        "Draft tokens that were verified.",
    ),
    (
        "spec_decode_num_accepted_tokens",
        lambda s: s.num_accepted_tokens,
        "Draft tokens accepted.",
    ),
)
_ACCEPTED_PER_POSITION = "spec_decode_num_accepted_tokens_per_pos"
_LABELS = ("model_name",)
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


class _EngineCollector(Collector):
    """The engine's own gauges and counters, as of its last message."""

    def __init__(self, model_name: str, stats: Callable[[], EngineStats]) -> None:
        self._model_name = model_name
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        stats = self._stats()
        for name, read, help_text in _GAUGES:
            gauge = GaugeMetricFamily(_PREFIX + name, help_text, labels=_LABELS)
            gauge.add_metric([self._model_name], read(stats))
            yield gauge
        for name, read, help_text in _COUNTERS:
            counter = CounterMetricFamily(_PREFIX + name, help_text, labels=_LABELS)
            counter.add_metric([self._model_name], read(stats))
            yield counter
        accepted = CounterMetricFamily(
            _PREFIX + _ACCEPTED_PER_POSITION,
            "Draft tokens accepted, by their position in the draft.",
            labels=(*_LABELS, "position"),
        )
        for position, count in enumerate(stats.num_accepted_per_pos):
            accepted.add_metric([self._model_name, str(position)], count)
        yield accepted
        rejections = CounterMetricFamily(
            _PREFIX + "admission_rejections",
            "Requests refused because too much waited already, by reason.",
            labels=(*_LABELS, "reason"),
        )
        for reason, count in stats.admission_rejections.items():
            rejections.add_metric([self._model_name, reason], count)
        yield rejections


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
                metric.name.replace(_PREFIX, _ALIAS_PREFIX, 1), metric.documentation, metric.type
            )
            alias.samples = [
                sample._replace(name=sample.name.replace(_PREFIX, _ALIAS_PREFIX, 1))
                for sample in metric.samples
            ]
            yield alias


class Metrics:
    """What this server counts, and what its engine says."""

    def __init__(self, model_name: str, stats: Callable[[], EngineStats]) -> None:
        """`stats`: the engine's, asked for at each scrape."""
        own = CollectorRegistry()
        own.register(_EngineCollector(model_name, stats))

        def histogram(name: str, help_text: str, buckets: tuple[float, ...]) -> Histogram:
            metric = Histogram(_PREFIX + name, help_text, _LABELS, registry=own, buckets=buckets)
            return metric.labels(model_name)

        success = Counter(
            f"{_PREFIX}request_success",
            "Choices that ended, by finish reason.",
            (*_LABELS, "finished_reason"),
            registry=own,
        )
        self._ended = {reason: success.labels(model_name, reason.value) for reason in FinishReason}
        self._ignored_fields = Counter(
            f"{_PREFIX}ignored_fields",
            "Request fields that nobody knows.",
            _LABELS,
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
