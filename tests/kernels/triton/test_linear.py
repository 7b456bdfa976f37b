"""FP8 products in Triton: many and few tokens, split sums, weights that were cut."""

import pytest
import torch

from leadline.kernels.reference.linear import linear_fp8_1x128
from leadline.kernels.testing import FLOAT32_TOLERANCE, random_quant, relative_error, to_device
from leadline.kernels.types import QuantTensor

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.linear import linear_fp8
from leadline.kernels.triton.linear_large import can_take, linear_large
from leadline.kernels.triton.linear_small import linear_small, split
from leadline.kernels.triton.quant import quantize_fp8

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# FP8 tensor cores keep about 14 bits of a sum of 128 products.
TOLERANCE = 2e-3 if DEVICE == "cuda" else FLOAT32_TOLERANCE


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("num_tokens", "n", "k"), [(130, 160, 144), (140, 130, 272), (1, 1, 16)])
def test_many_tokens(num_tokens: int, n: int, k: int) -> None:
    x, weight = torch.randn(num_tokens, k), random_quant(n, k)
    expected = linear_fp8_1x128(x, weight)
    x, weight = to_device((x, weight), DEVICE)
    quantized, scales = quantize_fp8(x)
    assert can_take(quantized, weight)
    y = linear_large(quantized, scales, weight, torch.float32)
    assert relative_error(y.cpu(), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("num_tokens", "n", "k"), [(3, 130, 1100), (17, 1, 1027), (2, 5, 2100), (70, 20, 100)]
)
def test_few_tokens(num_tokens: int, n: int, k: int) -> None:
    """K in parts, rows that start on no multiple of 16 bytes, more tokens than a tile has."""
    x, weight = torch.randn(num_tokens, k), random_quant(n, k)
    expected = linear_fp8_1x128(x, weight)
    x, weight = to_device((x, weight), DEVICE)
    y = linear_small(*quantize_fp8(x), weight, torch.float32)
    assert relative_error(y.cpu(), expected) < TOLERANCE


def test_more_tokens_than_a_descriptor_can_take() -> None:
    x, weight = torch.randn(129, 100), random_quant(20, 100)
    y = linear_fp8(*to_device((x, weight), DEVICE)).cpu()
    assert relative_error(y, linear_fp8_1x128(x, weight)) < TOLERANCE


@pytest.mark.parametrize("num_tokens", [4, 129])
def test_cut_weights(num_tokens: int) -> None:
    """Rows and columns that start inside of a block keep the scale of each block they touch."""
    whole = random_quant(300, 512)
    rows = QuantTensor(whole.data[100:290], whole.scale, row_offset=100)
    columns = QuantTensor(whole.data[:, 130:390], whole.scale[:, 1:4], col_offset=2)
    aligned = QuantTensor(whole.data[:, 128:384], whole.scale[:, 1:3])
    for cut in (rows, columns, aligned):
        x = torch.randn(num_tokens, cut.shape[1])
        y = linear_fp8(*to_device((x, cut), DEVICE)).cpu()
        assert relative_error(y, linear_fp8_1x128(x, cut)) < TOLERANCE


def test_bfloat16_is_rounded_once() -> None:
    x, weight = torch.randn(5, 384).bfloat16(), random_quant(130, 384)
    y = linear_fp8(*to_device((x, weight), DEVICE)).cpu()
    assert y.dtype == torch.bfloat16
    exact = linear_fp8_1x128(x.float(), weight)
    assert relative_error(y, exact) <= 2 * relative_error(linear_fp8_1x128(x, weight), exact)


@pytest.mark.parametrize(
    ("num_tiles", "num_blocks", "expected"),
    [(17, 56, (7, 8)), (192, 12, (1, 12)), (56, 128, (2, 64)), (1, 3, (1, 3)), (0, 1, (1, 1))],
)
def test_parts_fill_the_multiprocessors(
    num_tiles: int, num_blocks: int, expected: tuple[int, int]
) -> None:
    num_parts, blocks_per_part = split(num_tiles, num_blocks, 132)
    assert (num_parts, blocks_per_part) == expected
    assert num_parts * blocks_per_part >= num_blocks > (num_parts - 1) * blocks_per_part
