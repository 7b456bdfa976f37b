"""What the head makes of ranks that fail, die or fall silent."""

import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from leadline.engine.unit.messages import (
    FromRank,
    Heartbeat,
    RankFailed,
    RankHello,
    RankLoading,
    StopRank,
    ToRank,
    identity,
)
from leadline.engine.unit.progress import LoadingProgress
from leadline.engine.unit.rank_link import RankLink

WAIT_S = 30.0


class Processes:
    """Ranks whose processes have ended."""

    def __init__(self) -> None:
        self.ended: dict[int, str] = {}

    def find_ended(self) -> dict[int, str]:
        return dict(self.ended)


class Head:
    """A link and what it said."""

    def __init__(self, directory: Path, silence_s: float) -> None:
        self.link = RankLink(
            f"ipc://{directory}/c", f"ipc://{directory}/r", life="now", silence_s=silence_s
        )
        self.processes = Processes()
        self.reports: list[FromRank] = []
        self.cause: tuple[str, bool] | None = None
        self.has_failed = threading.Event()
        self._context = zmq.Context()
        self._reports = self._context.socket(zmq.PUSH)
        self._reports.connect(self.link.reports)
        self.link.listen(self.processes, self.reports.append, self._fail)

    def _fail(self, cause: str, is_users: bool) -> None:
        self.cause = cause, is_users
        self.has_failed.set()

    def tell(self, report: FromRank, life: bytes = b"now") -> None:
        self._reports.send_multipart((life, msgspec.msgpack.encode(report)))

    def close(self) -> None:
        self.link.close()
        self._context.destroy(linger=0)


@pytest.fixture
def head(tmp_path: Path, request: Any) -> Any:
    made = Head(tmp_path, getattr(request, "param", WAIT_S))
    yield made
    made.close()


COLLECTIVE = RankFailed(0, "gloo: connection closed", is_collective=True)


@pytest.mark.parametrize(
    ("reports", "ended", "cause"),
    [
        ([COLLECTIVE, RankFailed(2, "KeyError: 1")], {}, ("rank 2 failed: KeyError: 1", False)),
        ([COLLECTIVE], {0: "x", 1: "SIGKILL"}, ("rank 1 has died: SIGKILL", False)),
        ([COLLECTIVE], {}, ("rank 0 failed: gloo: connection closed", False)),
        ([RankFailed(1, "no such file", is_users=True)], {1: "x"}, ("no such file", True)),
        ([], {3: "SIGTERM"}, ("rank 3 has died: SIGTERM", False)),
    ],
)
def test_the_cause_is_the_rank_that_failed_first(
    head: Head, reports: list[FromRank], ended: dict[int, str], cause: tuple[str, bool]
) -> None:
    for report in reports:
        head.tell(report)
    head.processes.ended = ended
    assert head.has_failed.wait(WAIT_S)
    assert head.cause == cause


@pytest.mark.parametrize("head", [0.3], indirect=True)
def test_a_rank_that_falls_silent(head: Head) -> None:
    head.tell(RankLoading(0, "reading"))
    head.tell(Heartbeat(1))
    assert head.has_failed.wait(WAIT_S)
    assert head.cause is not None
    assert "has not been heard of for 0.3 s" in head.cause[0]
    assert head.reports[0] == RankLoading(0, "reading")


def test_commands_reach_ranks_that_have_said_hello(head: Head) -> None:
    with zmq.Context() as context, context.socket(zmq.DEALER) as rank:
        rank.routing_id = identity(1, "now")
        rank.connect(head.link.commands)
        rank.send(msgspec.msgpack.encode(RankHello(1)))
        assert head.link.await_hello(int(WAIT_S * 1000)) == RankHello(1)
        head.link.send([0, 1], StopRank())  # nobody is rank 0
        assert msgspec.msgpack.decode(rank.recv(), type=ToRank) == StopRank()


def test_loading_is_one_view() -> None:
    progress = LoadingProgress(6)
    progress.take_stage(1, "reading weights")
    text = progress.stage
    begin = "starting ranks: 0 of 6 ready; rank 0: starting; rank 1: reading weights; "
    assert text.startswith(begin)
    assert text.endswith("; 2 more are loading")
