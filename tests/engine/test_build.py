"""What start-up shows of itself."""

from pathlib import Path

import pytest

from leadline.engine.build import load_model, progress_bar
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.platform_facts import cpu_facts
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config


@pytest.mark.parametrize(
    ("done_bytes", "bar"),
    [(0, "-" * 30), (6_000_000, "#" * 15 + "-" * 15), (12_000_000, "#" * 30)],
)
def test_progress_bar(done_bytes: int, bar: str) -> None:
    text = progress_bar(done_bytes, 12_000_000)
    assert text == f"|{bar}| {done_bytes / 1e6:.1f} of 12.0 MB"


def test_loading_fills_the_bar() -> None:
    path: Path = resolve_model("leadline-demo")
    config, _ = resolve(EngineConfig(), read_model_config(path), cpu_facts(), model_path=str(path))
    stages: list[str] = []
    loaded = load_model(config, stages.append)
    bars = [stage.count("#") for stage in stages if stage.startswith("reading weights: |")]
    assert bars == sorted(bars)
    assert bars[-1] == 30
    assert any(name == "weights" and "GB/s" in text for name, text in loaded.summary)
