import time

from leadline.server.start_times import StartTimes


def test_the_parts_of_a_start_are_all_of_it() -> None:
    begin_s = time.monotonic() - 5.0
    times = StartTimes(begin_s)
    times.end("imports")
    times.begin_stage("reading weights: 0 of 9 MB")
    times.begin_stage("reading weights: 9 of 9 MB")
    times.begin_stage("warming up")
    times.end_stage()
    times.end("checks")
    assert list(times.parts_s) == [
        *("imports", "engine process", "reading weights", "warming up", "checks")
    ]
    total_s = sum(times.parts_s.values())
    assert 5.0 <= total_s <= time.monotonic() - begin_s
    assert str(times).startswith("imports 5.0")
