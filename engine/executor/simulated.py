"""An executor without a model: strict about plans, exact about text, with time that is modelled."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from hashlib import blake2b

from leadline.engine.clock import VirtualClock
from leadline.engine.executor.base import Capacity
from leadline.engine.executor.step_time import StepTimeModel
from leadline.engine.request import SamplingParams
from leadline.engine.step import (
    ModelOutput,
    NewRequest,
    RowOutput,
    ScheduledRow,
    SchedulerOutput,
)

Fault = Callable[[ScheduledRow], str | None]

_HASH_RANGE = 2**64


def _mix(*values: int) -> int:
    data = b"".join((value % _HASH_RANGE).to_bytes(8, "little") for value in values)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


@dataclass(slots=True)
class _Held:
    """A request as the executor knows it; `prefix_hashes[i]` names the tokens 0..i."""

    params: SamplingParams
    token_ids: list[int]
    prefix_hashes: list[int]
    num_computed_tokens: int | None = None
    draft_ids: list[int] = field(default_factory=list)
    page_ids: list[int] = field(default_factory=list)


class SimulatedExecutor:
    """Carries out plans on a fake latent cache.

    A slot holds the hash of all tokens up to its own, so that a wrong, stale or foreign page is
    noticed by the first row that reads it. A sampled token is a function of the seeds and the
    tokens before it alone: the text is the same in every batch, chunking, preemption, prefix hit
    and draft. Every breach of the step contract is an AssertionError.
    """

    def __init__(
        self,
        capacity: Capacity,
        *,
        step_time: StepTimeModel | None = None,
        clock: VirtualClock | None = None,
        seed: int = 0,
        vocab_size: int = 1000,
        draft_acceptance: float = 0.0,
        fault: Fault = lambda row: None,
    ) -> None:
        """Simulate a device.

        Args:
            capacity: what the device pretends to hold.
            step_time: duration of steps; none if absent.
            clock: moved on by each step's duration.
            seed: changes every text.
            vocab_size: sampled tokens are 0..vocab_size - 1.
            draft_acceptance: probability that a draft is right, if those before it are.
            fault: a sentence for a row that is to fail, else None; its slots are then garbage.
        """
        self._capacity = capacity
        self._step_time = step_time or StepTimeModel()
        self._clock = clock or VirtualClock()
        self._seed = seed
        self._vocab_size = vocab_size
        self._draft_acceptance = draft_acceptance
        self._fault = fault
        self._held: dict[str, _Held] = {}
        self._num_tables: Counter[int] = Counter()
        self._pages: list[list[int | None]] = [
            [None] * capacity.page_size for _ in range(capacity.num_pages)
        ]
        self._root = _mix(seed)

    def capacity(self) -> Capacity:
        """See `Executor.capacity`."""
        return self._capacity

    @property
    def num_held(self) -> int:
        """Requests that have not been released."""
        return len(self._held)

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        """See `Executor.execute`; the future is done on return."""
        future: Future[ModelOutput] = Future()
        try:
            future.set_result(self._run(plan))
        except AssertionError as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """See `Executor.close`."""
        self._held.clear()
        self._num_tables.clear()

    def _run(self, plan: SchedulerOutput) -> ModelOutput:
        for request_id in plan.released_ids:
            self._release(request_id)
        for new_request in plan.new_requests:
            self._hold(new_request)
        self._check_plan(plan)
        outputs = [self._run_row(row) for row in plan.rows]
        elapsed_s = self._step_time.predict(plan)
        self._clock.advance(elapsed_s)
        return ModelOutput(step_id=plan.step_id, rows=outputs, elapsed_s=elapsed_s)

    def _release(self, request_id: str) -> None:
        assert request_id in self._held, f"released {request_id}, which is not held"
        self._num_tables.subtract(self._held.pop(request_id).page_ids)

    def _hold(self, request: NewRequest) -> None:
        assert request.request_id not in self._held, f"{request.request_id} is held already"
        assert 0 < request.num_prompt_tokens <= len(request.token_ids), "no prompt"
        held = _Held(request.params, [], [])
        self._append(held, request.token_ids)
        self._held[request.request_id] = held

    def _check_plan(self, plan: SchedulerOutput) -> None:
        """Assert what must hold for the plan as a whole, and take in the new pages."""
        assert len(plan.rows) <= self._capacity.max_num_seqs, "too many rows"
        assert plan.num_tokens == sum(row.num_tokens for row in plan.rows), "wrong num_tokens"
        row_ids = [row.request_id for row in plan.rows]
        assert len(set(row_ids)) == len(row_ids), "a request has two rows"
        new_ids = {request.request_id for request in plan.new_requests}
        assert new_ids <= set(row_ids), "a new request has no row"
        for row in plan.rows:
            assert row.request_id in self._held, f"{row.request_id} is not held"
            self._held[row.request_id].page_ids += row.new_page_ids
            self._num_tables.update(row.new_page_ids)

    def _run_row(self, row: ScheduledRow) -> RowOutput:
        held = self._held[row.request_id]
        self._check_row(row, held)
        self._check_context(held, row.start)
        tokens = held.token_ids[row.start :][: row.num_tokens - len(row.draft_ids)]
        tokens += row.draft_ids
        prefix = held.prefix_hashes[row.start - 1] if row.start else self._root
        hashes = self._chain(prefix, tokens)
        error = self._fault(row)
        self._write(held, row.start, hashes if error is None else [None] * len(hashes))
        if error is not None:
            return RowOutput(token_ids=[], error=error)
        if not row.samples:
            held.num_computed_tokens = row.start + row.num_tokens
            return RowOutput(token_ids=[])
        sampled = self._verify(held, hashes[-1 - len(row.draft_ids) :], row.draft_ids)
        self._append(held, sampled)
        held.num_computed_tokens = len(held.token_ids) - 1
        held.draft_ids = self._draft(held, row.num_drafts)
        return RowOutput(token_ids=sampled, draft_ids=list(held.draft_ids))

    def _check_row(self, row: ScheduledRow, held: _Held) -> None:
        """Assert that a row goes on where its request stands, within its pages."""
        name, end = row.request_id, row.start + row.num_tokens
        num_known = len(held.token_ids)
        if held.num_computed_tokens is not None:
            assert row.start == held.num_computed_tokens, f"{name}: positions not contiguous"
        assert 0 <= row.start < num_known, f"{name}: start {row.start} of {num_known} known"
        assert row.num_tokens > len(row.draft_ids), f"{name}: nothing but drafts"
        assert row.draft_ids == held.draft_ids[: len(row.draft_ids)], f"{name}: foreign drafts"
        assert row.samples == (end - len(row.draft_ids) == num_known), f"{name}: wrong samples"
        assert row.samples or not row.draft_ids, f"{name}: drafts before the last known token"
        assert end <= num_known + len(row.draft_ids), f"{name}: unknown tokens"
        assert end <= self._capacity.max_model_len, f"{name}: beyond the model length"
        page_ids, page_size = held.page_ids, self._capacity.page_size
        assert end <= len(page_ids) * page_size, f"{name}: {end} tokens, {len(page_ids)} pages"
        assert len(set(page_ids)) == len(page_ids), f"{name}: a page twice in its table"
        assert all(0 <= page_id < self._capacity.num_pages for page_id in page_ids)
        for page_id in page_ids[row.start // page_size : -(-end // page_size)]:
            assert self._num_tables[page_id] == 1, f"{name}: writes shared page {page_id}"

    def _check_context(self, held: _Held, num_tokens: int) -> None:
        """Assert that the slots before a row hold what the model would have written there."""
        page_size = self._capacity.page_size
        for i in range(-(-num_tokens // page_size)):
            start, end = i * page_size, min((i + 1) * page_size, num_tokens)
            found = self._pages[held.page_ids[i]][: end - start]
            assert found == held.prefix_hashes[start:end], f"page {held.page_ids[i]} is stale"

    def _write(self, held: _Held, start: int, values: Sequence[int | None]) -> None:
        for position, value in enumerate(values, start):
            page, slot = divmod(position, self._capacity.page_size)
            self._pages[held.page_ids[page]][slot] = value

    def _append(self, held: _Held, token_ids: Sequence[int]) -> None:
        prefix = held.prefix_hashes[-1] if held.prefix_hashes else self._root
        held.prefix_hashes += self._chain(prefix, token_ids)
        held.token_ids += token_ids

    @staticmethod
    def _chain(prefix: int, token_ids: Sequence[int]) -> list[int]:
        hashes = []
        for token_id in token_ids:
            prefix = _mix(prefix, token_id)
            hashes.append(prefix)
        return hashes

    def _sample(self, held: _Held, prefix: int) -> int:
        return _mix(prefix, held.params.seed, 1) % self._vocab_size

    def _verify(self, held: _Held, hashes: Sequence[int], draft_ids: Sequence[int]) -> list[int]:
        """The drafts that equal the target's own samples, and the sample after them."""
        sampled = []
        for i, prefix in enumerate(hashes):
            sampled.append(self._sample(held, prefix))
            if i >= len(draft_ids) or sampled[-1] != draft_ids[i]:
                break
        return sampled

    def _draft(self, held: _Held, num_drafts: int) -> list[int]:
        drafts: list[int] = []
        prefix = held.prefix_hashes[-1]
        for _ in range(num_drafts):
            is_right = _mix(prefix, self._seed, 2) < self._draft_acceptance * _HASH_RANGE
            draft = (self._sample(held, prefix) + (0 if is_right else 1)) % self._vocab_size
            drafts.append(draft)
            prefix = _mix(prefix, draft)
        return drafts
