"""What was seen of one request."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class DraftCounts:
    """What drafts did.

    Attributes:
        num_drafts: steps with drafts.
        num_draft_tokens: tokens drafted.
        num_accepted_tokens: of those, how many were accepted.
        accepted_per_position: the same by position in the draft.
    """

    num_drafts: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_per_position: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Record:
    """One request; times are by `time.perf_counter`, in seconds.

    Attributes:
        start_s: when it was sent.
        queue_s: how long it had waited for `--max-concurrency` before.
        token_times_s: when each chunk with text came.
        end_s: when the last chunk of the answer came.
        num_prompt_tokens: by the answer's usage; else as sent, None if nobody knows.
        num_output_tokens: by the answer's usage; else its chunks.
        has_usage: whether the answer has told its usage.
        error: why it failed; empty if it did not.
    """

    start_s: float = 0.0
    queue_s: float = 0.0
    token_times_s: list[float] = field(default_factory=list)
    end_s: float = 0.0
    num_prompt_tokens: int | None = None
    num_output_tokens: int = 0
    has_usage: bool = False
    text: str = ""
    finish_reason: str | None = None
    drafts: DraftCounts | None = None
    error: str = ""

    @property
    def is_success(self) -> bool:
        """Whether the whole answer came."""
        return not self.error

    @property
    def ttft_s(self) -> float:
        """Time to the first chunk with text; to the end of an answer without any."""
        if self.token_times_s:
            return self.token_times_s[0] - self.start_s
        return self.latency_s

    @property
    def latency_s(self) -> float:
        """Time to the end."""
        return max(self.end_s - self.start_s, 0.0)

    @property
    def tpot_s(self) -> float:
        """Time per token after the first; 0 if there is no more than one."""
        if self.num_output_tokens < 2:
            return 0.0
        return (self.latency_s - self.ttft_s) / (self.num_output_tokens - 1)

    @property
    def itls_s(self) -> list[float]:
        """Times between chunks."""
        times = self.token_times_s
        return [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
