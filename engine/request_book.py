"""Which requests are alive, and where each of them stands."""

from bisect import insort
from collections.abc import Collection

from leadline.engine.fair_share import FairShare
from leadline.engine.request_state import RequestState, RequestStatus
from leadline.engine.waiting_queue import WaitingQueue


class RequestBook:
    """All requests whose final output has not been made.

    Attributes:
        requests: by id.
        running: those that have pages and rows, in order (`RequestState.order`).
        waiting: those that have no pages.
        has_suspects: there may be some that are to be computed alone.
        num_loading: those whose pages come from the host tier, or are checked, in the step in
            flight.
        tenants: how much service each tenant has had.
    """

    def __init__(self, max_num_seqs: int) -> None:
        self.requests: dict[str, RequestState] = {}
        self.running: list[RequestState] = []
        self.tenants = FairShare()
        self.waiting = WaitingQueue(self.tenants)
        self.num_loading = 0
        self._max_num_seqs = max_num_seqs
        self._released_ids: list[str] = []
        self._num_arrived = 0
        self._held_from: int | None = None
        self.has_suspects = False

    @property
    def is_holding(self) -> bool:
        """Whether requests are held back: they are alive, and get no steps."""
        return self._held_from is not None

    @property
    def has_work(self) -> bool:
        """Whether a step is worth taking: for requests, or to let the executor drop ended ones."""
        if self._held_from is None:
            return bool(self.requests or self._released_ids)
        return any(not self.holds(state) for state in self.requests.values())

    def hold(self, *, only_new: bool) -> None:
        """Give requests no more steps: those that arrive from now on, or all."""
        self._held_from = self._num_arrived if only_new else 0

    def let_go(self) -> None:
        """Hold nothing back any more."""
        self._held_from = None

    def holds(self, state: RequestState) -> bool:
        """Whether a request is held back."""
        return self._held_from is not None and state.number >= self._held_from

    def find(self, names: Collection[str]) -> list[RequestState]:
        """The requests that have one of these names."""
        return [s for s in self.requests.values() if not set(names).isdisjoint(s.request.names)]

    def next_number(self) -> int:
        """The place in the order of arrival for a new request."""
        self._num_arrived += 1
        return self._num_arrived - 1

    @property
    def num_seats(self) -> int:
        """Requests that the batch has room for."""
        return self._max_num_seqs - len(self.running) - self.num_loading

    @property
    def has_released(self) -> bool:
        """Whether the executor holds requests that it can drop."""
        return bool(self._released_ids)

    def next_suspect(self) -> RequestState | None:
        """The request that is to be computed alone now, if there is one; a running one first."""
        if not self.has_suspects:
            return None
        suspects = [s for s in self.requests.values() if s.is_suspect]
        self.has_suspects = bool(suspects)
        suspects = [s for s in suspects if not self.holds(s)]
        started = [s for s in suspects if s.status is not RequestStatus.WAITING]
        ready = [s for s in suspects if s.prepared is None or s.prepared.done()]
        return next(iter([*started, *ready, *suspects]), None)

    def take_released_ids(self) -> list[str]:
        """Requests that the executor is to drop before the next step."""
        released_ids, self._released_ids = self._released_ids, []
        return released_ids

    def arrive(self, state: RequestState) -> None:
        """Let a new request wait."""
        self.requests[state.request_id] = state
        self.has_suspects = self.has_suspects or state.is_suspect
        self.tenants.arrive(state.request.tenant)
        self.waiting.push(state)

    def start_loading(self, state: RequestState) -> None:
        """A waiting request has pages, and their content is on its way."""
        self.waiting.remove(state)
        state.status = RequestStatus.LOADING
        self.num_loading += 1

    def stop_loading(self, state: RequestState) -> None:
        """A request has given up the pages that it waited for, and waits again."""
        self.num_loading -= 1
        state.status = RequestStatus.WAITING
        self.waiting.push(state)

    def start(self, state: RequestState) -> None:
        """A request with pages runs."""
        if state.status is RequestStatus.LOADING:
            self.num_loading -= 1
        else:
            self.waiting.remove(state)
        state.status = RequestStatus.RUNNING
        insort(self.running, state, key=lambda s: s.order)
        if state.num_cached_tokens is None:
            state.num_cached_tokens = state.num_computed_tokens
            num_new = state.num_prompt_tokens - state.num_cached_tokens
            self.tenants.charge(state.request.tenant, num_prompt_tokens=num_new)

    def preempt(self, state: RequestState) -> None:
        """A running request has lost its pages, and waits again."""
        self.running.remove(state)
        self._release(state)
        state.num_preemptions += 1
        state.num_held_drafts = 0
        state.prompt_logprobs = []
        state.status = RequestStatus.WAITING
        self.waiting.push(state)

    def retire(self, state: RequestState) -> None:
        """Take a request out of the books: its final output is being made."""
        del self.requests[state.request_id]
        match state.status:
            case RequestStatus.RUNNING:
                self.running.remove(state)
            case RequestStatus.WAITING:
                self.waiting.remove(state)
            case RequestStatus.LOADING:
                self.num_loading -= 1
        state.status = RequestStatus.FINISHED
        self.tenants.leave(state.request.tenant)
        self._release(state)

    def check(self) -> None:
        """Assert that every request is in exactly one place; for tests."""
        alive = [*self.running, *self.waiting]
        assert len(alive) + self.num_loading == len(self.requests)
        assert {id(state) for state in alive} <= {id(s) for s in self.requests.values()}
        assert [s.order for s in self.running] == sorted(s.order for s in self.running)

    def _release(self, state: RequestState) -> None:
        if state.is_held:
            self._released_ids.append(state.request_id)
            state.is_held = False
