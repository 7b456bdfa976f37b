"""What happened to one API request: its choices' tokens and times, for whoever reports them."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from leadline.engine.request import EngineRequest, FinishReason, RequestOutput, RequestTiming


@dataclass(slots=True, kw_only=True)
class ChoiceRecord:
    """One choice; times are by `time.monotonic`.

    Attributes:
        num_prompt_tokens: of its prompt.
        first_token_s: None until its first tokens have come.
        timing: by the engine's clock, as of its first tokens or its end; None before.
        has_call: it has called a tool; None if its calls are not read.
        reason: None until it has ended.
    """

    num_prompt_tokens: int
    num_tokens: int = 0
    num_cached_tokens: int = 0
    first_token_s: float | None = None
    last_token_s: float | None = None
    end_s: float | None = None
    timing: RequestTiming | None = None
    has_call: bool | None = None
    reason: FinishReason | None = None

    def take(self, output: RequestOutput, num_tokens: int) -> float | None:
        """Take in an output, with which the choice has `num_tokens` tokens that count.

        Returns:
            Seconds between these tokens and those before them; None without either.
        """
        self.num_cached_tokens = output.num_cached_tokens
        self.timing = output.timing or self.timing
        if not output.token_ids:
            return None
        now_s, before_s = time.monotonic(), self.last_token_s
        self.num_tokens, self.last_token_s = num_tokens, now_s
        if before_s is None:
            self.first_token_s = now_s
            return None
        return now_s - before_s

    def end(self, reason: FinishReason) -> None:
        """The choice has ended."""
        self.reason, self.end_s = reason, time.monotonic()

    @property
    def num_computed_prompt_tokens(self) -> int:
        """Of its prompt, those that were not cached."""
        return self.num_prompt_tokens - self.num_cached_tokens

    @property
    def decode_s(self) -> float | None:
        """Seconds from the first tokens to the last ones; None without any."""
        if self.first_token_s is None or self.last_token_s is None:
            return None
        return self.last_token_s - self.first_token_s


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """One API request.

    Attributes:
        request_id: as in the header `X-Request-Id`; empty outside a request.
        response_id: the answer's `id`.
        model: the name that was asked for.
        num_choices: of each prompt (`n`).
        first: the engine's request for the first choice.
        choices: by index.
        arrived_s: by `time.monotonic`.
        trace_headers: where the request stands in somebody's trace.
    """

    request_id: str
    response_id: str
    model: str
    num_choices: int
    first: EngineRequest
    choices: list[ChoiceRecord]
    arrived_s: float
    trace_headers: dict[str, str] = field(default_factory=dict)

    @property
    def num_prompt_tokens(self) -> int:
        """Of all prompts, each counted once."""
        return sum(choice.num_prompt_tokens for choice in self._first_choices)

    @property
    def num_cached_tokens(self) -> int:
        """Of the prompt tokens, those that did not have to be computed."""
        return sum(choice.num_cached_tokens for choice in self._first_choices)

    @property
    def num_tokens(self) -> int:
        """Generated, of all choices together."""
        return sum(choice.num_tokens for choice in self.choices)

    @property
    def first_token_s(self) -> float | None:
        """When the first token of any choice came; None if none has."""
        times_s = [c.first_token_s for c in self.choices if c.first_token_s is not None]
        return min(times_s, default=None)

    @property
    def end_s(self) -> float | None:
        """When the last choice ended; None if none has begun."""
        return max((c.end_s for c in self.choices if c.end_s is not None), default=None)

    @property
    def reasons(self) -> list[str]:
        """Why the choices ended, each reason once."""
        reasons = (choice.reason or FinishReason.ABORT for choice in self.choices)
        return list(dict.fromkeys(reason.value for reason in reasons))

    @property
    def _first_choices(self) -> Sequence[ChoiceRecord]:
        return self.choices[:: self.num_choices]
