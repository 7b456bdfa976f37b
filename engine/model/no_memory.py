"""The latent cache of a step without tokens."""

from torch import Tensor

from leadline.kernels.attention import MLAProjection


class NoMemory:
    """`attention.AttentionMemory` where nothing is written and nobody attends."""

    paged = None

    def write(self, layer: int, latent_TC: Tensor, rope_TR: Tensor) -> None:
        """See `AttentionMemory.write`; there are no tokens."""
        assert len(latent_TC) == 0, "tokens without a place"

    def attend(
        self,
        layer: int,
        q_nope_THN: Tensor,
        q_rope_THR: Tensor,
        projection: MLAProjection,
        first_slot: int,
    ) -> Tensor:
        """See `AttentionMemory.attend`: no rows."""
        assert len(q_nope_THN) == 0, "queries without keys"
        return q_nope_THN.new_empty(0, q_nope_THN.shape[1], projection.w_uv_HVC.shape[1])
