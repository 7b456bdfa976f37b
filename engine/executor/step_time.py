"""How long a step takes, as a sum of named terms."""

import msgspec

from leadline.engine.step import SchedulerOutput


class StepTimeModel(msgspec.Struct, frozen=True, kw_only=True):
    """A linear model of a step's duration.

    Attributes:
        fixed_s: launching a step at all: weights read once, host work.
        per_token_s: each new token: projections, experts.
        per_context_token_s: each token of context that a row's new tokens attend to, counted once
            a row: latents read from the cache.
    """

    fixed_s: float = 0.0
    per_token_s: float = 0.0
    per_context_token_s: float = 0.0

    def predict(self, plan: SchedulerOutput) -> float:
        """Seconds that a plan takes; 0 for an empty one."""
        if not plan.rows:
            return 0.0
        num_context_tokens = sum(row.start + row.num_tokens for row in plan.rows)
        return (
            self.fixed_s
            + self.per_token_s * plan.num_tokens
            + self.per_context_token_s * num_context_tokens
        )
