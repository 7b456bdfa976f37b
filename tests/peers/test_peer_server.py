import sys
from pathlib import Path

import pytest

from benchmarks.peer_scenarios import SCENARIOS, Limits, Scenario, measure, throughput, warm_up
from benchmarks.peer_server import Peer, PeerError, running

FAKE = Path(__file__).parent / "fake_peer.py"
WORDS = range(900, 1000)
ANY_MACHINE = Limits(max_others_cores=1000.0, num_tries=1, quiet_timeout_s=0.0)
FEW = Scenario("few", 3, 5, 4, {"few at once": throughput})


def fake(flags: str = "") -> Peer:
    return Peer.parse(f"fake={sys.executable} {FAKE} --port {{port}} {flags}")


def test_command_line_of_a_peer() -> None:
    peer = Peer.parse("a b=env X='1 2' run {model}/x.gguf --port={port}")
    assert peer.name == "a b"
    places = {"model": "/m", "bf16": "/b", "port": 5}
    assert peer.command(places) == ["env", "X=1 2", "run", "/m/x.gguf", "--port=5"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run --port {port}", "name=command"),
        ("=run {port}", "name=command"),
        ("a=", "name=command"),
        ("a=run {model}", "no {port}"),
        ("a=run {port} {modle}", "{modle}"),
        ("a=run {port} {}", "{}"),
        ("a=run '{port}", "no command"),
        ("a=run {port", "no command"),
    ],
)
def test_what_is_no_peer(text: str, said: str) -> None:
    with pytest.raises(PeerError, match=said.replace("{", r"\{").replace("}", r"\}")):
        Peer.parse(text)


def test_a_peer_is_started_measured_and_stopped(tmp_path: Path) -> None:
    peer = fake("--refusals 2 --holds-bytes 50000000")
    with running(peer, {"model": tmp_path, "bf16": tmp_path}, tmp_path / "log") as server:
        assert server.model == "fake"
        assert server.start_s > 0
        warm_up(server, WORDS, seed=0)
        outcome = measure(server, FEW, WORDS, 1, ANY_MACHINE)
        with_many = measure(server, SCENARIOS[3], WORDS, 2, ANY_MACHINE)
    assert outcome is not None
    assert outcome.rates["few at once"] > 0
    assert set(outcome.latencies_ms) == {"ttft_p50", "ttft_p99", "tpot_p50", "tpot_p99"}
    assert with_many is not None
    assert server.memory.peak_bytes > 50_000_000
    with pytest.raises(PeerError, match="no connection"):
        warm_up(server, WORDS, seed=3)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--prompt-tokens 6", "6 tokens of the prompt and 4 of output, not 5 and 4"),
        ("--without-usage", "no usage"),
        ("--fails-after 1", "it is over"),
    ],
)
def test_other_work_than_what_was_asked_is_no_measurement(
    tmp_path: Path, flags: str, said: str
) -> None:
    with running(fake(flags), {}, tmp_path / "log") as server, pytest.raises(PeerError, match=said):
        measure(server, FEW, WORDS, 1, ANY_MACHINE)


def test_a_peer_that_ends_is_quoted(tmp_path: Path) -> None:
    with (
        pytest.raises(PeerError, match=r"(?s)fake: it ended with status 3.*no such model"),
        running(fake("--ends"), {}, tmp_path / "log"),
    ):
        pass


def test_a_peer_that_does_not_get_ready_is_stopped(tmp_path: Path) -> None:
    with (
        pytest.raises(PeerError, match="no answer in time; its last one: 503"),
        running(fake("--refusals 1000000"), {}, tmp_path / "log", timeout_s=1.0),
    ):
        pass


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    with (
        pytest.raises(PeerError, match="gone does not start"),
        running(Peer.parse("gone=/no/such/program {port}"), {}, tmp_path / "log"),
    ):
        pass


def test_runs_that_others_disturbed_are_dropped(tmp_path: Path) -> None:
    said: list[str] = []
    never = Limits(max_others_cores=-1.0, num_tries=2, quiet_timeout_s=0.0)
    with running(fake(), {}, tmp_path / "log") as server:
        assert measure(server, FEW, WORDS, 1, never, said.append) is None
    assert sum("the run is dropped" in text for text in said) == 2
    assert sum("does not get quiet" in text for text in said) == 2
