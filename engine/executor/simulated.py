"""An executor without a model: strict about plans, exact about text, with time that is modelled."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from hashlib import blake2b
from itertools import accumulate

from leadline.engine.clock import VirtualClock
from leadline.engine.executor.base import Capacity
from leadline.engine.executor.held_text import HeldText
from leadline.engine.executor.simulated_pages import SimulatedPages
from leadline.engine.executor.step_time import StepTimeModel
from leadline.engine.request import SamplingParams
from leadline.engine.step import (
    FOLLOWS,
    ModelOutput,
    NewRequest,
    RowOutput,
    ScheduledRow,
    SchedulerOutput,
)
from leadline.engine.survey import ExpertLoad

Fault = Callable[[ScheduledRow, int], str | None]

_HASH_RANGE = 2**64


def _mix(*values: int) -> int:
    data = b"".join((value % _HASH_RANGE).to_bytes(8, "little") for value in values)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little")


class SimulatedExecutor:
    """Carries out plans on a fake latent cache.

    A slot holds the hash of all tokens up to its own, so that a wrong, stale or foreign page is
    noticed by the first row that reads it, however it came there (the host tier included). A
    sampled token is a function of the seeds and the tokens before it alone: the text is the same in
    every batch, chunking, preemption, prefix hit and draft. Every breach of the step contract is an
    AssertionError.

    Attributes:
        pages: the fake cache.
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
        fault: Fault = lambda row, start: None,
        damage: Callable[[int], bool] = lambda host_id: False,
    ) -> None:
        """Simulate a device.

        Args:
            capacity: what the device pretends to hold.
            step_time: duration of steps; none if absent.
            clock: moved on by each step's duration.
            seed: changes every text.
            vocab_size: sampled tokens are 0..vocab_size - 1.
            draft_acceptance: probability that a draft is right, if those before it are.
            fault: given a row and the position of its first token: a sentence if it is to fail,
                else None; its slots are then garbage.
            damage: whether a page that is loaded from this place of the host tier is found damaged.
        """
        self._capacity = capacity
        self._step_time = step_time or StepTimeModel()
        self._clock = clock or VirtualClock()
        self._seed = seed
        self._vocab_size = vocab_size
        self._draft_acceptance = draft_acceptance
        self._fault = fault
        self._held: dict[str, HeldText] = {}
        self._num_tables: Counter[int] = Counter()
        self.pages = SimulatedPages(capacity, damage)
        self._root = _mix(seed)
        self._sleep_level = 0

    def capacity(self) -> Capacity:
        """See `Executor.capacity`."""
        return self._capacity

    @property
    def num_held(self) -> int:
        """Requests that have not been released."""
        return len(self._held)

    def prepare(self, params: SamplingParams) -> Future[None] | None:
        """See `Executor.prepare`; nothing needs it."""
        return None

    def execute(self, plan: SchedulerOutput) -> Future[ModelOutput]:
        """See `Executor.execute`; the future is done on return."""
        future: Future[ModelOutput] = Future()
        try:
            future.set_result(self._run(plan))
        except AssertionError as error:
            future.set_exception(error)
        return future

    def expert_load(self) -> list[ExpertLoad]:
        """See `Executor.expert_load`; there are no experts."""
        return []

    def sleep(self, level: int) -> None:
        """See `Executor.sleep`; a page counts as a byte a slot, the weights as one byte."""
        self.close()
        self._sleep_level = max(level, self._sleep_level)
        self.pages.clear()

    def wake_up(self) -> Future[None]:
        """See `Executor.wake_up`; the future is done on return."""
        self._sleep_level = 0
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @property
    def num_bytes(self) -> int:
        """See `Executor.num_bytes`."""
        num_slots = self._capacity.num_pages * self._capacity.page_size
        return (0 if self._sleep_level else num_slots) + (self._sleep_level < 2)

    def close(self) -> None:
        """See `Executor.close`."""
        self._held.clear()
        self._num_tables.clear()

    def _run(self, plan: SchedulerOutput) -> ModelOutput:
        assert not self._sleep_level, "a step of an executor that sleeps"
        for request_id in plan.released_ids:
            self._release(request_id)
        for new_request in plan.new_requests:
            self._hold(new_request)
        failed_loads = [move.host_id for move in plan.page_moves if not self.pages.move(move)]
        damaged_page_ids = self.pages.find_damaged(plan.checked_page_ids)
        self._check_plan(plan)
        num_tokens = num_context_tokens = 0
        outputs = []
        for row in plan.rows:
            output = self._run_row(row)
            outputs.append(output)
            if not output.is_skipped:
                num_tokens += row.num_tokens + output.num_verified
                num_context_tokens += self._held[row.request_id].end
        elapsed_s = self._step_time.predict(num_tokens, num_context_tokens) if num_tokens else 0.0
        self._clock.advance(elapsed_s)
        return ModelOutput(
            step_id=plan.step_id,
            rows=outputs,
            elapsed_s=elapsed_s,
            num_draft_passes=sum(output.num_drafts for output in outputs),
            num_tokens=num_tokens,
            num_context_tokens=num_context_tokens,
            failed_loads=failed_loads,
            damaged_page_ids=damaged_page_ids,
        )

    def _release(self, request_id: str) -> None:
        assert request_id in self._held, f"released {request_id}, which is not held"
        self._num_tables.subtract(self._held.pop(request_id).page_ids)

    def _hold(self, request: NewRequest) -> None:
        assert request.request_id not in self._held, f"{request.request_id} is held already"
        assert 0 < request.num_prompt_tokens <= len(request.token_ids), "no prompt"
        held = HeldText(request.params, [], [], request.num_prompt_tokens)
        self._append(held, request.token_ids)
        self._held[request.request_id] = held

    def _check_plan(self, plan: SchedulerOutput) -> None:
        """Assert what must hold for the plan as a whole, and take in the new pages."""
        assert len(plan.rows) <= self._capacity.max_num_seqs, "too many rows"
        num_tokens = sum(row.num_tokens + row.num_verify for row in plan.rows)
        assert plan.num_tokens == num_tokens, "wrong num_tokens"
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
        if held.is_over:
            return RowOutput(token_ids=[], is_skipped=True)
        start = row.start
        if start == FOLLOWS:
            assert held.num_computed_tokens is not None, f"{row.request_id} follows nothing"
            assert row.samples, f"{row.request_id} follows a step without sampling"
            start = held.num_computed_tokens
        draft_ids = held.draft_ids[: row.num_verify]
        held.end = start + row.num_tokens + len(draft_ids)
        self._check_row(row, held, start, held.end)
        self.pages.check_context(held.page_ids, held.prefix_hashes[:start])
        tokens = held.token_ids[start:][: row.num_tokens] + draft_ids
        prefix = held.prefix_hashes[start - 1] if start else self._root
        hashes = self._chain(prefix, tokens)
        error = self._fault(row, start)
        written = hashes if error is None else [None] * len(hashes)
        self.pages.write(held.page_ids, start, written)
        if error is not None:
            held.is_over = True
            return RowOutput(token_ids=[], error=error)
        if not row.samples:
            held.num_computed_tokens = start + row.num_tokens
            self.pages.seal(held.page_ids, start, held.num_computed_tokens)
            return RowOutput(token_ids=[])
        verified = self._verify(held, hashes[-1 - len(draft_ids) :], draft_ids)
        sampled = held.cut(verified)
        self._append(held, sampled)
        held.num_computed_tokens = len(held.token_ids) - 1
        self.pages.seal(held.page_ids, start, held.num_computed_tokens)
        held.draft_ids = [] if held.is_over else self._draft(held, row.num_drafts)
        return RowOutput(
            sampled,
            num_verified=len(draft_ids),
            num_accepted=len(verified) - 1,
            num_drafts=len(held.draft_ids),
        )

    def _check_row(self, row: ScheduledRow, held: HeldText, start: int, end: int) -> None:
        """Assert that a row goes on where its request stands, within its pages."""
        name = row.request_id
        num_known = len(held.token_ids)
        if held.num_computed_tokens is not None:
            assert start == held.num_computed_tokens, f"{name}: positions not contiguous"
        assert 0 <= start < num_known, f"{name}: start {start} of {num_known} known"
        assert row.num_tokens > 0, f"{name}: nothing to compute"
        assert row.samples == (start + row.num_tokens == num_known), f"{name}: wrong samples"
        assert row.samples or not row.num_verify, f"{name}: drafts before the last known token"
        assert start + row.num_tokens <= num_known, f"{name}: unknown tokens"
        assert end <= self._capacity.max_model_len, f"{name}: beyond the model length"
        page_ids, page_size = held.page_ids, self._capacity.page_size
        assert end <= len(page_ids) * page_size, f"{name}: {end} tokens, {len(page_ids)} pages"
        assert len(set(page_ids)) == len(page_ids), f"{name}: a page twice in its table"
        assert all(0 <= page_id < self._capacity.num_pages for page_id in page_ids)
        for page_id in page_ids[start // page_size : -(-end // page_size)]:
            assert self._num_tables[page_id] == 1, f"{name}: writes shared page {page_id}"

    def _append(self, held: HeldText, token_ids: Sequence[int]) -> None:
        prefix = held.prefix_hashes[-1] if held.prefix_hashes else self._root
        held.prefix_hashes += self._chain(prefix, token_ids)
        held.token_ids += token_ids

    @staticmethod
    def _chain(prefix: int, token_ids: Sequence[int]) -> list[int]:
        return list(accumulate(token_ids, _mix, initial=prefix))[1:]

    def _sample(self, held: HeldText, prefix: int) -> int:
        return _mix(prefix, held.params.seed, 1) % self._vocab_size

    def _verify(self, held: HeldText, hashes: Sequence[int], draft_ids: Sequence[int]) -> list[int]:
        """The drafts that equal the target's own samples, and the sample after them."""
        sampled = []
        for i, prefix in enumerate(hashes):
            sampled.append(self._sample(held, prefix))
            if i >= len(draft_ids) or sampled[-1] != draft_ids[i]:
                break
        return sampled

    def _draft(self, held: HeldText, num_drafts: int) -> list[int]:
        drafts: list[int] = []
        prefix = held.prefix_hashes[-1]
        for _ in range(num_drafts):
            is_right = _mix(prefix, self._seed, 2) < self._draft_acceptance * _HASH_RANGE
            draft = (self._sample(held, prefix) + (0 if is_right else 1)) % self._vocab_size
            drafts.append(draft)
            prefix = _mix(prefix, draft)
        return drafts
