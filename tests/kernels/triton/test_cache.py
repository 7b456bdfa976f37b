"""The paged latent cache in Triton against the reference, byte for byte."""

import pytest
import torch

from leadline.kernels.latent_cache import LatentCacheLayer, LatentLayout
from leadline.kernels.reference import cache as reference
from leadline.kernels.testing import to_device

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.cache import read_latent, write_latent

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
LAYOUTS = ["float32", "bfloat16", "fp8"]
PAGE_SIZE, NUM_PAGES = 8, 5


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def random_layer(dtype: str, num_latent: int = 160) -> LatentCacheLayer:
    """Pages full of random bits."""
    layout = LatentLayout(num_latent, 16, dtype)
    shape = (NUM_PAGES, PAGE_SIZE, layout.bytes_per_token)
    bits = torch.randint(0, 256, shape, dtype=torch.uint8)
    return LatentCacheLayer(bits.view(layout.torch_dtype), layout)


@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", LAYOUTS)
def test_writes_the_same_bytes(dtype: str, source: torch.dtype) -> None:
    """Padding tokens, slots in any order, latents that are slices of a wider tensor."""
    expected = random_layer(dtype)
    pages = expected.pages.clone().to(DEVICE)
    slots = torch.tensor([9, -1, 17, 39, -1, 0])
    wide = torch.randn(6, 200).to(source)
    latent, rope = wide[:, 10:170], wide[:, 180:196]
    reference.write_latent(expected, latent, rope, slots)
    actual = LatentCacheLayer(pages, expected.layout)
    write_latent(actual, *to_device((latent, rope, slots), DEVICE))
    assert torch.equal(pages.cpu().view(torch.uint8), expected.pages.view(torch.uint8))


@pytest.mark.parametrize("dtype", LAYOUTS)
def test_reads_the_same_values(dtype: str) -> None:
    layer = random_layer(dtype)
    numbers = torch.randn(40, 160), torch.randn(40, 16)
    reference.write_latent(layer, *numbers, torch.arange(40))
    for page_ids in ([3, 0, 3], [4], []):
        ids = torch.tensor(page_ids, dtype=torch.int64)
        expected = reference.read_latent(layer, ids)
        assert torch.equal(read_latent(*to_device((layer, ids), DEVICE)).cpu(), expected)


def test_nothing_to_write() -> None:
    layer = random_layer("fp8")
    before = layer.pages.clone()
    write_latent(layer, torch.empty(0, 160), torch.empty(0, 16), torch.empty(0, dtype=torch.int64))
    assert torch.equal(layer.pages, before)


def test_a_layout_with_scales_that_are_not_aligned() -> None:
    layer = random_layer("fp8", num_latent=130)
    with pytest.raises(ValueError, match="kv_lora_rank, 130, to be a multiple of 4"):
        read_latent(layer, torch.tensor([0]))
