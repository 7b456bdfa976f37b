import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import peers
from benchmarks.peer_report import Start, Values, print_table, rates_of, ratio_to_best, summary_of
from benchmarks.peer_scenarios import Outcome, decode_rate, prefill_rate, throughput
from leadline.server.bench.record import Record

FAKE = Path(__file__).parent / "fake_peer.py"


def start(peer: str, rate: float, *, size: str = "98m", figure: str = "8 at once") -> Start:
    outcome = Outcome("8", {figure: rate}, others_cores=0.0123456)
    return Start(size, peer, "2026-01-01", 1.5, 3 << 20, 1e10, [outcome])


STARTS = [
    *(start("leadline", rate) for rate in (30.0, 24.0, 27.0)),
    *(start("slow", rate) for rate in (5.0, 6.0)),
    *(start("fast", rate) for rate in (20.0, 18.0, 16.0)),
]


def test_rates_by_the_clock() -> None:
    one = Record(start_s=10.0, token_times_s=[12.0, 13.0], end_s=17.0)
    one.num_prompt_tokens, one.num_output_tokens = 100, 11
    other = Record(start_s=10.0, token_times_s=[13.0], end_s=20.0, num_output_tokens=9)
    assert decode_rate([one]) == 2.0
    assert prefill_rate([one]) == 50.0
    assert throughput([one, other]) == 2.0


def test_ratio_is_that_of_medians_to_the_best_peer_with_all_that_single_runs_allow() -> None:
    assert rates_of(STARTS, "leadline", "8 at once") == Values(27.0, 24.0, 30.0, 3)
    ratio = ratio_to_best(STARTS, "leadline", "8 at once")
    assert ratio is not None
    assert ratio.best_peer == "fast"
    assert (ratio.median, ratio.low, ratio.high) == (1.5, 24.0 / 20.0, 30.0 / 16.0)


def test_no_ratio_without_both_sides() -> None:
    assert ratio_to_best(STARTS, "leadline", "32 at once") is None
    assert ratio_to_best(STARTS[:3], "leadline", "8 at once") is None
    assert ratio_to_best(STARTS[3:], "leadline", "8 at once") is None


def test_summary_and_table() -> None:
    [row] = summary_of(STARTS, "leadline")
    assert row == {
        "figure": "8 at once",
        "tokens_per_s": {"leadline": 27.0, "slow": 5.5, "fast": 18.0},
        "best_peer": "fast",
        "ratio": 1.5,
        "ratio_range": [1.2, 1.875],
    }
    console = Console(record=True, width=160, quiet=False)
    print_table("98m", STARTS, "leadline", console)
    lines = console.export_text().splitlines()
    [shown] = [line for line in lines if "8 at once" in line]
    for text in ("27.0 +-3.0", "5.5 +-0.5", "fast", "1.50", "1.20 to 1.88"):
        assert text in shown


def test_starts_come_back_from_a_file() -> None:
    [once] = STARTS[:1]
    again = Start.read(json.loads(json.dumps(once.rounded())))
    assert again.outcomes[0].others_cores == 0.012
    again.outcomes[0].others_cores = once.outcomes[0].others_cores
    assert again == once


@pytest.fixture
def no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fake peers need no checkpoint, and memory's speed is not the question."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    monkeypatch.setattr(peers, "write_models", lambda where, size: (folder, folder))
    monkeypatch.setattr(peers, "read_bandwidth", lambda: 2e10)
    return tmp_path


def run(folder: Path, *flags: str, own: str = "--token-s 0.002", peer: str = "") -> int:
    command = f"{sys.executable} {FAKE} --port {{port}}"
    arguments = ["--size", "98m", "--max-others", "1000", "--rounds", "1"]
    arguments += ["--out", str(folder / "peers.json"), "--models", str(folder)]
    arguments += ["--leadline", f"{command} {own}", "--peer", f"other={command} {peer}"]
    return peers.main([*arguments, *flags])


def test_from_command_lines_to_a_file_and_a_plot(no_model: Path) -> None:
    assert run(no_model, "--scenario", "1", "prefill") == 0
    result = json.loads((no_model / "peers.json").read_text())
    figures = {row["figure"]: row for row in result["summary"]["98m"]["figures"]}
    assert set(figures) == {"decode at 128", "1 at once", "prefill of 1,024"}
    assert figures["decode at 128"]["best_peer"] == "other"
    assert 0 < figures["decode at 128"]["tokens_per_s"]["leadline"] < 500
    assert result["summary"]["98m"]["share_of_bandwidth"] > 0
    assert [each["peer"] for each in result["starts"]] == ["leadline", "other"]
    assert (no_model / "peers.png").read_bytes().startswith(b"\x89PNG")
    assert run(no_model, "--scenario", "1", "--keep") == 0
    result = json.loads((no_model / "peers.json").read_text())
    assert [each["peer"] for each in result["starts"]] == ["leadline"] * 2 + ["other"] * 2


def test_a_peer_that_fails_costs_only_itself(
    no_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(no_model, "--scenario", "1", peer="--ends") == 1
    assert "other: it ended with status 3" in capsys.readouterr().out
    result = json.loads((no_model / "peers.json").read_text())
    assert [each["peer"] for each in result["starts"]] == ["leadline"]


def test_a_command_line_that_is_wrong(no_model: Path) -> None:
    assert peers.main(["--peer", "x"]) == 2
    assert list(no_model.glob("*.json")) == []
