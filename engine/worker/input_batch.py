"""The tensors of one step, made from its plan."""

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
        token_ids_T: int64.
        meta: the ragged structure, and where the tokens go in the cache.
        sampled_rows: index in the plan of each row that samples.
        logits_index: int64, the token whose hidden state each sampled row's logits come from.
        sampling: parameters of the sampled rows.
    """

    token_ids_T: Tensor
    meta: AttentionMeta
    sampled_rows: list[int]
    logits_index: Tensor
    sampling: SamplingBatch


def make_batch(plan: SchedulerOutput, held: HeldRequests, page_size: int) -> ForwardBatch:
    """Lay out a plan with at least one row."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[int] = []
    sampled_rows: list[int] = []
    logits_index: list[int] = []
    params: list[SamplingParams] = []
    sample_positions: list[int] = []
    for i, row in enumerate(plan.rows):
        request = held[row.request_id]
        end = row.start + row.num_tokens
        token_ids += request.token_ids[row.start : end]
        positions += range(row.start, end)
        slots += [
            request.page_ids[position // page_size] * page_size + position % page_size
            for position in range(row.start, end)
        ]
        if row.samples:
            sampled_rows.append(i)
            logits_index.append(len(token_ids) - 1)
            params.append(request.params)
            sample_positions.append(end)
    meta = AttentionMeta(
        query_lens=[row.num_tokens for row in plan.rows],
        seq_lens=[row.start + row.num_tokens for row in plan.rows],
        page_table=_page_table([held[row.request_id].page_ids for row in plan.rows]),
        slots_T=torch.tensor(slots),
        positions_T=torch.tensor(positions),
    )
    return ForwardBatch(
        token_ids_T=torch.tensor(token_ids),
        meta=meta,
        sampled_rows=sampled_rows,
        logits_index=torch.tensor(logits_index, dtype=torch.int64),
        sampling=make_sampling_batch(params, sample_positions),
    )


def _page_table(tables: list[list[int]]) -> Tensor:
    width = max(len(table) for table in tables)
    return torch.tensor([table + [0] * (width - len(table)) for table in tables])


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
