"""How many drafts pay: from measured acceptance and measured time, chosen anew each step."""

from dataclasses import dataclass

from leadline.engine.step import ModelOutput, SchedulerOutput

ACCEPTANCE_MEMORY = 200.0  # drafts over which an acceptance is averaged
TIME_MEMORY = 50.0  # steps over which costs are fitted
MIN_TIMED_STEPS = 8  # before this many, the cost of a step is taken as constant
PROBE_INTERVAL_STEPS = 32  # at depth 0, so often a step drafts all the same


class Average:
    """A mean that forgets: its weight is at most `memory` samples."""

    def __init__(self, start: float, memory: float) -> None:
        self.value = start
        self._memory = memory
        self._weight = 1.0

    def add(self, sample: float) -> None:
        """Take in one sample."""
        self._weight = min(self._weight + 1.0, self._memory)
        self.value += (sample - self.value) / self._weight


class LinearCost:
    """`seconds = fixed + slope * size` by least squares over recent steps."""

    def __init__(self) -> None:
        self.num_samples = 0
        self._n = self._x = self._y = self._xx = self._xy = 0.0

    def add(self, size: float, seconds: float) -> None:
        """Take in one measured step."""
        keep = 1.0 - 1.0 / TIME_MEMORY
        self.num_samples += 1
        self._n = self._n * keep + 1.0
        self._x = self._x * keep + size
        self._y = self._y * keep + seconds
        self._xx = self._xx * keep + size * size
        self._xy = self._xy * keep + size * seconds

    def predict(self, size: float) -> float:
        """Seconds of a step of this size; never negative, never falling with size."""
        if self._n == 0.0:
            return 0.0
        mean_x, mean_y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - mean_x * mean_x
        covariance = self._xy / self._n - mean_x * mean_y
        slope = max(0.0, covariance / variance) if variance > 1e-9 else 0.0
        return max(0.0, mean_y + slope * (size - mean_x))


@dataclass(slots=True)
class DraftCounts:
    """What speculation has done since start.

    Attributes:
        num_drafts: rows that verified at least one draft.
        num_accepted_per_pos: accepted drafts at each position of a chain.
    """

    num_drafts: int
    num_draft_tokens: int
    num_accepted_per_pos: list[int]


class DraftPolicy:
    """Depth of the next step's drafts: the one with the most tokens a second.

    A draft at position k is worth the product of the acceptances up to k; it costs a pass of the
    MTP layer and one more token to verify. At depth 0 a step in 32 drafts once, so that the
    acceptance stays known.

    Attributes:
        counts: totals since start.
    """

    def __init__(self, max_drafts: int, *, adaptive: bool = True) -> None:
        self.counts = DraftCounts(0, 0, [0] * max_drafts)
        self._max_drafts = max_drafts
        self._adaptive = adaptive
        self._acceptance = [Average(0.8, ACCEPTANCE_MEMORY) for _ in range(max_drafts)]
        self._verify = LinearCost()
        self._draft = LinearCost()
        self._num_steps = 0

    def depth(self, num_rows: int) -> int:
        """Drafts that each of `num_rows` decoding requests should propose in the next step."""
        self._num_steps += 1
        if not self._adaptive or num_rows == 0 or self._verify.num_samples < MIN_TIMED_STEPS:
            return self._max_drafts
        best = max(range(self._max_drafts + 1), key=lambda depth: self.speed(depth, num_rows))
        is_probe = self._num_steps % PROBE_INTERVAL_STEPS == 0
        return 1 if best == 0 and is_probe and self._max_drafts > 0 else best

    def speed(self, depth: int, num_rows: int) -> float:
        """Expected tokens a second of one row at a depth, by what has been measured."""
        tokens, chain = 1.0, 1.0
        for acceptance in self._acceptance[:depth]:
            chain *= acceptance.value
            tokens += chain
        seconds = self._verify.predict(num_rows * (1 + depth))
        if depth > 0:
            seconds += self._draft.predict(num_rows * depth)
        return tokens / max(seconds, 1e-9)

    def observe(self, plan: SchedulerOutput, output: ModelOutput) -> None:
        """Learn from a step: which drafts were accepted, and what it cost."""
        num_proposed = 0
        is_decode = all(
            row.samples and row.num_tokens == 1 + len(row.draft_ids) for row in plan.rows
        )
        for row, result in zip(plan.rows, output.rows, strict=True):
            num_proposed += len(result.draft_ids)
            if row.draft_ids and result.token_ids:
                self._count(len(row.draft_ids), len(result.token_ids) - 1)
        if plan.rows and is_decode:
            self._verify.add(plan.num_tokens, output.elapsed_s - output.draft_s)
            if num_proposed:
                self._draft.add(num_proposed, output.draft_s)

    def _count(self, num_drafted: int, num_accepted: int) -> None:
        self.counts.num_drafts += 1
        self.counts.num_draft_tokens += num_drafted
        for position in range(min(num_accepted + 1, num_drafted)):
            is_accepted = position < num_accepted
            self._acceptance[position].add(float(is_accepted))
            self.counts.num_accepted_per_pos[position] += is_accepted
