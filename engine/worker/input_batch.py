"""The tensors of one step, made from its plan."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from leadline.engine.worker.requests import LiveRow
from leadline.kernels.attention import AttentionMeta

Places = npt.NDArray[np.int64]


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
    query_lens = [span.num_tokens for span in spans]
    seq_lens = [span.start + span.num_tokens for span in spans]
    page_table = make_page_table([span.page_ids for span in spans])
    rows_T, positions_T = _places(query_lens, seq_lens)
    pages_T = page_table.numpy()[rows_T, positions_T // page_size]
    return AttentionMeta(
        query_lens=query_lens,
        seq_lens=seq_lens,
        page_table=page_table,
        slots_T=torch.from_numpy(pages_T * page_size + positions_T % page_size),
        positions_T=torch.from_numpy(positions_T),
    )


def _places(query_lens: list[int], seq_lens: list[int]) -> tuple[Places, Places]:
    """Row and position of each new token."""
    ends = np.cumsum(query_lens)
    rows_T = np.repeat(np.arange(len(query_lens)), query_lens)
    return rows_T, np.arange(ends[-1]) + (np.asarray(seq_lens) - ends)[rows_T]


def make_page_table(tables: Sequence[Sequence[int]]) -> Tensor:
    """int64 [B, max_pages] of at least one row, padded with 0."""
    table_BP = np.zeros((len(tables), max(map(len, tables))), np.int64)
    for row, page_ids in zip(table_BP, tables, strict=True):
        row[: len(page_ids)] = page_ids
    return torch.from_numpy(table_BP)
