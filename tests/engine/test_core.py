"""The invariant: every accepted request has exactly one final output, whatever happens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.engine.clock import VirtualClock
from leadline.engine.errors import PromptTooLongError
from leadline.engine.executor.step_time import StepTimeModel
from leadline.engine.request import EngineRequest, FinishReason, RequestOutput
from leadline.engine.step import ScheduledRow

EOS = 0
SYSTEM_PROMPT = [1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3]


@dataclass
class Visit:
    """One request and what happens to it."""

    prompt_ids: list[int]
    max_tokens: int
    seed: int
    salt: str
    arrival_step: int
    finish_step: int | None
    finish_in_flight: bool
    finish_reason: FinishReason
    fails_at: int | None
    priority: int
    tenant: str
    follows: bool


@st.composite
def visits(draw: Any) -> Visit:
    shared = SYSTEM_PROMPT[: draw(st.integers(0, len(SYSTEM_PROMPT)))]
    own = draw(st.lists(st.integers(1, 5), min_size=0 if shared else 1, max_size=6))
    arrival_step = draw(st.integers(0, 8))
    finishes = draw(st.booleans())
    return Visit(
        prompt_ids=shared + own,
        max_tokens=draw(st.integers(1, 14)),
        seed=draw(st.integers(0, 2)),
        salt=draw(st.sampled_from(["", "", "tenant"])),
        arrival_step=arrival_step,
        finish_step=arrival_step + draw(st.integers(0, 12)) if finishes else None,
        finish_in_flight=draw(st.booleans()),
        finish_reason=draw(st.sampled_from([FinishReason.ABORT, FinishReason.STOP])),
        fails_at=draw(st.none() | st.none() | st.integers(0, 20)),
        priority=draw(st.sampled_from([0, 0, 0, -1, 2])),
        tenant=draw(st.sampled_from(["", "", "x"])),
        follows=draw(st.booleans()),
    )


@st.composite
def engines(draw: Any) -> dict[str, Any]:
    max_num_seqs = draw(st.integers(1, 6))
    return {
        "num_pages": draw(st.integers(3, 14)),
        "page_size": draw(st.integers(1, 4)),
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_seqs + draw(st.integers(0, 12)),
        "prefix_caching": draw(st.booleans()),
        "num_drafts": draw(st.integers(0, 3)),
        "draft_acceptance": draw(st.sampled_from([0.0, 0.5, 1.0])),
        "num_host_pages": draw(st.sampled_from([0, 0, 2, 20])),
        "max_steps": draw(st.integers(1, 2)),
        "scheduling": {"verify_pages": draw(st.booleans())},
    }


def fault_at(positions: dict[str, int]) -> Callable[[ScheduledRow], str | None]:
    """Rows that compute the given position of their request fail."""

    def fault(row: ScheduledRow, start: int) -> str | None:
        position = positions.get(row.request_id, -1)
        return "bad luck" if start <= position < start + row.num_tokens else None

    return fault


@settings(
    max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    options=engines(),
    visits=st.lists(visits(), min_size=1, max_size=10),
    damaged=st.integers(0, 3),
    reset_step=st.integers(0, 60),
)
def test_every_request_ends_exactly_once_with_its_own_text(
    engine: Any,
    request_of: Any,
    options: dict[str, Any],
    visits: list[Visit],
    damaged: int,
    reset_step: int,
) -> None:
    failing = {str(i): v.fails_at for i, v in enumerate(visits) if v.fails_at is not None}

    def request(i: int) -> EngineRequest:
        visit = visits[i]
        return request_of(
            str(i),
            visit.prompt_ids,
            visit.max_tokens,
            seed=visit.seed,
            cache_salt=visit.salt,
            eos_token_ids=(EOS,),
            request={
                "priority": visit.priority,
                "tenant": visit.tenant,
                "leader_id": str(i - 1) if visit.follows else None,
            },
        )

    def finish_due(in_flight: bool) -> None:
        now = (step, in_flight)
        due = [i for i, v in enumerate(visits) if (v.finish_step, v.finish_in_flight) == now]
        finals = [run.core.finish(str(i), visits[i].finish_reason) for i in due]
        run.take([final for final in finals if final is not None])
        finished_early.update(final.request_id for final in finals if final is not None)

    def submit_due() -> None:
        for i, visit in enumerate(visits):
            if visit.arrival_step == step:
                num_tokens = len(visit.prompt_ids) + visit.max_tokens
                if num_tokens > options["num_pages"] * options["page_size"]:
                    with pytest.raises(PromptTooLongError):
                        run.core.submit(request(i))
                else:
                    run.core.submit(request(i))
                    accepted.add(str(i))

    run = engine(**options, fault=fault_at(failing), damage=lambda host_id: host_id % 3 == damaged)
    accepted: set[str] = set()
    finished_early: set[str] = set()
    step = 0
    while step <= 20 or run.core.has_work():
        assert step < 1000, "no progress"
        submit_due()
        finish_due(in_flight=False)
        if step == reset_step:
            run.core.reset_prefix_cache()
        run.core.start_steps()
        finish_due(in_flight=True)
        if run.core.num_steps_in_flight:
            run.take(run.core.complete_step())
        run.scheduler.check()
        step += 1

    assert run.outputs.keys() == accepted
    assert run.scheduler.num_requests == 0
    assert run.executor.num_held == 0
    assert run.core.stats().page_usage == 0
    for request_id in accepted:
        alone = engine()
        alone.core.submit(request(int(request_id)))
        alone.run()
        failed = run.outputs[request_id][-1].finish_reason is FinishReason.ERROR
        assert not failed or request_id in failing
        num_prompt_tokens = len(visits[int(request_id)].prompt_ids)
        assert run.outputs[request_id][-1].num_cached_tokens < num_prompt_tokens
        check_outputs(
            run.outputs[request_id],
            alone.outputs[request_id],
            is_whole=not failed and request_id not in finished_early,
        )


def check_outputs(
    outputs: list[RequestOutput], expected: list[RequestOutput], *, is_whole: bool
) -> None:
    *others, final = outputs
    assert final.finish_reason is not None
    assert all(output.finish_reason is None for output in others)
    text = [token_id for output in outputs for token_id in output.token_ids]
    expected_text = [token_id for output in expected for token_id in output.token_ids]
    if is_whole:
        assert text == expected_text
        assert final.finish_reason == expected[-1].finish_reason
        assert final.stop_token_id == expected[-1].stop_token_id
    else:
        assert text == expected_text[: len(text)]
    assert (final.error == "bad luck") == (final.finish_reason is FinishReason.ERROR)


def test_requests_end_in_any_state_with_finish_all(engine: Any, request_of: Any) -> None:
    run = engine(max_num_seqs=1)
    run.core.submit(request_of("running", max_tokens=50))
    run.step()
    run.core.submit(request_of("waiting"))
    run.core.start_steps()
    finals = run.core.finish_all(FinishReason.ABORT)
    assert [final.request_id for final in finals] == ["running", "waiting"]
    assert {final.finish_reason for final in finals} == {FinishReason.ABORT}
    while run.core.num_steps_in_flight:
        assert run.core.complete_step() == []
    run.run()
    assert run.core.finish_all(FinishReason.ABORT) == []
    assert run.executor.num_held == 0


def test_an_empty_step_is_legal(engine: Any) -> None:
    run = engine()
    assert not run.core.has_work()
    assert run.core.step() == []


def test_decodes_never_starve_under_sustained_long_prompts(engine: Any, request_of: Any) -> None:
    clock = VirtualClock()
    step_time = StepTimeModel(fixed_s=0.010, per_token_s=0.001)
    budget = 32
    run = engine(
        num_pages=2000,
        max_model_len=2000,
        max_num_seqs=16,
        max_num_batched_tokens=budget,
        clock=clock,
        step_time=step_time,
    )
    chats = [f"chat{i}" for i in range(8)]
    for chat in chats:
        run.core.submit(request_of(chat, [1, 2], 100))
    run.step()
    token_times = {chat: [clock.now()] for chat in chats}
    for i in range(4):
        run.core.submit(request_of(f"document{i}", [i] * 500, 4))
    while run.core.has_work():
        for output in run.core.step():
            if output.request_id in chats:
                token_times[output.request_id].append(clock.now())
    longest_gap = 0.010 + budget * 0.001
    for times in token_times.values():
        assert len(times) == 100
        gaps = [after - before for before, after in zip(times[:-1], times[1:], strict=True)]
        assert max(gaps) == pytest.approx(longest_gap)
    assert run.core.stats().num_preemptions == 0


def test_preempted_requests_find_their_own_pages(engine: Any, request_of: Any) -> None:
    def num_computed(prefix_caching: bool) -> float:
        clock = VirtualClock()
        run = engine(
            num_pages=20,
            max_num_batched_tokens=32,
            prefix_caching=prefix_caching,
            clock=clock,
            step_time=StepTimeModel(per_token_s=1.0),
        )
        for i in range(4):
            run.core.submit(request_of(str(i), [i + 1] * 16, 30))
        run.run()
        assert run.core.stats().num_preemptions > 0
        return clock.now()

    assert num_computed(prefix_caching=True) < num_computed(prefix_caching=False)
