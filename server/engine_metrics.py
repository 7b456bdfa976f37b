"""The engine's own gauges, counters and histograms, as Prometheus metrics."""

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from leadline.engine import histogram as bounds
from leadline.engine.histogram import Histogram as EngineHistogram
from leadline.engine.messages import EngineStats

PREFIX = "leadline:"
LABELS = ("model_name",)

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
    (
        "expert_balancedness",
        lambda s: s.balance.balancedness,
        "Mean over largest load of the ranks' experts in the last window, 0 to 1; 0 before.",
    ),
    (
        "expert_balancedness_predicted",
        lambda s: s.balance.predicted,
        "What that would have been with the experts as they were placed then.",
    ),
)
_COUNTERS: tuple[_Reading, ...] = (
    (
        "prompt_tokens_cached",
        lambda s: s.cached_prompt_tokens,
        "Prompt tokens that did not have to be computed.",
    ),
    ("grammar_queries", lambda s: s.grammars.num_queries, "Grammars asked for."),
    (
        "grammar_cache_hits",
        lambda s: s.grammars.num_hits,
        "Grammars asked for that were compiled already.",
    ),
    ("host_pages_stored", lambda s: s.host_pages_stored, "Pages copied to host memory."),
    ("host_pages_loaded", lambda s: s.host_pages_loaded, "Pages copied back from host memory."),
    (
        "host_pages_lost",
        lambda s: s.host_pages_lost,
        "Pages in host memory that were of no use because of a wrong checksum.",
    ),
    (
        "expert_dispatch_layers",
        lambda s: s.dispatch.num_layers,
        "Layers whose tokens may have experts on other ranks, passed by the ranks that report.",
    ),
    (
        "expert_dispatch_tokens",
        lambda s: s.dispatch.num_tokens,
        "Tokens sent to their experts, counted once a layer.",
    ),
    (
        "expert_dispatch_bytes",
        lambda s: s.dispatch.num_bytes,
        "Bytes sent to experts on other ranks and back.",
    ),
    (
        "expert_dispatch_seconds",
        lambda s: s.dispatch.seconds,
        "Time in dispatch and combine, waiting for other ranks included.",
    ),
    (
        "expert_balance_windows",
        lambda s: s.balance.num_windows,
        "Windows of steps after which the experts' load was looked at.",
    ),
    (
        "expert_balance_windows_skipped",
        lambda s: s.balance.num_skipped,
        "Of these, windows after which nothing was worth moving.",
    ),
    (
        "expert_layers_moved",
        lambda s: s.balance.num_switched_layers,
        "Layers whose experts have been placed anew.",
    ),
    (
        "expert_layers_refused",
        lambda s: s.balance.num_refused_layers,
        "Layers that stayed as they were because weights came with a wrong checksum.",
    ),
    (
        "expert_moved_bytes",
        lambda s: s.balance.num_moved_bytes,
        "Bytes of experts' weights sent from rank to rank.",
    ),
    ("prompt_tokens", lambda s: s.prompt_tokens, "Prompt tokens of accepted requests."),
    ("generation_tokens", lambda s: s.generation_tokens, "Tokens generated."),
    ("num_preemptions", lambda s: s.num_preemptions, "Requests put back for want of cache pages."),
    (
        "corrupted_requests",
        lambda s: s.num_corrupted_requests,
        "Requests that failed because their logits were not finite.",
    ),
    (
        "corrupted_pages",
        lambda s: s.num_corrupted_pages,
        "Cached pages that had changed since they were computed.",
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
_Bounds = tuple[float, ...]
_HistogramReading = tuple[str, Callable[[EngineStats], EngineHistogram], _Bounds, str]
_HISTOGRAMS: tuple[_HistogramReading, ...] = (
    (
        "iteration_tokens_total",
        lambda s: s.step_tokens,
        bounds.STEP_TOKENS_BOUNDS,
        "Tokens that a step computed, verified drafts included.",
    ),
    (
        "step_time_seconds",
        lambda s: s.step_times,
        bounds.STEP_TIME_BOUNDS_S,
        "Time that the executor worked on a step.",
    ),
    (
        "draft_depth",
        lambda s: s.draft_depths,
        bounds.DRAFT_DEPTH_BOUNDS,
        "Draft depth chosen for a step with decoding requests.",
    ),
    (
        "kv_block_lifetime_seconds",
        lambda s: s.page_lifetimes,
        bounds.PAGE_TIME_BOUNDS_S,
        "From a cached page's allocation until it is given away.",
    ),
    (
        "kv_block_idle_before_evict_seconds",
        lambda s: s.page_idle_times,
        bounds.PAGE_TIME_BOUNDS_S,
        "From a cached page's last use until it is given away.",
    ),
    (
        "kv_block_reuse_gap_seconds",
        lambda s: s.page_reuse_gaps,
        bounds.PAGE_TIME_BOUNDS_S,
        "Between two requests that take the same page.",
    ),
    (
        "grammar_compilation_time_seconds",
        lambda s: s.grammars.times,
        bounds.GRAMMAR_TIME_BOUNDS_S,
        "Time that a grammar took to compile.",
    ),
)


class EngineCollector(Collector):
    """The engine's own gauges and counters, as of its last message."""

    def __init__(self, model_name: str, stats: Callable[[], EngineStats]) -> None:
        self._model_name = model_name
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """All of them, as of the engine's last message."""
        stats = self._stats()
        for name, read, help_text in _GAUGES:
            gauge = GaugeMetricFamily(PREFIX + name, help_text, labels=LABELS)
            gauge.add_metric([self._model_name], read(stats))
            yield gauge
        for name, read, help_text in _COUNTERS:
            counter = CounterMetricFamily(PREFIX + name, help_text, labels=LABELS)
            counter.add_metric([self._model_name], read(stats))
            yield counter
        for name, histogram, upper, help_text in _HISTOGRAMS:
            yield self._histogram(name, help_text, upper, histogram(stats))
        yield from self._by_label(stats)

    def _by_label(self, stats: EngineStats) -> Iterator[Metric]:
        """What is told with one more label: every value of it, and the number."""
        num_host, num_cached = stats.host_prompt_tokens, stats.cached_prompt_tokens
        num_capacity = stats.num_waiting - stats.num_deferred
        level = stats.sleep_level
        yield self._labelled(
            CounterMetricFamily,
            "spec_decode_num_accepted_tokens_per_pos",
            "Draft tokens accepted, by their position in the draft.",
            "position",
            {str(position): count for position, count in enumerate(stats.num_accepted_per_pos)},
        )
        yield self._labelled(
            CounterMetricFamily,
            "prompt_tokens_by_source",
            "Prompt tokens, by where their latents came from.",
            "source",
            {
                "local_compute": stats.prompt_tokens - num_cached,
                "local_cache_hit": num_cached - num_host,
                "external_kv_transfer": num_host,
            },
        )
        yield self._labelled(
            CounterMetricFamily,
            "prompt_tokens_cached_by_source",
            "Prompt tokens that did not have to be computed, by the memory that had their latents.",
            "source",
            {"device": num_cached - num_host, "host": num_host},
        )
        yield self._labelled(
            GaugeMetricFamily,
            "num_requests_waiting_by_reason",
            "Requests that wait: for room (capacity), or for their grammar (deferred).",
            "reason",
            {"capacity": num_capacity, "deferred": stats.num_deferred},
        )
        yield self._labelled(
            CounterMetricFamily,
            "admission_rejections",
            "Requests refused because too much waited already, by reason.",
            "reason",
            stats.admission_rejections,
        )
        yield self._labelled(
            GaugeMetricFamily,
            "engine_sleep_state",
            "1 for what the engine is: awake, asleep at level 1 (weights_offloaded, though here "
            "they stay) or at level 2 (discard_all).",
            "sleep_state",
            {"awake": level == 0, "weights_offloaded": level == 1, "discard_all": level == 2},
        )

    def _labelled(
        self,
        family_type: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        help_text: str,
        label: str,
        values: Mapping[str, float],
    ) -> Metric:
        family = family_type(PREFIX + name, help_text, labels=(*LABELS, label))
        for value, number in values.items():
            family.add_metric([self._model_name, value], number)
        return family

    def _histogram(
        self, name: str, help_text: str, upper: _Bounds, histogram: EngineHistogram
    ) -> Metric:
        counts = histogram.counts or [0] * (len(upper) + 1)
        edges = [*map(floatToGoString, upper), "+Inf"]
        buckets = list(zip(edges, accumulate(counts), strict=True))
        family = HistogramMetricFamily(PREFIX + name, help_text, labels=LABELS)
        family.add_metric([self._model_name], buckets, sum_value=histogram.total)
        return family
