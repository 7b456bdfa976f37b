"""A weight with the kernel that multiplies by it, chosen once."""

from collections.abc import Callable

from torch import Tensor

from leadline.kernels.api import KernelSet
from leadline.kernels.parameters import Weight
from leadline.kernels.types import QuantTensor


def make_linear(weight: Weight, kernels: KernelSet) -> Callable[[Tensor], Tensor]:
    """A function x_TK -> x @ weight.T of shape [T, N]."""
    if isinstance(weight, QuantTensor):
        return lambda x: kernels.linear_fp8(x, weight)
    return lambda x: kernels.linear(x, weight)
