"""What the server counts of requests, in this process."""

from prometheus_client import CollectorRegistry, Counter

from leadline.engine.request import FinishReason
from leadline.server.engine_metrics import LABELS, PREFIX
from leadline.server.latency_counts import BulkHistogram, LatencyCounts
from leadline.server.request_record import ChoiceRecord, RequestRecord

# vLLM's bounds, and finer ones below where answers can be quicker.
_TTFT_BOUNDS_S = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
_ITL_BOUNDS_S = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2),
    *(0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_LATENCY_BOUNDS_S = (
    *(0.05, 0.1, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0),
    *(30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
_CHOICE_BOUNDS = (1, 2, 5, 10, 20, 50, 100)
_PREEMPTION_BOUNDS = (0, 1, 2, 5, 10, 20, 50)
_OUTCOMES = {True: "tool_call", False: "no_tool_call"}
# Name, help, bounds; without any, those of numbers of tokens.
_HISTOGRAMS: tuple[tuple[str, str, tuple[float, ...]], ...] = (
    ("time_to_first_token_seconds", "From arrival to the first token.", _TTFT_BOUNDS_S),
    ("inter_token_latency_seconds", "Between a choice's tokens.", _ITL_BOUNDS_S),
    ("e2e_request_latency_seconds", "From arrival to a choice's end.", _LATENCY_BOUNDS_S),
    (
        "request_queue_time_seconds",
        "From a choice's arrival in the engine until it first had cache pages.",
        _LATENCY_BOUNDS_S,
    ),
    (
        "request_prefill_time_seconds",
        "From a choice's first cache pages to its first token.",
        _LATENCY_BOUNDS_S,
    ),
    (
        "request_decode_time_seconds",
        "From a choice's first token to its last one.",
        _LATENCY_BOUNDS_S,
    ),
    (
        "request_inference_time_seconds",
        "From a choice's first cache pages to its last token.",
        _LATENCY_BOUNDS_S,
    ),
    (
        "request_time_per_output_token_seconds",
        "Mean time of a choice's tokens after the first one.",
        _ITL_BOUNDS_S,
    ),
    (
        "request_num_preemptions",
        "How often a choice lost its cache pages.",
        _PREEMPTION_BOUNDS,
    ),
    ("request_prompt_tokens", "Tokens of a choice's prompt.", ()),
    (
        "request_prefill_kv_computed_tokens",
        "Tokens of a choice's prompt that had to be computed.",
        (),
    ),
    ("request_generation_tokens", "Tokens of a choice.", ()),
    ("request_max_num_generation_tokens", "Tokens of a request's longest choice.", ()),
    ("request_params_n", "Choices that a request asks for, by prompt.", _CHOICE_BOUNDS),
    ("request_params_max_tokens", "Most tokens that a request allows a choice.", ()),
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_OTHER = "other"


def token_bounds(max_tokens: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, ... up to `max_tokens`: vLLM's bounds of numbers of tokens."""
    exponents = range(len(str(max_tokens)))
    bounds = (lead * 10**exponent for exponent in exponents for lead in (1, 2, 5))
    return tuple(bound for bound in bounds if bound <= max_tokens)


class RequestMetrics:
    """Counters and histograms of requests, their choices, and HTTP.

    Where the environment names PROMETHEUS_MULTIPROC_DIR when this is imported, they lie in files
    there, so that any process can tell of all.
    """

    def __init__(self, model_name: str, max_model_len: int, registry: CollectorRegistry) -> None:
        """`max_model_len`: most tokens of a request; `registry` gets the metrics."""
        self._model_name = model_name
        self._registry = registry
        tokens = token_bounds(max_model_len)
        self._histograms = {
            name: self._histogram(name, help_text, bounds or tokens)
            for name, help_text, bounds in _HISTOGRAMS
        }
        latencies = self._histograms["inter_token_latency_seconds"]
        self._latencies = LatencyCounts(latencies, _ITL_BOUNDS_S)
        self._ignored_fields = self._counter(
            "ignored_fields", "Request fields that nobody knows."
        ).labels(model_name)
        ended = self._counter(
            "request_success", "Choices that ended, by finish reason.", "finished_reason"
        )
        self._ended = {reason: ended.labels(model_name, reason.value) for reason in FinishReason}
        calls = self._counter(
            "tool_call_parser_invocations",
            "Choices that were read for tool calls, by whether there was one.",
            "outcome",
        )
        self._calls = {
            has_call: calls.labels(model_name, outcome) for has_call, outcome in _OUTCOMES.items()
        }
        self._http = self._counter(
            "http_requests",
            "HTTP requests that are over, by route, method and class of status.",
            *("handler", "method", "status"),
        )

    def count_ignored_fields(self, num_fields: int) -> None:
        """A request had fields that nobody knows."""
        self._ignored_fields.inc(num_fields)

    def count_http(self, route: str | None, method: str, status: int | None) -> None:
        """An HTTP request is over.

        Args:
            route: its template; None for a path that is none.
            method: its own.
            status: of the answer; None if the client left before.
        """
        method = method if method in _METHODS else _OTHER
        status_class = "none" if status is None else f"{status // 100}xx"
        self._http.labels(self._model_name, route or _OTHER, method, status_class).inc()

    def on_first_tokens(self, latency_s: float) -> None:
        """A choice's first tokens came so long after the request."""
        self._histograms["time_to_first_token_seconds"].observe(latency_s)

    def on_more_tokens(self, num_tokens: int, gap_s: float) -> None:
        """So many more tokens came together, so long after those before them."""
        self._latencies.add(num_tokens, gap_s)

    def flush(self) -> None:
        """Bring all metrics up to date; where many processes count, each does so by itself too."""
        self._latencies.flush()

    def on_choice_end(self, choice: ChoiceRecord, arrived_s: float) -> None:
        """A choice has ended, of a request that came at `arrived_s`."""
        assert choice.reason is not None, "a choice that ends has a reason"
        assert choice.end_s is not None, "and a time"
        self.flush()
        self._ended[choice.reason].inc()
        if choice.has_call is not None:
            self._calls[choice.has_call].inc()
        observe = self._observe
        observe("e2e_request_latency_seconds", choice.end_s - arrived_s)
        observe("request_prompt_tokens", choice.num_prompt_tokens)
        observe("request_generation_tokens", choice.num_tokens)
        timing, decode_s = choice.timing, choice.decode_s
        if timing is None:
            return
        observe("request_queue_time_seconds", timing.queue_s)
        observe("request_num_preemptions", timing.num_preemptions)
        if decode_s is None:
            return
        observe("request_prefill_time_seconds", timing.prefill_s)
        observe("request_prefill_kv_computed_tokens", choice.num_computed_prompt_tokens)
        observe("request_decode_time_seconds", decode_s)
        observe("request_inference_time_seconds", timing.prefill_s + decode_s)
        if choice.num_tokens > 1:
            observe("request_time_per_output_token_seconds", decode_s / (choice.num_tokens - 1))

    def on_request_end(self, record: RequestRecord) -> None:
        """All choices of a request have ended."""
        self._observe("request_params_n", record.num_choices)
        self._observe("request_params_max_tokens", record.first.params.max_tokens)
        most = max(choice.num_tokens for choice in record.choices)
        self._observe("request_max_num_generation_tokens", most)

    def _observe(self, name: str, value: float) -> None:
        self._histograms[name].observe(value)

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(PREFIX + name, help_text, (*LABELS, *labels), registry=self._registry)

    def _histogram(self, name: str, help_text: str, bounds: tuple[float, ...]) -> BulkHistogram:
        metric = BulkHistogram(
            PREFIX + name, help_text, LABELS, registry=self._registry, buckets=bounds
        )
        return metric.labels(self._model_name)
