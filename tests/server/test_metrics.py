import pytest
from prometheus_client.parser import text_string_to_metric_families

from leadline.engine.histogram import Histogram
from leadline.engine.messages import EngineStats, GrammarCounts
from leadline.engine.request import (
    EngineRequest,
    FinishReason,
    RequestTiming,
    SamplingParams,
)
from leadline.server.metrics import Metrics
from leadline.server.request_metrics import token_bounds
from leadline.server.request_record import ChoiceRecord, RequestRecord


def metrics_of(stats: EngineStats | None = None) -> Metrics:
    return Metrics("m", lambda: stats or EngineStats(), max_model_len=200)


def samples(metrics: Metrics) -> dict[str, float]:
    """Value by `name{label}`, without the model's name."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        assert family.documentation, family.name
        for sample in family.samples:
            assert sample.labels.pop("model_name") == "m"
            labels = ",".join(f"{name}={value}" for name, value in sample.labels.items())
            key = f"{sample.name}{{{labels}}}"
            assert key not in found, key
            found[key] = sample.value
    return found


def test_what_the_engine_says_is_shown_under_both_names() -> None:
    stats = EngineStats(
        num_running=3, num_waiting=2, page_usage=0.25, prompt_tokens=70, generation_tokens=50
    )
    shown = samples(metrics_of(stats))
    for prefix in ("leadline", "vllm"):
        assert shown[f"{prefix}:num_requests_running{{}}"] == 3
        assert shown[f"{prefix}:num_requests_waiting{{}}"] == 2
        assert shown[f"{prefix}:kv_cache_usage_perc{{}}"] == 0.25
        assert shown[f"{prefix}:prompt_tokens_total{{}}"] == 70
        assert shown[f"{prefix}:generation_tokens_total{{}}"] == 50
        assert shown[f"{prefix}:num_preemptions_total{{}}"] == 0
        assert shown[f"{prefix}:prefix_cache_queries_total{{}}"] == 0
        assert shown[f"{prefix}:prefix_cache_hits_total{{}}"] == 0


def test_speculation_is_counted_by_position() -> None:
    stats = EngineStats(num_drafts=10, num_draft_tokens=25, num_accepted_per_pos=[8, 4, 1])
    assert stats.acceptance_length == 2.3
    assert EngineStats().acceptance_length is None
    shown = samples(metrics_of(stats))
    for prefix in ("leadline:spec_decode", "vllm:spec_decode"):
        assert shown[f"{prefix}_num_drafts_total{{}}"] == 10
        assert shown[f"{prefix}_num_draft_tokens_total{{}}"] == 25
        assert shown[f"{prefix}_num_accepted_tokens_total{{}}"] == 13
        assert shown[f"{prefix}_num_accepted_tokens_per_pos_total{{position=1}}"] == 4


def test_what_the_cache_and_the_queue_did() -> None:
    stats = EngineStats(
        num_cached_pages=5,
        num_corrupted_requests=1,
        num_corrupted_pages=2,
        prefix_cache_evictions=7,
        admission_rejections={"max_queued_requests": 2, "max_queued_tokens": 3},
        host_cache_queries=64,
        host_cache_hits=32,
        host_cache_usage=0.5,
    )
    shown = samples(metrics_of(stats))
    for prefix in ("leadline", "vllm"):
        assert shown[f"{prefix}:num_cached_pages{{}}"] == 5
        assert shown[f"{prefix}:corrupted_requests_total{{}}"] == 1
        assert shown[f"{prefix}:corrupted_pages_total{{}}"] == 2
        assert shown[f"{prefix}:prefix_cache_evictions_total{{}}"] == 7
        rejections = f"{prefix}:admission_rejections_total"
        assert shown[f"{rejections}{{reason=max_queued_requests}}"] == 2
        assert shown[f"{rejections}{{reason=max_queued_tokens}}"] == 3
        assert shown[f"{prefix}:external_prefix_cache_queries_total{{}}"] == 64
        assert shown[f"{prefix}:external_prefix_cache_hits_total{{}}"] == 32
        assert shown[f"{prefix}:kv_offload_cpu_cache_usage_perc{{}}"] == 0.5


def record_of(*choices: ChoiceRecord, num_choices: int = 1) -> RequestRecord:
    params = SamplingParams(seed=0, max_tokens=16)
    return RequestRecord(
        request_id="r",
        response_id="cmpl-r",
        model="m",
        num_choices=num_choices,
        first=EngineRequest(request_id="r", prompt_ids=[1, 2, 3], params=params, arrival_s=0.0),
        choices=list(choices),
        arrived_s=100.0,
    )


def test_a_choice_is_timed_and_counted() -> None:
    metrics = metrics_of()
    timing = RequestTiming(queue_s=0.2, prefill_s=0.7, decode_s=9.0, num_preemptions=3)
    choice = ChoiceRecord(
        num_prompt_tokens=30,
        num_cached_tokens=20,
        num_tokens=5,
        first_token_s=101.0,
        last_token_s=103.0,
        end_s=103.5,
        timing=timing,
        has_call=True,
        reason=FinishReason.STOP,
    )
    metrics.requests.on_first_tokens(1.0)
    metrics.requests.on_more_tokens(4, 2.0)
    metrics.requests.on_choice_end(choice, 100.0)
    metrics.requests.on_request_end(record_of(choice))
    shown = samples(metrics)
    sums = {
        "time_to_first_token_seconds": 1.0,
        "inter_token_latency_seconds": 2.0,
        "e2e_request_latency_seconds": 3.5,
        "request_queue_time_seconds": 0.2,
        "request_prefill_time_seconds": 0.7,
        "request_decode_time_seconds": 2.0,
        "request_inference_time_seconds": 2.7,
        "request_time_per_output_token_seconds": 0.5,
        "request_num_preemptions": 3,
        "request_prompt_tokens": 30,
        "request_prefill_kv_computed_tokens": 10,
        "request_generation_tokens": 5,
        "request_max_num_generation_tokens": 5,
        "request_params_n": 1,
        "request_params_max_tokens": 16,
    }
    for prefix in ("leadline", "vllm"):
        for name, total in sums.items():
            assert shown[f"{prefix}:{name}_sum{{}}"] == pytest.approx(total), name
            expected = 4 if name == "inter_token_latency_seconds" else 1
            assert shown[f"{prefix}:{name}_count{{}}"] == expected, name
        assert shown[f"{prefix}:request_success_total{{finished_reason=stop}}"] == 1
        assert shown[f"{prefix}:request_success_total{{finished_reason=length}}"] == 0
        calls = f"{prefix}:tool_call_parser_invocations_total"
        assert shown[f"{calls}{{outcome=tool_call}}"] == 1
        assert shown[f"{calls}{{outcome=no_tool_call}}"] == 0


def test_what_a_choice_has_not_lived_to_see_is_not_observed() -> None:
    metrics = metrics_of()
    ended = {"end_s": 101.0, "reason": FinishReason.ABORT}
    metrics.requests.on_choice_end(ChoiceRecord(num_prompt_tokens=3, **ended), 100.0)
    waited = ChoiceRecord(num_prompt_tokens=3, timing=RequestTiming(queue_s=0.5), **ended)
    metrics.requests.on_choice_end(waited, 100.0)
    one_token = ChoiceRecord(
        num_prompt_tokens=3,
        num_tokens=1,
        timing=RequestTiming(),
        first_token_s=100.5,
        last_token_s=100.5,
        **ended,
    )
    metrics.requests.on_choice_end(one_token, 100.0)
    shown = samples(metrics)
    assert shown["leadline:e2e_request_latency_seconds_count{}"] == 3
    assert shown["leadline:request_queue_time_seconds_count{}"] == 2
    assert shown["leadline:request_decode_time_seconds_count{}"] == 1
    assert shown["leadline:request_time_per_output_token_seconds_count{}"] == 0


def test_the_longest_choice_of_a_request() -> None:
    metrics = metrics_of()
    choices = [ChoiceRecord(num_prompt_tokens=3, num_tokens=n) for n in (4, 9, 2, 1)]
    metrics.requests.on_request_end(record_of(*choices, num_choices=2))
    shown = samples(metrics)
    assert shown["leadline:request_max_num_generation_tokens_sum{}"] == 9
    assert shown["leadline:request_params_n_sum{}"] == 2


def test_numbers_of_tokens_have_bounds_up_to_the_model_s() -> None:
    assert token_bounds(200) == (1, 2, 5, 10, 20, 50, 100, 200)
    assert token_bounds(199) == (1, 2, 5, 10, 20, 50, 100)
    assert token_bounds(1) == (1,)


def test_http_requests_have_few_labels() -> None:
    metrics = metrics_of()
    for route, method, status in (
        ("/v1/models", "GET", 200),
        (None, "GET", 404),
        (None, "BREW", 404),
        ("/v1/models", "X", None),
    ):
        metrics.requests.count_http(route, method, status)
    shown = samples(metrics)
    name = "leadline:http_requests_total"
    assert shown[f"{name}{{handler=/v1/models,method=GET,status=2xx}}"] == 1
    assert shown[f"{name}{{handler=other,method=GET,status=4xx}}"] == 1
    assert shown[f"{name}{{handler=other,method=other,status=4xx}}"] == 1
    assert shown[f"{name}{{handler=/v1/models,method=other,status=none}}"] == 1


def test_the_cache_is_described() -> None:
    info = {"block_size": "64", "num_gpu_blocks": "8"}
    shown = samples(Metrics("m", EngineStats, max_model_len=200, cache_info=info))
    for prefix in ("leadline", "vllm"):
        assert shown[f"{prefix}:cache_config_info{{block_size=64,num_gpu_blocks=8}}"] == 1


def test_host_pages_grammars_and_draft_depths() -> None:
    stats = EngineStats(
        host_pages_stored=5,
        host_pages_loaded=3,
        host_pages_lost=1,
        grammars=GrammarCounts(num_queries=4, num_hits=3, times=Histogram([1, *[0] * 12], 0.0005)),
        draft_depths=Histogram([1, 0, 3, *[0] * 7], 6.0),
        page_lifetimes=Histogram([2, *[0] * 21], 0.002),
        page_idle_times=Histogram([0, 1, *[0] * 20], 0.002),
        page_reuse_gaps=Histogram([0, 0, 4, *[0] * 19], 0.016),
    )
    shown = samples(metrics_of(stats))
    for prefix in ("leadline", "vllm"):
        for what, count in (("stored", 5), ("loaded", 3), ("lost", 1)):
            assert shown[f"{prefix}:host_pages_{what}_total{{}}"] == count
        assert shown[f"{prefix}:grammar_queries_total{{}}"] == 4
        assert shown[f"{prefix}:grammar_cache_hits_total{{}}"] == 3
        assert shown[f"{prefix}:grammar_compilation_time_seconds_count{{}}"] == 1
        assert shown[f"{prefix}:draft_depth_bucket{{le=1.0}}"] == 1
        assert shown[f"{prefix}:draft_depth_bucket{{le=2.0}}"] == 4
        assert shown[f"{prefix}:kv_block_lifetime_seconds_count{{}}"] == 2
        assert shown[f"{prefix}:kv_block_idle_before_evict_seconds_count{{}}"] == 1
        assert shown[f"{prefix}:kv_block_reuse_gap_seconds_count{{}}"] == 4


def test_every_finish_reason_is_there_from_the_start() -> None:
    shown = samples(metrics_of())
    for reason in FinishReason:
        assert shown[f"leadline:request_success_total{{finished_reason={reason.value}}}"] == 0


def test_steps_pages_and_sources() -> None:
    stats = EngineStats(
        num_waiting=3,
        num_deferred=1,
        prompt_tokens=100,
        cached_prompt_tokens=60,
        host_prompt_tokens=20,
        step_tokens=Histogram([1, 2, *[0] * 12], 15.0),
    )
    shown = samples(metrics_of(stats))
    for prefix in ("leadline", "vllm"):
        steps = f"{prefix}:iteration_tokens_total"
        assert shown[f"{steps}_bucket{{le=1.0}}"] == 1
        assert shown[f"{steps}_bucket{{le=8.0}}"] == 3
        assert shown[f"{steps}_count{{}}"] == 3
        assert shown[f"{steps}_sum{{}}"] == 15
        assert shown[f"{prefix}:kv_block_lifetime_seconds_count{{}}"] == 0
        sources = f"{prefix}:prompt_tokens_by_source_total"
        assert shown[f"{sources}{{source=local_compute}}"] == 40
        assert shown[f"{sources}{{source=local_cache_hit}}"] == 40
        assert shown[f"{sources}{{source=external_kv_transfer}}"] == 20
        reasons = f"{prefix}:num_requests_waiting_by_reason"
        assert shown[f"{reasons}{{reason=capacity}}"] == 2
        assert shown[f"{reasons}{{reason=deferred}}"] == 1


@pytest.mark.parametrize(
    ("level", "state"), [(0, "awake"), (1, "weights_offloaded"), (2, "discard_all")]
)
def test_how_the_engine_sleeps(level: int, state: str) -> None:
    shown = samples(metrics_of(EngineStats(sleep_level=level)))
    for name in ("awake", "weights_offloaded", "discard_all"):
        assert shown[f"vllm:engine_sleep_state{{sleep_state={name}}}"] == (name == state)


def test_cached_tokens_by_the_memory_that_held_them() -> None:
    stats = EngineStats(prompt_tokens=100, cached_prompt_tokens=70, host_prompt_tokens=20)
    shown = samples(metrics_of(stats))
    name = "vllm:prompt_tokens_cached_by_source_total"
    assert shown[f"{name}{{source=device}}"] == 50
    assert shown[f"{name}{{source=host}}"] == 20
