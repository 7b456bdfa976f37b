"""The tensors of a step against its plan."""

import torch

from leadline.engine.request import SamplingParams
from leadline.engine.step import NewRequest, ScheduledRow, SchedulerOutput
from leadline.engine.worker.input_batch import ForwardBatch, make_batch
from leadline.engine.worker.requests import HeldRequests
from leadline.engine.worker.sampler import Sampler, SampleSpan
from leadline.engine.worker.sampling_table import SamplingTable
from leadline.kernels.sampling import SamplingBatch
from leadline.kernels.select import Platform, select_kernels

PAGE_SIZE = 4


def params(**changes: float | int) -> SamplingParams:
    values: dict[str, float | int] = {"seed": 1, "max_tokens": 5} | changes
    return SamplingParams(**values)  # type: ignore[arg-type]


def batch_of(
    *requests: tuple[list[int], SamplingParams, ScheduledRow], drafts: tuple[int, ...] = ()
) -> tuple[ForwardBatch, SamplingBatch]:
    """The batch of one plan; the pages of earlier steps are in each row's table."""
    new = [
        NewRequest(
            request_id=row.request_id,
            token_ids=token_ids,
            num_prompt_tokens=len(token_ids),
            params=sampling,
        )
        for token_ids, sampling, row in requests
    ]
    rows = [row for _, _, row in requests]
    plan = SchedulerOutput(0, new, rows, [], sum(row.num_tokens for row in rows))
    held = HeldRequests(vocab_size=100)
    held.apply(plan)
    held[rows[0].request_id].draft_ids = list(drafts)
    batch = make_batch(held.live_rows(plan), PAGE_SIZE)
    kernels, _ = select_kernels(Platform())
    sampler = Sampler(kernels, held.table, logprobs_mode="raw")
    spans = [SampleSpan(row.request, row.draft_ids) for row in batch.sampled_rows]
    return batch, sampler.make_batch(spans)


def mixed() -> tuple[ForwardBatch, SamplingBatch]:
    """A decode row, a chunk in the middle of a prompt, and a whole prompt."""
    return batch_of(
        (
            list(range(10, 16)),
            params(seed=7, temperature=0.5),
            ScheduledRow("decode", 5, 1, [3, 9], 0, True),
        ),
        (list(range(20, 40)), params(), ScheduledRow("chunk", 2, 7, [5, 0, 8, 1, 2], 0, False)),
        (
            [51, 52, 53],
            params(seed=2**64 - 1, temperature=0.0, top_k=3),
            ScheduledRow("prompt", 0, 3, [6], 0, True),
        ),
    )


def test_tokens_and_positions_are_flat() -> None:
    batch, _ = mixed()
    assert batch.token_ids_T.tolist() == [15, *range(22, 29), 51, 52, 53]
    assert batch.meta.positions_T.tolist() == [5, *range(2, 9), 0, 1, 2]
    assert batch.token_ids_T.dtype == batch.meta.positions_T.dtype == torch.int64


def test_slots_follow_the_page_table() -> None:
    chunk = [22, 23, 0, 1, 2, 3, 32]  # positions 2, 3 in page 5; 4 to 7 in page 0; 8 in page 8
    assert mixed()[0].meta.slots_T.tolist() == [9 * 4 + 1, *chunk, 24, 25, 26]


def test_meta_is_ragged() -> None:
    meta = mixed()[0].meta
    assert meta.query_lens == [1, 7, 3]
    assert meta.seq_lens == [6, 9, 3]
    assert meta.page_table.dtype == torch.int64
    assert meta.page_table.tolist() == [[3, 9, 0, 0, 0], [5, 0, 8, 1, 2], [6, 0, 0, 0, 0]]


def test_rows_that_sample_do_so_from_their_last_token() -> None:
    batch, _ = mixed()
    assert [row.index for row in batch.sampled_rows] == [0, 2]
    assert batch.logits_index.tolist() == [0, 10]


def test_sampling_parameters_are_those_of_the_sampled_rows() -> None:
    _, sampling = mixed()
    assert sampling.temperature_B.tolist() == [0.5, 0.0]
    assert sampling.top_k_B.tolist() == [0, 3]
    assert sampling.seeds_B.tolist() == [7, -1], "the same 64 bits"
    assert sampling.positions_B.tolist() == [6, 3], "the position of the token to come"
    assert not sampling.all_greedy
    assert not sampling.no_cuts


def test_nobody_samples() -> None:
    batch, _ = batch_of(([1, 2, 3], params(), ScheduledRow("a", 0, 2, [0], 0, False)))
    assert batch.sampled_rows == []
    assert batch.logits_index.shape == (0,)
    assert batch.logits_index.dtype == torch.int64


def test_drafts_are_computed_and_sampled_after() -> None:
    """The last known token and each draft: every one of them has its own next token."""
    batch, sampling = batch_of(
        (list(range(10, 15)), params(seed=9), ScheduledRow("a", 4, 1, [2, 1], 2, True)),
        ([30], params(seed=4), ScheduledRow("b", 0, 1, [0], 0, True)),
        drafts=(71, 72),
    )
    assert batch.token_ids_T.tolist() == [14, 71, 72, 30]
    assert batch.meta.positions_T.tolist() == [4, 5, 6, 0]
    assert batch.logits_index.tolist() == [0, 1, 2, 3]
    assert [row.index for row in batch.sampled_rows] == [0, 1]
    assert sampling.positions_B.tolist() == [5, 6, 7, 1]
    assert sampling.seeds_B.tolist() == [9, 9, 9, 4]


def test_flags_of_a_sampling_batch() -> None:
    def flags(*rows: SamplingParams) -> tuple[bool, bool]:
        table = SamplingTable()
        batch = table.batch([table.take(row) for row in rows], [1] * len(rows))
        return batch.all_greedy, batch.no_cuts

    greedy = params(temperature=0.0)
    assert flags(greedy, greedy) == (True, True)
    assert flags(greedy, params()) == (False, True)
    for cut in (params(top_k=1), params(top_p=0.9), params(min_p=0.1)):
        assert flags(greedy, cut) == (False, False)


def test_the_table_grows_and_uses_slots_again() -> None:
    table = SamplingTable()
    slots = [table.take(params(seed=i)) for i in range(200)]
    assert len(set(slots)) == 200
    assert table.batch(slots, range(200)).seeds_B.tolist() == list(range(200))
    table.release(slots[7])
    assert table.take(params(seed=1000)) == slots[7]
    assert table.batch(slots[6:9], [0, 0, 0]).seeds_B.tolist() == [6, 1000, 8]
