"""Chains of drafts made in one call are those made pass by pass."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from leadline.engine.request import SamplingParams
from leadline.engine.worker import drafter

END = 9


@st.composite
def params(draw: st.DrawFn) -> SamplingParams:
    return SamplingParams(
        seed=draw(st.integers(0, 2**64 - 1)),
        max_tokens=draw(st.integers(1, 12)),
        temperature=draw(st.sampled_from([0.0, 0.5, 1.5])),
        top_k=draw(st.sampled_from([0, 3])),
        top_p=draw(st.sampled_from([1.0, 0.7])),
        min_p=draw(st.sampled_from([0.0, 0.1])),
        stop_token_ids=draw(st.sampled_from([(), tuple(range(0, 512, 5))])),
        eos_token_ids=draw(st.sampled_from([(), (END, 11)])),
        ignore_eos=draw(st.booleans()),
    )


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    requests=st.lists(
        st.tuples(st.lists(st.integers(0, 511), min_size=1, max_size=9), params()),
        min_size=1,
        max_size=4,
    ),
    depth=st.integers(1, 4),
    least=st.sampled_from([0.0, 0.01, 0.25]),
)
def test_same_drafts(
    monkeypatch: pytest.MonkeyPatch,
    bench: Any,
    bench_in_parts: Any,
    requests: list[tuple[list[int], SamplingParams]],
    depth: int,
    least: float,
) -> None:
    monkeypatch.setattr(drafter, "MIN_DRAFT_PROBABILITY", least)
    held: list[list[list[int]]] = []
    answers = []
    for each in (bench, bench_in_parts):
        seen: list[list[int]] = []

        def keep(draft_ids: list[int], seen: list[list[int]] = seen) -> list[int]:
            seen.append(list(draft_ids))
            return draft_ids

        answers.append(each.answer(requests, depth=depth, spoil=keep))
        held.append(seen)
    assert held[0] == held[1]
    assert answers[0] == answers[1]
