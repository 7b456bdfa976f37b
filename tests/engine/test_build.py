"""What start-up shows of itself."""

from pathlib import Path

import msgspec
import pytest

from leadline.engine.build import build_core, load_model
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.memory_needs import memory_line, memory_parts, needs_of
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.start_lines import progress_bar
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


@pytest.mark.parametrize("kernels", [{}, {"linear_fp8": "tiled", "grouped_mlp": "tiled"}])
@pytest.mark.parametrize("drafts", [None, 0])
def test_the_plan_is_what_the_engine_holds(
    kernels: dict[str, str], drafts: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    """The built-in model: the sizes before anything is read are those that start-up reports."""
    path: Path = resolve_model("leadline-demo")
    asked = EngineConfig(kv_tokens=4096, kernels=kernels, speculative_tokens=drafts)
    model = read_model_config(path)
    config, _ = resolve(asked, model, cpu_facts(), model_path=str(path))
    parts = memory_parts(config, needs_of(config, model))
    loaded = load_model(config)
    needs = needs_of(config, model)
    assert sum(part.num_bytes for part in needs.weights()) == loaded.num_bytes
    _, ready = build_core(msgspec.json.encode(config), lambda stage: None)
    assert dict(ready.summary)["memory"] == memory_line(parts)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
