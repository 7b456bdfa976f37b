"""Muon (Jordan et al., 2024): momentum, orthogonalised by a Newton-Schulz iteration.

Matrices learn in about half the tokens that AdamW needs; stacked experts are one batch of matrices.
"""

import torch
from torch import Tensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalize(gradient: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrix, roughly, of each matrix [..., rows, columns]."""
    a, b, c = _COEFFICIENTS
    x = gradient.to(torch.bfloat16)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(gradient.dtype)


class Muon:
    """Optimiser of matrices; the learning rate is the step's root mean square per entry, times 5.

    Attributes:
        learning_rate: changed by the caller's schedule.
    """

    def __init__(self, parameters: list[Tensor], momentum: float = 0.95) -> None:
        self._parameters = parameters
        self._momentum = momentum
        self._buffers = [torch.zeros_like(p) for p in parameters]
        self.learning_rate = 0.0

    @torch.no_grad()
    def step(self) -> None:
        """One update from the gradients, which are cleared."""
        for parameter, buffer in zip(self._parameters, self._buffers, strict=True):
            gradient = parameter.grad
            if gradient is None:
                continue
            buffer.lerp_(gradient, 1 - self._momentum)
            update = orthogonalize(gradient.lerp(buffer, self._momentum))
            scale = max(1.0, parameter.shape[-2] / parameter.shape[-1]) ** 0.5
            parameter.add_(update, alpha=-self.learning_rate * scale)
            parameter.grad = None
