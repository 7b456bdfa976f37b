"""The paged latent cache in Triton against the reference, byte for byte."""

import pytest
import torch

from leadline.kernels.latent_cache import LatentCacheLayer, LatentLayout
from leadline.kernels.reference import cache as reference
from leadline.kernels.testing import to_device

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.cache import read_latent, write_latent
from leadline.kernels.triton.compress import write_compressed
from leadline.kernels.triton.norm import add_rms_norm, norm_rows, rms_norm
from leadline.kernels.triton.quant import quantize_fp8
from leadline.kernels.triton.rope import apply_rope

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


@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", LAYOUTS)
def test_compressed_rows_have_the_bits_of_norm_rotation_and_write(
    dtype: str, source: torch.dtype
) -> None:
    """Rows of a wider tensor; padding."""
    layout = LatentLayout(160, 16, dtype)
    shape = (NUM_PAGES, PAGE_SIZE, layout.width)
    pages = [torch.zeros(shape, dtype=layout.torch_dtype, device=DEVICE) for _ in range(2)]
    expected, actual = (LatentCacheLayer(p, layout) for p in pages)
    slots = torch.tensor([9, -1, 17, 39, -1, 0], device=DEVICE)
    rows = torch.randn(6, 200, device=DEVICE).to(source)[:, 10:186]
    weight = torch.rand(160, device=DEVICE).to(source)
    cos, sin = torch.randn(2, 6, 8, device=DEVICE)
    latent = rms_norm(rows[:, :160], weight, 1e-6)
    key = apply_rope(rows[:, 160:].unsqueeze(1), cos, sin).squeeze(1)
    write_latent(expected, latent, key, slots)
    write_compressed(actual, rows, weight, 1e-6, cos, sin, slots)
    assert torch.equal(pages[0].view(torch.uint8), pages[1].view(torch.uint8))
    assert pages[0].view(torch.uint8).any()


def test_a_norm_in_both_forms() -> None:
    x, residual = torch.randn(2, 5, 300, device=DEVICE).bfloat16()
    weight = torch.rand(300, device=DEVICE).bfloat16()
    both = norm_rows(x, residual, weight, 1e-6, scale_format="fp32")
    y, total = add_rms_norm(x, residual, weight, 1e-6)
    q, scales = quantize_fp8(y, "fp32")
    assert torch.equal(both.y, y)
    assert torch.equal(both.total, total)
    assert torch.equal(both.q.view(torch.uint8), q.view(torch.uint8))
    assert torch.equal(both.scales, scales)
