"""How many drafts pay: from measured acceptance and measured time, chosen anew each step."""

from dataclasses import dataclass, field

from leadline.engine.histogram import DRAFT_DEPTH_BOUNDS, Recorder
from leadline.engine.request import SpeculationCounts
from leadline.engine.step import ModelOutput, SchedulerOutput

ACCEPTANCE_MEMORY = 200.0  # drafts over which an acceptance is averaged
PRIOR_WEIGHT = 8.0  # drafts that the overall acceptance counts for, beside a request's own
TIME_MEMORY = 50.0  # steps over which costs are fitted
MIN_TIMED_STEPS = 8  # before this many, the cost of a step is taken as constant
PROBE_INTERVAL_STEPS = 32  # so often a step tries another depth than the best
PROBE_ROWS = 4  # most rows that draft in such a step where the best depth is 0


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

    @property
    def slope(self) -> float:
        """Seconds for each unit of size; never negative."""
        if self._n == 0.0:
            return 0.0
        mean_x, mean_y = self._x / self._n, self._y / self._n
        variance = self._xx / self._n - mean_x * mean_x
        covariance = self._xy / self._n - mean_x * mean_y
        return max(0.0, covariance / variance) if variance > 1e-9 else 0.0

    def predict(self, size: float) -> float:
        """Seconds of a step of this size; never negative, never falling with size."""
        if self._n == 0.0:
            return 0.0
        return max(0.0, self._y / self._n + self.slope * (size - self._x / self._n))


@dataclass(slots=True)
class DraftCounts:
    """What speculation has done since start.

    Attributes:
        num_drafts: rows that verified at least one draft.
        num_accepted_per_pos: accepted drafts at each position of a chain.
        depths: chosen for steps with decoding requests.
    """

    num_drafts: int
    num_draft_tokens: int
    num_accepted_per_pos: list[int]
    depths: Recorder = field(default_factory=lambda: Recorder(DRAFT_DEPTH_BOUNDS))


class DraftPolicy:
    """Depth of the next step's drafts: the one with the most tokens a second.

    A draft at position k is worth the product of the acceptances up to k; it costs a pass of the
    MTP layer and one more token to verify. First a depth is chosen for the step as a whole; then
    each request, whose own acceptance may be better or worse than the mean, drafts as deep as a
    draft of its own is worth the time that it adds. Now and then a step goes one deeper or less
    deep than that, so that acceptances and costs stay known; from depth 0, only a few rows do.

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
        self._depth = 0
        self._least_worth = 0.0  # accepted tokens that a draft has to bring to pay for its time
        self._num_probes_left = 0

    @property
    def depth(self) -> int | None:
        """Most drafts a row of the step begun last; None where nothing is drafted."""
        return self._depth if self._max_drafts else None

    def begin_step(self, num_rows: int) -> int:
        """Choose the depth for a step of `num_rows` decoding requests; returns it."""
        depth = self._choose(num_rows)
        if num_rows and self._max_drafts:
            self.counts.depths.observe(depth)
        return depth

    def _choose(self, num_rows: int) -> int:
        self._num_steps += 1
        self._num_probes_left = 0
        self._least_worth = 0.0
        self._depth = self._max_drafts
        if not self._adaptive or num_rows == 0 or self._verify.num_samples < MIN_TIMED_STEPS:
            return self._depth
        depths = range(self._max_drafts + 1)
        best = max(depths, key=lambda depth: self.speed(depth, num_rows))
        self._depth = best
        if self._num_steps % PROBE_INTERVAL_STEPS == 0:
            if best == 0:
                self._num_probes_left = PROBE_ROWS
            else:
                self._depth = self._neighbour(best)
            return self._depth
        draft_s = self._verify.slope + self._draft.slope
        self._least_worth = num_rows * self.speed(best, num_rows) * draft_s
        return self._depth

    def depth_of(self, counts: SpeculationCounts) -> int:
        """Drafts that a request should propose in the step that has begun.

        Args:
            counts: what drafts have done for this request so far.
        """
        if self._num_probes_left > 0:
            self._num_probes_left -= 1
            return min(1, self._max_drafts)
        if self._least_worth == 0.0:
            return self._depth
        chain = 1.0
        for position in range(self._depth):
            chain *= self._acceptance_of(counts, position)
            if chain < self._least_worth:
                return position
        return self._depth

    def _neighbour(self, depth: int) -> int:
        """The depth below, or every other time the one above."""
        is_deeper = self._num_steps // PROBE_INTERVAL_STEPS % 2 == 0 and depth < self._max_drafts
        return depth + 1 if is_deeper else depth - 1

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
        for row, result in zip(plan.rows, output.rows, strict=True):
            if result.token_ids and row.num_verify:
                self._count(row.num_verify, result.num_verified, result.num_accepted)
        is_decode = all(row.samples and row.num_tokens == 1 for row in plan.rows)
        if output.num_tokens and is_decode:
            self._verify.add(output.num_tokens, output.elapsed_s - output.draft_s)
            if output.num_draft_passes:
                self._draft.add(output.num_draft_passes, output.draft_s)

    def _acceptance_of(self, counts: SpeculationCounts, position: int) -> float:
        """A request's own acceptance at a position, leaning on everybody's while it has few."""
        overall = self._acceptance[position].value
        if position >= len(counts.num_tried_per_pos):
            return overall
        accepted, tried = counts.num_accepted_per_pos[position], counts.num_tried_per_pos[position]
        return (accepted + PRIOR_WEIGHT * overall) / (tried + PRIOR_WEIGHT)

    def _count(self, num_asked: int, num_verified: int, num_accepted: int) -> None:
        """Take in one row; where a chain ended early, the draft that is missing counts as wrong."""
        for position in range(min(num_accepted + 1, num_asked)):
            self._acceptance[position].add(float(position < num_accepted))
        if num_verified:
            self.counts.num_drafts += 1
            self.counts.num_draft_tokens += num_verified
            for position in range(num_accepted):
                self.counts.num_accepted_per_pos[position] += 1
