"""A byte that flips in a cached page changes no answer, with the model's real arithmetic."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from leadline.engine.build import build_core
from leadline.engine.config import ResolvedConfig
from leadline.engine.core import EngineCore
from leadline.engine.page_pool import PageState
from leadline.engine.request import EngineRequest, RequestOutput, SamplingParams

PROMPT = list(range(100, 150))  # three full pages of 16, and more
OTHER = list(range(200, 250))

Flip = Callable[[Any, list[int]], None]


def flip_in(layer: int) -> Flip:
    """Flips a bit of an exponent in a layer's latents of each page."""

    def flip(runner: Any, page_ids: list[int]) -> None:
        pages = runner._checksums._layers[layer]
        for page_id in page_ids:
            pages[page_id, 3, 5:6].view(torch.uint8)[-1] ^= 0x08

    return flip


def flip_hidden(runner: Any, page_ids: list[int]) -> None:
    """Flips a bit in the hidden state that each page keeps."""
    for page_id in page_ids:
        runner._drafter.page_hidden_PD[page_id, 7:8].view(torch.uint8)[-1] ^= 0x08


def answer(core: EngineCore, name: str, prompt: list[int]) -> tuple[list[int], RequestOutput]:
    """The tokens of a greedy request, and its last output."""
    params = SamplingParams(seed=0, max_tokens=12, temperature=0.0)
    core.submit(EngineRequest(request_id=name, prompt_ids=prompt, params=params))
    outputs: list[RequestOutput] = []
    while core.has_work():
        outputs += core.step()
    return [token for output in outputs for token in output.token_ids], outputs[-1]


def open_core(config: ResolvedConfig) -> tuple[EngineCore, Any]:
    core, _ = build_core(msgspec.json.encode(config), lambda stage: None)
    worker: Any = core._executor
    return core, worker._worker._runner


def cached_pages(core: EngineCore) -> list[int]:
    pages = core.survey().pages
    return [page_id for page_id, state in enumerate(pages) if state == PageState.CACHED]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "fp8"])
@pytest.mark.parametrize(
    "flip", [flip_in(0), flip_in(-1), flip_hidden], ids=["first", "mtp", "hidden"]
)
def test_a_flipped_byte_changes_no_answer(
    checkpoint_of: Callable[..., Path],
    config_of: Callable[..., ResolvedConfig],
    flip: Flip,
    dtype: str,
) -> None:
    config = config_of(
        checkpoint_of("v3"), speculative_tokens=2, verify_pages=True, kv_cache_dtype=dtype
    )
    core, runner = open_core(config)
    cold, _ = answer(core, "cold", PROMPT)
    warm, final = answer(core, "warm", PROMPT)
    assert (warm, final.num_cached_tokens) == (cold, 48)
    assert core.stats().num_corrupted_pages == 0
    flip(runner, cached_pages(core)[:1])
    again, final = answer(core, "again", PROMPT)
    assert again == cold
    assert final.num_cached_tokens < 48
    assert core.stats().num_corrupted_pages == 1
    assert answer(core, "healed", PROMPT)[1].num_cached_tokens == 48
    assert core.stats().num_corrupted_pages == 1
    core.close()


def test_damage_before_the_eviction_is_noticed_after_it(
    checkpoint_of: Callable[..., Path], config_of: Callable[..., ResolvedConfig]
) -> None:
    config = config_of(
        checkpoint_of("v3"),
        speculative_tokens=2,
        verify_pages=True,
        num_pages=5,
        max_model_len=80,
        num_host_pages=20,
    )
    core, runner = open_core(config)
    cold, _ = answer(core, "cold", PROMPT)
    answer(core, "other", OTHER)
    warm, final = answer(core, "warm", PROMPT)
    assert (warm, final.num_cached_tokens) == (cold, 48)
    assert core.stats().host_pages_loaded > 0
    core.reset_prefix_cache()
    answer(core, "anew", PROMPT)
    flip_in(1)(runner, cached_pages(core))
    answer(core, "once more", OTHER)
    again, final = answer(core, "again", PROMPT)
    assert (again, final.num_cached_tokens) == (cold, 0)
    assert core.stats().num_corrupted_pages > 0
    core.close()


def test_without_the_flag_the_damage_shows(
    checkpoint_of: Callable[..., Path], config_of: Callable[..., ResolvedConfig]
) -> None:
    """Else these tests would prove nothing."""
    core, runner = open_core(config_of(checkpoint_of("v3"), speculative_tokens=2))
    cold, _ = answer(core, "cold", PROMPT)
    pages = runner._memory.cache.layers[0].pages
    pages[cached_pages(core)] = 3.0
    again, final = answer(core, "again", PROMPT)
    assert final.num_cached_tokens == 48
    assert again != cold
    core.close()
