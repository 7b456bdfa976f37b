"""The kernels of training: the reference ones with bfloat16 products and counted routing."""

import dataclasses

import torch
from torch import Tensor

from leadline.kernels.api import KernelSet
from leadline.kernels.reference.moe import GroupedMLP
from leadline.kernels.select import reference_kernels
from leadline.kernels.types import RouterConfig


def linear_bf16(x_TK: Tensor, weight_NK: Tensor) -> Tensor:
    """`api.Linear` with bfloat16 operands, sums in float32.

    Rows are padded to a multiple of 128: oneDNN compiles a kernel for every new shape, which costs
    far more than the product of an expert's few rows.
    """
    num_rows = x_TK.shape[0]
    padded = torch.nn.functional.pad(x_TK.to(torch.bfloat16), (0, 0, 0, -num_rows % 128))
    return (padded @ weight_NK.to(torch.bfloat16).T)[:num_rows]


class LoadCounter:
    """Routes like the reference, and counts the tokens of each expert, layer after layer."""

    def __init__(self, kernels: KernelSet) -> None:
        self._route = kernels.route
        self.counts: list[Tensor] = []

    def __call__(
        self, logits_TE: Tensor, bias_E: Tensor | None, config: RouterConfig
    ) -> tuple[Tensor, Tensor]:
        """See `api.Route`."""
        ids, weights = self._route(logits_TE, bias_E, config)
        self.counts.append(torch.bincount(ids.flatten(), minlength=logits_TE.shape[1]))
        return ids, weights

    def take(self) -> list[Tensor]:
        """The counts since the last call, one tensor [E] a layer."""
        counts, self.counts = self.counts, []
        return counts


def training_kernels() -> tuple[KernelSet, LoadCounter]:
    """The reference kernels with bfloat16 products and counted routing."""
    reference = reference_kernels()
    counter = LoadCounter(reference)
    kernels = dataclasses.replace(
        reference, linear=linear_bf16, grouped_mlp=GroupedMLP(linear_bf16), route=counter
    )
    return kernels, counter
