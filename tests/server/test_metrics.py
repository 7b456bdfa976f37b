from prometheus_client.parser import text_string_to_metric_families

from leadline.engine.histogram import Histogram
from leadline.engine.messages import EngineStats
from leadline.engine.request import FinishReason
from leadline.server.metrics import Metrics


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
    shown = samples(Metrics("m", lambda: stats))
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
    shown = samples(Metrics("m", lambda: stats))
    for prefix in ("leadline:spec_decode", "vllm:spec_decode"):
        assert shown[f"{prefix}_num_drafts_total{{}}"] == 10
        assert shown[f"{prefix}_num_draft_tokens_total{{}}"] == 25
        assert shown[f"{prefix}_num_accepted_tokens_total{{}}"] == 13
        assert shown[f"{prefix}_num_accepted_tokens_per_pos_total{{position=1}}"] == 4


def test_what_the_cache_and_the_queue_did() -> None:
    stats = EngineStats(
        num_cached_pages=5,
        num_corrupted_requests=1,
        prefix_cache_evictions=7,
        admission_rejections={"max_queued_requests": 2, "max_queued_tokens": 3},
        host_cache_queries=64,
        host_cache_hits=32,
        host_cache_usage=0.5,
    )
    shown = samples(Metrics("m", lambda: stats))
    for prefix in ("leadline", "vllm"):
        assert shown[f"{prefix}:num_cached_pages{{}}"] == 5
        assert shown[f"{prefix}:corrupted_requests_total{{}}"] == 1
        assert shown[f"{prefix}:prefix_cache_evictions_total{{}}"] == 7
        rejections = f"{prefix}:admission_rejections_total"
        assert shown[f"{rejections}{{reason=max_queued_requests}}"] == 2
        assert shown[f"{rejections}{{reason=max_queued_tokens}}"] == 3
        assert shown[f"{prefix}:external_prefix_cache_queries_total{{}}"] == 64
        assert shown[f"{prefix}:external_prefix_cache_hits_total{{}}"] == 32
        assert shown[f"{prefix}:kv_offload_cpu_cache_usage_perc{{}}"] == 0.5


def test_a_choice_is_timed_and_counted() -> None:
    metrics = Metrics("m", EngineStats)
    timer = metrics.timer(0.0)
    timer.on_tokens(0)
    timer.on_tokens(1)
    timer.on_tokens(3)
    timer.on_end(FinishReason.STOP)
    shown = samples(metrics)
    for prefix in ("leadline", "vllm"):
        assert shown[f"{prefix}:time_to_first_token_seconds_count{{}}"] == 1
        assert shown[f"{prefix}:inter_token_latency_seconds_count{{}}"] == 3
        assert shown[f"{prefix}:e2e_request_latency_seconds_count{{}}"] == 1
        assert shown[f"{prefix}:request_success_total{{finished_reason=stop}}"] == 1
        assert shown[f"{prefix}:request_success_total{{finished_reason=length}}"] == 0


def test_every_finish_reason_is_there_from_the_start() -> None:
    shown = samples(Metrics("m", EngineStats))
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
    shown = samples(Metrics("m", lambda: stats))
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
