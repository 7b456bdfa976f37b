"""How long a step takes, as a sum of named terms."""

import msgspec


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

    def predict(self, num_tokens: int, num_context_tokens: int) -> float:
        """Seconds of a step.

        Args:
            num_tokens: tokens that are computed.
            num_context_tokens: tokens that the rows attend to, counted once a row.
        """
        return (
            self.fixed_s
            + self.per_token_s * num_tokens
            + self.per_context_token_s * num_context_tokens
        )
