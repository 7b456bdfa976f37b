"""What a unit does under a steady stream of requests that are alike."""

from dataclasses import dataclass

from leadline.engine.planning.layout import Layout
from leadline.engine.planning.step_load import load_of
from leadline.engine.planning.unit_times import UnitTimes

ACCEPTED_SHARES = (0.85, 0.55, 0.28)  # of first, second and third drafts, as published for V3
PREFILL_STEP_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a unit does with requests of the given lengths.

    Attributes:
        requests: at once, of each data parallel group.
        prefill_tokens_s: of the unit, were there nothing but prompts.
        decode_tokens_s: of the unit, were there nothing but answers.
        tokens_s: output tokens of the unit, prompts and answers together.
        requests_s: of the unit, sustained.
        itl_s: between a request's tokens, prompts and answers together.
        lone_itl_s: of a request alone.
        ttft_s: of a prompt that finds the unit idle.
    """

    requests: int
    prefill_tokens_s: float
    decode_tokens_s: float
    tokens_s: float
    requests_s: float
    itl_s: float
    lone_itl_s: float
    ttft_s: float


class RequestStream:
    """A unit under a steady stream of such requests."""

    def __init__(
        self,
        times: UnitTimes,
        layout: Layout,
        *,
        input_tokens: int,
        output_tokens: int,
        num_drafts: int,
    ) -> None:
        self._times = times
        self._layout = layout
        self._input_tokens = input_tokens
        self._output_tokens = output_tokens
        self._num_drafts = num_drafts
        self._tokens_a_step = 1 + sum(ACCEPTED_SHARES[:num_drafts])
        # while it answers, a request has on average its prompt and half of its output
        self._context = input_tokens + output_tokens // 2
        prompt = input_tokens
        alike = max(1, PREFILL_STEP_TOKENS // prompt)
        # all groups compute prompts at once, in chunks; one chunk's tokens see half the prompt
        self._prefill_token_s = self._prompt_s(alike, others=None) / (alike * prompt)

    def _prompt_s(self, number: int, others: int | None) -> float:
        """So many prompts of a group together, in steps of bounded size."""
        prompt, seconds, done = self._input_tokens, 0.0, 0
        while done < prompt:
            new = min(prompt - done, max(1, PREFILL_STEP_TOKENS // number))
            done += new
            seconds += self._times.step_s([(new, done)] * number, others=others)
        return seconds

    def decode_s(self, requests: int) -> float:
        """A step of so many requests a group."""
        rows = [(1 + self._num_drafts, self._context)] * requests
        load = load_of(rows, self._layout, draft_passes=self._num_drafts)
        return self._times.expected_s(load)

    def _shared_step_s(self, requests: int) -> float:
        """The same, with the prompts that a steady stream brings meanwhile."""
        prompts = requests * self._tokens_a_step * self._input_tokens / self._output_tokens
        return self.decode_s(requests) + prompts * self._prefill_token_s

    def itl_s(self, requests: int) -> float:
        """Between a request's tokens, while a steady stream of prompts is computed."""
        return self._shared_step_s(requests) / self._tokens_a_step

    def most_requests(self, limit: int, itl_s: float | None) -> int:
        """Requests a group within a time between tokens, if any; 0 if one is too many."""
        if itl_s is None:
            return limit
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.itl_s(middle) <= itl_s else (low, middle - 1)
        return low

    def expect(self, requests: int) -> Expected:
        """With so many requests a group."""
        groups = self._layout.data_parallel_size
        tokens = groups * requests * self._tokens_a_step
        tokens_s = tokens / self._shared_step_s(requests)
        lone = [(1 + self._num_drafts, self._context)]
        lone_s = self._times.step_s(lone, others=0, draft_passes=self._num_drafts)
        return Expected(
            requests=requests,
            prefill_tokens_s=groups / self._prefill_token_s,
            decode_tokens_s=tokens / self.decode_s(requests),
            tokens_s=tokens_s,
            requests_s=tokens_s / self._output_tokens,
            itl_s=self.itl_s(requests),
            lone_itl_s=lone_s / self._tokens_a_step,
            ttft_s=self._prompt_s(1, others=0),
        )
