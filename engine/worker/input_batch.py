"""The tensors of one step, made from its plan."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from leadline.engine.worker.requests import LiveRow
from leadline.kernels.attention import AttentionMeta


@dataclass(slots=True)
class ForwardBatch:
    """A flat batch: the rows' new tokens one after the other, T in all.

    Attributes:
        rows: what is computed.
        token_ids_T: int64, drafts included.
        meta: the ragged structure, and where the tokens go in the cache.
        sampled_rows: the rows that sample: once for the last known token, once for each draft.
        logits_index: int64, the tokens whose hidden states logits come from, row after row.
    """

    rows: list[LiveRow]
    token_ids_T: Tensor
    meta: AttentionMeta
    sampled_rows: list[LiveRow]
    logits_index: Tensor


@dataclass(frozen=True, slots=True)
class Span:
    """New tokens of one request: positions [start, start + num_tokens) of its pages."""

    page_ids: Sequence[int]
    start: int
    num_tokens: int


def make_batch(rows: list[LiveRow], page_size: int) -> ForwardBatch:
    """Lay out at least one row."""
    token_ids: list[int] = []
    logits_index: list[int] = []
    for row in rows:
        token_ids += row.token_ids
        if row.row.samples:
            logits_index += range(len(token_ids) - 1 - len(row.draft_ids), len(token_ids))
    spans = [Span(row.request.page_ids, row.start, row.num_tokens) for row in rows]
    return ForwardBatch(
        rows=rows,
        token_ids_T=torch.tensor(token_ids),
        meta=make_meta(spans, page_size),
        sampled_rows=[row for row in rows if row.row.samples],
        logits_index=torch.tensor(logits_index, dtype=torch.int64),
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
