"""Prometheus metrics, under Leadline's names and under those that vLLM's dashboards know."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest, values
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from leadline.engine.messages import EngineStats
from leadline.server.engine_metrics import LABELS, PREFIX, EngineCollector
from leadline.server.request_metrics import RequestMetrics

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ALIAS_PREFIX = "vllm:"


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


class _CacheInfoCollector(Collector):
    """What routers want to know of the cache, as labels of a gauge."""

    def __init__(self, model_name: str, labels: Mapping[str, str]) -> None:
        self._labels = {LABELS[0]: model_name, **labels}

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            f"{PREFIX}cache_config_info",
            "The cache; a block is a page of it.",
            labels=tuple(self._labels),
        )
        family.add_metric(tuple(self._labels.values()), 1.0)
        yield family


class Metrics:
    """What is shown: what the engine says, and what all processes of the server count.

    Attributes:
        requests: what this process counts.
    """

    def __init__(
        self,
        model_name: str,
        stats: Callable[[], EngineStats],
        *,
        max_model_len: int,
        cache_info: Mapping[str, str] | None = None,
    ) -> None:
        """Show nothing but zeros yet.

        Args:
            model_name: the label of everything.
            stats: the engine's, asked for at each scrape.
            max_model_len: most tokens of a request.
            cache_info: what there is to know of the cache, by label.
        """
        counted = CollectorRegistry()
        self.requests = RequestMetrics(model_name, max_model_len, counted)
        shown = CollectorRegistry()
        shown.register(EngineCollector(model_name, stats))
        if cache_info:
            shown.register(_CacheInfoCollector(model_name, cache_info))
        if values.ValueClass is values.MutexValue:
            shown.register(counted)
        else:
            MultiProcessCollector(shown)  # type: ignore[no-untyped-call] # registers itself
        self._shown = shown
        self._registry = CollectorRegistry()
        self._registry.register(_AliasCollector(shown))

    def render(self) -> bytes:
        """All metrics in the Prometheus text format."""
        self.requests.flush()
        return generate_latest(self._registry)

    def buckets(self, name: str) -> list[tuple[float, int]]:
        """The bounds of a histogram's buckets, ascending, and the observations up to each."""
        self.requests.flush()
        full_name = f"{PREFIX}{name}_bucket"
        return sorted(
            (float(sample.labels["le"]), int(sample.value))
            for metric in self._shown.collect()
            for sample in metric.samples
            if sample.name == full_name
        )
