"""How many prompt tokens a step takes, so that running requests keep their latency."""

from collections.abc import Sequence
from typing import NamedTuple

from leadline.engine.step_cost import StepCost, StepSize

MIN_PROMPT_TOKENS = 16  # of a step; prompts never stand still
COLD_PROMPT_TOKENS = 64  # of a step whose cost is not known, where it has a target
_TTFT_MARGIN = 0.7  # share of the time to the first token that is planned with


class PromptWait(NamedTuple):
    """A prompt that is not computed yet.

    Attributes:
        num_tokens: what is left of it.
        age_s: seconds since it arrived.
        num_computed_tokens: what is not left of it.
    """

    num_tokens: int
    age_s: float
    num_computed_tokens: int = 0


class PrefillShare:
    """Sizes the prompt part of each step by the cost of the steps before.

    With `target_itl_s`, no step is predicted to take longer. With `target_ttft_s`, prompts get no
    more than they need to meet it, so that running requests are as quick as they can be; where the
    two exclude each other, running requests keep their latency. Without running requests prompts
    get all; with a target for the step, they get little until the cost of one is known.
    """

    def __init__(
        self,
        max_tokens: int,
        *,
        target_itl_s: float | None = None,
        target_ttft_s: float | None = None,
    ) -> None:
        self.cost = StepCost()
        self._max_tokens = max_tokens
        self._target_itl_s = target_itl_s
        self._target_ttft_s = target_ttft_s

    @property
    def is_limited(self) -> bool:
        """Whether there is a target at all."""
        return self._target_itl_s is not None or self._target_ttft_s is not None

    def num_tokens(self, running: StepSize, prompts: Sequence[PromptWait]) -> int:
        """Prompt tokens for the next step.

        Args:
            running: what the step does for running requests.
            prompts: prompts that are not computed yet, in the order in which they will be.
        """
        if not self.is_limited or running.num_tokens == 0:
            return self._max_tokens
        if not self.cost.is_known:
            return self._max_tokens if self._target_itl_s is None else COLD_PROMPT_TOKENS
        wanted = self._max_tokens
        if self._target_ttft_s is not None:
            wanted = self._needed(running, prompts, self._target_ttft_s)
        if self._target_itl_s is not None:
            wanted = min(wanted, self._allowed(running, prompts, self._target_itl_s))
        return max(MIN_PROMPT_TOKENS, min(wanted, self._max_tokens))

    def _token_s(self, prompts: Sequence[PromptWait]) -> float:
        """Seconds that each of the next prompt tokens costs, by what it attends to."""
        context = 0.0
        if prompts:
            num_next = min(prompts[0].num_tokens, self._max_tokens)
            context = prompts[0].num_computed_tokens + num_next / 2
        return self.cost.per_token_s + self.cost.per_pair_s * context

    def _allowed(self, running: StepSize, prompts: Sequence[PromptWait], target_s: float) -> int:
        """Prompt tokens that keep a step within the target."""
        room_s = target_s - self.cost.predict(running)
        token_s = self._token_s(prompts)
        if token_s <= 0:
            return self._max_tokens if room_s > 0 else 0
        return max(0, int(room_s / token_s))

    def _needed(self, running: StepSize, prompts: Sequence[PromptWait], target_s: float) -> int:
        """Prompt tokens a step with which every prompt is computed in time.

        A step with p of them takes `base + p * token` seconds; a prompt that ends after `total`
        tokens needs `total / p` steps.
        """
        base_s, token_s = self.cost.predict(running), self._token_s(prompts)
        needed, total = 0.0, 0
        for prompt in prompts:
            total += prompt.num_tokens
            left_s = target_s * _TTFT_MARGIN - prompt.age_s - total * token_s
            if left_s <= 0:
                return self._max_tokens
            needed = max(needed, total * base_s / left_s)
        return int(needed) + 1
