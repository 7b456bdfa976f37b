"""What is written to the paged latent cache is what is read, and nothing else is touched."""

import pytest
import torch

from leadline.kernels.latent_cache import LatentCache, LatentCacheLayer, LatentLayout
from leadline.kernels.reference.cache import read_latent, write_latent
from leadline.kernels.reference.quant import dequantize_groups, quantize_fp8

FORMATS = ["float32", "bfloat16", "fp8"]
NUM_LATENT, NUM_ROPE, PAGE_SIZE, NUM_PAGES = 160, 16, 8, 5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random_layer(dtype: str) -> LatentCacheLayer:
    """Pages full of random bits."""
    layout = LatentLayout(NUM_LATENT, NUM_ROPE, dtype)
    shape = (NUM_PAGES, PAGE_SIZE, layout.bytes_per_token)
    bits = torch.randint(0, 256, shape, dtype=torch.uint8)
    return LatentCacheLayer(bits.view(layout.torch_dtype), layout)


def as_stored(latent: torch.Tensor, rope: torch.Tensor, dtype: str) -> torch.Tensor:
    if dtype == "fp8":
        latent, rope = dequantize_groups(*quantize_fp8(latent)), rope.bfloat16().float()
        return torch.cat((latent, rope), -1)
    return torch.cat((latent, rope), -1).to(getattr(torch, dtype)).float()


@pytest.mark.parametrize(
    ("dtype", "expected"), [("float32", 2304), ("bfloat16", 1152), ("fp8", 656)]
)
def test_bytes_per_token_of_the_full_model(dtype: str, expected: int) -> None:
    assert LatentLayout(512, 64, dtype).bytes_per_token == expected


@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", FORMATS)
def test_reads_what_was_written(dtype: str, source: torch.dtype) -> None:
    layer = random_layer(dtype)
    slots = torch.randperm(NUM_PAGES * PAGE_SIZE)[:11]
    latent = torch.randn(11, NUM_LATENT).to(source)
    rope = torch.randn(11, NUM_ROPE).to(source)
    write_latent(layer, latent, rope, slots)
    entries = read_latent(layer, torch.arange(NUM_PAGES)).flatten(0, 1)
    assert entries.dtype == torch.float32
    assert torch.equal(entries[slots], as_stored(latent.float(), rope.float(), dtype))


@pytest.mark.parametrize("dtype", FORMATS)
def test_touches_nothing_else(dtype: str) -> None:
    layer = random_layer(dtype)
    before = layer.pages.clone().view(torch.uint8).flatten(0, 1)
    slots = torch.tensor([9, -1, 17, -1, 0])
    latent, rope = torch.randn(5, NUM_LATENT), torch.randn(5, NUM_ROPE)
    write_latent(layer, latent, rope, slots)
    after = layer.pages.view(torch.uint8).flatten(0, 1)
    others = [slot for slot in range(NUM_PAGES * PAGE_SIZE) if slot not in (9, 17, 0)]
    assert torch.equal(after[others], before[others])
    entries = read_latent(layer, torch.arange(NUM_PAGES)).flatten(0, 1)
    written = slots >= 0
    expected = as_stored(latent[written], rope[written], dtype)
    assert torch.equal(entries[slots[written]], expected)


@pytest.mark.parametrize("dtype", FORMATS)
def test_padding_alone_writes_nothing(dtype: str) -> None:
    layer = random_layer(dtype)
    before = layer.pages.clone().view(torch.uint8)
    for num_tokens in (0, 3):
        slots = torch.full((num_tokens,), -1, dtype=torch.int64)
        write_latent(layer, torch.randn(num_tokens, 160), torch.randn(num_tokens, 16), slots)
    assert torch.equal(layer.pages.view(torch.uint8), before)


@pytest.mark.parametrize("dtype", FORMATS)
def test_pages_come_in_the_order_asked(dtype: str) -> None:
    layer = random_layer(dtype)
    write_latent(layer, torch.randn(40, 160), torch.randn(40, 16), torch.arange(40))
    whole = read_latent(layer, torch.arange(NUM_PAGES))
    assert torch.equal(read_latent(layer, torch.tensor([3, 0, 3])), whole[[3, 0, 3]])
    assert read_latent(layer, torch.tensor([], dtype=torch.int64)).shape == (0, 8, 176)


@pytest.mark.parametrize("dtype", FORMATS)
def test_layers_are_apart(dtype: str) -> None:
    layout = LatentLayout(NUM_LATENT, NUM_ROPE, dtype)
    cache = LatentCache(3, NUM_PAGES, PAGE_SIZE, layout)
    latent, rope = torch.randn(40, 160), torch.randn(40, 16)
    write_latent(cache.layers[1], latent, rope, torch.arange(40))
    assert cache.layers[1].pages.any()
    assert not cache.layers[0].pages.any()
    assert not cache.layers[2].pages.any()
    assert cache.num_bytes == 3 * NUM_PAGES * PAGE_SIZE * layout.bytes_per_token
