"""The host tier's memory: what goes out comes back, or is known to be damaged."""

import pytest
import torch

from leadline.engine.step import MoveKind, PageMove
from leadline.engine.worker.host_pages import HostPages
from leadline.kernels.latent_cache import LatentCache, LatentLayout


def store(page_id: int, host_id: int) -> PageMove:
    return PageMove(MoveKind.STORE, page_id, host_id)


def load(page_id: int, host_id: int) -> PageMove:
    return PageMove(MoveKind.LOAD, page_id, host_id)


@pytest.fixture(params=["float32", "bfloat16", "fp8"])
def cache(request: pytest.FixtureRequest) -> LatentCache:
    cache = LatentCache(3, 4, 8, LatentLayout(128, 16, request.param))
    for layer in cache.layers:
        raw = layer.pages.view(torch.uint8)
        raw.copy_(torch.randint(0, 256, raw.shape, dtype=torch.uint8))
    return cache


def content(cache: LatentCache, hidden: torch.Tensor, page_id: int) -> list[bytes]:
    parts = [layer.pages[page_id] for layer in cache.layers] + [hidden[page_id]]
    return [part.contiguous().view(torch.uint8).numpy().tobytes() for part in parts]


def test_pages_come_back_whole_with_their_hidden_state(cache: LatentCache) -> None:
    hidden = torch.randn(4, 32)
    host = HostPages(cache, 2, hidden)
    before = content(cache, hidden, 1)
    assert host.apply([store(1, 0), load(3, 0), store(2, 0), load(0, 0)]) == []
    assert content(cache, hidden, 3) == before
    assert content(cache, hidden, 0) == content(cache, hidden, 2)
    assert content(cache, hidden, 1) == before


def test_without_a_drafter_there_is_no_hidden_state(cache: LatentCache) -> None:
    host = HostPages(cache, 1)
    assert host.apply([store(1, 0), load(2, 0)]) == []
    expected = cache.layers[2].pages[1].contiguous().view(torch.uint8)
    assert torch.equal(cache.layers[2].pages[2].contiguous().view(torch.uint8), expected)


@pytest.mark.parametrize("where", ["page", "hidden"])
def test_damage_is_noticed_and_not_copied(cache: LatentCache, where: str) -> None:
    hidden = torch.randn(4, 32)
    host = HostPages(cache, 2, hidden)
    host.apply([store(1, 0), store(1, 1)])
    memory = host._pages if where == "page" else host._hidden
    assert memory is not None
    memory[1].view(torch.uint8).flatten()[5] ^= 4
    before = content(cache, hidden, 2)
    assert host.apply([load(2, 1), load(3, 0)]) == [1]
    assert content(cache, hidden, 2) == before
    assert content(cache, hidden, 3) == content(cache, hidden, 1)
