"""The latent cache as the layers of one step see it."""

from torch import Tensor

from leadline.kernels.api import KernelSet
from leadline.kernels.attention import AttentionMeta, MLAAttention, MLAProjection
from leadline.kernels.decoder import PagedStep
from leadline.kernels.latent_cache import LatentCache


class PagedMemory:
    """`attention.AttentionMemory` over paged latents; `plan` comes before a step's layers.

    Attributes:
        cache: the pages.
        paged: the step that was planned last.
    """

    def __init__(self, cache: LatentCache, kernels: KernelSet, *, scale: float) -> None:
        self.cache = cache
        self._kernels = kernels
        self._attention: MLAAttention = kernels.mla_attention(
            scale=scale, page_size=cache.page_size
        )
        self.paged: PagedStep | None = None

    @property
    def num_bytes(self) -> int:
        """Memory that the latents take."""
        return self.cache.num_bytes

    def plan(self, meta: AttentionMeta) -> None:
        """Prepare the attention of one step."""
        self.paged = PagedStep(meta, self.cache)
        self._attention.plan(meta)

    def write(self, layer: int, latent_TC: Tensor, rope_TR: Tensor) -> None:
        """See `AttentionMemory.write`."""
        assert self.paged is not None, "plan() comes before write()"
        slots_T = self.paged.meta.slots_T
        self._kernels.write_latent(self.cache.layers[layer], latent_TC, rope_TR, slots_T)

    def attend(
        self,
        layer: int,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        projection: MLAProjection,
        first_slot: int,
    ) -> Tensor:
        """See `AttentionMemory.attend`."""
        cache = self.cache.layers[layer]
        return self._attention.run(q_nope_THN, q_rope_THR, cache, projection, first_slot)
