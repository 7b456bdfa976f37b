"""Products with bfloat16 and float32 weights in Triton: split sums, and rows alone or together."""

import pytest
import torch

from leadline.kernels.testing import FLOAT32_TOLERANCE, relative_error

pytest.importorskip("triton", reason="triton is not installed; the extra `gpu` has it")
from leadline.kernels.triton.dense import linear, router_logits, vocab_logits

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_alone_has_the_bits_that_it_has_among_others(dtype: torch.dtype) -> None:
    """K in four parts, the last one shorter; 70 tokens are two tiles."""
    x, weight = torch.randn(70, 1100), torch.randn(90, 1100)
    x, weight = x.to(DEVICE, dtype), weight.to(DEVICE, dtype)
    together = vocab_logits(x, weight)
    exact = x.double() @ weight.double().T
    assert together.dtype == torch.float32
    assert relative_error(together, exact) < FLOAT32_TOLERANCE
    for row in (0, 69):
        assert torch.equal(vocab_logits(x[row : row + 1], weight), together[row : row + 1])
    assert torch.equal(linear(x, weight), together.to(dtype))


def test_the_router_takes_bfloat16_rows() -> None:
    x, gate = torch.randn(3, 600, device=DEVICE).bfloat16(), torch.randn(16, 600, device=DEVICE)
    exact = x.double() @ gate.double().T
    assert relative_error(router_logits(x, gate), exact) < FLOAT32_TOLERANCE


def test_rows_of_a_wider_tensor() -> None:
    wide, weight = torch.randn(5, 300, device=DEVICE), torch.randn(20, 160, device=DEVICE)
    part = wide[:, 100:260]
    assert torch.equal(linear(part, weight), linear(part.contiguous(), weight))


def test_a_weight_of_another_precision_is_refused() -> None:
    with pytest.raises(TypeError, match=r"torch\.float32 with weights of torch\.bfloat16"):
        linear(torch.randn(2, 32), torch.randn(4, 32).bfloat16())
