"""From logits to tokens: every position processed by what its request asks, on its draft path."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from leadline.engine.request import TokenLogprobs
from leadline.engine.worker.requests import HeldRequest
from leadline.engine.worker.sampling_table import SamplingTable
from leadline.engine.worker.token_rules import Point, TokenRules
from leadline.kernels.api import KernelSet
from leadline.kernels.sampling import (
    AllowedTokens,
    BannedTokens,
    LogitBias,
    Penalties,
    SamplingBatch,
)

MIN_LOGPROB = -9999.0  # in place of -inf, which JSON does not have


@dataclass(frozen=True, slots=True)
class SampleSpan:
    """Positions of one request that are sampled one after the other.

    Attributes:
        path: drafts after the known tokens.
        first: the first sample comes after so many of them, the last one after all.
    """

    request: HeldRequest
    path: Sequence[int]
    first: int = 0

    @property
    def num_samples(self) -> int:
        """How many positions there are."""
        return len(self.path) + 1 - self.first


class Sampler:
    """Samples for the target and for the drafter, which see the same rules and the same noise."""

    def __init__(self, kernels: KernelSet, table: SamplingTable, *, logprobs_mode: str) -> None:
        """`logprobs_mode`: `raw` or `processed`."""
        self._kernels = kernels
        self._table = table
        self._logprobs_mode = logprobs_mode

    def make_batch(self, spans: Sequence[SampleSpan]) -> SamplingBatch:
        """Parameters of all samples, span after span."""
        slots: list[int] = []
        positions: list[int] = []
        points: list[tuple[int, TokenRules, Point]] = []
        for span in spans:
            if span.request.rules is not None:
                rules = span.request.rules
                for i, point in enumerate(rules.points(span.path, span.first)):
                    points.append((len(slots) + i, rules, point))
            known = len(span.request.token_ids)
            slots += [span.request.slot] * span.num_samples
            positions += range(known + span.first, known + len(span.path) + 1)
        batch = self._table.batch(slots, positions)
        if points:
            _add_rules(batch, points)
        return batch

    def sample(self, logits_BV: Tensor, batch: SamplingBatch) -> list[int]:
        """One token for each row (`kernels.sampling_api.Sample`)."""
        ids: list[int] = self._kernels.sample(logits_BV, batch).tolist()
        return ids

    def probabilities(self, logits_BV: Tensor, batch: SamplingBatch, ids: Sequence[int]) -> Tensor:
        """How likely each row's token is among those that its request allows.

        Returns float32 [B], before temperature and cuts; of no use where the id is negative.
        """
        plain = replace(batch, temperature_B=torch.ones_like(batch.temperature_B), no_cuts=True)
        shares_BV = self._kernels.process_logits(logits_BV, plain).softmax(-1)
        ids_B = torch.tensor(ids).clamp(min=0)
        return shares_BV.gather(1, ids_B.unsqueeze(1)).squeeze(1)

    def logprobs(
        self,
        logits_BV: Tensor,
        batch: SamplingBatch,
        sampled_ids: Sequence[int],
        wanted: Sequence[tuple[int, int]],
    ) -> dict[int, TokenLogprobs]:
        """Log-probabilities of sampled tokens.

        Args:
            logits_BV: as they were sampled from.
            batch: likewise.
            sampled_ids: for each row.
            wanted: rows, and the number of most likely tokens for each.
        """
        if not wanted:
            return {}
        if self._logprobs_mode == "processed":
            logits_BV = self._kernels.process_logits(logits_BV, batch)
        rows = [row for row, _ in wanted]
        ids = torch.tensor([sampled_ids[row] for row in rows])
        found = token_logprobs(
            self._kernels, logits_BV[torch.tensor(rows)], ids, [num for _, num in wanted]
        )
        return dict(zip(rows, found, strict=True))


def token_logprobs(
    kernels: KernelSet, logits_BV: Tensor, ids_B: Tensor, nums_top: Sequence[int]
) -> list[TokenLogprobs]:
    """Log-probabilities of one token a row, and of as many of the most likely as each row wants."""
    columns = kernels.token_logprobs(logits_BV, ids_B, max(nums_top))
    own, ranks, top_ids, top = (column.tolist() for column in columns)
    return [
        TokenLogprobs(
            token_id=token_id,
            logprob=max(own[i], MIN_LOGPROB),
            rank=ranks[i],
            top_ids=top_ids[i][: nums_top[i]],
            top_logprobs=[max(value, MIN_LOGPROB) for value in top[i][: nums_top[i]]],
        )
        for i, token_id in enumerate(ids_B.tolist())
    ]


def _add_rules(batch: SamplingBatch, points: list[tuple[int, TokenRules, Point]]) -> None:
    """Fill in the optional parts of a batch."""
    masked = [(row, point.words) for row, _, point in points if point.words is not None]
    if masked:
        words = torch.from_numpy(np.stack([words for _, words in masked]))
        batch.allowed = AllowedTokens(torch.tensor([row for row, _ in masked]), words)
    banned = [(row, token_id) for row, _, point in points for token_id in point.banned_ids]
    if banned:
        batch.banned = BannedTokens(*torch.tensor(banned).unbind(1))
    biased = [(row, rules.bias) for row, rules, _ in points if rules.bias is not None]
    if biased:
        rows = [torch.full_like(ids, row) for row, (ids, _) in biased]
        batch.bias = LogitBias(
            torch.cat(rows),
            torch.cat([ids for _, (ids, _) in biased]),
            torch.cat([values for _, (_, values) in biased]),
        )
    batch.penalties = _penalties([p for p in points if p[1].counts_V is not None])
    if any(point.forced_id >= 0 for _, _, point in points):
        batch.forced_B = torch.full_like(batch.positions_B, -1)
        for row, _, point in points:
            batch.forced_B[row] = point.forced_id


def _penalties(points: list[tuple[int, TokenRules, Point]]) -> Penalties | None:
    if not points:
        return None
    params = [rules.params for _, rules, _ in points]
    counts_RV = torch.stack(
        [rules.counts_V for _, rules, _ in points if rules.counts_V is not None]
    )
    drafts = [(i, token_id) for i, (_, _, point) in enumerate(points) for token_id in point.path]
    if drafts:
        rows, tokens = torch.tensor(drafts).unbind(1)
        ones = torch.ones(len(drafts), dtype=torch.int32)
        counts_RV.index_put_((rows, tokens), ones, accumulate=True)
    in_prompt = [rules.in_prompt_V for _, rules, _ in points if rules.in_prompt_V is not None]
    return Penalties(
        rows_R=torch.tensor([row for row, _, _ in points]),
        repetition_R=torch.tensor([p.repetition_penalty for p in params], dtype=torch.float32),
        frequency_R=torch.tensor([p.frequency_penalty for p in params], dtype=torch.float32),
        presence_R=torch.tensor([p.presence_penalty for p in params], dtype=torch.float32),
        counts_RV=counts_RV,
        in_prompt_RV=torch.stack(in_prompt),
    )
