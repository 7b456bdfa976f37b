"""Consecutive decoder layers as one operation, for backends that run them in one call."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from leadline.kernels.attention import AttentionMeta
from leadline.kernels.latent_cache import LatentCache
from leadline.kernels.parameters import LayerWeights
from leadline.kernels.types import RouterConfig


@dataclass(slots=True)
class PagedStep:
    """The new tokens of a step, and the pages of all layers."""

    meta: AttentionMeta
    cache: LatentCache


@dataclass(slots=True, kw_only=True)
class DecoderStack:
    """Consecutive layers, all of whose weights are here, and the norm after the last one.

    Attributes:
        num_chosen: for each layer the counts of its experts' tokens, int64 [E], which go up with
            every pass, in place; None for a dense layer.
        first_layer: of the cache, for the first of them.
        first_slot: see `MLAAttention`.
        latent_eps: of the norms of compressed queries and latents; `eps`: of all others.
        scale: the factor on query-key products.
        cos, sin: rotary tables, float32 [positions, R / 2].
    """

    layers: list[LayerWeights]
    norm: Tensor
    router: RouterConfig
    num_chosen: list[Tensor | None]
    first_layer: int
    first_slot: int
    eps: float
    latent_eps: float
    scale: float
    cos: Tensor
    sin: Tensor


class FusedLayers(Protocol):
    """A stack that is ready to run."""

    def run(self, x_TD: Tensor, step: PagedStep) -> tuple[Tensor, Tensor]:
        """The residual stream after the last layer, normed and as it is, both [T, D].

        Args:
            x_TD: the residual stream before the first layer.
            step: the tokens; their latents are written, and attended with all before them.
        """
        ...

    def write(self, x_TD: Tensor, step: PagedStep) -> None:
        """Only write the first layer's cache entries: input norm and compression."""
        ...
