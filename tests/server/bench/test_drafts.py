import pytest

from leadline.server.bench.drafts import measure_drafts, parse_counts
from leadline.server.bench.record import DraftCounts, Record

VLLM = """\
# HELP vllm:spec_decode_num_drafts_total Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_total counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 10.0
vllm:spec_decode_num_drafts_total{engine="1",model_name="m"} 5.0
# HELP vllm:spec_decode_num_drafts_created Number of spec decoding drafts.
# TYPE vllm:spec_decode_num_drafts_created gauge
vllm:spec_decode_num_drafts_created{engine="0",model_name="m"} 1.7e+09
# HELP vllm:spec_decode_num_draft_tokens_total Number of draft tokens.
# TYPE vllm:spec_decode_num_draft_tokens_total counter
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 40.0
# HELP vllm:spec_decode_num_accepted_tokens_total Number of accepted tokens.
# TYPE vllm:spec_decode_num_accepted_tokens_total counter
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 12.0
# HELP vllm:spec_decode_num_accepted_tokens_per_pos_total Accepted tokens per draft position.
# TYPE vllm:spec_decode_num_accepted_tokens_per_pos_total counter
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="0"} 9.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",model_name="m",position="1"} 3.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="1",model_name="m",position="0"} 1.0
"""


def test_vllms_metrics_are_added_over_engines() -> None:
    assert parse_counts(VLLM) == DraftCounts(15, 40, 12, [10, 3])


@pytest.mark.parametrize("text", ["", "not a metric at all {", "# TYPE x counter\nx_total 3\n"])
def test_other_metrics_say_nothing(text: str) -> None:
    assert parse_counts(text) is None


def test_metrics_count_what_has_come_since() -> None:
    before, after = DraftCounts(10, 30, 15, [10, 5]), DraftCounts(14, 40, 20, [13, 6, 1])
    measures = measure_drafts([Record()], before, after)
    assert measures is not None
    assert measures.source == "metrics"
    assert measures.acceptance_percent == 50
    assert measures.acceptance_length == 2.25
    assert measures.acceptance_by_position == [0.75, 0.25, 0.25]


def test_answers_know_better_than_metrics() -> None:
    records = [
        Record(drafts=DraftCounts(2, 4, 3, [2, 1])),
        Record(drafts=DraftCounts(1, 1, 1, [1])),
    ]
    measures = measure_drafts(records, DraftCounts(), DraftCounts(99, 99, 99, [99]))
    assert measures is not None
    assert measures.source == "answers"
    assert measures.counts == DraftCounts(3, 5, 4, [3, 1])


@pytest.mark.parametrize("counts", [None, DraftCounts(3, 3, 3, [3])])
def test_no_drafts_no_measures(counts: DraftCounts | None) -> None:
    assert measure_drafts([Record()], counts, counts) is None
