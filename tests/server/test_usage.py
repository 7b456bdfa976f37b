from leadline.engine.request import SpeculationCounts
from leadline.server.usage import Usage


def test_usage_counts_prompts_once_and_choices_together() -> None:
    usage = Usage(num_prompt_tokens=10, num_cached_tokens=[4, 0], num_output_tokens=[3, 4, 5])
    assert usage.to_json() == {
        "prompt_tokens": 10,
        "completion_tokens": 12,
        "total_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
        "prompt_cache_hit_tokens": 4,
        "prompt_cache_miss_tokens": 6,
    }


def test_thinking_is_counted_where_it_is_marked() -> None:
    usage = Usage(
        num_prompt_tokens=1, num_cached_tokens=[0], num_output_tokens=[9], num_thinking_tokens=[4]
    )
    assert usage.to_json()["completion_tokens_details"]["reasoning_tokens"] == 4


def usage_of(*counts: SpeculationCounts) -> Usage:
    return Usage(
        num_prompt_tokens=1, num_cached_tokens=[0], num_output_tokens=[1], speculation=list(counts)
    )


def test_drafts_of_all_choices_are_one_account() -> None:
    one, other = SpeculationCounts(), SpeculationCounts()
    for num_accepted in (0, 2, 1):
        one.count(2, num_accepted)
    other.count(3, 3)
    assert usage_of(one, other).metrics() == {
        "speculative_decoding": {
            "mean_acceptance_length": 1 + 6 / 4,
            "draft_acceptance_rate": 6 / 9,
            "acceptance_histogram": [1, 1, 1, 1],
            "num_spec_steps": 4,
            "num_accepted_draft_tokens": 6,
            "num_draft_tokens": 9,
            "num_accepted_tokens_per_pos": [3, 2, 1],
        }
    }


def test_without_drafts_there_are_no_ratios() -> None:
    metrics = usage_of(SpeculationCounts()).metrics()
    assert metrics is not None
    assert metrics["speculative_decoding"]["mean_acceptance_length"] is None
    assert metrics["speculative_decoding"]["draft_acceptance_rate"] is None
    assert usage_of().metrics() is None
