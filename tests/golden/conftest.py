"""Synthetic checkpoints, and the product's model driven step by step through its paged cache."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.engine.build import LoadedModel, load_model, make_cache
from leadline.engine.config import ResolvedConfig
from leadline.engine.model.attention import StepContext
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.model.rope import softmax_scale
from leadline.engine.request import SamplingParams
from leadline.engine.step import NewRequest, ScheduledRow, SchedulerOutput
from leadline.engine.worker.input_batch import ForwardBatch, make_batch
from leadline.engine.worker.requests import HeldRequests
from leadline.loader.synthetic import tiny_kimi, tiny_v2_lite, tiny_v3, write_checkpoint

SHAPES: dict[str, Callable[[], dict[str, Any]]] = {
    "v3": tiny_v3,
    "v2-lite": tiny_v2_lite,
    "kimi": tiny_kimi,
}
PAGE_SIZE = 16


@dataclass
class PagedModel:
    """One loaded model with a cache of its own; each call is one request computed in chunks."""

    loaded: LoadedModel
    config: ResolvedConfig

    def logits(self, token_ids: list[int], chunk: int) -> torch.Tensor:
        """Logits of every position, [tokens, vocabulary]."""
        parts = []
        for batch, step in self.steps(token_ids, chunk):
            hidden = self.loaded.model.forward(batch.token_ids_T, step)
            parts.append(self.loaded.model.compute_logits(hidden))
        return torch.cat(parts)

    def mtp_logits(self, token_ids: list[int], chunk: int) -> torch.Tensor:
        """MTP logits of slots 1 and up, [tokens - 1, vocabulary]; slot i predicts token i + 1."""
        mtp = self.loaded.model.mtp
        assert mtp is not None
        last = torch.full((1, self.loaded.config.hidden_size), torch.nan)
        parts = []
        for batch, step in self.steps(token_ids, chunk):
            hidden = self.loaded.model.forward(batch.token_ids_T, step)
            previous, last = torch.cat((last, hidden[:-1])), hidden[-1:]
            parts.append(mtp.compute_logits(mtp.forward(previous, batch.token_ids_T, step)[0]))
        return torch.cat(parts)[1:]

    def steps(self, token_ids: list[int], chunk: int) -> Iterator[tuple[ForwardBatch, StepContext]]:
        """A fresh, NaN-poisoned cache; then the plan of each chunk, as the runner would see it."""
        cache = make_cache(self.config, self.loaded)
        for layer in cache.layers:
            layer.pages.fill_(0x7F if layer.layout.dtype == "fp8" else torch.nan)
        scale = softmax_scale(self.loaded.config)
        memory = PagedMemory(cache, self.loaded.kernels, scale=scale)
        held = HeldRequests(vocab_size=self.loaded.config.vocab_size)
        params = SamplingParams(seed=0, max_tokens=1, temperature=0.0)
        new = NewRequest(
            request_id="r", token_ids=token_ids, num_prompt_tokens=len(token_ids), params=params
        )
        num_pages = -(-len(token_ids) // PAGE_SIZE)
        pages = torch.randperm(cache.num_pages)[:num_pages].tolist()
        for start in range(0, len(token_ids), chunk):
            num = min(chunk, len(token_ids) - start)
            samples = start + num == len(token_ids)
            row = ScheduledRow("r", start, num, pages if start == 0 else [], 0, samples)
            plan = SchedulerOutput(start, [new] if start == 0 else [], [row], [], num)
            held.apply(plan)
            batch = make_batch(held.live_rows(plan), PAGE_SIZE)
            memory.plan(batch.meta)
            yield batch, self.loaded.model.step_context(batch.meta.positions_T, memory)


def resolved_config(path: Path, **changes: Any) -> ResolvedConfig:
    """A small CPU engine for the checkpoint."""
    values: dict[str, Any] = {
        "model": str(path),
        "served_model_name": "m",
        "device": "cpu",
        "max_model_len": 256,
        "page_size": PAGE_SIZE,
        "num_pages": 20,
        "kv_cache_dtype": "float32",
        "max_num_seqs": 8,
        "max_num_batched_tokens": 64,
        "prefix_caching": True,
        "seed": 0,
        "num_threads": 1,
        "dtype": "float32",
        "kernels": {},
        "batch_invariant": True,
    }
    return ResolvedConfig(**(values | changes))


@pytest.fixture(scope="session")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes the checkpoint of a shape and format, once."""
    made: dict[tuple[str, str], Path] = {}

    def write(shape: str, fmt: str = "float32") -> Path:
        key = (shape, fmt)
        if key not in made:
            made[key] = tmp_path_factory.mktemp(f"{shape}-{fmt}")
            write_checkpoint(made[key], SHAPES[shape](), seed=0, fmt=fmt)
        return made[key]

    return write


@pytest.fixture(scope="session")
def config_of() -> Callable[..., ResolvedConfig]:
    """A small CPU engine for a checkpoint, with changes."""
    return resolved_config


@pytest.fixture
def open_model() -> Callable[..., PagedModel]:
    """Loads a checkpoint as the product does, its MTP layer too."""

    def load(path: Path, **changes: Any) -> PagedModel:
        config = resolved_config(path, **({"speculative_tokens": 1} | changes))
        return PagedModel(load_model(config), config)

    return load


@pytest.fixture
def token_ids() -> list[int]:
    """A prompt that ends within a page."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(3, 500, (90,), generator=generator).tolist()
