"""Tokens a second of the built-in model by the kernels that compute it, in one process."""

import time
from typing import Any

import msgspec
import torch

from leadline.engine import build
from leadline.engine.config import EngineConfig, resolve
from leadline.engine.core import EngineCore
from leadline.engine.platform_facts import cpu_facts
from leadline.engine.request import EngineRequest, SamplingParams
from leadline.kernels.select import implementations
from leadline.loader.hub import resolve_model
from leadline.loader.model_config import read_model_config

PROMPT_TOKENS = 128
OUTPUT_TOKENS = 96


def torch_kernels() -> dict[str, str]:
    """Overrides that leave out the native kernels, batch-invariant all the same."""
    return {
        operation: next(
            kernel.name
            for kernel in candidates
            if kernel.name in ("tiled", "reference") and kernel.batch_invariant
        )
        for operation, candidates in implementations().items()
    }


def open_engine(kernels: dict[str, str], drafts: int, num_threads: int | None = None) -> EngineCore:
    """An engine of the built-in model."""
    path = resolve_model("leadline-demo")
    config = EngineConfig(
        speculative_tokens=drafts,
        kv_tokens=16_384,
        prefix_caching=False,
        kernels=kernels,
        num_threads=num_threads,
    )
    resolved, _ = resolve(config, read_model_config(path), cpu_facts(), model_path=str(path))
    core, _ = build.build_core(msgspec.json.encode(resolved), lambda stage: None)
    return core


def tokens_per_s(core: EngineCore, num_requests: int) -> float:
    """Output tokens over the time from the first request to the last one's end."""
    generator = torch.Generator().manual_seed(0)
    before = core.stats().generation_tokens
    started_s = time.perf_counter()
    for i in range(num_requests):
        prompt = torch.randint(2, 4000, (PROMPT_TOKENS,), generator=generator).tolist()
        params = SamplingParams(seed=i, max_tokens=OUTPUT_TOKENS, temperature=0.0, eos_token_ids=())
        core.submit(EngineRequest(request_id=str(i), prompt_ids=prompt, params=params))
    while core.has_work():
        core.step()
    return (core.stats().generation_tokens - before) / (time.perf_counter() - started_s)


def measure_engine(num_threads: int | None = None) -> list[dict[str, Any]]:
    """Best of three, for each set of kernels, number of drafts and of requests at once."""
    rows = []
    for drafts in (0, 3):
        engines = {
            name: open_engine(kernels, drafts, num_threads)
            for name, kernels in (("torch", torch_kernels()), ("native", {}))
        }
        for num_requests in (1, 8):
            speeds = {name: [0.0] for name in engines}
            for _ in range(4):
                for name, core in engines.items():
                    speeds[name].append(round(tokens_per_s(core, num_requests), 1))
            row: dict[str, Any] = {"drafts": drafts, "requests": num_requests}
            row |= {f"{name}_tokens_per_s": max(values) for name, values in speeds.items()}
            print(row)
            rows.append(row)
    return rows


if __name__ == "__main__":
    measure_engine()
