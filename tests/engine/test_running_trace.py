"""The trace of a dead engine: whole at every moment, and read whatever state it was left in."""

import os
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.engine.running_trace import MAX_ID_BYTES, RunningTrace, Trace, read_trace

IDS = st.frozensets(st.text("abcdef-0123456789", min_size=1, max_size=MAX_ID_BYTES), max_size=8)


def test_an_engine_that_left_nothing(tmp_path: Path) -> None:
    assert read_trace(tmp_path / "none") == Trace()
    (tmp_path / "empty").touch()
    assert read_trace(tmp_path / "empty") == Trace()
    RunningTrace(tmp_path / "idle", 4)
    assert read_trace(tmp_path / "idle") == Trace()


@settings(deadline=None)
@given(steps=st.lists(IDS, min_size=1, max_size=10))
def test_the_last_list_holds(tmp_path_factory: object, steps: list[frozenset[str]]) -> None:
    path = tmp_path_factory.mktemp("trace") / "running"  # type: ignore[attr-defined]
    trace = RunningTrace(path, 8)
    for count, request_ids in enumerate(steps):
        trace.run(request_ids)
        assert read_trace(path) == Trace(count, sorted(request_ids))
        trace.complete_step()
        assert read_trace(path) == Trace(count + 1, sorted(request_ids))


def test_as_many_and_as_long_ids_as_there_may_be(tmp_path: Path) -> None:
    path = tmp_path / "running"
    trace = RunningTrace(path, 3)
    ids = frozenset(letter * MAX_ID_BYTES for letter in "abc")
    for _ in range(2):  # both slots
        trace.run(ids)
        trace.run(frozenset())
    trace.run(ids)
    assert read_trace(path).request_ids == sorted(ids)


def test_the_trace_outlives_the_process_that_wrote_it(tmp_path: Path) -> None:
    path = tmp_path / "running"
    child = os.fork()
    if child == 0:
        trace = RunningTrace(path, 4)
        trace.run(frozenset({"a", "b"}))
        trace.complete_step()
        os.kill(os.getpid(), 9)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == 9
    assert read_trace(path) == Trace(1, ["a", "b"])
