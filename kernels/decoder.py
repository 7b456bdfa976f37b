"""Consecutive decoder layers as one operation, for backends that run them in one call."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from leadline.kernels.attention import AttentionMeta
from leadline.kernels.latent_cache import LatentCache
from leadline.kernels.parameters import LayerWeights, Weight
from leadline.kernels.sampling import SamplingBatch
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


@dataclass(slots=True)
class PairingWeights:
    """What an MTP layer has beside its transformer layer (DeepSeek-V3, section 2.2)."""

    embed_tokens: Tensor
    enorm: Tensor
    hnorm: Tensor
    eh_proj: Weight
    head: Tensor


@dataclass(slots=True)
class ChainStart:
    """B requests that want drafts.

    Attributes:
        token_ids, positions: of each one's last known token.
        nums_drafts: most drafts for each; its pages have room for them.
        hidden_BD: hidden states of the tokens before.
        page_table: int64 [B, max_pages].
        end_ids: for each, the tokens that end its text.
        sampling: of each one's next token; there are no rules about tokens.
        least_probability: a draft less likely than this is dropped, and ends its chain.
        after_norm: whether later passes take the layer's hidden state after its norm.
    """

    token_ids: Sequence[int]
    positions: Sequence[int]
    nums_drafts: Sequence[int]
    hidden_BD: Tensor
    page_table: Tensor
    end_ids: Sequence[Sequence[int]]
    sampling: SamplingBatch
    least_probability: float
    after_norm: bool


class FusedLayers(Protocol):
    """A stack that is ready to run."""

    def run(self, x_TD: Tensor, step: PagedStep) -> tuple[Tensor, Tensor]:
        """The residual stream after the last layer, normed and as it is, both [T, D].

        Args:
            x_TD: the residual stream before the first layer.
            step: the tokens; their latents are written, and attended with all before them.
        """
        ...


class FusedMTP(Protocol):
    """An MTP layer that is ready to run."""

    def run(self, hidden_TD: Tensor, ids_T: Tensor, step: PagedStep) -> tuple[Tensor, Tensor]:
        """As `FusedLayers.run`, of the pairs (hidden state of the token before, token)."""
        ...

    def write(self, hidden_TD: Tensor, ids_T: Tensor, step: PagedStep) -> None:
        """Only write the cache entries of these pairs."""
        ...

    def draft(self, start: ChainStart, cache: LatentCache) -> tuple[list[list[int]], int]:
        """Each request's drafts, and how many rows all passes of the layer had together.

        A pass drafts one token for each request whose chain goes on, as the target would sample
        it. A chain ends at its last draft, at a token that ends the text or at an unlikely one.
        """
        ...
