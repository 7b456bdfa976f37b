"""Layers run in one call have the bits of layers run operation by operation."""

from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.engine.model.deepseek import DeepseekModel
from leadline.engine.model.paged_memory import PagedMemory
from leadline.engine.model.rope import softmax_scale
from leadline.engine.model.weights import assemble
from leadline.engine.parallel.context import ParallelContext
from leadline.engine.worker.input_batch import Span, make_meta
from leadline.kernels.latent_cache import LatentCache, LatentLayout
from leadline.kernels.native import library
from leadline.kernels.select import Platform, select_kernels
from leadline.loader.checkpoint import Checkpoint
from leadline.loader.load import load_weights
from leadline.loader.model_config import ModelConfig
from leadline.loader.synthetic import tiny_kimi, tiny_v2_lite, tiny_v3, write_checkpoint

pytestmark = pytest.mark.skipif(library.LIBRARY is None, reason=library.MISSING)

PAGE_SIZE, NUM_PAGES = 4, 16
SHAPES = {
    "v3": tiny_v3(),
    "v2-lite": tiny_v2_lite(),
    "kimi": tiny_kimi(),
    # Nothing is a multiple of sixteen, and a page holds less than a vector of keys.
    "odd": tiny_v3()
    | {
        "hidden_size": 50,
        "q_lora_rank": 27,
        "kv_lora_rank": 23,
        "qk_nope_head_dim": 9,
        "qk_rope_head_dim": 6,
        "v_head_dim": 11,
        "moe_intermediate_size": 21,
    },
}
# A prompt alone; a prompt beside single tokens and drafts; single tokens.
STEPS = [
    [Span([3, 1], 0, 7)],
    [Span([3, 1, 2], 7, 1), Span([5, 6, 7], 0, 9), Span([9], 0, 1)],
    [Span([3, 1, 2], 8, 3), Span([5, 6, 7], 9, 1), Span([9], 1, 2)],
]


class Twin:
    """One of two models with the same weights, and its pages."""

    def __init__(self, config: ModelConfig, tree: Any, cache_dtype: str, *, is_fused: bool) -> None:
        overrides = {} if is_fused else {"fuse_layers": "reference", "fuse_mtp": "reference"}
        kernels, choices = select_kernels(Platform(batch_invariant=True), overrides)
        assert choices[-1].chosen == ("native" if is_fused else "reference")
        self.model = DeepseekModel(config, tree, kernels, ParallelContext(), max_len=64)
        layout = LatentLayout(config.kv_lora_rank, config.qk_rope_head_dim, cache_dtype)
        num_layers = config.num_hidden_layers + 1
        self.cache = LatentCache(num_layers, NUM_PAGES, PAGE_SIZE, layout)
        self._memory = PagedMemory(self.cache, kernels, scale=softmax_scale(config))

    def step(self, spans: list[Span], ids_T: torch.Tensor) -> list[torch.Tensor]:
        """Hidden states of the model and of the MTP layer, and all that the cache holds."""
        meta = make_meta(spans, PAGE_SIZE)
        self._memory.plan(meta)
        step = self.model.step_context(meta.positions_T, self._memory)
        results = [self.model.forward(ids_T, step)]
        if self.model.mtp is not None:
            self.model.mtp.write_latent(results[0].flip(0), ids_T, step)
            results.append(self.cache.layers[-1].pages.clone())
            results += self.model.mtp.forward(results[0], ids_T, step)
        loads = [torch.tensor(load.counts) for load in self.model.expert_load()]
        return results + loads + [layer.pages for layer in self.cache.layers]


@pytest.mark.parametrize("cache_dtype", ["float32", "bfloat16", "fp8"])
@pytest.mark.parametrize(
    ("fmt", "dtype"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("fp8", torch.float32)],
)
@pytest.mark.parametrize("shape", SHAPES)
def test_same_bits(
    tmp_path: Path, shape: str, fmt: str, dtype: torch.dtype, cache_dtype: str
) -> None:
    config = write_checkpoint(tmp_path, SHAPES[shape], fmt=fmt)
    weights = load_weights(Checkpoint.open(tmp_path), config, dtype=dtype)
    tree = assemble(weights.tensors, config, has_mtp=weights.has_mtp)
    fused, plain = (
        Twin(config, tree, cache_dtype, is_fused=is_fused) for is_fused in (True, False)
    )
    generator = torch.Generator().manual_seed(0)
    for spans in STEPS:
        num_tokens = sum(span.num_tokens for span in spans)
        ids_T = torch.randint(0, config.vocab_size, (num_tokens,), generator=generator)
        for a, b in zip(fused.step(spans, ids_T), plain.step(spans, ids_T), strict=True):
            assert a.shape == b.shape
            assert torch.equal(a.contiguous().view(torch.uint8), b.contiguous().view(torch.uint8))


def test_a_slot_that_there_is_not_is_refused(tmp_path: Path) -> None:
    config = write_checkpoint(tmp_path, tiny_v3(), fmt="float32")
    tree = assemble(load_weights(Checkpoint.open(tmp_path), config).tensors, config, has_mtp=True)
    twin = Twin(config, tree, "float32", is_fused=True)
    with pytest.raises(ValueError, match="slot 64 is beyond the 16 pages"):
        twin.step([Span([NUM_PAGES], 0, 1)], torch.zeros(1, dtype=torch.int64))


def test_other_kernels_are_honoured() -> None:
    """Whoever asks for one operation's reference gets it, in layers as well."""
    _, choices = select_kernels(Platform(), {"route": "reference"})
    assert choices[-1].chosen == "reference"
    assert ("native", "route is reference") in choices[-1].rejected
