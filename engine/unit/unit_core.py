"""The engine of a unit: a core for each data parallel lane, whose steps are the unit's steps."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from leadline.engine.control import PauseMode
from leadline.engine.core import EngineCore
from leadline.engine.errors import EngineAsleepError, id_in_use
from leadline.engine.messages import EngineStats
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput
from leadline.engine.running_trace import RunningTrace
from leadline.engine.scheduler import MAX_STEPS_IN_FLIGHT
from leadline.engine.survey import EngineSurvey
from leadline.engine.unit.merge import merge_stats, merge_surveys
from leadline.engine.unit.router import RequestRouter
from leadline.engine.unit.unit_executor import UnitExecutor

_WATCH_S = 1.0  # an idle unit looks so often whether its ranks are alive

Outputs = list[RequestOutput]


class UnitCore:
    """What `EngineCore` is for one device, over several lanes; its methods mean the same.

    A step is started for all lanes at once. A lane that has nothing to compute takes part in it,
    for its experts have the tokens of the others; without work in any lane nothing is sent.
    """

    def __init__(
        self,
        lanes: Sequence[EngineCore],
        executor: UnitExecutor,
        router: RequestRouter,
        *,
        close: Callable[[], None],
        prefill_interval: int = 1,
        max_steps: int = MAX_STEPS_IN_FLIGHT,
    ) -> None:
        """A unit at rest.

        Args:
            lanes: with the executor's lanes.
            executor: the ranks.
            router: which lane a request goes to.
            close: ends the ranks.
            prefill_interval: prompts have a part of each step whose number is a multiple of this,
                in all lanes alike, since all wait for the longest step; of every step while there
                is nothing else to compute.
            max_steps: steps in flight at most.
        """
        self._lanes = lanes
        self._executor = executor
        self._router = router
        self._close = close
        self._prefill_interval = prefill_interval
        self._num_started = 0
        self._max_steps = max_steps
        self._owners: dict[str, EngineCore] = {}
        self._routed: set[str] = set()
        self._in_flight: deque[list[EngineCore]] = deque()
        self._ids_in_flight: deque[frozenset[str]] = deque()
        self._trace: RunningTrace | None = None

    def leave_trace(self, path: Path) -> None:
        """See `EngineCore.leave_trace`."""
        seats = sum(lane.capacity().max_num_seqs for lane in self._executor.lanes)
        self._trace = RunningTrace(path, MAX_STEPS_IN_FLIGHT * seats)

    def submit(self, request: EngineRequest) -> None:
        """See `EngineCore.submit`: the router chooses the lane.

        Requests that share their prompts share a lane; so do those that are tried alone.
        """
        request_id, resumption = request.request_id, request.resumption
        if request_id in self._owners:
            raise id_in_use(request_id)
        if self.sleep_level:
            raise EngineAsleepError("the engine sleeps; POST /wake_up ends that")
        lane = self._owners.get(request.leader_id or "")
        if resumption is not None and resumption.is_suspect:
            lane = self._lanes[0]
        if lane is None:
            known_ids = [*request.prompt_ids, *(resumption.token_ids if resumption else ())]
            number = self._router.route(
                request_id,
                known_ids,
                cache_salt=request.cache_salt,
                session_id=request.session_id,
            )
            lane = self._lanes[number]
            self._routed.add(request_id)
        self._owners[request_id] = lane
        try:
            lane.submit(request)
        except BaseException:
            self._forget(request_id)
            raise

    def finish(self, request_id: str, reason: FinishReason) -> RequestOutput | None:
        """See `EngineCore.finish`."""
        lane = self._owners.get(request_id)
        output = None if lane is None else lane.finish(request_id, reason)
        return self._take([output])[0] if output is not None else None

    def finish_all(self, reason: FinishReason) -> Outputs:
        """See `EngineCore.finish_all`."""
        return self._take([output for lane in self._lanes for output in lane.finish_all(reason)])

    def sweep(self) -> Outputs:
        """See `EngineCore.sweep`.

        Raises:
            EngineDeadError: a rank is gone.
        """
        self._executor.check()
        return self._take([output for lane in self._lanes for output in lane.sweep()])

    def abort(self, names: list[str] | None) -> tuple[Outputs, list[str]]:
        """See `EngineCore.abort`."""
        outputs: Outputs = []
        first_names: dict[str, None] = {}
        for lane in self._lanes:
            aborted, lane_names = lane.abort(names)
            outputs += aborted
            first_names |= dict.fromkeys(lane_names)
        return self._take(outputs), list(first_names)

    def pause(self, mode: PauseMode) -> Outputs:
        """See `EngineCore.pause`."""
        return self._take([output for lane in self._lanes for output in lane.pause(mode)])

    def stay_paused(self, sleep_level: int = 0) -> None:
        """See `EngineCore.stay_paused`."""
        for lane in self._lanes:
            lane.stay_paused(sleep_level)

    def resume(self) -> None:
        """See `EngineCore.resume`."""
        for lane in self._lanes:
            lane.resume()

    def sleep(self, level: int) -> int:
        """See `EngineCore.sleep`."""
        return sum(lane.sleep(level) for lane in self._lanes)

    @property
    def sleep_level(self) -> int:
        """See `EngineCore.sleep_level`."""
        return max(lane.sleep_level for lane in self._lanes)

    def start_waking(self) -> None:
        """See `EngineCore.start_waking`."""
        for lane in self._lanes:
            lane.start_waking()

    def announce(self, activity: str) -> None:
        """See `EngineCore.announce`."""
        self._lanes[0].announce(activity)

    @property
    def activity(self) -> str:
        """See `EngineCore.activity`."""
        if self.is_waking:
            return f"waking up: {self._executor.progress.stage}"
        return self._lanes[0].activity

    @property
    def is_waking(self) -> bool:
        """See `EngineCore.is_waking`."""
        return any(lane.is_waking for lane in self._lanes)

    def finish_waking(self) -> bool:
        """See `EngineCore.finish_waking`."""
        return all(lane.finish_waking() for lane in self._lanes)

    @property
    def is_holding(self) -> bool:
        """See `EngineCore.is_holding`."""
        return any(lane.is_holding for lane in self._lanes)

    @property
    def is_paused(self) -> bool:
        """See `EngineCore.is_paused`."""
        return all(lane.is_paused for lane in self._lanes)

    def idle_s(self) -> float | None:
        """See `EngineCore.idle_s`; never long, for `sweep` notices ranks that are gone."""
        times_s = [lane.idle_s() for lane in self._lanes]
        return min([_WATCH_S, *(time_s for time_s in times_s if time_s is not None)])

    def has_work(self) -> bool:
        """See `EngineCore.has_work`."""
        return any(lane.has_work() for lane in self._lanes)

    @property
    def num_steps_in_flight(self) -> int:
        """See `EngineCore.num_steps_in_flight`."""
        return len(self._in_flight)

    def start_steps(self) -> None:
        """See `EngineCore.start_steps`: a step of the unit has the next plan of every lane."""
        while len(self._in_flight) < self._max_steps:
            lanes = self._lanes
            if self._lanes[0].has_suspect:
                lanes = self._lanes[:1]
                if any(lane is not lanes[0] for started in self._in_flight for lane in started):
                    return
            takes_prompts = self._num_started % self._prefill_interval == 0
            started = _start(lanes, takes_prompts=takes_prompts)
            if not started and not takes_prompts:
                started = _start(lanes, takes_prompts=True)
            if not started:
                return
            self._num_started += 1
            self._executor.even_out()
            self._in_flight.append([lane for lane, _ in started])
            self._ids_in_flight.append(frozenset().union(*(ids for _, ids in started)))
            if self._trace is not None:
                self._trace.run(frozenset().union(*self._ids_in_flight))

    def can_step(self) -> bool:
        """See `EngineCore.can_step`."""
        return any(lane.has_work() and lane.can_step() for lane in self._lanes)

    def complete_step(self) -> Outputs:
        """See `EngineCore.complete_step`."""
        outputs = [output for lane in self._in_flight[0] for output in lane.complete_step()]
        self._in_flight.popleft()
        self._ids_in_flight.popleft()
        if self._trace is not None:
            self._trace.complete_step()
        return self._take(outputs)

    def step(self) -> Outputs:
        """See `EngineCore.step`."""
        outputs = self.sweep()
        self.start_steps()
        return outputs + (self.complete_step() if self._in_flight else [])

    def reset_prefix_cache(self) -> int:
        """See `EngineCore.reset_prefix_cache`."""
        return sum(lane.reset_prefix_cache() for lane in self._lanes)

    def publish_events(self) -> None:
        """See `EngineCore.publish_events`."""
        for lane in self._lanes:
            lane.publish_events()

    def stats(self) -> EngineStats:
        """See `EngineCore.stats`: of all lanes together."""
        stats = merge_stats([lane.stats() for lane in self._lanes])
        stats.is_paused = self.is_paused
        stats.activity = self.activity
        return stats

    def survey(self) -> EngineSurvey:
        """See `EngineCore.survey`: the pages of one lane after those of another."""
        surveys = [lane.survey() for lane in self._lanes]
        return merge_surveys(surveys, self._executor.expert_load())

    def close(self) -> None:
        """End the ranks."""
        for lane in self._lanes:
            lane.close()
        self._close()

    def _take(self, outputs: Outputs) -> Outputs:
        """Let the router know of new tokens and of ends."""
        for output in outputs:
            is_routed = output.request_id in self._routed
            if is_routed and output.token_ids:
                self._router.take_tokens(output.request_id, output.token_ids)
            if output.finish_reason is not None:
                self._forget(output.request_id)
        return outputs

    def _forget(self, request_id: str) -> None:
        del self._owners[request_id]
        if request_id in self._routed:
            self._routed.remove(request_id)
            self._router.end(request_id)


def _start(
    lanes: Sequence[EngineCore], *, takes_prompts: bool
) -> list[tuple[EngineCore, frozenset[str]]]:
    """Lanes that have started a step, and the requests in it."""
    started = [(lane, lane.start_step(takes_prompts=takes_prompts)) for lane in lanes]
    return [(lane, ids) for lane, ids in started if ids is not None]
