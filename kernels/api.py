"""The contract of every operation; `reference/` is the specification that each backend must meet.

Shape suffixes: T tokens (flat, no batch dimension), B rows of the batch, D hidden, H local heads,
C kv-lora, R rope, N nope, V value head, E experts, K top-k, F expert width, S keys, G page size.

Every operation accepts zero rows. Inputs are not changed unless the contract says "in place".
Sums run in float32 whatever the dtype of the operands.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from leadline.kernels.attention import MLAAttention
from leadline.kernels.decoder import DecoderStack, FusedLayers, FusedMTP, PairingWeights
from leadline.kernels.latent_cache import LatentCacheLayer
from leadline.kernels.sampling_api import (
    CountAccepted,
    MergeShards,
    ProcessLogits,
    Sample,
    SampleShard,
    TokenLogprobs,
)
from leadline.kernels.types import QuantTensor, RouterConfig


class RMSNorm(Protocol):
    """`x / rms(x) * weight` over the last dimension, computed in float32."""

    def __call__(self, x_TD: Tensor, weight_D: Tensor, eps: float) -> Tensor:
        """Returns y_TD in the dtype of x."""
        ...


class AddRMSNorm(Protocol):
    """Residual addition followed by RMSNorm."""

    def __call__(
        self, x_TD: Tensor, residual_TD: Tensor, weight_D: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """Returns (norm(x + residual), x + residual), both TD."""
        ...


class ApplyRope(Protocol):
    """Rotates the pairs (x[2i], x[2i + 1]) by the angle of their position (RoFormer, eq. 34)."""

    def __call__(self, x_THR: Tensor, cos_TR2: Tensor, sin_TR2: Tensor) -> Tensor:
        """`cos`, `sin`: float32 [T, R / 2]. Returns the rotated [T, H, R] in the dtype of x."""
        ...


class Linear(Protocol):
    """`x @ weight.T`."""

    def __call__(self, x_TK: Tensor, weight_NK: Tensor) -> Tensor:
        """Returns [T, N] in the dtype of x."""
        ...


class LinearFP8(Protocol):
    """`x @ weight.T` with FP8 e4m3 weights scaled per 128x128 block.

    Three operations in one signature, told apart by what the backend declares:
    `activation_format` `none` (activations as they are) or `fp8_1x128`, and for the latter
    `scale_format` `fp32` or `ue8m0` of the activations' scales. A backend is compared with the
    reference of the formats that it declares.
    """

    def __call__(self, x_TK: Tensor, weight_NK: QuantTensor) -> Tensor:
        """Returns [T, N] in the dtype of x."""
        ...


class QuantizeFP8(Protocol):
    """Scales each group of 128 values along the last dimension by amax / 448; saturates."""

    def __call__(self, x_TK: Tensor, scale_format: str) -> tuple[Tensor, Tensor]:
        """`scale_format`: `fp32`, or `ue8m0` (rounded up to a power of two).

        Returns (float8_e4m3fn [T, K], float32 scales [T, ceil(K / 128)]); a group of zeros has
        scale 1.
        """
        ...


class Swiglu(Protocol):
    """`silu(gate) * up`, the product in float32."""

    def __call__(self, gate_up_T2F: Tensor) -> Tensor:
        """Gate is the first half of the last dimension. Returns [T, F] in the input's dtype."""
        ...


class VocabLogits(Protocol):
    """`hidden @ head.T`, its sums not rounded: of bfloat16 logits, many are equal."""

    def __call__(self, hidden_TD: Tensor, head_VD: Tensor) -> Tensor:
        """Both of one dtype. Returns float32 [T, V]."""
        ...


class RouterLogits(Protocol):
    """`x @ gate.T` in float32: in bfloat16 one token in ten meets another set of experts."""

    def __call__(self, x_TD: Tensor, gate_ED: Tensor) -> Tensor:
        """Gate float32, x of any dtype. Returns float32 [T, E]."""
        ...


class Route(Protocol):
    """Chooses the experts of each token, in float32 throughout.

    The bias steers the choice only; the weights are the unbiased scores. Ties: the smaller index
    wins, for groups and for experts. Experts are listed from the highest biased score down.
    """

    def __call__(
        self, logits_TE: Tensor, bias_E: Tensor | None, config: RouterConfig
    ) -> tuple[Tensor, Tensor]:
        """Logits float32. Returns (ids int64 [T, K], weights float32 [T, K])."""
        ...


@dataclass(slots=True)
class Permutation:
    """Rows sorted by expert: what `unpermute` needs to undo it.

    Attributes:
        order_R: int64, for each of the R = T * K rows the flat index `token * K + choice`.
        counts: rows of each local expert, int64 [E], on the host or, where nobody is to wait for
            a GPU, on its device.
    """

    order_R: Tensor
    counts: Tensor


class Permute(Protocol):
    """Copies each token once for each of its experts, rows sorted by expert, then by token."""

    def __call__(
        self, x_TD: Tensor, ids_TK: Tensor, num_experts: int
    ) -> tuple[Tensor, Permutation]:
        """Returns (x_RD with R = T * K, permutation)."""
        ...


class Unpermute(Protocol):
    """Weighted sum of each token's expert outputs, in routing order k = 0, 1, ..., in float32."""

    def __call__(self, y_RD: Tensor, permutation: Permutation, weights_TK: Tensor) -> Tensor:
        """Returns y_TD in the dtype of y."""
        ...


class GroupedMLP(Protocol):
    """SwiGLU MLP of each expert over its own rows."""

    def __call__(
        self,
        x_RD: Tensor,
        counts: Tensor,
        gate_up_E2FD: Tensor | QuantTensor,
        down_EDF: Tensor | QuantTensor,
    ) -> Tensor:
        """Rows of expert e follow those of expert e - 1; `counts` as in `Permutation`.

        Returns y_RD in the dtype of x.
        """
        ...


class WriteLatent(Protocol):
    """Stores new tokens' compressed latents and rotated keys in the paged cache, in place."""

    def __call__(
        self, cache: LatentCacheLayer, latent_TC: Tensor, rope_TR: Tensor, slots_T: Tensor
    ) -> None:
        """`slots`: int64, page_id * page_size + offset; a slot of -1 is skipped."""
        ...


class ReadLatent(Protocol):
    """Reads whole pages back, dequantised."""

    def __call__(self, cache: LatentCacheLayer, page_ids: Tensor) -> Tensor:
        """Returns float32 [n, G, C + R]; unwritten slots may hold any bits, NaN included."""
        ...


class MergeAttention(Protocol):
    """Merges two attention results over disjoint key sets by their log-sum-exps."""

    def __call__(
        self, o1_THV: Tensor, lse1_TH: Tensor, o2_THV: Tensor, lse2_TH: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Float32. A side with lse = -inf (no keys) counts for nothing. Returns (o, lse)."""
        ...


class NewMLAAttention(Protocol):
    """Makes the stateful attention of one model: `plan` once a step, `run` once a layer."""

    def __call__(self, *, scale: float, page_size: int) -> MLAAttention:
        """`scale`: the factor on query-key products."""
        ...


class FuseLayers(Protocol):
    """Makes a stack of decoder layers ready to run in one call, where a backend can.

    Such a stack computes what `engine/model` makes of the other operations, which is its
    specification: the same bits as these where they are the backend's own.
    """

    def __call__(self, stack: DecoderStack) -> FusedLayers | None:
        """None: the layers are to be run operation by operation."""
        ...


class FuseMTP(Protocol):
    """Makes an MTP layer ready to run and to draft in one call; as `FuseLayers`."""

    def __call__(self, stack: DecoderStack, pairing: PairingWeights) -> FusedMTP | None:
        """`stack`: its transformer layer and `shared_head.norm`."""
        ...


@dataclass(frozen=True, kw_only=True)
class KernelSet:
    """One implementation of each operation, chosen once at start by `select.select_kernels`."""

    rms_norm: RMSNorm
    add_rms_norm: AddRMSNorm
    apply_rope: ApplyRope
    linear: Linear
    linear_fp8: LinearFP8
    quantize_fp8: QuantizeFP8
    swiglu: Swiglu
    vocab_logits: VocabLogits
    router_logits: RouterLogits
    route: Route
    permute: Permute
    grouped_mlp: GroupedMLP
    unpermute: Unpermute
    write_latent: WriteLatent
    read_latent: ReadLatent
    merge_attention: MergeAttention
    mla_attention: NewMLAAttention
    process_logits: ProcessLogits
    sample: Sample
    sample_shard: SampleShard
    merge_shards: MergeShards
    count_accepted: CountAccepted
    token_logprobs: TokenLogprobs
    fuse_layers: FuseLayers
    fuse_mtp: FuseMTP
