"""The built-in model with its experts in host memory says what it says without."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from leadline.engine.build import build_core, load_model
from leadline.engine.config import EngineConfig, ResolvedConfig, resolve
from leadline.engine.errors import ConfigError
from leadline.engine.memory_needs import memory_line, memory_parts, needs_of
from leadline.engine.planning.weight_bytes import WeightFormat
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.kernels.native import library
from leadline.kernels.select import implementations
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config
from leadline.loader.tokenizer import Tokenizer

PATH: Path = resolve_model("leadline-demo")
MODEL = read_model_config(PATH)
PROMPTS = ("def fibonacci(n):", "What does len() do?", "import os\n")
TILED = {
    name: "tiled"
    for name, candidates in implementations().items()
    if "tiled" in [candidate.name for candidate in candidates]
}

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason="the native kernels are not built")


def config_of(*, num_resident: int | None = None, **options: Any) -> ResolvedConfig:
    """As it would be for a device of its own that computes with a CPU's kernels."""
    asked = EngineConfig(kv_tokens=2048, page_size=8, num_threads=1, seed=1, **options)
    config, _ = resolve(asked, MODEL, cpu_facts(), model_path=str(PATH))
    if num_resident is None:
        return config
    return msgspec.structs.replace(config, expert_device="cpu", expert_gpu_count=num_resident)


def answers(config: ResolvedConfig) -> list[list[int]]:
    core, _ = build_core(msgspec.json.encode(config), lambda stage: None)
    tokenizer = Tokenizer.from_dir(PATH)
    for prompt in PROMPTS:
        params = SamplingParams(seed=3, max_tokens=40, temperature=0.7)
        request = EngineRequest(
            request_id=prompt, prompt_ids=tokenizer.encode(prompt), params=params
        )
        core.submit(request)
    token_ids: dict[str, list[int]] = {prompt: [] for prompt in PROMPTS}
    while core.has_work():
        for output in core.step():
            token_ids[output.request_id] += output.token_ids
    core.close()
    return [token_ids[prompt] for prompt in PROMPTS]


@pytest.mark.parametrize("num_resident", [0, 5])
@pytest.mark.parametrize("kernels", [{}, TILED], ids=["native", "tiled"])
def test_the_same_text(kernels: dict[str, str], num_resident: int) -> None:
    """The device computes with one set of kernels, the experts' host with the native ones."""
    assert answers(config_of(kernels=kernels, num_resident=num_resident)) == answers(
        config_of(kernels=kernels)
    )


def test_experts_that_move_change_no_text() -> None:
    moving = config_of(num_resident=3, batch_invariant=False)
    assert answers(moving) == answers(config_of(batch_invariant=False))


@pytest.mark.parametrize("num_resident", [0, 5])
def test_memory_is_as_planned(num_resident: int) -> None:
    """Experts stay FP8 on the host, though the device's kernels want the rest widened."""
    config = config_of(num_resident=num_resident, kernels=TILED)
    loaded = load_model(config)
    held = WeightFormat(dtype="float32", keeps_fp8=False, keeps_expert_fp8=True)
    assert loaded.held == held
    needs = needs_of(config, MODEL, held=held)
    assert loaded.num_bytes == sum(part.num_bytes for part in [*needs.weights(), *needs.host()])
    assert "routed experts, host" in memory_line(memory_parts(config, needs))


def test_without_native_kernels_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "LIBRARY", None)
    monkeypatch.setattr(library, "MISSING", "not built: install a compiler")
    with pytest.raises(ConfigError, match="not here: not built: install a compiler"):
        load_model(config_of(num_resident=0))
