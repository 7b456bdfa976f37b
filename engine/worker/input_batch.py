"""The tensors of one step, made from its plan."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.engine.request import SamplingParams
from leadline.engine.step import SchedulerOutput
from leadline.engine.worker.requests import HeldRequests
from leadline.kernels.attention import AttentionMeta
from leadline.kernels.sampling import SamplingBatch


@dataclass(slots=True)
class ForwardBatch:
    """A flat batch: the rows' new tokens one after the other, T in all.

    Attributes:
        token_ids_T: int64, drafts included.
        meta: the ragged structure, and where the tokens go in the cache.
        sampled_rows: index in the plan of each row that samples; it samples once for its last
            known token and once for each draft.
        logits_index: int64, the tokens whose hidden states logits come from, row after row.
        sampling: parameters of each such token.
    """

    token_ids_T: Tensor
    meta: AttentionMeta
    sampled_rows: list[int]
    logits_index: Tensor
    sampling: SamplingBatch


@dataclass(frozen=True, slots=True)
class Span:
    """New tokens of one request: positions [start, start + num_tokens) of its pages."""

    page_ids: Sequence[int]
    start: int
    num_tokens: int


def make_batch(plan: SchedulerOutput, held: HeldRequests, page_size: int) -> ForwardBatch:
    """Lay out a plan with at least one row."""
    token_ids: list[int] = []
    spans: list[Span] = []
    sampled_rows: list[int] = []
    logits_index: list[int] = []
    params: list[SamplingParams] = []
    sample_positions: list[int] = []
    for i, row in enumerate(plan.rows):
        request = held[row.request_id]
        end, num_drafts = row.start + row.num_tokens, len(row.draft_ids)
        token_ids += request.token_ids[row.start : end - num_drafts]
        token_ids += row.draft_ids
        spans.append(Span(request.page_ids, row.start, row.num_tokens))
        if row.samples:
            num_samples = 1 + num_drafts
            sampled_rows.append(i)
            logits_index += range(len(token_ids) - num_samples, len(token_ids))
            params += [request.params] * num_samples
            sample_positions += range(end - num_drafts, end + 1)
    return ForwardBatch(
        token_ids_T=torch.tensor(token_ids),
        meta=make_meta(spans, page_size),
        sampled_rows=sampled_rows,
        logits_index=torch.tensor(logits_index, dtype=torch.int64),
        sampling=make_sampling_batch(params, sample_positions),
    )


def make_meta(spans: Sequence[Span], page_size: int) -> AttentionMeta:
    """The attention's metadata of rows of new tokens; at least one row."""
    positions: list[int] = []
    slots: list[int] = []
    for span in spans:
        for position in range(span.start, span.start + span.num_tokens):
            positions.append(position)
            slots.append(span.page_ids[position // page_size] * page_size + position % page_size)
    return AttentionMeta(
        query_lens=[span.num_tokens for span in spans],
        seq_lens=[span.start + span.num_tokens for span in spans],
        page_table=_page_table([span.page_ids for span in spans]),
        slots_T=torch.tensor(slots),
        positions_T=torch.tensor(positions),
    )


def _page_table(tables: Sequence[Sequence[int]]) -> Tensor:
    width = max(len(table) for table in tables)
    return torch.tensor([[*table, *[0] * (width - len(table))] for table in tables])


def _signed(seed: int) -> int:
    """The 64 bits of a seed as int64 holds them."""
    return seed - 2**64 if seed >= 2**63 else seed


def make_sampling_batch(params: list[SamplingParams], positions: list[int]) -> SamplingBatch:
    """Sampling parameters of several rows as tensors; `positions` of the tokens to sample."""
    return SamplingBatch(
        temperature_B=torch.tensor([p.temperature for p in params], dtype=torch.float32),
        top_k_B=torch.tensor([p.top_k for p in params], dtype=torch.int64),
        top_p_B=torch.tensor([p.top_p for p in params], dtype=torch.float32),
        min_p_B=torch.tensor([p.min_p for p in params], dtype=torch.float32),
        seeds_B=torch.tensor([_signed(p.seed) for p in params], dtype=torch.int64),
        positions_B=torch.tensor(positions, dtype=torch.int64),
        all_greedy=all(p.temperature == 0 for p in params),
        no_cuts=all(p.top_k == 0 and p.top_p >= 1 and p.min_p == 0 for p in params),
    )
