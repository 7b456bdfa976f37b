"""What a rank computes in one step, as far as its time depends on it."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from leadline.engine.planning.layout import Layout

FEW_TOKENS = 9  # a row of fewer new tokens attends to latents, one of more to what they expand to


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoad:
    """What a rank computes in a step, and the unit beside it.

    Attributes:
        tokens: new tokens of this data parallel group.
        sampled: rows that need logits.
        absorbed_pairs: (new token, context token) pairs of rows with few new tokens.
        expanded_pairs: those of rows with many.
        context_tokens: of the rows with few new tokens, counted once a row.
        rows: rows with few new tokens.
        unit_tokens: new tokens of all groups.
        draft_passes: passes of the MTP layer over the rows with few new tokens, a token each.
    """

    tokens: int
    sampled: int
    absorbed_pairs: float
    expanded_pairs: float
    context_tokens: float
    rows: int
    unit_tokens: int
    draft_passes: int = 0

    def half(self) -> "StepLoad":
        """One of two micro-batches."""
        return dataclasses.replace(
            self,
            tokens=-(-self.tokens // 2),
            sampled=-(-self.sampled // 2),
            absorbed_pairs=self.absorbed_pairs / 2,
            expanded_pairs=self.expanded_pairs / 2,
            context_tokens=self.context_tokens / 2,
            rows=-(-self.rows // 2),
            unit_tokens=-(-self.unit_tokens // 2),
        )

    def one_token_each(self) -> "StepLoad":
        """A pass of the MTP layer over the rows that draft."""
        share = self.rows / max(self.tokens, 1)
        return dataclasses.replace(
            self,
            tokens=self.rows,
            sampled=self.rows,
            absorbed_pairs=self.context_tokens,
            expanded_pairs=0.0,
            unit_tokens=max(self.rows, round(self.unit_tokens * share)),
            draft_passes=0,
        )


def load_of(
    rows: Iterable[tuple[int, int]],
    layout: Layout,
    *,
    others: int | None = None,
    draft_passes: int = 0,
) -> StepLoad:
    """The load of a data parallel group.

    Args:
        rows: (new tokens, tokens of context with them) of each.
        layout: of the unit.
        others: new tokens of the other groups; None for as many as this one has, each.
        draft_passes: of the MTP layer after the step.
    """
    tokens = sampled = few = 0
    absorbed = expanded = context = 0.0
    for new, total in rows:
        tokens += new
        if new < FEW_TOKENS:
            few += 1
            sampled += new
            absorbed += new * total
            context += total
        else:
            sampled += 1
            expanded += new * (total - (new - 1) / 2)
    if others is None:
        others = tokens * (layout.data_parallel_size - 1)
    return StepLoad(
        tokens=tokens,
        sampled=sampled,
        absorbed_pairs=absorbed,
        expanded_pairs=expanded,
        context_tokens=context,
        rows=few,
        unit_tokens=tokens + others,
        draft_passes=draft_passes,
    )
